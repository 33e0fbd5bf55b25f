//! Clients whose logins keep failing, and how long they are not listened to.
//!
//! Each [`Client`] collects points: ten for each new guess at a password, one where it says
//! again what was wrong a moment ago. A printer with an old password does that for months, and must
//! not lock out the people behind the same router; somebody who guesses never does. SCRAM and
//! CRAM-MD5 never say the same twice, and hide what the password was: there the next guess at a name
//! counts three, which a phone that tries once a minute never adds up. With a hundred points AUTH is
//! refused for a minute, the next time for two, and so on up to an hour. Points fade, and a login
//! that succeeds takes them all, if no other name than its own was tried: or else somebody with an
//! account could guess at those of others for as long as he likes.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::receive::peer::{Client, Peer};

/// The most clients that are remembered; of more the one that was quiet for longest is not.
const MAX_CLIENTS: usize = 4096;
/// The guesses of an address that are known again.
const REMEMBERED_GUESSES: usize = 8;

const POINTS_OF_GUESS: u32 = 10;
const POINTS_OF_REPETITION: u32 = 1;
/// Where nobody can tell whether it was a guess or a repetition.
const POINTS_OF_EITHER: u32 = 3;
/// With so many an address is refused.
const MAX_POINTS: u32 = 100;
/// How long it takes until a point fades.
const FADING: Duration = Duration::from_secs(18);

/// How long the first refusal lasts; each doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LAST_PAUSE: Duration = Duration::from_secs(3600);
/// After so long without failures the first pause is the next again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(3600);

/// What a client has said in one login, so that it is known when it says the same again. Nothing
/// can be learnt from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guess {
    hash: u64,
    /// Whether the password counts in it.
    is_whole: bool,
}

/// The clients whose logins failed.
#[derive(Debug)]
pub struct Failures {
    clients: Mutex<HashMap<Client, Record>>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Record {
    points: u32,
    /// Until when they have faded.
    faded: Instant,
    /// When the last login failed, or the end of the pause after it.
    last: Instant,
    refused_until: Option<Instant>,
    pause: Duration,
    /// The name in all of the guesses that have not faded, hashed; `None` where there were several.
    only_name: Option<u64>,
    guesses: [Option<Guess>; REMEMBERED_GUESSES],
    next_guess: usize,
}

impl Default for Failures {
    fn default() -> Self {
        Self { clients: Mutex::default(), hasher: RandomState::new() }
    }
}

impl Failures {
    /// What begins a login: the name of the mechanism.
    pub fn guess(&self, mechanism: &str) -> Guess {
        Guess { hash: self.hasher.hash_one(mechanism), is_whole: true }
    }

    /// A login in which the client has said this too.
    pub fn guess_with(&self, guess: Guess, said: &[u8]) -> Guess {
        Guess { hash: self.hasher.hash_one((guess.hash, said)), ..guess }
    }

    /// A login in which what the client says is never the same, so that all that is known of it
    /// is the name.
    pub fn guess_at(&self, mechanism: &str, user: &str) -> Guess {
        let hash = self.hasher.hash_one((mechanism, user.to_ascii_lowercase()));
        Guess { hash, is_whole: false }
    }

    /// Whether `peer` is not listened to now.
    pub fn is_refused(&self, peer: &Peer, now: Instant) -> bool {
        let clients = self.clients();
        let record = clients.get(&Client::of(peer));
        record.is_some_and(|record| record.refused_until.is_some_and(|until| now < until))
    }

    /// Counts a login under the name of `user` that failed. Where the client is refused from here
    /// on, says for how long. One that is `known` never is for longer than the shortest time.
    pub fn failed(
        &self,
        peer: &Peer,
        user: &str,
        guess: Guess,
        known: bool,
        now: Instant,
    ) -> Option<Duration> {
        let name = self.name(user);
        let client = Client::of(peer);
        let mut clients = self.clients();
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(&client) {
            let quiet = clients.iter().min_by_key(|(_, record)| record.last);
            if let Some(quiet) = quiet.map(|(client, _)| *client) {
                clients.remove(&quiet);
            }
        }
        let record = clients.entry(client).or_insert_with(|| Record::new(now));
        record.fade(now);
        record.blame(name);
        record.failed(guess, known, now)
    }

    /// Forgets what `peer` did wrong, if all of it was under the name of `user`, who is logged in
    /// now.
    pub fn succeeded(&self, peer: &Peer, user: &str) {
        let (client, name) = (Client::of(peer), self.name(user));
        let mut clients = self.clients();
        if clients.get(&client).is_some_and(|record| record.only_name == Some(name)) {
            clients.remove(&client);
        }
    }

    /// What is remembered of a name, in any case and with any domain.
    fn name(&self, user: &str) -> u64 {
        let name = user.rsplit_once('@').map_or(user, |(name, _)| name);
        self.hasher.hash_one(name.to_ascii_lowercase())
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<Client, Record>> {
        // Each change is one of plain values, whole or not there.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    const fn new(now: Instant) -> Self {
        Self {
            points: 0,
            faded: now,
            last: now,
            refused_until: None,
            pause: Duration::ZERO,
            only_name: None,
            guesses: [None; REMEMBERED_GUESSES],
            next_guess: 0,
        }
    }

    fn blame(&mut self, name: u64) {
        if self.points == 0 {
            self.only_name = Some(name);
        }
        self.only_name = self.only_name.filter(|before| *before == name);
    }

    fn failed(&mut self, guess: Guess, known: bool, now: Instant) -> Option<Duration> {
        self.points += match (self.guesses.contains(&Some(guess)), guess.is_whole) {
            (true, true) => POINTS_OF_REPETITION,
            (true, false) => POINTS_OF_EITHER,
            (false, _) => POINTS_OF_GUESS,
        };
        self.remember(guess);
        self.last = self.last.max(now);
        // A login that began before the pause and ended in it does not make it longer.
        if self.points < MAX_POINTS || self.refused_until.is_some_and(|until| now < until) {
            self.points = self.points.min(MAX_POINTS);
            return None;
        }
        let longest = if known { FIRST_PAUSE } else { LAST_PAUSE };
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, longest);
        let end = now + self.pause;
        (self.points, self.refused_until) = (MAX_POINTS, Some(end));
        (self.faded, self.last) = (end, end);
        Some(self.pause)
    }

    /// Takes the points that have faded by `now`. In a pause none does.
    fn fade(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last) > FORGIVEN_AFTER {
            self.pause = Duration::ZERO;
        }
        let passed = now.saturating_duration_since(self.faded);
        let faded = u32::try_from(passed.as_secs() / FADING.as_secs()).unwrap_or(u32::MAX);
        self.points = self.points.saturating_sub(faded);
        self.faded += FADING * faded.min(MAX_POINTS);
        if self.points == 0 {
            self.faded = self.faded.max(now);
        }
    }

    fn remember(&mut self, guess: Guess) {
        if !self.guesses.contains(&Some(guess)) {
            self.guesses[self.next_guess] = Some(guess);
            self.next_guess = (self.next_guess + 1) % REMEMBERED_GUESSES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn at(text: &str) -> Peer {
        Peer::Host { remote: text.parse().unwrap(), local: [192, 0, 2, 9].into() }
    }

    struct Scene {
        failures: Failures,
        now: Instant,
        guesses: u32,
    }

    impl Scene {
        fn new() -> Self {
            Self { failures: Failures::default(), now: Instant::now(), guesses: 0 }
        }

        fn fails(&self, from: &str, password: &str) -> Option<Duration> {
            let guess = self.failures.guess_with(self.failures.guess("PLAIN"), password.as_bytes());
            self.failures.failed(&at(from), "ann", guess, false, self.now)
        }

        /// A guess that is like none before.
        fn guesses(&mut self, from: &str) -> Option<Duration> {
            self.guesses += 1;
            self.fails(from, &self.guesses.to_string())
        }

        fn is_refused(&self, from: &str) -> bool {
            self.failures.is_refused(&at(from), self.now)
        }
    }

    #[test]
    fn ten_guesses_are_free_and_then_pauses_grow_up_to_an_hour() {
        let mut scene = Scene::new();
        for _ in 0..9 {
            assert_eq!(scene.guesses("192.0.2.1"), None);
        }
        assert!(!scene.is_refused("192.0.2.1"));
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = MINUTE * minutes;
            assert_eq!(scene.guesses("192.0.2.1"), Some(pause));
            // One that was under way already.
            assert_eq!(scene.guesses("192.0.2.1"), None);
            scene.now += pause - SECOND;
            assert!(scene.is_refused("192.0.2.1"), "{minutes}");
            scene.now += SECOND;
            assert!(!scene.is_refused("192.0.2.1"), "{minutes}");
        }
        assert!(!scene.is_refused("192.0.2.2"));
    }

    #[test]
    fn a_success_and_an_hour_of_peace_make_all_well_again() {
        let mut scene = Scene::new();
        (0..9).for_each(|_| assert_eq!(scene.guesses("192.0.2.1"), None));
        scene.failures.succeeded(&at("192.0.2.1"), "Ann");
        (0..9).for_each(|_| assert_eq!(scene.guesses("192.0.2.1"), None));
        assert_eq!(scene.guesses("192.0.2.1"), Some(MINUTE));
        scene.now += MINUTE;
        assert_eq!(scene.guesses("192.0.2.1"), Some(2 * MINUTE));
        scene.now += 2 * MINUTE + FORGIVEN_AFTER + SECOND;
        (0..9).for_each(|_| assert_eq!(scene.guesses("192.0.2.1"), None));
        assert_eq!(scene.guesses("192.0.2.1"), Some(MINUTE));
    }

    #[test]
    fn a_login_of_ones_own_is_no_excuse_for_guesses_at_others() {
        let scene = &mut Scene::new();
        let fails = |scene: &Scene, user: &str, number: u64| {
            scene.failures.failed(
                &at("192.0.2.1"),
                user,
                Guess { hash: number, is_whole: true },
                false,
                scene.now,
            )
        };
        for number in 0..9 {
            assert_eq!(fails(scene, "bob", number), None);
            scene.failures.succeeded(&at("192.0.2.1"), "ann");
        }
        // Nor if the last was one's own.
        assert!(fails(scene, "ann", 9).is_some());
        scene.failures.succeeded(&at("192.0.2.1"), "ann");
        assert!(scene.is_refused("192.0.2.1"));
        // When all have faded, it is as if there had been none.
        scene.now += FORGIVEN_AFTER;
        (0..9).for_each(|number| assert_eq!(fails(scene, "ann", number), None));
        scene.failures.succeeded(&at("192.0.2.1"), "ann@mx.test");
        (0..9).for_each(|number| assert_eq!(fails(scene, "ann", number), None));
    }

    #[test]
    fn an_account_of_this_host_is_a_client_like_others() {
        let scene = Scene::new();
        let [nobody, other] = [65534, 1000].map(|uid| Peer::Account { uid });
        for number in 0..10 {
            scene.failures.failed(
                &nobody,
                "ann",
                Guess { hash: number, is_whole: true },
                true,
                scene.now,
            );
        }
        assert!(scene.failures.is_refused(&nobody, scene.now));
        assert!(!scene.failures.is_refused(&other, scene.now));
    }

    #[test]
    fn who_guesses_slowly_is_not_refused_and_who_is_faster_is() {
        let mut scene = Scene::new();
        for _ in 0..1000 {
            assert_eq!(scene.guesses("192.0.2.1"), None);
            scene.now += 3 * MINUTE;
        }
        let refused = (0..100).any(|_| {
            scene.now += 2 * MINUTE;
            scene.guesses("192.0.2.1").is_some()
        });
        assert!(refused);
    }

    #[test]
    fn a_device_with_an_old_password_locks_nobody_out() {
        let scene = &mut Scene::new();
        for _ in 0..10_000 {
            for device in ["printer", "scanner", "camera"] {
                assert_eq!(scene.fails("192.0.2.1", device), None);
            }
            scene.now += MINUTE;
        }
        // But a flood of it costs no time for ever.
        let count = (0..1000).take_while(|_| scene.fails("192.0.2.1", "printer").is_none()).count();
        assert_eq!(count, 99);
    }

    #[test]
    fn a_phone_whose_proofs_are_never_the_same_locks_nobody_out() {
        let scene = &mut Scene::new();
        let fails = |scene: &Scene, name: &str| {
            let guess = scene.failures.guess_at("SCRAM-SHA-256", name);
            scene.failures.failed(&at("192.0.2.1"), "ann", guess, false, scene.now)
        };
        for _ in 0..10_000 {
            assert_eq!(fails(scene, "Ann"), None);
            scene.now += MINUTE;
        }
        // Somebody who guesses is refused soon, and sooner with names that he guesses, too.
        let count = (0..1000).take_while(|_| fails(scene, "ann").is_none()).count();
        assert!((30..=33).contains(&count), "{count}");
        scene.now += 2 * FORGIVEN_AFTER;
        let count = (0..1000).take_while(|n| fails(scene, &n.to_string()).is_none()).count();
        assert_eq!(count, 9);
    }

    #[test]
    fn known_clients_are_refused_for_a_minute_at_most() {
        let scene = Scene::new();
        let mut now = scene.now;
        for number in 0..100_u32 {
            let guess = Guess { hash: number.into(), is_whole: true };
            let pause = scene.failures.failed(&at("127.0.0.1"), "ann", guess, true, now);
            assert!(pause.is_none_or(|pause| pause == MINUTE));
            now += pause.unwrap_or_default();
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let mut scene = Scene::new();
        for host in 0..10 {
            scene.guesses(&format!("2001:db8:0:1::{host:x}"));
        }
        assert!(scene.is_refused("2001:db8:0:1:ffff::1"));
        assert!(!scene.is_refused("2001:db8:0:2::1"));
    }

    #[test]
    fn the_quietest_of_too_many_addresses_is_forgotten() {
        let mut scene = Scene::new();
        (0..10)
            .for_each(|_| assert!(scene.guesses("192.0.2.1").is_none_or(|pause| pause == MINUTE)));
        scene.guesses("192.0.2.2");
        for number in 0..10_000_u32 {
            scene.now += Duration::from_millis(1);
            scene.guesses(&std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string());
        }
        let clients = scene.failures.clients();
        assert_eq!(clients.len(), MAX_CLIENTS);
        // Its pause ends after all of them.
        assert!(clients.contains_key(&Client::of(&at("192.0.2.1"))));
        assert!(!clients.contains_key(&Client::of(&at("192.0.2.2"))));
    }

    #[test]
    fn the_same_said_by_another_mechanism_is_another_guess() {
        let failures = Failures::default();
        let said =
            |mechanism, octets: &[u8]| failures.guess_with(failures.guess(mechanism), octets);
        assert_eq!(said("PLAIN", b"x"), said("PLAIN", b"x"));
        assert_ne!(said("PLAIN", b"x"), said("PLAIN", b"y"));
        assert_ne!(said("PLAIN", b"x"), said("LOGIN", b"x"));
    }
}
