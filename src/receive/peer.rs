//! Who is at the other end of a session.

use std::fmt;
use std::net::IpAddr;

use crate::mail::address::Domain;

/// The client of a session. `Display` is what the log and the spool say: `192.0.2.1` or
/// `uid 1000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A host, and the address of ours that it connected to.
    Host {
        /// Its address; never an IPv4 address dressed up as IPv6.
        remote: IpAddr,
        /// Ours.
        local: IpAddr,
    },
    /// An account of this host, known from the socket's peer credentials.
    Account {
        /// Its number.
        uid: u32,
    },
}

impl Peer {
    /// What stands behind the client's name in a Received field: `([192.0.2.1])`, the
    /// TCP-info of RFC 5321 §4.4, or `(uid 1000)`.
    pub fn trace(&self) -> String {
        match self {
            Self::Host { remote, .. } => format!("({})", Domain::Literal(*remote)),
            Self::Account { uid } => format!("(uid {uid})"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { remote, .. } => remote.fmt(f),
            Self::Account { uid } => write!(f, "uid {uid}"),
        }
    }
}
