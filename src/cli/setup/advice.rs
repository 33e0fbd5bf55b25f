//! What failed while a smarthost was tried, and what a person can do about it, in plain words and
//! with the flag for it.

use std::io::ErrorKind;

use super::providers::names;
use super::wish::written;
use crate::config::settings::{ClientTls, HostPort, Smarthost};
use crate::deliver::conversation::{Cause, ConnectionError};
use crate::deliver::relay::trial::Stopped;
use crate::deliver::remedy::wish_of_provider;
use crate::deliver::tls::{Doubt, Refused, TlsError};
use crate::mail::address::Mailbox;
use crate::smtp::client::{Awaited, Ending, LoginError, Refusal};
use crate::sys::clock;
use crate::sys::dns::DnsError;
use crate::sys::process::exit;

/// What is told of a failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) code: u8,
    /// What failed.
    pub(super) what: String,
    /// What to do.
    pub(super) remedy: String,
}

/// What was tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tried<'a> {
    pub(super) smarthost: &'a Smarthost,
    pub(super) host: &'a HostPort,
    pub(super) sender: &'a Mailbox,
    pub(super) recipient: Option<&'a Mailbox>,
}

impl Tried<'_> {
    /// What to say of it.
    pub(super) fn advice(&self, stopped: &Stopped) -> Advice {
        let host = &self.host.host;
        match stopped {
            Stopped::NoAddress(error) => self.no_address(error),
            Stopped::Unreachable(remote, error) => self.unreachable(remote, error),
            Stopped::Session(remote, error) => {
                let (code, remedy) = self.after(error);
                advice(code, format!("{remote} {}", error.cause), remedy)
            }
            Stopped::Refused(remote, refusal) => self.refused(remote, refusal),
            Stopped::TooLarge(remote, octets) => advice(
                exit::UNAVAILABLE,
                format!("{remote} takes no more than {octets} octets"),
                format!("{host} is of no use for mail; give another with --smarthost"),
            ),
            Stopped::Unusable(why) => {
                advice(exit::CONFIG, why.clone(), "mend that, or give another --ca".to_owned())
            }
        }
    }

    fn no_address(&self, error: &DnsError) -> Advice {
        let host = &self.host.host;
        let (code, what, remedy) = match error {
            DnsError::NoSuchDomain | DnsError::NoRecords => (
                exit::UNAVAILABLE,
                format!("there is no host {host}: {error}"),
                match host.name().is_some_and(|name| !name.as_str().contains('.')) {
                    true => {
                        format!("it is no provider known by name either; those are {}", names())
                    }
                    false => "see how the provider spells its SMTP server, and give that with \
                              --smarthost"
                        .to_owned(),
                },
            ),
            DnsError::Temporary(_) => (
                exit::TEMPFAIL,
                format!("nobody says where {host} is: {error}"),
                "the name servers in /etc/resolv.conf, or of [dns] servers, do not answer: see \
                 that this host's network is up and they are right"
                    .to_owned(),
            ),
            DnsError::NoNetwork(_) => (
                exit::TEMPFAIL,
                format!("nobody says where {host} is: {error}"),
                "connect it, and see that it has an address and a route: ip route".to_owned(),
            ),
        };
        advice(code, what, remedy)
    }

    fn unreachable(&self, remote: &str, error: &std::io::Error) -> Advice {
        let HostPort { host, port } = self.host;
        let other = self.other_port();
        let (code, what, remedy) = match error.kind() {
            ErrorKind::ConnectionRefused => (
                exit::UNAVAILABLE,
                format!("{remote} refused the connection: nothing listens on port {port} there"),
                format!("see that host and port are right; try {other}"),
            ),
            ErrorKind::TimedOut => (
                exit::TEMPFAIL,
                format!("{remote} did not answer: most likely something blocks port {port}"),
                format!(
                    "many networks and internet providers block ports 25 and 587; try {other}, \
                     and look at the firewall of your router"
                ),
            ),
            _ => (
                exit::TEMPFAIL,
                format!("cannot connect to {remote}: {error}"),
                format!("see that this host has a network with a way to {host}; or try {other}"),
            ),
        };
        advice(code, what, remedy)
    }

    /// The flag with the port that people use where this one does not work.
    fn other_port(&self) -> String {
        let port = if self.host.port == 587 { 465 } else { 587 };
        let other = HostPort { host: self.host.host.clone(), port };
        format!("--smarthost {}", written(&other))
    }

    fn after(&self, error: &ConnectionError) -> (u8, String) {
        let host = &self.host.host;
        match &error.cause {
            Cause::Tls(TlsError::Certificate(refused)) => self.certificate(refused),
            Cause::Tls(TlsError::NoTls) if self.smarthost.tls == ClientTls::Implicit => (
                exit::UNAVAILABLE,
                format!(
                    "it does not begin with TLS there; give --tls starttls, or {}",
                    self.other_port()
                ),
            ),
            Cause::Tls(TlsError::TooOld) => {
                (exit::UNAVAILABLE, "nothing below TLS 1.2 is spoken here: update that host".into())
            }
            Cause::Ended(Ending::NoStartTls | Ending::StartTlsRefused(_)) => (
                exit::UNAVAILABLE,
                format!(
                    "see that the port is right: try {}; or something on the way takes TLS out. \
                     Inside your own network --tls none sends in the clear",
                    self.other_port()
                ),
            ),
            Cause::TooSlow(Awaited::Greeting) | Cause::Closed(Awaited::Greeting)
                if self.smarthost.tls != ClientTls::Implicit =>
            {
                let text = format!(
                    "if it speaks TLS from the beginning, give --tls implicit; else something on \
                     the way holds port {} up: try {}",
                    self.host.port,
                    self.other_port()
                );
                (exit::TEMPFAIL, text)
            }
            Cause::NoReply(_) => (
                exit::UNAVAILABLE,
                format!(
                    "port {} of {host} is for something else, such as reading mail or the web; try {}",
                    self.host.port,
                    self.other_port()
                ),
            ),
            Cause::Ended(Ending::Login(error)) => self.login(error),
            Cause::Ended(Ending::Refused(reply)) if reply.status().is_temporary() => {
                (exit::TEMPFAIL, "try it again later".to_owned())
            }
            Cause::Ended(Ending::Refused(_)) => (
                exit::UNAVAILABLE,
                format!("{host} takes no mail from this host's address; ask who runs it"),
            ),
            _ => (exit::TEMPFAIL, format!("try it again; else ask who runs {host}")),
        }
    }

    fn certificate(&self, refused: &Refused) -> (u8, String) {
        let now = clock::local_time(clock::since_1970().as_secs());
        let is_wrong = clock::is_plainly_wrong();
        let text = match &refused.doubt {
            Doubt::Expired | Doubt::NotYetValid if is_wrong => {
                return (
                    exit::TEMPFAIL,
                    format!("the clock of this host is not set, it shows {now}: set it first"),
                );
            }
            Doubt::Expired | Doubt::NotYetValid => format!(
                "the clock of this host shows {now}: where that is wrong, set it; else a new \
                 certificate is due there"
            ),
            Doubt::Name => "give the name that it is for with --smarthost; if neither is your \
                            provider's, somebody is between you and it"
                .to_owned(),
            Doubt::SelfSigned | Doubt::UnknownIssuer => match &self.smarthost.ca {
                Some(ca) => format!(
                    "{} does not have the certificate of who signed it: give the right one with \
                     --ca FILE, or --ca '' for those that this system trusts",
                    ca.display()
                ),
                None => "if that server is your own, give the certificate of who signed it with \
                         --ca FILE; else somebody may be between you and your provider; that this \
                         system trusts nobody at all can also be: install ca-certificates"
                    .to_owned(),
            },
            Doubt::NotPinned => {
                "see whether it is still yours, and change [smarthost] fingerprint; \
                                 or give --ca FILE, which takes its place"
                    .to_owned()
            }
            Doubt::Other(_) => "ask who runs it for a better one".to_owned(),
        };
        (exit::UNAVAILABLE, text)
    }

    fn login(&self, error: &LoginError) -> (u8, String) {
        match error {
            LoginError::Refused { .. } => {
                let host = self.host.host.to_string();
                let words = match wish_of_provider(&host) {
                    Some(words) => format!("{words}; then check --user and the password"),
                    None => "check --user and the password; an account with two-factor login may \
                             want an app password"
                        .to_owned(),
                };
                (exit::NOPERM, words)
            }
            LoginError::NotNow(_) => (exit::TEMPFAIL, "try it again later".to_owned()),
            LoginError::NotOffered => (
                exit::UNAVAILABLE,
                format!("try {}; if it really wants no login, give --user ''", self.other_port()),
            ),
            LoginError::NoMechanism { .. } => (
                exit::UNAVAILABLE,
                "it may want a token: see mechanisms and password_command in mailwren.ini".into(),
            ),
            LoginError::InTheClear => (
                exit::UNAVAILABLE,
                "no password is sent in the clear: give --tls starttls, or --tls implicit".into(),
            ),
            LoginError::Impossible(_) | LoginError::NotBase64 | LoginError::Endless => {
                (exit::UNAVAILABLE, "check --smarthost, --user and the password".to_owned())
            }
        }
    }

    fn refused(&self, remote: &str, refusal: &Refusal) -> Advice {
        let reply = &refusal.reply;
        let says = reply.to_string().to_ascii_lowercase();
        let is_temporary = refusal.status().is_temporary();
        let code = if is_temporary { exit::TEMPFAIL } else { exit::UNAVAILABLE };
        let sender = format!(
            "it takes mail only from addresses that belong to the account: give the account's own \
             with --sender, instead of {}",
            self.sender
        );
        let (what, remedy) = match refusal.command {
            Awaited::Mail if reply.code() == 530 => {
                ("to take mail without more".to_owned(), "it wants a login: give --user".to_owned())
            }
            Awaited::Mail => (format!("the sender {}", self.sender), sender),
            // Many look at the sender only here, Postfix among them.
            Awaited::Recipient(_) if says.contains("sender") => {
                (format!("the sender {}", self.sender), sender)
            }
            Awaited::Recipient(_) => {
                let recipient = self.recipient.map(ToString::to_string).unwrap_or_default();
                let remedy = match self.smarthost.login {
                    Some(_) => {
                        "see that --root is spelt rightly, and that the account may send there"
                    }
                    None => {
                        "see that --root is spelt rightly; it may also want a login: give --user"
                    }
                };
                (format!("the recipient {recipient}"), remedy.to_owned())
            }
            _ if ["sender", "from", "sendas", "send as"].iter().any(|it| says.contains(it)) => {
                ("the message".to_owned(), sender)
            }
            _ => ("the message".to_owned(), "ask who runs it why".to_owned()),
        };
        let again = "this may pass, as where a host refuses all that it has not seen before: try it \
                     again in ten minutes; else ";
        let remedy = if is_temporary { format!("{again}{remedy}") } else { remedy };
        advice(code, format!("{remote} refused {what}: {reply}"), remedy)
    }
}

fn advice(code: u8, what: String, remedy: String) -> Advice {
    Advice { code, what, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply_parser::PeerReply;
    use crate::smtp::reply_parser::{ReplyError, ReplyParser};

    fn reply(text: &[u8]) -> PeerReply {
        let mut parser = ReplyParser::new();
        parser.feed(text);
        parser.next_reply().unwrap().unwrap()
    }

    fn said(host: &str, port: u16, stopped: &Stopped) -> (u8, String) {
        let host = HostPort { host: host.parse().unwrap(), port };
        let smarthost = Smarthost::new(vec![host.clone()], ClientTls::StartTls);
        let sender = "me@x.test".parse().unwrap();
        let tried = Tried { smarthost: &smarthost, host: &host, sender: &sender, recipient: None };
        let Advice { code, what, remedy } = tried.advice(stopped);
        (code, format!("{what}\n{remedy}"))
    }

    fn session(cause: Cause) -> Stopped {
        let error = ConnectionError { cause, is_content_sent: false, is_in_login: false };
        Stopped::Session("mx.test[192.0.2.1]:587".to_owned(), Box::new(error))
    }

    #[test]
    fn what_no_test_can_wait_for_is_told_too() {
        let io = |kind: ErrorKind| Stopped::Unreachable("[192.0.2.1]:587".into(), kind.into());
        for (stopped, code, words) in [
            (Stopped::NoAddress(DnsError::Temporary("no answer".into())), 75, "/etc/resolv.conf"),
            (Stopped::NoAddress(DnsError::NoNetwork("no route".into())), 75, "ip route"),
            (Stopped::NoAddress(DnsError::NoSuchDomain), 69, "there is no host smtp.gmail.com"),
            (io(ErrorKind::TimedOut), 75, "try --smarthost smtp.gmail.com:465"),
            (io(ErrorKind::NetworkUnreachable), 75, "has a network with a way to"),
            (session(Cause::TooSlow(Awaited::Greeting)), 75, "give --tls implicit"),
            (session(Cause::Tls(TlsError::TooOld)), 69, "nothing below TLS 1.2"),
            (
                session(Cause::NoReply(ReplyError::NoCode)),
                69,
                "port 587 of smtp.gmail.com is for something else, such as reading mail or the web; \
                 try --smarthost smtp.gmail.com:465",
            ),
            (session(Cause::Injected), 75, "ask who runs smtp.gmail.com"),
        ] {
            let (found, text) = said("smtp.gmail.com", 587, &stopped);
            assert!(found == code && text.contains(words), "{words} is not in {text}");
        }
    }

    #[test]
    fn a_refused_login_is_told_what_the_provider_wants() {
        let refused = || {
            let reply = reply(b"535 5.7.8 no\r\n");
            session(Cause::Ended(Ending::Login(LoginError::Refused {
                reply,
                words: String::new(),
            })))
        };
        let (code, text) = said("smtp.gmail.com", 587, &refused());
        assert!(code == 77 && text.contains("app password, made in the settings"), "{text}");
        let (_, text) = said("mx.test", 587, &refused());
        assert!(
            text.ends_with("an account with two-factor login may want an app password"),
            "{text}"
        );
    }
}
