//! Connections to smarthosts that want a login.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::Relay;
use super::trouble::Trouble;
use crate::config::settings::{HostPort, Smarthost};
use crate::deliver::connections::Connection;
use crate::deliver::conversation::{Cause, ConnectionError};
use crate::deliver::login::{Account, Secret};
use crate::deliver::logins::LoginState;
use crate::deliver::outcome::{Failure, Fault, RemoteReply};
use crate::deliver::remedy::remedy;
use crate::mail::status::Status;
use crate::route::next_hop::NextHop;
use crate::smtp::client::{Ending, LoginError};
use crate::smtp::reply_parser::PeerReply;
use crate::smtp::sasl::client::ClientError;
use crate::spool::manager::Order;

impl Relay {
    /// A session with the host at that address, logged in where `next_hop` has an account.
    pub(super) fn connect(
        &self,
        next_hop: &NextHop,
        host: &HostPort,
        address: SocketAddr,
    ) -> Result<Connection, Trouble> {
        let NextHop::Smarthost(smarthost) = next_hop else {
            return self.connect_as(next_hop, host, address, None);
        };
        let Some(state) = self.logins.of(smarthost) else {
            return self.connect_as(next_hop, host, address, None);
        };
        let try_with = |secret: &Arc<Secret>| {
            let account = Account::new(state.login(), Arc::clone(secret), host);
            self.connect_as(next_hop, host, address, Some(account))
        };
        let mut secret = state.secret(Instant::now()).map_err(Trouble::of_login)?;
        let mut began = Instant::now();
        let mut opened = try_with(&secret);
        if opened.as_ref().is_err_and(Trouble::is_refused_login)
            && let Some(another) = state.renewed(&secret, began)
        {
            log::debug!("[{}] the secret was refused; trying a new one", smarthost.section);
            (secret, began) = (another, Instant::now());
            opened = try_with(&secret);
        }
        match opened {
            Ok(connection) => {
                state.accepted();
                Ok(connection)
            }
            Err(trouble) if trouble.is_refused_login() => {
                let failure = state.refused(&secret, [began, Instant::now()], trouble.failure);
                Err(Trouble::of_login(failure))
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// An error where a login came to nothing a moment ago, however many are in a hurry.
    pub(super) fn check_login(&self, next_hop: &NextHop) -> Result<(), Failure> {
        match self.login_of(next_hop) {
            Some(state) => state.check_pause(Instant::now()),
            None => Ok(()),
        }
    }

    /// Notes that no host gave an answer to a login that counts.
    pub(super) fn note_vain_login(&self, next_hop: &NextHop, failure: &Failure) {
        if let Some(state) = self.login_of(next_hop) {
            state.in_vain(Instant::now(), failure);
        }
    }

    fn login_of(&self, next_hop: &NextHop) -> Option<Arc<LoginState>> {
        match next_hop {
            NextHop::Smarthost(smarthost) => self.logins.of(smarthost),
            NextHop::Mx(_) | NextHop::Local | NextHop::Command => None,
        }
    }

    /// Tells the queue manager when a password that was refused has changed; whether there is
    /// one that may yet.
    pub(super) fn look_for_passwords(&self) -> bool {
        if self.logins.have_changed()
            && let Some(orders) = &self.orders
        {
            // If nobody takes orders any more, nobody needs this one.
            let _ = orders.send(Order::RetryForLogin);
        }
        self.logins.await_change()
    }

    /// What it means that a session ended because of the login, if it did.
    pub(super) fn login_trouble(
        &self,
        next_hop: &NextHop,
        host: &HostPort,
        remote: &str,
        error: &ConnectionError,
    ) -> Option<Trouble> {
        let is_in_login = error.is_in_login;
        let (NextHop::Smarthost(smarthost), Cause::Ended(Ending::Login(error))) =
            (next_hop, &error.cause)
        else {
            return None;
        };
        let login = smarthost.login.as_ref()?;
        let remedy = remedy(error, &host.host.to_string(), &smarthost.section, login);
        let text = format!("{remote} {error}; {remedy}");
        let failure = Failure::new(status_of(error), text).with_fault(Fault::Destination);
        Some(match error {
            LoginError::Refused { reply, .. } => {
                let remote = RemoteReply { host: remote.to_owned(), reply: reply.to_string() };
                let fault = Fault::Login(std::time::Duration::ZERO);
                Trouble::of_login(Failure { remote: Some(remote), fault, ..failure })
            }
            LoginError::NotNow(_) => Trouble { failure, is_of_host: true, is_in_login },
            _ => {
                self.tell(smarthost, &failure);
                Trouble { failure, is_of_host: true, is_in_login }
            }
        })
    }

    fn tell(&self, smarthost: &Smarthost, failure: &Failure) {
        if let Some(state) = self.logins.of(smarthost) {
            state.tell(Instant::now(), failure.status.to_string(), &failure.text);
        }
    }
}

impl Trouble {
    /// Trouble with a login. Another host of the provider would say the same, and count it.
    const fn of_login(failure: Failure) -> Self {
        Self { failure, is_of_host: false, is_in_login: false }
    }

    const fn is_refused_login(&self) -> bool {
        matches!(self.failure.fault, Fault::Login(_))
    }
}

/// Always temporary, since a person can mend it: RFC 4954 §6 has 5.7.8 and others for what is
/// 4.7.8 here.
fn status_of(error: &LoginError) -> Status {
    match error {
        LoginError::NotNow(reply) if reply.status().is_temporary() => reply.status(),
        LoginError::NotNow(_) => Status::new(4, 7, 0),
        LoginError::Refused { reply, .. } => refusal_status(reply),
        // RFC 3463 §3.8: security features not supported.
        LoginError::NotOffered | LoginError::NoMechanism { .. } => Status::new(4, 7, 4),
        LoginError::InTheClear => Status::new(4, 7, 11),
        LoginError::Impossible(ClientError::User | ClientError::Secret) => Status::new(4, 3, 5),
        LoginError::Impossible(_) => Status::new(4, 7, 5),
        LoginError::NotBase64 | LoginError::Endless => Status::new(4, 5, 0),
    }
}

fn refusal_status(reply: &PeerReply) -> Status {
    match reply.stated_status().map(Status::topic) {
        Some((7, detail)) => Status::new(4, 7, detail),
        _ if reply.code() == 535 => Status::new(4, 7, 8),
        _ => Status::new(4, 7, 0),
    }
}
