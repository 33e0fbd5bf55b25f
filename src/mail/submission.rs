//! What the `sendmail` command makes of its input: lines ended by CRLF, the fields that a
//! message must have (RFC 5322 §3.6), no Bcc, and on wish the recipients from its header.

use memchr::memchr2;

use crate::mail::address::{DomainName, Mailbox};
use crate::mail::address_list;
use crate::mail::header::{self, Field};

/// What the command was told, and what it knows of its surroundings.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    /// The sender's address, for a missing From. Without one there is none either.
    pub sender: Option<&'a Mailbox>,
    /// The sender's full name, for a missing From.
    pub full_name: Option<&'a str>,
    /// Now, as RFC 5322 §3.3 writes it, for a missing Date.
    pub date: &'a str,
    /// What makes a missing Message-ID unique.
    pub unique: &'a str,
    /// The domain of addresses that have none.
    pub origin: &'a DomainName,
}

/// A message that can be submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The content, lines ended by CRLF.
    pub content: Vec<u8>,
    /// The addresses in To, Cc and Bcc, or where there are such in Resent-To, Resent-Cc and
    /// Resent-Bcc (RFC 5322 §3.6.6).
    pub recipients: Vec<Mailbox>,
    /// What stood there and is no address.
    pub bad_recipients: Vec<String>,
}

/// Reads the input up to its end, or, if `dot_ends`, up to a line with nothing but a dot.
/// Lines may end with LF, CRLF or CR; the result's end with CRLF.
pub fn read_lines(input: &[u8], dot_ends: bool) -> Vec<u8> {
    let mut lines = Vec::with_capacity(input.len() + input.len() / 32);
    let mut rest = input;
    while !rest.is_empty() {
        let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        if dot_ends && line == b"." {
            break;
        }
        lines.extend_from_slice(line);
        lines.extend_from_slice(b"\r\n");
        let line_end = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = rest.get(end + line_end..).unwrap_or_default();
    }
    lines
}

/// Completes a message whose lines end with CRLF. Whatever it begins with that is no header
/// section becomes its body.
pub fn complete(message: &[u8], surroundings: &Surroundings<'_>) -> Submission {
    let message = without_from_line(message);
    let mut iterator = header::fields(message);
    let fields: Vec<_> = iterator.by_ref().collect();
    let body = iterator.rest();
    let mut content = missing_fields(&fields, surroundings).into_bytes();
    for field in &fields {
        if !field.is_named("Bcc") && !field.is_named("Resent-Bcc") {
            content.extend_from_slice(field.name);
            content.push(b':');
            content.extend_from_slice(field.body);
        }
    }
    if !body.starts_with(b"\r\n") {
        content.extend_from_slice(b"\r\n");
    }
    content.extend_from_slice(body);
    let (recipients, bad_recipients) = recipients(&fields, surroundings.origin);
    Submission { content, recipients, bad_recipients }
}

/// Drops the `From ` line of an mbox, with which some programs begin.
fn without_from_line(message: &[u8]) -> &[u8] {
    if !message.starts_with(b"From ") {
        return message;
    }
    memchr::memchr(b'\n', message).map_or(&[][..], |end| &message[end + 1..])
}

/// The fields that a message must have and `fields` lacks (RFC 5322 §3.6), and Message-ID.
pub(super) fn missing_fields(fields: &[Field<'_>], surroundings: &Surroundings<'_>) -> String {
    let Surroundings { sender, full_name, date, unique, origin } = surroundings;
    let has = |name: &str| fields.iter().any(|field| field.is_named(name));
    let mut missing = String::new();
    if let Some(sender) = sender.filter(|_| !has("From")) {
        match full_name.map(quoted_phrase) {
            Some(name) => missing.push_str(&format!("From: {name} <{sender}>\r\n")),
            None => missing.push_str(&format!("From: <{sender}>\r\n")),
        }
    }
    if !has("Date") {
        missing.push_str(&format!("Date: {date}\r\n"));
    }
    if !has("Message-ID") {
        missing.push_str(&format!("Message-ID: <{unique}@{origin}>\r\n"));
    }
    missing
}

/// A display name as a quoted string (RFC 5322 §3.2.4); what is no printable ASCII is `?`.
fn quoted_phrase(name: &str) -> String {
    let mut phrase = String::from('"');
    for c in name.chars() {
        match c {
            '"' | '\\' => phrase.extend(['\\', c]),
            ' '..='~' => phrase.push(c),
            _ => phrase.push('?'),
        }
    }
    phrase.push('"');
    phrase
}

fn recipients(fields: &[Field<'_>], origin: &DomainName) -> (Vec<Mailbox>, Vec<String>) {
    const RESENT: [&str; 3] = ["Resent-To", "Resent-Cc", "Resent-Bcc"];
    const FIRST: [&str; 3] = ["To", "Cc", "Bcc"];
    let is_one_of =
        |field: &Field<'_>, names: &[&str]| names.iter().any(|name| field.is_named(name));
    let is_resent = fields.iter().any(|field| is_one_of(field, &RESENT));
    let names = if is_resent { RESENT } else { FIRST };
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for field in fields.iter().filter(|field| is_one_of(field, &names)) {
        for spec in address_list::specs(field.body) {
            match address_list::complete(&spec, origin) {
                Ok(mailbox) if good.contains(&mailbox) => {}
                Ok(mailbox) => good.push(mailbox),
                Err(_) => bad.push(spec),
            }
        }
    }
    (good, bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn submit(message: &str) -> Submission {
        let (sender, origin) = ("ann@home.test".parse().unwrap(), "home.test".parse().unwrap());
        let surroundings = Surroundings {
            sender: Some(&sender),
            full_name: Some("Ann \"A\" \u{c4}"),
            date: "Sun, 22 Nov 2026 03:46:52 +0000",
            unique: "u",
            origin: &origin,
        };
        complete(&read_lines(message.as_bytes(), false), &surroundings)
    }

    const ADDED: &str = "From: \"Ann \\\"A\\\" ?\" <ann@home.test>\r\n\
        Date: Sun, 22 Nov 2026 03:46:52 +0000\r\nMessage-ID: <u@home.test>\r\n";

    fn check(message: &str, content: &str) {
        assert_eq!(String::from_utf8(submit(message).content).unwrap(), content);
    }

    #[test]
    fn a_message_gets_what_it_lacks() {
        check("", &format!("{ADDED}\r\n"));
        check("hello\n", &format!("{ADDED}\r\nhello\r\n"));
        check("Subject: x\n\nhello", &format!("{ADDED}Subject: x\r\n\r\nhello\r\n"));
        check("Subject: x\nhello\n", &format!("{ADDED}Subject: x\r\n\r\nhello\r\n"));
        check("From x Sun Nov\nSubject: x\n", &format!("{ADDED}Subject: x\r\n\r\n"));
        let whole = "From: a\r\nDATE: b\r\nMessage-Id: c\r\n\r\nd\r\n";
        check(whole, whole);
    }

    #[test]
    fn blind_copies_stay_blind_and_are_sent() {
        let message = "From: a\nDate: b\nMessage-ID: c\nTo: bob, Bob <bob>\nBcc: carl@x.test,\n dan\n\nBcc: text\n";
        let submission = submit(message);
        let content =
            "From: a\r\nDate: b\r\nMessage-ID: c\r\nTo: bob, Bob <bob>\r\n\r\nBcc: text\r\n";
        assert_eq!(String::from_utf8(submission.content).unwrap(), content);
        let names: Vec<_> = submission.recipients.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["bob@home.test", "carl@x.test", "dan@home.test"]);
    }

    #[test]
    fn a_resent_message_goes_to_the_new_recipients() {
        let submission = submit("To: bob\nResent-To: carl, b@@d\n\n");
        assert_eq!(submission.recipients, ["carl@home.test".parse().unwrap()]);
        assert_eq!(submission.bad_recipients, ["b@@d"]);
    }

    #[test]
    fn a_dot_ends_the_input_only_where_it_may() {
        let input = b"a\n..\n.\nb\r\nc\rd";
        assert_eq!(read_lines(input, true), b"a\r\n..\r\n");
        assert_eq!(read_lines(input, false), b"a\r\n..\r\n.\r\nb\r\nc\r\nd\r\n");
        assert_eq!(read_lines(b"a\r\n\r\n\n", true), b"a\r\n\r\n\r\n");
    }

    proptest! {
        #[test]
        fn every_line_ends_with_crlf(input in "[a.:\r\n ]{0,40}") {
            let lines = String::from_utf8(read_lines(input.as_bytes(), false)).unwrap();
            let bare = lines.replace("\r\n", "");
            prop_assert!(!bare.contains(['\r', '\n']));
            let content = submit(&input).content;
            prop_assert!(content.ends_with(b"\r\n"));
        }
    }
}
