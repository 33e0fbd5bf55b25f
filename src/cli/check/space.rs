//! Looks whether there is room for mail: on the file system of the spool, and on that of the
//! mailboxes.

use std::collections::BTreeSet;
use std::path::Path;

use super::findings::Findings;
use super::host::{Host, status_of};
use crate::config::settings::Settings;
use crate::deliver::place::split_fixed;
use crate::sys::file_system::{self, FileSystem};

/// Fewer files than that are soon used up.
const FEW_FILES: u64 = 1000;
const MIB: u64 = 1 << 20;
/// Where people have their homes, as a rule.
const HOMES: &str = "/home";

/// Looks at the spool, if it is there, and at each file system of mailboxes that is another one.
pub(super) fn look(host: &Host<'_>, findings: &mut Findings) {
    let spool = &host.settings.server.spool;
    if let Some(point) = file_system::unmounted(spool) {
        let text = format!(
            "{0} of /etc/fstab, on which the spool is to be, is not mounted; run: mount {0}",
            point.display()
        );
        findings.mistake(spool, None, text);
    }
    if let Ok(found) = FileSystem::of(spool) {
        look_at(&found, spool, host.settings.server.min_free_space, findings);
    }
    let device = |path: &Path| status_of(path).map(|status| status.identity().0);
    let mut seen: BTreeSet<u64> = device(spool).into_iter().collect();
    for folder in mailbox_folders(host.settings) {
        let is_other = device(folder).is_some_and(|device| seen.insert(device));
        if let Some(found) = FileSystem::of(folder).ok().filter(|_| is_other) {
            look_at_mailboxes(&found, folder, host.settings.server.max_message_size, findings);
        }
    }
}

/// The folders below which mailboxes are.
fn mailbox_folders(settings: &Settings) -> impl Iterator<Item = &Path> {
    let paths = settings.domains.iter().map(|domain| &domain.path);
    std::iter::once(&settings.local.path).chain(paths).map(|path| match split_fixed(path).0 {
        "" => Path::new(HOMES),
        folder => Path::new(folder),
    })
}

/// Mail for mailboxes that cannot be written waits in the spool, so nothing is refused yet.
fn look_at_mailboxes(found: &FileSystem, folder: &Path, most: u64, findings: &mut Findings) {
    let waits = "mail for the mailboxes there waits in the spool";
    if found.is_read_only {
        let text = format!(
            "its file system is read-only, and {waits}; run: mount -o remount,rw, and see what the \
             kernel says (dmesg)"
        );
        return findings.mistake(folder, None, text);
    }
    if found.free_octets < most {
        let text = format!(
            "{} MiB are free, fewer than the {} that one message may have ([server] \
             max_message_size); where one has no room, {waits}; make room",
            found.free_octets / MIB,
            most.div_ceil(MIB)
        );
        findings.warning(folder, None, text);
    }
    if found.free_files.is_some_and(|free| free < FEW_FILES) {
        let text = format!(
            "its file system can hold {} more files (inodes); where there are none, {waits}; remove \
             some, see df -i",
            found.free_files.unwrap_or_default()
        );
        findings.warning(folder, None, text);
    }
    if found.is_in_memory {
        let text = "it is in memory (tmpfs), and the mailboxes there are lost when the host \
                    restarts; name a folder on a disk in `path`";
        findings.warning(folder, None, text);
    }
}

fn look_at(found: &FileSystem, spool: &Path, least: u64, findings: &mut Findings) {
    if found.is_read_only {
        let text = "its file system is read-only, so no mail is taken; run: mount -o remount,rw, and \
                    see what the kernel says (dmesg)";
        return findings.mistake(spool, None, text);
    }
    if found.free_octets < least {
        let text = format!(
            "{} MiB are free, fewer than the {} of [server] min_free_space, so no mail is taken; make \
             room, or lower it",
            found.free_octets / MIB,
            least.div_ceil(MIB)
        );
        findings.mistake(spool, None, text);
    }
    match found.free_files {
        Some(0) => {
            let text = "its file system can hold no more files (inodes), so no mail is taken; remove \
                        some, see df -i";
            findings.mistake(spool, None, text);
        }
        Some(few) if few < FEW_FILES => {
            let text = format!(
                "its file system can hold {few} more files (inodes); remove some, see df -i"
            );
            findings.warning(spool, None, text);
        }
        Some(_) | None => {}
    }
    if found.is_in_memory {
        let text = "it is in memory (tmpfs), and what waits there is lost when the host restarts; name \
                    a folder on a disk in [server] spool";
        findings.warning(spool, None, text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::tests::Facts;
    use super::*;

    #[test]
    fn what_keeps_mail_out_is_told() {
        let good = FileSystem {
            free_octets: 100 * MIB,
            free_files: Some(5000),
            is_read_only: false,
            is_in_memory: false,
        };
        for (found, words, is_mistake) in [
            (good, "", false),
            (FileSystem { free_files: None, ..good }, "", false),
            (
                FileSystem { free_octets: 63 * MIB, ..good },
                "63 MiB are free, fewer than the 64",
                true,
            ),
            (FileSystem { free_files: Some(0), ..good }, "no more files", true),
            (FileSystem { free_files: Some(9), ..good }, "9 more files", false),
            (FileSystem { is_read_only: true, free_octets: 0, ..good }, "read-only", true),
            (FileSystem { is_in_memory: true, ..good }, "in memory", false),
        ] {
            let mut findings = Findings::default();
            look_at(&found, Path::new("/s"), 64 * MIB, &mut findings);
            let said: Vec<_> = findings.iter().map(ToString::to_string).collect();
            assert_eq!(said.len(), usize::from(!words.is_empty()), "{said:?}");
            assert!(said.iter().all(|line| line.contains(words)), "{words}: {said:?}");
            assert_eq!(findings.has_mistake(), is_mistake, "{said:?}");
        }
        for (found, words, is_mistake) in [
            (good, "", false),
            (FileSystem { free_octets: 34 * MIB, ..good }, "34 MiB are free, fewer", false),
            (FileSystem { free_files: Some(9), ..good }, "9 more files", false),
            (FileSystem { is_read_only: true, free_octets: 0, ..good }, "read-only", true),
            (FileSystem { is_in_memory: true, ..good }, "in memory", false),
        ] {
            let mut findings = Findings::default();
            look_at_mailboxes(&found, Path::new("/m"), 35 * MIB, &mut findings);
            let said: Vec<_> = findings.iter().map(ToString::to_string).collect();
            assert_eq!(said.len(), usize::from(!words.is_empty()), "{said:?}");
            assert!(said.iter().all(|line| line.contains(words)), "{words}: {said:?}");
            assert_eq!(findings.has_mistake(), is_mistake, "{said:?}");
        }
    }

    #[test]
    fn mailboxes_are_below_what_every_path_has() {
        let facts = Facts::new(
            "[local]\npath = /var/mail/{user}\n[domain.a.test]\nusers = HOME/u\n\
             path = /srv/{domain}/{user}\n",
        );
        let folders: Vec<_> = mailbox_folders(&facts.settings).collect();
        assert_eq!(folders, [Path::new("/var/mail"), Path::new("/srv")]);
        let facts = Facts::new("[local]\nformat = maildir\npath = {home}/Maildir\n");
        assert_eq!(mailbox_folders(&facts.settings).collect::<Vec<_>>(), [Path::new(HOMES)]);
    }
}
