//! Files with secrets in them: written whole or not at all, and never for a moment readable by
//! others than their owner.
//!
//! A change happens under a lock of the folder (flock(2)), so that two programs that change the
//! same file do not lose each other's work.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::sys::files::with_path;

/// How long a change waits for one that is under way, and how often it looks.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Who gets a file that was not there before: user and group id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

/// Replaces the file at `path` by what `change` makes of its octets, which are none where there
/// is no file; `None` leaves it as it is. It has mode 0600, and its group may go on reading it
/// where it could before. It keeps its owner; a new one gets `owner`, if this process is root.
///
/// # Errors
/// When the folder is missing or not ours to write, or stays locked, or the disk fails: then the
/// file is as it was. With a file of more than `max_octets`, before or after the change. What
/// `change` returns comes back as it is.
pub fn change(
    path: &Path,
    max_octets: u64,
    owner: Option<Owner>,
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
    let (owner, mode) = match &before {
        Some(file) => {
            let owner = Owner { uid: file.uid(), gid: file.gid() };
            (Some(owner), 0o600 | (file.mode() & 0o040))
        }
        None => (owner.filter(|_| geteuid().is_root()), 0o600),
    };
    let new = new_name(path);
    let result = write(&new, &octets, owner, mode).and_then(|()| fs::rename(&new, path));
    if result.is_err() {
        // It may not even be there.
        let _ = fs::remove_file(&new);
    }
    result.map_err(|error| with_path(error, path))?;
    folder.sync_all()
}

/// The octets of the file at `path`, made by `make` where it is missing.
///
/// # Errors
/// As with [`change`].
pub fn read_or_make(
    path: &Path,
    max_octets: u64,
    make: impl FnOnce() -> io::Result<Vec<u8>>,
) -> io::Result<Vec<u8>> {
    match read(path, max_octets) {
        Ok((octets, _)) if !octets.is_empty() => return Ok(octets),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(_) | Err(_) => {}
    }
    let mut found = Vec::new();
    change(path, max_octets, None, |octets| {
        // Another process may have been quicker.
        if !octets.is_empty() {
            octets.clone_into(&mut found);
            return Ok(None);
        }
        found = make()?;
        Ok(Some(found.clone()))
    })?;
    Ok(found)
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

fn read(path: &Path, max_octets: u64) -> io::Result<(Vec<u8>, fs::Metadata)> {
    let no_link = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(no_link).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => {
            io::Error::other(format!("{}: it is a symbolic link; name its target", path.display()))
        }
        _ => with_path(error, path),
    })?;
    let metadata = file.metadata()?;
    let mut octets = Vec::new();
    file.take(max_octets + 1).read_to_end(&mut octets)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn append(path: &Path, text: &str) -> io::Result<()> {
        change(path, 1 << 20, None, |octets| Ok(Some([octets, text.as_bytes()].concat())))
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_file_is_made_and_changed_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        append(&path, "a").unwrap();
        assert_eq!(mode(&path), 0o600);
        for (before, after) in [(0o644, 0o640), (0o640, 0o640), (0o622, 0o600), (0o400, 0o600)] {
            fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            append(&path, "b").unwrap();
            assert_eq!(mode(&path), after, "{before:o}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"abbbb");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_left_alone_stays_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, "a").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        change(&path, 9, None, |_| Ok(None)).unwrap();
        assert!(change(&path, 9, None, |_| Err(io::Error::other("no"))).is_err());
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        append(&path, "b").unwrap();
        assert_ne!(fs::metadata(&path).unwrap().ino(), inode);
        assert!(change(&path, 1, None, |_| Ok(Some(Vec::new()))).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"ab");
    }

    #[test]
    fn a_link_is_not_replaced_and_what_a_killed_one_left_is_no_hindrance() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("users"), folder.path().join("link"));
        fs::write(folder.path().join(".users.new"), "half").unwrap();
        append(&path, "a").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(append(&link, "b").unwrap_err().to_string().contains("symbolic link"));
        assert!(append(&folder.path().join("none/users"), "a").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"a");
    }

    #[test]
    fn nobody_loses_the_change_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..8).for_each(|_| append(&path, "x").unwrap()));
            }
        });
        assert_eq!(fs::read(&path).unwrap().len(), 64);
    }

    #[test]
    fn who_sits_on_the_lock_is_not_waited_for_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let held = File::open(folder.path()).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        let path = folder.path().join("users");
        let (told, tell) = mpsc::channel();
        let changed = thread::spawn(move || {
            told.send(append(&path, "a").map_err(|error| error.to_string())).unwrap();
        });
        let error = tell.recv_timeout(Duration::from_secs(60)).unwrap().unwrap_err();
        assert!(error.contains("another program keeps the folder locked"), "{error}");
        changed.join().unwrap();
    }

    #[test]
    fn what_would_be_too_large_to_be_read_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        change(&path, 4, None, |_| Ok(Some(b"abcd".to_vec()))).unwrap();
        assert!(change(&path, 4, None, |_| Ok(Some(b"abcde".to_vec()))).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"abcd");
    }

    #[test]
    fn a_secret_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let get = |text: &str| read_or_make(&path, 9, || Ok(text.into())).unwrap();
        assert_eq!([get("one"), get("two")], [b"one", b"one"]);
        fs::write(&path, "").unwrap();
        assert_eq!(get("two"), b"two");
    }
}
