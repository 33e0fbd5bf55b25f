//! What an error of the file system means for a delivery. It never bounces mail: a person can
//! mend each of them, and the message waits until then.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::deliver::outcome::Failure;
use crate::mail::status::Status;
use crate::mail::text::{MAX_REMARK, one_line};

/// Something about the mailbox itself keeps mail out (RFC 3463 §3.3).
pub const MAILBOX_UNUSABLE: Status = Status::new(4, 2, 0);
/// The mailbox owner's share of the disk is used up, or the quota of the mailbox.
pub const MAILBOX_FULL: Status = Status::new(4, 2, 2);
/// Something about this host (RFC 3463 §3.4).
const SYSTEM: Status = Status::new(4, 3, 0);
/// The disk is full.
const SYSTEM_FULL: Status = Status::new(4, 3, 1);

/// The failure that an error means, met when trying to `act` on the file at `path`.
pub fn failure(error: &io::Error, act: &str, path: &Path) -> Failure {
    let (status, remedy) = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC) => (SYSTEM_FULL, "make room on the disk"),
        Some(Errno::DQUOT) => (MAILBOX_FULL, "make room in the mailbox or raise the quota"),
        Some(Errno::FBIG) => (MAILBOX_FULL, "move mail out of the mailbox"),
        Some(Errno::ACCESS | Errno::PERM) => (
            MAILBOX_UNUSABLE,
            "see that its owner may write there and pass through the folders above",
        ),
        Some(Errno::LOOP | Errno::MLINK) => {
            (MAILBOX_UNUSABLE, "it is a link: put a real one there")
        }
        Some(Errno::NOTDIR) => (MAILBOX_UNUSABLE, "a link or a file stands where a folder should"),
        Some(Errno::ISDIR) => (MAILBOX_UNUSABLE, "a folder stands there: move it away"),
        Some(Errno::NOENT) => (SYSTEM, "mount the disk, or make the folder"),
        // To a service of systemd most folders are such (systemd/mailwren.service).
        Some(Errno::ROFS) => (
            SYSTEM,
            "make the file system writable, or name the folder in ReadWritePaths= by systemctl edit \
             mailwren",
        ),
        Some(Errno::IO) => (SYSTEM, "look after the disk"),
        _ => (SYSTEM, "see the log of the system"),
    };
    let text = format!("cannot {act} {}: {error}; {remedy}", printable(path));
    Failure::new(status, text)
}

/// The message could not be read where it is kept.
pub fn spool_failure(error: &io::Error) -> Failure {
    Failure::new(SYSTEM, format!("cannot read the message from the spool: {error}"))
}

/// A path that is fit for a log line.
pub fn printable(path: &Path) -> String {
    one_line(&path.to_string_lossy(), MAX_REMARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_bounces_mail_and_each_names_the_file() {
        for number in 1..140 {
            let error = io::Error::from_raw_os_error(number);
            let failure = failure(&error, "write", Path::new("/x/\ny"));
            assert!(failure.status.is_temporary());
            assert!(failure.text.starts_with("cannot write /x/?y: "), "{}", failure.text);
        }
        let full = failure(&io::Error::from_raw_os_error(28), "write", Path::new("/x"));
        assert_eq!(full.status, SYSTEM_FULL);
    }
}
