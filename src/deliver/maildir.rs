//! Maildir: a folder with one file per message, written in `tmp` and moved into `new` when it
//! is whole and flushed. Readers need no lock.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::deliver::lines::{self, CopyError};
use crate::deliver::outcome::Failure;
use crate::deliver::place::{Place, WALK, open_or_make};
use crate::deliver::storage::{MAILBOX_UNUSABLE, failure, printable, spool_failure};
use crate::sys::clock;

/// Writes one message into the Maildir at `place`: `head`, in lines that end with LF, then
/// the content. Folders that are missing are made. `owner` is who must own the Maildir, where
/// that matters; `host` becomes part of the file's name.
///
/// # Errors
/// A temporary failure; nothing of the message stays then.
pub fn deliver(
    place: &Place,
    owner: Option<u32>,
    host: &str,
    head: Vec<u8>,
    content: &mut dyn Read,
) -> Result<(), Failure> {
    let path = place.path();
    let maildir = open_maildir(place, &path)?;
    if let Some(owner) = owner {
        check_owner(&maildir, owner, &path)?;
    }
    let new = open_new(&maildir, &path)?;
    let name = unique_name(host);
    let temporary = format!("tmp/{name}");
    let write_failure = |error: &io::Error| failure(error, "write into the Maildir", &path);
    let mut file = create(&maildir, &temporary, &path)?;
    let write = lines::copy(head, content, &mut file).map_err(|error| match error {
        CopyError::Read(error) => spool_failure(&error),
        CopyError::Write(error) => write_failure(&error),
    });
    let written = write.and_then(|()| file.sync_all().map_err(|error| write_failure(&error)));
    let moved = written.and_then(|()| {
        renameat(&maildir, &temporary, &new, &name).map_err(|errno| write_failure(&errno.into()))
    });
    if moved.is_err() {
        discard(&maildir, &temporary, &path);
        return moved;
    }
    fsync(&new).map_err(|errno| {
        discard(&new, &name, &path);
        write_failure(&errno.into())
    })
}

/// Opens the Maildir itself, and makes it where it is missing.
fn open_maildir(place: &Place, path: &Path) -> Result<OwnedFd, Failure> {
    // One call where nothing lies between, as nearly always.
    if place.folders.is_empty() {
        match openat(CWD, path, WALK | OFlags::NOFOLLOW, Mode::empty()) {
            Err(Errno::NOENT) => {}
            result => {
                return result.map_err(|errno| failure(&errno.into(), "open the Maildir", path));
            }
        }
    }
    open_or_make(&place.open_parent()?, &place.name, path)
}

/// In a folder that many may write to, somebody may have put a Maildir of his own there.
fn check_owner(maildir: &OwnedFd, owner: u32, path: &Path) -> Result<(), Failure> {
    let status = fstat(maildir).map_err(|errno| failure(&errno.into(), "look at", path))?;
    if status.st_uid == owner {
        return Ok(());
    }
    let text = format!(
        "the Maildir {} belongs to user id {} and not to its recipient, {owner}: give it to him or \
         move it away",
        printable(path),
        status.st_uid
    );
    Err(Failure::new(MAILBOX_UNUSABLE, text))
}

fn open_new(maildir: &OwnedFd, path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(maildir, "new", flags, Mode::empty());
    let opened = match open() {
        Err(Errno::NOENT) => {
            make_folders(maildir, path)?;
            open()
        }
        result => result,
    };
    opened.map_err(|errno| failure(&errno.into(), "open the folder", &path.join("new")))
}

fn make_folders(maildir: &OwnedFd, path: &Path) -> Result<(), Failure> {
    for name in ["tmp", "cur", "new"] {
        open_or_make(maildir, name, &path.join(name))?;
    }
    Ok(())
}

fn create(maildir: &OwnedFd, name: &str, path: &Path) -> Result<File, Failure> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let create = || openat(maildir, name, flags, Mode::RUSR | Mode::WUSR);
    let created = match create() {
        Err(Errno::NOENT) => {
            make_folders(maildir, path)?;
            create()
        }
        result => result,
    };
    created.map(File::from).map_err(|errno| failure(&errno.into(), "create a file in", path))
}

fn discard(folder: &OwnedFd, name: &str, path: &Path) {
    if let Err(errno) = unlinkat(folder, name, AtFlags::empty()) {
        log::warn!("cannot remove the unfinished {name} from {}: {errno}", printable(path));
    }
}

/// A name that no other delivery has, here or on another host that shares the folder.
fn unique_name(host: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static PROCESS: LazyLock<(u32, u64)> = LazyLock::new(|| (std::process::id(), random()));
    let (process, random) = *PROCESS;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = clock::since_1970();
    let (seconds, micros) = (now.as_secs(), now.subsec_micros());
    // A slash would leave the folder, and a colon begins the flags.
    let host = host.replace('/', "\\057").replace(':', "\\072");
    format!("{seconds}.M{micros:06}P{process}Q{count}R{random:016x}.{host}")
}

/// Something that another run with the same process id has not, the clock being wrong.
fn random() -> u64 {
    let mut octets = [0; 8];
    match rustix::rand::getrandom(&mut octets, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => u64::from_ne_bytes(octets),
        Err(_) => clock::since_1970().subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    fn place(base: &Path, folders: &[&str]) -> Place {
        let folders = folders.iter().map(|&name| name.to_owned()).collect();
        Place { base: base.to_owned(), folders, name: "ann".to_owned(), is_in_home: false }
    }

    fn files(folder: PathBuf) -> Vec<PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn deliver_text(place: &Place, text: &str) -> Result<(), Failure> {
        deliver(place, None, "mx/a:b", b"X: y\n".to_vec(), &mut text.as_bytes())
    }

    #[test]
    fn a_message_lands_in_new_and_its_folders_are_private() {
        let base = tempfile::tempdir().unwrap();
        let place = place(base.path(), &["x.test", "mail"]);
        deliver_text(&place, "a\r\n\r\nb\r\n").unwrap();
        deliver_text(&place, "").unwrap();
        let found = files(place.path().join("new"));
        assert_eq!(found.len(), 2);
        let texts: Vec<_> = found.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        assert!(
            texts.contains(&"X: y\na\n\nb\n".to_owned()) && texts.contains(&"X: y\n".to_owned())
        );
        let name = found[0].file_name().unwrap().to_str().unwrap();
        assert!(name.ends_with(".mx\\057a\\072b"), "{name}");
        assert_eq!(fs::metadata(&found[0]).unwrap().permissions().mode() & 0o777, 0o600);
        for folder in ["", "tmp", "new", "cur", ".."] {
            let mode = fs::metadata(place.path().join(folder)).unwrap().mode() & 0o777;
            assert_eq!(mode, 0o700, "{folder}");
        }
        assert!(files(place.path().join("tmp")).is_empty());
    }

    #[test]
    fn a_content_that_cannot_be_read_leaves_nothing() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let base = tempfile::tempdir().unwrap();
        let place = place(base.path(), &[]);
        let failure = deliver(&place, None, "mx", Vec::new(), &mut Broken).unwrap_err();
        assert!(failure.text.contains("spool"));
        assert!(files(place.path().join("tmp")).is_empty());
        assert!(files(place.path().join("new")).is_empty());
    }

    #[test]
    fn links_are_not_followed_and_a_missing_base_defers() {
        let base = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        symlink(other.path(), base.path().join("ann")).unwrap();
        for folders in [&[][..], &["ann"]] {
            let failure = deliver_text(&place(base.path(), folders), "a").unwrap_err();
            assert_eq!(failure.status, MAILBOX_UNUSABLE, "{}", failure.text);
        }
        assert!(files(other.path().to_owned()).is_empty());
        let gone = place(&base.path().join("gone"), &[]);
        assert!(deliver_text(&gone, "a").unwrap_err().text.contains("mount"));
        fs::remove_file(base.path().join("ann")).unwrap();
        fs::create_dir(base.path().join("ann")).unwrap();
        symlink(other.path(), base.path().join("ann/new")).unwrap();
        deliver_text(&place(base.path(), &[]), "a").unwrap_err();
        assert!(files(other.path().to_owned()).is_empty());
    }
}
