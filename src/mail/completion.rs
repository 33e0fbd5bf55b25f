//! What a submission server reads in a header section and adds to it (RFC 6409 §4.2 and §8): who
//! the authors are, the fields that are missing, and the domains of addresses that have none.
//! Everything else keeps its octets, and so does all of a message that is signed. A submission
//! client is told of what cannot be completed; of an account of this host it is taken as it is,
//! since the mail of cron and its like would be lost.

use std::ops::Range;

use crate::mail::address::{AddressError, Domain, DomainName, LocalPart, Mailbox};
use crate::mail::address_list::{self, Spec};
use crate::mail::encoded_word::is_encoded_word;
use crate::mail::header::{self, Field};
use crate::mail::submission::{Surroundings, missing_fields};

/// The most addresses in From and Sender together, each of which is looked up, and the most names
/// in a From that get a domain unseen.
const MAX_AUTHORS: usize = 100;

/// The fields with addresses (RFC 5322 §3.6.2, §3.6.3 and §3.6.6).
const ADDRESS_FIELDS: [&str; 12] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Resent-From",
    "Resent-Sender",
    "Resent-Reply-To",
    "Resent-To",
    "Resent-Cc",
    "Resent-Bcc",
];

/// Why a header section is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// A line is neither a field nor part of one. What readers make of those behind it differs.
    NotAField,
    /// There is no From, and no sender to make one of.
    NoFrom,
    /// Who is meant in this field, From or Sender, cannot be said for certain.
    DoubtfulAuthor(&'static str),
    /// An address has a domain of one label that is none of ours (RFC 6409 §4.2).
    NotQualified(Domain),
}

/// Who has submitted a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitter {
    /// A client, whose user hears of a refusal and can mend what is wrong (RFC 6409 §8).
    Client,
    /// A program of one of this host's accounts. Nobody hears of a refusal, so there is none; and
    /// whoever is named as the author without a domain is one of this host.
    Account,
}

/// Knows the addresses of this host.
pub trait Locals {
    /// Whether the domain is one of ours.
    fn is_ours(&self, domain: &Domain) -> bool;

    /// Whether the local part has a mailbox or an alias here. Only such a one gets a domain
    /// (RFC 6409 §8).
    fn is_known(&mut self, local_part: &LocalPart) -> bool;
}

/// The header section of a message whose lines end with CRLF.
#[derive(Clone, Debug)]
pub struct HeaderSection<'a> {
    fields: Vec<Field<'a>>,
    /// What stands before the body of each field: its name and the colon.
    heads: Vec<&'a [u8]>,
    /// The empty line and what is there of the body.
    rest: &'a [u8],
}

impl<'a> HeaderSection<'a> {
    /// Reads what a message begins with.
    ///
    /// # Errors
    /// [`HeaderFault::NotAField`], but for a message without any field: all of it is its body.
    pub fn read(message: &'a [u8]) -> Result<Self, HeaderFault> {
        let mut iterator = header::fields(message);
        let mut section = Self { fields: Vec::new(), heads: Vec::new(), rest: message };
        while let Some(field) = iterator.next() {
            let rest = iterator.rest();
            let length = section.rest.len() - rest.len() - field.body.len();
            section.heads.push(&section.rest[..length]);
            section.fields.push(field);
            section.rest = rest;
        }
        // The line of an mbox has a header section behind it.
        let is_body = section.fields.is_empty() && !section.rest.starts_with(b"From ");
        match section.ends_well() || is_body {
            true => Ok(section),
            false => Err(HeaderFault::NotAField),
        }
    }

    /// Whether an empty line or the end of the message ends the section. If not, there is none.
    pub fn ends_well(&self) -> bool {
        self.rest.is_empty() || self.rest.starts_with(b"\r\n")
    }

    /// Whether a change would break a signature (RFC 6376).
    pub fn is_signed(&self) -> bool {
        self.fields.iter().any(|field| field.is_named("DKIM-Signature"))
    }

    /// The addresses in From and Sender.
    ///
    /// # Errors
    /// [`HeaderFault::DoubtfulAuthor`].
    pub fn authors(&self, origin: &DomainName) -> Result<Vec<Mailbox>, HeaderFault> {
        let mut authors = Vec::new();
        for name in ["From", "Sender"] {
            let doubtful = || HeaderFault::DoubtfulAuthor(name);
            for field in self.fields.iter().filter(|field| field.is_named(name)) {
                let list = address_list::read(field.body);
                if !list.is_certain || list.specs.is_empty() {
                    return Err(doubtful());
                }
                for Spec { text, .. } in list.specs {
                    authors.push(address_list::complete(&text, origin).map_err(|_| doubtful())?);
                }
            }
            if authors.len() > MAX_AUTHORS {
                return Err(doubtful());
            }
        }
        Ok(authors)
    }

    /// The section with what it lacks, and the rest behind it.
    ///
    /// # Errors
    /// [`HeaderFault::NoFrom`] or [`HeaderFault::NotQualified`], and neither for an account.
    pub fn completed(
        &self,
        submitter: Submitter,
        surroundings: &Surroundings<'_>,
        locals: &mut dyn Locals,
    ) -> Result<Vec<u8>, HeaderFault> {
        let has_from = self.fields.iter().any(|field| field.is_named("From"));
        if submitter == Submitter::Client && !has_from && surroundings.sender.is_none() {
            return Err(HeaderFault::NoFrom);
        }
        let mut content = missing_fields(&self.fields, surroundings).into_bytes();
        for (field, head) in self.fields.iter().zip(&self.heads) {
            content.extend_from_slice(head);
            if ADDRESS_FIELDS.iter().any(|name| field.is_named(name)) {
                complete_addresses(field, submitter, surroundings.origin, locals, &mut content)?;
            } else {
                content.extend_from_slice(field.body);
            }
        }
        if !self.ends_well() {
            content.extend_from_slice(b"\r\n");
        }
        content.extend_from_slice(self.rest);
        Ok(content)
    }
}

/// Copies a field body; addresses of ours without a full domain get `origin`.
fn complete_addresses(
    field: &Field<'_>,
    submitter: Submitter,
    origin: &DomainName,
    locals: &mut dyn Locals,
    content: &mut Vec<u8>,
) -> Result<(), HeaderFault> {
    let is_account = submitter == Submitter::Account;
    let is_own_from = is_account && field.is_named("From");
    let (body, mut copied) = (field.body, 0);
    for (index, spec) in address_list::read(body).specs.into_iter().enumerate() {
        let is_author = is_own_from && index < MAX_AUTHORS;
        let mut is_known = |name: &LocalPart| is_author || locals.is_known(name);
        let place = match incomplete(body, &spec) {
            Incomplete::Not => continue,
            Incomplete::Name(name, at) if is_known(&name) => at..at,
            Incomplete::Name(..) => continue,
            Incomplete::Label(domain, Some(place)) if locals.is_ours(&domain) => place,
            Incomplete::Label(..) if is_account => continue,
            Incomplete::Label(domain, _) => return Err(HeaderFault::NotQualified(domain)),
        };
        content.extend_from_slice(&body[copied..place.start]);
        content.extend_from_slice(format!("@{origin}").as_bytes());
        copied = place.end;
    }
    content.extend_from_slice(&body[copied..]);
    Ok(())
}

/// What an address in a field body lacks.
enum Incomplete {
    /// Nothing, or it is none.
    Not,
    /// A domain, which belongs to that place.
    Name(LocalPart, usize),
    /// Its domain has one label. Where that stands with its `@`, if it stands in one piece.
    Label(Domain, Option<Range<usize>>),
}

fn incomplete(body: &[u8], spec: &Spec) -> Incomplete {
    let Range { start, end } = spec.span.clone();
    let is_whole = body[start..end] == *spec.text.as_bytes();
    match spec.text.parse::<Mailbox>() {
        Ok(mailbox) => {
            let domain = mailbox.domain();
            if domain.name().is_none_or(|name| name.as_str().contains('.')) {
                return Incomplete::Not;
            }
            let at = spec.text.rfind('@').filter(|_| is_whole);
            Incomplete::Label(domain.clone(), at.map(|at| start + at..end))
        }
        Err(AddressError::NoDomain) if is_whole && !is_encoded_word(&spec.text) => {
            let local_part = spec.text.parse::<LocalPart>();
            local_part.map_or(Incomplete::Not, |name| Incomplete::Name(name, end))
        }
        Err(_) => Incomplete::Not,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ours is `home.test` alias `localhost`, with ann and bob.
    struct Home;

    impl Locals for Home {
        fn is_ours(&self, domain: &Domain) -> bool {
            ["home.test", "localhost"].contains(&domain.to_string().as_str())
        }

        fn is_known(&mut self, local_part: &LocalPart) -> bool {
            ["ann", "bob", "a b"].contains(&local_part.as_str())
        }
    }

    fn origin() -> DomainName {
        "home.test".parse().unwrap()
    }

    fn completed(message: &[u8], sender: Option<&Mailbox>) -> Result<String, HeaderFault> {
        completed_for(Submitter::Client, message, sender)
    }

    fn completed_for(
        submitter: Submitter,
        message: &[u8],
        sender: Option<&Mailbox>,
    ) -> Result<String, HeaderFault> {
        let (date, unique, origin) = ("Sun, 22 Nov 2026 03:46:52 +0000", "u", &origin());
        let surroundings = Surroundings { sender, full_name: None, date, unique, origin };
        let section = HeaderSection::read(message)?;
        let content = section.completed(submitter, &surroundings, &mut Home)?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    #[test]
    fn what_is_missing_is_added_in_front() {
        let sender = "ann@home.test".parse().unwrap();
        let check = |message: &str, expected: &str| {
            assert_eq!(completed(message.as_bytes(), Some(&sender)), Ok(expected.to_owned()));
        };
        const DATE: &str = "Date: Sun, 22 Nov 2026 03:46:52 +0000\r\n";
        const ID: &str = "Message-ID: <u@home.test>\r\n";
        const FROM: &str = "From: <ann@home.test>\r\n";
        let whole = "From : x\r\ndate: y\r\nMESSAGE-ID:\r\n z\r\nBcc: ann@x.test\r\n\r\nbody";
        check(whole, whole);
        check("From: x\r\n\r\nbody", &format!("{DATE}{ID}From: x\r\n\r\nbody"));
        check("From: x\r\n", &format!("{DATE}{ID}From: x\r\n"));
        check("\r\nbody", &format!("{FROM}{DATE}{ID}\r\nbody"));
        check("", &format!("{FROM}{DATE}{ID}"));
        check("body\r\nA: b\r\n\r\n", &format!("{FROM}{DATE}{ID}\r\nbody\r\nA: b\r\n\r\n"));
        assert_eq!(completed(b"Date: x\r\n\r\n", None), Err(HeaderFault::NoFrom));
        assert!(completed(b"From: x\r\n\r\n", None).is_ok());
    }

    #[test]
    fn a_line_that_is_no_field_is_not_passed_over() {
        for message in ["A: b\r\nbad\r\nFrom: x\r\n\r\n", "From ann\r\nA: b\r\n\r\n"] {
            let fault = HeaderSection::read(message.as_bytes()).unwrap_err();
            assert_eq!(fault, HeaderFault::NotAField, "{message}");
        }
    }

    #[test]
    fn only_bare_names_of_ours_get_a_domain() {
        for (body, expected) in [
            ("ann", "ann@home.test"),
            (" ann (Ann), Bob <bob> ", " ann@home.test (Ann), Bob <bob@home.test> "),
            ("ann,\r\n\tbob ,x@y.test", "ann@home.test,\r\n\tbob@home.test ,x@y.test"),
            ("\"ann\" <\"a b\">", "\"ann\" <\"a b\"@home.test>"),
            ("staff: ann, Bob <bob>;", "staff: ann@home.test, Bob <bob@home.test>;"),
            ("ann <ann@x.test>", "ann <ann@x.test>"),
            ("Ann B, carl, undisclosed-recipients:;", "Ann B, carl, undisclosed-recipients:;"),
            ("a nn", "a nn"),
            ("ann@localhost, <bob@localhost>", "ann@home.test, <bob@home.test>"),
            ("\"x@y\"@localhost", "\"x@y\"@home.test"),
            ("ann@[192.0.2.1], <>, ,;\"", "ann@[192.0.2.1], <>, ,;\""),
            ("", ""),
        ] {
            for name in ["From", "sender", "Reply-To", "TO", "Cc", "Bcc", "Resent-To"] {
                let of = |body: &str| format!("{name}:{body}\r\nDate:\r\nMessage-ID:\r\n\r\nann");
                let message = format!("From:{body}\r\n{}", of(body));
                let expected = format!("From:{expected}\r\n{}", of(expected));
                assert_eq!(completed(message.as_bytes(), None), Ok(expected));
            }
            let other = format!("From:\r\nDate:\r\nMessage-ID:\r\nSubject:{body}\r\n\r\n");
            assert_eq!(completed(other.as_bytes(), None), Ok(other));
        }
    }

    #[test]
    fn other_names_of_one_label_are_refused() {
        for body in ["ann@sales", "x@y.test, <bob@nas>", "ann @ localhost"] {
            let found = completed(format!("From: {body}\r\n\r\n").as_bytes(), None);
            assert!(matches!(found, Err(HeaderFault::NotQualified(_))), "{body}");
        }
    }

    #[test]
    fn what_programs_of_this_host_write_is_completed_and_never_refused() {
        for (field, expected) in [
            // Known or not, the author is one of this host.
            ("From: root (Cron Daemon)", Some("From: root@home.test (Cron Daemon)")),
            ("From: Anacron <carl>", Some("From: Anacron <carl@home.test>")),
            ("from:carl, \"d e\"", Some("from:carl@home.test, \"d e\"@home.test")),
            ("From: carl@localhost", Some("From: carl@home.test")),
            ("From: Cron Daemon", None),
            ("From: =?utf-8?q?J=C3=B6rg?=", None),
            ("From: <carl@nas>", None),
            ("From: ann @ localhost", None),
            ("From: carl@@, <>, \"x", None),
            ("From: j\u{f6}rg, j\u{f6}rg@x.test", None),
            ("From: J\u{f6}rg <ann>", Some("From: J\u{f6}rg <ann@home.test>")),
            // Others are if they are known.
            ("To: ann", Some("To: ann@home.test")),
            ("To: ann, carl@sales, bob", Some("To: ann@home.test, carl@sales, bob@home.test")),
            ("Sender: carl", None),
            ("Reply-To: carl, Ann <ann>", Some("Reply-To: carl, Ann <ann@home.test>")),
            ("Cc: ann@x.test,\r\n\tann", Some("Cc: ann@x.test,\r\n\tann@home.test")),
            ("X-Cron-Env: ann", None),
        ] {
            let of = |field: &str| format!("{field}\r\nFrom:\r\nDate:\r\nMessage-ID:\r\n\r\nann");
            let found = completed_for(Submitter::Account, of(field).as_bytes(), None);
            assert_eq!(found, Ok(of(expected.unwrap_or(field))));
        }
        let found = completed_for(Submitter::Account, b"A: b\r\n\r\n", None).unwrap();
        assert!(found.starts_with("Date: ") && !found.contains("From:"), "{found}");
        let crowd = format!("From: {}\r\n\r\n", "x,".repeat(MAX_AUTHORS + 1));
        let found = completed_for(Submitter::Account, crowd.as_bytes(), None).unwrap();
        assert_eq!(found.matches("x@home.test,").count(), MAX_AUTHORS);
    }

    #[test]
    fn a_signature_is_seen() {
        let is_signed = |text: &str| HeaderSection::read(text.as_bytes()).unwrap().is_signed();
        assert!(is_signed("A: b\r\ndkim-signature: v=1\r\n\r\n"));
        assert!(!is_signed("A: b\r\n\r\nDKIM-Signature: v=1\r\n"));
    }

    #[test]
    fn all_authors_are_found_or_none() {
        let check = |fields: &str, expected: Result<&[&str], &'static str>| {
            let message = format!("{fields}\r\n\r\nFrom: body@x.test\r\n");
            let authors = HeaderSection::read(message.as_bytes()).unwrap().authors(&origin());
            let found =
                authors.map(|authors| authors.iter().map(ToString::to_string).collect::<Vec<_>>());
            let expected = expected
                .map(|authors| authors.iter().map(ToString::to_string).collect())
                .map_err(HeaderFault::DoubtfulAuthor);
            assert_eq!(found, expected, "{fields}");
        };
        check("To: a@x.test", Ok(&[]));
        check("From: Ann <ann>, b@x.test", Ok(&["ann@home.test", "b@x.test"]));
        check("FROM : a@x.test\r\nfrom: b@x.test", Ok(&["a@x.test", "b@x.test"]));
        check("Sender: b@x.test\r\nFrom: a@x.test", Ok(&["a@x.test", "b@x.test"]));
        check("Resent-From: a@x.test\r\nReply-To: b@x.test", Ok(&[]));
        check("From:", Err("From"));
        check("From: <a@x.test> <b@x.test>", Err("From"));
        check("From: \u{e4}@x.test", Err("From"));
        check("From: a@x.test\r\nSender: b@@x.test", Err("Sender"));
        check(&format!("From: {}", "a@x.test,".repeat(MAX_AUTHORS + 1)), Err("From"));
    }

    proptest! {
        #[test]
        fn nothing_is_lost(
            fields in "((From|To|X)[ ]?:[a@.,;:<>()\"\\\\\\[\\] ]{0,20}\r\n){0,3}",
            body in "(\r\n)?[a\r\n]{0,10}",
        ) {
            let message = format!("{fields}{body}");
            let sender = "ann@home.test".parse().unwrap();
            for submitter in [Submitter::Client, Submitter::Account] {
                let content = completed_for(submitter, message.as_bytes(), Some(&sender));
                let Ok(content) = content else {
                    let is_section = HeaderSection::read(message.as_bytes()).is_ok();
                    prop_assert!(!is_section || submitter == Submitter::Client);
                    continue;
                };
                prop_assert!(content.ends_with(&body));
                let without = content.replace("@home.test", "");
                for line in message.replace("@home.test", "").lines() {
                    let (name, value) = line.split_once(':').unwrap_or((line, ""));
                    prop_assert!(without.contains(name) && without.contains(value));
                }
            }
        }

        #[test]
        fn random_octets_never_panic(message in any::<Vec<u8>>()) {
            let _ = completed(&message, None);
            let _ = HeaderSection::read(&message).map(|section| section.authors(&origin()));
        }
    }
}
