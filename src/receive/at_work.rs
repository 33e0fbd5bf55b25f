//! Who has something to say yet before a server that stops may end: whoever is taking a message,
//! since one that ended between the delivery and the 250 would have it sent again; and whoever has to
//! tell its client that the server stops.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts those who are not to be cut off.
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

/// One of them, until this is dropped.
#[derive(Debug)]
#[must_use = "the work counts as done as soon as this is dropped"]
pub struct Work<'a>(&'a AtWork);

impl AtWork {
    /// Begins; `None` where nobody is waited for any more.
    pub fn begin(&self) -> Option<Work<'_>> {
        let mut state = self.state();
        if state.is_closed {
            return None;
        }
        state.count += 1;
        Some(Work(self))
    }

    /// Lets nobody begin any more, and waits until nobody is at work, for `patience` at most;
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
