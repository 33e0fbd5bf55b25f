//! The queue manager: one thread that owns the schedule. It learns of new messages from the
//! sessions and of results from the delivery threads, and decides what is tried when, what is
//! recorded, and when a message may go.
//!
//! The spool is the truth: what is in memory here is only where each message waits. It is in
//! exactly one place: announced, in the schedule, parked until its lane has a place, or open
//! in a round of tries.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, never, select};

use crate::config::settings::Settings;
use crate::deliver::dispatch::Dispatcher;
use crate::deliver::job::{Job, Report};
use crate::report::notification::{self, Notification};
use crate::route;
use crate::route::next_hop::NextHop;
use crate::spool::age::Ages;
use crate::spool::format::ReadError;
use crate::spool::id::QueueId;
use crate::spool::intake::{self, Arrivals};
use crate::spool::lanes::{Lane, Lanes};
use crate::spool::message::StoredMessage;
use crate::spool::progress::{Progress, RecipientState};
use crate::spool::round::Round;
use crate::spool::schedule::{self, Schedule};
use crate::spool::store::Spool;

pub use crate::spool::intake::Intake;

/// Due messages that are opened before new events are looked at.
const WAKE_STEP: usize = 64;
/// When to look at a message again that the disk did not let us settle.
const DISK_PAUSE: Duration = Duration::from_secs(60);
/// The longest sleep, for the sake of clocks that stop while a host is suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What the queue manager can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Try everything now.
    RetryAll,
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
                let progress = self.unrecorded.get(&id).cloned().or(recorded);
                let progress = progress.unwrap_or_else(|| Progress::new(message.envelope()));
                self.open(message, progress, has_record);
            }
            Err(ReadError::Io(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                log::error!("{id}: cannot be read, tried again later: {error}");
                self.schedule.insert(id, Instant::now() + DISK_PAUSE);
            }
            Err(error) => {
                log::error!("{id}: no longer in the queue: {error}");
                self.forget(id);
            }
        }
    }

    /// Begins a round of tries for a message, or parks it when its lane has enough. Those
    /// with a mailbox here go by the local lane first.
    fn open(&mut self, message: StoredMessage, progress: Progress, has_record: bool) {
        let id = message.envelope().id;
        let waited = Duration::from_secs(progress.waited);
        self.ages.begin(id, waited, Instant::now());
        let is_local = |mailbox| route::next_hop(&self.settings, mailbox) == NextHop::Local;
        let mut pending = progress.recipients.iter().filter(|it| it.is_open());
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
            } else if let Some(until) = self.dispatcher.rest_until(&next_hop, now) {
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

    /// Ends a round: reports what has ended, then removes the message or lets it wait.
    fn settle(&mut self, id: QueueId) {
        let Some(mut round) = self.rounds.remove(&id) else { return };
        self.lanes.give_back(round.lane);
        let age = self.ages.of(id, Instant::now());
        if age >= self.settings.queue.expire {
            round.expire();
        }
        let has_reader = self.report(&mut round, age);
        if round.progress.is_settled() {
            self.remove(id, round);
        } else if !has_reader && round.progress.is_over() {
            self.keep_failed(id, round);
        } else {
            self.let_wait(id, round, age);
        }
    }

    /// Tells the sender what became of its recipients. Only when the report is on disk are they
    /// marked as reported, and those that failed as failed; until then they stay pending, and
    /// nothing is lost. Gives whether there is anybody to tell.
    ///
    /// Reports are not limited by number: each comes of a message that was taken, and there is
    /// one of a delay and one of each end; holding them back would only fill the queue.
    fn report(&mut self, round: &mut Round, age: Duration) -> bool {
        let message = Arc::clone(&round.message);
        let (settings, envelope) = (Arc::clone(&self.settings), message.envelope());
        let Some(to) = notification::addressee(&settings, envelope) else { return false };
        let is_late = settings.queue.delay_warning.is_some_and(|limit| age >= limit);
        loop {
            let places = round.to_report(is_late);
            if places.is_empty() {
                return true;
            }
            let reported: Vec<_> =
                places.iter().filter_map(|place| round.reported(*place)).collect();
            let (settings, spool, original) = (&*settings, &self.spool, &*message);
            match (Notification { settings, spool, original, to, age }).keep(&reported) {
                Ok(report) => {
                    round.mark_reported(&places);
                    self.arrive(report);
                }
                Err(error) => {
                    let id = envelope.id;
                    log::error!("{id}: the report cannot be written, tried again later: {error}");
                    return true;
                }
            }
        }
    }

    /// Keeps a message that failed and of which nobody can be told for a person to look at.
    fn keep_failed(&mut self, id: QueueId, round: Round) {
        let recorded = self.spool.record(id, &round.progress);
        match recorded.and_then(|()| self.spool.keep_failed(id)) {
            Ok(path) => {
                let path = path.display();
                log::error!("{id}: failed, and nobody can be told; kept as {path}");
                self.forget(id);
            }
            Err(error) => {
                log::error!("{id}: failed, and cannot be moved to failed/: {error}");
                self.record(id, round.progress);
                self.schedule.insert(id, Instant::now() + DISK_PAUSE);
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
        let now = Instant::now();
        let latest = self.latest_look(&round, age, now);
        let due = round.next_try(&self.settings.queue.retry, now, latest);
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
    }

    /// When a waiting message has to be looked at whether or not a try is due: soon where a
    /// report could not be written, and when its sender is to be told of the delay.
    fn latest_look(&self, round: &Round, age: Duration, now: Instant) -> Option<Instant> {
        let owes = |it: &RecipientState| it.is_report_owed;
        let has_reader =
            notification::addressee(&self.settings, round.message.envelope()).is_some();
        if has_reader && round.progress.recipients.iter().any(owes) {
            return Some(now + DISK_PAUSE);
        }
        let until_late = self.settings.queue.delay_warning?.checked_sub(age)?;
        round.could_be_warned_of().then(|| schedule::after(now, until_late))
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
        self.unrecorded.retain(|id, progress| self.spool.record(*id, progress).is_err());
    }

    fn forget(&mut self, id: QueueId) {
        self.ages.forget(id);
        self.unrecorded.remove(&id);
    }
}
