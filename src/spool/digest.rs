//! How many messages each sender has sent to each recipient of late, and which of them wait to
//! become one. All of it is in memory and forgotten with the process: what is gathered is in the
//! spool, each message as it is, and a new process counts anew.
//!
//! The first `burst` messages of a window go out one by one; what comes on top is gathered until
//! the window ends. As long as windows end with more than `burst` messages, all of the next one is
//! gathered: what comes once a minute for days is one message a window, and not a burst of them
//! too.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::config::settings;
use crate::mail::address::Mailbox;
use crate::mail::digest::MAX_BESIDE;
use crate::spool::id::QueueId;

/// The most pairs of a sender and a recipient that are counted; others go out one by one.
const MAX_PAIRS: usize = 1024;
/// The most messages that are counted; others go out one by one.
const MAX_COUNTED: usize = 100_000;
/// The most messages of one digest: they are open all at once while it is written.
const MAX_MESSAGES: usize = 200;
/// The most octets of one digest, if half of the largest message that we take is not less.
const MAX_OCTETS: u64 = 4 << 20;

/// Who writes to whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    pub(super) sender: Mailbox,
    pub(super) recipient: Mailbox,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It goes by itself.
    Alone,
    /// It waits until then for the others.
    Gathered(Instant),
    /// There were as many as may go by themselves: it is to be gathered.
    Exceeded,
}

/// Messages that have become due together, oldest first, and the octets that each counts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) pair: Pair,
    pub(super) messages: VecDeque<(QueueId, u64)>,
}

/// What is counted and gathered.
#[derive(Debug)]
pub(super) struct Digests {
    burst: usize,
    window: Duration,
    max_octets: u64,
    flows: HashMap<Pair, Flow>,
    /// When the first digest is due.
    next_due: Option<Instant>,
}

/// The messages of a pair in its window.
#[derive(Debug)]
struct Flow {
    began: Instant,
    until: Instant,
    /// Those that go by themselves.
    alone: HashSet<QueueId>,
    gathered: VecDeque<(QueueId, u64)>,
    /// Those of this window, gathered or not.
    seen: usize,
    /// Whether the window before had more than may go by themselves.
    is_flood: bool,
    /// Whether what is gathered is not to wait for the end of the window.
    is_forced: bool,
    /// A digest could not be written; it is tried again then.
    not_before: Option<Instant>,
}

impl Digests {
    /// Counts as `[digest]` says, and gathers no more than half the largest message that we take.
    pub(super) fn new(settings: &settings::Digest, max_message_size: u64) -> Self {
        Self {
            burst: settings.burst,
            window: settings.window,
            max_octets: MAX_OCTETS.min(max_message_size / 2),
            flows: HashMap::new(),
            next_due: None,
        }
    }

    /// Counts as other settings say from now on; a window that has begun ends when it was to. Where
    /// nothing is to be gathered any more, what was goes at once.
    pub(super) fn change(&mut self, settings: &settings::Digest, max_message_size: u64) {
        (self.burst, self.window) = (settings.burst, settings.window);
        self.max_octets = MAX_OCTETS.min(max_message_size / 2);
        match self.are_wanted() {
            true => self.find_next_due(),
            false => self.end_windows(),
        }
    }

    /// Whether anything is ever gathered.
    pub(super) const fn are_wanted(&self) -> bool {
        self.burst > 0
    }

    /// Says what becomes of a message that is about to go out, and counts it once a window.
    pub(super) fn ask(&mut self, pair: &Pair, id: QueueId, now: Instant) -> Turn {
        let (burst, window) = (self.burst, self.window);
        let has_room = self.has_room();
        if !self.flows.contains_key(pair) && self.flows.len() >= MAX_PAIRS {
            self.forget_old(now);
            if self.flows.len() >= MAX_PAIRS {
                return Turn::Alone;
            }
        }
        let flow = self.flows.entry(pair.clone()).or_insert_with(|| Flow::new(now, window));
        if flow.until <= now && flow.gathered.is_empty() {
            flow.renew(now, window, burst);
        }
        if flow.gathered.iter().any(|(gathered, _)| *gathered == id) {
            return Turn::Gathered(flow.waits_until());
        }
        let is_over = flow.is_flood || flow.alone.len() >= burst;
        if !flow.alone.contains(&id) && is_over {
            return Turn::Exceeded;
        }
        if has_room && flow.alone.insert(id) {
            flow.seen += 1;
        }
        Turn::Alone
    }

    /// Gathers a message that came on top, unless it is too large. Says until when it waits, and
    /// whether it is the first of its window.
    pub(super) fn gather(
        &mut self,
        pair: &Pair,
        id: QueueId,
        octets: u64,
    ) -> Option<(Instant, bool)> {
        let octets = octets.saturating_add(MAX_BESIDE);
        if octets > self.max_octets || !self.has_room() {
            return None;
        }
        let flow = self.flows.get_mut(pair)?;
        let is_first = flow.gathered.is_empty();
        flow.gathered.push_back((id, octets));
        flow.seen += 1;
        let (until, due) = (flow.waits_until(), flow.due(self.max_octets));
        self.next_due = [self.next_due, due].into_iter().flatten().min();
        Some((until, is_first))
    }

    /// Lets a message go by itself, whatever was said of it before.
    pub(super) fn let_alone(&mut self, pair: &Pair, id: QueueId) {
        let has_room = self.has_room();
        let Some(flow) = self.flows.get_mut(pair) else { return };
        flow.gathered.retain(|(gathered, _)| *gathered != id);
        if has_room {
            flow.alone.insert(id);
        }
        self.find_next_due();
    }

    /// When the first digest is due.
    pub(super) const fn next_due(&self) -> Option<Instant> {
        self.next_due
    }

    /// The messages of a digest that is due at `now`, as many as it can hold. They are no longer
    /// counted as gathered.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Batch> {
        if self.next_due.is_none_or(|due| due > now) {
            return None;
        }
        let is_due = |flow: &Flow| flow.due(self.max_octets).is_some_and(|due| due <= now);
        let due = self.flows.iter_mut().find(|(_, flow)| is_due(flow));
        let batch = due.map(|(pair, flow)| {
            let messages = flow.take(self.max_octets);
            if flow.gathered.is_empty() {
                flow.is_forced = false;
                if flow.until <= now {
                    flow.renew(now, self.window, self.burst);
                }
            }
            Batch { pair: pair.clone(), messages }
        });
        self.find_next_due();
        batch
    }

    /// Gathers again until `then` what could not be written.
    pub(super) fn put_off(&mut self, mut batch: Batch, then: Instant) {
        if let Some(flow) = self.flows.get_mut(&batch.pair) {
            batch.messages.append(&mut flow.gathered);
            flow.gathered = batch.messages;
            (flow.is_forced, flow.not_before) = (true, Some(then));
        }
        self.find_next_due();
    }

    /// Lets what is gathered go at once.
    pub(super) fn end_windows(&mut self) {
        for flow in self.flows.values_mut() {
            (flow.is_forced, flow.not_before) = (true, None);
        }
        self.find_next_due();
    }

    /// Notes that so much time has passed while the host was asleep.
    pub(super) fn bring_forward(&mut self, by: Duration) {
        for flow in self.flows.values_mut() {
            let earlier = |at: Instant| at.checked_sub(by).unwrap_or(at);
            (flow.began, flow.until) = (earlier(flow.began), earlier(flow.until));
            flow.not_before = flow.not_before.map(earlier);
        }
        self.find_next_due();
    }

    /// Forgets the pairs of which nothing is gathered and whose count is of no use any more.
    pub(super) fn forget_old(&mut self, now: Instant) {
        let (burst, window) = (self.burst, self.window);
        self.flows.retain(|_, flow| {
            let is_flood = flow.seen > burst;
            let of_use = if is_flood { flow.until + window } else { flow.until };
            !flow.gathered.is_empty() || now < of_use
        });
    }

    fn has_room(&self) -> bool {
        let counted = |flow: &Flow| flow.alone.len() + flow.gathered.len();
        self.flows.values().map(counted).sum::<usize>() < MAX_COUNTED
    }

    fn find_next_due(&mut self) {
        self.next_due = self.flows.values().filter_map(|flow| flow.due(self.max_octets)).min();
    }
}

impl Flow {
    fn new(now: Instant, window: Duration) -> Self {
        Self {
            began: now,
            until: now + window,
            alone: HashSet::new(),
            gathered: VecDeque::new(),
            seen: 0,
            is_flood: false,
            is_forced: false,
            not_before: None,
        }
    }

    /// Begins a new window. What was seen in the last one counts only if that has just ended.
    fn renew(&mut self, now: Instant, window: Duration, burst: usize) {
        let is_flood = self.seen > burst && now < self.until + window;
        *self = Self { is_flood, ..Self::new(now, window) };
    }

    /// Until when what is gathered waits at the latest. Never before what could not be written is
    /// tried again, since whoever finds the time past looks again at once.
    fn waits_until(&self) -> Instant {
        self.not_before.map_or(self.until, |then| self.until.max(then))
    }

    /// When a digest is due: at the end of the window, or at once when it is full.
    fn due(&self, max_octets: u64) -> Option<Instant> {
        if self.gathered.is_empty() {
            return None;
        }
        let octets: u64 = self.gathered.iter().map(|(_, octets)| octets).sum();
        let is_full = self.gathered.len() >= MAX_MESSAGES || octets >= max_octets;
        let due = if is_full || self.is_forced { self.began } else { self.until };
        Some(self.not_before.map_or(due, |then| due.max(then)))
    }

    /// The first of the gathered ones, as many as one digest holds: one at least.
    fn take(&mut self, max_octets: u64) -> VecDeque<(QueueId, u64)> {
        let (mut count, mut total) = (0, 0);
        for (_, octets) in self.gathered.iter().take(MAX_MESSAGES) {
            total += octets;
            if count > 0 && total > max_octets {
                break;
            }
            count += 1;
        }
        let rest = self.gathered.split_off(count);
        self.not_before = None;
        std::mem::replace(&mut self.gathered, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn digests(burst: usize) -> Digests {
        Digests::new(&settings::Digest { burst, window: HOUR }, 35 << 20)
    }

    fn pair(sender: &str) -> Pair {
        Pair { sender: sender.parse().unwrap(), recipient: "me@far.test".parse().unwrap() }
    }

    fn id() -> QueueId {
        QueueId::generate(0, 0)
    }

    /// Sends a message of 1000 octets; whether it goes by itself.
    fn send(digests: &mut Digests, pair: &Pair, now: Instant) -> bool {
        let id = id();
        match digests.ask(pair, id, now) {
            Turn::Alone => true,
            Turn::Gathered(_) => panic!("{id} is new"),
            Turn::Exceeded => digests.gather(pair, id, 1000).is_none(),
        }
    }

    #[test]
    fn a_crontab_that_fails_each_minute_is_a_burst_and_then_one_an_hour() {
        let (mut digests, pair, start) = (digests(20), pair("root@pi.test"), Instant::now());
        let (mut alone, mut sizes) = (0, Vec::new());
        for minute in 0..5 * 60 {
            let now = start + MINUTE * minute;
            while let Some(batch) = digests.take_due(now) {
                sizes.push(batch.messages.len());
            }
            alone += usize::from(send(&mut digests, &pair, now));
        }
        assert_eq!((alone, sizes), (20, vec![40, 60, 60, 60]));
        // It was mended, and comes again a day later: as if for the first time.
        let later = start + 29 * HOUR;
        assert_eq!(digests.take_due(later).unwrap().messages.len(), 60);
        assert!(digests.take_due(later).is_none());
        let after = later + 3 * HOUR;
        assert!((0..20).all(|_| send(&mut digests, &pair, after)));
        assert!(!send(&mut digests, &pair, after));
    }

    #[test]
    fn a_window_with_few_ends_a_flood() {
        let (mut digests, pair, start) = (digests(3), pair("root@pi.test"), Instant::now());
        let mut at = |hours: u32, count: usize| {
            let now = start + HOUR * hours + MINUTE;
            let batch = digests.take_due(now).map_or(0, |batch| batch.messages.len());
            let alone = (0..count).filter(|_| send(&mut digests, &pair, now)).count();
            (batch, alone)
        };
        assert_eq!(at(0, 5), (0, 3));
        assert_eq!(at(1, 2), (2, 0));
        assert_eq!(at(2, 5), (2, 3));
        // Nothing for long: what was before does not count.
        assert_eq!(at(9, 2), (2, 2));
        assert_eq!(at(20, 4), (0, 3));
    }

    #[test]
    fn each_pair_counts_by_itself_and_each_message_once() {
        let (mut digests, now) = (digests(2), Instant::now());
        let (one, other) = (pair("root@pi.test"), pair("ann@pi.test"));
        let ids = [id(), id(), id()];
        for _ in 0..3 {
            assert_eq!(digests.ask(&one, ids[0], now), Turn::Alone);
            assert_eq!(digests.ask(&one, ids[1], now), Turn::Alone);
            assert_eq!(digests.ask(&one, ids[2], now), Turn::Exceeded);
        }
        assert_eq!(digests.gather(&one, ids[2], 10), Some((now + HOUR, true)));
        assert_eq!(digests.ask(&one, ids[2], now + MINUTE), Turn::Gathered(now + HOUR));
        assert!(send(&mut digests, &other, now));
        digests.let_alone(&one, ids[2]);
        assert_eq!(digests.ask(&one, ids[2], now), Turn::Alone);
        assert_eq!(digests.next_due(), None);
    }

    #[test]
    fn what_is_too_large_goes_by_itself_and_a_full_digest_at_once() {
        let (mut digests, pair, now) = (digests(1), pair("root@pi.test"), Instant::now());
        assert!(send(&mut digests, &pair, now));
        assert_eq!(digests.gather(&pair, id(), MAX_OCTETS), None);
        for _ in 0..3 {
            assert!(digests.gather(&pair, id(), MAX_OCTETS / 2 - MAX_BESIDE + 1).is_some());
        }
        // Two of them do not fit into one; the last one is not full.
        for left in [2, 1] {
            assert_eq!(digests.take_due(now).unwrap().messages.len(), 1);
            assert_eq!(digests.flows[&pair].gathered.len(), left);
        }
        assert_eq!(digests.take_due(now), None);
        for _ in 0..2 * MAX_MESSAGES {
            assert!(!send(&mut digests, &pair, now));
        }
        let sizes = std::iter::from_fn(|| digests.take_due(now)).map(|batch| batch.messages.len());
        assert_eq!(sizes.collect::<Vec<_>>(), [MAX_MESSAGES, MAX_MESSAGES]);
        assert_eq!(digests.next_due(), Some(now + HOUR));
        assert_eq!(digests.take_due(now + HOUR).unwrap().messages.len(), 1);
    }

    #[test]
    fn what_could_not_be_written_is_put_off_and_keeps_its_order() {
        let (mut digests, pair, now) = (digests(1), pair("root@pi.test"), Instant::now());
        assert!(send(&mut digests, &pair, now));
        let first = id();
        digests.gather(&pair, first, 10).unwrap();
        assert!(!send(&mut digests, &pair, now));
        digests.end_windows();
        let batch = digests.take_due(now).unwrap();
        assert_eq!(batch.messages.len(), 2);
        assert!(!send(&mut digests, &pair, now));
        digests.put_off(batch, now + MINUTE);
        assert_eq!((digests.take_due(now), digests.next_due()), (None, Some(now + MINUTE)));
        let batch = digests.take_due(now + HOUR).unwrap();
        assert_eq!((batch.messages.len(), batch.messages[0].0), (3, first));
        digests.put_off(batch, now + HOUR + MINUTE);
        assert_eq!(digests.take_due(now + HOUR), None);
        assert_eq!(digests.take_due(now + HOUR + MINUTE).unwrap().messages.len(), 3);
        // What the host slept through has passed.
        let later = now + HOUR + MINUTE;
        assert!(!send(&mut digests, &pair, later));
        assert_eq!(digests.take_due(later), None);
        digests.bring_forward(HOUR);
        assert!(digests.take_due(later).is_some());
    }

    #[test]
    fn nobody_waits_for_a_moment_that_is_past_where_part_of_a_flood_could_not_be_written() {
        let (mut digests, pair, now) = (digests(1), pair("root@pi.test"), Instant::now());
        assert!(send(&mut digests, &pair, now));
        let ids = [id(), id(), id()];
        for id in ids {
            digests.gather(&pair, id, MAX_OCTETS / 2).unwrap();
        }
        // The window is over, and more was gathered than one digest holds.
        let (over, then) = (now + HOUR, now + HOUR + MINUTE);
        let batch = digests.take_due(over).unwrap();
        assert_eq!(batch.messages.len(), 1);
        digests.put_off(batch, then);
        assert_eq!(digests.next_due(), Some(then));
        for id in ids {
            assert_eq!(digests.ask(&pair, id, over), Turn::Gathered(then));
        }
    }

    #[test]
    fn many_senders_and_many_messages_are_bounded() {
        let (mut all, now) = (digests(1), Instant::now());
        let pairs: Vec<_> = (0..=MAX_PAIRS).map(|n| pair(&format!("u{n}@pi.test"))).collect();
        for pair in &pairs {
            assert!(send(&mut all, pair, now));
        }
        assert_eq!(all.flows.len(), MAX_PAIRS);
        assert!(!send(&mut all, &pairs[0], now));
        assert!(send(&mut all, &pairs[MAX_PAIRS], now));
        // Old ones make room, but for what is gathered.
        assert!(send(&mut all, &pairs[MAX_PAIRS], now + HOUR));
        assert_eq!(all.flows.len(), 2);
        let (mut many, pair) = (digests(2 * MAX_COUNTED), pair("root@pi.test"));
        for _ in 0..MAX_COUNTED + 10 {
            assert!(send(&mut many, &pair, now));
        }
        assert_eq!(many.flows[&pair].alone.len(), MAX_COUNTED);
    }

    #[test]
    fn without_a_burst_nothing_is_wanted() {
        assert!(!digests(0).are_wanted());
        assert!(digests(1).are_wanted());
    }
}
