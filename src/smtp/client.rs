//! The client's side of an SMTP session (RFC 5321 §3), as a machine without I/O.
//!
//! Whoever drives it asks [`Client::next_action`] what to do, does it, and hands each reply to
//! [`Client::on_reply`], until the action is [`Action::Ready`] or [`Action::Close`]:
//!
//! ```text
//! greeting -> EHLO (or HELO) [-> AUTH] -> Ready
//! begin()  -> [RSET] MAIL RCPT... DATA -> content -> Ready, with results()
//! quit()   -> QUIT -> Close
//! ```
//!
//! Where STARTTLS is wanted (RFC 3207) it comes between the first EHLO and a second one. Where it
//! is required, a server that has it not is left before anything is said about the mail. So is one
//! that does not let us log in where a login is needed: AUTH (RFC 4954) comes after the last EHLO.
//!
//! Each command that is sent joins the queue of those awaiting a reply, and replies are
//! matched to them by counting (RFC 2920 §3.1). Where the server offers PIPELINING the whole
//! envelope with DATA goes out as one group; otherwise a group is one command. There is no
//! other difference between the two.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use self::envelope::Envelope;
use self::extensions::Extensions;
use self::login::{Line, Login, Offer};
use crate::mail::address::{DomainName, Mailbox, ReversePath};
use crate::mail::dsn_request::{MessageRequest, RecipientRequest};
use crate::mail::status::Status;
use crate::smtp::reply_parser::PeerReply;
use crate::smtp::sasl::Mechanism;

mod envelope;
mod extensions;
mod login;

pub use self::login::LoginError;

/// The most commands sent before their replies are read. RFC 2920 §3.1 wants a group to fit
/// into the TCP window, so that both sides never wait to send: 100 replies are a few KiB.
const MAX_GROUP: usize = 100;

/// What the driver does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these octets.
    Send(Vec<u8>),
    /// Read one reply and give it to [`Client::on_reply`].
    Read(Awaited),
    /// Make sure that nothing came behind the last reply, run the TLS handshake, and call
    /// [`Client::on_handshake`].
    StartTls,
    /// Log in by this mechanism: give an exchange to [`Client::log_in`], or say why not. A
    /// password must not go over a connection that is not encrypted unless somebody wants that.
    LogIn(Mechanism),
    /// Send the content, dot-stuffed, up to and with the lone dot.
    SendContent,
    /// Nothing is under way: look at the results, begin a transaction, or quit.
    Ready,
    /// Close the connection.
    Close(Ending),
}

/// What a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The connection.
    Greeting,
    /// EHLO.
    Ehlo,
    /// HELO.
    Helo,
    /// STARTTLS.
    StartTls,
    /// AUTH, or a response within it.
    Auth,
    /// RSET.
    Reset,
    /// MAIL.
    Mail,
    /// RCPT for the recipient at this place of the transaction's list.
    Recipient(usize),
    /// DATA.
    Data,
    /// The content with its lone dot.
    Content,
    /// QUIT.
    Quit,
}

/// In the words of a log line: "no reply to MAIL".
impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "the connection",
            Self::Ehlo => "EHLO",
            Self::Helo => "HELO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Reset => "RSET",
            Self::Mail => "MAIL",
            Self::Recipient(_) => "RCPT",
            Self::Data => "DATA",
            Self::Content => "the message",
            Self::Quit => "QUIT",
        })
    }
}

/// Why the session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The server will not talk to us: its reply to the connection or to HELO, or a 421.
    Refused(PeerReply),
    /// A reply that its command cannot have, such as 250 to DATA. Nobody knows any more
    /// which reply belongs to what.
    OutOfStep(Awaited, PeerReply),
    /// STARTTLS is required and the server does not offer it.
    NoStartTls,
    /// The server refused STARTTLS though it offered it.
    StartTlsRefused(PeerReply),
    /// A login is needed and did not come about.
    Login(LoginError),
    /// We said QUIT.
    Quit,
}

/// One message's envelope, as the client needs it.
#[derive(Clone, Copy, Debug)]
pub struct Transaction<'a> {
    /// Where reports go.
    pub reverse_path: &'a ReversePath,
    /// Whom it is for. Never empty.
    pub recipients: &'a [Recipient<'a>],
    /// What is asked about reports; goes to servers that know of that.
    pub request: &'a MessageRequest,
    /// Whether the content was declared to have octets above 127.
    pub is_eight_bit: bool,
    /// The octets of the content, without dot-stuffing.
    pub size_octets: u64,
}

/// One recipient of a transaction.
#[derive(Clone, Debug)]
pub struct Recipient<'a> {
    /// The address.
    pub mailbox: &'a Mailbox,
    /// What is asked about reports; goes to servers that know of that.
    pub request: RecipientRequest,
}

/// What became of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipientResult {
    /// The server took the message for it, with this reply to the content.
    Taken(Arc<PeerReply>),
    /// The server refused it.
    Refused(Arc<Refusal>),
    /// Nothing was sent: the message has more octets than the server takes (RFC 1870 §6.1).
    TooLarge {
        /// What the server takes.
        limit_octets: u64,
    },
}

/// A command that the server refused, and its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was refused.
    pub command: Awaited,
    /// The reply: 4yz or 5yz.
    pub reply: PeerReply,
}

impl Refusal {
    /// Whether and why trying again is of use.
    pub fn status(&self) -> Status {
        let status = self.reply.status();
        let too_many = Status::new(5, 5, 3);
        // RFC 5321 §4.5.3.1.10: a 552 to RCPT means "too many recipients" and is temporary,
        // unless the enhanced code says that it is something else, such as a full mailbox.
        // Without such a code the first recipient cannot be one too many.
        let is_unclear = |place| match self.reply.stated_status() {
            Some(stated) => stated == too_many,
            None => place > 0,
        };
        match self.command {
            Awaited::Recipient(place) if self.reply.code() == 552 && is_unclear(place) => {
                Status::new(4, 5, 3)
            }
            _ => status,
        }
    }
}

/// What is being done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// The greeting comes.
    Greeting,
    /// EHLO is the next command.
    Ehlo,
    /// EHLO was refused; HELO is the next command.
    Helo,
    /// STARTTLS is the next command.
    StartTls,
    /// 220 came: the handshake is next.
    Handshake,
    /// The login needs an exchange by this mechanism.
    LogIn(Mechanism),
    /// This line of the login is next.
    Say(Line),
    /// Between transactions.
    Ready,
    /// Commands of the envelope are left, or replies to them.
    Envelope,
    /// 354 came: the content is next.
    Content,
    /// 354 came although no recipient is left: an empty message is next.
    LoneDot,
    /// QUIT is the next command.
    Quit,
    /// The session is over.
    Closed(Ending),
}

/// Whether STARTTLS comes before any mail does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartTls {
    /// It does not, or has come already.
    No,
    /// It does where the server offers it.
    IfOffered,
    /// It must.
    Required,
}

/// A session with one server.
#[derive(Debug)]
pub struct Client {
    helo_name: String,
    phase: Phase,
    start_tls: StartTls,
    /// A login must come before any mail does, and has not come yet.
    login: Option<Login>,
    /// What the last answer to EHLO offered for a login.
    offer: Option<Offer>,
    is_logged_in: bool,
    extensions: Extensions,
    awaiting: VecDeque<Awaited>,
    envelope: Envelope,
    /// The server may hold half a transaction.
    needs_reset: bool,
}

impl Client {
    /// A session that has just been connected; the greeting is still to come. `helo_name` is
    /// this host's name for EHLO.
    pub fn new(helo_name: &DomainName) -> Self {
        Self {
            helo_name: helo_name.to_string(),
            phase: Phase::Greeting,
            start_tls: StartTls::No,
            login: None,
            offer: None,
            is_logged_in: false,
            extensions: Extensions::default(),
            awaiting: VecDeque::from([Awaited::Greeting]),
            envelope: Envelope::default(),
            needs_reset: false,
        }
    }

    /// The same session, which sends no mail unless STARTTLS comes first.
    pub fn with_start_tls(self) -> Self {
        Self { start_tls: StartTls::Required, ..self }
    }

    /// The same session, which begins with STARTTLS where the server offers it.
    pub fn with_start_tls_if_offered(self) -> Self {
        Self { start_tls: StartTls::IfOffered, ..self }
    }

    /// Begins a transaction. Only where the last action was [`Action::Ready`].
    pub fn begin(&mut self, transaction: &Transaction<'_>) {
        self.envelope = Envelope::new(transaction, self.extensions, self.is_logged_in);
        self.phase = Phase::Envelope;
    }

    /// Ends the session. Only where the last action was [`Action::Ready`].
    pub fn quit(&mut self) {
        self.phase = Phase::Quit;
    }

    /// Whether the server knows what senders ask about reports (RFC 3461).
    pub fn offers_dsn(&self) -> bool {
        self.extensions.dsn
    }

    /// What became of the last transaction, one result for each recipient in their order; or
    /// `None` while it is under way, or where the session ended before it did.
    pub fn results(&self) -> Option<Vec<RecipientResult>> {
        self.envelope.results.iter().cloned().collect()
    }

    /// What to do next.
    pub fn next_action(&mut self) -> Action {
        if let Phase::Closed(ending) = &self.phase {
            return Action::Close(ending.clone());
        }
        if let Some(&awaited) = self.awaiting.front() {
            return Action::Read(awaited);
        }
        if let Phase::Say(line) = &self.phase {
            return self.send_line(&line.clone());
        }
        match self.phase {
            Phase::LogIn(mechanism) => Action::LogIn(mechanism),
            Phase::Ehlo => self.send(Awaited::Ehlo, &format!("EHLO {}\r\n", self.helo_name)),
            Phase::Helo => self.send(Awaited::Helo, &format!("HELO {}\r\n", self.helo_name)),
            Phase::StartTls => self.send(Awaited::StartTls, "STARTTLS\r\n"),
            Phase::Handshake => Action::StartTls,
            Phase::Quit => self.send(Awaited::Quit, "QUIT\r\n"),
            Phase::LoneDot => self.send(Awaited::Content, ".\r\n"),
            Phase::Content => {
                self.awaiting.push_back(Awaited::Content);
                Action::SendContent
            }
            Phase::Envelope if !self.envelope.is_settled() => Action::Send(self.next_group()),
            _ => {
                self.phase = Phase::Ready;
                Action::Ready
            }
        }
    }

    fn send(&mut self, awaited: Awaited, command: &str) -> Action {
        self.awaiting.push_back(awaited);
        Action::Send(command.as_bytes().to_vec())
    }

    /// The next commands of the envelope: as many as may be sent at once. DATA ends a group
    /// (RFC 2920 §3.1).
    fn next_group(&mut self) -> Vec<u8> {
        let limit = if self.extensions.pipelining { MAX_GROUP } else { 1 };
        let mut group = Vec::new();
        if self.needs_reset && self.envelope.sent == 0 {
            self.needs_reset = false;
            self.awaiting.push_back(Awaited::Reset);
            group.extend_from_slice(b"RSET\r\n");
        }
        while self.awaiting.len() < limit {
            let (awaited, command) = self.envelope.next_command();
            self.awaiting.push_back(awaited);
            group.extend_from_slice(command.as_bytes());
            if awaited == Awaited::Data {
                break;
            }
        }
        group
    }

    /// Takes the reply that [`Action::Read`] asked for.
    pub fn on_reply(&mut self, reply: PeerReply) {
        let Some(awaited) = self.awaiting.pop_front() else {
            return;
        };
        // RFC 5321 §3.8: with 421 the server leaves, whatever it was asked.
        let is_leaving = reply.code() == 421;
        match awaited {
            Awaited::Quit => self.close(Ending::Quit),
            Awaited::Content => self.on_content(reply.clone()),
            _ if is_leaving => {}
            Awaited::Greeting => self.on_greeting(reply.clone()),
            Awaited::Ehlo | Awaited::Helo => self.on_hello(awaited, reply.clone()),
            Awaited::StartTls => self.on_start_tls(reply.clone()),
            Awaited::Auth => self.on_auth(reply.clone()),
            Awaited::Data => self.on_data(reply.clone()),
            _ if !(reply.is_success() || reply.is_failure()) => {
                self.close(Ending::OutOfStep(awaited, reply.clone()));
            }
            Awaited::Mail => self.on_mail(reply.clone()),
            Awaited::Recipient(place) => self.on_recipient(place, reply.clone()),
            // RSET cannot fail (RFC 5321 §4.1.1.5); where it does, MAIL will show it.
            Awaited::Reset => {}
        }
        if is_leaving && awaited != Awaited::Quit {
            self.close(Ending::Refused(reply));
        }
    }

    fn on_greeting(&mut self, reply: PeerReply) {
        match reply.is_success() {
            true => self.phase = Phase::Ehlo,
            false => self.close(Ending::Refused(reply)),
        }
    }

    fn on_hello(&mut self, awaited: Awaited, reply: PeerReply) {
        if reply.is_success() {
            if awaited == Awaited::Ehlo {
                self.extensions = Extensions::offered_in(&reply);
            }
            let offer = Offer::in_reply(&reply).filter(|_| awaited == Awaited::Ehlo);
            match (self.start_tls, self.extensions.start_tls) {
                (StartTls::No, _) | (StartTls::IfOffered, false) => self.on_greeted(offer),
                (_, true) => self.phase = Phase::StartTls,
                (StartTls::Required, false) => self.close(Ending::NoStartTls),
            }
        } else if awaited == Awaited::Ehlo && reply.code() >= 500 {
            // RFC 5321 §3.2: a server that does not know EHLO gets HELO.
            self.phase = Phase::Helo;
        } else {
            self.close(Ending::Refused(reply));
        }
    }

    fn on_start_tls(&mut self, reply: PeerReply) {
        match reply.code() {
            220 => self.phase = Phase::Handshake,
            _ => self.close(Ending::StartTlsRefused(reply)),
        }
    }

    /// Takes note that the handshake that [`Action::StartTls`] asked for went well.
    pub fn on_handshake(&mut self) {
        // RFC 3207 §4.2: what the server said before may be somebody else's words.
        self.extensions = Extensions::default();
        self.start_tls = StartTls::No;
        self.phase = Phase::Ehlo;
    }

    fn on_mail(&mut self, reply: PeerReply) {
        if reply.is_failure() {
            self.envelope.refuse_rest(Awaited::Mail, reply);
            self.needs_reset = true;
        }
    }

    fn on_recipient(&mut self, place: usize, reply: PeerReply) {
        if reply.is_failure() {
            self.envelope.refuse(place, reply);
            self.needs_reset = true;
        }
    }

    fn on_data(&mut self, reply: PeerReply) {
        if reply.is_failure() {
            self.envelope.refuse_rest(Awaited::Data, reply);
            self.needs_reset = true;
        } else if !reply.is_intermediate() {
            self.close(Ending::OutOfStep(Awaited::Data, reply));
        } else if self.envelope.is_settled() {
            // RFC 2920 §3.1: DATA was taken though no recipient was; a single dot ends it.
            self.phase = Phase::LoneDot;
        } else {
            self.phase = Phase::Content;
        }
    }

    fn on_content(&mut self, reply: PeerReply) {
        if !reply.is_success() && !reply.is_failure() {
            return self.close(Ending::OutOfStep(Awaited::Content, reply));
        }
        self.needs_reset = false;
        self.phase = Phase::Ready;
        match reply.is_success() {
            true => self.envelope.take_rest(reply),
            false => self.envelope.refuse_rest(Awaited::Content, reply),
        }
    }

    fn close(&mut self, ending: Ending) {
        self.awaiting.clear();
        self.phase = Phase::Closed(ending);
    }
}

#[cfg(test)]
mod tests;
