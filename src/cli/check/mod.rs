//! `mailwren check`: reads the configuration as the server would, looks at the files that it names
//! and at the host, and says what is wrong. With `--fix` it mends what can be mended safely, which
//! is who has a file and with which mode, and folders that are missing: no other server's file, no
//! process, no mail.

pub(super) mod aliases;
mod certificate;
mod clock;
pub(super) mod findings;
mod folders;
mod host;
mod leftovers;
mod names;
mod permissions;
pub(super) mod ports;
mod program;
pub(super) mod rewrite;
pub(super) mod rights;
mod root;
mod secret_files;
pub(super) mod secrets;
pub(super) mod smarthost;
mod space;
pub(super) mod users;

use super::Ran;
use super::invocation::{Argument, Invocation};
use super::output::{say, warn};
use crate::sys::process::exit;

use findings::Findings;
use host::Host;

/// The most rounds of mending: what is missing may have to be there before what is in it is seen.
const MAX_ROUNDS: usize = 3;

/// Looks at everything; 0 when it is right or there are only warnings, 78 when it is not.
pub(super) fn run(invocation: &mut Invocation) -> Ran {
    let mut is_to_fix = false;
    while let Some(argument) = invocation.next_argument()? {
        match argument {
            Argument::Flag("fix") => is_to_fix = true,
            argument => return Err(argument.unexpected()),
        }
    }
    let settings = match invocation.settings() {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    let config = invocation.config_path();
    if is_to_fix {
        mend(&Host::new(&settings, &config));
    }
    let host = Host::new(&settings, &config);
    let findings = look(&host);
    for finding in findings.iter() {
        match finding.is_note() {
            true => say(finding),
            false => warn(finding),
        }
    }
    if findings.has_mistake() {
        return Ok(exit::CONFIG);
    }
    say(format_args!("{}: no mistakes found", config.display()));
    Ok(exit::OK)
}

fn look(host: &Host<'_>) -> Findings {
    let (settings, config) = (host.settings, host.config);
    let asked = names::ask(settings);
    let mut findings = Findings::default();
    permissions::look(host, &mut findings);
    secrets::look(config, settings, &mut findings);
    users::look(settings, &mut findings);
    ports::look(host, &mut findings);
    program::look(host, &mut findings);
    certificate::look(host, &mut findings);
    smarthost::look(settings, config, &mut findings);
    rewrite::look(settings, config, &mut findings);
    asked.look(host, &mut findings);
    aliases::look(settings, &mut findings);
    root::look(settings, &mut findings);
    space::look(host, &mut findings);
    clock::look(&mut findings);
    leftovers::look(host, &mut findings);
    findings
}

/// Mends what has a remedy, and says what was done. What cannot be mended is found once more by the
/// look that follows.
fn mend(host: &Host<'_>) {
    let mut failed = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let mut findings = Findings::default();
        permissions::look(host, &mut findings);
        let mut is_done = true;
        for finding in findings.iter() {
            let Some(remedy) = finding.remedy().filter(|it| !failed.contains(&it.path)) else {
                continue;
            };
            match remedy.apply() {
                Ok(()) => {
                    is_done = false;
                    say(format_args!("mended: {}: {remedy}", remedy.path.display()));
                }
                Err(error) => {
                    let hint = if host.is_root { "" } else { "; try it as root" };
                    warn(format_args!(
                        "{}: cannot be mended: {error}{hint}",
                        remedy.path.display()
                    ));
                    failed.push(remedy.path.clone());
                }
            }
        }
        if is_done {
            return;
        }
    }
}
