//! The disk under the spool and the mailboxes: the only way in which those two touch files.
//!
//! A path is looked up once; from then on everything goes by descriptor and by a name without
//! a slash in it, and a link is never followed where we write. Each operation is one system
//! call. A [`Disk`] is the host's, or watched by a test's [`Watcher`], which may have any
//! operation fail; whatever is opened by way of a watched one is watched too.

mod file;
mod folder;
mod push_out;
mod watcher;

#[cfg(test)]
pub(crate) mod faults;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

pub use file::DiskFile;
pub use folder::{Folder, Open, is_unsupported};
pub use watcher::{Kind, Node, Operation, Verdict, Watcher};

/// To walk through a folder, whether it may be listed or not.
const WALK: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// To list a folder, and to flush it.
const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// What is made is its owner's alone.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const FOLDER_MODE: Mode = Mode::RWXU;

/// The disk that files are on.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    watcher: Option<Arc<dyn Watcher>>,
}

impl Disk {
    /// The host's, watched by nobody.
    pub const fn host() -> Self {
        Self { watcher: None }
    }

    /// The host's, each operation shown to `watcher` first.
    pub fn watched(watcher: Arc<dyn Watcher>) -> Self {
        Self { watcher: Some(watcher) }
    }

    /// Opens the folder at `path` to list and to flush it. Links are followed.
    ///
    /// # Errors
    /// When it is not there or not ours to read.
    pub fn open_folder(&self, path: &Path) -> io::Result<Folder> {
        self.folder_at(None, path, LIST)
    }

    /// Opens the folder at `path` to walk through it, whether it may be listed or not. Links
    /// are followed.
    ///
    /// # Errors
    /// When it is not there or may not be entered.
    pub fn walk_to(&self, path: &Path) -> io::Result<Folder> {
        self.folder_at(None, path, WALK)
    }

    /// The same, but a link in the place of the folder itself is an error.
    ///
    /// # Errors
    /// As above; `NotADirectory` for a link.
    pub fn walk_to_no_link(&self, path: &Path) -> io::Result<Folder> {
        self.folder_at(None, path, WALK | OFlags::NOFOLLOW)
    }

    /// Opens the folder at `path`, made with mode 0700 where it is missing, and those above.
    ///
    /// # Errors
    /// When it can be neither opened nor made.
    pub fn make_private_folder(&self, path: &Path) -> io::Result<Folder> {
        match self.open_folder(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.make_private_folder(parent)?;
        }
        let make = || Ok(rustix::fs::mkdirat(CWD, path, FOLDER_MODE)?);
        match self.watch(|| Operation::new(Kind::MakeFolder).name(path), make) {
            // Another process was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
        self.open_folder(path)
    }

    /// Opens the file at `path`. Links are followed on the way to it, but not the last one.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn open_file(&self, path: &Path, how: Open) -> io::Result<DiskFile> {
        let operation = || Operation::new(how.kind()).name(path);
        self.file(operation, || rustix::fs::openat(CWD, path, how.flags(), FILE_MODE))
    }

    /// What stands in the inode of the file or folder at `path`. Links are followed.
    ///
    /// # Errors
    /// When it is not there.
    pub fn look_at(&self, path: &Path) -> io::Result<Status> {
        let look = || Ok(Status(rustix::fs::stat(path)?));
        self.watch(|| Operation::new(Kind::Look).name(path), look)
    }

    /// The same, but of a link itself.
    ///
    /// # Errors
    /// When it is not there.
    pub fn look_at_no_link(&self, path: &Path) -> io::Result<Status> {
        let look = || Ok(Status(rustix::fs::lstat(path)?));
        self.watch(|| Operation::new(Kind::Look).name(path), look)
    }

    fn folder_at(
        &self,
        parent: Option<BorrowedFd<'_>>,
        name: &Path,
        flags: OFlags,
    ) -> io::Result<Folder> {
        let operation = || {
            let operation = Operation::new(Kind::OpenFolder).name(name);
            parent.map_or(operation, |parent| operation.folder(parent))
        };
        let open = || Ok(rustix::fs::openat(parent.unwrap_or(CWD), name, flags, Mode::empty())?);
        let done = |folder: &OwnedFd, watcher: &dyn Watcher| {
            watcher.done(&operation().opened(folder.as_fd()));
        };
        let descriptor = self.watch_opening(operation, open, done)?;
        Ok(Folder::new(descriptor, self.clone()))
    }

    fn file<'a>(
        &self,
        operation: impl Fn() -> Operation<'a>,
        open: impl FnOnce() -> Result<OwnedFd, Errno>,
    ) -> io::Result<DiskFile> {
        let file = self.watch_opening(
            &operation,
            || Ok(File::from(open()?)),
            |file, watcher| watcher.done(&operation().file(file.as_fd())),
        )?;
        Ok(DiskFile::new(file, self.clone()))
    }

    /// Carries `act` out, as the watcher lets it.
    fn watch<'a, T>(
        &self,
        operation: impl Fn() -> Operation<'a>,
        act: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.watch_opening(&operation, act, |_, watcher| watcher.done(&operation()))
    }

    /// The same where `done` has to tell what was opened.
    fn watch_opening<'a, T>(
        &self,
        operation: impl Fn() -> Operation<'a>,
        act: impl FnOnce() -> io::Result<T>,
        done: impl FnOnce(&T, &dyn Watcher),
    ) -> io::Result<T> {
        let Some(watcher) = self.watcher.as_deref() else { return act() };
        match watcher.before(&operation()) {
            Verdict::GoOn => {}
            Verdict::Fail(error) | Verdict::Tear(_, error) => return Err(error),
        }
        let result = act()?;
        done(&result, watcher);
        Ok(result)
    }
}

/// What stands in an inode.
#[derive(Clone, Copy, Debug)]
pub struct Status(Stat);

impl Status {
    /// Device and inode, by which a file is known again while it is there.
    pub const fn identity(&self) -> (u64, u64) {
        (self.0.st_dev, self.0.st_ino)
    }

    /// Whether it is an ordinary file.
    pub fn is_file(&self) -> bool {
        matches!(FileType::from_raw_mode(self.0.st_mode), FileType::RegularFile)
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        matches!(FileType::from_raw_mode(self.0.st_mode), FileType::Directory)
    }

    /// Whether it is a Unix socket.
    pub fn is_socket(&self) -> bool {
        matches!(FileType::from_raw_mode(self.0.st_mode), FileType::Socket)
    }

    /// The user id of its owner.
    pub const fn owner(&self) -> u32 {
        self.0.st_uid
    }

    /// The id of its group.
    pub const fn group(&self) -> u32 {
        self.0.st_gid
    }

    /// Its permissions and the bits beside them: set-id and sticky.
    pub const fn mode(&self) -> u32 {
        self.0.st_mode & 0o7777
    }

    /// Whether its group may write.
    pub const fn is_group_writable(&self) -> bool {
        self.0.st_mode & 0o020 != 0
    }

    /// Whether every account may write.
    pub const fn is_writable_for_all(&self) -> bool {
        self.0.st_mode & 0o002 != 0
    }

    /// Whether others than its owner may write.
    pub const fn is_writable_for_others(&self) -> bool {
        self.0.st_mode & 0o022 != 0
    }

    /// Whether the account `uid` with these groups may read it, as far as its own mode says.
    pub fn is_readable_for(&self, uid: u32, groups: &[u32]) -> bool {
        self.allows(0o4, uid, groups)
    }

    /// Whether the account `uid` with these groups may use the files in it, if it is a folder.
    pub fn is_searchable_for(&self, uid: u32, groups: &[u32]) -> bool {
        self.allows(0o1, uid, groups)
    }

    fn allows(&self, bit: u32, uid: u32, groups: &[u32]) -> bool {
        let shift = match () {
            () if uid == 0 => return true,
            () if uid == self.owner() => 6,
            () if groups.contains(&self.group()) => 3,
            () => 0,
        };
        self.0.st_mode & (bit << shift) != 0
    }

    /// How many names it has.
    pub fn names(&self) -> u64 {
        // Its type is another one on each processor.
        u64::try_from(i128::from(self.0.st_nlink)).unwrap_or(u64::MAX)
    }

    /// Its length in octets.
    pub fn size_octets(&self) -> u64 {
        u64::try_from(self.0.st_size).unwrap_or(0)
    }

    /// When its content last changed, in seconds since 1970 by the clock of its file system.
    pub const fn modified_seconds(&self) -> i64 {
        self.0.st_mtime
    }

    /// When it was last read, in the same way.
    pub const fn accessed_seconds(&self) -> i64 {
        self.0.st_atime
    }
}

/// The number of an error, where it came from the system or is like one of its.
pub fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

#[cfg(test)]
mod tests {
    use super::faults::{FailNth, each_fault};
    use super::*;
    use std::io::Write;
    use std::sync::Mutex;

    /// Notes what it is told.
    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Watcher for Notes {
        fn before(&self, operation: &Operation<'_>) -> Verdict {
            self.0.lock().unwrap().push(format!("{:?}", operation.kind));
            Verdict::GoOn
        }

        fn done(&self, operation: &Operation<'_>) {
            let told = match operation.kind {
                Kind::FlushFile => format!("{:?}", operation.file.unwrap().content().unwrap()),
                Kind::FlushFolder => {
                    let names = operation.folder.unwrap().names().unwrap();
                    names.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
                }
                Kind::Rename => {
                    let (folder, name) = operation.from.unwrap();
                    let to = operation.folder.unwrap();
                    assert_eq!(folder.id().unwrap(), to.id().unwrap());
                    format!("{} to {}", name.display(), operation.name.unwrap().display())
                }
                Kind::Create => operation.file.unwrap().path().unwrap().display().to_string(),
                Kind::OpenFolder => operation.opened.unwrap().path().unwrap().display().to_string(),
                _ => return,
            };
            self.0.lock().unwrap().push(told);
        }
    }

    /// A file written, flushed, renamed, its folder flushed.
    fn keep(disk: &Disk, path: &Path) -> io::Result<()> {
        let folder = disk.open_folder(path)?;
        let mut file = folder.open("a", Open::New)?;
        file.write_all(b"xyz")?;
        file.flush_to_disk()?;
        folder.rename("a", &folder, "b")?;
        folder.flush_to_disk()
    }

    #[test]
    fn a_watcher_is_told_of_all_in_order() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path();
        let notes = Arc::new(Notes::default());
        let disk = Disk::watched(Arc::clone(&notes) as Arc<dyn Watcher>);
        keep(&disk, path).unwrap();
        let (folder, file) = (path.display().to_string(), path.join("a").display().to_string());
        let expected = [
            "OpenFolder",
            &folder,
            "Create",
            &file,
            "Write([120, 121, 122])",
            "FlushFile",
            "[120, 121, 122]",
            "Rename",
            "a to b",
            "FlushFolder",
            "b",
        ];
        assert_eq!(*notes.0.lock().unwrap(), expected);
    }

    #[test]
    fn each_operation_can_fail_and_what_was_before_it_stays() {
        let mut kinds = Vec::new();
        each_fault(FailNth::new, |watcher| {
            let base = tempfile::tempdir().unwrap();
            let result = keep(&Disk::watched(watcher.clone()), base.path());
            assert_eq!(result.is_err(), watcher.failed().is_some());
            kinds.extend(watcher.failed());
            let length = |name| std::fs::metadata(base.path().join(name)).map(|file| file.len());
            match watcher.failed().as_deref() {
                Some("OpenFolder" | "Create") => assert!(length("a").is_err()),
                Some("Write") => assert_eq!(length("a").unwrap(), 0),
                Some("FlushFile" | "Rename") => assert_eq!(length("a").unwrap(), 3),
                _ => assert_eq!(length("b").unwrap(), 3),
            }
            result.is_ok()
        });
        assert_eq!(kinds, ["OpenFolder", "Create", "Write", "FlushFile", "Rename", "FlushFolder"]);
    }

    #[test]
    fn a_write_is_torn_where_the_watcher_says() {
        let base = tempfile::tempdir().unwrap();
        let watcher = Arc::new(FailNth::tearing(3, 2));
        assert!(keep(&Disk::watched(watcher), base.path()).is_err());
        assert_eq!(std::fs::read(base.path().join("a")).unwrap(), b"xy");
    }

    #[test]
    fn what_is_pushed_out_is_there() {
        let base = tempfile::tempdir().unwrap();
        let folder = Disk::host().open_folder(base.path()).unwrap();
        let mut file = folder.create_unnamed().unwrap();
        file.write_all(b"xyz").unwrap();
        file.push_out().unwrap();
        folder.link_unnamed(&file, "a").unwrap();
        assert!(folder.link_unnamed(&file, "a").is_err());
        let mut names = Vec::new();
        folder.each_name(|name| names.push(name.to_owned())).unwrap();
        assert_eq!(names, ["a"]);
        assert!(folder.has("a") && !folder.has("b"));
        let mut octets = [0; 3];
        folder.open("a", Open::Read).unwrap().read_exact_at(&mut octets, 0).unwrap();
        assert_eq!(&octets, b"xyz");
    }
}
