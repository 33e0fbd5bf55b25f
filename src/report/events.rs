//! The journal of events: what happened to each message, as lines in `[server] state`/events, for
//! `mailwren trace` and `mailwren status`. `[log] events` bounds what it takes on disk.
//!
//! Nobody waits for the disk because of it. Who has something to note puts a line into memory, under
//! a lock that is held for that alone; one thread gathers what comes within a second and writes it
//! in one go. What that thread cannot write is lost, and so is what would be too much to keep in
//! memory meanwhile; the log says so, once a minute at most. Nothing is flushed: a power cut costs
//! the last lines, a kill of the server those of its last second.

pub mod reader;
mod writer;

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::config::settings::Settings;
use crate::report::complaint::Complaint;
use crate::report::event::{self, Fields, Station};
use crate::spool::id::QueueId;
use crate::sys::clock;
use crate::sys::disk::Disk;
use writer::Writer;

/// The name of the file that grows; older ones have a number behind it, `events.1` the youngest.
const NAME: &str = "events";
/// The most files beside the one that grows.
const KEPT: u32 = 3;
/// How long lines are gathered.
const GATHER: Duration = Duration::from_secs(1);
/// So many octets are written at once.
const ENOUGH: usize = 32 << 10;
/// The most octets that wait in memory. More comes only where the disk hangs.
const MAX_WAITING: usize = 256 << 10;
/// How long the end of the server waits for the last lines.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The stack of the thread that writes.
const STACK: usize = 128 << 10;

/// The one of this process.
static JOURNAL: Journal = Journal::new();
static WRITES_FAIL_TOLD: Complaint = Complaint::new();
static TOO_MUCH_TOLD: Complaint = Complaint::new();

/// Where the journal is, and how large.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    folder: PathBuf,
    /// The most octets of all its files. With 0 there are none.
    size_octets: u64,
}

/// Begins the journal of the running server, or goes on with one that has other settings now.
///
/// # Errors
/// When there can be no thread for it.
pub fn configure(settings: &Settings) -> io::Result<()> {
    let folder = settings.server.state.clone();
    if JOURNAL.set_place(Place { folder, size_octets: settings.events_size }) {
        let builder = thread::Builder::new().name("events".into()).stack_size(STACK);
        builder.spawn(|| JOURNAL.run(&Disk::host()))?;
    }
    Ok(())
}

/// Writes what was noted, and takes no more. To be called when the server ends.
pub fn finish() {
    JOURNAL.finish(LAST_WORDS);
}

/// Why lines were lost at last, in words for a person; `None` where none were.
pub fn failure() -> Option<String> {
    JOURNAL.lock().failure.clone()
}

/// Notes that something happened, where a journal is kept.
pub(super) fn note(id: Option<QueueId>, station: Station, fields: &Fields) {
    JOURNAL.note(id, station, fields);
}

/// Whether a journal is kept.
pub(super) fn is_kept() -> bool {
    JOURNAL.lock().is_kept()
}

/// A journal: what waits to be written, and where to.
#[derive(Debug)]
struct Journal {
    waiting: Mutex<Waiting>,
    /// Rings when there is something to do, and when all is done.
    bell: Condvar,
}

#[derive(Debug)]
struct Waiting {
    /// `None` before the journal begins and after its end.
    place: Option<Place>,
    lines: String,
    /// What the thread has to see besides lines: another place.
    is_moved: bool,
    /// Whether there is a thread.
    is_run: bool,
    is_ending: bool,
    /// Why the last lines that could not be written were lost.
    failure: Option<String>,
}

impl Waiting {
    fn is_kept(&self) -> bool {
        !self.is_ending && self.place.as_ref().is_some_and(|place| place.size_octets > 0)
    }

    fn is_idle(&self) -> bool {
        self.lines.is_empty() && !self.is_moved && !self.is_ending
    }

    fn is_urgent(&self) -> bool {
        self.lines.len() >= ENOUGH || self.is_moved || self.is_ending
    }
}

impl Journal {
    const fn new() -> Self {
        let waiting = Waiting {
            place: None,
            lines: String::new(),
            is_moved: false,
            is_run: false,
            is_ending: false,
            failure: None,
        };
        Self { waiting: Mutex::new(waiting), bell: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics between two changes that belong together.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on at another place or with another size. Whether a thread is to be started, which
    /// must be done then.
    fn set_place(&self, place: Place) -> bool {
        let mut waiting = self.lock();
        if waiting.place.as_ref() != Some(&place) {
            (waiting.place, waiting.is_moved) = (Some(place), true);
            self.bell.notify_all();
        }
        !std::mem::replace(&mut waiting.is_run, true)
    }

    fn note(&self, id: Option<QueueId>, station: Station, fields: &Fields) {
        let mut waiting = self.lock();
        if !waiting.is_kept() {
            return;
        }
        // Told under the lock, so that the times are in order.
        let line = event::line(clock::since_1970().as_secs(), id, station, fields);
        if line.len() >= event::MAX_LINE || waiting.lines.len() + line.len() >= MAX_WAITING {
            drop(waiting);
            let text = "the journal of events: the disk is too slow for it, an event is left out";
            return TOO_MUCH_TOLD.error(format_args!("{text}"));
        }
        let (was_idle, was_urgent) = (waiting.is_idle(), waiting.is_urgent());
        // Writing to a string never fails.
        let _ = writeln!(waiting.lines, "{line}");
        if was_idle || (!was_urgent && waiting.is_urgent()) {
            self.bell.notify_all();
        }
    }

    /// Writes lines until [`Self::finish`].
    fn run(&self, disk: &Disk) {
        let mut writer = Writer::new(disk.clone());
        loop {
            let waiting = self.lock();
            let waiting = self.bell.wait_while(waiting, |it| it.is_idle());
            let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
            let gathered = self.bell.wait_timeout_while(waiting, GATHER, |it| !it.is_urgent());
            let (mut waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
            let (lines, place) = (std::mem::take(&mut waiting.lines), waiting.place.clone());
            let is_moved = std::mem::take(&mut waiting.is_moved);
            let is_end = waiting.is_ending;
            drop(waiting);
            if let Some(place) = &place {
                let fitted = if is_moved { writer.fit(place) } else { Ok(()) };
                if let Err(error) = fitted.and_then(|()| writer.write(place, lines.as_bytes())) {
                    let text = format!(
                        "{}/{NAME}: the journal of events cannot be written: {error}; mail flows \
                         on, but trace and status will not know of it",
                        place.folder.display()
                    );
                    WRITES_FAIL_TOLD.error(format_args!("{text}"));
                    self.lock().failure = Some(text);
                }
            }
            if is_end {
                self.lock().is_run = false;
                return self.bell.notify_all();
            }
        }
    }

    fn finish(&self, patience: Duration) {
        let mut waiting = self.lock();
        waiting.is_ending = true;
        self.bell.notify_all();
        // One that hangs on its disk is left behind.
        drop(self.bell.wait_timeout_while(waiting, patience, |it| it.is_run));
    }
}

#[cfg(test)]
mod tests;
