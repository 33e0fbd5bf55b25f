//! Where a mailbox is: `[local] path` with its variables filled in.
//!
//! What stands before the first variable (or the recipient's home) belongs to the
//! administrator: it must be there, and may be reached through links. What comes after is
//! made as needed, and a link there is not followed.

use std::io;
use std::path::{Path, PathBuf};

use crate::deliver::outcome::Failure;
use crate::deliver::storage::failure;
use crate::mail::address::Domain;
use crate::mail::status::Status;
use crate::route::users::User;
use crate::sys::disk::{Disk, Folder};

/// The configuration is wrong; mail waits until it is mended.
const MISCONFIGURED: Status = Status::new(4, 3, 5);

/// The place of one mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder that must be there.
    pub base: PathBuf,
    /// The folders below it that are made as needed.
    pub folders: Vec<String>,
    /// The mailbox itself, a file or a folder.
    pub name: String,
    /// Whether the base is the recipient's home, and not a folder of the administrator.
    pub is_in_home: bool,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The disk that the mailbox is on.
    pub disk: &'a Disk,
    /// The mailbox.
    pub place: &'a Place,
    /// Who must own it, where that matters.
    pub owner: Option<u32>,
}

impl Place {
    /// Fills in `template`, such as `[local] path`, for `user`, addressed at `domain`.
    ///
    /// # Errors
    /// A temporary failure when the path is unusable: an unknown variable, no name at its
    /// end, or `{home}` for a user without an account.
    pub fn of(template: &str, user: &User, domain: &Domain) -> Result<Self, Failure> {
        let wrong = |what: &str| {
            let text = format!("the path {template} of a mailbox is unusable: {what}");
            Failure::new(MISCONFIGURED, text)
        };
        let is_in_home = template.split('/').next() == Some("{home}");
        let (mut base, pattern) = if is_in_home {
            let account = user.account.as_ref();
            let account = account.ok_or_else(|| wrong("{home} needs users = system"))?;
            if !account.home.is_absolute() {
                return Err(wrong(&format!("{} has no home", user.name)));
            }
            (account.home.clone(), &template["{home}".len()..])
        } else {
            let (base, pattern) = split_fixed(template);
            (PathBuf::from(base), pattern)
        };
        let mut folders = Vec::new();
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            folders
                .push(fill(part, user, domain).ok_or_else(|| wrong("write {user} or {domain}"))?);
        }
        let name = folders.pop().ok_or_else(|| wrong("it names no mailbox"))?;
        if base.as_os_str().is_empty() {
            base = PathBuf::from(".");
        }
        Ok(Self { base, folders, name, is_in_home })
    }

    /// The whole path.
    pub fn path(&self) -> PathBuf {
        self.base.join(self.folders.join("/")).join(&self.name)
    }

    /// Opens the folder that the mailbox is in, and makes it where it is missing.
    ///
    /// # Errors
    /// A temporary failure when the base is missing, a part of the path is a link or no
    /// folder, or it may not be entered.
    pub fn open_parent(&self, disk: &Disk) -> Result<Folder, Failure> {
        let mut path = self.base.clone();
        let open = disk.walk_to(&path);
        let mut folder = open.map_err(|error| failure(&error, "open the folder", &path))?;
        for name in &self.folders {
            path.push(name);
            folder = open_or_make(&folder, name, &path)?;
        }
        Ok(folder)
    }
}

/// Opens the folder `name` in `parent` without following a link, and makes it, for its owner
/// alone, where it is missing. `path` is what failures call it.
///
/// # Errors
/// A temporary failure when it is a link or no folder, or may not be made.
pub fn open_or_make(parent: &Folder, name: &str, path: &Path) -> Result<Folder, Failure> {
    match parent.walk_to(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => return result.map_err(|error| failure(&error, "open the folder", path)),
    }
    let make = || -> io::Result<Folder> {
        match parent.make_folder(name) {
            // Another delivery was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
        let folder = parent.walk_to(name)?;
        flush_entry(parent, || folder.open_folder(".")?.flush_file_system())?;
        Ok(folder)
    };
    make().map_err(|error| failure(&error, "make the folder", path))
}

/// Makes sure that what was just made in `parent` is found there after a crash.
/// `flush_file_system` does so for the whole file system by way of what was made.
///
/// # Errors
/// When the disk fails.
pub fn flush_entry(
    parent: &Folder,
    flush_file_system: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    match parent.open_folder(".") {
        Ok(parent) => parent.flush_to_disk(),
        // A folder that may be written and not read cannot be flushed alone.
        Err(_) => flush_file_system(),
    }
}

/// Splits a path before the component that has the first variable, or before its last one.
pub fn split_fixed(path: &str) -> (&str, &str) {
    let end = path.find('{').unwrap_or(path.trim_end_matches('/').len());
    match path[..end].rfind('/') {
        Some(0) => ("/", &path[1..]),
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => ("", path),
    }
}

/// Fills in the variables of one component. `None` for an unknown one, and where the result
/// is no name.
fn fill(part: &str, user: &User, domain: &Domain) -> Option<String> {
    // No value holds a slash, and none begins with a dot.
    let filled = part
        .replace("{domain}", &domain.to_string().to_ascii_lowercase())
        .replace("{user}", "\0")
        .split('\0')
        .map(|text| if text.contains(['{', '}']) { None } else { Some(text) })
        .collect::<Option<Vec<_>>>()?
        .join(user.name.as_str());
    if matches!(filled.as_str(), "." | "..") { None } else { Some(filled) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::users::Account;

    fn place(path: &str) -> Result<Place, Failure> {
        let home = PathBuf::from("/home/ann");
        let account = Account { name: "ann".to_owned(), uid: 1000, gid: 1000, home };
        let user = User { name: "a{b".parse().unwrap(), detail: None, account: Some(account) };
        Place::of(path, &user, &"X.Test".parse().unwrap())
    }

    #[test]
    fn the_path_is_filled_in() {
        for (path, base, below) in [
            ("/var/mail/{user}", "/var/mail", "a{b"),
            ("/var/mail/{domain}/x-{user}/", "/var/mail", "x.test/x-a{b"),
            ("/srv/m-{domain}/Maildir", "/srv", "m-x.test/Maildir"),
            ("{home}/Maildir", "/home/ann", "Maildir"),
            ("{home}//mail/inbox", "/home/ann", "mail/inbox"),
            ("/{user}", "/", "a{b"),
            ("/var/mail/all", "/var/mail", "all"),
            ("/var/mail/all/", "/var/mail", "all"),
            ("mail/{user}", "mail", "a{b"),
            ("{user}", ".", "a{b"),
        ] {
            let place = place(path).unwrap();
            assert_eq!(place.base, Path::new(base), "{path}");
            assert_eq!(place.path(), Path::new(base).join(below), "{path}");
        }
    }

    #[test]
    fn an_unusable_path_defers() {
        for path in ["", "/", "{home}", "/x/{usr}", "/x/{user", "/x{home}/y", "/x/{user}/.."] {
            let failure = place(path).unwrap_err();
            assert_eq!(failure.status, MISCONFIGURED, "{path}");
        }
    }
}
