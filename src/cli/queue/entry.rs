//! A message in the queue as a list shows it.

use std::collections::HashSet;
use std::io;

use serde_json::{Value, json};

use super::selection::Selection;
use super::words::Span;
use crate::cli::output::warn;
use crate::mail::address::ReversePath;
use crate::route::addressee::Way;
use crate::spool::format::ReadError;
use crate::spool::id::QueueId;
use crate::spool::message::StoredMessage;
use crate::spool::progress::{Hold, Progress, RecipientState, State};
use crate::spool::store::SpoolReader;
use crate::sys::{clock, filelock};

/// A message, what became of it so far, and what it does at the moment.
pub(in crate::cli) struct Entry {
    pub(in crate::cli) message: StoredMessage,
    pub(in crate::cli) progress: Progress,
    /// Whether somebody is at work on it.
    pub(in crate::cli) is_active: bool,
    /// Seconds since 1970.
    now: u64,
}

impl Entry {
    pub(in crate::cli) fn id(&self) -> QueueId {
        self.message.envelope().id
    }

    /// The sender without brackets, `<>` for the null path.
    pub(in crate::cli) fn sender(&self) -> String {
        match &self.message.envelope().reverse_path {
            ReversePath::Null => "<>".to_owned(),
            ReversePath::Mailbox(mailbox) => mailbox.to_string(),
        }
    }

    /// Seconds since it was received; the time that it is known to have waited where the clock
    /// was or is wrong.
    pub(in crate::cli) fn age(&self) -> u64 {
        self.seconds_since(self.message.envelope().received_at).unwrap_or(self.progress.waited)
    }

    /// `by root for 5m`, if somebody holds it.
    pub(in crate::cli) fn held(&self) -> Option<String> {
        let Hold { since, by } = self.progress.held.as_ref()?;
        let span = self.seconds_since(*since).map(|seconds| format!(" for {}", Span(seconds)));
        Some(format!("by {by}{}", span.unwrap_or_default()))
    }

    /// Seconds since a moment that the clock told; `None` where it was or is wrong.
    fn seconds_since(&self, moment: u64) -> Option<u64> {
        let is_known = !clock::was_not_set(moment) && !clock::was_not_set(self.now);
        is_known.then(|| self.now.saturating_sub(moment))
    }

    /// The message's state in one word.
    pub(in crate::cli) fn state(&self) -> &'static str {
        match () {
            () if self.progress.given_up_by.is_some() => "bouncing",
            () if self.progress.held.is_some() => "held",
            () if self.is_active => "active",
            () if self.is_gathered() => "gathered",
            () if self.progress.attempts > 0 => "deferred",
            () => "pending",
        }
    }

    /// Whether all who still wait do so to get it together with other messages.
    fn is_gathered(&self) -> bool {
        let mut open = self.progress.recipients.iter().filter(|it| it.is_open()).peekable();
        open.peek().is_some() && open.all(|it| it.gathered_until.is_some())
    }

    /// A recipient's state in one word.
    pub(in crate::cli) fn state_of(&self, recipient: &RecipientState) -> &'static str {
        match recipient.state {
            State::Pending if self.progress.given_up_by.is_some() => "bouncing",
            State::Pending if self.progress.held.is_some() => "held",
            State::Pending if recipient.gathered_until.is_some() => "gathered",
            State::Pending if recipient.last_try.is_some() => "deferred",
            state => state.name(),
        }
    }

    /// A recipient's address and, where it is a command or a file, that one, in quotes with what
    /// could steer a terminal escaped; before a mailbox by itself stands the `\` of aliases(5).
    pub(in crate::cli) fn name_of(recipient: &RecipientState) -> String {
        let RecipientState { mailbox, way, .. } = recipient;
        match way {
            Way::Routed | Way::User | Way::Mailbox => format!("{way}{mailbox}"),
            Way::Command(_) | Way::File(_) => format!("{mailbox} {:?}", way.to_string()),
        }
    }

    /// When a recipient is tried again, in seconds since 1970; `None` where that is not known
    /// or will not be.
    pub(in crate::cli) fn next_try(&self, recipient: &RecipientState) -> Option<u64> {
        let is_waiting = matches!(self.state_of(recipient), "pending" | "deferred");
        let moment = Some(self.progress.next_try).filter(|moment| is_waiting && *moment > 0)?;
        self.believed(moment)
    }

    /// Until when a recipient waits to get the message together with others, if it does and that
    /// is known.
    pub(in crate::cli) fn gathered_until(&self, recipient: &RecipientState) -> Option<u64> {
        let is_waiting = self.state_of(recipient) == "gathered";
        recipient.gathered_until.filter(|_| is_waiting).and_then(|until| self.believed(until))
    }

    /// A moment to come, unless the clock was set since it was noted, or has lost its time.
    fn believed(&self, moment: u64) -> Option<u64> {
        (clock::was_not_set(moment) == clock::was_not_set(self.now)).then_some(moment)
    }

    /// The seconds until a moment, as the clock shows it.
    pub(in crate::cli) fn seconds_until(&self, moment: u64) -> u64 {
        moment.saturating_sub(self.now)
    }

    /// The message for programs.
    pub(in crate::cli) fn to_json(&self) -> Value {
        let held = self.progress.held.as_ref();
        let recipients: Vec<_> = self
            .progress
            .recipients
            .iter()
            .map(|recipient| {
                json!({
                    "address": recipient.mailbox.to_string(),
                    "way": Some(recipient.way.to_string()).filter(|way| !way.is_empty()),
                    "sender": recipient.sender.as_ref().map(ToString::to_string),
                    "state": self.state_of(recipient),
                    "next_try": self.next_try(recipient),
                    "gathered_until": self.gathered_until(recipient),
                    "last_reply": recipient.last_try.as_ref().map(|last| &last.text),
                    "last_try": recipient.last_try.as_ref().map(|last| last.at),
                    "status": recipient.last_try.as_ref().map(|last| last.status.to_string()),
                    "host": recipient.last_try.as_ref().map(|last| &last.host),
                })
            })
            .collect();
        json!({
            "id": self.id().to_string(),
            "age": self.age(),
            "size": self.message.size_octets(),
            "sender": self.message.envelope().reverse_path.mailbox().map(ToString::to_string)
                .unwrap_or_default(),
            "state": self.state(),
            "attempts": self.progress.attempts,
            "received": self.message.envelope().received_at,
            "client": self.message.envelope().client,
            "held_by": held.map(|hold| &hold.by),
            "held_since": held.map(|hold| hold.since),
            "recipients": recipients,
        })
    }
}

/// Hands each selected message to `take`, one at a time, so that a long queue takes no memory.
/// Returns how many named ones are not there or cannot be read.
///
/// # Errors
/// When the spool cannot be read, or `take` fails.
pub(in crate::cli) fn each(
    spool: &SpoolReader,
    selection: &Selection,
    mut take: impl FnMut(Entry) -> io::Result<()>,
) -> io::Result<usize> {
    let (locked, now) = (filelock::locked_inodes(), clock::since_1970().as_secs());
    let mut missing = 0;
    for id in selection.candidates(spool)? {
        match load(spool, id, &locked, now) {
            Ok(entry) if selection.matches(entry.message.envelope(), &entry.progress) => {
                take(entry)?;
            }
            Ok(_) => {}
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                // One that was not named was delivered and removed since the names were read.
                if !selection.ids().is_empty() {
                    warn(format_args!("{id}: is not in the queue"));
                    missing += 1;
                }
            }
            Err(error) => {
                warn(format_args!("{id}: cannot be read: {error}"));
                missing += 1;
            }
        }
    }
    Ok(missing)
}

/// Hands each selected message that is there and can be read to `take`, and says nothing of others.
///
/// # Errors
/// As [`each`].
pub(in crate::cli) fn each_there(
    spool: &SpoolReader,
    selection: &Selection,
    mut take: impl FnMut(Entry) -> io::Result<()>,
) -> io::Result<()> {
    let (locked, now) = (filelock::locked_inodes(), clock::since_1970().as_secs());
    for id in selection.candidates(spool)? {
        match load(spool, id, &locked, now) {
            Ok(entry) if selection.matches(entry.message.envelope(), &entry.progress) => {
                take(entry)?;
            }
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(error);
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

fn load(
    spool: &SpoolReader,
    id: QueueId,
    locked: &HashSet<u64>,
    now: u64,
) -> Result<Entry, ReadError> {
    let (message, progress) = spool.load(id)?;
    let progress = progress.unwrap_or_else(|| Progress::new(message.envelope()));
    let is_active = message.inode().is_some_and(|inode| locked.contains(&inode));
    Ok(Entry { message, progress, is_active, now })
}
