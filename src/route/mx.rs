//! Which hosts take the mail of a domain, in the order in which they are tried (RFC 5321
//! §5.1, RFC 7505). Asks nobody: what the DNS said, and the randomness, are handed in.

use std::fmt;

use crate::mail::address::DomainName;
use crate::mail::status::Status;
use crate::sys::dns::{DnsError, Mx};

/// Why no host can be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MxError {
    /// The domain does not exist.
    NoSuchDomain,
    /// The domain says that it takes no mail (RFC 7505).
    NullMx,
    /// The best host is this one, which does not take the domain's mail as its own.
    Loop,
    /// The DNS does not answer; what it said instead.
    Dns(String),
    /// The DNS cannot be asked, since this host has no network.
    NoNetwork(String),
}

impl MxError {
    /// Whether trying again is of use, and what a report says.
    pub fn status(&self) -> Status {
        match self {
            Self::NoSuchDomain => Status::new(5, 1, 2),
            // RFC 7505 §4.1.
            Self::NullMx => Status::new(5, 1, 10),
            Self::Loop => Status::new(5, 4, 6),
            // RFC 3463 §3.5 has "the inability to connect to an Internet DNS server" there.
            Self::Dns(_) | Self::NoNetwork(_) => Status::new(4, 4, 3),
        }
    }
}

/// A predicate behind the name of the domain.
impl fmt::Display for MxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchDomain => f.write_str("does not exist"),
            Self::NullMx => f.write_str("takes no mail (null MX)"),
            Self::Loop => {
                f.write_str("names this host as its mail exchanger, which does not know it")
            }
            Self::Dns(why) | Self::NoNetwork(why) => write!(f, "cannot be looked up: {why}"),
        }
    }
}

impl std::error::Error for MxError {}

/// The hosts for `domain` in the order of their trial: by preference, equal ones shuffled
/// with `random`. Without MX records it is the domain itself. Never empty.
///
/// `hostname` is this host's name: where it is among the exchangers, only those with a lower
/// preference value are left.
///
/// # Errors
/// [`MxError`], for good or for now by its status.
pub fn mail_hosts(
    domain: &DomainName,
    answer: Result<Vec<Mx>, DnsError>,
    hostname: &DomainName,
    mut random: impl FnMut() -> u64,
) -> Result<Vec<DomainName>, MxError> {
    let records = match answer {
        Ok(records) => records,
        // RFC 5321 §5.1: no MX record is an implicit one of the domain itself.
        Err(DnsError::NoRecords) if domain == hostname => return Err(MxError::Loop),
        Err(DnsError::NoRecords) => return Ok(vec![domain.clone()]),
        Err(DnsError::NoSuchDomain) => return Err(MxError::NoSuchDomain),
        Err(DnsError::Temporary(why)) => return Err(MxError::Dns(why)),
        Err(DnsError::NoNetwork(why)) => return Err(MxError::NoNetwork(why)),
    };
    let mut hosts: Vec<(u16, u64, DomainName)> = records
        .into_iter()
        .filter_map(|mx| Some((mx.preference, random(), mx.exchange?)))
        .collect();
    if hosts.is_empty() {
        return Err(MxError::NullMx);
    }
    // RFC 5321 §5.1: relaying to hosts no better than ourselves would go in circles.
    let ours = hosts.iter().filter(|(.., host)| host == hostname).map(|host| host.0).min();
    if let Some(ours) = ours {
        hosts.retain(|host| host.0 < ours);
    }
    if hosts.is_empty() {
        return Err(MxError::Loop);
    }
    hosts.sort_by_key(|&(preference, tie_breaker, _)| (preference, tie_breaker));
    Ok(hosts.into_iter().map(|(.., host)| host).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    /// `exchange:preference` pairs; an empty exchange is the root.
    fn records(text: &str) -> Vec<Mx> {
        let record = |pair: &str| {
            let (exchange, preference) = pair.split_once(':').unwrap();
            Mx { preference: preference.parse().unwrap(), exchange: exchange.parse().ok() }
        };
        text.split_ascii_whitespace().map(record).collect()
    }

    fn hosts(answer: Result<Vec<Mx>, DnsError>, seed: u64) -> Result<String, MxError> {
        let mut state = seed;
        let random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state
        };
        let hosts = mail_hosts(&name("d.test"), answer, &name("me.test"), random)?;
        Ok(hosts.iter().map(DomainName::as_str).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn table() {
        for (text, expected) in [
            ("a:10", Ok("a")),
            ("c:30 a:10 b:20", Ok("a b c")),
            (":0", Err(MxError::NullMx)),
            (":5", Err(MxError::NullMx)),
            (":0 a:10", Ok("a")),
            ("a:10 ME.test:20 b:20 c:30", Ok("a")),
            ("me.test:10 a:10 b:20", Err(MxError::Loop)),
            ("a:10 me.test:30 me.test:20 b:25", Ok("a")),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(hosts(Ok(records(text)), 1), expected, "{text:?}");
        }
    }

    #[test]
    fn answers_without_records() {
        for (error, expected, status) in [
            (DnsError::NoRecords, Ok("d.test".to_owned()), None),
            (DnsError::NoSuchDomain, Err(MxError::NoSuchDomain), Some("5.1.2")),
            (DnsError::Temporary("x".into()), Err(MxError::Dns("x".into())), Some("4.4.3")),
            (DnsError::NoNetwork("x".into()), Err(MxError::NoNetwork("x".into())), Some("4.4.3")),
        ] {
            let found = hosts(Err(error), 1);
            let found_status = found.as_ref().err().map(|error| error.status().to_string());
            assert_eq!(found_status.as_deref(), status);
            assert_eq!(found, expected);
        }
        let own = mail_hosts(&name("me.test"), Err(DnsError::NoRecords), &name("me.test"), || 0);
        assert_eq!(own, Err(MxError::Loop));
    }

    #[test]
    fn equal_preferences_come_in_every_order() {
        let orders: std::collections::BTreeSet<String> = (0..200)
            .map(|seed| hosts(Ok(records("a:10 b:10 z:20")), seed * 7919).unwrap())
            .collect();
        assert_eq!(orders.into_iter().collect::<Vec<_>>(), ["a b z", "b a z"]);
    }
}
