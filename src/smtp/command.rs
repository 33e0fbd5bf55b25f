//! Command lines (RFC 5321 §4.1.1) into [`Command`]s: what a client may say, parsed into
//! types that hold nothing else. Which command may come when is the session's business.

use std::fmt;
use std::str::FromStr;

use crate::mail::address::{AddressError, DomainName, ForwardPath, ReversePath, path_in};
use crate::mail::dsn_request::RecipientRequest;
use crate::mail::status::Status;
use crate::smtp::parameters::{MailParameters, ParameterError, parse_rcpt_parameters};
use crate::smtp::reply::Reply;

/// A command that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `HELO name` (RFC 5321 §4.1.1.1).
    Helo(HeloName),
    /// `EHLO name` (RFC 5321 §4.1.1.1).
    Ehlo(HeloName),
    /// `MAIL FROM:<path> …` (RFC 5321 §4.1.1.2).
    Mail(ReversePath, MailParameters),
    /// `RCPT TO:<path> …` (RFC 5321 §4.1.1.3).
    Rcpt(ForwardPath, RecipientRequest),
    /// `ETRN node` (RFC 1985 §5).
    Etrn(EtrnNode),
    /// `STARTTLS` (RFC 3207 §4).
    StartTls,
    /// `AUTH mechanism [initial-response]` (RFC 4954 §4); the response in base64, `=` for an
    /// empty one.
    Auth {
        /// As the client wrote it.
        mechanism: String,
        /// What stands behind it.
        initial: Option<InitialResponse>,
    },
    /// `DATA` (RFC 5321 §4.1.1.4).
    Data,
    /// `RSET` (RFC 5321 §4.1.1.5).
    Rset,
    /// `VRFY string` (RFC 5321 §4.1.1.6).
    Vrfy(String),
    /// `EXPN string` (RFC 5321 §4.1.1.7).
    Expn(String),
    /// `HELP [string]` (RFC 5321 §4.1.1.8).
    Help(Option<String>),
    /// `NOOP [string]` (RFC 5321 §4.1.1.9).
    Noop,
    /// `QUIT` (RFC 5321 §4.1.1.10).
    Quit,
}

/// What a client says with AUTH, which may be a password. `Debug` does not tell it.
#[derive(Clone, PartialEq, Eq)]
pub struct InitialResponse(String);

impl InitialResponse {
    /// As the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for InitialResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InitialResponse")
    }
}

/// The name that a client gives itself: 1 to 255 letters, digits and `.-_:[]%`. Wider than
/// the domain or address literal of RFC 5321 §4.1.1.1, since printers say `EHLO printer_1`,
/// and yet safe in a Received field and in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeloName(Box<str>);

impl HeloName {
    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HeloName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no name that a client can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAHeloName;

impl FromStr for HeloName {
    type Err = NotAHeloName;

    fn from_str(text: &str) -> Result<Self, NotAHeloName> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]%".contains(&b);
        let is_name = (1..=255).contains(&text.len()) && text.bytes().all(fits);
        if is_name { Ok(Self(text.into())) } else { Err(NotAHeloName) }
    }
}

/// Whose mail ETRN asks for (RFC 1985 §5.1 and §5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EtrnNode {
    /// One host's.
    Host(DomainName),
    /// `@domain`: that of a domain and of all below it.
    Subdomains(DomainName),
    /// `#name`: that of a queue with a name.
    Queue(DomainName),
}

impl FromStr for EtrnNode {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match (text.strip_prefix('@'), text.strip_prefix('#')) {
            (Some(domain), _) => domain.parse().map(Self::Subdomains),
            (_, Some(queue)) => queue.parse().map(Self::Queue),
            _ => text.parse().map(Self::Host),
        }
    }
}

/// Why a line is no command that can be carried out. [`CommandError::reply`] says it to the
/// client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// No command has this name.
    Unrecognized,
    /// A command of some standard that is not offered here.
    NotImplemented,
    /// A character that no command may hold: a control character or one beyond ASCII.
    BadCharacter,
    /// The arguments are not of the command's form, which is this.
    Syntax(&'static str),
    /// The address between the brackets is none.
    Address(AddressError),
    /// A parameter behind the path cannot be taken.
    Parameter(ParameterError),
}

impl CommandError {
    /// What the client is told: 500, 501, 502, 553 or 555 (RFC 5321 §4.2.2 and §4.2.4).
    pub fn reply(&self) -> Reply {
        let invalid_arguments = Status::new(5, 5, 4);
        match self {
            Self::Unrecognized => {
                Reply::new(500, Status::new(5, 5, 1), "Command not recognized; try HELP")
            }
            Self::NotImplemented => {
                Reply::new(502, Status::new(5, 5, 1), "Command not implemented here")
            }
            Self::BadCharacter => Reply::new(
                500,
                Status::new(5, 5, 2),
                "A command is printable ASCII and ends with CRLF",
            ),
            Self::Syntax(form) => {
                Reply::with_text(501, invalid_arguments, format!("Syntax: {form}"))
            }
            // A path that is none at all is a syntax error; an address that no mailbox can
            // have is 553, "mailbox name not allowed" (RFC 5321 §4.2.3).
            Self::Address(error @ AddressError::NoBrackets) => {
                Reply::with_text(501, Status::new(5, 5, 2), format!("Syntax error: {error}"))
            }
            Self::Address(error) => {
                Reply::with_text(553, Status::new(5, 1, 3), format!("Bad address: {error}"))
            }
            Self::Parameter(ParameterError::Malformed) => {
                Reply::new(501, invalid_arguments, "Malformed parameter behind the address")
            }
            Self::Parameter(ParameterError::BadValue(form)) => {
                Reply::with_text(501, invalid_arguments, format!("Syntax: {form}"))
            }
            Self::Parameter(ParameterError::Unknown(keyword)) => {
                let text = format!("Parameter {keyword} is not offered here");
                Reply::with_text(555, invalid_arguments, text)
            }
        }
    }
}

/// The commands with their syntax: what HELP tells, and what a 501 repeats.
pub const SYNTAX: [(&str, &str); 14] = [
    ("HELO", "HELO hostname"),
    ("EHLO", "EHLO hostname"),
    ("MAIL", "MAIL FROM:<address> [SIZE=octets] [BODY=7BIT|8BITMIME] [RET=FULL|HDRS] [ENVID=name]"),
    ("RCPT", "RCPT TO:<address> [NOTIFY=NEVER|SUCCESS,FAILURE,DELAY] [ORCPT=type;address]"),
    ("DATA", "DATA"),
    ("STARTTLS", "STARTTLS"),
    ("AUTH", "AUTH mechanism [initial-response]"),
    ("ETRN", "ETRN domain"),
    ("RSET", "RSET"),
    ("NOOP", "NOOP [text]"),
    ("QUIT", "QUIT"),
    ("VRFY", "VRFY address"),
    ("EXPN", "EXPN alias"),
    ("HELP", "HELP [command]"),
];

/// Commands of other standards: better answered 502 than 500.
const ELSEWHERE: [&str; 6] = ["BDAT", "SAML", "SEND", "SOML", "TURN", "XCLIENT"];

/// The syntax of `verb`, in any case.
pub fn syntax(verb: &str) -> Option<&'static str> {
    SYNTAX.iter().find(|(known, _)| known.eq_ignore_ascii_case(verb)).map(|(_, form)| *form)
}

impl Command {
    /// Reads a command line without its CRLF. `origin` is the domain of addresses that have
    /// none; without it such an address is refused.
    ///
    /// # Errors
    /// Why it is no command; the session goes on.
    pub fn parse(line: &[u8], origin: Option<&DomainName>) -> Result<Self, CommandError> {
        let is_printable = line.iter().all(|b| (b' '..=b'~').contains(b));
        let line = match std::str::from_utf8(line) {
            Ok(line) if is_printable => line.trim_end_matches(' '),
            _ => return Err(CommandError::BadCharacter),
        };
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let argument = argument.trim_start_matches(' ');
        let Some(form) = syntax(verb) else {
            let is_elsewhere = ELSEWHERE.iter().any(|known| known.eq_ignore_ascii_case(verb));
            return Err(if is_elsewhere {
                CommandError::NotImplemented
            } else {
                CommandError::Unrecognized
            });
        };
        let syntax_error = CommandError::Syntax(form);
        match verb.to_ascii_uppercase().as_str() {
            "HELO" => argument.parse().map(Self::Helo).map_err(|_| syntax_error),
            "EHLO" => argument.parse().map(Self::Ehlo).map_err(|_| syntax_error),
            "MAIL" => parse_mail(argument, origin, syntax_error),
            "RCPT" => parse_rcpt(argument, origin, syntax_error),
            "VRFY" if !argument.is_empty() => Ok(Self::Vrfy(argument.to_owned())),
            "EXPN" if !argument.is_empty() => Ok(Self::Expn(argument.to_owned())),
            "ETRN" => argument.parse().map(Self::Etrn).map_err(|_| syntax_error),
            "HELP" => Ok(Self::Help((!argument.is_empty()).then(|| argument.to_owned()))),
            "NOOP" => Ok(Self::Noop),
            "AUTH" => parse_auth(argument).ok_or(syntax_error),
            "STARTTLS" if argument.is_empty() => Ok(Self::StartTls),
            "DATA" if argument.is_empty() => Ok(Self::Data),
            "RSET" if argument.is_empty() => Ok(Self::Rset),
            "QUIT" if argument.is_empty() => Ok(Self::Quit),
            _ => Err(syntax_error),
        }
    }
}

fn parse_auth(argument: &str) -> Option<Command> {
    let mut words = argument.split(' ').filter(|word| !word.is_empty());
    let mechanism = words.next()?.to_owned();
    let initial = words.next().map(|word| InitialResponse(word.to_owned()));
    words.next().is_none().then_some(Command::Auth { mechanism, initial })
}

fn parse_mail(
    argument: &str,
    origin: Option<&DomainName>,
    syntax_error: CommandError,
) -> Result<Command, CommandError> {
    let path = behind_keyword(argument, "FROM:").ok_or(syntax_error)?;
    let (path, parameters) = split_path(path)?;
    let reverse_path = parse_path(path, origin).map_err(CommandError::Address)?;
    let parameters = MailParameters::parse(parameters).map_err(CommandError::Parameter)?;
    Ok(Command::Mail(reverse_path, parameters))
}

fn parse_rcpt(
    argument: &str,
    origin: Option<&DomainName>,
    syntax_error: CommandError,
) -> Result<Command, CommandError> {
    let path = behind_keyword(argument, "TO:").ok_or(syntax_error)?;
    let (path, parameters) = split_path(path)?;
    let forward_path = parse_path(path, origin).map_err(CommandError::Address)?;
    let request = parse_rcpt_parameters(parameters).map_err(CommandError::Parameter)?;
    Ok(Command::Rcpt(forward_path, request))
}

/// Reads a path; `<ann>` as one at `origin`, where there is one.
fn parse_path<P: FromStr<Err = AddressError>>(
    path: &str,
    origin: Option<&DomainName>,
) -> Result<P, AddressError> {
    match (path.parse(), origin, path.strip_suffix('>')) {
        (Err(AddressError::NoDomain), Some(origin), Some(bare)) => {
            format!("{bare}@{origin}>").parse()
        }
        (parsed, ..) => parsed,
    }
}

/// What stands behind `FROM:` or `TO:`. RFC 5321 §3.3 allows no blank there; devices send
/// one, and nothing else could be meant.
fn behind_keyword<'a>(argument: &'a str, keyword: &str) -> Option<&'a str> {
    let (head, rest) = argument.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then(|| rest.trim_start_matches(' '))
}

/// The path, and the parameters behind the blank that follows it.
fn split_path(text: &str) -> Result<(&str, &str), CommandError> {
    let (path, parameters) = path_in(text).map_err(CommandError::Address)?;
    if parameters.is_empty() || parameters.starts_with(' ') {
        Ok((path, parameters))
    } else {
        Err(CommandError::Parameter(ParameterError::Malformed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::envelope::Body;
    use proptest::prelude::*;

    fn mail(path: &str, size: Option<u64>, body: Body) -> Result<Command, CommandError> {
        let parameters =
            MailParameters { size, body, request: Default::default(), has_auth: false };
        Ok(Command::Mail(path.parse().unwrap(), parameters))
    }

    fn rcpt(path: &str) -> Result<Command, CommandError> {
        Ok(Command::Rcpt(path.parse().unwrap(), RecipientRequest::default()))
    }

    #[test]
    fn commands_are_read_in_any_case() {
        use Body::{EightBitMime, SevenBit};
        for (line, command) in [
            ("HELO client.test", Ok(Command::Helo("client.test".parse().unwrap()))),
            ("ehlo [192.0.2.1]", Ok(Command::Ehlo("[192.0.2.1]".parse().unwrap()))),
            ("EHLO [IPv6:::1]", Ok(Command::Ehlo("[IPv6:::1]".parse().unwrap()))),
            ("EHLO printer_1", Ok(Command::Ehlo("printer_1".parse().unwrap()))),
            ("MAIL FROM:<>", mail("<>", None, SevenBit)),
            ("mail from:<a@b> size=5", mail("<a@b>", Some(5), SevenBit)),
            ("MAIL FROM: <a@b> BODY=8BITMIME", mail("<a@b>", None, EightBitMime)),
            ("MAIL FROM:<\"a b\"@c> SIZE=5", mail("<\"a b\"@c>", Some(5), SevenBit)),
            ("RCPT TO:<a@b>", rcpt("<a@b>")),
            ("Rcpt To:<Postmaster>", rcpt("<postmaster>")),
            ("RCPT TO:<@a,@b:c@d>", rcpt("<c@d>")),
            ("DATA", Ok(Command::Data)),
            ("DATA  ", Ok(Command::Data)),
            ("rset", Ok(Command::Rset)),
            ("NOOP", Ok(Command::Noop)),
            ("NOOP what ever", Ok(Command::Noop)),
            ("QUIT", Ok(Command::Quit)),
            ("VRFY ann", Ok(Command::Vrfy("ann".into()))),
            ("EXPN  staff ", Ok(Command::Expn("staff".into()))),
            ("HELP", Ok(Command::Help(None))),
            ("HELP mail", Ok(Command::Help(Some("mail".into())))),
        ] {
            assert_eq!(Command::parse(line.as_bytes(), None), command, "{line:?}");
        }
    }

    #[test]
    fn the_debug_form_has_no_password() {
        let command = Command::parse(b"AUTH PLAIN AGFubgBodW50ZXIy", None).unwrap();
        let text = format!("{command:?}");
        assert!(text.contains("PLAIN") && !text.contains("AGFubgBodW50ZXIy"), "{text}");
    }

    #[test]
    fn what_is_no_command_gets_the_reply_of_the_standard() {
        for (line, code) in [
            ("", 500),
            (" QUIT", 500),
            ("QUITE", 500),
            ("\u{c4}HLO x", 500),
            ("NOOP\rNOOP", 500),
            ("NOOP \0", 500),
            ("STARTTLS now", 501),
            ("AUTH", 501),
            ("AUTH PLAIN AGFubgBodW50ZXIy more", 501),
            ("TURN", 502),
            ("BDAT 5 LAST", 502),
            ("HELO", 501),
            ("EHLO ", 501),
            ("EHLO a b", 501),
            ("EHLO a(b", 501),
            ("DATA now", 501),
            ("RSET x", 501),
            ("QUIT x", 501),
            ("VRFY", 501),
            ("EXPN", 501),
            ("MAIL", 501),
            ("MAIL <a@b>", 501),
            ("MAIL TO:<a@b>", 501),
            ("MAIL FROM:", 501),
            ("MAIL FROM:a@b", 501),
            ("MAIL FROM:<a@b", 501),
            ("MAIL FROM:<a@b>SIZE=1", 501),
            ("MAIL FROM:<a@b> SIZE=x", 501),
            ("MAIL FROM:<a@b> SIZE=1 SIZE=2", 501),
            ("MAIL FROM:<a@b> BODY=BINARYMIME", 501),
            ("MAIL FROM:<a@b> FOO=1", 555),
            ("MAIL FROM:<a>", 553),
            ("MAIL FROM:<a@b@c>", 553),
            ("MAIL FROM:<a b@c>", 553),
            ("RCPT", 501),
            ("RCPT TO:", 501),
            ("RCPT TO:<>", 553),
            ("RCPT TO:<a@[1.2.3]>", 553),
            ("RCPT TO:<a@b> NOTIFY=NONE", 501),
            ("RCPT TO:<a@b> FOO=1", 555),
        ] {
            let reply = Command::parse(line.as_bytes(), None).unwrap_err().reply();
            assert_eq!(reply.code(), code, "{line:?}: {reply}");
            assert!(reply.status().is_some_and(Status::is_permanent), "{line:?}: {reply}");
        }
    }

    #[test]
    fn an_address_without_domain_is_completed_where_it_may() {
        let origin = "home.test".parse().unwrap();
        for (line, printed) in [
            ("MAIL FROM:<ann>", "MAIL <ann@home.test>"),
            ("MAIL FROM:<\"a>n\">", "MAIL <\"a>n\"@home.test>"),
            ("MAIL FROM:<>", "MAIL <>"),
            ("MAIL FROM:<ann@x.test>", "MAIL <ann@x.test>"),
            ("MAIL FROM:<@r.test:ann>", "MAIL <ann@home.test>"),
            ("MAIL FROM:<ann@>", "553"),
            ("MAIL FROM:<a b>", "553"),
            ("MAIL FROM:ann", "501"),
            ("RCPT TO:<bob>", "RCPT <bob@home.test>"),
            ("RCPT TO:<postmaster>", "RCPT <postmaster>"),
            ("RCPT TO:<>", "553"),
        ] {
            let found = match Command::parse(line.as_bytes(), Some(&origin)) {
                Ok(Command::Mail(path, _)) => format!("MAIL {path}"),
                Ok(Command::Rcpt(path, _)) => format!("RCPT {path}"),
                Ok(command) => panic!("{command:?}"),
                Err(error) => error.reply().code().to_string(),
            };
            assert_eq!(found, printed, "{line}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(line in any::<Vec<u8>>(), near in "(MAIL FROM|RCPT TO|HELP|EHLO)[: <>@a\"\\\\=]{0,12}") {
            for line in [line.as_slice(), near.as_bytes()] {
                if let Err(error) = Command::parse(line, None) {
                    prop_assert!((500..=555).contains(&error.reply().code()));
                }
            }
        }
    }
}
