//! `mailwren check`: reads the configuration as the server would, and the files that it names,
//! and says what is wrong.

mod certificate;
mod findings;
mod smarthost;
pub(super) mod users;

use std::path::Path;

use super::Invocation;
use super::output::{say, warn};
use crate::config::settings::Settings;
use crate::sys::disk::Disk;
use crate::sys::process::exit;
use crate::sys::users as accounts;

use findings::Findings;

/// Reads the configuration; 0 when it is right or there are only warnings, 78 when it is not.
pub(super) fn run(invocation: &mut Invocation) -> Result<u8, lexopt::Error> {
    invocation.no_more_arguments()?;
    let settings = match invocation.settings() {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    let mut findings = Findings::default();
    certificate::look(&settings, &mut findings);
    users::look(&settings, &mut findings);
    smarthost::look(&settings, &invocation.config_path(), &mut findings);
    for finding in findings.iter() {
        warn(finding);
    }
    if findings.has_mistake() {
        return Ok(exit::CONFIG);
    }
    say(format_args!("{}: no mistakes found", invocation.config_path().display()));
    Ok(exit::OK)
}

/// What is wrong with the rights of a file that the server cannot read once it has given up being
/// root, and the command that mends them. Only root can tell as whom the server will run.
fn unreadable_for_server(settings: &Settings, path: &Path, mend: &str) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let account = accounts::by_name(&settings.server.user).ok()??;
    let groups = accounts::groups_of(&account).ok()?;
    let status = Disk::host().look_at(path).ok()?;
    if status.is_readable_for(account.uid, &groups) {
        return None;
    }
    Some(format!(
        "the server runs as {:?}, which may not read it; run: {mend} {}",
        account.name,
        path.display()
    ))
}
