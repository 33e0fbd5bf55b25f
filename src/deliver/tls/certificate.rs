//! A certificate that was shown to us, as a person is told of it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::nid::Nid;
use openssl::sha::sha256;
use openssl::x509::X509Ref;

use crate::mail::text::one_line;

/// The most names of a certificate that a person is told, and the most characters of each.
const MAX_NAMES: usize = 4;
const MAX_NAME: usize = 100;
const SECONDS_PER_DAY: u64 = 86_400;

/// What a certificate says of itself. Nothing of it is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The names and addresses that it is for, printable, in its order; of many the first.
    pub names: Vec<String>,
    /// When it begins to be valid, in seconds since 1970.
    pub not_before: u64,
    /// When it ends.
    pub not_after: u64,
    /// Its SHA-256.
    pub fingerprint: Fingerprint,
}

impl Certificate {
    /// Reads it; `None` where that cannot be done.
    pub fn read(certificate: &X509Ref) -> Option<Self> {
        Some(Self {
            names: names(certificate),
            not_before: since_1970(certificate.not_before())?,
            not_after: since_1970(certificate.not_after())?,
            fingerprint: Fingerprint(sha256(&certificate.to_der().ok()?)),
        })
    }
}

/// The SHA-256 of a certificate in DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// As `fingerprint` takes it in the configuration.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// The alternative names, or where there are none the common name (RFC 6125 §6.4.4).
fn names(certificate: &X509Ref) -> Vec<String> {
    let mut names = Vec::new();
    for name in certificate.subject_alt_names().into_iter().flatten() {
        let address = name.ipaddress().and_then(address);
        names.extend(name.dnsname().map(|name| one_line(name, MAX_NAME)).or(address));
        if names.len() == MAX_NAMES {
            break;
        }
    }
    if names.is_empty() {
        let common = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next();
        let common = common.and_then(|entry| entry.data().to_string().ok());
        names.extend(common.map(|name| one_line(&name, MAX_NAME)));
    }
    names
}

fn address(octets: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(octets).map(|octets| Ipv4Addr::from(octets).to_string());
    let v6 = || <[u8; 16]>::try_from(octets).map(|octets| Ipv6Addr::from(octets).to_string());
    v4.or_else(|_| v6()).ok()
}

/// Zero for a moment before 1970.
fn since_1970(time: &Asn1TimeRef) -> Option<u64> {
    let since = Asn1Time::from_unix(0).ok()?.diff(time).ok()?;
    let days = u64::try_from(since.days).unwrap_or(0);
    Some(days * SECONDS_PER_DAY + u64::try_from(since.secs).unwrap_or(0))
}
