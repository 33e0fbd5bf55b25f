//! Looks at what the section of a smarthost names: whether the certificates and the password
//! could be used, who else may read the password, and whether the ports suit the encryption.
//! Nobody is asked over the network, and no command is run.

use std::path::Path;
use std::time::Duration;

use super::findings::Findings;
use super::unreadable_for_server;
use crate::config::settings::{ClientTls, SecretSource, Settings, Smarthost};
use crate::deliver::secret::Keeper;
use crate::deliver::tls::Connectors;
use crate::sys::files;

/// The port of TLS from the beginning (RFC 8314 §3.3), and those where it begins with STARTTLS.
const IMPLICIT_PORT: u16 = 465;
const STARTTLS_PORTS: [u16; 2] = [25, 587];

/// Looks at `[smarthost]`, which stands in the file `config`.
pub(super) fn look(settings: &Settings, config: &Path, findings: &mut Findings) {
    let Some(smarthost) = &settings.smarthost else { return };
    look_at_ports(smarthost, config, findings);
    if let Some(ca) = &smarthost.ca {
        let section = &smarthost.section;
        if let Err(error) = Connectors::default().checked(Some(ca)) {
            note(findings, config, &error.in_section(section).to_string());
        } else if let Some(text) = unreadable_for_server(settings, ca, "chmod o+r") {
            findings.mistake(ca, None, text);
        }
    }
    let secret = smarthost.login.as_ref().map(|login| &login.secret);
    if let Some(source @ SecretSource::File(path)) = secret {
        let mend = format!("chown {}", settings.server.user);
        if let Err(error) = Keeper::new(&smarthost.section, source, Duration::ZERO).secret(None) {
            note(findings, config, &error.to_string());
        } else if let Some(text) = unreadable_for_server(settings, path, &mend) {
            findings.mistake(path, None, text);
        }
        if files::is_for_everybody(path).unwrap_or(false) {
            let text =
                "everybody on this host may read the password; take that away with chmod o-r";
            findings.warning(path, None, text);
        }
    }
}

fn look_at_ports(smarthost: &Smarthost, config: &Path, findings: &mut Findings) {
    let section = &smarthost.section;
    for host in &smarthost.hosts {
        let other = match smarthost.tls {
            ClientTls::StartTls | ClientTls::Opportunistic if host.port == IMPLICIT_PORT => {
                "implicit"
            }
            ClientTls::Implicit if STARTTLS_PORTS.contains(&host.port) => "starttls",
            _ => continue,
        };
        let text = format!(
            "[{section}] port {} of {} is as a rule for `tls = {other}`; see that both are right",
            host.port, host.host
        );
        findings.warning(config, None, text);
    }
}

/// A file that cannot be used; where that is for want of rights, root may have them.
fn note(findings: &mut Findings, config: &Path, text: &str) {
    match text.contains("Permission denied") && !rustix::process::geteuid().is_root() {
        true => findings.warning(config, None, format!("{text}; or check as root")),
        false => findings.mistake(config, None, text),
    }
}
