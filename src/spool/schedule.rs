//! When each waiting message is due.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::spool::id::QueueId;

/// The longest pause: longer ones would leave the clock's range.
const LONGEST_PAUSE: Duration = Duration::from_secs(365 * 86_400);

/// The moment `pause` after `now`, or a year after it if that comes first.
pub fn after(now: Instant, pause: Duration) -> Instant {
    now + pause.min(LONGEST_PAUSE)
}

/// The messages that wait, by the moment at which they are due. Memory: two small entries a
/// message; what the message is about stays on disk.
#[derive(Debug, Default)]
pub struct Schedule {
    by_time: BTreeSet<(Instant, QueueId)>,
    due: HashMap<QueueId, Instant>,
}

impl Schedule {
    /// Lets `id` wait until `due`, instead of any moment set before.
    pub fn insert(&mut self, id: QueueId, due: Instant) {
        if let Some(before) = self.due.insert(id, due) {
            self.by_time.remove(&(before, id));
        }
        self.by_time.insert((due, id));
    }

    /// Takes out the message that is due longest, if one is due at `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<QueueId> {
        let (due, id) = *self.by_time.first()?;
        if due > now {
            return None;
        }
        self.by_time.remove(&(due, id));
        self.due.remove(&id);
        Some(id)
    }

    /// When the next message is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// Whether `id` waits.
    pub fn contains(&self, id: QueueId) -> bool {
        self.due.contains_key(&id)
    }

    /// Makes every message due at `now`.
    pub fn make_all_due(&mut self, now: Instant) {
        self.by_time = self.due.keys().map(|id| (now, *id)).collect();
        self.due.values_mut().for_each(|due| *due = now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_in_the_order_of_their_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let ids: Vec<_> = (0..3).map(|_| QueueId::generate(0, 0)).collect();
        let mut schedule = Schedule::default();
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
        schedule.make_all_due(at(15));
        assert_eq!(schedule.pop_due(at(15)), Some(ids[2]));
        assert_eq!(schedule.next_due(), None);
    }
}
