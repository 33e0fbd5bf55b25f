//! Looks at who may do what: the account of the server, the configuration, and the folder of the
//! mailboxes. The secrets and the server's own folders have files of their own beside this one.

use std::io;
use std::path::Path;

use super::findings::{Findings, Severity};
use super::host::{Host, name_of, status_of};
use super::{folders, secret_files};
use crate::config::settings::{MailboxFormat, SecretSource, Users};
use crate::deliver::place::Place;
use crate::mail::address::Domain;
use crate::route::users::User;
use crate::sys::disk::{Disk, Status};
use crate::sys::mending::Remedy;
use crate::sys::secret_file::Owner;
use crate::sys::users;

/// What everybody else must not have of the configuration.
const WRITABLE_FOR_OTHERS: u32 = 0o022;
const READABLE_FOR_ALL: u32 = 0o444;

/// Looks at all of them.
pub(super) fn look(host: &Host<'_>, findings: &mut Findings) {
    look_at_account(host, findings);
    look_at_configuration(host, findings);
    secret_files::look(host, findings);
    folders::look(host, findings);
    look_at_mailboxes(host, findings);
}

fn look_at_account(host: &Host<'_>, findings: &mut Findings) {
    if host.account.is_some() {
        return;
    }
    let user = &host.settings.server.user;
    let text = format!(
        "there is no account {user:?} for [server] user, which the server becomes when root starts \
         it; run: useradd --system --home-dir / --shell /usr/sbin/nologin {user}"
    );
    let line = host.line("server", "user");
    match host.is_root {
        true => findings.mistake(host.config, line, text),
        // Somebody else may start it, as whom it then stays.
        false => findings.warning(host.config, line, text),
    }
}

fn look_at_configuration(host: &Host<'_>, findings: &mut Findings) {
    let Some(status) = status_of(host.config) else { return };
    if !status.is_file() {
        return;
    }
    let path = host.config.display();
    let remedy = |mode| remedy_of(host, host.config, &status, None, Some(mode));
    let mode = status.mode();
    if status.is_writable_for_others() {
        let text = format!(
            "others than its owner can write it, and so say what the server does; run: chmod go-w \
             {path}"
        );
        findings.mendable(Severity::Warning, text, remedy(mode & !WRITABLE_FOR_OTHERS));
    } else if mode & READABLE_FOR_ALL != READABLE_FOR_ALL && !has_secret(host) {
        let text = format!(
            "not everybody may read it, so that sendmail does not know what it says; it holds no \
             secrets, run: chmod a+r {path}"
        );
        findings.mendable(Severity::Warning, text, remedy(mode | READABLE_FOR_ALL));
    }
    if host.is_root && status.owner() != 0 {
        let text = format!(
            "it belongs to {}, who so says what a server does that root starts; run: chown root \
             {path}",
            name_of(status.owner())
        );
        findings.warning(host.config, None, text);
    }
}

/// Whether a password stands in the configuration.
fn has_secret(host: &Host<'_>) -> bool {
    let login = host.settings.smarthost.as_ref().and_then(|smarthost| smarthost.login.as_ref());
    login.is_some_and(|login| matches!(login.secret, SecretSource::Inline(_)))
}

/// What puts right what is at `path`, which was looked at.
pub(super) fn remedy_of(
    host: &Host<'_>,
    path: &Path,
    status: &Status,
    owner: Option<Owner>,
    mode: Option<u32>,
) -> Remedy {
    Remedy {
        path: path.to_owned(),
        found: Some(status.identity()),
        owner,
        mode,
        server: host.owner().map(|account| account.uid),
    }
}

/// Looks at the folder of the mailboxes, where that is the administrator's and no user's home.
fn look_at_mailboxes(host: &Host<'_>, findings: &mut Findings) {
    let local = &host.settings.local;
    let Some(place) = place_of_somebody(host).filter(|place| !place.is_in_home) else { return };
    let base = &place.base;
    match Disk::host().look_at(base) {
        Ok(status) if !status.is_folder() => {
            findings.mistake(
                base,
                None,
                "it is no folder, so mail for this host waits; move it away",
            );
        }
        Ok(status) => {
            // Deliveries have the group of the folder where each mailbox is a file in it.
            let has_group = local.format == MailboxFormat::Mbox && place.folders.is_empty();
            if let Some(text) = unwritable(host, base, &status, has_group) {
                findings.warning(base, None, text);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => note_missing(host, base, findings),
        Err(_) => {}
    }
}

/// Where the mailbox of somebody without a home would be.
fn place_of_somebody(host: &Host<'_>) -> Option<Place> {
    let user = User { name: "somebody".parse().ok()?, detail: None, account: None };
    let domain = Domain::Name(host.settings.server.domains.origin().clone());
    Place::of(&host.settings.local.path, &user, &domain).ok()
}

fn note_missing(host: &Host<'_>, base: &Path, findings: &mut Findings) {
    let what = "there is no such folder, so mail for this host waits";
    match (&host.settings.local.users, host.owner()) {
        (Users::Any | Users::File(_), Some(account)) => {
            let owner = Some(Owner { uid: account.uid, gid: account.gid });
            let text = format!("{what}; make it, and give it to {}", account.name);
            let server = Some(account.uid);
            let path = base.to_owned();
            let remedy = Remedy { path, found: None, owner, mode: Some(0o750), server };
            findings.mendable(Severity::Mistake, text, remedy);
        }
        (Users::Any | Users::File(_), None) => {
            findings.mistake(base, None, format!("{what}; make it"));
        }
        (Users::System, _) => {
            let path = base.display();
            let text =
                format!("{what}; run: mkdir {path} && chgrp mail {path} && chmod 2775 {path}");
            findings.mistake(base, None, text);
        }
    }
}

/// What is wrong where mailboxes cannot be made in the folder `base`.
fn unwritable(host: &Host<'_>, base: &Path, status: &Status, has_group: bool) -> Option<String> {
    let path = base.display();
    if status.is_writable_for_all() {
        return None;
    }
    if host.settings.local.users == Users::System {
        let is_shared = has_group && status.is_group_writable() && status.group() != 0;
        return (!is_shared).then(|| match has_group {
            true => format!(
                "users may make no mailbox there, so mail waits for who has none; run: chgrp mail \
                 {path} && chmod 2775 {path}"
            ),
            false => {
                "users may make no mailbox there, so mail waits for who has none; make theirs, \
                      or give [local] path = {home}/Maildir"
                    .to_owned()
            }
        });
    }
    let account = host.owner().filter(|account| account.uid != 0)?;
    let groups = users::groups_of(account).ok()?;
    let bits = match () {
        () if status.owner() == account.uid => 0o300,
        () if groups.contains(&status.group()) => 0o030,
        () => 0o003,
    };
    (status.mode() & bits != bits).then(|| {
        format!(
            "the mailboxes there are those of {0:?}, as whom the server runs, and who may not write \
             there; run: chown {0} {path}",
            account.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::host::tests::{Facts, host_of};
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn a_configuration_that_others_write_or_nobody_reads_is_told() {
        let facts = Facts::new("");
        let found = |mode, owner| {
            fs::set_permissions(&facts.config, Permissions::from_mode(mode)).unwrap();
            chown(&facts.config, Some(owner), None).unwrap();
            let mut findings = Findings::default();
            look_at_configuration(&host_of(&facts), &mut findings);
            let modes = findings.iter().map(|it| it.remedy().and_then(|remedy| remedy.mode));
            modes.collect::<Vec<_>>()
        };
        assert_eq!(found(0o644, 0), []);
        assert_eq!(found(0o664, 0), [Some(0o644)]);
        assert_eq!(found(0o646, 0), [Some(0o644)]);
        assert_eq!(found(0o600, 0), [Some(0o644)]);
        assert_eq!(found(0o644, 1), [None]);
    }

    #[test]
    fn the_folder_of_mailboxes_is_for_who_writes_them() {
        for (format, users, group, mode, is_good) in [
            ("mbox", "system", 8, 0o2775, true),
            ("mbox", "system", 0, 0o1777, true),
            ("mbox", "system", 0, 0o775, false),
            ("mbox", "system", 8, 0o755, false),
            ("maildir", "system", 8, 0o2775, false),
            ("maildir", "any", 1, 0o770, true),
            ("maildir", "any", 8, 0o770, false),
        ] {
            let facts = Facts::new(&format!(
                "[server]\nuser = daemon\n[local]\nformat = {format}\nusers = {users}\n\
                 path = HOME/mail/{{user}}\n"
            ));
            let path = facts.home.path().join("mail");
            let host = host_of(&facts);
            let found = || {
                let mut findings = Findings::default();
                look_at_mailboxes(&host, &mut findings);
                findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
            };
            assert!(found().contains("there is no such folder"), "{}", found());
            fs::create_dir(&path).unwrap();
            chown(&path, Some(0), Some(group)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(found().is_empty(), is_good, "{format} {users} {mode:o}: {}", found());
        }
    }
}
