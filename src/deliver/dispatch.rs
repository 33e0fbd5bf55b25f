//! Which job goes to which lane, and when: the local lane in order of arrival, the relay
//! lane by destination, so that one that is slow or down never holds up the others.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};

use crate::deliver::job::{Job, Report};
use crate::deliver::outcome::Outcome;
use crate::route::next_hop::NextHop;
use crate::spool::id::QueueId;
use crate::spool::schedule;

/// Hands out the jobs. Belongs to the queue manager's thread.
#[derive(Debug)]
pub struct Dispatcher {
    local: Sender<Job>,
    local_ready: VecDeque<Job>,
    relay: Sender<Job>,
    destinations: HashMap<NextHop, Destination>,
    /// Jobs handed out and not reported yet.
    running: usize,
    /// Whose turn it is, among destinations with something ready.
    turns: VecDeque<NextHop>,
    /// The most jobs of one destination at once, so that none takes the whole pool.
    max_per_destination: usize,
    /// How long a destination rests after its first, second, … failure in a row.
    pauses: Vec<Duration>,
}

#[derive(Debug, Default)]
struct Destination {
    ready: VecDeque<Job>,
    running: usize,
    /// Failures in a row to reach it at all.
    failures: usize,
    rest_until: Option<Instant>,
}

impl Dispatcher {
    /// A dispatcher for two lanes.
    pub fn new(
        local: Sender<Job>,
        relay: Sender<Job>,
        relay_workers: usize,
        pauses: Vec<Duration>,
    ) -> Self {
        Self {
            local,
            local_ready: VecDeque::new(),
            relay,
            running: 0,
            destinations: HashMap::new(),
            turns: VecDeque::new(),
            max_per_destination: relay_workers.saturating_sub(1).max(1),
            pauses,
        }
    }

    /// Until when nothing is to be tried at `next_hop`, if it rests.
    pub fn rest_until(&self, next_hop: &NextHop, now: Instant) -> Option<Instant> {
        self.destinations.get(next_hop)?.rest_until.filter(|until| *until > now)
    }

    /// Jobs handed out and not reported yet.
    pub const fn running(&self) -> usize {
        self.running
    }

    /// Takes a job, to be handed out when its turn comes.
    pub fn add(&mut self, job: Job) {
        if job.next_hop == NextHop::Local {
            self.local_ready.push_back(job);
            return;
        }
        let destination = self.destinations.entry(job.next_hop.clone()).or_default();
        if destination.ready.is_empty() {
            self.turns.push_back(job.next_hop.clone());
        }
        destination.ready.push_back(job);
    }

    /// Gives the lanes what they can take now, without waiting.
    pub fn hand_out(&mut self) {
        while let Some(job) = self.local_ready.pop_front() {
            match self.local.try_send(job) {
                Ok(()) => self.running += 1,
                Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => {
                    self.local_ready.push_front(job);
                    break;
                }
            }
        }
        for _ in 0..self.turns.len() {
            let Some(next_hop) = self.turns.pop_front() else { return };
            if !self.hand_out_relay(&next_hop) {
                self.turns.push_front(next_hop);
                return;
            }
        }
    }

    /// Notes that a job has ended. Returns the jobs that were ready for its destination, if
    /// that turned out to be out of reach: they are not worth a try now.
    pub fn finished(&mut self, report: &Report, now: Instant) -> Vec<Job> {
        self.running = self.running.saturating_sub(1);
        let Some(destination) = self.destinations.get_mut(&report.next_hop) else {
            return Vec::new();
        };
        destination.running = destination.running.saturating_sub(1);
        match Reach::of(&report.outcomes) {
            Reach::None => {
                // Tries that ran side by side tell of one and the same trouble.
                if destination.rest_until.is_none_or(|until| until <= now) {
                    let pause = self.pauses.get(destination.failures).or(self.pauses.last());
                    let pause = pause.copied().unwrap_or_default();
                    destination.failures += 1;
                    destination.rest_until = Some(schedule::after(now, pause));
                }
                self.turns.retain(|next_hop| *next_hop != report.next_hop);
                return destination.ready.drain(..).collect();
            }
            Reach::Full => (destination.failures, destination.rest_until) = (0, None),
            Reach::Unknown => {}
        }
        let is_forgotten = destination.running == 0 && destination.failures == 0;
        if destination.ready.is_empty() {
            if is_forgotten {
                self.destinations.remove(&report.next_hop);
            }
        } else if !self.turns.contains(&report.next_hop) {
            self.turns.push_back(report.next_hop.clone());
        }
        Vec::new()
    }

    /// Takes back the jobs of a message that were not handed out yet.
    pub fn withdraw(&mut self, id: QueueId) -> Vec<Job> {
        let mut withdrawn = Vec::new();
        let others = self.destinations.values_mut().map(|destination| &mut destination.ready);
        for ready in others.chain([&mut self.local_ready]) {
            let is_its = |job: &Job| job.message.envelope().id == id;
            while let Some(at) = ready.iter().position(is_its) {
                withdrawn.extend(ready.remove(at));
            }
        }
        withdrawn
    }

    /// Lets every destination be tried again at once.
    pub fn end_rests(&mut self) {
        self.destinations.values_mut().for_each(|destination| destination.rest_until = None);
    }

    /// Forgets the destinations that have rested for long and are wanted by nobody.
    pub fn forget_rested(&mut self, now: Instant) {
        self.destinations.retain(|_, destination| {
            destination.running > 0
                || !destination.ready.is_empty()
                || destination
                    .rest_until
                    .is_some_and(|until| until + Duration::from_secs(86_400) > now)
        });
    }

    /// Gives the relay lane jobs of one destination; `false` when the lane is full.
    fn hand_out_relay(&mut self, next_hop: &NextHop) -> bool {
        let Some(destination) = self.destinations.get_mut(next_hop) else { return true };
        // A destination that failed before is probed with one job.
        let most = if destination.failures > 0 { 1 } else { self.max_per_destination };
        while destination.running < most {
            let Some(job) = destination.ready.pop_front() else { return true };
            match self.relay.try_send(job) {
                Ok(()) => {
                    destination.running += 1;
                    self.running += 1;
                }
                Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => {
                    destination.ready.push_front(job);
                    return false;
                }
            }
        }
        // It has its share; `finished` gives it the next turn.
        true
    }
}

/// What a try has told about its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// It was there.
    Full,
    /// It never came to a word of a remote host about a recipient.
    None,
    /// Nothing: the trouble was ours.
    Unknown,
}

impl Reach {
    fn of(outcomes: &[(usize, Outcome)]) -> Self {
        let all = || outcomes.iter().map(|(_, outcome)| Self::of_one(outcome));
        if all().any(|reach| reach == Self::Full) {
            Self::Full
        } else if outcomes.is_empty() || all().any(|reach| reach == Self::Unknown) {
            Self::Unknown
        } else {
            Self::None
        }
    }

    fn of_one(outcome: &Outcome) -> Self {
        let Outcome::Deferred(failure) = outcome else { return Self::Full };
        match &failure.remote {
            // RFC 5321 §4.2.3: 421 speaks of the service as a whole.
            Some(remote) if remote.reply.starts_with("421") => Self::None,
            Some(_) => Self::Full,
            // A spool file that cannot be read, a panic: no fault of the destination, which
            // must not suffer for one bad message.
            None if failure.status.is_about_mail_system() => Self::Unknown,
            None => Self::None,
        }
    }
}
