//! Hashes of passwords: argon2id as we write it (RFC 9106), and what other programs have written,
//! the strings of crypt(3) as they stand in /etc/shadow.
//!
//! A hash is slow and takes memory on purpose, so only one is computed at a time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash as Phc;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use bcrypt::HashParts;
use crossbeam_channel::{Receiver, Sender, bounded};
use sha_crypt::ShaCrypt;
use yescrypt::Yescrypt;

use super::accounts::random;

/// The memory of argon2id in KiB and its passes: the smallest of the OWASP's equals, chosen for
/// hosts with little memory.
const MEMORY_KIB: u32 = 7 << 10;
const PASSES: u32 = 5;
/// Hashes that want more than this are not computed: 64 MiB, what others make at most.
const MAX_MEMORY_KIB: u64 = 64 << 10;
const MAX_PASSES: u32 = 64;
const MAX_LANES: u32 = 16;
const MAX_SHA_ROUNDS: u32 = 5_000_000;
const MAX_BCRYPT_COST: u32 = 16;
/// The most octets of a hash as text.
const MAX_TEXT: usize = 512;
/// Octets of a new salt.
const SALT_OCTETS: usize = 16;

/// The hash of a password, checked. `Debug` does not tell it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Argon2,
    ShaCrypt,
    Yescrypt,
    Bcrypt,
}

/// Why a text is no hash that can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashError {
    /// It is of no known kind.
    Unknown,
    /// MD5 or DES, which are broken.
    Broken,
    /// It is not as its kind has it.
    Malformed,
    /// It takes more time or memory than a login may.
    TooExpensive,
}

impl fmt::Display for HashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "this is no hash of a known kind ($argon2id$, $y$, $6$, $5$, $2b$)",
            Self::Broken => "MD5 and DES are broken and not served",
            Self::Malformed => "the hash is damaged: a part of it is missing or misspelt",
            Self::TooExpensive => "the hash wants too much memory or time (64 MiB at most)",
        })
    }
}

impl std::error::Error for HashError {}

impl FromStr for PasswordHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        if text.len() > MAX_TEXT {
            return Err(HashError::Malformed);
        }
        let kind = match text.split('$').nth(1) {
            Some("argon2id" | "argon2i" | "argon2d") => argon2_is_good(text).map(|()| Kind::Argon2),
            Some("5" | "6") => sha_crypt_is_good(text).map(|()| Kind::ShaCrypt),
            Some("y") => yescrypt_is_good(text).map(|()| Kind::Yescrypt),
            Some("2a" | "2b" | "2y") => bcrypt_is_good(text).map(|()| Kind::Bcrypt),
            Some("1" | "md5") => Err(HashError::Broken),
            None if text.len() == 13 => Err(HashError::Broken),
            _ => Err(HashError::Unknown),
        };
        Ok(Self { kind: kind?, text: text.to_owned() })
    }
}

impl PasswordHash {
    /// The argon2id hash of a password, with a salt that nobody has used before.
    ///
    /// # Errors
    /// When there is no randomness or no memory to be had.
    pub fn new(password: &[u8]) -> Result<Self, String> {
        let salt: [u8; SALT_OCTETS] = random().map_err(|error| error.to_string())?;
        let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|error| error.to_string())?;
        let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_with_salt(password, &salt)
            .map_err(|error| error.to_string())?;
        Ok(Self { kind: Kind::Argon2, text: hash.to_string() })
    }

    /// Whether it is the hash of this password. Takes its time, see [`Turns`].
    pub fn is_of(&self, password: &[u8]) -> bool {
        #[cfg(test)]
        tests::COMPUTED.with_borrow_mut(|computed| computed.push(self.class().to_owned()));
        match self.kind {
            Kind::Argon2 => Argon2::default().verify_password(password, self.text.as_str()).is_ok(),
            Kind::ShaCrypt => {
                ShaCrypt::default().verify_password(password, self.text.as_str()).is_ok()
            }
            Kind::Yescrypt => {
                Yescrypt::default().verify_password(password, self.text.as_str()).is_ok()
            }
            Kind::Bcrypt => bcrypt::verify(password, &self.text).unwrap_or(false),
        }
    }

    /// What decides how long it takes: the text up to the salt.
    pub fn class(&self) -> &str {
        let fields = if self.kind == Kind::Bcrypt { 1 } else { 2 };
        self.text.rmatch_indices('$').nth(fields - 1).map_or("", |(at, _)| &self.text[..at])
    }
}

impl fmt::Display for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({:?})", self.kind)
    }
}

fn argon2_is_good(text: &str) -> Result<(), HashError> {
    let hash = Phc::new(text).map_err(|_| HashError::Malformed)?;
    let params = Params::try_from(&hash).map_err(|_| HashError::Malformed)?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(HashError::Malformed);
    }
    let is_cheap = u64::from(params.m_cost()) <= MAX_MEMORY_KIB
        && params.t_cost() <= MAX_PASSES
        && params.p_cost() <= MAX_LANES;
    if is_cheap { Ok(()) } else { Err(HashError::TooExpensive) }
}

/// `$6$salt$hash` or `$6$rounds=5000$salt$hash`.
fn sha_crypt_is_good(text: &str) -> Result<(), HashError> {
    let fields: Vec<_> = text.split('$').skip(1).collect();
    let (rounds, hash) = match fields.as_slice() {
        [_, _, hash] => (None, hash),
        [_, rounds, _, hash] => (Some(rounds), hash),
        _ => return Err(HashError::Malformed),
    };
    let octets = if fields[0] == "5" { 43 } else { 86 };
    if hash.len() != octets || !hash.bytes().all(is_of_crypt_alphabet) {
        return Err(HashError::Malformed);
    }
    let Some(rounds) = rounds else { return Ok(()) };
    let rounds = rounds.strip_prefix("rounds=").and_then(|rounds| rounds.parse::<u32>().ok());
    match rounds {
        Some(1000..=MAX_SHA_ROUNDS) => Ok(()),
        Some(rounds) if rounds > MAX_SHA_ROUNDS => Err(HashError::TooExpensive),
        _ => Err(HashError::Malformed),
    }
}

/// `$y$params$salt$hash`.
fn yescrypt_is_good(text: &str) -> Result<(), HashError> {
    let fields: Vec<_> = text.split('$').skip(2).collect();
    let [params, salt, hash] = fields.as_slice() else { return Err(HashError::Malformed) };
    let params: yescrypt::Params = params.parse().map_err(|_| HashError::Malformed)?;
    if hash.len() != 43 || !salt.bytes().chain(hash.bytes()).all(is_of_crypt_alphabet) {
        return Err(HashError::Malformed);
    }
    let octets = params.n().saturating_mul(u64::from(params.r())).saturating_mul(128);
    let is_cheap = octets <= MAX_MEMORY_KIB << 10 && params.p() <= MAX_LANES;
    if is_cheap { Ok(()) } else { Err(HashError::TooExpensive) }
}

fn bcrypt_is_good(text: &str) -> Result<(), HashError> {
    let parts: HashParts = text.parse().map_err(|_| HashError::Malformed)?;
    if parts.get_cost() <= MAX_BCRYPT_COST { Ok(()) } else { Err(HashError::TooExpensive) }
}

const fn is_of_crypt_alphabet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'/')
}

/// Whose turn it is to compute a hash: one at a time, so that fifty logins at once do not take
/// fifty times the memory.
#[derive(Debug)]
pub struct Turns {
    enter: Sender<()>,
    leave: Receiver<()>,
    patience: Duration,
}

/// The turn to compute a hash, over when it is dropped.
#[derive(Debug)]
pub struct Turn<'a>(&'a Receiver<()>);

impl Turns {
    /// Turns for which nobody waits longer than `patience`.
    pub fn new(patience: Duration) -> Self {
        let (enter, leave) = bounded(1);
        Self { enter, leave, patience }
    }

    /// Waits for a turn; `None` when that takes too long.
    pub fn take(&self) -> Option<Turn<'_>> {
        self.enter.send_timeout((), self.patience).ok().map(|()| Turn(&self.leave))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // What the turn itself put in is there.
        let _ = self.0.try_recv();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::thread;

    thread_local! {
        /// The classes of the hashes that this thread has computed.
        pub(crate) static COMPUTED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// Made by Debian's libcrypt and by argon2's reference, all of `pass word`.
    const MADE_ELSEWHERE: [&str; 7] = [
        "$argon2id$v=19$m=1024,t=2,p=1$c29tZXNhbHQxMg$lUzYK/ctfjqMXcDp+wqo3Vmiffi0AYS2u4ZLsOU0PE4",
        "$5$abcdefgh$.QMzy7v4vXPoalf3eRONDBUv8WZTVbTMR1FBCZC1/L2",
        "$6$saltsalt$cc1KsgmlKYtCcnNH8.sv7Fe8mca8fAso5fHlNrb1VZa5WYQ.L3ChTcx06ID.LoaXZAf9CZNraK43XCp7LxKHl1",
        "$6$rounds=1500$saltsalt16chars$KScgyAal..C65BHFX7x/OcBNVohlOU65P3C9/I5bUq7O9/415J2VY0baOR6SQ5NvSNZvgrffD98z/u1HXhUox0",
        "$y$j9T$TCF9dPzzFQYyAtmxRq7ua0$OLk7XRMSgh3zBFVPnu3PUKzZz4tkdP.L3J5S/ZnVQT3",
        "$2b$05$m0gmBJldEzSJmbbBLWbKIONoKutT5qeHm3Lmq7p9Gr7lU4dxZdpa2",
        "$2a$05$Y8Pu9rQ9JoTP1hugjPMMde1yRXg/FgKXqZN1DoMZEWMfpxZPaV77S",
    ];

    fn parse(text: &str) -> Result<PasswordHash, HashError> {
        text.parse()
    }

    #[test]
    fn what_others_made_is_understood() {
        for text in MADE_ELSEWHERE {
            let hash = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(hash.is_of(b"pass word"), "{text}");
            assert!(!hash.is_of(b"Pass word") && !hash.is_of(b""), "{text}");
            assert_eq!(hash.to_string(), text);
        }
    }

    #[test]
    fn a_damaged_hash_is_refused() {
        for text in MADE_ELSEWHERE {
            for end in 0..text.len() {
                let is_of = |hash: PasswordHash| hash.is_of(b"pass word");
                assert!(!parse(&text[..end]).is_ok_and(is_of), "{}", &text[..end]);
            }
            assert_eq!(parse(&format!("{text}:")), Err(HashError::Malformed), "{text}");
            assert!(parse(&text.replace('$', "#")).is_err());
        }
    }

    #[test]
    fn what_is_broken_unknown_or_too_dear_is_told() {
        for (text, error) in [
            ("$1$xaiAwdo3$XjOngI977EgGRUblTWzrJ0", HashError::Broken),
            ("IN2ksYYH4Z9Uk", HashError::Broken),
            ("", HashError::Unknown),
            ("x", HashError::Unknown),
            ("secret", HashError::Unknown),
            ("$7$", HashError::Unknown),
            (&MADE_ELSEWHERE[0].replace("m=1024", "m=65537"), HashError::TooExpensive),
            (&MADE_ELSEWHERE[0].replace("t=2", "t=65"), HashError::TooExpensive),
            (&MADE_ELSEWHERE[3].replace("rounds=1500", "rounds=5000001"), HashError::TooExpensive),
            (&MADE_ELSEWHERE[4].replace("j9T", "jHT"), HashError::TooExpensive),
            (&MADE_ELSEWHERE[5].replace("$05$", "$17$"), HashError::TooExpensive),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_new_hash_is_argon2id_of_its_cost_and_like_no_other() {
        let hash = PasswordHash::new(b"secret").unwrap();
        assert!(hash.is_of(b"secret") && !hash.is_of(b"Secret"));
        assert_eq!(hash.class(), "$argon2id$v=19$m=7168,t=5,p=1");
        assert_eq!(parse(&hash.to_string()).unwrap(), hash);
        assert_ne!(PasswordHash::new(b"secret").unwrap(), hash);
        assert_eq!(format!("{hash:?}"), "PasswordHash(Argon2)");
    }

    #[test]
    fn the_class_is_what_stands_before_the_salt() {
        let class = |at: usize| parse(MADE_ELSEWHERE[at]).unwrap().class().to_owned();
        assert_eq!(class(0), "$argon2id$v=19$m=1024,t=2,p=1");
        assert_eq!([class(1), class(2)], ["$5", "$6"]);
        assert_eq!(class(3), "$6$rounds=1500");
        assert_eq!([class(4), class(5), class(6)], ["$y$j9T", "$2b$05", "$2a$05"]);
    }

    #[test]
    fn one_has_its_turn_at_a_time_and_nobody_waits_for_ever() {
        let turns = Turns::new(Duration::ZERO);
        let turn = turns.take().unwrap();
        assert!(turns.take().is_none());
        drop(turn);
        assert!(turns.take().is_some());
        let turns = Turns::new(Duration::from_secs(60));
        let turn = turns.take().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| turns.take().is_some());
            drop(turn);
            assert!(waiting.join().unwrap());
        });
    }
}
