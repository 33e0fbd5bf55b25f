//! What the `sendmail` command makes of its input: lines ended by CRLF, the fields that a
//! message must have (RFC 5322 §3.6), no Bcc, and on wish the recipients from its header.
//!
//! A message with resent fields was written by somebody else (§3.6.6). The fields of each resending
//! stand before those of the earlier ones, and each field once in them. So what is resent now goes
//! to whom the first of each of Resent-To, Resent-Cc and Resent-Bcc name, as far as they stand
//! before the first field that comes a second time, and to nobody whom To or Cc name.

use std::collections::HashSet;

use memchr::memchr2;

use crate::mail::address::{DomainName, Mailbox};
use crate::mail::address_list::{self, AddressList, Spec};
use crate::mail::display_name;
use crate::mail::header::{self, Field};
use crate::mail::text::{MAX_REMARK, one_line};

/// The fields of a resending (RFC 5322 §3.6.6).
const RESENT: [&str; 7] = [
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Bcc",
    "Resent-Date",
    "Resent-Message-ID",
];
/// Those that name recipients, in a message and in a resending. Only one of the two kinds is looked
/// at.
const DESTINATIONS: [&str; 6] = ["To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc"];

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
    /// The addresses in To, Cc and Bcc, or in a resent message those of the last resending.
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
    let message = without_from_lines(message);
    let mut iterator = header::fields(message);
    let fields: Vec<_> = iterator.by_ref().collect();
    let body = iterator.rest();
    let resending = resending(&fields);
    let mut content = missing_resent_fields(&resending, surroundings).into_bytes();
    content.extend_from_slice(missing_fields(&fields, surroundings).as_bytes());
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
    let named = if resending.is_empty() { &fields } else { &resending };
    let (recipients, bad_recipients) = recipients(named, surroundings.origin);
    Submission { content, recipients, bad_recipients }
}

/// Drops the `From ` lines of an mbox, with which some programs begin; one that came through another
/// mbox is `>From `.
fn without_from_lines(mut message: &[u8]) -> &[u8] {
    while message.strip_prefix(b">").unwrap_or(message).starts_with(b"From ") {
        message = memchr::memchr(b'\n', message).map_or(&[][..], |end| &message[end + 1..]);
    }
    message
}

/// The fields that a message must have and `fields` lacks (RFC 5322 §3.6), and Message-ID.
pub(super) fn missing_fields(fields: &[Field<'_>], surroundings: &Surroundings<'_>) -> String {
    let Surroundings { sender, full_name, date, unique, origin } = surroundings;
    let has = |name: &str| fields.iter().any(|field| field.is_named(name));
    let mut missing = String::new();
    if let Some(sender) = sender.filter(|_| !has("From")) {
        missing.push_str(&format!("From: {}\r\n", named(sender, *full_name)));
    }
    if !has("Date") {
        missing.push_str(&format!("Date: {date}\r\n"));
    }
    if !has("Message-ID") {
        missing.push_str(&format!("Message-ID: <{unique}@{origin}>\r\n"));
    }
    missing
}

/// The resent fields of the last resending; none where there was none.
fn resending<'a>(fields: &[Field<'a>]) -> Vec<Field<'a>> {
    let mut of_last: Vec<Field<'a>> = Vec::new();
    let is_resent = |field: &&Field<'_>| RESENT.iter().any(|name| field.is_named(name));
    for field in fields.iter().filter(is_resent) {
        if of_last.iter().any(|known| known.name.eq_ignore_ascii_case(field.name)) {
            break;
        }
        of_last.push(*field);
    }
    of_last
}

/// What a resending must have and lacks (RFC 5322 §3.6.6), and its identification.
fn missing_resent_fields(resending: &[Field<'_>], surroundings: &Surroundings<'_>) -> String {
    let Surroundings { sender, full_name, date, unique, origin } = surroundings;
    let mut missing = String::new();
    if resending.is_empty() {
        return missing;
    }
    let has = |name: &str| resending.iter().any(|field| field.is_named(name));
    if let Some(sender) = sender.filter(|_| !has("Resent-From")) {
        missing.push_str(&format!("Resent-From: {}\r\n", named(sender, *full_name)));
    }
    if !has("Resent-Date") {
        missing.push_str(&format!("Resent-Date: {date}\r\n"));
    }
    if !has("Resent-Message-ID") {
        missing.push_str(&format!("Resent-Message-ID: <{unique}@{origin}>\r\n"));
    }
    missing
}

/// An address with a display name, where there is one.
fn named(mailbox: &Mailbox, full_name: Option<&str>) -> String {
    match full_name.map(display_name::phrase) {
        Some(name) => format!("{name} <{mailbox}>"),
        None => format!("<{mailbox}>"),
    }
}

fn recipients(fields: &[Field<'_>], origin: &DomainName) -> (Vec<Mailbox>, Vec<String>) {
    let is_destination = |field: &&Field<'_>| DESTINATIONS.iter().any(|name| field.is_named(name));
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for field in fields.iter().filter(is_destination) {
        let AddressList { specs, is_certain } = address_list::read(field.body);
        // All of it is in a comment that nobody has closed, and whoever is in there is not lost.
        if specs.is_empty() && !is_certain {
            bad.push(one_line(&String::from_utf8_lossy(field.body), MAX_REMARK));
        }
        for Spec { text, .. } in specs {
            match address_list::complete(&text, origin) {
                Ok(mailbox) if seen.insert(mailbox.clone()) => good.push(mailbox),
                Ok(_) => {}
                Err(_) => bad.push(text),
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

    const ADDED: &str = "From: =?utf-8?q?Ann_=22A=22_=C3=84?= <ann@home.test>\r\n\
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
        for lines in ["From x Sun Nov\n", ">From x Sun Nov\r\n", "From x\n>From y\n"] {
            check(&format!("{lines}Subject: x\n"), &format!("{ADDED}Subject: x\r\n\r\n"));
        }
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
    fn names_with_a_blank_between_them_are_nobody() {
        let submission = submit("To: Ann e, bob (x) carl, dan . e\nCc: bob@x.test carl@x.test\n\n");
        assert_eq!(submission.recipients, ["dan.e@home.test".parse().unwrap()]);
        assert_eq!(submission.bad_recipients, ["Ann e", "bob carl", "bob@x.test carl@x.test"]);
    }

    #[test]
    fn only_the_last_resending_counts() {
        for (fields, expected) in [
            ("Resent-To: a\nResent-Cc: b\nTo: old\n", "a b"),
            // The earlier one begins where a field comes again.
            ("Resent-From: x\nResent-To: a\nResent-From: y\nResent-To: old\nResent-Cc: old\n", "a"),
            ("Resent-To: a\nResent-To: old\n", "a"),
            ("Resent-To: a\nSubject: s\nResent-Bcc: b, c\nCc: old\n", "a b c"),
            // Whom it is resent to is said elsewhere; nobody gets it again.
            ("Resent-From: x\nResent-Date: d\nTo: old\nBcc: old\n", ""),
        ] {
            let submission = submit(&format!("{fields}\nbody\n"));
            let names: Vec<_> =
                submission.recipients.iter().map(|it| it.local_part().to_string()).collect();
            assert_eq!(names.join(" "), expected, "{fields:?}");
            assert!(!submission.content.windows(3).any(|octets| octets == b"Bcc"));
        }
    }

    #[test]
    fn a_resending_gets_what_it_lacks() {
        let old = "From: a\r\nDate: b\r\nMessage-ID: c\r\nTo: old\r\n\r\n";
        let added = ADDED.replace("From:", "Resent-From:").replace("Date:", "Resent-Date:");
        let added = added.replace("Message-ID:", "Resent-Message-ID:");
        check(&format!("Resent-To: x\r\n{old}"), &format!("{added}Resent-To: x\r\n{old}"));
        let whole = "Resent-Message-ID: i\r\nResent-Date: d\r\nResent-From: f\r\nResent-To: x\r\n";
        check(&format!("{whole}{old}"), &format!("{whole}{old}"));
    }

    #[test]
    fn recipients_are_found_in_whatever_people_write() {
        let message = b"To: staff: Ann <ann>, \"Bob, B.\" <bob@x.test>; carl (the \\) one)\n\
            Cc: =?utf-8?q?J=C3=B6rg=2C?= <joerg>,\n\t=?utf-8?b?w6Q=?= <dan@y.test>\n\
            BCC: J\xf6rg <eve>, undisclosed:;\n\n";
        let origin = "home.test".parse().unwrap();
        let (good, bad) =
            recipients(&header::fields(&read_lines(message, true)).collect::<Vec<_>>(), &origin);
        let good: Vec<_> = good.iter().map(ToString::to_string).collect();
        let expected = [
            "ann@home.test",
            "bob@x.test",
            "carl@home.test",
            "joerg@home.test",
            "dan@y.test",
            "eve@home.test",
        ];
        assert_eq!(good, expected);
        assert!(bad.is_empty(), "{bad:?}");
    }

    #[test]
    fn a_comment_that_is_not_closed_hides_nobody() {
        let submission = submit("To: (the team ann\nCc: bob\nBcc: undisclosed:; (\\))\n\n");
        assert_eq!(submission.recipients, ["bob@home.test".parse().unwrap()]);
        assert!(submission.bad_recipients.concat().contains("(the team ann"));
        assert_eq!(submission.bad_recipients.len(), 1);
    }

    #[test]
    fn octets_of_any_kind_are_kept() {
        let message = b"From: a\nDate: b\nMessage-ID: c\nSubject: \xe4\x80 \0\n\n\0\xff\n";
        let (sender, origin) = ("ann@home.test".parse().unwrap(), "home.test".parse().unwrap());
        let surroundings = Surroundings {
            sender: Some(&sender),
            full_name: None,
            date: "",
            unique: "",
            origin: &origin,
        };
        let content = complete(&read_lines(message, true), &surroundings).content;
        assert_eq!(content, read_lines(message, true));
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
