//! The accounts at smarthosts: their secrets, and how often a refused login is tried again.
//!
//! A provider that hears one wrong password after the other locks the account. So after a refusal
//! the login rests, longer each time, and whoever is in a hurry may try it sooner, but ever more
//! seldom, too: six times in the first hour, then four times an hour. A password file that has
//! changed ends the rest at once. A refusal is one error in the log, and another one only after a
//! day or when the server says something else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::settings::{Login, Smarthost};
use crate::deliver::login::Secret;
use crate::deliver::outcome::{Failure, Fault};
use crate::deliver::secret::Keeper;
use crate::mail::status::Status;
use crate::spool::schedule;

/// Who is in a hurry waits for this part of a pause,
const HURRY: u32 = 5;
/// and no longer than this.
const LONGEST_HURRY: Duration = Duration::from_secs(15 * 60);
/// How long the same trouble is not told again.
const TELL_PAUSE: Duration = Duration::from_secs(86_400);

/// How often a refused login is tried.
#[derive(Clone, Debug)]
pub struct Pace {
    /// How long it rests after the first, second, … refusal in a row; the last one repeats.
    /// Never empty.
    pub pauses: Vec<Duration>,
    /// How long it rests at least whatever anybody wants.
    pub least: Duration,
}

impl Pace {
    /// How long it rests after so many refusals before this one: until it is tried by itself, and
    /// until somebody in a hurry may.
    fn after(&self, times: usize) -> [Duration; 2] {
        let pause = self.pauses.get(times).or(self.pauses.last()).copied().unwrap_or_default();
        [pause.max(self.least), (pause / HURRY).min(LONGEST_HURRY).max(self.least)]
    }
}

impl Default for Pace {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self { pauses: [5, 15, 60, 240].map(minutes).into(), least: minutes(1) }
    }
}

/// All accounts that were needed so far.
#[derive(Debug, Default)]
pub struct Logins {
    pace: Pace,
    entries: Mutex<HashMap<Smarthost, Arc<LoginState>>>,
}

impl Logins {
    /// Accounts that are tried at another pace than the usual one.
    pub fn with_pace(pace: Pace) -> Self {
        Self { pace, ..Self::default() }
    }

    /// What is known of the account that `smarthost` has, if it has one.
    pub fn of(&self, smarthost: &Smarthost) -> Option<Arc<LoginState>> {
        let login = smarthost.login.as_ref()?;
        let mut entries = self.lock();
        if let Some(known) = entries.get(smarthost) {
            return Some(Arc::clone(known));
        }
        let mut state = LoginState::new(&smarthost.section, login, self.pace.clone());
        // What else was changed in the section is no reason to ask again with the same password.
        let same = entries.iter().find(|(known, _)| known.shares_account_with(smarthost));
        if let Some((_, known)) = same {
            state.standing = Arc::clone(&known.standing);
        }
        let state = Arc::new(state);
        entries.insert(smarthost.clone(), Arc::clone(&state));
        Some(state)
    }

    /// Forgets the accounts that `smarthost` does not need: nobody waits for their passwords.
    pub fn keep_only(&self, smarthost: Option<&Smarthost>) {
        let is_wanted = |known: &Smarthost| {
            smarthost.is_some_and(|it| it == known || it.shares_account_with(known))
        };
        self.lock().retain(|known, _| is_wanted(known));
    }

    /// Whether a password that was refused has changed in its file since; tells of each change
    /// once.
    pub fn have_changed(&self) -> bool {
        let changed: Vec<_> =
            self.refused_files().into_iter().filter(|state| state.has_changed()).collect();
        for state in &changed {
            let section = &state.section;
            log::info!("[{section}] password_file has changed; trying what waits for the login");
        }
        !changed.is_empty()
    }

    /// Whether there is a password file whose change would be of interest.
    pub fn await_change(&self) -> bool {
        !self.refused_files().is_empty()
    }

    fn refused_files(&self) -> Vec<Arc<LoginState>> {
        let entries = self.lock();
        entries.values().filter(|state| state.awaits_change()).map(Arc::clone).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Smarthost, Arc<LoginState>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One account, for any number of threads.
#[derive(Debug)]
pub struct LoginState {
    section: String,
    login: Login,
    keeper: Keeper,
    pace: Pace,
    standing: Arc<Mutex<Standing>>,
}

#[derive(Debug, Default)]
struct Standing {
    refused: Option<Refused>,
    /// Until when nobody tries a login that came to nothing, and how it did.
    in_vain: Option<(Instant, Failure)>,
    /// What was told last, and when.
    told: Option<(Instant, String)>,
    /// Whether the log says last that it does not work.
    is_told_broken: bool,
}

/// A login that does not work.
#[derive(Debug)]
struct Refused {
    secret: Arc<Secret>,
    /// In a row.
    times: usize,
    last: Instant,
    until: Instant,
    /// Until when nobody tries it whoever is in a hurry.
    hurry_until: Instant,
    failure: Failure,
}

impl LoginState {
    fn new(section: &str, login: &Login, pace: Pace) -> Self {
        let keeper = Keeper::new(section, &login.secret, pace.least);
        let (section, login) = (section.to_owned(), login.clone());
        Self { section, login, keeper, pace, standing: Arc::default() }
    }

    /// The account as the configuration has it.
    pub const fn login(&self) -> &Login {
        &self.login
    }

    /// The secret for a login at `now`; where it comes from a command, this may take as long as
    /// that.
    ///
    /// # Errors
    /// Why nobody is to be connected to: there is no secret, or it was refused a moment ago.
    pub fn secret(&self, now: Instant) -> Result<Arc<Secret>, Failure> {
        // A command is not run for a login that rests, and a file may have another password.
        if self.keeper.is_command() {
            self.check_rest(now)?;
        }
        let refused = self.lock().refused.as_ref().map(|refused| Arc::clone(&refused.secret));
        let secret = self.keeper.secret(refused.as_deref()).map_err(|error| {
            let text = error.to_string();
            self.tell(now, text.clone(), &text);
            // RFC 3463 §3.4: system incorrectly configured.
            Failure::new(Status::new(4, 3, 5), text).with_fault(Fault::Destination)
        })?;
        if !self.keeper.is_command() {
            self.forget_refusal_of_others(&secret);
            self.check_rest(now)?;
        }
        Ok(secret)
    }

    /// Another secret where the one that was `refused` in a login begun at that moment came from
    /// a command: its token may have expired. One that was refused before was asked for again
    /// before this login.
    pub fn renewed(&self, refused: &Secret, began: Instant) -> Option<Arc<Secret>> {
        if !self.keeper.is_command() || self.was_refused(refused) {
            return None;
        }
        let secret = self.keeper.secret_after(refused, began).ok()?;
        (*secret != *refused).then_some(secret)
    }

    fn was_refused(&self, secret: &Secret) -> bool {
        self.lock().refused.as_ref().is_some_and(|refused| *refused.secret == *secret)
    }

    /// Notes that the server let us in.
    pub fn accepted(&self) {
        let mut standing = self.lock();
        if std::mem::take(&mut *standing).is_told_broken {
            log::info!("[{}] the login works again", self.section);
        }
    }

    /// Notes that the server refused a login that was begun at the first of the two moments, with
    /// this failure. Returns the failure that it is for the mail, and how long it rests.
    pub fn refused(
        &self,
        secret: &Arc<Secret>,
        [began, now]: [Instant; 2],
        failure: Failure,
    ) -> Failure {
        // What the server says has often a number that is another one each time.
        let reply = failure.remote.as_ref().map_or("", |remote| &remote.reply);
        let kind = format!("{} {}", reply.get(..3).unwrap_or_default(), failure.status);
        // The text has the reply, and says what it is about.
        let failure = Failure { remote: None, ..failure };
        let pause = self.note_refusal(secret, [began, now], &failure);
        let (section, user) = (&self.section, &self.login.user);
        let (text, minutes) = (&failure.text, pause.as_secs().div_ceil(60));
        self.tell(
            now,
            kind,
            &format!(
                "[{section}] the login of user {user:?} does not work, and mail waits: {text}. The \
                 next try is in {minutes} minutes"
            ),
        );
        failure.with_fault(Fault::Login(pause))
    }

    fn note_refusal(
        &self,
        secret: &Arc<Secret>,
        [began, now]: [Instant; 2],
        failure: &Failure,
    ) -> Duration {
        let mut standing = self.lock();
        let before = standing.refused.take().filter(|before| self.is_same(before, secret));
        let (times, [until, hurry_until]) = match &before {
            // Logins that ran side by side tell of one and the same trouble.
            Some(before) if before.last >= began => {
                (before.times, [before.until, before.hurry_until])
            }
            before => {
                let times = before.as_ref().map_or(0, |before| before.times);
                let ends = self.pace.after(times).map(|pause| schedule::after(now, pause));
                (times + 1, ends)
            }
        };
        let (secret, failure) = (Arc::clone(secret), failure.clone());
        standing.refused = Some(Refused { secret, times, last: now, until, hurry_until, failure });
        until.saturating_duration_since(now)
    }

    /// Whether a refusal of `before` says something about this secret. A command may print
    /// another one each time.
    fn is_same(&self, before: &Refused, secret: &Secret) -> bool {
        self.keeper.is_command() || *before.secret == *secret
    }

    fn forget_refusal_of_others(&self, secret: &Secret) {
        let mut standing = self.lock();
        if standing.refused.as_ref().is_some_and(|before| !self.is_same(before, secret)) {
            (standing.refused, standing.told, standing.in_vain) = (None, None, None);
        }
    }

    /// An error while the login may not even be tried by those in a hurry.
    fn check_rest(&self, now: Instant) -> Result<(), Failure> {
        match &self.lock().refused {
            Some(refused) if now < refused.hurry_until => {
                let left = |end: Instant| end.saturating_duration_since(now);
                let minutes = left(refused.hurry_until).as_secs().div_ceil(60);
                let text = format!(
                    "{}; not asked again for {minutes} min, lest the account is locked, unless \
                     mailwren is restarted",
                    refused.failure.text
                );
                let failure = Failure { text, ..refused.failure.clone() };
                Err(failure.with_fault(Fault::Login(left(refused.until))))
            }
            _ => Ok(()),
        }
    }

    /// Notes that a login that was tried just now came to this: neither a refusal nor a welcome.
    pub fn in_vain(&self, now: Instant, failure: &Failure) {
        let until = schedule::after(now, self.pace.least);
        self.lock().in_vain = Some((until, failure.clone()));
    }

    /// An error while that was a moment ago.
    ///
    /// # Errors
    /// What the login came to.
    pub fn check_pause(&self, now: Instant) -> Result<(), Failure> {
        match &self.lock().in_vain {
            Some((until, failure)) if now < *until => {
                let text = format!("{}; not asked again within a minute", failure.text);
                Err(Failure { text, ..failure.clone() })
            }
            _ => Ok(()),
        }
    }

    fn awaits_change(&self) -> bool {
        self.keeper.is_file() && self.lock().refused.is_some()
    }

    /// Whether the file has another password than the refused one, or none that can be had.
    fn has_changed(&self) -> bool {
        let Ok(secret) = self.keeper.secret(None) else { return false };
        self.forget_refusal_of_others(&secret);
        !self.awaits_change()
    }

    /// Writes `text` to the log as an error, unless something of that `kind` was the last that
    /// was told and that was not long ago.
    pub fn tell(&self, now: Instant, kind: String, text: &str) {
        match self.is_told(now, kind) {
            true => log::debug!("{text}"),
            false => log::error!("{text}"),
        }
    }

    fn is_told(&self, now: Instant, kind: String) -> bool {
        let mut standing = self.lock();
        let is_told = standing.told.as_ref().is_some_and(|(at, told)| {
            *told == kind && now.saturating_duration_since(*at) < TELL_PAUSE
        });
        if !is_told {
            (standing.told, standing.is_told_broken) = (Some((now, kind)), true);
        }
        is_told
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        // Each value in it is whole by itself.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{ClientTls, HostPort, SecretSource};
    use crate::deliver::outcome::RemoteReply;

    fn state(source: SecretSource) -> Arc<LoginState> {
        let login = Login {
            user: "ann".into(),
            secret: source,
            mechanisms: Vec::new(),
            without_tls: false,
        };
        let smarthost =
            Smarthost { login: Some(login), ..Smarthost::new(Vec::new(), ClientTls::StartTls) };
        Logins::default().of(&smarthost).unwrap()
    }

    fn refusal(reply: &str) -> Failure {
        let remote = RemoteReply { host: "mx".into(), reply: reply.into() };
        let text = format!("mx refused the login: {reply}");
        Failure { remote: Some(remote), ..Failure::new(Status::new(4, 7, 8), text) }
    }

    fn pause(failure: &Failure) -> u64 {
        match failure.fault {
            Fault::Login(pause) => pause.as_secs(),
            fault => panic!("{fault:?}"),
        }
    }

    #[test]
    fn a_refused_login_is_tried_ever_more_seldom() {
        let state = state(SecretSource::Inline("sesame".into()));
        let mut now = Instant::now();
        let second = Duration::from_secs(1);
        for (minutes, hurry) in [(5, 1), (15, 3), (60, 12), (240, 15), (240, 15)] {
            let secret = state.secret(now).unwrap();
            let failure = state.refused(&secret, [now, now], refusal("535 no"));
            assert_eq!(pause(&failure), minutes * 60);
            // Whoever is in a hurry waits for less, and the rest goes on.
            now += hurry * 60 * second;
            let early = state.secret(now - second).unwrap_err();
            assert_eq!(pause(&early), minutes * 60 - u64::from(hurry) * 60 + 1);
            let text = format!("{}; not asked again for 1 min, lest ", failure.text);
            assert!(early.text.starts_with(&text), "{early:?}");
        }
        state.accepted();
        let secret = state.secret(now).unwrap();
        assert_eq!(pause(&state.refused(&secret, [now, now], refusal("535 no"))), 300);
    }

    #[test]
    fn whoever_never_stops_asking_does_not_lock_the_account() {
        let state = state(SecretSource::Inline("sesame".into()));
        let began = Instant::now();
        let mut logins = [0; 24];
        for second in 0..24 * 3600 {
            let now = began + Duration::from_secs(second);
            if let Ok(secret) = state.secret(now) {
                logins[second as usize / 3600] += 1;
                state.refused(&secret, [now, now], refusal("535 no"));
            }
        }
        assert_eq!(logins[0], 6, "{logins:?}");
        assert!(logins[1..].iter().all(|count| *count == 4), "{logins:?}");
    }

    #[test]
    fn what_else_changes_in_the_section_is_no_new_account() {
        let login = |user: &str, password: &str| Login {
            user: user.into(),
            secret: SecretSource::Inline(password.into()),
            mechanisms: Vec::new(),
            without_tls: false,
        };
        let host = |name: &str, port| HostPort { host: name.parse().unwrap(), port };
        let of =
            |host, login, tls| Smarthost { login: Some(login), ..Smarthost::new(vec![host], tls) };
        let logins = Logins::default();
        let before = of(host("mx.test", 587), login("ann", "one"), ClientTls::StartTls);
        let state = logins.of(&before).unwrap();
        let now = Instant::now();
        let secret = state.secret(now).unwrap();
        state.refused(&secret, [now, now], refusal("535 no"));
        let may_try = |smarthost: &Smarthost| logins.of(smarthost).unwrap().secret(now).is_ok();
        let same = of(host("mx.test", 465), login("ann", "one"), ClientTls::Implicit);
        assert!(!may_try(&same));
        for another in [
            of(host("mx.test", 465), login("ann", "two"), ClientTls::Implicit),
            of(host("mx.test", 465), login("bob", "one"), ClientTls::Implicit),
            of(host("mx2.test", 465), login("ann", "one"), ClientTls::Implicit),
        ] {
            assert!(may_try(&another), "{another:?}");
        }
        logins.keep_only(Some(&same));
        assert!(!may_try(&before));
        logins.keep_only(None);
        assert!(may_try(&before));
    }

    #[test]
    fn logins_side_by_side_count_as_one() {
        let state = state(SecretSource::Inline("sesame".into()));
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let secret = state.secret(began).unwrap();
        for (ended, expected) in [(1, 300), (2, 299), (3, 298)] {
            let at = [began, began + second * ended];
            assert_eq!(pause(&state.refused(&secret, at, refusal("535 no"))), expected);
        }
    }

    #[test]
    fn another_password_in_the_file_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "one").unwrap();
        let state = state(SecretSource::File(path.clone()));
        let now = Instant::now();
        let secret = state.secret(now).unwrap();
        state.refused(&secret, [now, now], refusal("535 no"));
        assert!(state.secret(now).is_err() && state.awaits_change() && !state.has_changed());
        std::fs::write(&path, "another").unwrap();
        let secret = state.secret(now).unwrap();
        assert_eq!(*secret, Secret::from("another"));
        assert_eq!(pause(&state.refused(&secret, [now, now], refusal("535 no"))), 300);
        std::fs::write(&path, "the third").unwrap();
        assert!(state.has_changed() && !state.awaits_change());
        // Whoever read that it does not work reads that it does again.
        assert!(state.lock().is_told_broken);
        state.accepted();
        assert!(!state.lock().is_told_broken);
    }

    #[test]
    fn the_same_trouble_is_told_once_a_day() {
        let state = state(SecretSource::Inline("sesame".into()));
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        let is_told = |hours, kind: &str| state.is_told(now + hour * hours, kind.to_owned());
        assert_eq!([is_told(0, "535"), is_told(1, "535"), is_told(23, "535")], [false, true, true]);
        assert_eq!([is_told(24, "535"), is_told(25, "534")], [false, false]);
        state.accepted();
        assert!(!is_told(26, "534"));
    }

    #[test]
    fn nothing_tells_a_secret() {
        let state = state(SecretSource::Inline("sesame".into()));
        let now = Instant::now();
        let secret = state.secret(now).unwrap();
        state.refused(&secret, [now, now], refusal("535 no"));
        assert!(!format!("{state:?}").contains("sesame"));
    }
}
