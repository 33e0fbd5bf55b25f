//! The folders of the spool, and the only code that touches what is in them.
//!
//! ```text
//! SPOOL/lock        held by the daemon as long as it runs
//! SPOOL/queue/ID    a message, written once
//! SPOOL/state/ID    what became of its recipients so far, replaced atomically
//! SPOOL/corrupt/ID  a message that is damaged, kept for a person, its record as ID.state
//! ```
//!
//! A message is written into a file that has no name yet (`O_TMPFILE`), gets its name, and
//! is then flushed together with it: one journal commit where the file system can do both at
//! once. A crash in between leaves at most a named file without its last line, which the
//! next start removes; nobody was told 250 for it. `src/ARCHITECTURE.md` has the whole table.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::spool::envelope::Envelope;
use crate::spool::format::{self, ReadError};
use crate::spool::id::QueueId;
use crate::spool::message::StoredMessage;
use crate::spool::progress::Progress;
use crate::sys::files;

/// Octets gathered before they are written.
const BUFFER_OCTETS: usize = 64 << 10;
/// The most octets of a record in `state/`.
const MAX_RECORD: u64 = 128 << 20;
/// What a draft's name ends with where the file system has no unnamed files.
const DRAFT_SUFFIX: &str = ".draft";
/// What the next record's name ends with until it takes the place of the last one.
const RECORD_SUFFIX: &str = ".new";

/// The spool, open. One process at a time has it.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    reader: SpoolReader,
    corrupt: OwnedFd,
    has_unnamed_files: bool,
    _lock: File,
}

/// The spool, open to be looked at, whether or not a daemon has it.
#[derive(Debug)]
pub struct SpoolReader {
    queue: OwnedFd,
    state: OwnedFd,
}

impl SpoolReader {
    /// Opens the spool in `path`, which must be there.
    ///
    /// # Errors
    /// When its folders cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let folder = |name: &str| files::open_folder(&path.join(name));
        Ok(Self { queue: folder("queue")?, state: folder("state")? })
    }

    /// The ids of all messages, in no order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn ids(&self) -> io::Result<Vec<QueueId>> {
        Ok(files::names_in(&self.queue)?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Opens a message and, if there is one, the record of its recipients.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn load(&self, id: QueueId) -> Result<(StoredMessage, Option<Progress>), ReadError> {
        let name = id.to_string();
        let message = format::read(files::open_to_read(&self.queue, &name)?)?;
        if message.envelope().id != id {
            // A copy, perhaps: it must not be taken for the one that it names.
            return Err(ReadError::Malformed);
        }
        let record = self.read_record(&name)?;
        let progress = record.as_ref().and_then(|text| Progress::parse(text, message.envelope()));
        if record.is_some() && progress.is_none() {
            log::error!(
                "{id}: its record in state/ is malformed; every recipient counts as untried"
            );
        }
        Ok((message, progress))
    }

    fn read_record(&self, name: &str) -> io::Result<Option<String>> {
        let file = match files::open_to_read(&self.state, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut text = Vec::new();
        file.take(MAX_RECORD).read_to_end(&mut text)?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }
}

/// The proof that a message is on disk, name and all. Only a commit makes one, and without
/// one the session cannot answer 250.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt(QueueId);

impl Receipt {
    /// The message's name in the queue.
    pub const fn id(self) -> QueueId {
        self.0
    }
}

impl Spool {
    /// Opens the spool in `path`, makes its folders, and takes its lock.
    ///
    /// # Errors
    /// When a folder cannot be made or another daemon has the lock; the text says which.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        Self::open_with(path, files::has_unnamed_files)
    }

    /// Opens the spool; `has_unnamed_files` says whether its file system has unnamed files.
    fn open_with(
        path: &Path,
        has_unnamed_files: impl Fn(&OwnedFd) -> bool,
    ) -> io::Result<Arc<Self>> {
        let folder = |name: &str| {
            let folder = if name.is_empty() { path.to_path_buf() } else { path.join(name) };
            files::make_private_folder(&folder).map_err(|error| files::with_path(error, &folder))
        };
        let root = folder("")?;
        let reader = SpoolReader { queue: folder("queue")?, state: folder("state")? };
        let corrupt = folder("corrupt")?;
        // New folders must not vanish with the first message in them.
        rustix::fs::fsync(&root)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            rustix::fs::fsync(files::open_folder(parent)?)?;
        }
        let has_unnamed_files = has_unnamed_files(&reader.queue);
        let lock_path = path.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|error| files::with_path(error, &lock_path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => files::with_path(error, &lock_path),
            TryLockError::WouldBlock => {
                let text = format!("{}: another mailwren has this spool", lock_path.display());
                io::Error::new(io::ErrorKind::ResourceBusy, text)
            }
        })?;
        Ok(Arc::new(Self { path: path.into(), reader, corrupt, has_unnamed_files, _lock: lock }))
    }

    /// Removes what was never finished or belongs to no message, and returns the ids of the
    /// messages, oldest first.
    ///
    /// # Errors
    /// When the folders cannot be read.
    pub fn sweep(&self) -> io::Result<Vec<QueueId>> {
        let mut ids = Vec::new();
        for name in files::names_in(&self.reader.queue)? {
            match name.parse() {
                Ok(id) => match self.is_complete(&name) {
                    Ok(true) => ids.push(id),
                    Ok(false) => self.sweep_away("queue", &self.reader.queue, &name),
                    Err(error) => {
                        // One bad file must not keep the server down; it is tried again later.
                        log::error!("{id}: cannot be looked at: {error}");
                        ids.push(id);
                    }
                },
                Err(_) if name.ends_with(DRAFT_SUFFIX) => {
                    self.sweep_away("queue", &self.reader.queue, &name)
                }
                Err(_) => log::warn!("spool: queue/{name:?} is no message of ours; left alone"),
            }
        }
        ids.sort_unstable();
        for name in files::names_in(&self.reader.state)? {
            let is_needed = name.parse().is_ok_and(|id| ids.binary_search(&id).is_ok());
            if !is_needed {
                self.sweep_away("state", &self.reader.state, &name);
            }
        }
        Ok(ids)
    }

    /// The ids of all messages, in no order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn ids(&self) -> io::Result<Vec<QueueId>> {
        self.reader.ids()
    }

    /// Begins a message. Nothing of it exists until [`Draft::commit`]; dropping it leaves
    /// nothing.
    pub fn draft(self: &Arc<Self>, envelope: Envelope) -> Draft {
        let buffer = format::envelope_text(&envelope).into_bytes();
        let content = buffer.len() as u64..buffer.len() as u64;
        Draft {
            spool: Arc::clone(self),
            envelope,
            buffer,
            file: None,
            has_draft_name: false,
            content,
        }
    }

    /// Opens a message and, if there is one, the record of its recipients.
    ///
    /// # Errors
    /// Why it cannot be read; one that is malformed or cut off has been moved to
    /// `corrupt/`, with its record.
    pub fn load(&self, id: QueueId) -> Result<(StoredMessage, Option<Progress>), ReadError> {
        let loaded = self.reader.load(id);
        // It was complete when it was counted, so an incomplete one has lost something since.
        if matches!(loaded, Err(ReadError::Malformed | ReadError::Incomplete)) {
            self.set_aside(&id.to_string());
        }
        loaded
    }

    /// Replaces the record of a message's recipients. It is flushed unless nobody has ended
    /// yet, since then its loss costs no more than a try that comes early.
    ///
    /// # Errors
    /// When it cannot be written; the last record is still there then.
    pub fn record(&self, id: QueueId, progress: &Progress) -> io::Result<()> {
        let (state, new_name) = (&self.reader.state, format!("{id}{RECORD_SUFFIX}"));
        let must_last = !progress.is_untouched();
        let written = files::create(state, &new_name).and_then(|mut file| {
            file.write_all(progress.to_text().as_bytes())?;
            if must_last { file.sync_all() } else { Ok(()) }
        });
        let replaced = written
            .and_then(|()| Ok(rustix::fs::renameat(state, &new_name, state, id.to_string())?));
        if replaced.is_err() {
            let _ = files::remove(state, &new_name);
        } else if must_last {
            rustix::fs::fsync(state)?;
        }
        replaced
    }

    /// Removes a message whose recipients have all ended, then its record, so that a crash
    /// in between never makes a settled message look untried. What is gone already is fine.
    ///
    /// # Errors
    /// When the message cannot be removed.
    pub fn remove(&self, id: QueueId, has_record: bool) -> io::Result<()> {
        let name = id.to_string();
        remove_if_there(&self.reader.queue, &name)?;
        if has_record && let Err(error) = remove_if_there(&self.reader.state, &name) {
            // The next start removes it.
            log::warn!("{id}: its record in state/ cannot be removed: {error}");
        }
        Ok(())
    }

    /// The octets that an unprivileged writer may still add.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn free_octets(&self) -> io::Result<u64> {
        let space = rustix::fs::fstatvfs(&self.reader.queue)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn is_complete(&self, name: &str) -> io::Result<bool> {
        format::is_complete(&files::open_to_read(&self.reader.queue, name)?)
    }

    fn sweep_away(&self, folder_name: &str, folder: &OwnedFd, name: &str) {
        match files::remove(folder, name) {
            Ok(()) => log::info!("spool: {folder_name}/{name} was never finished; removed"),
            Err(error) => log::error!("spool: cannot remove {folder_name}/{name:?}: {error}"),
        }
    }

    fn set_aside(&self, name: &str) {
        let path = self.path.join("corrupt").join(name);
        // The record says who has it already. It may well not exist.
        let record_name = format!("{name}.state");
        let _ = rustix::fs::renameat(&self.reader.state, name, &self.corrupt, record_name);
        match rustix::fs::renameat(&self.reader.queue, name, &self.corrupt, name) {
            Ok(()) => {
                log::error!("{name}: is damaged; kept as {}", path.display())
            }
            Err(error) => {
                log::error!("{name}: is damaged, and cannot be moved away: {error}")
            }
        }
    }
}

/// A message on its way into the spool.
#[derive(Debug)]
pub struct Draft {
    spool: Arc<Spool>,
    envelope: Envelope,
    buffer: Vec<u8>,
    file: Option<File>,
    /// Whether the file has a name that must go, whatever becomes of the message.
    has_draft_name: bool,
    /// Where the content stands in the file, as far as it was written or buffered.
    content: Range<u64>,
}

impl Draft {
    /// The envelope it was begun with.
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The octets of content so far.
    pub const fn content_octets(&self) -> u64 {
        self.content.end - self.content.start
    }

    /// Adds content: lines that end with CRLF, without dot-stuffing.
    ///
    /// # Errors
    /// When the disk does not take it; the draft is of no use then.
    pub fn write(&mut self, content: &[u8]) -> io::Result<()> {
        if self.buffer.len() + content.len() > BUFFER_OCTETS {
            self.write_out()?;
        }
        self.content.end += content.len() as u64;
        if content.len() > BUFFER_OCTETS {
            return self.open_file()?.write_all(content);
        }
        self.buffer.extend_from_slice(content);
        Ok(())
    }

    /// Finishes the message: from here on it is in the queue and survives a crash.
    ///
    /// # Errors
    /// When it could not be written or flushed. Nothing of it is left then, and the client
    /// must not be told 250.
    pub fn commit(mut self) -> io::Result<(Receipt, StoredMessage)> {
        self.buffer.extend_from_slice(format::end_line(self.content_octets()).as_bytes());
        self.write_out()?;
        let name = self.envelope.id.to_string();
        let Some(file) = self.file.take() else {
            return Err(io::Error::other("a draft is never empty"));
        };
        let queue = &self.spool.reader.queue;
        self.give_name(&file, &name)?;
        // One flush for data, size and name where the journal holds them together; the
        // folder's own is there for file systems that keep names apart.
        let flushed = file.sync_all().and_then(|()| Ok(rustix::fs::fsync(queue)?));
        if let Err(error) = flushed {
            let _ = files::remove(queue, &name);
            return Err(error);
        }
        let receipt = Receipt(self.envelope.id);
        Ok((receipt, StoredMessage::new(file, self.content.clone(), self.envelope.clone())))
    }

    fn draft_name(&self) -> String {
        format!("{}{DRAFT_SUFFIX}", self.envelope.id)
    }

    fn give_name(&self, file: &File, name: &str) -> io::Result<()> {
        let queue = &self.spool.reader.queue;
        if self.spool.has_unnamed_files {
            return files::link_unnamed(file, queue, name);
        }
        // Unlike rename, link never replaces a message that has this name already.
        Ok(rustix::fs::linkat(queue, self.draft_name(), queue, name, AtFlags::empty())?)
    }

    fn write_out(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        self.open_file()?.write_all(&buffer)?;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    /// The file, made when the first octets are to be written.
    fn open_file(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let queue = &self.spool.reader.queue;
            let file = if self.spool.has_unnamed_files {
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
                File::from(rustix::fs::openat(queue, ".", flags, Mode::from(0o600))?)
            } else {
                self.has_draft_name = true;
                files::create(queue, &self.draft_name())?
            };
            self.file = Some(file);
        }
        self.file.as_mut().ok_or_else(|| io::Error::other("the draft has no file"))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.has_draft_name {
            let _ = files::remove(&self.spool.reader.queue, &self.draft_name());
        }
    }
}

fn remove_if_there(folder: &OwnedFd, name: &str) -> io::Result<()> {
    match files::remove(folder, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
