//! How the sessions tell the queue manager of new messages, without ever waiting for it.

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::spool::id::QueueId;
use crate::spool::message::StoredMessage;

/// Announcements with the message open; for one more, its id must do.
const MAX_ANNOUNCED: usize = 1024;

/// Where sessions announce what they have put into the spool.
#[derive(Clone, Debug)]
pub struct Intake {
    messages: Sender<StoredMessage>,
    ids: Sender<QueueId>,
}

/// What was announced and not taken up yet. Each message is announced once, in one of the two.
#[derive(Debug)]
pub struct Arrivals {
    /// Messages, open already.
    pub messages: Receiver<StoredMessage>,
    /// Messages that came when too many were open, to be opened later. Not bounded: each
    /// costs eight octets here and its whole self on disk, and the schedule keeps it anyway.
    /// Looking into the spool instead would also find what was tried already, or is not
    /// flushed yet, and deliver it twice.
    pub ids: Receiver<QueueId>,
}

/// The two ends.
pub fn channel() -> (Intake, Arrivals) {
    let (messages, announced) = bounded(MAX_ANNOUNCED);
    let (ids, late) = unbounded();
    (Intake { messages, ids }, Arrivals { messages: announced, ids: late })
}

impl Intake {
    /// Announces a message. Never waits and never fails: the message is in the spool.
    pub fn announce(&self, message: StoredMessage) {
        if let Err(refused) = self.messages.try_send(message) {
            // Fails only when the manager is gone; the next start finds the message.
            let _ = self.ids.send(refused.into_inner().envelope().id);
        }
    }
}
