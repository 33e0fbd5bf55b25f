//! The server's end of `drop/`. Whatever lies there is somebody's file, and may be there to harm:
//! a link to what the server may read and its owner may not, a FIFO that nobody writes to, another
//! file behind the same name a moment later, a text that grows while it is read.
//!
//! So a name says nothing. The file's owner is looked up first; it is opened with the owner's
//! filesystem identity, so that the kernel decides whether the owner may read it; never by a
//! link, never waiting. What was opened must be what was looked at: an ordinary file with one name
//! and not too large. From then on only the descriptor is read, the envelope once and into memory,
//! and no more of the content than its envelope stood before. Whoever changes it meanwhile
//! changes a message of their own.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::report::complaint::Complaint;
use crate::spool::drop::{FOLDER, MAX_ENVELOPE, UNFINISHED};
use crate::spool::format::{self, ReadError};
use crate::spool::id::QueueId;
use crate::spool::layout::{DROP_MODE, WALK};
use crate::spool::message::StoredMessage;
use crate::spool::store::{Spool, thin_out};
use crate::sys::clock;
use crate::sys::disk::{Disk, Folder, Open};
use crate::sys::files::with_path;
use crate::sys::folder_events::FolderEvents;
use crate::sys::identity::Identity;

/// The most files of one account, and the most accounts, that are looked at in one go. The rest
/// has its turn when those are gone.
const MAX_OF_OWNER: usize = 200;
const MAX_OWNERS: usize = 1000;
/// The age from which a file that nobody finished is left over from a crash.
const LEFT_OVER: Duration = Duration::from_secs(24 * 60 * 60);
/// The most of those that are removed in one go.
const MAX_LEFT_OVER: usize = 1000;
/// The largest file that is kept in `corrupt/`, so that a few of them do not take the place of all
/// others. It is more than a message has, unless somebody wants larger ones than most hosts take.
const MAX_KEPT_OCTETS: u64 = 64 << 20;
/// What the name of a file in `corrupt/` ends with that was dropped.
const SUFFIX: &str = ".drop";

static CORRUPT_FULL_TOLD: Complaint = Complaint::new();

/// `drop/`, as the server has it.
#[derive(Debug)]
pub struct DropFolder {
    path: PathBuf,
    folder: Folder,
}

/// What lies in `drop/`.
#[derive(Debug, Default)]
pub struct Found {
    /// The names, the accounts taking turns, the oldest message of each first.
    pub names: Vec<String>,
    /// Whether there are more.
    pub is_cut: bool,
    /// A folder that somebody has made there. It holds no message, and only its owner can remove it.
    pub a_folder: Option<String>,
}

/// A message that lay in `drop/`.
#[derive(Debug)]
pub struct Dropped {
    /// The message. Nothing of its envelope is more than what its owner says.
    pub message: StoredMessage,
    /// The user id of the file's owner.
    pub owner: u32,
}

/// Why a file is not taken.
#[derive(Debug)]
pub enum Unfit {
    /// It is not there any more, or another one is.
    Gone,
    /// It is no message, and never becomes one.
    Hostile {
        /// Whose it is.
        owner: u32,
        /// What is wrong with it, as a predicate.
        why: String,
    },
    /// The server was not started as root, and may read its own account's files only.
    Foreign {
        /// Whose it is.
        owner: u32,
    },
    /// It cannot be read now.
    Trouble(io::Error),
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            _ => Self::Trouble(error),
        }
    }
}

impl DropFolder {
    /// The folder in the spool in `spool`, made where it is missing, so that everybody can reach
    /// it.
    ///
    /// # Errors
    /// When it can neither be opened nor made, or is somebody else's.
    pub fn make(spool: &Path) -> io::Result<Self> {
        let (path, disk) = (spool.join(FOLDER), Disk::host());
        let make = || {
            let folder = disk.make_private_folder(&path)?;
            // Not left to the umask.
            if folder.status()?.mode() != DROP_MODE {
                folder.set_mode(DROP_MODE)?;
            }
            let above = disk.open_folder(spool)?;
            let mode = above.status()?.mode();
            if mode & WALK != WALK {
                above.set_mode(mode | WALK)?;
            }
            above.flush_to_disk()?;
            Ok(folder)
        };
        let folder = make().map_err(|error| with_path(error, &path))?;
        Ok(Self { path, folder })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells of files that come.
    pub fn events(&self) -> FolderEvents {
        FolderEvents::watch(&self.path)
    }

    /// Whether it is still the one at its path.
    pub fn is_there(&self) -> bool {
        match (self.folder.status(), Disk::host().look_at(&self.path)) {
            (Ok(ours), Ok(there)) => ours.identity() == there.identity(),
            _ => false,
        }
    }

    /// What lies in it but for what `is_known`. Removes what nobody has finished for a day.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn found(&self, is_known: &dyn Fn(&str, u32) -> bool) -> io::Result<Found> {
        let mut of_owner = BTreeMap::<u32, Vec<String>>::new();
        let (mut left_over, mut is_cut, mut a_folder) = (Vec::new(), false, None);
        self.folder.each_name(|name| {
            if name.starts_with(UNFINISHED) {
                if left_over.len() < MAX_LEFT_OVER && self.is_left_over(name) {
                    left_over.push(name.to_owned());
                }
                return;
            }
            // What has no name of UTF-8 is not found, and is no message either.
            let Ok(status) = self.folder.look_at(name) else { return };
            if status.is_folder() {
                a_folder = Some(name.to_owned());
                return;
            }
            if is_known(name, status.owner()) {
                return;
            }
            let owners = of_owner.len();
            match of_owner.entry(status.owner()) {
                std::collections::btree_map::Entry::Vacant(_) if owners >= MAX_OWNERS => {
                    is_cut = true;
                }
                entry => {
                    let names = entry.or_default();
                    is_cut |= names.len() >= MAX_OF_OWNER;
                    if names.len() < MAX_OF_OWNER {
                        names.push(name.to_owned());
                    }
                }
            }
        })?;
        for name in left_over {
            if self.folder.unlink(&name).is_ok() {
                log::info!("spool: drop/{name:?} was never finished; removed");
            }
        }
        Ok(Found { names: in_turn(of_owner.into_values()), is_cut, a_folder })
    }

    fn is_left_over(&self, name: &str) -> bool {
        let now = i64::try_from(clock::since_1970().as_secs()).unwrap_or(0);
        let age = |since: i64| u64::try_from(now.saturating_sub(since)).unwrap_or(0);
        let status = self.folder.look_at(name);
        status.is_ok_and(|it| age(it.modified_seconds()) > LEFT_OVER.as_secs())
    }

    /// Opens the file `name` as a message of at most `max_octets` of content.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn open(&self, name: &str, max_octets: u64) -> Result<Dropped, Unfit> {
        let named = self.folder.look_at(name)?;
        let owner = named.owner();
        let hostile = |why: String| Unfit::Hostile { owner, why };
        if name.parse::<QueueId>().is_err() {
            return Err(hostile("has a name that no message has".to_owned()));
        }
        if !named.is_file() {
            return Err(hostile("is no ordinary file".to_owned()));
        }
        let file = {
            let identity = Identity { uid: owner, gid: named.group(), groups: Vec::new() };
            let _guard = identity.assume().map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => Unfit::Foreign { owner },
                _ => Unfit::Trouble(error),
            })?;
            self.folder.open(name, Open::Read).map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    hostile("cannot be read by its own owner".to_owned())
                }
                _ => error.into(),
            })?
        };
        let status = file.status()?;
        if status.identity() != named.identity() {
            return Err(Unfit::Gone);
        }
        if status.names() != 1 {
            return Err(hostile(format!("has {} names", status.names())));
        }
        if status.size_octets() > max_octets.saturating_add(2 * MAX_ENVELOPE as u64) {
            return Err(hostile(format!("has {} octets: too many", status.size_octets())));
        }
        match format::read_within(file, MAX_ENVELOPE) {
            Ok(message) => Ok(Dropped { message, owner }),
            Err(ReadError::Io(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                Err(Unfit::Trouble(error))
            }
            Err(error) => Err(hostile(format!("is no message: {error}"))),
        }
    }

    /// Removes a message that was taken, or was never one.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match self.folder.unlink(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Moves a file that is no message to `corrupt/`, which keeps the last of them. What is no file
    /// at all, or far too large, is removed. Gives its new name in the spool.
    ///
    /// # Errors
    /// When it stays where it is.
    pub fn set_aside(&self, spool: &Spool, name: &str) -> io::Result<Option<String>> {
        let status = self.folder.look_at(name)?;
        if !status.is_file() || status.size_octets() > MAX_KEPT_OCTETS {
            return self.remove(name).map(|()| None);
        }
        let folders = spool.folders();
        let new_name = format!("{}{SUFFIX}", spool.new_id(clock::since_1970()));
        self.folder.rename(name, &folders.corrupt, &new_name)?;
        // Another one may have taken its place at the last moment.
        if !folders.corrupt.look_at(&new_name)?.is_file() {
            folders.corrupt.unlink(&new_name)?;
            return Ok(None);
        }
        let removed = |name: &str| {
            // Whoever likes may drop thousands of them.
            CORRUPT_FULL_TOLD.error(format_args!(
                "spool: corrupt/ is full; {name}, the oldest there, is removed"
            ));
        };
        if let Err(error) = thin_out(&folders.corrupt, SUFFIX, removed) {
            log::warn!("spool: corrupt/ cannot be thinned out: {error}");
        }
        Ok(Some(format!("corrupt/{new_name}")))
    }
}

/// One of each, then the next one of each, and so on.
fn in_turn(lists: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let mut placed: Vec<_> = lists
        .flat_map(|mut names| {
            names.sort_unstable();
            names.into_iter().enumerate()
        })
        .collect();
    // Stable, so that the accounts keep their order.
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_take_turns() {
        let list = |names: &str| names.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lists = [list("b a c d"), list("z"), list("y x")];
        assert_eq!(in_turn(lists.into_iter()).join(" "), "a z x b y c d");
        assert_eq!(in_turn(std::iter::empty()), [""; 0]);
    }

    #[test]
    fn everybody_reaches_the_folder_and_nobody_lists_it() {
        let base = tempfile::tempdir().unwrap();
        let spool = base.path().join("spool");
        for _ in 0..2 {
            let folder = DropFolder::make(&spool).unwrap();
            assert!(folder.is_there());
            assert_eq!(Disk::host().look_at(folder.path()).unwrap().mode(), DROP_MODE);
            assert_eq!(Disk::host().look_at(&spool).unwrap().mode(), 0o711);
        }
        let folder = DropFolder::make(&spool).unwrap();
        std::fs::remove_dir(folder.path()).unwrap();
        assert!(!folder.is_there());
    }

    #[test]
    fn only_so_many_of_an_account_are_found_at_once() {
        let spool = tempfile::tempdir().unwrap();
        let folder = DropFolder::make(spool.path()).unwrap();
        for number in 0..=MAX_OF_OWNER {
            std::fs::write(folder.path().join(format!("{number:04}")), "").unwrap();
        }
        let found = folder.found(&|_, _| false).unwrap();
        assert_eq!((found.names.len(), found.is_cut), (MAX_OF_OWNER, true));
        let found = folder.found(&|name, _| name == "0007").unwrap();
        assert_eq!((found.names.len(), found.is_cut), (MAX_OF_OWNER, false));
        assert!(!found.names.contains(&"0007".to_owned()));
    }

    #[test]
    fn what_nobody_finished_goes_after_a_day() {
        let spool = tempfile::tempdir().unwrap();
        let folder = DropFolder::make(spool.path()).unwrap();
        let (new, old) = (folder.path().join(".new"), folder.path().join(".old"));
        std::fs::write(&new, "").unwrap();
        let then = std::time::SystemTime::now() - LEFT_OVER - Duration::from_secs(60);
        std::fs::File::create(&old).unwrap().set_modified(then).unwrap();
        assert!(folder.found(&|_, _| false).unwrap().names.is_empty());
        assert!(new.exists() && !old.exists());
    }
}
