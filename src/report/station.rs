//! One log line at each station of a message, with its id in front: `received`, `delivered`,
//! `relayed`, `gathered`, `expanded`, `deferred`, `bounced`, `reported`, `replied`. Values are
//! `key=value`; a text is in double quotes, with quotes, backslashes and control characters
//! escaped. No content, no secrets.

use std::time::Duration;

use crate::deliver::outcome::{Failure, Outcome};
use crate::mail::address::Mailbox;
use crate::report::notification::Reported;
use crate::route::addressee::{Expansion, Way};
use crate::spool::id::QueueId;
use crate::spool::message::StoredMessage;
use crate::spool::progress::RecipientState;

/// Recipients that a `received` line names; the rest are counted.
const MAX_NAMED: usize = 10;

/// A message from `client`, which logged in as `user`, is in the spool.
pub fn received(message: &StoredMessage, client: &str, user: Option<&str>, took: Duration) {
    if !log::log_enabled!(log::Level::Info) {
        return;
    }
    let envelope = message.envelope();
    let named: Vec<_> =
        envelope.recipients.iter().take(MAX_NAMED).map(|to| format!("<{}>", to.mailbox)).collect();
    let more = match envelope.recipients.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(",+{more}"),
    };
    let user = user.map_or_else(String::new, |user| format!(" user={user:?}"));
    log::info!(
        "{}: received from={} to={}{more} size={} client={client:?}{user} took={}",
        envelope.id,
        envelope.reverse_path,
        named.join(","),
        message.size_octets(),
        milliseconds(took),
    );
}

/// A try for one recipient has ended.
pub fn outcome(id: QueueId, to: &RecipientState, outcome: &Outcome, took: Duration) {
    let (to, took) = (named(to), milliseconds(took));
    match outcome {
        Outcome::Delivered { place } => {
            log::info!("{id}: delivered {to} place={place:?} took={took}")
        }
        Outcome::Relayed { remote, reply, tls, .. } => {
            let tls = tls.map(|version| format!(" tls={version}")).unwrap_or_default();
            log::info!("{id}: relayed {to} host={remote}{tls} reply={reply:?} took={took}");
        }
        Outcome::Expanded(expansion) => expanded(id, &to, expansion),
        Outcome::Deferred(failure) => {
            log::warn!(
                "{id}: deferred {to} status={} reason={:?} took={took}",
                failure.status,
                reason(failure)
            );
        }
        Outcome::Failed(failure) => {
            log::warn!(
                "{id}: bounced {to} status={} reason={:?} took={took}",
                failure.status,
                reason(failure)
            );
        }
    }
}

fn expanded(id: QueueId, to: &str, Expansion { into, owner }: &Expansion) {
    let count = into.len();
    let into: Vec<_> = into.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    let owner = owner.as_ref().map_or_else(String::new, |owner| format!(" owner=<{owner}>"));
    log::info!("{id}: expanded {to} into={} count={count}{owner}", into.join(","));
}

/// `to=<ann@home.example>`, and with a command or a file `way="|command"`.
fn named(to: &RecipientState) -> String {
    let RecipientState { mailbox, way, .. } = to;
    match way {
        Way::Routed | Way::User | Way::Mailbox => format!("to=<{mailbox}>"),
        Way::Command(_) | Way::File(_) => format!("to=<{mailbox}> way={:?}", way.to_string()),
    }
}

/// A message went into another one, together with others.
pub fn gathered(id: QueueId, to: &RecipientState, into: QueueId) {
    log::info!("{id}: gathered {} in={into}", named(to));
}

/// A report is in the spool, which is a message of its own.
pub fn reported(id: QueueId, to: &Mailbox, recipients: &[Reported<'_>], report: QueueId) {
    let mut actions: Vec<_> = recipients.iter().map(|reported| reported.action).collect();
    actions.sort_unstable();
    actions.dedup();
    let actions: Vec<_> = actions.iter().map(ToString::to_string).collect();
    log::info!(
        "{id}: reported to=<{to}> what={} count={} in={report}",
        actions.join(","),
        recipients.len()
    );
}

/// An automatic reply for `user` is in the spool, which is a message of its own.
pub fn replied(id: QueueId, to: &Mailbox, user: &str, reply: QueueId) {
    log::info!("{id}: replied to=<{to}> for={user} in={reply}");
}

/// A failure in one line: the text, or who said what where it was a remote host.
fn reason(failure: &Failure) -> String {
    match &failure.remote {
        None => failure.text.clone(),
        Some(remote) => format!("{} said: {}", remote.host, remote.reply),
    }
}

fn milliseconds(took: Duration) -> String {
    format!("{}ms", took.as_millis())
}
