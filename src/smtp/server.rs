//! The server's side of a session (RFC 5321 §4.1.4 and §4.3.2): which command may come when,
//! and what each one is answered. Fed one line at a time, it says what to do next; the
//! session thread does it.
//!
//! What may be sent to whom is asked of a [`Policy`]; whether a message is safe on disk comes
//! back as a [`Receipt`], without which there is no 250.

use std::collections::HashSet;
use std::sync::Arc;

use crate::config::settings::{AuthRule, BareNewline};
use crate::mail::address::{DomainName, ForwardPath, Mailbox, ReversePath};
use crate::mail::dsn_request::{MessageRequest, RecipientRequest};
use crate::mail::status::Status;
use crate::smtp::command::{self, Command, CommandError, EtrnNode, HeloName, InitialResponse};
use crate::smtp::data::DataFault;
use crate::smtp::line::{Framed, MAX_COMMAND_LINE, MAX_LOGIN_LINE, first_line};
use crate::smtp::parameters::{MailParameters, ParameterError};
use crate::smtp::reply::Reply;
use crate::smtp::sasl::Mechanism;
use crate::spool::envelope::{Body, Recipient};
use crate::spool::store::Receipt;

/// Refused commands after which a client is sent away. 100 recipients must be possible even
/// if all of them are refused (RFC 5321 §4.5.3.1.8).
const MAX_REFUSALS: u32 = 120;

const OK: Status = Status::new(2, 0, 0);
const BAD_SEQUENCE: Status = Status::new(5, 5, 1);
const BAD_ADDRESS: Status = Status::new(5, 1, 3);

const SEND_HELO: Reply = Reply::new(503, BAD_SEQUENCE, "Send EHLO or HELO first");
const SEND_MAIL: Reply = Reply::new(503, BAD_SEQUENCE, "Send MAIL first");
const NESTED_MAIL: Reply =
    Reply::new(503, BAD_SEQUENCE, "A transaction is open already; RSET ends it");
const IN_TRANSACTION: Reply =
    Reply::new(503, BAD_SEQUENCE, "Not within a transaction; RSET ends it");
const NO_RECIPIENTS: Reply = Reply::new(554, BAD_SEQUENCE, "No valid recipients");
const GO_AHEAD: Reply = Reply::new(220, OK, "Go ahead");
const SECURED_ALREADY: Reply = Reply::new(503, BAD_SEQUENCE, "The connection is encrypted already");
const INJECTED: Reply =
    Reply::new(554, BAD_SEQUENCE, "Nothing may follow STARTTLS before its reply; closing");
const SENDER_OK: Reply = Reply::new(250, Status::new(2, 1, 0), "Sender ok");
const RECIPIENT_OK: Reply = Reply::new(250, Status::new(2, 1, 5), "Recipient ok");
const TOO_MANY_RECIPIENTS: Reply =
    Reply::new(452, Status::new(4, 5, 3), "Too many recipients; send the rest in another message");
const TOO_LARGE: Reply =
    Reply::new(552, Status::new(5, 3, 4), "The message is larger than this server takes");
const RESET: Reply = Reply::new(250, OK, "Reset");
const NOOP: Reply = Reply::new(250, OK, "Ok");
const BYE: Reply = Reply::new(221, OK, "Bye");
const NO_SUCH_TOPIC: Reply =
    Reply::new(504, Status::new(5, 5, 4), "No help on this topic; try HELP");
const BARE_LF: Reply =
    Reply::new(500, Status::new(5, 5, 2), "Bare LF: a line ends with CRLF (RFC 5321 2.3.8)");
// RFC 3463 §3.6: a syntax error. X.5.6 is for lines of AUTH (RFC 4954 §6).
const LINE_TOO_LONG: Reply = Reply::new(500, Status::new(5, 5, 2), "Line too long");
const TOO_MANY_REFUSALS: Reply =
    Reply::new(421, Status::new(4, 7, 0), "Too many refused commands; closing the connection");

mod login;

pub use login::LoginStep;

/// Who decides what a client may do. Each refusal is the reply that the client gets.
pub trait Policy {
    /// Whether mail from `reverse_path` is taken now, and the path that it means. `size` is
    /// what MAIL declared.
    ///
    /// # Errors
    /// The reply that refuses it.
    fn sender(
        &mut self,
        reverse_path: ReversePath,
        size: Option<u64>,
    ) -> Result<ReversePath, Reply>;

    /// Whether mail for `forward_path` is taken, and the mailbox that it means.
    ///
    /// # Errors
    /// The reply that refuses it.
    fn recipient(&mut self, forward_path: &ForwardPath) -> Result<Mailbox, Reply>;

    /// The answer to VRFY.
    fn verify(&mut self, text: &str) -> Reply;

    /// Tries the mail that waits for `node`, or says why not (RFC 1985 §5.1).
    fn start_queue(&mut self, node: &EtrnNode) -> Reply;

    /// The answer to EXPN; `None` where it is not offered.
    fn expand(&mut self, text: &str) -> Option<Reply>;

    /// The ways in which the client can log in now, the best first. Not asked where nobody may.
    fn mechanisms(&mut self) -> Vec<Mechanism>;

    /// Begins a login by one of [`Policy::mechanisms`], with the decoded initial response if
    /// there is one.
    fn begin_login(&mut self, mechanism: Mechanism, initial: Option<&[u8]>) -> LoginStep;

    /// Goes on with the decoded response to the last challenge.
    fn continue_login(&mut self, response: &[u8]) -> LoginStep;

    /// Forgets the login that is under way: the client gave it up.
    fn cancel_login(&mut self);
}

/// What a session is told once, at its beginning.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The name in the greeting and in the answers to HELO and EHLO.
    pub hostname: String,
    /// The largest message, in octets: the value of SIZE (RFC 1870).
    pub max_message_size: u64,
    /// The most recipients of one message.
    pub max_recipients: usize,
    /// Whether EXPN is offered in EHLO (RFC 5321 §3.5.3).
    pub offers_expn: bool,
    /// Whether a bare LF ends a command line.
    pub bare_newline: BareNewline,
    /// Whether mail is submitted (RFC 6409). There is no ETRN then (§7).
    pub is_submission: bool,
    /// The domain of addresses that come without one, where they may: from those who submit, and
    /// from the programs of this host.
    pub origin: Option<DomainName>,
    /// Whether STARTTLS is offered (RFC 3207).
    pub offers_start_tls: bool,
    /// Who has to log in (RFC 4954).
    pub auth: AuthRule,
    /// Whether a password may come over a connection that is not encrypted.
    pub auth_without_tls: bool,
    /// The refused logins after which the session ends.
    pub max_login_failures: u32,
}

/// What the session thread does next. The session itself never does I/O.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read more octets, then ask again.
    Read,
    /// Send the reply, drop this many octets from the input, then ask again.
    Reply(Reply, usize),
    /// The same, then decode the data up to the lone dot (RFC 5321 §4.5.2) and tell
    /// [`Session::end_of_data`].
    ReadData(Reply, usize),
    /// The same, then run the TLS handshake and tell [`Session::secured`]. Nothing is left of
    /// the input. Where there is no certificate to show, 454 is the reply instead.
    StartTls(Reply, usize),
    /// Send the reply and close (RFC 5321 §3.8).
    Close(Reply),
}

/// How a client introduced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The name it gave.
    pub name: HeloName,
    /// Whether it said EHLO: the `with ESMTP` of the Received field (RFC 5321 §4.4).
    pub is_extended: bool,
}

/// An open mail transaction (RFC 5321 §3.3). RSET, HELO and EHLO drop it whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Where reports go.
    pub reverse_path: ReversePath,
    /// Whom the message is for, as accepted so far; nobody twice.
    pub recipients: Vec<Recipient>,
    /// The same, to look one up.
    known: HashSet<Mailbox>,
    /// What MAIL declared about the octets.
    pub body: Body,
    /// What MAIL asked about reports.
    pub request: MessageRequest,
}

impl Transaction {
    /// A transaction whose commands were all taken.
    pub fn new(
        reverse_path: ReversePath,
        recipients: impl IntoIterator<Item = Recipient>,
        body: Body,
        request: MessageRequest,
    ) -> Self {
        let known = HashSet::new();
        let mut transaction = Self { reverse_path, recipients: Vec::new(), known, body, request };
        recipients.into_iter().for_each(|recipient| transaction.add(recipient));
        transaction
    }

    /// Adds a recipient. The same address twice is one recipient.
    fn add(&mut self, recipient: Recipient) {
        if self.known.insert(recipient.mailbox.clone()) {
            self.recipients.push(recipient);
        }
    }
}

/// Why the data of a message did not become a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataError {
    /// A bare CR or LF in it.
    Fault(DataFault),
    /// It is larger than the limit.
    TooLarge,
    /// The policy or the spool refuses it.
    Refused(Reply),
}

/// A session from the greeting to QUIT.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    introduction: Option<Introduction>,
    transaction: Option<Transaction>,
    is_secured: bool,
    /// Who logged in.
    user: Option<Arc<str>>,
    /// The next line is a response to a challenge.
    is_in_login: bool,
    login_failures: u32,
    refusals: u32,
}

impl Session {
    /// A session at its beginning.
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            introduction: None,
            transaction: None,
            is_secured: false,
            user: None,
            is_in_login: false,
            login_failures: 0,
            refusals: 0,
        }
    }

    /// Takes note that the connection is encrypted from here on. What was learnt in the clear
    /// is forgotten (RFC 3207 §4.2).
    pub fn secured(&mut self) {
        self.is_secured = true;
        self.introduction = None;
        self.transaction = None;
        self.user = None;
    }

    /// Whether the connection is encrypted.
    pub const fn is_secured(&self) -> bool {
        self.is_secured
    }

    /// Who logged in, if somebody has.
    pub const fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref()
    }

    /// The longest line that may come next, in octets, with its end.
    pub const fn max_line(&self) -> usize {
        if self.is_in_login { MAX_LOGIN_LINE } else { MAX_COMMAND_LINE }
    }

    /// The greeting (RFC 5321 §3.1).
    pub fn greeting(&self) -> Reply {
        Reply::without_status(220, format!("{} ESMTP mailwren", self.limits.hostname))
    }

    /// How the client introduced itself, if it has.
    pub const fn introduction(&self) -> Option<&Introduction> {
        self.introduction.as_ref()
    }

    /// The open transaction, if there is one.
    pub const fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// Says what to do about the octets received and not yet used.
    pub fn next(&mut self, received: &[u8], policy: &mut dyn Policy) -> Action {
        match first_line(received, self.max_line(), self.limits.bare_newline) {
            Framed::Incomplete => Action::Read,
            Framed::BareLf => Action::Close(BARE_LF),
            Framed::TooLong if self.is_in_login => Action::Close(login::RESPONSE_TOO_LONG),
            Framed::TooLong => Action::Close(LINE_TOO_LONG),
            Framed::Line { text, consumed } if self.is_in_login => {
                let step = self.respond(text, policy);
                self.answer(step, consumed)
            }
            Framed::Line { text, consumed } => {
                let is_last = consumed == received.len();
                self.line(text, consumed, is_last, policy)
            }
        }
    }

    /// The answer to the data that `next` asked for. The transaction is over either way.
    pub fn end_of_data(&mut self, result: Result<Receipt, DataError>) -> Reply {
        self.transaction = None;
        let reply = match result {
            Ok(receipt) => Reply::with_text(250, OK, format!("Ok: queued as {}", receipt.id())),
            Err(DataError::Refused(reply)) => reply,
            Err(DataError::TooLarge) => TOO_LARGE,
            Err(DataError::Fault(fault)) => fault_reply(fault),
        };
        if reply.is_positive() {
            self.refusals = 0;
        }
        reply
    }

    fn line(
        &mut self,
        text: &[u8],
        consumed: usize,
        is_last: bool,
        policy: &mut dyn Policy,
    ) -> Action {
        let reply = match Command::parse(text, self.limits.origin.as_ref()) {
            Ok(Command::Quit) => return Action::Close(BYE),
            Ok(Command::Data) => match self.data() {
                Ok(go_ahead) => return Action::ReadData(go_ahead, consumed),
                Err(refusal) => refusal,
            },
            Ok(Command::StartTls) => match self.start_tls() {
                // RFC 3207 §4: the client waits for the reply. What came already was put there
                // by somebody who wants it taken for a command that came encrypted
                // (CVE-2011-0411).
                Ok(_) if !is_last => return Action::Close(INJECTED),
                Ok(go_ahead) => return Action::StartTls(go_ahead, consumed),
                Err(refusal) => refusal,
            },
            Ok(command) => self.obey(command, policy),
            Err(error) => self.malformed(&error),
        };
        self.answer(reply, consumed)
    }

    fn malformed(&self, error: &CommandError) -> Reply {
        let reply = error.reply();
        match error {
            // RFC 6409 §5.1: 501 for an improper address, where RFC 5321 has 553.
            CommandError::Address(_) if self.is_submission() => {
                Reply::with_text(501, reply.status().unwrap_or(BAD_ADDRESS), reply.text())
            }
            _ => reply,
        }
    }

    const fn is_submission(&self) -> bool {
        self.limits.is_submission
    }

    /// Sends a reply, or the client away where it has had too many that refuse.
    fn answer(&mut self, reply: Reply, consumed: usize) -> Action {
        if self.login_failures >= self.limits.max_login_failures && !reply.is_positive() {
            let text = format!("{}; too often in one session, closing", reply.text());
            return Action::Close(match reply.status() {
                Some(status) => Reply::with_text(reply.code(), status, text),
                None => Reply::without_status(reply.code(), text),
            });
        }
        if !reply.is_positive() {
            self.refusals += 1;
        }
        if self.refusals > MAX_REFUSALS {
            return Action::Close(TOO_MANY_REFUSALS);
        }
        Action::Reply(reply, consumed)
    }

    fn obey(&mut self, command: Command, policy: &mut dyn Policy) -> Reply {
        match command {
            Command::Mail(..) | Command::Vrfy(_) | Command::Expn(_) | Command::Etrn(_)
                if self.limits.auth == AuthRule::Required && self.user.is_none() =>
            {
                self.log_in_first()
            }
            // RFC 6409 §7: ETRN must not be there.
            Command::Etrn(_) if self.is_submission() => CommandError::NotImplemented.reply(),
            Command::Auth { mechanism, initial } => {
                self.auth(&mechanism, initial.as_ref().map(InitialResponse::as_str), policy)
            }
            Command::Helo(name) => self.introduce(name, false, policy),
            Command::Ehlo(name) => self.introduce(name, true, policy),
            Command::Mail(path, parameters) => self.mail(path, parameters, policy),
            Command::Rcpt(path, request) => self.rcpt(&path, request, policy),
            Command::Rset => {
                self.transaction = None;
                RESET
            }
            Command::Vrfy(text) => policy.verify(&text),
            Command::Expn(text) => {
                policy.expand(&text).unwrap_or_else(|| CommandError::NotImplemented.reply())
            }
            Command::Etrn(node) => self.etrn(&node, policy),
            Command::Help(topic) => self.help(topic.as_deref()),
            Command::Noop | Command::Data | Command::StartTls | Command::Quit => NOOP,
        }
    }

    /// RFC 5321 §4.1.4: a second HELO or EHLO is good at any time, and resets.
    fn introduce(&mut self, name: HeloName, is_extended: bool, policy: &mut dyn Policy) -> Reply {
        self.transaction = None;
        let mut text = self.limits.hostname.clone();
        if is_extended {
            text.push_str("\nPIPELINING\n8BITMIME\nENHANCEDSTATUSCODES\nDSN");
            text.push_str(&format!("\nSIZE {}", self.limits.max_message_size));
            if self.limits.offers_expn {
                text.push_str("\nEXPN");
            }
            if self.limits.offers_start_tls && !self.is_secured {
                text.push_str("\nSTARTTLS");
            }
            text.push_str(&self.auth_keyword(policy));
            text.push_str(if self.is_submission() { "\nHELP" } else { "\nETRN\nHELP" });
        }
        self.introduction = Some(Introduction { name, is_extended });
        Reply::without_status(250, text)
    }

    fn mail(
        &mut self,
        reverse_path: ReversePath,
        parameters: MailParameters,
        policy: &mut dyn Policy,
    ) -> Reply {
        if self.introduction.is_none() {
            return SEND_HELO;
        }
        if self.transaction.is_some() {
            return NESTED_MAIL;
        }
        // RFC 1870 §6.1: a declared size over the fixed maximum is refused right here.
        if parameters.size.is_some_and(|size| size > self.limits.max_message_size) {
            return TOO_LARGE;
        }
        if parameters.has_auth && !self.offers_auth(policy) {
            return CommandError::Parameter(ParameterError::Unknown("AUTH".to_owned())).reply();
        }
        let reverse_path = match policy.sender(reverse_path, parameters.size) {
            Ok(reverse_path) => reverse_path,
            Err(refusal) => return refusal,
        };
        let MailParameters { body, request, .. } = parameters;
        self.transaction = Some(Transaction::new(reverse_path, [], body, request));
        SENDER_OK
    }

    fn rcpt(
        &mut self,
        forward_path: &ForwardPath,
        request: RecipientRequest,
        policy: &mut dyn Policy,
    ) -> Reply {
        let Some(transaction) = &mut self.transaction else {
            return SEND_MAIL;
        };
        if transaction.recipients.len() >= self.limits.max_recipients {
            return TOO_MANY_RECIPIENTS;
        }
        match policy.recipient(forward_path) {
            Ok(mailbox) => {
                transaction.add(Recipient { mailbox, request });
                RECIPIENT_OK
            }
            Err(refusal) => refusal,
        }
    }

    fn data(&self) -> Result<Reply, Reply> {
        match &self.transaction {
            None => Err(SEND_MAIL),
            Some(transaction) if transaction.recipients.is_empty() => Err(NO_RECIPIENTS),
            Some(_) => Ok(Reply::without_status(354, "End data with <CRLF>.<CRLF>")),
        }
    }

    fn start_tls(&self) -> Result<Reply, Reply> {
        match self {
            Self { is_secured: true, .. } => Err(SECURED_ALREADY),
            Self { limits: Limits { offers_start_tls: false, .. }, .. } => {
                Err(CommandError::NotImplemented.reply())
            }
            Self { introduction: None, .. } => Err(SEND_HELO),
            _ => Ok(GO_AHEAD),
        }
    }

    /// RFC 1985 §5: not within a transaction.
    fn etrn(&self, node: &EtrnNode, policy: &mut dyn Policy) -> Reply {
        match (&self.introduction, &self.transaction) {
            (None, _) => SEND_HELO,
            (_, Some(_)) => IN_TRANSACTION,
            _ => policy.start_queue(node),
        }
    }

    fn help(&self, topic: Option<&str>) -> Reply {
        let Some(topic) = topic else {
            let verbs: Vec<_> = command::SYNTAX.iter().map(|(verb, _)| *verb).collect();
            let text = format!("Commands: {}\nHELP and one of them tells more", verbs.join(" "));
            return Reply::with_text(214, OK, text);
        };
        match command::syntax(topic) {
            Some(form) => Reply::with_text(214, OK, form),
            None => NO_SUCH_TOPIC,
        }
    }
}

fn fault_reply(fault: DataFault) -> Reply {
    let status = Status::new(5, 6, 0);
    match fault {
        DataFault::BareLf => {
            Reply::new(550, status, "Bare LF in the message: lines end with CRLF (RFC 5321 2.3.8)")
        }
        DataFault::BareCr => {
            Reply::new(550, status, "Bare CR in the message: lines end with CRLF (RFC 5321 2.3.8)")
        }
    }
}
