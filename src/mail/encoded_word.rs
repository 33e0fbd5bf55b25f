//! Text that is not ASCII in a header field (RFC 2047): `=?utf-8?q?J=C3=B6rg?=`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The longest encoded word, in octets (RFC 2047 §2).
const MAX_WORD: usize = 75;
/// The longest of our own. The line that has one may have 76 octets (RFC 2047 §2), so this leaves
/// room for the name of a field before the first.
pub(super) const MAX_OWN_WORD: usize = 60;
/// What our own begin and end with.
const BEGIN: &str = "=?utf-8?q?";
const END: &str = "?=";

/// Whether `word` is an encoded word (RFC 2047 §2), whatever its character set is.
pub fn is_encoded_word(word: &str) -> bool {
    word.len() <= MAX_WORD && parts(word).is_some()
}

/// The words of a text without line ends, fit for an unstructured field or for a phrase: printable
/// ASCII as it stands, everything else encoded. Encoded words of the text stay as they are
/// (RFC 3834 §3.1.5); none of the others becomes one by standing beside them.
pub fn words(text: &str) -> Vec<String> {
    let mut words = Words::default();
    for word in text.split_whitespace() {
        if is_encoded_word(word) {
            words.end_run(true);
            words.done.push(word.to_owned());
        } else if word.bytes().all(|octet| octet.is_ascii_graphic()) {
            words.end_run(false);
            words.done.push(word.to_owned());
        } else {
            words.run.push(word);
        }
    }
    words.end_run(false);
    words.done
}

/// The words that are done, and the run of those behind them that are to be encoded.
#[derive(Default)]
struct Words<'a> {
    done: Vec<String>,
    run: Vec<&'a str>,
}

impl Words<'_> {
    /// Encodes the run. Blanks between two encoded words are not shown (RFC 2047 §6.2), so one
    /// beside another encoded word has its blank within.
    fn end_run(&mut self, is_before_encoded: bool) {
        if self.run.is_empty() {
            return;
        }
        let mut text = std::mem::take(&mut self.run).join(" ");
        if self.done.last().is_some_and(|word| is_encoded_word(word)) {
            text.insert(0, ' ');
        }
        if is_before_encoded {
            text.push(' ');
        }
        self.done.extend(encode(&text));
    }
}

/// A text as encoded words, fit for a phrase, each with whole characters in it.
pub(super) fn encode(text: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::from(BEGIN));
    for c in text.chars() {
        let encoded = encode_char(c);
        if word.len() + encoded.len() + END.len() > MAX_OWN_WORD {
            words.push(word + END);
            word = BEGIN.into();
        }
        word.push_str(&encoded);
    }
    words.push(word + END);
    words
}

/// The encoding Q (RFC 2047 §4.2), with the few characters that stand for themselves everywhere,
/// in a phrase too (§5 (3)).
fn encode_char(c: char) -> String {
    match c {
        ' ' => "_".into(),
        c if c.is_ascii_alphanumeric() || "!*+-/".contains(c) => c.into(),
        c => c.encode_utf8(&mut [0; 4]).bytes().map(|octet| format!("={octet:02X}")).collect(),
    }
}

/// The text that a reader is shown: encoded words decoded, as far as their character set is UTF-8,
/// ASCII or Latin-1, and control characters taken out.
pub fn decode(text: &str) -> String {
    let mut decoded = String::new();
    let mut is_behind_encoded = false;
    for word in text.split_whitespace() {
        let found = parts(word).and_then(|parts| parts.decode());
        if !(decoded.is_empty() || is_behind_encoded && found.is_some()) {
            decoded.push(' ');
        }
        is_behind_encoded = found.is_some();
        decoded.push_str(found.as_deref().unwrap_or(word));
    }
    decoded.chars().filter(|c| !c.is_control()).collect()
}

/// The parts of an encoded word.
struct Parts<'a> {
    charset: &'a str,
    encoding: &'a str,
    text: &'a str,
}

fn parts(word: &str) -> Option<Parts<'_>> {
    let inside = word.strip_prefix("=?")?.strip_suffix("?=")?;
    let mut parts = inside.split('?');
    let (charset, encoding, text) = (parts.next()?, parts.next()?, parts.next()?);
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    let is_known = encoding.eq_ignore_ascii_case("q") || encoding.eq_ignore_ascii_case("b");
    let is_word = parts.next().is_none() && is_known && is_token(charset) && is_token(text);
    is_word.then_some(Parts { charset, encoding, text })
}

impl Parts<'_> {
    fn decode(&self) -> Option<String> {
        let octets = match self.encoding.eq_ignore_ascii_case("b") {
            true => STANDARD.decode(self.text).ok()?,
            false => decode_q(self.text)?,
        };
        // RFC 2231 §5: a language may stand behind the name.
        let charset = self.charset.split('*').next().unwrap_or_default().to_ascii_lowercase();
        match charset.as_str() {
            "utf-8" | "us-ascii" => Some(String::from_utf8_lossy(&octets).into_owned()),
            "iso-8859-1" | "iso-8859-15" | "windows-1252" => {
                Some(octets.into_iter().map(char::from).collect())
            }
            _ => None,
        }
    }
}

fn decode_q(text: &str) -> Option<Vec<u8>> {
    let (mut octets, mut rest) = (Vec::new(), text.bytes());
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'_' => b' ',
            b'=' => hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?,
            octet => octet,
        });
    }
    Some(octets)
}

fn hex_digit(octet: u8) -> Option<u8> {
    char::from(octet).to_digit(16).and_then(|digit| digit.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ascii_stays_and_the_rest_is_encoded() {
        for (text, expected) in [
            ("", ""),
            ("  a \t b  ", "a b"),
            ("gr\u{fc}\u{df}e an alle", "=?utf-8?q?gr=C3=BC=C3=9Fe?= an alle"),
            ("\u{e4} \u{f6} x", "=?utf-8?q?=C3=A4_=C3=B6?= x"),
            ("=?koi8-r?b?8NLJ?= x", "=?koi8-r?b?8NLJ?= x"),
            ("\u{e4} =?a?q?b?= \u{f6}", "=?utf-8?q?=C3=A4_?= =?a?q?b?= =?utf-8?q?_=C3=B6?="),
            ("=?a?q?b =?a?x?b?= =??q?b?=", "=?a?q?b =?a?x?b?= =??q?b?="),
            ("a\0b", "=?utf-8?q?a=00b?="),
        ] {
            assert_eq!(words(text).join(" "), expected, "{text:?}");
        }
    }

    #[test]
    fn readers_see_the_text() {
        for (text, expected) in [
            ("a  b", "a b"),
            ("=?utf-8?q?J=C3=B6rg_x?= y", "J\u{f6}rg x y"),
            ("=?UTF-8*de?B?SsO2cmc=?= =?iso-8859-1?Q?=F6?=", "J\u{f6}rg\u{f6}"),
            ("=?koi8-r?b?8NLJ?=", "=?koi8-r?b?8NLJ?="),
            ("=?utf-8?q?=4?= =?utf-8?b?!?=", "=?utf-8?q?=4?= =?utf-8?b?!?="),
            ("=?utf-8?q?a=0D=0ABcc:_x?=", "aBcc: x"),
        ] {
            assert_eq!(decode(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(text in any::<String>(), near in "[=?qbQu8 \u{e4}_A-]{0,60}") {
            for text in [text, near] {
                let words = words(&text);
                for word in &words {
                    prop_assert!(word.bytes().all(|octet| octet.is_ascii_graphic()), "{}", word);
                    let is_ours = word.starts_with(BEGIN) && word.len() > MAX_OWN_WORD;
                    prop_assert!(!is_ours || text.contains(word.as_str()));
                }
                let has_encoded = text.split_whitespace().any(|word| parts(word).is_some());
                if !has_encoded && !text.contains(char::is_control) {
                    let plain = text.split_whitespace().collect::<Vec<_>>().join(" ");
                    prop_assert_eq!(decode(&words.join(" ")), plain);
                }
            }
        }
    }
}
