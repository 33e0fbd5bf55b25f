//! `mailwren check`: reads the configuration as the server would, and the files that it names,
//! and says what is wrong.

pub(super) mod aliases;
mod certificate;
pub(super) mod findings;
pub(super) mod rewrite;
pub(super) mod rights;
mod root;
pub(super) mod secrets;
pub(super) mod smarthost;
pub(super) mod users;

use super::Ran;
use super::invocation::Invocation;
use super::output::{say, warn};
use crate::sys::process::exit;

use findings::Findings;

/// Reads the configuration; 0 when it is right or there are only warnings, 78 when it is not.
pub(super) fn run(invocation: &mut Invocation) -> Ran {
    invocation.no_more_arguments()?;
    let settings = match invocation.settings() {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    let mut findings = Findings::default();
    certificate::look(&settings, &mut findings);
    users::look(&settings, &mut findings);
    aliases::look(&settings, &mut findings);
    root::look(&settings, &mut findings);
    smarthost::look(&settings, &invocation.config_path(), &mut findings);
    rewrite::look(&settings, &invocation.config_path(), &mut findings);
    secrets::look(&invocation.config_path(), &settings, &mut findings);
    for finding in findings.iter() {
        warn(finding);
    }
    if findings.has_mistake() {
        return Ok(exit::CONFIG);
    }
    say(format_args!("{}: no mistakes found", invocation.config_path().display()));
    Ok(exit::OK)
}
