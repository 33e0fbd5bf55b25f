//! The message that `sendmail` is given, and its envelope.

use std::collections::HashSet;
use std::io::{self, Read};

use super::options::{Errors, Options};
use super::{Failure, own_mailbox};
use crate::cli::output::warn;
use crate::config::settings::Server;
use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::address_list;
use crate::mail::dsn_request::{MessageRequest, RecipientRequest};
use crate::mail::submission::{self, Submission, Surroundings};
use crate::spool::id::QueueId;
use crate::sys::process::exit;
use crate::sys::{clock, random};

/// What is to be submitted.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) reverse_path: ReversePath,
    /// Whether that is the caller since no other was named.
    pub(super) has_own_sender: bool,
    /// Whom it is for, no address twice. Never empty. Which spellings mean one mailbox the server
    /// knows.
    pub(super) recipients: Vec<Mailbox>,
    /// Whether some of those who were named have no address.
    pub(super) has_bad_recipients: bool,
    pub(super) request: MessageRequest,
    /// What is asked about each recipient.
    pub(super) recipient_request: RecipientRequest,
    /// How the caller wants to hear of recipients that are refused.
    pub(super) errors: Errors,
    pub(super) is_eight_bit: bool,
    /// Lines that end with CRLF.
    pub(super) content: Vec<u8>,
}

impl Message {
    /// Whether there is somebody who hears, and wants to hear, of recipients that fail.
    pub(super) fn can_be_reported(&self) -> bool {
        let notify = self.recipient_request.notify;
        self.reverse_path.mailbox().is_some() && notify.is_none_or(|notify| notify.failure)
    }
}

/// Reads standard input to its end, whatever else is wrong: who writes there must not be killed
/// by a broken pipe.
pub(super) fn read(options: &Options, server: &Server) -> Result<Message, Failure> {
    let input = read_input(server.max_message_size)?;
    if let Some(hostile) = options.addresses().find(|text| text.chars().any(char::is_control)) {
        let text = format!("{hostile:?}: an address has no control characters");
        return Err(Failure::new(exit::DATAERR, text));
    }
    let own = own_mailbox(server)?;
    let reverse_path = reverse_path(options, server, &own)?;
    let sender = reverse_path.mailbox().unwrap_or(&own);
    let submission = complete(&input, options, server, sender);
    drop(input);
    let Submission { content, recipients, bad_recipients } = submission;
    // Each line is an octet longer than it was: what the server would refuse is not left for it.
    if content.len() as u64 > server.max_message_size {
        return Err(too_large(server.max_message_size));
    }
    let (mut recipients, mut bad) = match options.from_header {
        true => (recipients, bad_recipients),
        false => (Vec::new(), Vec::new()),
    };
    for spec in options.specs() {
        match address_list::complete(&spec, server.domains.origin()) {
            Ok(mailbox) => recipients.push(mailbox),
            Err(_) => bad.push(spec),
        }
    }
    let mut seen = HashSet::new();
    recipients.retain(|mailbox| seen.insert(mailbox.clone()));
    for spec in &bad {
        warn(format_args!("sendmail: {spec:?} is no address; not sent there"));
    }
    if recipients.is_empty() {
        let code = if bad.is_empty() { exit::USAGE } else { exit::DATAERR };
        let text = "no recipients: name them, or use -t to take them from the header";
        return Err(Failure::new(code, text));
    }
    Ok(Message {
        reverse_path,
        has_own_sender: options.sender.is_none(),
        recipients,
        has_bad_recipients: !bad.is_empty(),
        request: options.request.clone(),
        recipient_request: options.recipient_request(),
        errors: options.errors,
        is_eight_bit: options.is_eight_bit || !content.is_ascii(),
        content,
    })
}

fn read_input(limit: u64) -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    let mut stdin = io::stdin().lock();
    let failure = |error| Failure::new(exit::OSERR, format!("cannot read the message: {error}"));
    stdin.by_ref().take(limit.saturating_add(1)).read_to_end(&mut input).map_err(failure)?;
    if input.len() as u64 <= limit {
        return Ok(input);
    }
    drop(input);
    let _ = io::copy(&mut stdin, &mut io::sink());
    Err(too_large(limit))
}

fn too_large(limit: u64) -> Failure {
    let text = format!("the message is larger than {limit} octets ([server] max_message_size)");
    Failure::new(exit::UNAVAILABLE, text)
}

/// What `-f` says, or the caller.
fn reverse_path(options: &Options, server: &Server, own: &Mailbox) -> Result<ReversePath, Failure> {
    let Some(given) = &options.sender else { return Ok(ReversePath::Mailbox(own.clone())) };
    match address_list::specs(given.as_bytes()).as_slice() {
        [] => Ok(ReversePath::Null),
        [spec] => address_list::complete(spec, server.domains.origin())
            .map(ReversePath::Mailbox)
            .map_err(|error| Failure::new(exit::DATAERR, format!("-f {given:?}: {error}"))),
        _ => Err(Failure::new(exit::DATAERR, format!("-f {given:?}: one address, please"))),
    }
}

fn complete(input: &[u8], options: &Options, server: &Server, sender: &Mailbox) -> Submission {
    let now = clock::since_1970();
    let surroundings = Surroundings {
        sender: Some(sender),
        full_name: options.full_name.as_deref(),
        date: &clock::date_field(now.as_secs()).to_string(),
        unique: &QueueId::generate(now.as_micros() as u64, random::number()).to_string(),
        origin: server.domains.origin(),
    };
    submission::complete(&submission::read_lines(input, !options.dot_is_text), &surroundings)
}
