//! The status in words, and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::backlog::{Backlog, Destination};
use super::{Activity, Server, Status};
use crate::cli::queue::words::{Size, Span};
use crate::cli::trace;
use crate::mail::text::one_line;
use crate::report::event::Event;
use crate::sys::clock;
use crate::sys::syslog::cut;

/// The most destinations on a screen.
const MAX_SHOWN: usize = 10;
/// The most characters of an error on a screen.
const MAX_ERROR: usize = 200;
/// The columns of a screen. Longer lines go on in the next one.
const COLUMNS: usize = 80;
/// Its rows, but for the prompt behind it.
const ROWS: usize = 23;
/// The fewest rows for destinations, however much else there is.
const LEAST_ROOM: usize = 3;
/// What stands before an error.
const ERROR: &str = "    last error: ";
/// How far what goes on stands behind the beginning of its line.
const DENT: usize = 4;

impl Status<'_> {
    /// The screen, without the end of its last line. What comes from outside is printable ASCII in
    /// the records of the queue, and escaped in the journal.
    pub(super) fn screen(&self) -> String {
        let state = self.settings.server.state.display().to_string();
        let mut text = self.server.to_string(&state, self.looked_at);
        let written = match (&self.server, self.written_octets) {
            (Server::Runs(_), Some(octets)) => format!("{} since the start", Size(octets)),
            (Server::Runs(_), None) => "root is told, where the kernel counts it".to_owned(),
            _ => "not known".to_owned(),
        };
        let free = match &self.free_octets {
            Ok(octets) => Size(*octets).to_string(),
            Err(why) => why.clone(),
        };
        add(&mut text, format_args!("written to disk: {written}; free in the spool: {free}\n"));
        let mut rest = String::from("\n");
        match (&self.activity, self.settings.events_size) {
            (_, 0) => add(&mut rest, format_args!("today: no journal is kept: [log] events = 0")),
            (Ok(activity), _) => add_activity(&mut rest, activity),
            (Err(why), _) => add(&mut rest, format_args!("today: {why}")),
        }
        match &self.backlog {
            Ok(backlog) => {
                let room = ROWS.saturating_sub(rows(&text) + rows(&rest));
                add_backlog(&mut text, backlog, room);
            }
            Err(why) => add(&mut text, format_args!("queue: {why}")),
        }
        text.push_str(&rest);
        text.truncate(text.trim_end().len());
        text
    }

    /// The same for programs. What is not known is null.
    pub(super) fn to_json(&self) -> Value {
        let (state, running) = match &self.server {
            Server::Runs(running) => ("running", Some(running)),
            Server::RunsUnrecorded => ("running", None),
            Server::IsDown => ("down", None),
            Server::IsHidden => ("unknown", None),
        };
        json!({
            "server": {
                "state": state,
                "pid": running.map(|it| it.pid),
                "version": running.map(|it| &it.version),
                "up_seconds": running.map(|it| it.up.as_secs()),
                "listeners": running.map(|it| &it.listeners),
                "written_octets": self.written_octets,
            },
            "command_version": env!("CARGO_PKG_VERSION"),
            "spool_free_octets": self.free_octets.as_ref().ok(),
            "queue": self.backlog.as_ref().ok().map(backlog_json),
            "today": self.activity.as_ref().ok().filter(|_| self.settings.events_size > 0)
                .map(activity_json),
            "last_deliveries": self.activity.as_ref().ok()
                .map(|activity| activity.last.iter().map(trace::to_json).collect::<Vec<_>>()),
        })
    }
}

impl Server {
    fn to_string(&self, state: &str, looked_at: Duration) -> String {
        let version = env!("CARGO_PKG_VERSION");
        match self {
            Self::Runs(running) => {
                let up = Span(running.up.as_secs());
                let since = looked_at.saturating_sub(running.up).as_secs();
                let since = match clock::was_not_set(since) {
                    true => String::new(),
                    false => format!(" (since {})", clock::local_time(since).rfc3339()),
                };
                let (running_version, pid) = (&running.version, running.pid);
                let mut text = String::new();
                add(
                    &mut text,
                    format_args!(
                        "mailwren {running_version} runs as process {pid}, up {up}{since}"
                    ),
                );
                for listener in &running.listeners {
                    add(&mut text, format_args!("listening on {listener}"));
                }
                if running.version != version {
                    add(
                        &mut text,
                        format_args!("this command is {version}: restart the server for that"),
                    );
                }
                text
            }
            Self::RunsUnrecorded => wrapped(&format!(
                "mailwren runs, but its record {state}/server is not there: see that the server \
                 can write there\n"
            )),
            Self::IsDown => format!("mailwren is not running; this command is {version}\n"),
            Self::IsHidden => "whether mailwren runs, only root is told\n".to_owned(),
        }
    }
}

fn add(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.push_str(&wrapped(&line.to_string()));
    text.push('\n');
}

/// A line broken at its blanks. A word that is wider than the screen stays whole.
fn wrapped(line: &str) -> String {
    let indent = line.chars().take_while(|c| *c == ' ').count();
    let (mut text, mut column) = (" ".repeat(indent), indent);
    // What stands before the next word.
    let mut blanks = 0;
    for word in line.trim_start_matches(' ').split(' ') {
        let width = word.chars().count();
        if blanks > 0 && width > 0 && column + blanks + width > COLUMNS {
            text.push('\n');
            (blanks, column) = (indent + DENT, 0);
        }
        if width > 0 {
            text.push_str(&" ".repeat(blanks));
            text.push_str(word);
            column += blanks + width;
            blanks = 0;
        }
        blanks += 1;
    }
    text
}

fn rows(text: &str) -> usize {
    text.lines().count()
}

/// Adds the queue in so many rows, and no fewer than [`LEAST_ROOM`] for destinations: those for
/// which most wait.
fn add_backlog(text: &mut String, backlog: &Backlog, room: usize) {
    if backlog.messages == 0 {
        return add(text, format_args!("queue: empty"));
    }
    let states: Vec<_> =
        backlog.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let (octets, states) = (Size(backlog.octets), states.join(", "));
    let messages = if backlog.messages == 1 { "message" } else { "messages" };
    add(text, format_args!("queue: {} {messages}, {octets}: {states}", backlog.messages));
    let destinations = backlog.destinations();
    let (mut room, mut shown) = (room.saturating_sub(1).max(LEAST_ROOM), 0);
    for (name, destination) in destinations.iter().take(MAX_SHOWN) {
        // The last row is for what is elsewhere.
        let is_more = shown + 1 < destinations.len() || backlog.elsewhere > 0;
        let own = room.saturating_sub(usize::from(is_more));
        let whole = of_destination(name, destination, MAX_ERROR);
        let short = || of_destination(name, destination, COLUMNS - ERROR.len());
        let lines = if rows(&whole) <= own { whole } else { short() };
        if rows(&lines) > own {
            break;
        }
        text.push_str(&lines);
        (room, shown) = (room - rows(&lines), shown + 1);
    }
    let rest = destinations.iter().skip(shown);
    let recipients: u64 = rest.clone().map(|(_, it)| it.waiting).sum::<u64>() + backlog.elsewhere;
    if recipients > 0 {
        add(text, format_args!("  elsewhere: {recipients} waiting; mailwren queue has them"));
    }
}

/// The lines of a destination, with so many characters of an error.
fn of_destination(name: &str, destination: &Destination, most: usize) -> String {
    let mut text = String::new();
    let next_try = destination.next_try.map(|at| {
        let wait = at.saturating_sub(clock::since_1970().as_secs());
        if wait == 0 {
            ", next try now".to_owned()
        } else {
            format!(", next try in {}", Span(wait))
        }
    });
    let next_try = next_try.unwrap_or_default();
    add(&mut text, format_args!("  {name}: {} waiting{next_try}", destination.waiting));
    if let Some((_, error)) = &destination.last_error {
        add(&mut text, format_args!("{ERROR}{}", cut(&one_line(error, MAX_ERROR), most)));
    }
    text
}

fn add_activity(text: &mut String, activity: &Activity) {
    let today = activity.today;
    let since = match &activity.begins_today {
        Some(first) => format!(" (since {})", first.time().get(11..16).unwrap_or_default()),
        None => String::new(),
    };
    add(
        text,
        format_args!(
            "today: {} received, {} delivered, {} relayed, {} bounced{since}",
            today.received, today.delivered, today.relayed, today.bounced
        ),
    );
    if !activity.last.is_empty() {
        add(text, format_args!("\nlast deliveries:"));
    }
    for event in &activity.last {
        let id = event.id.map(|id| id.to_string()).unwrap_or_default();
        let place = event.field("host").or_else(|| event.field("place")).unwrap_or_default();
        let (time, name, to) = (minute(event), event.station.name(), recipient(event));
        let place = place.escape_debug();
        let line = format!("  {time}  {id}  {name:9}  {to}  {place}");
        add(text, format_args!("{}", cut(&line, COLUMNS)));
    }
}

/// The day in its year and the minute, as the clock of this host showed them.
fn minute(event: &Event) -> String {
    event.time().get(5..16).unwrap_or_default().replace('T', " ")
}

/// Who got it, without the brackets of an address.
fn recipient(event: &Event) -> String {
    let to = event.field("to").unwrap_or_default();
    one_line(to.strip_prefix('<').and_then(|to| to.strip_suffix('>')).unwrap_or(to), MAX_ERROR)
}

fn backlog_json(backlog: &Backlog) -> Value {
    let destinations: Vec<_> = backlog
        .destinations()
        .into_iter()
        .map(|(name, it)| {
            json!({
                "destination": name,
                "waiting": it.waiting,
                "next_try": it.next_try,
                "last_error": it.last_error.as_ref().map(|(_, text)| text),
                "last_error_at": it.last_error.as_ref().map(|(at, _)| at),
            })
        })
        .collect();
    json!({
        "messages": backlog.messages,
        "octets": backlog.octets,
        "states": backlog.states,
        "destinations": destinations,
        "elsewhere": backlog.elsewhere,
    })
}

fn activity_json(activity: &Activity) -> Value {
    json!({
        "received": activity.today.received,
        "delivered": activity.today.delivered,
        "relayed": activity.today.relayed,
        "bounced": activity.today.bounced,
        "since": activity.begins_today.as_ref().map(|event| event.time()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_take_the_room_that_is_left() {
        let mut backlog = Backlog::default();
        for number in 0..20 {
            let error = format!("550 {} {number}", "no ".repeat(60));
            backlog.put(&format!("mx{number}.test:25"), 20 - number, &error);
        }
        for (room, shown, is_whole) in [(0, 1, false), (6, 1, true), (9, 2, false), (90, 10, true)]
        {
            let mut text = String::new();
            add_backlog(&mut text, &backlog, room);
            assert!(rows(&text) <= room.max(LEAST_ROOM + 1), "{room}: {text}");
            let count = text.lines().filter(|line| line.starts_with("  mx")).count();
            assert!(count == shown && text.starts_with("queue: 20 messages"), "{room}: {text}");
            assert_eq!(!text.contains("..."), is_whole, "{room}: {text}");
            let elsewhere: u64 = (shown as u64..20).map(|number| 20 - number).sum();
            assert!(text.contains(&format!("elsewhere: {elsewhere} waiting")), "{room}: {text}");
        }
    }

    #[test]
    fn a_line_goes_on_below_itself() {
        for (line, expected) in [
            ("", ""),
            ("  a  b", "  a  b"),
            (&format!("  {} b", "a".repeat(76)), &format!("  {} b", "a".repeat(76))),
            (&format!("  {} bc", "a".repeat(76)), &format!("  {}\n      bc", "a".repeat(76))),
            (&format!("{}  b c", "a".repeat(80)), &format!("{}\n    b c", "a".repeat(80))),
        ] {
            assert_eq!(wrapped(line), expected);
        }
    }

    #[test]
    fn a_delivery_is_told_by_its_minute_and_its_recipient() {
        for (fields, expected) in [
            ("to=<a@b.test> took=1ms", "a@b.test"),
            ("to=\"<\\\"x y\\\"@b.test>\"", "\"x y\"@b.test"),
            ("took=1ms", ""),
        ] {
            let line = format!("2026-11-22T03:46:52+01:00 0000000000001 relayed {fields}");
            let event = Event::parse(&line).unwrap();
            assert_eq!(minute(&event), "11-22 03:46");
            assert_eq!(recipient(&event), expected);
        }
    }
}
