//! The queue manager: one thread that owns the schedule. It learns of new messages from the
//! sessions and of results from the delivery threads, and decides what is tried when, what is
//! recorded, and when a message may go.
//!
//! The spool is the truth: what is in memory here is only where each message waits. It is in
//! exactly one place: found at the start, announced, in the schedule, held, parked until its lane
//! has a place, or open in a round of tries.

mod arrivals;
mod digests;
mod orders;
mod reports;
mod succession;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select};

use crate::config::settings::Settings;
use crate::deliver::dispatch::{Dispatcher, Rest};
use crate::deliver::job::{Job, Report};
use crate::report::complaint::Complaint;
use crate::route;
use crate::route::next_hop::NextHop;
use crate::spool::age::Ages;
use crate::spool::claim::Verdict;
use crate::spool::digest::Digests;
use crate::spool::format::ReadError;
use crate::spool::id::QueueId;
use crate::spool::intake::{self, Arrivals};
use crate::spool::lanes::{Lane, Lanes};
use crate::spool::message::StoredMessage;
use crate::spool::progress::{Progress, RecipientState};
use crate::spool::round::{Pauses, Round, Standing};
use crate::spool::schedule::Schedule;
use crate::spool::store::Spool;
use crate::spool::timekeeper::Timekeeper;
use crate::sys::clock::{ClockWatch, Suspension};

pub use crate::spool::intake::Intake;
pub use succession::Succession;

/// Due messages that are opened before new events are looked at.
const WAKE_STEP: usize = 64;
/// How long that may take: a slow disk must not keep the events waiting.
const WAKE_TIME: Duration = Duration::from_millis(10);
/// When to look at a message again that the disk did not let us settle.
const DISK_PAUSE: Duration = Duration::from_secs(60);
/// When to look at a message again that somebody else is changing, or wants to change.
const LOCK_PAUSE: Duration = Duration::from_secs(1);
/// The longest sleep, for the sake of clocks that stop while a host is suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

static RECORD_FAILS_TOLD: Complaint = Complaint::new();
static REMOVAL_FAILS_TOLD: Complaint = Complaint::new();
static SPOOL_AWAY_TOLD: Complaint = Complaint::new();
static READING_FAILS_TOLD: Complaint = Complaint::new();
/// How a message is opened.
type Load = fn(&Spool, QueueId) -> Result<(StoredMessage, Option<Progress>), ReadError>;

/// What the queue manager can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Try everything now.
    RetryAll,
    /// Try what waits for a network: there may be one again.
    RetryForNetwork,
    /// Try what waits for another password: there may be one.
    RetryForLogin,
    /// Read the record of this message again, and do what it says: try it now, leave it alone
    /// or return it.
    LookAgain(QueueId),
    /// Leave this message to somebody who wants to change it, unless it is on its way.
    LetGo(QueueId),
    /// Say that you are there: one word to who asks by [`Manager::with_answers`].
    Answer,
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
    /// What an earlier run has left and nobody has looked into yet.
    found: VecDeque<QueueId>,
    ages: Ages,
    timekeeper: Timekeeper,
    suspension: Suspension,
    clock_watch: ClockWatch,
    lanes: Lanes,
    successions: Receiver<Succession>,
    /// Messages that somebody holds.
    held: HashSet<QueueId>,
    /// Messages that somebody wants tried now, although their destination may rest.
    urgent: HashSet<QueueId>,
    rounds: HashMap<QueueId, Round>,
    /// What is sent in such numbers that it goes out together.
    digests: Digests,
    /// What the disk did not let us record yet. Holds nobody but messages of which part has
    /// ended: for the others a lost record costs no more than a try.
    unrecorded: HashMap<QueueId, Progress>,
    chores_due: Instant,
    /// Where somebody waits for a sign of life.
    answers: Option<Sender<()>>,
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
        let digests = Digests::new(&settings.digest, settings.server.max_message_size);
        let manager = Self {
            settings,
            arrivals,
            dispatcher,
            schedule: Schedule::default(),
            found: VecDeque::new(),
            ages: Ages::default(),
            timekeeper: Timekeeper::start(&spool),
            suspension: Suspension::default(),
            clock_watch: ClockWatch::default(),
            lanes: Lanes::default(),
            successions: never(),
            held: HashSet::new(),
            urgent: HashSet::new(),
            rounds: HashMap::new(),
            digests,
            unrecorded: HashMap::new(),
            chores_due: Instant::now(),
            answers: None,
            is_stopping: false,
            spool,
        };
        (manager, intake)
    }

    /// The same manager, taking other settings when they come from there.
    pub fn with_successions(self, successions: Receiver<Succession>) -> Self {
        Self { successions, ..self }
    }

    /// The same manager, which answers [`Order::Answer`] there.
    pub fn with_answers(self, answers: Sender<()>) -> Self {
        Self { answers: Some(answers), ..self }
    }

    /// Works until told to stop and nothing is under way any more. `found` are the messages
    /// that were in the spool before the first session began, oldest first; each is tried as
    /// soon as it was looked into.
    pub fn run(
        mut self,
        found: Vec<QueueId>,
        reports: &Receiver<Report>,
        orders: &Receiver<Order>,
    ) {
        self.found = found.into();
        let mut orders = orders.clone();
        let mut arrivals = self.arrivals.receiver.clone();
        let mut successions = self.successions.clone();
        while !(self.is_stopping && self.dispatcher.running() == 0) {
            if !self.is_stopping {
                self.send_digests();
                self.wake_due();
                self.dispatcher.hand_out();
                self.do_chores();
            }
            select! {
                recv(arrivals) -> arrival => match arrival {
                    Ok(arrival) => self.take_arrival(arrival),
                    Err(_) => arrivals = never(),
                },
                recv(reports) -> report => match report {
                    Ok(report) => self.take_report(report),
                    Err(_) => {
                        log::error!("the delivery threads are gone; nothing can be delivered");
                        break;
                    }
                },
                recv(successions) -> succession => match succession {
                    Ok(succession) => self.succeed(succession),
                    Err(_) => successions = never(),
                },
                recv(orders) -> order => match order {
                    Ok(Order::RetryAll) => self.retry_all(),
                    Ok(Order::RetryForNetwork) => self.retry_for_network(),
                    Ok(Order::RetryForLogin) => self.retry_for_login(),
                    Ok(Order::LookAgain(id)) => self.look_again(id),
                    Ok(Order::LetGo(id)) => self.let_go(id),
                    Ok(Order::Answer) => self.answer(),
                    Ok(Order::Stop) => self.is_stopping = true,
                    // Nobody is left to tell us, so this is the end.
                    Err(_) => (self.is_stopping, orders) = (true, never()),
                },
                default(self.sleep()) => {}
            }
        }
        self.record_again();
        self.timekeeper.note(&self.spool);
    }

    fn sleep(&self) -> Duration {
        match [self.schedule.next_due(), self.digests.next_due()].into_iter().flatten().min() {
            _ if self.is_stopping => LONGEST_SLEEP,
            // Only some of what has its turn is opened at a time.
            _ if !self.found.is_empty() || self.lanes.has_turn() => Duration::ZERO,
            Some(due) => due.saturating_duration_since(Instant::now()).min(LONGEST_SLEEP),
            None => LONGEST_SLEEP,
        }
    }

    /// What the host slept through has passed, although the monotonic clock stood still.
    fn notice_sleep(&mut self) {
        if let Some(slept) = self.suspension.since_last_look() {
            log::info!("the host slept for {} s", slept.as_secs());
            self.schedule.bring_forward(slept);
            self.dispatcher.bring_forward(slept);
            self.ages.bring_forward(slept);
            self.digests.bring_forward(slept);
        }
    }

    fn do_chores(&mut self) {
        let now = Instant::now();
        self.clock_watch.look();
        if now >= self.chores_due {
            self.chores_due = now + DISK_PAUSE;
            self.notice_sleep();
            self.timekeeper.note_when_due(&self.spool);
            self.dispatcher.forget_rested(now);
            self.digests.forget_old(now);
            self.record_again();
            self.look_after_spool();
        }
    }

    /// Opens the spool again if it went away and is back.
    fn look_after_spool(&mut self) {
        match self.spool.reopen() {
            Ok(found) => found.into_iter().for_each(|id| self.take_found(id)),
            Err(error) => SPOOL_AWAY_TOLD.error(format_args!("spool: cannot be used: {error}")),
        }
    }

    /// Takes a message that has just been put into the spool.
    fn arrive(&mut self, message: StoredMessage) {
        let progress = Progress::new(message.envelope());
        self.open(message, progress, false);
    }

    /// Opens the messages that are due, as many as the lanes can take, and then looks into
    /// those that were found.
    fn wake_due(&mut self) {
        let began = Instant::now();
        for _ in 0..WAKE_STEP {
            let due = || self.schedule.pop_due(Instant::now());
            if let Some(id) = self.lanes.next_parked().or_else(due) {
                self.load(id, Spool::load);
            } else if let Some(id) = self.found.pop_front() {
                self.load(id, Spool::load_found);
            } else {
                // What held the ids of a large queue is not kept for ever.
                self.found = VecDeque::new();
                return;
            }
            if began.elapsed() > WAKE_TIME {
                return;
            }
        }
    }

    fn load(&mut self, id: QueueId, load: Load) {
        match load(&self.spool, id) {
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
            Err(ReadError::Io(error)) if self.is_gone(&error) => {
                // What `mailwren queue` has removed is told of already, and was to be looked at.
                if !self.urgent.contains(&id) {
                    log::info!("{id}: was removed from the queue by hand");
                }
                self.forget(id);
            }
            Err(ReadError::Io(error)) => {
                READING_FAILS_TOLD
                    .error(format_args!("{id}: cannot be read, tried again later: {error}"));
                self.schedule.insert(id, Instant::now() + DISK_PAUSE);
            }
            Err(error) => {
                log::warn!("{id}: no longer in the queue: {error}");
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

    /// Begins a round of tries for a message, or parks it when its lane has enough. Those
    /// with a mailbox here go by the local lane first.
    fn open(&mut self, message: StoredMessage, mut progress: Progress, has_record: bool) {
        let id = message.envelope().id;
        let waited = self.timekeeper.age(&mut progress);
        self.ages.begin(id, waited, Instant::now());
        let settings = &self.settings;
        let is_local =
            |to: &RecipientState| route::next_hop(settings, &to.mailbox, &to.way) == NextHop::Local;
        let mut pending = progress.recipients.iter().filter(|it| it.is_open());
        let lane = match pending.any(is_local) {
            true => Lane::Local,
            false => Lane::Relay,
        };
        if !self.lanes.take(lane) {
            self.lanes.park(lane, id);
            return;
        }
        let mut round = Round::new(Arc::new(message), progress, lane);
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
        let settings = &self.settings;
        let next_hop = |to: &RecipientState| route::next_hop(settings, &to.mailbox, &to.way);
        // What goes to another host must be in the spool first: it takes too long to wait for.
        if !round.is_stored() && !round.new_pending().all(|to| next_hop(to) == NextHop::Local) {
            return self.have_stored(id);
        }
        let groups = round.next_groups(next_hop);
        let is_relayed = groups.iter().any(|group| group.next_hop != NextHop::Local);
        // What waits for another host must not hold a place that local mail needs.
        if is_relayed && round.lane == Lane::Local && self.lanes.take(Lane::Relay) {
            self.lanes.give_back(Lane::Local);
            round.lane = Lane::Relay;
        }
        for mut group in groups {
            self.digests.gather_from(&mut group, round, settings, now);
            if group.recipients.is_empty() {
                continue;
            }
            if group.next_hop != NextHop::Local && round.lane == Lane::Local {
                round.postpone(&group.recipients);
            } else if let Some(rest) = self.dispatcher.rest(&group.next_hop, now)
                && !round.is_urgent
            {
                round.rest(&rest, &group.recipients);
            } else {
                self.dispatcher.add(round.job(group));
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
        let is_old_way = self.is_old_way(&report.next_hop);
        let Some(round) = self.rounds.get_mut(&id) else { return };
        round.take(report.outcomes);
        if is_old_way {
            round.rest(&Rest::until(now), &[]);
        }
        // What its client was told is not taken goes on to nobody.
        if round.has_new() && !matches!(round.standing, Standing::Withdrawn) {
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
        let rest = self.dispatcher.rest(&job.next_hop, now).unwrap_or(Rest::until(now));
        round.rest(&rest, &job.recipients);
        if round.is_idle() {
            self.settle(id);
        }
    }

    /// Records what has ended while others are still under way: it must not be done again
    /// after a crash.
    fn record_so_far(&mut self, id: QueueId) {
        let Some(round) = self.rounds.get_mut(&id) else { return };
        if !round.is_stored() || !round.must_not_be_forgotten() {
            return;
        }
        match self.spool.record(id, &round.progress) {
            Ok(()) => (round.has_record, round.is_changed) = (true, false),
            Err(error) => RECORD_FAILS_TOLD
                .error(format_args!("{id}: cannot record what was delivered: {error}")),
        }
    }

    /// Ends a round whose message is in the spool: reports what has ended, then removes the
    /// message or lets it wait. For one that is not, it is time to answer the session.
    fn settle(&mut self, id: QueueId) {
        let Some(round) = self.rounds.get(&id) else { return };
        match &round.standing {
            Standing::Offered(claim)
                if round.is_delivered() && claim.decide(Verdict::Delivered) => {}
            Standing::Offered(_) => return self.have_stored(id),
            Standing::Awaited => return,
            Standing::Stored | Standing::Withdrawn => {}
        }
        let Some(mut round) = self.rounds.remove(&id) else { return };
        self.lanes.give_back(round.lane);
        if !round.is_stored() {
            return self.remove(id, round);
        }
        let age = self.ages.of(id, Instant::now());
        if age >= self.settings.queue.expire {
            round.expire();
        }
        round.give_up_as_told();
        self.report(&mut round, age);
        if round.progress.is_settled() {
            self.remove(id, round);
        } else if round.progress.is_over() && !self.owes_reader(&round) {
            self.keep_failed(id, round);
        } else {
            self.let_wait(id, round, age);
        }
    }

    /// Removes what there is of a message in the spool.
    fn remove(&mut self, id: QueueId, round: Round) {
        let removed = match round.standing {
            Standing::Offered(_) if !round.has_record => Ok(()),
            _ => self.spool.remove(id, round.has_record),
        };
        self.note_removal(id, round.progress, removed);
    }

    /// Forgets a message that was removed, and keeps what is known of one that cannot be.
    fn note_removal(&mut self, id: QueueId, progress: Progress, removed: std::io::Result<()>) {
        match removed {
            Ok(()) => {
                log::debug!("{id}: removed");
                self.forget(id);
            }
            Err(error) => {
                REMOVAL_FAILS_TOLD.error(format_args!(
                    "{id}: settled, but cannot be removed from the spool: {error}"
                ));
                self.record(id, progress);
                self.schedule.insert(id, Instant::now() + DISK_PAUSE);
            }
        }
    }

    fn let_wait(&mut self, id: QueueId, mut round: Round, age: Duration) {
        let now = Instant::now();
        let latest = self.latest_look(&round, age, now);
        let pauses =
            Pauses { retry: &self.settings.queue.retry, network: self.dispatcher.network_pause() };
        let due = round.next_try(&pauses, now, latest);
        let (is_postponed, awaited) = (round.is_postponed, round.awaits());
        let has_another_try = round.has_another_try();
        round.note_age(age, self.timekeeper.now());
        // A message that was only left alone again need not be written to flash again.
        if round.is_changed || !round.has_record {
            self.record(id, round.progress);
        }
        match (is_postponed, awaited) {
            (true, _) => self.lanes.park(Lane::Relay, id),
            _ if has_another_try => {
                self.urgent.insert(id);
                self.schedule.insert(id, now);
            }
            (false, Some(event)) => self.schedule.insert_for(event, id, due),
            (false, None) => self.schedule.insert(id, due),
        }
        // A delivery thread may still be letting go of its job.
        round.message.unlock();
    }

    fn record(&mut self, id: QueueId, progress: Progress) {
        // What was not recorded before is older than this.
        self.unrecorded.remove(&id);
        if let Err(error) = self.spool.record(id, &progress) {
            RECORD_FAILS_TOLD
                .error(format_args!("{id}: cannot record the state of its recipients: {error}"));
            if !progress.is_untouched() {
                self.unrecorded.insert(id, progress);
            }
        }
    }

    /// Records what the disk did not take before.
    fn record_again(&mut self) {
        let mut unrecorded = std::mem::take(&mut self.unrecorded);
        unrecorded.retain(|id, progress| match self.spool.load(*id) {
            Ok((_locked, recorded)) => {
                recorded.iter().for_each(|recorded| progress.obey(recorded));
                self.spool.record(*id, progress).is_err()
            }
            Err(ReadError::Io(error)) => !self.is_gone(&error),
            Err(_) => true,
        });
        self.unrecorded = unrecorded;
    }

    /// Whether an error says that a message is no longer there, and not that the spool is away.
    fn is_gone(&self, error: &std::io::Error) -> bool {
        error.kind() == std::io::ErrorKind::NotFound && self.spool.is_in_place()
    }

    fn forget(&mut self, id: QueueId) {
        self.ages.forget(id);
        self.unrecorded.remove(&id);
        self.urgent.remove(&id);
    }
}
