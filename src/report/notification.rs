//! Reports to senders: what became of their recipients, as a message that goes into the spool
//! like any other (RFC 5321 §6.1, RFC 3461 §6). What is said of whom is decided in
//! `spool::round`; how it is said, in [`crate::mail::dsn`].

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use crate::config::settings::Settings;
use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::dsn::{self, Action, Reader, Report, ReportedRecipient, Returned};
use crate::mail::dsn_request::{MessageRequest, Return};
use crate::mail::status::Status;
use crate::report::station;
use crate::spool::draft::Draft;
use crate::spool::envelope::{Body, Envelope};
use crate::spool::id::QueueId;
use crate::spool::message::StoredMessage;
use crate::spool::post::{self, OwnMessage};
use crate::spool::progress::{RecipientState, State};
use crate::spool::store::Spool;
use crate::sys::{clock, random};

/// The most octets of the original's header that go back.
const MAX_HEADER: u64 = 64 << 10;
/// The client of a report to the postmaster, which no client can have. When that cannot be
/// delivered either, there is nobody left to tell.
const POSTMASTER_REPORT: &str = "local, for the postmaster";

/// RFC 3463 §3.5: delivery time expired.
const EXPIRED: Status = Status::new(5, 4, 7);
/// RFC 3463 §3.3: the mailbox is full.
const MAILBOX_FULL: Status = Status::new(5, 2, 2);
/// RFC 3463 §3.2: "should be used for positive delivery reports".
const DELIVERED: Status = Status::new(2, 1, 5);
/// RFC 3886 §3.3.4, registered by RFC 5248: relayed to a mailer that does not report.
const RELAYED: Status = Status::new(2, 1, 9);
/// RFC 3463 §3.5: other network status. The host rests because of what was seen with another
/// message.
const RESTS: Status = Status::new(4, 4, 0);

/// A recipient to report on.
#[derive(Clone, Copy, Debug)]
pub struct Reported<'a> {
    /// The recipient.
    pub state: &'a RecipientState,
    /// What the report says of it.
    pub action: Action,
}

impl<'a> Reported<'a> {
    /// A recipient whose end is decided.
    pub fn ended(state: &'a RecipientState) -> Self {
        let host = state.last_try.as_ref().and_then(|last| last.host.as_ref());
        let action = match state.state {
            State::Pending | State::Failed => Action::Failed,
            State::Expanded => Action::Expanded,
            State::Done if host.is_some() => Action::Relayed,
            State::Done => Action::Delivered,
        };
        Self { state, action }
    }

    /// A recipient that goes on being tried.
    pub fn late(state: &'a RecipientState) -> Self {
        Self { state, action: Action::Delayed }
    }
}

/// The status of a recipient that is given up since its time is over, after a last try with
/// this status.
///
/// RFC 3463 §3.5 prefers the code of the actual problem to X.4.7. That is the better one where
/// it is the recipient who can mend it; elsewhere it is the time that decided, and the problem
/// stands in Diagnostic-Code.
pub fn expired_status(last: Option<Status>) -> Status {
    last.map(Status::into_permanent).filter(|last| *last == MAILBOX_FULL).unwrap_or(EXPIRED)
}

/// Who hears what became of recipients, and what that one has to do with the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addressee<'a> {
    mailbox: &'a Mailbox,
    reader: Reader,
}

impl<'a> Addressee<'a> {
    /// Whom reports go to on those recipients of a message with this envelope to whom `owner`
    /// sends it: to that owner of a list; without one to the envelope's sender; for a message
    /// that has none to the `[queue] double_bounce` address, unless the message is such a report
    /// already (RFC 3461 §5.2: what tells the postmaster must not lead to further reports).
    pub fn of(
        settings: &'a Settings,
        envelope: &'a Envelope,
        owner: Option<&'a Mailbox>,
    ) -> Option<Self> {
        let (mailbox, reader) = match (owner, &envelope.reverse_path) {
            (Some(owner), _) => (owner, Reader::Owner),
            (None, ReversePath::Mailbox(sender)) => (sender, Reader::Sender),
            (None, ReversePath::Null) if envelope.client == POSTMASTER_REPORT => return None,
            (None, ReversePath::Null) => {
                (settings.queue.double_bounce.as_ref()?, Reader::Postmaster)
            }
        };
        Some(Self { mailbox, reader })
    }
}

/// What is needed to report on a message.
#[derive(Clone, Copy, Debug)]
pub struct Notification<'a> {
    /// Our own name, and how large an enclosure may be.
    pub settings: &'a Settings,
    /// Where the report goes.
    pub spool: &'a Arc<Spool>,
    /// The message that it is about.
    pub original: &'a StoredMessage,
    /// Whom it is for.
    pub to: Addressee<'a>,
    /// How long the message has waited.
    pub age: Duration,
}

impl Notification<'_> {
    /// Writes a report on these recipients into the spool. They all have one sender.
    ///
    /// # Errors
    /// When it cannot be written; the recipients must stay in the queue then.
    pub fn keep(&self, recipients: &[Reported<'_>]) -> io::Result<StoredMessage> {
        let now = clock::since_1970();
        let enclosure = self.enclosure(recipients);
        let own = OwnMessage {
            client: match self.to.reader {
                Reader::Sender | Reader::Owner if is_digest(self.original) => post::DIGEST,
                Reader::Sender | Reader::Owner => post::LOCAL,
                Reader::Postmaster => POSTMASTER_REPORT,
            },
            to: self.to.mailbox.clone().into(),
            body: if enclosure.is_eight_bit { Body::EightBitMime } else { Body::SevenBit },
        };
        let mut draft = own.begin(self.spool, now);
        let id = draft.envelope().id;
        let report = self.report(id, now, recipients, &enclosure);
        draft.write(report.head().as_bytes())?;
        enclosure.write_to(&mut draft, self.original)?;
        draft.write(report.tail().as_bytes())?;
        let message = post::keep(draft)?;
        station::reported(self.original.envelope().id, self.to.mailbox, recipients, id);
        Ok(message)
    }

    fn report<'a>(
        &'a self,
        id: QueueId,
        now: Duration,
        recipients: &[Reported<'a>],
        enclosure: &Enclosure,
    ) -> Report<'a> {
        let envelope = self.original.envelope();
        let date = |seconds| clock::date_field(seconds).to_string();
        let time_left = self.settings.queue.expire.saturating_sub(self.age);
        Report {
            id: id.to_string(),
            // 64 random bits: nobody can write a message that holds this (RFC 2046 §5.1.1).
            boundary: format!("=_{id}_{:016x}", random::number()),
            original_id: envelope.id.to_string(),
            reporting_host: self.settings.server.hostname.to_string(),
            to: self.to.mailbox,
            reader: self.to.reader,
            date: date(now.as_secs()),
            arrival_date: date(envelope.received_at),
            waited_seconds: self.age.as_secs(),
            will_retry_until: date(now.saturating_add(time_left).as_secs()),
            envelope_id: self.asked().and_then(|asked| asked.envelope_id.as_ref()),
            recipients: recipients.iter().map(reported_recipient).collect(),
            returned: enclosure.kind,
            is_eight_bit: enclosure.is_eight_bit,
        }
    }

    /// What the envelope asks about reports. It is not for the owner of a list, to whom the
    /// message is another one (RFC 3461 §5.2.7.1 (b)).
    fn asked(&self) -> Option<&MessageRequest> {
        (self.to.reader != Reader::Owner).then(|| &self.original.envelope().request)
    }

    fn enclosure(&self, recipients: &[Reported<'_>]) -> Enclosure {
        let has_failed = recipients.iter().any(|reported| reported.action == Action::Failed);
        let ret = self.asked().and_then(|asked| asked.ret);
        let wants_all = has_failed && ret != Some(Return::Headers);
        Enclosure::of(self.settings, self.original, wants_all)
    }
}

fn reported_recipient<'a>(reported: &Reported<'a>) -> ReportedRecipient<'a> {
    let Reported { state, action } = *reported;
    let last = state.last_try.as_ref();
    let last_status = last.map(|last| last.status);
    let is_expired = action == Action::Failed && !last_status.is_some_and(Status::is_permanent);
    let status = match action {
        Action::Failed if is_expired => expired_status(last_status),
        Action::Failed | Action::Delayed => last_status.unwrap_or(RESTS),
        Action::Delivered | Action::Expanded => DELIVERED,
        Action::Relayed => RELAYED,
    };
    let never_tried = "its host could not be reached for other mail, and so was left alone";
    ReportedRecipient {
        mailbox: &state.mailbox,
        original: state.request.original.as_ref(),
        action,
        status,
        is_expired,
        text: last.map_or(never_tried, |last| &last.text),
        remote: last.and_then(|last| Some((last.host.as_deref()?, last.text.as_str()))),
        last_attempt: last.map(|last| clock::date_field(last.at).to_string()),
    }
}

/// What of a message goes back with the report.
struct Enclosure {
    kind: Returned,
    is_eight_bit: bool,
    /// The header section; nothing where the whole message goes back.
    header: Vec<u8>,
}

impl Enclosure {
    /// RFC 3461 §4.3: RET is about failures, and everything else comes with the header. Where
    /// nothing was asked, a message goes back whole if `[queue] bounce_size` allows it, and a digest
    /// in any case.
    fn of(settings: &Settings, original: &StoredMessage, wants_all: bool) -> Self {
        let is_small = original.size_octets() <= settings.queue.bounce_size;
        let kind = match is_small || is_digest(original) {
            _ if !wants_all => Returned::Headers,
            true => Returned::Message,
            false => Returned::HeadersOfLarge,
        };
        if kind == Returned::Message {
            match original.is_ascii() {
                Ok(is_ascii) => return Self { kind, is_eight_bit: !is_ascii, header: Vec::new() },
                Err(error) => say_unreadable(original, &error),
            }
        }
        let kind = if kind == Returned::Message { Returned::Headers } else { kind };
        let mut start = Vec::new();
        if let Err(error) = original.reader().take(MAX_HEADER).read_to_end(&mut start) {
            say_unreadable(original, &error);
        }
        let header = dsn::header_section(&start).to_vec();
        Self { kind, is_eight_bit: !header.is_ascii(), header }
    }

    fn write_to(&self, draft: &mut Draft, original: &StoredMessage) -> io::Result<()> {
        if self.kind != Returned::Message {
            return draft.write(&self.header);
        }
        original.each_block(|block| draft.write(block))
    }
}

/// Whether a message is all that is left of others.
fn is_digest(message: &StoredMessage) -> bool {
    message.envelope().client == post::DIGEST
}

/// The sender must hear of its message all the same.
fn say_unreadable(original: &StoredMessage, error: &io::Error) {
    log::error!("{}: cannot be read for the report: {error}", original.envelope().id);
}
