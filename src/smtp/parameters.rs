//! The parameters behind a path: `SIZE=1000 BODY=8BITMIME` (RFC 5321 §4.1.2, RFC 1870,
//! RFC 6152), what is asked about reports (RFC 3461 §4), and AUTH (RFC 4954 §5).

use std::str::FromStr;

use crate::mail::address::Mailbox;
use crate::mail::dsn_request::{MessageRequest, NotOfTheForm, RecipientRequest, decode_xtext};
use crate::spool::envelope::Body;

const ENVID_FORM: &str = "ENVID is up to 100 characters of xtext";
const NOTIFY_FORM: &str = "NOTIFY is NEVER, or a list of SUCCESS, FAILURE and DELAY";
const AUTH_FORM: &str = "AUTH is <>, or a mailbox as xtext";
const ORCPT_FORM: &str = "ORCPT is an address type, a semicolon and xtext";

/// What MAIL said about the message to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailParameters {
    /// The declared size in octets (RFC 1870 §6).
    pub size: Option<u64>,
    /// `BODY=`; 7BIT where nothing is said (RFC 6152 §3).
    pub body: Body,
    /// `RET=` and `ENVID=` (RFC 3461 §4.3 and §4.4).
    pub request: MessageRequest,
    /// Whether `AUTH=` was there. Whom it names is not kept: no client is trusted to say who
    /// wrote a message, so each value means `<>` (RFC 4954 §5).
    pub has_auth: bool,
}

/// Why parameters were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterError {
    /// Not of the form `keyword` or `keyword=value`, or said twice.
    Malformed,
    /// A keyword that belongs to no extension offered here (RFC 5321 §4.1.1.11: 555).
    Unknown(String),
    /// A known keyword with a value that it cannot have.
    BadValue(&'static str),
}

impl MailParameters {
    /// Reads what stands behind the reverse-path.
    ///
    /// # Errors
    /// The first parameter that cannot be taken.
    pub fn parse(text: &str) -> Result<Self, ParameterError> {
        let (mut size, mut body, mut request) = (None, None, MessageRequest::default());
        let mut auth = None;
        for parameter in each(text) {
            let (keyword, value) = parameter?;
            match keyword.to_ascii_uppercase().as_str() {
                "SIZE" => set(&mut size, size_value(value)?)?,
                "BODY" => set(&mut body, body_value(value)?)?,
                "RET" => set(&mut request.ret, read(value, "RET is FULL or HDRS")?)?,
                "ENVID" => set(&mut request.envelope_id, read(value, ENVID_FORM)?)?,
                "AUTH" => set(&mut auth, check_auth(value)?)?,
                _ => return Err(ParameterError::Unknown(keyword.to_owned())),
            }
        }
        let has_auth = auth.is_some();
        Ok(Self { size, body: body.unwrap_or(Body::SevenBit), request, has_auth })
    }
}

/// Reads what stands behind the forward-path.
///
/// # Errors
/// The first parameter that cannot be taken.
pub fn parse_rcpt_parameters(text: &str) -> Result<RecipientRequest, ParameterError> {
    let mut request = RecipientRequest::default();
    for parameter in each(text) {
        let (keyword, value) = parameter?;
        match keyword.to_ascii_uppercase().as_str() {
            "NOTIFY" => set(&mut request.notify, read(value, NOTIFY_FORM)?)?,
            "ORCPT" => set(&mut request.original, read(value, ORCPT_FORM)?)?,
            _ => return Err(ParameterError::Unknown(keyword.to_owned())),
        }
    }
    Ok(request)
}

/// The parameters one by one: keyword and, where there is one, value.
fn each(text: &str) -> impl Iterator<Item = Result<(&str, Option<&str>), ParameterError>> {
    text.split(' ').filter(|word| !word.is_empty()).map(|word| {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (word, None),
        };
        if is_keyword(keyword) && value.is_none_or(is_value) {
            Ok((keyword, value))
        } else {
            Err(ParameterError::Malformed)
        }
    })
}

fn is_keyword(keyword: &str) -> bool {
    keyword.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_value(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() && b != b'=')
}

fn set<T>(slot: &mut Option<T>, value: T) -> Result<(), ParameterError> {
    if slot.replace(value).is_some() { Err(ParameterError::Malformed) } else { Ok(()) }
}

/// 1 to 20 digits (RFC 1870 §4); what is beyond a `u64` is too large all the same.
fn size_value(value: Option<&str>) -> Result<u64, ParameterError> {
    match value {
        Some(digits) if digits.len() <= 20 && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(digits.parse().unwrap_or(u64::MAX))
        }
        _ => Err(ParameterError::BadValue("SIZE takes a number of octets")),
    }
}

/// Reads a value of a type of its own, or says what form it has.
fn read<T: FromStr<Err = NotOfTheForm>>(
    value: Option<&str>,
    form: &'static str,
) -> Result<T, ParameterError> {
    value.and_then(|value| value.parse().ok()).ok_or(ParameterError::BadValue(form))
}

/// `<>`, or a mailbox in xtext (RFC 4954 §5).
fn check_auth(value: Option<&str>) -> Result<(), ParameterError> {
    let is_mailbox =
        |value| decode_xtext(value).is_some_and(|mailbox| mailbox.parse::<Mailbox>().is_ok());
    match value {
        Some(value) if value == "<>" || is_mailbox(value) => Ok(()),
        _ => Err(ParameterError::BadValue(AUTH_FORM)),
    }
}

fn body_value(value: Option<&str>) -> Result<Body, ParameterError> {
    match value {
        Some(value) if value.eq_ignore_ascii_case("7BIT") => Ok(Body::SevenBit),
        Some(value) if value.eq_ignore_ascii_case("8BITMIME") => Ok(Body::EightBitMime),
        _ => Err(ParameterError::BadValue("BODY is 7BIT or 8BITMIME")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_parameters_are_read_in_any_case() {
        let request = MessageRequest::default();
        let (size, body, has_auth) = (None, Body::SevenBit, false);
        let none = MailParameters { size, body, request: request.clone(), has_auth };
        assert_eq!(MailParameters::parse(""), Ok(none.clone()));
        assert_eq!(MailParameters::parse("  "), Ok(none));
        let (size, body) = (Some(1000), Body::EightBitMime);
        let both = MailParameters { size, body, request, has_auth };
        assert_eq!(MailParameters::parse(" size=1000  Body=8BitMime"), Ok(both));
        let huge = MailParameters::parse("SIZE=99999999999999999999").unwrap();
        assert_eq!(huge.size, Some(u64::MAX));
    }

    #[test]
    fn the_submitter_is_read_and_forgotten() {
        for text in ["AUTH=<>", "auth=ann@x.test", "AUTH=e+3Dmc2@example.com"] {
            assert!(MailParameters::parse(text).unwrap().has_auth, "{text}");
        }
    }

    #[test]
    fn what_is_asked_about_reports_is_read() {
        let request = MailParameters::parse("ret=hdrs ENVID=a+2Bb").unwrap().request;
        let text = format!("{} {}", request.ret.unwrap(), request.envelope_id.unwrap());
        assert_eq!(text, "HDRS a+2Bb");
        assert_eq!(parse_rcpt_parameters(""), Ok(RecipientRequest::default()));
        let request = parse_rcpt_parameters(" Notify=Success,Failure ORCPT=rfc822;x").unwrap();
        let text = format!("{} {}", request.notify.unwrap(), request.original.unwrap());
        assert_eq!(text, "SUCCESS,FAILURE rfc822;x");
    }

    #[test]
    fn others_are_refused_with_the_reason() {
        use ParameterError::*;
        for (text, error) in [
            ("=1", Malformed),
            ("-X=1", Malformed),
            ("SIZE=", Malformed),
            ("SIZE=1=2", Malformed),
            ("SIZE=1 SIZE=1", Malformed),
            ("S\tZE=1", Malformed),
            ("FOO", Unknown("FOO".into())),
            ("AUTH", BadValue(AUTH_FORM)),
            ("AUTH=ann", BadValue(AUTH_FORM)),
            ("AUTH=<ann@x.test>", BadValue(AUTH_FORM)),
            ("AUTH=a+2", BadValue(AUTH_FORM)),
            ("AUTH=a+0D+0Ab@x.test", BadValue(AUTH_FORM)),
            ("AUTH=e=mc2@x.test", Malformed),
            ("AUTH=<> AUTH=<>", Malformed),
            ("SIZE", BadValue("SIZE takes a number of octets")),
            ("SIZE=-1", BadValue("SIZE takes a number of octets")),
            ("SIZE=100000000000000000000", BadValue("SIZE takes a number of octets")),
            ("BODY=BINARYMIME", BadValue("BODY is 7BIT or 8BITMIME")),
            ("RET=HDRS RET=HDRS", Malformed),
            ("RET=SOME", BadValue("RET is FULL or HDRS")),
            ("ENVID=a+0Ab", BadValue(ENVID_FORM)),
            ("NOTIFY=NEVER", Unknown("NOTIFY".into())),
        ] {
            assert_eq!(MailParameters::parse(text), Err(error), "{text:?}");
        }
        for (text, error) in [
            ("SIZE=1", Unknown("SIZE".into())),
            ("NOTIFY", BadValue(NOTIFY_FORM)),
            ("NOTIFY=NEVER,DELAY", BadValue(NOTIFY_FORM)),
            ("NOTIFY=NEVER NOTIFY=NEVER", Malformed),
            ("ORCPT=ann@x.test", BadValue(ORCPT_FORM)),
            ("ORCPT=rfc822;a+0D+0Ab", BadValue(ORCPT_FORM)),
        ] {
            assert_eq!(parse_rcpt_parameters(text), Err(error), "{text:?}");
        }
    }
}
