//! What a person wants to be otherwise than it is: from the flags, then from the dialogue. What was
//! not said stays `None`, and so does what the files say about it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::providers;
use crate::cli::invocation::{Argument, Invocation, Stop};
use crate::config::host_and_port;
use crate::config::settings::{ClientTls, HostPort};
use crate::mail::address::{Domain, Mailbox};

/// The port of submission with STARTTLS (RFC 6409), and with TLS from the beginning (RFC 8314).
const SUBMISSION: u16 = 587;
pub(super) const SUBMISSIONS: u16 = 465;

/// Where mail for other hosts goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// To this host.
    Smarthost(HostPort),
    /// To no smarthost.
    None,
}

/// All that can be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) exit: Option<Exit>,
    pub(super) tls: Option<ClientTls>,
    /// Empty for no login.
    pub(super) user: Option<String>,
    pub(super) password: Option<Password>,
    /// Where root's mail goes: an address, or a name of this host.
    pub(super) root: Option<String>,
    pub(super) sender: Option<Mailbox>,
    /// Empty for the authorities of the system.
    pub(super) ca: Option<PathBuf>,
}

/// A password. `Debug` does not tell it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Password(pub(super) String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(..)")
    }
}

/// How it is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Manner {
    /// Nothing is asked.
    pub(super) asks_nothing: bool,
    /// The password is the first line of standard input.
    pub(super) reads_password: bool,
    /// Nothing is written or tried.
    pub(super) is_dry: bool,
    /// Nothing is tried.
    pub(super) is_untried: bool,
}

/// Reads the command line.
pub(super) fn read(invocation: &mut Invocation) -> Result<(Wish, Manner), Stop> {
    let (mut wish, mut manner) = (Wish::default(), Manner::default());
    let (mut exit, mut has_tls) = (None, None);
    while let Some(argument) = invocation.next_argument()? {
        match argument {
            Argument::Flag("yes") => manner.asks_nothing = true,
            Argument::Flag("password-stdin") => manner.reads_password = true,
            Argument::Flag("dry-run") => manner.is_dry = true,
            Argument::Flag("no-test") => manner.is_untried = true,
            Argument::Option("smarthost", value) => exit = Some(text("smarthost", value)?),
            Argument::Option("user", value) => wish.user = Some(text("user", value)?),
            Argument::Option("root", value) => wish.root = Some(text("root", value)?),
            Argument::Option("tls", value) => has_tls = Some(tls(&text("tls", value)?)?),
            Argument::Option("sender", value) => {
                let text = text("sender", value)?;
                wish.sender = Some(sender(&text).map_err(|why| format!("--sender: {why}"))?);
            }
            Argument::Option("ca", value) => wish.ca = Some(absolute(Path::new(&value))?),
            argument => return Err(argument.unexpected()),
        }
    }
    wish.tls = has_tls;
    if let Some(text) = exit {
        let exit = read_exit(&text, wish.tls).map_err(|why| format!("--smarthost: {why}"))?;
        wish.exit = Some(exit);
    }
    Ok((wish, manner))
}

/// A provider's name, a host with or without its port, or `none`.
pub(super) fn read_exit(text: &str, tls: Option<ClientTls>) -> Result<Exit, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Exit::None);
    }
    let (text, known_port) = match providers::by_name(text) {
        Some(provider) => (provider.host, Some(provider.port)),
        None => (text, None),
    };
    let (host, port) = host_and_port(text)?;
    let usual = match tls {
        Some(ClientTls::Implicit) => SUBMISSIONS,
        _ => known_port.unwrap_or(SUBMISSION),
    };
    Ok(Exit::Smarthost(HostPort { host, port: port.unwrap_or(usual) }))
}

/// A host as the configuration and the command line have it.
pub(super) fn written(host: &HostPort) -> String {
    match host.host {
        Domain::Literal(address) => SocketAddr::new(address, host.port).to_string(),
        Domain::Name(_) => host.to_string(),
    }
}

/// An address that others can answer to.
pub(super) fn sender(text: &str) -> Result<Mailbox, String> {
    let mailbox: Mailbox = text
        .parse()
        .map_err(|why| format!("{text:?} is no address, such as me@example.com: {why}"))?;
    match mailbox.domain() {
        Domain::Name(_) => Ok(mailbox),
        Domain::Literal(_) => Err(format!("{text:?} has no domain name behind the @")),
    }
}

/// As the configuration has it.
pub(super) const TLS: [(&str, ClientTls); 4] = [
    ("starttls", ClientTls::StartTls),
    ("implicit", ClientTls::Implicit),
    ("opportunistic", ClientTls::Opportunistic),
    ("none", ClientTls::None),
];

fn tls(text: &str) -> Result<ClientTls, String> {
    let known = TLS.iter().find(|(name, _)| *name == text);
    let unknown = || format!("--tls: give starttls, implicit, opportunistic or none, not {text:?}");
    known.map(|(_, tls)| *tls).ok_or_else(unknown)
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    match path.as_os_str().is_empty() {
        true => Ok(PathBuf::new()),
        false => std::path::absolute(path).map_err(|error| format!("--ca: {error}")),
    }
}

fn text(name: &str, value: OsString) -> Result<String, String> {
    value.into_string().map_err(|_| format!("--{name}: the value is no UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_guessed_where_none_is_given() {
        let exit = |text, tls| match read_exit(text, tls) {
            Ok(Exit::Smarthost(host)) => host.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(exit("mx.test", None), "mx.test:587");
        assert_eq!(exit("mx.test", Some(ClientTls::Implicit)), "mx.test:465");
        assert_eq!(exit("mx.test:25", Some(ClientTls::Implicit)), "mx.test:25");
        assert_eq!(exit("Gmail", None), "smtp.gmail.com:587");
        assert_eq!(exit("fastmail", None), "smtp.fastmail.com:465");
        assert_eq!(exit("None", None), "Ok(None)");
        assert!(exit("a b", None).starts_with("Err"));
        assert!(sender("me").is_err() && sender("me@[192.0.2.1]").is_err());
    }
}
