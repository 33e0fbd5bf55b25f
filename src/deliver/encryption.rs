//! How connections to a next hop are encrypted, and what follows where that fails.
//!
//! A smarthost with `tls = starttls` or `implicit` gets its mail encrypted and has to prove who
//! it is, or gets none. With `opportunistic`, and on the way to mail exchangers, whose names
//! nobody vouches for, TLS keeps away those who only listen (RFC 7435): no certificate is looked
//! at, and a host that does not offer STARTTLS gets its mail in the clear. One whose TLS is broken
//! gets it so, too, if it is a mail exchanger, as everybody does, or `fallback = plain` stands
//! there; then it is spared another handshake for an hour.

use std::time::Duration;

use crate::config::settings::{ClientTls, Smarthost};
use crate::deliver::conversation::Cause;
use crate::deliver::tls::{Connectors, NoConnector, Security, TlsError, TlsPeer};
use crate::mail::address::Domain;
use crate::route::next_hop::NextHop;
use crate::smtp::client::{Awaited, Ending};
use crate::sys::remembered::Remembered;

/// How long a host whose TLS is broken gets its mail in the clear at once.
const BROKEN_FOR: Duration = Duration::from_secs(3600);

/// What is known of the encryption of connections, for all relay workers.
#[derive(Debug)]
pub struct Encryption {
    connectors: Connectors,
    /// Hosts, `name[address]:port`, that got mail in the clear since their TLS is broken.
    broken: Remembered<()>,
}

impl Default for Encryption {
    fn default() -> Self {
        Self { connectors: Connectors::default(), broken: Remembered::new(BROKEN_FOR) }
    }
}

impl Encryption {
    /// How a connection to the `host` of a next hop is encrypted, which is called `remote` in
    /// the log.
    ///
    /// # Errors
    /// [`NoConnector`]: the configuration is to blame, or the system; not the peer.
    pub fn security(
        &self,
        next_hop: &NextHop,
        host: &Domain,
        remote: &str,
    ) -> Result<Security, NoConnector> {
        let peer = |trust| TlsPeer { trust, host: tls_name(host) };
        let unchecked = || match falls_back_to_plain(next_hop) && self.is_known_broken(remote) {
            true => Ok(Security::None),
            false => self.connectors.anybody().map(|trust| Security::IfOffered(peer(trust))),
        };
        let NextHop::Smarthost(smarthost) = next_hop else { return unchecked() };
        let checked = || {
            let trust = match smarthost.fingerprint {
                Some(fingerprint) => self.connectors.pinned(fingerprint),
                None => self.connectors.checked(smarthost.ca.as_deref()),
            };
            trust.map(peer).map_err(|error| error.in_section(&smarthost.section))
        };
        match smarthost.tls {
            ClientTls::None => Ok(Security::None),
            ClientTls::Opportunistic => unchecked(),
            ClientTls::StartTls => checked().map(Security::StartTls),
            ClientTls::Implicit => checked().map(Security::Implicit),
        }
    }

    fn is_known_broken(&self, remote: &str) -> bool {
        self.broken.recall(remote).is_some()
    }

    /// Whether a host with which TLS came to this is to get its mail in the clear at once; then
    /// that is remembered.
    pub fn gives_way(&self, next_hop: &NextHop, cause: &Cause, remote: &str) -> bool {
        let gives_way = falls_back_to_plain(next_hop) && is_broken_tls(cause);
        if gives_way {
            self.broken.remember(remote, ());
        }
        gives_way
    }

    /// How to look at the certificate that a host was refused for; `None` where that was not
    /// the cause, or it was looked at.
    pub fn look(&self, next_hop: &NextHop, host: &Domain, cause: &Cause) -> Option<Security> {
        let Cause::Tls(TlsError::Certificate(refused)) = cause else { return None };
        let NextHop::Smarthost(smarthost) = next_hop else { return None };
        if refused.seen.is_some() {
            return None;
        }
        let trust = self.connectors.nobody(refused.doubt.clone()).ok()?;
        let peer = TlsPeer { trust, host: tls_name(host) };
        match smarthost.tls {
            ClientTls::Implicit => Some(Security::Implicit(peer)),
            _ => Some(Security::StartTls(peer)),
        }
    }
}

/// What a person can do about a session that TLS kept from coming about; empty where there is
/// nothing to say.
pub fn remedy(next_hop: &NextHop, cause: &Cause) -> String {
    let NextHop::Smarthost(smarthost @ Smarthost { section, tls, .. }) = next_hop else {
        return String::new();
    };
    match (tls, cause) {
        (ClientTls::Opportunistic, _) if would_go_in_the_clear(next_hop, cause) => {
            let and_login = match keeps_its_password(smarthost) {
                true => ", with auth_without_tls = yes for the password,",
                false => "",
            };
            format!("; fallback = plain in [{section}]{and_login} would send it in the clear")
        }
        (ClientTls::Implicit, Cause::Tls(TlsError::NoTls)) => {
            format!("; tls = starttls in [{section}] may be what it speaks")
        }
        (ClientTls::StartTls, Cause::Ended(Ending::NoStartTls)) => {
            format!("; see that port and tls in [{section}] are the right ones")
        }
        // Who speaks TLS from the beginning waits for us as we wait for the greeting.
        (
            ClientTls::StartTls | ClientTls::Opportunistic,
            Cause::TooSlow(Awaited::Greeting) | Cause::Closed(Awaited::Greeting),
        ) => format!("; if it speaks TLS from the beginning, give tls = implicit in [{section}]"),
        (_, Cause::Tls(error)) => error.remedy(section),
        _ => String::new(),
    }
}

/// Whether it is for want of leave alone that the mail stays here.
pub fn would_go_in_the_clear(next_hop: &NextHop, cause: &Cause) -> bool {
    let NextHop::Smarthost(smarthost) = next_hop else { return false };
    smarthost.tls == ClientTls::Opportunistic
        && !falls_back_to_plain(next_hop)
        && is_broken_tls(cause)
}

/// Whether the dates of a certificate were against it, which this host cannot judge while its
/// clock is plainly wrong.
pub fn waits_for_clock(cause: &Cause, is_plainly_wrong: bool) -> bool {
    let Cause::Tls(TlsError::Certificate(refused)) = cause else { return false };
    is_plainly_wrong && refused.doubt.is_about_time()
}

/// In words, for a person who asks where mail would go.
pub fn in_words(next_hop: &NextHop) -> String {
    let NextHop::Smarthost(smarthost) = next_hop else {
        return match next_hop {
            NextHop::Local | NextHop::Command => String::new(),
            _ => "with TLS where a host offers it, whatever its certificate, else in the clear"
                .to_owned(),
        };
    };
    let trust = match (&smarthost.fingerprint, &smarthost.ca) {
        (Some(_), _) => "which must show the certificate with the given fingerprint".to_owned(),
        (None, Some(ca)) => {
            format!("which must prove its name by a certificate that {} trusts", ca.display())
        }
        (None, None) => {
            "which must prove its name by a certificate that this system trusts".to_owned()
        }
    };
    match smarthost.tls {
        ClientTls::None => "in the clear".to_owned(),
        ClientTls::StartTls => format!("with TLS (STARTTLS) or not at all, {trust}"),
        ClientTls::Implicit => format!("with TLS (from the beginning) or not at all, {trust}"),
        ClientTls::Opportunistic => {
            let or_fails = if falls_back_to_plain(next_hop) { " or it fails" } else { "" };
            format!(
                "with TLS where it offers that, whatever its certificate; in the clear where it \
                 does not{or_fails}"
            )
        }
    }
}

/// Whether a host whose TLS is broken gets its mail in the clear.
fn falls_back_to_plain(next_hop: &NextHop) -> bool {
    match next_hop {
        NextHop::Smarthost(smarthost) => {
            smarthost.tls == ClientTls::Opportunistic
                && smarthost.falls_back_to_plain
                && !keeps_its_password(smarthost)
        }
        NextHop::Mx(_) => true,
        NextHop::Local | NextHop::Command => false,
    }
}

/// Whether a session in the clear would be of no use, since the password may not go there.
fn keeps_its_password(smarthost: &Smarthost) -> bool {
    smarthost.login.as_ref().is_some_and(|login| !login.without_tls)
}

/// Whether the host offered TLS and then did not bring it about. Who puts octets into the
/// connection ([`Cause::Injected`]) is somebody else, and does not get the mail in the clear.
const fn is_broken_tls(cause: &Cause) -> bool {
    matches!(
        cause,
        Cause::Tls(_)
            | Cause::Ended(Ending::StartTlsRefused(_))
            | Cause::Closed(Awaited::StartTls)
            | Cause::TooSlow(Awaited::StartTls)
    )
}

/// The name that a certificate must be for: an address without brackets.
fn tls_name(host: &Domain) -> String {
    match host {
        Domain::Name(name) => name.to_string(),
        Domain::Literal(address) => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::HostPort;
    use crate::deliver::tls::{Doubt, Refused};

    #[test]
    fn a_person_is_told_how_it_goes() {
        let host = HostPort { host: "mx.test".parse().unwrap(), port: 25 };
        let smarthost = |tls| Smarthost::new(vec![host.clone()], tls);
        let pinned = Smarthost { fingerprint: Some([7; 32]), ..smarthost(ClientTls::Implicit) };
        let falling =
            Smarthost { falls_back_to_plain: true, ..smarthost(ClientTls::Opportunistic) };
        let ca = Smarthost { ca: Some("/etc/ca.pem".into()), ..smarthost(ClientTls::StartTls) };
        for (smarthost, expected) in [
            (smarthost(ClientTls::None), "in the clear"),
            (
                smarthost(ClientTls::StartTls),
                "with TLS (STARTTLS) or not at all, which must prove its name by a certificate \
                 that this system trusts",
            ),
            (
                ca,
                "with TLS (STARTTLS) or not at all, which must prove its name by a certificate \
                 that /etc/ca.pem trusts",
            ),
            (
                pinned,
                "with TLS (from the beginning) or not at all, which must show the certificate \
                 with the given fingerprint",
            ),
            (
                smarthost(ClientTls::Opportunistic),
                "with TLS where it offers that, whatever its certificate; in the clear where it \
                 does not",
            ),
            (
                falling,
                "with TLS where it offers that, whatever its certificate; in the clear where it \
                 does not or it fails",
            ),
        ] {
            assert_eq!(in_words(&NextHop::Smarthost(smarthost)), expected);
        }
    }

    #[test]
    fn a_host_that_waits_for_tls_is_not_waited_for_without_a_word() {
        let next_hop = |tls| NextHop::Smarthost(Smarthost::new(Vec::new(), tls));
        for cause in [Cause::TooSlow(Awaited::Greeting), Cause::Closed(Awaited::Greeting)] {
            for tls in [ClientTls::StartTls, ClientTls::Opportunistic] {
                let words = remedy(&next_hop(tls), &cause);
                assert!(words.ends_with("give tls = implicit in [smarthost]"), "{words}");
            }
            assert_eq!(remedy(&next_hop(ClientTls::None), &cause), "");
        }
    }

    #[test]
    fn dates_are_not_judged_by_a_clock_that_is_plainly_wrong() {
        let cause = |doubt| {
            let refused = Refused { doubt, host: "mx.test".to_owned(), seen: None };
            Cause::Tls(TlsError::Certificate(Box::new(refused)))
        };
        for (doubt, expected) in [
            (Doubt::NotYetValid, true),
            (Doubt::Expired, true),
            (Doubt::Name, false),
            (Doubt::NotPinned, false),
        ] {
            let cause = cause(doubt);
            assert_eq!(waits_for_clock(&cause, true), expected);
            assert!(!waits_for_clock(&cause, false));
        }
        assert!(!waits_for_clock(&Cause::Tls(TlsError::Closed), true));
    }
}
