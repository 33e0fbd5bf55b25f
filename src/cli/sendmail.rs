//! `sendmail`: takes a message on standard input as programs have always given it, completes
//! it, and submits it over the server's Unix socket, where the kernel says who is calling.

use std::io::{self, Cursor, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::str::FromStr;

use lexopt::{Arg, Parser};

use super::output::warn;
use super::{Invocation, queue};
use crate::config::settings::{Server, Settings};
use crate::deliver::conversation::{SmtpConnection, Timeouts};
use crate::mail::address::{Domain, LocalPart, Mailbox, ReversePath};
use crate::mail::address_list;
use crate::mail::dsn_request::{
    MessageRequest, NotOfTheForm, Notify, RecipientRequest, encode_xtext,
};
use crate::mail::submission::{self, Submission, Surroundings};
use crate::smtp::client::{Recipient, RecipientResult, Transaction};
use crate::spool::id::QueueId;
use crate::sys::process::{self, exit};
use crate::sys::{clock, random, users};

/// Options that take a value and mean nothing here: the value must not become a recipient.
const IGNORED_WITH_VALUE: &[char] = &['A', 'B', 'C', 'D', 'L', 'O', 'X', 'h', 'p'];
/// Options that may have a value right behind them and mean nothing here.
const IGNORED: &[char] = &['G', 'I', 'U', 'd', 'e', 'm', 'n', 'q', 'v', 'x'];

/// What the command line asks for.
#[derive(Debug, Default)]
struct Options {
    from_header: bool,
    dot_is_text: bool,
    sender: Option<String>,
    full_name: Option<String>,
    lists_queue: bool,
    unserved_mode: Option<String>,
    recipients: Vec<String>,
    /// `-R` and `-V`: what is asked about reports on the message.
    request: MessageRequest,
    /// `-N`: what is asked about reports on each recipient.
    notify: Option<Notify>,
}

/// Submits a message. The exit code is one of sysexits(3): 0 only when the server has it on
/// disk for every recipient.
pub(super) fn run(invocation: &mut Invocation) -> Result<u8, lexopt::Error> {
    let options = Options::parse(&mut invocation.parser)?;
    if options.lists_queue {
        return queue::mailq(invocation);
    }
    if let Some(mode) = &options.unserved_mode {
        warn(format_args!(
            "sendmail: -b{mode} is not there yet; submit with plain sendmail, or over SMTP"
        ));
        return Ok(exit::UNAVAILABLE);
    }
    let settings = settings(invocation);
    Ok(submit(&options, &settings).unwrap_or_else(|failure| {
        warn(format_args!("sendmail: {}", failure.text));
        failure.code
    }))
}

/// Why nothing was submitted.
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl Options {
    /// The addresses as they were given.
    fn addresses(&self) -> impl Iterator<Item = &String> {
        self.sender.iter().chain(&self.recipients)
    }

    /// Reads a command line of the classic form. An unknown option never loses mail: it is
    /// named on standard error and passed over.
    fn parse(parser: &mut Parser) -> Result<Self, lexopt::Error> {
        let mut options = Self::default();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Short('t') => options.from_header = true,
                Arg::Short('i') => options.dot_is_text = true,
                Arg::Short('f' | 'r') => options.sender = Some(text(parser)?),
                Arg::Short('F') => options.full_name = Some(text(parser)?),
                Arg::Short('o') => options.dot_is_text |= text(parser)? == "i",
                Arg::Short('b') => options.set_mode(text(parser)?),
                Arg::Short('N') => options.notify = request('N', &text(parser)?),
                Arg::Short('R') => options.request.ret = request('R', &text(parser)?),
                Arg::Short('V') => {
                    options.request.envelope_id = request('V', &encode_xtext(&text(parser)?));
                }
                Arg::Short(letter) if IGNORED_WITH_VALUE.contains(&letter) => drop(parser.value()?),
                Arg::Short(letter) if IGNORED.contains(&letter) => drop(parser.optional_value()),
                Arg::Short(letter) => {
                    warn(format_args!("sendmail: option -{letter} is unknown, ignored"))
                }
                Arg::Long(name) => {
                    warn(format_args!("sendmail: option --{name} is unknown, ignored"));
                    parser.optional_value();
                }
                Arg::Value(value) => {
                    options.recipients.push(value.to_string_lossy().into_owned());
                }
            }
        }
        Ok(options)
    }

    fn set_mode(&mut self, mode: String) {
        match mode.as_str() {
            "m" => {}
            "p" => self.lists_queue = true,
            _ => self.unserved_mode = Some(mode),
        }
    }
}

/// What an option asks about reports. One that makes no sense never loses mail either.
fn request<T: FromStr<Err = NotOfTheForm>>(letter: char, value: &str) -> Option<T> {
    let parsed = value.parse().ok();
    if parsed.is_none() {
        warn(format_args!("sendmail: option -{letter} does not take {value:?}, ignored"));
    }
    parsed
}

fn text(parser: &mut Parser) -> Result<String, lexopt::Error> {
    Ok(parser.value()?.to_string_lossy().into_owned())
}

/// The settings, or the defaults where they cannot be read: a mistake in them is the
/// administrator's, and no reason to lose a user's mail.
fn settings(invocation: &Invocation) -> Option<Settings> {
    let host = process::host_name();
    let loaded = crate::config::load(&invocation.config_path(), &host);
    loaded.or_else(|_| Settings::default_with(&host)).ok()
}

fn submit(options: &Options, settings: &Option<Settings>) -> Result<u8, Failure> {
    let Some(Settings { server, .. }) = settings else {
        return Err(Failure::new(
            exit::CONFIG,
            "there is no usable configuration; see mailwren check",
        ));
    };
    let socket = server.socket.as_deref().ok_or_else(|| {
        Failure::new(
            exit::CONFIG,
            "the server has no socket: set [server] socket in the configuration",
        )
    })?;
    if let Some(hostile) = options.addresses().find(|text| text.chars().any(char::is_control)) {
        let text = format!("{hostile:?}: an address has no control characters");
        return Err(Failure::new(exit::DATAERR, text));
    }
    let own = own_mailbox(server)?;
    let reverse_path = reverse_path(options, server, &own)?;
    let submission = read(options, server, reverse_path.mailbox().unwrap_or(&own))?;
    let mut recipients = submission.recipients.clone();
    if !options.from_header {
        recipients.clear();
    }
    let mut bad = if options.from_header { submission.bad_recipients.clone() } else { Vec::new() };
    let given = options.recipients.iter().flat_map(|list| address_list::specs(list.as_bytes()));
    for spec in given {
        match address_list::complete(&spec, server.domains.origin()) {
            Ok(mailbox) if recipients.contains(&mailbox) => {}
            Ok(mailbox) => recipients.push(mailbox),
            Err(_) => bad.push(spec),
        }
    }
    for spec in &bad {
        warn(format_args!("sendmail: {spec:?} is no address; not sent there"));
    }
    if recipients.is_empty() {
        let code = if bad.is_empty() { exit::USAGE } else { exit::DATAERR };
        return Err(Failure::new(
            code,
            "no recipients: name them, or use -t to take them from the header",
        ));
    }
    let notify = options.notify;
    let to = |mailbox| Recipient { mailbox, request: RecipientRequest { notify, original: None } };
    let transaction = Transaction {
        reverse_path: &reverse_path,
        recipients: &recipients.iter().map(to).collect::<Vec<_>>(),
        request: &options.request,
        is_eight_bit: !submission.content.is_ascii(),
        size_octets: submission.content.len() as u64,
    };
    let code = send(socket, server, &transaction, &submission.content)?;
    Ok(if code == exit::OK && !bad.is_empty() { exit::DATAERR } else { code })
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

/// What `-f` says, or the caller.
fn reverse_path(options: &Options, server: &Server, own: &Mailbox) -> Result<ReversePath, Failure> {
    let Some(given) = &options.sender else { return Ok(ReversePath::Mailbox(own.clone())) };
    match address_list::specs(given.as_bytes()).as_slice() {
        [] => Ok(ReversePath::Null),
        [spec] => address_list::complete(spec, server.domains.origin())
            .map(ReversePath::Mailbox)
            .map_err(|error| Failure::new(exit::DATAERR, format!("-f {given:?}: {error}"))),
        _ => Err(Failure::new(exit::DATAERR, format!("-f {given:?}: one address, please"))),
    }
}

fn read(options: &Options, server: &Server, sender: &Mailbox) -> Result<Submission, Failure> {
    let limit = server.max_message_size;
    let mut input = Vec::new();
    io::stdin()
        .lock()
        .take(limit.saturating_add(1))
        .read_to_end(&mut input)
        .map_err(|error| Failure::new(exit::OSERR, format!("cannot read the message: {error}")))?;
    if input.len() as u64 > limit {
        let text = format!("the message is larger than {limit} octets ([server] max_message_size)");
        return Err(Failure::new(exit::UNAVAILABLE, text));
    }
    let now = clock::since_1970();
    let surroundings = Surroundings {
        sender: Some(sender),
        full_name: options.full_name.as_deref(),
        date: &clock::date_field(now.as_secs()).to_string(),
        unique: &QueueId::generate(now.as_micros() as u64, random::number()).to_string(),
        origin: server.domains.origin(),
    };
    let lines = submission::read_lines(&input, !options.dot_is_text);
    drop(input);
    Ok(submission::complete(&lines, &surroundings))
}

fn send(
    socket: &Path,
    server: &Server,
    transaction: &Transaction<'_>,
    content: &[u8],
) -> Result<u8, Failure> {
    let stream = UnixStream::connect(socket).map_err(|error| {
        let text = format!(
            "{}: {error}; is the server running (mailwren serve)? Not accepted",
            socket.display()
        );
        Failure::new(exit::TEMPFAIL, text)
    })?;
    let not_accepted = |error: &dyn std::fmt::Display| {
        Failure::new(exit::TEMPFAIL, format!("the server {error}; not accepted"))
    };
    let mut connection = SmtpConnection::open(stream, &server.hostname, Timeouts::default())
        .map_err(|error| not_accepted(&error.cause))?;
    let results = connection
        .send(transaction, &mut Cursor::new(content))
        .map_err(|error| not_accepted(&error.cause))?;
    connection.quit();
    Ok(transaction
        .recipients
        .iter()
        .zip(&results)
        .map(|(recipient, result)| tell(recipient.mailbox, result))
        .max()
        .unwrap_or(exit::OK))
}

/// Says what was refused, and the exit code for it. Codes are in the order of what the
/// caller should do: 75, try again, before 69 and 67.
fn tell(mailbox: &Mailbox, result: &RecipientResult) -> u8 {
    match result {
        RecipientResult::Taken(_) => exit::OK,
        RecipientResult::TooLarge { limit_octets } => {
            warn(format_args!(
                "sendmail: <{mailbox}>: larger than the {limit_octets} octets that the server takes"
            ));
            exit::UNAVAILABLE
        }
        RecipientResult::Refused(refusal) => {
            let status = refusal.status();
            warn(format_args!("sendmail: <{mailbox}>: {}", refusal.reply));
            match status {
                _ if status.is_temporary() => exit::TEMPFAIL,
                _ if status.to_string() == "5.1.1" => exit::NOUSER,
                _ => exit::UNAVAILABLE,
            }
        }
    }
}
