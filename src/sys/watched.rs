//! A file that is read again when it has changed, such as a list of users or of aliases.
//!
//! Looking costs one `stat`. Nothing is locked while the file is read, so two threads may
//! both read a new version; either result is good.
//!
//! Whoever saves a file by moving the old one away and writing a new one leaves a moment without
//! it, and whoever writes it in place a moment in which it is empty. A patient reader of the file
//! goes by the version before meanwhile.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::sys::trail;

/// How long a patient reader goes by the version before, when the file is missing.
const MISSING_GRACE: Duration = Duration::from_secs(60);
/// How long ago a file may have been emptied that somebody may be writing, by its modification
/// time and the clock on the wall.
const EMPTY_GRACE: Duration = Duration::from_secs(2);

/// A file and what its content means.
#[derive(Debug)]
pub struct WatchedFile<T> {
    path: PathBuf,
    max_octets: u64,
    kind: Kind,
    is_patient: bool,
    last: Mutex<Last<T>>,
}

/// What is known of a file.
#[derive(Debug)]
struct Last<T> {
    version: Option<(Stamp, Arc<T>)>,
    /// When it was found missing, if it was at the last look and had been there before.
    missing_since: Option<Instant>,
}

/// The moment of a look, by the monotonic clock and by the one on the wall.
#[derive(Clone, Copy, Debug)]
struct Moment {
    monotonic: Instant,
    wall: SystemTime,
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
        let last = Mutex::new(Last { version: None, missing_since: None });
        Self { path, max_octets, kind: Kind::Ordinary, is_patient: false, last }
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

    /// The same file, looked at with patience: when it has gone missing it counts as it was for 60
    /// seconds, when it has become empty until it has been for 2. The log tells of one that is
    /// missing.
    pub fn patient(self) -> Self {
        Self { is_patient: true, ..self }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file meant when it was read last.
    pub fn latest(&self) -> Option<Arc<T>> {
        self.last().version.as_ref().map(|(_, value)| Arc::clone(value))
    }

    /// What the file means now. When it is new or has changed, `parse` is given its octets
    /// and what the version before meant.
    ///
    /// # Errors
    /// When the file is missing, unreadable, too large, no regular file, a secret that is none, or a
    /// user's that leads to what the user may not read; the text of the last two names the remedy.
    pub fn load(&self, parse: impl FnOnce(&[u8], Option<Arc<T>>) -> Arc<T>) -> io::Result<Arc<T>> {
        self.load_at(Moment { monotonic: Instant::now(), wall: SystemTime::now() }, parse)
    }

    fn load_at(
        &self,
        now: Moment,
        parse: impl FnOnce(&[u8], Option<Arc<T>>) -> Arc<T>,
    ) -> io::Result<Arc<T>> {
        let result = self.look(now.wall, parse);
        match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.missed(now.monotonic).ok_or(error)
            }
            result => {
                self.last().missing_since = None;
                result
            }
        }
    }

    fn look(
        &self,
        wall: SystemTime,
        parse: impl FnOnce(&[u8], Option<Arc<T>>) -> Arc<T>,
    ) -> io::Result<Arc<T>> {
        if let Some(value) = self.unchanged()? {
            return Ok(value);
        }
        let before = self.latest();
        let content = self.read()?;
        if let Some(before) = &before
            && self.is_patient
            && content.is_being_written(wall)
        {
            return Ok(Arc::clone(before));
        }
        let value = parse(&content.octets, before);
        self.last().version = Some((content.stamp, Arc::clone(&value)));
        Ok(value)
    }

    /// What a file that is missing at `now` counts as, where it has not been for long.
    fn missed(&self, now: Instant) -> Option<Arc<T>> {
        let mut last = self.last();
        let (_, value) = last.version.as_ref().filter(|_| self.is_patient)?;
        let value = Arc::clone(value);
        let is_news = last.missing_since.is_none();
        let since = *last.missing_since.get_or_insert(now);
        drop(last);
        if is_news {
            let (path, seconds) = (self.path.display(), MISSING_GRACE.as_secs());
            log::warn!(
                "{path} is missing; what stood there counts for {seconds} s, then it counts as \
                 removed"
            );
        }
        (now.saturating_duration_since(since) < MISSING_GRACE).then_some(value)
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
        let last = self.last();
        let known = last.version.as_ref().filter(|(known, _)| *known == stamp);
        Ok(known.map(|(_, value)| Arc::clone(value)))
    }

    fn open(&self) -> io::Result<File> {
        if self.kind == Kind::OfUsers {
            return trail::open(&self.path);
        }
        // Should it be a FIFO by now, nobody waits for its other end.
        let no_wait = libc::O_NONBLOCK | libc::O_NOCTTY;
        OpenOptions::new().read(true).custom_flags(no_wait).open(&self.path)
    }

    fn read(&self) -> io::Result<Content> {
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
        // Of the end, since it may have been emptied while it was read.
        let modified = file.metadata()?.modified()?;
        Ok(Content { stamp: Stamp::of(&metadata), octets, modified })
    }

    fn last(&self) -> MutexGuard<'_, Last<T>> {
        // Nothing panics while it is locked, and a whole value is all that is ever put in.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was read of a file.
struct Content {
    stamp: Stamp,
    octets: Vec<u8>,
    modified: SystemTime,
}

impl Content {
    /// Whether somebody who writes in place may have emptied the file and not yet filled it. One
    /// that was changed in the future was not: it could stay so for years.
    fn is_being_written(&self, wall: SystemTime) -> bool {
        let is_new = |age| age < EMPTY_GRACE;
        self.octets.is_empty() && wall.duration_since(self.modified).is_ok_and(is_new)
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

    fn parse(octets: &[u8], before: Option<Arc<String>>) -> Arc<String> {
        let before = before.as_deref().map_or("", String::as_str);
        Arc::new(format!("{before}[{}]", String::from_utf8_lossy(octets)))
    }

    fn load(file: &WatchedFile<String>) -> io::Result<String> {
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

    #[test]
    fn a_missing_file_counts_as_it_was_for_a_minute_to_the_patient() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let file = WatchedFile::new(path.clone(), 8).patient();
        let begin = Moment { monotonic: Instant::now(), wall: SystemTime::now() };
        let load = |seconds| {
            let monotonic = begin.monotonic + Duration::from_secs(seconds);
            let value = file.load_at(Moment { monotonic, ..begin }, parse);
            value.map(|value| value.to_string()).map_err(|error| error.kind())
        };
        let is_missing = Err(io::ErrorKind::NotFound);
        assert_eq!(load(0), is_missing, "it was never there");
        fs::write(&path, "one").unwrap();
        assert_eq!(load(1).as_deref(), Ok("[one]"));
        fs::rename(&path, folder.path().join("list~")).unwrap();
        assert_eq!(load(100).as_deref(), Ok("[one]"));
        assert_eq!(load(159).as_deref(), Ok("[one]"));
        assert_eq!([load(160), load(170)], [is_missing.clone(), is_missing.clone()]);
        fs::write(&path, "two").unwrap();
        assert_eq!(load(171).as_deref(), Ok("[one][two]"));
        fs::remove_file(&path).unwrap();
        assert_eq!(load(300).as_deref(), Ok("[one][two]"), "each time anew");
        assert_eq!(load(360), is_missing);
    }

    #[test]
    fn who_is_not_patient_misses_a_file_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let file = WatchedFile::new(path.clone(), 8);
        fs::write(&path, "one").unwrap();
        assert_eq!(load(&file).unwrap(), "[one]");
        fs::write(&path, "").unwrap();
        assert_eq!(load(&file).unwrap(), "[one][]");
        fs::remove_file(&path).unwrap();
        assert_eq!(load(&file).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_was_emptied_a_moment_ago_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let file = WatchedFile::new(path.clone(), 8).patient();
        let begin = Moment { monotonic: Instant::now(), wall: SystemTime::now() };
        let written = File::create(&path).unwrap();
        let load = |milliseconds| {
            written.set_modified(begin.wall).unwrap();
            let wall = begin.wall + Duration::from_millis(milliseconds);
            file.load_at(Moment { wall, ..begin }, parse).unwrap().to_string()
        };
        assert_eq!(load(0), "[]", "there is nothing before it");
        fs::write(&path, "one").unwrap();
        assert_eq!(load(0), "[][one]");
        fs::write(&path, "").unwrap();
        assert_eq!([load(0), load(1999)], ["[][one]", "[][one]"]);
        assert_eq!(load(2000), "[][one][]");
        fs::write(&path, "two").unwrap();
        assert_eq!(load(0), "[][one][][two]");
    }

    #[test]
    fn an_empty_file_of_the_future_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let file = WatchedFile::new(path.clone(), 8).patient();
        fs::write(&path, "one").unwrap();
        assert_eq!(load(&file).unwrap(), "[one]");
        let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
        File::create(&path).unwrap().set_modified(tomorrow).unwrap();
        assert_eq!(load(&file).unwrap(), "[one][]");
    }
}
