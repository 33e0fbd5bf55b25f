//! `mailwren queue show`: all that is known of a message, and the message.

use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::Path;

use super::Request;
use super::entry::{self, Entry};
use super::list::recipient_line;
use super::words::{Size, Span};
use crate::mail::dsn_request::RecipientRequest;
use crate::spool::envelope::Body;
use crate::spool::store::SpoolReader;
use crate::sys::clock;
use crate::sys::process::exit;

/// The most octets of a line that are shown on a terminal at once.
const MAX_LINE: u64 = 64 << 10;

/// How much of a message is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Part {
    /// What is known of it.
    Envelope,
    /// That, and its header.
    Headers,
    /// That, its header and its body.
    #[default]
    All,
}

/// Shows the messages that were named.
pub(super) fn run(spool: &Path, request: &Request) -> io::Result<u8> {
    let spool = SpoolReader::open(spool)?;
    let stdout = io::stdout().lock();
    let is_terminal = stdout.is_terminal();
    let mut out = BufWriter::new(stdout);
    let mut separator = "[";
    let missing = entry::each(&spool, &request.selection, |entry| {
        if request.is_json {
            write!(out, "{separator}")?;
            separator = ",\n";
            return Ok(serde_json::to_writer(&mut out, &with_history(&entry))?);
        }
        print_envelope(&entry, &mut out)?;
        if request.part == Part::Envelope {
            return Ok(());
        }
        writeln!(out)?;
        let is_whole = request.part == Part::All;
        match is_terminal {
            true => print_escaped(entry.message.reader(), is_whole, &mut out),
            false => print_raw(entry.message.reader(), is_whole, &mut out),
        }
    })?;
    if request.is_json {
        writeln!(out, "{}", if separator == "[" { "[]" } else { "]" })?;
    }
    out.flush()?;
    Ok(if missing > 0 { exit::NOINPUT } else { exit::OK })
}

fn with_history(entry: &Entry) -> serde_json::Value {
    let past = entry.progress.past.iter();
    let history: Vec<_> =
        past.map(|past| serde_json::json!({ "at": past.at, "text": past.text })).collect();
    let mut value = entry.to_json();
    value["history"] = history.into();
    value
}

fn print_envelope(entry: &Entry, out: &mut dyn Write) -> io::Result<()> {
    let (envelope, progress) = (entry.message.envelope(), &entry.progress);
    let received = clock::date_field(envelope.received_at);
    writeln!(out, "id          {} ({})", entry.id(), entry.state())?;
    writeln!(out, "received    {received}, {} ago", Span(entry.age()))?;
    writeln!(out, "client      {}", envelope.client)?;
    writeln!(out, "size        {}", Size(entry.message.size_octets()))?;
    writeln!(out, "sender      {}", entry.sender())?;
    if envelope.body == Body::EightBitMime {
        writeln!(out, "body        8BITMIME")?;
    }
    if let Some(ret) = envelope.request.ret {
        writeln!(out, "return      {ret}")?;
    }
    if let Some(id) = &envelope.request.envelope_id {
        writeln!(out, "envelope id {id}")?;
    }
    writeln!(out, "attempts    {}", progress.attempts)?;
    if let Some(held) = entry.held() {
        writeln!(out, "held        {held}")?;
    }
    if let Some(by) = &progress.given_up_by {
        writeln!(out, "given up    by {by}")?;
    }
    if progress.is_delay_reported {
        writeln!(out, "delay       the sender was told")?;
    }
    for owner in &progress.warned_owners {
        writeln!(out, "delay       {owner} was told")?;
    }
    for recipient in &progress.recipients {
        writeln!(out, "recipient   {}", recipient_line(entry, recipient))?;
        let RecipientRequest { notify, original } = &recipient.request;
        if let Some(notify) = notify {
            writeln!(out, "            notify {notify}")?;
        }
        if let Some(original) = original {
            writeln!(out, "            original {original}")?;
        }
    }
    for past in &progress.past {
        let at = clock::local_time(past.at);
        let doubt = if clock::was_not_set(past.at) { " (clock not set)" } else { "" };
        writeln!(out, "tried       {}{doubt}  {}", at.rfc3339(), past.text)?;
    }
    Ok(())
}

/// The message as it is.
fn print_raw(content: impl Read, is_whole: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut content = BufReader::new(content);
    if is_whole {
        io::copy(&mut content, out)?;
        return Ok(());
    }
    let mut line = Vec::new();
    while content.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? > 0 && line != b"\r\n" {
        out.write_all(&line)?;
        line.clear();
    }
    Ok(())
}

/// The message so that nothing in it steers a terminal.
fn print_escaped(content: impl Read, is_whole: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut content = BufReader::new(content);
    let mut line = Vec::new();
    while content.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? > 0 {
        if line == b"\r\n" && !is_whole {
            break;
        }
        let (text, end) = match line.strip_suffix(b"\r\n") {
            Some(text) => (text, "\n"),
            None => (&line[..], ""),
        };
        write!(out, "{}{end}", escaped(text))?;
        line.clear();
    }
    Ok(())
}

fn escaped(octets: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(octets).chars() {
        match c {
            '\t' => text.push(c),
            c if c.is_control() || is_invisible(c) => text.extend(c.escape_unicode()),
            c => text.push(c),
        }
    }
    text
}

/// Characters that change the direction or the place of others.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(content: &[u8], is_terminal: bool, is_whole: bool) -> String {
        let mut out = Vec::new();
        match is_terminal {
            true => print_escaped(content, is_whole, &mut out).unwrap(),
            false => print_raw(content, is_whole, &mut out).unwrap(),
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn nothing_steers_a_terminal() {
        let content = b"Subject: \x1b[2J\xc3\xa9\r\n\r\na\tb\0\x9b\xc2\x9b\xe2\x80\xae\n\r\n";
        assert_eq!(
            printed(content, true, true),
            "Subject: \\u{1b}[2J\u{e9}\n\na\tb\\u{0}\u{fffd}\\u{9b}\\u{202e}\\u{a}\n"
        );
        assert_eq!(printed(content, true, false), "Subject: \\u{1b}[2J\u{e9}\n");
        assert_eq!(printed(content, false, true), String::from_utf8_lossy(content));
        assert_eq!(printed(content, false, false), "Subject: \u{1b}[2J\u{e9}\r\n");
        let long = vec![b'x'; 3 * MAX_LINE as usize];
        assert_eq!(printed(&long, true, true).len(), long.len());
    }
}
