//! What a server keeps instead of a password: enough to check who knows it, and for SCRAM not
//! enough to log in as if one did. In text they look as in Dovecot's password files, so that
//! either server can use the other's.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::error::ErrorStack;

use super::prepare::prepared;
use super::scram::{self, Secrets};
use super::{MAX_SECRET, md5};

/// The iterations of PBKDF2 that we compute. RFC 5802 §5.1 wants 4096 at least; a million take
/// a second or two on a small machine.
pub const ITERATIONS: RangeInclusive<u32> = 4096..=1_000_000;

/// The longest salt that an account may have, in octets.
const MAX_SALT: usize = 64;

/// The hash function of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScramHash {
    /// SHA-256 (RFC 7677).
    Sha256,
    /// SHA-1 (RFC 5802).
    Sha1,
}

impl ScramHash {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha1];

    /// What Dovecot calls keys of this hash.
    const fn scheme(self) -> &'static str {
        match self {
            Self::Sha256 => "{SCRAM-SHA-256}",
            Self::Sha1 => "{SCRAM-SHA-1}",
        }
    }
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

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "this is no key of a known kind",
            Self::Password => {
                "this cannot be a password: it is empty, longer than 1024 octets, no UTF-8, or \
                 has control or other characters that RFC 4013 forbids"
            }
            Self::Bounds => {
                "the iterations are not from 4096 to 1000000, or the salt has not 1 to 64 octets"
            }
            Self::Unavailable => "OpenSSL cannot compute this hash here",
        })
    }
}

impl std::error::Error for KeyError {}

impl From<ErrorStack> for KeyError {
    fn from(_: ErrorStack) -> Self {
        Self::Unavailable
    }
}

/// What a server keeps for SCRAM (RFC 5802 §3). In text, Dovecot's
/// `{SCRAM-SHA-256}iterations,salt,stored-key,server-key`, the last three in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    pub(super) hash: ScramHash,
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Vec<u8>,
    pub(super) server_key: Vec<u8>,
}

impl ScramKeys {
    /// The keys of a password, with a salt of 1 to 64 octets (16 random ones are usual) and a
    /// number of [`ITERATIONS`].
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_password(
        hash: ScramHash,
        password: &[u8],
        salt: &[u8],
        iterations: u32,
    ) -> Result<Self, KeyError> {
        let password = prepared(password).map_err(|_| KeyError::Password)?;
        if !(1..=MAX_SALT).contains(&salt.len()) || !ITERATIONS.contains(&iterations) {
            return Err(KeyError::Bounds);
        }
        let Secrets { stored_key, server_key, .. } =
            scram::secrets(hash, &password, salt, iterations)?;
        Ok(Self { hash, iterations, salt: salt.to_vec(), stored_key, server_key })
    }

    /// Keys that no password has, for an account that is not there: a client cannot tell
    /// them from others as long as `salt` is always the same for the same name, and nobody
    /// can compute it. `random` are octets that nobody knows either.
    pub fn made_up(hash: ScramHash, salt: [u8; 16], iterations: u32, random: &[u8; 64]) -> Self {
        let (stored_key, server_key) = random.split_at(32);
        let key = |octets: &[u8]| octets[..hash.digest().size()].to_vec();
        let (stored_key, server_key) = (key(stored_key), key(server_key));
        Self { hash, iterations, salt: salt.to_vec(), stored_key, server_key }
    }

    /// The hash function that they are for.
    pub const fn hash(&self) -> ScramHash {
        self.hash
    }

    /// How often the password was hashed.
    pub const fn iterations(&self) -> u32 {
        self.iterations
    }
}

impl FromStr for ScramKeys {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let fields = |hash: &ScramHash| Some((*hash, behind_scheme(text, hash.scheme())?));
        let (hash, fields) = ScramHash::ALL.iter().find_map(fields).ok_or(KeyError::Syntax)?;
        let fields: Vec<_> = fields.split(',').collect();
        let [iterations, salt, stored_key, server_key] = fields[..] else {
            return Err(KeyError::Syntax);
        };
        let octets = |field: &str| STANDARD.decode(field).map_err(|_| KeyError::Syntax);
        let iterations = scram::number(iterations).ok_or(KeyError::Syntax)?;
        let (salt, stored_key, server_key) =
            (octets(salt)?, octets(stored_key)?, octets(server_key)?);
        if [&stored_key, &server_key].iter().any(|key| key.len() != hash.digest().size()) {
            return Err(KeyError::Syntax);
        }
        if !(1..=MAX_SALT).contains(&salt.len()) || !ITERATIONS.contains(&iterations) {
            return Err(KeyError::Bounds);
        }
        Ok(Self { hash, iterations, salt, stored_key, server_key })
    }
}

impl fmt::Display for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored_key, server_key] =
            [&self.salt, &self.stored_key, &self.server_key].map(|octets| STANDARD.encode(octets));
        let (scheme, iterations) = (self.hash.scheme(), self.iterations);
        write!(f, "{scheme}{iterations},{salt},{stored_key},{server_key}")
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
///
/// Whoever has them can log in by CRAM-MD5, though not learn the password.
#[derive(Clone, PartialEq, Eq)]
pub struct CramMd5Keys {
    outer: [u8; 16],
    inner: [u8; 16],
}

impl CramMd5Keys {
    /// The keys of a password, which is taken as it is: RFC 2195 is older than SASLprep.
    ///
    /// # Errors
    /// [`KeyError::Password`].
    pub fn from_password(password: &[u8]) -> Result<Self, KeyError> {
        if password.is_empty() || password.len() > MAX_SECRET || password.contains(&0) {
            return Err(KeyError::Password);
        }
        let hashed = md5::digest(md5::INITIAL, 0, password);
        let key = if password.len() > md5::BLOCK { &hashed } else { password };
        let state = |pad: u8| {
            let mut block = [pad; md5::BLOCK];
            block.iter_mut().zip(key).for_each(|(octet, key)| *octet ^= key);
            md5::behind_block(md5::INITIAL, &block)
        };
        Ok(Self { outer: state(0x5c), inner: state(0x36) })
    }

    /// Keys that no password is known for.
    pub(super) const fn made_up() -> Self {
        Self { outer: [0; 16], inner: [0; 16] }
    }

    /// HMAC-MD5 of a challenge, under the password.
    pub(super) fn mac(&self, challenge: &[u8]) -> [u8; 16] {
        md5::digest(self.outer, 1, &md5::digest(self.inner, 1, challenge))
    }
}

const CRAM_MD5_SCHEME: &str = "{CRAM-MD5}";

impl FromStr for CramMd5Keys {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let digits = behind_scheme(text, CRAM_MD5_SCHEME).ok_or(KeyError::Syntax)?;
        let (outer, inner) = digits.split_at_checked(32).ok_or(KeyError::Syntax)?;
        let octets = |digits| from_hex(digits).ok_or(KeyError::Syntax);
        Ok(Self { outer: octets(outer)?, inner: octets(inner)? })
    }
}

impl fmt::Display for CramMd5Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CRAM_MD5_SCHEME}{}{}", hex(&self.outer), hex(&self.inner))
    }
}

/// Tells nothing secret.
impl fmt::Debug for CramMd5Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CramMd5Keys")
    }
}

fn behind_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// In lower case, as RFC 2195 has it.
pub(super) fn hex(octets: &[u8; 16]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Sixteen octets in hexadecimal digits.
pub(super) fn from_hex(digits: &str) -> Option<[u8; 16]> {
    let is_good = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u128::from_str_radix(digits, 16).ok().filter(|_| is_good)?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;
    use openssl::sign::Signer;
    use proptest::prelude::*;

    use super::*;

    /// What `doveadm pw` of Dovecot 2.3 made.
    #[test]
    fn dovecot_makes_the_same_keys() {
        let cram = "{CRAM-MD5}d06d4e1b26fccaa4b0b61801132340a354b21152711fb604ca3e035e7015116b";
        let keys = CramMd5Keys::from_password(b"tanstaaftanstaaf").unwrap();
        assert_eq!(keys.to_string(), cram);
        for (hash, text) in [
            (
                ScramHash::Sha256,
                "{SCRAM-SHA-256}4096,ugNz2xbYmBqlKjBp1uy8jg==,\
                 pVsFpOPdWqZzWODz50WHGd04BYZ+jk44W4BE2aVWfnY=,\
                 pTGktmGlKlszetO+uTUINhjPIRxlOmxvOI6PDTRBs4w=",
            ),
            (
                ScramHash::Sha1,
                "{SCRAM-SHA-1}4096,glLrX8MTcbWVyWXlNYNksA==,WynygmnLVC04RFlLhJVoYotP/hM=,\
                 BWwaemnojQ9cJDbp+2cQa7/LN88=",
            ),
        ] {
            let keys: ScramKeys = text.parse().unwrap();
            assert_eq!(keys.to_string(), text);
            let ours = ScramKeys::from_password(hash, b"pencil", &keys.salt, 4096);
            assert_eq!(ours, Ok(keys));
        }
    }

    #[test]
    fn a_key_that_is_wrong_in_any_way_is_none() {
        let good = ScramKeys::from_password(ScramHash::Sha1, b"pencil", b"salt", 4096).unwrap();
        let good = good.to_string();
        let syntax = Err(KeyError::Syntax);
        for (text, expected) in [
            (String::new(), syntax.clone()),
            (good.replace("SHA-1", "SHA-256"), syntax.clone()),
            (good.replace("SHA-1", "SHA-512"), syntax.clone()),
            (good.replace("}4096", "}04096"), syntax.clone()),
            (good.replace("}4096", "}+4096"), syntax.clone()),
            (good.replace("}4096", "}99999999999"), syntax.clone()),
            (good.replace("}4096", "}4095"), Err(KeyError::Bounds)),
            (good.replace("}4096", "}1000001"), Err(KeyError::Bounds)),
            (good.replace("c2FsdA==", ""), Err(KeyError::Bounds)),
            (good.replace("c2FsdA==", "c2FsdA"), syntax.clone()),
            (format!("{good},"), syntax.clone()),
            (format!("{good}="), syntax.clone()),
        ] {
            assert_eq!(text.parse::<ScramKeys>(), expected, "{text}");
        }
        let good = CramMd5Keys::from_password(b"x").unwrap().to_string();
        assert!(good.to_uppercase().parse::<CramMd5Keys>().is_ok());
        for text in ["", "{CRAM-MD5}", &good[1..], &good[..73], &good.replace('}', "}0")] {
            assert_eq!(text.parse::<CramMd5Keys>(), Err(KeyError::Syntax), "{text}");
        }
    }

    #[test]
    fn a_password_has_bounds() {
        for password in [&b""[..], b"a\0b", &[b'a'; MAX_SECRET + 1]] {
            assert_eq!(CramMd5Keys::from_password(password), Err(KeyError::Password));
            let keys = ScramKeys::from_password(ScramHash::Sha1, password, b"salt", 4096);
            assert_eq!(keys, Err(KeyError::Password));
        }
        for (salt, iterations) in [(0, 4096), (65, 4096), (16, 4095), (16, 1_000_001)] {
            let salt = vec![7; salt];
            let keys = ScramKeys::from_password(ScramHash::Sha1, b"x", &salt, iterations);
            assert_eq!(keys, Err(KeyError::Bounds));
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let keys = ScramKeys::from_password(ScramHash::Sha1, b"pencil", b"salt", 4096).unwrap();
        assert_eq!(format!("{keys:?}"), "ScramKeys(Sha1)");
        let keys = CramMd5Keys::from_password(b"pencil").unwrap();
        assert_eq!(format!("{keys:?}"), "CramMd5Keys");
    }

    proptest! {
        #[test]
        fn the_states_give_the_hmac_of_openssl(
            password in prop::collection::vec(1..=u8::MAX, 1..200),
            challenge in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let key = PKey::hmac(&password).unwrap();
            let mut signer = Signer::new(MessageDigest::md5(), &key).unwrap();
            let expected = signer.sign_oneshot_to_vec(&challenge).unwrap();
            let keys = CramMd5Keys::from_password(&password).unwrap();
            let read_back: CramMd5Keys = keys.to_string().parse().unwrap();
            prop_assert_eq!(&read_back.mac(&challenge)[..], &expected[..]);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "(\\{SCRAM-SHA-1\\}|\\{CRAM-MD5\\})?.{0,99}") {
            let _ = (text.parse::<ScramKeys>(), text.parse::<CramMd5Keys>());
        }
    }
}
