//! What a person types: one file per command, and the table of them.

mod aliases;
mod check;
mod demo;
mod output;
mod passwd;
mod queue;
mod route;
mod sendmail;
mod serve;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::{Arg, Parser};

use crate::cli::output::{say, warn};
use crate::config::settings::Settings;
use crate::sys::process::{self, exit};

/// Where the configuration is when nothing else is said.
const DEFAULT_CONFIG: &str = "/etc/mailwren/mailwren.ini";
/// The variable that names another one.
const CONFIG_VARIABLE: &str = "MAILWREN_CONFIG";

/// A command, its arguments, and what it does in one line.
struct Command {
    name: &'static str,
    arguments: &'static str,
    does: &'static str,
    run: fn(&mut Invocation) -> Result<u8, lexopt::Error>,
}

const COMMANDS: [Command; 8] = [
    Command {
        name: "serve",
        arguments: "",
        does: "run the server in the foreground, logging to standard error",
        run: serve::run,
    },
    Command {
        name: "demo",
        arguments: "[--listen HOST:PORT] [--dir DIR]",
        does: "try it: no configuration, no privileges, mail for anybody into DIR",
        run: demo::run,
    },
    Command {
        name: "sendmail",
        arguments: "[-t] [-i] [-f SENDER] [-F NAME] [-N NOTIFY] [-R RETURN] [-V ENVID] [RECIPIENT...]",
        does: "submit a message from standard input, as programs call sendmail",
        run: sendmail::run,
    },
    Command {
        name: "check",
        arguments: "",
        does: "read the configuration and say what is wrong, file:line: what, what to do",
        run: check::run,
    },
    Command {
        name: "route",
        arguments: "ADDRESS...",
        does: "say where mail to each address would go, sending nothing",
        run: route::run,
    },
    Command {
        name: "aliases",
        arguments: "",
        does: "read the alias files and say what is wrong, file:line: what, what to do",
        run: aliases::run,
    },
    Command {
        name: "passwd",
        arguments: "[--delete] NAME",
        does: "set the password of an account of the users file, or remove the account",
        run: passwd::run,
    },
    Command {
        name: "queue",
        arguments: "[list|show|retry|hold|release|delete|bounce] [SELECTION]",
        does: "what is in the queue, and what is to become of it; see mailwren queue help",
        run: queue::run,
    },
];

/// A command line on its way through: what is left of it, and which configuration counts.
struct Invocation {
    parser: Parser,
    config: Option<PathBuf>,
}

impl Invocation {
    /// The configuration file that counts: `--config`, the variable, or the usual place.
    fn config_path(&self) -> PathBuf {
        let from_variable = || std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from);
        self.config.clone().or_else(from_variable).unwrap_or_else(|| DEFAULT_CONFIG.into())
    }

    /// The settings, or the exit code after their mistakes were told.
    fn settings(&self) -> Result<Settings, u8> {
        let path = self.config_path();
        crate::config::load(&path, &process::host_name()).map_err(|error| {
            warn(error);
            exit::CONFIG
        })
    }

    /// The next argument, `--config FILE` and `--help` taken out.
    fn next_argument(&mut self) -> Result<Option<Arg<'_>>, lexopt::Error> {
        while let Some(argument) = self.parser.next()? {
            match argument {
                Arg::Long("config") => self.config = Some(self.parser.value()?.into()),
                // Made anew: a value that borrows from the parser could not leave the loop.
                Arg::Short(short) => return Ok(Some(Arg::Short(short))),
                Arg::Long(long) => {
                    return Err(format!("unknown option --{long}; see mailwren help").into());
                }
                Arg::Value(value) => return Ok(Some(Arg::Value(value))),
            }
        }
        Ok(None)
    }

    /// Takes the rest of a command line that allows no further argument.
    fn no_more_arguments(&mut self) -> Result<(), lexopt::Error> {
        match self.next_argument()? {
            None => Ok(()),
            Some(argument) => Err(argument.unexpected()),
        }
    }
}

/// Runs the command that `arguments` name: by what the program was called, or by their first
/// word. The name alone decides which it is, before anything else is read.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    process::bound_arenas();
    let mut arguments = arguments.into_iter();
    let called = arguments.next().unwrap_or_default();
    let applet = Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parser = Parser::from_args(arguments);
    let mut invocation = Invocation { parser, config: None };
    let result = match applet {
        "sendmail" => sendmail::run(&mut invocation),
        "mailq" => queue::mailq(&mut invocation),
        "newaliases" => Ok(aliases::newaliases(&invocation)),
        _ => dispatch(&mut invocation),
    };
    ExitCode::from(result.unwrap_or_else(|error| {
        warn(format_args!("{error}\nmailwren help says what there is"));
        exit::USAGE
    }))
}

fn dispatch(invocation: &mut Invocation) -> Result<u8, lexopt::Error> {
    while let Some(argument) = invocation.parser.next()? {
        match argument {
            Arg::Long("config") => invocation.config = Some(invocation.parser.value()?.into()),
            Arg::Long("help") | Arg::Short('h') => return Ok(help()),
            Arg::Long("version") | Arg::Short('V') => return Ok(version()),
            Arg::Value(word) if word == "help" => return Ok(help()),
            Arg::Value(word) => {
                let command = COMMANDS.iter().find(|command| word == command.name);
                let command = command.ok_or_else(|| format!("there is no command {word:?}"))?;
                return (command.run)(invocation);
            }
            argument => return Err(argument.unexpected()),
        }
    }
    help();
    Ok(exit::USAGE)
}

fn help() -> u8 {
    say("mailwren, a mail server for small hosts\n\nmailwren [--config FILE] COMMAND\n");
    for command in &COMMANDS {
        let usage = format!("{} {}", command.name, command.arguments);
        say(format_args!("  {}\n      {}", usage.trim_end(), command.does));
    }
    say(format_args!(
        "\nThe configuration is {DEFAULT_CONFIG}, or what {CONFIG_VARIABLE} or --config name.\n\
         Called as sendmail, mailq or newaliases, mailwren behaves as those."
    ));
    exit::OK
}

fn version() -> u8 {
    say(concat!("mailwren ", env!("CARGO_PKG_VERSION")));
    exit::OK
}
