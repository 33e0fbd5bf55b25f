//! One transaction's commands, and what the server said to them so far.

use std::fmt;
use std::sync::Arc;

use super::extensions::Extensions;
use super::{Awaited, Recipient, RecipientResult, Refusal, Transaction};
use crate::mail::dsn_request::MessageRequest;
use crate::smtp::reply_parser::PeerReply;

/// The envelope under way: its commands, and what the server said so far.
#[derive(Debug, Default)]
pub(super) struct Envelope {
    mail: String,
    recipients: Vec<String>,
    /// How many commands were sent: MAIL, then the recipients, then DATA.
    pub(super) sent: usize,
    /// `None` while nothing speaks against a recipient.
    pub(super) results: Vec<Option<RecipientResult>>,
}

impl Envelope {
    pub(super) fn new(
        transaction: &Transaction<'_>,
        extensions: Extensions,
        is_logged_in: bool,
    ) -> Self {
        let too_large = extensions
            .limit_octets
            .filter(|&limit| transaction.size_octets > limit)
            .map(|limit_octets| RecipientResult::TooLarge { limit_octets });
        let recipient = |recipient: &Recipient<'_>| rcpt_command(recipient, extensions);
        Self {
            mail: mail_command(transaction, extensions, is_logged_in),
            recipients: transaction.recipients.iter().map(recipient).collect(),
            sent: 0,
            results: vec![too_large; transaction.recipients.len()],
        }
    }

    pub(super) fn next_command(&mut self) -> (Awaited, &str) {
        let at = self.sent;
        self.sent += 1;
        if at == 0 {
            return (Awaited::Mail, &self.mail);
        }
        match self.recipients.get(at - 1) {
            Some(command) => (Awaited::Recipient(at - 1), command),
            None => (Awaited::Data, "DATA\r\n"),
        }
    }

    /// Whether there is a result for every recipient: no content need be sent.
    pub(super) fn is_settled(&self) -> bool {
        self.results.iter().all(Option::is_some)
    }

    pub(super) fn refuse(&mut self, place: usize, reply: PeerReply) {
        let refusal = Refusal { command: Awaited::Recipient(place), reply };
        if let Some(result) = self.results.get_mut(place) {
            result.get_or_insert(RecipientResult::Refused(Arc::new(refusal)));
        }
    }

    pub(super) fn refuse_rest(&mut self, command: Awaited, reply: PeerReply) {
        self.settle(&RecipientResult::Refused(Arc::new(Refusal { command, reply })));
    }

    pub(super) fn take_rest(&mut self, reply: PeerReply) {
        self.settle(&RecipientResult::Taken(Arc::new(reply)));
    }

    fn settle(&mut self, rest: &RecipientResult) {
        for result in &mut self.results {
            result.get_or_insert_with(|| rest.clone());
        }
    }
}

/// MAIL with SIZE (RFC 1870 §3), BODY (RFC 6152 §2), RET and ENVID (RFC 3461 §4), where the
/// server offers them, and AUTH behind a login. With all of them it stays below the 512 octets of RFC 5321 §4.5.3.1.4
/// and what the extensions add to those.
///
/// RFC 6152 §3 wants 8-bit content converted, or returned with 5.6.3, for a server without
/// 8BITMIME. It is sent as it is, as most servers do: the few hosts left without the extension
/// pass it on untouched, and a bounce would lose what arrives well today.
fn mail_command(
    transaction: &Transaction<'_>,
    extensions: Extensions,
    is_logged_in: bool,
) -> String {
    let mut command = format!("MAIL FROM:{}", transaction.reverse_path);
    if extensions.size {
        command.push_str(&format!(" SIZE={}", transaction.size_octets));
    }
    if extensions.eight_bit_mime && transaction.is_eight_bit {
        command.push_str(" BODY=8BITMIME");
    }
    // RFC 3461 §5.2.1 (a) and (b): just what was asked; §5.2.2 (a): nothing of it elsewhere.
    if extensions.dsn {
        let MessageRequest { ret, envelope_id } = transaction.request;
        add_parameter(&mut command, "RET", ret.as_ref());
        add_parameter(&mut command, "ENVID", envelope_id.as_ref());
    }
    // RFC 4954 §5: nobody is trusted to say here who wrote a message, so a server that we have
    // logged in to must not think that it was us.
    if is_logged_in {
        command.push_str(" AUTH=<>");
    }
    command.push_str("\r\n");
    command
}

/// RCPT with NOTIFY and ORCPT, where the server offers DSN (RFC 3461 §5.2.1 (c) and (d)).
fn rcpt_command(recipient: &Recipient<'_>, extensions: Extensions) -> String {
    let mut command = format!("RCPT TO:<{}>", recipient.mailbox);
    if extensions.dsn {
        add_parameter(&mut command, "NOTIFY", recipient.request.notify.as_ref());
        add_parameter(&mut command, "ORCPT", recipient.request.original.as_ref());
    }
    command.push_str("\r\n");
    command
}

fn add_parameter<T: fmt::Display>(command: &mut String, keyword: &str, value: Option<&T>) {
    if let Some(value) = value {
        command.push_str(&format!(" {keyword}={value}"));
    }
}
