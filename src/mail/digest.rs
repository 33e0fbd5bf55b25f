//! Many messages as one: a text that lists them, then all of them in a multipart/digest, each as it
//! is (RFC 2046 §5.1.5). That section wants the text beside the digest and not in it, so both are
//! parts of a multipart/mixed.
//!
//! A digest is written in pieces, so that its messages never stand in memory: [`Digest::head`]; for
//! each message [`Digest::before`] and its octets; then [`Digest::tail`].

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::mail::address::Mailbox;
use crate::mail::header;
use crate::mail::hops::HopCounter;
use crate::mail::text::one_line;

/// The most characters of a subject in the subject of the whole, and in the list.
const MAX_SUBJECT: usize = 120;
/// The most characters of a date.
const MAX_DATE: usize = 40;
/// What a digest has besides each of its messages at most, in octets.
pub const MAX_BESIDE: u64 = 512;
/// The most Received fields of a message that is gathered: it began here or next door. One that
/// went further may be on its way round in a circle, which ends only because somebody counts them.
const MAX_HOPS: u32 = 2;

/// What the list says of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    date: String,
    subject: String,
}

/// Messages of one sender to one recipient.
#[derive(Clone, Debug)]
pub struct Digest<'a> {
    /// Its own queue id; makes its Message-ID.
    pub id: String,
    /// What separates the parts: up to 60 letters, digits and `_=.`, which no message must have. A
    /// random number does.
    pub boundary: String,
    /// The host that gathered them: ours.
    pub host: String,
    /// Who sent each of them.
    pub from: &'a Mailbox,
    /// Whom each of them is for.
    pub to: &'a Mailbox,
    /// Now, as RFC 5322 §3.3 writes it.
    pub date: String,
    /// The messages, in their order. Never empty.
    pub entries: Vec<Entry>,
    /// Whether any of them has octets above 127.
    pub is_eight_bit: bool,
}

impl Entry {
    /// What the header section of a message says of it; `arrival_date` where it has no date.
    pub fn of(message: &[u8], arrival_date: &str) -> Self {
        let (mut date, mut subject) = (None, None);
        for field in header::fields(message) {
            let wanted = match () {
                () if field.is_named("Date") => &mut date,
                () if field.is_named("Subject") => &mut subject,
                () => continue,
            };
            wanted.get_or_insert_with(|| unfolded(field.body));
        }
        let date = date.filter(|date| !date.is_empty()).unwrap_or_else(|| arrival_date.to_owned());
        let subject = subject.filter(|subject| !subject.is_empty());
        let subject = subject.unwrap_or_else(|| "(no subject)".to_owned());
        Self { date: one_line(&date, MAX_DATE), subject: one_line(&subject, MAX_SUBJECT) }
    }
}

/// The body of a field on one line, blanks at its ends left out (RFC 5322 §2.2.3).
fn unfolded(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.trim().chars().filter(|c| !matches!(c, '\r' | '\n')).collect()
}

impl Digest<'_> {
    /// Everything before the first message but what [`Self::before`] says; lines end with CRLF.
    pub fn head(&self) -> String {
        let Self { id, boundary, host, from, to, date, .. } = self;
        let encoding = encoding(self.is_eight_bit);
        format!(
            "From: <{from}>\r\n\
             To: <{to}>\r\n\
             Subject: {subject}\r\n\
             Date: {date}\r\n\
             Message-ID: <{id}@{host}>\r\n\
             Auto-Submitted: auto-generated\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\
             Content-Transfer-Encoding: {encoding}\r\n\
             \r\n\
             --{boundary}\r\n\
             Content-Type: text/plain; charset=us-ascii\r\n\
             \r\n\
             {text}\
             \r\n--{boundary}\r\n\
             Content-Type: multipart/digest; boundary=\"{boundary}.d\"\r\n\
             Content-Transfer-Encoding: {encoding}\r\n",
            subject = self.subject(),
            text = self.text(),
        )
    }

    /// What stands before each message.
    pub fn before(&self, is_eight_bit: bool) -> String {
        let (boundary, encoding) = (&self.boundary, encoding(is_eight_bit));
        format!(
            "\r\n--{boundary}.d\r\n\
             Content-Type: message/rfc822\r\n\
             Content-Transfer-Encoding: {encoding}\r\n\
             \r\n"
        )
    }

    /// Everything behind the last message, whose last line has its end.
    pub fn tail(&self) -> String {
        let boundary = &self.boundary;
        format!("\r\n--{boundary}.d--\r\n\r\n--{boundary}--\r\n")
    }

    /// `[pi.home] 37 messages: ` and the most frequent of their subjects.
    fn subject(&self) -> String {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        self.entries.iter().for_each(|it| *counts.entry(&it.subject).or_default() += 1);
        let most = counts.values().max();
        let first = self.entries.iter().find(|it| counts.get(&*it.subject) == most);
        let subject = first.map_or("", |it| &it.subject);
        format!("[{}] {} messages: {subject}", self.host, self.entries.len())
    }

    fn text(&self) -> String {
        let Self { host, from, to, entries, .. } = self;
        let mut text = format!(
            "This is the mail server {host}.\r\n\
             \r\n\
             <{from}>\r\n\
             has sent more messages to\r\n\
             <{to}>\r\n\
             than should go out one by one. So {count} of them come together here;\r\n\
             they follow as they are, and none is left out.\r\n\
             \r\n",
            count = entries.len(),
        );
        for Entry { date, subject } in entries {
            // Writing to a String cannot fail.
            let _ = write!(text, "{date}  {subject}\r\n");
        }
        text
    }
}

const fn encoding(is_eight_bit: bool) -> &'static str {
    if is_eight_bit { "8bit" } else { "7bit" }
}

/// Whether a message with this header section may be gathered with others: it has not come far, and
/// is no part of a conversation. What answers another message is (RFC 5322 §3.6.4), such as each
/// patch of a series but its first, unless it says of itself that a program sent it.
pub fn may_be_gathered(message: &[u8]) -> bool {
    let mut hops = HopCounter::default();
    hops.feed(message);
    let has = |is: fn(&header::Field<'_>) -> bool| header::fields(message).any(|field| is(&field));
    hops.hops() <= MAX_HOPS && (!has(is_answer) || has(is_mark))
}

/// Whether a field says that the message answers another one.
fn is_answer(field: &header::Field<'_>) -> bool {
    (field.is_named("In-Reply-To") || field.is_named("References"))
        && !field.body.trim_ascii().is_empty()
}

/// Whether a field says that a program sent the message: that of cron, that of RFC 3834 §5, or the
/// Precedence of old.
fn is_mark(field: &header::Field<'_>) -> bool {
    let word = || {
        let end = field.body.iter().position(|octet| matches!(octet, b';' | b'('));
        field.body[..end.unwrap_or(field.body.len())].trim_ascii()
    };
    let is = |text: &str| word().eq_ignore_ascii_case(text.as_bytes());
    match () {
        () if field.is_named("X-Cron-Env") => true,
        () if field.is_named("Auto-Submitted") => !is("no") && !is(""),
        () if field.is_named("Precedence") => is("bulk") || is("junk"),
        () => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(subject: &str) -> Entry {
        Entry::of(format!("Subject: {subject}\r\nDate: today\r\n\r\n").as_bytes(), "then")
    }

    #[test]
    fn an_entry_is_what_the_header_says_on_one_line() {
        for (message, date, subject) in [
            ("Subject: a\r\nDate: b\r\n\r\nx", "b", "a"),
            ("subject:\r\n a\r\n\tb \r\nSubject: c\r\n", "then", "a\tb"),
            ("Subject: \r\nDate:\r\n\r\n", "then", "(no subject)"),
            ("\r\nSubject: a\r\n", "then", "(no subject)"),
            ("Subject: \u{e9}\0\x1b[2J\r\nDate: \u{202e}\r\n", "?", "???[2J"),
        ] {
            let expected = Entry { date: date.into(), subject: subject.replace('\t', "?") };
            assert_eq!(Entry::of(message.as_bytes(), "then"), expected, "{message:?}");
        }
        let long = entry(&"x".repeat(5000));
        assert_eq!(long.subject.len(), MAX_SUBJECT);
    }

    #[test]
    fn it_has_the_form_of_the_standard() {
        let (from, to) = ("root@pi.home".parse().unwrap(), "me@far.test".parse().unwrap());
        let entries =
            ["one", "Cron <root@pi> /usr/bin/backup", "two", "Cron <root@pi> /usr/bin/backup"];
        let digest = Digest {
            id: "1jt5w0k3q8z4b".into(),
            boundary: "=_b".into(),
            host: "pi.home".into(),
            from: &from,
            to: &to,
            date: "Sun, 22 Nov 2026 03:46:52 +0000".into(),
            entries: entries.iter().map(|subject| entry(subject)).collect(),
            is_eight_bit: true,
        };
        let messages = ["A: b\r\n\r\n--=_\r\n", "\r\n\r\n\r\n"];
        let whole = [
            digest.head(),
            digest.before(true),
            messages[0].to_owned(),
            digest.before(false),
            messages[1].to_owned(),
            digest.tail(),
        ]
        .concat();
        let (header, body) = whole.split_once("\r\n\r\n").unwrap();
        for line in [
            "From: <root@pi.home>",
            "To: <me@far.test>",
            "Subject: [pi.home] 4 messages: Cron <root@pi> /usr/bin/backup",
            "Message-ID: <1jt5w0k3q8z4b@pi.home>",
            "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0",
            "Content-Transfer-Encoding: 8bit",
        ] {
            assert!(header.lines().any(|it| it == line), "{line}: {header}");
        }
        let parts: Vec<_> = body.split("\r\n--=_b\r\n").collect();
        assert_eq!(parts.len(), 2, "{whole}");
        assert!(parts[0].contains("\r\ntoday  two\r\n") && parts[0].contains("So 4 of them"));
        let (digest, end) = parts[1].split_once("\r\n--=_b.d--\r\n").unwrap();
        assert_eq!(end, "\r\n--=_b--\r\n");
        let found: Vec<_> = digest.split("\r\n--=_b.d\r\n").skip(1).collect();
        let head = |encoding| {
            format!("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n")
        };
        assert_eq!(found, [head("8bit") + messages[0], head("7bit") + messages[1]]);
        assert!(whole.lines().all(|line| line.len() <= 998));
    }

    #[test]
    fn what_beside_a_message_takes_is_within_its_bound() {
        let (from, to) = ("root@pi.home".parse().unwrap(), "me@far.test".parse().unwrap());
        let most =
            Entry::of(format!("Subject: {0}\r\nDate: {0}\r\n", "x".repeat(900)).as_bytes(), "then");
        let digest = |count| Digest {
            id: String::new(),
            boundary: "x".repeat(60),
            host: String::new(),
            from: &from,
            to: &to,
            date: String::new(),
            entries: vec![most.clone(); count],
            is_eight_bit: true,
        };
        let more = digest(11).head().len() - digest(1).head().len();
        assert!(more / 10 + digest(1).before(true).len() < MAX_BESIDE as usize);
    }

    #[test]
    fn all_is_gathered_but_conversations_and_what_has_come_far() {
        let far = "Received: x\r\n".repeat(MAX_HOPS as usize + 1);
        let near = "Received: x\r\n".repeat(MAX_HOPS as usize);
        for (header, may_be) in [
            ("", true),
            ("Subject: failed\r\n", true),
            ("Subject: [PATCH 0/30] x\r\nMessage-Id: <x@y>\r\n", true),
            ("Precedence: list\r\n", true),
            ("X-Cron-Env: <SHELL=/bin/sh>\r\n", true),
            ("In-Reply-To: <x@y>\r\n", false),
            ("Subject: Re: x\r\nreferences:\r\n <x@y>\r\n\t<y@y>\r\n", false),
            // No message is named, or not in the header.
            ("In-Reply-To: \r\nReferences:\r\n \r\n", true),
            ("Subject: x\r\n\r\nIn-Reply-To: <x@y>\r\n", true),
            (&near, true),
            (&far, false),
            (&format!("{far}X-Cron-Env: x\r\n"), false),
        ] {
            assert_eq!(may_be_gathered(header.as_bytes()), may_be, "{header}");
        }
    }

    #[test]
    fn an_answer_is_gathered_where_a_program_gave_it() {
        for (header, may_be) in [
            ("X-Cron-Env: <SHELL=/bin/sh>\r\n", true),
            ("Auto-Submitted: auto-generated\r\n", true),
            ("auto-submitted: auto-replied; owner-email=x\r\n", true),
            ("Auto-Submitted: No (really)\r\n", false),
            ("Auto-Submitted:\r\n", false),
            ("Precedence: bulk\r\n", true),
            ("Precedence: JUNK\r\n", true),
            ("Precedence: list\r\n", false),
            ("\r\nPrecedence: bulk\r\n", false),
        ] {
            let answer = format!("In-Reply-To: <x@y>\r\n{header}");
            assert_eq!(may_be_gathered(answer.as_bytes()), may_be, "{header}");
        }
    }
}
