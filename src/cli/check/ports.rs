//! Looks who listens where the server is to listen, and names whoever does.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::findings::Findings;
use super::host::{Host, name_of};
use crate::config::settings::{ListenAddress, Settings};
use crate::mail::text::one_line;
use crate::sys::disk::Disk;
use crate::sys::network;
use crate::sys::sockets::{self, Listening, Process};

/// The most of a program's name that is told.
const MAX_NAME: usize = 64;
/// What the first process of a host with systemd is called.
const SYSTEMD: &str = "systemd";

/// The unit by which it listens for mailwren, and where units are (systemd.unit(5)).
const UNIT: &str = "mailwren.socket";
const UNIT_FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Servers by the name of their process or program, and what stops them.
const SERVERS: [(&str, &str); 7] = [
    ("exim4", "exim4"),
    ("exim", "exim4"),
    // Postfix's, where its program tells so.
    ("master", "postfix"),
    ("sendmail", "sendmail"),
    ("sendmail-mta", "sendmail"),
    ("smtpd", "opensmtpd"),
    ("dovecot", "dovecot"),
];

/// Looks at each address of the settings.
pub(super) fn look(host: &Host<'_>, findings: &mut Findings) {
    let listening = sockets::listening();
    let mut served = Vec::new();
    for listener in &host.settings.listeners {
        let section = format!("listen.{}", listener.name);
        if let ListenAddress::Tcp(address) = &listener.address {
            let found = taken(*address, &listening);
            let place = Place { host, section: &section, key: "address" };
            let what = format!("port {} of {}", address.port(), address.ip());
            match found {
                Some(found) => {
                    place.look_at(&what, found.inode, Some(found.owner), &mut served, findings)
                }
                None => place.look_for_address(address.ip(), findings),
            }
        }
        if let ListenAddress::Unix(path) = &listener.address {
            let place = Place { host, section: &section, key: "address" };
            place.look_at_path(path, &mut served, findings);
        }
    }
    if let Some(path) = &host.settings.server.socket {
        let place = Place { host, section: "server", key: "socket" };
        place.look_at_path(path, &mut served, findings);
    }
    if let Some((_, by)) = served.first() {
        let places: Vec<_> = served.iter().map(|(what, _)| what.as_str()).collect();
        findings.note(host.config, None, format!("{by} listens on {}", places.join(", ")));
    }
}

/// Where an address of the settings stands.
struct Place<'a> {
    host: &'a Host<'a>,
    section: &'a str,
    key: &'a str,
}

impl Place<'_> {
    /// Tells whose the socket at `what` is, or adds a server of ours to `served`.
    fn look_at(
        &self,
        what: &str,
        inode: u64,
        owner: Option<u32>,
        served: &mut Vec<(String, String)>,
        findings: &mut Findings,
    ) {
        let holders = sockets::holders(inode);
        let ours = holders.iter().find(|process| is_mailwren(process));
        let by = match (ours, self.host.is_served) {
            (Some(process), Some(true) | None) => {
                return served.push((what.to_owned(), format!("mailwren (pid {})", process.pid)));
            }
            (None, Some(true)) if holders.is_empty() => {
                return served.push((what.to_owned(), "a mailwren".to_owned()));
            }
            (Some(process), Some(false)) => {
                let pid = process.pid;
                format!("a mailwren with another spool (pid {pid}); stop it: kill {pid}")
            }
            (None, _) if holders.first().is_some_and(is_systemd) && has_socket_unit() => {
                return served.push((what.to_owned(), "systemd, for mailwren.socket,".to_owned()));
            }
            (None, _) => match holders.first() {
                Some(process) => {
                    format!("{}; {}", title(process), way_to_stop(process, is_booted_by_systemd()))
                }
                None => {
                    let owner =
                        owner.map(|uid| format!(" of {}", name_of(uid))).unwrap_or_default();
                    format!("a program{owner}; check as root to learn which")
                }
            },
        };
        let text =
            format!("{what} is taken by {by}, or give [{}] another {}", self.section, self.key);
        findings.mistake(self.host.config, self.host.line(self.section, self.key), text);
    }

    fn look_at_path(
        &self,
        path: &Path,
        served: &mut Vec<(String, String)>,
        findings: &mut Findings,
    ) {
        let what = path.display().to_string();
        match sockets::listening_at(path) {
            Some(inode) => self.look_at(&what, inode, None, served, findings),
            None if Disk::host().look_at_no_link(path).is_ok_and(|it| !it.is_socket()) => {
                let text = "it is no socket, and the server puts none in its place; move it away";
                findings.mistake(path, None, text);
            }
            None => {}
        }
    }

    fn look_for_address(&self, address: IpAddr, findings: &mut Findings) {
        if !network::is_own(address) {
            let text = format!(
                "this host has no address {address} now; see that its network is up, or give \
                 [{}] another {}",
                self.section, self.key
            );
            findings.warning(self.host.config, self.host.line(self.section, self.key), text);
        }
    }
}

/// The first address of the settings at which somebody listens already.
pub(in crate::cli) fn first_taken(settings: &Settings) -> Option<SocketAddr> {
    let listening = sockets::listening();
    let wanted = settings.listeners.iter().filter_map(|listener| match listener.address {
        ListenAddress::Tcp(address) => Some(address),
        ListenAddress::Unix(_) | ListenAddress::Systemd(_) => None,
    });
    wanted.into_iter().find(|address| taken(*address, &listening).is_some())
}

/// The socket that keeps us from listening at `wanted`. One that listens at any address of IPv6 takes
/// those of IPv4 as well, as a rule, where nobody has them.
fn taken(wanted: SocketAddr, listening: &[Listening]) -> Option<Listening> {
    // The system chooses another port then.
    if wanted.port() == 0 {
        return None;
    }
    let mut same_port = listening.iter().filter(|it| it.address.port() == wanted.port());
    let is_same = |it: &&Listening| {
        let there = it.address.ip();
        there.is_ipv4() == wanted.is_ipv4()
            && (there == wanted.ip() || there.is_unspecified() || wanted.ip().is_unspecified())
    };
    let is_for_both = |it: &&Listening| {
        let there = it.address.ip();
        wanted.is_ipv4() && there.is_ipv6() && there.is_unspecified()
    };
    same_port.clone().find(is_same).or_else(|| same_port.find(is_for_both)).copied()
}

fn is_mailwren(process: &Process) -> bool {
    process.name == "mailwren" || program_name(process).is_some_and(|name| name == "mailwren")
}

fn is_systemd(process: &Process) -> bool {
    process.pid == 1 && process.name == SYSTEMD
}

/// Whether systemd may listen for the server, and hand it the sockets when it starts.
fn has_socket_unit() -> bool {
    let is_there = |folder: &str| Disk::host().look_at(&Path::new(folder).join(UNIT)).is_ok();
    UNIT_FOLDERS.iter().any(|folder| is_there(folder))
}

/// The name of its program's file.
fn program_name(process: &Process) -> Option<&str> {
    let name = process.program.as_deref()?.file_name()?.to_str()?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name))
}

/// What people call the server, if it is a known one.
fn service(process: &Process) -> Option<&'static str> {
    let is_name = |name: &str| process.name == name || program_name(process) == Some(name);
    let (name, service) = SERVERS.into_iter().find(|(name, _)| is_name(name))?;
    let of_postfix = |path: &Path| path.components().any(|part| part.as_os_str() == "postfix");
    (name != "master" || process.program.as_deref().is_some_and(of_postfix)).then_some(service)
}

/// A process as a person finds it again.
fn title(process: &Process) -> String {
    let name = one_line(program_name(process).unwrap_or(&process.name), MAX_NAME);
    match service(process) {
        Some(service) if service != name => format!("{service} ({name}, pid {})", process.pid),
        _ => format!("{name} (pid {})", process.pid),
    }
}

/// The command that stops it for good.
fn way_to_stop(process: &Process, has_systemd: bool) -> String {
    if is_systemd(process) {
        return "it has the port for a socket unit, which `systemctl list-sockets` names; stop it with \
                `systemctl disable --now` and the name"
            .to_owned();
    }
    if process.name == "docker-proxy" {
        return "a container publishes the port, see `docker ps`; stop the container".to_owned();
    }
    let unit = process.unit.as_deref().and_then(|unit| unit.strip_suffix(".service"));
    let service = service(process);
    match unit.or(service) {
        Some(name) if has_systemd => format!("stop it with `systemctl disable --now {name}`"),
        Some(name) if service.is_some() => {
            format!("stop it with `service {name} stop`, and remove its package")
        }
        _ => format!("stop it: kill {}", process.pid),
    }
}

fn is_booted_by_systemd() -> bool {
    Disk::host().look_at(Path::new("/run/systemd/system")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn only_what_is_in_the_way_counts() {
        let listening =
            |address: &str| Listening { address: address.parse().unwrap(), owner: 0, inode: 1 };
        for (wanted, there, is_taken) in [
            ("127.0.0.1:25", "127.0.0.1:25", true),
            ("127.0.0.1:25", "0.0.0.0:25", true),
            ("0.0.0.0:25", "127.0.0.1:25", true),
            ("127.0.0.1:25", "127.0.0.1:26", false),
            ("127.0.0.1:25", "127.0.0.2:25", false),
            ("127.0.0.1:25", "[::]:25", true),
            ("127.0.0.1:25", "[::1]:25", false),
            ("[::1]:25", "0.0.0.0:25", false),
            ("[::]:25", "[fd00::1]:25", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let found = taken(wanted.parse().unwrap(), &[listening(there)]);
            assert_eq!(found.is_some(), is_taken, "{wanted} {there}");
        }
        // Where somebody has the same family, that one is in the way.
        let both = [listening("[::]:25"), Listening { inode: 2, ..listening("0.0.0.0:25") }];
        assert_eq!(taken("10.0.0.1:25".parse().unwrap(), &both).unwrap().inode, 2);
    }

    #[test]
    fn a_process_is_named_and_the_way_to_stop_it() {
        let process = |name: &str, program: &str, unit: Option<&str>| Process {
            pid: 812,
            parent: 1,
            name: name.to_owned(),
            program: (!program.is_empty()).then(|| PathBuf::from(program)),
            unit: unit.map(str::to_owned),
        };
        for (process, named, systemd, others) in [
            (
                process("exim4", "/usr/sbin/exim4", Some("exim4.service")),
                "exim4 (pid 812)",
                "systemctl disable --now exim4`",
                "service exim4 stop",
            ),
            (
                process("master", "/usr/lib/postfix/sbin/master", Some("postfix@-.service")),
                "postfix (master, pid 812)",
                "systemctl disable --now postfix@-`",
                "service postfix@- stop",
            ),
            (process("master", "/opt/master", None), "master (pid 812)", "kill 812", "kill 812"),
            (
                process("python3", "/usr/bin/python3.13", None),
                "python3.13 (pid 812)",
                "kill 812",
                "kill 812",
            ),
            (process("a\nb\x1b", "", None), "a?b? (pid 812)", "kill 812", "kill 812"),
            (process("docker-proxy", "", None), "docker-proxy", "docker ps", "docker ps"),
        ] {
            assert!(title(&process).contains(named), "{}", title(&process));
            for (has_systemd, words) in [(true, systemd), (false, others)] {
                let way = way_to_stop(&process, has_systemd);
                assert!(way.contains(words), "{words}: {way}");
            }
        }
        let first = Process { pid: 1, ..process("systemd", "", None) };
        assert!(way_to_stop(&first, true).contains("list-sockets"));
        let ours = process("mailwren", "/usr/sbin/mailwren (deleted)", None);
        assert!(is_mailwren(&ours) && !is_mailwren(&process("exim4", "", None)));
    }
}
