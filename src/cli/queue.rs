//! `mailwren queue list`, which is `mailq`: what is in the spool, read from its files, so
//! that it works with the server up or down.

use lexopt::Arg;

use super::Invocation;
use super::output::{say, warn};
use crate::spool::format::ReadError;
use crate::spool::progress::{Progress, State};
use crate::spool::store::SpoolReader;
use crate::sys::clock;
use crate::sys::process::exit;

/// Lists the messages; 71 when the spool cannot be read.
pub(super) fn run(invocation: &mut Invocation) -> Result<u8, lexopt::Error> {
    if let Some(argument) = invocation.next_argument()? {
        match argument {
            Arg::Value(word) if word == "list" => {}
            other => return Err(other.unexpected()),
        }
    }
    invocation.no_more_arguments()?;
    let settings = match invocation.settings() {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    let listed = SpoolReader::open(&settings.server.spool).and_then(|spool| {
        let mut ids = spool.ids()?;
        ids.sort_unstable();
        for id in &ids {
            match spool.load(*id) {
                Ok((message, progress)) => {
                    let envelope = message.envelope();
                    let age = clock::since_1970().as_secs().saturating_sub(envelope.received_at);
                    say(format_args!(
                        "{id} {age}s {} octets from {}",
                        message.size_octets(),
                        envelope.reverse_path
                    ));
                    print_recipients(&progress.unwrap_or_else(|| Progress::new(envelope)));
                }
                // Delivered and removed since the names were read.
                Err(ReadError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => say(format_args!("{id} cannot be read: {error}")),
            }
        }
        Ok(ids.len())
    });
    Ok(match listed {
        Ok(0) => {
            say("the queue is empty");
            exit::OK
        }
        Ok(_) => exit::OK,
        Err(error) => {
            warn(format_args!("{}: {error}", settings.server.spool.display()));
            exit::OSERR
        }
    })
}

fn print_recipients(progress: &Progress) {
    for recipient in &progress.recipients {
        let state = match recipient.state {
            State::Pending if recipient.last_try.is_none() => "to be tried",
            State::Pending => "deferred",
            State::Done => "delivered",
            State::Expanded => "expanded",
            State::Failed => "bounced",
        };
        say(format_args!("    {state} {} {}", recipient.mailbox, recipient.last_reply()));
    }
}
