//! An SMTP session over a stream: does what the client's machine in [`crate::smtp::client`]
//! says, and keeps the time.
//!
//! The stream is anything with a descriptor, so the same code relays over TCP and submits over
//! the Unix socket. Every reply and every block of the content has a deadline (RFC 5321
//! §4.5.3.2), and so has the TLS handshake.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::deliver::stream::Stream;
use crate::deliver::tls::hello::ServerHello;
use crate::deliver::tls::{Protection, Security, TlsError, TlsPeer};
use crate::mail::address::DomainName;
use crate::smtp::client::{Action, Awaited, Client, Ending, RecipientResult, Transaction};
use crate::smtp::dot_stuffing::DotStuffing;
use crate::smtp::reply_parser::{PeerReply, ReplyError, ReplyParser};

/// How much of the content is read and sent at once, in octets.
const BLOCK: usize = 64 * 1024;
/// How much of the replies is read at once, in octets.
const REPLY_BLOCK: usize = 4096;

/// What each recipient adds to the time of a whole message.
const RECIPIENT_TIME: Duration = Duration::from_secs(2);
/// The slowest line on which a message of any size gets through in its time. RFC 5321
/// §4.5.3.2.5 bounds a block only; 64 KiB in 3 minutes would be 30 hours for 35 MiB.
const SLOWEST_OCTETS_PER_SECOND: u64 = 2048;

/// How long the peer may take, each time. The defaults are the minima of RFC 5321 §4.5.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the greeting (§4.5.3.2.1).
    pub greeting: Duration,
    /// For EHLO, STARTTLS, MAIL, RCPT and RSET (§4.5.3.2.2 and .3).
    pub command: Duration,
    /// For the whole of a TLS handshake; no RFC names a time.
    pub handshake: Duration,
    /// For the 354 after DATA (§4.5.3.2.4).
    pub data: Duration,
    /// To take a block of 64 KiB, or a group of commands (§4.5.3.2.5).
    pub block: Duration,
    /// For the reply to the content (§4.5.3.2.6).
    pub content: Duration,
    /// For the reply to QUIT, on which nothing depends.
    pub quit: Duration,
    /// For a message from MAIL to the last reply, together with what its size and its
    /// recipients add: a server that answers everything in its last second must not hold a
    /// thread for hours.
    pub transaction: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            greeting: minutes(5),
            command: minutes(5),
            handshake: minutes(2),
            data: minutes(2),
            block: minutes(3),
            content: minutes(10),
            quit: Duration::from_secs(5),
            // Twice for a command, once for the 354, for a block and for the last reply.
            transaction: minutes(5 + 5 + 2 + 3 + 10),
        }
    }
}

impl Timeouts {
    /// None of them above `most`.
    pub fn at_most(self, most: Duration) -> Self {
        Self {
            greeting: self.greeting.min(most),
            command: self.command.min(most),
            handshake: self.handshake.min(most),
            data: self.data.min(most),
            block: self.block.min(most),
            content: self.content.min(most),
            quit: self.quit.min(most),
            transaction: self.transaction.min(most),
        }
    }

    fn reply_to(&self, awaited: Awaited) -> Duration {
        match awaited {
            Awaited::Greeting => self.greeting,
            Awaited::Ehlo | Awaited::Helo | Awaited::StartTls | Awaited::Reset => self.command,
            Awaited::Mail | Awaited::Recipient(_) => self.command,
            Awaited::Data => self.data,
            Awaited::Content => self.content,
            Awaited::Quit => self.quit,
        }
    }

    /// How long the whole of a message may take.
    fn whole(&self, transaction: &Transaction<'_>) -> Duration {
        let recipients = u32::try_from(transaction.recipients.len()).unwrap_or(u32::MAX);
        let content = Duration::from_secs(transaction.size_octets / SLOWEST_OCTETS_PER_SECOND);
        let recipients = RECIPIENT_TIME.saturating_mul(recipients);
        self.transaction.saturating_add(recipients).saturating_add(content)
    }

    /// What the kernel's time-outs are set to: less than any of these, so that they need no
    /// change for most calls.
    fn tick(&self) -> Duration {
        let limits =
            [self.greeting, self.command, self.handshake, self.data, self.block, self.content];
        let shortest = limits.into_iter().min().unwrap_or_default();
        (shortest / 2).max(Duration::from_millis(1))
    }
}

/// Why a session broke off. It is of no use afterwards.
#[derive(Debug)]
pub struct ConnectionError {
    /// What happened.
    pub cause: Cause,
    /// Whether the server may have the whole message: then trying again at once could deliver
    /// it twice.
    pub is_content_sent: bool,
}

impl ConnectionError {
    /// Whether it is the peer's certificate that was not good enough.
    pub const fn is_about_certificate(&self) -> bool {
        matches!(self.cause, Cause::Tls(TlsError::Certificate(_)))
    }
}

/// What broke a session off.
#[derive(Debug)]
pub enum Cause {
    /// The peer did not answer this, or did not take it, in time.
    TooSlow(Awaited),
    /// The peer closed the connection instead of answering this.
    Closed(Awaited),
    /// The connection failed.
    Io(io::Error),
    /// The peer does not speak SMTP.
    NoReply(ReplyError),
    /// The connection could not be encrypted.
    Tls(TlsError),
    /// Something came behind the reply to STARTTLS and before the handshake.
    Injected,
    /// The peer refused to go on, or nobody knows what its reply is to.
    Ended(Ending),
    /// The content could not be read. The peer is not to blame.
    Content(io::Error),
}

impl Cause {
    fn of(error: io::Error, awaited: Awaited) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::TooSlow(awaited),
            _ => Self::Io(error),
        }
    }
}

/// A predicate behind the name of the host.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSlow(Awaited::Greeting) => f.write_str("sent no greeting in time"),
            Self::TooSlow(awaited) => write!(f, "took too long over {awaited}"),
            Self::Closed(Awaited::Greeting) => f.write_str("closed the connection at once"),
            Self::Closed(awaited) => {
                write!(f, "closed the connection instead of answering {awaited}")
            }
            Self::Io(error) => write!(f, "lost the connection: {error}"),
            Self::NoReply(error) => write!(f, "does not speak SMTP: {error}"),
            Self::Tls(error) => error.fmt(f),
            Self::Injected => f.write_str("said more than a reply to STARTTLS"),
            Self::Ended(Ending::NoStartTls) => {
                f.write_str("does not offer STARTTLS, and nothing is sent in the clear")
            }
            Self::Ended(Ending::StartTlsRefused(reply)) => {
                write!(f, "refused STARTTLS, and nothing is sent in the clear: {reply}")
            }
            Self::Ended(Ending::Refused(reply)) => write!(f, "will not talk to us: {reply}"),
            Self::Ended(Ending::OutOfStep(awaited, reply)) => {
                write!(f, "gave an answer to {awaited} that makes no sense: {reply}")
            }
            Self::Ended(Ending::Quit) => f.write_str("ended the session"),
            Self::Content(error) => write!(f, "got no message, since it cannot be read: {error}"),
        }
    }
}

/// A session with a server, between two transactions.
#[derive(Debug)]
pub struct SmtpConnection<S> {
    stream: Stream<S>,
    client: Client,
    parser: ReplyParser,
    timeouts: Timeouts,
    /// When the message under way must be through; what follows it is bounded by itself.
    transaction_end: Option<Instant>,
    /// Whom the handshake behind STARTTLS is with.
    start_tls_with: Option<TlsPeer>,
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
        let mut connection = Self {
            stream: Stream::new(stream, timeouts.tick()),
            client: Client::new(helo_name),
            parser: ReplyParser::new(),
            timeouts,
            transaction_end: None,
            start_tls_with: None,
            is_content_sent: false,
            is_broken: false,
        };
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
        match self.run(&mut io::empty(), 0) {
            Ok(None) => Ok(self),
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
    /// ended for us (RFC 8446 §2): then it is the answer to the next EHLO that does not come.
    fn told_late(&self, cause: Cause) -> Cause {
        match cause {
            _ if self.protection() == Protection::None => cause,
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
        self.transaction_end = Instant::now().checked_add(self.timeouts.whole(transaction));
        let ended = self.run(content, transaction.size_octets);
        self.transaction_end = None;
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
        ConnectionError { cause, is_content_sent: self.is_content_sent }
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
        let end = self.transaction_end.map_or(step_end, |end| end.min(step_end));
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

    fn handshake(&mut self, peer: &TlsPeer) -> Result<(), Cause> {
        self.allow(self.timeouts.handshake);
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
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(replies.as_bytes()).unwrap();
        (SmtpConnection::open(ours, &"me.test".parse().unwrap(), Timeouts::default()), theirs)
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
