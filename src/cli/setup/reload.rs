//! Telling a server that runs to read its configuration again.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli::check::ports;
use crate::config::settings::Settings;
use crate::sys::running::Running;

/// There while systemd is the first process (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";
const UNIT: &str = "mailwren";

/// Tells it, where systemd knows it; what was done, or is left to do.
pub(super) fn tell(settings: &Settings) -> &'static str {
    if Path::new(SYSTEMD).exists() {
        return match (systemctl(&["is-active", "--quiet", UNIT]), systemctl(&["reload", UNIT])) {
            (true, true) => "the server was told: it uses the new configuration from now on",
            (true, false) => {
                "the server does not take the new configuration: see systemctl status mailwren, then \
                 systemctl restart mailwren"
            }
            _ if !systemctl(&["cat", UNIT]) => {
                "the server does not run, and systemd has no unit mailwren: install that, or start \
                 mailwren serve as you like"
            }
            _ => "the server does not run: systemctl enable --now mailwren starts it",
        };
    }
    let state = &settings.server.state;
    match Running::look(state).map(|found| found.map(|server| server.reload())) {
        Ok(Some(Ok(()))) => "the server was told to read its configuration again; its log says so",
        Ok(None) => "the server does not run: start it, and it uses this configuration",
        Ok(Some(Err(_))) | Err(_) => {
            "if the server runs, it does so with the old configuration: send it SIGHUP"
        }
    }
}

/// What else listens where the server is to, so that it will not start.
pub(super) fn hindrance(settings: &Settings) -> Option<String> {
    let is_running = || Running::look(&settings.server.state).is_ok_and(|found| found.is_some());
    let address = ports::first_taken(settings).filter(|_| !is_running())?;
    Some(format!(
        "something else listens on port {} of {}, so it cannot start: mailwren check says what, and \
         how to stop it",
        address.port(),
        address.ip()
    ))
}

/// Whether it went well.
fn systemctl(arguments: &[&str]) -> bool {
    let mut command = Command::new("systemctl");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
