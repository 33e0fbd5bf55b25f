//! The settings as the rest of the program sees them: typed, checked, complete. Only this
//! folder knows that they come from an INI file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::mail::address::{Domain, DomainName, Mailbox};
use crate::smtp::sasl::Mechanism;

/// Everything that a configuration says, with defaults where it is silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `[server]`.
    pub server: Server,
    /// Each `[listen.NAME]`, in the order of the file. Never empty.
    pub listeners: Vec<Listener>,
    /// `[relay] networks`: the clients that may relay without AUTH.
    pub relay_networks: Vec<IpNet>,
    /// `[tls]`.
    pub tls: ServerTls,
    /// `[auth]`.
    pub auth: Auth,
    /// `[local]`.
    pub local: Local,
    /// Each `[domain.NAME]`, in the order of the file.
    pub domains: Vec<VirtualDomain>,
    /// `[rewrite]`.
    pub rewrite: Rewrite,
    /// `[digest]`.
    pub digest: Digest,
    /// `[smarthost]`; without it mail goes straight to the MX.
    pub smarthost: Option<Smarthost>,
    /// `[queue]`.
    pub queue: Queue,
    /// `[dns] servers`; empty: those of the system.
    pub dns_servers: Vec<SocketAddr>,
    /// `[log] level`.
    pub log_level: log::LevelFilter,
    /// `[log] to`.
    pub log_to: LogReceiver,
    /// `[log] events`: the most octets of the journal of events; 0 where none is kept.
    pub events_size: u64,
}

/// `[log] to`: who gets the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogReceiver {
    /// Standard error; where that is the journal's, each line with the priority that it knows.
    Auto,
    /// Standard error, each line with the time.
    StandardError,
    /// The log daemon of the host.
    Syslog,
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The name in the greeting, in EHLO and in Received fields.
    pub hostname: DomainName,
    /// The domains whose mail is delivered here. Never empty; the first one completes
    /// addresses that have none.
    pub domains: LocalDomains,
    /// The account to run as after binding, when started as root.
    pub user: String,
    /// Where the queue lives.
    pub spool: PathBuf,
    /// Caches and what else must outlive a restart.
    pub state: PathBuf,
    /// Where `sendmail` submits. `None` when switched off (an empty value).
    pub socket: Option<PathBuf>,
    /// The largest message, in octets.
    pub max_message_size: u64,
    /// The most recipients of one message; at least 100 (RFC 5321 §4.5.3.1.8).
    pub max_recipients: usize,
    /// The most sessions at once, over all listeners.
    pub max_sessions: usize,
    /// The most sessions at once of one client, as [`crate::receive::peer::Client`] counts.
    pub max_sessions_per_client: usize,
    /// How long to wait for the next command.
    pub session_timeout: Duration,
    /// The free octets in the spool below which MAIL gets 452.
    pub min_free_space: u64,
    /// What VRFY tells.
    pub vrfy: Vrfy,
}

/// The domains of `[server] domains`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDomains {
    /// The names listed, at least one.
    pub names: Vec<DomainName>,
    /// What else the host is called, where nothing is listed; its programs put it behind an `@`.
    pub own: Vec<DomainName>,
    /// Whether `*` is among them: every domain is delivered here, as `mailwren demo` wants.
    pub all: bool,
    /// The domains with users of their own, each a `[domain.NAME]`.
    pub others: Vec<DomainName>,
}

impl LocalDomains {
    /// Whether mail for `domain` is delivered here. An address literal is so only with `*`; for
    /// its own address the session puts a name of ours first.
    pub fn contains(&self, domain: &Domain) -> bool {
        let is_ours = |name| self.has(name) || self.others.contains(name);
        self.all || domain.name().is_some_and(is_ours)
    }

    /// Whether `name` is listed, or one of the host's own.
    pub fn has(&self, name: &DomainName) -> bool {
        self.names.contains(name) || self.own.contains(name)
    }

    /// Whether the users of `domain` are those of `[local]`, and not of a virtual domain.
    pub fn shares_users(&self, domain: &Domain) -> bool {
        self.contains(domain) && !domain.name().is_some_and(|name| self.others.contains(name))
    }

    /// The domain of an address that was given without one.
    pub fn origin(&self) -> &DomainName {
        &self.names[0]
    }
}

/// `[server] vrfy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vrfy {
    /// 252 for everything.
    No,
    /// 250 or 550 for those who may relay, 252 for others.
    Local,
    /// 250 or 550 for everybody.
    Yes,
}

/// `[listen.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The NAME of the section.
    pub name: String,
    /// Where to listen.
    pub address: ListenAddress,
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether and how connections are encrypted. On a Unix socket they are not.
    pub tls: ListenerTls,
    /// The oldest version of TLS that is spoken.
    pub tls_minimum: TlsVersion,
    /// Who has to log in.
    pub auth: AuthRule,
    /// Whether a password may come over TCP in the clear.
    pub auth_without_tls: bool,
    /// Only these clients may connect; empty: all.
    pub networks: Vec<IpNet>,
    /// What a bare LF in a message means.
    pub bare_newline: BareNewline,
}

/// `[listen.NAME] protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Mail from other servers and from hosts that may relay (RFC 5321).
    Smtp,
    /// Mail from people's programs, who log in first (RFC 6409).
    Submission,
}

/// `[listen.NAME] tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerTls {
    /// Never.
    None,
    /// When the client says STARTTLS (RFC 3207).
    StartTls,
    /// From the beginning (RFC 8314 §3).
    Implicit,
}

/// A version of TLS, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.0 (RFC 2246), broken, for old devices.
    V1_0,
    /// TLS 1.1 (RFC 4346), broken, for old devices.
    V1_1,
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// `[listen.NAME] auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthRule {
    /// AUTH is not offered.
    None,
    /// Who logs in may relay.
    Optional,
    /// Who does not log in sends nothing.
    Required,
}

/// `[listen.NAME] address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `host:port` or `[v6]:port`, the host being an address.
    Tcp(SocketAddr),
    /// `unix:/path`.
    Unix(PathBuf),
    /// `systemd:NAME`: the sockets that systemd hands over by this name.
    Systemd(String),
}

/// `[listen.NAME] bare_newline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareNewline {
    /// Refuse the message.
    Reject,
    /// Turn a bare LF into CRLF; it still ends no message.
    Accept,
}

/// `[tls]`: the certificate that listeners show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Whether the file names the two. Where it does not, and they are not there either, the
    /// server makes a certificate of its own.
    pub is_configured: bool,
}

/// `[auth]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// The accounts, as `mailwren passwd` writes them. The file need not exist.
    pub users: PathBuf,
    /// The mechanisms that are offered where they can be used, in this order.
    pub mechanisms: Vec<Mechanism>,
    /// Dovecot's socket, which then knows the accounts instead of the file.
    pub dovecot: Option<PathBuf>,
    /// Under which addresses those who logged in, and the accounts of this host, may send.
    pub sender: SenderRule,
    /// The accounts of this host that may send under any address.
    pub trusted_users: Vec<String>,
    /// The refused logins after which a session ends.
    pub auth_failures: u32,
}

/// `[auth] sender`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderRule {
    /// Their own only.
    Own,
    /// Any.
    Any,
}

/// `[local]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// How a mailbox is written.
    pub format: MailboxFormat,
    /// Where it is: a path with `{user}`, `{domain}` and `{home}` in it, and perhaps `{detail}` at
    /// its end. Not yet expanded.
    pub path: String,
    /// Who has a mailbox.
    pub users: Users,
    /// The alias file; it need not exist. `None` for an empty value.
    pub aliases: Option<PathBuf>,
    /// What separates the user from the detail in a local part (RFC 5233).
    pub subaddress: Option<char>,
    /// Who takes mail for unknown local users.
    pub catch_all: Option<Mailbox>,
    /// Where a user's `.forward` is: a path with `{user}` or `{home}` in it. `None` where there
    /// is none, as for users that are no accounts.
    pub forward: Option<String>,
    /// The account that the commands of alias files run as.
    pub command_user: String,
    /// How long a command may run.
    pub command_timeout: Duration,
    /// How an mbox is locked, in this order. Never empty.
    pub mbox_locks: Vec<MboxLock>,
    /// Whether `maildirsize` counts.
    pub quota: bool,
    /// Whether `~/.vacation.msg` is sent.
    pub vacation: bool,
}

/// A way to lock an mbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MboxLock {
    /// A file of its own beside it.
    DotLock,
    /// `fcntl(2)`.
    Fcntl,
    /// `flock(2)`.
    Flock,
}

/// `[domain.NAME]`: a domain with users of its own. Their mailboxes belong to the server's
/// account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualDomain {
    /// The NAME of the section.
    pub name: DomainName,
    /// The file with its users. `None` where it has aliases only.
    pub users: Option<PathBuf>,
    /// Its alias file.
    pub aliases: Option<PathBuf>,
    /// Where its mailboxes are: a path with `{user}` and `{domain}` in it.
    pub path: String,
    /// Who takes mail for unknown users.
    pub catch_all: Option<Mailbox>,
}

/// `[rewrite]`: what becomes of the addresses of this host in mail that leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// What every local sender becomes.
    pub sender: Option<Mailbox>,
    /// The domain that takes the place of ours.
    pub masquerade: Option<DomainName>,
    /// A file of addresses and what they become.
    pub map: Option<PathBuf>,
    /// The display name of a replaced sender who has none, with `{user}`, `{host}` and `{name}`
    /// in it; empty for none.
    pub name: String,
}

/// `[digest]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// How many messages of one sender to one recipient go out one by one in a window; 0 for all.
    pub burst: usize,
    /// The window.
    pub window: Duration,
}

/// `[local] format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailboxFormat {
    /// One file, messages separated by From_ lines.
    Mbox,
    /// A folder, one file per message.
    Maildir,
}

/// `[local] users`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Users {
    /// The accounts of the system (NSS).
    System,
    /// Any name that is safe as a file name.
    Any,
    /// The names in a file, one a line.
    File(PathBuf),
}

/// `[smarthost]`, or the host of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Smarthost {
    /// The section that it stands in, without brackets, for errors that a person must mend.
    pub section: String,
    /// Tried in order. Never empty.
    pub hosts: Vec<HostPort>,
    /// Whether and how connections are encrypted.
    pub tls: ClientTls,
    /// The file with the certificates, PEM, that are trusted instead of the system's.
    pub ca: Option<PathBuf>,
    /// The SHA-256 of the one certificate (DER) that is trusted, whatever it says.
    pub fingerprint: Option<[u8; 32]>,
    /// Whether opportunistic TLS that fails is followed by a try in the clear.
    pub falls_back_to_plain: bool,
    /// The account to log in to.
    pub login: Option<Login>,
}

impl Smarthost {
    /// Hosts that are trusted by the roots of the system, without an account.
    pub fn new(hosts: Vec<HostPort>, tls: ClientTls) -> Self {
        Self {
            section: "smarthost".to_owned(),
            hosts,
            tls,
            ca: None,
            fingerprint: None,
            falls_back_to_plain: false,
            login: None,
        }
    }
}

impl Smarthost {
    /// Whether both log in with the same name and secret, and to a host in common: who was refused
    /// by one is refused by the other.
    pub fn shares_account_with(&self, other: &Self) -> bool {
        let account = |smarthost: &Self| {
            smarthost.login.as_ref().map(|login| (login.user.clone(), login.secret.clone()))
        };
        let has_host = |host: &Domain| other.hosts.iter().any(|it| it.host == *host);
        account(self).is_some()
            && account(self) == account(other)
            && self.hosts.iter().any(|it| has_host(&it.host))
    }
}

/// An account of ours at a smarthost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Login {
    /// Its name.
    pub user: String,
    /// Where its password is, or its token.
    pub secret: SecretSource,
    /// The mechanisms that may be used; the best of them that the server offers is.
    pub mechanisms: Vec<Mechanism>,
    /// Whether the password may go over TCP in the clear.
    pub without_tls: bool,
}

/// Where a password is. `Debug` does not tell it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// In the configuration.
    Inline(String),
    /// The first line of this file.
    File(PathBuf),
    /// The first line that this command prints, run by `/bin/sh -c`.
    Command(String),
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Command(_) => f.write_str("Command(..)"),
        }
    }
}

/// `[smarthost] tls`. With `StartTls` and `Implicit` the server must prove its name, or gets no
/// mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientTls {
    /// Mail goes in the clear.
    None,
    /// STARTTLS where the server offers it, whatever its certificate; else in the clear
    /// (RFC 7435).
    Opportunistic,
    /// TLS begins with the command STARTTLS (RFC 3207).
    StartTls,
    /// TLS begins with the connection (RFC 8314 §3).
    Implicit,
}

/// `host:port`: the host a name or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name to look up, or an address.
    pub host: Domain,
    /// 25 where none is given.
    pub port: u16,
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// `[queue]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The pauses between tries; the last one repeats. Never empty.
    pub retry: Vec<Duration>,
    /// How long a message is kept before it bounces.
    pub expire: Duration,
    /// How long a session waits for the delivery of a message that is for this host alone before
    /// it stores it; zero where it does not wait at all.
    pub direct: Duration,
    /// When the sender is told that a message is late; `None` for never.
    pub delay_warning: Option<Duration>,
    /// The octets up to which a message goes back whole with the report of its failure.
    pub bounce_size: u64,
    /// Who is told of mail without a sender that failed; `None` for nobody: it is kept.
    pub double_bounce: Option<Mailbox>,
    /// The threads that write into mailboxes, at least 1.
    pub local_workers: usize,
    /// The threads that relay, at least 1.
    pub relay_workers: usize,
}
