//! `fcntl` locks on whole files, as mail readers take them.
//!
//! These are the locks of the open file description: they exclude the classic ones of other
//! programs and the ones of our own threads alike, and do not vanish when another thread
//! closes the same file.

#![expect(unsafe_code, reason = "F_OFD_SETLK has no safe wrapper")]

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
