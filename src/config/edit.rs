//! A configuration file changed in place: what was not asked for keeps every octet, comments, order
//! and line ends included.
//!
//! A key that is not there yet comes behind the comment that shows its default, as the shipped file
//! has one for each, else behind the last key of its section. A section that is not there yet takes
//! the place of the comment that names it, else the end of the file.

use super::mistake::shown;

/// The text of a file that was read without a mistake.
#[derive(Clone, Debug)]
pub struct Editor {
    /// With their ends.
    lines: Vec<String>,
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Section(&'a str),
    Entry(&'a str, &'a str),
    /// `;[name]`, a section that may be.
    SectionInComment(&'a str),
    /// `;key = value`, a default.
    EntryInComment(&'a str),
    /// A comment, nothing, or what no file without a mistake has.
    Other,
}

impl Editor {
    /// Takes the text of a file.
    pub fn new(text: &str) -> Self {
        Self { lines: text.split_inclusive('\n').map(str::to_owned).collect() }
    }

    /// The text as it is now.
    pub fn text(&self) -> String {
        self.lines.concat()
    }

    /// What the file says, without the blanks around it.
    pub fn value(&self, section: &str, key: &str) -> Option<&str> {
        match line(&self.lines[self.entry(section, key)?]) {
            Line::Entry(_, value) => Some(value),
            _ => None,
        }
    }

    /// Has the file say `key = value` in `[section]`. A line that says it already stays as it is.
    ///
    /// # Errors
    /// When the value cannot stand in a line: why.
    pub fn set(&mut self, section: &str, key: &str, value: &str) -> Result<(), String> {
        if value.trim() != value || value.chars().any(char::is_control) || value.ends_with('\\') {
            return Err(format!(
                "{} cannot stand in a configuration: it must neither begin nor end with a blank, \
                 nor end with a backslash, nor have a control character",
                shown(value)
            ));
        }
        if let Some(at) = self.entry(section, key) {
            if self.value(section, key) != Some(value) {
                self.lines[at] = with_value(&self.lines[at], value);
            }
            return Ok(());
        }
        let header = self.header(section).unwrap_or_else(|| self.open(section));
        let at = self.place(header, key);
        self.insert(at, format!("{key} = {value}").trim_end());
        Ok(())
    }

    /// Takes the line of `key` out of `[section]`, if there is one.
    pub fn unset(&mut self, section: &str, key: &str) {
        if let Some(at) = self.entry(section, key) {
            self.lines.remove(at);
        }
    }

    /// Takes `[section]` out with all that it says; its comments stay.
    pub fn remove_section(&mut self, section: &str) {
        let Some(header) = self.header(section) else { return };
        let end = self.end(header);
        let mut at = 0;
        self.lines.retain(|text| {
            at += 1;
            let is_its = (header + 1..=end).contains(&at);
            !is_its || !matches!(line(text), Line::Section(_) | Line::Entry(..))
        });
    }

    fn header(&self, section: &str) -> Option<usize> {
        self.lines.iter().position(|text| line(text) == Line::Section(section))
    }

    /// The first line behind the section that begins at `header`.
    fn end(&self, header: usize) -> usize {
        let is_section = |text: &String| matches!(line(text), Line::Section(_));
        let behind = &self.lines[header + 1..];
        behind.iter().position(is_section).map_or(self.lines.len(), |at| header + 1 + at)
    }

    fn entry(&self, section: &str, key: &str) -> Option<usize> {
        let header = self.header(section)?;
        let is_it =
            |at: &usize| matches!(line(&self.lines[*at]), Line::Entry(name, _) if name == key);
        (header + 1..self.end(header)).find(is_it)
    }

    /// Where a new key of the section at `header` comes.
    fn place(&self, header: usize, key: &str) -> usize {
        let section = header + 1..self.end(header);
        let next = |text: &String| matches!(line(text), Line::SectionInComment(_));
        let own = self.lines[section.clone()].iter().position(next);
        let own = section.start..own.map_or(section.end, |at| section.start + at);
        let is_default = |at: &usize| line(&self.lines[*at]) == Line::EntryInComment(key);
        let is_entry = |at: &usize| matches!(line(&self.lines[*at]), Line::Entry(..));
        let default = own.clone().find(is_default);
        default.or_else(|| own.rev().find(is_entry)).unwrap_or(header) + 1
    }

    /// Begins a section that is not there; where its header is then.
    fn open(&mut self, section: &str) -> usize {
        let commented =
            self.lines.iter().position(|text| line(text) == Line::SectionInComment(section));
        if let Some(at) = commented.filter(|&at| self.has_no_entry_below(at)) {
            let text = self.lines[at].trim_start_matches(BYTE_ORDER_MARK).trim_start();
            self.lines[at] = text[1..].to_owned();
            return at;
        }
        let is_blank = |text: &String| text.trim_matches(BYTE_ORDER_MARK).trim().is_empty();
        if self.lines.last().is_some_and(|last| !is_blank(last)) {
            self.insert(self.lines.len(), "");
        }
        self.insert(self.lines.len(), &format!("[{section}]"));
        self.lines.len() - 1
    }

    /// Whether a section that began at `at` would take nothing from the one above it.
    fn has_no_entry_below(&self, at: usize) -> bool {
        let mut below = self.lines[at + 1..self.end(at)].iter();
        !below.any(|text| matches!(line(text), Line::Entry(..)))
    }

    fn insert(&mut self, at: usize, text: &str) {
        let is_windows = self.lines.first().is_some_and(|first| first.ends_with("\r\n"));
        let end = if is_windows { "\r\n" } else { "\n" };
        if let Some(before) = at.checked_sub(1).map(|before| &mut self.lines[before])
            && !before.ends_with('\n')
        {
            before.truncate(before.trim_end_matches('\r').len());
            before.push_str(end);
        }
        self.lines.insert(at, format!("{text}{end}"));
    }
}

/// What Windows editors put before the first line.
const BYTE_ORDER_MARK: char = '\u{feff}';

fn line(text: &str) -> Line<'_> {
    let text = text.trim_start_matches(BYTE_ORDER_MARK).trim();
    let Some(comment) = text.strip_prefix([';', '#']) else {
        return match (header(text), text.split_once('=')) {
            (Some(name), _) => Line::Section(name),
            (None, Some((key, value))) => Line::Entry(key.trim_end(), value.trim_start()),
            (None, None) => Line::Other,
        };
    };
    // An example in a text is indented.
    if comment.starts_with([' ', '\t']) {
        return Line::Other;
    }
    match (header(comment), comment.split_once('=')) {
        (Some(name), _) => Line::SectionInComment(name),
        (None, Some((key, _))) => Line::EntryInComment(key.trim_end()),
        (None, None) => Line::Other,
    }
}

/// The name in the brackets.
fn header(text: &str) -> Option<&str> {
    let (name, rest) = text.strip_prefix('[')?.split_once(']')?;
    rest.is_empty().then(|| name.trim())
}

/// The line of an entry with another value.
fn with_value(text: &str, value: &str) -> String {
    let (line, end) = text.split_at(text.trim_end_matches(['\r', '\n']).len());
    let (key, before) = line.split_once('=').unwrap_or((line, ""));
    let blank = &before[..before.len() - before.trim_start().len()];
    let blank = if before.trim().is_empty() { " " } else { blank };
    format!("{key}={blank}{value}").trim_end().to_owned() + end
}

#[cfg(test)]
mod tests;
