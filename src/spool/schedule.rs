//! When each waiting message is due.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::spool::id::QueueId;

/// The longest pause: longer ones would leave the clock's range.
const LONGEST_PAUSE: Duration = Duration::from_secs(365 * 86_400);
/// The part of a pause by which it is made longer or shorter at most.
const SPREAD: u32 = 8;
/// The most by which a pause is made longer or shorter.
const MAX_SPREAD: Duration = Duration::from_secs(600);

/// The moment `pause` after `now`, or a year after it if that comes first.
pub fn after(now: Instant, pause: Duration) -> Instant {
    now + pause.min(LONGEST_PAUSE)
}

/// `pause`, or up to an eighth and ten minutes more or less, so that messages which were
/// deferred together do not wake together. The same `seed` spreads it the same way.
pub fn spread(pause: Duration, seed: u64) -> Duration {
    let pause = pause.min(LONGEST_PAUSE);
    let most = (pause / SPREAD).min(MAX_SPREAD);
    let part = part_of(most * 2, seed);
    pause - most + part
}

/// Anything from nothing to an eighth of `pause` and ten minutes: what is added where a
/// message must not wake before a moment that it shares with many.
pub fn delay(pause: Duration, seed: u64) -> Duration {
    part_of((pause.min(LONGEST_PAUSE) / SPREAD).min(MAX_SPREAD), seed)
}

/// A part of `whole` by the upper half of the mixed seed.
fn part_of(whole: Duration, seed: u64) -> Duration {
    let share = mix(seed) >> 32;
    let nanoseconds = (whole.as_nanos() * u128::from(share)) >> 32;
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// Makes of neighbouring numbers, as ids are, ones that have nothing to do with each other:
/// the last step of SplitMix64.
const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// What may end a wait before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a network again.
    Network,
    /// There is another password for a login that was refused.
    Login,
}

/// The messages that wait, by the moment at which they are due. Memory: two small entries a
/// message; what the message is about stays on disk.
#[derive(Debug)]
pub struct Schedule {
    /// Moments are kept as nanoseconds after this.
    epoch: Instant,
    by_time: BTreeSet<(u64, QueueId)>,
    due: HashMap<QueueId, u64>,
    /// Those that wait for something else, too, and are due when it happens.
    for_event: HashMap<QueueId, Event>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            by_time: BTreeSet::new(),
            due: HashMap::new(),
            for_event: HashMap::new(),
        }
    }
}

impl Schedule {
    /// Lets `id` wait until `due`, instead of any moment set before.
    pub fn insert(&mut self, id: QueueId, due: Instant) {
        let due = self.at(due);
        if let Some(before) = self.due.insert(id, due) {
            self.by_time.remove(&(before, id));
        }
        self.by_time.insert((due, id));
        self.for_event.remove(&id);
    }

    /// Lets `id` wait until `due` or until that happens.
    pub fn insert_for(&mut self, event: Event, id: QueueId, due: Instant) {
        self.insert(id, due);
        self.for_event.insert(id, event);
    }

    /// Takes out the message that is due longest, if one is due at `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<QueueId> {
        let (due, id) = *self.by_time.first()?;
        if due > self.at(now) {
            return None;
        }
        self.by_time.remove(&(due, id));
        self.due.remove(&id);
        self.for_event.remove(&id);
        Some(id)
    }

    /// Lets `id` wait no longer.
    pub fn remove(&mut self, id: QueueId) {
        if let Some(due) = self.due.remove(&id) {
            self.by_time.remove(&(due, id));
            self.for_event.remove(&id);
        }
    }

    /// When the next message is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.by_time.first().map(|(due, _)| self.epoch + Duration::from_nanos(*due))
    }

    /// Whether `id` waits.
    pub fn contains(&self, id: QueueId) -> bool {
        self.due.contains_key(&id)
    }

    /// Makes every message due at `now`.
    pub fn make_all_due(&mut self, now: Instant) {
        let now = self.at(now);
        self.by_time = self.due.keys().map(|id| (now, *id)).collect();
        self.due.values_mut().for_each(|due| *due = now);
        self.for_event.clear();
    }

    /// Makes those messages due at `now` that wait for that.
    pub fn make_due_for(&mut self, event: Event, now: Instant) {
        let due: Vec<_> = self.for_event.extract_if(|_, awaited| *awaited == event).collect();
        for (id, _) in due {
            self.insert(id, now);
        }
    }

    /// Notes that so much time has passed while the host was asleep: everything is due so
    /// much earlier.
    pub fn bring_forward(&mut self, by: Duration) {
        // Where the clock cannot go back so far, what is due comes later than it might.
        self.epoch = self.epoch.checked_sub(by).unwrap_or(self.epoch);
    }

    fn at(&self, moment: Instant) -> u64 {
        let after = moment.saturating_duration_since(self.epoch);
        u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_in_the_order_of_their_time() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let ids: Vec<_> = (0..3).map(|_| QueueId::generate(0, 0)).collect();
        schedule.insert(ids[0], at(30));
        schedule.insert(ids[1], at(10));
        schedule.insert(ids[2], at(20));
        schedule.insert(ids[0], at(5));
        assert_eq!(schedule.next_due(), Some(at(5)));
        assert_eq!(schedule.pop_due(at(4)), None);
        assert_eq!(schedule.pop_due(at(15)), Some(ids[0]));
        assert_eq!(schedule.pop_due(at(15)), Some(ids[1]));
        assert_eq!(schedule.pop_due(at(15)), None);
        assert!(schedule.contains(ids[2]) && !schedule.contains(ids[1]));
        schedule.insert_for(Event::Network, ids[1], at(1));
        schedule.remove(ids[1]);
        schedule.remove(ids[1]);
        assert_eq!((schedule.contains(ids[1]), schedule.pop_due(at(15))), (false, None));
        assert_eq!(schedule.for_event.len(), 0);
        schedule.make_all_due(at(15));
        assert_eq!(schedule.pop_due(at(15)), Some(ids[2]));
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn an_event_wakes_those_that_wait_for_it() {
        let mut schedule = Schedule::default();
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        let ids: Vec<_> = (0..4).map(|_| QueueId::generate(0, 0)).collect();
        schedule.insert_for(Event::Network, ids[0], later);
        schedule.insert(ids[1], later);
        schedule.insert_for(Event::Network, ids[2], later);
        schedule.insert(ids[2], later);
        schedule.insert_for(Event::Login, ids[3], later);
        schedule.make_due_for(Event::Network, now);
        assert_eq!(schedule.pop_due(now), Some(ids[0]));
        assert_eq!(schedule.pop_due(now), None);
        assert_eq!((schedule.for_event.len(), schedule.due.len()), (1, 3));
        schedule.make_due_for(Event::Login, now);
        assert_eq!(schedule.pop_due(now), Some(ids[3]));
        assert_eq!(schedule.pop_due(now), None);
    }

    #[test]
    fn what_a_host_slept_through_has_passed() {
        let mut schedule = Schedule::default();
        let (now, minute) = (Instant::now(), Duration::from_secs(60));
        let id = QueueId::generate(0, 0);
        schedule.insert(id, now + 3 * minute);
        schedule.bring_forward(2 * minute);
        assert_eq!(schedule.next_due(), Some(now + minute));
        assert_eq!(schedule.pop_due(now + minute / 2), None);
        assert_eq!(schedule.pop_due(now + minute), Some(id));
    }

    #[test]
    fn pauses_are_spread_within_their_bounds() {
        let seconds = Duration::from_secs;
        for pause in [0, 1, 60, 3600, 14_400, 86_400, u64::MAX].map(seconds) {
            let pause_now = pause.min(LONGEST_PAUSE);
            let most = (pause_now / 8).min(seconds(600));
            for seed in (0..1000).chain([u64::MAX]) {
                let spread = spread(pause, seed);
                assert!(spread >= pause_now - most && spread <= pause_now + most, "{spread:?}");
                assert!(delay(pause, seed) <= most);
            }
        }
    }

    #[test]
    fn a_thousand_neighbours_do_not_wake_together() {
        let mut buckets = [0; 20];
        for seed in 0..1000 {
            let early = spread(Duration::from_secs(80), seed) - Duration::from_secs(70);
            buckets[early.as_secs() as usize] += 1;
        }
        assert!(buckets.iter().all(|count| (20..100).contains(count)), "{buckets:?}");
    }
}
