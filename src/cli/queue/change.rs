//! `mailwren queue retry`, `hold`, `release`, `delete` and `bounce`.

use std::io::{self, BufWriter, Write};

use serde_json::json;

use super::Request;
use crate::cli::output::{say, warn};
use crate::config::settings::{LogReceiver, Settings};
use crate::report::{events, log_format};
use crate::spool::hands::{Change, Hands, Refusal};
use crate::spool::id::QueueId;
use crate::spool::progress::Hold;
use crate::sys::process::exit;
use crate::sys::{clock, users};

/// The most characters of an account's name that are kept.
const MAX_NAME: usize = 64;

/// A command that changes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Retry,
    Hold,
    Release,
    Delete,
    Bounce,
}

impl Verb {
    /// The command of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "retry" => Self::Retry,
            "hold" => Self::Hold,
            "release" => Self::Release,
            "delete" => Self::Delete,
            "bounce" => Self::Bounce,
            _ => return None,
        })
    }

    fn change(self) -> Change {
        match self {
            Self::Retry => Change::Retry,
            Self::Hold => Change::Hold(Hold { since: clock::since_1970().as_secs(), by: caller() }),
            Self::Release => Change::Release(caller()),
            Self::Delete => Change::Delete(caller()),
            Self::Bounce => Change::GiveUp(caller()),
        }
    }

    /// What has become of the messages.
    fn done(self, is_served: bool) -> &'static str {
        match self {
            Self::Retry if is_served => "tried now",
            Self::Retry => "tried when the server runs again",
            Self::Hold => "held",
            Self::Release if is_served => "released",
            Self::Release => "released; tried when the server runs again",
            Self::Delete => "deleted",
            Self::Bounce if is_served => "bounced",
            Self::Bounce => "bounced when the server runs again",
        }
    }
}

/// Changes the selected messages.
pub(super) fn run(settings: &Settings, verb: Verb, request: &Request) -> io::Result<u8> {
    let hands = Hands::open(&settings.server.spool)?;
    let is_served = hands.is_served();
    let selection = &request.selection;
    let ids = selection.candidates(hands.reader())?;
    if verb == Verb::Retry && selection.is_everything() && !request.is_json {
        hands.retry_all()?;
        say(format_args!("{}, but for what is held", summary(ids.len(), verb, is_served)));
        return Ok(exit::OK);
    }
    let mut told = Told::new(request);
    let matches = |envelope: &_, progress: &_| selection.matches(envelope, progress);
    let wanted = selection.has_patterns().then_some(&matches as _);
    if !is_served && verb != Verb::Retry {
        tell_instead_of_server(settings)?;
    }
    hands.change_each(ids, wanted, &verb.change(), |id, result| told.take(id, result));
    events::finish();
    if let Some(why) = events::failure() {
        warn(format_args!("warning: {why}"));
    }
    told.end(verb, is_served)
}

/// Has this process tell who decided what, to the journal of events and to a log daemon. A server's
/// standard error is nobody's while none runs.
fn tell_instead_of_server(settings: &Settings) -> io::Result<()> {
    if settings.log_to == LogReceiver::Syslog {
        log_format::start(settings.log_level, settings.log_to);
    }
    events::configure(settings)
}

fn summary(count: usize, verb: Verb, is_served: bool) -> String {
    let messages = if count == 1 { "message" } else { "messages" };
    format!("{count} {messages} {}", verb.done(is_served))
}

/// What came of each message, told as it comes.
struct Told<'a> {
    request: &'a Request,
    out: BufWriter<io::Stdout>,
    is_first: bool,
    done: usize,
    code: u8,
}

impl<'a> Told<'a> {
    fn new(request: &'a Request) -> Self {
        let out = BufWriter::new(io::stdout());
        Self { request, out, is_first: true, done: 0, code: exit::OK }
    }

    fn take(&mut self, id: QueueId, result: Result<(), Refusal>) {
        let is_named = !self.request.selection.ids().is_empty();
        let (text, code) = match result {
            Ok(()) => {
                self.done += 1;
                return self.tell(id, None);
            }
            // Whoever says "all" means those that are there and fit.
            Err(Refusal::Gone | Refusal::Unfit(_)) if !is_named => return,
            Err(Refusal::Unwanted) => return,
            Err(Refusal::Gone) => ("is not in the queue".to_owned(), exit::NOINPUT),
            Err(Refusal::Unfit(text)) => (text, exit::DATAERR),
            Err(Refusal::Busy) => {
                ("is being delivered right now; try again".to_owned(), exit::TEMPFAIL)
            }
            Err(Refusal::Trouble(text)) => (text, exit::OSERR),
        };
        self.code = self.code.max(code);
        self.tell(id, Some(&text));
    }

    fn tell(&mut self, id: QueueId, problem: Option<&str>) {
        if self.request.is_json {
            let separator = if std::mem::take(&mut self.is_first) { "[" } else { ",\n" };
            let object =
                json!({ "id": id.to_string(), "done": problem.is_none(), "problem": problem });
            // A reader that is gone is no reason to leave the rest undone.
            let _ = write!(self.out, "{separator}{object}");
        } else if let Some(problem) = problem {
            warn(format_args!("{id}: {problem}"));
        }
    }

    fn end(mut self, verb: Verb, is_served: bool) -> io::Result<u8> {
        if self.request.is_json {
            writeln!(self.out, "{}", if self.is_first { "[]" } else { "]" })?;
        } else {
            writeln!(self.out, "{}", summary(self.done, verb, is_served))?;
        }
        self.out.flush()?;
        Ok(self.code)
    }
}

/// Who gives the command: the account, and for root the one that became it.
fn caller() -> String {
    let uid = rustix::process::getuid().as_raw();
    let account = users::by_uid(uid).ok().flatten();
    let name = account.map_or_else(|| format!("uid {uid}"), |account| account.name);
    let became = std::env::var("SUDO_USER").ok().filter(|who| uid == 0 && is_plain(who));
    let name = became.map_or(name.clone(), |who| format!("{name} ({who})"));
    crate::mail::text::one_line(&name, MAX_NAME)
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}
