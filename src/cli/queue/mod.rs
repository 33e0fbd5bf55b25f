//! `mailwren queue` and `mailq`: what is in the spool, and what a person does about it. All of
//! it works on the files, so with the server up or down.

mod change;
mod classic;
pub(super) mod entry;
pub(super) mod list;
pub(super) mod selection;
mod show;
pub(super) mod words;

use std::ffi::OsStr;
use std::io;

use super::Ran;
use super::commands::Verb;
use super::invocation::{Argument, Invocation, Stop};
use super::output::warn;
use crate::config::settings::Settings;
use crate::sys::process::exit;
use selection::{Pattern, Selection};

/// What may be done.
pub(super) const VERBS: &[Verb] = &[
    verb("list", "[--json] [SELECTION]", "age, size, sender, recipients, next try, last reply"),
    verb(
        "show",
        "[--envelope | --headers] [--json] ID...",
        "the envelope, what became of it, the message",
    ),
    verb("retry", "[--json] SELECTION", "try it now, whatever the schedule says"),
    verb("hold", "[--json] SELECTION", "do not try it until it is released; held time is no age"),
    verb("release", "[--json] SELECTION", "hold it no longer, and try it now"),
    verb("delete", "[--json] SELECTION", "remove it and tell nobody"),
    verb("bounce", "[--json] SELECTION", "give it up: its sender gets a report"),
];

const fn verb(name: &'static str, operands: &'static str, does: &'static str) -> Verb {
    Verb { name, operands, does }
}

/// What stands behind the table in the help.
pub(super) const NOTES: &str = "\
SELECTION is any of ID..., --all, --to and --from. --to means a message with a
recipient there who has not got it yet, its other recipients too. Patterns of
one kind widen the selection; both kinds, and ids, narrow it. mailq prints the
list in its classic form; mailwren-queue(8) says more.";

/// A command line of `mailwren queue`, read.
#[derive(Debug, Default)]
struct Request {
    verb: Option<String>,
    selection: Selection,
    is_json: bool,
    part: show::Part,
}

/// `mailwren queue`. The exit code is one of sysexits(3).
pub(super) fn run(invocation: &mut Invocation) -> Ran {
    let request = Request::parse(invocation, true)?;
    let verb = request.verb.as_deref().unwrap_or("list");
    if verb == "help" {
        return Err(Stop::Help);
    }
    if let Some(change) = change::Verb::named(verb) {
        if request.selection.is_empty() {
            return Err(format!(
                "queue {verb}: nothing is selected; name ids, or use --all, --to DOMAIN or \
                 --from ADDRESS"
            )
            .into());
        }
        return Ok(on_spool(invocation, |settings| change::run(settings, change, &request)));
    }
    match verb {
        "list" => Ok(on_spool(invocation, |settings| list::run(&settings.server.spool, &request))),
        "show" if request.selection.ids().is_empty() => Err("queue show: name an id".into()),
        "show" => Ok(on_spool(invocation, |settings| show::run(&settings.server.spool, &request))),
        _ => Err(format!("queue: there is no {verb:?}; see mailwren queue help").into()),
    }
}

/// `mailq` and `sendmail -bp`: the list in its classic form.
pub(super) fn mailq(invocation: &mut Invocation) -> Ran {
    let request = Request::parse(invocation, false)?;
    let list = if request.is_json { list::run } else { classic::run };
    Ok(on_spool(invocation, |settings| list(&settings.server.spool, &request)))
}

impl Request {
    fn parse(invocation: &mut Invocation, has_verb: bool) -> Result<Self, Stop> {
        let mut request = Self::default();
        let mut needs_verb = has_verb;
        while let Some(argument) = invocation.next_argument()? {
            match argument {
                Argument::Flag("json") => request.is_json = true,
                Argument::Flag("all") => request.selection.add_all(),
                Argument::Option("to", text) => request.selection.add_to(pattern("--to", &text)?),
                Argument::Option("from", text) => {
                    request.selection.add_from(pattern("--from", &text)?);
                }
                Argument::Flag("envelope") => request.part = show::Part::Envelope,
                Argument::Flag("headers") => request.part = show::Part::Headers,
                // The classic mailq says more with it; this one says all.
                Argument::Short('v') if !has_verb => {}
                Argument::Operand(word) => {
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

fn pattern(option: &str, text: &OsStr) -> Result<Pattern, String> {
    let text = text.to_string_lossy();
    Pattern::parse(&text).map_err(|error| format!("{option} {text:?}: {error}"))
}

/// Does `work` on the spool of the settings, and explains why it cannot be done.
fn on_spool(invocation: &Invocation, work: impl FnOnce(&Settings) -> io::Result<u8>) -> u8 {
    let settings: Settings = match invocation.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let server = &settings.server;
    let spool = server.spool.display();
    match work(&settings) {
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
