//! Looks at `[rewrite]`: whether its map could be read, and whether a smarthost will take the
//! addresses of this host.

use std::path::Path;
use std::sync::Arc;

use super::findings::Findings;
use super::names::is_private;
use super::rights::{self, is_for_root};
use crate::config::settings::Settings;
use crate::mail::address::{DomainName, Mailbox};
use crate::route::rewrite::map::{AddressMap, MAX_OCTETS};
use crate::sys::watched::WatchedFile;

/// Looks at the map, and at the login in the settings of `config`.
pub(in crate::cli) fn look(settings: &Settings, config: &Path, findings: &mut Findings) {
    if let Some(path) = &settings.rewrite.map {
        look_at_map(path, settings, findings);
    }
    if let Some(account) = account_that_may_insist(settings) {
        let text = format!(
            "the smarthost knows this host as {account}, and most providers take mail from that \
             address alone; add `sender = {account}` in [rewrite]"
        );
        findings.warning(config, None, text);
    } else if let Some(domain) = domain_of_nobody(settings) {
        let text = format!(
            "mail of this host goes to the smarthost from addresses at {domain}, which no host \
             elsewhere knows, and most providers refuse; add `sender = ` and your address in \
             [rewrite]"
        );
        findings.warning(config, None, text);
    }
}

fn look_at_map(path: &Path, settings: &Settings, findings: &mut Findings) {
    let file = WatchedFile::new(path.to_owned(), MAX_OCTETS);
    match file.load(|octets, _| Arc::new(AddressMap::parse(octets))).as_deref() {
        Ok(Ok(_)) => {
            if let Some(text) = rights::unreadable(path, settings, "chmod o+r") {
                findings.mistake(path, None, text);
            }
        }
        Ok(Err(error)) => findings.mistake(path, Some(error.line), error.text.as_str()),
        Err(error) if is_for_root(error) => {
            let text = "you may not read it, so it is not checked; check as root";
            findings.warning(path, None, text);
        }
        Err(error) => {
            let text = format!("the map cannot be read: {error}; mail waits until it can");
            findings.mistake(path, None, text);
        }
    }
}

/// The domain of this host's addresses where it is none of the DNS, and they go to a smarthost as
/// they are.
fn domain_of_nobody(settings: &Settings) -> Option<&DomainName> {
    let rewrite = &settings.rewrite;
    let has_rule =
        rewrite.sender.is_some() || rewrite.masquerade.is_some() || rewrite.map.is_some();
    let origin = settings.server.domains.origin();
    (settings.smarthost.is_some() && !has_rule && is_private(origin)).then_some(origin)
}

/// The account of the smarthost where it is an address elsewhere, and nothing gives the mail of
/// this host such an address.
fn account_that_may_insist(settings: &Settings) -> Option<Mailbox> {
    let login = settings.smarthost.as_ref()?.login.as_ref()?;
    let account = login.user.parse::<Mailbox>().ok()?;
    let rewrite = &settings.rewrite;
    let has_rule = rewrite.sender.is_some() || rewrite.map.is_some();
    let is_masked = rewrite.masquerade.as_ref() == account.domain().name();
    let is_ours = settings.server.domains.contains(account.domain());
    (!has_rule && !is_masked && !is_ours).then_some(account)
}
