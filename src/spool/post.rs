//! Messages of this host's own: its reports, and the automatic replies of its people. They have
//! the null reverse-path, so that nothing ever answers them (RFC 5321 §4.5.5, RFC 3834 §3.3), go
//! into the spool like any other, and are routed like any other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::mail::address::ReversePath;
use crate::mail::dsn_request::MessageRequest;
use crate::report::station;
use crate::spool::envelope::{Body, Envelope, Recipient};
use crate::spool::id::QueueId;
use crate::spool::intake::Intake;
use crate::spool::message::StoredMessage;
use crate::spool::store::{Draft, Spool};

/// What the envelope of such a message says of its client, unless there is more to say.
pub const LOCAL: &str = "local";
/// The same of messages that became one, and of a report with those in it: no other copy of them is
/// left, so they go back whole.
pub const DIGEST: &str = "local, a digest";

/// The envelope of a message of this host's own.
#[derive(Clone, Debug)]
pub struct OwnMessage<'a> {
    /// What it says of its client: nothing that a client of the network could have.
    pub client: &'a str,
    /// Whom it is for.
    pub to: Recipient,
    /// What octets it has.
    pub body: Body,
}

impl OwnMessage<'_> {
    /// Begins the message, `now` after 1970. Nothing of it exists until [`keep`].
    pub fn begin(self, spool: &Arc<Spool>, now: Duration) -> Draft {
        spool.draft(Envelope {
            id: spool.new_id(now),
            received_at: now.as_secs(),
            client: self.client.to_owned(),
            reverse_path: ReversePath::Null,
            recipients: vec![self.to],
            body: self.body,
            request: MessageRequest::default(),
        })
    }
}

/// Stores such a message: from here on it is in the queue and survives a crash.
///
/// # Errors
/// When it cannot be written. Nothing of it is left then.
pub fn keep(draft: Draft) -> io::Result<StoredMessage> {
    let (_, message) = draft.commit()?;
    station::received(&message, &message.envelope().client, None, Duration::ZERO);
    Ok(message)
}

/// Where a thread that is not the queue manager's puts such messages.
#[derive(Clone, Debug)]
pub struct Post {
    spool: Arc<Spool>,
    intake: Intake,
}

impl Post {
    /// Into this spool, announced by this intake.
    pub const fn new(spool: Arc<Spool>, intake: Intake) -> Self {
        Self { spool, intake }
    }

    /// Stores a message, whose text `write` makes of its id, and announces it. Waits for the disk
    /// only.
    ///
    /// # Errors
    /// When it cannot be written. Nothing of it is left then.
    pub fn send(
        &self,
        own: OwnMessage<'_>,
        now: Duration,
        write: impl FnOnce(QueueId) -> String,
    ) -> io::Result<QueueId> {
        let mut draft = own.begin(&self.spool, now);
        let id = draft.envelope().id;
        draft.write(write(id).as_bytes())?;
        self.intake.announce(keep(draft)?);
        Ok(id)
    }
}
