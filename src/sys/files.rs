//! What is said of a file that cannot be had.

use std::io;
use std::path::Path;

/// The error with the path that it is about in front.
pub fn with_path(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
