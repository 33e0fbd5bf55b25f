//! Who logs in over one connection to a smarthost.

use std::fmt;
use std::sync::Arc;

use crate::config::settings::{HostPort, Login};
use crate::smtp::client::LoginError;
use crate::smtp::sasl::client::{ClientError, ClientExchange, Credentials};
use crate::smtp::sasl::{Mechanism, Nonce};
use crate::sys::random;

/// A password or a token. `Debug` does not tell it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What stands in the first line of what a file or a command has.
    ///
    /// # Errors
    /// Why it is none: a predicate.
    pub fn in_first_line(octets: &[u8]) -> Result<Self, &'static str> {
        let line = octets.split(|&octet| octet == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match str::from_utf8(line) {
            Ok("") => Err("has nothing in its first line"),
            Ok(text) => Ok(Self(text.to_owned())),
            Err(_) => Err("has a first line that is no UTF-8"),
        }
    }
}

impl Secret {
    /// Whether something invisible stands at an end of it, as editors and tools leave it there.
    pub fn is_odd(&self) -> bool {
        let is_invisible = |c: char| c.is_whitespace() || c.is_control() || c == '\u{feff}';
        self.0.starts_with(is_invisible) || self.0.ends_with(is_invisible)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// An account of ours at the host that a connection is to.
#[derive(Clone, Debug)]
pub struct Account {
    login: Login,
    secret: Arc<Secret>,
    host: String,
    port: u16,
}

impl Account {
    /// The account of `login` at `host`, with the secret that is good now.
    pub fn new(login: &Login, secret: Arc<Secret>, host: &HostPort) -> Self {
        Self { login: login.clone(), secret, host: host.host.to_string(), port: host.port }
    }

    /// The mechanisms that may be used.
    pub fn mechanisms(&self) -> &[Mechanism] {
        &self.login.mechanisms
    }

    /// Begins a login. None goes over a connection in the clear, not even by a mechanism that
    /// does not tell the password: what it tells is enough to guess a weak one.
    ///
    /// # Errors
    /// [`LoginError::InTheClear`], and [`LoginError::Impossible`] where the mechanism cannot say
    /// the name or the secret.
    pub fn exchange(
        &self,
        mechanism: Mechanism,
        is_encrypted: bool,
    ) -> Result<ClientExchange, LoginError> {
        if !is_encrypted && !self.login.without_tls {
            return Err(LoginError::InTheClear);
        }
        let random = random::octets().map_err(|error| {
            log::error!("no login without random numbers: {error}");
            LoginError::Impossible(ClientError::Unavailable)
        })?;
        let credentials = Credentials {
            user: &self.login.user,
            secret: &self.secret.0,
            host: &self.host,
            port: self.port,
        };
        ClientExchange::new(mechanism, &credentials, &Nonce::new(&random))
            .map_err(LoginError::Impossible)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_the_first_line() {
        for (octets, expected) in [
            (&b"one"[..], Ok("one")),
            (b"one\ntwo\n", Ok("one")),
            (b" one \r\n", Ok(" one ")),
            (b"", Err("has nothing in its first line")),
            (b"\none", Err("has nothing in its first line")),
            (b"\xff\n", Err("has a first line that is no UTF-8")),
        ] {
            assert_eq!(Secret::in_first_line(octets), expected.map(Secret::from));
        }
    }

    #[test]
    fn nothing_tells_a_secret() {
        let secret = Secret::from("sesame");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
