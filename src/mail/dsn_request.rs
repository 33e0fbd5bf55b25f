//! What a sender asks to be told about its message: RET and ENVID behind MAIL, NOTIFY and ORCPT
//! behind RCPT (RFC 3461 §4). The values travel with the message to the last server that knows
//! them, and come back in reports.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use crate::mail::dsn::Action;

/// The most characters of ENVID's value (RFC 3461 §4.4).
const MAX_ENVELOPE_ID: usize = 100;
/// The most characters of ORCPT's value (RFC 3461 §4.2).
const MAX_ORIGINAL_RECIPIENT: usize = 500;

/// The text is not of the form that the parameter wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOfTheForm;

/// `RET=`: how much of the message comes back when it fails (RFC 3461 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// All of it.
    Full,
    /// Its header section.
    Headers,
}

impl Return {
    const NAMES: [(Self, &str); 2] = [(Self::Full, "FULL"), (Self::Headers, "HDRS")];
}

impl fmt::Display for Return {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(value, _)| value == self);
        f.write_str(name.map_or("FULL", |(_, name)| name))
    }
}

impl FromStr for Return {
    type Err = NotOfTheForm;

    fn from_str(text: &str) -> Result<Self, NotOfTheForm> {
        let known = Self::NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        known.map(|(value, _)| *value).ok_or(NotOfTheForm)
    }
}

/// `ENVID=`: the sender's own name for the transaction (RFC 3461 §4.4), printable ASCII and
/// blanks, kept in the encoding in which it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeId(Box<str>);

impl EnvelopeId {
    /// The value that the sender meant; printable ASCII.
    pub fn decoded(&self) -> String {
        decode_xtext(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for EnvelopeId {
    /// As the parameter's value: xtext.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for EnvelopeId {
    type Err = NotOfTheForm;

    /// Reads the parameter's value: 1 to 100 characters of xtext.
    fn from_str(text: &str) -> Result<Self, NotOfTheForm> {
        let fits = (1..=MAX_ENVELOPE_ID).contains(&text.len());
        decode_xtext(text).filter(|_| fits).map(|_| Self(text.into())).ok_or(NotOfTheForm)
    }
}

/// `NOTIFY=`: of what the sender wants to hear (RFC 3461 §4.1). NEVER is none of the three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// That it was delivered.
    pub success: bool,
    /// That it failed for good.
    pub failure: bool,
    /// That it is late.
    pub delay: bool,
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let names: Vec<_> = all.iter().filter(|(is_wanted, _)| *is_wanted).collect();
        if names.is_empty() {
            return f.write_str("NEVER");
        }
        for (place, (_, name)) in names.iter().enumerate() {
            if place > 0 {
                f.write_char(',')?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

impl FromStr for Notify {
    type Err = NotOfTheForm;

    fn from_str(text: &str) -> Result<Self, NotOfTheForm> {
        let mut notify = Self::default();
        if text.eq_ignore_ascii_case("NEVER") {
            return Ok(notify);
        }
        for word in text.split(',') {
            match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => notify.success = true,
                "FAILURE" => notify.failure = true,
                "DELAY" => notify.delay = true,
                _ => return Err(NotOfTheForm),
            }
        }
        Ok(notify)
    }
}

/// `ORCPT=`: the address that the sender wrote to, whatever aliases made of it (RFC 3461 §4.2):
/// its type, and the address in the encoding in which it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalRecipient {
    address_type: Box<str>,
    address: Box<str>,
}

impl OriginalRecipient {
    /// The `rfc822` address that a recipient without ORCPT has.
    pub fn of_mailbox(mailbox: &crate::mail::address::Mailbox) -> Self {
        Self { address_type: "rfc822".into(), address: encode_xtext(&mailbox.to_string()).into() }
    }

    /// As a report names it: type, `; `, and the address decoded (RFC 3464 §2.3.1).
    pub fn decoded(&self) -> String {
        format!("{};{}", self.address_type, decode_xtext(&self.address).unwrap_or_default())
    }
}

impl fmt::Display for OriginalRecipient {
    /// As the parameter's value: type, `;`, xtext.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};{}", self.address_type, self.address)
    }
}

impl FromStr for OriginalRecipient {
    type Err = NotOfTheForm;

    fn from_str(text: &str) -> Result<Self, NotOfTheForm> {
        let (address_type, address) = text.split_once(';').ok_or(NotOfTheForm)?;
        let is_atom = |b: u8| b.is_ascii_alphanumeric() || b"-_/.+!#$%&'*?^`{|}~".contains(&b);
        let fits = text.len() <= MAX_ORIGINAL_RECIPIENT
            && !address_type.is_empty()
            && address_type.bytes().all(is_atom)
            && !address.is_empty()
            && decode_xtext(address).is_some();
        if !fits {
            return Err(NotOfTheForm);
        }
        Ok(Self { address_type: address_type.into(), address: address.into() })
    }
}

/// What was asked about a message as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageRequest {
    /// `RET=`, where it was given.
    pub ret: Option<Return>,
    /// `ENVID=`, where it was given.
    pub envelope_id: Option<EnvelopeId>,
}

/// What was asked about one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecipientRequest {
    /// `NOTIFY=`, where it was given.
    pub notify: Option<Notify>,
    /// `ORCPT=`, where it was given.
    pub original: Option<OriginalRecipient>,
}

impl RecipientRequest {
    /// Whether the sender wants to hear of this. One that asked for nothing hears of failure
    /// (RFC 3461 §5.2.6 (c)) and of delay, which §5.2.5 (b) leaves to us.
    pub fn wants(&self, action: Action) -> bool {
        let Notify { success, failure, delay } =
            self.notify.unwrap_or(Notify { success: false, failure: true, delay: true });
        match action {
            Action::Failed => failure,
            Action::Delayed => delay,
            Action::Delivered | Action::Relayed | Action::Expanded => success,
        }
    }

    /// What is asked about each of several addresses that an alias stands for: the same but for
    /// success, of which the report on the alias itself tells (RFC 3461 §5.2.7.3 (c)).
    pub fn behind_list(&self) -> Self {
        let notify = self.notify.map(|notify| Notify { success: false, ..notify });
        Self { notify, original: self.original.clone() }
    }
}

/// Encodes as xtext (RFC 3461 §4): `+`, `=` and what is not printable become `+` and two
/// digits.
pub fn encode_xtext(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for octet in text.bytes() {
        if octet.is_ascii_graphic() && octet != b'+' && octet != b'=' {
            encoded.push(char::from(octet));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "+{octet:02X}");
        }
    }
    encoded
}

/// Decodes xtext. `None` when it is none, or hides what is not printable ASCII or a blank: both
/// parameters may hold nothing else (RFC 3461 §4.2 and §4.4), and a line end would end a field.
pub fn decode_xtext(text: &str) -> Option<String> {
    let mut decoded = String::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let octet = match octet {
            b'+' => 16 * hex_digit(octets.next()?)? + hex_digit(octets.next()?)?,
            b'=' => return None,
            octet if octet.is_ascii_graphic() => octet,
            _ => return None,
        };
        if !(octet.is_ascii_graphic() || octet == b' ') {
            return None;
        }
        decoded.push(char::from(octet));
    }
    Some(decoded)
}

/// RFC 3461 §4 wants upper case; a sender that writes lower case means the same.
fn hex_digit(octet: u8) -> Option<u8> {
    char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that a value reads back as `printed`, or is refused.
    fn check<T: FromStr<Err = NotOfTheForm> + fmt::Display>(text: &str, printed: Option<&str>) {
        let read = text.parse::<T>().ok().map(|value| value.to_string());
        assert_eq!(read.as_deref(), printed, "{text:?}");
    }

    #[test]
    fn the_values_are_read_in_any_case() {
        check::<Return>("full", Some("FULL"));
        check::<Return>("HDRS", Some("HDRS"));
        check::<Return>("BODY", None);
        check::<Notify>("never", Some("NEVER"));
        check::<Notify>("DELAY,success", Some("SUCCESS,DELAY"));
        check::<Notify>("FAILURE,FAILURE", Some("FAILURE"));
        for text in ["", "NEVER,SUCCESS", "SUCCESS,", "SUCCESS, DELAY", "ALWAYS"] {
            check::<Notify>(text, None);
        }
    }

    #[test]
    fn identifiers_are_kept_as_they_came_and_hide_nothing() {
        check::<EnvelopeId>("QQ314159", Some("QQ314159"));
        check::<EnvelopeId>("a+20b+2B+3D", Some("a+20b+2B+3D"));
        assert_eq!("a+20b+2B+3D".parse::<EnvelopeId>().unwrap().decoded(), "a b+=");
        for text in ["", "a b", "a=b", "+", "+4", "+4G", "a+0D+0AX: y", "+00", "+C3+A4"] {
            check::<EnvelopeId>(text, None);
            check::<OriginalRecipient>(&format!("rfc822;{text}"), None);
        }
        check::<EnvelopeId>(&"x".repeat(100), Some(&"x".repeat(100)));
        check::<EnvelopeId>(&"x".repeat(101), None);
    }

    #[test]
    fn a_sender_hears_of_what_it_asked_for() {
        use Action::{Delayed, Delivered, Expanded, Failed, Relayed};
        let all = [Failed, Delayed, Delivered, Relayed, Expanded];
        // What was asked, what is wanted then, and what behind an alias of several.
        for (notify, wanted, behind) in [
            (None, &all[..2], &all[..2]),
            (Some("NEVER"), &[], &[]),
            (Some("SUCCESS"), &all[2..], &[]),
            (Some("FAILURE"), &all[..1], &all[..1]),
            (Some("DELAY"), &all[1..2], &all[1..2]),
            (Some("SUCCESS,FAILURE,DELAY"), &all, &all[..2]),
        ] {
            let notify = notify.map(|text| text.parse().unwrap());
            let original = "rfc822;x".parse().ok();
            let request = RecipientRequest { notify, original };
            let of = |request: &RecipientRequest| {
                all.into_iter().filter(|action| request.wants(*action)).collect::<Vec<_>>()
            };
            assert_eq!(of(&request), wanted, "{notify:?}");
            assert_eq!(of(&request.behind_list()), behind, "{notify:?}");
            assert_eq!(request.behind_list().original, request.original);
        }
        assert_eq!(Notify::default().to_string(), "NEVER");
    }

    #[test]
    fn an_original_recipient_has_a_type() {
        check::<OriginalRecipient>("rfc822;Bob@x.test", Some("rfc822;Bob@x.test"));
        let original: OriginalRecipient = "rfc822;a+2Bb@x.test".parse().unwrap();
        assert_eq!(original.decoded(), "rfc822;a+b@x.test");
        for text in ["rfc822", ";x", "rfc 822;x", "r(c);x"] {
            check::<OriginalRecipient>(text, None);
        }
        check::<OriginalRecipient>(&format!("rfc822;{}", "x".repeat(494)), None);
        let mailbox = "a+b@x.test".parse().unwrap();
        let made = OriginalRecipient::of_mailbox(&mailbox).to_string();
        assert_eq!(made, "rfc822;a+2Bb@x.test");
        check::<OriginalRecipient>(&made, Some(&made));
    }
}
