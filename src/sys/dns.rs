//! The DNS as mail needs it: MX records, and the addresses of hosts.
//!
//! The resolver underneath is asynchronous. This module hides a current-thread runtime behind
//! blocking calls, and nothing else in the program knows of it; runtime and sockets are made
//! at the first look-up. What matters most for mail is that a resolver in trouble is never
//! taken for a domain that does not exist: the one is tried again, the other bounces.
//!
//! `/etc/hosts` and `localhost` (RFC 6761 §6.3) come before the DNS where addresses are asked
//! for. `/etc/resolv.conf` is read again whenever it has changed, so a host that boots before
//! its network needs no restart.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use trust_dns_resolver::config::{NameServerConfig, ResolverOpts};
use trust_dns_resolver::net::runtime::TokioRuntimeProvider;
use trust_dns_resolver::net::xfer::FirstAnswer;
use trust_dns_resolver::net::{DnsError as WireError, DnsHandle, NetError};
use trust_dns_resolver::proto::op::{DnsRequest, DnsRequestOptions, Query, ResponseCode};
use trust_dns_resolver::proto::rr::{Name, RData, Record, RecordType};
use trust_dns_resolver::{NameServerPool, PoolContext, TlsConfig};

use crate::mail::address::DomainName;
use crate::sys::network;
use crate::sys::watched::Stamp;

/// The most MX records of a domain that are used, and the most addresses of a host.
pub const MAX_RECORDS: usize = 32;
/// The most CNAMEs followed for one look-up.
const MAX_CNAMES: usize = 8;
/// How often a question is asked that nobody answers.
const TRIES: usize = 2;
/// How long an answer may take, each time.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The most of `/etc/hosts` and `/etc/resolv.conf` that is read, in octets.
const MAX_FILE: u64 = 1024 * 1024;
/// The most name servers used.
const MAX_SERVERS: usize = 8;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// An MX record (RFC 1035 §3.3.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mx {
    /// The lower, the sooner it is tried.
    pub preference: u16,
    /// The host; `None` for the root ".", with which a domain says that it takes no mail
    /// (RFC 7505 §3).
    pub exchange: Option<DomainName>,
}

/// Why there is no answer, or an empty one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsError {
    /// The name does not exist (NXDOMAIN).
    NoSuchDomain,
    /// The name exists and has no record of the kind.
    NoRecords,
    /// Nobody knows at the moment: no answer, SERVFAIL, REFUSED, or nonsense. The text is one
    /// printable line.
    Temporary(String),
    /// The same, and this host has no way to the world: no look-up can do any better until it
    /// has one. A resolver on this host answers SERVFAIL then, so what is said does not count.
    NoNetwork(String),
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchDomain => f.write_str("the name does not exist"),
            Self::NoRecords => f.write_str("the name has no such record"),
            Self::Temporary(why) => f.write_str(why),
            Self::NoNetwork(why) => write!(f, "this host has no network: {why}"),
        }
    }
}

impl std::error::Error for DnsError {}

/// Looks names up, for any number of threads at once.
pub struct Resolver {
    servers: Vec<SocketAddr>,
    timeout: Duration,
    engine: Mutex<Option<Arc<Engine>>>,
}

/// What asks the questions, and the state of resolv.conf when it was made.
struct Engine {
    runtime: Runtime,
    pool: NameServerPool<TokioRuntimeProvider>,
    timeout: Duration,
    conf: Option<Stamp>,
}

impl Resolver {
    /// A resolver that asks `servers`, or those of the system where there are none. Makes no
    /// thread and no socket before the first look-up.
    pub fn new(servers: &[SocketAddr]) -> Self {
        Self { servers: servers.to_vec(), timeout: TIMEOUT, engine: Mutex::new(None) }
    }

    /// The same resolver, waiting at most `timeout` for each answer instead of 5 seconds.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The MX records of `domain`, at least one and at most [`MAX_RECORDS`], in no order.
    /// Those whose exchange is no host name are left out.
    ///
    /// # Errors
    /// [`DnsError`]. A name that only `/etc/hosts` knows has no records.
    pub fn mx(&self, domain: &DomainName) -> Result<Vec<Mx>, DnsError> {
        let is_local = !local_addresses(domain).is_empty();
        if is_local && is_localhost(domain) {
            return Err(DnsError::NoRecords);
        }
        let records = match self.look_up(domain, RecordType::MX) {
            Err(DnsError::NoSuchDomain) if is_local => return Err(DnsError::NoRecords),
            answer => answer?,
        };
        let exchangers: Vec<Mx> = records.iter().filter_map(exchanger).collect();
        if exchangers.is_empty() {
            return Err(DnsError::Temporary("its MX records name no valid host".into()));
        }
        Ok(exchangers)
    }

    /// The IPv6 and IPv4 addresses of `host` in turns, so that a family which does not work
    /// here never hides the other: at least one, and at most [`MAX_RECORDS`].
    ///
    /// # Errors
    /// [`DnsError`]; where one family has addresses, trouble with the other is none.
    pub fn addresses(&self, host: &DomainName) -> Result<Vec<IpAddr>, DnsError> {
        let local = local_addresses(host);
        if !local.is_empty() {
            return Ok(local);
        }
        self.addresses_in_dns(host)
    }

    /// The same as other hosts see it, whatever `/etc/hosts` says.
    ///
    /// # Errors
    /// As with [`Self::addresses`].
    pub fn addresses_in_dns(&self, host: &DomainName) -> Result<Vec<IpAddr>, DnsError> {
        let answers = [self.look_up(host, RecordType::AAAA), self.look_up(host, RecordType::A)];
        let [v6, v4] = match answers {
            [Err(v6), Err(v4)] => return Err(worse(v6, v4)),
            answers => answers.map(Result::unwrap_or_default),
        };
        Ok(in_turns(&v6, &v4).into_iter().filter_map(RData::ip_addr).take(MAX_RECORDS).collect())
    }

    /// The names that the DNS gives an address (RFC 1035 §3.5), those that are host names, at most
    /// [`MAX_RECORDS`].
    ///
    /// # Errors
    /// [`DnsError`].
    pub fn names(&self, address: IpAddr) -> Result<Vec<DomainName>, DnsError> {
        let records = self.records(Name::from(address), RecordType::PTR)?;
        let name = |record: &RData| match record {
            RData::PTR(name) => name.to_ascii().trim_end_matches('.').parse().ok(),
            _ => None,
        };
        Ok(records.iter().filter_map(name).collect())
    }

    /// The records of one kind, CNAMEs followed: at least one.
    fn look_up(&self, domain: &DomainName, kind: RecordType) -> Result<Vec<RData>, DnsError> {
        // A name that the DNS cannot carry cannot be in it.
        let name = Name::from_ascii(domain.as_str()).map_err(|_| DnsError::NoSuchDomain)?;
        self.records(name, kind)
    }

    fn records(&self, mut name: Name, kind: RecordType) -> Result<Vec<RData>, DnsError> {
        let engine = self.engine()?;
        name.set_fqdn(true);
        let mut cnames = 0;
        loop {
            let answer = engine.ask(&name, kind)?;
            let asked = cnames;
            loop {
                let found = answer.records_of(&name, kind);
                if !found.is_empty() {
                    return Ok(found);
                }
                let Some(target) = answer.cname_of(&name) else { break };
                name = target;
                cnames += 1;
                if cnames > MAX_CNAMES {
                    return Err(DnsError::Temporary("its chain of CNAMEs is too long".into()));
                }
            }
            match () {
                () if answer.is_nxdomain => return Err(DnsError::NoSuchDomain),
                () if cnames == asked => return Err(DnsError::NoRecords),
                () => {}
            }
        }
    }

    /// The engine, made new at first and when resolv.conf has changed.
    fn engine(&self) -> Result<Arc<Engine>, DnsError> {
        let conf = match self.servers.is_empty() {
            true => fs::metadata(RESOLV_CONF).ok().as_ref().map(Stamp::of),
            false => None,
        };
        let mut slot = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = slot.as_ref().filter(|engine| engine.conf == conf) {
            return Ok(Arc::clone(engine));
        }
        let system = if self.servers.is_empty() { system_servers() } else { Vec::new() };
        let servers = if self.servers.is_empty() { &system } else { &self.servers };
        let engine = Arc::new(Engine::new(servers, self.timeout, conf)?);
        *slot = Some(Arc::clone(&engine));
        Ok(engine)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Engine {
    fn new(
        servers: &[SocketAddr],
        timeout: Duration,
        conf: Option<Stamp>,
    ) -> Result<Self, DnsError> {
        let trouble =
            |why: String| DnsError::Temporary(format!("the resolver cannot start: {why}"));
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| trouble(error.to_string()))?;
        let tls = TlsConfig::new().map_err(|error| trouble(error.to_string()))?;
        let mut options = ResolverOpts::default();
        options.timeout = timeout;
        options.attempts = 1;
        let pool = NameServerPool::from_config(
            servers.iter().map(name_server),
            Arc::new(PoolContext::new(options, tls)),
            TokioRuntimeProvider::default(),
        );
        Ok(Self { runtime, pool, timeout, conf })
    }

    /// Asks until there is an answer, at most [`TRIES`] times.
    fn ask(&self, name: &Name, kind: RecordType) -> Result<Answer, DnsError> {
        let mut answer = self.ask_once(name, kind);
        for _ in 1..TRIES {
            if !matches!(answer, Err(DnsError::Temporary(_))) {
                break;
            }
            answer = self.ask_once(name, kind);
        }
        match answer {
            Err(DnsError::Temporary(why)) if !network::has_route() => Err(DnsError::NoNetwork(why)),
            answer => answer,
        }
    }

    fn ask_once(&self, name: &Name, kind: RecordType) -> Result<Answer, DnsError> {
        let request =
            DnsRequest::from_query(Query::query(name.clone(), kind), DnsRequestOptions::default());
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(self.timeout, self.pool.send(request).first_answer()).await
        });
        let response = match answer {
            Err(_) => return Err(no_answer(&NetError::Timeout)),
            Ok(Err(error)) => return negative(&error),
            Ok(Ok(response)) => response,
        };
        match WireError::from_response(response) {
            Err(error) => negative(&NetError::Dns(error)),
            Ok(response) => Ok(Answer {
                is_nxdomain: response.metadata.response_code == ResponseCode::NXDomain,
                records: response.answers.clone(),
            }),
        }
    }
}

/// What is known of a name when neither of two questions about it was answered well.
fn worse(one: DnsError, other: DnsError) -> DnsError {
    match (one, other) {
        (why @ DnsError::Temporary(_), _) | (_, why @ DnsError::Temporary(_)) => why,
        (why @ DnsError::NoNetwork(_), _) | (_, why @ DnsError::NoNetwork(_)) => why,
        (DnsError::NoSuchDomain, _) | (_, DnsError::NoSuchDomain) => DnsError::NoSuchDomain,
        _ => DnsError::NoRecords,
    }
}

/// One of each in turns, and then what is left of the longer list.
fn in_turns<'a, T>(first: &'a [T], second: &'a [T]) -> Vec<&'a T> {
    let length = first.len().max(second.len());
    (0..length).flat_map(|at| first.get(at).into_iter().chain(second.get(at))).collect()
}

/// What an error of the resolver says about the name.
fn negative(error: &NetError) -> Result<Answer, DnsError> {
    match error {
        NetError::Dns(WireError::NoRecordsFound(nothing)) => match nothing.response_code {
            ResponseCode::NXDomain => Err(DnsError::NoSuchDomain),
            _ => Err(DnsError::NoRecords),
        },
        error => Err(no_answer(error)),
    }
}

fn no_answer(error: &NetError) -> DnsError {
    let text = match error {
        NetError::Timeout => "the name server does not answer".to_owned(),
        NetError::Dns(WireError::ResponseCode(code)) => {
            format!("the name server answers {code}")
        }
        error => format!("the name server cannot be asked: {error}"),
    };
    // Whatever the server sent, nobody sees more of it than printable ASCII.
    DnsError::Temporary(text.chars().map(printable_or_mark).take(200).collect())
}

fn printable_or_mark(c: char) -> char {
    if c == ' ' || c.is_ascii_graphic() { c } else { '?' }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

/// The answer section of one response.
struct Answer {
    is_nxdomain: bool,
    records: Vec<Record>,
}

impl Answer {
    fn records_of(&self, owner: &Name, kind: RecordType) -> Vec<RData> {
        let is_wanted = |record: &&Record| record.record_type() == kind && record.name == *owner;
        let wanted = self.records.iter().filter(is_wanted);
        wanted.map(|record| record.data.clone()).take(MAX_RECORDS).collect()
    }

    fn cname_of(&self, owner: &Name) -> Option<Name> {
        self.records.iter().filter(|record| record.name == *owner).find_map(|record| match &record
            .data
        {
            RData::CNAME(target) => Some(target.0.clone()),
            _ => None,
        })
    }
}

fn exchanger(record: &RData) -> Option<Mx> {
    let RData::MX(mx) = record else { return None };
    let preference = mx.preference;
    if mx.exchange.is_root() {
        return Some(Mx { preference, exchange: None });
    }
    let host: DomainName = mx.exchange.to_ascii().parse().ok()?;
    Some(Mx { preference, exchange: Some(host) })
}

/// RFC 6761 §6.3: `localhost` and all below it are this host, and the DNS is not asked.
fn is_localhost(name: &DomainName) -> bool {
    let name = name.to_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// What is known of a host without the DNS.
fn local_addresses(host: &DomainName) -> Vec<IpAddr> {
    let listed = match File::open(HOSTS) {
        Ok(file) => addresses_listed(BufReader::new(file.take(MAX_FILE)), host),
        Err(_) => Vec::new(),
    };
    if listed.is_empty() && is_localhost(host) {
        return vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
    }
    listed
}

/// The addresses of `host` in a file like `/etc/hosts`.
fn addresses_listed(file: impl BufRead, host: &DomainName) -> Vec<IpAddr> {
    let is_host = |name: &String| name.eq_ignore_ascii_case(host.as_str());
    let of_host = entries(file).filter(|(_, names)| names.iter().any(is_host));
    of_host.map(|(address, _)| address).take(MAX_RECORDS).collect()
}

/// The full name that `/etc/hosts` has for the host of that name of one label, as `hostname -f`
/// finds it there.
pub fn full_name(host: &str) -> Option<DomainName> {
    full_name_listed(BufReader::new(File::open(HOSTS).ok()?.take(MAX_FILE)), host)
}

/// The first name of more than one label that stands beside `host` and begins with it.
fn full_name_listed(file: impl BufRead, host: &str) -> Option<DomainName> {
    let is_full = |name: &&String| {
        let label = name.split_once('.').map(|(label, _)| label);
        label.is_some_and(|label| label.eq_ignore_ascii_case(host))
    };
    let is_host = |name: &String| name.eq_ignore_ascii_case(host);
    let mut of_host = entries(file).filter(|(_, names)| names.iter().any(is_host));
    of_host.find_map(|(_, names)| names.iter().find(is_full)?.parse().ok())
}

/// The lines of a file like `/etc/hosts`: `ADDRESS NAME...`, `#` for comments. One that is not
/// readable is passed over.
fn entries(file: impl BufRead) -> impl Iterator<Item = (IpAddr, Vec<String>)> {
    file.split(b'\n').map_while(Result::ok).filter_map(|line| {
        let line = String::from_utf8_lossy(&line);
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        Some((address, words.map(|name| name.trim_end_matches('.').to_owned()).collect()))
    })
}

/// The servers of `/etc/resolv.conf`, or this host where it names none (resolv.conf(5)).
fn system_servers() -> Vec<SocketAddr> {
    let mut text = String::new();
    if let Ok(file) = File::open(RESOLV_CONF) {
        // What could be read before an error still counts.
        let _ = file.take(MAX_FILE).read_to_string(&mut text);
    }
    let servers = servers_listed(&text);
    if servers.is_empty() { vec![(Ipv4Addr::LOCALHOST, 53).into()] } else { servers }
}

fn servers_listed(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then(|| words.next()?.parse().ok()).flatten()
    };
    let addresses = text.lines().filter_map(address);
    addresses.map(|address: IpAddr| (address, 53).into()).take(MAX_SERVERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_any_case() {
        let file =
            b"127.0.0.1 localhost\n# 9.9.9.9 mx.test\n\xff\n10.0.0.1\tother Mx.Test # mx2.test\n\
                    fd00::1 mx.test.\nnonsense mx.test\n10.0.0.2 mx.test.example\n";
        let found = |host: &str| addresses_listed(&file[..], &host.parse().unwrap());
        let expected: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(found("mX.test"), expected);
        assert!(found("mx2.test").is_empty());
    }

    #[test]
    fn a_full_name_stands_beside_the_short_one() {
        for (file, expected) in [
            ("127.0.0.1 localhost\n127.0.1.1 pi.home.test pi\n", Some("pi.home.test")),
            ("127.0.0.1 localhost.localdomain localhost pi\n::1 PI Pi.lan # x\n", Some("Pi.lan")),
            ("127.0.1.1 pi.one.test. pi\n192.0.2.1 pi.two.test pi\n", Some("pi.one.test")),
            ("192.0.2.1 pi.far.test\n127.0.1.1 pi\n", None),
            ("192.0.2.1 pi.a_b nas.home.test pi\nx pi.home.test pi\n", None),
            ("", None),
        ] {
            let found = full_name_listed(file.as_bytes(), "pi").map(|name| name.to_string());
            assert_eq!(found.as_deref(), expected, "{file:?}");
        }
    }

    #[test]
    fn families_take_turns() {
        assert_eq!(in_turns(&[1, 2, 3], &[9]), [&1, &9, &2, &3]);
        assert_eq!(in_turns(&[], &[8, 9]), [&8, &9]);
    }

    #[test]
    fn trouble_with_one_question_is_trouble() {
        let trouble = || DnsError::Temporary("x".into());
        assert_eq!(worse(DnsError::NoSuchDomain, trouble()), trouble());
        assert_eq!(worse(trouble(), DnsError::NoRecords), trouble());
        assert_eq!(worse(DnsError::NoRecords, DnsError::NoSuchDomain), DnsError::NoSuchDomain);
        assert_eq!(worse(DnsError::NoRecords, DnsError::NoRecords), DnsError::NoRecords);
    }

    #[test]
    fn resolv_conf_names_servers() {
        let text = "# c\nsearch a.test\nnameserver 192.0.2.1\nnameserver  fd00::53 \nnameserver x\n\
                    nameservers 192.0.2.9\nnameserver\n";
        let expected: Vec<SocketAddr> =
            vec!["192.0.2.1:53".parse().unwrap(), "[fd00::53]:53".parse().unwrap()];
        assert_eq!(servers_listed(text), expected);
    }

    #[test]
    fn localhost_needs_no_server() {
        let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let resolver = Resolver::new(&[nobody]);
        let name: DomainName = "a.localhost".parse().unwrap();
        assert!(resolver.addresses(&name).unwrap().iter().all(IpAddr::is_loopback));
        assert_eq!(resolver.mx(&name), Err(DnsError::NoRecords));
        assert!(resolver.engine.lock().unwrap().is_none());
    }
}
