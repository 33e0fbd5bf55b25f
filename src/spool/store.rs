//! The folders of the spool, and the only code that touches what is in them.
//!
//! ```text
//! SPOOL/lock        held by the daemon as long as it runs
//! SPOOL/queue/ID    a message, written once
//! SPOOL/state/ID    what became of its recipients so far, replaced atomically
//! SPOOL/corrupt/ID  a message that is damaged, kept for a person, its record as ID.state
//! SPOOL/clock       how much time has passed, by crate::spool::timekeeper; a hint
//! SPOOL/failed/ID   one that failed with nobody to tell, kept in the same way
//! SPOOL/wake/ID     an empty file: the daemon is to look at this message
//! SPOOL/drop/ID     a message that `sendmail` left, its sender's own file; see crate::spool::drop
//! ```
//!
//! How a message gets in is told in [`crate::spool::draft`], what another process may do to it
//! in [`crate::spool::hands`].

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::spool::draft::DRAFT_SUFFIX;
use crate::spool::envelope::Envelope;
use crate::spool::folders::Folders;
use crate::spool::format::ReadError;
use crate::spool::id::QueueId;
use crate::spool::message::StoredMessage;
use crate::spool::progress::Progress;
use crate::spool::reader::{Malformed, Record};
use crate::sys::disk::{Disk, Folder, Open};
use crate::sys::files::with_path;
use crate::sys::random;

pub use crate::spool::draft::{Draft, Receipt};
pub use crate::spool::reader::SpoolReader;

/// The note of how much time has passed, and the most octets of it that are read.
const CLOCK: &str = "clock";
const MAX_CLOCK: u64 = 1024;
/// The most messages in `failed/`, and of what was dropped in `corrupt/`, and the most octets of
/// them all.
const MAX_FAILED: usize = 100;
const MAX_FAILED_OCTETS: u64 = 256 << 20;
/// What the next record's name ends with until it takes the place of the last one.
const RECORD_SUFFIX: &str = ".new";

/// The spool, open. One daemon at a time has it.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    disk: Disk,
    folders: RwLock<Arc<Folders>>,
    /// Held by who opens it again.
    reopening: Mutex<()>,
}

impl Spool {
    /// Opens the spool in `path`, makes its folders, and takes its lock.
    ///
    /// # Errors
    /// When a folder cannot be made or another daemon has the lock; the text says which.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        Self::open_on(path, &Disk::host())
    }

    /// The same on a disk that a test may watch.
    ///
    /// # Errors
    /// As above.
    pub fn open_on(path: &Path, disk: &Disk) -> io::Result<Arc<Self>> {
        let folders = Folders::open(path, disk)?;
        Ok(Arc::new(Self::with(folders, path, disk.clone())))
    }

    /// Opens the spool in `path`, which must be there, beside a daemon that may have it.
    ///
    /// # Errors
    /// When its folders cannot be opened.
    pub(super) fn open_beside(path: &Path) -> io::Result<Self> {
        Ok(Self::with(Folders::open_beside(path)?, path, Disk::host()))
    }

    fn with(folders: Folders, path: &Path, disk: Disk) -> Self {
        let (folders, reopening) = (RwLock::new(Arc::new(folders)), Mutex::default());
        Self { path: path.into(), disk, folders, reopening }
    }

    /// The folders as they were last opened.
    pub(super) fn folders(&self) -> Arc<Folders> {
        // Whoever panics leaves either the old ones or the new ones.
        Arc::clone(&self.folders.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes sure that these folders are still the spool: what is put elsewhere nobody finds.
    ///
    /// # Errors
    /// `NotFound` when they are not, else why it cannot be seen.
    pub(super) fn check_place(&self, folders: &Folders) -> io::Result<()> {
        if folders.are_at(&self.path, &self.disk)? {
            return Ok(());
        }
        let error = io::Error::new(io::ErrorKind::NotFound, "the spool is no longer there");
        Err(with_path(error, &self.path))
    }

    /// Whether the spool is where it was opened, so that what is not in it is not there at all.
    pub(super) fn is_in_place(&self) -> bool {
        self.check_place(&self.folders()).is_ok()
    }

    /// Opens the spool again if there is another one at its path than the one that was opened.
    /// Gives the messages found in it.
    ///
    /// # Errors
    /// When there is none, or it cannot be used. The old one stays open then.
    pub fn reopen(&self) -> io::Result<Vec<QueueId>> {
        let _turn = self.reopening.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.folders();
        if old.are_at(&self.path, &self.disk)? {
            return Ok(Vec::new());
        }
        old.check_successor(&self.path, &self.disk)?;
        let new = Arc::new(Folders::open(&self.path, &self.disk)?);
        // Before anybody else puts something into it.
        let found = found_in(&new)?;
        *self.folders.write().unwrap_or_else(PoisonError::into_inner) = new;
        log::warn!("spool: opened again, with {} messages in it", found.len());
        Ok(found)
    }

    /// What an earlier run has left: the ids of its messages, oldest first. Removes what
    /// belongs to no message. To be called before the first new message: all that is found is
    /// from before, and it is looked into by [`Spool::load_found`], at leisure.
    ///
    /// # Errors
    /// When the folders cannot be read.
    pub fn found(&self) -> io::Result<Vec<QueueId>> {
        found_in(&self.folders())
    }

    /// Opens a message that an earlier run has left, for the first time: one that was never
    /// finished, and so never promised, is removed.
    ///
    /// # Errors
    /// As with [`Spool::load`].
    pub fn load_found(&self, id: QueueId) -> Result<(StoredMessage, Option<Progress>), ReadError> {
        let loaded = self.read_locked(id);
        match &loaded {
            Err(ReadError::Incomplete) => {
                let name = id.to_string();
                // In this order, as with any message that goes.
                let folders = self.folders();
                sweep_away("queue", &folders.reader.queue, &name);
                let _ = remove_if_there(&folders.reader.state, &name);
            }
            Err(ReadError::Malformed) => self.set_aside(&id.to_string()),
            _ => {}
        }
        Ok(self.without_malformed_record(loaded?))
    }

    /// The ids of all messages, in no order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn ids(&self) -> io::Result<Vec<QueueId>> {
        self.folders().reader.ids()
    }

    /// A new id for a message received `now` after 1970. No message here has it, even if an
    /// earlier run had the same time because the clock was set back.
    pub fn new_id(&self, now: Duration) -> QueueId {
        let microseconds = u64::try_from(now.as_micros()).unwrap_or(0);
        loop {
            let id = QueueId::generate(microseconds, random::number());
            // Only a clock that was set back makes one that an earlier run may have made.
            let folders = self.folders();
            if folders.is_newer_than_found(id) || !folders.reader.queue.has(&id.to_string()) {
                return id;
            }
        }
    }

    /// Begins a message. Nothing of it exists until [`Draft::commit`]; dropping it leaves
    /// nothing.
    pub fn draft(self: &Arc<Self>, envelope: Envelope) -> Draft {
        Draft::begin(Arc::clone(self), envelope)
    }

    /// Opens a message, takes its lock, and reads the record of its recipients, if there is one.
    ///
    /// # Errors
    /// `Locked` when another has its lock, else why it cannot be read; one that is malformed or
    /// cut off has been moved to `corrupt/`, with its record.
    pub fn load(&self, id: QueueId) -> Result<(StoredMessage, Option<Progress>), ReadError> {
        let loaded = self.read_locked(id);
        // It was complete when it was counted, so an incomplete one has lost something since.
        if matches!(loaded, Err(ReadError::Malformed | ReadError::Incomplete)) {
            self.set_aside(&id.to_string());
        }
        Ok(self.without_malformed_record(loaded?))
    }

    /// The same, but what is damaged stays where it is.
    ///
    /// # Errors
    /// `Locked` when another has its lock, else why it cannot be read.
    pub(super) fn load_locked(
        &self,
        id: QueueId,
    ) -> Result<(StoredMessage, Option<Progress>), ReadError> {
        let (message, record) = self.read_locked(id)?;
        Ok((message, record.and_then(Result::ok)))
    }

    fn read_locked(&self, id: QueueId) -> Result<(StoredMessage, Option<Record>), ReadError> {
        let folders = self.folders();
        let message = folders.reader.message(id)?;
        if !message.try_lock() {
            return Err(ReadError::Locked);
        }
        // Whoever had the lock before may have removed it; its record comes after the lock.
        let named = folders.reader.queue.look_at(&id.to_string())?;
        if message.identity()? != Some(named.identity()) {
            return Err(ReadError::Io(io::ErrorKind::NotFound.into()));
        }
        let record = folders.reader.record(&message)?;
        Ok((message, record))
    }

    fn without_malformed_record(
        &self,
        (message, record): (StoredMessage, Option<Record>),
    ) -> (StoredMessage, Option<Progress>) {
        if let Some(Err(Malformed)) = record {
            // Nobody knows of it from here on, so nobody would remove it.
            self.remove_record(message.envelope().id);
        }
        (message, record.and_then(Result::ok))
    }

    /// Replaces the record of a message's recipients. It is flushed unless nobody has ended
    /// yet, since then its loss costs no more than a try that comes early.
    ///
    /// # Errors
    /// When it cannot be written; the last record is still there then, or, where only the flush
    /// of the folder failed, the new one.
    pub fn record(&self, id: QueueId, progress: &Progress) -> io::Result<()> {
        self.write_record(id, progress, !progress.is_untouched())
    }

    /// Replaces the record of a message's recipients, flushed whatever it says.
    ///
    /// # Errors
    /// When it cannot be written; the last record is still there then.
    pub(super) fn record_for_good(&self, id: QueueId, progress: &Progress) -> io::Result<()> {
        self.write_record(id, progress, true)
    }

    fn write_record(&self, id: QueueId, progress: &Progress, must_last: bool) -> io::Result<()> {
        let (folders, new_name) = (self.folders(), format!("{id}{RECORD_SUFFIX}"));
        let state = &folders.reader.state;
        let written = state.open(&new_name, Open::Anew).and_then(|mut file| {
            file.write_all(progress.to_text().as_bytes())?;
            if must_last { file.flush_to_disk() } else { Ok(()) }
        });
        let replaced = written.and_then(|()| state.rename(&new_name, state, &id.to_string()));
        if replaced.is_err() {
            let _ = state.unlink(&new_name);
        } else if must_last {
            state.flush_to_disk()?;
        }
        replaced
    }

    /// Removes a message whose recipients have all ended, then its record, so that a crash
    /// in between never makes a settled message look untried: without a journal that keeps
    /// that order the removal is flushed first. What is gone already is fine.
    ///
    /// # Errors
    /// When the message cannot be removed.
    pub fn remove(&self, id: QueueId, has_record: bool) -> io::Result<()> {
        let folders = self.folders();
        let queue = &folders.reader.queue;
        remove_if_there(queue, &id.to_string())?;
        if has_record {
            match if folders.orders_data_first { Ok(()) } else { queue.flush_to_disk() } {
                Ok(()) => self.remove_record(id),
                Err(error) => log::warn!("{id}: its record stays for now: {error}"),
            }
        }
        Ok(())
    }

    /// Moves a message that failed, and of which nobody can be told, to `failed/`, its record
    /// beside it, where the last ones are kept for a person to look at. Gives its new path.
    ///
    /// # Errors
    /// When it cannot be moved; it is still in the queue then.
    pub fn keep_failed(&self, id: QueueId) -> io::Result<PathBuf> {
        let (path, name) = (self.path.join("failed"), id.to_string());
        let (folders, failed) = (self.folders(), self.disk.make_private_folder(&path)?);
        // The message goes first: a record without it is swept away, and nothing is sent twice.
        folders.reader.queue.rename(&name, &failed, &name)?;
        let record_name = format!("{name}.state");
        let _ = folders.reader.state.rename(&name, &failed, &record_name);
        let removed = |name: &str| {
            log::warn!("spool: failed/ is full; {name}, the oldest there, is removed");
        };
        if let Err(error) = thin_out(&failed, "", removed) {
            log::warn!("spool: failed/ cannot be thinned out: {error}");
        }
        Ok(path.join(name))
    }

    /// The octets that an unprivileged writer may still add.
    ///
    /// # Errors
    /// `NotFound` when the spool is no longer at its path; else when the file system does not
    /// say, or takes nothing since it is read-only.
    pub fn free_octets(&self) -> io::Result<u64> {
        let folders = self.folders();
        self.check_place(&folders)?;
        folders.reader.queue.free_octets()
    }

    /// The note of how much time has passed, if there is one that is text.
    pub(super) fn clock_note(&self) -> Option<String> {
        let note = self.folders().root.open(CLOCK, Open::Read).ok()?.read_up_to(MAX_CLOCK).ok()?;
        String::from_utf8(note).ok()
    }

    /// Replaces that note. It is not flushed: an older one only tells of less.
    pub(super) fn note_clock(&self, text: &str) -> io::Result<()> {
        let new_name = format!("{CLOCK}{RECORD_SUFFIX}");
        let root = &self.folders().root;
        root.open(&new_name, Open::Anew)?.write_all(text.as_bytes())?;
        root.rename(&new_name, root, CLOCK)
    }

    fn remove_record(&self, id: QueueId) {
        if let Err(error) = remove_if_there(&self.folders().reader.state, &id.to_string()) {
            // The next start removes it.
            log::warn!("{id}: its record in state/ cannot be removed: {error}");
        }
    }

    fn set_aside(&self, name: &str) {
        let path = self.path.join("corrupt").join(name);
        // The record says who has it already. It may well not exist.
        let record_name = format!("{name}.state");
        let folders = self.folders();
        let _ = folders.reader.state.rename(name, &folders.corrupt, &record_name);
        match folders.reader.queue.rename(name, &folders.corrupt, name) {
            Ok(()) => {
                log::error!("{name}: is damaged; kept as {}", path.display())
            }
            Err(error) => {
                log::error!("{name}: is damaged, and cannot be moved away: {error}")
            }
        }
    }
}

/// Removes the oldest messages of `folder`, whose names are an id and `suffix`, beyond [`MAX_FAILED`]
/// and [`MAX_FAILED_OCTETS`], but never the newest. `removed` is told the name of each.
pub(super) fn thin_out(
    folder: &Folder,
    suffix: &str,
    mut removed: impl FnMut(&str),
) -> io::Result<()> {
    let mut ids = Vec::new();
    let id = |name: &str| name.strip_suffix(suffix)?.parse::<QueueId>().ok();
    folder.each_name(|name| ids.extend(id(name)))?;
    ids.sort_unstable();
    let mut octets = 0u64;
    for (place, id) in ids.iter().rev().enumerate() {
        let name = format!("{id}{suffix}");
        octets = octets.saturating_add(folder.look_at(&name)?.size_octets());
        if place > 0 && (place >= MAX_FAILED || octets > MAX_FAILED_OCTETS) {
            removed(&name);
            folder.unlink(&name)?;
            remove_if_there(folder, &format!("{name}.state"))?;
        }
    }
    Ok(())
}

fn found_in(folders: &Folders) -> io::Result<Vec<QueueId>> {
    let (mut ids, mut others) = (Vec::new(), Vec::new());
    let queue = &folders.reader.queue;
    queue.each_name(|name| match name.parse() {
        Ok(id) => ids.push(id),
        Err(_) => others.push(name.to_owned()),
    })?;
    for name in others {
        if name.ends_with(DRAFT_SUFFIX) {
            sweep_away("queue", queue, &name);
        } else {
            log::warn!("spool: queue/{name:?} is no message of ours; left alone");
        }
    }
    ids.sort_unstable();
    let mut left_over = Vec::new();
    folders.reader.state.each_name(|name| {
        if !name.parse().is_ok_and(|id| ids.binary_search(&id).is_ok()) {
            left_over.push(name.to_owned());
        }
    })?;
    left_over.iter().for_each(|name| sweep_away("state", &folders.reader.state, name));
    folders.note_newest(ids.last().copied());
    Ok(ids)
}

fn sweep_away(folder_name: &str, folder: &Folder, name: &str) {
    match folder.unlink(name) {
        Ok(()) => log::info!("spool: {folder_name}/{name} was never finished; removed"),
        Err(error) => log::error!("spool: cannot remove {folder_name}/{name:?}: {error}"),
    }
}

fn remove_if_there(folder: &Folder, name: &str) -> io::Result<()> {
    match folder.unlink(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests;
