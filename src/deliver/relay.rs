//! Relaying: a message to a smarthost, or to the mail exchangers of a domain, over SMTP
//! (RFC 5321 §5.1).
//!
//! Hosts are tried in their order, and each at all of its addresses, until one takes the
//! session; what it then says about a recipient counts. A host that does not take the session
//! never costs a message: that is trouble with the host, not with the mail, and the mail is
//! kept. Two rules guard against delivering twice: once the last octet of a message is on its
//! way, the message is not tried anywhere else at this try; and only a connection that was
//! kept from before is replaced by a fresh one to the same host.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::config::settings::{HostPort, Settings};
use crate::deliver::connections::{Connection, Connections};
use crate::deliver::conversation::{Cause, ConnectionError, SmtpConnection, Timeouts};
use crate::deliver::encryption::{self, Encryption};
use crate::deliver::job::{Job, Recipient};
use crate::deliver::outcome::{Failure, Fault, Outcome, RemoteReply};
use crate::deliver::pool::Deliver;
use crate::deliver::tls::{Protection, Security, TlsError};
use crate::mail::address::{Domain, DomainName};
use crate::mail::dsn_request::OriginalRecipient;
use crate::mail::status::Status;
use crate::route::mx::{MxError, mail_hosts};
use crate::route::next_hop::NextHop;
use crate::smtp::client::{self, Awaited, Ending, RecipientResult, Transaction};
use crate::spool::envelope::{Body, Envelope};
use crate::sys::dns::{DnsError, Resolver};
use crate::sys::{clock, network};

/// How long a connection may take to be made, for each address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long each step may take that leads to a look at a certificate that was refused.
const LOOK_TIME: Duration = Duration::from_secs(15);
/// How long addresses are tried, all together; then the rest waits for the next try.
const SEARCH_TIME: Duration = Duration::from_secs(180);
/// The most addresses that are tried at one try. RFC 5321 §5.1 wants at least two.
const MAX_ADDRESSES: usize = 10;
/// The most addresses of one host that are tried, so that there is room for another host.
const MAX_ADDRESSES_OF_HOST: usize = 5;
/// The most recipients of one transaction; RFC 5321 §4.5.3.1.8 promises only 100, and a server
/// that takes fewer than these says so with 452.
const MAX_RECIPIENTS: usize = 1000;
/// The encryption did not come about (RFC 3463 §3.8).
const CRYPTOGRAPHIC_FAILURE: Status = Status::new(4, 7, 5);
/// Where mail exchangers listen (RFC 5321 §4.5.4.2).
const SMTP_PORT: u16 = 25;

/// Relays messages, for any number of threads at once.
#[derive(Debug)]
pub struct Relay {
    hostname: DomainName,
    resolver: Resolver,
    connections: Connections,
    encryption: Encryption,
    timeouts: Timeouts,
    mx_port: u16,
}

impl Deliver for Relay {
    /// May take as long as the time-outs say.
    fn deliver(&self, job: &Job) -> Vec<(usize, Outcome)> {
        let mut outcomes = Vec::with_capacity(job.recipients.len());
        for recipients in job.recipients.chunks(MAX_RECIPIENTS) {
            let places = recipients.iter().map(|recipient| recipient.index);
            match self.deliver_to(job, recipients) {
                Ok(found) => outcomes.extend(places.zip(found)),
                Err(failure) => {
                    outcomes.extend(places.map(|place| (place, failure.clone().into_outcome())));
                }
            }
        }
        outcomes
    }

    /// Closes connections that were idle for too long.
    fn rest(&self) -> bool {
        self.connections.close_idle()
    }
}

impl Relay {
    /// A relay with the host's name and the name servers of the settings.
    pub fn new(settings: &Settings) -> Self {
        Self::with_resolver(settings.server.hostname.clone(), Resolver::new(&settings.dns_servers))
    }

    /// A relay that calls itself `hostname` and looks names up with `resolver`.
    pub fn with_resolver(hostname: DomainName, resolver: Resolver) -> Self {
        Self {
            hostname,
            resolver,
            connections: Connections::default(),
            encryption: Encryption::default(),
            timeouts: Timeouts::default(),
            mx_port: SMTP_PORT,
        }
    }

    /// The same relay, finding mail exchangers at `port` instead of 25.
    pub fn with_mx_port(self, port: u16) -> Self {
        Self { mx_port: port, ..self }
    }

    /// The same relay with other time-outs than those of RFC 5321.
    pub fn with_timeouts(self, timeouts: Timeouts) -> Self {
        Self { timeouts, ..self }
    }

    /// One outcome for each recipient in their order, or a failure of them all.
    fn deliver_to(&self, job: &Job, recipients: &[Recipient]) -> Result<Vec<Outcome>, Failure> {
        if let Some(connection) = self.connections.take(&job.next_hop) {
            match self.send(connection, job, recipients) {
                // The peer had closed it, or was about to. Nobody has the message.
                Err(trouble) if trouble.is_of_host => {}
                result => return result.map_err(|trouble| trouble.failure),
            }
        }
        let hosts = self.hosts(&job.next_hop)?;
        self.search(&hosts, job, recipients)
    }

    /// Tries one address after the other until a session comes about.
    fn search(
        &self,
        hosts: &[HostPort],
        job: &Job,
        recipients: &[Recipient],
    ) -> Result<Vec<Outcome>, Failure> {
        let end = Instant::now() + SEARCH_TIME;
        let mut tried = 0;
        let mut failures = Failures::default();
        for host in hosts {
            let addresses = match self.addresses(&host.host) {
                Ok(addresses) => addresses,
                Err(error) => {
                    failures.add(no_address(&job.next_hop, host, &error));
                    Vec::new()
                }
            };
            for address in addresses.into_iter().take(MAX_ADDRESSES_OF_HOST) {
                tried += 1;
                let sent = self
                    .connect(&job.next_hop, host, SocketAddr::new(address, host.port))
                    .and_then(|connection| self.send(connection, job, recipients));
                match sent {
                    Err(trouble) if trouble.is_of_host => failures.add(trouble.failure),
                    result => return result.map_err(|trouble| trouble.failure),
                }
                if tried == MAX_ADDRESSES || Instant::now() > end {
                    return Err(failures.into_verdict());
                }
            }
            if Instant::now() > end {
                // There may be better hosts further down, so nothing is final.
                let late = Failure::new(Status::new(4, 4, 1), "no time to try all hosts");
                failures.add(late.with_fault(Fault::Destination));
                break;
            }
        }
        Err(failures.into_verdict())
    }

    fn hosts(&self, next_hop: &NextHop) -> Result<Vec<HostPort>, Failure> {
        match next_hop {
            NextHop::Local => {
                Err(Failure::new(Status::new(4, 3, 5), "local mail came to the relay"))
            }
            NextHop::Smarthost(smarthost) => Ok(smarthost.hosts.clone()),
            NextHop::Mx(domain @ Domain::Literal(_)) => {
                Ok(vec![HostPort { host: domain.clone(), port: self.mx_port }])
            }
            NextHop::Mx(Domain::Name(domain)) => self.exchangers(domain),
        }
    }

    fn exchangers(&self, domain: &DomainName) -> Result<Vec<HostPort>, Failure> {
        let records = self.resolver.mx(domain);
        let hosts = mail_hosts(domain, records, &self.hostname, random).map_err(|error| {
            let fault = fault_of_look_up(matches!(error, MxError::NoNetwork(_)));
            Failure::new(error.status(), format!("{domain} {error}")).with_fault(fault)
        })?;
        let port = self.mx_port;
        Ok(hosts.into_iter().map(|host| HostPort { host: Domain::Name(host), port }).collect())
    }

    fn addresses(&self, host: &Domain) -> Result<Vec<IpAddr>, DnsError> {
        match host {
            Domain::Literal(address) => Ok(vec![*address]),
            Domain::Name(name) => self.resolver.addresses(name),
        }
    }

    fn connect(
        &self,
        next_hop: &NextHop,
        host: &HostPort,
        address: SocketAddr,
    ) -> Result<Connection, Trouble> {
        let remote = remote_name(&host.host, address);
        let security = self.encryption.security(next_hop, &host.host, &remote);
        let security = security.map_err(|error| Trouble {
            failure: Failure::new(Status::new(4, 3, 5), error.to_string()),
            is_of_host: false,
        })?;
        let opened = match self.open(address, security, self.timeouts) {
            Err(Unopened::Session(error))
                if self.encryption.gives_way(next_hop, &error.cause, &remote) =>
            {
                log::info!("{remote} {}: it gets mail without TLS for now", error.cause);
                self.open(address, Security::None, self.timeouts)
            }
            Err(Unopened::Session(error)) => {
                Err(Unopened::Session(self.with_certificate(next_hop, host, address, error)))
            }
            opened => opened,
        };
        match opened {
            Ok(session) => {
                log_opened(&session, &remote);
                Ok(Connection { session, remote, messages: 0 })
            }
            Err(Unopened::Unreachable(error)) => {
                Err(Trouble { failure: unreachable(&remote, &error), is_of_host: true })
            }
            Err(Unopened::Session(error)) => {
                let is_wrong = clock::is_plainly_wrong();
                Err(Trouble::at_opening(&remote, &error, next_hop, is_wrong))
            }
        }
    }

    fn open(
        &self,
        address: SocketAddr,
        security: Security,
        timeouts: Timeouts,
    ) -> Result<SmtpConnection<TcpStream>, Unopened> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT.min(timeouts.greeting))
            .map_err(Unopened::Unreachable)?;
        // Each write is a whole group of commands or a block; waiting to fill a segment would
        // only add a round trip.
        stream.set_nodelay(true).map_err(Unopened::Unreachable)?;
        SmtpConnection::open_with(stream, &self.hostname, timeouts, security)
            .map_err(Unopened::Session)
    }

    /// The same error, with the certificate where one was refused and nobody knows what it was:
    /// a connection of its own has a look, in which nothing is said but what leads to it.
    fn with_certificate(
        &self,
        next_hop: &NextHop,
        host: &HostPort,
        address: SocketAddr,
        error: ConnectionError,
    ) -> ConnectionError {
        let Some(look) = self.encryption.look(next_hop, &host.host, &error.cause) else {
            return error;
        };
        match self.open(address, look, self.timeouts.at_most(LOOK_TIME)) {
            Err(Unopened::Session(seen)) if seen.is_about_certificate() => seen,
            _ => error,
        }
    }

    /// Sends the message over a connection, and keeps that for the next one.
    fn send(
        &self,
        mut connection: Connection,
        job: &Job,
        recipients: &[Recipient],
    ) -> Result<Vec<Outcome>, Trouble> {
        let envelope = job.message.envelope();
        let recipients: Vec<_> =
            recipients.iter().map(|recipient| with_request(recipient, envelope)).collect();
        let transaction = Transaction {
            reverse_path: &envelope.reverse_path,
            recipients: &recipients,
            request: &envelope.request,
            is_eight_bit: envelope.body == Body::EightBitMime,
            size_octets: job.message.size_octets(),
        };
        let results =
            connection.session.send(&transaction, &mut job.message.reader()).map_err(|error| {
                let fault = fault_of_break(&error.cause);
                Trouble::with(&connection.remote, &error, fault)
            })?;
        let outcomes = results.iter().map(|result| outcome(result, &connection)).collect();
        connection.messages += 1;
        self.connections.put(&job.next_hop, connection);
        Ok(outcomes)
    }
}

/// Says how the session is protected.
fn log_opened(session: &SmtpConnection<TcpStream>, remote: &str) {
    let how = match session.protection() {
        Protection::None => return log::debug!("connected to {remote} in the clear"),
        Protection::Encrypted => "its certificate not looked at",
        Protection::Checked => "its certificate checked",
    };
    match session.hello() {
        Some(hello) => log::debug!("connected to {remote} with {hello}, {how}"),
        None => log::debug!("connected to {remote} with TLS, {how}"),
    }
}

/// Why there is no session.
enum Unopened {
    /// No connection was made.
    Unreachable(std::io::Error),
    /// It broke off before it was open.
    Session(ConnectionError),
}

/// What went wrong with the hosts tried so far. One that might do later makes it temporary,
/// and one that was reached, or could have been, makes it more than want of a network.
#[derive(Default)]
struct Failures {
    temporary: Option<Failure>,
    permanent: Option<Failure>,
}

impl Failures {
    fn add(&mut self, failure: Failure) {
        if failure.status.is_permanent() {
            self.permanent = Some(failure);
        } else if self.temporary.as_ref().is_none_or(|it| weight(it) <= weight(&failure)) {
            self.temporary = Some(failure);
        }
    }

    fn into_verdict(self) -> Failure {
        let nothing = || Failure::new(Status::new(4, 4, 4), "there is no host to try");
        self.temporary.or(self.permanent).unwrap_or_else(nothing)
    }
}

/// How much a failure with one host tells of the destination as a whole.
const fn weight(failure: &Failure) -> u8 {
    match failure.fault {
        Fault::Network => 0,
        Fault::Here | Fault::Destination => 1,
        // There is a host that takes sessions.
        Fault::Mail | Fault::DestinationOrMail => 2,
    }
}

/// Why a session brought no results.
struct Trouble {
    failure: Failure,
    /// It is the host's, and another one may be tried.
    is_of_host: bool,
}

impl Trouble {
    /// For a session that did not come about.
    fn at_opening(
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

    fn with(remote: &str, error: &ConnectionError, fault: Fault) -> Self {
        let is_ours = matches!(error.cause, Cause::Content(_));
        let failure = Failure {
            status: status_of(&error.cause),
            text: format!("{remote} {}", error.cause),
            remote: said(&error.cause).map(|reply| RemoteReply { host: remote.to_owned(), reply }),
            fault: if is_ours { Fault::Here } else { fault },
        };
        Self { failure, is_of_host: !is_ours && !error.is_content_sent }
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

/// A recipient with what was asked about it. RFC 3461 §5.2.1 (d) lets ORCPT be added with the
/// address that the message came with: so the reports of other hosts name it. For one behind an
/// alias that would be another address, and none is added.
fn with_request<'a>(recipient: &'a Recipient, envelope: &Envelope) -> client::Recipient<'a> {
    let Recipient { index, mailbox, request } = recipient;
    let mut request = request.clone();
    let came_so = envelope.recipients.get(*index).is_some_and(|came| came.mailbox == *mailbox);
    if request.original.is_none() && came_so {
        request.original = Some(OriginalRecipient::of_mailbox(mailbox));
    }
    client::Recipient { mailbox, request }
}

fn outcome(result: &RecipientResult, connection: &Connection) -> Outcome {
    let (session, remote) = (&connection.session, connection.remote.clone());
    let failure = match result {
        RecipientResult::Taken(reply) => {
            return Outcome::Relayed {
                remote,
                reply: reply.to_string(),
                knows_dsn: session.offers_dsn(),
                tls: session.is_secured().then(|| session.tls_version()),
            };
        }
        RecipientResult::Refused(refusal) => {
            let what = match refusal.command {
                Awaited::Mail => "the sender",
                Awaited::Recipient(_) => "the recipient",
                _ => "the message",
            };
            let reply = refusal.reply.to_string();
            Failure {
                status: refusal.status(),
                text: format!("{remote} refused {what}: {reply}"),
                remote: Some(RemoteReply { host: remote, reply }),
                fault: match refusal.reply.code() {
                    // It leaves (RFC 5321 §3.8), perhaps because of what it has just read.
                    421 => Fault::DestinationOrMail,
                    _ => Fault::Mail,
                },
            }
        }
        RecipientResult::TooLarge { limit_octets } => Failure::new(
            Status::new(5, 3, 4),
            format!("the message is too large for {remote}, which takes {limit_octets} octets"),
        )
        .with_fault(Fault::Mail),
    };
    failure.into_outcome()
}

fn no_address(next_hop: &NextHop, host: &HostPort, error: &DnsError) -> Failure {
    let status = match (error, next_hop) {
        (DnsError::Temporary(_) | DnsError::NoNetwork(_), _) => Status::new(4, 4, 3),
        // A mistake in our own configuration, or a name that comes with the network, must
        // not bounce everything. RFC 3463 §3.5: 4.4.4 is for a directory that does not know it.
        (_, NextHop::Smarthost(_) | NextHop::Local) => Status::new(4, 4, 4),
        // RFC 5321 §5.1: neither an MX record nor an address.
        (_, NextHop::Mx(domain)) if *domain == host.host => Status::new(5, 1, 2),
        (_, NextHop::Mx(_)) => Status::new(5, 4, 4),
    };
    Failure::new(status, format!("no address of the host {}: {error}", host.host))
        .with_fault(fault_of_look_up(matches!(error, DnsError::NoNetwork(_))))
}

/// A connection that was not made.
fn unreachable(remote: &str, error: &std::io::Error) -> Failure {
    let text = format!("cannot connect to {remote}: {error}");
    // A host with IPv4 alone has no way to an IPv6 address, and has a network all the same.
    match network::is_without_route(error) && !network::has_route() {
        // RFC 3463 §3.5: 4.4.1 is for a call that nobody answered, and 4.4.4 for what a
        // directory does not know; this call was never made.
        true => Failure::new(Status::new(4, 4, 0), text).with_fault(Fault::Network),
        false => Failure::new(Status::new(4, 4, 1), text).with_fault(Fault::Destination),
    }
}

const fn fault_of_look_up(has_no_network: bool) -> Fault {
    if has_no_network { Fault::Network } else { Fault::Destination }
}

/// Whose fault it is that a session broke off with a message under way.
fn fault_of_break(cause: &Cause) -> Fault {
    match cause {
        // RFC 5321 §3.8: 421 speaks of the service as a whole.
        Cause::Ended(Ending::Refused(_)) => Fault::Destination,
        _ => Fault::DestinationOrMail,
    }
}

/// `name[address]:port`, or `[address]:port` where no name was looked up.
fn remote_name(host: &Domain, address: SocketAddr) -> String {
    let name = host.name().map(DomainName::as_str).unwrap_or_default();
    format!("{name}[{}]:{}", address.ip(), address.port())
}

/// A random number; zero where the kernel has none, and then equal hosts keep their order.
fn random() -> u64 {
    let mut octets = [0; 8];
    match rustix::rand::getrandom(&mut octets[..], rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(8) => u64::from_ne_bytes(octets),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{ClientTls, Smarthost};
    use crate::deliver::tls::{Doubt, Refused};

    #[test]
    fn mail_waits_for_the_clock_and_that_is_no_try() {
        let host = HostPort { host: "mx.test".parse().unwrap(), port: 25 };
        let next_hop = NextHop::Smarthost(Smarthost::new(vec![host], ClientTls::StartTls));
        let doubt = Doubt::NotYetValid;
        let refused = Refused { doubt, host: "mx.test".to_owned(), seen: None };
        let cause = Cause::Tls(TlsError::Certificate(Box::new(refused)));
        let error = ConnectionError { cause, is_content_sent: false };
        let trouble = |is_wrong| Trouble::at_opening("mx.test", &error, &next_hop, is_wrong);
        let Trouble { failure, is_of_host } = trouble(true);
        assert_eq!((failure.fault, is_of_host), (Fault::Network, true));
        assert!(failure.text.starts_with("the clock of this host is not set, "), "{failure:?}");
        let failure = trouble(false).failure;
        assert_eq!(failure.fault, Fault::Destination);
        let text = "mx.test shows a certificate that is not yet valid; the clock of this host ";
        assert!(failure.text.starts_with(text), "{failure:?}");
    }
}
