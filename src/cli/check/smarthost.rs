//! Looks at how mail goes to a smarthost: whether the certificates of its section could be used,
//! and whether the ports suit the encryption. Nobody is asked over the network.

use std::path::Path;

use super::findings::Findings;
use super::rights;
use crate::config::settings::{ClientTls, Settings, Smarthost};
use crate::deliver::tls::Connectors;

/// The port of TLS from the beginning (RFC 8314 §3.3), and those where it begins with STARTTLS.
const IMPLICIT_PORT: u16 = 465;
const STARTTLS_PORTS: [u16; 2] = [25, 587];

/// Looks at `[smarthost]`, which stands in the file `config`.
pub(in crate::cli) fn look(settings: &Settings, config: &Path, findings: &mut Findings) {
    let Some(smarthost) = &settings.smarthost else { return };
    look_at_ports(smarthost, config, findings);
    if let Some(ca) = &smarthost.ca {
        let section = &smarthost.section;
        if let Err(error) = Connectors::default().checked(Some(ca)) {
            note(findings, config, &error.in_section(section).to_string());
        } else if let Some(text) = rights::unreadable(ca, settings, "chmod o+r") {
            findings.mistake(ca, None, text);
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
