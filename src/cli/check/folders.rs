//! Looks at the folders that the server writes: the spool and what is in it, and the one of its
//! state. Their names and modes are those of [`crate::spool::layout`].

use std::io;
use std::path::Path;

use super::findings::{Findings, Severity};
use super::host::{Host, name_of};
use super::permissions::remedy_of;
use crate::spool::layout::{DROP_MODE, PARTS, Part, SPOOL};
use crate::sys::disk::{Disk, Status};
use crate::sys::mending::Remedy;
use crate::sys::running;
use crate::sys::secret_file::Owner;

/// `[server] state`: others may walk through it to the record of who serves, and may look at the
/// certificate that the server has made.
const STATE: Part = Part { name: "", is_folder: true, least: 0o700 | running::WALK, most: 0o755 };
/// The most names of a folder of messages that are looked at.
const MAX_MESSAGES: usize = 10_000;

/// Looks at all of them.
pub(super) fn look(host: &Host<'_>, findings: &mut Findings) {
    let server = &host.settings.server;
    look_at_first(host, &server.spool, SPOOL, findings);
    for part in PARTS {
        look_at(host, &server.spool.join(part.name), part, findings);
    }
    for folder in ["queue", "state"] {
        look_at_messages(host, &server.spool.join(folder), findings);
    }
    look_at_first(host, &server.state, STATE, findings);
}

/// Looks at a folder that the server makes if root starts it.
fn look_at_first(host: &Host<'_>, path: &Path, part: Part, findings: &mut Findings) {
    let found = Disk::host().look_at(path);
    if !found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return look_at(host, path, part, findings);
    }
    let text = "it is not there yet; the server makes it if root starts it, and for its unit do: \
                mailwren check --fix"
        .to_owned();
    let remedy = Remedy {
        path: path.to_owned(),
        found: None,
        owner: host.owner().map(|account| Owner { uid: account.uid, gid: account.gid }),
        mode: Some(part.most & !0o044 | part.least),
        server: host.owner().map(|account| account.uid),
    };
    match host.owner() {
        Some(_) => findings.mendable(Severity::Note, text, remedy),
        None => findings.note(path, None, text),
    }
}

/// Looks at what is there.
fn look_at(host: &Host<'_>, path: &Path, part: Part, findings: &mut Findings) {
    let Ok(status) = Disk::host().look_at(path) else { return };
    if status.is_folder() != part.is_folder || !(status.is_folder() || status.is_file()) {
        let what = if part.is_folder { "folder" } else { "file" };
        let text = format!("it is no {what}, as the server needs; move it away");
        return findings.mistake(path, None, text);
    }
    let shown = path.display();
    if let Some(account) = host.owner().filter(|account| account.uid != status.owner()) {
        // One of root's that is empty becomes the server's when it starts.
        if part == STATE && status.owner() == 0 && is_empty(path) {
            return;
        }
        let text = format!(
            "it belongs to {}, and the server, which runs as {1}, cannot use it; run: chown {1}: \
             {shown}",
            name_of(status.owner()),
            account.name
        );
        let owner = Some(Owner { uid: account.uid, gid: account.gid });
        let mode = mended(status.mode(), part);
        let remedy = remedy_of(host, path, &status, owner, Some(mode));
        return findings.mendable(Severity::Mistake, text, remedy);
    }
    if let Some((severity, what)) = wrong_mode(&status, part) {
        let mode = mended(status.mode(), part);
        let text = format!("{what}; run: chmod {mode:o} {shown}");
        findings.mendable(severity, text, remedy_of(host, path, &status, None, Some(mode)));
    }
}

/// What is wrong with a mode.
fn wrong_mode(status: &Status, part: Part) -> Option<(Severity, &'static str)> {
    let mode = status.mode();
    if part.least == DROP_MODE {
        let text = "only with mode 1733 can everybody leave mail there, and nobody take another's";
        return (mode != DROP_MODE).then_some((Severity::Mistake, text));
    }
    match () {
        () if mode & 0o700 & part.least != 0o700 & part.least => {
            Some((Severity::Mistake, "its own account may not use it"))
        }
        () if mode & 0o022 & !part.most != 0 => {
            Some((Severity::Mistake, "others than the server can write there"))
        }
        () if mode & 0o777 & !part.most != 0 => {
            Some((Severity::Warning, "others than the server may look into it"))
        }
        () if mode & part.least != part.least && part == STATE => Some((
            Severity::Warning,
            "others cannot walk through it to what tells `mailwren status` whether the server runs",
        )),
        () if mode & part.least != part.least => Some((
            Severity::Warning,
            "others cannot walk through it to drop/, where sendmail leaves mail",
        )),
        () => None,
    }
}

/// The mode with what it must have and without what it must not. What is beside the permissions,
/// such as the group that new files get, stays.
fn mended(mode: u32, part: Part) -> u32 {
    match part.least {
        DROP_MODE => DROP_MODE,
        least => (mode & 0o7000) | (mode & part.most) | least,
    }
}

fn is_empty(path: &Path) -> bool {
    let mut count = 0;
    let folder = Disk::host().open_folder(path);
    folder.and_then(|folder| folder.each_name(|_| count += 1)).is_ok() && count == 0
}

/// Looks whether the server can read its messages and their records: who ran it as root once, and
/// no longer does, has some of root's. Nothing of mail is changed here.
fn look_at_messages(host: &Host<'_>, path: &Path, findings: &mut Findings) {
    let Some(account) = host.owner().filter(|account| account.uid != 0) else { return };
    let Ok(folder) = Disk::host().open_folder(path) else { return };
    let mut names = Vec::new();
    let listed = folder.each_name(|name| {
        if names.len() < MAX_MESSAGES {
            names.push(name.to_owned());
        }
    });
    let is_other = |name: &&String| folder.look_at(name).is_ok_and(|it| it.owner() != account.uid);
    let count = names.iter().filter(is_other).count();
    if listed.is_ok() && count > 0 {
        let text = format!(
            "{count} files in it belong to others than {0}, as whom the server runs, and their mail \
             waits; stop the server, and run: chown -R {0}: {1}",
            account.name,
            path.display()
        );
        findings.mistake(path, None, text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::tests::{Facts, host_of};
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn found(facts: &Facts) -> Findings {
        let mut findings = Findings::default();
        look(&host_of(facts), &mut findings);
        findings
    }

    fn mend(facts: &Facts) {
        for finding in found(facts).iter() {
            finding.remedy().unwrap().apply().unwrap();
        }
    }

    fn facts() -> Facts {
        Facts::new("[server]\nuser = daemon\nspool = HOME/a/spool\nstate = HOME/a/state\n")
    }

    #[test]
    fn what_is_missing_is_no_complaint_and_is_made() {
        let facts = facts();
        let before = found(&facts);
        assert_eq!(before.iter().filter(|finding| finding.is_note()).count(), 2);
        assert_eq!(before.iter().count(), 2);
        mend(&facts);
        assert_eq!(found(&facts), Findings::default());
        let spool = Disk::host().look_at(&facts.settings.server.spool).unwrap();
        assert_eq!((spool.owner(), spool.mode()), (1, 0o711));
    }

    #[test]
    fn each_owner_and_mode_is_told_and_mended() {
        let facts = facts();
        mend(&facts);
        let spool = facts.settings.server.spool.clone();
        for part in PARTS {
            let path = spool.join(part.name);
            match part.is_folder {
                true => fs::create_dir(&path).unwrap(),
                false => fs::write(&path, "").unwrap(),
            }
        }
        mend(&facts);
        assert_eq!(found(&facts), Findings::default());
        for (name, owner, mode, words, after) in [
            ("", 0, 0o711, "it belongs to root", 0o711),
            ("", 1, 0o777, "others than the server can write there", 0o755),
            ("", 1, 0o700, "others cannot walk through it", 0o711),
            ("queue", 1, 0o755, "may look into it", 0o750),
            ("state", 1, 0o500, "its own account may not use it", 0o700),
            ("drop", 1, 0o1777, "only with mode 1733", 0o1733),
            ("drop", 1, 0o755, "only with mode 1733", 0o1733),
            ("lock", 0, 0o600, "it belongs to root", 0o600),
        ] {
            let path = spool.join(name);
            chown(&path, Some(owner), None).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let said: Vec<_> = found(&facts).iter().map(ToString::to_string).collect();
            assert!(said.len() == 1 && said[0].contains(words), "{name} {words}: {said:?}");
            mend(&facts);
            let status = Disk::host().look_at(&path).unwrap();
            assert_eq!((status.owner(), status.mode()), (1, after), "{name} {mode:o}");
            assert_eq!(found(&facts), Findings::default());
        }
    }

    #[test]
    fn everybody_may_walk_through_the_folder_of_the_state() {
        let facts = facts();
        mend(&facts);
        let state = &facts.settings.server.state;
        fs::set_permissions(state, Permissions::from_mode(0o700)).unwrap();
        let said: Vec<_> = found(&facts).iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].contains("`mailwren status`"), "{said:?}");
        mend(&facts);
        assert_eq!(Disk::host().look_at(state).unwrap().mode(), 0o711);
    }

    #[test]
    fn messages_of_others_are_told_and_left_alone() {
        let facts = facts();
        mend(&facts);
        let queue = facts.settings.server.spool.join("queue");
        fs::create_dir(&queue).unwrap();
        mend(&facts);
        fs::write(queue.join("a"), "").unwrap();
        let findings = found(&facts);
        let said: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].contains("1 files in it belong to others"), "{said:?}");
        assert!(findings.iter().all(|finding| finding.remedy().is_none()));
    }

    #[test]
    fn a_link_is_never_mended_through() {
        let facts = facts();
        mend(&facts);
        let elsewhere = facts.home.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, facts.settings.server.spool.join("queue")).unwrap();
        let findings = found(&facts);
        let error = findings.iter().next().unwrap().remedy().unwrap().apply().unwrap_err();
        assert!(error.to_string().contains("it is a link"), "{error}");
        assert_eq!(Disk::host().look_at(&elsewhere).unwrap().owner(), 0);
    }
}
