//! Who is just taking a message, so that a server that stops can wait for the last word: one that
//! ended between the delivery and the 250 would have the message sent again.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts the messages that have come whole, and whose clients were not told yet.
#[derive(Debug, Default)]
pub struct AtWork {
    state: Mutex<State>,
    is_less: Condvar,
}

#[derive(Debug, Default)]
struct State {
    count: usize,
    is_closed: bool,
}

/// A message that is being taken, until this is dropped.
#[derive(Debug)]
#[must_use = "the work counts as done as soon as this is dropped"]
pub struct Work<'a>(&'a AtWork);

impl AtWork {
    /// Begins with a message; `None` where none is taken any more.
    pub fn begin(&self) -> Option<Work<'_>> {
        let mut state = self.state();
        if state.is_closed {
            return None;
        }
        state.count += 1;
        Some(Work(self))
    }

    /// Lets no message begin any more, and waits until nobody is at work, for `patience` at most;
    /// `false` where somebody still is.
    pub fn close(&self, patience: Duration) -> bool {
        let mut state = self.state();
        state.is_closed = true;
        let is_busy = |state: &mut State| state.count > 0;
        let waited = self.is_less.wait_timeout_while(state, patience, is_busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// A number and a flag are whole whoever panics.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.0.state().count -= 1;
        self.0.is_less.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_is_waited_for_and_none_begins_behind_it() {
        let at_work = AtWork::default();
        let (first, second) = (at_work.begin().unwrap(), at_work.begin().unwrap());
        drop(first);
        assert!(!at_work.close(Duration::from_millis(1)));
        assert!(at_work.begin().is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| at_work.close(Duration::from_secs(60)));
            drop(second);
            assert!(waiting.join().unwrap());
        });
    }
}
