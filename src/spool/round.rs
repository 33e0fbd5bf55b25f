//! One round of tries for a message: from the moment it is opened until each recipient was
//! tried, or left alone because its destination rests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::deliver::job::{Job, Recipient};
use crate::deliver::outcome::{Failure, Outcome};
use crate::mail::address::Mailbox;
use crate::mail::status::Status;
use crate::report::station;
use crate::route::next_hop::NextHop;
use crate::spool::envelope;
use crate::spool::lanes::Lane;
use crate::spool::message::StoredMessage;
use crate::spool::progress::{Progress, RecipientState, State, Try};
use crate::spool::schedule;
use crate::sys::clock;

/// The most recipients of a message with all that aliases add.
const MAX_RECIPIENTS: usize = 100_000;
/// How much older a message may get before that is recorded.
const AGE_STEP: Duration = Duration::from_secs(3600);

/// RFC 3463 §3.3: mailing list expansion problem.
const TOO_MANY: Status = Status::new(5, 2, 4);
/// RFC 3463 §3.5: delivery time expired.
const EXPIRED: Status = Status::new(5, 4, 7);
/// RFC 3463 §3.4: other or undefined mail system status. It is this system's decision, and no
/// code tells of a person's.
const GIVEN_UP: Status = Status::new(5, 3, 0);

/// A message of which something is being tried.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) message: Arc<StoredMessage>,
    pub(super) progress: Progress,
    pub(super) lane: Lane,
    /// Whether there is a record of it on disk.
    pub(super) has_record: bool,
    /// Whether the progress holds what that record does not.
    pub(super) is_changed: bool,
    /// Whether recipients were left for when the relay lane has a place.
    pub(super) is_postponed: bool,
    /// Whether it is to be tried even where its destination rests.
    pub(super) is_urgent: bool,
    /// Jobs made and not reported yet.
    running: usize,
    /// Recipients that were looked at in this round; aliases add some behind.
    launched: usize,
    /// Whether anybody was tried in this round.
    was_tried: bool,
    /// The end of the rest of a destination that was left alone.
    rest_until: Option<Instant>,
    failures: Vec<(usize, Failure)>,
    began: Instant,
}

impl Round {
    pub(super) fn new(message: StoredMessage, progress: Progress, lane: Lane) -> Self {
        Self {
            message: Arc::new(message),
            progress,
            lane,
            has_record: false,
            is_changed: false,
            is_postponed: false,
            is_urgent: false,
            running: 0,
            launched: 0,
            was_tried: false,
            rest_until: None,
            failures: Vec::new(),
            began: Instant::now(),
        }
    }

    /// Whether there are recipients that were not looked at yet.
    pub(super) fn has_new(&self) -> bool {
        self.launched < self.progress.recipients.len()
    }

    /// Whether nothing is under way.
    pub(super) const fn is_idle(&self) -> bool {
        self.running == 0
    }

    /// Whether what has happened so far must be on disk before the rest is done. An alias
    /// whose mailboxes are here is looked up again after a crash, at no cost.
    pub(super) fn must_not_be_forgotten(&self) -> bool {
        let ended = |state| self.progress.recipients.iter().any(|it| it.state == state);
        self.is_changed
            && (ended(State::Done) || (self.lane == Lane::Relay && ended(State::Expanded)))
    }

    /// The recipients not looked at yet, by next hop.
    pub(super) fn next_groups(
        &mut self,
        next_hop: impl Fn(&Mailbox) -> NextHop,
    ) -> Vec<(NextHop, Vec<Recipient>)> {
        let mut groups: Vec<(NextHop, Vec<Recipient>)> = Vec::new();
        if self.progress.given_up_by.is_some() {
            self.launched = self.progress.recipients.len();
        }
        let new = self.progress.recipients.iter().enumerate().skip(self.launched);
        for (index, recipient) in new.filter(|(_, recipient)| recipient.state == State::Pending) {
            let next_hop = next_hop(&recipient.mailbox);
            let RecipientState { mailbox, request, .. } = recipient;
            let (mailbox, request) = (mailbox.clone(), request.clone());
            let recipient = Recipient { index, mailbox, request };
            match groups.iter_mut().find(|(known, _)| *known == next_hop) {
                Some((_, group)) => group.push(recipient),
                None => groups.push((next_hop, vec![recipient])),
            }
        }
        self.launched = self.progress.recipients.len();
        groups
    }

    /// A job for recipients of this message, which counts as under way from now on.
    pub(super) fn job(&mut self, next_hop: NextHop, recipients: Vec<Recipient>) -> Job {
        self.running += 1;
        Job { message: Arc::clone(&self.message), recipients, next_hop }
    }

    /// Leaves recipients alone until their destination has rested.
    pub(super) fn rest(&mut self, until: Instant) {
        let is_later = self.rest_until.is_none_or(|before| until > before);
        self.rest_until = if is_later { Some(until) } else { self.rest_until };
    }

    /// Notes that a job came back untried.
    pub(super) fn put_back(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// Notes what came of a job.
    pub(super) fn take(&mut self, outcomes: Vec<(usize, Outcome)>) {
        self.running = self.running.saturating_sub(1);
        (self.was_tried, self.is_changed) = (true, true);
        let (id, took) = (self.message.envelope().id, self.began.elapsed());
        for (index, outcome) in outcomes {
            let total = self.progress.recipients.len();
            let Some(recipient) = self.progress.recipients.get_mut(index) else { continue };
            let outcome = within_bounds(outcome, total);
            station::outcome(id, &recipient.mailbox, &outcome, took);
            match outcome {
                Outcome::Delivered { .. } | Outcome::Relayed { .. } => {
                    recipient.state = State::Done;
                }
                Outcome::Deferred(failure) => self.progress.note_try(index, tried(failure)),
                Outcome::Failed(failure) => {
                    self.progress.note_try(index, tried(failure.clone()));
                    self.failures.push((index, failure));
                }
                Outcome::Expanded(mailboxes) => {
                    recipient.state = State::Expanded;
                    let request = &recipient.request;
                    let behind =
                        |mailbox| envelope::Recipient { mailbox, request: request.clone() };
                    let behind = mailboxes.into_iter().map(behind).collect();
                    self.progress.expand(behind);
                }
            }
        }
    }

    /// Gives up on everybody who is still pending, since it took too long.
    pub(super) fn expire(&mut self) {
        self.fail_pending(EXPIRED, "not delivered in time");
    }

    /// Gives up on everybody who is still pending, if a person wants that.
    pub(super) fn give_up(&mut self) {
        if self.progress.given_up_by.is_some() {
            self.fail_pending(GIVEN_UP, "the administrator of this server gave it up");
        }
    }

    fn fail_pending(&mut self, status: Status, why: &str) {
        let failed: Vec<_> = self.failures.iter().map(|(index, _)| *index).collect();
        let (id, took) = (self.message.envelope().id, self.began.elapsed());
        for (index, recipient) in self.progress.recipients.iter().enumerate() {
            if recipient.state != State::Pending || failed.contains(&index) {
                continue;
            }
            let text = match recipient.last_reply() {
                "" => why.to_owned(),
                reply => format!("{why}; the last try said: {reply}"),
            };
            let failure = Failure::new(status, text);
            let outcome = Outcome::Failed(failure.clone());
            station::outcome(id, &recipient.mailbox, &outcome, took);
            self.failures.push((index, failure));
        }
    }

    /// Who has failed for good in this round, and why.
    pub(super) fn failures(&self) -> Vec<(&Mailbox, &Failure)> {
        let mailbox = |index: usize| self.progress.recipients.get(index).map(|it| &it.mailbox);
        self.failures
            .iter()
            .filter_map(|(index, failure)| Some((mailbox(*index)?, failure)))
            .collect()
    }

    /// Marks those as failed, now that the sender has been told.
    pub(super) fn mark_failed(&mut self) {
        for (index, _) in self.failures.drain(..) {
            if let Some(recipient) = self.progress.recipients.get_mut(index) {
                recipient.state = State::Failed;
                self.is_changed = true;
            }
        }
    }

    /// When to try again: by the schedule of pauses, or when a destination's rest ends. Noted
    /// in the progress, too.
    pub(super) fn next_try(&mut self, retry: &[Duration], now: Instant) -> Instant {
        let attempts = self.progress.attempts as usize;
        let pause = retry.get(attempts).or(retry.last()).copied().unwrap_or_default();
        let by_schedule = schedule::after(now, pause);
        let due = match self.rest_until {
            Some(until) if !self.was_tried => until,
            Some(until) => until.min(by_schedule),
            None => by_schedule,
        };
        self.progress.attempts = self.progress.attempts.saturating_add(self.was_tried.into());
        let pause = due.saturating_duration_since(now);
        self.progress.next_try = clock::since_1970().as_secs().saturating_add(pause.as_secs());
        due
    }

    /// Notes how old the message is, for the next process.
    pub(super) fn note_age(&mut self, age: Duration) {
        if age > Duration::from_secs(self.progress.waited).saturating_add(AGE_STEP) {
            self.is_changed = true;
        }
        self.progress.waited = age.as_secs();
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
        Outcome::Expanded(mailboxes) if mailboxes.len() + recipients > MAX_RECIPIENTS => {
            let text = format!("its aliases bring more than {MAX_RECIPIENTS} recipients");
            Failure::new(TOO_MANY, text).into_outcome()
        }
        _ => outcome,
    }
}
