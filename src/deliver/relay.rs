//! Relaying: a message to a smarthost, or to the mail exchangers of a domain, over SMTP
//! (RFC 5321 §5.1).
//!
//! Hosts are tried in their order, and each at all of its addresses, until one takes the
//! session; what it then says about a recipient counts. A host that does not take the session
//! never costs a message: that is trouble with the host, not with the mail, and the mail is
//! kept. Two rules guard against delivering twice: once the last octet of a message is on its
//! way, the message is not tried anywhere else at this try; and only a connection that was
//! kept from before is replaced by a fresh one to the same host.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::config::settings::{HostPort, Settings};
use crate::deliver::connections::{Connection, Connections};
use crate::deliver::conversation::Timeouts;
use crate::deliver::encryption::Encryption;
use crate::deliver::job::{Job, Recipient};
use crate::deliver::logins::{Logins, Pace};
use crate::deliver::outcome::{Failure, Fault, Outcome, RemoteReply};
use crate::deliver::pool::Deliver;
use crate::deliver::tls::Protection;
use crate::mail::address::DomainName;
use crate::mail::dsn_request::{MessageRequest, OriginalRecipient};
use crate::mail::status::Status;
use crate::route::next_hop::NextHop;
use crate::route::rewrite::Rewriter;
use crate::smtp::client::{self, Awaited, RecipientResult, Refusal, Transaction};
use crate::spool::envelope::{Body, Envelope};
use crate::spool::manager::Order;
use crate::sys::dns::{self, Resolver};

mod hosts;
mod login;
mod opening;
mod outgoing;
pub mod trial;
mod trouble;

use self::hosts::no_address;
use self::outgoing::Outgoing;
use self::trouble::{Failures, Trouble, fault_of_break};

/// How long addresses are tried, all together; then the rest waits for the next try.
const SEARCH_TIME: Duration = Duration::from_secs(180);
/// The most addresses that are tried at one try. RFC 5321 §5.1 wants at least two.
const MAX_ADDRESSES: usize = 10;
/// The most addresses of one host that are tried, so that there is room for another host.
const MAX_ADDRESSES_OF_HOST: usize = 5;
/// The most recipients of one transaction; RFC 5321 §4.5.3.1.8 promises only 100, and a server
/// that takes fewer than these says so with 452.
const MAX_RECIPIENTS: usize = 1000;
/// Where mail exchangers listen (RFC 5321 §4.5.4.2).
const SMTP_PORT: u16 = 25;

/// Relays messages, for any number of threads at once.
#[derive(Debug)]
pub struct Relay {
    hostname: DomainName,
    resolver: Arc<Resolver>,
    connections: Arc<Connections>,
    encryption: Arc<Encryption>,
    logins: Arc<Logins>,
    rewriter: Option<Rewriter>,
    timeouts: Timeouts,
    mx_port: u16,
    orders: Option<Sender<Order>>,
}

impl Deliver for Relay {
    /// May take as long as the time-outs say.
    fn deliver(&self, job: &Job) -> Vec<(usize, Outcome)> {
        let outgoing = self.outgoing(job);
        let mut outcomes = Vec::with_capacity(job.recipients.len());
        for recipients in job.recipients.chunks(MAX_RECIPIENTS) {
            let places = recipients.iter().map(|recipient| recipient.index);
            let found = match &outgoing {
                Ok(outgoing) => self.deliver_to(outgoing, recipients),
                Err(failure) => Err(failure.clone()),
            };
            match found {
                Ok(found) => outcomes.extend(places.zip(found)),
                Err(failure) => {
                    outcomes.extend(places.map(|place| (place, failure.clone().into_outcome())));
                }
            }
        }
        outcomes
    }

    /// Closes connections that were idle for too long, and looks whether a password that was
    /// refused has changed.
    fn rest(&self) -> bool {
        let has_connections = self.connections.close_idle();
        self.look_for_passwords() || has_connections
    }
}

impl Relay {
    /// A relay with the host's full name, the name servers and `[rewrite]` of the settings.
    pub fn new(settings: &Settings) -> Self {
        let resolver = Resolver::new(&settings.dns_servers);
        Self::with_resolver(full_hostname(settings), resolver)
            .with_rewriter(Rewriter::new(settings))
    }

    /// A relay that calls itself `hostname` and looks names up with `resolver`.
    pub fn with_resolver(hostname: DomainName, resolver: Resolver) -> Self {
        Self {
            hostname,
            resolver: Arc::new(resolver),
            connections: Arc::default(),
            encryption: Arc::default(),
            logins: Arc::default(),
            rewriter: None,
            timeouts: Timeouts::default(),
            mx_port: SMTP_PORT,
            orders: None,
        }
    }

    /// The same relay, finding mail exchangers at `port` instead of 25.
    pub fn with_mx_port(self, port: u16) -> Self {
        Self { mx_port: port, ..self }
    }

    /// The same relay, sending mail under other addresses where there is a rewriter.
    pub fn with_rewriter(self, rewriter: Option<Rewriter>) -> Self {
        Self { rewriter, ..self }
    }

    /// The same relay with other time-outs than those of RFC 5321.
    pub fn with_timeouts(self, timeouts: Timeouts) -> Self {
        Self { timeouts, ..self }
    }

    /// The same relay, telling the queue manager when a password that was refused has changed.
    pub fn with_orders(self, orders: Sender<Order>) -> Self {
        Self { orders: Some(orders), ..self }
    }

    /// The same relay, trying refused logins at another pace.
    pub fn with_login_pace(self, pace: Pace) -> Self {
        Self { logins: Arc::new(Logins::with_pace(pace)), ..self }
    }

    /// A relay as the settings `after` say, where this one is as those `before` said. It goes on with
    /// what this one knows: open connections, refused logins, hosts whose TLS is broken.
    pub fn with_settings(&self, [before, after]: [&Settings; 2]) -> Self {
        let resolver = match before.dns_servers == after.dns_servers {
            true => Arc::clone(&self.resolver),
            false => Arc::new(Resolver::new(&after.dns_servers)),
        };
        Self {
            hostname: full_hostname(after),
            resolver,
            connections: Arc::clone(&self.connections),
            encryption: Arc::clone(&self.encryption),
            logins: Arc::clone(&self.logins),
            rewriter: Rewriter::new(after),
            timeouts: self.timeouts,
            mx_port: self.mx_port,
            orders: self.orders.clone(),
        }
    }

    /// Forgets the accounts that these settings do not need.
    pub fn forget_others(&self, settings: &Settings) {
        self.logins.keep_only(settings.smarthost.as_ref());
    }

    /// The message as it goes out. Where nothing is to be rewritten it is not looked at.
    fn outgoing<'a>(&self, job: &'a Job) -> Result<Outgoing<'a>, Failure> {
        match &self.rewriter {
            Some(rewriter) => Outgoing::rewritten(job, rewriter),
            None => Ok(Outgoing::unchanged(job)),
        }
    }

    /// One outcome for each recipient in their order, or a failure of them all.
    fn deliver_to(
        &self,
        outgoing: &Outgoing<'_>,
        recipients: &[Recipient],
    ) -> Result<Vec<Outcome>, Failure> {
        let next_hop = &outgoing.job.next_hop;
        if let Some(connection) = self.connections.take(next_hop) {
            match self.send(connection, outgoing, recipients) {
                // The peer had closed it, or was about to. Nobody has the message.
                Err(trouble) if trouble.is_of_host => {}
                result => return result.map_err(|trouble| trouble.failure),
            }
        }
        self.check_login(next_hop)?;
        let hosts = self.hosts(next_hop)?;
        let mut failures = Failures::default();
        if let Some(result) = self.search(&hosts, outgoing, recipients, &mut failures) {
            return result;
        }
        let has_vain_login = failures.has_vain_login;
        let verdict = failures.into_verdict();
        if has_vain_login {
            self.note_vain_login(next_hop, &verdict);
        }
        Err(verdict)
    }

    /// Tries one address after the other until a session comes about; `None` where none does.
    fn search(
        &self,
        hosts: &[HostPort],
        outgoing: &Outgoing<'_>,
        recipients: &[Recipient],
        failures: &mut Failures,
    ) -> Option<Result<Vec<Outcome>, Failure>> {
        let next_hop = &outgoing.job.next_hop;
        let end = Instant::now() + SEARCH_TIME;
        let mut tried = 0;
        for host in hosts {
            let addresses = match self.addresses(&host.host) {
                Ok(addresses) => addresses,
                Err(error) => {
                    failures.add(no_address(next_hop, host, &error));
                    Vec::new()
                }
            };
            for address in addresses.into_iter().take(MAX_ADDRESSES_OF_HOST) {
                tried += 1;
                let sent = self
                    .connect(next_hop, host, SocketAddr::new(address, host.port))
                    .and_then(|connection| self.send(connection, outgoing, recipients));
                match sent {
                    Err(trouble) if trouble.is_of_host => failures.add_trouble(trouble),
                    result => return Some(result.map_err(|trouble| trouble.failure)),
                }
                if tried == MAX_ADDRESSES || Instant::now() > end {
                    return None;
                }
            }
            if Instant::now() > end {
                // There may be better hosts further down, so nothing is final.
                let late = Failure::new(Status::new(4, 4, 1), "no time to try all hosts");
                failures.add(late.with_fault(Fault::Destination));
                break;
            }
        }
        None
    }

    /// Sends the message over a connection, and keeps that for the next one.
    fn send(
        &self,
        mut connection: Connection,
        outgoing: &Outgoing<'_>,
        recipients: &[Recipient],
    ) -> Result<Vec<Outcome>, Trouble> {
        let Job { message, reverse_path, next_hop, .. } = outgoing.job;
        let envelope = message.envelope();
        let recipients: Vec<_> =
            recipients.iter().map(|recipient| with_request(recipient, envelope)).collect();
        // From the owner of a list it is another message (RFC 3461 §5.2.7.1 (b)).
        let is_as_sent = *reverse_path == envelope.reverse_path;
        let nothing_asked = MessageRequest::default();
        let transaction = Transaction {
            reverse_path: &outgoing.reverse_path,
            recipients: &recipients,
            request: if is_as_sent { &envelope.request } else { &nothing_asked },
            is_eight_bit: envelope.body == Body::EightBitMime,
            size_octets: outgoing.size_octets(),
        };
        let results =
            connection.session.send(&transaction, &mut outgoing.reader()).map_err(|error| {
                let fault = fault_of_break(&error.cause);
                Trouble::with(&connection.remote, &error, fault)
            })?;
        let outcomes: Vec<_> =
            results.iter().map(|result| outcome(result, &connection, next_hop)).collect();
        connection.messages += 1;
        match outcomes.iter().any(is_about_session) {
            true => connection.session.quit(),
            false => self.connections.put(next_hop, connection),
        }
        Ok(outcomes)
    }
}

/// The name by which other hosts hear of this one. RFC 5321 §2.3.5 wants a full one in EHLO, and many
/// refuse another: one of a single label gets the domain that `/etc/hosts` has for it.
fn full_hostname(settings: &Settings) -> DomainName {
    let own = &settings.server.hostname;
    let is_full = own.as_str().contains('.');
    let full = if is_full { None } else { dns::full_name(own.as_str()) };
    full.unwrap_or_else(|| own.clone())
}

/// A recipient with what was asked about it. RFC 3461 §5.2.1 (d) lets ORCPT be added with the
/// address that the message came with: so the reports of other hosts name it. For one behind an
/// alias that would be another address, and none is added.
fn with_request<'a>(recipient: &'a Recipient, envelope: &Envelope) -> client::Recipient<'a> {
    let Recipient { index, mailbox, request, .. } = recipient;
    let mut request = request.clone();
    let came_so = envelope.recipients.get(*index).is_some_and(|came| came.mailbox == *mailbox);
    if request.original.is_none() && came_so {
        request.original = Some(OriginalRecipient::of_mailbox(mailbox));
    }
    client::Recipient { mailbox, request }
}

/// Whether the server wants a login (RFC 4954 §6) or encryption (RFC 3207 §4) before it takes any
/// mail. Its 530 is permanent for this session only. What a mail exchanger wants in an encrypted
/// session nobody will ever have for it.
fn wants_more(refusal: &Refusal, protection: Protection, next_hop: &NextHop) -> bool {
    let is_ours = matches!(next_hop, NextHop::Smarthost(_));
    refusal.reply.code() == 530
        && refusal.command == Awaited::Mail
        && (is_ours || protection == Protection::None)
}

/// Whether another session may fare better.
fn is_about_session(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Deferred(failure) if failure.fault == Fault::Destination)
}

fn outcome(result: &RecipientResult, connection: &Connection, next_hop: &NextHop) -> Outcome {
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
        RecipientResult::Refused(refusal)
            if wants_more(refusal, session.protection(), next_hop) =>
        {
            return Outcome::Deferred(trouble::wants_more(&remote, &refusal.reply, next_hop));
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
