//! What became of one recipient at one try.

use std::time::Duration;

use crate::mail::status::Status;
use crate::route::addressee::Expansion;

/// The result of one try for one recipient. Whether a failure is for now or for good is
/// decided where its cause is known; nobody guesses later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in a mailbox or a file, flushed, or a command has taken it.
    Delivered {
        /// The file, the folder or the command, for the log.
        place: String,
    },
    /// The next hop took it with a 2yz reply.
    Relayed {
        /// The host that took it, `name[address]:port`.
        remote: String,
        /// Its reply, for the log and for a report.
        reply: String,
        /// Whether it was told what the sender wants to hear (RFC 3461), and so reports itself.
        knows_dsn: bool,
        /// The version of TLS, such as `TLSv1.3`, by which it went; `None` in the clear.
        tls: Option<&'static str>,
    },
    /// It was an alias: these take its place.
    Expanded(Expansion),
    /// It did not work now; it is tried again.
    Deferred(Failure),
    /// It will never work; the sender is told.
    Failed(Failure),
}

/// Why a try failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The enhanced status code, of the remote where it gave one.
    pub status: Status,
    /// One sentence for a person. Printable; what a remote said is escaped and bounded.
    pub text: String,
    /// The host that refused it, `name[address]:port`, and its reply, where there was one.
    pub remote: Option<RemoteReply>,
    /// Where the fault lies.
    pub fault: Fault,
}

/// Where the fault of a failed try lies, as far as it concerns other mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Here, with this one message: it says nothing about the destination.
    Here,
    /// With the mail: the destination was there, and spoke of this sender, recipient or message.
    Mail,
    /// With the destination: it cannot be reached, or takes mail from nobody now.
    Destination,
    /// With the destination or the message: the session broke in the middle of it. Another
    /// message shows which.
    DestinationOrMail,
    /// With our login at the destination, which was refused: it has to rest so long.
    Login(Duration),
    /// With the network: this host has none at the moment, so nothing was tried. Or with its
    /// clock, without which no certificate can be judged; that, too, is set by the network.
    Network,
}

/// What a remote host said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteReply {
    /// The host's name as we looked it up, or its address.
    pub host: String,
    /// Its reply on one line, escaped and bounded.
    pub reply: String,
}

impl Failure {
    /// A failure that no remote host spoke of, and that is nobody's fault but this host's.
    pub fn new(status: Status, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), remote: None, fault: Fault::Here }
    }

    /// The same failure with the fault elsewhere.
    pub fn with_fault(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }

    /// The outcome that belongs to the class of the status.
    pub fn into_outcome(self) -> Outcome {
        if self.status.is_permanent() { Outcome::Failed(self) } else { Outcome::Deferred(self) }
    }
}
