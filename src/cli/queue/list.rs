//! `mailwren queue list`: the messages with their recipients, for people or as JSON.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::Request;
use super::entry::{self, Entry};
use super::words::{Size, Span};
use crate::spool::progress::{RecipientState, State, Try};
use crate::spool::store::SpoolReader;
use crate::sys::clock;
use crate::sys::process::exit;

/// Why somebody waits who was not tried in a round that has ended.
const NEVER_TRIED: &str = "  not tried yet: its host could not be reached for other mail";

/// Lists the selected messages.
pub(super) fn run(spool: &Path, request: &Request) -> io::Result<u8> {
    let spool = SpoolReader::open(spool)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let print = if request.is_json { print_json } else { print_lines };
    let missing = print(&spool, request, &mut out)?;
    out.flush()?;
    Ok(if missing > 0 { exit::NOINPUT } else { exit::OK })
}

/// An array with an object for each message, each on a line of its own.
fn print_json(spool: &SpoolReader, request: &Request, out: &mut dyn Write) -> io::Result<usize> {
    let mut separator = "[";
    let missing = entry::each(spool, &request.selection, |entry| {
        write!(out, "{separator}")?;
        separator = ",\n";
        Ok(serde_json::to_writer(&mut *out, &entry.to_json())?)
    })?;
    let end = if separator == "[" { "[]" } else { "]" };
    writeln!(out, "{end}")?;
    Ok(missing)
}

fn print_lines(spool: &SpoolReader, request: &Request, out: &mut dyn Write) -> io::Result<usize> {
    let (mut count, mut octets) = (0u64, 0u64);
    let missing = entry::each(spool, &request.selection, |entry| {
        if count == 0 {
            writeln!(out, "{:13}  {:8}  {:>10}  SENDER", "ID", "AGE", "SIZE")?;
        }
        count += 1;
        octets = octets.saturating_add(entry.message.size_octets());
        print_entry(&entry, out)
    })?;
    match count {
        0 if !request.selection.is_empty() => writeln!(out, "no such message in the queue")?,
        0 => writeln!(out, "the queue is empty")?,
        1 => writeln!(out, "1 message, {}", Size(octets))?,
        _ => writeln!(out, "{count} messages, {}", Size(octets))?,
    }
    Ok(missing)
}

fn print_entry(entry: &Entry, out: &mut dyn Write) -> io::Result<()> {
    let size = Size(entry.message.size_octets());
    let (id, age, sender) = (entry.id(), Span(entry.age()), entry.sender());
    let active = if entry.is_active { "  (being tried now)" } else { "" };
    writeln!(out, "{id}  {age:8}  {size:>10}  {sender}{active}")?;
    if let Some(held) = entry.held() {
        writeln!(out, "    held {held}")?;
    }
    if let Some(by) = &entry.progress.given_up_by {
        writeln!(out, "    given up by {by}; its sender gets a report when the server runs")?;
    }
    entry
        .progress
        .recipients
        .iter()
        .try_for_each(|recipient| writeln!(out, "    {}", recipient_line(entry, recipient)))
}

/// `deferred  bob@far.test  next try in 14m  mx.far.test[192.0.2.7]:25 said: 450 later`. Behind the
/// address stand a command or a file, and who sends it where that is the owner of a list.
pub(in crate::cli) fn recipient_line(entry: &Entry, recipient: &RecipientState) -> String {
    let mut line = format!("{:8}  {}", entry.state_of(recipient), Entry::name_of(recipient));
    if let Some(sender) = &recipient.sender {
        line.push_str(&format!("  from {sender}"));
    }
    if let Some(next_try) = entry.next_try(recipient) {
        match entry.seconds_until(next_try) {
            0 => line.push_str("  next try now"),
            seconds => line.push_str(&format!("  next try in {}", Span(seconds))),
        }
    }
    if let Some(until) = entry.gathered_until(recipient) {
        let (time, wait) = (clock::local_time(until), Span(entry.seconds_until(until)));
        line.push_str(&format!("  gathered until {}, in {wait}", time.rfc3339()));
    }
    match &recipient.last_try {
        Some(Try { host: Some(host), text, .. }) => {
            line.push_str(&format!("  {host} said: {text}"))
        }
        // The state has said it.
        Some(_) if recipient.state == State::Expanded => {}
        Some(last) => line.push_str(&format!("  {}", last.text)),
        None if entry.next_try(recipient).is_some() => line.push_str(NEVER_TRIED),
        None => {}
    }
    line
}
