//! How a session with one host comes about: the connection, its encryption, and another
//! connection where that fails.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Relay;
use super::trouble::{Trouble, unreachable};
use crate::config::settings::HostPort;
use crate::deliver::connections::Connection;
use crate::deliver::conversation::{ConnectionError, SmtpConnection, Timeouts};
use crate::deliver::login::Account;
use crate::deliver::outcome::Failure;
use crate::deliver::tls::{Protection, Security};
use crate::mail::address::{Domain, DomainName};
use crate::mail::status::Status;
use crate::route::next_hop::NextHop;
use crate::sys::clock;

/// How long a connection may take to be made, for each address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long each step may take that leads to a look at a certificate that was refused.
const LOOK_TIME: Duration = Duration::from_secs(15);

impl Relay {
    pub(super) fn connect_as(
        &self,
        next_hop: &NextHop,
        host: &HostPort,
        address: SocketAddr,
        account: Option<Account>,
    ) -> Result<Connection, Trouble> {
        let remote = remote_name(&host.host, address);
        let security = self.encryption.security(next_hop, &host.host, &remote);
        let security = security.map_err(|error| Trouble {
            failure: Failure::new(Status::new(4, 3, 5), error.to_string()),
            is_of_host: false,
            is_in_login: false,
        })?;
        let opened = match self.open(address, security, self.timeouts, account.clone()) {
            Err(Unopened::Session(error))
                if self.encryption.gives_way(next_hop, &error.cause, &remote) =>
            {
                log::info!("{remote} {}: it gets mail without TLS for now", error.cause);
                self.open(address, Security::None, self.timeouts, account)
            }
            Err(Unopened::Session(error)) => {
                Err(Unopened::Session(self.with_certificate(next_hop, host, address, error)))
            }
            opened => opened,
        };
        match opened {
            Ok(session) => {
                log_opened(&session, &remote);
                Ok(Connection { session, remote, messages: 0 })
            }
            Err(Unopened::Unreachable(error)) => {
                let failure = unreachable(&remote, &error);
                Err(Trouble { failure, is_of_host: true, is_in_login: false })
            }
            Err(Unopened::Session(error)) => {
                if let Some(trouble) = self.login_trouble(next_hop, host, &remote, &error) {
                    return Err(trouble);
                }
                let is_wrong = clock::is_plainly_wrong();
                Err(Trouble::at_opening(&remote, &error, next_hop, is_wrong))
            }
        }
    }

    pub(super) fn open(
        &self,
        address: SocketAddr,
        security: Security,
        timeouts: Timeouts,
        account: Option<Account>,
    ) -> Result<SmtpConnection<TcpStream>, Unopened> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT.min(timeouts.greeting))
            .map_err(Unopened::Unreachable)?;
        // Each write is a whole group of commands or a block; waiting to fill a segment would
        // only add a round trip.
        stream.set_nodelay(true).map_err(Unopened::Unreachable)?;
        SmtpConnection::open_as(stream, &self.hostname, timeouts, security, account)
            .map_err(Unopened::Session)
    }

    /// The same error, with the certificate where one was refused and nobody knows what it was:
    /// a connection of its own has a look, in which nothing is said but what leads to it.
    pub(super) fn with_certificate(
        &self,
        next_hop: &NextHop,
        host: &HostPort,
        address: SocketAddr,
        error: ConnectionError,
    ) -> ConnectionError {
        let Some(look) = self.encryption.look(next_hop, &host.host, &error.cause) else {
            return error;
        };
        match self.open(address, look, self.timeouts.at_most(LOOK_TIME), None) {
            Err(Unopened::Session(seen)) if seen.is_about_certificate() => seen,
            _ => error,
        }
    }
}

/// Says how the session is protected.
fn log_opened(session: &SmtpConnection<TcpStream>, remote: &str) {
    let how = match session.protection() {
        Protection::None => return log::debug!("connected to {remote} in the clear"),
        Protection::Encrypted => "its certificate not looked at",
        Protection::Checked => "its certificate checked",
    };
    match session.hello() {
        Some(hello) => log::debug!("connected to {remote} with {hello}, {how}"),
        None => log::debug!("connected to {remote} with TLS, {how}"),
    }
}

/// Why there is no session.
pub(super) enum Unopened {
    /// No connection was made.
    Unreachable(std::io::Error),
    /// It broke off before it was open.
    Session(ConnectionError),
}

/// `name[address]:port`, or `[address]:port` where no name was looked up.
pub(super) fn remote_name(host: &Domain, address: SocketAddr) -> String {
    let name = host.name().map(DomainName::as_str).unwrap_or_default();
    format!("{name}[{}]:{}", address.ip(), address.port())
}
