//! `mailwren trace`: the story of a message, or of all messages of an address, from the journal of
//! events and from the queue.

mod story;

use std::io;

use serde_json::json;

use super::Ran;
use super::invocation::{Argument, Invocation};
use super::output::{say, warn};
use super::queue::selection::Pattern;
use crate::config::settings::Settings;
use crate::report::event::Event;
use crate::report::events::reader::Reader;
use crate::spool::id::QueueId;
use crate::sys::clock;
use crate::sys::process::exit;
use story::{Chosen, Stories};

/// What stands behind the options in the help.
pub(super) const NOTES: &str = "\
ID is a message, whose reports, digests and automatic replies are shown with
it; ADDRESS stands for the last 20 messages with that sender or recipient, a
domain for those of everybody there, and <> for reports.";

/// `mailwren trace`. The exit code is one of sysexits(3).
pub(super) fn run(invocation: &mut Invocation) -> Ran {
    let (mut wanted, mut is_json) = (None, false);
    while let Some(argument) = invocation.next_argument()? {
        match argument {
            Argument::Flag("json") => is_json = true,
            Argument::Operand(word) if wanted.is_none() => {
                wanted = Some(word.to_string_lossy().into_owned());
            }
            other => return Err(other.unexpected()),
        }
    }
    let Some(wanted) = wanted else { return Err("trace: name an id or an address".into()) };
    let settings = match invocation.settings() {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    let chosen = match choose(&wanted, &settings) {
        Ok(chosen) => chosen,
        Err(error) => return Err(format!("trace {wanted:?}: {error}").into()),
    };
    Ok(match tell(&chosen, &wanted, is_json, &settings) {
        Ok(code) => code,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let or_as = match settings.server.user.as_str() {
                "root" => String::new(),
                user => format!(" or as {user}"),
            };
            warn(format_args!(
                "the journal of events in {} and the queue in {} are not ours to read; run this \
                 as root{or_as}",
                settings.server.state.display(),
                settings.server.spool.display()
            ));
            exit::NOPERM
        }
        Err(error) => {
            warn(format_args!("the journal of events cannot be read: {error}"));
            exit::OSERR
        }
    })
}

/// A name without a domain is one at our own.
fn choose(wanted: &str, settings: &Settings) -> Result<Chosen, String> {
    if let Ok(id) = wanted.parse() {
        return Ok(Chosen::Id(id));
    }
    let origin = settings.server.domains.origin();
    let is_name = !wanted.contains(['@', '.', '<', '[']) && origin.to_string() != wanted;
    let wanted = if is_name { format!("{wanted}@{origin}") } else { wanted.to_owned() };
    Pattern::parse(&wanted).map(Chosen::Pattern)
}

fn tell(chosen: &Chosen, wanted: &str, is_json: bool, settings: &Settings) -> io::Result<u8> {
    let stories = Stories::read(chosen, settings)?;
    if stories.is_empty() && stories.is_queue_hidden {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    if is_json {
        say(stories.to_json(wanted, settings));
    } else {
        stories.print();
    }
    if stories.unreadable > 0 && !is_json {
        warn(format_args!(
            "{} lines of the journal are torn or not its own; they were left out",
            stories.unreadable
        ));
    }
    if !stories.is_empty() {
        return Ok(exit::OK);
    }
    if !is_json {
        warn(format_args!("{wanted:?} is neither in the queue nor in the journal of events"));
        warn(why_unknown(chosen, &stories, settings));
    }
    Ok(exit::NOINPUT)
}

/// What may be the reason why nothing is known.
fn why_unknown(chosen: &Chosen, stories: &Stories, settings: &Settings) -> String {
    let Some(first) = &stories.first else {
        return match settings.events_size {
            0 => "no journal is kept: [log] events = 0".to_owned(),
            _ => format!(
                "the journal is empty: no server has run with [server] state = {} since it is kept",
                settings.server.state.display()
            ),
        };
    };
    let since = moment(first);
    let made = match chosen {
        Chosen::Id(id) => id.made_at(),
        Chosen::Pattern(_) => return format!("the journal goes back to {since}"),
    };
    let is_before = !clock::was_not_set(made) && !first.was_clock_unset() && made < first.at;
    match is_before {
        true => format!(
            "it was received {}; the journal goes back to {since}; [log] events says how much it keeps",
            clock::local_time(made).rfc3339()
        ),
        false => format!("the journal goes back to {since}: see that the id is right"),
    }
}

/// When it was, for people.
fn moment(event: &Event) -> String {
    match event.was_clock_unset() {
        true => format!("{} (clock not set)", event.time()),
        false => event.time().to_owned(),
    }
}

/// An event for programs.
pub(super) fn to_json(event: &Event) -> serde_json::Value {
    let fields: serde_json::Map<_, _> =
        event.fields().iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    json!({
        "time": event.time(),
        "clock_was_set": !event.was_clock_unset(),
        "id": event.id.map(|id: QueueId| id.to_string()),
        "event": event.station.name(),
        "fields": fields,
    })
}

/// The journal, opened to be read.
pub(super) fn journal(settings: &Settings) -> io::Result<Reader> {
    Reader::open(&settings.server.state)
}
