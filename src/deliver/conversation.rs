//! An SMTP session over a stream: does what the client's machine in [`crate::smtp::client`]
//! says, and keeps the time.
//!
//! The stream is anything with a descriptor, so the same code relays over TCP and submits over
//! the Unix socket. Every reply and every block of the content has a deadline (RFC 5321
//! §4.5.3.2), and so has the TLS handshake.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::deliver::login::Account;
use crate::deliver::stream::Stream;
use crate::deliver::tls::hello::ServerHello;
use crate::deliver::tls::{Protection, Security, TlsError, TlsPeer};
use crate::mail::address::DomainName;
use crate::smtp::client::{
    Action, Awaited, Client, Ending, LoginError, RecipientResult, Transaction,
};
use crate::smtp::dot_stuffing::DotStuffing;
use crate::smtp::reply_parser::{PeerReply, ReplyParser};
use crate::smtp::sasl::Mechanism;

mod cause;
mod timeouts;

pub use self::cause::{Cause, ConnectionError};
pub use self::timeouts::Timeouts;
use self::timeouts::content_time;

/// How much of the content is read and sent at once, in octets.
const BLOCK: usize = 64 * 1024;
/// How much of the replies is read at once, in octets.
const REPLY_BLOCK: usize = 4096;

/// A session with a server, between two transactions.
#[derive(Debug)]
pub struct SmtpConnection<S> {
    stream: Stream<S>,
    client: Client,
    parser: ReplyParser,
    timeouts: Timeouts,
    /// When the opening, or the message under way, must be through; QUIT is bounded by itself.
    stage_end: Option<Instant>,
    /// Whom the handshake behind STARTTLS is with.
    start_tls_with: Option<TlsPeer>,
    /// Who logs in.
    account: Option<Account>,
    /// Whether a reply came since the last handshake, or since the beginning.
    has_answered: bool,
    /// Whether a login was begun that has not gone well yet.
    is_in_login: bool,
    is_content_sent: bool,
    is_broken: bool,
}

impl<S: Read + Write + AsFd> SmtpConnection<S> {
    /// Greets the server on a connected stream, in the clear. `helo_name` is this host's name.
    ///
    /// # Errors
    /// [`ConnectionError`]; the stream is closed.
    pub fn open(
        stream: S,
        helo_name: &DomainName,
        timeouts: Timeouts,
    ) -> Result<Self, ConnectionError> {
        Self::open_with(stream, helo_name, timeouts, Security::None)
    }

    /// The same, encrypted as `security` says: a server that does not do so, or does not prove
    /// its name where it has to, is an error.
    ///
    /// # Errors
    /// [`ConnectionError`]; the stream is closed.
    pub fn open_with(
        stream: S,
        helo_name: &DomainName,
        timeouts: Timeouts,
        security: Security,
    ) -> Result<Self, ConnectionError> {
        Self::open_as(stream, helo_name, timeouts, security, None)
    }

    /// The same, logged in to `account` where there is one: a server that does not let us is
    /// an error.
    ///
    /// # Errors
    /// [`ConnectionError`]; the stream is closed.
    pub fn open_as(
        stream: S,
        helo_name: &DomainName,
        timeouts: Timeouts,
        security: Security,
        account: Option<Account>,
    ) -> Result<Self, ConnectionError> {
        let mut connection = Self {
            stream: Stream::new(stream, timeouts.tick()),
            client: Client::new(helo_name),
            parser: ReplyParser::new(),
            timeouts,
            stage_end: Instant::now().checked_add(timeouts.opening),
            start_tls_with: None,
            account,
            has_answered: false,
            is_in_login: false,
            is_content_sent: false,
            is_broken: false,
        };
        if let Some(account) = &connection.account {
            connection.client = connection.client.with_login(account.mechanisms());
        }
        match security {
            Security::None => {}
            Security::IfOffered(peer) => {
                connection.client = connection.client.with_start_tls_if_offered();
                connection.start_tls_with = Some(peer);
            }
            Security::StartTls(peer) => {
                connection.client = connection.client.with_start_tls();
                connection.start_tls_with = Some(peer);
            }
            Security::Implicit(peer) => {
                connection.handshake(&peer).map_err(|cause| connection.error(cause))?;
            }
        }
        connection.greet()
    }

    fn greet(mut self) -> Result<Self, ConnectionError> {
        let ended = self.run(&mut io::empty(), 0);
        // The secret is of no more use.
        (self.stage_end, self.account) = (None, None);
        match ended {
            Ok(None) => {
                self.is_in_login = false;
                Ok(self)
            }
            Ok(Some(ending)) => {
                // RFC 5321 §3.1: a server that refuses us still waits for QUIT. It is not
                // worth an error if that cannot be sent.
                let _ = self.write(b"QUIT\r\n", Awaited::Quit, self.timeouts.quit);
                Err(self.error(Cause::Ended(ending)))
            }
            Err(cause) => Err(self.error(self.told_late(cause))),
        }
    }

    /// In TLS 1.3 a peer that does not like our side of the handshake says so when that has
    /// ended for us (RFC 8446 §2): then it is the answer that does not come to what follows.
    fn told_late(&self, cause: Cause) -> Cause {
        match cause {
            _ if self.protection() == Protection::None || self.has_answered => cause,
            Cause::Closed(Awaited::Ehlo) => Cause::Tls(TlsError::Closed),
            Cause::Io(error) => Cause::Tls(TlsError::of_io(&error)),
            cause => cause,
        }
    }

    /// Sends one message: a result for each recipient, in their order.
    ///
    /// # Errors
    /// [`ConnectionError`] where the session broke off before every recipient had a result;
    /// what it says of the content tells whether the message may be sent again.
    pub fn send(
        &mut self,
        transaction: &Transaction<'_>,
        content: &mut dyn Read,
    ) -> Result<Vec<RecipientResult>, ConnectionError> {
        self.is_content_sent = false;
        self.client.begin(transaction);
        self.stage_end = Instant::now().checked_add(self.timeouts.whole(transaction));
        let ended = self.run(content, transaction.size_octets);
        self.stage_end = None;
        if !matches!(ended, Ok(None)) {
            self.is_broken = true;
        }
        match (self.client.results(), ended) {
            (Some(results), _) => Ok(results),
            (None, Err(cause)) => Err(self.error(cause)),
            (None, Ok(ending)) => Err(self.error(Cause::Ended(ending.unwrap_or(Ending::Quit)))),
        }
    }

    /// Whether the server knows what senders ask about reports (RFC 3461).
    pub fn offers_dsn(&self) -> bool {
        self.client.offers_dsn()
    }

    /// What protects what is said in the session. It never changes once the session is open.
    pub const fn protection(&self) -> Protection {
        self.stream.protection()
    }

    /// Whether the session is encrypted, be it that nobody knows by whom.
    pub fn is_secured(&self) -> bool {
        self.protection() != Protection::None
    }

    /// The version of TLS that is spoken; `TLS` where it could not be read, or there is none.
    pub fn tls_version(&self) -> &'static str {
        self.hello().map_or("TLS", ServerHello::version)
    }

    /// What was agreed upon in the TLS handshake, where there was one and it could be read.
    pub const fn hello(&self) -> Option<ServerHello> {
        self.stream.hello()
    }

    /// Whether another message can be sent, as far as is known without asking the system.
    pub fn is_sound(&self) -> bool {
        !self.is_broken && self.parser.is_empty()
    }

    /// Whether another message can be sent: the session is sound, and the peer has neither
    /// closed it nor said anything since. Where it is not, it is of no more use.
    pub fn is_reusable(&mut self) -> bool {
        self.is_sound() && self.stream.is_quiet()
    }

    /// Says QUIT and closes. Whatever the peer does then is no longer of interest.
    pub fn quit(mut self) {
        if !self.is_broken {
            self.client.quit();
            let _ = self.run(&mut io::empty(), 0);
            self.stream.say_end();
        }
    }

    fn error(&self, cause: Cause) -> ConnectionError {
        let (is_content_sent, is_in_login) = (self.is_content_sent, self.is_in_login);
        ConnectionError { cause, is_content_sent, is_in_login }
    }

    /// Does what the machine says until nothing is under way (`None`) or the session is over.
    fn run(&mut self, content: &mut dyn Read, size_octets: u64) -> Result<Option<Ending>, Cause> {
        loop {
            match self.client.next_action() {
                Action::Send(octets) => {
                    self.write(&octets, Awaited::Mail, self.timeouts.block)?;
                }
                Action::Read(awaited) => {
                    let reply = self.read_reply(awaited)?;
                    self.client.on_reply(reply);
                }
                Action::StartTls => self.start_tls()?,
                Action::LogIn(mechanism) => self.log_in(mechanism),
                Action::SendContent => self.send_content(content, size_octets)?,
                Action::Ready => return Ok(None),
                Action::Close(ending) => return Ok(Some(ending)),
            }
        }
    }

    /// Sends the content. A server that has had enough may refuse and close before the end:
    /// then its reply counts, not the broken pipe.
    fn send_content(&mut self, content: &mut dyn Read, size_octets: u64) -> Result<(), Cause> {
        let Err(cause) = self.write_content(content, size_octets) else { return Ok(()) };
        self.is_broken = true;
        if matches!(cause, Cause::Io(_)) {
            match self.read_reply(Awaited::Content) {
                Ok(reply) if reply.is_failure() => {
                    self.client.on_reply(reply);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(cause)
    }

    fn write_content(&mut self, content: &mut dyn Read, size_octets: u64) -> Result<(), Cause> {
        // Only from here on, so that nobody is slow with replies in the time of a large message.
        self.stage_end = self.stage_end.and_then(|end| end.checked_add(content_time(size_octets)));
        let size = usize::try_from(size_octets).unwrap_or(BLOCK);
        let mut block = vec![0; size.clamp(1, BLOCK)];
        let mut wire = Vec::with_capacity(block.len() + block.len() / 32 + 16);
        let mut stuffing = DotStuffing::new();
        loop {
            match content.read(&mut block) {
                Ok(0) => break,
                Ok(count) => stuffing.encode(&block[..count], &mut wire),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Cause::Content(error)),
            }
            if wire.len() >= BLOCK {
                self.write(&wire, Awaited::Content, self.timeouts.block)?;
                wire.clear();
            }
        }
        stuffing.finish(&mut wire);
        // From here on the server may have it all, whatever the write says.
        self.is_content_sent = true;
        self.write(&wire, Awaited::Content, self.timeouts.block)
    }

    fn read_reply(&mut self, awaited: Awaited) -> Result<PeerReply, Cause> {
        self.allow(self.timeouts.reply_to(awaited));
        let mut block = [0; REPLY_BLOCK];
        loop {
            if let Some(reply) = self.parser.next_reply().map_err(Cause::NoReply)? {
                self.has_answered = true;
                return Ok(reply);
            }
            match self.stream.read(&mut block) {
                Ok(0) => return Err(Cause::Closed(awaited)),
                Ok(count) => self.parser.feed(&block[..count]),
                Err(error) => return Err(Cause::of(error, awaited)),
            }
        }
    }

    /// Lets the next step take so long, and no longer than is left for the message.
    fn allow(&mut self, limit: Duration) {
        let step_end = Instant::now() + limit;
        let end = self.stage_end.map_or(step_end, |end| end.min(step_end));
        self.stream.set_deadline(end);
    }

    fn write(&mut self, octets: &[u8], awaited: Awaited, limit: Duration) -> Result<(), Cause> {
        self.allow(limit);
        self.stream.write_all(octets).map_err(|error| Cause::of(error, awaited))
    }

    /// Encrypts the connection after the 220 to STARTTLS.
    fn start_tls(&mut self) -> Result<(), Cause> {
        // Whoever put octets between the 220 and the handshake hopes that they are taken for
        // an answer that came encrypted (CVE-2021-38371).
        if !self.parser.is_empty() {
            return Err(Cause::Injected);
        }
        // Without anybody to shake hands with, going on would be going on in the clear.
        let peer = self.start_tls_with.take().ok_or(Cause::Tls(TlsError::Closed))?;
        self.handshake(&peer)?;
        self.client.on_handshake();
        Ok(())
    }

    /// Answers the machine's wish for a login. Only here it is known whether the connection is
    /// encrypted.
    fn log_in(&mut self, mechanism: Mechanism) {
        let is_encrypted = matches!(self.stream, Stream::Tls { .. });
        let exchange = match &self.account {
            Some(account) => account.exchange(mechanism, is_encrypted),
            None => Err(LoginError::NotOffered),
        };
        self.is_in_login = exchange.is_ok();
        self.client.log_in(exchange);
        // A server must not hold us by one challenge after the other.
        let end = Instant::now().checked_add(self.timeouts.command);
        self.stage_end = [self.stage_end, end].into_iter().flatten().min();
    }

    fn handshake(&mut self, peer: &TlsPeer) -> Result<(), Cause> {
        self.allow(self.timeouts.handshake);
        self.has_answered = false;
        self.stream.secure(peer).map_err(Cause::Tls)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::mail::address::Mailbox;
    use crate::smtp::client::Recipient;

    fn open(replies: &str) -> (Result<SmtpConnection<UnixStream>, ConnectionError>, UnixStream) {
        open_within(replies, Timeouts::default())
    }

    fn open_within(
        replies: &str,
        timeouts: Timeouts,
    ) -> (Result<SmtpConnection<UnixStream>, ConnectionError>, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(replies.as_bytes()).unwrap();
        (SmtpConnection::open(ours, &"me.test".parse().unwrap(), timeouts), theirs)
    }

    fn send(
        connection: &mut SmtpConnection<UnixStream>,
        content: &[u8],
    ) -> Result<Vec<RecipientResult>, ConnectionError> {
        let recipient: Mailbox = "bob@there.test".parse().unwrap();
        let transaction = Transaction {
            reverse_path: &"<>".parse().unwrap(),
            recipients: &[Recipient { mailbox: &recipient, request: Default::default() }],
            request: &Default::default(),
            is_eight_bit: false,
            size_octets: content.len() as u64,
        };
        connection.send(&transaction, &mut &*content)
    }

    fn told(mut peer: UnixStream) -> String {
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_session_over_a_unix_socket() {
        let (opened, peer) = open(
            "220 mx\r\n250-mx\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n221 bye\r\n",
        );
        let mut connection = opened.unwrap();
        let results = send(&mut connection, b".a\r\n").unwrap();
        assert!(matches!(&results[..], [RecipientResult::Taken(reply)] if reply.code() == 250));
        connection.quit();
        assert_eq!(
            told(peer),
            "EHLO me.test\r\nMAIL FROM:<>\r\nRCPT TO:<bob@there.test>\r\nDATA\r\n..a\r\n.\r\nQUIT\r\n"
        );
    }

    #[test]
    fn neither_an_opening_nor_replies_take_the_time_that_others_have() {
        let short = Duration::from_millis(100);
        let timeouts = Timeouts { opening: short, ..Timeouts::default() };
        let error = open_within("220 mx\r\n", timeouts).0.unwrap_err();
        assert!(matches!(error.cause, Cause::TooSlow(Awaited::Ehlo)), "{error:?}");
        let timeouts = Timeouts { transaction: short, ..Timeouts::default() };
        let (opened, _peer) = open_within("220 mx\r\n250 mx\r\n250 ok\r\n", timeouts);
        let content = vec![b'x'; 1 << 20];
        let error = send(&mut opened.unwrap(), &content).unwrap_err();
        assert!(matches!(error.cause, Cause::TooSlow(Awaited::Recipient(_))), "{error:?}");
    }

    #[test]
    fn a_server_that_refuses_is_told_quit() {
        let (opened, peer) = open("554 no\r\n");
        let error = opened.unwrap_err();
        assert!(matches!(error.cause, Cause::Ended(Ending::Refused(_))), "{error:?}");
        assert_eq!(told(peer), "QUIT\r\n");
    }

    #[test]
    fn an_error_tells_whether_the_content_was_sent() {
        let envelope = "220 mx\r\n250 mx\r\n250 ok\r\n250 ok\r\n";
        for (replies, is_content_sent) in
            [(envelope.to_owned(), false), (format!("{envelope}354 go\r\n"), true)]
        {
            let (opened, peer) = open(&replies);
            let mut connection = opened.unwrap();
            peer.shutdown(std::net::Shutdown::Write).unwrap();
            let error = send(&mut connection, b"a\r\n").unwrap_err();
            assert_eq!(error.is_content_sent, is_content_sent);
            assert!(matches!(error.cause, Cause::Closed(_)), "{error:?}");
            assert!(!connection.is_reusable());
        }
    }

    #[test]
    fn only_a_quiet_and_open_connection_is_reusable() {
        let greeting = "220 mx\r\n250 mx\r\n";
        let (opened, mut peer) = open(greeting);
        let mut connection = opened.unwrap();
        assert!(connection.is_reusable());
        peer.write_all(b"421 bye\r\n").unwrap();
        assert!(!connection.is_reusable());
        let (opened, peer) = open(greeting);
        let mut connection = opened.unwrap();
        drop(peer);
        assert!(!connection.is_reusable());
    }
}
