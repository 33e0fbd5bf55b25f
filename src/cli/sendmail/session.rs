//! `sendmail -bs`: SMTP on standard input and output. The octets go to the server's socket and come
//! from there. While no server runs there is a session in this process, in which whatever makes
//! sense is taken, and left in `drop/`: what the server thinks of it the sender hears in a report.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use super::delivery::Letter;
use super::{Failure, socket};
use crate::config::settings::{AuthRule, BareNewline, Server};
use crate::mail::address::{Domain, ForwardPath, LocalPart, Mailbox, ReversePath};
use crate::mail::status::Status;
use crate::smtp::command::EtrnNode;
use crate::smtp::data::{DataDecoder, Progress};
use crate::smtp::reply::Reply;
use crate::smtp::sasl::Mechanism;
use crate::smtp::server::{Action, DataError, Limits, LoginStep, Policy, Session};
use crate::spool::store::Receipt;
use crate::sys::process::exit;

/// How much is read at once, in octets.
const BLOCK: usize = 32 << 10;

const AWAY: Reply = Reply::new(
    252,
    Status::new(2, 5, 0),
    "The server is not running; send the message, it waits for it",
);
const NO_TURN: Reply = Reply::new(458, Status::new(4, 3, 2), "The server is not running");
const NO_LOGIN: Reply = Reply::new(454, Status::new(4, 7, 0), "The server is not running");
const NOT_AN_ADDRESS: Reply = Reply::new(553, Status::new(5, 1, 3), "This is no address");

/// Speaks SMTP until either side has had enough.
///
/// # Errors
/// When neither the server nor standard input and output go on.
pub(super) fn run(server: &Server) -> Result<u8, Failure> {
    let done = match socket::open(server) {
        Ok(stream) => relay(stream),
        Err(error) => {
            log::debug!("{}", socket::unreachable(server, &error));
            Alone::new(server).run(&mut Spoken::new(io::stdin().lock()), &mut io::stdout().lock())
        }
    };
    match done {
        Ok(()) => Ok(exit::OK),
        // Whoever asked has left.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::OK),
        Err(error) => Err(Failure::new(exit::TEMPFAIL, format!("the session broke off: {error}"))),
    }
}

/// Passes octets on in both directions, until the server closes.
fn relay(stream: UnixStream) -> io::Result<()> {
    let mut to_server = stream.try_clone()?;
    // It ends with the process, if nobody says more.
    thread::spawn(move || {
        let _ = copy(&mut Spoken::new(io::stdin().lock()), &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    copy(&mut &stream, &mut io::stdout().lock())
}

/// Copies what comes as soon as it comes.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&block[..count]).and_then(|()| to.flush())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a program says. One that ends its first line with LF alone, as scripts do, means CRLF by each
/// LF. Where that line ends with CRLF a bare LF stays one: a program that knows the difference may
/// have it from somebody who wants to end the message with it.
struct Spoken<R> {
    from: R,
    means_crlf: Option<bool>,
    last: u8,
}

impl<R: Read> Spoken<R> {
    const fn new(from: R) -> Self {
        Self { from, means_crlf: None, last: 0 }
    }
}

impl<R: Read> Read for Spoken<R> {
    /// Reads into half of `block`, which has two octets or more, so that each may become two.
    fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        let half = block.len() / 2;
        let count = self.from.read(&mut block[..half])?;
        let (said, mut filled) = (block[..count].to_vec(), 0);
        for octet in said {
            let is_bare = octet == b'\n' && self.last != b'\r';
            if octet == b'\n' && *self.means_crlf.get_or_insert(is_bare) && is_bare {
                block[filled] = b'\r';
                filled += 1;
            }
            block[filled] = octet;
            filled += 1;
            self.last = octet;
        }
        Ok(filled)
    }
}

/// A session without a server.
struct Alone<'a> {
    server: &'a Server,
    session: Session,
    /// Received and not used yet.
    input: Vec<u8>,
}

impl<'a> Alone<'a> {
    fn new(server: &'a Server) -> Self {
        let limits = Limits {
            hostname: server.hostname.to_string(),
            max_message_size: server.max_message_size,
            max_recipients: server.max_recipients,
            offers_expn: false,
            bare_newline: BareNewline::Reject,
            is_submission: false,
            origin: Some(server.domains.origin().clone()),
            offers_start_tls: false,
            auth: AuthRule::None,
            auth_without_tls: false,
            max_login_failures: 1,
        };
        Self { server, session: Session::new(limits), input: Vec::new() }
    }

    fn run(mut self, from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
        let mut output = Vec::new();
        self.session.greeting().write_to(&mut output);
        loop {
            match self.session.next(&self.input, &mut Lenient { server: self.server }) {
                Action::Read => {
                    to.write_all(&output)?;
                    to.flush()?;
                    output.clear();
                    if !self.read_more(from)? {
                        return Ok(());
                    }
                }
                // TLS is not offered.
                Action::Reply(reply, used) | Action::StartTls(reply, used) => {
                    self.input.drain(..used);
                    reply.write_to(&mut output);
                }
                Action::ReadData(reply, used) => {
                    self.input.drain(..used);
                    reply.write_to(&mut output);
                    to.write_all(&output)?;
                    to.flush()?;
                    output.clear();
                    let Some(result) = self.take_message(from)? else { return Ok(()) };
                    self.session.end_of_data(result).write_to(&mut output);
                }
                Action::Close(reply) => {
                    reply.write_to(&mut output);
                    to.write_all(&output)?;
                    return to.flush();
                }
            }
        }
    }

    /// Reads more of the input; `false` at its end.
    fn read_more(&mut self, from: &mut dyn Read) -> io::Result<bool> {
        let filled = self.input.len();
        self.input.resize(filled + BLOCK, 0);
        let result = from.read(&mut self.input[filled..]);
        self.input.truncate(filled + result.as_ref().map_or(0, |count| *count));
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            result => result.map(|count| count > 0),
        }
    }

    /// Takes a message up to its lone dot; `None` where that does not come.
    fn take_message(
        &mut self,
        from: &mut dyn Read,
    ) -> io::Result<Option<Result<Receipt, DataError>>> {
        let limit = usize::try_from(self.server.max_message_size).unwrap_or(usize::MAX);
        let mut decoder = DataDecoder::new(BareNewline::Reject);
        let (mut content, mut is_too_large) = (Vec::new(), false);
        loop {
            let progress = decoder.decode(&self.input, |octets| {
                is_too_large |= octets.len() > limit.saturating_sub(content.len());
                if !is_too_large {
                    content.extend_from_slice(octets);
                }
            });
            if let Progress::Ended(used) = progress {
                self.input.drain(..used);
                break;
            }
            self.input.clear();
            if !self.read_more(from)? {
                return Ok(None);
            }
        }
        Ok(Some(match decoder.fault() {
            Some(fault) => Err(DataError::Fault(fault)),
            None if is_too_large => Err(DataError::TooLarge),
            None => self.leave(&content),
        }))
    }

    fn leave(&self, content: &[u8]) -> Result<Receipt, DataError> {
        let refused = |text| {
            let status = Status::new(4, 3, 0);
            DataError::Refused(Reply::with_text(451, status, format!("Not accepted: {text}")))
        };
        let transaction = self.session.transaction();
        let transaction = transaction.ok_or_else(|| refused("no transaction".to_owned()))?;
        let letter = Letter {
            reverse_path: &transaction.reverse_path,
            recipients: transaction.recipients.clone(),
            request: &transaction.request,
            body: transaction.body,
            content,
        };
        letter.leave(self.server).map_err(refused)
    }
}

/// Takes everybody; the server sees later who is who.
struct Lenient<'a> {
    server: &'a Server,
}

impl Policy for Lenient<'_> {
    fn sender(&mut self, path: ReversePath, _: Option<u64>) -> Result<ReversePath, Reply> {
        Ok(path)
    }

    fn recipient(&mut self, path: &ForwardPath) -> Result<Mailbox, Reply> {
        let ForwardPath::Mailbox(mailbox) = path else {
            let local_part = LocalPart::from_unquoted("postmaster").map_err(|_| NOT_AN_ADDRESS)?;
            let origin = Domain::Name(self.server.domains.origin().clone());
            return Ok(Mailbox::new(local_part, origin));
        };
        Ok(mailbox.clone())
    }

    fn verify(&mut self, _: &str) -> Reply {
        AWAY
    }

    fn start_queue(&mut self, _: &EtrnNode) -> Reply {
        NO_TURN
    }

    fn expand(&mut self, _: &str) -> Option<Reply> {
        None
    }

    fn mechanisms(&mut self) -> Vec<Mechanism> {
        Vec::new()
    }

    fn begin_login(&mut self, _: Mechanism, _: Option<&[u8]>) -> LoginStep {
        LoginStep::Refused(NO_LOGIN)
    }

    fn continue_login(&mut self, _: &[u8]) -> LoginStep {
        LoginStep::Refused(NO_LOGIN)
    }

    fn cancel_login(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_says_what_ends_a_line() {
        for (said, expected) in [
            ("", ""),
            ("QUIT", "QUIT"),
            ("\n", "\r\n"),
            ("HELO x\nDATA\n.\n\n", "HELO x\r\nDATA\r\n.\r\n\r\n"),
            ("HELO x\nDATA\r\n.\n", "HELO x\r\nDATA\r\n.\r\n"),
            ("HELO x\r\nDATA\r\n.\n", "HELO x\r\nDATA\r\n.\n"),
        ] {
            for size in [2, 3, 64] {
                let (mut spoken, mut heard) = (Spoken::new(said.as_bytes()), Vec::new());
                let mut block = vec![0; size];
                loop {
                    match spoken.read(&mut block).unwrap() {
                        0 => break,
                        count => heard.extend_from_slice(&block[..count]),
                    }
                }
                assert_eq!(String::from_utf8(heard).unwrap(), expected, "{said:?} by {size}");
            }
        }
    }
}
