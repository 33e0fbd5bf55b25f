//! An open folder.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::LazyLock;

use rustix::fs::{Access, AtFlags, CWD, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::push_out;
use super::watcher::{Kind, Operation};
use super::{Disk, DiskFile, FILE_MODE, FOLDER_MODE, LIST, Status, WALK};

/// An open folder of a [`Disk`]. Its names are single ones, without a slash.
#[derive(Debug)]
pub struct Folder {
    descriptor: OwnedFd,
    disk: Disk,
}

/// How a file is opened. A link is never followed, and nothing waits for the other end of a
/// FIFO. A file that is made has mode 0600.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// To read what must be there.
    Read,
    /// To read and to write at the end of what must be there.
    Append,
    /// The same, but it must not be there, and is made.
    AppendToNew,
    /// To write; it must not be there, and is made.
    New,
    /// To write; made where it is missing, and emptied where it is there.
    Anew,
    /// To lock it; made where it is missing.
    ToLock,
}

impl Open {
    pub(super) fn flags(self) -> OFlags {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        flags
            | match self {
                Self::Read => OFlags::RDONLY,
                Self::Append => OFlags::RDWR | OFlags::APPEND,
                Self::AppendToNew => OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL,
                Self::New => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
                Self::Anew => OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC,
                Self::ToLock => OFlags::WRONLY | OFlags::CREATE,
            }
    }

    pub(super) const fn kind(self) -> Kind<'static> {
        if matches!(self, Self::Read | Self::Append) { Kind::Open } else { Kind::Create }
    }
}

impl Folder {
    pub(super) const fn new(descriptor: OwnedFd, disk: Disk) -> Self {
        Self { descriptor, disk }
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Opens the folder `name` below, to list and to flush it, if it is not a link.
    ///
    /// # Errors
    /// When it is not there, is no folder, or not ours to read.
    pub fn open_folder(&self, name: &str) -> io::Result<Self> {
        let flags = LIST | OFlags::NOFOLLOW;
        self.disk.folder_at(Some(self.descriptor()), Path::new(name), flags)
    }

    /// Opens the folder `name` below, to walk through it, whether it may be listed or not, if
    /// it is not a link.
    ///
    /// # Errors
    /// When it is not there, is no folder, or may not be entered.
    pub fn walk_to(&self, name: &str) -> io::Result<Self> {
        let flags = WALK | OFlags::NOFOLLOW;
        self.disk.folder_at(Some(self.descriptor()), Path::new(name), flags)
    }

    /// Makes the folder `name` with mode 0700.
    ///
    /// # Errors
    /// `AlreadyExists`, or when the disk fails.
    pub fn make_folder(&self, name: &str) -> io::Result<()> {
        let make = || Ok(rustix::fs::mkdirat(&self.descriptor, name, FOLDER_MODE)?);
        self.watch(Kind::MakeFolder, name, make)
    }

    /// Gives the folder itself this mode: the permissions and the sticky bit.
    ///
    /// # Errors
    /// When it is somebody else's.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        let set = || Ok(rustix::fs::fchmod(&self.descriptor, Mode::from_raw_mode(mode))?);
        self.watch_itself(Kind::SetMode, set)
    }

    /// Opens the file `name`.
    ///
    /// # Errors
    /// When it is there and must not be, or the other way round, is a link, or the disk fails.
    pub fn open(&self, name: &str, how: Open) -> io::Result<DiskFile> {
        let operation =
            || Operation::new(how.kind()).folder(self.descriptor()).name(Path::new(name));
        let flags = how.flags();
        self.disk.file(operation, || rustix::fs::openat(&self.descriptor, name, flags, FILE_MODE))
    }

    /// Makes a file without a name, mode 0600, that [`Self::link_unnamed`] may give one. The
    /// system forgets it with the last descriptor, and after a crash.
    ///
    /// # Errors
    /// Where [`is_unsupported`] is true of the error, such files are not to be had here.
    pub fn create_unnamed(&self) -> io::Result<DiskFile> {
        // Without it no name could ever be given.
        static HAS_PROC: LazyLock<bool> = LazyLock::new(|| Path::new("/proc/self/fd").exists());
        let operation = || Operation::new(Kind::CreateUnnamed).folder(self.descriptor());
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        self.disk.file(operation, || {
            if !*HAS_PROC {
                return Err(Errno::OPNOTSUPP);
            }
            rustix::fs::openat(&self.descriptor, ".", flags, FILE_MODE)
        })
    }

    /// Gives a file that [`Self::create_unnamed`] made the name `name`.
    ///
    /// # Errors
    /// When the name is taken or the folder cannot be written.
    pub fn link_unnamed(&self, file: &DiskFile, name: &str) -> io::Result<()> {
        let operation = || self.operation(Kind::LinkUnnamed, name).file(file.descriptor());
        self.disk.watch(operation, || {
            let unnamed = format!("/proc/self/fd/{}", file.descriptor().as_raw_fd());
            let flags = AtFlags::SYMLINK_FOLLOW;
            Ok(rustix::fs::linkat(CWD, unnamed, &self.descriptor, name, flags)?)
        })
    }

    /// Gives the file `name` in this folder the name `new_name` in `to` too. Unlike a rename
    /// this never replaces another.
    ///
    /// # Errors
    /// When the name is taken or the folder cannot be written.
    pub fn link(&self, name: &str, to: &Self, new_name: &str) -> io::Result<()> {
        let operation =
            || to.operation(Kind::Link, new_name).from(self.descriptor(), Path::new(name));
        self.disk.watch(operation, || {
            let (from, to) = (&self.descriptor, &to.descriptor);
            Ok(rustix::fs::linkat(from, name, to, new_name, AtFlags::empty())?)
        })
    }

    /// Moves the file `name` to `to`, where it replaces what is called `new_name`.
    ///
    /// # Errors
    /// When it is not there or a folder cannot be written.
    pub fn rename(&self, name: &str, to: &Self, new_name: &str) -> io::Result<()> {
        let operation =
            || to.operation(Kind::Rename, new_name).from(self.descriptor(), Path::new(name));
        self.disk.watch(operation, || {
            Ok(rustix::fs::renameat(&self.descriptor, name, &to.descriptor, new_name)?)
        })
    }

    /// Removes the file `name`.
    ///
    /// # Errors
    /// When it cannot be removed or was not there.
    pub fn unlink(&self, name: &str) -> io::Result<()> {
        let unlink = || Ok(rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty())?);
        self.watch(Kind::Unlink, name, unlink)
    }

    /// Calls `take` with each name in it, but `.` and `..`, in no order. A name that is not UTF-8
    /// appears with its bad octets replaced, which no name of ours has.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn each_name(&self, mut take: impl FnMut(&str)) -> io::Result<()> {
        self.watch_itself(Kind::Names, || {
            for entry in rustix::fs::Dir::read_from(&self.descriptor)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy();
                if name != "." && name != ".." {
                    take(&name);
                }
            }
            Ok(())
        })
    }

    /// Takes the lock of flock(2) on the folder itself, waiting for it.
    ///
    /// # Errors
    /// When the file system knows no locks.
    pub fn lock(&self) -> io::Result<()> {
        let lock = || Ok(flock(&self.descriptor, FlockOperation::LockExclusive)?);
        self.watch_itself(Kind::Lock, lock)
    }

    /// Whether another process has that lock.
    ///
    /// # Errors
    /// When the file system knows no locks.
    pub fn is_locked(&self) -> io::Result<bool> {
        self.watch_itself(Kind::Lock, || {
            match flock(&self.descriptor, FlockOperation::NonBlockingLockShared) {
                Ok(()) => flock(&self.descriptor, FlockOperation::Unlock)?,
                Err(Errno::WOULDBLOCK) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
            Ok(false)
        })
    }

    /// Whether there is anything called `name`, as far as can be seen.
    pub fn has(&self, name: &str) -> bool {
        let look =
            || Ok(rustix::fs::accessat(&self.descriptor, name, Access::EXISTS, AtFlags::empty())?);
        self.watch(Kind::Look, name, look).is_ok()
    }

    /// What stands in the folder's own inode.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn status(&self) -> io::Result<Status> {
        self.watch_itself(Kind::Look, || Ok(Status(rustix::fs::fstat(&self.descriptor)?)))
    }

    /// What stands in the inode of `name`, which may be a link itself.
    ///
    /// # Errors
    /// When it is not there or the disk fails.
    pub fn look_at(&self, name: &str) -> io::Result<Status> {
        self.watch(Kind::Look, name, || {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            Ok(Status(rustix::fs::statat(&self.descriptor, name, flags)?))
        })
    }

    /// Makes its names last.
    ///
    /// # Errors
    /// When the disk fails, or it was opened only to walk through it.
    pub fn flush_to_disk(&self) -> io::Result<()> {
        self.watch_itself(Kind::FlushFolder, || Ok(rustix::fs::fsync(&self.descriptor)?))
    }

    /// Flushes the whole file system that it is on.
    ///
    /// # Errors
    /// When the disk fails, or it was opened only to walk through it.
    pub fn flush_file_system(&self) -> io::Result<()> {
        self.watch_itself(Kind::FlushAll, || Ok(rustix::fs::syncfs(&self.descriptor)?))
    }

    /// The octets that an unprivileged writer may still add to its file system.
    ///
    /// # Errors
    /// When the file system does not say, or takes nothing since it is read-only.
    pub fn free_octets(&self) -> io::Result<u64> {
        self.watch_itself(Kind::LookAtFileSystem, || {
            let space = rustix::fs::fstatvfs(&self.descriptor)?;
            if space.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
                return Err(Errno::ROFS.into());
            }
            Ok(space.f_bavail.saturating_mul(space.f_frsize))
        })
    }

    /// Whether its file system writes a name that a file is given after
    /// [`DiskFile::push_out`] never before the file's octets and its length. After a power cut
    /// the name then stands for the whole file or is not there, though neither was flushed.
    ///
    /// # Errors
    /// When the file system does not say what it is.
    pub fn orders_data_first(&self) -> io::Result<bool> {
        self.watch_itself(Kind::LookAtFileSystem, || {
            let watcher = self.disk.watcher.as_deref();
            if let Some(pretended) = watcher.and_then(|watcher| watcher.orders_data_first()) {
                return Ok(pretended);
            }
            // The field is wider or narrower elsewhere; the numbers have 32 bits.
            let file_system = rustix::fs::fstatfs(&self.descriptor)?.f_type;
            Ok(push_out::orders_data_first(file_system as u32))
        })
    }

    fn operation<'a>(&'a self, kind: Kind<'a>, name: &'a str) -> Operation<'a> {
        Operation::new(kind).folder(self.descriptor()).name(Path::new(name))
    }

    fn watch<T>(
        &self,
        kind: Kind<'_>,
        name: &str,
        act: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.disk.watch(|| self.operation(kind, name), act)
    }

    fn watch_itself<T>(
        &self,
        kind: Kind<'_>,
        act: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.disk.watch(|| Operation::new(kind).folder(self.descriptor()), act)
    }
}

/// Whether an error of [`Folder::create_unnamed`] says that the file system has no such files.
pub fn is_unsupported(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL))
}
