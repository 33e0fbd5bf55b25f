//! Where the secret of an account comes from, as `[smarthost]` says: the configuration, a file that
//! is read again when it has changed, or a command that is run again when its token has expired.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::settings::SecretSource;
use crate::deliver::login::Secret;
use crate::deliver::storage::printable;
use crate::mail::text::{MAX_REMARK, one_line};
use crate::sys::command::{self, Beyond, Bounds, Ended};
use crate::sys::watched::WatchedFile;
use crate::sys::{files, users};

/// The largest file with a password, in octets.
pub const MAX_FILE: u64 = 64 << 10;
/// What a command may do.
const BOUNDS: Bounds =
    Bounds { time: Duration::from_secs(30), octets: 64 << 10, beyond: Beyond::Killed };

/// What keeps the secret of one account.
#[derive(Debug)]
pub struct Keeper {
    /// The section that names it, for errors.
    section: String,
    source: Source,
    pause: Duration,
}

#[derive(Debug)]
enum Source {
    Inline(Arc<Secret>),
    File(WatchedFile<Result<Arc<Secret>, NoSecret>>),
    Command(Printer),
}

/// A command, and what is known from it.
struct Printer {
    command: String,
    state: Mutex<Printed>,
    has_ended: Condvar,
}

/// The command may hold what is nobody's business.
impl fmt::Debug for Printer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Printer(..)")
    }
}

#[derive(Debug, Default)]
struct Printed {
    is_running: bool,
    /// When the command was run last.
    at: Option<Instant>,
    result: Option<Result<Arc<Secret>, NoSecret>>,
}

/// Why there is no secret, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSecret(String);

impl fmt::Display for NoSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoSecret {}

impl Keeper {
    /// The keeper of what `section` says. A command is run again after a `pause` at the soonest.
    pub fn new(section: &str, source: &SecretSource, pause: Duration) -> Self {
        let source = match source {
            SecretSource::Inline(text) => Source::Inline(Arc::new(Secret::from(text.as_str()))),
            SecretSource::File(path) => Source::File(WatchedFile::new(path.clone(), MAX_FILE)),
            SecretSource::Command(command) => Source::Command(Printer {
                command: command.clone(),
                state: Mutex::default(),
                has_ended: Condvar::new(),
            }),
        };
        Self { section: section.to_owned(), source, pause }
    }

    /// Whether the secret comes from a command, and so can be another one each time.
    pub const fn is_command(&self) -> bool {
        matches!(self.source, Source::Command(_))
    }

    /// Whether the secret comes from a file.
    pub const fn is_file(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    /// The secret as it is now; may take as long as the command, where that has to be run. It
    /// is when the secret it printed last is the `refused` one, and it was not run a moment ago.
    ///
    /// # Errors
    /// [`NoSecret`]: the configuration is to blame, or the command.
    pub fn secret(&self, refused: Option<&Secret>) -> Result<Arc<Secret>, NoSecret> {
        match &self.source {
            Source::Inline(secret) => Ok(Arc::clone(secret)),
            Source::File(file) => self.read(file),
            Source::Command(printer) => printer.printed(
                |at| at.elapsed() < self.pause,
                |secret| Some(secret) != refused,
                || self.run(&printer.command),
            ),
        }
    }

    /// The secret after a login that was begun at that moment was refused with this one. A
    /// command is run again however short a time ago it was, unless it was since then: a token
    /// may expire in the very minute in which it was printed.
    ///
    /// # Errors
    /// As [`Self::secret`].
    pub fn secret_after(&self, refused: &Secret, began: Instant) -> Result<Arc<Secret>, NoSecret> {
        match &self.source {
            Source::Inline(_) | Source::File(_) => self.secret(Some(refused)),
            Source::Command(printer) => printer.printed(
                |at| at > began,
                |secret| secret != refused,
                || self.run(&printer.command),
            ),
        }
    }

    fn read(
        &self,
        file: &WatchedFile<Result<Arc<Secret>, NoSecret>>,
    ) -> Result<Arc<Secret>, NoSecret> {
        let path = file.path();
        let wrong = |why: &dyn fmt::Display| {
            NoSecret(format!("[{}] password_file {} {why}", self.section, printable(path)))
        };
        let parse = |octets: &[u8], _| {
            self.warn_if_for_everybody(path);
            let secret = Secret::in_first_line(octets).map(Arc::new);
            Arc::new(secret.map_err(|why| wrong(&why)))
        };
        match file.load(parse) {
            Ok(secret) => secret.as_ref().clone(),
            Err(error) => Err(wrong(&unreadable(&error))),
        }
    }

    fn warn_if_for_everybody(&self, path: &Path) {
        if files::is_for_everybody(path).unwrap_or(false) {
            let path = printable(path);
            log::warn!(
                "[{}] password_file {path} can be read by everybody; say `chmod o-r` to it",
                self.section
            );
        }
    }

    fn run(&self, command: &str) -> Result<Arc<Secret>, NoSecret> {
        let began = Instant::now();
        let wrong =
            |why: &dyn fmt::Display| NoSecret(format!("[{}] password_command {why}", self.section));
        let ended = command::run(command, BOUNDS).map_err(|error| wrong(&stopped(&error)))?;
        self.log_complaints(&ended);
        if !ended.status.success() {
            return Err(wrong(&format_args!("failed: {}", ended.status)));
        }
        let secret = Secret::in_first_line(&ended.output).map_err(|why| wrong(&why))?;
        log::debug!("[{}] password_command ran {} ms", self.section, began.elapsed().as_millis());
        Ok(Arc::new(secret))
    }

    fn log_complaints(&self, ended: &Ended) {
        let complaints = String::from_utf8_lossy(&ended.complaints);
        let text = one_line(complaints.trim(), MAX_REMARK);
        if !text.is_empty() {
            log::warn!("[{}] password_command said: {text}", self.section);
        }
    }
}

impl Printer {
    /// What the command printed last if it `is_good`, or if the moment when it did `is_fresh`;
    /// else what it prints now. One thread runs it, and the others wait for that.
    fn printed(
        &self,
        is_fresh: impl Fn(Instant) -> bool,
        is_good: impl Fn(&Secret) -> bool,
        run: impl FnOnce() -> Result<Arc<Secret>, NoSecret>,
    ) -> Result<Arc<Secret>, NoSecret> {
        let mut printed = self.lock();
        while printed.is_running {
            printed = self.has_ended.wait(printed).unwrap_or_else(PoisonError::into_inner);
        }
        let is_fresh = printed.at.is_some_and(is_fresh);
        match &printed.result {
            Some(Ok(secret)) if is_fresh || is_good(secret) => return Ok(Arc::clone(secret)),
            Some(Err(error)) if is_fresh => return Err(error.clone()),
            _ => printed.is_running = true,
        }
        drop(printed);
        let running = Running(self);
        let result = run();
        let mut printed = self.lock();
        (printed.at, printed.result) = (Some(Instant::now()), Some(result.clone()));
        drop(printed);
        drop(running);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Printed> {
        // Each value in it is whole by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The command runs as long as this lives, even if a panic ends it.
struct Running<'a>(&'a Printer);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().is_running = false;
        self.0.has_ended.notify_all();
    }
}

/// Why a command came to no end of its own.
fn stopped(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => format!("ran for more than {} s", BOUNDS.time.as_secs()),
        io::ErrorKind::FileTooLarge => format!("printed more than {} octets", BOUNDS.octets),
        _ => format!("cannot be run: {error}"),
    }
}

/// Why a file cannot be read, and by whom it has to be.
fn unreadable(error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return format!("cannot be read: {error}");
    }
    let uid = rustix::process::geteuid();
    let name = users::by_uid(uid.as_raw()).ok().flatten().map(|account| account.name);
    let name = name.unwrap_or_else(|| uid.as_raw().to_string());
    format!("cannot be read: {error}; the account {name} must be able to read it")
}
