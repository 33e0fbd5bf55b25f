//! Who was answered when: a file for each user in `[server] state`/vacation/, which outlives a
//! crash, so that nobody is answered twice in a week.
//!
//! ```text
//! message 1795312012 148
//! 1795312100 bob@example.org
//! ```
//!
//! The first line has the time and the size of the message file that was sent; each other one, in
//! seconds since 1970, when whom. A line that cannot be read counts as none.
//!
//! Two delivery threads, or two servers in the moment of a restart, take turns by a lock of the
//! folder (flock(2)), in which nobody but the server has anything to do.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::mail::address::Mailbox;
use crate::route::users::UserName;
use crate::sys::disk::{Disk, Folder, Open};
use crate::sys::files::with_path;

/// How long somebody who was answered is not answered again, in seconds (RFC 3834 §2: 7 days).
const INTERVAL: u64 = 7 * 86_400;
/// How many are answered for one user in so many seconds: a flood of forged senders makes no flood
/// of replies.
const MAX_PER_PERIOD: usize = 60;
const PERIOD: u64 = 3600;
/// The most that are remembered for one user; the oldest go.
const MAX_ENTRIES: usize = 1000;
/// The largest file, in octets: more than the longest addresses can make it.
const MAX_FILE: u64 = 1 << 20;
/// What a file is called until it takes the place of the last one. No user has such a name.
const NEW: &str = ".new";

/// Which version of a message file somebody was sent: a new one is news to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// When it was changed, in seconds since 1970.
    pub(super) modified: i64,
    /// Its size in octets.
    pub(super) size: u64,
}

/// Whether somebody is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Yes, and it is noted that it was done.
    Granted,
    /// No, that was done within a week.
    HadOne,
    /// No, too many others were in the last hour.
    TooMany,
}

/// The files.
#[derive(Debug)]
pub(super) struct Memory {
    disk: Disk,
    state: PathBuf,
}

impl Memory {
    /// In the folder `state`.
    pub(super) fn new(disk: Disk, state: &Path) -> Self {
        Self { disk, state: state.to_owned() }
    }

    /// Whether `user` is to answer `sender` at `now`, in seconds since 1970. If so, that is on disk
    /// as done: whatever happens to the reply, there is no second one.
    ///
    /// # Errors
    /// When nobody can say, or it cannot be noted.
    pub(super) fn take_turn(
        &self,
        user: &UserName,
        sender: &Mailbox,
        version: Version,
        now: u64,
    ) -> io::Result<Turn> {
        let path = self.state.join("vacation");
        let folder =
            self.disk.make_private_folder(&path).map_err(|error| with_path(error, &path))?;
        let turn = || -> io::Result<Turn> {
            folder.lock()?;
            let before = read(&folder, user.as_str())?;
            let is_new = before.is_none();
            let mut answered = Answered::parse(&before.unwrap_or_default(), version, now);
            let turn = answered.take_turn(sender, now);
            if answered.is_changed {
                replace(&folder, user.as_str(), answered.to_text(version).as_bytes())?;
            }
            if answered.is_changed && is_new {
                // The folder may be as new as the file.
                self.disk.open_folder(&self.state)?.flush_to_disk()?;
            }
            Ok(turn)
        };
        turn().map_err(|error| with_path(error, &path.join(user.as_str())))
    }
}

fn read(folder: &Folder, name: &str) -> io::Result<Option<String>> {
    let file = match folder.open(name, Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let octets = file.read_up_to(MAX_FILE + 1)?;
    if octets.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than it can have become; remove it"));
    }
    Ok(Some(String::from_utf8_lossy(&octets).into_owned()))
}

/// Replaces a file by another that is whole on disk.
fn replace(folder: &Folder, name: &str, octets: &[u8]) -> io::Result<()> {
    let mut file = folder.open(NEW, Open::Anew)?;
    file.write_all(octets)?;
    file.flush_to_disk()?;
    folder.rename(NEW, folder, name)?;
    folder.flush_to_disk()
}

/// Who was answered when.
#[derive(Debug, Default)]
struct Answered {
    /// By address in lower case, in seconds since 1970.
    last: HashMap<String, u64>,
    is_changed: bool,
}

impl Answered {
    /// Reads a file, of which nothing counts if another version of the message was sent. A moment
    /// that is yet to come was told by a clock that was wrong, and counts as `now`.
    fn parse(text: &str, version: Version, now: u64) -> Self {
        let mut answered = Self::default();
        let mut lines = text.lines();
        if lines.next() != Some(version.to_line().as_str()) {
            return answered;
        }
        for line in lines {
            let Some((at, address)) = line.split_once(' ') else { continue };
            let Ok(at) = at.parse::<u64>() else { continue };
            answered.is_changed |= at > now;
            answered.last.insert(address.to_owned(), at.min(now));
        }
        answered
    }

    fn take_turn(&mut self, sender: &Mailbox, now: u64) -> Turn {
        let address = sender.to_string().to_ascii_lowercase();
        let is_recent = |at: &u64, period| now.saturating_sub(*at) < period;
        if self.last.get(&address).is_some_and(|at| is_recent(at, INTERVAL)) {
            return Turn::HadOne;
        }
        if self.last.values().filter(|at| is_recent(at, PERIOD)).count() >= MAX_PER_PERIOD {
            return Turn::TooMany;
        }
        self.last.retain(|_, at| is_recent(at, INTERVAL));
        while self.last.len() >= MAX_ENTRIES {
            let oldest = self.last.iter().min_by_key(|(_, at)| **at);
            let Some(oldest) = oldest.map(|(address, _)| address.clone()) else { break };
            self.last.remove(&oldest);
        }
        self.last.insert(address, now);
        self.is_changed = true;
        Turn::Granted
    }

    fn to_text(&self, version: Version) -> String {
        let mut text = version.to_line() + "\n";
        let mut entries: Vec<_> = self.last.iter().collect();
        entries.sort_unstable_by_key(|(address, at)| (**at, *address));
        for (address, at) in entries {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "{at} {address}");
        }
        text
    }
}

impl Version {
    fn to_line(self) -> String {
        format!("message {} {}", self.modified, self.size)
    }
}

#[cfg(test)]
mod tests;
