//! Whoever is told of each operation on files before it happens, and may have it fail: the
//! tests' stand-in for disks that are full, break, or lose their power.

use std::fmt::Debug;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::fstat;

/// Is told of each operation, and decides what becomes of it. Any number of threads may call
/// it at once.
///
/// To act out a power cut: keep, at each [`Kind::FlushFile`] that is [`done`](Self::done),
/// what [`Node::content`] gives for its file, and at each [`Kind::FlushFolder`] what
/// [`Node::names`] gives for its folder, where inodes tell which file a name stands for. From
/// the moment of the cut on, answer [`Verdict::Fail`] to everything, the cleaning up included.
/// What the disk may hold then is what was kept, and of what was not flushed any part: names
/// without files, files cut anywhere. Only where
/// [`orders_data_first`](Self::orders_data_first) says so, a name that was given after
/// [`Kind::PushOut`] stands for no less than the file had at that moment.
pub trait Watcher: Debug + Send + Sync {
    /// Called before the operation. Nothing of it has happened yet.
    fn before(&self, operation: &Operation<'_>) -> Verdict {
        let _ = operation;
        Verdict::GoOn
    }

    /// Called after the operation has succeeded, and after a write of which some was written.
    /// Where it opened or made a file or a folder, that one is named now.
    fn done(&self, operation: &Operation<'_>) {
        let _ = operation;
    }

    /// Whether the file system orders data before names, whatever it really is: see
    /// [`Folder::orders_data_first`](super::Folder::orders_data_first). `None` for the truth.
    fn orders_data_first(&self) -> Option<bool> {
        None
    }
}

/// What becomes of an operation.
#[derive(Debug)]
pub enum Verdict {
    /// It is carried out.
    GoOn,
    /// It fails with this error, and nothing of it happens.
    Fail(io::Error),
    /// For a write: only so many octets are written before the error. Anything else fails
    /// whole.
    Tear(usize, io::Error),
}

/// One operation on files.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// What is done.
    pub kind: Kind<'a>,
    /// The open file that it is done to. For one that opens or makes a file, that file, once
    /// it is done.
    pub file: Option<Node<'a>>,
    /// The open folder that it is done to or in. `None` where `name` is a path by itself.
    pub folder: Option<Node<'a>>,
    /// The name in that folder. For links and renames the new one.
    pub name: Option<&'a Path>,
    /// For a link and a rename, where the old name is, and the old name.
    pub from: Option<(Node<'a>, &'a Path)>,
    /// For one that opens a folder, that folder, once it is done.
    pub opened: Option<Node<'a>>,
}

/// The kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A folder is opened, by path or below another one.
    OpenFolder,
    /// A folder is made.
    MakeFolder,
    /// The mode of a folder is changed.
    SetMode,
    /// It is noted when a file was last read, and perhaps when it was last changed.
    SetTimes,
    /// A file that must be there is opened.
    Open,
    /// A file is opened and made where it is missing. Where one is there it may be emptied.
    Create,
    /// A file without a name is made in the folder (`O_TMPFILE`).
    CreateUnnamed,
    /// These octets are written, at the end of what was written before.
    Write(&'a [u8]),
    /// Something is read.
    Read,
    /// The file is cut to so many octets.
    Truncate(u64),
    /// The file's octets are handed to the device, which may still forget them, as it may the
    /// size and the names.
    PushOut,
    /// The file is flushed: octets and size. Whether its name is too, depends on the file
    /// system.
    FlushFile,
    /// The folder's names are flushed.
    FlushFolder,
    /// The whole file system that the file or folder is on is flushed.
    FlushAll,
    /// A file gets a second name. Never replaces another.
    Link,
    /// A file without a name gets one. Never replaces another.
    LinkUnnamed,
    /// A name moves, and replaces another one.
    Rename,
    /// A name is removed.
    Unlink,
    /// The names of the folder are read.
    Names,
    /// It is asked what stands in the inode.
    Look,
    /// It is asked about the file system.
    LookAtFileSystem,
    /// A lock is taken.
    Lock,
}

impl Kind<'_> {
    /// Whether something on the disk is changed or flushed by it, if only in names or locks.
    pub const fn changes(self) -> bool {
        !matches!(
            self,
            Self::OpenFolder
                | Self::Open
                | Self::Read
                | Self::Names
                | Self::Look
                | Self::LookAtFileSystem
                | Self::Lock
        )
    }
}

impl<'a> Operation<'a> {
    pub(super) const fn new(kind: Kind<'a>) -> Self {
        Self { kind, file: None, folder: None, name: None, from: None, opened: None }
    }

    pub(super) fn file(self, file: BorrowedFd<'a>) -> Self {
        Self { file: Some(Node(file)), ..self }
    }

    pub(super) fn folder(self, folder: BorrowedFd<'a>) -> Self {
        Self { folder: Some(Node(folder)), ..self }
    }

    pub(super) fn name(self, name: &'a Path) -> Self {
        Self { name: Some(name), ..self }
    }

    pub(super) fn from(self, folder: BorrowedFd<'a>, name: &'a Path) -> Self {
        Self { from: Some((Node(folder), name)), ..self }
    }

    pub(super) fn opened(self, folder: BorrowedFd<'a>) -> Self {
        Self { opened: Some(Node(folder)), ..self }
    }
}

/// An open file or folder, to be looked into.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a>(BorrowedFd<'a>);

impl Node<'_> {
    /// Device and inode. A later file may get those of one that is gone.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn id(&self) -> io::Result<(u64, u64)> {
        let status = fstat(self.0)?;
        Ok((status.st_dev, status.st_ino))
    }

    /// Where it is now; for a file without a name, something that ends with ` (deleted)`.
    ///
    /// # Errors
    /// When /proc is missing.
    pub fn path(&self) -> io::Result<PathBuf> {
        std::fs::read_link(self.descriptor())
    }

    /// All octets of a file, as a process would read them now, however it was opened.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn content(&self) -> io::Result<Vec<u8>> {
        let mut octets = Vec::new();
        std::fs::File::open(self.descriptor())?.read_to_end(&mut octets)?;
        Ok(octets)
    }

    /// The names in a folder with the inode of each, sorted, however it was opened.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self) -> io::Result<Vec<(String, u64)>> {
        use std::os::unix::fs::DirEntryExt;
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.descriptor())? {
            let entry = entry?;
            names.push((entry.file_name().to_string_lossy().into_owned(), entry.ino()));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn descriptor(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}
