//! mbox: one file, its messages separated by From_ lines (RFC 4155), shared with mail readers
//! by way of [locks](super::mbox_lock). A message that could not be written whole is
//! cut off again.
//!
//! The order is: append, flush the file; where the file was empty, flush its folder. The
//! message stays in the spool until all of that is done, so that a crash
//!
//! - before the file is flushed leaves the mbox as it was, or with a part of the message at its
//!   end. Nobody cuts that part off, since by then a reader may have moved what is in the file.
//!   The next delivery, most often of the same message, ends its last line and puts the empty
//!   line before its own From_ line. So a reader sees the part as a message of its own that
//!   breaks off; cut in the middle of its From_ line it is text at the end of the message
//!   before. What comes after it is whole.
//! - before the folder is flushed leaves the same or no file.
//! - later, but before the spool knows, leaves the whole message, which will come once more.

use std::io::{self, Read};
use std::path::Path;

use crate::deliver::lines::{self, CopyError};
use crate::deliver::mbox_lock::{Locked, Locking};
use crate::deliver::outcome::Failure;
use crate::deliver::place::{Target, flush_entry};
use crate::deliver::storage::{failure, printable, spool_failure};
use crate::sys::disk::{Folder, is_unsupported};

/// Appends one message to the mbox at `target`, locked as `locking` says: `head`, which begins
/// with the From_ line, in lines that end with LF; then the content.
///
/// # Errors
/// A temporary failure; the file is as it was then.
pub fn deliver(
    target: &Target<'_>,
    locking: &Locking<'_>,
    head: Vec<u8>,
    content: &mut dyn Read,
) -> Result<(), Failure> {
    let path = target.place.path();
    let turn = locking.wait_for_turn(&path)?;
    let folder = target.place.open_parent(target.disk)?;
    let locked = turn.lock(&folder, target)?;
    Append { locked, path: &path }.run(&folder, head, content)
}

/// A message that is being appended.
struct Append<'a> {
    locked: Locked<'a>,
    path: &'a Path,
}

impl Append<'_> {
    fn run(
        mut self,
        folder: &Folder,
        head: Vec<u8>,
        content: &mut dyn Read,
    ) -> Result<(), Failure> {
        let path = self.path;
        let result = self.write(head, content).and_then(|()| {
            // A file without a message is new, or was made by a delivery that then failed: in
            // either case its name may never have been flushed.
            if self.locked.before.size_octets() == 0 {
                let flush = flush_entry(folder, || self.locked.file.flush_file_system());
                flush.map_err(|error| failure(&error, "create the mbox", path))?;
            }
            Ok(())
        });
        if result.is_err() {
            self.cut_off();
        }
        result
    }

    fn write(&mut self, head: Vec<u8>, content: &mut dyn Read) -> Result<(), Failure> {
        let path = self.path;
        let write_failure = |error: &io::Error| failure(error, "write to the mbox", path);
        let mut text = self.missing_separator().map_err(|error| write_failure(&error))?.to_vec();
        text.extend(head);
        lines::copy_quoted(text, content, &mut self.locked.file).map_err(|error| match error {
            CopyError::Read(error) => spool_failure(&error),
            CopyError::Write(error) => write_failure(&error),
        })?;
        let noted = self.leave_unread().and_then(|()| self.locked.file.flush_to_disk());
        noted.map_err(|error| write_failure(&error))
    }

    /// Sees that the file was last read before it was changed, in whole seconds: by that shells,
    /// login and mail readers know of new mail. That we have looked at its end does not count.
    fn leave_unread(&self) -> io::Result<()> {
        let Locked { file, before, .. } = &self.locked;
        let changed = file.status()?.modified_seconds();
        match file.set_times(before.accessed_seconds().min(changed.saturating_sub(1)), None) {
            // Of a file that we may write and that is another's, and on file systems that are no
            // more than that to the kernel (FUSE), nobody else keeps the times.
            Err(error) if is_others_task(&error) => Ok(()),
            result => result,
        }
    }

    /// What the file lacks of the empty line that a From_ line must follow (RFC 4155
    /// appendix A): another program may have left it off, or been cut short, as a delivery of
    /// ours by a crash.
    fn missing_separator(&self) -> io::Result<&'static [u8]> {
        let mut end = [b'\n'; 2];
        let known = usize::try_from(self.locked.before.size_octets()).unwrap_or(2).min(2);
        let start = self.locked.before.size_octets() - known as u64;
        self.locked.file.read_exact_at(&mut end[2 - known..], start)?;
        Ok(match end {
            [b'\n', b'\n'] => b"",
            [_, b'\n'] => b"\n",
            _ => b"\n\n",
        })
    }

    /// Brings the file back to the size that it had, and to the times: nothing has come.
    fn cut_off(&self) {
        let Locked { file, before, .. } = &self.locked;
        let size_octets = before.size_octets();
        let cut = file.truncate(size_octets).and_then(|()| file.flush_to_disk());
        if let Err(error) = cut {
            let path = printable(self.path);
            log::error!("cannot cut off half a message from {path} at {size_octets}: {error}");
        }
        // Where that fails, at worst somebody looks for new mail in vain.
        let _ = file.set_times(before.accessed_seconds(), Some(before.modified_seconds()));
    }
}

/// Whether an error says that it is not for us to note times, and not that the disk is sick.
fn is_others_task(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)
        || is_unsupported(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::MboxLock;
    use crate::deliver::place::Place;
    use crate::deliver::storage::MAILBOX_UNUSABLE;
    use crate::sys::disk::faults::{FailNth, each_fault};
    use crate::sys::disk::{Disk, Kind, Operation, Verdict, Watcher};
    use rustix::io::Errno;
    use std::fs::{self, FileTimes};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    const BOTH: [MboxLock; 2] = [MboxLock::DotLock, MboxLock::Fcntl];
    const PATIENCE: Duration = Duration::from_secs(30);
    const NO_PATIENCE: Duration = Duration::from_millis(5);

    /// A content that can be read so many times, and then no more.
    struct Broken(usize);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("broken"))?;
            buffer.fill(b'x');
            Ok(buffer.len())
        }
    }

    /// A file system that keeps no times for us, and says so by this.
    #[derive(Debug)]
    struct Timeless(Errno);

    impl Watcher for Timeless {
        fn before(&self, operation: &Operation<'_>) -> Verdict {
            match operation.kind {
                Kind::SetTimes => Verdict::Fail(self.0.into()),
                _ => Verdict::GoOn,
            }
        }
    }

    struct Spool(tempfile::TempDir);

    impl Spool {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("ann")
        }

        fn place(&self) -> Place {
            let base = self.0.path().to_owned();
            Place { base, folders: Vec::new(), name: "ann".to_owned(), is_in_home: false }
        }

        fn deliver(&self, patience: Duration, text: &str) -> Result<(), Failure> {
            self.deliver_on(&Disk::host(), patience, &mut text.as_bytes())
        }

        fn deliver_on(
            &self,
            disk: &Disk,
            patience: Duration,
            content: &mut dyn Read,
        ) -> Result<(), Failure> {
            let place = self.place();
            let target = Target { disk, place: &place, owner: None };
            let locking = Locking { order: &BOTH, patience };
            deliver(&target, &locking, b"From x\n".to_vec(), content)
        }

        fn text(&self) -> String {
            fs::read_to_string(self.path()).unwrap()
        }
    }

    #[test]
    fn messages_are_separated_whatever_was_there() {
        for (before, separator) in
            [("", ""), ("\n", ""), ("a", "\n\n"), ("a\n", "\n"), ("a\n\n", ""), ("a\n\n\n", "")]
        {
            let spool = Spool::new();
            fs::write(spool.path(), before).unwrap();
            spool.deliver(PATIENCE, "A: b\r\n\r\nFrom c\r\nd").unwrap();
            let expected = format!("{before}{separator}From x\nA: b\n\n>From c\nd\n\n");
            assert_eq!(spool.text(), expected);
        }
    }

    #[test]
    fn a_new_mbox_is_private_and_no_lock_stays() {
        let spool = Spool::new();
        spool.deliver(PATIENCE, "a").unwrap();
        spool.deliver(PATIENCE, "").unwrap();
        assert_eq!(spool.text(), "From x\na\n\nFrom x\n\n");
        assert_eq!(fs::metadata(spool.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(spool.0.path()).unwrap().count(), 1);
    }

    #[test]
    fn new_mail_is_newer_than_the_last_look_at_it_and_none_is_not() {
        let spool = Spool::new();
        let times = || {
            let file = fs::metadata(spool.path()).unwrap();
            (file.atime(), file.mtime())
        };
        for _ in 0..2 {
            spool.deliver(PATIENCE, "a").unwrap();
            let (read, changed) = times();
            assert!(read < changed, "{read} is not before {changed}");
        }
        // Somebody has read it, just now and long ago.
        for ago in [0, 1000] {
            let file = fs::File::open(spool.path()).unwrap();
            let then = SystemTime::now() - Duration::from_secs(ago);
            file.set_times(FileTimes::new().set_accessed(then).set_modified(then)).unwrap();
            let before = times();
            spool.deliver_on(&Disk::host(), PATIENCE, &mut Broken(5)).unwrap_err();
            assert_eq!(times(), before, "it shows what was cut off again");
            spool.deliver(PATIENCE, "b").unwrap();
            let (read, changed) = times();
            let expected = if ago == 0 { changed - 1 } else { before.0 };
            assert!(read <= expected && read >= before.0 - 1, "{read}, {changed}, {before:?}");
        }
    }

    #[test]
    fn mail_does_not_wait_for_a_file_system_that_keeps_no_times() {
        for errno in [Errno::PERM, Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL] {
            let spool = Spool::new();
            let disk = Disk::watched(Arc::new(Timeless(errno)));
            spool.deliver_on(&disk, PATIENCE, &mut &b"a"[..]).unwrap();
            assert_eq!(spool.text(), "From x\na\n\n", "{errno}");
        }
    }

    #[test]
    fn what_is_no_plain_file_is_refused() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        type Plant<'a> = &'a dyn Fn(&Path);
        let plants: [(&str, Plant<'_>); 5] = [
            ("link", &|path| symlink(secret.path(), path).unwrap()),
            ("link", &|path| symlink("/nowhere", path).unwrap()),
            ("2 names", &|path| fs::hard_link(secret.path(), path).unwrap()),
            ("no regular file", &|path| {
                rustix::fs::mkfifoat(rustix::fs::CWD, path, 0o600.into()).unwrap();
            }),
            ("folder", &|path| fs::create_dir(path).unwrap()),
        ];
        for (reason, plant) in plants {
            let spool = Spool::new();
            plant(&spool.path());
            let failure = spool.deliver(NO_PATIENCE, "a").unwrap_err();
            assert_eq!(failure.status, MAILBOX_UNUSABLE, "{}", failure.text);
            assert!(failure.text.contains(reason), "{}", failure.text);
            assert_eq!(fs::read_dir(spool.0.path()).unwrap().count(), 1);
        }
        assert_eq!(fs::metadata(secret.path()).unwrap().len(), 0);
    }

    #[test]
    fn threads_take_turns() {
        let spool = Spool::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        spool.deliver(PATIENCE, "abc\r\n").unwrap();
                    }
                });
            }
        });
        assert_eq!(spool.text(), "From x\nabc\n\n".repeat(40));
    }

    #[test]
    fn half_a_message_is_cut_off_again() {
        let spool = Spool::new();
        fs::write(spool.path(), "before\n").unwrap();
        let failure = spool.deliver_on(&Disk::host(), PATIENCE, &mut Broken(5)).unwrap_err();
        assert!(failure.text.contains("spool"), "{}", failure.text);
        assert_eq!(spool.text(), "before\n");
    }

    #[test]
    fn a_disk_that_fails_anywhere_leaves_the_whole_message_or_nothing() {
        let text = "a\r\n".repeat(50_000);
        let whole = format!("From x\n{}\n", "a\n".repeat(50_000));
        for (before, tear_at) in [(None, 0), (None, 100), (Some("before\n\n"), 0)] {
            let before_text = before.unwrap_or_default();
            each_fault(
                |n| FailNth::tearing(n, tear_at),
                |watcher| {
                    let spool = Spool::new();
                    if let Some(before) = before {
                        fs::write(spool.path(), before).unwrap();
                    }
                    let disk = Disk::watched(watcher.clone());
                    let done = spool.deliver_on(&disk, PATIENCE, &mut text.as_bytes());
                    let there = fs::read_to_string(spool.path()).unwrap_or_default();
                    let added = if done.is_ok() { whole.as_str() } else { "" };
                    assert!(there == format!("{before_text}{added}"), "{watcher:?}");
                    // Its own lock it may fail to find or to remove; that is seen to next time.
                    let has_lock = spool.path().with_extension("lock").exists();
                    let may_stay = matches!(watcher.failed().as_deref(), Some("Look" | "Unlink"));
                    assert!(!has_lock || may_stay, "{watcher:?}");
                    spool.deliver(PATIENCE, "b").unwrap();
                    done.is_ok()
                },
            );
        }
    }

    #[test]
    fn what_a_crash_left_does_not_take_in_the_next_message() {
        let whole = "From x\nA: b\n\nc\n\n";
        for end in 0..=whole.len() {
            let spool = Spool::new();
            fs::write(spool.path(), format!("{whole}{}", &whole[..end])).unwrap();
            spool.deliver(PATIENCE, "A: b\r\n\r\nc\r\n").unwrap();
            let text = spool.text();
            assert!(text.ends_with(&format!("\n\n{whole}")), "{end}: {text:?}");
            assert!(text.starts_with(&format!("{whole}{}", &whole[..end])), "{end}: {text:?}");
        }
    }
}
