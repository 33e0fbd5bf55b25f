//! The folders of the spool, open. What is at the spool's path may become another: its file
//! system is unmounted and mounted again, another disk put over it, the folder moved or made
//! anew. So it can be told whether these are still the ones at the path.

use std::io;
use std::path::Path;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::spool::draft::DRAFT_SUFFIX;
use crate::spool::id::QueueId;
use crate::spool::reader::SpoolReader;
use crate::sys::disk::{Disk, DiskFile, Folder, Open};
use crate::sys::files::with_path;

/// How long to wait for the spool's lock, and how often to look. A server that was killed has it as
/// long as a child that it has just begun, and that has not become another program yet.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The folders, and what is known of their file system.
#[derive(Debug)]
pub(super) struct Folders {
    pub(super) root: Folder,
    pub(super) reader: SpoolReader,
    pub(super) corrupt: Folder,
    /// Whether there are files without a name that get one later.
    pub(super) has_unnamed_files: bool,
    /// Whether there is a journal that is written in order, data before names.
    pub(super) orders_data_first: bool,
    /// Device and inode of `queue/`.
    queue_identity: (u64, u64),
    /// The newest message that an earlier run has left, once it was looked.
    newest_found: OnceLock<Option<QueueId>>,
    /// Whether a file system of its own is mounted at the path.
    is_mounted: bool,
    /// The daemon's; a command of a person goes without.
    _lock: Option<DiskFile>,
}

impl Folders {
    /// Opens the spool in `path`, makes its folders, and takes its lock.
    ///
    /// # Errors
    /// When a folder cannot be made or another daemon has the lock; the text says which.
    pub(super) fn open(path: &Path, disk: &Disk) -> io::Result<Self> {
        let folder = |name: &str| {
            let folder = if name.is_empty() { path.to_path_buf() } else { path.join(name) };
            disk.make_private_folder(&folder).map_err(|error| with_path(error, &folder))
        };
        let root = folder("")?;
        let reader = SpoolReader { queue: folder("queue")?, state: folder("state")? };
        let corrupt = folder("corrupt")?;
        // New folders must not vanish with the first message in them.
        root.flush_to_disk()?;
        disk.open_folder(parent_of(path))?.flush_to_disk()?;
        let lock = take_lock(&root).map_err(|error| with_path(error, &path.join("lock")))?;
        Ok(Self {
            has_unnamed_files: has_unnamed_files(&reader.queue),
            orders_data_first: reader.queue.orders_data_first()?,
            queue_identity: reader.queue.status()?.identity(),
            newest_found: OnceLock::new(),
            is_mounted: is_mounted(path, disk)?,
            root,
            reader,
            corrupt,
            _lock: Some(lock),
        })
    }

    /// Opens the spool in `path`, which must be there, beside a daemon that may have it.
    ///
    /// # Errors
    /// When its folders cannot be opened.
    pub(super) fn open_beside(path: &Path) -> io::Result<Self> {
        let (disk, reader) = (Disk::host(), SpoolReader::open(path)?);
        Ok(Self {
            root: disk.open_folder(path)?,
            corrupt: disk.open_folder(&path.join("corrupt"))?,
            has_unnamed_files: false,
            orders_data_first: reader.queue.orders_data_first()?,
            queue_identity: reader.queue.status()?.identity(),
            newest_found: OnceLock::new(),
            is_mounted: is_mounted(path, &disk)?,
            reader,
            _lock: None,
        })
    }

    /// Notes the newest message that an earlier run has left.
    pub(super) fn note_newest(&self, newest: Option<QueueId>) {
        // Who looks a second time finds messages of this run as well.
        let _ = self.newest_found.set(newest);
    }

    /// Whether no message of an earlier run can have this id, as far as is known.
    pub(super) fn is_newer_than_found(&self, id: QueueId) -> bool {
        self.newest_found.get().is_some_and(|newest| newest.is_none_or(|newest| id > newest))
    }

    /// Whether these are the folders at `path`.
    ///
    /// # Errors
    /// When it cannot be seen; where there is nothing at all, they are not.
    pub(super) fn are_at(&self, path: &Path, disk: &Disk) -> io::Result<bool> {
        match disk.look_at(&path.join("queue")) {
            Ok(queue) => Ok(queue.identity() == self.queue_identity),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the folder at `path` may take their place. It must be there. If they were on a
    /// file system mounted at the path, an empty mount point is not meant: what was put into it
    /// would be hidden when the file system comes back.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check_successor(&self, path: &Path, disk: &Disk) -> io::Result<()> {
        disk.look_at(path).map_err(|error| with_path(error, path))?;
        if self.is_mounted && !is_mounted(path, disk)? {
            let error =
                io::Error::new(io::ErrorKind::NotFound, "nothing is mounted there any more");
            return Err(with_path(error, path));
        }
        Ok(())
    }
}

/// Takes the lock that says that one process has the spool.
fn take_lock(root: &Folder) -> io::Result<DiskFile> {
    root.open("lock", Open::ToLock)?;
    // Held open for reading only: a file open for writing would keep its file system from being
    // made read-only.
    let lock = root.open("lock", Open::Read)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    while !lock.try_lock()? {
        if Instant::now() >= deadline {
            let text = "another mailwren has this spool";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(lock)
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

fn is_mounted(path: &Path, disk: &Disk) -> io::Result<bool> {
    Ok(disk.look_at(path)?.identity().0 != disk.look_at(parent_of(path))?.identity().0)
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}
