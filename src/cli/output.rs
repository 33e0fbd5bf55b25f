//! Where a command's words go. A reader that is gone is no reason to fail.

use std::fmt::Display;
use std::io::Write;

/// Writes a line to standard output.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Writes lines to standard error, for what went wrong.
pub(crate) fn warn(lines: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{lines}");
}
