//! What a user wrote to be sent while away: the file that vacation(1) reads.
//!
//! It is a text, before which there may be a Subject, a From and a Reply-To field and an empty
//! line. `$SUBJECT` in the Subject or the text stands for the Subject of the message that is
//! answered.

use std::fmt;

use crate::mail::address::{DomainName, Mailbox};
use crate::mail::address_list;
use crate::mail::encoded_word;
use crate::mail::header::{self, Field};

/// The fields by which a header section is told from a text that has a colon in its first line.
const FIELDS: [&str; 3] = ["Subject", "From", "Reply-To"];
/// The most characters of the name before an address.
const MAX_NAME: usize = 200;

/// What a user wrote to be sent while away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The Subject, if it is not to be made of the one that is answered.
    pub(super) subject: Option<String>,
    /// The From field, if it is not to be the user's address here (RFC 3834 §3.1.1).
    pub(super) from: Option<Author>,
    /// Where answers go instead.
    pub(super) reply_to: Option<Author>,
    /// The text. Never blank.
    pub(super) text: String,
}

/// An address and the name before it, which may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Author {
    pub(super) name: String,
    pub(super) mailbox: Mailbox,
}

/// Why a text cannot be sent. `Display` says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// It has octets that are not UTF-8.
    NotUtf8,
    /// It says nothing.
    Blank,
    /// This field has not exactly one address.
    BadAddress(&'static str),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => f.write_str("it is not in UTF-8; write it anew"),
            Self::Blank => f.write_str("it has no text"),
            Self::BadAddress(field) => {
                write!(f, "its {field} has not exactly one address; give one or remove the line")
            }
        }
    }
}

impl Template {
    /// Reads the octets of the file; `origin` is the domain of an address that has none.
    ///
    /// # Errors
    /// Why it cannot be sent.
    pub fn parse(octets: &[u8], origin: &DomainName) -> Result<Self, TemplateError> {
        let octets = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets);
        str::from_utf8(octets).map_err(|_| TemplateError::NotUtf8)?;
        let (fields, text) = sections(octets);
        let text = String::from_utf8_lossy(text).into_owned();
        if text.trim().is_empty() {
            return Err(TemplateError::Blank);
        }
        let body = |name: &str| {
            let field = fields.iter().find(|field| field.is_named(name));
            field.map(|field| unfolded(field.body)).filter(|body| !body.is_empty())
        };
        let author =
            |name: &'static str| body(name).map(|body| author(&body, origin, name)).transpose();
        Ok(Self {
            subject: body("Subject"),
            from: author("From")?,
            reply_to: author("Reply-To")?,
            text,
        })
    }
}

/// The fields before the text, and the text. Where the beginning is no whole header section, or
/// has none of our fields, all is text.
fn sections(octets: &[u8]) -> (Vec<Field<'_>>, &[u8]) {
    let mut iterator = header::fields(octets);
    let fields: Vec<_> = iterator.by_ref().collect();
    let rest = iterator.rest();
    let text = rest.strip_prefix(b"\r\n").or(rest.strip_prefix(b"\n"));
    let is_ours = |field: &Field<'_>| FIELDS.iter().any(|name| field.is_named(name));
    match text {
        Some(text) if fields.iter().any(is_ours) => (fields, text),
        _ => (Vec::new(), octets),
    }
}

/// A field body in one line, without blanks around it and without control characters.
pub(super) fn unfolded(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let line = body.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).collect()
}

fn author(body: &str, origin: &DomainName, field: &'static str) -> Result<Author, TemplateError> {
    let list = address_list::read(body.as_bytes());
    let [spec] = list.specs.as_slice() else { return Err(TemplateError::BadAddress(field)) };
    if !list.is_certain {
        return Err(TemplateError::BadAddress(field));
    }
    let mailbox = address_list::complete(&spec.text, origin);
    let mailbox = mailbox.map_err(|_| TemplateError::BadAddress(field))?;
    // Whatever stands before the angle bracket; it is quoted or encoded anew.
    let name = body.get(..spec.span.start).unwrap_or_default().trim_end_matches('<').trim();
    let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    let name = match quoted {
        Some(quoted) => quoted.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => encoded_word::decode(name),
    };
    Ok(Author { name: name.chars().take(MAX_NAME).collect(), mailbox })
}
