//! Opens a file that its path may lead to through folders and links of users, such as a list that
//! an alias includes. Whoever can put a link there could have it lead to what the server may read
//! and they may not.
//!
//! So the path is walked name by name, and whose each folder and link is decides who has a say.
//! Where that is only root and the server itself, the file is opened with the rights of the
//! process; where it is somebody else, with that account's filesystem identity, so that the kernel
//! decides. Nothing is opened where two others have a say: the one could read what is the other's.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::sys::identity::{self, Guard, Identity};
use crate::sys::users;

/// The most links on one path, as in the kernel (MAXSYMLINKS).
const MAX_LINKS: usize = 40;
/// To look at what has a name: a link itself, and never a device's driver.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// To read an ordinary file. Should it be a FIFO by now, nobody waits for its other end.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
const WRITABLE_FOR_OTHERS: u32 = 0o022;
const READABLE_FOR_ALL: u32 = 0o004;

/// Opens the ordinary file at `path` to read it.
///
/// # Errors
/// When it is not there, is none, or may not be read by who has a say in what the path leads to;
/// when several have one.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut trail = Trail::new(path)?;
    trail.go(path);
    trail.walk().map_err(|error| match (trail.owner, error.raw_os_error()) {
        (Some(owner), Some(libc::EACCES)) => may_not_read(owner),
        _ => error,
    })
}

/// Where we are on the way.
struct Trail {
    /// Who owns the root folder: root, as whomever a container sees it.
    root_owner: u32,
    folder: OwnedFd,
    /// Whether others than its owner may put something there.
    is_shared: bool,
    /// What comes, the next one last.
    ahead: Vec<OsString>,
    links: usize,
    /// Who has a say besides root and the server.
    owner: Option<u32>,
    /// The identity of that account, where it can be taken.
    guard: Option<Guard>,
}

impl Trail {
    fn new(path: &Path) -> io::Result<Self> {
        let root = openat(CWD, "/", LOOK, Mode::empty())?;
        Ok(Self {
            root_owner: fstat(&root)?.st_uid,
            // The folder that the process was started in need not be one that it may enter.
            folder: match path.is_absolute() {
                true => root,
                false => openat(CWD, ".", LOOK, Mode::empty())?,
            },
            is_shared: false,
            ahead: Vec::new(),
            links: 0,
            owner: None,
            guard: None,
        })
    }

    /// Puts the names of a path before what comes.
    fn go(&mut self, path: &Path) {
        self.ahead.extend(path.iter().rev().map(OsStr::to_owned));
    }

    fn walk(&mut self) -> io::Result<File> {
        while let Some(name) = self.ahead.pop() {
            let found = openat(&self.folder, &name, LOOK, Mode::empty())?;
            let status = fstat(&found)?;
            match FileType::from_raw_mode(status.st_mode) {
                FileType::Directory => {
                    self.note(status.st_uid)?;
                    self.is_shared = status.st_mode & WRITABLE_FOR_OTHERS != 0;
                    self.folder = found;
                }
                FileType::Symlink => {
                    self.note(status.st_uid)?;
                    self.follow(&found)?;
                }
                FileType::RegularFile if self.ahead.is_empty() => return self.open(&name, &status),
                _ if self.ahead.is_empty() => break,
                _ => return Err(Errno::NOTDIR.into()),
            }
        }
        Err(io::Error::other("it is no regular file"))
    }

    fn follow(&mut self, link: &OwnedFd) -> io::Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = readlinkat(link, "", Vec::new())?;
        self.go(Path::new(OsStr::from_bytes(target.as_bytes())));
        Ok(())
    }

    /// Notes whose a folder or a link is, or a file, and goes on with the rights of that account.
    fn note(&mut self, owner: u32) -> io::Result<()> {
        let is_own = owner == geteuid().as_raw() && (self.owner.is_none() || self.guard.is_some());
        if owner == 0 || owner == self.root_owner || is_own || self.owner == Some(owner) {
            return Ok(());
        }
        if let Some(other) = self.owner {
            return Err(denied(format!(
                "the path leads through what belongs to user id {other} and to user id {owner}: \
                 put it where only one of them can change it"
            )));
        }
        self.owner = Some(owner);
        if identity::may_be_changed()? {
            let account = users::by_uid(owner)?.ok_or_else(|| {
                denied(format!("it is in the hands of user id {owner}, which is no account"))
            })?;
            self.guard = Some(Identity::of(&account)?.assume()?);
        }
        Ok(())
    }

    /// Opens the file that was found.
    fn open(&mut self, name: &OsStr, found: &Stat) -> io::Result<File> {
        if self.owner.is_none() {
            if self.is_shared && found.st_nlink != 1 {
                return Err(denied("it has several names, in a folder that others can write"));
            }
            self.note(found.st_uid)?;
        }
        let file = openat(&self.folder, name, READ, Mode::empty())?;
        let status = fstat(&file)?;
        if (status.st_dev, status.st_ino) != (found.st_dev, found.st_ino) {
            return Err(io::Error::other("it changed while it was opened"));
        }
        // Where the process keeps its own rights, they may be more than that account has.
        let is_for = |owner| owner == status.st_uid || status.st_mode & READABLE_FOR_ALL != 0;
        match self.owner.filter(|_| self.guard.is_none()) {
            Some(owner) if !is_for(owner) => Err(may_not_read(owner)),
            _ => Ok(file.into()),
        }
    }
}

fn may_not_read(owner: u32) -> io::Error {
    denied(format!("user id {owner}, who can change where it leads, may not read it"))
}

fn denied(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    #[test]
    fn who_has_a_say_must_have_the_right() {
        assert!(geteuid().is_root(), "run this test as root: it gives files to others");
        let (daemon, bin) = (1, 2);
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().join(name);
        let own = |name: &str, owner, mode| {
            fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
            chown(at(name), Some(owner), Some(owner)).unwrap();
        };
        let folder = |name: &str, owner, mode| {
            fs::create_dir(at(name)).unwrap();
            own(name, owner, mode);
        };
        let file = |name: &str, owner, mode| {
            fs::write(at(name), name).unwrap();
            own(name, owner, mode);
        };
        let link = |target: &str, name: &str, owner| {
            symlink(at(target), at(name)).unwrap();
            std::os::unix::fs::lchown(at(name), Some(owner), None).unwrap();
        };
        own("", 0, 0o755);
        folder("daemon", daemon, 0o700);
        folder("daemon/bin", bin, 0o755);
        folder("shared", 0, 0o1777);
        file("roots", 0, 0o600);
        file("bins", bin, 0o600);
        file("daemon/own", daemon, 0o600);
        file("daemon/bin/file", bin, 0o644);
        file("shared/bins", bin, 0o600);
        link("roots", "to_roots", 0);
        link("daemon", "to_daemon", 0);
        link("roots", "daemon/to_roots", daemon);
        link("bins", "daemon/to_bins", daemon);
        link("daemon/own", "daemon/to_own", daemon);
        link("daemon/own", "shared/to_own", bin);
        link("roots", "shared/to_roots", bin);
        link("round", "round", 0);
        fs::hard_link(at("roots"), at("shared/hard")).unwrap();
        for (name, expected) in [
            ("roots", "roots"),
            ("bins", "bins"),
            ("to_roots", "roots"),
            ("daemon/own", "daemon/own"),
            ("to_daemon/own", "daemon/own"),
            ("daemon/../daemon/./to_own", "daemon/own"),
            ("shared/bins", "shared/bins"),
            ("daemon/to_roots", "who can change"),
            ("daemon/to_bins", "who can change"),
            ("daemon/bin/file", "id 1 and to user id 2"),
            ("shared/to_own", "id 2 and to user id 1"),
            ("shared/to_roots", "who can change"),
            ("shared/hard", "several names"),
            ("roots/x", "Not a directory"),
            ("daemon", "no regular file"),
            ("round", "Too many levels"),
            ("none", "No such file"),
        ] {
            let mut text = String::new();
            let read = open(&at(name)).and_then(|mut file| file.read_to_string(&mut text));
            let found = read.map_or_else(|error| error.to_string(), |_| text);
            assert!(found.contains(expected), "{name}: {found}");
        }
        assert!(fs::read(at("roots")).is_ok(), "the thread has its identity back");
    }
}
