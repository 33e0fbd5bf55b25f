//! What is said at each station of a message: one line in the log, with the message's id in front,
//! and the same in the journal of events. Values are `key=value`; a text is in double quotes, with
//! quotes, backslashes and control characters escaped; so is anything else that has a blank or a
//! quote in it. No content, no secrets.

use std::time::Duration;

use log::Level;

use crate::deliver::outcome::{Failure, Outcome};
use crate::mail::address::Mailbox;
use crate::report::event::{Fields, Station};
use crate::report::events;
use crate::report::notification::Reported;
use crate::route::addressee::{Expansion, Way};
use crate::spool::id::QueueId;
use crate::spool::message::StoredMessage;
use crate::spool::progress::RecipientState;

/// The server takes mail. Its log has said so in its own words.
pub fn started() {
    let pid = std::process::id();
    let fields = Fields::default().with("version", env!("CARGO_PKG_VERSION")).with("pid", pid);
    events::note(None, Station::Started, &fields);
}

/// The server ends in order; nothing is told after this.
pub fn stopped() {
    events::note(None, Station::Stopped, &Fields::default().with("pid", std::process::id()));
    events::finish();
}

/// A message from `client`, which logged in as `user`, is in the spool.
pub fn received(message: &StoredMessage, client: &str, user: Option<&str>, took: Duration) {
    if !log::log_enabled!(Level::Info) && !events::is_kept() {
        return;
    }
    let envelope = message.envelope();
    let recipients = envelope.recipients.iter().map(|to| format!("<{}>", to.mailbox));
    let mut fields = Fields::default()
        .with("from", &envelope.reverse_path)
        .with_list("to", recipients)
        .with("size", message.size_octets())
        .with_text("client", client);
    if let Some(user) = user {
        fields = fields.with_text("user", user);
    }
    tell(Level::Info, envelope.id, Station::Received, &fields.with("took", milliseconds(took)));
}

/// A try for one recipient has ended.
pub fn outcome(id: QueueId, to: &RecipientState, outcome: &Outcome, took: Duration) {
    let (fields, took) = (named(to), milliseconds(took));
    match outcome {
        Outcome::Delivered { place } => {
            let fields = fields.with_text("place", place).with("took", took);
            tell(Level::Info, id, Station::Delivered, &fields);
        }
        Outcome::Relayed { remote, reply, tls, .. } => {
            let fields = fields.with("host", remote).with_some("tls", *tls);
            let fields = fields.with_text("reply", reply).with("took", took);
            tell(Level::Info, id, Station::Relayed, &fields);
        }
        Outcome::Expanded(expansion) => expanded(id, fields, expansion),
        Outcome::Deferred(failure) => {
            tell(Level::Warn, id, Station::Deferred, &failed(fields, failure).with("took", took));
        }
        Outcome::Failed(failure) => {
            tell(Level::Warn, id, Station::Bounced, &failed(fields, failure).with("took", took));
        }
    }
}

fn expanded(id: QueueId, fields: Fields, Expansion { into, owner }: &Expansion) {
    let fields = fields
        .with_list("into", into.iter().map(ToString::to_string))
        .with("count", into.len())
        .with_some("owner", owner.as_ref().map(|owner| format!("<{owner}>")));
    tell(Level::Info, id, Station::Expanded, &fields);
}

/// `to=<ann@home.example>`, and with a command or a file `way="|command"`.
fn named(to: &RecipientState) -> Fields {
    let RecipientState { mailbox, way, .. } = to;
    let fields = Fields::default().with("to", format_args!("<{mailbox}>"));
    match way {
        Way::Routed | Way::User | Way::Mailbox => fields,
        Way::Command(_) | Way::File(_) => fields.with_text("way", &way.to_string()),
    }
}

/// The failure's status, and its text, or who said what where it was a remote host.
fn failed(fields: Fields, failure: &Failure) -> Fields {
    let reason = match &failure.remote {
        None => failure.text.clone(),
        Some(remote) => format!("{} said: {}", remote.host, remote.reply),
    };
    fields.with("status", failure.status).with_text("reason", &reason)
}

/// A message went into another one, together with others.
pub fn gathered(id: QueueId, to: &RecipientState, into: QueueId) {
    tell(Level::Info, id, Station::Gathered, &named(to).with("in", into));
}

/// A report is in the spool, which is a message of its own.
pub fn reported(id: QueueId, to: &Mailbox, recipients: &[Reported<'_>], report: QueueId) {
    let mut actions: Vec<_> = recipients.iter().map(|reported| reported.action).collect();
    actions.sort_unstable();
    actions.dedup();
    let actions: Vec<_> = actions.iter().map(ToString::to_string).collect();
    let fields = Fields::default()
        .with("to", format_args!("<{to}>"))
        .with("what", actions.join(","))
        .with("count", recipients.len())
        .with("in", report);
    tell(Level::Info, id, Station::Reported, &fields);
}

/// An automatic reply for `user` is in the spool, which is a message of its own.
pub fn replied(id: QueueId, to: &Mailbox, user: &str, reply: QueueId) {
    let fields = Fields::default().with("to", format_args!("<{to}>"));
    tell(Level::Info, id, Station::Replied, &fields.with("for", user).with("in", reply));
}

/// A person has changed what becomes of a message: the account `by`, whose user id is `uid`.
pub fn decided(id: QueueId, station: Station, by: &str, uid: u32) {
    tell(Level::Info, id, station, &Fields::default().with("by", by).with("uid", uid));
}

/// Tells it to the log and to the journal.
fn tell(level: Level, id: QueueId, station: Station, fields: &Fields) {
    log::log!(level, "{id}: {} {fields}", station.name());
    events::note(Some(id), station, fields);
}

fn milliseconds(took: Duration) -> String {
    format!("{}ms", took.as_millis())
}
