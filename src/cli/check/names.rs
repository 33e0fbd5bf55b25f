//! Looks at names in the DNS: the smarthost's, and this host's own where others look it up. Hosts
//! whose mail all goes to a smarthost and comes from themselves need none, and are not bothered.
//!
//! The questions are asked at once, each in a thread, while everything else is looked at; what has no
//! answer after a few seconds is told of as such.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};

use super::findings::Findings;
use super::host::Host;
use crate::config::settings::{ListenAddress, Settings};
use crate::mail::address::{Domain, DomainName};
use crate::sys::dns::{DnsError, Resolver};
use crate::sys::network;

/// How long all answers together may take, and each try of one.
const PATIENCE: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(1);
/// The stack of a thread that asks.
const STACK: usize = 256 << 10;
/// The most public addresses of this host whose names are asked for.
const MAX_ADDRESSES: usize = 4;

/// What the names of hosts end with that are known in one house only (RFC 6762 §3, RFC 8375 §7,
/// and those that routers give out).
const PRIVATE: [&str; 7] =
    [".local", ".localdomain", ".localhost", ".lan", ".internal", ".home.arpa", ".fritz.box"];

/// Questions that are being asked.
pub(super) struct Asked {
    answers: Receiver<Answer>,
    /// How many answers are to come.
    count: usize,
    until: Instant,
    /// Whether there is a question about this host that need not be asked.
    is_unknown_elsewhere: bool,
}

/// What is known of a name.
#[derive(Debug)]
enum Answer {
    /// A smarthost's.
    Smarthost(DomainName, Result<(), DnsError>),
    /// This host's, as its network looks it up.
    InNetwork(Result<(), DnsError>),
    /// This host's, as those see it that it brings mail to.
    Outside(Result<Outside, DnsError>),
}

/// How this host looks from outside.
#[derive(Debug, Default)]
struct Outside {
    /// What its name leads to.
    addresses: Vec<IpAddr>,
    /// The public addresses that it has itself; none behind a router that translates them.
    own: Vec<IpAddr>,
    /// Those that it brings mail from and whose names do not lead back to them.
    nameless: Vec<IpAddr>,
}

/// Asks what matters to these settings.
pub(super) fn ask(settings: &Settings) -> Asked {
    let resolver = Arc::new(Resolver::new(&settings.dns_servers).with_timeout(TIMEOUT));
    let (sender, answers) = unbounded();
    let mut count = 0;
    let mut question = |ask: Box<dyn FnOnce(&Resolver) -> Answer + Send>| {
        let (resolver, sender) = (Arc::clone(&resolver), sender.clone());
        let work = move || drop(sender.send(ask(&resolver)));
        if thread::Builder::new().stack_size(STACK).spawn(work).is_ok() {
            count += 1;
        }
    };
    let own = settings.server.hostname.clone();
    let mut is_unknown_elsewhere = false;
    match &settings.smarthost {
        Some(smarthost) => {
            for host in &smarthost.hosts {
                let Domain::Name(name) = host.host.clone() else { continue };
                question(Box::new(move |resolver| {
                    let known = resolver.addresses(&name).map(drop);
                    Answer::Smarthost(name, known)
                }));
            }
            if is_for_network(settings) && !is_private(&own) {
                question(Box::new(move |resolver| {
                    Answer::InNetwork(resolver.addresses(&own).map(drop))
                }));
            }
        }
        // Nothing leaves this host.
        None if settings.server.domains.all => {}
        None if is_private(&own) => is_unknown_elsewhere = true,
        None => question(Box::new(move |resolver| Answer::Outside(from_outside(resolver, &own)))),
    }
    Asked { answers, count, until: Instant::now() + PATIENCE, is_unknown_elsewhere }
}

/// Whether other hosts may connect.
fn is_for_network(settings: &Settings) -> bool {
    let is_open = |address: &ListenAddress| matches!(address, ListenAddress::Tcp(address) if !address.ip().is_loopback());
    settings.listeners.iter().any(|listener| is_open(&listener.address))
}

/// Whether no host elsewhere can know the name.
pub(super) fn is_private(name: &DomainName) -> bool {
    let name = name.as_str().to_ascii_lowercase();
    !name.contains('.') || PRIVATE.iter().any(|end| name.ends_with(end))
}

/// Looks at the name `own` as those do that this host brings mail to.
fn from_outside(resolver: &Resolver, own: &DomainName) -> Result<Outside, DnsError> {
    let addresses = resolver.addresses_in_dns(own)?;
    let public = |addresses: &[IpAddr]| {
        let public = addresses.iter().filter(|address| is_public(**address));
        public.copied().take(MAX_ADDRESSES).collect::<Vec<_>>()
    };
    let own = public(&network::source_addresses());
    // Behind a router, what the name leads to is what others see.
    let seen = if own.is_empty() { public(&addresses) } else { own.clone() };
    let mut nameless = Vec::new();
    for address in seen {
        if !leads_back(resolver, address)? {
            nameless.push(address);
        }
    }
    Ok(Outside { addresses, own, nameless })
}

/// Whether one of the names of an address leads back to it (RFC 8601 §2.7.3), as most hosts want.
fn leads_back(resolver: &Resolver, address: IpAddr) -> Result<bool, DnsError> {
    let names = match resolver.names(address) {
        Err(DnsError::NoSuchDomain | DnsError::NoRecords) => return Ok(false),
        names => names?,
    };
    let is_back = |name| resolver.addresses_in_dns(name).is_ok_and(|all| all.contains(&address));
    Ok(names.iter().take(MAX_ADDRESSES).any(is_back))
}

/// Whether hosts elsewhere could see the address.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            // RFC 6598.
            let is_shared = address.octets()[0] == 100 && address.octets()[1] & 0xc0 == 64;
            let is_bound = address.is_private() || address.is_loopback() || address.is_link_local();
            !(is_shared || is_bound || address.is_unspecified() || address == Ipv4Addr::BROADCAST)
        }
        // RFC 4291 §2.4: what is global unicast now begins with 001.
        IpAddr::V6(address) => address.segments()[0] & 0xe000 == 0x2000,
    }
}

impl Asked {
    /// Waits for the answers and tells of those that are no good.
    pub(super) fn look(self, host: &Host<'_>, findings: &mut Findings) {
        let mut answers = Vec::new();
        while answers.len() < self.count
            && let Ok(answer) = self.answers.recv_deadline(self.until)
        {
            answers.push(answer);
        }
        let mut why = None;
        if answers.len() < self.count {
            why = Some("the name server does not answer in time".to_owned());
        }
        for answer in answers {
            why = tell(answer, host, findings).or(why);
        }
        if let Some(why) = why {
            let text = format!(
                "{why}; mail for hosts that cannot be looked up waits; see [dns] servers, or \
                 /etc/resolv.conf"
            );
            findings.warning(host.config, host.line("dns", "servers"), text);
        }
        if self.is_unknown_elsewhere {
            let text = format!(
                "without [smarthost], mail for other places goes straight there, from a host called \
                 {}, which they cannot look up and most refuse; mail that stays here does not mind",
                host.settings.server.hostname
            );
            findings.note(host.config, None, text);
        }
    }
}

/// Tells of an answer. Gives why there is none.
fn tell(answer: Answer, host: &Host<'_>, findings: &mut Findings) -> Option<String> {
    let own = &host.settings.server.hostname;
    let line = host.line("server", "hostname");
    match answer {
        Answer::Smarthost(name, Err(error @ (DnsError::NoSuchDomain | DnsError::NoRecords))) => {
            let section = host.settings.smarthost.as_ref().map_or("smarthost", |it| &it.section);
            let text = format!("[{section}] host {name}: {}; mend the name", in_words(&error));
            findings.mistake(host.config, host.line(section, "host"), text);
        }
        Answer::InNetwork(Err(error @ (DnsError::NoSuchDomain | DnsError::NoRecords))) => {
            let text = format!(
                "{own}: {}; whoever gives that name to a mail program reaches nobody, and has to give \
                 an address",
                in_words(&error)
            );
            findings.note(host.config, line, text);
        }
        Answer::Outside(Err(error @ (DnsError::NoSuchDomain | DnsError::NoRecords))) => {
            let text = format!(
                "{own}: {}, and many hosts refuse mail from such a host; have the name put into the \
                 DNS, or give a [smarthost]",
                in_words(&error)
            );
            findings.warning(host.config, line, text);
        }
        Answer::Outside(Ok(outside)) => tell_outside(&outside, own, host, findings),
        Answer::Smarthost(_, Err(error))
        | Answer::InNetwork(Err(error))
        | Answer::Outside(Err(error)) => return Some(error.to_string()),
        Answer::Smarthost(_, Ok(())) | Answer::InNetwork(Ok(())) => {}
    }
    None
}

fn tell_outside(outside: &Outside, own: &DomainName, host: &Host<'_>, findings: &mut Findings) {
    let line = host.line("server", "hostname");
    let Outside { addresses, own: here, nameless } = outside;
    if let (Some(there), Some(missing)) = (addresses.first(), here.first())
        && here.iter().all(|address| !addresses.contains(address))
    {
        let text = format!(
            "{own} leads to {there} in the DNS, but this host sends from {missing}, and many hosts \
             refuse mail then; have the DNS say {missing}"
        );
        findings.warning(host.config, line, text);
    }
    for address in nameless {
        let text = format!(
            "the address {address}, from which mail goes, has no reverse name (PTR) that leads back to \
             it, and most hosts refuse mail then; have your provider set it to {own}, or give a \
             [smarthost]"
        );
        findings.warning(host.config, line, text);
    }
}

fn in_words(error: &DnsError) -> &'static str {
    match error {
        DnsError::NoRecords => "the name has no address in the DNS",
        _ => "there is no such name in the DNS",
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::tests::{Facts, host_of};
    use super::*;

    fn said(text: &str, answers: Vec<Answer>) -> Vec<String> {
        let facts = Facts::new(text);
        let (sender, receiver) = unbounded();
        let count = answers.len();
        answers.into_iter().for_each(|answer| sender.send(answer).unwrap());
        let until = Instant::now() + PATIENCE;
        let asked = Asked { answers: receiver, count, until, is_unknown_elsewhere: false };
        let mut findings = Findings::default();
        asked.look(&host_of(&facts), &mut findings);
        let home = facts.home.path().to_str().unwrap();
        findings.iter().map(|it| it.to_string().replace(home, "HOME")).collect()
    }

    const TEXT: &str = "[server]\nhostname = mx.test\n[smarthost]\nhost = a.test\n";

    #[test]
    fn each_answer_that_is_no_good_is_told() {
        let name = || "a.test".parse::<DomainName>().unwrap();
        let trouble = || DnsError::Temporary("the name server does not answer".into());
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        let outside = |addresses: &[&str], own: &[&str], nameless: &[&str]| {
            let all = |list: &[&str]| list.iter().map(|text| at(text)).collect();
            let (addresses, own, nameless) = (all(addresses), all(own), all(nameless));
            Answer::Outside(Ok(Outside { addresses, own, nameless }))
        };
        for (answer, expected) in [
            (Answer::Smarthost(name(), Ok(())), ""),
            (
                Answer::Smarthost(name(), Err(DnsError::NoSuchDomain)),
                "HOME/mailwren.ini:4: [smarthost] host a.test: there is no such name",
            ),
            (
                Answer::Smarthost(name(), Err(trouble())),
                "HOME/mailwren.ini: warning: the name server does not answer; mail for hosts",
            ),
            (
                Answer::InNetwork(Err(DnsError::NoRecords)),
                "HOME/mailwren.ini:2: note: mx.test: the name has no address",
            ),
            (
                Answer::Outside(Err(DnsError::NoSuchDomain)),
                "HOME/mailwren.ini:2: warning: mx.test: there is no such name",
            ),
            (outside(&["9.9.9.9"], &["9.9.9.9"], &[]), ""),
            (outside(&["9.9.9.9"], &[], &[]), ""),
            (outside(&["9.9.9.9"], &["9.9.9.9", "2001::1"], &[]), ""),
            (
                outside(&["9.9.9.9"], &["8.8.8.8"], &[]),
                "HOME/mailwren.ini:2: warning: mx.test leads to 9.9.9.9 in the DNS, but this host",
            ),
            (
                outside(&["9.9.9.9"], &[], &["9.9.9.9"]),
                "HOME/mailwren.ini:2: warning: the address 9.9.9.9, from which",
            ),
        ] {
            let shown = format!("{answer:?}");
            let lines = said(TEXT, vec![answer]);
            assert_eq!(lines.len(), usize::from(!expected.is_empty()), "{shown}: {lines:?}");
            assert!(lines.iter().all(|line| line.starts_with(expected)), "{shown}: {lines:?}");
        }
        // One line for all that has no answer.
        let both = vec![Answer::Smarthost(name(), Err(trouble())), Answer::Outside(Err(trouble()))];
        assert_eq!(said(TEXT, both).len(), 1);
    }

    #[test]
    fn only_what_matters_is_asked() {
        let count = |text: &str| {
            let facts = Facts::new(&format!("{text}\n[dns]\nservers = 127.0.0.1:1\n"));
            let asked = ask(&facts.settings);
            (asked.count, asked.is_unknown_elsewhere)
        };
        let smarthost = "[smarthost]\nhost = a.test, b.test, 127.0.0.1:25\n";
        let open = "[listen.smtp]\naddress = 0.0.0.0:25\n";
        let named = "[server]\nhostname = mx.example\n";
        assert_eq!(count("[smarthost]\nhost = 127.0.0.1:25\n"), (0, false));
        assert_eq!(count(smarthost), (2, false));
        assert_eq!(count(&format!("{named}{smarthost}{open}")), (3, false));
        assert_eq!(count(&format!("[server]\nhostname = pi.lan\n{smarthost}{open}")), (2, false));
        assert_eq!(count("[server]\nhostname = pi\n"), (0, true));
        assert_eq!(count(named), (1, false));
    }

    #[test]
    fn addresses_of_one_house_are_not_public() {
        for (address, expected) in [
            ("9.9.9.9", true),
            ("10.1.1.1", false),
            ("192.168.1.1", false),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("169.254.1.1", false),
            ("127.0.0.1", false),
            ("2a00::1", true),
            ("fd00::1", false),
            ("fe80::1", false),
            ("::1", false),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn nobody_is_asked_where_nothing_leaves_the_host() {
        for (text, count) in [
            ("[server]\nhostname = mx.example.org\n[dns]\nservers = 127.0.0.1:1\n", 1),
            ("[server]\nhostname = mx.example.org\ndomains = *\n[dns]\nservers = 127.0.0.1:1\n", 0),
        ] {
            let settings = crate::config::parse("x", text.as_bytes(), "mx.test").unwrap();
            let asked = ask(&settings);
            assert_eq!((asked.count, asked.is_unknown_elsewhere), (count, false), "{text}");
        }
    }
}
