//! The folders of the spool, and the only code that touches what is in them.
//!
//! ```text
//! SPOOL/lock        held by the daemon as long as it runs
//! SPOOL/queue/ID    a message, written once
//! SPOOL/state/ID    what became of its recipients so far, replaced atomically
//! SPOOL/corrupt/ID  a message that is damaged, kept for a person, its record as ID.state
//! ```
//!
//! How a message gets in is told in [`crate::spool::draft`].

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::spool::draft::DRAFT_SUFFIX;
use crate::spool::envelope::Envelope;
use crate::spool::format::{self, ReadError};
use crate::spool::id::QueueId;
use crate::spool::message::StoredMessage;
use crate::spool::progress::Progress;
use crate::sys::disk::{Disk, DiskFile, Folder, Open};
use crate::sys::files::with_path;

pub use crate::spool::draft::{Draft, Receipt};

/// The most octets of a record in `state/`.
const MAX_RECORD: u64 = 128 << 20;
/// What the next record's name ends with until it takes the place of the last one.
const RECORD_SUFFIX: &str = ".new";

/// The spool, open. One process at a time has it.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    reader: SpoolReader,
    corrupt: Folder,
    has_unnamed_files: bool,
    orders_data_first: bool,
    _lock: DiskFile,
}

/// The spool, open to be looked at, whether or not a daemon has it.
#[derive(Debug)]
pub struct SpoolReader {
    queue: Folder,
    state: Folder,
}

/// What stands in `state/` for a message.
type Record = Result<Progress, Malformed>;

/// It is no record of this message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Malformed;

impl SpoolReader {
    /// Opens the spool in `path`, which must be there.
    ///
    /// # Errors
    /// When its folders cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let folder = |name: &str| Disk::host().open_folder(&path.join(name));
        Ok(Self { queue: folder("queue")?, state: folder("state")? })
    }

    /// The ids of all messages, in no order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn ids(&self) -> io::Result<Vec<QueueId>> {
        Ok(self.queue.names()?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Opens a message and, if there is one, the record of its recipients.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn load(&self, id: QueueId) -> Result<(StoredMessage, Option<Progress>), ReadError> {
        let (message, record) = self.read(id)?;
        Ok((message, record.and_then(Result::ok)))
    }

    /// Reads a message and its record, if there is one; an error in its place is malformed.
    fn read(&self, id: QueueId) -> Result<(StoredMessage, Option<Record>), ReadError> {
        let name = id.to_string();
        let message = format::read(self.queue.open(&name, Open::Read)?)?;
        if message.envelope().id != id {
            // A copy, perhaps: it must not be taken for the one that it names.
            return Err(ReadError::Malformed);
        }
        let record = self.read_record(&name)?;
        let parse = |text: String| Progress::parse(&text, message.envelope()).ok_or(Malformed);
        let record = record.map(parse);
        if let Some(Err(Malformed)) = record {
            log::error!(
                "{id}: its record in state/ is malformed; every recipient counts as untried"
            );
        }
        Ok((message, record))
    }

    fn read_record(&self, name: &str) -> io::Result<Option<String>> {
        let file = match self.state.open(name, Open::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let text = file.read_up_to(MAX_RECORD)?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }
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
        let folder = |name: &str| {
            let folder = if name.is_empty() { path.to_path_buf() } else { path.join(name) };
            disk.make_private_folder(&folder).map_err(|error| with_path(error, &folder))
        };
        let root = folder("")?;
        let reader = SpoolReader { queue: folder("queue")?, state: folder("state")? };
        let corrupt = folder("corrupt")?;
        // New folders must not vanish with the first message in them.
        root.flush_to_disk()?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            disk.open_folder(parent)?.flush_to_disk()?;
        }
        let has_unnamed_files = has_unnamed_files(&reader.queue);
        let orders_data_first = reader.queue.orders_data_first()?;
        let lock = take_lock(&root).map_err(|error| with_path(error, &path.join("lock")))?;
        let path = path.into();
        let spool =
            Self { path, reader, corrupt, has_unnamed_files, orders_data_first, _lock: lock };
        Ok(Arc::new(spool))
    }

    /// Removes what was never finished or belongs to no message, and returns the ids of the
    /// messages, oldest first.
    ///
    /// # Errors
    /// When the folders cannot be read.
    pub fn sweep(&self) -> io::Result<Vec<QueueId>> {
        let mut ids = Vec::new();
        for name in self.reader.queue.names()? {
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
        for name in self.reader.state.names()? {
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
        Draft::begin(Arc::clone(self), envelope)
    }

    /// Opens a message and, if there is one, the record of its recipients.
    ///
    /// # Errors
    /// Why it cannot be read; one that is malformed or cut off has been moved to
    /// `corrupt/`, with its record.
    pub fn load(&self, id: QueueId) -> Result<(StoredMessage, Option<Progress>), ReadError> {
        let loaded = self.reader.read(id);
        // It was complete when it was counted, so an incomplete one has lost something since.
        if matches!(loaded, Err(ReadError::Malformed | ReadError::Incomplete)) {
            self.set_aside(&id.to_string());
        }
        let (message, record) = loaded?;
        let record = match record {
            Some(Err(Malformed)) => {
                // Nobody knows of it from here on, so nobody would remove it.
                self.remove_record(id);
                None
            }
            record => record.and_then(Result::ok),
        };
        Ok((message, record))
    }

    /// Replaces the record of a message's recipients. It is flushed unless nobody has ended
    /// yet, since then its loss costs no more than a try that comes early.
    ///
    /// # Errors
    /// When it cannot be written; the last record is still there then.
    pub fn record(&self, id: QueueId, progress: &Progress) -> io::Result<()> {
        let (state, new_name) = (&self.reader.state, format!("{id}{RECORD_SUFFIX}"));
        let must_last = !progress.is_untouched();
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
        let queue = &self.reader.queue;
        remove_if_there(queue, &id.to_string())?;
        if has_record {
            match if self.orders_data_first { Ok(()) } else { queue.flush_to_disk() } {
                Ok(()) => self.remove_record(id),
                Err(error) => log::warn!("{id}: its record stays for now: {error}"),
            }
        }
        Ok(())
    }

    /// The octets that an unprivileged writer may still add.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn free_octets(&self) -> io::Result<u64> {
        self.reader.queue.free_octets()
    }

    /// The folder of the messages.
    pub(super) const fn queue(&self) -> &Folder {
        &self.reader.queue
    }

    /// Whether the file system has files without a name that get one later.
    pub(super) const fn has_unnamed_files(&self) -> bool {
        self.has_unnamed_files
    }

    /// Whether the file system has a journal that is written in order, data before names.
    pub(super) const fn orders_data_first(&self) -> bool {
        self.orders_data_first
    }

    fn is_complete(&self, name: &str) -> io::Result<bool> {
        format::is_complete(&self.reader.queue.open(name, Open::Read)?)
    }

    fn remove_record(&self, id: QueueId) {
        if let Err(error) = remove_if_there(&self.reader.state, &id.to_string()) {
            // The next start removes it.
            log::warn!("{id}: its record in state/ cannot be removed: {error}");
        }
    }

    fn sweep_away(&self, folder_name: &str, folder: &Folder, name: &str) {
        match folder.unlink(name) {
            Ok(()) => log::info!("spool: {folder_name}/{name} was never finished; removed"),
            Err(error) => log::error!("spool: cannot remove {folder_name}/{name:?}: {error}"),
        }
    }

    fn set_aside(&self, name: &str) {
        let path = self.path.join("corrupt").join(name);
        // The record says who has it already. It may well not exist.
        let record_name = format!("{name}.state");
        let _ = self.reader.state.rename(name, &self.corrupt, &record_name);
        match self.reader.queue.rename(name, &self.corrupt, name) {
            Ok(()) => {
                log::error!("{name}: is damaged; kept as {}", path.display())
            }
            Err(error) => {
                log::error!("{name}: is damaged, and cannot be moved away: {error}")
            }
        }
    }
}

/// Takes the lock that says that one process has the spool.
fn take_lock(root: &Folder) -> io::Result<DiskFile> {
    let lock = root.open("lock", Open::ToLock)?;
    if lock.try_lock()? {
        return Ok(lock);
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "another mailwren has this spool"))
}

/// Whether `folder` can hold files without a name that get one later: not on every file
/// system, and not where /proc is missing.
fn has_unnamed_files(folder: &Folder) -> bool {
    let name = format!("{}{DRAFT_SUFFIX}", std::process::id());
    folder
        .create_unnamed()
        .and_then(|file| folder.link_unnamed(&file, &name))
        .and_then(|()| folder.unlink(&name))
        .is_ok()
}

fn remove_if_there(folder: &Folder, name: &str) -> io::Result<()> {
    match folder.unlink(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::{Mailbox, ReversePath};
    use crate::mail::dsn_request::MessageRequest;
    use crate::spool::envelope::Body;
    use crate::spool::progress::State;
    use crate::sys::disk::faults::FailNth;
    use std::fs;
    use std::io::Read;

    /// Runs `test` with a fresh spool, once for each way in which a draft can be made.
    fn both_ways(test: impl Fn(&Path, &dyn Fn() -> Arc<Spool>)) {
        for has_unnamed_files in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("spool");
            let watcher = Arc::new(FailNth::new(0).on(has_unnamed_files, true));
            let disk = Disk::watched(watcher);
            test(&path, &|| Spool::open_on(&path, &disk).unwrap());
        }
    }

    fn envelope() -> Envelope {
        Envelope {
            id: QueueId::generate(1_795_000_000_000_000, 0),
            received_at: 1_795_000_000,
            client: "192.0.2.1".into(),
            reverse_path: ReversePath::Null,
            recipients: ["ann@h", "bob@h"].map(|to| to.parse::<Mailbox>().unwrap().into()).into(),
            body: Body::SevenBit,
            request: MessageRequest::default(),
        }
    }

    fn keep(spool: &Arc<Spool>, content: &[u8]) -> QueueId {
        let mut draft = spool.draft(envelope());
        content.chunks(10_000).for_each(|part| draft.write(part).unwrap());
        draft.commit().unwrap().0.id()
    }

    fn content(message: &StoredMessage) -> Vec<u8> {
        let mut content = Vec::new();
        message.reader().read_to_end(&mut content).unwrap();
        content
    }

    fn names(path: &Path, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(path.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_is_committed_outlives_the_process_and_nothing_else_does() {
        both_ways(|path, open| {
            let long = vec![b'x'; 200_000];
            let spool = open();
            let kept = [keep(&spool, b""), keep(&spool, b"short\r\n"), keep(&spool, &long)];
            let mut dropped = spool.draft(envelope());
            dropped.write(&long).unwrap();
            drop(dropped);
            assert_eq!(names(path, "queue").len(), 3);
            let mut unfinished = spool.draft(envelope());
            unfinished.write(&long).unwrap();
            // As if the process had been killed here.
            std::mem::forget(unfinished);
            drop(spool);
            fs::remove_file(path.join("lock")).unwrap();
            let spool = open();
            assert_eq!(spool.sweep().unwrap(), kept);
            assert_eq!(names(path, "queue").len(), 3);
            for (id, expected) in kept.into_iter().zip([&b""[..], b"short\r\n", &long]) {
                let (message, progress) = spool.load(id).unwrap();
                assert_eq!((content(&message).as_slice(), progress), (expected, None));
            }
        });
    }

    #[test]
    fn a_name_that_is_taken_is_never_replaced() {
        both_ways(|path, open| {
            let spool = open();
            let id = keep(&spool, b"the first\r\n");
            let mut draft = spool.draft(Envelope { id, ..envelope() });
            draft.write(b"the second\r\n").unwrap();
            assert!(draft.commit().is_err());
            assert_eq!(content(&spool.load(id).unwrap().0), b"the first\r\n");
            assert_eq!(names(path, "queue"), [id.to_string()]);
        });
    }

    #[test]
    fn records_are_replaced_whole_and_go_with_their_message() {
        both_ways(|path, open| {
            let spool = open();
            let (id, other) = (keep(&spool, b"x"), keep(&spool, b"y"));
            let mut progress = Progress::new(&envelope());
            for state in [State::Pending, State::Done, State::Failed] {
                progress.attempts += 1;
                progress.recipients[1].state = state;
                spool.record(id, &progress).unwrap();
                assert_eq!(spool.load(id).unwrap().1, Some(progress.clone()));
            }
            // A disk that does not take the next record leaves the last one.
            fs::create_dir(path.join(format!("state/{id}.new"))).unwrap();
            assert!(spool.record(id, &Progress::new(&envelope())).is_err());
            assert_eq!(spool.load(id).unwrap().1, Some(progress.clone()));
            fs::remove_dir(path.join(format!("state/{id}.new"))).unwrap();
            spool.remove(id, true).unwrap();
            spool.remove(other, true).unwrap();
            spool.remove(other, true).unwrap();
            assert!(names(path, "queue").is_empty() && names(path, "state").is_empty());
        });
    }

    #[test]
    fn the_sweep_removes_what_was_never_finished_or_is_left_over() {
        both_ways(|path, open| {
            let spool = open();
            let (whole, cut) = (keep(&spool, b"x\r\n"), keep(&spool, b"y\r\n"));
            spool.record(whole, &Progress::new(&envelope())).unwrap();
            spool.record(cut, &Progress::new(&envelope())).unwrap();
            let cut_path = path.join("queue").join(cut.to_string());
            let bytes = fs::read(&cut_path).unwrap();
            fs::write(&cut_path, &bytes[..bytes.len() - 1]).unwrap();
            fs::write(path.join("queue/0000000000001"), "").unwrap();
            fs::write(path.join("queue/0000000000001.draft"), "half").unwrap();
            fs::write(path.join("state").join(format!("{whole}.new")), "half").unwrap();
            fs::write(path.join("queue/README"), "a person's").unwrap();
            assert_eq!(spool.sweep().unwrap(), [whole]);
            let mut left = names(path, "queue");
            left.retain(|name| name != "README");
            assert_eq!(left, [whole.to_string()]);
            assert!(path.join("queue/README").exists());
            assert_eq!(names(path, "state"), [whole.to_string()]);
        });
    }

    #[test]
    fn one_bad_file_does_not_keep_the_server_down() {
        both_ways(|path, open| {
            let spool = open();
            let id = keep(&spool, b"x\r\n");
            fs::create_dir(path.join("queue/0000000000001")).unwrap();
            let ids = spool.sweep().unwrap();
            assert!(ids.contains(&id), "{ids:?}");
            assert!(matches!(
                spool.load("0000000000001".parse().unwrap()),
                Err(ReadError::Io(_) | ReadError::Incomplete)
            ));
        });
    }

    #[test]
    fn a_damaged_message_is_set_aside_with_its_record() {
        both_ways(|path, open| {
            let spool = open();
            let damages: [fn(Vec<u8>) -> Vec<u8>; 3] = [
                |bytes| [b"x", &bytes[1..]].concat(),
                |bytes| bytes[..bytes.len() / 2].to_vec(),
                |bytes| String::from_utf8(bytes).unwrap().replace("to <", "to ").into(),
            ];
            for damage in damages {
                let id = keep(&spool, b"x\r\n");
                spool.record(id, &Progress::new(&envelope())).unwrap();
                let file = path.join("queue").join(id.to_string());
                fs::write(&file, damage(fs::read(&file).unwrap())).unwrap();
                assert!(spool.load(id).is_err());
                assert!(path.join("corrupt").join(id.to_string()).exists());
                assert!(path.join("corrupt").join(format!("{id}.state")).exists());
            }
            assert!(names(path, "queue").is_empty() && names(path, "state").is_empty());
        });
    }

    #[test]
    fn a_copy_under_another_name_is_not_taken_for_the_original() {
        both_ways(|path, open| {
            let spool = open();
            let id = keep(&spool, b"x\r\n");
            let queue = path.join("queue");
            fs::copy(queue.join(id.to_string()), queue.join("0000000000001")).unwrap();
            let copy = "0000000000001".parse().unwrap();
            assert!(matches!(spool.load(copy), Err(ReadError::Malformed)));
            assert!(spool.load(id).is_ok());
        });
    }

    #[test]
    fn a_malformed_record_counts_for_nothing() {
        both_ways(|path, open| {
            let spool = open();
            let id = keep(&spool, b"x\r\n");
            for record in
                [&b""[..], b"\xff\xfe", b"mailwren-state 1\n", b"mailwren-state 1\nattempts"]
            {
                fs::write(path.join("state").join(id.to_string()), record).unwrap();
                assert_eq!(spool.load(id).unwrap().1, None, "{record:?}");
            }
        });
    }

    #[test]
    fn only_one_process_has_the_spool() {
        both_ways(|path, open| {
            let spool = open();
            let error = Spool::open(path).unwrap_err();
            assert!(error.to_string().contains("another mailwren"), "{error}");
            drop(spool);
            assert!(Spool::open(path).is_ok());
        });
    }
}
