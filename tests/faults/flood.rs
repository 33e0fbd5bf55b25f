//! Messages that become one: wherever the power goes, and whatever fails, each that got its 250 is
//! still in the spool, by itself or in a digest, or the next hop has it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use mailwren::config::settings::MailboxFormat;
use mailwren::spool::id::QueueId;
use mailwren::spool::progress::{Progress, State};
use mailwren::spool::store::SpoolReader;

use crate::model::{Flavour, Model, Names, Octets, Tree, restore};
use crate::recorder::{Event, Plan, Recorder};
use crate::scenario::{Case, DEADLINE, Direct, Scenario, Server, flood_keys, folder, prepare};
use crate::{judge, plays_all};

/// The messages: the first goes by itself, the others together.
const KEYS: [&str; 4] = ["m0", "m1", "m2", "m3"];

fn scenarios() -> Vec<Scenario> {
    let mixture = |mixture: usize| Scenario {
        format: MailboxFormat::Maildir,
        direct: Direct::Off,
        has_unnamed_files: mixture & 1 == 0,
        orders_data_first: mixture & 2 == 0,
        is_long: false,
        case: Case::Flood,
    };
    (0..4).map(mixture).collect()
}

/// Sends all of them, and waits until the next hop has what was taken.
fn send_all(scenario: &Scenario, root: &Path, recorder: &Arc<Recorder>) -> Vec<&'static str> {
    let server = Server::start(scenario, root, recorder).unwrap();
    let to = scenario.case.recipients();
    let accepted = KEYS.into_iter().filter(|key| server.send(key, to)).collect();
    wait_until_gathered(root);
    server.wait_until_idle();
    server.stop();
    accepted
}

/// Returns when all but the first wait for each other: whoever ends the window before has them sent
/// one by one.
fn wait_until_gathered(root: &Path) {
    let deadline = Instant::now() + DEADLINE;
    let spool = SpoolReader::open(&root.join("spool")).unwrap();
    let is_gathered = |id: &QueueId| match spool.load(*id) {
        Ok((_, Some(progress))) => progress.recipients.iter().any(|it| it.gathered_until.is_some()),
        _ => false,
    };
    while spool.ids().unwrap().iter().filter(|id| is_gathered(id)).count() < KEYS.len() - 1 {
        assert!(Instant::now() < deadline, "they were not gathered");
        std::thread::yield_now();
    }
}

/// How often the next hop has each message.
fn relayed(events: &[Event]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in events {
        if let Event::Relay { key, .. } = event {
            *counts.entry(key.clone()).or_default() += 1;
        }
    }
    counts
}

/// The messages that the spool still owes.
fn owed(root: &Path) -> BTreeSet<String> {
    let spool = SpoolReader::open(&root.join("spool")).unwrap();
    let mut owed = BTreeSet::new();
    for id in spool.ids().unwrap() {
        let Ok((message, progress)) = spool.load(id) else { continue };
        let progress = progress.unwrap_or_else(|| Progress::new(message.envelope()));
        let mut content = String::new();
        let is_read = message.reader().read_to_string(&mut content).is_ok();
        if is_read && progress.recipients.iter().any(|it| it.state == State::Pending) {
            owed.extend(flood_keys(&content));
        }
    }
    owed
}

/// What is lost if the power goes now, with so much relayed before; a start must relay the rest.
fn lost(
    scenario: &Scenario,
    tree: &Tree,
    accepted: &BTreeSet<String>,
    before: &BTreeMap<String, usize>,
    starts: bool,
) -> Vec<String> {
    let root = folder();
    restore(tree, root.path());
    let owed = owed(root.path());
    let is_lost = |key: &&String| !owed.contains(*key) && !before.contains_key(*key);
    let mut wrong: Vec<_> =
        accepted.iter().filter(is_lost).map(|key| format!("{key} is lost")).collect();
    if starts {
        let recorder = scenario.recorder();
        let server = Server::start(scenario, root.path(), &recorder).unwrap();
        server.wait_until_idle();
        server.stop();
        let after = relayed(&recorder.events());
        let is_missing = |key: &&String| !after.contains_key(*key);
        wrong.extend(owed.iter().filter(is_missing).map(|key| format!("{key} was not sent")));
        wrong.extend(after.get("half").map(|_| "half a message was sent".to_owned()));
    }
    wrong
}

fn cut_power(scenario: &Scenario, violations: &mut Vec<String>) -> usize {
    let root = folder();
    prepare(scenario, root.path());
    let mut model = Model::new(root.path(), scenario.orders_data_first);
    let recorder = scenario.recorder();
    assert_eq!(send_all(scenario, root.path(), &recorder), KEYS);
    let events = recorder.events();
    let counts = relayed(&events);
    assert!(KEYS.iter().all(|key| counts.get(*key) == Some(&1)), "{counts:?}");
    let is_digest = |event: &Event| match event {
        Event::Write { octets, .. } => String::from_utf8_lossy(octets).contains("multipart/digest"),
        _ => false,
    };
    assert!(events.iter().any(is_digest), "{scenario}: nothing was gathered");
    let (mut accepted, mut known, mut runs) = (BTreeSet::new(), HashSet::new(), 0);
    for (moment, event) in events.iter().enumerate() {
        model.apply(event);
        if let Event::Answer { key, .. } = event {
            accepted.insert(key.clone());
        }
        let before = relayed(&events[..=moment]);
        for flavour in model.flavours() {
            let tree = model.tree(flavour);
            let mut hasher = DefaultHasher::new();
            (&tree, &accepted, &before).hash(&mut hasher);
            if !known.insert(hasher.finish()) {
                continue;
            }
            runs += 1;
            let plain: Flavour = (Names::All, Octets::Written);
            let starts = plays_all() || flavour == plain;
            for text in lost(scenario, &tree, &accepted, &before, starts) {
                let event = event.text();
                violations.push(format!("{scenario}: {text}; cut at {event}, {flavour:?}"));
            }
        }
    }
    runs
}

#[test]
fn the_power_may_go_at_any_moment_of_a_flood() {
    let (mut runs, mut violations) = (0, Vec::new());
    for scenario in scenarios() {
        runs += cut_power(&scenario, &mut violations);
    }
    judge(runs, violations);
}

/// Fails the n-th operation. Whether there was one.
fn fail(scenario: &Scenario, n: usize, violations: &mut Vec<String>) -> bool {
    let root = folder();
    prepare(scenario, root.path());
    let recorder = scenario.recorder();
    let server = Server::start(scenario, root.path(), &recorder).unwrap();
    recorder.arm(Plan::Whole(n));
    let to = scenario.case.recipients();
    let accepted: Vec<_> = KEYS.into_iter().filter(|key| server.send(key, to)).collect();
    server.wait_until_idle();
    server.stop();
    let (failed, _) = recorder.failed();
    let counts = relayed(&recorder.events());
    for key in KEYS {
        let count = counts.get(key).copied().unwrap_or(0);
        let expected = usize::from(accepted.contains(&key));
        if count != expected {
            violations.push(format!("{scenario}, {n} {failed:?}: {key} was sent {count} times"));
        }
    }
    if counts.contains_key("half") {
        violations.push(format!("{scenario}, {n} {failed:?}: half a message was sent"));
    }
    !failed.is_empty()
}

#[test]
fn any_operation_may_fail_in_a_flood() {
    let (mut runs, mut violations) = (0, Vec::new());
    for scenario in scenarios() {
        let mut n = 1;
        while fail(&scenario, n, &mut violations) {
            n += 1;
        }
        assert!(n > 20, "few operations were seen");
        runs += n;
    }
    judge(runs, violations);
}
