//! Files with secrets in them: written whole or not at all, and never for a moment readable by
//! others than their owner.

use std::io;
use std::path::Path;

use crate::sys::whole_file::{self, Rights, read};

pub use crate::sys::whole_file::Owner;

/// Replaces the file at `path` by what `change` makes of its octets, which are none where there
/// is no file; `None` leaves it as it is. It has mode 0600, and its group may go on reading it
/// where it could before. It keeps its owner; a new one gets `owner`, if this process is root.
///
/// # Errors
/// As with [`whole_file::change`].
pub fn change(
    path: &Path,
    max_octets: u64,
    owner: Option<Owner>,
    change: impl FnOnce(&[u8]) -> io::Result<Option<Vec<u8>>>,
) -> io::Result<()> {
    whole_file::change(path, max_octets, Rights::Private(owner), change)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use rustix::fs::{FlockOperation, flock};

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
