//! A flood of messages becomes one: what goes through a smarthost from one sender of this host to
//! one recipient, and comes on top of what may go by itself (see [`Digests`]), stays in the spool,
//! each message as it is, until it goes out as one. What is never gathered ([`may_be_gathered`])
//! does not count either.
//!
//! That one is stored and flushed first. Only then are the recipients of the others recorded as
//! done, so that a crash in between sends some twice, and loses none.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{DISK_PAUSE, Manager};
use crate::config::settings::Settings;
use crate::deliver::job::Recipient;
use crate::mail::address::{DomainName, Mailbox, ReversePath};
use crate::mail::digest::{Digest, Entry, may_be_gathered};
use crate::mail::dsn::Action;
use crate::mail::dsn_request::{MessageRequest, RecipientRequest};
use crate::report::complaint::Complaint;
use crate::report::station;
use crate::route::next_hop::NextHop;
use crate::spool::digest::{Batch, Digests, Pair, Turn};
use crate::spool::envelope::{self, Body, Envelope};
use crate::spool::id::QueueId;
use crate::spool::message::StoredMessage;
use crate::spool::post::DIGEST;
use crate::spool::progress::{Progress, State};
use crate::spool::round::{Group, Round};
use crate::sys::{clock, random};

/// How much of a message is searched for its header, in octets.
const MAX_HEADER: u64 = 64 << 10;

static DIGEST_FAILS_TOLD: Complaint = Complaint::new();

/// A message that goes into a digest, under its lock.
struct Part {
    message: StoredMessage,
    progress: Progress,
    /// Which of its recipients it is that the digest goes to.
    index: usize,
    entry: Entry,
    is_eight_bit: bool,
}

impl Part {
    fn request(&self) -> Option<&RecipientRequest> {
        Some(&self.progress.recipients.get(self.index)?.request)
    }
}

impl Digests {
    /// Takes those out of a group of recipients who get the message together with others, and has
    /// them wait.
    pub(super) fn gather_from(
        &mut self,
        group: &mut Group,
        round: &mut Round,
        settings: &Settings,
        now: Instant,
    ) {
        let message = Arc::clone(&round.message);
        let envelope = message.envelope();
        let is_meant = matches!(group.next_hop, NextHop::Smarthost(_)) && envelope.client != DIGEST;
        let sender = group.sender.as_ref().or(envelope.reverse_path.mailbox());
        let is_ours =
            |sender: &&Mailbox| envelope.is_of_an_account() || is_of_this_host(sender, settings);
        let Some(sender) = sender.filter(is_ours).filter(|_| is_meant && self.are_wanted()) else {
            return;
        };
        if !header_of(&message).is_ok_and(|header| may_be_gathered(&header)) {
            return;
        }
        let is_urgent = round.is_urgent;
        group.recipients.retain(|to| {
            let pair = Pair { sender: sender.clone(), recipient: to.mailbox.clone() };
            match self.wait_of(to, &pair, &message, is_urgent, now) {
                Some(until) => round.gather(to, until, now),
                None => return true,
            }
            false
        });
    }

    /// Until when a recipient waits for others of its kind, if it does.
    fn wait_of(
        &mut self,
        to: &Recipient,
        pair: &Pair,
        message: &StoredMessage,
        is_urgent: bool,
        now: Instant,
    ) -> Option<Instant> {
        let id = message.envelope().id;
        if is_urgent {
            self.let_alone(pair, id);
            return None;
        }
        // Nobody could tell when a part of a digest has arrived.
        if to.request.wants(Action::Delivered) {
            return None;
        }
        match self.ask(pair, id, now) {
            Turn::Alone => return None,
            Turn::Gathered(until) => return Some(until),
            Turn::Exceeded => {}
        }
        let (until, is_first) = self.gather(pair, id, message.size_octets())?;
        if is_first {
            let (from, to) = (&pair.sender, &pair.recipient);
            let wait = until.saturating_duration_since(now).as_secs();
            log::warn!(
                "{id}: many messages from=<{from}> to=<{to}>: this one and more of them wait {wait} s, \
                 to go out as one"
            );
        }
        Some(until)
    }
}

impl Manager {
    /// Sends what has been gathered for long enough.
    pub(super) fn send_digests(&mut self) {
        while let Some(batch) = self.digests.take_due(Instant::now()) {
            let parts: Vec<_> =
                batch.messages.iter().filter_map(|(id, _)| self.part(*id, &batch.pair)).collect();
            match &parts[..] {
                [] => {}
                [only] => {
                    // The others were sent or removed by hand.
                    let id = only.message.envelope().id;
                    self.digests.let_alone(&batch.pair, id);
                    self.schedule.insert(id, Instant::now());
                }
                _ => self.send_digest(batch, parts),
            }
        }
    }

    fn send_digest(&mut self, batch: Batch, parts: Vec<Part>) {
        match self.write_digest(&batch.pair, &parts) {
            Ok(digest) => {
                let id = digest.envelope().id;
                parts.into_iter().for_each(|part| self.end_part(part, id));
                self.arrive(digest);
            }
            Err(error) => {
                DIGEST_FAILS_TOLD.error(format_args!(
                    "spool: a digest cannot be written, tried again later: {error}"
                ));
                self.digests.put_off(batch, Instant::now() + DISK_PAUSE);
            }
        }
    }

    /// Opens a message that was gathered, unless something else becomes of it: it is being tried,
    /// held, returned or gone, or cannot be read.
    fn part(&self, id: QueueId, pair: &Pair) -> Option<Part> {
        if self.rounds.contains_key(&id) || !self.schedule.contains(id) {
            return None;
        }
        let (message, recorded) = self.spool.load(id).ok()?;
        let untouched = || Progress::new(message.envelope());
        let progress = self.newest(id, recorded).unwrap_or_else(untouched);
        if progress.held.is_some() || progress.given_up_by.is_some() {
            return None;
        }
        let envelope = message.envelope();
        let index = progress.recipients.iter().position(|it| {
            let sender = it.sender.as_ref().or(envelope.reverse_path.mailbox());
            it.is_open() && it.mailbox == pair.recipient && sender == Some(&pair.sender)
        })?;
        let is_eight_bit = !message.is_ascii().ok()?;
        let arrival_date = clock::date_field(envelope.received_at).to_string();
        let entry = Entry::of(&header_of(&message).ok()?, &arrival_date);
        Some(Part { message, progress, index, entry, is_eight_bit })
    }

    /// Writes a digest into the spool.
    fn write_digest(&self, pair: &Pair, parts: &[Part]) -> io::Result<StoredMessage> {
        let now = clock::since_1970();
        let id = self.spool.new_id(now);
        let digest = Digest {
            id: id.to_string(),
            // 64 random bits: nobody can write a message that holds this (RFC 2046 §5.1.1).
            boundary: format!("=_{id}_{:016x}", random::number()),
            host: self.settings.server.hostname.to_string(),
            from: &pair.sender,
            to: &pair.recipient,
            date: clock::date_field(now.as_secs()).to_string(),
            entries: parts.iter().map(|part| part.entry.clone()).collect(),
            is_eight_bit: parts.iter().any(|part| part.is_eight_bit),
        };
        let mut draft = self.spool.draft(Envelope {
            id,
            received_at: now.as_secs(),
            client: DIGEST.into(),
            reverse_path: ReversePath::Mailbox(pair.sender.clone()),
            recipients: vec![envelope::Recipient {
                mailbox: pair.recipient.clone(),
                request: asked(parts),
            }],
            body: if digest.is_eight_bit { Body::EightBitMime } else { Body::SevenBit },
            request: MessageRequest::default(),
        });
        draft.write(digest.head().as_bytes())?;
        for Part { message, is_eight_bit, .. } in parts {
            draft.write(digest.before(*is_eight_bit).as_bytes())?;
            message.each_block(|block| draft.write(block))?;
        }
        draft.write(digest.tail().as_bytes())?;
        let (_, message) = draft.commit()?;
        station::received(&message, DIGEST, None, Duration::ZERO);
        Ok(message)
    }

    /// Records that a message went out in a digest, or removes it, if nothing else is to be done.
    fn end_part(&mut self, part: Part, digest: QueueId) {
        let Part { message, mut progress, index, .. } = part;
        let id = message.envelope().id;
        let Some(recipient) = progress.recipients.get_mut(index) else { return };
        station::gathered(id, recipient, digest);
        (recipient.state, recipient.gathered_until) = (State::Done, None);
        if !progress.is_settled() {
            return self.record(id, progress);
        }
        self.schedule.remove(id);
        let removed = self.spool.remove(id, true);
        self.note_removal(id, progress, removed);
    }
}

/// Whether an address is one of this host, also where programs have put its name for the domain.
fn is_of_this_host(mailbox: &Mailbox, settings: &Settings) -> bool {
    let server = &settings.server;
    let is_name = |name: &DomainName| *name == server.hostname || !name.as_str().contains('.');
    server.domains.contains(mailbox.domain()) || mailbox.domain().name().is_some_and(is_name)
}

/// What is asked about a digest: nothing, unless nobody wants to hear of any of its messages.
fn asked(parts: &[Part]) -> RecipientRequest {
    let is_silent = |it: &RecipientRequest| !it.wants(Action::Failed) && !it.wants(Action::Delayed);
    let are_silent = parts.iter().all(|part| part.request().is_some_and(is_silent));
    let first = parts.first().and_then(Part::request).filter(|_| are_silent);
    RecipientRequest { notify: first.and_then(|it| it.notify), original: None }
}

/// The beginning of a message, with its header section.
fn header_of(message: &StoredMessage) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    message.reader().take(MAX_HEADER).read_to_end(&mut header)?;
    Ok(header)
}
