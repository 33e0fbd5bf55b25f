//! A command line on its way through: which command it is, what is left of it, and which
//! configuration counts.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser};

use super::commands::Command;
use super::output::warn;
use super::{CONFIG_VARIABLE, DEFAULT_CONFIG};
use crate::config::settings::Settings;
use crate::sys::process::exit;

/// Why a command line goes no further.
#[derive(Debug)]
pub(super) enum Stop {
    /// It asks for help.
    Help,
    /// It is wrong.
    Usage(lexopt::Error),
}

impl From<lexopt::Error> for Stop {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error)
    }
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Self::Usage(text.into())
    }
}

impl From<&str> for Stop {
    fn from(text: &str) -> Self {
        Self::Usage(text.into())
    }
}

/// One argument of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Argument {
    /// An option that stands for itself, named as in the table.
    Flag(&'static str),
    /// An option and its value.
    Option(&'static str, OsString),
    /// One letter behind one dash. No command has any of its own; links to the program may.
    Short(char),
    /// Anything else.
    Operand(OsString),
}

/// A command line.
#[derive(Debug)]
pub(super) struct Invocation {
    /// The command whose options count.
    pub(super) command: &'static Command,
    /// What is left.
    pub(super) parser: Parser,
    /// What `--config` named.
    pub(super) config: Option<PathBuf>,
}

impl Invocation {
    /// The configuration file that counts: `--config`, the variable, or the usual place.
    pub(super) fn config_path(&self) -> PathBuf {
        let from_variable = || std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from);
        self.config.clone().or_else(from_variable).unwrap_or_else(|| DEFAULT_CONFIG.into())
    }

    /// The settings, or the exit code after their mistakes were told.
    pub(super) fn settings(&self) -> Result<Settings, u8> {
        let path = self.config_path();
        crate::config::load(&path, super::host_names()).map_err(|error| {
            warn(error);
            exit::CONFIG
        })
    }

    /// The next argument, by the table; `--config FILE` is taken out.
    pub(super) fn next_argument(&mut self) -> Result<Option<Argument>, Stop> {
        while let Some(argument) = self.parser.next()? {
            let name = match argument {
                Arg::Long("config") => {
                    self.config = Some(self.parser.value()?.into());
                    continue;
                }
                Arg::Long("help") | Arg::Short('h') => return Err(Stop::Help),
                Arg::Long(name) => name.to_owned(),
                Arg::Short(letter) => return Ok(Some(Argument::Short(letter))),
                Arg::Value(value) => return Ok(Some(Argument::Operand(value))),
            };
            let option = self.command.option(&name).ok_or_else(|| {
                let command = self.command.name;
                format!("unknown option --{name}; mailwren {command} --help says what there is")
            })?;
            return Ok(Some(match option.value {
                None => Argument::Flag(option.name),
                Some(_) => Argument::Option(option.name, self.parser.value()?),
            }));
        }
        Ok(None)
    }

    /// Takes the rest of a command line that allows no further argument.
    pub(super) fn no_more_arguments(&mut self) -> Result<(), Stop> {
        match self.next_argument()? {
            None => Ok(()),
            Some(argument) => Err(argument.unexpected()),
        }
    }
}

impl Argument {
    /// The complaint that this one has no place here.
    pub(super) fn unexpected(self) -> Stop {
        match self {
            Self::Flag(name) | Self::Option(name, _) => Arg::Long(name).unexpected().into(),
            Self::Short(letter) => Arg::Short(letter).unexpected().into(),
            Self::Operand(value) => Arg::Value(value).unexpected().into(),
        }
    }
}
