//! SASLprep (RFC 4013): names and passwords that look the same are the same octets.
//!
//! Two of its rules are left out, the one for text from right to left (§2.4) and the one for
//! characters that Unicode 3.2 did not have (§2.5). Both only refuse: what they let through is
//! prepared here as everywhere.

use icu_normalizer::ComposingNormalizerBorrowed;

use super::MAX_SECRET;

/// A name or a password cannot be one: empty, over [`MAX_SECRET`] octets, no UTF-8, or with
/// characters that RFC 4013 forbids, control characters among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden;

/// The form of a name or password that is compared and hashed. `mailwren passwd` has to use
/// it on what a person types. Printable ASCII stays as it is.
///
/// # Errors
/// The text cannot be a name or password.
pub fn prepared(text: &[u8]) -> Result<String, Forbidden> {
    if text.is_empty() || text.len() > MAX_SECRET {
        return Err(Forbidden);
    }
    let text = std::str::from_utf8(text).map_err(|_| Forbidden)?;
    let prepared = if text.is_ascii() { text.to_owned() } else { normalized(text) };
    // NFKC makes one character of up to eighteen.
    let is_good =
        !prepared.is_empty() && prepared.len() <= MAX_SECRET && !prepared.chars().any(is_forbidden);
    if is_good { Ok(prepared) } else { Err(Forbidden) }
}

fn normalized(text: &str) -> String {
    let mapped = text.chars().filter_map(|c| match c {
        _ if is_in(BLANKS, c) => Some(' '),
        _ if is_in(MAPPED_TO_NOTHING, c) => None,
        _ => Some(c),
    });
    ComposingNormalizerBorrowed::new_nfkc().normalize_iter(mapped).collect()
}

type Ranges = &'static [(u32, u32)];

fn is_in(ranges: Ranges, c: char) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&u32::from(c)))
}

fn is_forbidden(c: char) -> bool {
    // The last two of each plane are no characters.
    u32::from(c) & 0xfffe == 0xfffe || is_in(FORBIDDEN, c)
}

/// RFC 3454 table C.1.2.
const BLANKS: Ranges = &[
    (0xa0, 0xa0),
    (0x1680, 0x1680),
    (0x2000, 0x200b),
    (0x202f, 0x202f),
    (0x205f, 0x205f),
    (0x3000, 0x3000),
];

/// RFC 3454 table B.1.
const MAPPED_TO_NOTHING: Ranges = &[
    (0xad, 0xad),
    (0x34f, 0x34f),
    (0x1806, 0x1806),
    (0x180b, 0x180d),
    (0x200c, 0x200d),
    (0x2060, 0x2060),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
];

/// RFC 3454 tables C.1.2 to C.9, by RFC 4013 §2.3.
const FORBIDDEN: Ranges = &[
    (0x0, 0x1f),
    (0x7f, 0xa0),
    (0x340, 0x341),
    (0x6dd, 0x6dd),
    (0x70f, 0x70f),
    (0x1680, 0x1680),
    (0x180e, 0x180e),
    (0x2000, 0x200f),
    (0x2028, 0x202f),
    (0x205f, 0x2063),
    (0x206a, 0x206f),
    (0x2ff0, 0x2ffb),
    (0x3000, 0x3000),
    (0xe000, 0xf8ff),
    (0xfdd0, 0xfdef),
    (0xfeff, 0xfeff),
    (0xfff9, 0xffff),
    (0x1_d173, 0x1_d17a),
    (0xe_0001, 0xe_0001),
    (0xe_0020, 0xe_007f),
    (0xf_0000, 0x10_ffff),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 4013 §3 but the last, which is of text from right to left, and others.
    #[test]
    fn what_looks_the_same_is_the_same() {
        for (text, expected) in [
            ("I\u{ad}X", Some("IX")),
            ("user", Some("user")),
            ("USER", Some("USER")),
            ("\u{aa}", Some("a")),
            ("\u{2168}", Some("IX")),
            ("\u{7}", None),
            ("A\u{30a}ngstro\u{308}m", Some("\u{c5}ngstr\u{f6}m")),
            ("a\u{a0}b c", Some("a b c")),
            ("\u{1f600}", Some("\u{1f600}")),
            ("", None),
            ("\u{ad}", None),
            ("a\0", None),
            ("a\t", None),
            ("\u{7f}", None),
            ("\u{e000}", None),
            ("\u{fffd}", None),
            ("\u{1fffe}", None),
            ("\u{200e}", None),
        ] {
            assert_eq!(prepared(text.as_bytes()).ok().as_deref(), expected, "{text:?}");
        }
        assert_eq!(prepared(b"p\xe4ss"), Err(Forbidden));
    }

    #[test]
    fn a_name_has_an_end_before_and_behind() {
        assert!(prepared(&[b'a'; MAX_SECRET]).is_ok());
        assert_eq!(prepared(&[b'a'; MAX_SECRET + 1]), Err(Forbidden));
        // Three octets that become 33.
        let long = "\u{fdfa}".repeat(MAX_SECRET / 3);
        assert_eq!(prepared(long.as_bytes()), Err(Forbidden));
    }
}
