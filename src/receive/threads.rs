//! The threads of the sessions: one for each, as long as it lasts. A thread whose session is
//! over waits a moment for the next one, since starting a thread costs more system calls than
//! a message does. What OpenSSL keeps for a thread is freed when that ends, so after many threads
//! the memory is given back to the system then, and not when their sessions are over.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::sys::process;

/// The stack of a session thread. Only the pages that are touched cost memory.
const STACK: usize = 256 << 10;
/// How long a thread without a session waits for one.
const LINGER: Duration = Duration::from_secs(2);
/// So many threads have to have ended until memory is given back.
const BURST: usize = 50;

/// What a thread does: a whole session, which catches its own panics.
pub type Work = Box<dyn FnOnce() + Send>;

/// Where sessions find their threads.
#[derive(Clone, Debug, Default)]
pub struct SessionThreads {
    free: Arc<Mutex<Free>>,
}

#[derive(Default)]
struct Free {
    /// The threads that wait for work. Whoever takes one out gives it some.
    desks: Vec<Arc<Desk>>,
    /// How many threads there are, at work or waiting.
    threads: usize,
    /// How many have ended since memory was given back.
    ended: usize,
}

/// Where a thread finds its next work.
#[derive(Default)]
struct Desk {
    work: Mutex<Option<Work>>,
    given: Condvar,
}

impl std::fmt::Debug for Free {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} free threads", self.desks.len())
    }
}

impl SessionThreads {
    /// Has a thread do this work, a waiting one or a new one.
    ///
    /// # Errors
    /// When there is none and none can be started; the work is dropped.
    pub fn run(&self, work: Work) -> io::Result<()> {
        let desk = {
            let mut free = lock(&self.free);
            let desk = free.desks.pop();
            free.threads += usize::from(desk.is_none());
            desk
        };
        if let Some(desk) = desk {
            *lock(&desk.work) = Some(work);
            desk.given.notify_one();
            return Ok(());
        }
        let threads = self.clone();
        let thread = thread::Builder::new().name("session".into()).stack_size(STACK);
        let started = thread.spawn(move || threads.serve(work)).map(drop);
        if started.is_err() {
            lock(&self.free).threads -= 1;
        }
        started
    }

    fn serve(&self, mut work: Work) {
        let desk = Arc::new(Desk::default());
        loop {
            work();
            match self.next_work(&desk) {
                Some(next) => work = next,
                None => return,
            }
        }
    }

    /// Waits for work; `None` when there was none for a while.
    fn next_work(&self, desk: &Arc<Desk>) -> Option<Work> {
        lock(&self.free).desks.push(Arc::clone(desk));
        let is_empty = |work: &mut Option<Work>| work.is_none();
        let mut is_last_of_many = false;
        loop {
            let waited = desk.given.wait_timeout_while(lock(&desk.work), LINGER, is_empty);
            let work = waited.unwrap_or_else(PoisonError::into_inner).0.take();
            if work.is_some() {
                return work;
            }
            let mut free = lock(&self.free);
            let Some(place) = free.desks.iter().position(|other| Arc::ptr_eq(other, desk)) else {
                drop(free);
                // Somebody took this thread out just now.
                let given = desk.given.wait_while(lock(&desk.work), is_empty);
                return given.unwrap_or_else(PoisonError::into_inner).take();
            };
            // The others free what they kept behind their last word; it is waited for.
            if free.threads == 1 && free.ended >= BURST && !is_last_of_many {
                is_last_of_many = true;
                continue;
            }
            free.desks.swap_remove(place);
            free.threads -= 1;
            free.ended = if is_last_of_many { 0 } else { free.ended + 1 };
            drop(free);
            if is_last_of_many {
                process::trim_memory();
            }
            return None;
        }
    }
}

/// What is behind these locks is whole at any moment, whoever panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;
    use std::collections::HashSet;

    #[test]
    fn each_session_at_work_has_a_thread_of_its_own() {
        let threads = SessionThreads::default();
        let (told, tell) = unbounded();
        let (go_on, wait) = unbounded::<()>();
        for _ in 0..3 {
            let (told, wait) = (told.clone(), wait.clone());
            let work = move || {
                told.send(thread::current().id()).unwrap();
                // Ends when the test says so.
                let _ = wait.recv();
            };
            threads.run(Box::new(work)).unwrap();
        }
        let ids: HashSet<_> = (0..3).map(|_| tell.recv().unwrap()).collect();
        assert_eq!(ids.len(), 3);
        drop(go_on);
    }

    #[test]
    fn a_thread_that_is_free_takes_the_next_session() {
        let threads = SessionThreads::default();
        let (told, tell) = unbounded();
        let mut ids = HashSet::new();
        // The next one may come before the last thread waits; it does not always.
        for _ in 0..10_000 {
            let told = told.clone();
            threads.run(Box::new(move || told.send(thread::current().id()).unwrap())).unwrap();
            if !ids.insert(tell.recv().unwrap()) {
                return;
            }
        }
        panic!("each session had a new thread");
    }
}
