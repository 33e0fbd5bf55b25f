//! Which job goes to which lane, and when: the local lane in order of arrival, the relay
//! lane by destination, so that one that is slow or down never holds up the others.
//!
//! A destination that cannot be reached rests as a whole and is probed with one job. Where a
//! session broke in the middle of a message, the message may be to blame: the destination rests
//! only when another one fares the same. Where it refuses our login, it rests as long as whoever
//! tried says, and until a login went well it is tried with one job at a time. Where this host has
//! no network, all that needs one waits for it, and no destination is thought the worse of.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::config::settings::{Queue, Smarthost};
use crate::deliver::job::{Job, Report};
use crate::deliver::outcome::{Failure, Fault, Outcome};
use crate::route::next_hop::NextHop;
use crate::spool::id::QueueId;
use crate::spool::schedule;

/// How long mail without a network waits at most before it is tried again, in case that
/// nobody tells us of the network's return.
const NETWORK_PAUSE: Duration = Duration::from_secs(300);
/// How long a destination is remembered after its rest.
const MEMORY: Duration = Duration::from_secs(86_400);

/// Hands out the jobs. Belongs to the queue manager's thread.
#[derive(Debug)]
pub struct Dispatcher {
    local: Sender<Job>,
    local_ready: VecDeque<Job>,
    relay: Sender<Job>,
    destinations: HashMap<NextHop, Destination>,
    /// Where a login is needed and went well the last time.
    logged_in: HashSet<NextHop>,
    /// Jobs handed out and not reported yet.
    running: usize,
    /// Whose turn it is, among destinations with something ready.
    turns: VecDeque<NextHop>,
    /// The most jobs of one destination at once, so that none takes the whole pool.
    max_per_destination: usize,
    /// The most commands at once. Each may take as long as it likes, so they leave half of the pool.
    max_commands: usize,
    /// How long a destination rests after its first, second, … failure in a row.
    pauses: Vec<Duration>,
    /// The longest that mail without a network waits.
    most_without_network: Duration,
}

/// The lanes that take the place of others.
#[derive(Debug)]
pub struct NewLanes {
    /// Where local jobs go from now on.
    pub local: Sender<Job>,
    /// Where all others go.
    pub relay: Sender<Job>,
    /// The other end of the relay lane so far: what nobody has begun there is handed out anew.
    pub old_relay: Receiver<Job>,
}

/// Why and until when nothing is tried at a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The end.
    pub until: Instant,
    /// Whether it is for want of a network, and ends when there is one.
    pub is_for_network: bool,
    /// The refused login that it is for, if it is; then it ends when there is another password.
    pub refused_login: Option<Arc<Failure>>,
}

impl Rest {
    /// A rest for a trouble that only time may mend.
    pub const fn until(until: Instant) -> Self {
        Self { until, is_for_network: false, refused_login: None }
    }
}

#[derive(Debug, Default)]
struct Destination {
    ready: VecDeque<Job>,
    running: usize,
    /// Failures in a row to reach it at all.
    failures: usize,
    rest: Option<Rest>,
    /// The message during which a session broke, and when.
    suspect: Option<(QueueId, Instant)>,
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
            logged_in: HashSet::new(),
            turns: VecDeque::new(),
            max_per_destination: most_of_one(relay_workers),
            max_commands: most_commands(relay_workers),
            pauses,
            most_without_network: NETWORK_PAUSE,
        }
    }

    /// The same dispatcher, looking at least so often whether there is a network again.
    pub fn with_network_pause(self, most: Duration) -> Self {
        Self { most_without_network: self.most_without_network.min(most), ..self }
    }

    /// How long mail waits at most when there is no network.
    pub fn network_pause(&self) -> Duration {
        self.pauses.last().copied().unwrap_or_default().min(self.most_without_network)
    }

    /// Hands out to other lanes from now on, as `queue` says. What is under way goes on where it
    /// is, and what is known of destinations goes on being known.
    pub fn change_lanes(&mut self, lanes: NewLanes, queue: &Queue) {
        let NewLanes { local, relay, old_relay } = lanes;
        (self.local, self.relay) = (local, relay);
        self.max_per_destination = most_of_one(queue.relay_workers);
        self.max_commands = most_commands(queue.relay_workers);
        self.pauses.clone_from(&queue.retry);
        let unbegun: Vec<_> = old_relay.try_iter().collect();
        for job in unbegun.into_iter().rev() {
            self.running = self.running.saturating_sub(1);
            let destination = self.destinations.entry(job.next_hop.clone()).or_default();
            destination.running = destination.running.saturating_sub(1);
            destination.ready.push_front(job);
        }
        for (next_hop, destination) in &self.destinations {
            if !destination.ready.is_empty() && !self.turns.contains(next_hop) {
                self.turns.push_back(next_hop.clone());
            }
        }
    }

    /// Takes back all jobs for other hosts that were not handed out yet.
    pub fn withdraw_relayed(&mut self) -> Vec<Job> {
        self.turns.clear();
        let ready = self.destinations.values_mut().flat_map(|it| it.ready.drain(..)).collect();
        self.destinations.retain(|_, destination| !destination.is_blameless());
        ready
    }

    /// Has a smarthost rest that takes the place of another one with the same account, as long as
    /// that one rests for a login that it has refused.
    pub fn carry_login_rest_to(&mut self, smarthost: &Smarthost) {
        let is_its = |next_hop: &NextHop| matches!(next_hop, NextHop::Smarthost(it) if it.shares_account_with(smarthost));
        let known = self.destinations.iter().filter(|(next_hop, _)| is_its(next_hop));
        let rests = known.filter_map(|(_, destination)| destination.rest.clone());
        let rest = rests.filter(|it| it.refused_login.is_some()).max_by_key(|it| it.until);
        if rest.is_some() {
            let next_hop = NextHop::Smarthost(smarthost.clone());
            self.destinations.entry(next_hop).or_default().rest = rest;
        }
    }

    /// Why and until when nothing is to be tried at `next_hop`, if it rests.
    pub fn rest(&self, next_hop: &NextHop, now: Instant) -> Option<Rest> {
        self.destinations.get(next_hop)?.rest_at(now)
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
        let verdict = Verdict::of(&report.outcomes);
        self.note_login(&report.next_hop, verdict);
        let network_pause = self.network_pause();
        let Some(destination) = self.destinations.get_mut(&report.next_hop) else {
            return Vec::new();
        };
        destination.running = destination.running.saturating_sub(1);
        let is_down = match verdict {
            Verdict::Reached => {
                (destination.failures, destination.rest) = (0, None);
                destination.suspect = None;
                false
            }
            Verdict::Broken => destination.is_second_break(report.id, now),
            Verdict::OutOfReach | Verdict::NoNetwork | Verdict::LoginRefused(_) => true,
            Verdict::Unknown => false,
        };
        if is_down {
            let is_for_network = verdict == Verdict::NoNetwork;
            // Tries that ran side by side tell of one and the same trouble.
            if destination.rest_at(now).is_none() {
                let pause = match verdict {
                    Verdict::NoNetwork => network_pause,
                    Verdict::LoginRefused(pause) => pause,
                    _ => destination.next_pause(&self.pauses),
                };
                let until = schedule::after(now, pause);
                let refused_login = refused_login(report);
                destination.rest = Some(Rest { until, is_for_network, refused_login });
            }
            self.turns.retain(|next_hop| *next_hop != report.next_hop);
            return destination.ready.drain(..).collect();
        }
        let is_forgotten = destination.is_blameless();
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
        self.destinations.values_mut().for_each(|destination| destination.rest = None);
    }

    /// Lets those destinations be tried again at once that rest for want of a network.
    pub fn end_network_rests(&mut self) {
        for destination in self.destinations.values_mut() {
            destination.rest.take_if(|rest| rest.is_for_network);
        }
    }

    /// Lets those destinations be tried again at once that refused our login.
    pub fn end_login_rests(&mut self) {
        for destination in self.destinations.values_mut() {
            destination.rest.take_if(|rest| rest.refused_login.is_some());
        }
    }

    /// Notes that so much time has passed while the host was asleep.
    pub fn bring_forward(&mut self, by: Duration) {
        for rest in self.destinations.values_mut().filter_map(|it| it.rest.as_mut()) {
            rest.until = rest.until.checked_sub(by).unwrap_or(rest.until);
        }
    }

    /// Forgets the destinations that have rested for long and are wanted by nobody.
    pub fn forget_rested(&mut self, now: Instant) {
        self.destinations.retain(|_, destination| {
            let rested = destination.rest.as_ref().map(|rest| rest.until);
            let last = rested.max(destination.suspect.map(|(_, at)| at));
            destination.running > 0
                || !destination.ready.is_empty()
                || last.is_some_and(|last| last + MEMORY > now)
        });
    }

    /// Notes whether a login went well, where one is needed.
    fn note_login(&mut self, next_hop: &NextHop, verdict: Verdict) {
        match verdict {
            Verdict::Reached if needs_login(next_hop) && !self.logged_in.contains(next_hop) => {
                self.logged_in.insert(next_hop.clone());
            }
            Verdict::LoginRefused(_) => {
                self.logged_in.remove(next_hop);
            }
            _ => {}
        }
    }

    /// Gives the relay lane jobs of one destination; `false` when the lane is full.
    fn hand_out_relay(&mut self, next_hop: &NextHop) -> bool {
        let Some(destination) = self.destinations.get_mut(next_hop) else { return true };
        // A destination that failed before is probed with one job, and so is a login: a wrong
        // password is not to be said by all threads at once.
        let is_probed = needs_login(next_hop) && !self.logged_in.contains(next_hop);
        let most = match is_probed || destination.failures > 0 {
            true => 1,
            false if *next_hop == NextHop::Command => self.max_commands,
            false => self.max_per_destination,
        };
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

impl Destination {
    fn rest_at(&self, now: Instant) -> Option<Rest> {
        self.rest.clone().filter(|rest| rest.until > now)
    }

    /// How long it rests after one more failure in a row.
    fn next_pause(&mut self, pauses: &[Duration]) -> Duration {
        let pause = pauses.get(self.failures).or(pauses.last()).copied().unwrap_or_default();
        self.failures += 1;
        pause
    }

    /// Notes that a session broke during a message, and says whether another message has
    /// fared so before.
    fn is_second_break(&mut self, id: QueueId, now: Instant) -> bool {
        let (suspect, _) = *self.suspect.get_or_insert((id, now));
        suspect != id
    }

    /// Whether there is nothing to remember of it.
    fn is_blameless(&self) -> bool {
        self.running == 0 && self.failures == 0 && self.rest.is_none() && self.suspect.is_none()
    }
}

/// What a try has told about its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It was there.
    Reached,
    /// It cannot be reached, or takes nothing.
    OutOfReach,
    /// A session broke in the middle of a message.
    Broken,
    /// It refused our login, which rests so long.
    LoginRefused(Duration),
    /// This host has no network.
    NoNetwork,
    /// Nothing: the trouble was ours.
    Unknown,
}

impl Verdict {
    fn of(outcomes: &[(usize, Outcome)]) -> Self {
        let refused = outcomes.iter().find_map(|(_, outcome)| match fault_of(outcome) {
            Fault::Login(pause) => Some(Self::LoginRefused(pause)),
            _ => None,
        });
        let has = |fault| outcomes.iter().any(|(_, outcome)| fault_of(outcome) == fault);
        // The first of these that any recipient met with.
        [
            (Fault::Mail, Self::Reached),
            (Fault::Here, Self::Unknown),
            (Fault::DestinationOrMail, Self::Broken),
            (Fault::Destination, Self::OutOfReach),
            (Fault::Network, Self::NoNetwork),
        ]
        .into_iter()
        .find_map(|(fault, verdict)| has(fault).then_some(verdict))
        .or(refused)
        .unwrap_or(Self::Unknown)
    }
}

/// Where the fault lies; with the mail, too, where it was taken or has failed for good.
fn fault_of(outcome: &Outcome) -> Fault {
    match outcome {
        Outcome::Deferred(failure) => failure.fault,
        _ => Fault::Mail,
    }
}

/// The refused login that a report tells of.
fn refused_login(report: &Report) -> Option<Arc<Failure>> {
    report.outcomes.iter().find_map(|(_, outcome)| match outcome {
        Outcome::Deferred(failure) if matches!(failure.fault, Fault::Login(_)) => {
            Some(Arc::new(failure.clone()))
        }
        _ => None,
    })
}

/// The most jobs of one destination at once in a pool of that size, so that none takes all of it.
fn most_of_one(workers: usize) -> usize {
    workers.saturating_sub(1).max(1)
}

/// The most commands at once in a pool of that size.
fn most_commands(workers: usize) -> usize {
    (workers / 2).max(1)
}

/// Whether mail goes there with a login only.
fn needs_login(next_hop: &NextHop) -> bool {
    matches!(next_hop, NextHop::Smarthost(smarthost) if smarthost.login.is_some())
}

#[cfg(test)]
mod tests;
