//! Maildir: a folder with one file per message, which gets its name in `new` when it is whole.
//! Readers need no lock.
//!
//! Where the file system orders data before names ([`Folder::orders_data_first`]), one flush
//! does, and flash is written once:
//!
//! 1. The message is written into a file without a name, in `new`.
//! 2. It is pushed out: its octets go to their blocks, with no commit of the journal.
//! 3. It gets its name.
//! 4. The file is flushed: one commit for the inode and the name.
//! 5. `new` is flushed, which finds nothing left to do there.
//!
//! A crash up to 3 leaves nothing at all, since the file system forgets a file without a name.
//! After 3 it leaves the whole message or nothing: the journal holds the name behind the
//! message's length, and that behind its octets. After 4 it leaves the whole message. No
//! half of one is ever found under a name, and `tmp` is not littered. The message stays in
//! the spool until 5 is done, so that in each case it is delivered, perhaps a second time.
//!
//! Elsewhere, and where there are no files without a name, it is `tmp/NAME` first, as the
//! inventor of Maildir has it: written, pushed out or flushed, renamed into `new`, flushed. What
//! a crash before the rename leaves in `tmp` is removed by mail readers after some days.
//!
//! The name in `new` tells the size of the file (`,S=`, Maildir++), by which quotas are counted.

use std::io::{self, Read};
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::deliver::lines::{self, CopyError};
use crate::deliver::outcome::Failure;
use crate::deliver::place::{Place, Target, open_or_make};
use crate::deliver::quota::Quota;
use crate::deliver::storage::{MAILBOX_UNUSABLE, failure, printable, spool_failure};
use crate::sys::clock;
use crate::sys::disk::{DiskFile, Folder, Open, is_unsupported};

/// Writes one message into the Maildir at `target`: `head`, in lines that end with LF, then the
/// content. Folders that are missing are made. `host` becomes part of the file's name. Where a
/// quota counts, `quota` is the Maildir that has it: the same one, or the one that this is a folder
/// of.
///
/// # Errors
/// A temporary failure; nothing of the message stays then, unless the disk refuses even to
/// remove it.
pub fn deliver(
    target: &Target<'_>,
    host: &str,
    quota: Option<&Place>,
    head: Vec<u8>,
    content: &mut dyn Read,
) -> Result<(), Failure> {
    let path = target.place.path();
    let maildir = open_maildir(target, &path)?;
    let new = open_new(&maildir, &path)?;
    let quota_maildir =
        quota.map(|place| open_maildir(&Target { place, ..*target }, &place.path()));
    let quota_maildir = quota_maildir.transpose()?;
    let quota = quota_maildir.as_ref().zip(quota);
    let quota = quota.and_then(|(maildir, place)| Quota::of(maildir, &place.path(), target.owner));
    let orders_data_first =
        new.orders_data_first().map_err(|error| write_failure(&error, &path))?;
    let entry = Entry { maildir, new, name: unique_name(host), orders_data_first, path: &path };
    entry.fill(quota, head, content)
}

/// A message's place in a Maildir.
struct Entry<'a> {
    maildir: Folder,
    new: Folder,
    /// The beginning of its name, and all of it in `tmp`.
    name: String,
    orders_data_first: bool,
    path: &'a Path,
}

impl Entry<'_> {
    /// Writes the message, if there is room for it.
    fn fill(
        &self,
        mut quota: Option<Quota<'_>>,
        head: Vec<u8>,
        content: &mut dyn Read,
    ) -> Result<(), Failure> {
        let path = self.path;
        let (mut file, temporary) = self.create()?;
        let written = write(&mut file, head, content, path).and_then(|octets| {
            quota.as_mut().map_or(Ok(()), |quota| quota.admit(octets))?;
            let name = format!("{},S={octets}", self.name);
            let named = self.give_name(&file, temporary.as_ref(), &name);
            named.map(|()| (name, octets)).map_err(|error| write_failure(&error, path))
        });
        if written.is_err()
            && let Some(folder) = temporary
        {
            discard(&folder, &self.name, path);
        }
        let (name, octets) = written?;
        self.keep(&file).map_err(|error| {
            // A reader may have had it already; then it is seen twice, since it comes again.
            discard(&self.new, &name, path);
            write_failure(&error, path)
        })?;
        if let Some(quota) = quota {
            quota.add(octets);
        }
        Ok(())
    }

    /// Makes the file. Where it has a name already, the folder of that comes second.
    fn create(&self) -> Result<(DiskFile, Option<Folder>), Failure> {
        let create_failure = |error| failure(&error, "create a file in", self.path);
        if self.orders_data_first {
            match self.new.create_unnamed() {
                Err(error) if is_unsupported(&error) => {}
                file => return Ok((file.map_err(create_failure)?, None)),
            }
        }
        let folder = open_or_make(&self.maildir, "tmp", &self.path.join("tmp"))?;
        let file = folder.open(&self.name, Open::New).map_err(create_failure)?;
        Ok((file, Some(folder)))
    }

    /// Gives the whole file its name in `new`, in such a way that the name is never found on
    /// the disk without the message.
    fn give_name(&self, file: &DiskFile, temporary: Option<&Folder>, name: &str) -> io::Result<()> {
        if self.orders_data_first {
            file.push_out()?;
        } else {
            file.flush_to_disk()?;
        }
        match temporary {
            Some(folder) => folder.rename(&self.name, &self.new, name),
            None => self.new.link_unnamed(file, name),
        }
    }

    /// Makes the message and its name last.
    fn keep(&self, file: &DiskFile) -> io::Result<()> {
        if self.orders_data_first {
            file.flush_to_disk()?;
        }
        self.new.flush_to_disk()
    }
}

fn write(
    file: &mut DiskFile,
    head: Vec<u8>,
    content: &mut dyn Read,
    path: &Path,
) -> Result<u64, Failure> {
    lines::copy(head, content, file).map_err(|error| match error {
        CopyError::Read(error) => spool_failure(&error),
        CopyError::Write(error) => write_failure(&error, path),
    })
}

fn write_failure(error: &io::Error, path: &Path) -> Failure {
    failure(error, "write into the Maildir", path)
}

/// Opens the Maildir itself, and makes it where it is missing.
fn open_maildir(target: &Target<'_>, path: &Path) -> Result<Folder, Failure> {
    let maildir = walk_to_maildir(target, path)?;
    if let Some(owner) = target.owner {
        check_owner(&maildir, owner, path)?;
    }
    Ok(maildir)
}

fn walk_to_maildir(target: &Target<'_>, path: &Path) -> Result<Folder, Failure> {
    let place = target.place;
    // One call where nothing lies between, as nearly always.
    if place.folders.is_empty() {
        match target.disk.walk_to_no_link(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result.map_err(|error| failure(&error, "open the Maildir", path)),
        }
    }
    open_or_make(&place.open_parent(target.disk)?, &place.name, path)
}

/// In a folder that many may write to, somebody may have put a Maildir of his own there.
fn check_owner(maildir: &Folder, owner: u32, path: &Path) -> Result<(), Failure> {
    let status = maildir.status().map_err(|error| failure(&error, "look at", path))?;
    if status.owner() == owner {
        return Ok(());
    }
    let text = format!(
        "the Maildir {} belongs to user id {} and not to its recipient, {owner}: give it to him or \
         move it away",
        printable(path),
        status.owner()
    );
    Err(Failure::new(MAILBOX_UNUSABLE, text))
}

fn open_new(maildir: &Folder, path: &Path) -> Result<Folder, Failure> {
    let opened = match maildir.open_folder("new") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folders(maildir, path)?;
            maildir.open_folder("new")
        }
        result => result,
    };
    opened.map_err(|error| failure(&error, "open the folder", &path.join("new")))
}

fn make_folders(maildir: &Folder, path: &Path) -> Result<(), Failure> {
    for name in ["tmp", "cur", "new"] {
        open_or_make(maildir, name, &path.join(name))?;
    }
    Ok(())
}

fn discard(folder: &Folder, name: &str, path: &Path) {
    if let Err(error) = folder.unlink(name) {
        log::warn!("cannot remove the unfinished {name} from {}: {error}", printable(path));
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
    use crate::sys::disk::Disk;
    use crate::sys::disk::faults::{FailNth, each_fault};
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
        deliver_on(&Disk::host(), place, &mut text.as_bytes())
    }

    fn deliver_on(disk: &Disk, place: &Place, content: &mut dyn Read) -> Result<(), Failure> {
        let target = Target { disk, place, owner: None };
        deliver(&target, "mx/a:b", None, b"X: y\n".to_vec(), content)
    }

    /// Disks with and without files that have no name, and data that goes first.
    const DISKS: [(bool, bool); 3] = [(true, true), (false, true), (true, false)];

    fn texts(place: &Place, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(place.path().join(folder)) else { return Vec::new() };
        entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn a_disk_that_fails_anywhere_leaves_the_whole_message_or_nothing() {
        let text = "a\r\n".repeat(50_000);
        let whole = format!("X: y\n{}", "a\n".repeat(50_000));
        for (has_unnamed_files, orders_data_first) in DISKS {
            for is_there in [true, false] {
                let disk = |n| FailNth::new(n).on(has_unnamed_files, orders_data_first);
                each_fault(disk, |watcher| {
                    let base = tempfile::tempdir().unwrap();
                    let place = place(base.path(), &[]);
                    if is_there {
                        deliver_text(&place, "").unwrap();
                        fs::remove_file(&files(place.path().join("new"))[0]).unwrap();
                    }
                    let disk = Disk::watched(watcher.clone());
                    let is_done = deliver_on(&disk, &place, &mut text.as_bytes()).is_ok();
                    let expected = if is_done { vec![whole.clone()] } else { Vec::new() };
                    assert!(texts(&place, "new") == expected, "{watcher:?}");
                    assert!(texts(&place, "tmp").is_empty(), "{watcher:?}");
                    is_done
                });
            }
        }
    }

    #[test]
    fn a_torn_write_leaves_nothing() {
        for (has_unnamed_files, orders_data_first) in DISKS {
            let disk = |n| FailNth::tearing(n, 3).on(has_unnamed_files, orders_data_first);
            each_fault(disk, |watcher| {
                let base = tempfile::tempdir().unwrap();
                let place = place(base.path(), &[]);
                let disk = Disk::watched(watcher.clone());
                let is_done = deliver_on(&disk, &place, &mut &b"a"[..]).is_ok();
                let found = [texts(&place, "new"), texts(&place, "tmp")].concat();
                assert_eq!(found.len(), usize::from(is_done), "{watcher:?}");
                is_done
            });
        }
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
        let size = fs::metadata(&found[0]).unwrap().len();
        assert!(name.ends_with(&format!(".mx\\057a\\072b,S={size}")), "{name}");
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
        let failure = deliver_on(&Disk::host(), &place, &mut Broken).unwrap_err();
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
