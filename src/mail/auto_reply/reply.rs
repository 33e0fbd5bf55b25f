//! The text of a reply (RFC 3834 §3). All of it is ASCII, so that any host takes it.

use super::template::{Author, Template, unfolded};
use super::threading;
use crate::mail::address::Mailbox;
use crate::mail::display_name;
use crate::mail::encoded_word;
use crate::mail::header;
use crate::mail::quoted_printable;

/// What stands for the Subject of the message that is answered.
const VARIABLE: &str = "$SUBJECT";
/// How often that is filled in.
const MAX_FILLED: usize = 16;
/// The most characters of a Subject that is repeated: little of what others wrote goes on
/// (RFC 3834 §3.2).
const MAX_REPEATED: usize = 200;
/// The most characters of a whole Subject.
const MAX_SUBJECT: usize = 400;
/// The Subject of a reply to a message without one.
const NO_SUBJECT: &str = "your message";
/// A line of fields is folded before it is longer: one with an encoded word may have no more
/// (RFC 2047 §2).
const MAX_WIDTH: usize = 76;
/// The longest line of text that goes as it stands, in octets without its end (RFC 5322 §2.1.1).
const MAX_LINE: usize = 998;

/// A reply to one message.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// What the user wrote.
    pub template: &'a Template,
    /// The user's address.
    pub from: &'a Mailbox,
    /// Whom the reply is for.
    pub to: &'a Mailbox,
    /// The reply's own queue id; makes its Message-ID.
    pub id: &'a str,
    /// The name of this host.
    pub host: &'a str,
    /// Now, as RFC 5322 §3.3 writes it.
    pub date: &'a str,
    /// The message that is answered, or its beginning with the header section.
    pub original: &'a [u8],
}

impl Reply<'_> {
    /// The message, lines ended by CRLF.
    pub fn message(&self) -> String {
        let Self { template, from, to, id, host, date, .. } = self;
        let original = self.original_subject();
        let own = Author { name: String::new(), mailbox: (*from).clone() };
        let from = author_field("From", template.from.as_ref().unwrap_or(&own));
        let reply_to = template.reply_to.as_ref();
        let reply_to = reply_to.map(|author| author_field("Reply-To", author)).unwrap_or_default();
        let subject = folded("Subject", &encoded_word::words(&self.subject(&original)));
        let thread = self.thread_fields();
        let text = template.text.replacen(VARIABLE, &encoded_word::decode(&original), MAX_FILLED);
        let (encoding, text) = encoded(&text);
        format!(
            "{from}To: <{to}>\r\n{reply_to}{subject}Date: {date}\r\nMessage-ID: <{id}@{host}>\r\n\
             {thread}\
             Auto-Submitted: auto-replied\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: {encoding}\r\n\
             \r\n\
             {text}"
        )
    }

    /// The Subject of the message, in one line of bounded length; empty where it has none.
    fn original_subject(&self) -> String {
        let field = header::fields(self.original).find(|field| field.is_named("Subject"));
        field.map(|field| shortened(&unfolded(field.body), MAX_REPEATED)).unwrap_or_default()
    }

    /// RFC 3834 §3.1.5: what tells an automatic reply, then the Subject of the message.
    fn subject(&self, original: &str) -> String {
        let original = if original.is_empty() { NO_SUBJECT } else { original };
        match &self.template.subject {
            Some(subject) => {
                shortened(&subject.replacen(VARIABLE, original, MAX_FILLED), MAX_SUBJECT)
            }
            None => format!("Auto: {original}"),
        }
    }

    /// RFC 3834 §3.1.6.
    fn thread_fields(&self) -> String {
        let Some(thread) = threading::read(self.original) else { return String::new() };
        folded("In-Reply-To", &[thread.id]) + &folded("References", &thread.references)
    }
}

/// The words of `text` that have together at most so many characters; `...` stands for the rest. No
/// encoded word is torn apart.
fn shortened(text: &str, most: usize) -> String {
    let mut short = String::new();
    let mut left = most;
    for word in text.split(' ') {
        let length = word.chars().count() + 1;
        if length > left && !(short.is_empty() && encoded_word::is_encoded_word(word)) {
            // A single word without end.
            if short.is_empty() {
                short.extend(word.chars().take(most));
            }
            return short + " ...";
        }
        left = left.saturating_sub(length);
        if !short.is_empty() {
            short.push(' ');
        }
        short.push_str(word);
    }
    short
}

fn author_field(name: &str, author: &Author) -> String {
    let mut words = if author.name.is_empty() { vec![] } else { display_name::words(&author.name) };
    words.push(format!("<{}>", author.mailbox));
    folded(name, &words)
}

/// A field of these words, folded before them where a line would get too long.
fn folded(name: &str, words: &[String]) -> String {
    let mut field = format!("{name}:");
    let mut width = field.len();
    for word in words {
        if width + 1 + word.len() > MAX_WIDTH {
            field.push_str("\r\n");
            width = 0;
        }
        field.push(' ');
        field.push_str(word);
        width += 1 + word.len();
    }
    field + "\r\n"
}

/// The text and its Content-Transfer-Encoding.
fn encoded(text: &str) -> (&'static str, String) {
    let is_plain = |octet: u8| octet.is_ascii_graphic() || matches!(octet, b' ' | b'\t');
    let is_seven_bit = |line: &str| line.len() <= MAX_LINE && line.bytes().all(is_plain);
    if !text.lines().all(is_seven_bit) {
        return ("quoted-printable", quoted_printable::encode(text));
    }
    ("7bit", text.lines().map(|line| format!("{line}\r\n")).collect())
}
