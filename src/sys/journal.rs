//! Whether standard error ends in the journal of systemd.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

/// What systemd tells a service whose output it has connected to the journal: the device and the
/// inode of that socket, as `DEVICE:INODE` (systemd.exec(5)).
const VARIABLE: &str = "JOURNAL_STREAM";

/// Whether standard error is the stream that systemd says goes to the journal. The variable alone
/// says nothing: whoever redirects the output of a service leaves it as it was.
pub fn takes_standard_error() -> bool {
    let Some(stream) = std::env::var_os(VARIABLE) else { return false };
    rustix::fs::fstat(std::io::stderr().as_fd())
        .is_ok_and(|found| is_stream(&stream, found.st_dev, found.st_ino))
}

fn is_stream(stream: &OsStr, device: u64, inode: u64) -> bool {
    stream.as_bytes() == format!("{device}:{inode}").as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_and_the_inode_both_count() {
        for (stream, is) in [
            ("8:12345", true),
            ("8:1234", false),
            ("8:123456", false),
            ("9:12345", false),
            ("12345", false),
            ("", false),
            ("8:12345:1", false),
        ] {
            assert_eq!(is_stream(OsStr::new(stream), 8, 12345), is, "{stream}");
        }
    }
}
