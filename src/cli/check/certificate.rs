//! Looks at the certificate that listeners show: whether the server could use it, for whom it is
//! and how long.

use super::findings::Findings;
use super::host::Host;
use super::rights::is_for_root;
use crate::config::settings::{ListenerTls, Settings};
use crate::receive::tls::certificate::{Certificate, Part};
use crate::receive::tls::files::{Files, Unreadable};
use crate::receive::tls::{EXPIRES_SOON_SECONDS, date};
use crate::sys::clock;
use crate::sys::identity::Identity;
use crate::sys::running::Running;

/// Looks at the files of `[tls]`, where any listener has TLS and the server does not make its
/// own certificate.
pub(super) fn look(host: &Host<'_>, findings: &mut Findings) {
    let settings = host.settings;
    let files = Files::new(settings.tls.certificate.clone(), settings.tls.key.clone());
    let is_used = settings.listeners.iter().any(|listener| listener.tls != ListenerTls::None);
    if !is_used || (!settings.tls.is_configured && files.are_missing()) {
        return;
    }
    let octets = match files.load() {
        Ok(octets) => octets,
        Err(unreadable) if is_for_root(&unreadable.error) => {
            return findings.warning(
                &unreadable.path,
                None,
                "you may not read it, so it is not checked; check as root",
            );
        }
        Err(unreadable) => {
            return findings.mistake(&unreadable.path, None, unreadable.text());
        }
    };
    if let Some(unreadable) = unreadable_for_server(host, &files) {
        let text = format!("the server that runs cannot read it: {}", unreadable.text());
        findings.mistake(&unreadable.path, None, text);
    }
    match octets.parse() {
        Ok(certificate) => look_at(settings, &files, &certificate, findings),
        Err(unusable) => findings.mistake(files.path(unusable.part), None, unusable.text),
    }
}

/// What a server that runs may not read, since it was started without the right to read it as root.
fn unreadable_for_server(host: &Host<'_>, files: &Files) -> Option<Unreadable> {
    let account = host.owner().filter(|account| account.uid != 0)?;
    let server = Running::look(&host.settings.server.state).ok()??;
    if server.may_read_as_root()? {
        return None;
    }
    let files = [Part::Certificate, Part::Key].map(|part| files.path(part).to_owned());
    let [certificate, key] = files;
    let identity = Identity::of(account).ok()?;
    let _guard = identity.assume().ok()?;
    Files::of_server(certificate, key).load().err()
}

fn look_at(settings: &Settings, files: &Files, certificate: &Certificate, findings: &mut Findings) {
    let file = files.path(Part::Certificate);
    let now = i64::try_from(clock::since_1970().as_secs()).unwrap_or(i64::MAX);
    match certificate.validity() {
        None => findings.mistake(file, None, "its dates cannot be read; get a new one"),
        // What a clock that was not set says of them means nothing.
        Some(_) if clock::is_plainly_wrong() => {}
        Some((begin, _)) if now < begin => {
            let text = format!("it is not valid before {}; look at the clock", date(begin));
            findings.mistake(file, None, text);
        }
        Some((_, end)) if now >= end => {
            findings.mistake(file, None, format!("it expired on {}; renew it", date(end)));
        }
        Some((_, end)) if now >= end - EXPIRES_SOON_SECONDS => {
            let text = format!("it expires on {}; renew it", date(end));
            findings.warning(file, None, text);
        }
        Some(_) => {}
    }
    if certificate.lacks_chain() {
        let text = "the certificates of its authority are missing, so many clients refuse it; put \
                    them behind it, or name the file that has all (fullchain.pem)";
        findings.warning(file, None, text);
    }
    let host = &settings.server.hostname;
    if !certificate.names(host) {
        let text = format!(
            "it is not for {host}; have that name in it, or set [server] hostname to one that it has"
        );
        findings.warning(file, None, text);
    }
}
