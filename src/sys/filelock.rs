//! `fcntl` locks on whole files, as mail readers take them, and who has locks of the other kind,
//! flock(2).
//!
//! The former are the locks of the open file description: they exclude the classic ones of other
//! programs and the ones of our own threads alike, and do not vanish when another thread
//! closes the same file.

#![expect(unsafe_code, reason = "F_OFD_SETLK has no safe wrapper")]

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Takes an exclusive lock on the whole of `file`, which must be open for writing, without
/// waiting. `false` when somebody else has one. It ends when the file is closed.
///
/// # Errors
/// When the file system knows no locks.
pub fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: an all-zero flock64 is a valid one.
    let mut lock: libc::flock64 = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open, and `lock` lives until the call returns.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES | libc::EINTR) => Ok(false),
        _ => Err(error),
    }
}

/// Whether a lock ends that this process has given up, within `patience`. A child that another
/// test is just starting has this process' files open, and so their locks, until it runs its
/// program.
#[cfg(test)]
pub(crate) fn ends_within(patience: std::time::Duration, is_held: impl Fn() -> bool) -> bool {
    let deadline = std::time::Instant::now() + patience;
    while is_held() {
        if std::time::Instant::now() >= deadline {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// The inode numbers of all files that have a lock of flock(2), as the system tells them; none
/// where it does not. Files of different file systems may share a number.
pub fn locked_inodes() -> HashSet<u64> {
    inodes_in(&std::fs::read_to_string("/proc/locks").unwrap_or_default())
}

/// Reads lines such as `1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF`.
fn inodes_in(locks: &str) -> HashSet<u64> {
    let inode = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let is_lock = words.next()? == "FLOCK";
        let inode = words.nth(3)?.rsplit(':').next()?.parse().ok()?;
        is_lock.then_some(inode)
    };
    locks.lines().filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_locks_that_are_held_count() {
        let locks = "\
1: POSIX  ADVISORY  WRITE 11 08:01:100 0 EOF
2: FLOCK  ADVISORY  WRITE 12 08:01:200 0 EOF
2: -> FLOCK  ADVISORY  WRITE 13 08:01:201 0 EOF
3: OFDLCK ADVISORY  WRITE -1 00:2b:300 0 EOF
4: FLOCK  ADVISORY  READ  14 00:2b:400 0 EOF
5: FLOCK
";
        assert_eq!(inodes_in(locks), HashSet::from([200, 400]));
    }
}
