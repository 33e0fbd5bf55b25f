//! A file that is read again when it has changed, such as a list of users or of aliases.
//!
//! Looking costs one `stat`. Nothing is locked while the file is read, so two threads may
//! both read a new version; either result is good.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sys::trail;

/// A file and what its content means.
#[derive(Debug)]
pub struct WatchedFile<T> {
    path: PathBuf,
    max_octets: u64,
    kind: Kind,
    last: Mutex<Option<(Stamp, Arc<T>)>>,
}

/// Whose a file may be, and who may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The administrator's, or the server's own.
    Ordinary,
    /// The same, and nobody else may see it.
    Secret,
    /// Perhaps a user's.
    OfUsers,
}

/// What changes when a file does: device, inode, size, modification and status time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([u64; 3], [i64; 4]);

impl Stamp {
    /// The stamp of a file as it is now.
    pub fn of(file: &Metadata) -> Self {
        Self(
            [file.dev(), file.ino(), file.size()],
            [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()],
        )
    }
}

impl<T> WatchedFile<T> {
    /// Watches the file at `path`. One with more than `max_octets` is not read.
    pub fn new(path: PathBuf, max_octets: u64) -> Self {
        Self { path, max_octets, kind: Kind::Ordinary, last: Mutex::new(None) }
    }

    /// The same for a file that may be a user's, or that users may put another in the place of, by
    /// a link or without: it is read with the rights of those alone who can.
    pub fn of_users(path: PathBuf, max_octets: u64) -> Self {
        Self { kind: Kind::OfUsers, ..Self::new(path, max_octets) }
    }

    /// The same for a file with secrets: it is not read while others than its owner and its group
    /// may read it, or others than its owner may write it.
    pub fn secret(path: PathBuf, max_octets: u64) -> Self {
        Self { kind: Kind::Secret, ..Self::new(path, max_octets) }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file meant when it was read last.
    pub fn latest(&self) -> Option<Arc<T>> {
        self.last().clone().map(|(_, value)| value)
    }

    /// What the file means now. When it is new or has changed, `parse` is given its octets
    /// and what the version before meant.
    ///
    /// # Errors
    /// When the file is missing, unreadable, too large, no regular file, a secret that is none, or a
    /// user's that leads to what the user may not read; the text of the last two names the remedy.
    pub fn load(&self, parse: impl FnOnce(&[u8], Option<Arc<T>>) -> Arc<T>) -> io::Result<Arc<T>> {
        if let Some(value) = self.unchanged()? {
            return Ok(value);
        }
        let before = self.latest();
        let (stamp, octets) = self.read()?;
        let value = parse(&octets, before);
        *self.last() = Some((stamp, Arc::clone(&value)));
        Ok(value)
    }

    /// What it meant before, where it has not changed since.
    fn unchanged(&self) -> io::Result<Option<Arc<T>>> {
        let metadata = match fs::metadata(&self.path) {
            // Its user may see it.
            Err(error) if self.kind == Kind::OfUsers && is_denied(&error) => return Ok(None),
            result => result?,
        };
        // To open a device can do more than a reader wants.
        check_regular(&metadata)?;
        let stamp = Stamp::of(&metadata);
        let last = self.last().clone();
        Ok(last.filter(|(known, _)| *known == stamp).map(|(_, value)| value))
    }

    fn open(&self) -> io::Result<File> {
        if self.kind == Kind::OfUsers {
            return trail::open(&self.path);
        }
        // Should it be a FIFO by now, nobody waits for its other end.
        let no_wait = libc::O_NONBLOCK | libc::O_NOCTTY;
        OpenOptions::new().read(true).custom_flags(no_wait).open(&self.path)
    }

    fn read(&self) -> io::Result<(Stamp, Vec<u8>)> {
        let mut file = self.open()?;
        let metadata = file.metadata()?;
        check_regular(&metadata)?;
        if self.kind == Kind::Secret {
            check_secret(&metadata, &self.path)?;
        }
        let mut octets = Vec::new();
        file.by_ref().take(self.max_octets + 1).read_to_end(&mut octets)?;
        if octets.len() as u64 > self.max_octets {
            let text = format!("it has more than {} octets", self.max_octets);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok((Stamp::of(&metadata), octets))
    }

    fn last(&self) -> MutexGuard<'_, Option<(Stamp, Arc<T>)>> {
        // Nothing panics while it is locked, and a whole value is all that is ever put in.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn check_regular(file: &Metadata) -> io::Result<()> {
    if file.is_file() { Ok(()) } else { Err(io::Error::other("it is no regular file")) }
}

fn check_secret(file: &Metadata, path: &Path) -> io::Result<()> {
    let what = match file.mode() {
        mode if mode & 0o004 != 0 => "everybody can read it",
        mode if mode & 0o022 != 0 => "others than its owner can write it",
        _ => return Ok(()),
    };
    Err(io::Error::other(format!("{what}; run: chmod o-rwx,g-w {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    fn load(file: &WatchedFile<String>) -> io::Result<String> {
        let parse = |octets: &[u8], before: Option<Arc<String>>| {
            let before = before.as_deref().map_or("", String::as_str);
            Arc::new(format!("{before}[{}]", String::from_utf8_lossy(octets)))
        };
        file.load(parse).map(|value| value.to_string())
    }

    #[test]
    fn a_secret_that_others_can_read_or_write_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "x").unwrap();
        let file = WatchedFile::secret(path.clone(), 8);
        for (mode, expected) in [
            (0o600, None),
            (0o604, Some("everybody can read it")),
            (0o640, None),
            (0o660, Some("others than its owner can write it")),
            (0o602, Some("others than its owner can write it")),
            (0o400, None),
            (0o644, Some("chmod o-rwx,g-w /")),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = load(&file).err().map(|error| error.to_string());
            let is_right = match (expected, &error) {
                (None, None) => true,
                (Some(part), Some(error)) => error.contains(part),
                _ => false,
            };
            assert!(is_right, "{mode:o}: {error:?}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for path in [path, "/dev/zero".into(), folder.path().to_owned()] {
            let (told, tell) = mpsc::channel();
            let file = WatchedFile::<String>::new(path.clone(), 8);
            thread::spawn(move || told.send(load(&file).unwrap_err().to_string()));
            let error = tell.recv_timeout(Duration::from_secs(60)).unwrap();
            assert!(error.contains("no regular file"), "{}: {error}", path.display());
        }
    }

    #[test]
    fn a_file_is_read_again_only_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let file = WatchedFile::new(path.clone(), 8);
        assert_eq!(load(&file).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, "one").unwrap();
        assert_eq!(load(&file).unwrap(), "[one]");
        assert_eq!(load(&file).unwrap(), "[one]");
        fs::write(&path, "three").unwrap();
        assert_eq!(load(&file).unwrap(), "[one][three]");
        fs::write(&path, "123456789").unwrap();
        assert_eq!(load(&file).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(load(&file).is_err());
    }
}
