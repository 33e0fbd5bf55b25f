//! Where `sendmail` leaves a message while no server takes it: a file in `drop/`, in the form of
//! [`crate::spool::format`]. Everybody may put files there and nobody but the server may list
//! them (mode 1733), so it takes no program with more rights than its caller's, and the owner of
//! the file is who sent the message. What the server makes of it stands in
//! [`crate::spool::dropped`].
//!
//! ```text
//! SPOOL/drop/ID     a message, its owner's alone (0600)
//! SPOOL/drop/.ID    the same, being written where the file system has no unnamed files
//! ```
//!
//! The message is flushed, name and all, before anybody is told that it was taken. Whoever may
//! not open the folder flushes its file system instead.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::deliver::place::flush_entry;
use crate::spool::draft::Receipt;
use crate::spool::envelope::Envelope;
use crate::spool::format;
use crate::sys::disk::{Disk, DiskFile, Folder, Open, is_unsupported};

/// The folder's name in the spool.
pub(super) const FOLDER: &str = "drop";
/// What the name of a file begins with that is being written.
pub(super) const UNFINISHED: char = '.';
/// A file is its owner's alone, whatever the umask says: what its owner may not read the server takes
/// from nobody.
const MODE: u32 = 0o600;
/// The most octets of an envelope in `drop/`.
pub(super) const MAX_ENVELOPE: usize = 256 << 10;
/// The most recipients of a message that is left; one with more is left several times. With
/// all that can be asked about each of them they fit into an envelope of 256 KiB.
pub const MAX_RECIPIENTS: usize = 100;

/// The sender's end of `drop/`.
#[derive(Debug)]
pub struct DropBox {
    path: PathBuf,
    folder: Folder,
}

impl DropBox {
    /// The box of the spool in `path`.
    ///
    /// # Errors
    /// When there is none: the server makes it when it starts.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_on(path, &Disk::host())
    }

    fn open_on(path: &Path, disk: &Disk) -> io::Result<Self> {
        let path = path.join(FOLDER);
        Ok(Self { folder: disk.walk_to(&path)?, path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The octets that may still be left there.
    ///
    /// # Errors
    /// When the file system does not say, or takes nothing since it is read-only.
    pub fn free_octets(&self) -> io::Result<u64> {
        self.folder.free_octets()
    }

    /// Leaves a message whose lines end with CRLF. From here on it survives a crash.
    ///
    /// # Errors
    /// When it cannot be written or flushed. Nothing of it is left then.
    pub fn leave(&self, envelope: &Envelope, content: &[u8]) -> io::Result<Receipt> {
        let name = envelope.id.to_string();
        let octets = |file: &mut DiskFile| -> io::Result<()> {
            file.set_mode(MODE)?;
            file.write_all(format::envelope_text(envelope).as_bytes())?;
            file.write_all(content)?;
            file.write_all(format::end_line(content.len() as u64).as_bytes())
        };
        match self.folder.create_unnamed() {
            Ok(mut file) => {
                octets(&mut file)?;
                self.publish(&file, &name, || self.folder.link_unnamed(&file, &name))?;
            }
            Err(error) if is_unsupported(&error) => {
                let unfinished = format!("{UNFINISHED}{name}");
                let mut file = self.folder.open(&unfinished, Open::New)?;
                let rename = || self.folder.rename(&unfinished, &self.folder, &name);
                let left = octets(&mut file).and_then(|()| self.publish(&file, &name, rename));
                if left.is_err() {
                    let _ = self.folder.unlink(&unfinished);
                }
                left?;
            }
            Err(error) => return Err(error),
        }
        Ok(Receipt::of_dropped(envelope.id))
    }

    /// Takes a message back that was left, where the server has not taken it already.
    pub fn take_back(&self, receipt: Receipt) {
        let _ = self.folder.unlink(&receipt.id().to_string());
    }

    /// Gives a file its name when it lasts, and makes the name last, too. One commit of the journal
    /// does for both where that is written in order, as with a [`crate::spool::draft`].
    fn publish(
        &self,
        file: &DiskFile,
        name: &str,
        give_name: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let is_ordered = self.folder.orders_data_first()?;
        if is_ordered {
            file.push_out()?
        } else {
            file.flush_to_disk()?
        }
        give_name()?;
        let flushed = match is_ordered {
            true => file.flush_to_disk(),
            false => flush_entry(&self.folder, || file.flush_file_system()),
        };
        flushed.inspect_err(|_| {
            let _ = self.folder.unlink(name);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::envelope::Body;
    use crate::spool::id::QueueId;
    use crate::sys::disk::faults::{FailNth, each_fault};
    use std::io::Read;
    use std::sync::Arc;

    fn envelope() -> Envelope {
        Envelope {
            id: QueueId::generate(1_795_000_000_000_000, 0),
            received_at: 1_795_000_000,
            client: "uid 1000".to_owned(),
            reverse_path: "<ann@home.test>".parse().unwrap(),
            recipients: vec![
                "bob@home.test".parse::<crate::mail::address::Mailbox>().unwrap().into(),
            ],
            body: Body::SevenBit,
            request: Default::default(),
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Leaves a message on a disk that fails once; `false` when it did not.
    fn check(watcher: Arc<FailNth>, kinds: &mut Vec<String>) -> bool {
        let spool = tempfile::tempdir().unwrap();
        let path = spool.path().join(FOLDER);
        std::fs::create_dir(&path).unwrap();
        let (envelope, disk) = (envelope(), Disk::watched(watcher.clone()));
        let left = DropBox::open_on(spool.path(), &disk)
            .and_then(|dropbox| dropbox.leave(&envelope, b"Subject: x\r\n\r\n"));
        kinds.extend(watcher.failed());
        match &left {
            Ok(receipt) => {
                assert_eq!(names(&path), [receipt.id().to_string()]);
                let file = std::fs::File::open(path.join(receipt.id().to_string())).unwrap();
                let message = format::read_within(file.into(), MAX_ENVELOPE).unwrap();
                assert_eq!(*message.envelope(), envelope);
                let mut content = String::new();
                message.reader().read_to_string(&mut content).unwrap();
                assert_eq!(content, "Subject: x\r\n\r\n");
            }
            Err(_) => assert_eq!(names(&path), [""; 0]),
        }
        // What cannot be cleaned up is told by nobody.
        assert!(left.is_ok() || watcher.failed().is_some());
        left.is_ok() && watcher.failed().is_none()
    }

    #[test]
    fn what_is_left_is_whole_or_not_there_whatever_fails() {
        for (has_unnamed, is_ordered, expected) in [
            (true, true, ["Write", "PushOut", "LinkUnnamed", "FlushFile"]),
            (true, false, ["Write", "FlushFile", "LinkUnnamed", "FlushFolder"]),
            (false, true, ["Create", "PushOut", "Rename", "FlushFile"]),
            (false, false, ["Create", "FlushFile", "Rename", "FlushFolder"]),
        ] {
            let mut kinds = Vec::new();
            let disk = |n| FailNth::new(n).on(has_unnamed, is_ordered);
            each_fault(disk, |watcher| check(Arc::clone(watcher), &mut kinds));
            for kind in expected {
                assert!(kinds.iter().any(|failed| failed == kind), "{kind}: {kinds:?}");
            }
        }
    }

    #[test]
    fn without_a_folder_nothing_is_left() {
        let spool = tempfile::tempdir().unwrap();
        assert_eq!(DropBox::open(spool.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_largest_envelope_fits() {
        let mut envelope = envelope();
        let address = format!("{}@{}", "a".repeat(63), vec!["b".repeat(60); 3].join("."));
        let recipient = crate::spool::envelope::Recipient {
            mailbox: address.parse().unwrap(),
            request: crate::mail::dsn_request::RecipientRequest {
                notify: "SUCCESS,FAILURE,DELAY".parse().ok(),
                original: format!("rfc822;{}", "+2B".repeat(160)).parse().ok(),
            },
        };
        assert!(recipient.request.original.is_some());
        envelope.recipients = vec![recipient; MAX_RECIPIENTS];
        assert!(format::envelope_text(&envelope).len() < MAX_ENVELOPE);
    }
}
