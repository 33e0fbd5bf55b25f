//! The parameters behind a path: `SIZE=1000 BODY=8BITMIME` (RFC 5321 §4.1.2, RFC 1870,
//! RFC 6152).

use crate::spool::envelope::Body;

/// What MAIL said about the message to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailParameters {
    /// The declared size in octets (RFC 1870 §6).
    pub size: Option<u64>,
    /// `BODY=`; 7BIT where nothing is said (RFC 6152 §3).
    pub body: Body,
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
        let (mut size, mut body) = (None, None);
        for parameter in each(text) {
            let (keyword, value) = parameter?;
            match keyword.to_ascii_uppercase().as_str() {
                "SIZE" => set(&mut size, size_value(value)?)?,
                "BODY" => set(&mut body, body_value(value)?)?,
                _ => return Err(ParameterError::Unknown(keyword.to_owned())),
            }
        }
        Ok(Self { size, body: body.unwrap_or(Body::SevenBit) })
    }
}

/// Reads what stands behind the forward-path. No extension offered here has a parameter
/// there yet.
///
/// # Errors
/// The first parameter, if there is one.
pub fn parse_rcpt_parameters(text: &str) -> Result<(), ParameterError> {
    match each(text).next() {
        None => Ok(()),
        Some(Ok((keyword, _))) => Err(ParameterError::Unknown(keyword.to_owned())),
        Some(Err(error)) => Err(error),
    }
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
        let none = MailParameters { size: None, body: Body::SevenBit };
        assert_eq!(MailParameters::parse(""), Ok(none));
        assert_eq!(MailParameters::parse("  "), Ok(none));
        let both = MailParameters { size: Some(1000), body: Body::EightBitMime };
        assert_eq!(MailParameters::parse(" size=1000  Body=8BitMime"), Ok(both));
        let huge = MailParameters::parse("SIZE=99999999999999999999").unwrap();
        assert_eq!(huge.size, Some(u64::MAX));
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
            ("AUTH=<>", Unknown("AUTH".into())),
            ("SIZE", BadValue("SIZE takes a number of octets")),
            ("SIZE=-1", BadValue("SIZE takes a number of octets")),
            ("SIZE=100000000000000000000", BadValue("SIZE takes a number of octets")),
            ("BODY=BINARYMIME", BadValue("BODY is 7BIT or 8BITMIME")),
        ] {
            assert_eq!(MailParameters::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(parse_rcpt_parameters(" NOTIFY=NEVER"), Err(Unknown("NOTIFY".into())));
    }
}
