//! A login as the client sees it: a response to each challenge, until the server says 235.

use std::fmt;

use super::{Mechanism, Nonce};

/// Who logs in, and where.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The name.
    pub user: &'a str,
    /// The password, or the token of OAUTHBEARER and XOAUTH2.
    pub secret: &'a str,
    /// The server's name as configured: OAUTHBEARER tells it (RFC 7628 §3.1).
    pub host: &'a str,
    /// Its port, the same.
    pub port: u16,
}

/// Tells no secret.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?} at {}:{})", self.user, self.host, self.port)
    }
}

/// Why a login cannot go on. The words of `Display` say whose fault it is and tell no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// The name cannot be sent: empty, too long, or with characters that are not allowed.
    User,
    /// The password or token cannot be sent, for the same reasons.
    Secret,
    /// The server's challenge is not as the mechanism says; what is wrong with it.
    Challenge(&'static str),
    /// The server wants fewer or more iterations than are safe for us.
    Iterations(u32),
    /// The server's signature is wrong or missing: it does not know the password, so it is
    /// not the server that we want.
    Impostor,
    /// The server refused the exchange in the words of the mechanism (SCRAM's `e=`).
    Refused(String),
    /// OpenSSL cannot compute it.
    Unavailable,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for ClientError {}

/// The best mechanism that the server offers and that may be used.
pub fn choose(offered: &[Mechanism], allowed: &[Mechanism]) -> Option<Mechanism> {
    let may = |mechanism: &Mechanism| offered.contains(mechanism) && allowed.contains(mechanism);
    Mechanism::OF_CLIENTS.into_iter().find(may)
}

/// A login that is under way.
pub struct ClientExchange;

impl ClientExchange {
    /// Begins a login. `nonce` is a new one for each.
    ///
    /// # Errors
    /// [`ClientError::User`] and [`ClientError::Secret`]: nothing was sent yet.
    pub fn new(
        mechanism: Mechanism,
        credentials: &Credentials<'_>,
        nonce: &Nonce,
    ) -> Result<Self, ClientError> {
        let _ = (mechanism, credentials, nonce);
        Err(ClientError::Unavailable)
    }

    /// What goes into the line of AUTH behind the name of the mechanism, before base64: the
    /// initial response where the mechanism has one and the line stays within 512 octets
    /// (RFC 4954 §4). An empty one is sent as `=`. Ask once, before anything else; where it is
    /// `None`, [`ClientExchange::respond`] gives the same octets to the first challenge.
    pub fn initial_response(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// The response to a 334, both without base64.
    ///
    /// # Errors
    /// Say `*` to the server and give it up.
    pub fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, ClientError> {
        let _ = challenge;
        Err(ClientError::Unavailable)
    }

    /// Whether a 235 can be believed now.
    ///
    /// # Errors
    /// [`ClientError::Impostor`]: SCRAM's server has to prove that it knows the password.
    pub fn accept(&self) -> Result<(), ClientError> {
        Err(ClientError::Unavailable)
    }

    /// What the server said about a token that it does not take (RFC 7628 §3.2.2): printable
    /// ASCII, 500 octets at most, for the log. Empty where it said nothing.
    pub fn token_error(&self) -> &str {
        ""
    }
}

/// Tells no secret.
impl fmt::Debug for ClientExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientExchange")
    }
}
