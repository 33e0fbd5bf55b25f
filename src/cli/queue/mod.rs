//! `mailwren queue` and `mailq`: what is in the spool, and what a person does about it. All of
//! it works on the files, so with the server up or down.

mod change;
mod classic;
mod entry;
mod list;
mod selection;
mod show;
mod words;

use std::io;
use std::path::Path;

use lexopt::Arg;

use super::Invocation;
use super::output::{say, warn};
use crate::config::settings::Settings;
use crate::sys::process::exit;
use selection::{Pattern, Selection};

const HELP: &str = "\
mailwren queue [list] [--json] [SELECTION]
    what is in the queue: age, size, sender, recipients, next try, last reply
mailwren queue show [--envelope | --headers] ID...
    the envelope, what became of it so far, and the message
mailwren queue retry SELECTION
    try it now, whatever the schedule says
mailwren queue hold SELECTION
    do not try it until it is released; held time does not count as age
mailwren queue release SELECTION
    hold it no longer, and try it now
mailwren queue delete SELECTION
    remove it and tell nobody
mailwren queue bounce SELECTION
    give it up: its sender gets a report

SELECTION is
  ID...             these messages
  --all             every message
  --to DOMAIN       messages with a recipient there who has not got it yet; an address is
                    one recipient. The whole message is meant, its other recipients too.
  --from ADDRESS    messages of this sender; a domain is all senders there, <> is reports
Patterns of one kind widen the selection, both kinds and ids together narrow it.

--json prints an array with an object for each message; see mailwren-queue(8).
mailq prints the list in its classic form.";

/// A command line of `mailwren queue`, read.
#[derive(Debug, Default)]
struct Request {
    verb: Option<String>,
    selection: Selection,
    is_json: bool,
    part: show::Part,
    wants_help: bool,
}

/// `mailwren queue`. The exit code is one of sysexits(3).
pub(super) fn run(invocation: &mut Invocation) -> Result<u8, lexopt::Error> {
    let request = Request::parse(invocation, true)?;
    let verb = request.verb.as_deref().unwrap_or("list");
    if request.wants_help || verb == "help" {
        say(HELP);
        return Ok(exit::OK);
    }
    if let Some(change) = change::Verb::named(verb) {
        if request.selection.is_empty() {
            return Err(format!(
                "queue {verb}: nothing is selected; name ids, or use --all, --to DOMAIN or \
                 --from ADDRESS"
            )
            .into());
        }
        return Ok(on_spool(invocation, |spool| change::run(spool, change, &request)));
    }
    match verb {
        "list" => Ok(on_spool(invocation, |spool| list::run(spool, &request))),
        "show" if request.selection.ids().is_empty() => Err("queue show: name an id".into()),
        "show" => Ok(on_spool(invocation, |spool| show::run(spool, &request))),
        _ => Err(format!("queue: there is no {verb:?}; see mailwren queue help").into()),
    }
}

/// `mailq` and `sendmail -bp`: the list in its classic form.
pub(super) fn mailq(invocation: &mut Invocation) -> Result<u8, lexopt::Error> {
    let request = Request::parse(invocation, false)?;
    if request.wants_help {
        say("mailq [--json] [SELECTION]: lists the queue; see mailwren queue help");
        return Ok(exit::OK);
    }
    let list = if request.is_json { list::run } else { classic::run };
    Ok(on_spool(invocation, |spool| list(spool, &request)))
}

impl Request {
    fn parse(invocation: &mut Invocation, has_verb: bool) -> Result<Self, lexopt::Error> {
        let mut request = Self::default();
        let mut needs_verb = has_verb;
        let parser = &mut invocation.parser;
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("config") => invocation.config = Some(parser.value()?.into()),
                Arg::Long("json") => request.is_json = true,
                Arg::Long("all") => request.selection.add_all(),
                Arg::Long("to") => request.selection.add_to(pattern("--to", parser)?),
                Arg::Long("from") => request.selection.add_from(pattern("--from", parser)?),
                Arg::Long("envelope") => request.part = show::Part::Envelope,
                Arg::Long("headers") => request.part = show::Part::Headers,
                Arg::Long("help") | Arg::Short('h') => request.wants_help = true,
                // The classic mailq says more with it; this one says all.
                Arg::Short('v') if !has_verb => {}
                Arg::Value(word) => {
                    let word = word.to_string_lossy();
                    if needs_verb {
                        request.verb = Some(word.into_owned());
                        needs_verb = false;
                    } else {
                        let id = word.parse().map_err(|error| format!("{word:?}: {error}"))?;
                        request.selection.add_id(id);
                    }
                }
                other => return Err(other.unexpected()),
            }
        }
        Ok(request)
    }
}

fn pattern(option: &str, parser: &mut lexopt::Parser) -> Result<Pattern, lexopt::Error> {
    let text = parser.value()?;
    let text = text.to_string_lossy();
    Pattern::parse(&text).map_err(|error| format!("{option} {text:?}: {error}").into())
}

/// Does `work` on the folder of the spool, and explains why it cannot be done.
fn on_spool(invocation: &Invocation, work: impl FnOnce(&Path) -> io::Result<u8>) -> u8 {
    let settings: Settings = match invocation.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let server = &settings.server;
    let spool = server.spool.display();
    match work(&server.spool) {
        Ok(code) => code,
        // Whoever reads has left.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::OK,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let or_as = match server.user.as_str() {
                "root" => String::new(),
                user => format!(" or as {user}"),
            };
            warn(format_args!(
                "cannot work on the queue in {spool}: permission denied; run this as root{or_as}"
            ));
            exit::NOPERM
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            warn(format_args!("{spool}: {error}; mailwren serve makes it"));
            exit::OSERR
        }
        Err(error) => {
            warn(format_args!("{spool}: {error}"));
            exit::OSERR
        }
    }
}
