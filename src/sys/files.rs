//! What is said of a file that cannot be had, and who may read it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The error with the path that it is about in front.
pub fn with_path(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Whether every account may read the file at `path`, as far as its own mode says.
///
/// # Errors
/// When it cannot be looked at.
pub fn is_for_everybody(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o004 != 0)
}
