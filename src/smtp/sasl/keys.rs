//! What a server keeps instead of a password: enough to check who knows it, and not enough to
//! log in elsewhere as if one did. In text they look as in Dovecot's password files, so that
//! either server can use the other's.

use std::fmt;
use std::str::FromStr;

/// The hash function of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScramHash {
    /// SHA-256 (RFC 7677).
    Sha256,
    /// SHA-1 (RFC 5802).
    Sha1,
}

/// Why a text is no key, or a password gives none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The text is no key of this kind.
    Syntax,
    /// The password is empty, too long, no UTF-8 or has characters that RFC 4013 forbids.
    Password,
    /// The number of iterations or the length of the salt is out of bounds.
    Bounds,
    /// OpenSSL cannot compute it.
    Unavailable,
}

/// What a server keeps for SCRAM (RFC 5802 §3). In text, Dovecot's
/// `{SCRAM-SHA-256}iterations,salt,stored-key,server-key`, the last three in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    hash: ScramHash,
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl ScramKeys {
    /// The keys of a password, with a salt of 1 to 64 octets (16 random ones are usual) and
    /// 4096 iterations or more (RFC 5802 §5.1).
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_password(
        hash: ScramHash,
        password: &[u8],
        salt: &[u8],
        iterations: u32,
    ) -> Result<Self, KeyError> {
        let _ = (hash, password, salt, iterations);
        Err(KeyError::Unavailable)
    }

    /// Keys that no password has, for an account that is not there: a client cannot tell
    /// them from others as long as `salt` is always the same for the same name, and nobody
    /// can compute it. `random` are octets that nobody knows either.
    pub fn made_up(hash: ScramHash, salt: [u8; 16], iterations: u32, random: &[u8; 64]) -> Self {
        let (stored_key, server_key) = random.split_at(32);
        let (salt, stored_key, server_key) = (salt.into(), stored_key.into(), server_key.into());
        Self { hash, iterations, salt, stored_key, server_key }
    }

    /// The hash function that they are for.
    pub const fn hash(&self) -> ScramHash {
        self.hash
    }
}

impl FromStr for ScramKeys {
    type Err = KeyError;

    fn from_str(_: &str) -> Result<Self, KeyError> {
        Err(KeyError::Syntax)
    }
}

impl fmt::Display for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.hash)
    }
}

/// Tells nothing secret.
impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramKeys({:?})", self.hash)
    }
}

/// What a server keeps for CRAM-MD5 (RFC 2195): where HMAC-MD5 stands behind the padded
/// password, outside and inside. In text, Dovecot's `{CRAM-MD5}` and 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct CramMd5Keys {
    outer: [u8; 16],
    inner: [u8; 16],
}

impl CramMd5Keys {
    /// The keys of a password.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_password(password: &[u8]) -> Result<Self, KeyError> {
        let _ = password;
        Err(KeyError::Unavailable)
    }
}

impl FromStr for CramMd5Keys {
    type Err = KeyError;

    fn from_str(_: &str) -> Result<Self, KeyError> {
        Err(KeyError::Syntax)
    }
}

impl fmt::Display for CramMd5Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:?}", self.outer, self.inner)
    }
}

/// Tells nothing secret.
impl fmt::Debug for CramMd5Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CramMd5Keys")
    }
}
