//! How long each message has been in the queue: the time that is known to have passed, by
//! clocks that nobody sets. What the wall clock says is not to be trusted on a host that boots
//! in 1970 and then learns the time. What passed between two runs of the daemon is told by
//! [`crate::spool::timekeeper`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::spool::id::QueueId;

/// The ages of the messages that this process knows. Memory: one small entry a message.
#[derive(Debug)]
pub struct Ages {
    epoch: Instant,
    /// Milliseconds in which the clock of `epoch` stood still.
    slept: i64,
    /// When each came, in milliseconds after the epoch; before it for one that is older.
    born: HashMap<QueueId, i64>,
}

impl Default for Ages {
    fn default() -> Self {
        Self { epoch: Instant::now(), slept: 0, born: HashMap::new() }
    }
}

impl Ages {
    /// Begins to count for `id`, which had waited for `waited` before; what counts already
    /// goes on.
    pub fn begin(&mut self, id: QueueId, waited: Duration, now: Instant) {
        let born = self.at(now).saturating_sub(milliseconds(waited));
        self.born.entry(id).or_insert(born);
    }

    /// How old `id` is; zero where nothing is known of it.
    pub fn of(&self, id: QueueId, now: Instant) -> Duration {
        let age = self.born.get(&id).map_or(0, |born| self.at(now).saturating_sub(*born));
        Duration::from_millis(u64::try_from(age).unwrap_or(0))
    }

    /// Notes that so much time has passed while the host was asleep.
    pub fn bring_forward(&mut self, by: Duration) {
        self.slept = self.slept.saturating_add(milliseconds(by));
    }

    /// Whether the age of `id` is counted.
    pub fn counts(&self, id: QueueId) -> bool {
        self.born.contains_key(&id)
    }

    /// Forgets a message that is gone.
    pub fn forget(&mut self, id: QueueId) {
        self.born.remove(&id);
    }

    fn at(&self, now: Instant) -> i64 {
        milliseconds(now.saturating_duration_since(self.epoch)).saturating_add(self.slept)
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_goes_on_from_what_was_waited_before() {
        let (id, second) = (QueueId::generate(0, 0), Duration::from_secs(1));
        let mut ages = Ages::default();
        let start = ages.epoch;
        assert_eq!(ages.of(id, start), Duration::ZERO);
        ages.begin(id, 100 * second, start + second);
        assert_eq!(ages.of(id, start + 3 * second), 102 * second);
        ages.begin(id, Duration::ZERO, start + 3 * second);
        assert_eq!(ages.of(id, start + 3 * second), 102 * second);
        ages.bring_forward(50 * second);
        assert_eq!(ages.of(id, start + 3 * second), 152 * second);
        ages.forget(id);
        ages.begin(id, Duration::MAX, start);
        assert!(ages.of(id, start) > 1_000_000 * second);
    }
}
