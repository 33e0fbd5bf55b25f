//! Dot-locks: the file `NAME.lock` beside an mbox keeps other programs away while it is there.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, getpid, test_kill_process};

use crate::sys::clock;
use crate::sys::disk::{Folder, Open, Status, is_unsupported};
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
    folder: &'a Folder,
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
    pub fn try_take(folder: &'a Folder, name: &str) -> io::Result<Attempt<'a>> {
        let name = format!("{name}.lock");
        for _ in 0..2 {
            match create_with_owner(folder, &name) {
                Ok(file) => return Ok(Attempt::Taken(Self { folder, file, name })),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if !remove_stale(folder, &name)? {
                        return Ok(Attempt::Busy);
                    }
                }
                Err(error) if is_forbidden(&error) => return Ok(Attempt::Impossible),
                Err(error) => return Err(error),
            }
        }
        Ok(Attempt::Busy)
    }

    /// The name of the dot-lock that the file `name` in `folder` has now, and the user id of its
    /// owner; `None` where it has none, or nobody can say.
    pub fn there(folder: &Folder, name: &str) -> Option<(String, u32)> {
        let name = format!("{name}.lock");
        let owner = folder.look_at(&name).ok()?.owner();
        Some((name, owner))
    }
}

impl Drop for DotLock<'_> {
    fn drop(&mut self) {
        // Somebody may have thought it stale and put his own there.
        let there = self.folder.look_at(&self.name);
        let is_ours = there.is_ok_and(|there| there.identity() == self.file);
        if is_ours && let Err(error) = self.folder.unlink(&self.name) {
            log::warn!("cannot remove the lock {}: {error}", self.name.escape_default());
        }
    }
}

/// Makes the lock, with its text in it from the first moment, so that a run that ends here
/// leaves either none or one that says whose it was. Gives its device and inode.
fn create_with_owner(folder: &Folder, name: &str) -> io::Result<(u64, u64)> {
    let text = owner_text();
    let mut file = match folder.create_unnamed() {
        // Not on this file system: then the text comes a moment after the file.
        Err(error) if is_unsupported(&error) => return create_named(folder, name, &text),
        file => file?,
    };
    file.write_all(text.as_bytes())?;
    let identity = file.status()?.identity();
    folder.link_unnamed(&file, name)?;
    Ok(identity)
}

/// The same where there are no files without a name.
fn create_named(folder: &Folder, name: &str, text: &str) -> io::Result<(u64, u64)> {
    let mut file = folder.open(name, Open::New)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.status());
    if written.is_err() {
        let _ = folder.unlink(name);
    }
    Ok(written?.identity())
}

/// Whether an error says that we may not create files.
fn is_forbidden(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::ACCESS | Errno::PERM | Errno::ROFS))
}

/// What a lock of ours says: the process in the first line, where other programs look for it,
/// then the mark by which a later run of ours knows it again.
fn owner_text() -> String {
    format!("{}\n{MARK} {}\n", std::process::id(), host_name())
}

/// Whether a run of ours on this host left the lock behind and is gone. No other thread of
/// this process can be at work on the mbox, so its own number says the same: in a container
/// every run has the same one.
fn is_abandoned(folder: &Folder, name: &str) -> bool {
    let text = folder.open(name, Open::Read).and_then(|file| file.read_up_to(MAX_OWNER));
    let Some(text) = text.ok().and_then(|text| String::from_utf8(text).ok()) else { return false };
    let Some((process, rest)) = text.split_once('\n') else { return false };
    let is_ours = rest.trim_end() == format!("{MARK} {}", host_name());
    let process = process.parse().ok().filter(|&number| number > 0).and_then(Pid::from_raw);
    is_ours
        && process.is_some_and(|process| {
            process == getpid() || test_kill_process(process) == Err(Errno::SRCH)
        })
}

/// Whether a power cut has left an empty lock: its name was in the journal, and its text, which
/// is not flushed, was lost. Nobody of this host who took it before the boot is still at work.
/// Only an empty one counts: one with a text may be another host's. Where the clock was wrong at
/// either time the lock just has to get old.
fn is_left_by_a_power_cut(octets: u64, modified_seconds: i64, booted: Duration) -> bool {
    octets == 0 && u64::try_from(modified_seconds).is_ok_and(|taken| taken < booted.as_secs())
}

/// Removes a lock that is too old, or whose owner is gone. Whether the name is free now.
fn remove_stale(folder: &Folder, name: &str) -> io::Result<bool> {
    let status = match folder.look_at(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        status => status?,
    };
    let age = || folder_now(folder, name).map(|now| now.saturating_sub(status.modified_seconds()));
    let booted = clock::since_1970().saturating_sub(clock::since_boot());
    let is_cut = is_left_by_a_power_cut(status.size_octets(), status.modified_seconds(), booted);
    let is_left = is_cut || is_abandoned(folder, name);
    if !is_left && age()? < STALE_SECONDS {
        return Ok(false);
    }
    // Another one may have done the same just now; then this is a new lock.
    let stamp = |status: &Status| (status.identity(), status.modified_seconds());
    if stamp(&folder.look_at(name)?) != stamp(&status) {
        return Ok(false);
    }
    match folder.unlink(name) {
        Ok(()) => {
            log::warn!("removed the lock {}, which was left behind", name.escape_default());
            Ok(true)
        }
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => Ok(true),
            Some(Errno::ACCESS | Errno::PERM | Errno::ISDIR) => Ok(false),
            _ => Err(error),
        },
    }
}

/// The time by the clock that stamps the files of the folder, which may be another host's.
fn folder_now(folder: &Folder, name: &str) -> io::Result<i64> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let probe = format!("{name}.{}.{count}", std::process::id());
    let status = match folder.open(&probe, Open::New) {
        Ok(file) => file.status(),
        // Who may not create files cannot remove the lock either.
        Err(error) if is_forbidden(&error) => return Ok(i64::MIN),
        Err(error) => return Err(error),
    };
    folder.unlink(&probe)?;
    Ok(status?.modified_seconds())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::disk::Disk;
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    fn folder() -> (tempfile::TempDir, Folder) {
        let path = tempfile::tempdir().unwrap();
        let folder = Disk::host().walk_to(path.path()).unwrap();
        (path, folder)
    }

    fn is_taken(folder: &Folder) -> bool {
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
    fn it_is_found_with_its_owner_while_it_is_there() {
        let (_path, folder) = folder();
        assert_eq!(DotLock::there(&folder, "ann"), None);
        let Attempt::Taken(lock) = DotLock::try_take(&folder, "ann").unwrap() else { panic!() };
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(DotLock::there(&folder, "ann"), Some(("ann.lock".to_owned(), own)));
        drop(lock);
    }

    #[test]
    fn a_lock_left_behind_is_removed_and_a_fresh_one_is_not() {
        let (path, folder) = folder();
        let mut file = File::create(path.path().join("ann.lock")).unwrap();
        file.write_all(b"another program's").unwrap();
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
    fn an_empty_lock_from_before_the_boot_counts_for_nothing() {
        let booted = Duration::from_secs(1000);
        for (octets, modified, is_left) in
            [(0, 999, true), (0, 1000, false), (0, 5000, false), (9, 1, false), (0, -1, false)]
        {
            assert_eq!(is_left_by_a_power_cut(octets, modified, booted), is_left, "{modified}");
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
