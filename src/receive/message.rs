//! One message on its way in: from the socket through the decoder into the spool, never more
//! of it in memory than a buffer, and where it is submitted its header section.

use std::collections::HashSet;
use std::io;
use std::time::Instant;

use crate::config::settings::Settings;
use crate::mail::hops::HopCounter;
use crate::mail::status::Status;
use crate::receive::Reception;
use crate::receive::held_header::HeldHeader;
use crate::receive::policy::{self, USUAL_SIZE};
use crate::receive::provenance::Provenance;
use crate::report::complaint::Complaint;
use crate::report::station;
use crate::route;
use crate::route::addressee::Way;
use crate::route::local::LocalRouter;
use crate::route::next_hop::NextHop;
use crate::smtp::data::{DataDecoder, Progress};
use crate::smtp::reply::Reply;
use crate::smtp::server::{DataError, Transaction};
use crate::spool::envelope::{Envelope, Recipient};
use crate::spool::id::QueueId;
use crate::spool::store::{Draft, Receipt};
use crate::sys::clock;

/// Received fields at which a message is taken to loop (RFC 5321 §6.3 wants at least 100).
const MAX_HOPS: u32 = 100;

const LOOP: Reply = Reply::new(554, Status::new(5, 4, 6), "Too many hops: the message loops");
const DISK_FULL: Reply = Reply::new(452, Status::new(4, 3, 1), "The disk is full; try again later");
const DISK_FAILS: Reply =
    Reply::new(451, Status::new(4, 3, 0), "The message could not be stored; try again later");

static DISK_FULL_TOLD: Complaint = Complaint::new();
static DISK_FAILS_TOLD: Complaint = Complaint::new();

/// A message being received.
#[derive(Debug)]
pub struct IncomingMessage<'a> {
    reception: &'a Reception,
    provenance: Provenance<'a>,
    draft: Draft,
    decoder: DataDecoder,
    hops: HopCounter,
    /// What is looked at before it is written, if it has not been.
    header: Option<HeldHeader<'a>>,
    refusal: Option<Reply>,
    content_octets: u64,
    disk_error: Option<io::Error>,
    began: Instant,
}

impl<'a> IncomingMessage<'a> {
    /// Begins a message with the envelope of `transaction` and a Received field
    /// (RFC 5321 §4.4).
    pub fn begin(
        reception: &'a Reception,
        provenance: &Provenance<'a>,
        transaction: &'a Transaction,
    ) -> Self {
        let now = clock::since_1970();
        let id = reception.spool.new_id(now);
        let trace = trace_field(reception, provenance, transaction, id, now.as_secs());
        let draft = reception.spool.draft(Envelope {
            id,
            received_at: now.as_secs(),
            client: provenance.client(),
            reverse_path: transaction.reverse_path.clone(),
            recipients: each_once(&reception.router, &transaction.recipients),
            body: transaction.body,
            request: transaction.request.clone(),
        });
        let decoder = DataDecoder::new(provenance.listener.bare_newline);
        let Reception { settings, router, .. } = reception;
        let header = HeldHeader::begin(settings, router, *provenance, transaction, id);
        let mut message = Self {
            reception,
            provenance: *provenance,
            draft,
            decoder,
            hops: HopCounter::default(),
            header,
            refusal: None,
            content_octets: 0,
            disk_error: None,
            began: Instant::now(),
        };
        message.disk_error = message.draft.write(trace.as_bytes()).err();
        message
    }

    /// Takes the next octets from the wire, and says how many were used if the data ended
    /// with them.
    pub fn feed(&mut self, wire: &[u8]) -> Option<usize> {
        let Self { reception, draft, decoder, hops, content_octets, .. } = self;
        let Self { header, refusal, disk_error, .. } = self;
        let limit = reception.settings.server.max_message_size;
        let progress = decoder.decode(wire, |content| {
            let before = *content_octets;
            *content_octets += content.len() as u64;
            hops.feed(content);
            if disk_error.is_none() && *content_octets <= limit {
                *disk_error = check_room_again(reception, before, *content_octets)
                    .and_then(|()| write(draft, header, refusal, content))
                    .err();
            }
        });
        match progress {
            Progress::More => None,
            Progress::Ended(used) => Some(used),
        }
    }

    /// Whether so much more than the limit has come that the client will not stop by itself.
    pub fn is_endless(&self) -> bool {
        self.content_octets / 2 > self.reception.settings.server.max_message_size
    }

    /// Keeps the message and announces it to the queue manager, or says why not.
    ///
    /// # Errors
    /// What the client is told instead of 250. Nothing of the message is left then.
    pub fn finish(mut self) -> Result<Receipt, DataError> {
        if let Some(fault) = self.decoder.fault() {
            return Err(DataError::Fault(fault));
        }
        if self.content_octets > self.reception.settings.server.max_message_size {
            return Err(DataError::TooLarge);
        }
        if self.hops.hops() >= MAX_HOPS {
            return Err(DataError::Refused(LOOP));
        }
        // A message without a body. What a disk error left of a section says nothing.
        if let Some(header) = self.header.take().filter(|_| self.disk_error.is_none()) {
            let written = header.finish().map(|header| self.draft.write(&header));
            match written {
                Ok(written) => self.disk_error = written.err(),
                Err(refusal) => self.refusal = Some(refusal),
            }
        }
        if let Some(refusal) = self.refusal {
            return Err(DataError::Refused(refusal));
        }
        let id = self.draft.envelope().id;
        self.keep().map_err(|error| {
            let (reply, told) = disk_reply(&error);
            told.error(format_args!("{id}: cannot be kept, refused: {error}"));
            DataError::Refused(reply)
        })
    }

    fn keep(self) -> io::Result<Receipt> {
        if let Some(error) = self.disk_error {
            return Err(error);
        }
        let Reception { settings, intake, .. } = self.reception;
        let sealed = self.draft.seal()?;
        let user = self.provenance.user.map(|user| &**user);
        let client = self.provenance.peer.to_string();
        station::received(sealed.message(), &client, user, self.began.elapsed());
        let patience = settings.queue.direct;
        if !patience.is_zero() && may_be_direct(settings, sealed.message().envelope()) {
            intake.deliver_or_store(sealed, patience)
        } else {
            intake.store(sealed)
        }
    }
}

/// The recipients without those who are one of the others by another spelling.
fn each_once(router: &LocalRouter, recipients: &[Recipient]) -> Vec<Recipient> {
    if recipients.len() < 2 {
        return recipients.to_vec();
    }
    let mut seen = HashSet::new();
    let is_new =
        |to: &&Recipient| router.spelling(&to.mailbox).is_none_or(|mailbox| seen.insert(mailbox));
    recipients.iter().filter(is_new).cloned().collect()
}

/// Writes what came: the header section, if it is held, when it is whole.
fn write(
    draft: &mut Draft,
    header: &mut Option<HeldHeader<'_>>,
    refusal: &mut Option<Reply>,
    content: &[u8],
) -> io::Result<()> {
    let Some(held) = header else {
        return if refusal.is_some() { Ok(()) } else { draft.write(content) };
    };
    let Some(whole) = held.feed(content) else { return Ok(()) };
    *header = None;
    match whole {
        Ok(octets) => draft.write(&octets),
        Err(reply) => {
            *refusal = Some(reply);
            Ok(())
        }
    }
}

/// Whether a message can be delivered while its client waits: it is for this host alone, and
/// nobody wants a report of the success, which would have to be stored all the same.
fn may_be_direct(settings: &Settings, envelope: &Envelope) -> bool {
    let wants_report = |to: &Recipient| to.request.notify.is_some_and(|notify| notify.success);
    let is_local =
        |to: &Recipient| route::next_hop(settings, &to.mailbox, &Way::Routed) == NextHop::Local;
    envelope.recipients.iter().all(|to| is_local(to) && !wants_report(to))
}

/// Looks at the free space again whenever a message grows by what MAIL looked for: it may
/// have declared no size, or others came at the same time. What is kept free is for the
/// bounces and records that must be written when clients are refused.
fn check_room_again(reception: &Reception, before: u64, now: u64) -> io::Result<()> {
    if before / USUAL_SIZE == now / USUAL_SIZE {
        return Ok(());
    }
    let Reception { settings, spool, intake, .. } = reception;
    policy::check_room(settings, spool, intake, 0)
}

/// What a client is told, and the kind of complaint that the log gets.
fn disk_reply(error: &io::Error) -> (Reply, &'static Complaint) {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (DISK_FULL, &DISK_FULL_TOLD),
        _ => (DISK_FAILS, &DISK_FAILS_TOLD),
    }
}

/// `Received: from … by … with … id … for …; date` (RFC 5321 §4.4). The recipient is named
/// only where there is one, so that nobody learns of a blind copy.
fn trace_field(
    reception: &Reception,
    provenance: &Provenance<'_>,
    transaction: &Transaction,
    id: QueueId,
    now: u64,
) -> String {
    let introduction = provenance.introduction;
    let client = introduction.map_or("localhost", |introduction| introduction.name.as_str());
    let recipient = match transaction.recipients.as_slice() {
        [only] => format!("\r\n\tfor <{}>", only.mailbox),
        _ => String::new(),
    };
    format!(
        "Received: from {client} {}\r\n\tby {} with {} id {id}{recipient}{};\r\n\t{}\r\n",
        provenance.peer.trace(),
        reception.settings.server.hostname,
        provenance.with(),
        provenance.tls_clause(),
        clock::date_field(now),
    )
}
