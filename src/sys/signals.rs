//! Signals as a stream of what they mean.

#![expect(unsafe_code, reason = "an action in a signal handler has no safe wrapper")]

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT: stop.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: try the whole queue now.
    RetryQueue,
}

/// Waits for signals. To be made before any other thread starts, so that none is lost.
#[derive(Debug)]
pub struct Requests {
    signals: Signals,
    arrived: VecDeque<i32>,
}

impl Requests {
    /// Takes over the signals, and [`outlive_large_files`]: one mailbox that is too long stops no
    /// other mail.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn new() -> io::Result<Self> {
        outlive_large_files()?;
        let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
        Ok(Self { signals, arrived: VecDeque::new() })
    }

    /// Whether one has come that says stop. Nobody waits, and [`Self::wait`] gives each all the same.
    pub fn has_stop(&mut self) -> bool {
        self.arrived.extend(self.signals.pending());
        self.arrived.iter().any(|signal| matches!(*signal, SIGTERM | SIGINT))
    }

    /// Waits for the next one.
    pub fn wait(&mut self) -> Request {
        loop {
            match self.arrived.pop_front() {
                Some(SIGHUP) => return Request::Reload,
                Some(SIGUSR1) => return Request::RetryQueue,
                Some(_) => return Request::Stop,
                None => self.arrived.extend(self.signals.wait()),
            }
        }
    }
}

/// Takes a signal that says nothing: by itself, SIGXFSZ ends a program that writes beyond the limit
/// of a file's size (setrlimit(2)). Without it the write fails.
///
/// # Errors
/// When the system does not let us.
pub fn outlive_large_files() -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map(drop)
}

/// Has `last` done before SIGTERM or SIGHUP ends the process, as they do by themselves. Only what is
/// said first counts.
///
/// # Safety
/// `last` does only what a signal handler may (signal-safety(7)): system calls and atomics, nothing
/// that allocates, locks or panics.
///
/// # Errors
/// When the system does not let us.
pub unsafe fn before_the_end(last: fn()) -> io::Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.set(()).is_err() {
        return Ok(());
    }
    for signal in [SIGTERM, SIGHUP] {
        let action = move || {
            last();
            // It fails for signals that have no default, and these have one.
            let _ = low_level::emulate_default_handler(signal);
        };
        // SAFETY: the caller vouches for `last`, and the rest is made for handlers.
        unsafe { low_level::register(signal, action) }?;
    }
    Ok(())
}

/// SIGINT of a program that asks a person: it ends the program, but not while that is held back.
#[derive(Debug)]
pub struct Interrupts {
    /// Whether it does what it does by itself.
    ends: Arc<AtomicBool>,
}

impl Interrupts {
    /// Takes it over. Once in a process, since two would not agree.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn take() -> io::Result<Self> {
        let ends = Arc::new(AtomicBool::new(true));
        flag::register_conditional_default(SIGINT, Arc::clone(&ends))?;
        Ok(Self { ends })
    }

    /// Has it end no more than a wait while `work` runs.
    pub fn hold<T>(&self, work: impl FnOnce() -> T) -> T {
        self.ends.store(false, Ordering::SeqCst);
        let result = work();
        self.ends.store(true, Ordering::SeqCst);
        result
    }
}
