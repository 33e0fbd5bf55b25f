//! Looks at whose the files with secrets are, and who may read them: the password for the smarthost,
//! the accounts, the key of the certificate. What is in them is looked at elsewhere.

use std::path::{Path, PathBuf};

use super::findings::{Findings, Severity};
use super::host::{Host, name_of, status_of};
use super::permissions::remedy_of;
use super::rights;
use crate::config::settings::{AuthRule, ListenerTls, SecretSource, Settings};
use crate::sys::disk::Status;
use crate::sys::secret_file::Owner;
use crate::sys::users::{self, Account};

/// What a secret is, which decides how it is talked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Of a login of ours.
    Password,
    /// Hashes, which the server does not read while others may.
    Accounts,
    /// Of a certificate; other servers may share it, and ours may read it as root.
    Key,
}

/// The mode of a secret that root writes and the server reads.
const SHARED: u32 = 0o640;
/// What others have, and a group that writes.
const FOR_OTHERS: u32 = 0o027;

/// Looks at those that are there.
pub(super) fn look(host: &Host<'_>, findings: &mut Findings) {
    for (path, kind) in secrets(host.settings) {
        let Some(status) = status_of(&path).filter(Status::is_file) else { continue };
        if let Some((severity, text)) = complaint(host, &path, kind, &status) {
            let (owner, mode) = mended(host.owner(), kind, &status);
            findings.mendable(severity, text, remedy_of(host, &path, &status, owner, Some(mode)));
        }
    }
}

/// The secrets that the settings name and that count.
fn secrets(settings: &Settings) -> Vec<(PathBuf, Kind)> {
    let mut found = Vec::new();
    let login = settings.smarthost.as_ref().and_then(|smarthost| smarthost.login.as_ref());
    if let Some(SecretSource::File(path)) = login.map(|login| &login.secret) {
        found.push((path.clone(), Kind::Password));
    }
    let lets_in = |rule: AuthRule| rule != AuthRule::None && settings.auth.dovecot.is_none();
    if settings.listeners.iter().any(|listener| lets_in(listener.auth)) {
        found.push((settings.auth.users.clone(), Kind::Accounts));
    }
    if settings.listeners.iter().any(|listener| listener.tls != ListenerTls::None) {
        found.push((settings.tls.key.clone(), Kind::Key));
    }
    found
}

/// What is wrong with one, and what to do.
fn complaint(
    host: &Host<'_>,
    path: &Path,
    kind: Kind,
    status: &Status,
) -> Option<(Severity, String)> {
    let (mode, shown) = (status.mode(), path.display());
    if kind == Kind::Accounts && mode & (0o004 | 0o022) != 0 {
        let what = if mode & 0o004 != 0 {
            "everybody can read it"
        } else {
            "others than its owner can write it"
        };
        return Some((Severity::Mistake, format!("{what}; run: chmod o-rwx,g-w {shown}")));
    }
    if kind != Kind::Key {
        let mend = format!("chown {}", host.settings.server.user);
        if let Some(text) = rights::unreadable(path, host.settings, &mend) {
            return Some((Severity::Mistake, text));
        }
    }
    let text = match kind {
        Kind::Key if mode & 0o004 != 0 => {
            "everybody on this host may read the key; take that away with chmod 640".to_owned()
        }
        _ if mode & 0o004 != 0 => {
            "everybody on this host may read the password; take that away with chmod o-r".to_owned()
        }
        _ if mode & 0o022 != 0 => {
            format!("others than its owner can write it; run: chmod go-w {shown}")
        }
        _ => of_others(host.owner()?, kind, status, path)?,
    };
    Some((Severity::Warning, text))
}

/// Whether it is another account's, or another group may read it.
fn of_others(account: &Account, kind: Kind, status: &Status, path: &Path) -> Option<String> {
    let user = &account.name;
    let mend = format!("run: chown root:{} {1} && chmod 640 {1}", account.gid, path.display());
    if ![0, account.uid].contains(&status.owner()) {
        return Some(format!(
            "{} owns it, who is neither root nor {user}; {mend}",
            name_of(status.owner())
        ));
    }
    let is_for_group = kind != Kind::Key && status.mode() & 0o040 != 0 && status.group() != 0;
    let groups = users::groups_of(account).unwrap_or_default();
    (is_for_group && !groups.contains(&status.group())).then(|| {
        format!(
            "the accounts of group id {} may read it, though {user} is none of them; {mend}",
            status.group()
        )
    })
}

/// Whose it becomes, and with which mode: what it has without what others have, or root's with the
/// server's group, if only so the server can read it and nobody else.
fn mended(account: Option<&Account>, kind: Kind, status: &Status) -> (Option<Owner>, u32) {
    let less = status.mode() & !FOR_OTHERS & 0o777;
    let Some(account) = account else { return (None, less) };
    let is_read_as_root = kind == Kind::Key || account.uid == 0;
    let is_good = match status.owner() {
        0 if is_read_as_root => true,
        0 => status.group() == account.gid && less & 0o040 != 0,
        owner => owner == account.uid && less & 0o400 != 0,
    };
    let is_for_others =
        kind != Kind::Key && less & 0o040 != 0 && ![0, account.gid].contains(&status.group());
    match is_good && !is_for_others {
        true => (None, less),
        false => (Some(Owner { uid: 0, gid: account.gid }), SHARED),
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::tests::{Facts, host_of};
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn secrets_are_for_the_server_alone_and_mending_makes_them_so() {
        let facts = Facts::new(
            "[server]\nuser = daemon\n[smarthost]\nhost = a.test\nuser = me\n\
             password_file = HOME/password\n[listen.smtp]\ntls = none\n",
        );
        let path = facts.home.path().join("password");
        fs::write(&path, "x").unwrap();
        let host = host_of(&facts);
        let gid = host.account.as_ref().unwrap().gid;
        for (owner, group, mode, words, after) in [
            (1, gid, 0o600, "", (1, gid, 0o600)),
            (0, gid, 0o640, "", (0, gid, 0o640)),
            (1, 0, 0o640, "", (1, 0, 0o640)),
            (0, 0, 0o600, "may not read it", (0, gid, 0o640)),
            (0, 0, 0o644, "everybody on this host may read", (0, gid, 0o640)),
            (1, gid, 0o644, "everybody on this host may read", (1, gid, 0o640)),
            (1, gid, 0o660, "others than its owner can write it", (1, gid, 0o640)),
            (5, gid, 0o640, "who is neither root nor daemon", (0, gid, 0o640)),
            (1, 4, 0o640, "the accounts of group id 4 may read it", (0, gid, 0o640)),
        ] {
            chown(&path, Some(owner), Some(group)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let found = || {
                let mut findings = Findings::default();
                look(&host, &mut findings);
                findings
            };
            let before = found();
            let said: String = before.iter().map(ToString::to_string).collect();
            assert!(said.contains(words) && said.is_empty() == words.is_empty(), "{words}: {said}");
            for finding in before.iter() {
                finding.remedy().unwrap().apply().unwrap();
            }
            let status = status_of(&path).unwrap();
            assert_eq!((status.owner(), status.group(), status.mode()), after, "{words}");
            assert_eq!(found().iter().count(), 0, "{words}");
        }
    }
}
