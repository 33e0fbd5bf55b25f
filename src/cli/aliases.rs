//! `mailwren aliases`, `newaliases` and `sendmail -bi`: what is wrong in the alias files. There is
//! nothing to build: the server reads them when they have changed.

use super::Ran;
use super::check::aliases;
use super::check::findings::Findings;
use super::invocation::Invocation;
use super::output::{say, warn};
use crate::sys::process::exit;

/// Reads the alias files; 0 when they are right or there are only warnings, 78 when they are not.
pub(super) fn run(invocation: &mut Invocation) -> Ran {
    invocation.no_more_arguments()?;
    Ok(newaliases(invocation))
}

/// The same whatever else stands on the command line: what other programs are told here, such as
/// where to build their tables, means nothing.
pub(super) fn newaliases(invocation: &Invocation) -> u8 {
    let settings = match invocation.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let mut findings = Findings::default();
    let count = aliases::look(&settings, &mut findings);
    for finding in findings.iter() {
        warn(finding);
    }
    if findings.has_mistake() {
        return exit::CONFIG;
    }
    let aliases = if count == 1 { "1 alias".to_owned() } else { format!("{count} aliases") };
    say(format_args!("{aliases}, no mistakes found"));
    exit::OK
}
