//! `sendmail`: takes a message on standard input as programs have always given it, completes
//! it, and submits it over the server's Unix socket, where the kernel says who is calling. While no
//! server takes it, it is left in the spool's `drop/`. It has no rights but its caller's.

mod delivery;
mod message;
mod options;
mod queue_run;
mod session;
mod socket;
mod verify;

use lexopt::Parser;

use super::invocation::{Invocation, Stop};
use super::output::warn;
use super::{Ran, aliases, host_names, queue};
use crate::config::settings::LogReceiver;
use crate::config::settings::{Server, Settings};
use crate::mail::address::{Domain, LocalPart, Mailbox};
use crate::report::log_format;
use crate::sys::process::exit;
use crate::sys::{signals, users};
use options::{Mode, Options};

/// What the help says of the options.
pub(super) const NOTES: &str = "\
Its own options are:
  -t                   take the recipients from To, Cc and Bcc, too
  -i                   a line with a single dot is text, and not the end
  -f SENDER            the envelope sender
  -F NAME              the name in the From field, where that is missing
  -N NOTIFY            reports wanted: never, or of success, failure, delay
  -R RETURN            what comes back with a report: full or hdrs
  -V ENVID             a name for the message, which reports repeat
  -bp, -bi, -bs, -bv   list the queue; check aliases; speak SMTP; verify

--config stands before the word sendmail. sendmail(1) has all other options;
what is not known is told of and ignored.";

/// Why nothing, or not all of it, was done.
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// Does what the command line says. The exit code is one of sysexits(3): 0 only when the message
/// lasts for every recipient, in the server's hands or in `drop/`.
pub(super) fn run(invocation: &mut Invocation) -> Ran {
    if std::env::var_os("RUST_LOG").is_some() {
        log_format::start(log::LevelFilter::Off, LogReceiver::Auto);
    }
    // What is too large for the caller's limits is told of, with an exit code that says so.
    let _ = signals::outlive_large_files();
    let words: Vec<_> = invocation.parser.raw_args()?.collect();
    // Of a person. Among other words it is an unknown option of a program, which loses no mail.
    if words.len() == 1 && words.iter().all(|word| word == "--help") {
        return Err(Stop::Help);
    }
    let options = Options::parse(words);
    // What is left for other commands.
    invocation.parser = Parser::from_args([""; 0]);
    if let Some(config) = &options.config {
        // Whoever could name another configuration could only fool themselves; but scripts pass
        // this with the name of a sendmail.cf.
        match rustix::process::getuid().is_root() {
            true => invocation.config = Some(config.into()),
            false => warn("sendmail: option -C is for root alone; the usual configuration counts"),
        }
    }
    match &options.mode {
        Mode::ListQueue => return queue::mailq(invocation),
        Mode::InitAliases => return Ok(aliases::newaliases(invocation)),
        Mode::Unserved(mode) => {
            warn(format_args!(
                "sendmail: -b{mode} is not what this program does; the server is mailwren serve"
            ));
            return Ok(exit::UNAVAILABLE);
        }
        Mode::Submit | Mode::Smtp | Mode::Verify | Mode::RunQueue(_) => {}
    }
    let Some(Settings { server, .. }) = settings(invocation) else {
        warn("sendmail: there is no usable configuration; see mailwren check");
        return Ok(exit::CONFIG);
    };
    let done = match &options.mode {
        Mode::Smtp => session::run(&server),
        Mode::Verify => verify::run(&options, &server),
        Mode::RunQueue(queued) => queue_run::run(queued, &server),
        _ => message::read(&options, &server).and_then(|read| delivery::submit(&read, &server)),
    };
    Ok(done.unwrap_or_else(|failure| {
        warn(format_args!("sendmail: {}", failure.text));
        failure.code
    }))
}

/// The settings, or the defaults where they cannot be read: a mistake in them is the
/// administrator's, and no reason to lose a user's mail.
fn settings(invocation: &Invocation) -> Option<Settings> {
    let loaded = crate::config::load(&invocation.config_path(), host_names());
    loaded.or_else(|_| Settings::default_with(host_names())).ok()
}

/// The calling user's own address.
fn own_mailbox(server: &Server) -> Result<Mailbox, Failure> {
    let uid = rustix::process::getuid().as_raw();
    let name = match users::by_uid(uid) {
        Ok(Some(account)) => account.name,
        Ok(None) | Err(_) => format!("uid{uid}"),
    };
    let local_part = LocalPart::from_unquoted(&name).map_err(|error| {
        Failure::new(exit::OSERR, format!("your user name {name:?} makes no address: {error}"))
    })?;
    Ok(Mailbox::new(local_part, Domain::Name(server.domains.origin().clone())))
}
