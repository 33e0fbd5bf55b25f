//! `mailwren check`: reads the configuration as the server would, and says what is wrong.

use super::Invocation;
use super::output::say;
use crate::sys::process::exit;

/// Reads the configuration; 0 when it is right, 78 when it is not.
pub(super) fn run(invocation: &mut Invocation) -> Result<u8, lexopt::Error> {
    invocation.no_more_arguments()?;
    Ok(match invocation.settings() {
        Ok(_) => {
            say(format_args!("{}: no mistakes found", invocation.config_path().display()));
            exit::OK
        }
        Err(code) => code,
    })
}
