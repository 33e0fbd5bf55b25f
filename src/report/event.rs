//! An event in the life of a message or of the server, as one line of text. The log and the journal
//! have it from here, and whoever reads the journal reads it by the same rules:
//!
//! ```text
//! 2026-11-22T03:46:52+01:00 1h5v7c2m0k3qx relayed to=<bob@far.example> reply="250 2.0.0 \"ok\""
//! ```
//!
//! The time (RFC 3339), the id of the message, or `-` for the server itself, the [`Station`], and
//! fields, with one blank between them. A value is a word of printable ASCII without quotes and
//! backslashes, or stands in double quotes, with quotes, backslashes and what does not print
//! escaped as Rust does. Where the time is before this program was made, the clock was not set
//! then; the order of the lines is the order of the events all the same.

use std::fmt::{self, Write as _};

use crate::mail::date;
use crate::spool::id::QueueId;
use crate::sys::clock;

/// The most octets that a value takes in a line; of a longer one the rest is left out.
const MAX_VALUE: usize = 2048;
/// The most octets of a line, its end included: a dozen values and what stands before them.
pub const MAX_LINE: usize = 16 << 10;
/// What stands in the place of an id where the server itself is meant.
const SERVER: &str = "-";

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Station {
    /// The server takes mail.
    Started,
    /// The server has ended in order.
    Stopped,
    /// A message has come.
    Received,
    /// It is in a mailbox or a file, or a command has taken it.
    Delivered,
    /// The next hop has taken it.
    Relayed,
    /// It goes out in another message, together with others.
    Gathered,
    /// An alias was put in its recipient's place.
    Expanded,
    /// A try went wrong; it is tried again.
    Deferred,
    /// It will not be tried again.
    Bounced,
    /// Its sender is told, by another message.
    Reported,
    /// Its sender gets an automatic reply, another message.
    Replied,
    /// A person has it left alone.
    Held,
    /// A person has it tried again, after all.
    Released,
    /// A person has given it up; what that means to each recipient comes next.
    GivenUp,
    /// A person has removed it, and nobody is told.
    Deleted,
}

impl Station {
    const NAMES: [(Self, &str); 15] = [
        (Self::Started, "started"),
        (Self::Stopped, "stopped"),
        (Self::Received, "received"),
        (Self::Delivered, "delivered"),
        (Self::Relayed, "relayed"),
        (Self::Gathered, "gathered"),
        (Self::Expanded, "expanded"),
        (Self::Deferred, "deferred"),
        (Self::Bounced, "bounced"),
        (Self::Reported, "reported"),
        (Self::Replied, "replied"),
        (Self::Held, "held"),
        (Self::Released, "released"),
        (Self::GivenUp, "given-up"),
        (Self::Deleted, "deleted"),
    ];

    /// Its name in the log and in the journal.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(station, _)| *station == self).map_or("", |(_, name)| name)
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(station, _)| *station)
    }
}

/// The fields of an event on their way into a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(String);

impl Fields {
    /// Adds a value that is a word of ours or an address; it gets quotes only where it needs them.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        let value = value.to_string();
        if is_word(&value) && value.len() <= MAX_VALUE {
            self.push(key, &value);
            return self;
        }
        self.with_text(key, &value)
    }

    /// The same where there is a value.
    #[must_use]
    pub fn with_some(self, key: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Adds a text, in quotes.
    #[must_use]
    pub fn with_text(mut self, key: &str, text: &str) -> Self {
        self.push(key, &quoted(text));
        self
    }

    /// Adds a list with commas in between; of what is too much for a line the number stands at its
    /// end, `+3`. Each item is an address in angle brackets, or has no comma and no bracket in it.
    #[must_use]
    pub fn with_list(self, key: &str, items: impl ExactSizeIterator<Item = String>) -> Self {
        let (count, mut named, mut list) = (items.len(), 0, String::new());
        // Twice as much with each octet escaped.
        for item in items.take_while(|item| 2 * item.len() < MAX_VALUE / 2) {
            if named == MAX_NAMED || 2 * (list.len() + item.len()) > MAX_VALUE {
                break;
            }
            list += &format!("{}{item}", if named == 0 { "" } else { "," });
            named += 1;
        }
        if named < count {
            list += &format!("{}+{}", if named == 0 { "" } else { "," }, count - named);
        }
        self.with(key, list)
    }

    fn push(&mut self, key: &str, value: &str) {
        let separator = if self.0.is_empty() { "" } else { " " };
        // Writing to a string never fails.
        let _ = write!(self.0, "{separator}{key}={value}");
    }
}

/// The most items of a list that a line names.
const MAX_NAMED: usize = 10;

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a value needs no quotes.
fn is_word(value: &str) -> bool {
    let is_plain = |octet: u8| octet.is_ascii_graphic() && !matches!(octet, b'"' | b'\\');
    !value.is_empty() && value.bytes().all(is_plain)
}

/// The text in quotes, as `{:?}` has it, within the bound of a value.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        let before = quoted.len();
        match character {
            '\'' => quoted.push(character),
            _ => quoted.extend(character.escape_debug()),
        }
        if quoted.len() >= MAX_VALUE {
            quoted.truncate(before);
            break;
        }
    }
    quoted.push('"');
    quoted
}

/// The line of something that happened `seconds` after 1970, without its end.
pub fn line(seconds: u64, id: Option<QueueId>, station: Station, fields: &Fields) -> String {
    let time = clock::local_time(seconds);
    let id = id.map_or_else(|| SERVER.to_owned(), |id| id.to_string());
    format!("{} {id} {} {fields}", time.rfc3339(), station.name())
}

/// An event that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    line: String,
    /// When, in seconds since 1970 by the clock of that moment.
    pub at: u64,
    /// The message; `None` for the server itself.
    pub id: Option<QueueId>,
    /// What happened.
    pub station: Station,
    fields: Vec<(String, String)>,
    fields_at: usize,
}

impl Event {
    /// Reads a line without its end; `None` where it is none of [`line()`]'s.
    pub fn parse(line: &str) -> Option<Self> {
        if line.len() >= MAX_LINE || !is_printable(line) {
            return None;
        }
        let (time, rest) = line.split_once(' ')?;
        let (id, rest) = rest.split_once(' ')?;
        let (station, text) = rest.split_once(' ')?;
        let id = if id == SERVER { None } else { Some(id.parse().ok()?) };
        Some(Self {
            at: date::seconds_of_rfc3339(time)?,
            id,
            station: Station::from_name(station)?,
            fields: parse_fields(text)?,
            fields_at: line.len() - text.len(),
            line: line.to_owned(),
        })
    }

    /// The time as it stands in the line.
    pub fn time(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    /// The day, `2026-11-22`, as the clock of this host showed it then.
    pub fn day(&self) -> &str {
        self.time().get(..10).unwrap_or_default()
    }

    /// Whether the clock had not been set, so that nobody knows when it was.
    pub const fn was_clock_unset(&self) -> bool {
        clock::was_not_set(self.at)
    }

    /// The fields as they stand in the line, safe to be shown.
    pub fn text(&self) -> &str {
        self.line.get(self.fields_at..).unwrap_or_default()
    }

    /// All fields, without quotes and escapes.
    pub fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    /// The value of a field, without quotes and escapes.
    pub fn field(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// The other message that this one went into or led to.
    pub fn link(&self) -> Option<QueueId> {
        self.field("in")?.parse().ok()
    }

    /// The addresses in a field, without brackets; the null path is an empty one.
    pub fn addresses(&self, key: &str) -> Vec<&str> {
        self.field(key).map(addresses).unwrap_or_default()
    }
}

/// Whether nothing in the text steers a terminal or hides something.
fn is_printable(text: &str) -> bool {
    let escapes = text.bytes().filter(|octet| matches!(octet, b'"' | b'\\' | b'\'')).count();
    text.chars().flat_map(char::escape_debug).map(char::len_utf8).sum::<usize>()
        == text.len() + escapes
}

fn parse_fields(text: &str) -> Option<Vec<(String, String)>> {
    let (mut fields, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        if key.is_empty() || !key.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'_') {
            return None;
        }
        let value;
        (value, rest) = match after.strip_prefix('"') {
            Some(after) => unquoted(after)?,
            None => {
                let (word, rest) = after.split_at(after.find(' ').unwrap_or(after.len()));
                (is_word(word).then(|| word.to_owned())?, rest)
            }
        };
        fields.push((key.to_owned(), value));
        if !rest.is_empty() {
            rest = rest.strip_prefix(' ').filter(|rest| !rest.is_empty())?;
        }
    }
    Some(fields)
}

/// The text up to the closing quote, and what stands behind that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut rest) = (String::new(), text.chars());
    loop {
        let character = match rest.next()? {
            '"' => return Some((value, rest.as_str())),
            '\\' => match rest.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                '0' => '\0',
                'u' => {
                    let (digits, behind) = rest.as_str().strip_prefix('{')?.split_once('}')?;
                    rest = behind.chars();
                    char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
                }
                escaped @ ('"' | '\\' | '\'') => escaped,
                _ => return None,
            },
            plain => plain,
        };
        value.push(character);
    }
}

/// What stands in angle brackets; in a quoted local part they mean nothing.
fn addresses(list: &str) -> Vec<&str> {
    let (mut found, mut start) = (Vec::new(), None);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, octet) in list.bytes().enumerate() {
        match octet {
            _ if std::mem::take(&mut is_escaped) => {}
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b'<' if !is_quoted => start = Some(at + 1),
            b'>' if !is_quoted => found.extend(start.take().and_then(|start| list.get(start..at))),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests;
