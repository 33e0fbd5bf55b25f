//! Files that are replaced as a whole: a reader, or a crash, finds the old one or the new one.
//!
//! A change happens under a lock of the folder (flock(2)), so that two programs that change the
//! same file do not lose each other's work. Links are not followed: what they lead to would be
//! replaced in a folder that nobody has named.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Access, FlockOperation, access, flock};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid, getgroups};

use crate::sys::files::with_path;

/// How long a change waits for one that is under way, and how often it looks.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Who gets a file: user and group id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

/// Whose a file is after a change, and who may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// It stays as it was. A new one is for everybody to read, and belongs to this process.
    Kept,
    /// Mode 0600, and its group may go on reading it where it could before. It keeps its owner;
    /// a new one gets this one, if this process is root.
    Private(Option<Owner>),
    /// This mode, and this owner if this process is root, whatever it was.
    Exactly(Owner, u32),
}

impl Rights {
    /// The owner and the mode of the new version of a file that was `before`.
    fn after(self, before: Option<&fs::Metadata>) -> (Option<Owner>, u32) {
        let owner = before.map(|file| Owner { uid: file.uid(), gid: file.gid() });
        let mode = before.map(|file| file.mode() & 0o7777);
        let if_root = |owner: Option<Owner>| owner.filter(|_| geteuid().is_root());
        match self {
            Self::Kept => (owner, mode.unwrap_or(0o644)),
            Self::Private(new) => {
                (owner.or_else(|| if_root(new)), 0o600 | (mode.unwrap_or(0) & 0o040))
            }
            Self::Exactly(new, mode) => (if_root(Some(new)).or(owner), mode),
        }
    }
}

/// Replaces the file at `path` by what `change` makes of its octets, which are none where there
/// is no file; `None` leaves it as it is.
///
/// # Errors
/// When the folder is missing or not ours to write, or stays locked, or the disk fails: then the
/// file is as it was. With a file of more than `max_octets`, before or after the change. What
/// `change` returns comes back as it is.
pub fn change(
    path: &Path,
    max_octets: u64,
    rights: Rights,
    change: impl FnOnce(&[u8]) -> io::Result<Option<Vec<u8>>>,
) -> io::Result<()> {
    let folder = folder_of(path);
    let opened = File::open(&folder).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let text = format!("there is no folder {}; make it first", folder.display());
            io::Error::new(error.kind(), text)
        }
        _ => with_path(error, &folder),
    })?;
    lock(&opened).map_err(|error| with_path(error, &folder))?;
    let folder = opened;
    let (octets, before) = match read(path, max_octets) {
        Ok((octets, file)) => (octets, Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), None),
        Err(error) => return Err(error),
    };
    let Some(octets) = change(&octets)? else { return Ok(()) };
    if octets.len() as u64 > max_octets {
        let text = format!("{}: it would have more than {max_octets} octets", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    let (owner, mode) = rights.after(before.as_ref());
    let new = new_name(path);
    let result = write(&new, &octets, owner, mode).and_then(|()| fs::rename(&new, path));
    if result.is_err() {
        // It may not even be there.
        let _ = fs::remove_file(&new);
    }
    result.map_err(|error| with_path(error, path))?;
    folder.sync_all()
}

/// Removes the file at `path`; one that is not there is no error.
///
/// # Errors
/// When the folder is not ours to write, or the disk fails.
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.and_then(|()| File::open(folder_of(path))?.sync_all()),
    };
    removed.map_err(|error| with_path(error, path))
}

/// What a file has in it, its owner, and its mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// All of it.
    pub octets: Vec<u8>,
    /// Whose it is.
    pub owner: Owner,
    /// The bits of chmod(1).
    pub mode: u32,
}

/// The file at `path`; `None` where there is none.
///
/// # Errors
/// As with [`change`]; also for a link, and for what is no regular file.
pub fn look(path: &Path, max_octets: u64) -> io::Result<Option<Found>> {
    match read(path, max_octets) {
        Ok((octets, file)) => {
            let owner = Owner { uid: file.uid(), gid: file.gid() };
            Ok(Some(Found { octets, owner, mode: file.mode() & 0o7777 }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether this process could replace the file at `path`, as far as that can be known before.
///
/// # Errors
/// Why it could not. A folder that is missing is no reason where its own could be written.
pub fn check_replaceable(path: &Path) -> io::Result<()> {
    let mut folder = folder_of(path);
    while !folder.exists() && folder.parent().is_some_and(|above| !above.as_os_str().is_empty()) {
        folder.pop();
    }
    access(&folder, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| with_path(error.into(), &folder))?;
    let (owner, group) = match fs::symlink_metadata(path) {
        Ok(file) if file.is_symlink() => return Err(is_link(path)),
        Ok(file) => (file.uid(), file.gid()),
        Err(_) => return Ok(()),
    };
    // Who is not root gives a new file to nobody else, and to no group of others.
    let is_in_group =
        getegid().as_raw() == group || getgroups()?.iter().any(|it| it.as_raw() == group);
    match geteuid().is_root() || (geteuid().as_raw() == owner && is_in_group) {
        true => Ok(()),
        false => Err(with_path(io::ErrorKind::PermissionDenied.into(), path)),
    }
}

/// Takes the lock of the folder. Whoever can list a folder can lock it, so nobody is waited for
/// without end.
fn lock(folder: &File) -> io::Result<()> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(LOCK_PAUSE),
            Err(Errno::WOULDBLOCK) => {
                let text = "another program keeps the folder locked; find it with lslocks(8)";
                return Err(io::Error::other(text));
            }
            result => return Ok(result?),
        }
    }
}

pub(super) fn read(path: &Path, max_octets: u64) -> io::Result<(Vec<u8>, fs::Metadata)> {
    let no_link = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(no_link).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => is_link(path),
        _ => with_path(error, path),
    })?;
    let metadata = file.metadata()?;
    let mut octets = Vec::new();
    if metadata.is_file() {
        file.take(max_octets + 1).read_to_end(&mut octets).map_err(|it| with_path(it, path))?;
    }
    if !metadata.is_file() || octets.len() as u64 > max_octets {
        let text = format!("{}: no regular file, or one that is too large", path.display());
        return Err(io::Error::other(text));
    }
    Ok((octets, metadata))
}

fn write(path: &Path, octets: &[u8], owner: Option<Owner>, mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        // What an earlier one left that was killed.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if let Some(owner) = owner
        && (owner.uid, owner.gid) != (geteuid().as_raw(), getegid().as_raw())
    {
        fchown(&file, Some(owner.uid), Some(owner.gid))?;
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(octets)?;
    file.sync_all()
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn new_name(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

fn is_link(path: &Path) -> io::Error {
    io::Error::other(format!("{}: it is a symbolic link; name its target", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_everybody_stays_so_and_what_is_wanted_is_made_so() {
        assert!(geteuid().is_root(), "run this test as root");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ini");
        let add = |rights| {
            change(&path, 99, rights, |octets| Ok(Some([octets, b"x"].concat()))).unwrap();
            let found = look(&path, 99).unwrap().unwrap();
            (found.owner.uid, found.owner.gid, found.mode, found.octets.len())
        };
        assert_eq!(look(&path, 99).unwrap(), None);
        assert_eq!(add(Rights::Kept), (0, 0, 0o644, 1));
        std::os::unix::fs::chown(&path, Some(1), Some(2)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o664)).unwrap();
        assert_eq!(add(Rights::Kept), (1, 2, 0o664, 2));
        assert_eq!(add(Rights::Exactly(Owner { uid: 0, gid: 3 }, 0o640)), (0, 3, 0o640, 3));
    }

    #[test]
    fn what_cannot_be_replaced_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a/b/ini"), folder.path().join("link"));
        check_replaceable(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let error = check_replaceable(&link).unwrap_err().to_string();
        assert!(error.ends_with("link: it is a symbolic link; name its target"), "{error}");
        let error = look(folder.path(), 99).unwrap_err().to_string();
        let expected = format!("{}: no regular file", folder.path().display());
        assert!(error.starts_with(&expected), "{error}");
    }
}
