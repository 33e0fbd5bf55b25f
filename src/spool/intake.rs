//! How the sessions hand their messages to the queue manager.
//!
//! A message that is in the spool is announced, without waiting. One that is for this host
//! only is offered first, before anything of it is on disk: if the manager has it delivered
//! within a moment, the mailbox is the copy that lasts, and the spool never sees it. If not,
//! the session stores it and says so. Either way there is a [`Receipt`] only for what lasts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::spool::claim::{Claim, Verdict};
use crate::spool::draft::{Receipt, Sealed};
use crate::spool::id::QueueId;
use crate::spool::message::StoredMessage;

/// Messages that may be open on their way to the manager; for one more, its id must do.
const MAX_OPEN: usize = 1024;

/// What a session tells the manager. All goes by one channel, so that a message is offered
/// before it is said to be stored.
#[derive(Debug)]
pub(super) enum Arrival {
    /// It is in the spool.
    Message(StoredMessage),
    /// The same, to be opened later, because too many are open. Looking into the spool instead
    /// would also find what was tried already, or is not flushed yet, and deliver it twice.
    Id(QueueId),
    /// Its session waits for the verdict; nothing of it is on disk.
    Offer(Arc<StoredMessage>, Arc<Claim>),
    /// What was offered could not be stored: its client was not told 250.
    Withdrawn(QueueId),
}

/// Where sessions hand over their messages.
#[derive(Clone, Debug)]
pub struct Intake {
    arrivals: Sender<Arrival>,
    open: Arc<AtomicUsize>,
}

/// What was handed over and not taken up yet. The channel is not bounded: beyond
/// [`MAX_OPEN`] a message costs an id here and its whole self on disk, and there are never more
/// offers than sessions.
#[derive(Debug)]
pub(super) struct Arrivals {
    pub(super) receiver: Receiver<Arrival>,
    open: Arc<AtomicUsize>,
}

/// The two ends.
pub(super) fn channel() -> (Intake, Arrivals) {
    let (arrivals, receiver) = unbounded();
    let open = Arc::new(AtomicUsize::new(0));
    (Intake { arrivals, open: Arc::clone(&open) }, Arrivals { receiver, open })
}

impl Arrivals {
    /// Notes that an open message was taken up.
    pub(super) fn take_up(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Intake {
    /// Announces a message. Never waits and never fails: the message is in the spool.
    pub fn announce(&self, message: StoredMessage) {
        match self.open.load(Ordering::Relaxed) < MAX_OPEN {
            true => self.hand_over(message),
            false => self.send(Arrival::Id(message.envelope().id)),
        }
    }

    /// Announces messages that were found in a spool that was opened again.
    pub fn announce_found(&self, ids: Vec<QueueId>) {
        ids.into_iter().for_each(|id| self.send(Arrival::Id(id)));
    }

    fn hand_over(&self, message: StoredMessage) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.send(Arrival::Message(message));
    }

    /// Stores a message and announces it.
    ///
    /// # Errors
    /// When it cannot be stored. Nothing of it is left then.
    pub fn store(&self, sealed: Sealed) -> io::Result<Receipt> {
        let (receipt, message) = sealed.commit()?;
        self.announce(message);
        Ok(receipt)
    }

    /// Waits up to `patience` for the message to be delivered, and stores it if it is not.
    ///
    /// # Errors
    /// When it must be stored and cannot be. Nothing of it is left in the spool then, but some
    /// of its recipients may have it.
    pub fn deliver_or_store(&self, sealed: Sealed, patience: Duration) -> io::Result<Receipt> {
        let claim = Arc::new(Claim::default());
        self.send(Arrival::Offer(Arc::clone(sealed.message()), Arc::clone(&claim)));
        if claim.wait(patience) == Verdict::Delivered {
            return Ok(sealed.into_delivered());
        }
        let mut withdrawal = Withdrawal { intake: self, id: Some(sealed.message().envelope().id) };
        let (receipt, message) = sealed.commit()?;
        withdrawal.id = None;
        self.hand_over(message);
        Ok(receipt)
    }

    /// Fails only when the manager is gone; the next start finds what is in the spool.
    fn send(&self, arrival: Arrival) {
        let _ = self.arrivals.send(arrival);
    }
}

/// Takes an offer back, unless it was redeemed: also when its session ends in a panic.
struct Withdrawal<'a> {
    intake: &'a Intake,
    id: Option<QueueId>,
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.intake.send(Arrival::Withdrawn(id));
        }
    }
}
