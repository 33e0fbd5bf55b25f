//! Who may log in: the accounts behind AUTH (RFC 4954), and the mechanisms that they allow.
//!
//! Accounts are those of the users file or of Dovecot; who comes over a Unix socket can also be
//! the account of the system that he is (EXTERNAL). Each login that fails has a line in the log,
//! of which mailwren(8) promises that it stays as it is, for programs that watch it:
//!
//! ```text
//! login failed: client=192.0.2.1 mechanism=PLAIN reason=wrong-password user="ann"
//! ```

pub mod accounts;
pub mod dovecot;
pub mod failures;
pub mod hash;
pub mod users_file;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use self::accounts::{FileAccounts, Reason};
use self::dovecot::Dovecot;
use self::failures::{Failures, Guess};
use crate::config::settings::Settings;
use crate::mail::status::Status;
use crate::receive::peer::Peer;
use crate::smtp::reply::Reply;
use crate::smtp::sasl::server::{self, Progress, Refusal, Start};
use crate::smtp::sasl::{Mechanism, Nonce};
use crate::smtp::server::LoginStep;
use crate::sys::users;

pub(super) const TOO_MANY_FAILURES: Reply = Reply::new(
    454,
    Status::new(4, 7, 0),
    "Too many logins from your address have failed; try again later",
);

/// The accounts that sessions log in to.
#[derive(Debug)]
pub struct Logins {
    accounts: FileAccounts,
    /// Where it is there, it knows the accounts instead of the file.
    dovecot: Option<Dovecot>,
    hostname: String,
    relay_networks: Vec<IpNet>,
    failures: Arc<Failures>,
}

/// A login that is under way.
#[derive(Debug)]
pub struct Exchange {
    state: State,
    attempt: Attempt,
}

#[derive(Debug)]
enum State {
    Ours(server::Exchange),
    Dovecots(dovecot::Conversation),
}

/// What is known of a login apart from where it stands.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    mechanism: Mechanism,
    guess: Guess,
    reason: Reason,
}

/// How a step ended.
enum Ended {
    Challenge(Vec<u8>, State),
    Accepted(Arc<str>),
    Failed { refusal: Refusal, user: Option<String> },
}

impl Logins {
    /// The accounts that the settings name.
    pub fn new(settings: &Settings) -> Self {
        let auth = &settings.auth;
        let dovecot = |socket: &PathBuf| Dovecot::new(socket.clone(), auth.mechanisms.clone());
        Self {
            accounts: FileAccounts::new(settings),
            dovecot: auth.dovecot.as_ref().map(dovecot),
            hostname: settings.server.hostname.to_string(),
            relay_networks: settings.relay_networks.clone(),
            failures: Arc::default(),
        }
    }

    /// The accounts that other settings name. What was noted of clients whose logins failed goes
    /// for them, too, and there is still one hash computed at a time.
    pub fn with_settings(&self, settings: &Settings) -> Self {
        let next = Self::new(settings);
        let accounts = next.accounts.with_turns_of(&self.accounts);
        Self { accounts, failures: Arc::clone(&self.failures), ..next }
    }

    /// The mechanisms by which `peer` can log in now.
    pub fn mechanisms(&self, peer: &Peer) -> Vec<Mechanism> {
        let mut mechanisms = match &self.dovecot {
            Some(dovecot) => dovecot.mechanisms(),
            None => self.accounts.mechanisms(),
        };
        if account_of(peer).is_some() {
            mechanisms.insert(0, Mechanism::External);
        }
        mechanisms
    }

    /// Begins a login. The exchange is there where it goes on.
    pub fn begin(
        &self,
        peer: &Peer,
        mechanism: Mechanism,
        initial: Option<&[u8]>,
    ) -> (Option<Exchange>, LoginStep) {
        // EXTERNAL has nothing that could be guessed.
        if mechanism != Mechanism::External && self.is_refused(peer) {
            return (None, LoginStep::Refused(TOO_MANY_FAILURES));
        }
        let guess = self.failures.guess(mechanism.name());
        let guess = initial.map_or(guess, |said| self.failures.guess_with(guess, said));
        let mut attempt = Attempt { mechanism, guess, reason: Reason::default() };
        let ended = match &self.dovecot {
            Some(dovecot) if mechanism != Mechanism::External => {
                attempt.reason = Reason::Dovecot;
                from_dovecot(dovecot.begin(peer, mechanism, initial))
            }
            _ => self.begin_ours(peer, &mut attempt, initial),
        };
        self.end(peer, attempt, ended)
    }

    /// Goes on with a response.
    pub fn respond(
        &self,
        peer: &Peer,
        exchange: Exchange,
        response: &[u8],
    ) -> (Option<Exchange>, LoginStep) {
        let Exchange { state, mut attempt } = exchange;
        attempt.guess = self.failures.guess_with(attempt.guess, response);
        let ended = match state {
            State::Dovecots(conversation) => from_dovecot(conversation.respond(response)),
            State::Ours(exchange) => {
                self.step(peer, &mut attempt, |accounts| exchange.respond(response, accounts))
            }
        };
        self.end(peer, attempt, ended)
    }

    fn begin_ours(&self, peer: &Peer, attempt: &mut Attempt, initial: Option<&[u8]>) -> Ended {
        let Ok(random) = accounts::random() else {
            log::error!("auth: OpenSSL has no random numbers");
            return Ended::Failed { refusal: Refusal::Unavailable, user: None };
        };
        let external = account_of(peer);
        let start = Start {
            mechanism: attempt.mechanism,
            initial,
            nonce: &Nonce::new(&random),
            hostname: &self.hostname,
            external: external.as_ref(),
        };
        self.step(peer, attempt, |accounts| server::Exchange::begin(start, accounts))
    }

    /// Takes a step of a login whose accounts are ours.
    fn step(
        &self,
        peer: &Peer,
        attempt: &mut Attempt,
        step: impl FnOnce(&dyn server::Accounts) -> Progress,
    ) -> Ended {
        let is_refused = || self.is_refused(peer);
        let desk = self.accounts.desk(attempt.mechanism, &is_refused);
        let progress = step(&desk);
        attempt.reason = desk.reason().unwrap_or(attempt.reason);
        match progress {
            Progress::Challenge(challenge, exchange) => {
                Ended::Challenge(challenge, State::Ours(exchange))
            }
            Progress::Accepted(user) => Ended::Accepted(user),
            Progress::Refused { refusal, user } => Ended::Failed { refusal, user },
        }
    }

    /// Takes note of how a step ended, and says what the session does.
    fn end(&self, peer: &Peer, attempt: Attempt, ended: Ended) -> (Option<Exchange>, LoginStep) {
        match ended {
            Ended::Challenge(challenge, state) => {
                (Some(Exchange { state, attempt }), LoginStep::Challenge(challenge))
            }
            Ended::Accepted(user) => {
                log::info!("login: client={peer} mechanism={} user={user:?}", attempt.mechanism);
                self.failures.succeeded(peer, &user);
                (None, LoginStep::Accepted(user))
            }
            Ended::Failed { refusal, user } => {
                if refusal == Refusal::Credentials {
                    self.failed(peer, attempt, user.as_deref().unwrap_or_default());
                }
                let reply = match refusal {
                    Refusal::Unavailable if self.is_refused(peer) => TOO_MANY_FAILURES,
                    _ => refusal.into(),
                };
                (None, LoginStep::Refused(reply))
            }
        }
    }

    fn failed(&self, peer: &Peer, attempt: Attempt, user: &str) {
        let Attempt { mechanism, mut guess, reason } = attempt;
        log::warn!(
            "login failed: client={peer} mechanism={mechanism} reason={reason} user={user:?}"
        );
        if mechanism.hides_password() && !user.is_empty() {
            guess = self.failures.guess_at(mechanism.name(), user);
        }
        // An account may be a program's by which many people log in, as on a web page.
        let is_known = match peer {
            Peer::Account { .. } => true,
            Peer::Host { remote, .. } => {
                self.relay_networks.iter().any(|network| network.contains(remote))
            }
        };
        if let Some(pause) = self.failures.failed(peer, user, guess, is_known, Instant::now()) {
            let minutes = pause.as_secs() / 60;
            log::warn!(
                "logins refused: client={peer} minutes={minutes}: too many of them have failed"
            );
        }
    }

    fn is_refused(&self, peer: &Peer) -> bool {
        self.failures.is_refused(peer, Instant::now())
    }
}

/// The name of the account of the system at the other end.
fn account_of(peer: &Peer) -> Option<Arc<str>> {
    let Peer::Account { uid } = peer else { return None };
    match users::by_uid(*uid) {
        Ok(account) => account.map(|account| account.name.into()),
        Err(error) => {
            log::warn!("auth: the account of uid {uid} cannot be looked up: {error}");
            None
        }
    }
}

fn from_dovecot(result: Result<dovecot::Step, dovecot::Refused>) -> Ended {
    match result {
        Ok(dovecot::Step::Challenge(challenge, conversation)) => {
            Ended::Challenge(challenge, State::Dovecots(conversation))
        }
        Ok(dovecot::Step::Accepted(user)) => Ended::Accepted(user),
        Err(dovecot::Refused { refusal, user }) => Ended::Failed { refusal, user },
    }
}
