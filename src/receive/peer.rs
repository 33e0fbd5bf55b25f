//! Who is at the other end of a session.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

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

/// What counts as one client where somebody counts: of IPv6 the network /64, any address of which a
/// host in it can take (RFC 4291 §2.5.1, RFC 7721 §1). Of the addresses that only a network at hand has,
/// link-local and unique local ones (RFC 4291 §2.5.6, RFC 4193), each counts by itself: all hosts of a
/// LAN have the same /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// Hosts: their only address, or the first of their network.
    Network(IpAddr),
    /// An account of this host.
    Account(u32),
}

impl Client {
    /// The one that `peer` is, or is one of.
    pub fn of(peer: &Peer) -> Self {
        match *peer {
            Peer::Account { uid } => Self::Account(uid),
            Peer::Host { remote: IpAddr::V6(address), .. }
                if !address.is_unicast_link_local() && !address.is_unique_local() =>
            {
                let network = u128::from(address) >> 64 << 64;
                Self::Network(Ipv6Addr::from(network).into())
            }
            Peer::Host { remote, .. } => Self::Network(remote),
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
