//! Clients that ask for the queue to be tried now (ETRN, RFC 1985): a host that was away and is
//! back does not wait for the next retry.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::spool::manager::Order;

/// How often clients together may have the whole queue tried.
const PERIOD: Duration = Duration::from_secs(10);

/// Passes the wishes of clients on to the queue manager, though not too often.
#[derive(Debug)]
pub struct QueueRuns {
    orders: Sender<Order>,
    last: Mutex<Option<Instant>>,
}

impl QueueRuns {
    /// Tells the manager by `orders`.
    pub const fn new(orders: Sender<Order>) -> Self {
        Self { orders, last: Mutex::new(None) }
    }

    /// Has every waiting message tried at `now`. `false` when that was done a moment ago.
    pub fn start(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| now.saturating_duration_since(last) < PERIOD) {
            return false;
        }
        *last = Some(now);
        // A full channel holds the same order already.
        let _ = self.orders.try_send(Order::RetryAll);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_not_started_again_and_again() {
        let (orders, taken) = crossbeam_channel::bounded(1);
        let (runs, now) = (QueueRuns::new(orders), Instant::now());
        assert!(runs.start(now));
        assert!(!runs.start(now + PERIOD / 2));
        assert!(runs.start(now + PERIOD));
        assert_eq!(taken.try_iter().collect::<Vec<_>>(), [Order::RetryAll]);
    }
}
