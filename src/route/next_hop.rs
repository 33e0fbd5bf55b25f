//! Where a recipient goes next.

use std::fmt;

use crate::config::settings::Smarthost;
use crate::mail::address::Domain;

/// The next hop of a recipient: work for one lane, and for the relay lane one destination
/// whose connections and failures it shares with all others of the same value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// A mailbox or a file on this host.
    Local,
    /// A command on this host. It may take its time, and so belongs to the relay lane.
    Command,
    /// Fixed hosts, tried in order.
    Smarthost(Smarthost),
    /// The mail exchangers of a domain, or the host of an address literal
    /// (RFC 5321 §5.1).
    Mx(Domain),
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Command => f.write_str("command"),
            Self::Smarthost(smarthost) => match smarthost.hosts.first() {
                Some(host) => write!(f, "{host}"),
                None => f.write_str("smarthost"),
            },
            Self::Mx(domain) => write!(f, "mx:{domain}"),
        }
    }
}
