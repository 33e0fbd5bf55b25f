//! Why a session broke off, in words for a person.

use std::fmt;
use std::io;

use crate::deliver::tls::TlsError;
use crate::smtp::client::{Awaited, Ending};
use crate::smtp::reply_parser::ReplyError;

/// Why a session broke off. It is of no use afterwards.
#[derive(Debug)]
pub struct ConnectionError {
    /// What happened.
    pub cause: Cause,
    /// Whether the server may have the whole message: then trying again at once could deliver
    /// it twice.
    pub is_content_sent: bool,
    /// Whether a login was under way: a server may well end it so where the password is wrong.
    pub is_in_login: bool,
}

impl ConnectionError {
    /// Whether it is the peer's certificate that was not good enough.
    pub const fn is_about_certificate(&self) -> bool {
        matches!(self.cause, Cause::Tls(TlsError::Certificate(_)))
    }
}

/// What broke a session off.
#[derive(Debug)]
pub enum Cause {
    /// The peer did not answer this, or did not take it, in time.
    TooSlow(Awaited),
    /// The peer closed the connection instead of answering this.
    Closed(Awaited),
    /// The connection failed.
    Io(io::Error),
    /// The peer does not speak SMTP.
    NoReply(ReplyError),
    /// The connection could not be encrypted.
    Tls(TlsError),
    /// Something came behind the reply to STARTTLS and before the handshake.
    Injected,
    /// The peer refused to go on, or nobody knows what its reply is to.
    Ended(Ending),
    /// The content could not be read. The peer is not to blame.
    Content(io::Error),
}

impl Cause {
    pub(super) fn of(error: io::Error, awaited: Awaited) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::TooSlow(awaited),
            _ => Self::Io(error),
        }
    }
}

/// A predicate behind the name of the host.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSlow(Awaited::Greeting) => f.write_str("sent no greeting in time"),
            Self::TooSlow(awaited) => write!(f, "took too long over {awaited}"),
            Self::Closed(Awaited::Greeting) => f.write_str("closed the connection at once"),
            Self::Closed(awaited) => {
                write!(f, "closed the connection instead of answering {awaited}")
            }
            Self::Io(error) => write!(f, "lost the connection: {error}"),
            Self::NoReply(error) => write!(f, "does not speak SMTP: {error}"),
            Self::Tls(error) => error.fmt(f),
            Self::Injected => f.write_str("said more than a reply to STARTTLS"),
            Self::Ended(Ending::NoStartTls) => {
                f.write_str("does not offer STARTTLS, and nothing is sent in the clear")
            }
            Self::Ended(Ending::StartTlsRefused(reply)) => {
                write!(f, "refused STARTTLS, and nothing is sent in the clear: {reply}")
            }
            Self::Ended(Ending::Refused(reply)) => write!(f, "will not talk to us: {reply}"),
            Self::Ended(Ending::OutOfStep(awaited, reply)) => {
                write!(f, "gave an answer to {awaited} that makes no sense: {reply}")
            }
            Self::Ended(Ending::Login(error)) => error.fmt(f),
            Self::Ended(Ending::Quit) => f.write_str("ended the session"),
            Self::Content(error) => write!(f, "got no message, since it cannot be read: {error}"),
        }
    }
}
