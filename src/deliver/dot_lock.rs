//! Dot-locks: the file `NAME.lock` beside an mbox keeps other programs away while it is there.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, Stat, fstat, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, getpid, test_kill_process};

use crate::sys::files;
use crate::sys::process::host_name;

/// After this time nobody is at work any more who forgot to remove a lock.
const STALE_SECONDS: i64 = 300;
/// What the second line of a lock of ours begins with.
const MARK: &str = "mailwren on";
/// The most octets of a lock that are read.
const MAX_OWNER: u64 = 512;

/// What came of a try to take a dot-lock.
#[derive(Debug)]
pub enum Attempt<'a> {
    /// It is ours.
    Taken(DotLock<'a>),
    /// Somebody else has it.
    Busy,
    /// Nobody may create files in this folder, so that there are no dot-locks in it.
    Impossible,
}

/// A dot-lock that is ours. It is removed when this is dropped.
#[derive(Debug)]
pub struct DotLock<'a> {
    folder: &'a OwnedFd,
    name: String,
    /// Device and inode, to know it again.
    file: (u64, u64),
}

impl<'a> DotLock<'a> {
    /// Tries once to lock the file `name` in `folder`. A lock that was left behind, by the
    /// clock that stamps the files of this folder, is removed.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub fn try_take(folder: &'a OwnedFd, name: &str) -> io::Result<Attempt<'a>> {
        let name = format!("{name}.lock");
        for _ in 0..2 {
            match create_with_owner(folder, &name) {
                Ok(file) => return Ok(Attempt::Taken(Self { folder, file, name })),
                Err(Errno::EXIST) if remove_stale(folder, &name)? => {}
                Err(Errno::EXIST) => return Ok(Attempt::Busy),
                Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => return Ok(Attempt::Impossible),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Attempt::Busy)
    }
}

impl Drop for DotLock<'_> {
    fn drop(&mut self) {
        // Somebody may have thought it stale and put his own there.
        let is_ours = look(self.folder, &self.name).is_ok_and(|s| identity(&s) == self.file);
        if is_ours && let Err(errno) = unlinkat(self.folder, &self.name, AtFlags::empty()) {
            log::warn!("cannot remove the lock {}: {errno}", self.name.escape_default());
        }
    }
}

/// Makes the lock, with its text in it from the first moment, so that a run that ends here
/// leaves either none or one that says whose it was. Gives its device and inode.
fn create_with_owner(folder: &OwnedFd, name: &str) -> Result<(u64, u64), Errno> {
    let text = owner_text();
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let unnamed = openat(folder, ".", flags, Mode::RUSR | Mode::WUSR).map(File::from);
    let file = match unnamed {
        Ok(file) => {
            write_all(&file, &text)?;
            files::link_unnamed(&file, folder, name).map_err(errno)?;
            file
        }
        // Not on this file system: then the text comes a moment after the file.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let file = create(folder, name)?;
            write_all(&file, &text)?;
            file
        }
        Err(errno) => return Err(errno),
    };
    fstat(&file).map(|status| identity(&status))
}

fn write_all(mut file: &File, text: &str) -> Result<(), Errno> {
    file.write_all(text.as_bytes()).map_err(errno)
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// What a lock of ours says: the process in the first line, where other programs look for it,
/// then the mark by which a later run of ours knows it again.
fn owner_text() -> String {
    format!("{}\n{MARK} {}\n", std::process::id(), host_name())
}

/// Whether a run of ours on this host left the lock behind and is gone. No other thread of
/// this process can be at work on the mbox, so its own number says the same: in a container
/// every run has the same one.
fn is_abandoned(folder: &OwnedFd, name: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(folder, name, flags, Mode::empty()).map(File::from) else { return false };
    let mut text = String::new();
    if file.take(MAX_OWNER).read_to_string(&mut text).is_err() {
        return false;
    }
    let Some((process, rest)) = text.split_once('\n') else { return false };
    let is_ours = rest.trim_end() == format!("{MARK} {}", host_name());
    let process = process.parse().ok().filter(|&number| number > 0).and_then(Pid::from_raw);
    is_ours
        && process.is_some_and(|process| {
            process == getpid() || test_kill_process(process) == Err(Errno::SRCH)
        })
}

/// Removes a lock that is too old, or whose owner is gone. Whether the name is free now.
fn remove_stale(folder: &OwnedFd, name: &str) -> io::Result<bool> {
    let status = match look(folder, name) {
        Err(Errno::NOENT) => return Ok(true),
        status => status?,
    };
    let is_old = || {
        folder_now(folder, name).map(|now| now.saturating_sub(modified(&status)) >= STALE_SECONDS)
    };
    if !is_abandoned(folder, name) && !is_old()? {
        return Ok(false);
    }
    // Another one may have done the same just now; then this is a new lock.
    let again = look(folder, name)?;
    if identity(&again) != identity(&status) || modified(&again) != modified(&status) {
        return Ok(false);
    }
    log::warn!("removing the lock {}, which was left behind", name.escape_default());
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ACCESS | Errno::PERM | Errno::ISDIR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The time by the clock that stamps the files of the folder, which may be another host's.
fn folder_now(folder: &OwnedFd, name: &str) -> io::Result<i64> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let probe = format!("{name}.{}.{count}", std::process::id());
    let status = match create(folder, &probe) {
        Ok(file) => fstat(&file),
        // Who may not create files cannot remove the lock either.
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => return Ok(i64::MIN),
        Err(errno) => return Err(errno.into()),
    };
    unlinkat(folder, &probe, AtFlags::empty())?;
    Ok(modified(&status?))
}

fn create(folder: &OwnedFd, name: &str) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(folder, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

fn look(folder: &OwnedFd, name: &str) -> Result<Stat, Errno> {
    statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn identity(status: &Stat) -> (u64, u64) {
    (status.st_dev, status.st_ino)
}

fn modified(status: &Stat) -> i64 {
    status.st_mtime
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::{Duration, SystemTime};

    fn folder() -> (tempfile::TempDir, OwnedFd) {
        let folder = tempfile::tempdir().unwrap();
        let descriptor = File::open(folder.path()).unwrap().into();
        (folder, descriptor)
    }

    fn is_taken(folder: &OwnedFd) -> bool {
        matches!(DotLock::try_take(folder, "ann").unwrap(), Attempt::Taken(_))
    }

    #[test]
    fn it_says_whose_it_is_and_goes_when_dropped() {
        let (path, folder) = folder();
        let Attempt::Taken(lock) = DotLock::try_take(&folder, "ann").unwrap() else { panic!() };
        assert_eq!(fs::read_to_string(path.path().join("ann.lock")).unwrap(), owner_text());
        drop(lock);
        assert!(is_taken(&folder));
        assert_eq!(fs::read_dir(path.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_left_behind_is_removed_and_a_fresh_one_is_not() {
        let (path, folder) = folder();
        let file = File::create(path.path().join("ann.lock")).unwrap();
        for (age, taken) in [(0, false), (290, false), (310, true)] {
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
            assert_eq!(is_taken(&folder), taken, "{age}");
        }
    }

    #[test]
    fn a_lock_of_a_run_that_is_gone_counts_for_nothing() {
        let (path, folder) = folder();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let host = host_name();
        for (text, taken) in [
            (format!("{}\n{MARK} {host}\n", child.id()), true),
            (owner_text(), true),
            (format!("{}\n{MARK} {host}\n", std::os::unix::process::parent_id()), false),
            (format!("{}\n{MARK} another-{host}\n", child.id()), false),
            (format!("{}\n", child.id()), false),
            (format!("-1\n{MARK} {host}\n"), false),
            (String::new(), false),
        ] {
            fs::write(path.path().join("ann.lock"), &text).unwrap();
            assert_eq!(is_taken(&folder), taken, "{text:?}");
        }
    }

    #[test]
    fn a_lock_that_replaced_ours_is_left_alone() {
        let (path, folder) = folder();
        let Attempt::Taken(lock) = DotLock::try_take(&folder, "ann").unwrap() else { panic!() };
        fs::rename(path.path().join("ann.lock"), path.path().join("old")).unwrap();
        fs::write(path.path().join("ann.lock"), "other").unwrap();
        drop(lock);
        assert!(path.path().join("ann.lock").exists());
    }
}
