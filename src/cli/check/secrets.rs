//! Looks at the password for the smarthost: whether there is one, and who may come by it on the way.
//! Who may read its file is looked at with the other secrets.

use std::path::Path;
use std::sync::Arc;

use super::findings::Findings;
use super::rights::is_for_root;
use crate::config::settings::{ClientTls, SecretSource, Settings};
use crate::deliver::login::Secret;
use crate::deliver::secret::MAX_FILE;
use crate::sys::files;
use crate::sys::watched::WatchedFile;

/// Looks at what the login of the smarthost needs, if it has one, in the settings of `config`. A
/// command is not run.
pub(in crate::cli) fn look(config: &Path, settings: &Settings, findings: &mut Findings) {
    let Some(smarthost) = &settings.smarthost else { return };
    let (Some(login), section) = (&smarthost.login, &smarthost.section) else { return };
    match &login.secret {
        SecretSource::Inline(_) if files::is_for_everybody(config).unwrap_or(false) => {
            let text = format!(
                "everybody on this host may read the password in [{section}]; put it into a file \
                 that only the server may read, and name that as password_file"
            );
            findings.warning(config, None, text);
        }
        SecretSource::File(path) => look_at(path, findings),
        SecretSource::Inline(_) | SecretSource::Command(_) => {}
    }
    if smarthost.tls == ClientTls::Opportunistic {
        let text = format!(
            "with `tls = opportunistic` in [{section}] the password goes to whoever answers, since \
             no certificate is looked at; give `tls = starttls`"
        );
        findings.warning(config, None, text);
    }
}

fn look_at(path: &Path, findings: &mut Findings) {
    let file = WatchedFile::new(path.to_owned(), MAX_FILE);
    let secret = match file.load(|octets, _| Arc::new(Secret::in_first_line(octets))) {
        Ok(secret) => secret,
        Err(error) if is_for_root(&error) => {
            let text = "you may not read it, so it is not checked; check as root";
            return findings.warning(path, None, text);
        }
        Err(error) => {
            let text = format!("the password cannot be read: {error}; mail waits until it can");
            return findings.mistake(path, None, text);
        }
    };
    match &*secret {
        Ok(secret) if secret.is_odd() => {
            let text = "the password begins or ends with a blank or another invisible character; \
                        see that it belongs to it";
            findings.warning(path, Some(1), text);
        }
        Ok(_) => {}
        Err(why) => findings.mistake(path, None, format!("it {why}; write the password there")),
    }
}
