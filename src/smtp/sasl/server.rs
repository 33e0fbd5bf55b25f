//! A login as the server sees it: a challenge for each response, until it is clear who the
//! client is, or that it will not be known.

use std::sync::Arc;

use super::keys::{CramMd5Keys, ScramHash, ScramKeys};
use super::{Mechanism, Nonce};

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
    /// Name or password is wrong, or the client may not be whom it wants to be: 535 5.7.8,
    /// counted against the client.
    Credentials,
    /// A response that is not as the mechanism says: 501 5.5.2.
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
pub struct Exchange;

impl Exchange {
    /// Begins a login.
    pub fn begin(start: Start<'_>, accounts: &dyn Accounts) -> Progress {
        let _ = (start, accounts);
        Progress::Refused { refusal: Refusal::NotOffered, user: None }
    }

    /// Goes on with the response to the last challenge.
    pub fn respond(self, response: &[u8], accounts: &dyn Accounts) -> Progress {
        let _ = (response, accounts);
        Progress::Refused { refusal: Refusal::NotOffered, user: None }
    }
}
