//! The queue manager: one thread that owns the schedule. It learns of new messages from the
//! sessions and of results from the delivery threads, and decides what is tried when, what is
//! recorded, and when a message may go.
//!
//! The spool is the truth: what is in memory here is only where each message waits. It is in
//! exactly one place: announced, in the schedule, held, parked until its lane has a place, or
//! open in a round of tries.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select};

use crate::config::settings::Settings;
use crate::deliver::dispatch::Dispatcher;
use crate::deliver::job::{Job, Report};
use crate::report::bounce;
use crate::route;
use crate::route::next_hop::NextHop;
use crate::spool::age::Ages;
use crate::spool::format::ReadError;
use crate::spool::id::QueueId;
use crate::spool::intake::{self, Arrivals};
use crate::spool::lanes::{Lane, Lanes};
use crate::spool::message::StoredMessage;
use crate::spool::progress::{Progress, State};
use crate::spool::round::Round;
use crate::spool::schedule::Schedule;
use crate::spool::store::Spool;

pub use crate::spool::intake::Intake;

/// Due messages that are opened before new events are looked at.
const WAKE_STEP: usize = 64;
/// When to look at a message again that the disk did not let us settle.
const DISK_PAUSE: Duration = Duration::from_secs(60);
/// When to look at a message again that somebody else is changing, or wants to change.
const LOCK_PAUSE: Duration = Duration::from_secs(1);
/// The longest sleep, for the sake of clocks that stop while a host is suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What the queue manager can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Try everything now.
    RetryAll,
    /// Read the record of this message again, and do what it says: try it now, leave it alone
    /// or return it.
    LookAgain(QueueId),
    /// Leave this message to somebody who wants to change it, unless it is on its way.
    LetGo(QueueId),
    /// Hand out nothing more, wait for what is under way, and return.
    Stop,
}

/// The queue manager.
#[derive(Debug)]
pub struct Manager {
    settings: Arc<Settings>,
    spool: Arc<Spool>,
    arrivals: Arrivals,
    dispatcher: Dispatcher,
    schedule: Schedule,
    ages: Ages,
    lanes: Lanes,
    /// Messages that somebody holds.
    held: HashSet<QueueId>,
    /// Messages that somebody wants tried now, although their destination may rest.
    urgent: HashSet<QueueId>,
    rounds: HashMap<QueueId, Round>,
    /// What the disk did not let us record yet. Holds nobody but messages of which part has
    /// ended: for the others a lost record costs no more than a try.
    unrecorded: HashMap<QueueId, Progress>,
    chores_due: Instant,
    is_stopping: bool,
}

impl Manager {
    /// A manager that hands its jobs to `dispatcher`, and the intake that feeds it.
    pub fn new(
        settings: Arc<Settings>,
        spool: Arc<Spool>,
        dispatcher: Dispatcher,
    ) -> (Self, Intake) {
        let (intake, arrivals) = intake::channel();
        let manager = Self {
            settings,
            spool,
            arrivals,
            dispatcher,
            schedule: Schedule::default(),
            ages: Ages::default(),
            lanes: Lanes::default(),
            held: HashSet::new(),
            urgent: HashSet::new(),
            rounds: HashMap::new(),
            unrecorded: HashMap::new(),
            chores_due: Instant::now() + DISK_PAUSE,
            is_stopping: false,
        };
        (manager, intake)
    }

    /// Works until told to stop and nothing is under way any more. `queued` are the messages
    /// found in the spool before the first session began; each is tried at once.
    pub fn run(
        mut self,
        queued: Vec<QueueId>,
        reports: &Receiver<Report>,
        orders: &Receiver<Order>,
    ) {
        let now = Instant::now();
        queued.into_iter().for_each(|id| self.schedule.insert(id, now));
        let mut orders = orders.clone();
        let (mut messages, mut ids) = (self.arrivals.messages.clone(), self.arrivals.ids.clone());
        while !(self.is_stopping && self.dispatcher.running() == 0) {
            if !self.is_stopping {
                self.wake_due();
                self.dispatcher.hand_out();
                self.do_chores();
            }
            select! {
                recv(messages) -> message => match message {
                    Ok(message) => self.arrive(message),
                    Err(_) => messages = never(),
                },
                recv(ids) -> id => match id {
                    Ok(id) => self.schedule.insert(id, Instant::now()),
                    Err(_) => ids = never(),
                },
                recv(reports) -> report => match report {
                    Ok(report) => self.take_report(report),
                    Err(_) => {
                        log::error!("the delivery threads are gone; nothing can be delivered");
                        break;
                    }
                },
                recv(orders) -> order => match order {
                    Ok(Order::RetryAll) => self.retry_all(),
                    Ok(Order::LookAgain(id)) => self.look_again(id),
                    Ok(Order::LetGo(id)) => self.let_go(id),
                    Ok(Order::Stop) => self.is_stopping = true,
                    // Nobody is left to tell us, so this is the end.
                    Err(_) => (self.is_stopping, orders) = (true, never()),
                },
                default(self.sleep()) => {}
            }
        }
        self.record_again();
    }

    fn sleep(&self) -> Duration {
        match self.schedule.next_due() {
            Some(due) if !self.is_stopping => {
                due.saturating_duration_since(Instant::now()).min(LONGEST_SLEEP)
            }
            _ => LONGEST_SLEEP,
        }
    }

    fn retry_all(&mut self) {
        self.dispatcher.end_rests();
        self.schedule.make_all_due(Instant::now());
    }

    /// Has a message loaded at once. One that is parked or open already needs nothing more: its
    /// record is read after the change, since nobody changes it without its lock.
    fn look_again(&mut self, id: QueueId) {
        if self.held.remove(&id) || self.schedule.contains(id) {
            self.urgent.insert(id);
            self.schedule.insert(id, Instant::now());
        }
    }

    /// Takes back what of a message was not handed out yet.
    fn let_go(&mut self, id: QueueId) {
        let Some(round) = self.rounds.get_mut(&id) else { return };
        for _ in self.dispatcher.withdraw(id) {
            round.put_back();
            round.rest(Instant::now() + LOCK_PAUSE);
        }
        if round.is_idle() {
            self.settle(id);
        }
    }

    fn do_chores(&mut self) {
        let now = Instant::now();
        if now >= self.chores_due {
            self.chores_due = now + DISK_PAUSE;
            self.dispatcher.forget_rested(now);
            self.record_again();
        }
    }

    /// Takes a message that has just been put into the spool.
    fn arrive(&mut self, message: StoredMessage) {
        let progress = Progress::new(message.envelope());
        self.open(message, progress, false);
    }

    /// Opens the messages that are due, as many as the lanes can take.
    fn wake_due(&mut self) {
        for _ in 0..WAKE_STEP {
            let due = || self.schedule.pop_due(Instant::now());
            let Some(id) = self.lanes.next_parked().or_else(due) else { return };
            self.load(id);
        }
    }

    fn load(&mut self, id: QueueId) {
        match self.spool.load(id) {
            Ok((message, recorded)) => {
                let has_record = recorded.is_some();
                let progress = self.newest(id, recorded);
                let progress = progress.unwrap_or_else(|| Progress::new(message.envelope()));
                if progress.held.is_some() {
                    self.hold(&message, progress);
                } else {
                    self.open(message, progress, has_record);
                }
            }
            Err(ReadError::Locked) => self.schedule.insert(id, Instant::now() + LOCK_PAUSE),
            Err(ReadError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                log::info!("{id}: was removed from the queue by hand");
                self.forget(id);
            }
            Err(ReadError::Io(error)) => {
                log::error!("{id}: cannot be read, tried again later: {error}");
                self.schedule.insert(id, Instant::now() + DISK_PAUSE);
            }
            Err(error) => {
                log::error!("{id}: no longer in the queue: {error}");
                self.forget(id);
            }
        }
    }

    /// What is known of a message, of which `recorded` is on disk.
    fn newest(&self, id: QueueId, recorded: Option<Progress>) -> Option<Progress> {
        let Some(ours) = self.unrecorded.get(&id) else { return recorded };
        let mut newest = ours.clone();
        if let Some(recorded) = recorded {
            newest.obey(&recorded);
        }
        Some(newest)
    }

    /// Leaves a message alone that somebody holds. The time until its release does not count.
    fn hold(&mut self, message: &StoredMessage, mut progress: Progress) {
        let id = message.envelope().id;
        if let Some(hold) = &progress.held {
            log::info!("{id}: held by {:?}", hold.by);
        }
        self.held.insert(id);
        self.urgent.remove(&id);
        if self.ages.counts(id) {
            progress.waited = self.ages.of(id, Instant::now()).as_secs();
            self.ages.forget(id);
            self.record(id, progress);
        }
    }

    /// Begins a round of tries for a message, or parks it when its lane has enough. Those
    /// with a mailbox here go by the local lane first.
    fn open(&mut self, message: StoredMessage, progress: Progress, has_record: bool) {
        let id = message.envelope().id;
        let waited = Duration::from_secs(progress.waited);
        self.ages.begin(id, waited, Instant::now());
        let is_local = |mailbox| route::next_hop(&self.settings, mailbox) == NextHop::Local;
        let mut pending = progress.recipients.iter().filter(|it| it.state == State::Pending);
        let lane = match pending.any(|recipient| is_local(&recipient.mailbox)) {
            true => Lane::Local,
            false => Lane::Relay,
        };
        if !self.lanes.take(lane) {
            self.lanes.park(lane, id);
            return;
        }
        let mut round = Round::new(message, progress, lane);
        round.has_record = has_record;
        round.is_changed = self.unrecorded.remove(&id).is_some();
        round.is_urgent = self.urgent.remove(&id);
        self.rounds.insert(id, round);
        self.launch(id);
    }

    /// Makes jobs of the recipients not looked at yet, one for each next hop.
    fn launch(&mut self, id: QueueId) {
        let Some(round) = self.rounds.get_mut(&id) else { return };
        let now = Instant::now();
        let groups = round.next_groups(|mailbox| route::next_hop(&self.settings, mailbox));
        let is_relayed = groups.iter().any(|(next_hop, _)| *next_hop != NextHop::Local);
        // What waits for another host must not hold a place that local mail needs.
        if is_relayed && round.lane == Lane::Local && self.lanes.take(Lane::Relay) {
            self.lanes.give_back(Lane::Local);
            round.lane = Lane::Relay;
        }
        for (next_hop, recipients) in groups {
            if next_hop != NextHop::Local && round.lane == Lane::Local {
                round.is_postponed = true;
            } else if let Some(until) = self.dispatcher.rest_until(&next_hop, now)
                && !round.is_urgent
            {
                round.rest(until);
            } else {
                self.dispatcher.add(round.job(next_hop, recipients));
            }
        }
        if round.is_idle() {
            self.settle(id);
        }
    }

    fn take_report(&mut self, report: Report) {
        let now = Instant::now();
        for job in self.dispatcher.finished(&report, now) {
            self.put_back(&job, now);
        }
        let id = report.id;
        let Some(round) = self.rounds.get_mut(&id) else { return };
        round.take(report.outcomes);
        if round.has_new() {
            self.launch(id);
        } else if round.is_idle() {
            self.settle(id);
        }
        self.record_so_far(id);
    }

    /// Takes back a job whose destination turned out to be out of reach.
    fn put_back(&mut self, job: &Job, now: Instant) {
        let id = job.message.envelope().id;
        let Some(round) = self.rounds.get_mut(&id) else { return };
        round.put_back();
        round.rest(self.dispatcher.rest_until(&job.next_hop, now).unwrap_or(now));
        if round.is_idle() {
            self.settle(id);
        }
    }

    /// Records what has ended while others are still under way: it must not be done again
    /// after a crash.
    fn record_so_far(&mut self, id: QueueId) {
        let Some(round) = self.rounds.get_mut(&id) else { return };
        if !round.must_not_be_forgotten() {
            return;
        }
        match self.spool.record(id, &round.progress) {
            Ok(()) => (round.has_record, round.is_changed) = (true, false),
            Err(error) => log::error!("{id}: cannot record what was delivered: {error}"),
        }
    }

    /// Ends a round: bounces what failed, then removes the message or lets it wait.
    fn settle(&mut self, id: QueueId) {
        let Some(mut round) = self.rounds.remove(&id) else { return };
        self.lanes.give_back(round.lane);
        let age = self.ages.of(id, Instant::now());
        if age >= self.settings.queue.expire {
            round.expire();
        }
        round.give_up();
        self.bounce(&mut round);
        if round.progress.is_settled() {
            self.remove(id, round);
        } else {
            self.let_wait(id, round, age);
        }
    }

    /// Tells the sender what failed. Only when the report is on disk are the recipients
    /// marked as failed; until then they stay pending, and nothing is lost.
    fn bounce(&mut self, round: &mut Round) {
        let failures = round.failures();
        if failures.is_empty() {
            return;
        }
        match bounce::keep(&self.settings, &self.spool, &round.message, &failures) {
            Ok(report) => {
                round.mark_failed();
                if let Some(report) = report {
                    self.arrive(report);
                }
            }
            Err(error) => {
                let id = round.message.envelope().id;
                log::error!("{id}: the bounce cannot be written, tried again later: {error}");
            }
        }
    }

    fn remove(&mut self, id: QueueId, round: Round) {
        match self.spool.remove(id, round.has_record) {
            Ok(()) => {
                log::debug!("{id}: removed");
                self.forget(id);
            }
            Err(error) => {
                log::error!("{id}: settled, but cannot be removed from the spool: {error}");
                self.record(id, round.progress);
                self.schedule.insert(id, Instant::now() + DISK_PAUSE);
            }
        }
    }

    fn let_wait(&mut self, id: QueueId, mut round: Round, age: Duration) {
        let due = round.next_try(&self.settings.queue.retry, Instant::now());
        round.note_age(age);
        // A message that was only left alone again need not be written to flash again.
        if round.is_changed || !round.has_record {
            self.record(id, round.progress);
        }
        if round.is_postponed {
            self.lanes.park(Lane::Relay, id);
        } else {
            self.schedule.insert(id, due);
        }
        // A delivery thread may still be letting go of its job.
        round.message.unlock();
    }

    fn record(&mut self, id: QueueId, progress: Progress) {
        if let Err(error) = self.spool.record(id, &progress) {
            log::error!("{id}: cannot record the state of its recipients: {error}");
            if !progress.is_untouched() {
                self.unrecorded.insert(id, progress);
            }
        }
    }

    /// Records what the disk did not take before.
    fn record_again(&mut self) {
        self.unrecorded.retain(|id, progress| match self.spool.load(*id) {
            Ok((_locked, recorded)) => {
                recorded.iter().for_each(|recorded| progress.obey(recorded));
                self.spool.record(*id, progress).is_err()
            }
            Err(ReadError::Io(error)) => error.kind() != std::io::ErrorKind::NotFound,
            Err(_) => true,
        });
    }

    fn forget(&mut self, id: QueueId) {
        self.ages.forget(id);
        self.unrecorded.remove(&id);
        self.urgent.remove(&id);
    }
}
