//! The text of a configuration file into sections, keys and values, each with its line.
//!
//! The `ini` crate takes the values out, but it has no line numbers once it is done, glues a
//! line without `=` to the next key, joins lines at a backslash and merges what stands there
//! twice. So the physical lines are read first, one by one, and only what is beyond doubt is
//! given to the crate, a section at a time. A line is blank, a comment (`#` or `;` first),
//! `[section]`, or `key = value`; everything else is a mistake with its line.

use std::collections::HashMap;

use ini::{Ini, ParseOption};

use super::mistake::Mistakes;

/// The largest file, in octets.
pub(super) const MAX_FILE: usize = 1 << 20;
/// The longest line, in octets.
const MAX_LINE: usize = 8 << 10;

/// What a file says, before anybody asked whether the names are known.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Document {
    /// In the order of the file, each name once.
    pub(super) sections: Vec<Section>,
}

/// `[name]` and what stands below it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// What stands in the brackets.
    pub(super) name: String,
    /// The line of the brackets, from 1.
    pub(super) line: usize,
    /// In the order of the file, each key once.
    pub(super) entries: Vec<Entry>,
}

/// `key = value`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Letters, digits, `_` and `-`.
    pub(super) key: String,
    /// The rest of the line without the blanks around it.
    pub(super) value: String,
    /// The line, from 1.
    pub(super) line: usize,
}

impl Document {
    /// The section of that very name.
    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }
}

impl Section {
    /// The entry of that very key.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// Reads the octets of a file. What is malformed goes into `mistakes` and is left out.
pub(super) fn read(octets: &[u8], mistakes: &mut Mistakes) -> Document {
    // Windows editors put a byte order mark there; it means nothing.
    let octets = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets);
    if octets.len() > MAX_FILE {
        mistakes.add(1, || "the file is larger than 1 MiB; is it a configuration?".to_owned());
        return Document::default();
    }
    let mut scan = Scan::new(mistakes);
    for (at, octets) in octets.split(|&octet| octet == b'\n').enumerate() {
        scan.line(at + 1, octets.strip_suffix(b"\r").unwrap_or(octets));
    }
    scan.finish()
}

/// The sections while their lines are being read.
struct Scan<'a> {
    mistakes: &'a mut Mistakes,
    drafts: Vec<Draft>,
    /// Where in `drafts` a name stands.
    by_name: HashMap<String, usize>,
    current: Place,
}

/// Where the line that is being read belongs.
enum Place {
    /// Above all sections.
    Top,
    /// In this draft.
    Section(usize),
    /// Below a malformed section line; what its keys mean nobody knows.
    Unknown,
}

/// A section whose values are not taken out yet.
struct Draft {
    name: String,
    line: usize,
    /// `key = value` lines.
    text: String,
    /// Keys with their lines, in order.
    keys: Vec<(String, usize)>,
    by_key: HashMap<String, usize>,
}

impl<'a> Scan<'a> {
    fn new(mistakes: &'a mut Mistakes) -> Self {
        Self { mistakes, drafts: Vec::new(), by_name: HashMap::new(), current: Place::Top }
    }

    fn line(&mut self, line: usize, octets: &[u8]) {
        match readable(octets) {
            Ok("") => {}
            Ok(text) if text.starts_with(['#', ';']) => {}
            Ok(text) if text.starts_with('[') => self.section(line, text),
            Ok(text) => self.entry(line, text),
            Err(why) => self.mistakes.add(line, || why.to_owned()),
        }
    }

    fn section(&mut self, line: usize, text: &str) {
        self.current = match section_name(text) {
            Err(why) => {
                self.mistakes.add(line, || why.to_owned());
                Place::Unknown
            }
            Ok(name) => Place::Section(self.draft(line, name)),
        };
    }

    /// The draft of `name`, a new one unless there is one already.
    fn draft(&mut self, line: usize, name: &str) -> usize {
        if let Some(&at) = self.by_name.get(name) {
            let first = self.drafts[at].line;
            self.mistakes.add(line, || {
                format!("[{name}] stands in line {first} already; put its lines there")
            });
            return at;
        }
        self.by_name.insert(name.to_owned(), self.drafts.len());
        self.drafts.push(Draft {
            name: name.to_owned(),
            line,
            text: String::new(),
            keys: Vec::new(),
            by_key: HashMap::new(),
        });
        self.drafts.len() - 1
    }

    fn entry(&mut self, line: usize, text: &str) {
        let (key, value) = match key_and_value(text) {
            Ok(pair) => pair,
            Err(why) => return self.mistakes.add(line, || why.to_owned()),
        };
        match self.current {
            Place::Unknown => {}
            Place::Top => self.mistakes.add(line, || {
                format!("{key} stands above all sections; put it below a line such as [server]")
            }),
            Place::Section(at) => self.entry_in(at, line, key, value),
        }
    }

    fn entry_in(&mut self, at: usize, line: usize, key: &str, value: &str) {
        let draft = &mut self.drafts[at];
        if let Some(first) = draft.by_key.get(key) {
            return self.mistakes.add(line, || {
                format!("[{}] {key} stands in line {first} already; remove one", draft.name)
            });
        }
        draft.by_key.insert(key.to_owned(), line);
        draft.keys.push((key.to_owned(), line));
        draft.text.extend([key, " = ", value, "\n"]);
    }

    fn finish(self) -> Document {
        let mut sections = Vec::with_capacity(self.drafts.len());
        for draft in self.drafts {
            sections.push(draft.section(self.mistakes));
        }
        Document { sections }
    }
}

impl Draft {
    /// Lets the crate take the values out.
    fn section(self, mistakes: &mut Mistakes) -> Section {
        let options =
            ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
        let Self { name, line, text, keys, .. } = self;
        let read = match Ini::load_from_str_opt(&text, options) {
            Ok(read) => read,
            Err(error) => {
                mistakes.add(line, || format!("[{name}] cannot be read: {}", error.msg));
                Ini::new()
            }
        };
        let values = read.general_section();
        let entry = |(key, line): (String, usize)| {
            let value = values.get(&key)?.to_owned();
            Some(Entry { key, value, line })
        };
        let entries = keys.into_iter().filter_map(entry).collect();
        Section { name, line, entries }
    }
}

/// The text of a line without the blanks around it.
fn readable(octets: &[u8]) -> Result<&str, &'static str> {
    if octets.len() > MAX_LINE {
        return Err("the line is longer than 8 KiB; shorten it");
    }
    let text = std::str::from_utf8(octets)
        .map_err(|_| "the line is not UTF-8; write it again in a UTF-8 editor")?;
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err("the line has a control character; write it again");
    }
    let text = text.trim();
    if text.ends_with('\\') && !text.starts_with(['#', ';']) {
        return Err("the line ends in a backslash; lines cannot be continued, so join them");
    }
    Ok(text)
}

fn section_name(text: &str) -> Result<&str, &'static str> {
    let Some((name, rest)) = text[1..].split_once(']') else {
        return Err("the section has no closing bracket; write [name]");
    };
    if !rest.is_empty() {
        return Err("text stands behind the closing bracket; put it on a line of its own");
    }
    let name = name.trim();
    if name.is_empty() {
        return Err("the section has no name; write one between the brackets");
    }
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        Ok(name)
    } else {
        Err("a section's name has only letters, digits, dots, `_` and `-`")
    }
}

fn key_and_value(text: &str) -> Result<(&str, &str), &'static str> {
    let Some((key, value)) = text.split_once('=') else {
        return Err("the line has no `=`; write `key = value`, or `#` before a comment");
    };
    let key = key.trim_end();
    if key.is_empty() {
        return Err("no key stands before the `=`; write `key = value`");
    }
    if key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
        Ok((key, value.trim_start()))
    } else {
        Err("what stands before the `=` is no key; a key has only letters, digits and `_`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(text: &str) -> Vec<(String, String, usize)> {
        let mut mistakes = Mistakes::default();
        let document = read(text.as_bytes(), &mut mistakes);
        assert!(mistakes.is_empty(), "{text:?}: {mistakes:?}");
        let entries = document.sections.into_iter().flat_map(|section| section.entries);
        entries.map(|entry| (entry.key, entry.value, entry.line)).collect()
    }

    #[test]
    fn values_are_taken_as_they_stand() {
        for (line, value) in [
            ("a=b", "b"),
            ("a = b", "b"),
            ("\t a\t=\t b \t", "b"),
            ("a =", ""),
            ("a = \t", ""),
            ("a = b;c#d", "b;c#d"),
            ("a = b ; c # d", "b ; c # d"),
            ("a = ;", ";"),
            ("a = # no comment", "# no comment"),
            ("a = \"b\" 'c'", "\"b\" 'c'"),
            ("a = 'b", "'b"),
            ("a = C:\\dir\\new", "C:\\dir\\new"),
            ("a = b = c", "b = c"),
            ("a = [b]", "[b]"),
            ("a = : b", ": b"),
            ("a = caf\u{e9}", "caf\u{e9}"),
            ("a = b\tc", "b\tc"),
        ] {
            let expected = vec![("a".to_owned(), value.to_owned(), 2)];
            assert_eq!(values(&format!("[s]\n{line}")), expected, "{line:?}");
            assert_eq!(values(&format!("[s]\r\n{line}\r\n")), expected, "{line:?} with CRLF");
        }
    }

    #[test]
    fn lines_are_counted_as_an_editor_does() {
        let text = "\u{feff}\n  # one\n ; two\n[ s.t ]\n\na = 1\nb =\n;c = 3\n  c = 4\n[u]\na = 5";
        let expected = [("a", "1", 6), ("b", "", 7), ("c", "4", 9), ("a", "5", 11)];
        let expected = expected.map(|(k, v, line)| (k.to_owned(), v.to_owned(), line));
        assert_eq!(values(text), expected);
    }

    #[test]
    fn a_comment_may_end_in_a_backslash() {
        assert_eq!(values("# C:\\\n[s]\n; \\"), []);
    }

    proptest! {
        #[test]
        fn any_value_without_a_control_character_reads_back(
            values_written in prop::collection::vec("[ -~\u{a0}-\u{2ff}]{0,30}", 0..8),
        ) {
            let mut text = "[s]\n".to_owned();
            let mut expected = Vec::new();
            for (at, value) in values_written.iter().enumerate() {
                let value = value.trim().trim_end_matches('\\').trim_end().trim_end_matches('\\');
                let value = value.trim();
                if value.ends_with('\\') {
                    continue;
                }
                text.extend([format!("k{at} = {value}\n")]);
                expected.push((format!("k{at}"), value.to_owned(), text.lines().count()));
            }
            prop_assert_eq!(values(&text), expected);
        }
    }
}
