//! `mailwren status`: whether the server runs and how its queue is, on one screen. It works with the
//! server down, and tells less to those who may not look into the spool.

mod activity;
mod backlog;
mod screen;

use std::io;
use std::time::Duration;

use super::Ran;
use super::invocation::{Argument, Invocation};
use super::output::say;
use crate::config::settings::Settings;
use crate::spool::wake;
use crate::sys::clock;
use crate::sys::disk::Disk;
use crate::sys::process::exit;
use crate::sys::running::Running;
use activity::Activity;
use backlog::Backlog;

/// What stands behind the options in the help.
pub(super) const NOTES: &str = "\
It exits with 0 when the server runs, 69 when it does not, and 77 when that
cannot be told. What the queue and the journal of events have, root and the
server's account are told.";

/// Whether a server runs.
enum Server {
    Runs(Running),
    /// Somebody has the spool, and there is no record of who.
    RunsUnrecorded,
    IsDown,
    /// It may; this caller is not told.
    IsHidden,
}

/// What is known. A part that could not be had says why.
struct Status<'a> {
    settings: &'a Settings,
    /// When the server was looked for, since 1970: a long queue takes its time after that.
    looked_at: Duration,
    server: Server,
    written_octets: Option<u64>,
    free_octets: Result<u64, String>,
    backlog: Result<Backlog, String>,
    activity: Result<Activity, String>,
}

/// `mailwren status`. The exit code says whether the server runs.
pub(super) fn run(invocation: &mut Invocation) -> Ran {
    let mut is_json = false;
    while let Some(argument) = invocation.next_argument()? {
        match argument {
            Argument::Flag("json") => is_json = true,
            other => return Err(other.unexpected()),
        }
    }
    let settings = match invocation.settings() {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    let status = Status::of(&settings);
    if is_json {
        say(status.to_json())
    } else {
        say(status.screen())
    }
    Ok(match status.server {
        Server::Runs(_) | Server::RunsUnrecorded => exit::OK,
        Server::IsDown => exit::UNAVAILABLE,
        Server::IsHidden => exit::NOPERM,
    })
}

impl<'a> Status<'a> {
    fn of(settings: &'a Settings) -> Self {
        let (looked_at, server) = (clock::since_1970(), Server::of(settings));
        let written_octets = match &server {
            Server::Runs(running) => running.written_octets(),
            _ => None,
        };
        let why = |error: io::Error| why(&error, settings);
        Self {
            settings,
            looked_at,
            written_octets,
            free_octets: Disk::host()
                .walk_to(&settings.server.spool)
                .and_then(|spool| spool.free_octets())
                .map_err(why),
            backlog: Backlog::of(settings).map_err(why),
            activity: Activity::of(settings).map_err(why),
            server,
        }
    }
}

impl Server {
    fn of(settings: &Settings) -> Self {
        let seen = Running::look(&settings.server.state);
        if let Ok(Some(running)) = seen {
            return Self::Runs(running);
        }
        match (wake::is_served(&settings.server.spool), seen) {
            (Ok(true), _) => Self::RunsUnrecorded,
            (Ok(false), _) | (Err(_), Ok(_)) => Self::IsDown,
            (Err(_), Err(_)) => Self::IsHidden,
        }
    }
}

/// Why something is not known.
fn why(error: &io::Error, settings: &Settings) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => match settings.server.user.as_str() {
            "root" => "only root is told".to_owned(),
            user => format!("only root and {user} are told"),
        },
        io::ErrorKind::NotFound => "it is not there; mailwren serve makes it".to_owned(),
        _ => error.to_string(),
    }
}
