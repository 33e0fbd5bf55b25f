//! Looks at mail that nobody looks after: what could not be read, what failed with nobody to tell,
//! what waits though no server runs, and what is for nobody.

use std::path::Path;

use super::findings::Findings;
use super::host::Host;
use crate::mail::address::Mailbox;
use crate::route::addressee::Way;
use crate::route::local::{LocalRouter, Resolution};
use crate::spool::id::QueueId;
use crate::spool::progress::Progress;
use crate::spool::reader::SpoolReader;
use crate::sys::disk::Disk;

/// The most messages whose recipients are looked at, and the most lines about them.
const MAX_MESSAGES: usize = 1000;
const MAX_LINES: usize = 10;
/// What the names of records end with that are kept beside a message.
const RECORD: &str = ".state";

/// Looks at the folders of the spool, as far as we may, and at the addresses of the settings.
pub(super) fn look(host: &Host<'_>, findings: &mut Findings) {
    let spool = &host.settings.server.spool;
    for (name, what) in [
        ("corrupt", "cannot be read as messages, and were kept"),
        ("failed", "failed, with nobody to be told of it, and were kept"),
    ] {
        let path = spool.join(name);
        if let Some(count) = count(&path, &|name| !name.ends_with(RECORD)).filter(|it| *it > 0) {
            let text = format!("{count} files there {what}; look at them, then remove them");
            findings.warning(&path, None, text);
        }
    }
    if host.is_served == Some(false) {
        look_at_waiting(spool, findings);
    }
    let router = LocalRouter::in_spite_of_mistakes(host.settings);
    look_at_addresses(host, &router, findings);
    look_at_recipients(host, &router, findings);
}

/// Tells of what waits for a server that does not run.
fn look_at_waiting(spool: &Path, findings: &mut Findings) {
    for name in ["drop", "queue"] {
        let path = spool.join(name);
        let is_message = |name: &str| name.parse::<QueueId>().is_ok();
        if let Some(count) = count(&path, &is_message).filter(|it| *it > 0) {
            let wait = if count == 1 { "message waits" } else { "messages wait" };
            let text = format!("no server runs, and {count} {wait} there; start it");
            findings.warning(&path, None, text);
        }
    }
}

/// How many names of a folder count, if it can be read.
fn count(path: &Path, counts: &dyn Fn(&str) -> bool) -> Option<usize> {
    let mut count = 0;
    let folder = Disk::host().open_folder(path).ok()?;
    folder.each_name(|name| count += usize::from(counts(name))).ok()?;
    Some(count)
}

/// Whether those that the settings name for what nobody else gets are somebody.
fn look_at_addresses(host: &Host<'_>, router: &LocalRouter, findings: &mut Findings) {
    let settings = host.settings;
    let domains = settings
        .domains
        .iter()
        .map(|domain| (format!("domain.{}", domain.name), "catch_all", domain.catch_all.as_ref()));
    let own = [
        ("queue".to_owned(), "double_bounce", settings.queue.double_bounce.as_ref()),
        ("local".to_owned(), "catch_all", settings.local.catch_all.as_ref()),
    ];
    for (section, key, mailbox) in own.into_iter().chain(domains) {
        let Some(mailbox) = mailbox.filter(|it| is_nobody(router, host, it)) else { continue };
        let text = format!("[{section}] {key}: {mailbox} is not known here; mend the name");
        findings.mistake(host.config, host.line(&section, key), text);
    }
}

fn is_nobody(router: &LocalRouter, host: &Host<'_>, mailbox: &Mailbox) -> bool {
    host.settings.server.domains.contains(mailbox.domain())
        && router.resolve(mailbox) == Resolution::Unknown
}

/// Tells of messages in the queue that are for nobody any more.
fn look_at_recipients(host: &Host<'_>, router: &LocalRouter, findings: &mut Findings) {
    let spool = &host.settings.server.spool;
    let Ok(reader) = SpoolReader::open(spool) else { return };
    let ids = reader.ids().unwrap_or_default();
    let mut lines = 0;
    for id in ids.into_iter().take(MAX_MESSAGES) {
        // What cannot be read is the server's to set aside, and may have been delivered just now.
        let Ok((message, progress)) = reader.load(id) else { continue };
        let progress = progress.unwrap_or_else(|| Progress::new(message.envelope()));
        let open = progress.recipients.iter().filter(|recipient| recipient.is_open());
        let mut nobody =
            open.filter(|it| it.way == Way::Routed && is_nobody(router, host, &it.mailbox));
        if let Some(recipient) = nobody.next() {
            lines += 1;
            if lines > MAX_LINES {
                return;
            }
            let text = format!(
                "it is for {}, who is not known here any more, and goes back at the next try; make \
                 the account or an alias, or hold it: mailwren queue hold {id}",
                recipient.mailbox
            );
            findings.warning(&spool.join("queue").join(id.to_string()), None, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::tests::{Facts, host_of};
    use super::*;
    use std::fs;

    fn said(facts: &Facts) -> Vec<String> {
        let mut findings = Findings::default();
        look(&host_of(facts), &mut findings);
        let home = facts.home.path().to_str().unwrap();
        findings.iter().map(|it| it.to_string().replace(home, "HOME")).collect()
    }

    #[test]
    fn what_was_kept_and_what_waits_is_counted() {
        let facts = Facts::new(
            "[server]\nspool = HOME\n[local]\nformat = maildir\npath = HOME/{user}\nusers = any\naliases =\n",
        );
        assert!(said(&facts).is_empty());
        for name in ["corrupt", "failed", "drop", "queue", "state"] {
            fs::create_dir(facts.home.path().join(name)).unwrap();
        }
        assert!(said(&facts).is_empty());
        let id = QueueId::generate(1_795_000_000_000_000, 0).to_string();
        for name in ["corrupt/x.drop", "failed/x", "failed/x.state", "drop/.y", "wake"] {
            fs::write(facts.home.path().join(name), "").unwrap();
        }
        fs::write(facts.home.path().join("drop").join(id), "").unwrap();
        let lines = said(&facts);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("HOME/corrupt: warning: 1 files there cannot be read"));
        assert!(lines[1].starts_with("HOME/failed: warning: 1 files there failed"));
        assert!(lines[2].starts_with("HOME/drop: warning: no server runs, and 1 message waits"));
    }

    #[test]
    fn who_takes_what_nobody_gets_must_be_somebody() {
        let text = "[server]\nhostname = mx.test\nspool = HOME\n[local]\nformat = maildir\n\
                    path = HOME/{user}\nusers = HOME/users\naliases =\n\
                    [queue]\ndouble_bounce = bob\n";
        let facts = Facts::new(text);
        fs::write(facts.home.path().join("users"), "ann\n").unwrap();
        let lines = said(&facts);
        assert_eq!(
            lines,
            [
                "HOME/mailwren.ini:10: [queue] double_bounce: bob@mx.test is not known here; mend the name"
            ]
        );
    }
}
