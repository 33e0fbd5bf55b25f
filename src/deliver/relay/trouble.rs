//! What went wrong between this host and another one, whose fault it is, and what it means for
//! the mail.

use crate::deliver::conversation::{Cause, ConnectionError};
use crate::deliver::encryption;
use crate::deliver::outcome::{Failure, Fault, RemoteReply};
use crate::deliver::tls::TlsError;
use crate::mail::status::Status;
use crate::route::next_hop::NextHop;
use crate::smtp::client::Ending;
use crate::smtp::reply_parser::PeerReply;
use crate::sys::{clock, network};

/// The encryption did not come about (RFC 3463 §3.8).
const CRYPTOGRAPHIC_FAILURE: Status = Status::new(4, 7, 5);

/// Why a session brought no results.
pub(super) struct Trouble {
    pub(super) failure: Failure,
    /// It is the host's, and another one may be tried.
    pub(super) is_of_host: bool,
    /// It came of a login, which is not to be tried again and again.
    pub(super) is_in_login: bool,
}

impl Trouble {
    /// For a session that did not come about.
    pub(super) fn at_opening(
        remote: &str,
        error: &ConnectionError,
        next_hop: &NextHop,
        is_clock_wrong: bool,
    ) -> Self {
        let trouble = Self::with(remote, error, Fault::Destination);
        if encryption::waits_for_clock(&error.cause, is_clock_wrong) {
            return trouble.for_want_of_time();
        }
        let mut failure = trouble.failure;
        failure.text += &encryption::remedy(next_hop, &error.cause);
        if encryption::would_go_in_the_clear(next_hop, &error.cause) {
            failure.status = CRYPTOGRAPHIC_FAILURE;
        }
        Self { failure, ..trouble }
    }

    /// No certificate can be judged while the clock is wrong, so nothing of it counts as a try.
    fn for_want_of_time(self) -> Self {
        let now = clock::local_time(clock::since_1970().as_secs());
        let text = format!(
            "the clock of this host is not set, it shows {now}, so no certificate can be \
             judged: the mail waits until it is; {}",
            self.failure.text
        );
        Self { failure: Failure { text, ..self.failure }.with_fault(Fault::Network), ..self }
    }

    pub(super) fn with(remote: &str, error: &ConnectionError, fault: Fault) -> Self {
        let is_ours = matches!(error.cause, Cause::Content(_));
        let failure = Failure {
            status: status_of(&error.cause),
            text: format!("{remote} {}", error.cause),
            remote: said(&error.cause).map(|reply| RemoteReply { host: remote.to_owned(), reply }),
            fault: if is_ours { Fault::Here } else { fault },
        };
        Self {
            failure,
            is_of_host: !is_ours && !error.is_content_sent,
            is_in_login: error.is_in_login,
        }
    }
}

/// What went wrong with the hosts tried so far. One that might do later makes it temporary,
/// and one that was reached, or could have been, makes it more than want of a network.
#[derive(Default)]
pub(super) struct Failures {
    temporary: Option<Failure>,
    permanent: Option<Failure>,
    /// Whether any of them came of a login.
    pub(super) has_vain_login: bool,
}

impl Failures {
    pub(super) fn add_trouble(&mut self, trouble: Trouble) {
        self.has_vain_login |= trouble.is_in_login;
        self.add(trouble.failure);
    }

    pub(super) fn add(&mut self, failure: Failure) {
        if failure.status.is_permanent() {
            self.permanent = Some(failure);
        } else if self.temporary.as_ref().is_none_or(|it| weight(it) <= weight(&failure)) {
            self.temporary = Some(failure);
        }
    }

    pub(super) fn into_verdict(self) -> Failure {
        let nothing = || Failure::new(Status::new(4, 4, 4), "there is no host to try");
        self.temporary.or(self.permanent).unwrap_or_else(nothing)
    }
}

/// How much a failure with one host tells of the destination as a whole.
const fn weight(failure: &Failure) -> u8 {
    match failure.fault {
        Fault::Network => 0,
        Fault::Here | Fault::Destination | Fault::Login(_) => 1,
        // There is a host that takes sessions.
        Fault::Mail | Fault::DestinationOrMail => 2,
    }
}

/// Always temporary: a session that does not come about says nothing about the mail.
///
/// RFC 5321 §3.1 lets a server refuse all sessions with 554, which is permanent for that
/// session only; §5.1 wants the other hosts tried. Where all refuse, the usual cause is a
/// block list or a wrong setting, on either side, and a person mends it within days: so the
/// mail waits for that, or expires.
fn status_of(cause: &Cause) -> Status {
    match cause {
        Cause::TooSlow(_) | Cause::Closed(_) | Cause::Io(_) => Status::new(4, 4, 2),
        Cause::Tls(TlsError::TooSlow) => Status::new(4, 4, 2),
        Cause::Tls(_) | Cause::Injected => CRYPTOGRAPHIC_FAILURE,
        Cause::Ended(Ending::NoStartTls | Ending::StartTlsRefused(_)) => Status::new(4, 7, 4),
        Cause::NoReply(_) | Cause::Ended(Ending::OutOfStep(..)) => Status::new(4, 5, 0),
        Cause::Ended(Ending::Refused(reply)) if reply.status().is_temporary() => reply.status(),
        Cause::Ended(_) => Status::new(4, 3, 2),
        Cause::Content(_) => Status::new(4, 3, 0),
    }
}

fn said(cause: &Cause) -> Option<String> {
    match cause {
        // A refused STARTTLS is worth more words than the peer's own.
        Cause::Ended(Ending::Refused(reply) | Ending::OutOfStep(_, reply)) => {
            Some(reply.to_string())
        }
        _ => None,
    }
}

/// A host that takes mail from nobody in a session such as this one.
pub(super) fn wants_more(remote: &str, reply: &PeerReply, next_hop: &NextHop) -> Failure {
    let remedy = match next_hop {
        NextHop::Smarthost(smarthost) if smarthost.login.is_none() => format!(
            "; give user and password_file in [{}], and see that port and tls are right",
            smarthost.section
        ),
        NextHop::Smarthost(smarthost) => {
            format!("; see that port and tls in [{}] are right", smarthost.section)
        }
        NextHop::Mx(_) | NextHop::Local | NextHop::Command => String::new(),
    };
    let text = format!("{remote} takes no mail without more: {reply}{remedy}");
    let remote = RemoteReply { host: remote.to_owned(), reply: reply.to_string() };
    let failure = Failure::new(Status::new(4, 7, 0), text).with_fault(Fault::Destination);
    Failure { remote: Some(remote), ..failure }
}

/// A connection that was not made.
pub(super) fn unreachable(remote: &str, error: &std::io::Error) -> Failure {
    let text = format!("cannot connect to {remote}: {error}");
    // A host with IPv4 alone has no way to an IPv6 address, and has a network all the same.
    match network::is_without_route(error) && !network::has_route() {
        // RFC 3463 §3.5: 4.4.1 is for a call that nobody answered, and 4.4.4 for what a
        // directory does not know; this call was never made.
        true => Failure::new(Status::new(4, 4, 0), text).with_fault(Fault::Network),
        false => Failure::new(Status::new(4, 4, 1), text).with_fault(Fault::Destination),
    }
}

/// Whose fault it is that a session broke off with a message under way.
pub(super) fn fault_of_break(cause: &Cause) -> Fault {
    match cause {
        // RFC 5321 §3.8: 421 speaks of the service as a whole.
        Cause::Ended(Ending::Refused(_)) => Fault::Destination,
        _ => Fault::DestinationOrMail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{ClientTls, HostPort, Smarthost};
    use crate::deliver::tls::{Doubt, Refused};

    #[test]
    fn mail_waits_for_the_clock_and_that_is_no_try() {
        let host = HostPort { host: "mx.test".parse().unwrap(), port: 25 };
        let next_hop = NextHop::Smarthost(Smarthost::new(vec![host], ClientTls::StartTls));
        let doubt = Doubt::NotYetValid;
        let refused = Refused { doubt, host: "mx.test".to_owned(), seen: None };
        let cause = Cause::Tls(TlsError::Certificate(Box::new(refused)));
        let error = ConnectionError { cause, is_content_sent: false, is_in_login: false };
        let trouble = |is_wrong| Trouble::at_opening("mx.test", &error, &next_hop, is_wrong);
        let Trouble { failure, is_of_host, .. } = trouble(true);
        assert_eq!((failure.fault, is_of_host), (Fault::Network, true));
        assert!(failure.text.starts_with("the clock of this host is not set, "), "{failure:?}");
        let failure = trouble(false).failure;
        assert_eq!(failure.fault, Fault::Destination);
        let text = "mx.test shows a certificate that is not yet valid; the clock of this host ";
        assert!(failure.text.starts_with(text), "{failure:?}");
    }
}
