//! What was asked of the system a moment ago and is believed for a while.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most answers that are remembered.
const MOST: usize = 256;

/// Answers by name, each believed for a time.
#[derive(Debug)]
pub struct Remembered<T> {
    lifetime: Duration,
    known: Mutex<HashMap<String, (Instant, T)>>,
}

impl<T: Clone> Remembered<T> {
    /// Believes each answer for `lifetime`.
    pub fn new(lifetime: Duration) -> Self {
        Self { lifetime, known: Mutex::default() }
    }

    /// The answer for `name`, if it is still to be believed.
    pub fn recall(&self, name: &str) -> Option<T> {
        let known = self.known();
        let (asked, answer) = known.get(name)?;
        (asked.elapsed() < self.lifetime).then(|| answer.clone())
    }

    /// Remembers an answer, instead of what was known before.
    pub fn remember(&self, name: &str, answer: T) {
        let mut known = self.known();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(name.to_owned(), (Instant::now(), answer));
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, (Instant, T)>> {
        // Nothing but whole values is ever put in.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_believed_for_its_time_and_the_last_one_counts() {
        let remembered = Remembered::new(Duration::from_secs(3600));
        assert_eq!(remembered.recall("ann"), None);
        remembered.remember("ann", 1);
        remembered.remember("ann", 2);
        assert_eq!(remembered.recall("ann"), Some(2));
        (0..2 * MOST).for_each(|number| remembered.remember(&number.to_string(), number));
        assert!(remembered.known().len() <= MOST);
        let forgetful = Remembered::new(Duration::ZERO);
        forgetful.remember("ann", 1);
        assert_eq!(forgetful.recall("ann"), None);
    }
}
