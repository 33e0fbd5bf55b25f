//! What goes for the next session. When the configuration is read again, it is another thing from
//! one session to the next; a session that has begun keeps what it began with.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::settings::Listener;
use crate::receive::Reception;

/// What a listener's sessions go by.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What all listeners share.
    pub reception: Arc<Reception>,
    /// What the listener's section says.
    pub listener: Arc<Listener>,
}

/// What counts at the moment, and may be replaced at any time.
#[derive(Debug)]
pub struct Current<T>(Mutex<T>);

impl<T: Clone> Current<T> {
    /// This, to begin with.
    pub const fn new(first: T) -> Self {
        Self(Mutex::new(first))
    }

    /// What counts now. Cheap where `T` is a pointer or a few.
    pub fn get(&self) -> T {
        self.lock().clone()
    }

    /// Has `next` count from now on.
    pub fn set(&self, next: T) {
        let before = std::mem::replace(&mut *self.lock(), next);
        // It may have a lot to free; nobody waits for that.
        drop(before);
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        // It is replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
