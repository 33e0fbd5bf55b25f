//! What the host is called, as whoever loads a configuration has to say: nothing in this room looks
//! at the host.

use crate::mail::address::DomainName;

/// The names that a host has for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostNames {
    /// Its own name, as it is set; it may be none that mail can use.
    pub own: String,
    /// All by which its programs mean it, such as its full name; its own may be among them.
    pub all: Vec<DomainName>,
}

impl From<&str> for HostNames {
    /// Those of a host that has no other name than this.
    fn from(own: &str) -> Self {
        Self { own: own.to_owned(), all: Vec::new() }
    }
}
