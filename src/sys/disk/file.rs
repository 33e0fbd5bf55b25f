//! An open file.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, Timespec, Timestamps, UTIME_OMIT, fstat, futimens, syncfs};

use super::push_out;
use super::watcher::{Kind, Operation, Verdict};
use super::{Disk, Status};
use crate::sys::filelock;

/// An open file of a [`Disk`]. It is read and written by any number of threads, each reader
/// with positions of its own.
#[derive(Debug)]
pub struct DiskFile {
    file: File,
    disk: Disk,
}

/// A file of the host's disk, watched by nobody.
impl From<File> for DiskFile {
    fn from(file: File) -> Self {
        Self { file, disk: Disk::host() }
    }
}

impl DiskFile {
    pub(super) const fn new(file: File, disk: Disk) -> Self {
        Self { file, disk }
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Reads from `offset` on, and says how many octets: 0 only at the end.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.watch(Kind::Read, || self.file.read_at(buffer, offset))
    }

    /// Fills the whole buffer with what stands from `offset` on.
    ///
    /// # Errors
    /// When the disk fails; `UnexpectedEof` when there is less.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.watch(Kind::Read, || self.file.read_exact_at(buffer, offset))
    }

    /// Reads what is left of the file, or its first `max_octets`.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn read_up_to(&self, max_octets: u64) -> io::Result<Vec<u8>> {
        self.watch(Kind::Read, || {
            let mut octets = Vec::new();
            (&self.file).take(max_octets).read_to_end(&mut octets)?;
            Ok(octets)
        })
    }

    /// What stands in its inode.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn status(&self) -> io::Result<Status> {
        self.watch(Kind::Look, || Ok(Status(fstat(&self.file)?)))
    }

    /// Its length in octets.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn size_octets(&self) -> io::Result<u64> {
        Ok(self.status()?.size_octets())
    }

    /// Writes its octets to the device without making them last: see
    /// [`Folder::orders_data_first`](super::Folder::orders_data_first), which says where that
    /// is of use.
    ///
    /// # Errors
    /// When the device does not take them; they must count as lost then.
    pub fn push_out(&self) -> io::Result<()> {
        self.watch(Kind::PushOut, || push_out::push_out(&self.file))
    }

    /// Makes its octets and its length last. On file systems with a journal also everything
    /// that was done before, the names it was given among it.
    ///
    /// # Errors
    /// When the device does not take them. They must count as lost, since a second try would
    /// find nothing left to write and succeed.
    pub fn flush_to_disk(&self) -> io::Result<()> {
        self.watch(Kind::FlushFile, || self.file.sync_all())
    }

    /// Flushes the whole file system that it is on.
    ///
    /// # Errors
    /// When the device fails.
    pub fn flush_file_system(&self) -> io::Result<()> {
        self.watch(Kind::FlushAll, || Ok(syncfs(&self.file)?))
    }

    /// Gives it this mode, whatever the umask says.
    ///
    /// # Errors
    /// When it is somebody else's.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        let set = || Ok(rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode))?);
        self.watch(Kind::SetMode, set)
    }

    /// Cuts it to so many octets.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn truncate(&self, octets: u64) -> io::Result<()> {
        self.watch(Kind::Truncate(octets), || self.file.set_len(octets))
    }

    /// Notes when it was last read and, unless it is `None`, last changed, in seconds since 1970.
    ///
    /// # Errors
    /// `PermissionDenied` where it belongs to somebody else, or when the disk fails.
    pub fn set_times(&self, accessed: i64, modified: Option<i64>) -> io::Result<()> {
        let at = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
        let unchanged = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps {
            last_access: at(accessed),
            last_modification: modified.map_or(unchanged, at),
        };
        self.watch(Kind::SetTimes, || Ok(futimens(&self.file, &times)?))
    }

    /// Takes the lock of flock(2) without waiting. `false` when another process has it. It
    /// ends when the file is closed.
    ///
    /// # Errors
    /// When the file system knows no locks.
    pub fn try_lock(&self) -> io::Result<bool> {
        self.watch(Kind::Lock, || match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        })
    }

    /// Gives the lock of flock(2) back.
    ///
    /// # Errors
    /// When the file system knows no locks.
    pub fn unlock(&self) -> io::Result<()> {
        self.watch(Kind::Lock, || self.file.unlock())
    }

    /// Takes the lock of fcntl(2), as [`filelock::try_lock`] does.
    ///
    /// # Errors
    /// When the file system knows no locks.
    pub fn try_lock_as_readers_do(&self) -> io::Result<bool> {
        self.watch(Kind::Lock, || filelock::try_lock(&self.file))
    }

    fn watch<T>(&self, kind: Kind<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.disk.watch(|| Operation::new(kind).file(self.descriptor()), act)
    }

    /// Writes as much as the watcher lets through.
    fn write_watched(&mut self, octets: &[u8]) -> io::Result<usize> {
        let Some(watcher) = self.disk.watcher.as_deref() else { return self.file.write(octets) };
        let operation = |octets| Operation::new(Kind::Write(octets)).file(self.file.as_fd());
        let (octets, result) = match watcher.before(&operation(octets)) {
            Verdict::GoOn => (octets, Ok(octets.len())),
            Verdict::Fail(error) => (&octets[..0], Err(error)),
            Verdict::Tear(count, error) => (&octets[..count.min(octets.len())], Err(error)),
        };
        if !octets.is_empty() {
            (&self.file).write_all(octets)?;
            watcher.done(&operation(octets));
        }
        result
    }
}

/// Writes at the end of what was written before, or of the file where it was opened so.
impl Write for DiskFile {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.write_watched(octets)
    }

    /// Does nothing: nothing is held back. [`DiskFile::flush_to_disk`] makes things last.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
