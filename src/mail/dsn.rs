//! Delivery status notifications: a message that tells people in plain words, and programs
//! in fields, what became of recipients (RFC 3464, in the multipart/report of RFC 6522).
//!
//! A report is written in three pieces, so that a large message never stands in memory:
//! [`Report::head`], then the message that it is about or its header section, octet for octet,
//! then [`Report::tail`].

use std::fmt;

use crate::mail::address::Mailbox;
use crate::mail::dsn_request::{EnvelopeId, OriginalRecipient};
use crate::mail::status::Status;

mod fields;
mod text;

/// What became of a recipient (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It was given up.
    Failed,
    /// It goes on being tried.
    Delayed,
    /// It is in a mailbox.
    Delivered,
    /// A host that knows nothing of reports has it.
    Relayed,
    /// It was an alias; the message went on to several others.
    Expanded,
}

impl Action {
    const ALL: [Self; 5] =
        [Self::Failed, Self::Delayed, Self::Delivered, Self::Relayed, Self::Expanded];
}

/// As the field says it.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
        })
    }
}

/// Whom a report is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Who sent the message.
    Sender,
    /// The owner of the list that sent it on (RFC 5321 §3.9.2).
    Owner,
    /// The postmaster, since the message has no sender (RFC 3461 §5.2).
    Postmaster,
}

/// What of the message stands behind the report (RFC 3461 §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// All of it.
    Message,
    /// Its header section, as always where nothing failed, or as the sender wished.
    Headers,
    /// Its header section, since the whole is too large.
    HeadersOfLarge,
}

/// A report on recipients of one message.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The report's own queue id; makes its Message-ID.
    pub id: String,
    /// What separates the parts: up to 60 letters, digits and `_=.`, which the returned message
    /// must not have. A random number does.
    pub boundary: String,
    /// The queue id of the message that the report is about.
    pub original_id: String,
    /// The host that reports: ours.
    pub reporting_host: String,
    /// Whom the report is for.
    pub to: &'a Mailbox,
    /// What that one has to do with the message.
    pub reader: Reader,
    /// Now, as RFC 5322 §3.3 writes it.
    pub date: String,
    /// When the message came, in the same form.
    pub arrival_date: String,
    /// How long the message has been waiting, in seconds.
    pub waited_seconds: u64,
    /// When a delayed recipient is given up, in the form of a date.
    pub will_retry_until: String,
    /// The sender's name for the message, if it gave one.
    pub envelope_id: Option<&'a EnvelopeId>,
    /// The recipients. Never empty.
    pub recipients: Vec<ReportedRecipient<'a>>,
    /// What of the message follows the head.
    pub returned: Returned,
    /// Whether that has octets above 127.
    pub is_eight_bit: bool,
}

/// A recipient and what became of it. Texts need not be printable; they are made so.
#[derive(Clone, Debug)]
pub struct ReportedRecipient<'a> {
    /// The address.
    pub mailbox: &'a Mailbox,
    /// The address that the sender wrote to, where ORCPT told it.
    pub original: Option<&'a OriginalRecipient>,
    /// What became of it.
    pub action: Action,
    /// The enhanced status code.
    pub status: Status,
    /// Whether it was given up because its time was over.
    pub is_expired: bool,
    /// What happened, in our own words.
    pub text: &'a str,
    /// The host, `name[address]:port`, that spoke of it, and its reply.
    pub remote: Option<(&'a str, &'a str)>,
    /// When it was last tried, as a date, if it was.
    pub last_attempt: Option<String>,
}

impl Report<'_> {
    /// Everything before the returned message, lines ended by CRLF.
    pub fn head(&self) -> String {
        let (host, boundary) = (&self.reporting_host, &self.boundary);
        let encoding = if self.is_eight_bit { "8bit" } else { "7bit" };
        let content_type = match self.returned {
            Returned::Message => "message/rfc822",
            Returned::Headers | Returned::HeadersOfLarge => "text/rfc822-headers",
        };
        format!(
            "From: Mail Delivery System <MAILER-DAEMON@{host}>\r\n\
             To: <{to}>\r\n\
             Subject: {subject}\r\n\
             Date: {date}\r\n\
             Message-ID: <{id}@{host}>\r\n\
             Auto-Submitted: auto-replied\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n\
             \tboundary=\"{boundary}\"\r\n\
             Content-Transfer-Encoding: {encoding}\r\n\
             \r\n\
             This is a MIME message, a report from the mail server {host}.\r\n\
             \r\n\
             --{boundary}\r\n\
             Content-Type: text/plain; charset=us-ascii\r\n\
             \r\n\
             {text}\
             \r\n--{boundary}\r\n\
             Content-Type: message/delivery-status\r\n\
             \r\n\
             {fields}\
             \r\n--{boundary}\r\n\
             Content-Type: {content_type}\r\n\
             Content-Transfer-Encoding: {encoding}\r\n\
             \r\n",
            to = self.to,
            subject = self.subject(),
            date = self.date,
            id = self.id,
            text = text::of(self),
            fields = fields::of(self),
        )
    }

    /// Everything behind the returned message, whose last line has its end.
    pub fn tail(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }

    fn subject(&self) -> &'static str {
        let action = self.recipients.iter().map(|recipient| recipient.action).min();
        match action {
            _ if self.reader == Reader::Postmaster => {
                "Undelivered mail without a sender: for the postmaster"
            }
            Some(Action::Failed) if self.reader == Reader::Owner => "Undelivered mail of your list",
            Some(Action::Failed) => "Undelivered mail: returned to sender",
            Some(Action::Delayed) => "Delayed mail: still being tried",
            Some(Action::Delivered | Action::Expanded) => "Delivered mail: the report you wanted",
            Some(Action::Relayed) | None => "Relayed mail: the report you wanted",
        }
    }
}

/// What stands before the first empty line of a message's beginning, with the end of its last
/// line.
pub fn header_section(message: &[u8]) -> &[u8] {
    match memchr::memmem::find(message, b"\r\n\r\n") {
        _ if message.starts_with(b"\r\n") => &[],
        Some(at) => &message[..at + 2],
        // Cut off: leave out the line that is not whole.
        None => &message[..memchr::memrchr(b'\n', message).map_or(0, |at| at + 1)],
    }
}

#[cfg(test)]
mod tests;
