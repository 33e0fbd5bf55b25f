//! Dovecot's authentication service, whose accounts are then ours: its client protocol, version
//! 1, over the Unix socket that Dovecot calls auth-client.
//!
//! Dovecot does the mechanism as well; what a client says is passed on unread. Each login has a
//! connection of its own, which ends with it. Where Dovecot is away, clients are told to come
//! again.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::receive::peer::Peer;
use crate::report::complaint::Complaint;
use crate::smtp::sasl::Mechanism;
use crate::smtp::sasl::server::Refusal;

/// How long Dovecot may take to greet, and to answer. It lets a client that failed wait for up
/// to 17 seconds by itself.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the mechanisms that it announced are believed.
const MECHANISMS_AGE: Duration = Duration::from_secs(60);
/// The longest line that Dovecot takes, and the longest that we do.
const MAX_LINE: usize = 8192;
/// The most lines before the one that counts.
const MAX_LINES: usize = 256;
/// The longest name of an account that Dovecot may answer with.
const MAX_NAME: usize = 255;
/// The number of the request; a connection has one.
const REQUEST: &str = "1";

static AWAY_TOLD: Complaint = Complaint::new();

/// Dovecot, as it is reached.
#[derive(Debug)]
pub struct Dovecot {
    path: PathBuf,
    configured: Vec<Mechanism>,
    announced: Mutex<Option<(Instant, Vec<Mechanism>)>>,
}

/// A login that Dovecot is in the middle of.
#[derive(Debug)]
pub struct Conversation {
    connection: Connection,
    path: PathBuf,
}

/// What comes of a response.
#[derive(Debug)]
pub enum Step {
    /// Send these octets, and go on with the client's response.
    Challenge(Vec<u8>, Conversation),
    /// It is this account.
    Accepted(Arc<str>),
}

/// A login that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// The name that was tried, where Dovecot says it.
    pub user: Option<String>,
}

/// What Dovecot answers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Challenge(Vec<u8>),
    Accepted(String),
    /// `is_temporary`: it could not look.
    Failed {
        user: Option<String>,
        is_temporary: bool,
        reason: Option<String>,
    },
}

impl Dovecot {
    /// Dovecot behind the socket at `path`, of whose mechanisms these are offered.
    pub fn new(path: PathBuf, configured: Vec<Mechanism>) -> Self {
        Self { path, configured, announced: Mutex::new(None) }
    }

    /// The mechanisms that are configured and that Dovecot has. While it is away, those that it
    /// had, so that nobody takes our word for it that there is no way to log in.
    pub fn mechanisms(&self) -> Vec<Mechanism> {
        let announced = self.announced();
        if let Some((when, mechanisms)) = &announced
            && when.elapsed() < MECHANISMS_AGE
        {
            return mechanisms.clone();
        }
        match self.connect() {
            Ok((_, mechanisms)) => mechanisms,
            Err(error) => {
                self.complain(&error);
                announced.map_or_else(|| self.configured.clone(), |(_, mechanisms)| mechanisms)
            }
        }
    }

    /// Begins a login.
    ///
    /// # Errors
    /// It came to nothing, or Dovecot is away.
    pub fn begin(
        &self,
        peer: &Peer,
        mechanism: Mechanism,
        initial: Option<&[u8]>,
    ) -> Result<Step, Refused> {
        let request = request(peer, mechanism, initial)?;
        let connection = self.connect().map_err(|error| {
            self.complain(&error);
            unavailable()
        })?;
        let conversation = Conversation { connection: connection.0, path: self.path.clone() };
        conversation.ask(&request)
    }

    fn connect(&self) -> io::Result<(Connection, Vec<Mechanism>)> {
        let mut connection = Connection::open(&self.path)?;
        let announced = connection.greet()?;
        let has = |mechanism: &Mechanism| announced.contains(mechanism);
        let mechanisms: Vec<_> = self.configured.iter().copied().filter(has).collect();
        *self.announced.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), mechanisms.clone()));
        Ok((connection, mechanisms))
    }

    fn announced(&self) -> Option<(Instant, Vec<Mechanism>)> {
        // Only whole values are ever put in.
        self.announced.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn complain(&self, error: &io::Error) {
        complain(&self.path, error);
    }
}

impl Conversation {
    /// Goes on with the client's response.
    ///
    /// # Errors
    /// It came to nothing, or Dovecot went away.
    pub fn respond(self, response: &[u8]) -> Result<Step, Refused> {
        let line = bounded(format!("CONT\t{REQUEST}\t{}\n", STANDARD.encode(response)))?;
        self.ask(&line)
    }

    fn ask(mut self, line: &str) -> Result<Step, Refused> {
        let answer = self.connection.ask(line).and_then(|answer| match answer {
            Answer::Accepted(user) if !is_name(&user) => {
                Err(bad(format!("it says that {user:?} logged in, which is no name")))
            }
            answer => Ok(answer),
        });
        match answer {
            Ok(Answer::Challenge(challenge)) => Ok(Step::Challenge(challenge, self)),
            Ok(Answer::Accepted(user)) => Ok(Step::Accepted(user.into())),
            Ok(Answer::Failed { user, is_temporary, reason }) => {
                if let Some(reason) = reason {
                    log::warn!("auth: Dovecot refuses {user:?}: {reason:?}");
                }
                let refusal =
                    if is_temporary { Refusal::Unavailable } else { Refusal::Credentials };
                Err(Refused { refusal, user })
            }
            Err(error) => {
                complain(&self.path, &error);
                Err(unavailable())
            }
        }
    }
}

fn complain(path: &std::path::Path, error: &io::Error) {
    AWAY_TOLD.error(format_args!(
        "auth: Dovecot's socket {} cannot be used, logins are answered with 454: {error}",
        path.display()
    ));
}

const fn unavailable() -> Refused {
    Refused { refusal: Refusal::Unavailable, user: None }
}

/// An account may be called so. The name goes into headers and into the log.
fn is_name(user: &str) -> bool {
    (1..=MAX_NAME).contains(&user.len()) && !user.chars().any(char::is_control)
}

/// The line that begins a login.
fn request(peer: &Peer, mechanism: Mechanism, initial: Option<&[u8]>) -> Result<String, Refused> {
    // Whether a password may come in the clear was decided before it came here; `nologin` says
    // that nobody else asks about this login.
    let mut line = format!("AUTH\t{REQUEST}\t{mechanism}\tservice=smtp\tnologin\tsecured");
    if let Peer::Host { remote, local } = peer {
        line.push_str(&format!("\tlip={local}\trip={remote}"));
    }
    // It has to be the last one.
    if let Some(initial) = initial {
        line.push_str(&format!("\tresp={}", STANDARD.encode(initial)));
    }
    line.push('\n');
    bounded(line)
}

fn bounded(line: String) -> Result<String, Refused> {
    if line.len() <= MAX_LINE {
        return Ok(line);
    }
    Err(Refused { refusal: Refusal::Malformed, user: None })
}

/// A connection to Dovecot, with a deadline on all that it says.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    /// Received and not used yet.
    input: Vec<u8>,
}

impl Connection {
    fn open(path: &std::path::Path) -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        // Also how long to wait for a Dovecot that accepts nobody.
        socket.set_write_timeout(Some(GREETING_TIMEOUT))?;
        socket.connect(&socket2::SockAddr::unix(path)?)?;
        Ok(Self { stream: OwnedFd::from(socket).into(), input: Vec::new() })
    }

    /// Says who we are, and reads what Dovecot says of itself: the mechanisms that it has and
    /// that we know.
    fn greet(&mut self) -> io::Result<Vec<Mechanism>> {
        let process = std::process::id();
        self.stream.write_all(format!("VERSION\t1\t1\nCPID\t{process}\n").as_bytes())?;
        let deadline = Instant::now() + GREETING_TIMEOUT;
        let mut mechanisms = Vec::new();
        let mut is_version_known = false;
        for _ in 0..MAX_LINES {
            let line = self.line(deadline)?;
            let mut fields = line.split('\t');
            match (fields.next(), fields.next()) {
                (Some("VERSION"), Some("1")) => is_version_known = true,
                (Some("VERSION"), version) => {
                    return Err(bad(format!("it speaks version {version:?}, not 1")));
                }
                (Some("MECH"), Some(name)) => mechanisms.extend(Mechanism::named(name)),
                (Some("DONE"), _) if is_version_known => return Ok(mechanisms),
                (Some("DONE"), _) => return Err(bad("it tells no version".to_owned())),
                // SPID, CUID, COOKIE, and what may come to be.
                _ => {}
            }
        }
        Err(bad("its greeting has no end".to_owned()))
    }

    fn ask(&mut self, line: &str) -> io::Result<Answer> {
        self.stream.write_all(line.as_bytes())?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        for _ in 0..MAX_LINES {
            if let Some(answer) = answer(&self.line(deadline)?)? {
                return Ok(answer);
            }
        }
        Err(bad("it does not come to an answer".to_owned()))
    }

    /// Reads a line, without its end.
    fn line(&mut self, deadline: Instant) -> io::Result<String> {
        loop {
            if let Some(end) = self.input.iter().position(|octet| *octet == b'\n') {
                let line: Vec<_> = self.input.drain(..=end).take(end).collect();
                return String::from_utf8(line).map_err(|_| bad("it says no text".to_owned()));
            }
            if self.input.len() > MAX_LINE {
                return Err(bad("its line has no end".to_owned()));
            }
            self.read_more(deadline)?;
        }
    }

    fn read_more(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut octets = [0; 1024];
        match self.stream.read(&mut octets) {
            Ok(0) => Err(bad("it closed the connection".to_owned())),
            Ok(count) => {
                self.input.extend_from_slice(&octets[..count]);
                Ok(())
            }
            Err(error) => match error.kind() {
                // The deadline is looked at again.
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
                _ => Err(error),
            },
        }
    }
}

fn bad(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// What a line means for our request; `None` where it is about something else.
fn answer(line: &str) -> io::Result<Option<Answer>> {
    let mut fields = line.split('\t');
    let (kind, request) = (fields.next().unwrap_or_default(), fields.next());
    if request != Some(REQUEST) {
        return Ok(None);
    }
    let value = |name: &str| {
        let named = |field: &str| field.strip_prefix(name)?.strip_prefix('=').map(unescaped);
        line.split('\t').skip(2).find_map(named)
    };
    let has = |name: &str| line.split('\t').skip(2).any(|field| field == name);
    Ok(Some(match kind {
        "CONT" => {
            let challenge = STANDARD.decode(fields.next().unwrap_or_default());
            Answer::Challenge(challenge.map_err(|_| bad("its challenge is no base64".to_owned()))?)
        }
        "OK" => Answer::Accepted(value("user").ok_or_else(|| bad("it names nobody".to_owned()))?),
        "FAIL" => {
            let is_temporary = has("temp") || value("code").as_deref() == Some("temp_fail");
            Answer::Failed { user: value("user"), is_temporary, reason: value("reason") }
        }
        _ => return Ok(None),
    }))
}

/// Undoes Dovecot's escapes of what would end a field or a line.
fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1}' => plain.extend(chars.next().map(|c| match c {
                '0' => '\0',
                '1' => '\u{1}',
                't' => '\t',
                'r' => '\r',
                'n' => '\n',
                c => c,
            })),
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests;
