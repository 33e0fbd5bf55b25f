//! Automatic replies of people who are away (RFC 3834): which mail gets none, and the text of one.
//! In the words of the RFC this host is a personal responder.
//!
//! What decides by more than the message, such as who was answered before and whose an address is,
//! stands in [`crate::deliver::vacation`].

mod reply;
mod template;
mod threading;

use std::fmt;

use crate::mail::address::{DomainName, Mailbox, ReversePath};
use crate::mail::address_list;
use crate::mail::header::{self, Field};

pub use reply::Reply;
pub use template::{Template, TemplateError};

/// The most addresses in a message that are looked at.
const MAX_NAMED: usize = 1000;

/// The senders that are programs or lists, or lead to such (RFC 3834 §2): local parts in lower case
/// without what stands behind a `+`; a `*` at an end stands for anything.
const ROBOTS: [&str; 40] = [
    "mailer-daemon",
    "mailerdaemon",
    "mailer",
    "postmaster",
    "root",
    "daemon",
    "cron",
    "uucp",
    "nobody",
    "mailman",
    "listserv",
    "listserver",
    "majordomo",
    "listproc",
    "owner-*",
    "*-owner",
    "*-request",
    "*-bounces",
    "*-bounce",
    "*-errors",
    "*-relay",
    "*-return-*",
    "bounce",
    "bounces",
    "bounce-*",
    "bounces-*",
    "bounce=*",
    "bounces=*",
    "noreply*",
    "no-reply*",
    "no_reply*",
    "no.reply*",
    "donotreply*",
    "do-not-reply*",
    "do_not_reply*",
    "do.not.reply*",
    "*noreply",
    "*no-reply",
    "*donotreply",
    "autoreply*",
];

/// Why a message gets no automatic reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objection {
    /// Nobody sent it: its reverse-path is null (RFC 3834 §2).
    NoSender,
    /// Its sender's name is that of a program or a list.
    RobotSender,
    /// A program made it (RFC 3834 §5).
    AutoSubmitted,
    /// It came by a mailing list (RFC 2369, RFC 2919).
    List,
    /// Its Precedence is that of mail to many.
    Precedence,
    /// Its sender wants no replies from programs.
    Suppressed,
    /// It is a report, as on a delivery.
    Report,
    /// A filter took it for spam.
    Spam,
    /// Its header section is longer than what is looked at.
    LongHeader,
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSender => "it has no sender",
            Self::RobotSender => "its sender is a program or a list",
            Self::AutoSubmitted => "a program made it",
            Self::List => "it came by a mailing list",
            Self::Precedence => "its Precedence says that it went to many",
            Self::Suppressed => "it wants no automatic replies",
            Self::Report => "it is a report",
            Self::Spam => "a filter took it for spam",
            Self::LongHeader => "its header section is too long",
        })
    }
}

/// Whom a reply would go to: the reverse-path and nobody else (RFC 3834 §4).
///
/// # Errors
/// When that is no person.
pub fn addressee(reverse_path: &ReversePath) -> Result<&Mailbox, Objection> {
    let mailbox = reverse_path.mailbox().ok_or(Objection::NoSender)?;
    let local_part = mailbox.local_part().as_str().to_ascii_lowercase();
    let name = local_part.split('+').next().unwrap_or_default();
    match ROBOTS.iter().any(|pattern| fits(name, pattern)) {
        true => Err(Objection::RobotSender),
        false => Ok(mailbox),
    }
}

fn fits(name: &str, pattern: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (None, None) => name == pattern,
        (None, Some(begin)) => name.starts_with(begin),
        (Some(end), None) => name.ends_with(end),
        (Some(_), Some(_)) => name.contains(pattern.trim_matches('*')),
    }
}

/// Looks through the header section that `message` begins with. `is_whole` says whether all of the
/// message is there.
///
/// # Errors
/// Why it gets no reply.
pub fn check_header(message: &[u8], is_whole: bool) -> Result<(), Objection> {
    let mut fields = header::fields(message);
    match fields.by_ref().find_map(|field| objection(&field)) {
        Some(objection) => Err(objection),
        // What is not seen may be just what forbids it.
        None if !is_whole && !fields.rest().starts_with(b"\r\n") => Err(Objection::LongHeader),
        None => Ok(()),
    }
}

fn objection(field: &Field<'_>) -> Option<Objection> {
    let name = str::from_utf8(field.name).ok()?.to_ascii_lowercase();
    let is_one_of = |words: &[&str]| words.contains(&first_word(field.body).as_str());
    let (objection, is_met) = match name.as_str() {
        "auto-submitted" | "x-autoreply" | "x-autorespond" => {
            (Objection::AutoSubmitted, !is_one_of(&["no"]))
        }
        "precedence" => (Objection::Precedence, is_one_of(&["bulk", "list", "junk", "auto_reply"])),
        "mailing-list" | "x-mailing-list" => (Objection::List, true),
        "x-auto-response-suppress" => (Objection::Suppressed, suppresses(field.body)),
        "x-spam-flag" => (Objection::Spam, is_one_of(&["yes"])),
        "content-type" => (Objection::Report, is_one_of(&["multipart/report"])),
        name => (Objection::List, name.starts_with("list-")),
    };
    is_met.then_some(objection)
}

/// The kinds of replies that Exchange is told to leave out, of which two are of our kind.
fn suppresses(body: &[u8]) -> bool {
    let words = String::from_utf8_lossy(body).to_ascii_lowercase();
    words.split(',').any(|word| matches!(word.trim(), "all" | "oof" | "autoreply"))
}

/// The first word of a field body in lower case, without the comments before it (RFC 5322 §3.2.2)
/// and the parameters behind it (RFC 3834 §5.1).
fn first_word(body: &[u8]) -> String {
    let (mut word, mut comments, mut is_escaped) = (String::new(), 0_u32, false);
    for octet in body {
        match octet {
            _ if is_escaped => is_escaped = false,
            b'\\' if comments > 0 => is_escaped = true,
            b'(' => comments = comments.saturating_add(1),
            b')' if comments > 0 => comments -= 1,
            _ if comments > 0 => {}
            octet if octet.is_ascii_whitespace() && word.is_empty() => {}
            octet if octet.is_ascii_whitespace() || *octet == b';' => break,
            octet => word.push(octet.to_ascii_lowercase().into()),
        }
    }
    word
}

/// Those whom the header section names as recipients (RFC 3834 §2); `origin` is the domain of names
/// without one.
pub fn recipients(message: &[u8], origin: &DomainName) -> impl Iterator<Item = Mailbox> {
    const FIELDS: [&str; 6] = ["To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc"];
    header::fields(message)
        .filter(|field| FIELDS.iter().any(|name| field.is_named(name)))
        .flat_map(|field| address_list::specs(field.body))
        .take(MAX_NAMED)
        .filter_map(|spec| address_list::complete(&spec, origin).ok())
}

#[cfg(test)]
mod tests;
