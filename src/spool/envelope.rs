//! The envelope as the spool keeps it: readable text, one field a line, written once before
//! the message.

use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::dsn_request::{MessageRequest, RecipientRequest};
use crate::spool::id::QueueId;

/// What was said about a message before its first octet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Its name in the queue.
    pub id: QueueId,
    /// When it was received, in seconds since 1970, by the clock of that moment.
    pub received_at: u64,
    /// Who brought it: an address, `uid 1000`, or `local` for our own reports.
    pub client: String,
    /// Where reports go.
    pub reverse_path: ReversePath,
    /// Whom it is for. Never empty.
    pub recipients: Vec<Recipient>,
    /// What MAIL declared about its octets.
    pub body: Body,
    /// What MAIL asked about reports.
    pub request: MessageRequest,
}

impl Envelope {
    /// Whether an account of this host has submitted the message, and no client of the network.
    pub fn is_of_an_account(&self) -> bool {
        self.client.starts_with("uid ")
    }
}

/// One recipient of an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The address.
    pub mailbox: Mailbox,
    /// What RCPT asked about reports.
    pub request: RecipientRequest,
}

impl From<Mailbox> for Recipient {
    /// A recipient about whom nothing was asked.
    fn from(mailbox: Mailbox) -> Self {
        Self { mailbox, request: RecipientRequest::default() }
    }
}

/// `BODY=` (RFC 6152 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Only octets below 128.
    SevenBit,
    /// Any octet but bare CR and LF.
    EightBitMime,
}
