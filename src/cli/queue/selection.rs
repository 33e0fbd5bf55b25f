//! Which messages a command is about: ids, and patterns of senders and recipients.

use std::io;

use crate::mail::address::{Domain, Mailbox};
use crate::spool::envelope::Envelope;
use crate::spool::id::QueueId;
use crate::spool::progress::{Progress, State};
use crate::spool::store::SpoolReader;

/// The messages that a command line selects.
#[derive(Debug, Default)]
pub(in crate::cli) struct Selection {
    ids: Vec<QueueId>,
    is_all: bool,
    to: Vec<Pattern>,
    from: Vec<Pattern>,
}

/// What a sender or a recipient is compared with. Case does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Pattern {
    /// The null path, of reports.
    Null,
    /// Everybody at this domain, in lower case.
    Domain(String),
    /// This address, in lower case.
    Address(String),
}

impl Pattern {
    /// Reads a domain with or without an `@`, an address with or without brackets, or `<>`.
    ///
    /// # Errors
    /// When it is neither.
    pub(in crate::cli) fn parse(text: &str) -> Result<Self, String> {
        let inner = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text);
        if inner.is_empty() {
            return Ok(Self::Null);
        }
        let domain = inner.strip_prefix('@').unwrap_or(inner);
        if let Ok(domain) = domain.parse::<Domain>() {
            return Ok(Self::Domain(domain.to_string().to_ascii_lowercase()));
        }
        let mailbox: Mailbox =
            inner.parse().map_err(|error| format!("neither a domain nor an address: {error}"))?;
        Ok(Self::Address(mailbox.to_string().to_ascii_lowercase()))
    }

    /// Whether this is one of them; `None` is the null path.
    pub(in crate::cli) fn matches(&self, mailbox: Option<&Mailbox>) -> bool {
        match (self, mailbox) {
            (Self::Null, mailbox) => mailbox.is_none(),
            (_, None) => false,
            (Self::Domain(domain), Some(mailbox)) => {
                mailbox.domain().to_string().eq_ignore_ascii_case(domain)
            }
            (Self::Address(address), Some(mailbox)) => {
                mailbox.to_string().eq_ignore_ascii_case(address)
            }
        }
    }
}

impl Selection {
    pub(in crate::cli) fn add_id(&mut self, id: QueueId) {
        if !self.ids.contains(&id) {
            self.ids.push(id);
        }
    }

    pub(in crate::cli) fn add_all(&mut self) {
        self.is_all = true;
    }

    pub(in crate::cli) fn add_to(&mut self, pattern: Pattern) {
        self.to.push(pattern);
    }

    pub(in crate::cli) fn add_from(&mut self, pattern: Pattern) {
        self.from.push(pattern);
    }

    /// The ids that were named.
    pub(in crate::cli) fn ids(&self) -> &[QueueId] {
        &self.ids
    }

    /// Whether nothing was selected at all.
    pub(in crate::cli) fn is_empty(&self) -> bool {
        !self.is_all && self.ids.is_empty() && !self.has_patterns()
    }

    /// Whether it is every message that there is.
    pub(in crate::cli) fn is_everything(&self) -> bool {
        self.is_all && self.ids.is_empty() && !self.has_patterns()
    }

    /// Whether a message must be looked at to know whether it belongs.
    pub(in crate::cli) fn has_patterns(&self) -> bool {
        !(self.to.is_empty() && self.from.is_empty())
    }

    /// The messages to be looked at: those named, else all in the spool, oldest first.
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub(in crate::cli) fn candidates(&self, spool: &SpoolReader) -> io::Result<Vec<QueueId>> {
        if !self.ids.is_empty() {
            return Ok(self.ids.clone());
        }
        let mut ids = spool.ids()?;
        ids.sort_unstable();
        Ok(ids)
    }

    /// Whether a message belongs by its sender and by the recipients that are still pending.
    pub(in crate::cli) fn matches(&self, envelope: &Envelope, progress: &Progress) -> bool {
        let sender = envelope.reverse_path.mailbox();
        let is_from = self.from.is_empty() || self.from.iter().any(|from| from.matches(sender));
        let is_to = || {
            let mut pending = progress.recipients.iter().filter(|it| it.state == State::Pending);
            pending.any(|it| self.to.iter().any(|to| to.matches(Some(&it.mailbox))))
        };
        is_from && (self.to.is_empty() || is_to())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, address: &str) -> bool {
        let mailbox: Option<Mailbox> = (!address.is_empty()).then(|| address.parse().unwrap());
        Pattern::parse(pattern).unwrap().matches(mailbox.as_ref())
    }

    #[test]
    fn a_pattern_is_a_domain_an_address_or_nobody() {
        for (pattern, address, is_match) in [
            ("far.test", "ann@FAR.test", true),
            ("@Far.Test", "ann@far.test", true),
            ("far.test", "ann@mx.far.test", false),
            ("far.test", "", false),
            ("[192.0.2.1]", "ann@[192.0.2.1]", true),
            ("ANN@far.test", "ann@far.test", true),
            ("<ann@far.test>", "ann@far.test", true),
            ("ann@far.test", "bob@far.test", false),
            ("<>", "", true),
            ("", "", true),
            ("<>", "ann@far.test", false),
        ] {
            assert_eq!(matches(pattern, address), is_match, "{pattern} {address}");
        }
        for text in ["ann@", "a b", "far.test/", "@@far.test", "*"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
}
