//! The folders of subaddresses: where mail for `user+detail` goes when `[local] path` ends with
//! `{detail}`.
//!
//! A Maildir's path ends with `.{detail}`, a folder of the Maildir before it (Maildir++), or with
//! `{detail}`, a Maildir within that one. An mbox's path ends with either, and the mailbox itself
//! is the file `inbox` beside them, since no file can be within another.
//!
//! Strangers choose the detail. So no folder is made for it: where there is none, and where the
//! detail is not fit for a name, the mail goes into the mailbox itself.

use std::borrow::Cow;

use crate::config::settings::MailboxFormat;
use crate::deliver::place::Place;
use crate::sys::disk::{Disk, Folder, Open};

/// What stands for the detail in a path.
const PLACEHOLDER: &str = "{detail}";
/// The mailbox itself, where mboxes are in a folder.
const INBOX: &str = "inbox";
/// The longest detail that can name a folder, in octets.
const MAX_DETAIL: usize = 64;
/// What an mbox begins with, unless it is empty.
const FROM: &[u8] = b"From ";
/// The folders that a Maildir consists of.
const PARTS: [&str; 3] = ["cur", "new", "tmp"];

/// `[local] path` or that of a virtual domain, with what it says of details taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxPath<'a> {
    /// The path of the mailbox itself, as [`Place::of`] reads it.
    pub mailbox: Cow<'a, str>,
    /// What stands before the detail in the name of a folder. `None` without folders.
    prefix: Option<&'a str>,
    format: MailboxFormat,
}

impl<'a> MailboxPath<'a> {
    /// Takes a path apart, such as `{home}/Maildir/.{detail}`.
    pub fn new(path: &'a str, format: MailboxFormat) -> Self {
        let split = path.rsplit_once('/').and_then(|(above, last)| {
            let prefix = last.strip_suffix(PLACEHOLDER)?;
            matches!(prefix, "" | ".").then_some((above, prefix))
        });
        let mailbox = match (split, format) {
            (None, _) => path.into(),
            (Some((above, _)), MailboxFormat::Maildir) => above.into(),
            (Some((above, _)), MailboxFormat::Mbox) => format!("{above}/{INBOX}").into(),
        };
        Self { mailbox, prefix: split.map(|(_, prefix)| prefix), format }
    }

    /// Whether the folders are those of Maildir++, which share the quota of the Maildir.
    pub fn is_maildir_plus_plus(&self) -> bool {
        self.format == MailboxFormat::Maildir && self.prefix == Some(".")
    }

    /// The folder for `detail` of the user whose mailbox is at `mailbox`, if it is there, spelt so
    /// or in lower case.
    pub fn folder(&self, disk: &Disk, mailbox: &Place, detail: Option<&str>) -> Option<Place> {
        let (prefix, detail) = (self.prefix?, detail?);
        if !is_fit(detail, prefix) {
            return None;
        }
        let lower = detail.to_ascii_lowercase();
        let spellings = if lower == detail { vec![detail] } else { vec![detail, &lower] };
        let places = spellings.into_iter().map(|detail| self.place(mailbox, prefix, detail));
        places.into_iter().find(|place| self.is_there(disk, place))
    }

    fn place(&self, mailbox: &Place, prefix: &str, detail: &str) -> Place {
        let mut folders = mailbox.folders.clone();
        if self.format == MailboxFormat::Maildir {
            folders.push(mailbox.name.clone());
        }
        Place { folders, name: format!("{prefix}{detail}"), ..mailbox.clone() }
    }

    /// Whether there is such a mailbox. No link on the way to it counts.
    fn is_there(&self, disk: &Disk, place: &Place) -> bool {
        let mut folder = disk.walk_to(&place.base);
        for name in &place.folders {
            folder = folder.and_then(|folder| folder.walk_to(name));
        }
        folder.is_ok_and(|folder| match self.format {
            MailboxFormat::Mbox => is_mbox(&folder, &place.name),
            MailboxFormat::Maildir => {
                folder.walk_to(&place.name).and_then(|maildir| maildir.walk_to("new")).is_ok()
            }
        })
    }
}

/// Whether the file is an mbox, and not something else that somebody keeps beside them.
fn is_mbox(folder: &Folder, name: &str) -> bool {
    let is_file = folder.look_at(name).is_ok_and(|status| status.is_file());
    let beginning = || folder.open(name, Open::Read)?.read_up_to(FROM.len() as u64);
    is_file && beginning().is_ok_and(|text| text.is_empty() || text == FROM)
}

/// Whether a detail can be the name of a folder behind this prefix: one component, visible ASCII,
/// no hidden file, no lock. In Maildir++ a dot would be a folder within a folder.
fn is_fit(detail: &str, prefix: &str) -> bool {
    let has_dot = if prefix == "." { detail.contains('.') } else { detail.starts_with('.') };
    (1..=MAX_DETAIL).contains(&detail.len())
        && detail.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'/')
        && !has_dot
        && !detail.to_ascii_lowercase().ends_with(".lock")
        && !PARTS.iter().any(|part| part.eq_ignore_ascii_case(detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::MailboxFormat::{Maildir, Mbox};
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_path_is_taken_apart() {
        for (path, format, mailbox, is_plus_plus) in [
            ("{home}/Maildir/.{detail}", Maildir, "{home}/Maildir", true),
            ("/m/{user}/{detail}", Maildir, "/m/{user}", false),
            ("/m/{user}/{detail}", Mbox, "/m/{user}/inbox", false),
            ("{home}/mail/.{detail}", Mbox, "{home}/mail/inbox", false),
            ("/m/{user}", Mbox, "/m/{user}", false),
            ("/m/{user}/x{detail}", Maildir, "/m/{user}/x{detail}", false),
        ] {
            let mailboxes = MailboxPath::new(path, format);
            assert_eq!(mailboxes.mailbox, mailbox, "{path}");
            assert_eq!(mailboxes.is_maildir_plus_plus(), is_plus_plus, "{path}");
        }
    }

    #[test]
    fn a_folder_counts_where_it_is_there_and_its_name_is_plain() {
        let base = tempfile::tempdir().unwrap();
        let (path, other) = (base.path().join("ann"), base.path().join("other"));
        for folder in [".lists", ".Work", ".a.b", "plain", ".empty", "cur", "..x"] {
            let parts: &[&str] = if folder == ".empty" { &[] } else { &PARTS };
            fs::create_dir_all(path.join(folder)).unwrap();
            for part in parts {
                fs::create_dir_all(path.join(folder).join(part)).unwrap();
            }
        }
        fs::create_dir_all(other.join("new")).unwrap();
        symlink(&other, path.join(".link")).unwrap();
        fs::write(path.join("file"), "").unwrap();
        fs::write(path.join("full"), "From ann@x.test").unwrap();
        fs::write(path.join("notes"), "Frost and other things").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path.join("fifo"), 0o600.into()).unwrap();
        fs::write(path.join("file.lock"), "").unwrap();
        symlink(path.join("file"), path.join("filelink")).unwrap();
        let long = "x".repeat(65);
        for (format, prefix, detail, found) in [
            (Maildir, ".", "lists", Some(".lists")),
            (Maildir, ".", "LISTS", Some(".lists")),
            (Maildir, ".", "Work", Some(".Work")),
            (Maildir, ".", "work", None),
            (Maildir, ".", "none", None),
            (Maildir, ".", "empty", None),
            (Maildir, ".", "link", None),
            (Maildir, ".", "a.b", None),
            (Maildir, ".", ".x", None),
            (Maildir, ".", "", None),
            (Maildir, ".", "l\u{e4}", None),
            (Maildir, ".", &long, None),
            (Maildir, "", "plain", Some("plain")),
            (Maildir, "", ".lists", None),
            (Maildir, "", "..", None),
            (Maildir, "", "cur", None),
            (Maildir, "", "../other", None),
            (Maildir, "", "plain/new", None),
            (Mbox, "", "file", Some("file")),
            (Mbox, "", "FILE", Some("file")),
            (Mbox, "", "full", Some("full")),
            (Mbox, "", "notes", None),
            (Mbox, "", "fifo", None),
            (Mbox, "", "filelink", None),
            (Mbox, "", "file.lock", None),
            (Mbox, "", "plain", None),
            (Mbox, "", "{user}", None),
        ] {
            let text = format!("{}/{{user}}/{prefix}{{detail}}", base.path().display());
            let mailboxes = MailboxPath::new(&text, format);
            let base = base.path().to_owned();
            let mailbox = match format {
                Maildir => Place { base, folders: vec![], name: "ann".into(), is_in_home: false },
                Mbox => {
                    let folders = vec!["ann".to_owned()];
                    Place { base, folders, name: INBOX.to_owned(), is_in_home: false }
                }
            };
            let place = mailboxes.folder(&Disk::host(), &mailbox, Some(detail));
            let expected = found.map(|name| path.join(name));
            assert_eq!(place.map(|place| place.path()), expected, "{format:?} {detail}");
            assert_eq!(mailboxes.folder(&Disk::host(), &mailbox, None), None);
        }
    }
}
