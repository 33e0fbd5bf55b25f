//! Looks at the accounts that people log in to: which lines mean nothing, and whether anybody can
//! log in where somebody has to.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::findings::Findings;
use super::rights::{self, is_for_root};
use crate::config::settings::{AuthRule, Settings};
use crate::receive::logins::users_file::{MAX_OCTETS, UsersFile};
use crate::sys::disk::Disk;
use crate::sys::watched::WatchedFile;

/// Looks at the users file, or for Dovecot's socket, where any listener lets people log in.
pub(in crate::cli) fn look(settings: &Settings, findings: &mut Findings) {
    if settings.listeners.iter().all(|listener| listener.auth == AuthRule::None) {
        return;
    }
    if let Some(socket) = &settings.auth.dovecot {
        if let Err(error) = Disk::host().look_at(socket) {
            findings.warning(socket, None, format!("Dovecot is not there: {error}; start it"));
        }
        return;
    }
    let path = &settings.auth.users;
    let file = WatchedFile::secret(path.clone(), MAX_OCTETS);
    match file.load(|octets, _| Arc::new(UsersFile::parse(octets))) {
        Ok(file) => look_at(&file, settings, findings),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            findings.warning(path, None, format!("there is no such file, so {}", nobody(settings)));
        }
        Err(error) if is_for_root(&error) => {
            let text = "you may not read it, so it is not checked; check as root";
            findings.warning(path, None, text);
        }
        // Who may read and write it was told with the other secrets.
        Err(_) if findings.has_mistake_in(path) => {}
        Err(error) => findings.mistake(path, None, error.to_string()),
    }
}

fn look_at(file: &UsersFile, settings: &Settings, findings: &mut Findings) {
    let path: &Path = &settings.auth.users;
    for bad in file.bad_lines() {
        findings.mistake(path, Some(bad.line), bad.text.as_str());
    }
    let mechanisms = &settings.auth.mechanisms;
    if !mechanisms.iter().any(|mechanism| file.allows(*mechanism)) {
        findings.warning(
            path,
            None,
            format!("no account can be used with [auth] mechanisms, so {}", nobody(settings)),
        );
    }
    let mut locked_out: Vec<_> = file
        .accounts()
        .filter(|account| !account.is_locked)
        .filter(|account| !mechanisms.iter().any(|mechanism| account.allows(*mechanism)))
        .collect();
    locked_out.sort_unstable_by_key(|account| account.line);
    for account in locked_out {
        let text = format!(
            "{:?} has nothing that [auth] mechanisms could check; run `mailwren passwd {0}`",
            account.name
        );
        findings.warning(path, Some(account.line), text);
    }
}

/// What is wrong with the rights of the users file, if anything is.
pub(in crate::cli) fn unreadable(settings: &Settings) -> Option<String> {
    let mend = format!("chown {}", settings.server.user);
    rights::unreadable(&settings.auth.users, settings, &mend)
}

/// What it means that there are no accounts.
fn nobody(settings: &Settings) -> String {
    let names: Vec<_> = settings
        .listeners
        .iter()
        .filter(|listener| listener.auth == AuthRule::Required)
        .map(|listener| format!("[listen.{}]", listener.name))
        .collect();
    match names.is_empty() {
        true => "nobody can log in; run `mailwren passwd NAME`".to_owned(),
        false => format!("nobody can use {}; run `mailwren passwd NAME`", names.join(" and ")),
    }
}
