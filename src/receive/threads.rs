//! The threads of the sessions: one for each, as long as it lasts. A thread whose session is
//! over waits a moment for the next one, since starting a thread costs more system calls than
//! a message does.

use std::io;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

/// The stack of a session thread. Only the pages that are touched cost memory.
const STACK: usize = 256 << 10;
/// How long a thread without a session waits for one.
const LINGER: Duration = Duration::from_secs(2);

/// What a thread does: a whole session, which catches its own panics.
pub type Work = Box<dyn FnOnce() + Send>;

/// Where sessions find their threads.
#[derive(Debug)]
pub struct SessionThreads {
    /// Without any room, so that work is sent only to a thread that waits for it.
    free: Sender<Work>,
    waiting: Receiver<Work>,
}

impl Default for SessionThreads {
    fn default() -> Self {
        let (free, waiting) = bounded(0);
        Self { free, waiting }
    }
}

impl SessionThreads {
    /// Has a thread do this work, a waiting one or a new one.
    ///
    /// # Errors
    /// When there is none and none can be started; the work is dropped.
    pub fn run(&self, work: Work) -> io::Result<()> {
        let Err(refused) = self.free.try_send(work) else { return Ok(()) };
        let (mut work, waiting) = (refused.into_inner(), self.waiting.clone());
        let thread = thread::Builder::new().name("session".into()).stack_size(STACK);
        let serve = move || {
            loop {
                work();
                match waiting.recv_timeout(LINGER) {
                    Ok(next) => work = next,
                    Err(_) => return,
                }
            }
        };
        thread.spawn(serve).map(drop)
    }
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
