//! The name that stands before an address (the phrase of RFC 5322 §3.2.5): written so that every
//! reader finds the text that was meant, beyond ASCII in encoded words (RFC 2047), and made from
//! a template.

use crate::mail::encoded_word;

/// The most characters of a name: with all of them encoded or quoted, no line of a field is too
/// long.
const MAX_NAME: usize = 200;
/// The longest name, in octets, that goes into a template as it is written.
const MAX_WRITTEN: usize = 200;

/// `text` as a phrase: a quoted string, or encoded words, each on a line of its own. A control
/// character becomes `?`; only the fold between two words has CR and LF. What is too long is cut.
pub fn phrase(text: &str) -> String {
    words(text).join("\r\n ")
}

/// The same as the words between which the phrase can be folded.
pub fn words(text: &str) -> Vec<String> {
    let visible = |c: char| if c.is_control() { '?' } else { c };
    let text: String = text.chars().take(MAX_NAME).map(visible).collect();
    // All of it is encoded: a dot or a comma outside would be no part of a word.
    if text.is_ascii() { vec![quoted(&text)] } else { encoded_word::encode(&text) }
}

/// A quoted string (RFC 5322 §3.2.4).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The text that a phrase says, its quotes taken off; `None` where that would need a character
/// set: it has encoded words, or is no UTF-8. A comment is part of the text.
pub fn plain_text(phrase: &[u8]) -> Option<String> {
    let phrase = str::from_utf8(phrase).ok()?;
    let (mut text, mut in_quotes) = (String::new(), false);
    let mut chars = phrase.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => in_quotes = !in_quotes,
            '\\' if in_quotes => text.extend(chars.next()),
            '\r' | '\n' => {}
            '=' if !in_quotes && chars.as_str().starts_with('?') => return None,
            c if !in_quotes && c.is_whitespace() => {
                if !text.ends_with(' ') {
                    text.push(' ');
                }
            }
            c => text.push(c),
        }
    }
    Some(text.trim().to_owned())
}

/// Whether a phrase has a comment, or what could be taken for one, outside of quotes.
pub fn has_comment(phrase: &[u8]) -> bool {
    let (mut in_quotes, mut octets) = (false, phrase.iter());
    while let Some(octet) = octets.next() {
        match octet {
            b'"' => in_quotes = !in_quotes,
            b'\\' if in_quotes => drop(octets.next()),
            b'(' | b')' if !in_quotes => return true,
            _ => {}
        }
    }
    false
}

/// A template for names: `{user}` stands for the part before the `@`, `{host}` for this host,
/// `{name}` for the name that there was, or else for the user.
#[derive(Clone, Copy, Debug)]
pub struct Template<'a> {
    /// The text. Empty: there is no name.
    pub text: &'a str,
    /// This host.
    pub host: &'a str,
}

impl Template<'_> {
    /// Whether the name that there was has a place in it.
    pub fn wants_name(&self) -> bool {
        self.text.contains("{name}")
    }

    /// The phrase for `user`; `former` is the phrase that there was. `None` where that is to stay
    /// as it is: the template does not ask for it, or it is too long to be made longer.
    pub fn phrase(&self, user: &str, former: Option<&[u8]>) -> Option<String> {
        let Some(former) = former else {
            let text = self.filled(self.text, user, user);
            return (!text.is_empty()).then(|| phrase(&text));
        };
        if !self.wants_name() || former.len() > MAX_WRITTEN {
            return None;
        }
        match plain_text(former) {
            Some(name) => Some(phrase(&self.filled(self.text, user, &name))),
            None => self.around(user, str::from_utf8(former).ok()?),
        }
    }

    /// The phrase with `{name}` as it was written, since it has encoded words.
    fn around(&self, user: &str, written: &str) -> Option<String> {
        let (before, behind) = self.text.split_once("{name}")?;
        let part = |text: &str| {
            let text = self.filled(text, user, user);
            // Blanks between two encoded words are not shown (RFC 2047 §6.2), so those that are
            // meant stand within.
            let text = if text.is_ascii() { text.trim() } else { &text };
            (!text.is_empty()).then(|| phrase(text))
        };
        let parts = [part(before), Some(written.to_owned()), part(behind)];
        Some(parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }

    /// The template with everything in its place. What comes in is not looked at again.
    fn filled(&self, template: &str, user: &str, name: &str) -> String {
        let mut text = String::new();
        let mut rest = template;
        while let Some(at) = rest.find('{') {
            text.push_str(&rest[..at]);
            rest = &rest[at..];
            let known = [("{user}", user), ("{host}", self.host), ("{name}", name)];
            let found = known.iter().find(|(word, _)| rest.starts_with(word));
            let (word, value) = found.unwrap_or(&("{", "{"));
            text.push_str(value);
            rest = &rest[word.len()..];
        }
        text.push_str(rest);
        text.chars().take(MAX_NAME).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::encoded_word::MAX_OWN_WORD;
    use proptest::prelude::*;

    #[test]
    fn a_phrase_is_quoted_or_encoded() {
        for (text, expected) in [
            ("root on pi.home.test", "\"root on pi.home.test\""),
            ("a \"b\" \\c", "\"a \\\"b\\\" \\\\c\""),
            ("a\r\nBcc: b\0", "\"a??Bcc: b?\""),
            ("M\u{fc}ller, J.", "=?utf-8?q?M=C3=BCller=2C_J=2E?="),
            ("\u{fc}\r\n", "=?utf-8?q?=C3=BC=3F=3F?="),
            ("", "\"\""),
        ] {
            assert_eq!(phrase(text), expected);
        }
        assert_eq!(phrase(&"x".repeat(2000)), format!("\"{}\"", "x".repeat(MAX_NAME)));
        let long = phrase(&"\u{1f426}".repeat(30));
        assert!(long.split("\r\n ").all(|word| word.len() <= MAX_OWN_WORD && word.ends_with("?=")));
        assert!(long.split("\r\n ").count() > 7, "{long}");
    }

    #[test]
    fn a_template_names_who_has_no_name_and_completes_a_name_if_it_asks_for_it() {
        let check = |text: &str, former: Option<&str>, expected: Option<&str>| {
            let template = Template { text, host: "pi.test" };
            let found = template.phrase("root", former.map(str::as_bytes));
            assert_eq!(found.as_deref(), expected, "{text} {former:?}");
        };
        check("{user} on {host}", None, Some("\"root on pi.test\""));
        check("{user} on {host}", Some("Cron"), None);
        check("", None, None);
        check("", Some("Cron"), None);
        check("{name} on {host}", None, Some("\"root on pi.test\""));
        check("{name} ({user}{x})", Some("\"A \\\"B\\\"\""), Some("\"A \\\"B\\\" (root{x})\""));
        check("{name} on {host}", Some("Cron \r\n\tDaemon"), Some("\"Cron Daemon on pi.test\""));
        check(
            "{name} on {host}",
            Some("=?utf-8?q?J=C3=B6?="),
            Some("=?utf-8?q?J=C3=B6?= \"on pi.test\""),
        );
        check(
            "{name} \u{fc}",
            Some("=?utf-8?q?J=C3=B6?="),
            Some("=?utf-8?q?J=C3=B6?= =?utf-8?q?_=C3=BC?="),
        );
        check("{name}", Some(&"x".repeat(MAX_WRITTEN + 1)), None);
        let template = Template { text: "{user}{host}", host: "{user}" };
        assert_eq!(template.phrase("{host}", None).as_deref(), Some("\"{host}{user}\""));
    }

    #[test]
    fn the_text_of_a_phrase_is_read() {
        for (phrase, expected) in [
            ("Ann  B.", Some("Ann B.")),
            (" \"Ann \\\"B\\\"\" C\r\n ", Some("Ann \"B\" C")),
            ("=?utf-8?q?x?=", None),
            ("\"=?utf-8?q?x?=\"", Some("=?utf-8?q?x?=")),
            ("\"Ann\r\n B\"", Some("Ann B")),
            ("\"open", Some("open")),
        ] {
            assert_eq!(plain_text(phrase.as_bytes()).as_deref(), expected, "{phrase:?}");
        }
        assert_eq!(plain_text(b"J\xf6rg"), None);
    }

    proptest! {
        #[test]
        fn a_quoted_phrase_reads_back(text in "[ -~]{0,60}") {
            prop_assert_eq!(plain_text(phrase(&text).as_bytes()), Some(text.trim().to_owned()));
        }

        #[test]
        fn no_name_ends_its_field_or_its_line(
            text in any::<String>(),
            user in any::<String>(),
            former in any::<Option<String>>(),
        ) {
            let template = Template { text: &text, host: &user };
            let former = former.as_deref().map(str::as_bytes);
            // What was written has stood in a field already.
            let written = former.is_some_and(|it| plain_text(it).is_none());
            if let Some(phrase) = template.phrase(&user, former).filter(|_| !written) {
                prop_assert!(phrase.is_ascii());
                for line in phrase.split("\r\n ") {
                    prop_assert!(!line.contains(['\r', '\n']) && line.len() <= 2 * MAX_NAME + 2);
                }
            }
        }
    }
}
