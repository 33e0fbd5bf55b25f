//! A login as the server sees it: a challenge for each response, until it is clear who the
//! client is, or that it will not be known.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::keys::{CramMd5Keys, ScramHash, ScramKeys, from_hex};
use super::prepare::{Forbidden, prepared};
use super::scram::{self, ClientFinal, ClientFirst, ServerFirst};
use super::{Mechanism, Nonce};

/// What LOGIN asks for, in the words that old clients wait for.
const LOGIN_NAME: &str = "Username:";
const LOGIN_PASSWORD: &str = "Password:";

/// The accounts cannot be looked up now: a file that cannot be read, a service that is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// What is kept of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account<K> {
    /// Its own name, which may differ from what the client wrote (in case, say).
    pub name: Arc<str>,
    /// What its password is checked with.
    pub keys: K,
}

/// Who may log in. Names and passwords come prepared by SASLprep (RFC 4013), UTF-8, 1 to
/// [`super::MAX_SECRET`] octets, without NUL.
pub trait Accounts {
    /// The own name of the account with this name and password; `None` where either is wrong,
    /// and that takes as long for an unknown name as for a wrong password.
    ///
    /// # Errors
    /// Nobody can tell now.
    fn check_password(&self, user: &str, password: &[u8]) -> Result<Option<Arc<str>>, Unavailable>;

    /// The keys of an account for SCRAM. For a name that is not known, or an account without
    /// such keys, those of [`ScramKeys::made_up`].
    ///
    /// # Errors
    /// Nobody can tell now.
    fn scram_keys(&self, user: &str, hash: ScramHash) -> Result<Account<ScramKeys>, Unavailable>;

    /// The keys of an account for CRAM-MD5; `None` where the name is not known or the account
    /// has none.
    ///
    /// # Errors
    /// Nobody can tell now.
    fn cram_md5_keys(&self, user: &str) -> Result<Option<Account<CramMd5Keys>>, Unavailable>;
}

/// Why a login came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Name or password is wrong or can be nobody's (RFC 4954 §4), or the client may not be
    /// whom it wants to be: 535 5.7.8, counted against the client.
    Credentials,
    /// A response without the parts that the mechanism wants: 501 5.5.2.
    Malformed,
    /// The mechanism begins with the server, and there was an initial response: 501 5.7.0
    /// (RFC 4954 §4).
    ServerFirst,
    /// The mechanism is one for clients only: 504 5.5.4.
    NotOffered,
    /// Nobody can tell now: 454 4.7.0.
    Unavailable,
}

/// What comes of a response.
#[derive(Debug)]
pub enum Progress {
    /// Send these octets, and go on with the client's response to them.
    Challenge(Vec<u8>, Exchange),
    /// It is the account of this name.
    Accepted(Arc<str>),
    /// It came to nothing.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The name that the client gave, for the log, which has to escape it.
        user: Option<String>,
    },
}

/// How a login begins.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// How the client wants to log in.
    pub mechanism: Mechanism,
    /// Its initial response, if there was one.
    pub initial: Option<&'a [u8]>,
    /// A new one for each login.
    pub nonce: &'a Nonce,
    /// Our name, for the challenge of CRAM-MD5.
    pub hostname: &'a str,
    /// Who the client is, where that is known from outside: for EXTERNAL.
    pub external: Option<&'a Arc<str>>,
}

/// A login that is under way and waits for a response.
#[derive(Debug)]
pub struct Exchange(Awaits);

/// What the next response has to be.
#[derive(Debug)]
enum Awaits {
    /// PLAIN's only one.
    Plain,
    /// EXTERNAL's only one, from whom we know already.
    External(Option<Arc<str>>),
    /// LOGIN's name.
    LoginName,
    /// LOGIN's password.
    LoginPassword {
        user: String,
    },
    /// The keyed digest of our challenge.
    CramMd5 {
        challenge: String,
    },
    ScramFirst(ScramHash, Nonce),
    ScramFinal(Box<ScramState>),
    /// The empty one that takes note of our signature.
    ScramEnd(Arc<str>),
}

/// What was said and is to be signed.
#[derive(Debug)]
struct ScramState {
    account: Account<ScramKeys>,
    user: String,
    gs2_header: String,
    client_first: String,
    server_first: String,
    /// The client's and ours.
    nonce: String,
}

/// Why, and whose login it would have been.
type Refused = (Refusal, Option<String>);

impl Exchange {
    /// Begins a login.
    pub fn begin(start: Start<'_>, accounts: &dyn Accounts) -> Progress {
        let Start { mechanism, initial, nonce, hostname, external } = start;
        let (challenge, awaits) = match mechanism {
            Mechanism::Plain => (String::new(), Awaits::Plain),
            Mechanism::External => (String::new(), Awaits::External(external.cloned())),
            Mechanism::ScramSha256 => {
                (String::new(), Awaits::ScramFirst(ScramHash::Sha256, nonce.clone()))
            }
            Mechanism::ScramSha1 => {
                (String::new(), Awaits::ScramFirst(ScramHash::Sha1, nonce.clone()))
            }
            Mechanism::Login => (LOGIN_NAME.to_owned(), Awaits::LoginName),
            Mechanism::CramMd5 if initial.is_some() => {
                return Progress::Refused { refusal: Refusal::ServerFirst, user: None };
            }
            Mechanism::CramMd5 => {
                let challenge = format!("<{}@{hostname}>", nonce.0);
                (challenge.clone(), Awaits::CramMd5 { challenge })
            }
            Mechanism::OauthBearer | Mechanism::Xoauth2 => {
                return Progress::Refused { refusal: Refusal::NotOffered, user: None };
            }
        };
        match initial {
            Some(initial) => Self(awaits).respond(initial, accounts),
            None => Progress::Challenge(challenge.into_bytes(), Self(awaits)),
        }
    }

    /// Goes on with the response to the last challenge.
    pub fn respond(self, response: &[u8], accounts: &dyn Accounts) -> Progress {
        let progress = match self.0 {
            Awaits::Plain => plain(response, accounts),
            Awaits::External(known) => external(response, known),
            Awaits::LoginName => login_name(response),
            Awaits::LoginPassword { user } => login(user, response, accounts),
            Awaits::CramMd5 { challenge } => cram_md5(&challenge, response, accounts),
            Awaits::ScramFirst(hash, nonce) => scram_first(hash, &nonce, response, accounts),
            Awaits::ScramFinal(state) => scram_final(*state, response),
            Awaits::ScramEnd(name) if response.is_empty() => Ok(Progress::Accepted(name)),
            Awaits::ScramEnd(name) => Err((Refusal::Malformed, Some(name.to_string()))),
        };
        progress.unwrap_or_else(|(refusal, user)| Progress::Refused { refusal, user })
    }
}

/// RFC 4616 §2.
fn plain(message: &[u8], accounts: &dyn Accounts) -> Result<Progress, Refused> {
    let parts: Vec<_> = message.splitn(4, |octet| *octet == 0).collect();
    let [authorization, user, password] = parts[..] else {
        return Err((Refusal::Malformed, None));
    };
    let user = name(user)?;
    if !authorization.is_empty() && name(authorization)? != user {
        return Err((Refusal::Credentials, Some(user)));
    }
    login(user, password, accounts)
}

fn login_name(response: &[u8]) -> Result<Progress, Refused> {
    let user = name(response)?;
    Ok(Progress::Challenge(
        LOGIN_PASSWORD.as_bytes().to_vec(),
        Exchange(Awaits::LoginPassword { user }),
    ))
}

fn login(user: String, password: &[u8], accounts: &dyn Accounts) -> Result<Progress, Refused> {
    let checked = match prepared(password) {
        Ok(password) => accounts.check_password(&user, password.as_bytes()),
        Err(Forbidden) => Ok(None),
    };
    match checked {
        Ok(Some(name)) => Ok(Progress::Accepted(name)),
        Ok(None) => Err((Refusal::Credentials, Some(user))),
        Err(Unavailable) => Err((Refusal::Unavailable, Some(user))),
    }
}

/// RFC 4422 appendix A: an empty response means whom we know already.
fn external(response: &[u8], known: Option<Arc<str>>) -> Result<Progress, Refused> {
    let wanted = if response.is_empty() { None } else { Some(name(response)?) };
    match (known, wanted) {
        (Some(known), None) => Ok(Progress::Accepted(known)),
        (Some(known), Some(wanted)) if *known == *wanted => Ok(Progress::Accepted(known)),
        (_, wanted) => Err((Refusal::Credentials, wanted)),
    }
}

/// RFC 2195 §2: the name, a blank, and the digest in hexadecimal.
fn cram_md5(
    challenge: &str,
    response: &[u8],
    accounts: &dyn Accounts,
) -> Result<Progress, Refused> {
    let response = std::str::from_utf8(response).map_err(|_| (Refusal::Malformed, None))?;
    let (user, digest) = response.rsplit_once(' ').ok_or((Refusal::Malformed, None))?;
    let user = name(user.as_bytes())?;
    let Some(digest) = from_hex(digest) else {
        return Err((Refusal::Malformed, Some(user)));
    };
    let account = match accounts.cram_md5_keys(&user) {
        Ok(account) => account,
        Err(Unavailable) => return Err((Refusal::Unavailable, Some(user))),
    };
    // The same is computed where there is no account.
    let (name, keys) = match account {
        Some(Account { name, keys }) => (Some(name), keys),
        None => (None, CramMd5Keys::made_up()),
    };
    let is_right = scram::equal(&keys.mac(challenge.as_bytes()), &digest);
    match name {
        Some(name) if is_right => Ok(Progress::Accepted(name)),
        _ => Err((Refusal::Credentials, Some(user))),
    }
}

fn scram_first(
    hash: ScramHash,
    nonce: &Nonce,
    message: &[u8],
    accounts: &dyn Accounts,
) -> Result<Progress, Refused> {
    let first = ClientFirst::parse(message).map_err(|_| (Refusal::Malformed, None))?;
    let user = name(first.user.as_bytes())?;
    if let Some(wanted) = first.authorization
        && name(wanted.as_bytes())? != user
    {
        return Err((Refusal::Credentials, Some(user)));
    }
    let account = match accounts.scram_keys(&user, hash) {
        Ok(account) if account.keys.hash == hash => account,
        Ok(_) | Err(Unavailable) => return Err((Refusal::Unavailable, Some(user))),
    };
    let nonce = format!("{}{}", first.nonce, nonce.0);
    let server_first = ServerFirst::write(&nonce, &account.keys);
    let challenge = server_first.clone().into_bytes();
    let (gs2_header, client_first) = (first.gs2_header.to_owned(), first.bare.to_owned());
    let state = ScramState { account, user, gs2_header, client_first, server_first, nonce };
    Ok(Progress::Challenge(challenge, Exchange(Awaits::ScramFinal(Box::new(state)))))
}

fn scram_final(state: ScramState, message: &[u8]) -> Result<Progress, Refused> {
    let ScramState { account, user, gs2_header, client_first, server_first, nonce } = state;
    let Ok(last) = ClientFinal::parse(message) else {
        return Err((Refusal::Malformed, Some(user)));
    };
    // RFC 5802 §5.1, `r` and `c`.
    if last.nonce != nonce || last.gs2_header != gs2_header.as_bytes() {
        return Err((Refusal::Credentials, Some(user)));
    }
    let auth_message = scram::auth_message(&client_first, &server_first, last.without_proof);
    match account.keys.check(&auth_message, &last.proof) {
        Ok(Some(signature)) => {
            // SMTP has no room for it in the 235 (RFC 4954 §4).
            let challenge = format!("v={}", STANDARD.encode(signature));
            Ok(Progress::Challenge(
                challenge.into_bytes(),
                Exchange(Awaits::ScramEnd(account.name)),
            ))
        }
        Ok(None) => Err((Refusal::Credentials, Some(user))),
        Err(_) => Err((Refusal::Unavailable, Some(user))),
    }
}

/// A name as it is looked up. One that nobody can have is a wrong one.
fn name(octets: &[u8]) -> Result<String, Refused> {
    prepared(octets).map_err(|Forbidden| (Refusal::Credentials, None))
}
