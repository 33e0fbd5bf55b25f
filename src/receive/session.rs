//! The session thread: reads from the socket, asks the session what to do, and does it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::config::settings::{AuthRule, Listener, ListenerTls, Protocol, Vrfy};
use crate::mail::status::Status;
use crate::receive::Reception;
use crate::receive::at_work::Work;
use crate::receive::logins::Exchange;
use crate::receive::message::IncomingMessage;
use crate::receive::peer::Peer;
use crate::receive::policy::SessionPolicy;
use crate::receive::provenance::Provenance;
use crate::receive::refusal;
use crate::receive::stream::{DeadlineStream, Socket};
use crate::receive::tls::Acceptor;
use crate::receive::tls::secured::Encryption;
use crate::smtp::reply::Reply;
use crate::smtp::server::{Action, DataError, Limits, Session};

/// How long to wait for the next block of a message (RFC 5321 §4.5.3.2.5), if the configured
/// time-out is not shorter.
const DATA_BLOCK_TIMEOUT: Duration = Duration::from_secs(180);
/// The slowest a message may come on the whole, after the first time-out.
const MIN_OCTETS_PER_SECOND: u64 = 512;
/// Octets read at a time while waiting for commands, and while a message comes.
const COMMAND_READ: usize = 1 << 10;
const DATA_READ: usize = 32 << 10;
/// Replies to pipelined commands are gathered up to this many octets.
const MAX_GATHERED: usize = 4 << 10;

/// How long a TLS handshake may take, if the configured time-out is not shorter.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// The beginning of a TLS record with a handshake (RFC 8446 §5.1): no command begins so.
const TLS_RECORD: [u8; 2] = [0x16, 0x03];

/// The octets, and how long for them, that a client may still send once it is sent away.
const MAX_DROPPED: usize = 1 << 20;
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

const TIMEOUT: Reply = Reply::new(421, Status::new(4, 4, 2), "Timeout; closing the connection");
const STOPPING: Reply =
    Reply::new(421, Status::new(4, 3, 2), "The server is stopping; try again later");
const NO_CERTIFICATE: Reply =
    Reply::new(454, Status::new(4, 7, 0), "TLS is not available now; try again later");
const TLS_TOO_EARLY: Reply =
    Reply::new(554, Status::new(5, 5, 1), "TLS does not begin here by itself; closing");
const ENDLESS: Reply =
    Reply::new(552, Status::new(5, 3, 4), "The message is far too large; closing");

/// Serves one client until it leaves or is sent away. Whatever it did not finish leaves
/// nothing.
pub fn serve(reception: &Reception, socket: Socket, peer: Peer, listener: &Listener) {
    let timeout = reception.settings.server.session_timeout;
    let result = DeadlineStream::new(socket, timeout).and_then(|stream| {
        let input = Vec::with_capacity(COMMAND_READ);
        let mut conversation = Conversation {
            reception,
            listener,
            stream,
            peer,
            exchange: None,
            input,
            output: Vec::new(),
        };
        conversation.run()
    });
    match result {
        Ok(()) => log::debug!("{peer}: session ended"),
        Err(error) => {
            let (listener, text) = (&listener.name, error.to_string());
            log::info!("session broken off: client={peer} listener={listener} error={text:?}");
        }
    }
}

/// What a wait for a command came to.
enum Heard {
    /// More of it is there.
    More,
    /// The client has left.
    End,
    /// The server stops.
    Bell,
}

struct Conversation<'a> {
    reception: &'a Reception,
    listener: &'a Listener,
    stream: DeadlineStream,
    peer: Peer,
    /// A login that is under way.
    exchange: Option<Exchange>,
    /// Received and not used yet.
    input: Vec<u8>,
    /// Replies not sent yet.
    output: Vec<u8>,
}

impl<'a> Conversation<'a> {
    fn run(&mut self) -> io::Result<()> {
        let mut session = Session::new(self.limits());
        if self.listener.tls == ListenerTls::Implicit && !self.secure(&mut session) {
            return Ok(());
        }
        session.greeting().write_to(&mut self.output);
        loop {
            if self.input.starts_with(&TLS_RECORD) {
                return self.refuse_early_tls();
            }
            let user = session.user().cloned();
            let mut policy =
                policy(self.reception, self.listener, self.peer, &mut self.exchange, user);
            let action = session.next(&self.input, &mut policy);
            match action {
                Action::Read => {
                    self.send()?;
                    // A server that stops waits for what the client is told.
                    let resting = self.reception.at_rest.begin();
                    match self.read_command(session.max_line())? {
                        Heard::More => {}
                        Heard::End => return Ok(()),
                        Heard::Bell => return self.say_stopping(resting),
                    }
                }
                Action::Reply(reply, used) => {
                    self.note_refusal(&reply);
                    self.input.drain(..used);
                    reply.write_to(&mut self.output);
                    if self.output.len() > MAX_GATHERED {
                        self.send()?;
                    }
                }
                Action::ReadData(reply, used) => {
                    self.input.drain(..used);
                    reply.write_to(&mut self.output);
                    self.send()?;
                    self.take_message(&mut session)?;
                }
                Action::StartTls(go_ahead, used) => {
                    self.input.drain(..used);
                    if !self.start_tls(&mut session, &go_ahead)? {
                        return Ok(());
                    }
                }
                // Whoever says QUIT says nothing more, so there is nothing to wait for.
                Action::Close(reply) if reply.is_positive() => {
                    return self.say_bye(&reply);
                }
                Action::Close(reply) => {
                    self.note_refusal(&reply);
                    return self.close(&reply);
                }
            }
        }
    }

    /// What protects the session; `None` in the clear.
    fn encryption(&self) -> Option<Encryption> {
        self.stream.encryption()
    }

    /// Answers STARTTLS (RFC 3207 §4); `false` when the session is over.
    #[inline(never)]
    fn start_tls(&mut self, session: &mut Session, go_ahead: &Reply) -> io::Result<bool> {
        let minimum = self.listener.tls_minimum;
        let Some(acceptor) = self.reception.certificates.acceptor(minimum) else {
            self.note_refusal(&NO_CERTIFICATE);
            NO_CERTIFICATE.write_to(&mut self.output);
            return Ok(true);
        };
        go_ahead.write_to(&mut self.output);
        self.send()?;
        Ok(self.handshake(session, &acceptor))
    }

    /// Begins a session that is encrypted from its beginning (RFC 8314 §3.3); `false` when it
    /// is over already.
    #[inline(never)]
    fn secure(&mut self, session: &mut Session) -> bool {
        match self.reception.certificates.acceptor(self.listener.tls_minimum) {
            Some(acceptor) => self.handshake(session, &acceptor),
            None => {
                // None of the client's making.
                let (peer, name) = (&self.peer, &self.listener.name);
                log::info!(
                    "closed, there is no certificate for TLS to show: client={peer} listener={name}"
                );
                false
            }
        }
    }

    fn handshake(&mut self, session: &mut Session, acceptor: &Acceptor) -> bool {
        let timeout = self.reception.settings.server.session_timeout.min(HANDSHAKE_TIMEOUT);
        match self.stream.secure(acceptor, Instant::now() + timeout) {
            Ok(encryption) => {
                log::debug!("{}: {encryption}", self.peer);
                // What came in the clear behind STARTTLS was taken for part of the handshake,
                // which failed by it; a login begun in the clear is none here.
                self.exchange = None;
                self.input.clear();
                session.secured();
                true
            }
            Err(failure) => {
                refusal::note_handshake(&self.peer, self.listener, &failure);
                let _ = self.stream.finish(MAX_DROPPED, FINISH_TIMEOUT);
                false
            }
        }
    }

    fn limits(&self) -> Limits {
        let server = &self.reception.settings.server;
        let is_submission = self.listener.protocol == Protocol::Submission;
        let completes = is_submission || matches!(self.peer, Peer::Account { .. });
        Limits {
            hostname: server.hostname.to_string(),
            max_message_size: server.max_message_size,
            max_recipients: server.max_recipients,
            offers_expn: server.vrfy != Vrfy::No,
            bare_newline: self.listener.bare_newline,
            is_submission,
            origin: completes.then(|| server.domains.origin().clone()),
            offers_start_tls: self.listener.tls == ListenerTls::StartTls,
            auth: match (self.peer, self.listener.auth) {
                // RFC 6409 §4.3: the system has authenticated it already.
                (Peer::Account { .. }, AuthRule::Required) if is_submission => AuthRule::Optional,
                (_, rule) => rule,
            },
            // Nobody listens in on a Unix socket.
            auth_without_tls: self.listener.auth_without_tls
                || matches!(self.peer, Peer::Account { .. }),
            max_login_failures: self.reception.settings.auth.auth_failures,
        }
    }

    /// Reads more of a command line. The time-out is one for the whole line, so that dripping
    /// octets does not stretch it.
    fn read_command(&mut self, max_line: usize) -> io::Result<Heard> {
        let deadline = Instant::now() + self.reception.settings.server.session_timeout;
        loop {
            if self.is_stopping() {
                return Ok(Heard::Bell);
            }
            let bell = &self.reception.last_bell;
            let read = |stream: &mut DeadlineStream, input: &mut [u8]| {
                stream.read_beside(bell, input, deadline)
            };
            match self.read_more(COMMAND_READ, read).map_err(|e| self.broken_off(e))? {
                None => return Ok(Heard::Bell),
                Some(0) => return Ok(Heard::End),
                Some(_) if self.input.contains(&b'\n') || self.input.len() >= DATA_READ => {
                    return Ok(Heard::More);
                }
                Some(_) if self.input.len() >= max_line => return Ok(Heard::More),
                Some(_) => {}
            }
        }
    }

    /// Sends the client away since the server stops (RFC 5321 §3.8), which waits until it is told.
    #[inline(never)]
    fn say_stopping(&mut self, resting: Option<Work<'a>>) -> io::Result<()> {
        STOPPING.write_to(&mut self.output);
        self.send()?;
        drop(resting);
        self.finish()
    }

    /// Tells a client that was too slow why it is left (RFC 5321 §3.8), and returns `error`.
    fn broken_off(&mut self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::TimedOut {
            // That it timed out says more than that it did not take the reply either.
            let _ = self.close(&TIMEOUT);
        }
        error
    }

    /// Takes a message and answers it. A server that stops waits for that answer.
    fn take_message(&mut self, session: &mut Session) -> io::Result<()> {
        let (reply, work) = self.receive_message(session)?;
        self.note_refusal(&reply);
        reply.write_to(&mut self.output);
        // What is said next is that the server stops, but only to who waits for it.
        if work.is_none() || self.is_stopping() { self.send() } else { Ok(()) }
    }

    fn is_stopping(&self) -> bool {
        self.reception.is_stopping.load(Ordering::Relaxed)
    }

    /// Reads a message up to its end and says what the client is told. A frame of its own, so
    /// that sessions without a message have no room for one on their stacks.
    #[inline(never)]
    fn receive_message(&mut self, session: &mut Session) -> io::Result<(Reply, Option<Work<'a>>)> {
        let Some(transaction) = session.transaction() else {
            return Err(io::Error::other("data without a transaction"));
        };
        let provenance = Provenance {
            peer: self.peer,
            introduction: session.introduction(),
            is_secured: session.is_secured(),
            encryption: self.encryption(),
            user: session.user(),
            listener: self.listener,
        };
        let mut message = IncomingMessage::begin(self.reception, &provenance, transaction);
        let timeout = self.reception.settings.server.session_timeout;
        let began = Instant::now();
        let mut total = 0;
        let used = loop {
            if let Some(used) = message.feed(&self.input) {
                break used;
            }
            total += self.input.len() as u64;
            self.input.clear();
            if message.is_endless() {
                self.close(&ENDLESS)?;
                return Err(io::Error::other("the message had no end"));
            }
            let patience = timeout + Duration::from_secs(total / MIN_OCTETS_PER_SECOND);
            let deadline = (began + patience).min(Instant::now() + timeout.min(DATA_BLOCK_TIMEOUT));
            let read = |stream: &mut DeadlineStream, input: &mut [u8]| {
                stream.read_until(input, deadline).map(Some)
            };
            if self.read_more(DATA_READ, read).map_err(|e| self.broken_off(e))? == Some(0) {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "closed in the middle of a message",
                ));
            }
        };
        self.input.drain(..used);
        self.input.shrink_to(COMMAND_READ);
        let work = self.reception.at_work.begin();
        let result = match work {
            Some(_) => message.finish(),
            None => Err(DataError::Refused(STOPPING)),
        };
        Ok((session.end_of_data(result), work))
    }

    /// Has `read` put up to so many octets behind those that were not used yet.
    fn read_more(
        &mut self,
        octets: usize,
        read: impl FnOnce(&mut DeadlineStream, &mut [u8]) -> io::Result<Option<usize>>,
    ) -> io::Result<Option<usize>> {
        let filled = self.input.len();
        self.input.resize(filled + octets, 0);
        let result = read(&mut self.stream, &mut self.input[filled..]);
        self.input.truncate(filled + result.as_ref().map_or(0, |count| count.unwrap_or(0)));
        result
    }

    fn send(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let result = self.stream.write_all(&self.output);
        self.output.clear();
        result
    }

    /// Ends a session whose client begins TLS where it must not. Without this its octets would
    /// be taken for lines, and both sides wait for each other.
    #[inline(never)]
    fn refuse_early_tls(&mut self) -> io::Result<()> {
        log::info!(
            "TLS too early: client={} listener={name}: the client begins TLS at once, where \
             [listen.{name}] begins in the clear; have it use STARTTLS, or another port with tls = \
             implicit",
            self.peer,
            name = self.listener.name
        );
        self.close(&TLS_TOO_EARLY)
    }

    /// Answers QUIT. Behind it comes at most the end of TLS, which must not be left unread.
    fn say_bye(&mut self, reply: &Reply) -> io::Result<()> {
        if self.encryption().is_some() {
            return self.close(reply);
        }
        reply.write_to(&mut self.output);
        self.send()
    }

    /// Sends the client away with a reply that it can read whatever it is just sending. Out of
    /// line, for the stack of every session.
    #[inline(never)]
    fn close(&mut self, reply: &Reply) -> io::Result<()> {
        reply.write_to(&mut self.output);
        self.send()?;
        self.finish()
    }

    /// Closes behind the last reply. A client that is gone or goes on talking does not matter.
    fn finish(&mut self) -> io::Result<()> {
        let _ = self.stream.finish(MAX_DROPPED, FINISH_TIMEOUT);
        Ok(())
    }

    fn note_refusal(&self, reply: &Reply) {
        refusal::note(&self.peer, self.listener, reply);
    }
}

/// The policy for a client of `listener`, who has logged in as `user`.
pub(super) fn policy<'a>(
    reception: &'a Reception,
    listener: &Listener,
    peer: Peer,
    exchange: &'a mut Option<Exchange>,
    user: Option<Arc<str>>,
) -> SessionPolicy<'a> {
    let Reception { settings, spool, router, logins, intake, queue_runs, .. } = reception;
    SessionPolicy {
        settings,
        spool,
        router,
        intake,
        queue_runs,
        peer,
        protocol: listener.protocol,
        auth: listener.auth,
        logins,
        exchange,
        user,
    }
}
