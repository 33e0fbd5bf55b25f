//! Enhanced status codes (RFC 3463): the three numbers that say what became of a command
//! or a recipient, for programs to read.

use std::fmt;
use std::str::FromStr;

/// An enhanced status code, `class.subject.detail` (RFC 3463 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    class: u8,
    subject: u16,
    detail: u16,
}

impl Status {
    /// A code with the given parts. The class is 2 (success), 4 (persistent transient
    /// failure) or 5 (permanent failure); subject and detail have at most three digits.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        assert!(matches!(class, 2 | 4 | 5), "RFC 3463 has the classes 2, 4 and 5 only");
        assert!(subject <= 999 && detail <= 999, "RFC 3463 allows three digits");
        Self { class, subject, detail }
    }

    /// Whether the failure may pass if the same is tried again.
    pub const fn is_temporary(self) -> bool {
        self.class == 4
    }

    /// Whether trying again is of no use.
    pub const fn is_permanent(self) -> bool {
        self.class == 5
    }

    /// Whether it is about the mail system of a host (RFC 3463 §3.4).
    pub const fn is_about_mail_system(self) -> bool {
        self.subject == 3
    }

    /// Subject and detail, which say what it is about (RFC 3463 §3).
    pub const fn topic(self) -> (u16, u16) {
        (self.subject, self.detail)
    }

    /// The same subject and detail as a permanent failure: what a temporary one turns into
    /// when its time has run out.
    pub const fn into_permanent(self) -> Self {
        Self { class: 5, ..self }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// The text is no enhanced status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAStatus;

impl fmt::Display for NotAStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an enhanced status code (RFC 3463)")
    }
}

impl std::error::Error for NotAStatus {}

impl FromStr for Status {
    type Err = NotAStatus;

    /// Reads `class "." subject "." detail` (RFC 3463 §2): no leading zeros, no blanks.
    fn from_str(text: &str) -> Result<Self, NotAStatus> {
        let mut parts = text.split('.');
        let mut part = || number(parts.next()?);
        let (class, subject, detail) =
            (|| Some((part()?, part()?, part()?)))().ok_or(NotAStatus)?;
        if parts.next().is_some() || !matches!(class, 2 | 4 | 5) {
            return Err(NotAStatus);
        }
        Ok(Self { class: class as u8, subject, detail })
    }
}

fn number(digits: &str) -> Option<u16> {
    let plain = !digits.is_empty()
        && digits.len() <= 3
        && digits.bytes().all(|b| b.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    if plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints_and_nothing_else() {
        for text in ["2.0.0", "4.4.1", "5.1.10", "5.999.999"] {
            assert_eq!(text.parse::<Status>().unwrap().to_string(), text);
        }
        for text in ["", "5", "5.1", "5.1.1.1", "3.0.0", "5.01.1", "5.1.1000", "5.+1.1", "5.1.1 "] {
            assert_eq!(text.parse::<Status>(), Err(NotAStatus), "{text:?}");
        }
    }

    #[test]
    fn a_temporary_failure_becomes_permanent_with_the_same_subject() {
        assert_eq!(Status::new(4, 4, 7).into_permanent(), Status::new(5, 4, 7));
    }
}
