//! A document into [`Settings`], section by section.
//!
//! In each function all values are asked for before the first `?`, so that one mistake does
//! not hide the next.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use log::LevelFilter;

use super::host_names::HostNames;
use super::ini::{self, Document, MAX_FILE};
use super::mistake::{ConfigError, Mistakes, shown};
use super::reader::Reader;
use super::settings::{
    ListenAddress, Listener, LocalDomains, LogReceiver, Queue, Server, Settings, TlsVersion, Vrfy,
};
use super::{addresses, local, login, names, next_hop, paths};
use crate::mail::address::{DomainName, Mailbox};

/// The most listeners, each of which has a thread.
const MAX_LISTENERS: usize = 64;
/// The longest name of an account, in octets: that of useradd(8).
const MAX_USER: usize = 32;
/// The smallest journal of events, in octets: a file of it holds the longest line.
const LEAST_EVENTS: u64 = 64 << 10;

/// Reads the configuration file at `path`. `host` is what the host is called, which counts where
/// the file gives no names.
///
/// # Errors
/// Every mistake in the file, or the one that keeps it from being read. The person who
/// wrote it has to mend it; trying again does not help.
pub fn load(path: &Path, host: impl Into<HostNames>) -> Result<Settings, ConfigError> {
    let file_name = path.to_string_lossy();
    let mut octets = Vec::new();
    // One octet more than is allowed, so that the parser sees that it is too many.
    let limit = MAX_FILE as u64 + 16;
    match File::open(path).and_then(|file| file.take(limit).read_to_end(&mut octets)) {
        Ok(_) => parse(&file_name, &octets, host),
        Err(error) => Err(ConfigError::of_file(&file_name, unreadable(&error))),
    }
}

fn unreadable(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => {
            "there is no such file; mailwren setup makes one, or name yours with --config FILE"
                .to_owned()
        }
        ErrorKind::PermissionDenied => {
            "it may not be read; make it readable for everybody (chmod 644), it holds no secrets"
                .to_owned()
        }
        ErrorKind::IsADirectory => "it is a folder; name a file with --config FILE".to_owned(),
        _ => format!("it cannot be read: {error}"),
    }
}

/// The line, counted from 1, where the file at `path` says `key` in `section`; `None` where it
/// leaves it out.
pub fn line_of(path: &Path, section: &str, key: &str) -> Option<usize> {
    let mut octets = Vec::new();
    File::open(path).ok()?.take(MAX_FILE as u64).read_to_end(&mut octets).ok()?;
    line_in(&octets, section, key)
}

fn line_in(text: &[u8], section: &str, key: &str) -> Option<usize> {
    let document = ini::read(text, &mut Mistakes::default());
    document.section(section)?.entry(key).map(|entry| entry.line)
}

/// Reads the text of a configuration; `file_name` is only for the messages. `host` is
/// what the host is called, which counts where the text gives no names.
///
/// # Errors
/// Every mistake in the text.
pub fn parse(
    file_name: &str,
    text: &[u8],
    host: impl Into<HostNames>,
) -> Result<Settings, ConfigError> {
    let mut mistakes = Mistakes::default();
    let document = ini::read(text, &mut mistakes);
    names::check(&document, &mut mistakes);
    match settings(&document, &host.into(), &mut mistakes) {
        Some(settings) if mistakes.is_empty() => Ok(settings),
        _ => Err(mistakes.into_error(file_name)),
    }
}

impl Settings {
    /// What an empty file gives on a host that is called so.
    ///
    /// # Errors
    /// When its own name is no domain name.
    pub fn default_with(host: impl Into<HostNames>) -> Result<Self, ConfigError> {
        parse("(no file)", b"", host)
    }
}

fn settings(document: &Document, host: &HostNames, mistakes: &mut Mistakes) -> Option<Settings> {
    let server = server(&mut Reader::new(document, "server", mistakes), host);
    let tls = login::server_tls(&mut Reader::new(document, "tls", mistakes));
    let tls_minimum = tls.as_ref().map_or(TlsVersion::V1_2, |(_, minimum)| *minimum);
    let listeners = listeners(document, server.as_ref(), tls_minimum, mistakes);
    let auth = login::auth(&mut Reader::new(document, "auth", mistakes));
    let networks = Reader::new(document, "relay", mistakes).value("networks", addresses::networks);
    let origin = server.as_ref().map(|server| server.domains.origin().clone());
    let local = local::local(&mut Reader::new(document, "local", mistakes), origin.clone());
    let domains = local::domains(document, server.as_ref(), local.as_ref(), mistakes);
    let rewrite = local::rewrite(&mut Reader::new(document, "rewrite", mistakes));
    let digest = local::digest(&mut Reader::new(document, "digest", mistakes));
    let smarthost = match document.section("smarthost") {
        Some(_) => next_hop::smarthost(&mut Reader::new(document, "smarthost", mistakes)).map(Some),
        None => Some(None),
    };
    let queue = queue(&mut Reader::new(document, "queue", mistakes), origin);
    let dns = Reader::new(document, "dns", mistakes).value("servers", addresses::dns_servers);
    let (log_level, log_to) = log(&mut Reader::new(document, "log", mistakes));
    let events_size = events_size(&mut Reader::new(document, "log", mistakes));
    let (mut server, domains) = (server?, domains?);
    server.domains.others = domains.iter().map(|domain| domain.name.clone()).collect();
    let LocalDomains { names, own, others, .. } = &mut server.domains;
    own.retain(|name| !names.contains(name) && !others.contains(name));
    Some(Settings {
        server,
        listeners: listeners?,
        relay_networks: networks?,
        tls: tls?.0,
        auth: auth?,
        local: local?,
        domains,
        rewrite: rewrite?,
        digest: digest?,
        smarthost: smarthost?,
        queue: queue?,
        dns_servers: dns?,
        log_level: log_level?,
        log_to: log_to?,
        events_size: events_size?,
    })
}

fn server(section: &mut Reader<'_>, host: &HostNames) -> Option<Server> {
    let hostname = hostname(section, &host.own);
    let domains = match &hostname {
        Some(hostname) => local_domains(section, hostname, &host.all),
        None => None,
    };
    let user = section.value("user", user);
    let spool = section.value("spool", paths::path);
    let state = section.value("state", paths::path);
    let socket = section.value("socket", |text| match text {
        "" => Ok(None),
        _ => paths::socket(text).map(Some),
    });
    let max_message_size = section.number("max_message_size");
    let max_recipients = section.count("max_recipients");
    let max_sessions = section.count("max_sessions");
    let max_sessions_per_client = section.count("max_sessions_per_client");
    let session_timeout = section.time("session_timeout");
    let min_free_space = section.number("min_free_space");
    let vrfy =
        section.choice("vrfy", &[("no", Vrfy::No), ("local", Vrfy::Local), ("yes", Vrfy::Yes)]);
    Some(Server {
        hostname: hostname?,
        domains: domains?,
        user: user?,
        spool: spool?,
        state: state?,
        socket: socket?,
        max_message_size: max_message_size?,
        max_recipients: max_recipients?,
        max_sessions: max_sessions?,
        max_sessions_per_client: max_sessions_per_client?,
        session_timeout: session_timeout?,
        min_free_space: min_free_space?,
        vrfy: vrfy?,
    })
}

fn hostname(section: &mut Reader<'_>, host: &str) -> Option<DomainName> {
    if section.is_set("hostname") {
        return section.value("hostname", addresses::domain_name);
    }
    match host.parse() {
        Ok(name) => Some(name),
        Err(_) => {
            let host = shown(host);
            section.wrong_section(&format!(
                "needs a line such as `hostname = mail.home.example`, since the host's own name, \
                 {host}, is no domain name"
            ));
            None
        }
    }
}

/// The domains listed; where none are, the hostname, localhost and all that the host is called.
fn local_domains(
    section: &mut Reader<'_>,
    hostname: &DomainName,
    own: &[DomainName],
) -> Option<LocalDomains> {
    if section.is_set("domains") {
        return section.value("domains", |text| addresses::local_domains(text, hostname));
    }
    let text = format!("{hostname}, localhost");
    let domains = section.value("domains", |_| addresses::local_domains(&text, hostname))?;
    Some(LocalDomains { own: own.to_vec(), ..domains })
}

/// The name of an account.
pub(super) fn user(text: &str) -> Result<String, String> {
    let is_good = (1..=MAX_USER).contains(&text.len())
        && !text.starts_with(['-', '.'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    if is_good {
        return Ok(text.to_owned());
    }
    let text = shown(text);
    Err(format!("{text} is no name of an account; give up to {MAX_USER} letters, digits, `_`, `-`"))
}

/// Each `[listen.NAME]`, or the one that holds when there is none.
fn listeners(
    document: &Document,
    server: Option<&Server>,
    tls_minimum: TlsVersion,
    mistakes: &mut Mistakes,
) -> Option<Vec<Listener>> {
    let sections = document.sections.iter().filter_map(|section| {
        let name = section.name.strip_prefix("listen.")?;
        Some((section.name.as_str(), name))
    });
    let mut sections: Vec<_> = sections.collect();
    if sections.is_empty() {
        sections.push(("listen.smtp", "smtp"));
    }
    let mut taken: Vec<(ListenAddress, String)> = Vec::new();
    if let Some(socket) = server.and_then(|server| server.socket.clone()) {
        taken.push((ListenAddress::Unix(socket), "[server] socket".to_owned()));
    }
    let mut listeners = Some(Vec::new());
    for (at, (section, name)) in sections.into_iter().enumerate() {
        let mut reader = Reader::new(document, section, mistakes);
        if at == MAX_LISTENERS {
            reader
                .wrong_section(&format!("is one too many; keep at most {MAX_LISTENERS} listeners"));
            return None;
        }
        let listener = login::listener(&mut reader, name, tls_minimum);
        if let Some(listener) = &listener {
            note_address(&mut reader, &listener.address, &mut taken);
        }
        listeners = listeners.zip(listener).map(|(mut listeners, listener)| {
            listeners.push(listener);
            listeners
        });
    }
    listeners
}

/// Refuses an address that another listener has. Port 0 is another one each time.
fn note_address(
    section: &mut Reader<'_>,
    address: &ListenAddress,
    taken: &mut Vec<(ListenAddress, String)>,
) {
    if matches!(address, ListenAddress::Tcp(address) if address.port() == 0) {
        return;
    }
    match taken.iter().find(|(other, _)| other == address) {
        Some((_, owner)) => {
            section.wrong("address", &format!("{owner} has this address already; give another"));
        }
        None => taken.push((address.clone(), section.heading())),
    }
}

fn queue(section: &mut Reader<'_>, origin: Option<DomainName>) -> Option<Queue> {
    let retry = section.times("retry");
    let expire = section.time("expire");
    let direct = section.time("direct");
    let delay_warning = match section.value("delay_warning", |text| Ok(text.is_empty())) {
        Some(true) => Some(Duration::ZERO),
        _ => section.time("delay_warning"),
    };
    let bounce_size = section.number("bounce_size");
    let double_bounce = match origin {
        Some(origin) => section.value("double_bounce", |text| double_bounce(text, &origin)),
        None => None,
    };
    let local_workers = section.count("local_workers");
    let relay_workers = section.count("relay_workers");
    Some(Queue {
        retry: retry?,
        expire: expire?,
        direct: direct?,
        delay_warning: Some(delay_warning?).filter(|limit| !limit.is_zero()),
        bounce_size: bounce_size?,
        double_bounce: double_bounce?,
        local_workers: local_workers?,
        relay_workers: relay_workers?,
    })
}

fn double_bounce(text: &str, origin: &DomainName) -> Result<Option<Mailbox>, String> {
    match text {
        "keep" => Ok(None),
        "" => Err("it has no value".to_owned()),
        _ => addresses::catch_all(text, origin),
    }
}

fn log(section: &mut Reader<'_>) -> (Option<LevelFilter>, Option<LogReceiver>) {
    let levels = LevelFilter::iter().map(|level| (level.as_str().to_ascii_lowercase(), level));
    let levels: Vec<_> = levels.collect();
    let levels: Vec<_> = levels.iter().map(|(name, level)| (name.as_str(), *level)).collect();
    let receivers = [
        ("auto", LogReceiver::Auto),
        ("stderr", LogReceiver::StandardError),
        ("syslog", LogReceiver::Syslog),
    ];
    (section.choice("level", &levels), section.choice("to", &receivers))
}

fn events_size(section: &mut Reader<'_>) -> Option<u64> {
    let size = section.number("events")?;
    if (1..LEAST_EVENTS).contains(&size) {
        section.wrong("events", "it is too small for a journal; give 64K or more, or 0 for none");
        return None;
    }
    Some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found() {
        let text = b"# c\n[server]\n\nuser = a\n[dns]\n";
        let line = |section, key| line_in(text, section, key);
        assert_eq!(line("server", "user"), Some(4));
        assert_eq!((line("server", "spool"), line("dns", "servers")), (None, None));
        assert_eq!(line("listen.smtp", "address"), None);
    }
}
