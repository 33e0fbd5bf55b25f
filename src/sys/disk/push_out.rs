//! `sync_file_range`: writes a file's octets to its blocks and waits for that, without the
//! journal commit that a flush costs.

#![expect(unsafe_code, reason = "sync_file_range has no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The numbers by which these file systems name themselves (statfs(2)).
const EXT: u32 = 0xef53;
const XFS: u32 = 0x5846_5342;
const TMPFS: u32 = 0x0102_1994;

/// Whether a file system of this type writes a name that was given after a file's octets and
/// its length had gone out never before them.
///
/// On ext3, ext4 and XFS the length of a file enters the journal when its octets are in their
/// blocks, and the journal is written in order, behind a barrier: whoever finds the name after
/// a power cut finds the length too, and the octets. Memory has nothing to order. ext2 has
/// the number of ext4 and no journal; what a power cut leaves there is for fsck to decide,
/// in any order of calls.
pub(super) const fn orders_data_first(file_system: u32) -> bool {
    matches!(file_system, EXT | XFS | TMPFS)
}

/// Writes all octets of `file` to their blocks and waits for that. The device may hold them
/// in a cache of its own still.
///
/// # Errors
/// When the device refuses some; as after a failed flush the file is of no use then.
pub(super) fn push_out(file: &File) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // A length of 0 means up to the end.
    // SAFETY: the descriptor is open, and the rest are plain numbers.
    if unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // Not everything that runs Linux programs has the call.
        error if error.raw_os_error() == Some(libc::ENOSYS) => file.sync_data(),
        error => Err(error),
    }
}
