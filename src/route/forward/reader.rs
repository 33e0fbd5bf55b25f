//! Reads the files of a user who may be nobody's friend: with the user's own identity, never
//! through a link at the end of a path, never waiting, and never more than a bound.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::{UNREADABLE, Unheard};
use crate::deliver::outcome::Failure;
use crate::deliver::place::Place;
use crate::deliver::storage::{failure, printable};
use crate::mail::text::{MAX_REMARK, one_line};
use crate::route::targets::{Target, read_list};
use crate::sys::disk::{Disk, Folder, Open, Status, errno};
use crate::sys::users::{Account, has_private_group};

/// The largest `.forward`, and the largest list that one includes, in octets.
const MAX_FILE: u64 = 64 << 10;
/// The most that one may name, with all that it includes.
const MAX_TARGETS: usize = 1000;
/// The most lists that one may include.
const MAX_LISTS: usize = 20;
/// The first user id of people; those below are the system's own (`UID_MIN` in login.defs(5)).
const FIRST_PERSON: u32 = 1000;
/// What accounts without a home have in its place.
const NO_HOMES: [&str; 2] = ["/nonexistent", "/dev/null"];

/// Reads for one user, whose identity the calling thread has.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) disk: &'a Disk,
    pub(super) account: &'a Account,
}

impl Reader<'_> {
    /// What the first of the files with these `names` says that says anything, with the lists that
    /// it includes in their places.
    pub(super) fn targets(&self, place: &Place, names: &[String]) -> Result<Vec<Target>, Unheard> {
        let Some((folder, mistrust)) = self.open_folder(place)? else { return Ok(Vec::new()) };
        for name in names {
            let path = place.path().with_file_name(name);
            let Some(octets) = self.read(&folder, name, &path)? else { continue };
            if let Some(mistrust) = mistrust {
                return Err(mistrust);
            }
            let targets = parsed(&octets, &path)?;
            if !targets.is_empty() {
                return self.with_lists(targets, &path);
            }
        }
        Ok(Vec::new())
    }

    /// Opens the folder that the file is in, where there is one, and says what is wrong with it and
    /// those above, up to the home.
    fn open_folder(&self, place: &Place) -> Result<Option<(Folder, Option<Unheard>)>, Unheard> {
        let mut path = place.base.clone();
        let mut folder = match self.disk.walk_to(&path) {
            Err(error) if is_never_there(self.account, place, &error) => return Ok(None),
            result => result.map_err(|error| away(&error, &path))?,
        };
        let mut mistrust = self.mistrust_of(&folder, &path)?;
        for name in &place.folders {
            path.push(name);
            folder = match folder.walk_to(name) {
                Err(error) if is_missing(&error) => return Ok(None),
                result => result.map_err(|error| away(&error, &path))?,
            };
            mistrust = mistrust.or(self.mistrust_of(&folder, &path)?);
        }
        Ok(Some((folder, mistrust)))
    }

    fn mistrust_of(&self, folder: &Folder, path: &Path) -> Result<Option<Unheard>, Unheard> {
        let status = folder.status().map_err(|error| away(&error, path))?;
        let wrong = self.wrong_owner(&status)?;
        Ok(wrong.map(|what| refused(path, &format!("with a .forward in it {what}"))))
    }

    /// The content of the file `name`; `None` where there is none.
    fn read(&self, folder: &Folder, name: &str, path: &Path) -> Result<Option<Vec<u8>>, Unheard> {
        let file = match folder.open(name, Open::Read) {
            Err(error) if is_missing(&error) => return Ok(None),
            result => result.map_err(|error| unopened(&error, path))?,
        };
        let status = file.status().map_err(|error| away(&error, path))?;
        if !status.is_file() {
            return Err(refused(path, "is no regular file: put one there"));
        }
        if let Some(what) = self.wrong_owner(&status)? {
            return Err(refused(path, &what));
        }
        let octets = file.read_up_to(MAX_FILE + 1).map_err(|error| away(&error, path))?;
        if octets.len() as u64 > MAX_FILE {
            let what = format!("is longer than {MAX_FILE} octets: use a mailing list");
            return Err(refused(path, &what));
        }
        Ok(Some(octets))
    }

    /// What is wrong with a file or folder that somebody else could change.
    fn wrong_owner(&self, status: &Status) -> Result<Option<String>, Unheard> {
        let Account { name, uid, gid, .. } = self.account;
        if status.owner() != 0 && status.owner() != *uid {
            let owner = status.owner();
            return Ok(Some(format!("belongs to user id {owner}: give it to {name}")));
        }
        if status.is_writable_for_all() {
            return Ok(Some("can be written by everybody: run chmod o-w on it".to_owned()));
        }
        if !status.is_group_writable() {
            return Ok(None);
        }
        // Where each user has a group of his own, its members can write what he makes.
        let is_private = has_private_group(self.account).map_err(|error| {
            let text = format!("the group of {name} cannot be looked up: {error}");
            Unheard::Away(Failure::new(UNREADABLE, text))
        })?;
        let is_own = is_private && status.group() == *gid;
        Ok((!is_own).then(|| "can be written by its group: run chmod g-w on it".to_owned()))
    }

    /// Puts the lists that are included in their places.
    fn with_lists(
        &self,
        targets: Vec<(usize, Target)>,
        path: &Path,
    ) -> Result<Vec<Target>, Unheard> {
        let mut found = Vec::new();
        let mut lists = 0;
        for (line, target) in targets {
            match target {
                Target::Include(list) => {
                    lists += 1;
                    if lists > MAX_LISTS {
                        let what = format!("it includes more than {MAX_LISTS} lists");
                        return Err(wrong_line(path, line, &what));
                    }
                    found.extend(self.included(&list, path, line)?);
                }
                target => found.push(target),
            }
            if found.len() > MAX_TARGETS {
                let what = format!("it names more than {MAX_TARGETS}: use a mailing list");
                return Err(wrong_line(path, line, &what));
            }
        }
        Ok(found)
    }

    /// The addresses in the list at `list`, which line `line` of the file at `path` includes.
    fn included(&self, list: &Path, path: &Path, line: usize) -> Result<Vec<Target>, Unheard> {
        let unusable =
            |what: &str| wrong_line(path, line, &format!("the list {} {what}", printable(list)));
        let (Some(parent), Some(name)) =
            (list.parent(), list.file_name().and_then(|it| it.to_str()))
        else {
            return Err(unusable("is no file: write its whole path"));
        };
        let folder = self.disk.walk_to(parent).map_err(|error| match is_missing(&error) {
            true => unusable("is not there"),
            false => unopened(&error, list),
        })?;
        let octets = self.read(&folder, name, list)?.ok_or_else(|| unusable("is not there"))?;
        let mut addresses = Vec::new();
        for (line, target) in parsed(&octets, list)? {
            if !matches!(target, Target::Name(_) | Target::Address(_)) {
                return Err(wrong_line(list, line, "in a list only addresses may stand"));
            }
            addresses.push(target);
        }
        Ok(addresses)
    }
}

fn parsed(octets: &[u8], path: &Path) -> Result<Vec<(usize, Target)>, Unheard> {
    read_list(octets).map_err(|error| wrong_line(path, error.line, &error.text))
}

/// Whether there is nothing at a path.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(errno(error), Some(Errno::NOENT | Errno::NOTDIR))
}

/// Whether an error says only that an account which never had a home has none. That of a person
/// may be on a disk that is not mounted.
pub(super) fn is_never_there(account: &Account, place: &Place, error: &io::Error) -> bool {
    let is_homeless = (1..FIRST_PERSON).contains(&account.uid)
        || NO_HOMES.iter().any(|path| account.home.as_path() == Path::new(path));
    place.is_in_home && is_homeless && is_missing(error)
}

/// What an error means that was met when opening a file that is there.
fn unopened(error: &io::Error, path: &Path) -> Unheard {
    match errno(error) {
        Some(Errno::LOOP) => refused(path, "is a link: put a real file there"),
        Some(Errno::NXIO) => refused(path, "is no regular file: put one there"),
        Some(Errno::ACCESS | Errno::PERM) => {
            refused(path, "may not be read by its user: run chmod u+r on it")
        }
        _ => away(error, path),
    }
}

fn away(error: &io::Error, path: &Path) -> Unheard {
    Unheard::Away(failure(error, "read", path))
}

fn refused(path: &Path, what: &str) -> Unheard {
    Unheard::Refused(one_line(&format!("{} {what}", printable(path)), MAX_REMARK))
}

fn wrong_line(path: &Path, line: usize, what: &str) -> Unheard {
    Unheard::Refused(one_line(&format!("{}:{line}: {what}", printable(path)), MAX_REMARK))
}
