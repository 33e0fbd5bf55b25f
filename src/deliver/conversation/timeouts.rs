//! How long a peer may take over each step of a session, and over a message as a whole.

use std::time::Duration;

use crate::smtp::client::{Awaited, Transaction};

/// What each recipient adds to the time of a whole message.
const RECIPIENT_TIME: Duration = Duration::from_secs(2);
/// The slowest line on which a message of any size gets through in its time. RFC 5321
/// §4.5.3.2.5 bounds a block only; 64 KiB in 3 minutes would be 30 hours for 35 MiB.
const SLOWEST_OCTETS_PER_SECOND: u64 = 2048;

/// How long the peer may take, each time. The defaults are the minima of RFC 5321 §4.5.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the greeting (§4.5.3.2.1).
    pub greeting: Duration,
    /// For EHLO, STARTTLS, MAIL, RCPT and RSET (§4.5.3.2.2 and .3), and for each line of AUTH as
    /// for all of them together.
    pub command: Duration,
    /// For the whole of a TLS handshake; no RFC names a time.
    pub handshake: Duration,
    /// For the 354 after DATA (§4.5.3.2.4).
    pub data: Duration,
    /// To take a block of 64 KiB, or a group of commands (§4.5.3.2.5).
    pub block: Duration,
    /// For the reply to the content (§4.5.3.2.6).
    pub content: Duration,
    /// For the reply to QUIT, on which nothing depends.
    pub quit: Duration,
    /// From the connection to the first MAIL, so that a server which answers everything in its last
    /// second does not hold a thread for half an hour at each of its addresses.
    pub opening: Duration,
    /// For a message from MAIL to the last reply, together with what its recipients add, and from
    /// the first octet of the content on what its size does: a server that answers everything in
    /// its last second must not hold a thread for hours.
    pub transaction: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            greeting: minutes(5),
            command: minutes(5),
            handshake: minutes(2),
            data: minutes(2),
            block: minutes(3),
            content: minutes(10),
            quit: Duration::from_secs(5),
            // Once for the greeting, for a command and for a handshake.
            opening: minutes(5 + 5 + 2),
            // Twice for a command, once for the 354, for a block and for the last reply.
            transaction: minutes(5 + 5 + 2 + 3 + 10),
        }
    }
}

impl Timeouts {
    /// No step above `most`, and the opening no longer than three of them.
    pub fn at_most(self, most: Duration) -> Self {
        Self {
            greeting: self.greeting.min(most),
            command: self.command.min(most),
            handshake: self.handshake.min(most),
            data: self.data.min(most),
            block: self.block.min(most),
            content: self.content.min(most),
            quit: self.quit.min(most),
            opening: self.opening.min(most.saturating_mul(3)),
            transaction: self.transaction.min(most),
        }
    }

    pub(super) fn reply_to(&self, awaited: Awaited) -> Duration {
        match awaited {
            Awaited::Greeting => self.greeting,
            Awaited::Ehlo | Awaited::Helo | Awaited::StartTls | Awaited::Reset => self.command,
            Awaited::Mail | Awaited::Recipient(_) => self.command,
            Awaited::Auth => self.command,
            Awaited::Data => self.data,
            Awaited::Content => self.content,
            Awaited::Quit => self.quit,
        }
    }

    /// How long the whole of a message may take, besides its content.
    pub(super) fn whole(&self, transaction: &Transaction<'_>) -> Duration {
        let recipients = u32::try_from(transaction.recipients.len()).unwrap_or(u32::MAX);
        let recipients = RECIPIENT_TIME.saturating_mul(recipients);
        self.transaction.saturating_add(recipients)
    }

    /// What the kernel's time-outs are set to: less than any of these, so that they need no
    /// change for most calls.
    pub(super) fn tick(&self) -> Duration {
        let limits =
            [self.greeting, self.command, self.handshake, self.data, self.block, self.content];
        let shortest = limits.into_iter().min().unwrap_or_default();
        (shortest / 2).max(Duration::from_millis(1))
    }
}

/// What the content adds to the time of a whole message.
pub(super) const fn content_time(size_octets: u64) -> Duration {
    Duration::from_secs(size_octets / SLOWEST_OCTETS_PER_SECOND)
}
