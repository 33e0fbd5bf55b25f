//! One round of tries for a message: from the moment it is opened until each recipient was tried,
//! or left alone because its destination rests or it waits for others of its kind
//! ([`crate::spool::digest`]). Recipients that stand for others, as aliases do, are replaced by
//! them on the way.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::deliver::dispatch::Rest;
use crate::deliver::job::{Job, Recipient};
use crate::deliver::outcome::{Failure, Fault, Outcome};
use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::dsn::Action;
use crate::mail::status::Status;
use crate::report::notification::{Reported, expired_status};
use crate::report::station;
use crate::route::addressee::Expansion;
use crate::route::next_hop::NextHop;
use crate::spool::claim::Claim;
use crate::spool::expansion::{self, AliasEnd, Behind};
use crate::spool::lanes::Lane;
use crate::spool::message::StoredMessage;
use crate::spool::progress::{Known, Progress, RecipientState, State, Try};
use crate::spool::schedule::{self, Event};
use crate::sys::clock;

/// The most recipients of a message with all that aliases add.
const MAX_RECIPIENTS: usize = 100_000;

/// How much older a message gets before a record is replaced that does not say when its age
/// was noted.
const AGE_STEP: Duration = Duration::from_secs(3600);

/// By how many seconds a moment that was noted may differ from the same moment noted again.
const MAX_CLOCK_ERROR: u64 = 2;

/// The most recipients that one report names; the others come in the next one. Of those that
/// are late the others are not named.
const MAX_REPORTED: usize = 1000;

/// RFC 3463 §3.3: mailing list expansion problem.
const TOO_MANY: Status = Status::new(5, 2, 4);
/// RFC 3463 §3.4: other or undefined mail system status. It is this system's decision, and no
/// code tells of a person's.
const GIVEN_UP: Status = Status::new(5, 3, 0);

/// Whether the message of a round is in the spool.
#[derive(Debug)]
pub(super) enum Standing {
    /// It is: its client may be told 250, and what becomes of it is recorded.
    Stored,
    /// It is not, and its session waits to hear whether it must be.
    Offered(Arc<Claim>),
    /// It is not yet, but its session is about to store it.
    Awaited,
    /// It never will be: its client is told that it was not taken.
    Withdrawn,
}

/// How long to wait before the next try.
#[derive(Debug)]
pub(super) struct Pauses<'a> {
    /// After the first, second, … try.
    pub(super) retry: &'a [Duration],
    /// For want of a network, at the latest.
    pub(super) network: Duration,
}

/// Recipients who share a next hop and a sender.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) next_hop: NextHop,
    /// Where it is not the envelope's.
    pub(super) sender: Option<Mailbox>,
    pub(super) recipients: Vec<Recipient>,
}

/// A message of which something is being tried.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) message: Arc<StoredMessage>,
    pub(super) progress: Progress,
    pub(super) lane: Lane,
    pub(super) standing: Standing,
    /// Whether there is a record of it on disk.
    pub(super) has_record: bool,
    /// Whether the progress holds what that record does not.
    pub(super) is_changed: bool,
    /// Whether recipients were left for when the relay lane has a place.
    pub(super) is_postponed: bool,
    /// Whether it is to be tried even where its destination rests.
    pub(super) is_urgent: bool,
    /// Whether somebody wanted everything tried while this was under way: if it does not get through,
    /// it is tried once more.
    pub(super) is_wanted_again: bool,
    /// Jobs made and not reported yet.
    running: usize,
    /// Recipients that were looked at in this round; aliases add some behind.
    launched: usize,
    /// Whether anybody was tried in this round.
    was_tried: bool,
    /// Whom the progress names, once an alias was found.
    known: Option<Known>,
    /// Whether anybody waits for a network.
    waits_for_network: bool,
    /// Whether anybody waits for another password.
    waits_for_login: bool,
    /// Those whom nobody tried since the start, nor their destination: they do not expire.
    untried: HashSet<usize>,
    /// The end of the rest of a destination that was left alone.
    rest_until: Option<Instant>,
    /// When the first of those goes out who wait to do so with others.
    gathered_until: Option<Instant>,
    began: Instant,
}

impl Round {
    /// A round for a message that is in the spool.
    pub(super) fn new(message: Arc<StoredMessage>, progress: Progress, lane: Lane) -> Self {
        Self {
            message,
            progress,
            lane,
            standing: Standing::Stored,
            has_record: false,
            is_changed: false,
            is_postponed: false,
            is_urgent: false,
            is_wanted_again: false,
            running: 0,
            launched: 0,
            was_tried: false,
            known: None,
            waits_for_network: false,
            waits_for_login: false,
            untried: HashSet::new(),
            rest_until: None,
            gathered_until: None,
            began: Instant::now(),
        }
    }

    /// Whether there are recipients that were not looked at yet.
    pub(super) fn has_new(&self) -> bool {
        self.launched < self.progress.recipients.len()
    }

    /// Those of them who are to be tried.
    pub(super) fn new_pending(&self) -> impl Iterator<Item = &RecipientState> {
        let new = self.progress.recipients.iter().skip(self.launched);
        new.filter(|it| it.state == State::Pending)
    }

    /// Whether the message is in the spool.
    pub(super) const fn is_stored(&self) -> bool {
        matches!(self.standing, Standing::Stored)
    }

    /// Whether every recipient has the message, so that nothing is left to do or to say.
    pub(super) fn is_delivered(&self) -> bool {
        self.progress.is_settled()
    }

    /// Whether nothing is under way.
    pub(super) const fn is_idle(&self) -> bool {
        self.running == 0
    }

    /// Whether what has happened so far must be on disk before the rest is done. An alias
    /// whose mailboxes are here is looked up again after a crash, at no cost, unless it stands
    /// for one of its own besides.
    pub(super) fn must_not_be_forgotten(&self) -> bool {
        let ended = |state| self.progress.recipients.iter().any(|it| it.state == state);
        self.is_changed
            && (ended(State::Done) || (self.lane == Lane::Relay && ended(State::Expanded)))
    }

    /// The recipients not looked at yet, by next hop and sender. Each command stands alone: it may
    /// take its time, and what has run is on record before the next one has.
    pub(super) fn next_groups(
        &mut self,
        next_hop: impl Fn(&RecipientState) -> NextHop,
    ) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut places: HashMap<(NextHop, Option<Mailbox>), usize> = HashMap::new();
        if self.progress.given_up_by.is_some() {
            self.launched = self.progress.recipients.len();
        }
        let new = self.progress.recipients.iter().enumerate().skip(self.launched);
        for (index, recipient) in new.filter(|(_, recipient)| recipient.is_open()) {
            let next_hop = next_hop(recipient);
            let RecipientState { mailbox, way, sender, request, .. } = recipient.clone();
            let recipient = Recipient { index, mailbox, way, request };
            if next_hop == NextHop::Command {
                groups.push(Group { next_hop, sender, recipients: vec![recipient] });
                continue;
            }
            match places.entry((next_hop, sender)) {
                Entry::Occupied(place) => groups[*place.get()].recipients.push(recipient),
                Entry::Vacant(place) => {
                    let (next_hop, sender) = place.key().clone();
                    groups.push(Group { next_hop, sender, recipients: vec![recipient] });
                    place.insert(groups.len() - 1);
                }
            }
        }
        self.launched = self.progress.recipients.len();
        groups
    }

    /// A job for recipients of this message, which counts as under way from now on.
    pub(super) fn job(&mut self, group: Group) -> Job {
        let Group { next_hop, sender, recipients } = group;
        self.running += 1;
        for Recipient { index, .. } in &recipients {
            let noted = self.progress.recipients.get_mut(*index);
            let was_gathered = noted.and_then(|it| it.gathered_until.take()).is_some();
            self.is_changed |= was_gathered;
        }
        let reverse_path = match sender {
            Some(owner) => ReversePath::Mailbox(owner),
            None => self.message.envelope().reverse_path.clone(),
        };
        Job { message: Arc::clone(&self.message), reverse_path, recipients, next_hop }
    }

    /// Leaves recipients alone until their destination has rested.
    pub(super) fn rest(&mut self, rest: &Rest, recipients: &[Recipient]) {
        self.rest_until = self.rest_until.max(Some(rest.until));
        if rest.is_for_network {
            self.waits_for_network = true;
            self.untried.extend(recipients.iter().map(|recipient| recipient.index));
        }
        if let Some(failure) = &rest.refused_login {
            self.waits_for_login = true;
            recipients.iter().for_each(|recipient| self.note_reason(recipient.index, failure));
        }
    }

    /// Notes why somebody waits who was not tried himself, unless that is known: a login may be
    /// refused for long, and whoever looks at the queue should see it.
    fn note_reason(&mut self, index: usize, failure: &Failure) {
        let last = self.progress.recipients.get(index).map(|recipient| &recipient.last_try);
        let is_known = last.is_some_and(|last| {
            last.as_ref().is_some_and(|last| last.status == failure.status && last.host.is_none())
        });
        if !is_known {
            self.is_changed = true;
            self.progress.note_try(index, tried(failure.clone()));
        }
    }

    /// Leaves recipients alone until the relay lane has a place.
    pub(super) fn postpone(&mut self, recipients: &[Recipient]) {
        self.is_postponed = true;
        self.untried.extend(recipients.iter().map(|recipient| recipient.index));
    }

    /// Leaves a recipient alone until what waits with it goes out as one message.
    pub(super) fn gather(&mut self, recipient: &Recipient, until: Instant, now: Instant) {
        let first = self.gathered_until.map_or(until, |first| first.min(until));
        self.gathered_until = Some(first);
        self.untried.insert(recipient.index);
        let Some(noted) = self.progress.recipients.get_mut(recipient.index) else { return };
        let wait = until.saturating_duration_since(now).as_secs();
        let at = clock::since_1970().as_secs().saturating_add(wait);
        // What differs by the time that it takes to say so is the same.
        if noted.gathered_until.is_none_or(|noted| noted.abs_diff(at) > MAX_CLOCK_ERROR) {
            (noted.gathered_until, self.is_changed) = (Some(at), true);
        }
    }

    /// Whether anybody is left who does not wait for others of the same kind.
    fn has_one_to_try(&self) -> bool {
        let waits_for_try = |it: &RecipientState| it.is_open() && it.gathered_until.is_none();
        self.progress.recipients.iter().any(waits_for_try)
    }

    /// Whether it is tried again at once.
    pub(super) fn has_another_try(&self) -> bool {
        self.is_wanted_again && self.has_one_to_try()
    }

    /// What may end the wait of somebody before its time.
    pub(super) const fn awaits(&self) -> Option<Event> {
        match (self.waits_for_network, self.waits_for_login) {
            (true, _) => Some(Event::Network),
            (false, true) => Some(Event::Login),
            (false, false) => None,
        }
    }

    /// Notes that a job came back untried.
    pub(super) fn put_back(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// Notes what came of a job.
    pub(super) fn take(&mut self, outcomes: Vec<(usize, Outcome)>) {
        self.running = self.running.saturating_sub(1);
        self.is_changed = true;
        let (id, took) = (self.message.envelope().id, self.began.elapsed());
        for (index, outcome) in outcomes {
            let total = self.progress.recipients.len();
            let Some(recipient) = self.progress.recipients.get_mut(index) else { continue };
            let outcome = within_bounds(outcome, total);
            station::outcome(id, recipient, &outcome, took);
            match &outcome {
                Outcome::Deferred(failure) if failure.fault == Fault::Network => {
                    self.waits_for_network = true;
                    self.untried.insert(index);
                }
                Outcome::Deferred(failure) if matches!(failure.fault, Fault::Login(_)) => {
                    (self.waits_for_login, self.was_tried) = (true, true);
                }
                _ => self.was_tried = true,
            }
            match outcome {
                Outcome::Delivered { place } => self.end_well(index, State::Done, None, place),
                // RFC 3461 §5.2.1: a host that knows what was asked reports itself.
                Outcome::Relayed { knows_dsn: true, .. } => recipient.state = State::Done,
                // RFC 3461 §5.2.2 (b).
                Outcome::Relayed { remote, reply, knows_dsn: false, .. } => {
                    self.end_well(index, State::Done, Some(remote), reply);
                }
                Outcome::Deferred(failure) => self.progress.note_try(index, tried(failure)),
                Outcome::Failed(failure) => {
                    self.progress.note_try(index, tried(failure));
                    self.give_up(index);
                }
                Outcome::Expanded(expansion) => self.expand(index, expansion),
            }
        }
    }

    /// Puts what an alias stands for into its place, and has what was asked about it go on as
    /// [`expansion`](super::expansion) says.
    fn expand(&mut self, index: usize, expansion: Expansion) {
        let mut known = self.known.take().unwrap_or_else(|| self.progress.known());
        let Some(alias) = self.progress.recipients.get(index) else { return };
        let is_from_null = self.is_from_null(alias);
        let Behind { end, recipients } = expansion::behind(alias, expansion, is_from_null, &known);
        match end {
            AliasEnd::Replaced => self.progress.recipients[index].state = State::Expanded,
            AliasEnd::Several => self.end_well(index, State::Expanded, None, "expanded".into()),
            AliasEnd::List => self.end_well(index, State::Done, None, "taken by the list".into()),
        }
        self.progress.expand(recipients, &mut known);
        self.known = Some(known);
    }

    /// Notes that a recipient has what was sent; its sender hears of that if it wants to.
    fn end_well(&mut self, index: usize, state: State, host: Option<String>, text: String) {
        let Some(recipient) = self.progress.recipients.get(index) else { return };
        let is_from_null = self.is_from_null(recipient);
        let Some(recipient) = self.progress.recipients.get_mut(index) else { return };
        recipient.state = state;
        // It does not matter which of the three it is: one keyword stands for them all.
        if recipient.request.wants(Action::Delivered) && !is_from_null {
            recipient.is_report_owed = true;
            let at = clock::since_1970().as_secs();
            recipient.last_try = Some(Try { at, status: Status::new(2, 0, 0), host, text });
        }
    }

    /// Notes that a recipient failed for good; its sender hears of that unless it does not
    /// want to.
    fn give_up(&mut self, index: usize) {
        let Some(recipient) = self.progress.recipients.get_mut(index) else { return };
        self.is_changed = true;
        match recipient.request.wants(Action::Failed) {
            true => recipient.is_report_owed = true,
            false => recipient.state = State::Failed,
        }
    }

    /// Whether nobody sends it to this recipient.
    fn is_from_null(&self, recipient: &RecipientState) -> bool {
        recipient.sender.is_none() && self.message.envelope().reverse_path == ReversePath::Null
    }

    /// Gives up on everybody who is still to be tried and was, or is where others were.
    pub(super) fn expire(&mut self) {
        let untried = std::mem::take(&mut self.untried);
        self.fail_open(|index| !untried.contains(&index), expired_status, "not delivered in time");
        self.untried = untried;
    }

    /// Gives up on everybody who is still to be tried, if a person wants that.
    pub(super) fn give_up_as_told(&mut self) {
        if self.progress.given_up_by.is_some() {
            let why = "The administrator of this server gave it up";
            // The report speaks of the decision, where one on expiry speaks of the last try.
            for (index, failure) in self.fail_open(|_| true, |_| GIVEN_UP, why) {
                self.progress.note_try(index, tried(failure));
            }
        }
    }

    /// Gives up on those still to be tried who are meant by their place, and gives the failures.
    fn fail_open(
        &mut self,
        is_meant: impl Fn(usize) -> bool,
        status: impl Fn(Option<Status>) -> Status,
        why: &str,
    ) -> Vec<(usize, Failure)> {
        let mut failures = Vec::new();
        let (id, took) = (self.message.envelope().id, self.began.elapsed());
        for index in 0..self.progress.recipients.len() {
            let recipient = &self.progress.recipients[index];
            if !recipient.is_open() || !is_meant(index) {
                continue;
            }
            let text = match recipient.last_reply() {
                "" => why.to_owned(),
                reply => format!("{why}; the last try said: {reply}"),
            };
            let status = status(recipient.last_try.as_ref().map(|last| last.status));
            let failure = Failure::new(status, text);
            let outcome = Outcome::Failed(failure.clone());
            station::outcome(id, recipient, &outcome, took);
            failures.push((index, failure));
            self.give_up(index);
        }
        failures
    }

    /// Whom the next report is about, by their places: those whose end is decided, as many as
    /// one report names, and with `is_late` those who go on being tried. They all have one sender,
    /// who is among those that `can_hear`.
    pub(super) fn to_report(
        &self,
        is_late: bool,
        can_hear: impl Fn(Option<&Mailbox>) -> bool,
    ) -> Vec<usize> {
        let is_due =
            |it: &RecipientState| it.is_report_owed || (is_late && self.is_to_be_warned_of(it));
        let recipients = self.progress.recipients.iter().enumerate();
        let mut due = recipients.filter(|(_, it)| is_due(it) && can_hear(it.sender.as_ref()));
        let Some((first, told)) = due.next() else { return Vec::new() };
        let others = due.filter(|(_, it)| it.sender == told.sender).map(|(index, _)| index);
        iter::once(first).chain(others).take(MAX_REPORTED).collect()
    }

    /// Who sends the message to the recipient at a place, where that is not the envelope's sender.
    pub(super) fn sender_to(&self, index: usize) -> Option<&Mailbox> {
        self.progress.recipients.get(index)?.sender.as_ref()
    }

    /// What the report says of the recipient at a place.
    pub(super) fn reported(&self, index: usize) -> Option<Reported<'_>> {
        let recipient = self.progress.recipients.get(index)?;
        let is_ended = recipient.is_report_owed;
        Some(if is_ended { Reported::ended(recipient) } else { Reported::late(recipient) })
    }

    /// Notes that a report on those at these places is in the spool.
    pub(super) fn mark_reported(&mut self, indices: &[usize]) {
        self.is_changed |= !indices.is_empty();
        for index in indices {
            let Some(recipient) = self.progress.recipients.get_mut(*index) else { continue };
            if !recipient.is_report_owed {
                let sender = recipient.sender.clone();
                self.progress.note_warned(sender.as_ref());
                continue;
            }
            if recipient.state == State::Pending {
                recipient.state = State::Failed;
            }
            recipient.is_report_owed = false;
        }
    }

    /// Whether a sender can be told that the message is late: once, if it wants to hear it.
    pub(super) fn could_be_warned_of(&self) -> bool {
        self.progress.recipients.iter().any(|it| self.is_to_be_warned_of(it))
    }

    fn is_to_be_warned_of(&self, recipient: &RecipientState) -> bool {
        recipient.is_open()
            && recipient.gathered_until.is_none()
            && recipient.request.wants(Action::Delayed)
            && !self.is_from_null(recipient)
            && !self.progress.is_warned(recipient.sender.as_ref())
    }

    /// When to look at it again: by the schedule of pauses, or when a destination's rest ends,
    /// but not after `latest`. Noted in the progress, too.
    pub(super) fn next_try(
        &mut self,
        pauses: &Pauses<'_>,
        now: Instant,
        latest: Option<Instant>,
    ) -> Instant {
        let attempts = self.progress.attempts as usize;
        let retry = pauses.retry;
        let pause = retry.get(attempts).or(retry.last()).copied().unwrap_or_default();
        let seed = self.message.envelope().id.number() ^ u64::from(self.progress.attempts);
        let by_schedule = schedule::after(now, schedule::spread(pause, seed));
        // One message probes the destination when its rest ends; what comes a little later
        // finds it awake or resting again, and is opened only once.
        let rested = self.rest_until.map(|until| {
            let rest = until.saturating_duration_since(now);
            schedule::after(until, schedule::delay(rest, seed))
        });
        let due = match rested {
            Some(rested) if !self.was_tried => rested,
            Some(rested) => rested.min(by_schedule),
            None if self.waits_for_network => schedule::after(now, pauses.network).min(by_schedule),
            None => by_schedule,
        };
        let due = match self.gathered_until {
            Some(until) if self.has_one_to_try() => due.min(until),
            Some(until) => until,
            None => due,
        };
        let due = latest.map_or(due, |latest| due.min(latest));
        self.progress.attempts = self.progress.attempts.saturating_add(self.was_tried.into());
        let pause = due.saturating_duration_since(now);
        self.progress.next_try = clock::since_1970().as_secs().saturating_add(pause.as_secs());
        due
    }

    /// Notes how old the message is at that moment of the spool, for the next process. A
    /// record that says when it was noted stays right while time goes on; any other is
    /// replaced now and then.
    pub(super) fn note_age(&mut self, age: Duration, now: u64) {
        let recorded = Duration::from_secs(self.progress.waited);
        self.is_changed |= self.progress.noted.is_none() && age > recorded.saturating_add(AGE_STEP);
        (self.progress.waited, self.progress.noted) = (age.as_secs(), Some(now));
    }
}

/// A failure as the record keeps it.
fn tried(failure: Failure) -> Try {
    let (host, text) = match failure.remote {
        Some(remote) => (Some(remote.host), remote.reply),
        None => (None, failure.text),
    };
    Try { at: clock::since_1970().as_secs(), status: failure.status, host, text }
}

/// The outcome, or a failure where an alias would bring too many recipients.
fn within_bounds(outcome: Outcome, recipients: usize) -> Outcome {
    match &outcome {
        Outcome::Expanded(expansion) if expansion.into.len() + recipients > MAX_RECIPIENTS => {
            let text = format!("its aliases bring more than {MAX_RECIPIENTS} recipients");
            Failure::new(TOO_MANY, text).into_outcome()
        }
        _ => outcome,
    }
}
