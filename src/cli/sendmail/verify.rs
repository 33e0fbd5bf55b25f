//! `sendmail -bv`: whether mail for some addresses would be taken, as the server sees it. It is
//! asked in a transaction that is reset, so that what counts is what counts for mail.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::options::Options;
use super::{Failure, own_mailbox, socket};
use crate::cli::output::{say, warn};
use crate::config::settings::Server;
use crate::mail::address_list;
use crate::smtp::reply_parser::{PeerReply, ReplyParser};
use crate::sys::process::exit;

/// How much of the replies is read at once, in octets.
const BLOCK: usize = 4096;

/// Says of each address whether mail for it would be taken.
///
/// # Errors
/// When there is nobody to be asked, or nothing to ask.
pub(super) fn run(options: &Options, server: &Server) -> Result<u8, Failure> {
    if options.recipients.is_empty() {
        return Err(Failure::new(exit::USAGE, "-bv: name the addresses"));
    }
    let mut dialog = Dialog::open(server)?;
    dialog.must_take(&format!("MAIL FROM:<{}>", own_mailbox(server)?))?;
    let mut code = exit::OK;
    for spec in options.specs() {
        let Ok(mailbox) = address_list::complete(&spec, server.domains.origin()) else {
            warn(format_args!("{spec}: is no address"));
            code = code.max(exit::DATAERR);
            continue;
        };
        let reply = dialog.ask(&format!("RCPT TO:<{mailbox}>"))?;
        match reply {
            reply if reply.is_success() => say(format_args!("{spec}: deliverable to <{mailbox}>")),
            reply => {
                warn(format_args!("{spec}: {reply}"));
                let is_temporary = reply.status().is_temporary();
                code = code.max(if is_temporary { exit::TEMPFAIL } else { exit::NOUSER });
            }
        }
    }
    // Whatever is said to that, nothing was sent.
    let _ = dialog.ask("RSET").and_then(|_| dialog.ask("QUIT"));
    Ok(code)
}

/// A session in which each command waits for its reply.
pub(super) struct Dialog {
    stream: UnixStream,
    parser: ReplyParser,
}

impl Dialog {
    /// Greets the server.
    ///
    /// # Errors
    /// When it is not there, or says no.
    pub(super) fn open(server: &Server) -> Result<Self, Failure> {
        let away = |error| Failure::new(exit::TEMPFAIL, socket::unreachable(server, &error));
        let stream = socket::open(server).map_err(away)?;
        let patience = Some(socket::timeouts().command);
        stream.set_read_timeout(patience).map_err(away)?;
        stream.set_write_timeout(patience).map_err(away)?;
        let mut dialog = Self { stream, parser: ReplyParser::new() };
        let greeting = dialog.reply()?;
        dialog.check(greeting)?;
        dialog.must_take(&format!("EHLO {}", server.hostname))?;
        Ok(dialog)
    }

    /// Says a command that must be taken.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn must_take(&mut self, command: &str) -> Result<(), Failure> {
        let reply = self.ask(command)?;
        self.check(reply)
    }

    /// Says a command, and gives the reply.
    ///
    /// # Errors
    /// When none comes.
    pub(super) fn ask(&mut self, command: &str) -> Result<PeerReply, Failure> {
        self.stream.write_all(format!("{command}\r\n").as_bytes()).map_err(broken)?;
        self.reply()
    }

    fn check(&self, reply: PeerReply) -> Result<(), Failure> {
        let code = if reply.status().is_temporary() { exit::TEMPFAIL } else { exit::UNAVAILABLE };
        match reply.is_success() {
            true => Ok(()),
            false => Err(Failure::new(code, format!("the server said {reply}"))),
        }
    }

    fn reply(&mut self) -> Result<PeerReply, Failure> {
        let mut block = [0; BLOCK];
        loop {
            let reply = self.parser.next_reply();
            if let Some(reply) = reply.map_err(|error| broken(error.to_string()))? {
                return Ok(reply);
            }
            match self.stream.read(&mut block).map_err(broken)? {
                0 => return Err(broken("it closed the connection")),
                count => self.parser.feed(&block[..count]),
            }
        }
    }
}

fn broken(why: impl std::fmt::Display) -> Failure {
    Failure::new(exit::TEMPFAIL, format!("the server gave no answer: {why}"))
}
