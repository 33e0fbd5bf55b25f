//! Who takes a message: the server, or where it does not, `drop/`.
//!
//! What the server refuses for good is refused. What it cannot take now, as a whole or for some
//! recipients, is left in `drop/`, because few programs try again; so it is when there is no
//! server, or it went away in the middle. Where nobody knows whether the server has a message it is
//! left as well: mail twice is better than no mail.
//!
//! Where the server refuses some recipients and takes the others, an exit code would have a script
//! send to all of them once more. So a copy for the refused ones is left, too, of which the server
//! makes a report to the sender, and the code is 0. Where no report can come, the code tells of them.

use std::io::Cursor;

use super::message::Message;
use super::options::Errors;
use super::{Failure, socket};
use crate::cli::output::warn;
use crate::config::settings::Server;
use crate::deliver::conversation::SmtpConnection;
use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::dsn_request::MessageRequest;
use crate::mail::status::Status;
use crate::smtp::client::{
    Awaited, Recipient as ClientRecipient, RecipientResult, Refusal, Transaction,
};
use crate::spool::drop::{DropBox, MAX_RECIPIENTS};
use crate::spool::envelope::{Body, Envelope, Recipient};
use crate::spool::id::QueueId;
use crate::spool::store::Receipt;
use crate::sys::process::exit;
use crate::sys::{clock, random};

/// RFC 3463: too many recipients; the rest goes into another transaction.
const TOO_MANY: Status = Status::new(4, 5, 3);

/// What the server said to a message.
#[derive(Default)]
struct Said {
    /// Whether it has taken it for anybody.
    has_taken: bool,
    /// Those who must be left in `drop/`.
    left: Vec<Mailbox>,
    /// Why.
    why: String,
    /// Those who were refused for good.
    refused: Vec<Refused>,
}

/// A recipient who was refused for good.
struct Refused {
    mailbox: Mailbox,
    why: String,
    /// The exit code for it.
    code: u8,
    /// Whether it was this recipient, and not the sender or the content.
    is_recipient: bool,
}

/// Submits a message, and gives the exit code.
///
/// # Errors
/// When nobody takes it for some recipients: to be tried again.
pub(super) fn submit(message: &Message, server: &Server) -> Result<u8, Failure> {
    let Said { has_taken, left, why, refused } = send(message, server);
    leave(message, &left, server).map_err(|text| {
        Failure::new(exit::TEMPFAIL, format!("{why}; {text}; not accepted, try again later"))
    })?;
    if !left.is_empty() {
        log::debug!("{why}; left in drop/ for {} recipients", left.len());
    }
    let code = tell_of(&refused, has_taken || !left.is_empty(), message, server);
    Ok(if message.has_bad_recipients { code.max(exit::DATAERR) } else { code })
}

/// Tells of those who were refused, by a report where one can come and makes sense, and gives the
/// exit code that is left to say. `is_sent` says whether the message goes to anybody.
fn tell_of(refused: &[Refused], is_sent: bool, message: &Message, server: &Server) -> u8 {
    let wants_report = match message.errors {
        Errors::Print => is_sent,
        Errors::Mail | Errors::MailAlone => true,
        Errors::Code => false,
    };
    // What was said of the sender or the content would be said of the copy, too.
    let is_reportable =
        |it: &&Refused| wants_report && message.can_be_reported() && it.is_recipient;
    let reported: Vec<_> =
        refused.iter().filter(is_reportable).map(|it| it.mailbox.clone()).collect();
    let left = leave(message, &reported, server);
    let is_reported = |it| left.is_ok() && is_reportable(&it);
    let mut code = exit::OK;
    for it in refused {
        let and = if is_reported(it) { "; the sender gets a report" } else { "" };
        if message.errors != Errors::Code {
            warn(format_args!("sendmail: <{}>: {}{and}", it.mailbox, it.why));
        }
        if !is_reported(it) || !is_sent && message.errors == Errors::Mail {
            code = code.max(it.code);
        }
    }
    code
}

/// Gives a message to the server.
fn send(message: &Message, server: &Server) -> Said {
    let mut said = Said::default();
    let mut pending = message.recipients.clone();
    let opened = socket::open(server).map_err(|error| socket::unreachable(server, &error));
    let opened = opened.and_then(|stream| {
        SmtpConnection::open(stream, &server.hostname, socket::timeouts())
            .map_err(|error| format!("the server {}", error.cause))
    });
    let mut connection = match opened {
        Ok(connection) => connection,
        Err(why) => return Said { left: pending, why, ..said },
    };
    // The server takes so many recipients at a time; the rest follows in the same session.
    while !pending.is_empty() && connection.is_sound() {
        let to = |mailbox| ClientRecipient { mailbox, request: message.recipient_request.clone() };
        let transaction = Transaction {
            reverse_path: &message.reverse_path,
            recipients: &pending.iter().map(to).collect::<Vec<_>>(),
            request: &message.request,
            is_eight_bit: message.is_eight_bit,
            size_octets: message.content.len() as u64,
        };
        match connection.send(&transaction, &mut Cursor::new(&message.content)) {
            Ok(results) => pending = said.take(pending, &results, message),
            Err(error) => {
                said.why = format!("the server {}", error.cause);
                break;
            }
        }
    }
    said.left.append(&mut pending);
    connection.quit();
    said
}

impl Said {
    /// Notes what was said of each recipient. Gives those that were too many, if it is of use to
    /// send to them at once.
    fn take(
        &mut self,
        recipients: Vec<Mailbox>,
        results: &[RecipientResult],
        message: &Message,
    ) -> Vec<Mailbox> {
        let (mut too_many, mut has_taken) = (Vec::new(), false);
        let mut refuse = |mailbox, why, code, is_recipient| {
            self.refused.push(Refused { mailbox, why, code, is_recipient });
        };
        for (mailbox, result) in recipients.into_iter().zip(results) {
            match result {
                RecipientResult::Taken(_) => has_taken = true,
                RecipientResult::TooLarge { limit_octets } => {
                    let why = format!("larger than the {limit_octets} octets that are taken");
                    refuse(mailbox, why, exit::UNAVAILABLE, false);
                }
                RecipientResult::Refused(refusal) if refusal.status() == TOO_MANY => {
                    too_many.push(mailbox);
                }
                RecipientResult::Refused(refusal)
                    if refusal.status().is_temporary() || is_misnamed(message, refusal) =>
                {
                    self.why = format!("the server said {}", refusal.reply);
                    self.left.push(mailbox);
                }
                RecipientResult::Refused(refusal) => {
                    let is_recipient = matches!(refusal.command, Awaited::Recipient(_));
                    let why = refusal.reply.to_string();
                    refuse(mailbox, why, exit_code(refusal), is_recipient);
                }
            }
        }
        self.has_taken |= has_taken;
        if has_taken {
            return too_many;
        }
        self.left.append(&mut too_many);
        Vec::new()
    }
}

/// Whether the server knows the caller by another name than is known here, as from a container or a
/// chroot with users of its own. What is left in `drop/` goes out under that one.
fn is_misnamed(message: &Message, refusal: &Refusal) -> bool {
    message.has_own_sender && exit_code(refusal) == exit::NOPERM
}

/// The exit code for a recipient or a message that was refused for good.
fn exit_code(refusal: &Refusal) -> u8 {
    // RFC 3463: the bad mailbox, the right that is missing, the content.
    match (refusal.command, refusal.status().to_string().as_str()) {
        (_, "5.1.1") => exit::NOUSER,
        (Awaited::Mail, "5.7.1") => exit::NOPERM,
        (Awaited::Content, status) if status.starts_with("5.6.") => exit::DATAERR,
        _ => exit::UNAVAILABLE,
    }
}

/// Leaves a message in `drop/` for these recipients.
///
/// # Errors
/// Why it cannot be left. Nothing of it is left then.
fn leave(message: &Message, recipients: &[Mailbox], server: &Server) -> Result<(), String> {
    if recipients.is_empty() {
        return Ok(());
    }
    let to = |mailbox: &Mailbox| Recipient {
        mailbox: mailbox.clone(),
        request: message.recipient_request.clone(),
    };
    let letter = Letter {
        reverse_path: &message.reverse_path,
        recipients: recipients.iter().map(to).collect(),
        request: &message.request,
        body: if message.is_eight_bit { Body::EightBitMime } else { Body::SevenBit },
        content: &message.content,
    };
    letter.leave(server).map(drop)
}

/// A message for `drop/`.
pub(super) struct Letter<'a> {
    pub(super) reverse_path: &'a ReversePath,
    /// Never empty.
    pub(super) recipients: Vec<Recipient>,
    pub(super) request: &'a MessageRequest,
    pub(super) body: Body,
    /// Lines that end with CRLF.
    pub(super) content: &'a [u8],
}

impl Letter<'_> {
    /// Leaves it, so many recipients at a time. The last receipt is the proof for all.
    ///
    /// # Errors
    /// Why it cannot be left. Nothing of it is left then.
    pub(super) fn leave(&self, server: &Server) -> Result<Receipt, String> {
        let dropbox = DropBox::open(&server.spool)
            .map_err(|error| format!("{}: {error}", server.spool.join("drop").display()))?;
        let here = |error: &dyn std::fmt::Display| format!("{}: {error}", dropbox.path().display());
        // The other half is for the reports and records that the server must write.
        let needed = (server.min_free_space / 2).saturating_add(self.content.len() as u64);
        let free = dropbox.free_octets().map_err(|error| here(&error))?;
        if free < needed {
            return Err(here(&format!("{free} octets free, {needed} needed")));
        }
        let mut receipts = Vec::new();
        for recipients in self.recipients.chunks(MAX_RECIPIENTS) {
            match dropbox.leave(&self.envelope(recipients), self.content) {
                Ok(receipt) => receipts.push(receipt),
                Err(error) => {
                    receipts.into_iter().for_each(|receipt| dropbox.take_back(receipt));
                    return Err(here(&error));
                }
            }
        }
        receipts.pop().ok_or_else(|| here(&"there is no recipient"))
    }

    fn envelope(&self, recipients: &[Recipient]) -> Envelope {
        let now = clock::since_1970();
        let uid = rustix::process::getuid().as_raw();
        Envelope {
            id: QueueId::generate(now.as_micros() as u64, random::number()),
            received_at: now.as_secs(),
            client: format!("uid {uid}"),
            reverse_path: self.reverse_path.clone(),
            recipients: recipients.to_vec(),
            body: self.body,
            request: self.request.clone(),
        }
    }
}
