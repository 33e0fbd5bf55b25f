//! Owners and modes put right, and folders made, by a person who may be root, in places where
//! others may have a hand.
//!
//! The path is walked name by name. Where root walks, each folder on it must be one in which only
//! root and the server's account can put something in the place of another; a link is followed only
//! if root has made it, and never at the end. What was opened must be what was looked at before: a
//! folder, or an ordinary file with one name. From there on everything goes by descriptor.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fstat, mkdirat, openat,
    readlinkat, statat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::sys::secret_file::Owner;
use crate::sys::users;

/// The most links on one path, as in the kernel (MAXSYMLINKS).
const MAX_LINKS: usize = 40;
const WALK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
/// The mode of a folder that is made on the way to another.
const ON_THE_WAY: Mode =
    Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP).union(Mode::ROTH).union(Mode::XOTH);
const STICKY: u32 = 0o1000;

/// What is to be at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// The file or folder.
    pub path: PathBuf,
    /// Device and inode of what was looked at; `None` for a folder that is to be made.
    pub found: Option<(u64, u64)>,
    /// Whose it becomes.
    pub owner: Option<Owner>,
    /// Its permissions and the bits beside them.
    pub mode: Option<u32>,
    /// The account that has a say besides root.
    pub server: Option<u32>,
}

impl fmt::Display for Remedy {
    /// What has changed once it is applied.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.found.is_none() { "made" } else { "now" })?;
        if let Some(Owner { uid, gid }) = self.owner {
            let account = users::by_uid(uid).ok().flatten();
            let owner = account.map_or_else(|| uid.to_string(), |account| account.name);
            write!(f, ", owner {owner}, group id {gid}")?;
        }
        match self.mode {
            Some(mode) => write!(f, ", mode {mode:04o}"),
            None => Ok(()),
        }
    }
}

impl Remedy {
    /// Does it.
    ///
    /// # Errors
    /// When we may not, when it is not what was looked at any more, or when others have a hand in
    /// the path. What was done before the error stays done: never more than was asked for.
    pub fn apply(&self) -> io::Result<()> {
        let (folder, name) = self.walk()?;
        let opened = match self.found {
            Some(found) => open_found(&folder, &name, found)?,
            None => {
                mkdirat(&folder, &name, Mode::RWXU)?;
                openat(&folder, &name, OPEN | OFlags::DIRECTORY, Mode::empty())?
            }
        };
        if let Some(mode) = self.mode {
            // Nobody gets more than both allow while it changes hands.
            fchmod(&opened, Mode::from_raw_mode(mode & fstat(&opened)?.st_mode))?;
        }
        if let Some(owner) = self.owner {
            fchown(&opened, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
        }
        if let Some(mode) = self.mode {
            fchmod(&opened, Mode::from_raw_mode(mode))?;
        }
        Ok(())
    }

    /// The folder that it is in, and its name there.
    fn walk(&self) -> io::Result<(OwnedFd, OsString)> {
        let path = std::path::absolute(&self.path)?;
        let mut folder = openat(CWD, "/", WALK, Mode::empty())?;
        let (mut ahead, mut links) = (names(&path), 0);
        while let Some(name) = ahead.pop() {
            self.check(&fstat(&folder)?)?;
            if ahead.is_empty() {
                return Ok((folder, name));
            }
            let next = match openat(&folder, &name, WALK, Mode::empty()) {
                Err(Errno::NOENT) if self.found.is_none() => {
                    mkdirat(&folder, &name, ON_THE_WAY)?;
                    openat(&folder, &name, WALK, Mode::empty())?
                }
                next => next?,
            };
            let status = fstat(&next)?;
            match FileType::from_raw_mode(status.st_mode) {
                FileType::Directory => folder = next,
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS || geteuid().is_root() && status.st_uid != 0 {
                        return Err(io::Error::other("a link of somebody else is on the path"));
                    }
                    let target = readlinkat(&next, "", Vec::new())?;
                    let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                    if target.is_absolute() {
                        folder = openat(CWD, "/", WALK, Mode::empty())?;
                    }
                    ahead.extend(names(target));
                }
                _ => return Err(Errno::NOTDIR.into()),
            }
        }
        Err(io::Error::other("it is the root folder"))
    }

    /// Refuses a folder in which others may put something in the place of another.
    fn check(&self, folder: &Stat) -> io::Result<()> {
        if !geteuid().is_root() {
            return Ok(());
        }
        let is_known = folder.st_uid == 0 || Some(folder.st_uid) == self.server;
        let group = if folder.st_gid == 0 { 0 } else { 0o020 };
        let is_shared = folder.st_mode & (0o002 | group) != 0 && folder.st_mode & STICKY == 0;
        if is_known && !is_shared {
            return Ok(());
        }
        Err(io::Error::other("others than root can put another in its place; look at it yourself"))
    }
}

/// The names of a path, the first one last.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.iter().filter(|name| *name != "/" && *name != ".");
    names.rev().map(OsStr::to_owned).collect()
}

/// Opens what was looked at before.
fn open_found(folder: &OwnedFd, name: &OsStr, found: (u64, u64)) -> io::Result<OwnedFd> {
    let status = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_file = match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => false,
        FileType::RegularFile => true,
        FileType::Symlink => return Err(io::Error::other("it is a link; mend what it leads to")),
        _ => return Err(io::Error::other("it is neither a file nor a folder")),
    };
    let opened = openat(folder, name, OPEN, Mode::empty())?;
    let status = fstat(&opened)?;
    if (status.st_dev, status.st_ino) != found {
        return Err(io::Error::other("it is not what was looked at any more"));
    }
    if is_file && status.st_nlink != 1 {
        return Err(io::Error::other("it has several names (hard links); look at it yourself"));
    }
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    fn remedy(path: &Path) -> Remedy {
        let found = fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
        let owner = Some(Owner { uid: 1, gid: 2 });
        Remedy { path: path.to_owned(), found, owner, mode: Some(0o640), server: Some(7) }
    }

    fn state(path: &Path) -> (u32, u32, u32) {
        let it = fs::symlink_metadata(path).unwrap();
        (it.uid(), it.gid(), it.mode() & 0o7777)
    }

    #[test]
    fn files_and_folders_get_what_they_want() {
        assert!(geteuid().is_root(), "run this test as root");
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().join(name);
        fs::write(at("file"), "x").unwrap();
        remedy(&at("file")).apply().unwrap();
        assert_eq!(state(&at("file")), (1, 2, 0o640));
        let new = Remedy { mode: Some(0o1733), ..remedy(&at("a/b")) };
        new.apply().unwrap();
        assert_eq!((state(&at("a/b")), state(&at("a")).0), ((1, 2, 0o1733), 0));
        assert!(new.apply().is_err(), "it is there already");
    }

    #[test]
    fn links_and_others_hands_are_refused() {
        assert!(geteuid().is_root(), "run this test as root");
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().join(name);
        for name in ["file", "hard", "gone"] {
            fs::write(at(name), "x").unwrap();
        }
        fs::hard_link(at("hard"), at("other")).unwrap();
        symlink(at("file"), at("link")).unwrap();
        let refuse = |remedy: &Remedy, why: &str| {
            let error = remedy.apply().unwrap_err().to_string();
            assert!(error.contains(why), "{why}: {error}");
        };
        refuse(&remedy(&at("link")), "it is a link");
        refuse(&remedy(&at("hard")), "several names");
        let before = remedy(&at("gone"));
        fs::rename(at("file"), at("gone")).unwrap();
        refuse(&before, "not what was looked at");
        assert_eq!(state(&at("gone")).0, 0);

        // Whose folder it is in decides; a link of root's on the way may lead there.
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("folder/file"), "x").unwrap();
        symlink("folder", at("way")).unwrap();
        for (owner, group, mode, is_refused) in [
            (5, 0, 0o755, true),
            (7, 0, 0o755, false),
            (0, 0, 0o777, true),
            (0, 0, 0o1777, false),
            (0, 8, 0o775, true),
            (0, 0, 0o775, false),
        ] {
            chown(at("folder"), Some(owner), Some(group)).unwrap();
            fs::set_permissions(at("folder"), Permissions::from_mode(mode)).unwrap();
            for path in ["folder/file", "way/file"] {
                let result = remedy(&at(path)).apply();
                assert_eq!(result.is_err(), is_refused, "{owner} {mode:o} {path}: {result:?}");
            }
        }
        std::os::unix::fs::lchown(at("way"), Some(5), None).unwrap();
        refuse(&remedy(&at("way/file")), "a link of somebody else");
    }
}
