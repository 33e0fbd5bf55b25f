//! What is wrong with a configuration file, line by line.

use std::fmt;

/// The most mistakes that are reported at once, so that a file which is no configuration at
/// all does not fill the log.
const MAX_MISTAKES: usize = 100;
/// The most characters of a value that a message repeats.
const MAX_SHOWN: usize = 64;

/// One mistake: where it is, what it is, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line, counted from 1; 0 when no line of the file is to blame.
    pub line: usize,
    /// One line of text without control characters. It never holds a secret.
    pub text: String,
}

/// All mistakes of a file, in the order of its lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as it was named.
    pub file: String,
    /// At least one.
    pub mistakes: Vec<Mistake>,
}

/// A line for each mistake, `FILE:LINE: TEXT`, without a line feed at the end.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = escaped(&self.file);
        for (at, mistake) in self.mistakes.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            match mistake.line {
                0 => write!(f, "{separator}{file}: {}", mistake.text)?,
                line => write!(f, "{separator}{file}:{line}: {}", mistake.text)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// A mistake that concerns the whole file.
    pub(super) fn of_file(file: &str, text: String) -> Self {
        Self { file: file.to_owned(), mistakes: vec![Mistake { line: 0, text }] }
    }
}

/// Gathers mistakes, [`MAX_MISTAKES`] of them and the number of the others.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    found: Vec<Mistake>,
    others: usize,
}

impl Mistakes {
    /// Notes a mistake in `line`; `text` is not asked for when there are too many already.
    pub(super) fn add(&mut self, line: usize, text: impl FnOnce() -> String) {
        if self.found.len() < MAX_MISTAKES {
            self.found.push(Mistake { line, text: text() });
        } else {
            self.others += 1;
        }
    }

    /// Whether none was noted.
    pub(super) const fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The error that they make together.
    pub(super) fn into_error(mut self, file: &str) -> ConfigError {
        self.found.sort_by_key(|mistake| mistake.line);
        if self.others > 0 {
            let text = format!("{} more mistakes are shown when these are mended", self.others);
            let line = self.found.last().map_or(0, |mistake| mistake.line);
            self.found.push(Mistake { line, text });
        }
        ConfigError { file: file.to_owned(), mistakes: self.found }
    }
}

/// `value` for a message: in backquotes, cut after [`MAX_SHOWN`] characters, with every
/// unprintable character escaped.
pub(super) fn shown(value: &str) -> String {
    match value.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("`{}...`", escaped(&value[..end])),
        None => format!("`{}`", escaped(value)),
    }
}

/// `text` with every unprintable character escaped; quotes and backslashes stay.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => escaped.push(c),
            _ => escaped.extend(c.escape_debug()),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_a_line_for_each_mistake() {
        let mut mistakes = Mistakes::default();
        mistakes.add(7, || "late".to_owned());
        mistakes.add(0, || "no line".to_owned());
        mistakes.add(2, || "early".to_owned());
        let error = mistakes.into_error("a\nb.ini");
        assert_eq!(error.to_string(), "a\\nb.ini: no line\na\\nb.ini:2: early\na\\nb.ini:7: late");
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted() {
        let mut mistakes = Mistakes::default();
        for line in 1..=MAX_MISTAKES + 5 {
            mistakes.add(line, || "bad".to_owned());
        }
        let error = mistakes.into_error("x");
        assert_eq!(error.mistakes.len(), MAX_MISTAKES + 1);
        assert!(
            error.to_string().ends_with("x:100: 5 more mistakes are shown when these are mended")
        );
    }

    #[test]
    fn a_value_is_shown_harmlessly() {
        for (value, text) in [
            ("plain value", "`plain value`"),
            ("\u{1b}[2J\u{202e}", "`\\u{1b}[2J\\u{202e}`"),
            ("C:\\\"x\" 'y'", "`C:\\\"x\" 'y'`"),
            ("caf\u{e9}", "`caf\u{e9}`"),
        ] {
            assert_eq!(shown(value), text);
        }
        assert_eq!(shown(&"\u{e4}".repeat(65)), format!("`{}...`", "\u{e4}".repeat(64)));
    }
}
