//! The queue manager: one thread that owns the schedule. It learns of new messages from the
//! sessions and of results from the delivery threads, and decides what is tried when, what is
//! recorded, and when a message may go.
//!
//! The channels are hints; the spool is the truth. A message whose announcement found the
//! channel full is found again by looking into the spool.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, never, select};

use crate::config::settings::Settings;
use crate::deliver::dispatch::Dispatcher;
use crate::deliver::job::{Job, Recipient, Report};
use crate::deliver::outcome::{Failure, Outcome};
use crate::mail::status::Status;
use crate::report::{bounce, station};
use crate::route;
use crate::route::next_hop::NextHop;
use crate::spool::format::ReadError;
use crate::spool::id::QueueId;
use crate::spool::message::StoredMessage;
use crate::spool::progress::{Progress, State};
use crate::spool::schedule::Schedule;
use crate::spool::store::Spool;
use crate::sys::clock;

/// Announcements that may wait; one more is found in the spool instead.
const MAX_ANNOUNCED: usize = 1024;
/// Messages open at once for each lane. The others wait as ids.
const MAX_OPEN: usize = 256;
/// Due messages that are opened before new events are looked at.
const WAKE_STEP: usize = 64;
/// When to look at a message again that the disk did not let us settle.
const DISK_PAUSE: Duration = Duration::from_secs(60);
/// The longest sleep, for the sake of clocks that stop while a host is suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Where sessions announce what they have put into the spool.
#[derive(Clone, Debug)]
pub struct Intake {
    messages: Sender<StoredMessage>,
    has_missed: Arc<AtomicBool>,
}

impl Intake {
    /// Announces a message. Never waits and never fails: the message is in the spool.
    pub fn announce(&self, message: StoredMessage) {
        if self.messages.try_send(message).is_err() {
            self.has_missed.store(true, Ordering::Release);
        }
    }
}

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
    arrivals: Receiver<StoredMessage>,
    has_missed: Arc<AtomicBool>,
    dispatcher: Dispatcher,
    schedule: Schedule,
    open: HashMap<QueueId, OpenMessage>,
    /// Messages due for each lane that wait until fewer are open: local, relay.
    parked: [VecDeque<QueueId>; 2],
    /// Open messages of each lane.
    open_in_lane: [usize; 2],
    /// What the disk did not let us record yet.
    unrecorded: HashMap<QueueId, Progress>,
    is_stopping: bool,
}

/// A message of which something is being tried.
#[derive(Debug)]
struct OpenMessage {
    message: Arc<StoredMessage>,
    progress: Progress,
    lane: usize,
    has_record: bool,
    /// Jobs handed to the dispatcher and not yet reported.
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

const LOCAL: usize = 0;
const RELAY: usize = 1;

impl Manager {
    /// A manager that hands its jobs to `dispatcher`, and the intake that feeds it.
    pub fn new(
        settings: Arc<Settings>,
        spool: Arc<Spool>,
        dispatcher: Dispatcher,
    ) -> (Self, Intake) {
        let (messages, arrivals) = bounded(MAX_ANNOUNCED);
        let has_missed = Arc::new(AtomicBool::new(false));
        let intake = Intake { messages, has_missed: Arc::clone(&has_missed) };
        let manager = Self {
            settings,
            spool,
            arrivals,
            has_missed,
            dispatcher,
            schedule: Schedule::default(),
            open: HashMap::new(),
            parked: Default::default(),
            open_in_lane: [0; 2],
            unrecorded: HashMap::new(),
            is_stopping: false,
        };
        (manager, intake)
    }

    /// Works until told to stop and nothing is under way any more. `queued` are the messages
    /// found in the spool; each is tried at once.
    pub fn run(
        mut self,
        queued: Vec<QueueId>,
        reports: &Receiver<Report>,
        orders: &Receiver<Order>,
    ) {
        let now = Instant::now();
        queued.into_iter().for_each(|id| self.schedule.insert(id, now));
        let mut arrivals = self.arrivals.clone();
        while !(self.is_stopping && self.dispatcher.running() == 0) {
            self.wake_due();
            self.find_missed();
            if !self.is_stopping {
                self.dispatcher.hand_out();
            }
            select! {
                recv(arrivals) -> message => match message {
                    Ok(message) => self.arrive(message),
                    Err(_) => arrivals = never(),
                },
                recv(reports) -> report => report.into_iter().for_each(|report| self.take_report(report)),
                recv(orders) -> order => self.obey(order.unwrap_or(Order::Stop)),
                default(self.sleep()) => self.dispatcher.forget_rested(Instant::now()),
            }
        }
    }

    fn sleep(&self) -> Duration {
        if self.is_stopping {
            return LONGEST_SLEEP;
        }
        let next = self.schedule.next_due();
        next.map_or(LONGEST_SLEEP, |due| {
            due.saturating_duration_since(Instant::now()).min(LONGEST_SLEEP)
        })
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Stop => self.is_stopping = true,
            Order::RetryAll => {
                self.dispatcher.end_rests();
                self.schedule.make_all_due(Instant::now());
            }
        }
    }

    /// Takes a message that a session has just put into the spool.
    fn arrive(&mut self, message: StoredMessage) {
        let id = message.envelope().id;
        // `find_missed` may have been quicker.
        if self.open.contains_key(&id) || self.schedule.contains(id) {
            return;
        }
        let progress = Progress::new(message.envelope());
        self.open(message, progress, false);
    }

    /// Opens the messages that are due, as many as the lanes can take.
    fn wake_due(&mut self) {
        if self.is_stopping {
            return;
        }
        for _ in 0..WAKE_STEP {
            let Some(id) = self.next_parked().or_else(|| self.schedule.pop_due(Instant::now()))
            else {
                return;
            };
            self.load(id);
        }
    }

    fn next_parked(&mut self) -> Option<QueueId> {
        let lane = (LOCAL..=RELAY)
            .find(|&lane| self.open_in_lane[lane] < MAX_OPEN && !self.parked[lane].is_empty())?;
        self.parked[lane].pop_front()
    }

    fn load(&mut self, id: QueueId) {
        match self.spool.load(id) {
            Ok((message, recorded)) => {
                let has_record = recorded.is_some();
                let progress = self.unrecorded.remove(&id).or(recorded);
                let progress = progress.unwrap_or_else(|| Progress::new(message.envelope()));
                self.open(message, progress, has_record);
            }
            Err(ReadError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                log::info!("{id}: gone from the spool");
            }
            Err(error @ (ReadError::Malformed | ReadError::Incomplete)) => {
                log::error!("{id}: not delivered: {error}");
            }
            Err(ReadError::Io(error)) => {
                log::error!("{id}: cannot be read, tried again later: {error}");
                self.schedule.insert(id, Instant::now() + DISK_PAUSE);
            }
        }
    }

    /// Begins a round of tries for a message, or parks it when its lane has enough.
    fn open(&mut self, message: StoredMessage, progress: Progress, has_record: bool) {
        let id = message.envelope().id;
        let is_local = |mailbox| route::next_hop(&self.settings, mailbox) == NextHop::Local;
        let mut pending =
            progress.recipients.iter().filter(|recipient| recipient.state == State::Pending);
        let lane =
            if pending.all(|recipient| is_local(&recipient.mailbox)) { LOCAL } else { RELAY };
        if self.open_in_lane[lane] >= MAX_OPEN {
            self.parked[lane].push_back(id);
            return;
        }
        self.open_in_lane[lane] += 1;
        let opened = OpenMessage {
            message: Arc::new(message),
            progress,
            lane,
            has_record,
            running: 0,
            launched: 0,
            was_tried: false,
            rest_until: None,
            failures: Vec::new(),
            began: Instant::now(),
        };
        self.open.insert(id, opened);
        self.launch(id);
    }

    /// Makes jobs of the recipients not looked at yet, one for each next hop.
    fn launch(&mut self, id: QueueId) {
        let Some(opened) = self.open.get_mut(&id) else { return };
        let now = Instant::now();
        let mut groups: Vec<(NextHop, Vec<Recipient>)> = Vec::new();
        let new = opened.progress.recipients.iter().enumerate().skip(opened.launched);
        for (index, recipient) in new.filter(|(_, recipient)| recipient.state == State::Pending) {
            let next_hop = route::next_hop(&self.settings, &recipient.mailbox);
            let recipient = Recipient { index, mailbox: recipient.mailbox.clone() };
            match groups.iter_mut().find(|(known, _)| *known == next_hop) {
                Some((_, group)) => group.push(recipient),
                None => groups.push((next_hop, vec![recipient])),
            }
        }
        opened.launched = opened.progress.recipients.len();
        for (next_hop, recipients) in groups {
            if let Some(until) = self.dispatcher.rest_until(&next_hop, now) {
                opened.rest_until = opened.rest_until.max(Some(until));
                continue;
            }
            opened.running += 1;
            let message = Arc::clone(&opened.message);
            self.dispatcher.add(Job { message, recipients, next_hop });
        }
        if opened.running == 0 {
            self.settle(id);
        }
    }

    fn take_report(&mut self, report: Report) {
        let now = Instant::now();
        for job in self.dispatcher.finished(&report, now) {
            self.put_back(&job, now);
        }
        let Some(opened) = self.open.get_mut(&report.id) else { return };
        opened.running -= 1;
        opened.was_tried = true;
        let (id, took) = (report.id, opened.began.elapsed());
        for (index, outcome) in report.outcomes {
            let Some(recipient) = opened.progress.recipients.get_mut(index) else { continue };
            station::outcome(id, &recipient.mailbox, &outcome, took);
            match outcome {
                Outcome::Delivered { .. } | Outcome::Relayed { .. } => {
                    recipient.state = State::Done
                }
                Outcome::Deferred(failure) => recipient.last_reply = station::reason(&failure),
                Outcome::Failed(failure) => opened.failures.push((index, failure)),
                Outcome::Expanded(mailboxes) => {
                    recipient.state = State::Expanded;
                    opened.progress.expand(mailboxes);
                }
            }
        }
        if opened.launched < opened.progress.recipients.len() {
            self.launch(id);
        } else if opened.running == 0 {
            self.settle(id);
        } else if !opened.progress.is_untouched() {
            // Others are still under way: what is done must not be done again after a crash.
            opened.has_record = true;
            if let Err(error) = self.spool.record(id, &opened.progress) {
                log::error!("{id}: cannot record what was delivered: {error}");
            }
        }
    }

    /// Takes back a job whose destination turned out to be out of reach.
    fn put_back(&mut self, job: &Job, now: Instant) {
        let id = job.message.envelope().id;
        let until = self.dispatcher.rest_until(&job.next_hop, now);
        let Some(opened) = self.open.get_mut(&id) else { return };
        opened.running -= 1;
        opened.rest_until = opened.rest_until.max(until);
        if opened.running == 0 {
            self.settle(id);
        }
    }

    /// Ends a round: bounces what failed, then removes the message or lets it wait.
    fn settle(&mut self, id: QueueId) {
        let Some(mut opened) = self.open.remove(&id) else { return };
        self.open_in_lane[opened.lane] -= 1;
        self.expire(&mut opened);
        self.bounce(&mut opened);
        if opened.progress.is_settled() {
            match self.spool.remove(id, opened.has_record) {
                Ok(()) => log::debug!("{id}: removed"),
                Err(error) => {
                    log::error!("{id}: settled, but cannot be removed from the spool: {error}");
                    self.unrecorded.insert(id, opened.progress);
                    self.schedule.insert(id, Instant::now() + DISK_PAUSE);
                }
            }
            return;
        }
        let due = self.next_try(&mut opened);
        if let Err(error) = self.spool.record(id, &opened.progress) {
            log::error!("{id}: cannot record the state of its recipients: {error}");
            self.unrecorded.insert(id, opened.progress);
        }
        self.schedule.insert(id, due);
    }

    /// Gives up on everybody who is still pending once the message is too old.
    fn expire(&self, opened: &mut OpenMessage) {
        let age =
            clock::since_1970().as_secs().saturating_sub(opened.message.envelope().received_at);
        if age < self.settings.queue.expire.as_secs() {
            return;
        }
        let failed: Vec<_> = opened.failures.iter().map(|(index, _)| *index).collect();
        for (index, recipient) in opened.progress.recipients.iter().enumerate() {
            if recipient.state == State::Pending && !failed.contains(&index) {
                let text =
                    format!("not delivered in time; the last try said: {}", recipient.last_reply);
                let failure = Failure::new(Status::new(5, 4, 7), text);
                let id = opened.message.envelope().id;
                station::outcome(
                    id,
                    &recipient.mailbox,
                    &Outcome::Failed(failure.clone()),
                    opened.began.elapsed(),
                );
                opened.failures.push((index, failure));
            }
        }
    }

    /// Tells the sender what failed. Only when the report is on disk are the recipients
    /// marked as failed; until then they stay pending, and nothing is lost.
    fn bounce(&mut self, opened: &mut OpenMessage) {
        if opened.failures.is_empty() {
            return;
        }
        let failures: Vec<_> = opened
            .failures
            .iter()
            .filter_map(|(index, failure)| {
                Some((&opened.progress.recipients.get(*index)?.mailbox, failure))
            })
            .collect();
        match bounce::keep(&self.settings, &self.spool, &opened.message, &failures) {
            Ok(report) => {
                for (index, failure) in &opened.failures {
                    let recipient = &mut opened.progress.recipients[*index];
                    recipient.state = State::Failed;
                    recipient.last_reply = station::reason(failure);
                }
                if let Some(report) = report {
                    self.arrive(report);
                }
            }
            Err(error) => {
                let id = opened.message.envelope().id;
                log::error!("{id}: the bounce cannot be written, tried again later: {error}");
            }
        }
        opened.failures.clear();
    }

    /// When to try again, by the schedule or when a destination's rest ends, noted in the
    /// record too.
    fn next_try(&self, opened: &mut OpenMessage) -> Instant {
        let retry = &self.settings.queue.retry;
        let attempts = opened.progress.attempts as usize;
        let by_schedule = Instant::now() + retry[attempts.min(retry.len() - 1)];
        let due = match opened.rest_until {
            Some(until) if !opened.was_tried => until,
            Some(until) => until.min(by_schedule),
            None => by_schedule,
        };
        if opened.was_tried {
            opened.progress.attempts = opened.progress.attempts.saturating_add(1);
        }
        let pause = due.saturating_duration_since(Instant::now());
        opened.progress.next_try = clock::since_1970().as_secs().saturating_add(pause.as_secs());
        due
    }

    /// Looks into the spool for messages whose announcement was lost.
    fn find_missed(&mut self) {
        if !self.has_missed.swap(false, Ordering::AcqRel) {
            return;
        }
        match self.spool.ids() {
            Ok(ids) => {
                let now = Instant::now();
                for id in ids {
                    let is_parked = self.parked.iter().any(|parked| parked.contains(&id));
                    if !is_parked && !self.open.contains_key(&id) && !self.schedule.contains(id) {
                        self.schedule.insert(id, now);
                    }
                }
            }
            Err(error) => {
                log::error!("spool: cannot look for messages: {error}");
                self.has_missed.store(true, Ordering::Release);
            }
        }
    }
}
