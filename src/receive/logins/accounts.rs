//! The accounts of the users file, as the SASL machines ask for them.
//!
//! Nothing that a client can see or measure tells a name that is not known from a wrong password:
//! for each of them the same hash is computed, or a challenge made from keys that are made up. The
//! log tells the two apart. Where accounts have hashes of several kinds, as after a copy, a name
//! that is not known is treated as one of them, always the same.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;

use super::hash::Turns;
use super::users_file::{self, MAX_OCTETS, UsersFile};
use crate::config::settings::{LocalDomains, Settings};
use crate::report::complaint::Complaint;
use crate::smtp::sasl::Mechanism;
use crate::smtp::sasl::keys::{CramMd5Keys, ScramHash, ScramKeys};
use crate::smtp::sasl::server::{Account, Accounts, Unavailable};
use crate::sys::disk::Disk;
use crate::sys::secret_file;
use crate::sys::watched::WatchedFile;

/// How long a login waits for its turn to have a hash computed. Some hundred others are before it
/// then.
const TURN_PATIENCE: Duration = Duration::from_secs(10);
/// Bad lines that are told of at once; the rest are counted.
const MAX_TOLD: usize = 10;
/// The file in `[server] state` with what made-up salts are made from, and its octets.
const SECRET_NAME: &str = "login-secret";
const SECRET_OCTETS: usize = 32;

static FILE_TOLD: Complaint = Complaint::new();
static TURN_TOLD: Complaint = Complaint::new();
static KEYS_TOLD: Complaint = Complaint::new();

/// The accounts of the users file, which is read again when it has changed.
#[derive(Debug)]
pub struct FileAccounts {
    file: WatchedFile<UsersFile>,
    domains: LocalDomains,
    mechanisms: Vec<Mechanism>,
    turns: Arc<Turns>,
    secret_path: PathBuf,
    /// What made-up salts are made from.
    secret: OnceLock<Vec<u8>>,
}

/// Why a login is refused, for the log alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// The password, or what is in the place of one, is wrong.
    #[default]
    WrongPassword,
    /// There is no such account.
    UnknownName,
    /// It is locked.
    Locked,
    /// It has nothing by which this mechanism could check a password.
    NoKeys,
    /// Another server says so.
    Dovecot,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongPassword => "wrong-password",
            Self::UnknownName => "unknown-name",
            Self::Locked => "locked",
            Self::NoKeys => "no-keys",
            Self::Dovecot => "dovecot",
        })
    }
}

/// What the file was found to be.
enum Found {
    File(Arc<UsersFile>),
    Missing,
}

impl FileAccounts {
    /// The accounts that the settings name.
    pub fn new(settings: &Settings) -> Self {
        Self {
            file: WatchedFile::secret(settings.auth.users.clone(), MAX_OCTETS),
            domains: settings.server.domains.clone(),
            mechanisms: settings.auth.mechanisms.clone(),
            turns: Arc::new(Turns::new(TURN_PATIENCE)),
            secret_path: settings.server.state.join(SECRET_NAME),
            secret: OnceLock::new(),
        }
    }

    /// The same accounts, whose hashes are computed in turn with those of `others`.
    pub(super) fn with_turns_of(self, others: &Self) -> Self {
        Self { turns: Arc::clone(&others.turns), ..self }
    }

    /// The configured mechanisms by which somebody can log in. Where the file cannot be read,
    /// all of them: who tries is told to come again.
    pub fn mechanisms(&self) -> Vec<Mechanism> {
        let allows = |file: &UsersFile, mechanism| file.allows(mechanism);
        match self.load() {
            Err(Unavailable) => self.mechanisms.clone(),
            Ok(Found::Missing) => Vec::new(),
            Ok(Found::File(file)) => self
                .mechanisms
                .iter()
                .copied()
                .filter(|mechanism| allows(&file, *mechanism))
                .collect(),
        }
    }

    /// The accounts for one step of a login. What `is_refused` says is asked once more when the
    /// turn to compute a hash has come.
    pub fn desk<'a>(&'a self, mechanism: Mechanism, is_refused: &'a dyn Fn() -> bool) -> Desk<'a> {
        Desk { accounts: self, mechanism, is_refused, reason: Cell::default() }
    }

    fn load(&self) -> Result<Found, Unavailable> {
        let path = self.file.path();
        match self.file.load(|octets, _| Arc::new(read(path, octets))) {
            Ok(file) => Ok(Found::File(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Missing),
            Err(error) => {
                let path = path.display();
                FILE_TOLD.error(format_args!(
                    "auth: {path} cannot be read, logins are answered with 454: {error}"
                ));
                Err(Unavailable)
            }
        }
    }

    fn file(&self) -> Result<Arc<UsersFile>, Unavailable> {
        match self.load()? {
            Found::File(file) => Ok(file),
            Found::Missing => Err(Unavailable),
        }
    }

    /// The account that a client means by `name`. Many write their whole address.
    fn find<'a>(&self, file: &'a UsersFile, name: &str) -> Option<&'a users_file::Account> {
        file.find(name).or_else(|| file.find(self.without_our_domain(name)))
    }

    fn without_our_domain<'a>(&self, name: &'a str) -> &'a str {
        let is_ours = |domain: &str| domain.parse().is_ok_and(|name| self.domains.has(&name));
        match name.rsplit_once('@') {
            Some((user, domain)) if is_ours(domain) => user,
            _ => name,
        }
    }

    /// Octets for what is made up for a name, of which `purpose` says what it is: the same for
    /// the same name, whoever asks and when, and in whichever of the forms that would find one
    /// account.
    fn made_up<const N: usize>(&self, purpose: &str, name: &str) -> Result<[u8; N], Unavailable> {
        let secret = self.secret.get_or_init(|| self.load_secret());
        let name = self.without_our_domain(name).to_ascii_lowercase();
        let text = format!("{purpose} {name}");
        let digest = hmac(secret, text.as_bytes()).map_err(|error| {
            FILE_TOLD.error(format_args!("auth: OpenSSL cannot compute an HMAC: {error}"));
            Unavailable
        })?;
        digest.first_chunk().copied().ok_or(Unavailable)
    }

    /// A number by which a name that is not known is given what one of the accounts has.
    fn draw(&self, name: &str) -> Result<u64, Unavailable> {
        self.made_up("draw", name).map(u64::from_be_bytes)
    }

    fn load_secret(&self) -> Vec<u8> {
        let make = || random::<SECRET_OCTETS>().map(Vec::from);
        let path = &self.secret_path;
        let folder = path.parent().unwrap_or(path);
        let kept = Disk::host()
            .make_private_folder(folder)
            .and_then(|_| secret_file::read_or_make(path, SECRET_OCTETS as u64, make));
        let error = match kept {
            Ok(secret) => return secret,
            Err(error) => error,
        };
        log::warn!(
            "auth: {error}: unknown names can be told from others by what changes for them at a \
             restart; let the server write its folder"
        );
        make().unwrap_or_default()
    }
}

/// Reads the users file and tells of its bad lines.
fn read(path: &Path, octets: &[u8]) -> UsersFile {
    let file = UsersFile::parse(octets);
    let bad_lines = file.bad_lines();
    for bad in bad_lines.iter().take(MAX_TOLD) {
        log::warn!("{}:{}: {}; the line is passed over", path.display(), bad.line, bad.text);
    }
    if bad_lines.len() > MAX_TOLD {
        let more = bad_lines.len() - MAX_TOLD;
        log::warn!("{}: {more} more such lines; see mailwren check", path.display());
    }
    file
}

fn hmac(key: &[u8], text: &[u8]) -> Result<Vec<u8>, openssl::error::ErrorStack> {
    let key = PKey::hmac(key)?;
    Signer::new(MessageDigest::sha256(), &key)?.sign_oneshot_to_vec(text)
}

/// Octets that nobody can guess.
///
/// # Errors
/// When there is no randomness to be had.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    openssl::rand::rand_bytes(&mut octets)?;
    Ok(octets)
}

/// The accounts as one step of one login sees them.
pub struct Desk<'a> {
    accounts: &'a FileAccounts,
    mechanism: Mechanism,
    is_refused: &'a dyn Fn() -> bool,
    reason: Cell<Option<Reason>>,
}

impl Desk<'_> {
    /// Why the login will be refused, if this step has found a reason.
    pub fn reason(&self) -> Option<Reason> {
        self.reason.get()
    }

    /// Looks whether `account` can be used with what it has for this mechanism.
    fn examine<'a, T>(
        &self,
        account: Option<&'a users_file::Account>,
        keys: impl Fn(&'a users_file::Account) -> Option<&'a T>,
    ) -> Option<(&'a users_file::Account, &'a T)> {
        let (reason, found) = match account {
            None => (Reason::UnknownName, None),
            Some(account) if account.is_locked => (Reason::Locked, None),
            Some(account) => match keys(account) {
                Some(keys) => (Reason::WrongPassword, Some((account, keys))),
                None => {
                    let (name, mechanism) = (&account.name, self.mechanism);
                    KEYS_TOLD.error(format_args!(
                        "auth: {name:?} has nothing in the users file to log in with by \
                         {mechanism}; run: mailwren passwd {name}"
                    ));
                    (Reason::NoKeys, None)
                }
            },
        };
        self.reason.set(Some(reason));
        found
    }
}

impl Accounts for Desk<'_> {
    fn check_password(&self, user: &str, password: &[u8]) -> Result<Option<Arc<str>>, Unavailable> {
        let file = self.accounts.file()?;
        let account = self.accounts.find(&file, user);
        let found = self.examine(account, |account| account.hash.as_ref());
        // Drawn for everybody, so that it takes everybody's time.
        let decoy = file.decoy(self.accounts.draw(user)?);
        let Some(hash) = found.map(|(_, hash)| hash).or(decoy) else { return Ok(None) };
        let Some(_turn) = self.accounts.turns.take() else {
            TURN_TOLD.error(format_args!(
                "auth: too many logins at once; one that waited {} s was answered with 454",
                TURN_PATIENCE.as_secs()
            ));
            return Err(Unavailable);
        };
        // Others from the same address may have failed while this one waited.
        if (self.is_refused)() {
            return Err(Unavailable);
        }
        let is_right = hash.is_of(password);
        Ok(found.filter(|_| is_right).map(|(account, _)| Arc::clone(&account.name)))
    }

    fn scram_keys(&self, user: &str, hash: ScramHash) -> Result<Account<ScramKeys>, Unavailable> {
        let file = self.accounts.file()?;
        let account = self.accounts.find(&file, user);
        // Made for everybody, so that it takes everybody's time.
        let salt = self.accounts.made_up(&format!("{hash:?}"), user)?;
        let iterations = file.made_up_iterations(hash, self.accounts.draw(user)?);
        let nobodys = random().map_err(|_| Unavailable)?;
        let made_up = ScramKeys::made_up(hash, salt, iterations, &nobodys);
        Ok(match self.examine(account, |account| account.scram(hash)) {
            Some((account, keys)) => {
                Account { name: Arc::clone(&account.name), keys: keys.clone() }
            }
            None => Account { name: user.into(), keys: made_up },
        })
    }

    fn cram_md5_keys(&self, user: &str) -> Result<Option<Account<CramMd5Keys>>, Unavailable> {
        let file = self.accounts.file()?;
        let account = self.accounts.find(&file, user);
        let found = self.examine(account, |account| account.cram_md5.as_ref());
        Ok(found
            .map(|(account, keys)| Account { name: Arc::clone(&account.name), keys: keys.clone() }))
    }
}

#[cfg(test)]
mod tests;
