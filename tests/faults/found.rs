//! What is found on a disk: the copies in the mailboxes, and what the spool still owes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use mailwren::config::settings::MailboxFormat;
use mailwren::mail::address::ReversePath;
use mailwren::route::addressee::Way;
use mailwren::spool::progress::{Progress, RecipientState, State};
use mailwren::spool::store::SpoolReader;

use crate::scenario::{EARLIER, OWNER, SENDER, Scenario, behind};

/// A message and who should get it; for a report `report`.
pub(crate) type Item = (String, &'static str);

/// How many there are of each.
pub(crate) type Counts = BTreeMap<Item, usize>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Whole copies in mailboxes.
    pub(crate) copies: Counts,
    /// What the queue says is still to be delivered.
    pub(crate) owed: Counts,
    /// Messages in mboxes that break off.
    pub(crate) torn: usize,
    /// Files in tmp of Maildirs.
    pub(crate) temporary: usize,
    /// Files that nobody needs: drafts, records of no message, locks.
    pub(crate) left_over: Vec<String>,
}

/// Looks through the spool and the mailboxes in `root`.
///
/// # Errors
/// When a mailbox holds what it must never hold.
pub(crate) fn look(scenario: &Scenario, root: &Path) -> Result<Found, String> {
    let mut found = Found::default();
    found.look_at_spool(&root.join("spool"));
    for user in ["ann", "bob", "sue"] {
        let path = root.join("mail").join(user);
        match scenario.format {
            MailboxFormat::Maildir => found.look_at_maildir(scenario, user, &path)?,
            MailboxFormat::Mbox => found.look_at_mbox(scenario, user, &path)?,
        }
    }
    Ok(found)
}

impl Found {
    fn look_at_spool(&mut self, spool: &Path) {
        let reader = SpoolReader::open(spool).unwrap();
        for id in reader.ids().unwrap() {
            // One that is not whole is removed by the next start.
            let Ok((message, progress)) = reader.load(id) else { continue };
            let progress = progress.unwrap_or_else(|| Progress::new(message.envelope()));
            let mut content = String::new();
            let _ = message.reader().read_to_string(&mut content);
            let key = key(&content).unwrap_or_else(|| "?".to_owned());
            for to in progress.recipients.iter().filter(|to| to.state == State::Pending) {
                for to in behind_recipient(&message.envelope().reverse_path, to) {
                    *self.owed.entry((key.clone(), to)).or_default() += 1;
                }
            }
        }
        for folder in ["queue", "state", "corrupt"] {
            let entries = fs::read_dir(spool.join(folder)).unwrap();
            let name = |it: fs::DirEntry| format!("{folder}/{}", it.file_name().display());
            self.left_over.extend(entries.map(|it| name(it.unwrap())));
        }
    }

    fn look_at_maildir(
        &mut self,
        scenario: &Scenario,
        user: &str,
        path: &Path,
    ) -> Result<(), String> {
        let files = |name: &str| fs::read_dir(path.join(name)).into_iter().flatten();
        self.temporary += files("tmp").count();
        for entry in files("new") {
            let path = entry.unwrap().path();
            let octets = fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&octets);
            let item = whole(scenario, user, &text).filter(|_| text.ends_with('\n'));
            let item = item.ok_or_else(|| {
                format!("half a message of {} octets is {}", text.len(), path.display())
            })?;
            *self.copies.entry(item).or_default() += 1;
        }
        Ok(())
    }

    fn look_at_mbox(&mut self, scenario: &Scenario, user: &str, path: &Path) -> Result<(), String> {
        if path.with_extension("lock").exists() {
            self.left_over.push(format!("{user}.lock"));
        }
        let octets = fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&octets);
        let earlier = if user == "ann" { EARLIER } else { "" };
        let Some(rest) = text.strip_prefix(earlier) else {
            return Err(format!("the earlier message of {user} is damaged"));
        };
        let mut rest = rest;
        while !rest.is_empty() {
            let end = rest.find("\n\nFrom ").map_or(rest.len(), |end| end + 2);
            let (message, behind) = rest.split_at(end);
            let body = message.strip_prefix("From ").and_then(|it| it.split_once('\n'));
            let text = body.map_or("", |(_, text)| text.trim_end_matches('\n'));
            // What breaks off before its own From_ line hangs on the message before it.
            let ends = text.match_indices("\n\n").map(|(end, _)| end).chain([text.len()]);
            let mut found =
                ends.filter_map(|end| Some((whole(scenario, user, &text[..end])?, end)));
            let found = found.next();
            self.torn += usize::from(found.as_ref().is_none_or(|(_, end)| *end < text.len()));
            if let Some((item, _)) = found {
                *self.copies.entry(item).or_default() += 1;
            }
            rest = behind;
        }
        Ok(())
    }
}

/// Which message this is, if it is whole. It may lack the end of its last line.
fn whole(scenario: &Scenario, user: &str, text: &str) -> Option<Item> {
    let text = text.trim_end_matches('\n');
    let key = key(text)?;
    let to = behind(&format!("{user}@home.test"))[0];
    if text.starts_with("Return-Path: <>\n") {
        let to = if user == "sue" { to } else { "report to owner" };
        let head = format!("Return-Path: <>\nDelivered-To: {user}@home.test\n");
        let boundary = text.split_once("boundary=\"")?.1.split_once('"')?.0;
        let is_whole = text.starts_with(&head) && text.ends_with(&format!("\n--{boundary}--"));
        return is_whole.then_some((key, to));
    }
    let body = scenario.content(&key).replace("\r\n", "\n");
    let sent_by = |sender: &str| {
        let whole = format!("Return-Path: <{sender}>\nDelivered-To: {user}@home.test\n{body}");
        text == whole.trim_end_matches('\n')
    };
    (sent_by(SENDER) || sent_by(OWNER)).then_some((key, to))
}

/// Who gets what is for a recipient on record.
fn behind_recipient(from: &ReversePath, to: &RecipientState) -> &'static [&'static str] {
    let mailbox = &to.mailbox.to_string()[..];
    match (&to.way, &to.sender) {
        (Way::Command(_), _) => &["command"],
        (_, Some(_)) if mailbox.starts_with("nobody") => &["report to owner"],
        _ if *from == ReversePath::Null && mailbox == OWNER => &["report to owner"],
        _ => behind(mailbox),
    }
}

/// The key of a message, or of the one that a report is about. The latter may lack its header,
/// when that could not be read, but never the recipient.
fn key(content: &str) -> Option<String> {
    if let Some((_, behind)) = content.split_once("nobody+") {
        return Some(behind.split_once('@')?.0.to_owned());
    }
    let line = content.lines().find(|line| line.starts_with("Subject: m"))?;
    Some(line["Subject: ".len()..].to_owned())
}
