//! What got its 250 is delivered, queued or bounced, whatever fails and whenever the power goes:
//! the argument of `src/ARCHITECTURE.md`, played row by row.
//!
//! A message is sent to a real spool, queue manager and delivery thread on a disk that notes each
//! operation ([`recorder`]). Then the power is cut: after each operation, in the middle of each
//! write, and after each 250. What the disk may hold at that moment is worked out in all
//! [flavours](model), made into files, and a new server starts on them ([`replay`]). Or each
//! operation fails in turn, a write in its middle too, or many in a row, and the server lives on.
//!
//! What must hold of each recipient of a message:
//!
//! - With a 250 there is a whole copy in the mailbox, or the queue has it, or the next hop took it,
//!   or a report says that it failed: in each flavour, at each moment from the 250 on.
//! - After the next start there are exactly as many copies as the cut has left, and one more if
//!   the queue still owed one: so twice only where the copy was there and no record of it was.
//! - Once the record says so, in a flavour, it is never owed again in that flavour. What was
//!   delivered while the client waited is on record before the message is in the queue.
//! - Without a cut there is exactly one copy if it got its 250, and at most one if not; what was
//!   refused is not in the queue.
//! - No mailbox has half a message: in `new` only whole files; in an mbox one that breaks off
//!   stands at the end after a cut, what was before it is as it was, and the next one is whole.
//! - Nothing stays in the spool, no lock beside an mbox, and nothing in `tmp` after a mere error.
//! - What is gathered of a flood is in the spool by itself until the digest is ([`flood`]).
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "faults/flood.rs"]
mod flood;
#[path = "faults/found.rs"]
mod found;
#[path = "faults/model.rs"]
mod model;
#[path = "faults/recorder.rs"]
mod recorder;
#[path = "faults/replay.rs"]
mod replay;
#[path = "faults/scenario.rs"]
mod scenario;

use std::path::Path;

use mailwren::config::settings::MailboxFormat;

use found::look;
use model::{Model, tree_of};
use recorder::{Event, Plan};
use replay::{Replay, items, relayed};
use scenario::{Case, Direct, Scenario, Server, UNFINISHED, folder, leave_behind, prepare};

/// The most violations that are told.
const MAX_TOLD: usize = 12;

/// Whether every scenario is played, and the power cut at each moment after a fault too: that
/// takes many minutes.
fn plays_all() -> bool {
    std::env::var_os("MAILWREN_ALL_FAULTS").is_some()
}

/// What is played for a format: every mixture of what the disk can do with each way of taking
/// a message, and the recipients in turn.
fn scenarios(format: MailboxFormat) -> Vec<Scenario> {
    let mut all = Vec::new();
    for (number, case) in Case::ALL.into_iter().enumerate() {
        for (way, direct) in [Direct::Off, Direct::Patient, Direct::Hasty].into_iter().enumerate() {
            for mixture in 0..8 {
                let (has_unnamed_files, orders_data_first) = (mixture & 1 == 0, mixture & 2 == 0);
                let is_long = mixture & 4 != 0;
                let is_played = (number + 3 * way + mixture) % 9 == 0;
                if plays_all() || is_played {
                    all.push(Scenario {
                        format,
                        direct,
                        has_unnamed_files,
                        orders_data_first,
                        is_long,
                        case,
                    });
                }
            }
        }
    }
    all
}

/// Every `step`-th of them, or all if so told.
fn some_of(scenarios: Vec<Scenario>, step: usize) -> impl Iterator<Item = Scenario> {
    scenarios.into_iter().step_by(if plays_all() { 1 } else { step })
}

/// Fails with what was found, if something was.
fn judge(runs: usize, violations: Vec<String>) {
    let told = violations.iter().take(MAX_TOLD).cloned().collect::<Vec<_>>().join("\n");
    assert!(violations.is_empty(), "{} in {runs} runs:\n{told}", violations.len());
    assert!(runs > 0);
}

/// Plays one message without a fault, and cuts the power at every moment.
fn cut_power(scenario: &Scenario, violations: &mut Vec<String>) -> usize {
    let root = folder();
    prepare(scenario, root.path());
    let mut model = Model::new(root.path(), scenario.orders_data_first);
    let recorder = scenario.recorder();
    let server = Server::start(scenario, root.path(), &recorder).unwrap();
    assert!(server.send("m1", scenario.case.recipients()), "{scenario}");
    server.wait_until_idle();
    server.stop();
    let mut replay = Replay::new(scenario, String::new(), true);
    for event in recorder.events() {
        replay.step(&mut model, &event);
    }
    let written = model.tree((model::Names::All, model::Octets::Written));
    assert!(written == tree_of(root.path()), "{scenario}: the model is not like the disk");
    violations.append(&mut replay.violations);
    replay.runs
}

#[test]
fn the_power_may_go_at_any_moment_with_maildirs() {
    let (mut runs, mut violations) = (0, Vec::new());
    for scenario in scenarios(MailboxFormat::Maildir) {
        runs += cut_power(&scenario, &mut violations);
    }
    judge(runs, violations);
}

#[test]
fn the_power_may_go_at_any_moment_with_mboxes() {
    let (mut runs, mut violations) = (0, Vec::new());
    for scenario in some_of(scenarios(MailboxFormat::Mbox), 2) {
        runs += cut_power(&scenario, &mut violations);
    }
    judge(runs, violations);
}

/// Cuts the power at every moment of a start on what a run before has left.
fn cut_start(scenario: &Scenario, violations: &mut Vec<String>) -> usize {
    let root = folder();
    prepare(scenario, root.path());
    leave_behind(scenario, root.path());
    let mut model = Model::new(root.path(), scenario.orders_data_first);
    let recorder = scenario.recorder();
    recorder.note(Event::Answer { key: "m1".to_owned(), is_accepted: true });
    let server = Server::start(scenario, root.path(), &recorder).unwrap();
    server.wait_until_idle();
    server.stop();
    let mut replay = Replay::new(scenario, ", at the start".to_owned(), true);
    for event in recorder.events() {
        replay.step(&mut model, &event);
    }
    violations.append(&mut replay.violations);
    replay.runs
}

/// Fails the n-th operation of a start on what a run before has left; then starts again.
/// Whether anything has failed.
fn fail_start(scenario: &Scenario, n: usize, violations: &mut Vec<String>) -> bool {
    let root = folder();
    prepare(scenario, root.path());
    leave_behind(scenario, root.path());
    let recorder = scenario.recorder();
    recorder.arm(Plan::Whole(n));
    // Where it cannot start it says so, and somebody starts it again.
    if let Ok(server) = Server::start(scenario, root.path(), &recorder) {
        server.wait_until_idle();
        server.stop();
    }
    let (failed, _) = recorder.failed();
    recorder.arm(Plan::None);
    let server = Server::start(scenario, root.path(), &recorder).unwrap();
    server.wait_until_idle();
    assert!(server.send("m2", replay::EVERYBODY), "{scenario}");
    server.wait_until_idle();
    server.stop();
    let complain = |text| violations.push(format!("{scenario}, start {n} {failed:?}: {text}"));
    compare(scenario, root.path(), &recorder.events(), true, complain);
    !failed.is_empty()
}

#[test]
fn a_start_may_fail_or_be_cut_off_anywhere() {
    let (mut runs, mut violations) = (0, Vec::new());
    for format in [MailboxFormat::Maildir, MailboxFormat::Mbox] {
        for scenario in some_of(scenarios(format), 6) {
            runs += cut_start(&scenario, &mut violations);
            let mut n = 1;
            while fail_start(&scenario, n, &mut violations) {
                n += 1;
            }
            runs += n;
        }
    }
    judge(runs, violations);
}

/// Plays one message on a disk that fails as planned, and another when it is well again; then
/// starts once more. Gives what has failed, and whether the first of it was a write.
fn fail(scenario: &Scenario, plan: Plan, violations: &mut Vec<String>) -> (Vec<String>, bool) {
    let root = folder();
    prepare(scenario, root.path());
    let mut model = Model::new(root.path(), scenario.orders_data_first);
    let recorder = scenario.recorder();
    let server = Server::start(scenario, root.path(), &recorder).unwrap();
    recorder.arm(plan);
    let is_accepted = server.send("m1", scenario.case.recipients());
    server.wait_until_idle();
    let (failed, is_write) = recorder.failed();
    recorder.arm(Plan::None);
    let name = format!("{scenario}, {plan:?} {failed:?}");
    if !server.send("m2", replay::EVERYBODY) {
        violations.push(format!("{name}: refused on a disk that is well"));
    }
    server.wait_until_idle();
    server.stop();
    let events = recorder.events();
    Server::start(scenario, root.path(), &scenario.recorder()).unwrap().stop();
    let complain = |text: String| violations.push(format!("{name}: {text}"));
    compare(scenario, root.path(), &events, is_accepted, complain);
    let mut replay = Replay::new(scenario, format!(", after {plan:?} {failed:?}"), plays_all());
    for event in &events {
        // What becomes of the second message is none of its business.
        if matches!(event, Event::Answer { key, .. } if key == "m2") {
            break;
        }
        match plays_all() {
            true => replay.step(&mut model, event),
            false => replay.step_to_answer(&mut model, event),
        }
    }
    violations.append(&mut replay.violations);
    (failed, is_write)
}

/// Whether what is in the mailboxes when all is done is what should be there.
fn compare(
    scenario: &Scenario,
    root: &Path,
    events: &[Event],
    is_accepted: bool,
    mut complain: impl FnMut(String),
) {
    let found = match look(scenario, root) {
        Ok(found) => found,
        Err(text) => return complain(text),
    };
    let mut copies = found.copies;
    relayed(events, &mut copies);
    let second = items("m2", replay::EVERYBODY).into_iter().map(|item| (item, 1..=1));
    let first = items("m1", scenario.case.recipients()).into_iter();
    let first = first.map(|item| (item, usize::from(is_accepted)..=1));
    for (item, range) in first.chain(second) {
        let count = copies.remove(&item).unwrap_or(0);
        if !range.contains(&count) {
            complain(format!("{item:?} is there {count} times, accepted: {is_accepted}"));
        }
    }
    if !copies.is_empty() || found.torn > 0 || found.temporary > 0 {
        complain(format!("{copies:?}, {} torn, {} in tmp", found.torn, found.temporary));
    }
    // One that could not be looked at when it was to be removed is set aside.
    let may_stay = format!("corrupt/{UNFINISHED}");
    let left_over: Vec<_> = found.left_over.iter().filter(|name| **name != may_stay).collect();
    if !left_over.is_empty() {
        complain(format!("left over: {left_over:?}"));
    }
}

/// Fails each operation of a message, one by one.
fn fail_each(format: MailboxFormat) {
    let (mut runs, mut violations) = (0, Vec::new());
    for scenario in some_of(scenarios(format), 2) {
        for n in 1.. {
            let (failed, is_write) = fail(&scenario, Plan::Whole(n), &mut violations);
            if failed.is_empty() {
                assert!(n > 1, "no operation was seen");
                break;
            }
            runs += 1;
            if is_write {
                fail(&scenario, Plan::Torn(n), &mut violations);
                runs += 1;
            }
        }
    }
    judge(runs, violations);
}

#[test]
fn any_operation_may_fail_with_maildirs() {
    fail_each(MailboxFormat::Maildir);
}

#[test]
fn any_operation_may_fail_with_mboxes() {
    fail_each(MailboxFormat::Mbox);
}

#[test]
fn the_disk_may_be_full_for_a_while() {
    let (mut runs, mut violations) = (0, Vec::new());
    for format in [MailboxFormat::Maildir, MailboxFormat::Mbox] {
        for scenario in some_of(scenarios(format), 3) {
            for n in 1.. {
                let (failed, _) = fail(&scenario, Plan::Full(n, 4 + n % 9), &mut violations);
                if failed.is_empty() {
                    break;
                }
                runs += 1;
            }
        }
    }
    judge(runs, violations);
}
