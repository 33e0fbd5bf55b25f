//! `mailq` and `sendmail -bp`: the queue in the form that people and scripts know from other
//! mail servers. A `*` behind an id says that the message is being tried, a `!` that it is held.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::Request;
use super::entry::{self, Entry};
use crate::mail::address::ReversePath;
use crate::spool::progress::State;
use crate::spool::store::SpoolReader;
use crate::sys::clock;
use crate::sys::process::exit;

const HEADER: &str = "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------";
/// Instead of a time that would mislead without its year: as many words, and as wide.
const CLOCK_NOT_SET: &str = "(clock was not set) ";
/// Blanks before a recipient.
const INDENT: usize = 42;
/// Where a reason ends, unless it is longer.
const WIDTH: usize = 78;

/// Lists the selected messages.
pub(super) fn run(spool: &Path, request: &Request) -> io::Result<u8> {
    let spool = SpoolReader::open(spool)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut count, mut octets) = (0u64, 0u64);
    let missing = entry::each(&spool, &request.selection, |entry| {
        if count == 0 {
            writeln!(out, "{HEADER}")?;
        }
        count += 1;
        octets = octets.saturating_add(entry.message.size_octets());
        print_entry(&entry, &mut out)
    })?;
    match count {
        0 => writeln!(out, "Mail queue is empty")?,
        1 => writeln!(out, "-- {} Kbytes in 1 Request.", octets / 1024)?,
        _ => writeln!(out, "-- {} Kbytes in {count} Requests.", octets / 1024)?,
    }
    out.flush()?;
    Ok(if missing > 0 { exit::NOINPUT } else { exit::OK })
}

fn print_entry(entry: &Entry, out: &mut dyn Write) -> io::Result<()> {
    let mark = match entry.state() {
        "held" => '!',
        "active" => '*',
        _ => ' ',
    };
    let envelope = entry.message.envelope();
    let arrival = match clock::was_not_set(envelope.received_at) {
        false => clock::local_time(envelope.received_at).asctime().to_string(),
        true => CLOCK_NOT_SET.to_owned(),
    };
    // Without the year, as ever.
    let arrival = arrival.get(..20).unwrap_or(&arrival);
    let sender = match &envelope.reverse_path {
        ReversePath::Null => "MAILER-DAEMON".to_owned(),
        ReversePath::Mailbox(mailbox) => mailbox.to_string(),
    };
    let (id, size) = (entry.id(), entry.message.size_octets());
    writeln!(out, "{id}{mark} {size:>5} {arrival} {sender}")?;
    let mut last_reason = "";
    for recipient in entry.progress.recipients.iter().filter(|it| it.state == State::Pending) {
        let reason = recipient.last_reply();
        // Those with the same reason stand below it together.
        if reason != last_reason {
            let reason = format!("({reason})");
            writeln!(out, "{reason:>WIDTH$}")?;
        }
        last_reason = reason;
        writeln!(out, "{:INDENT$}{}", "", Entry::name_of(recipient))?;
    }
    writeln!(out)
}
