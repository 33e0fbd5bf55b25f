//! What a delivery thread is given, and what it gives back.

use std::sync::Arc;

use crate::deliver::outcome::Outcome;
use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::dsn_request::RecipientRequest;
use crate::route::addressee::Way;
use crate::route::next_hop::NextHop;
use crate::spool::id::QueueId;
use crate::spool::message::StoredMessage;

/// One try: a message, and those of its recipients that share a next hop.
#[derive(Clone, Debug)]
pub struct Job {
    /// The message, open.
    pub message: Arc<StoredMessage>,
    /// Who sends it to these recipients: the envelope's sender, or the owner of a list.
    pub reverse_path: ReversePath,
    /// Whom to try. Never empty.
    pub recipients: Vec<Recipient>,
    /// Where they all go.
    pub next_hop: NextHop,
}

/// A recipient and its place in the message's list, where aliases may have added some behind
/// those of the envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The place.
    pub index: usize,
    /// The address.
    pub mailbox: Mailbox,
    /// The way to it.
    pub way: Way,
    /// What its sender asked about reports.
    pub request: RecipientRequest,
}

/// What came of a job: exactly one outcome for each of its recipients.
#[derive(Debug)]
pub struct Report {
    /// The message.
    pub id: QueueId,
    /// The next hop that was tried.
    pub next_hop: NextHop,
    /// By place in the message's list.
    pub outcomes: Vec<(usize, Outcome)>,
}
