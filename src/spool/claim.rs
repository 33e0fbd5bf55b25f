//! The agreement between a session that waits before it answers 250 and the queue manager that
//! delivers meanwhile: who decides first decides for both.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What becomes of a message that its session offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every recipient has it, flushed; nothing need be stored.
    Delivered,
    /// The session must store it before it answers.
    Store,
}

/// A verdict that is found once.
#[derive(Debug, Default)]
pub(super) struct Claim {
    verdict: Mutex<Option<Verdict>>,
    found: Condvar,
}

impl Claim {
    /// Decides, unless that was done before. Says whether `verdict` is what counts.
    pub(super) fn decide(&self, verdict: Verdict) -> bool {
        let counts = *self.lock().get_or_insert(verdict) == verdict;
        self.found.notify_one();
        counts
    }

    /// Waits for the verdict, but no longer than `patience`: then it is to store the message.
    pub(super) fn wait(&self, patience: Duration) -> Verdict {
        let is_open = |verdict: &mut Option<Verdict>| verdict.is_none();
        let waited = self.found.wait_timeout_while(self.lock(), patience, is_open);
        *waited.unwrap_or_else(PoisonError::into_inner).0.get_or_insert(Verdict::Store)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Verdict>> {
        // A verdict is whole whatever panics.
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_verdict_counts_for_both() {
        for verdict in [Verdict::Delivered, Verdict::Store] {
            let claim = Claim::default();
            assert!(claim.decide(verdict));
            assert_eq!(claim.wait(Duration::ZERO), verdict);
        }
        let claim = Claim::default();
        assert_eq!(claim.wait(Duration::from_millis(1)), Verdict::Store);
        assert!(!claim.decide(Verdict::Delivered));
        assert_eq!(claim.wait(Duration::ZERO), Verdict::Store);
    }

    #[test]
    fn a_verdict_ends_the_wait() {
        let claim = Claim::default();
        std::thread::scope(|scope| {
            let session = scope.spawn(|| claim.wait(Duration::from_secs(3600)));
            assert!(claim.decide(Verdict::Delivered));
            assert_eq!(session.join().unwrap(), Verdict::Delivered);
        });
    }
}
