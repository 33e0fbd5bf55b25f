//! The memory of who was answered, with its clock, its file and its faults.

use super::*;
use crate::sys::disk::faults::{FailNth, each_fault};
use std::fs;
use std::sync::{Arc, Barrier};
use std::thread;

const NOW: u64 = 1_795_312_000;
const DAY: u64 = 86_400;
const VERSION: Version = Version { modified: 1_795_000_000, size: 9 };

struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn memory(&self) -> Memory {
        Memory::new(Disk::host(), self.0.path())
    }

    fn ask(&self, sender: &str, now: u64) -> Turn {
        self.ask_with(sender, VERSION, now)
    }

    fn ask_with(&self, sender: &str, version: Version, now: u64) -> Turn {
        let (user, sender) = ("ann".parse().unwrap(), sender.parse().unwrap());
        self.memory().take_turn(&user, &sender, version, now).unwrap()
    }

    fn text(&self) -> String {
        fs::read_to_string(self.0.path().join("vacation/ann")).unwrap_or_default()
    }
}

#[test]
fn once_a_week_and_sender() {
    let fixture = Fixture::new();
    for (sender, after, expected) in [
        ("bob@x.test", 0, Turn::Granted),
        ("bob@x.test", 0, Turn::HadOne),
        ("BOB@X.test", DAY, Turn::HadOne),
        ("carl@x.test", DAY, Turn::Granted),
        ("bob@x.test", 7 * DAY - 1, Turn::HadOne),
        ("bob@x.test", 7 * DAY, Turn::Granted),
        ("bob@x.test", 8 * DAY, Turn::HadOne),
        ("carl@x.test", 8 * DAY, Turn::Granted),
        ("\"a b\"@x.test", 8 * DAY, Turn::Granted),
        ("\"a b\"@x.test", 9 * DAY, Turn::HadOne),
    ] {
        assert_eq!(fixture.ask(sender, NOW + after), expected, "{sender} {after}");
    }
}

#[test]
fn users_do_not_share_their_memory() {
    let fixture = Fixture::new();
    assert_eq!(fixture.ask("bob@x.test", NOW), Turn::Granted);
    let (ann_new, bob) = ("ann.new".parse().unwrap(), "bob@x.test".parse().unwrap());
    let turn = fixture.memory().take_turn(&ann_new, &bob, VERSION, NOW).unwrap();
    assert_eq!(turn, Turn::Granted);
    assert_eq!(fixture.ask("bob@x.test", NOW), Turn::HadOne);
}

#[test]
fn another_message_is_news_to_everybody() {
    let fixture = Fixture::new();
    assert_eq!(fixture.ask("bob@x.test", NOW), Turn::Granted);
    let touched = Version { modified: VERSION.modified + 1, ..VERSION };
    assert_eq!(fixture.ask_with("bob@x.test", touched, NOW), Turn::Granted);
    assert_eq!(fixture.ask_with("bob@x.test", touched, NOW), Turn::HadOne);
    let longer = Version { size: 10, ..touched };
    assert_eq!(fixture.ask_with("bob@x.test", longer, NOW), Turn::Granted);
}

#[test]
fn a_moment_that_is_yet_to_come_counts_as_now_and_is_written_down_as_such() {
    let fixture = Fixture::new();
    assert_eq!(fixture.ask("bob@x.test", NOW + 5000 * DAY), Turn::Granted);
    assert_eq!(fixture.ask("bob@x.test", NOW), Turn::HadOne);
    assert!(fixture.text().contains(&format!("\n{NOW} bob@x.test\n")), "{}", fixture.text());
    assert_eq!(fixture.ask("bob@x.test", NOW + 7 * DAY), Turn::Granted);
    let far = format!("{}\n{} bob@x.test\n", VERSION.to_line(), u64::MAX);
    fs::write(fixture.0.path().join("vacation/ann"), far).unwrap();
    assert_eq!(fixture.ask("bob@x.test", NOW), Turn::HadOne);
}

#[test]
fn a_flood_gets_few_replies_and_leaves_a_bounded_file() {
    let fixture = Fixture::new();
    let turns: Vec<_> = (0..100).map(|n| fixture.ask(&format!("u{n}@x.test"), NOW + n)).collect();
    let granted = turns.iter().filter(|turn| **turn == Turn::Granted).count();
    assert_eq!((granted, turns[60]), (MAX_PER_PERIOD, Turn::TooMany));
    assert_eq!(fixture.ask("late@x.test", NOW + PERIOD), Turn::Granted);

    let entries = (0..MAX_ENTRIES).map(|n| format!("{} u{n}@x.test\n", NOW - DAY + n as u64));
    let full = format!("{}\n{}", VERSION.to_line(), entries.collect::<String>());
    fs::write(fixture.0.path().join("vacation/ann"), full).unwrap();
    assert_eq!(fixture.ask("bob@x.test", NOW), Turn::Granted);
    assert_eq!(fixture.text().lines().count(), MAX_ENTRIES + 1);
    assert_eq!(fixture.ask("u1@x.test", NOW), Turn::HadOne);
    assert_eq!(fixture.ask("u0@x.test", NOW), Turn::Granted, "the oldest one has gone");
}

#[test]
fn what_cannot_be_read_counts_as_none() {
    let fixture = Fixture::new();
    let first = VERSION.to_line();
    fs::create_dir(fixture.0.path().join("vacation")).unwrap();
    for (text, expected) in [
        (String::new(), Turn::Granted),
        ("\0\u{e4}\n".into(), Turn::Granted),
        (format!("{first}\n\nx\n1 \n-1 bob@x.test\n1e9 bob@x.test\n"), Turn::Granted),
        (format!("{first}\nx\n{NOW} bob@x.test"), Turn::HadOne),
        (format!("{first}x\n{NOW} bob@x.test"), Turn::Granted),
    ] {
        fs::write(fixture.0.path().join("vacation/ann"), &text).unwrap();
        assert_eq!(fixture.ask("bob@x.test", NOW), expected, "{text:?}");
    }
    let huge = vec![b'\n'; usize::try_from(MAX_FILE).unwrap() + 1];
    fs::write(fixture.0.path().join("vacation/ann"), huge).unwrap();
    let (user, sender) = ("ann".parse().unwrap(), "bob@x.test".parse().unwrap());
    let error = fixture.memory().take_turn(&user, &sender, VERSION, NOW).unwrap_err();
    assert!(error.to_string().contains("vacation/ann: "), "{error}");
}

#[test]
fn of_many_at_once_one_has_the_turn() {
    let fixture = Fixture::new();
    for round in 0..20 {
        let barrier = Barrier::new(8);
        let sender = format!("u{round}@x.test");
        let ask = || {
            barrier.wait();
            fixture.ask(&sender, NOW)
        };
        let turns: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(turns.iter().filter(|turn| **turn == Turn::Granted).count(), 1, "{turns:?}");
    }
    assert_eq!(fixture.text().lines().count(), 21);
}

/// Asks with each operation of the disk failing in turn; gives their kinds.
fn ask_with_faults(has_memory: bool) -> Vec<String> {
    let mut failed = Vec::new();
    each_fault(FailNth::new, |watcher| {
        let fixture = Fixture::new();
        if has_memory {
            assert_eq!(fixture.ask("old@x.test", NOW), Turn::Granted);
        }
        let memory = Memory::new(Disk::watched(Arc::clone(watcher) as _), fixture.0.path());
        let (user, sender) = ("ann".parse().unwrap(), "bob@x.test".parse().unwrap());
        let turn = memory.take_turn(&user, &sender, VERSION, NOW);
        failed.extend(watcher.failed());
        assert_eq!(turn.is_err(), watcher.failed().is_some());
        // Either there is no reply, or there never is a second one.
        if turn.is_ok() {
            assert_eq!(fixture.ask("bob@x.test", NOW), Turn::HadOne);
        }
        if has_memory {
            assert_eq!(fixture.ask("old@x.test", NOW), Turn::HadOne, "{failed:?}");
        }
        turn.is_ok()
    });
    failed
}

#[test]
fn who_has_the_turn_is_on_disk_whatever_fails() {
    let replaced = ["Create", "Write", "FlushFile", "Rename", "FlushFolder"];
    let found = ["OpenFolder", "Lock", "Open", "Read"];
    assert_eq!(ask_with_faults(true), [&found[..], &replaced].concat());
    // The first one of all, with the folder itself: `state` is flushed, too.
    let made = ["OpenFolder", "OpenFolder", "MakeFolder", "OpenFolder", "Lock", "Open"];
    let last = ["OpenFolder", "FlushFolder"];
    assert_eq!(ask_with_faults(false), [&made[..], &replaced, &last].concat());
}
