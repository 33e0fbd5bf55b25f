//! Takes one value after the other out of a document: from the file where it stands there,
//! else from the default in the reference, so that both walk through the same reader. A
//! value that is wrong is noted with its line and is `None`; the caller goes on and asks for
//! the others, so that all mistakes are found in one go.

use std::time::Duration;

use super::ini::{Document, Section};
use super::keys::{self, Kind, one_of};
use super::mistake::{Mistakes, shown};
use super::values;

/// The values of one section.
pub(super) struct Reader<'a> {
    /// The section as a file names it, without brackets.
    name: &'a str,
    written: Option<&'a Section>,
    reference: Option<&'static keys::Section>,
    mistakes: &'a mut Mistakes,
}

impl<'a> Reader<'a> {
    /// A reader for the section `name`, which need not be in the file.
    pub(super) fn new(document: &'a Document, name: &'a str, mistakes: &'a mut Mistakes) -> Self {
        let reference = keys::section_in_file(name).map(|(section, _)| section);
        Self { name, written: document.section(name), reference, mistakes }
    }

    /// Reads a value by `read`, whose error is a clause that says what is wrong.
    pub(super) fn value<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key);
        match read(text) {
            Ok(value) => return Some(value),
            Err(why) if !text.is_empty() => self.wrong(key, &why),
            Err(_) => {
                let allowed = self.kind(key).map_or_else(String::new, |kind| kind.to_string());
                self.wrong(key, &format!("it has no value; give {allowed}, or remove the line"));
            }
        }
        None
    }

    /// Reads one of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.value(key, |text| match choices.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
                Err(format!("{} is not known; give {}", shown(text), one_of(&words)))
            }
        })
    }

    /// Reads a number, a size or a time in seconds, whichever the reference says, within the
    /// bounds there.
    pub(super) fn number(&mut self, key: &str) -> Option<u64> {
        let kind = self.kind(key);
        self.value(key, |text| match kind {
            Some(Kind::Count(least, most)) => values::count(text, least, most),
            Some(Kind::Size(least, most)) => values::size(text, least, most),
            Some(Kind::Time(least, most)) => values::time(text, least, most).map(|t| t.as_secs()),
            _ => Err(format!("{} is no number", shown(text))),
        })
    }

    /// Reads a number of things, within the bounds of the reference.
    pub(super) fn count(&mut self, key: &str) -> Option<usize> {
        let number = self.number(key)?;
        self.value(key, |text| {
            usize::try_from(number).map_err(|_| format!("{} is out of range", shown(text)))
        })
    }

    /// Reads a time, within the bounds of the reference.
    pub(super) fn time(&mut self, key: &str) -> Option<Duration> {
        self.number(key).map(Duration::from_secs)
    }

    /// Reads a list of times, each within the bounds of the reference.
    pub(super) fn times(&mut self, key: &str) -> Option<Vec<Duration>> {
        let kind = self.kind(key);
        self.value(key, |text| match kind {
            Some(Kind::Times(least, most)) => values::times(text, least, most),
            _ => Err(format!("{} is no list of times", shown(text))),
        })
    }

    /// Whether the file has the key, and a value for it.
    pub(super) fn is_set(&self, key: &str) -> bool {
        !self.text(key).is_empty() && self.line_of(key).is_some()
    }

    /// Notes that the value of `key` is wrong.
    pub(super) fn wrong(&mut self, key: &str, why: &str) {
        let line = self.line(key);
        let name = self.name;
        self.mistakes.add(line, || format!("[{name}] {key}: {why}"));
    }

    /// Notes what is wrong with the section as a whole.
    pub(super) fn wrong_section(&mut self, why: &str) {
        let line = self.written.map_or(0, |section| section.line);
        let name = self.name;
        self.mistakes.add(line, || format!("[{name}] {why}"));
    }

    /// The section as a file names it, without brackets.
    pub(super) fn name(&self) -> &str {
        self.name
    }

    /// The section as a file writes it.
    pub(super) fn heading(&self) -> String {
        format!("[{}]", self.name)
    }

    /// The line of the key, else that of the section, else 0.
    fn line(&self, key: &str) -> usize {
        let section = self.written.map_or(0, |section| section.line);
        self.line_of(key).unwrap_or(section)
    }

    fn line_of(&self, key: &str) -> Option<usize> {
        Some(self.written?.entry(key)?.line)
    }

    fn text(&self, key: &str) -> &'a str {
        match self.written.and_then(|section| section.entry(key)) {
            Some(entry) => &entry.value,
            None => self.key(key).map_or("", |key| key.default),
        }
    }

    fn kind(&self, key: &str) -> Option<Kind> {
        self.key(key).map(|key| key.kind)
    }

    fn key(&self, key: &str) -> Option<&'static keys::Key> {
        self.reference?.key(key)
    }
}
