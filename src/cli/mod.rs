//! What a person types: one file per command, and the table of them.

mod aliases;
mod check;
mod commands;
mod demo;
mod help;
mod invocation;
mod output;
mod passwd;
mod queue;
mod route;
mod sendmail;
mod serve;
mod setup;
mod status;
mod trace;

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use lexopt::{Arg, Parser};

use crate::cli::commands::{COMMANDS, Command};
use crate::cli::invocation::{Invocation, Stop};
use crate::cli::output::{say, warn};
use crate::config::HostNames;
use crate::sys::process::{self, exit};

/// Where the configuration is when nothing else is said.
const DEFAULT_CONFIG: &str = "/etc/mailwren/mailwren.ini";
/// What `--version` says.
const VERSION: &str = concat!("mailwren ", env!("CARGO_PKG_VERSION"));
/// The variable that names another one.
const CONFIG_VARIABLE: &str = "MAILWREN_CONFIG";

/// What running a command comes to: the exit code, or why the command line goes no further.
type Ran = Result<u8, Stop>;

/// Runs the command that `arguments` name: by what the program was called, or by their first
/// word. The name alone decides which it is, before anything else is read.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    process::bound_arenas();
    let mut arguments = arguments.into_iter();
    let called = arguments.next().unwrap_or_default();
    let applet = Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parser = Parser::from_args(arguments);
    let result = match applet {
        "sendmail" => run_as("sendmail", sendmail::run, parser),
        "mailq" => run_as("queue", queue::mailq, parser),
        "newaliases" => run_as("aliases", |invocation| Ok(aliases::newaliases(invocation)), parser),
        _ => dispatch(parser),
    };
    ExitCode::from(result.unwrap_or_else(|error| {
        let text = error.to_string();
        // Many name the help that belongs to them.
        let hint = "says what there is";
        match text.ends_with(hint) {
            true => warn(text),
            false => warn(format_args!("{text}\nmailwren help {hint}")),
        }
        exit::USAGE
    }))
}

fn dispatch(mut parser: Parser) -> Result<u8, lexopt::Error> {
    let mut config = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("config") => config = Some(parser.value()?.into()),
            Arg::Long("help") | Arg::Short('h') => return Ok(print(help::overview())),
            Arg::Long("version") | Arg::Short('V') => return Ok(print(VERSION)),
            Arg::Value(word) if word == "help" => return help_on(parser),
            Arg::Value(word) => {
                let command = named(&word)?;
                return finish(command, (command.run)(&mut Invocation { command, parser, config }));
            }
            argument => return Err(argument.unexpected()),
        }
    }
    say(help::overview());
    Ok(exit::USAGE)
}

/// Runs what a link to the program stands for, which is a part of the command `name`.
fn run_as(
    name: &str,
    run: impl FnOnce(&mut Invocation) -> Ran,
    parser: Parser,
) -> Result<u8, lexopt::Error> {
    let command = named(OsStr::new(name))?;
    finish(command, run(&mut Invocation { command, parser, config: None }))
}

fn named(word: &OsStr) -> Result<&'static Command, String> {
    let found = COMMANDS.iter().find(|command| word == command.name);
    found.ok_or_else(|| format!("there is no command {word:?}"))
}

/// Gives help where that is what was asked for.
fn finish(command: &Command, ran: Ran) -> Result<u8, lexopt::Error> {
    match ran {
        Ok(code) => Ok(code),
        Err(Stop::Usage(error)) => Err(error),
        Err(Stop::Help) => Ok(print(help::of(command))),
    }
}

/// `mailwren help`, `mailwren help COMMAND`, and the table for those who compare.
fn help_on(mut parser: Parser) -> Result<u8, lexopt::Error> {
    let text = match parser.next()? {
        None => help::overview(),
        Some(Arg::Long("table")) => commands::table(),
        Some(Arg::Value(word)) => help::of(named(&word)?),
        Some(argument) => return Err(argument.unexpected()),
    };
    match parser.next()? {
        None => Ok(print(text)),
        Some(argument) => Err(argument.unexpected()),
    }
}

/// What this host is called, now.
fn host_names() -> HostNames {
    HostNames { own: process::host_name(), all: process::own_names() }
}

/// Says what was asked for.
fn print(text: impl Display) -> u8 {
    say(text);
    exit::OK
}
