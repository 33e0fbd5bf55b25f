//! The users file: `name:HASH[:KEYS…]`, one account a line, in the form that
//! mailwren-users(5) tells.
//!
//! PLAIN and LOGIN are checked by HASH. The further fields are in any order: each mechanism that
//! needs more has keys of its own, named by the scheme in braces before them. A field without
//! anything but digits means nothing, so that lines of /etc/shadow can be copied whole.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::hash::PasswordHash;
use crate::smtp::sasl::Mechanism;
use crate::smtp::sasl::keys::{CramMd5Keys, ScramHash, ScramKeys};

/// The most octets of the file.
pub const MAX_OCTETS: u64 = 4 << 20;
/// The most octets of a line.
const MAX_LINE: usize = 4096;
/// The most octets of a name.
const MAX_NAME: usize = 255;
/// The schemes of other servers' password files that say what the hash itself says again.
const HASH_SCHEMES: [&str; 7] = [
    "{ARGON2ID}",
    "{ARGON2I}",
    "{CRYPT}",
    "{SHA512-CRYPT}",
    "{SHA256-CRYPT}",
    "{BLF-CRYPT}",
    "{YESCRYPT}",
];
/// The iterations that a made-up key has where the file has none to go by: RFC 5802 §5.1.
const USUAL_ITERATIONS: u32 = 4096;

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name, as the file spells it.
    pub name: Arc<str>,
    /// Where it stands, counted from 1.
    pub line: usize,
    /// What its password is checked with. `None`: it has none, or is locked.
    pub hash: Option<PasswordHash>,
    /// Whether it is locked, by `!` or `*` before the hash or in its place.
    pub is_locked: bool,
    /// For SCRAM-SHA-256.
    pub scram_sha_256: Option<ScramKeys>,
    /// For SCRAM-SHA-1.
    pub scram_sha_1: Option<ScramKeys>,
    /// For CRAM-MD5.
    pub cram_md5: Option<CramMd5Keys>,
}

impl Account {
    /// Its keys for SCRAM with this hash function.
    pub const fn scram(&self, hash: ScramHash) -> Option<&ScramKeys> {
        match hash {
            ScramHash::Sha256 => self.scram_sha_256.as_ref(),
            ScramHash::Sha1 => self.scram_sha_1.as_ref(),
        }
    }

    /// Whether one can log in to it by this mechanism.
    pub const fn allows(&self, mechanism: Mechanism) -> bool {
        match mechanism {
            _ if self.is_locked => false,
            Mechanism::Plain | Mechanism::Login => self.hash.is_some(),
            Mechanism::ScramSha256 => self.scram_sha_256.is_some(),
            Mechanism::ScramSha1 => self.scram_sha_1.is_some(),
            Mechanism::CramMd5 => self.cram_md5.is_some(),
            Mechanism::External | Mechanism::OauthBearer | Mechanism::Xoauth2 => false,
        }
    }
}

/// As a line of the file, without its end.
impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.name)?;
        if self.is_locked {
            f.write_str("!")?;
        }
        if let Some(hash) = &self.hash {
            write!(f, "{hash}")?;
        }
        for keys in [&self.scram_sha_256, &self.scram_sha_1].into_iter().flatten() {
            write!(f, ":{keys}")?;
        }
        match &self.cram_md5 {
            Some(keys) => write!(f, ":{keys}"),
            None => Ok(()),
        }
    }
}

/// A line that is no account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, and what to do. Tells nothing of what stands there but a name.
    pub text: String,
}

/// The accounts of one version of the file.
#[derive(Debug, Default)]
pub struct UsersFile {
    /// By name in lower case.
    accounts: HashMap<String, Account>,
    bad_lines: Vec<BadLine>,
    /// The hash of each account, in an order that the same file always gives.
    decoys: Vec<PasswordHash>,
    /// The iterations of each key, for SHA-256 and SHA-1, in order.
    iterations: [Vec<u32>; 2],
}

impl UsersFile {
    /// Reads a file. What is no account is passed over and told of by [`Self::bad_lines`].
    pub fn parse(octets: &[u8]) -> Self {
        let mut file = Self::default();
        for (index, octets) in octets.split(|&octet| octet == b'\n').enumerate() {
            let line = index + 1;
            let account = match parse_line(line, octets) {
                Ok(None) => continue,
                Ok(Some(account)) => file.admit(account),
                Err(text) => Err(text),
            };
            if let Err(text) = account {
                file.bad_lines.push(BadLine { line, text });
            }
        }
        file.decoys = file.hashes();
        file.iterations =
            [ScramHash::Sha256, ScramHash::Sha1].map(|hash| file.all_iterations(hash));
        file
    }

    fn admit(&mut self, account: Account) -> Result<(), String> {
        let key = account.name.to_ascii_lowercase();
        if let Some(first) = self.accounts.get(&key) {
            let (name, line) = (&account.name, first.line);
            return Err(format!(
                "{name:?} stands in line {line} already, which counts; remove one of the two"
            ));
        }
        self.accounts.insert(key, account);
        Ok(())
    }

    /// The account of this name, in any case.
    pub fn find(&self, name: &str) -> Option<&Account> {
        self.accounts.get(&name.to_ascii_lowercase())
    }

    /// The accounts, in no order.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// The lines that are no accounts.
    pub fn bad_lines(&self) -> &[BadLine] {
        &self.bad_lines
    }

    /// Whether somebody can log in by this mechanism.
    pub fn allows(&self, mechanism: Mechanism) -> bool {
        self.accounts().any(|account| account.allows(mechanism))
    }

    /// A hash to spend the time on that one of the accounts would take, for a name that is not
    /// known. The same `draw` gets the same one, so that a name in a file of several kinds of
    /// hashes takes the same time whenever it is tried.
    pub fn decoy(&self, draw: u64) -> Option<&PasswordHash> {
        drawn(&self.decoys, draw)
    }

    /// The iterations of a made-up key: those of one of the accounts, by `draw` as above.
    pub fn made_up_iterations(&self, hash: ScramHash, draw: u64) -> u32 {
        let [sha_256, sha_1] = &self.iterations;
        let all = if hash == ScramHash::Sha256 { sha_256 } else { sha_1 };
        drawn(all, draw).copied().unwrap_or(USUAL_ITERATIONS)
    }

    fn hashes(&self) -> Vec<PasswordHash> {
        let mut hashes: Vec<_> =
            self.accounts().filter_map(|account| account.hash.clone()).collect();
        hashes.sort_unstable_by_key(ToString::to_string);
        hashes
    }

    fn all_iterations(&self, hash: ScramHash) -> Vec<u32> {
        let iterations = |account: &Account| Some(account.scram(hash)?.iterations());
        let mut all: Vec<_> = self.accounts().filter_map(iterations).collect();
        all.sort_unstable();
        all
    }
}

fn drawn<T>(all: &[T], draw: u64) -> Option<&T> {
    let count = u64::try_from(all.len()).ok()?;
    all.get(usize::try_from(draw.checked_rem(count)?).ok()?)
}

/// The name of an account, if a line may begin with it.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(format!("a name has 1 to {MAX_NAME} characters"));
    }
    let is_good = |octet: u8| octet.is_ascii_graphic() && octet != b':';
    if name.starts_with('#') || !name.bytes().all(is_good) {
        return Err(format!(
            "{name:?} is no name: it has visible ASCII characters only, no blank and no colon, \
             and no # in front"
        ));
    }
    Ok(())
}

/// The name that a line of the file begins with, if it is one with a name.
pub fn name_of(line: &str) -> Option<&str> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    line.split_once(':').map(|(name, _)| name)
}

/// Reads a line; `None` for one without an account.
fn parse_line(line: usize, octets: &[u8]) -> Result<Option<Account>, String> {
    if octets.len() > MAX_LINE {
        return Err(format!("the line has more than {MAX_LINE} octets"));
    }
    let text = str::from_utf8(octets).map_err(|_| "the line is no UTF-8 text")?.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let Some((name, fields)) = text.split_once(':') else {
        // Not shown: it may be a password.
        return Err("there is no colon: write `name:HASH`, or run `mailwren passwd NAME`".into());
    };
    check_name(name)?;
    let mut account = Account {
        name: name.into(),
        line,
        hash: None,
        is_locked: false,
        scram_sha_256: None,
        scram_sha_1: None,
        cram_md5: None,
    };
    for (at, field) in fields.split(':').enumerate() {
        read_field(&mut account, at == 0, field).map_err(|reason| {
            format!("{name:?}, field {}: {reason}; run `mailwren passwd {name}`", at + 2)
        })?;
    }
    let has_keys = [account.scram_sha_256.is_some(), account.scram_sha_1.is_some()].contains(&true)
        || account.cram_md5.is_some();
    if account.hash.is_none() && !account.is_locked && !has_keys {
        return Err(format!("{name:?} has no password; run `mailwren passwd {name}`"));
    }
    Ok(Some(account))
}

fn read_field(account: &mut Account, is_first: bool, field: &str) -> Result<(), String> {
    let scheme = field.split_inclusive('}').next().unwrap_or_default().to_ascii_uppercase();
    match scheme.as_str() {
        "{SCRAM-SHA-256}" => set(&mut account.scram_sha_256, keys(field)?),
        "{SCRAM-SHA-1}" => set(&mut account.scram_sha_1, keys(field)?),
        "{CRAM-MD5}" => set(&mut account.cram_md5, keys(field)?),
        _ if !is_first && field.bytes().all(|octet| octet.is_ascii_digit()) => Ok(()),
        _ if !is_first => Err("this is no key of a known kind".to_owned()),
        _ => {
            let hash = if HASH_SCHEMES.contains(&scheme.as_str()) {
                &field[scheme.len()..]
            } else {
                field
            };
            let rest = hash.trim_start_matches(['!', '*']);
            account.is_locked = rest.len() < hash.len();
            if !rest.is_empty() {
                let hash: PasswordHash =
                    rest.parse().map_err(|error: super::hash::HashError| error.to_string())?;
                account.hash = Some(hash);
            }
            Ok(())
        }
    }
}

fn keys<T: std::str::FromStr>(field: &str) -> Result<T, String> {
    field.parse().map_err(|_| "the keys are damaged".to_owned())
}

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err("these keys are there twice".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "$5$abcdefgh$.QMzy7v4vXPoalf3eRONDBUv8WZTVbTMR1FBCZC1/L2";
    const YESCRYPT: &str =
        "$y$j9T$TCF9dPzzFQYyAtmxRq7ua0$OLk7XRMSgh3zBFVPnu3PUKzZz4tkdP.L3J5S/ZnVQT3";

    fn scram(hash: ScramHash, iterations: u32) -> String {
        ScramKeys::from_password(hash, b"pass word", b"salt", iterations).unwrap().to_string()
    }

    fn cram_md5() -> String {
        CramMd5Keys::from_password(b"pass word").unwrap().to_string()
    }

    /// The mechanisms that the account of this line allows.
    fn allowed(line: &str) -> Result<Vec<Mechanism>, String> {
        let account = parse_line(1, line.as_bytes())?.ok_or("no account")?;
        let all = Mechanism::OF_LISTENERS.into_iter();
        Ok(all.filter(|mechanism| account.allows(*mechanism)).collect())
    }

    #[test]
    fn each_mechanism_is_checked_by_a_field_of_its_own() {
        use Mechanism::{CramMd5, Login, Plain, ScramSha1, ScramSha256};
        let (sha_256, sha_1) = (scram(ScramHash::Sha256, 4096), scram(ScramHash::Sha1, 4096));
        let md5 = cram_md5();
        for (fields, expected) in [
            (HASH.to_owned(), &[Plain, Login][..]),
            (format!("{{SHA256-CRYPT}}{HASH}"), &[Plain, Login]),
            (format!("{{crypt}}{YESCRYPT}"), &[Plain, Login]),
            // As they stand in /etc/shadow.
            (format!("{HASH}:19000:0:99999:7:::"), &[Plain, Login]),
            (
                format!("{HASH}:{md5}:{sha_1}:{sha_256}"),
                &[ScramSha256, ScramSha1, CramMd5, Plain, Login],
            ),
            (format!(":{sha_256}"), &[ScramSha256]),
            (format!("!{HASH}:{sha_256}"), &[]),
            (format!("*:{md5}"), &[]),
            ("!!".to_owned(), &[]),
            ("*".to_owned(), &[]),
        ] {
            assert_eq!(allowed(&format!("ann:{fields}")).unwrap(), expected, "{fields}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_told_but_not_what_stands_there() {
        let sha_256 = scram(ScramHash::Sha256, 4096);
        for (line, part) in [
            ("secret", "no colon"),
            ("ann:", "has no password"),
            ("ann:secret", "field 2: this is no hash"),
            ("ann:$1$xaiAwdo3$XjOngI977EgGRUblTWzrJ0", "broken"),
            ("ann:$6$secret", "damaged"),
            ("ann: $6$", "damaged"),
            (&format!("ann:{HASH}:secret"), "field 3: this is no key"),
            (&format!("ann:{sha_256}:{HASH}"), "field 3: this is no key"),
            (&format!("ann:{HASH}:{sha_256}:{sha_256}"), "twice"),
            (&format!("ann:{HASH}:{}", &sha_256[..40]), "keys are damaged"),
            (&format!("ann:{HASH}:{{CRAM-MD5}}secret"), "keys are damaged"),
            (&format!("a b:{HASH}"), "no name"),
            (&format!(":{HASH}"), "1 to 255"),
            (&format!("{}:{HASH}", "x".repeat(256)), "1 to 255"),
            (&format!("\u{e4}nn:{HASH}"), "no name"),
            (&format!("ann:{HASH}{}", "x".repeat(5000)), "4096"),
        ] {
            let error = allowed(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn good_lines_count_and_bad_ones_are_named() {
        let text = format!("# c\r\n\nAnn:{HASH}\r\n  bob:{HASH}  \nx\nANN:{YESCRYPT}\n\\#:\n");
        let file = UsersFile::parse(text.as_bytes());
        let lines: Vec<_> = file.bad_lines().iter().map(|bad| bad.line).collect();
        assert_eq!(lines, [5, 6, 7]);
        assert!(file.bad_lines()[1].text.contains("stands in line 3 already"));
        let ann = file.find("aNN").unwrap();
        assert_eq!((&*ann.name, ann.line, ann.to_string()), ("Ann", 3, format!("Ann:{HASH}")));
        assert!(file.find("bob").is_some() && file.find("x").is_none());
        assert_eq!(file.accounts().count(), 2);
        assert_eq!(UsersFile::parse(b"ann:\xff\n").bad_lines().len(), 1);
    }

    #[test]
    fn made_up_things_are_those_of_some_account() {
        let empty = UsersFile::parse(b"");
        assert_eq!((empty.decoy(7), empty.made_up_iterations(ScramHash::Sha1, 7)), (None, 4096));
        let text = format!(
            "a:{HASH}\nb:{YESCRYPT}\nc:{YESCRYPT}\nd::{}\ne::{1}\nf::{1}\n",
            scram(ScramHash::Sha256, 5000),
            scram(ScramHash::Sha256, 6000),
        );
        let file = UsersFile::parse(text.as_bytes());
        assert_eq!(file.bad_lines(), []);
        let draws = [0, 1, 2, 3, u64::MAX];
        let mut classes = draws.map(|draw| file.decoy(draw).unwrap().class());
        assert_eq!(classes[0], classes[3]);
        classes.sort_unstable();
        assert_eq!(classes[3..], ["$y$j9T"; 2]);
        assert!(!classes[0].starts_with("$y$"), "{classes:?}");
        let mut iterations = [0, 1, 2].map(|draw| file.made_up_iterations(ScramHash::Sha256, draw));
        iterations.sort_unstable();
        assert_eq!(iterations, [5000, 6000, 6000]);
        assert_eq!(file.made_up_iterations(ScramHash::Sha1, 7), 4096);
        assert!(file.allows(Mechanism::ScramSha256) && !file.allows(Mechanism::ScramSha1));
    }

    proptest! {
        #[test]
        fn random_text_never_panics(
            octets in prop::collection::vec(any::<u8>(), 0..200),
            text in "(ann:)?[a:!*${}5\n0-9SCRAM,-]{0,60}",
        ) {
            UsersFile::parse(&octets);
            UsersFile::parse(text.as_bytes());
        }
    }
}
