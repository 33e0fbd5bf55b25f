//! Why a handshake failed, in words that a person understands.

use std::error::Error;
use std::fmt;
use std::io;

use openssl::error::ErrorStack;
use openssl::ssl;

use super::certificate::Certificate;
use crate::mail::text::one_line;
use crate::sys::clock;

/// The most characters of a reason that the library gives.
const MAX_REASON: usize = 200;

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// The peer took too long.
    TooSlow,
    /// The peer's certificate does not prove that it is the host.
    Certificate(Box<Refused>),
    /// The peer closed the connection.
    Closed,
    /// What the peer said was no TLS.
    NoTls,
    /// The peer speaks no version of TLS that is spoken here.
    TooOld,
    /// Anything else: the words of the library.
    Failed(String),
}

/// A certificate that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong with it.
    pub doubt: Doubt,
    /// Whose it had to be: a name or an address.
    pub host: String,
    /// The certificate, where it was looked at.
    pub seen: Option<Certificate>,
}

/// What is wrong with a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It, or one that it depends on, is valid no more.
    Expired,
    /// It, or one that it depends on, is not valid yet.
    NotYetValid,
    /// It is somebody else's.
    Name,
    /// It is signed by itself, and not known here.
    SelfSigned,
    /// It is signed by somebody who is not known here.
    UnknownIssuer,
    /// It is not the one with the fingerprint that was given.
    NotPinned,
    /// Anything else: the words of the library.
    Other(String),
}

impl Doubt {
    /// By what OpenSSL says of a chain of certificates (X509_verify_cert_error_string(3)).
    fn of(reason: &str) -> Self {
        // OpenSSL 1.1 has no hyphen.
        match reason.to_ascii_lowercase().replace("self signed", "self-signed").as_str() {
            "certificate has expired" => Self::Expired,
            "certificate is not yet valid" => Self::NotYetValid,
            "hostname mismatch" | "ip address mismatch" => Self::Name,
            "self-signed certificate" => Self::SelfSigned,
            "self-signed certificate in certificate chain"
            | "unable to get issuer certificate"
            | "unable to get local issuer certificate"
            | "unable to verify the first certificate"
            | "certificate signature failure"
            | "certificate not trusted" => Self::UnknownIssuer,
            other => Self::Other(one_line(other, MAX_REASON)),
        }
    }

    /// Whether another time of day would settle it.
    pub const fn is_about_time(&self) -> bool {
        matches!(self, Self::Expired | Self::NotYetValid)
    }
}

impl TlsError {
    /// Why a handshake failed that had to show that the peer is `host`.
    pub(super) fn of_checked(error: &dyn Error, host: &str) -> Self {
        match Self::of(error) {
            // `…certificate verify failed…: (why)`. There is no other way to the why.
            Self::Failed(reason) if reason == "certificate verify failed" => {
                let text = error.to_string();
                let why = text.rsplit_once('(').map_or("", |(_, why)| why.trim_end_matches(')'));
                Self::refused(Doubt::of(why), host, None)
            }
            other => other,
        }
    }

    /// Why a handshake failed, whoever the peer is.
    pub(super) fn of(error: &dyn Error) -> Self {
        let Some(source) = error.source() else {
            // OpenSSL 1.1 has no error for an end that came too early.
            return Self::Closed;
        };
        if let Some(error) = source.downcast_ref::<io::Error>() {
            return Self::of_io(error);
        }
        // The outermost error is the last one.
        let stack = source.downcast_ref::<ErrorStack>();
        let outermost = stack.and_then(|stack| stack.errors().last()?.reason());
        Self::of_reason(outermost.map_or_else(|| source.to_string(), str::to_owned))
    }

    /// The connection failed below the encryption, or the peer ended it by an alert.
    pub fn of_io(error: &io::Error) -> Self {
        if let Some(alert) = error.get_ref().and_then(|inner| inner.downcast_ref::<ssl::Error>()) {
            return Self::of(alert);
        }
        match error.kind() {
            io::ErrorKind::TimedOut => Self::TooSlow,
            _ => Self::Failed(one_line(&error.to_string(), MAX_REASON)),
        }
    }

    fn of_reason(reason: String) -> Self {
        match reason.as_str() {
            "unexpected eof while reading" => Self::Closed,
            "wrong version number" | "packet length too long" | "http request" => Self::NoTls,
            "unsupported protocol" | "tlsv1 alert protocol version" => Self::TooOld,
            _ => Self::Failed(one_line(&reason, MAX_REASON)),
        }
    }

    /// A certificate was refused that had to be `host`'s.
    pub(super) fn refused(doubt: Doubt, host: &str, seen: Option<Certificate>) -> Self {
        Self::Certificate(Box::new(Refused { doubt, host: host.to_owned(), seen }))
    }

    /// What a person can do about it, for whom the hosts stand in that section of the
    /// configuration; empty where there is nothing to say.
    pub fn remedy(&self, section: &str) -> String {
        match self {
            Self::Certificate(refused) => refused.remedy(section),
            Self::TooOld => "; nothing below TLS 1.2 is spoken here: update that host".to_owned(),
            _ => String::new(),
        }
    }
}

/// A predicate behind the name of the host.
impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSlow => f.write_str("took too long over the TLS handshake"),
            Self::Closed => f.write_str("closed the connection in the TLS handshake"),
            Self::Certificate(refused) => refused.fmt(f),
            Self::NoTls => f.write_str("did not answer the TLS handshake with TLS"),
            Self::TooOld => f.write_str("speaks only versions of TLS that are too old"),
            Self::Failed(reason) => write!(f, "failed at the TLS handshake: {reason}"),
        }
    }
}

impl Refused {
    fn remedy(&self, section: &str) -> String {
        let pin = match &self.seen {
            Some(seen) => format!("fingerprint = {}", seen.fingerprint),
            None => "its fingerprint".to_owned(),
        };
        match self.doubt {
            Doubt::Expired | Doubt::NotYetValid => {
                let now = clock::local_time(clock::since_1970().as_secs());
                format!(
                    "; the clock of this host shows {now}: where that is wrong, set it; else a \
                     new certificate is due there"
                )
            }
            Doubt::Name => {
                format!("; give the right name as host in [{section}], or {pin} if it is yours")
            }
            Doubt::SelfSigned | Doubt::UnknownIssuer => format!(
                "; if it is yours, give {pin} in [{section}], or ca = FILE with the certificate \
                 of who signed it"
            ),
            Doubt::NotPinned => format!("; if it is yours, give {pin} in [{section}]"),
            Doubt::Other(_) => format!("; if it is yours, {pin} in [{section}] takes it as it is"),
        }
    }

    /// The names that it is for.
    fn names(&self) -> Option<String> {
        let names = &self.seen.as_ref()?.names;
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// The moment that it was refused for: `None` where it is another one's of the chain.
    fn bound(&self) -> Option<String> {
        let (seen, now) = (self.seen.as_ref()?, clock::since_1970().as_secs());
        let bound = match self.doubt {
            Doubt::Expired => Some(seen.not_after).filter(|&end| end < now),
            _ => Some(seen.not_before).filter(|&begin| begin > now),
        };
        bound.map(|moment| clock::local_time(moment).to_string())
    }
}

/// A predicate behind the name of the host.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.doubt, self.bound()) {
            (Doubt::Expired, Some(end)) => write!(f, "shows a certificate that expired on {end}"),
            (Doubt::Expired, None) => f.write_str("shows a certificate that has expired"),
            (Doubt::NotYetValid, Some(begin)) => {
                write!(f, "shows a certificate that is valid from {begin} on only")
            }
            (Doubt::NotYetValid, None) => f.write_str("shows a certificate that is not yet valid"),
            (Doubt::Name, _) => {
                let names = self.names().unwrap_or_else(|| "somebody else".to_owned());
                write!(f, "shows a certificate that is for {names} and not for {}", self.host)
            }
            (Doubt::SelfSigned, _) => {
                f.write_str("shows a certificate that it has signed itself and nobody knows here")
            }
            (Doubt::UnknownIssuer, _) => {
                f.write_str("shows a certificate whose issuer is not trusted here")
            }
            (Doubt::NotPinned, _) => {
                f.write_str("shows another certificate than the one that was pinned")
            }
            (Doubt::Other(why), _) => write!(f, "shows a certificate that is no good: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::tls::certificate::Fingerprint;

    #[test]
    fn old_and_new_words_of_the_library_mean_the_same() {
        for (words, expected) in [
            ("self signed certificate", Doubt::SelfSigned),
            ("self-signed certificate", Doubt::SelfSigned),
            ("Hostname mismatch", Doubt::Name),
            ("self signed certificate in certificate chain", Doubt::UnknownIssuer),
            ("EE certificate key too weak", Doubt::Other("ee certificate key too weak".into())),
        ] {
            assert_eq!(Doubt::of(words), expected);
        }
    }

    #[test]
    fn a_certificate_of_the_chain_that_expired_is_not_taken_for_the_hosts() {
        let expired = |not_after| Refused {
            doubt: Doubt::Expired,
            host: "mx.test".to_owned(),
            seen: Some(Certificate {
                names: vec!["mx.test".to_owned()],
                not_before: 0,
                not_after,
                fingerprint: Fingerprint([7; 32]),
            }),
        };
        assert!(expired(86_400).to_string().contains(" that expired on "));
        assert_eq!(expired(u64::MAX).to_string(), "shows a certificate that has expired");
        assert!(expired(0).remedy("smarthost").contains("the clock of this host shows "));
    }
}
