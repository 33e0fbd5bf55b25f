//! A login as the client sees it: a response to each challenge, until the server says 235.

use std::fmt;

use openssl::error::ErrorStack;

use super::keys::{CramMd5Keys, ITERATIONS, ScramHash, hex};
use super::prepare::prepared;
use super::scram::{self, ClientFinal, Malformed, Secrets, ServerFinal, ServerFirst};
use super::{MAX_SECRET, MAX_TOKEN, Mechanism, Nonce};

/// The longest line of AUTH, in octets, with its CRLF (RFC 5321 §4.5.3.1.4).
const MAX_LINE: usize = 512;

/// How much of what a server says is kept, in octets.
const MAX_WORDS: usize = 500;

/// The longest salt that a server may have, in octets.
const MAX_SALT: usize = 1024;

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
        match self {
            Self::User => f.write_str(
                "the user name cannot be sent: it is empty, too long or has control characters; \
                 mend `user`",
            ),
            Self::Secret => f.write_str(
                "the password or token cannot be sent: it is empty, too long or has characters \
                 that the mechanism forbids; mend it, or try another of `mechanisms`",
            ),
            Self::Challenge(what) => write!(
                f,
                "the server does not keep to the mechanism: {what}; try another of `mechanisms`"
            ),
            Self::Iterations(number) => write!(
                f,
                "the server wants the password hashed {number} times, and {} to {} are done here; \
                 leave SCRAM out of `mechanisms` if that is right",
                ITERATIONS.start(),
                ITERATIONS.end()
            ),
            Self::Impostor => f.write_str(
                "the server did not prove that it knows the password, so it may be another one \
                 than it says; nothing is sent to it",
            ),
            Self::Refused(words) => write!(f, "the server refused the login: {words}"),
            Self::Unavailable => f.write_str("OpenSSL cannot compute what the mechanism wants"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<Malformed> for ClientError {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Challenge(what)
    }
}

impl From<ErrorStack> for ClientError {
    fn from(_: ErrorStack) -> Self {
        Self::Unavailable
    }
}

/// The best mechanism that the server offers and that may be used.
pub fn choose(offered: &[Mechanism], allowed: &[Mechanism]) -> Option<Mechanism> {
    let may = |mechanism: &Mechanism| offered.contains(mechanism) && allowed.contains(mechanism);
    Mechanism::OF_CLIENTS.into_iter().find(may)
}

/// A login that is under way.
pub struct ClientExchange {
    mechanism: Mechanism,
    /// The response that needs no challenge, until it was sent.
    first: Option<Vec<u8>>,
    next: Next,
    token_error: String,
}

/// What the next challenge is, behind the first response where the client begins.
enum Next {
    /// There is none.
    Nothing,
    LoginName {
        user: String,
        password: String,
    },
    LoginPassword {
        password: String,
    },
    CramMd5 {
        user: String,
        keys: CramMd5Keys,
    },
    /// What is wrong with the token, and the response to that.
    TokenError(&'static [u8]),
    ScramFirst(Box<ScramState>),
    /// Has to bear this signature.
    ScramFinal(Vec<u8>),
    /// The server has proved itself.
    ScramEnd,
}

struct ScramState {
    hash: ScramHash,
    /// Prepared.
    password: String,
    nonce: String,
    client_first: String,
}

/// Neither binds the connection nor wants to be somebody else (RFC 5802 §7).
const GS2_HEADER: &str = "n,,";

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
        let prepared_user = prepared(credentials.user.as_bytes()).map_err(|_| ClientError::User)?;
        let user = credentials.user.to_owned();
        let secret = secret(mechanism, credentials.secret)?;
        let (first, next) = match mechanism {
            Mechanism::External => (Some(String::new()), Next::Nothing),
            Mechanism::Plain => (Some(format!("\0{user}\0{secret}")), Next::Nothing),
            Mechanism::Login => (None, Next::LoginName { user, password: secret }),
            Mechanism::CramMd5 => {
                let keys = CramMd5Keys::from_password(secret.as_bytes());
                let keys = keys.map_err(|_| ClientError::Secret)?;
                (None, Next::CramMd5 { user, keys })
            }
            Mechanism::ScramSha256 => scram(ScramHash::Sha256, &prepared_user, secret, nonce),
            Mechanism::ScramSha1 => scram(ScramHash::Sha1, &prepared_user, secret, nonce),
            Mechanism::Xoauth2 => {
                let first = format!("user={user}\x01auth=Bearer {secret}\x01\x01");
                (Some(first), Next::TokenError(b""))
            }
            Mechanism::OauthBearer => {
                let (user, Credentials { host, port, .. }) = (scram::saslname(&user), credentials);
                let first = format!(
                    "n,a={user},\x01host={host}\x01port={port}\x01auth=Bearer {secret}\x01\x01"
                );
                (Some(first), Next::TokenError(b"\x01"))
            }
        };
        let first = first.map(String::into_bytes);
        Ok(Self { mechanism, first, next, token_error: String::new() })
    }

    /// What goes into the line of AUTH behind the name of the mechanism, before base64: the
    /// initial response where the mechanism has one and the line stays within 512 octets
    /// (RFC 4954 §4). An empty one is sent as `=`. Ask once, before anything else; where it is
    /// `None`, [`ClientExchange::respond`] gives the same octets to the first challenge.
    pub fn initial_response(&mut self) -> Option<Vec<u8>> {
        let name = self.mechanism.name();
        self.first.take_if(|first| {
            let base64 = first.len().div_ceil(3).max(1) * 4;
            "AUTH  \r\n".len() + name.len() + base64 <= MAX_LINE
        })
    }

    /// The response to a 334, both without base64.
    ///
    /// # Errors
    /// Say `*` to the server and give it up.
    pub fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, ClientError> {
        // It should be empty, and says in any case that we may begin.
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::LoginName { user, password } => {
                self.next = Next::LoginPassword { password };
                Ok(user.into_bytes())
            }
            Next::LoginPassword { password } => Ok(password.into_bytes()),
            Next::CramMd5 { user, keys } => {
                Ok(format!("{user} {}", hex(&keys.mac(challenge))).into_bytes())
            }
            Next::TokenError(response) => {
                self.token_error = words(challenge);
                Ok(response.to_vec())
            }
            Next::ScramFirst(state) => {
                let (response, signature) = scram_final(*state, challenge)?;
                self.next = Next::ScramFinal(signature);
                Ok(response)
            }
            Next::ScramFinal(signature) => match ServerFinal::parse(challenge)? {
                ServerFinal::Error(error) => Err(ClientError::Refused(words(error.as_bytes()))),
                ServerFinal::Verifier(theirs) if scram::equal(&theirs, &signature) => {
                    self.next = Next::ScramEnd;
                    Ok(Vec::new())
                }
                ServerFinal::Verifier(_) => Err(ClientError::Impostor),
            },
            Next::ScramEnd | Next::Nothing => {
                Err(ClientError::Challenge("it wants more than the mechanism has"))
            }
        }
    }

    /// Whether a 235 can be believed now.
    ///
    /// # Errors
    /// [`ClientError::Impostor`]: SCRAM's server has to prove that it knows the password.
    pub fn accept(&self) -> Result<(), ClientError> {
        match self.mechanism {
            Mechanism::ScramSha256 | Mechanism::ScramSha1
                if !matches!(self.next, Next::ScramEnd) =>
            {
                Err(ClientError::Impostor)
            }
            _ => Ok(()),
        }
    }

    /// What the server said about a token that it does not take (RFC 7628 §3.2.2): printable
    /// ASCII, 500 octets at most, for the log. Empty where it said nothing.
    pub fn token_error(&self) -> &str {
        &self.token_error
    }
}

/// Tells no secret.
impl fmt::Debug for ClientExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientExchange({})", self.mechanism)
    }
}

/// The password in the form that the mechanism wants. A server that is told it prepares it
/// as it likes; one that is not told it has done so (RFC 5802 §2.2).
fn secret(mechanism: Mechanism, secret: &str) -> Result<String, ClientError> {
    let is_good = match mechanism {
        Mechanism::External => return Ok(String::new()),
        Mechanism::ScramSha256 | Mechanism::ScramSha1 => {
            return prepared(secret.as_bytes()).map_err(|_| ClientError::Secret);
        }
        // RFC 6750 §2.1.
        Mechanism::Xoauth2 | Mechanism::OauthBearer => {
            secret.len() <= MAX_TOKEN && secret.bytes().all(|octet| octet.is_ascii_graphic())
        }
        Mechanism::Plain | Mechanism::Login | Mechanism::CramMd5 => {
            secret.len() <= MAX_SECRET && !secret.contains('\0')
        }
    };
    if is_good && !secret.is_empty() { Ok(secret.to_owned()) } else { Err(ClientError::Secret) }
}

fn scram(hash: ScramHash, user: &str, password: String, nonce: &Nonce) -> (Option<String>, Next) {
    let nonce = nonce.0.clone();
    let client_first = format!("n={},r={nonce}", scram::saslname(user));
    let first = format!("{GS2_HEADER}{client_first}");
    (Some(first), Next::ScramFirst(Box::new(ScramState { hash, password, nonce, client_first })))
}

/// The last message, and the signature that the server has to give for it.
fn scram_final(state: ScramState, challenge: &[u8]) -> Result<(Vec<u8>, Vec<u8>), ClientError> {
    let ScramState { hash, password, nonce, client_first } = state;
    let (ServerFirst { nonce: theirs, salt, iterations }, server_first) =
        ServerFirst::parse(challenge)?;
    if !theirs.starts_with(&nonce) || theirs == nonce {
        return Err(ClientError::Challenge("its nonce does not go on from ours"));
    }
    if !(1..=MAX_SALT).contains(&salt.len()) {
        return Err(ClientError::Challenge("its salt has not 1 to 1024 octets"));
    }
    if !ITERATIONS.contains(&iterations) {
        return Err(ClientError::Iterations(iterations));
    }
    let secrets: Secrets = scram::secrets(hash, &password, &salt, iterations)?;
    let without_proof = ClientFinal::without_proof(GS2_HEADER, theirs);
    let auth_message = scram::auth_message(&client_first, server_first, &without_proof);
    let (proof, signature) = secrets.sign(hash, &auth_message)?;
    Ok((ClientFinal::write(&without_proof, &proof).into_bytes(), signature))
}

/// What a server says, fit for a log.
fn words(octets: &[u8]) -> String {
    let printable = |octet: &u8| match octet {
        b' '..=b'~' => char::from(*octet),
        _ => '?',
    };
    octets.iter().take(MAX_WORDS).map(printable).collect()
}
