//! A smarthost tried for a person who sets it up: the way of a message step by step, with what was
//! passed and what stopped it as values, so that each can be told in plain words.
//!
//! It is the relay's own way, but for its patience: nothing is tried twice, and nobody is waited for
//! longer than a person would.

use std::io::Cursor;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use super::Relay;
use super::opening::{Unopened, remote_name};
use crate::config::settings::{HostPort, Smarthost};
use crate::deliver::conversation::{Cause, ConnectionError, SmtpConnection};
use crate::deliver::login::Account;
use crate::deliver::tls::Protection;
use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::dsn_request::{MessageRequest, RecipientRequest};
use crate::route::next_hop::NextHop;
use crate::smtp::client::{Ending, Recipient, RecipientResult, Refusal, Transaction};
use crate::sys::dns::DnsError;

/// A message to try it with.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// Who sends it.
    pub sender: &'a Mailbox,
    /// Whom it is for.
    pub recipient: &'a Mailbox,
    /// Its header section and its body, lines ended by CRLF.
    pub content: &'a str,
}

/// A step that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passed {
    /// The host has these addresses.
    Found(Vec<IpAddr>),
    /// `name[address]:port` took the connection.
    Connected(String),
    /// The connection is encrypted: by which version of TLS, where it was read, and whether the
    /// certificate was looked at.
    Encrypted(Option<&'static str>, bool),
    /// It stays in the clear.
    InTheClear,
    /// The account was let in.
    LoggedIn,
    /// The message was taken, with this reply.
    Taken(String),
}

/// What stopped it.
#[derive(Debug)]
pub enum Stopped {
    /// The host has no address, or nobody says which.
    NoAddress(DnsError),
    /// No connection was made to `name[address]:port`.
    Unreachable(String, std::io::Error),
    /// The session broke off with `name[address]:port`.
    Session(String, Box<ConnectionError>),
    /// A command was refused by `name[address]:port`.
    Refused(String, Arc<Refusal>),
    /// The message has more octets than `name[address]:port` takes.
    TooLarge(String, u64),
    /// The configuration cannot be used, or the password not be had.
    Unusable(String),
}

impl Relay {
    /// Tries one host of a smarthost, with a letter where there is one, and tells each step that
    /// went well.
    ///
    /// # Errors
    /// [`Stopped`]; of several addresses what the last one came to.
    pub fn try_out(
        &self,
        smarthost: &Smarthost,
        host: &HostPort,
        letter: Option<&Letter<'_>>,
        passed: &mut dyn FnMut(Passed),
    ) -> Result<(), Stopped> {
        let addresses = self.addresses(&host.host).map_err(Stopped::NoAddress)?;
        passed(Passed::Found(addresses.clone()));
        let next_hop = NextHop::Smarthost(smarthost.clone());
        let mut stopped = None;
        for address in addresses {
            let address = SocketAddr::new(address, host.port);
            match self.try_address(&next_hop, host, address, letter, passed) {
                Err(Stopped::Unreachable(remote, error)) => {
                    stopped = Some(Stopped::Unreachable(remote, error));
                }
                result => return result,
            }
        }
        Err(stopped.unwrap_or(Stopped::NoAddress(DnsError::NoRecords)))
    }

    fn try_address(
        &self,
        next_hop: &NextHop,
        host: &HostPort,
        address: SocketAddr,
        letter: Option<&Letter<'_>>,
        passed: &mut dyn FnMut(Passed),
    ) -> Result<(), Stopped> {
        let remote = remote_name(&host.host, address);
        let security = self
            .encryption
            .security(next_hop, &host.host, &remote)
            .map_err(|error| Stopped::Unusable(error.to_string()))?;
        let account = self.account(next_hop, host)?;
        let has_login = account.is_some();
        let opened = self.open(address, security, self.timeouts, account);
        let mut session = match opened {
            Ok(session) => session,
            Err(Unopened::Unreachable(error)) => return Err(Stopped::Unreachable(remote, error)),
            Err(Unopened::Session(error)) => {
                let error = self.with_certificate(next_hop, host, address, error);
                passed(Passed::Connected(remote.clone()));
                if came_after_tls(next_hop, &error) {
                    passed(Passed::Encrypted(None, true));
                }
                return Err(Stopped::Session(remote, Box::new(error)));
            }
        };
        passed(Passed::Connected(remote.clone()));
        passed(match session.protection() {
            Protection::None => Passed::InTheClear,
            it => Passed::Encrypted(Some(session.tls_version()), it == Protection::Checked),
        });
        if has_login {
            passed(Passed::LoggedIn);
        }
        if let Some(letter) = letter {
            let result = send(&mut session, letter);
            let result = match result {
                Ok(result) => result,
                Err(error) => return Err(Stopped::Session(remote, Box::new(error))),
            };
            match result {
                Some(RecipientResult::Taken(reply)) => passed(Passed::Taken(reply.to_string())),
                Some(RecipientResult::Refused(refusal)) => {
                    session.quit();
                    return Err(Stopped::Refused(remote, refusal));
                }
                Some(RecipientResult::TooLarge { limit_octets }) => {
                    return Err(Stopped::TooLarge(remote, limit_octets));
                }
                None => {}
            }
        }
        session.quit();
        Ok(())
    }

    fn account(&self, next_hop: &NextHop, host: &HostPort) -> Result<Option<Account>, Stopped> {
        let NextHop::Smarthost(smarthost) = next_hop else { return Ok(None) };
        let Some(state) = self.logins.of(smarthost) else { return Ok(None) };
        let secret = state.secret(Instant::now());
        let secret = secret.map_err(|failure| Stopped::Unusable(failure.text))?;
        Ok(Some(Account::new(state.login(), secret, host)))
    }
}

/// Whether the session was encrypted, and by whom it should be, when it broke off.
fn came_after_tls(next_hop: &NextHop, error: &ConnectionError) -> bool {
    use crate::config::settings::ClientTls::{Implicit, StartTls};
    let NextHop::Smarthost(smarthost) = next_hop else { return false };
    matches!(smarthost.tls, Implicit | StartTls)
        && matches!(error.cause, Cause::Ended(Ending::Login(_)))
}

/// Sends the letter: what became of its only recipient.
fn send(
    session: &mut SmtpConnection<TcpStream>,
    letter: &Letter<'_>,
) -> Result<Option<RecipientResult>, ConnectionError> {
    let recipients =
        [Recipient { mailbox: letter.recipient, request: RecipientRequest::default() }];
    let transaction = Transaction {
        reverse_path: &ReversePath::Mailbox(letter.sender.clone()),
        recipients: &recipients,
        request: &MessageRequest::default(),
        is_eight_bit: false,
        size_octets: letter.content.len() as u64,
    };
    let results = session.send(&transaction, &mut Cursor::new(letter.content))?;
    Ok(results.into_iter().next())
}
