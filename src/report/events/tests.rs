//! The journal on a disk that is well, full, or away; and read while it turns over.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::reader::Reader;
use super::*;
use crate::report::event::Event;
use crate::sys::disk::faults::{FailNth, each_fault};
use crate::sys::disk::{Kind, Operation, Verdict, Watcher};

const SIZE: u64 = 64 << 10;

fn place(folder: &Path, size_octets: u64) -> Place {
    Place { folder: folder.to_owned(), size_octets }
}

fn numbered(number: u64) -> String {
    let fields = Fields::default().with("size", number).with_text("client", &"x".repeat(200));
    let id = Some(QueueId::with_number(number));
    event::line(1_800_000_000, id, Station::Received, &fields) + "\n"
}

/// The numbers of the events in the journal, and how many lines were none.
fn read(folder: &Path) -> (Vec<u64>, u64) {
    let mut numbers = Vec::new();
    let take = |event: Event| numbers.extend(event.id.map(QueueId::number));
    let unreadable = Reader::open(folder).unwrap().each(take).unwrap();
    (numbers, unreadable)
}

fn size_on_disk(folder: &Path) -> u64 {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn it_turns_over_within_its_size_and_keeps_the_newest() {
    let base = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(Disk::host());
    for batch in 0..60 {
        let lines: String = (0..20).map(|n| numbered(batch * 20 + n)).collect();
        writer.write(&place(base.path(), SIZE), lines.as_bytes()).unwrap();
        assert!(size_on_disk(base.path()) <= SIZE);
        let (numbers, unreadable) = read(base.path());
        assert_eq!((numbers.last(), unreadable), (Some(&(batch * 20 + 19)), 0));
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{}", numbers.len());
    }
    assert!(size_on_disk(base.path()) > SIZE / 2);
    let mode = |name| fs::metadata(base.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("events"), mode("events.1"), mode("events.3")], [0o640; 3]);
    assert!(!base.path().join("events.4").exists());

    // A batch that is larger than a file.
    let lines: String = (2000..2150).map(numbered).collect();
    writer.write(&place(base.path(), SIZE), lines.as_bytes()).unwrap();
    assert!(lines.len() as u64 > SIZE / 4 && size_on_disk(base.path()) <= SIZE);
    assert!(read(base.path()).0.ends_with(&(2000..2150).collect::<Vec<_>>()));
}

#[test]
fn another_size_holds_at_once_and_none_removes_it() {
    let base = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(Disk::host());
    let lines: String = (0..1500).map(numbered).collect();
    writer.write(&place(base.path(), 4 * SIZE), lines.as_bytes()).unwrap();
    assert!(size_on_disk(base.path()) > SIZE);
    writer.fit(&place(base.path(), SIZE)).unwrap();
    assert!(size_on_disk(base.path()) <= SIZE);
    writer.write(&place(base.path(), SIZE), numbered(1500).as_bytes()).unwrap();
    assert_eq!(read(base.path()).0.last(), Some(&1500));
    fs::write(base.path().join("other"), "x").unwrap();
    writer.fit(&place(base.path(), 0)).unwrap();
    writer.write(&place(base.path(), 0), numbered(1).as_bytes()).unwrap();
    assert_eq!((size_on_disk(base.path()), read(base.path()).0), (1, vec![]));
    writer.fit(&place(&base.path().join("missing"), 0)).unwrap();
}

#[test]
fn a_torn_line_spoils_no_other() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("events");
    let whole = numbered(1);
    for end in 1..whole.len() {
        fs::write(&path, [numbered(0).as_bytes(), &whole.as_bytes()[..end]].concat()).unwrap();
        let mut writer = Writer::new(Disk::host());
        writer.write(&place(base.path(), SIZE), numbered(2).as_bytes()).unwrap();
        assert_eq!(read(base.path()), (vec![0, 2], 1), "{end}");
    }
}

#[test]
fn what_is_no_line_is_counted_and_bounded() {
    let base = tempfile::tempdir().unwrap();
    let zeros = [0; 100];
    let long = [b'x'; 300_000];
    let (one, two) = (numbered(1), numbered(2));
    let parts = [
        one.as_bytes(),
        b"\n\xff\xfe\n\x1b[2J\n",
        &zeros,
        b"\n",
        &long,
        b"\n",
        two.as_bytes(),
        b"1970-01-01T00",
    ];
    fs::write(base.path().join("events"), parts.concat()).unwrap();
    assert_eq!(read(base.path()), (vec![1, 2], 6));
    assert_eq!(read(&base.path().join("missing")), (vec![], 0));
}

#[test]
fn any_fault_costs_lines_and_nothing_else() {
    each_fault(FailNth::new, |watcher| {
        let base = tempfile::tempdir().unwrap();
        let lines: String = (0..300).map(numbered).collect();
        fs::write(base.path().join("events"), &lines[..lines.len() / 6]).unwrap();
        let mut writer = Writer::new(Disk::watched(watcher.clone()));
        let place = place(base.path(), SIZE);
        let result = writer.fit(&place).and_then(|()| writer.write(&place, lines.as_bytes()));
        assert_eq!(result.is_err(), watcher.failed().is_some());
        writer.disk = Disk::host();
        writer.write(&place, numbered(999).as_bytes()).unwrap();
        assert_eq!(read(base.path()).0.last(), Some(&999));
        assert!(size_on_disk(base.path()) <= SIZE);
        result.is_ok()
    });
}

#[test]
fn a_torn_write_is_ended_by_the_next() {
    let base = tempfile::tempdir().unwrap();
    // It is opened, looked at, and written.
    fs::write(base.path().join("events"), "").unwrap();
    let mut writer = Writer::new(Disk::watched(Arc::new(FailNth::tearing(3, 30))));
    let place = place(base.path(), SIZE);
    writer.write(&place, numbered(1).as_bytes()).unwrap_err();
    assert_eq!(size_on_disk(base.path()), 30);
    writer.write(&place, numbered(2).as_bytes()).unwrap();
    assert_eq!(read(base.path()), (vec![2], 1));
}

#[test]
fn a_reader_misses_nothing_while_the_files_get_other_numbers() {
    let base = tempfile::tempdir().unwrap();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = Writer::new(Disk::host());
            for number in 0..4000 {
                writer.write(&place(base.path(), SIZE), numbered(number).as_bytes()).unwrap();
            }
            is_done.store(true, Ordering::Relaxed);
        });
        let mut newest = 0;
        while !is_done.load(Ordering::Relaxed) {
            let (numbers, unreadable) = read(base.path());
            assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{}", numbers.len());
            let last = numbers.last().copied().unwrap_or(0);
            assert!(last >= newest && unreadable <= 1, "{last} after {newest}, {unreadable}");
            newest = last;
        }
    });
}

/// A journal whose thread runs on `disk` while `work` is done; then its end is awaited.
fn running(journal: &Journal, disk: &Disk, work: impl FnOnce()) {
    thread::scope(|scope| {
        scope.spawn(|| journal.run(disk));
        work();
        journal.finish(Duration::from_secs(60));
    });
}

#[test]
fn what_is_noted_is_there_a_moment_later_and_at_the_end() {
    let base = tempfile::tempdir().unwrap();
    let journal = Journal::new();
    journal.note(None, Station::Stopped, &Fields::default().with("pid", 1));
    assert!(journal.set_place(place(base.path(), SIZE)));
    assert!(!journal.set_place(place(base.path(), SIZE)), "one thread is enough");
    let note = |number| {
        let fields = Fields::default().with("size", number);
        journal.note(Some(QueueId::with_number(number)), Station::Received, &fields);
    };
    running(&journal, &Disk::host(), || {
        let begin = Instant::now();
        note(1);
        while read(base.path()).0 != [1] {
            assert!(begin.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(5));
        }
        // Switched off, and on again elsewhere.
        journal.set_place(place(base.path(), 0));
        note(2);
        while base.path().join("events").exists() {
            assert!(begin.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(5));
        }
        journal.set_place(place(&base.path().join("other"), 8 * SIZE));
        (3..2000).for_each(note);
    });
    note(2000);
    let (numbers, unreadable) = read(&base.path().join("other"));
    assert!((numbers, unreadable) == ((3..2000).collect(), 0), "{unreadable}");
}

/// Has every write fail, or hang until it is let go.
#[derive(Debug, Default)]
struct Sick {
    hangs: AtomicBool,
}

impl Watcher for Sick {
    fn before(&self, operation: &Operation<'_>) -> Verdict {
        if !matches!(operation.kind, Kind::Write(_)) {
            return Verdict::GoOn;
        }
        while self.hangs.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        Verdict::Fail(rustix::io::Errno::NOSPC.into())
    }
}

#[test]
fn a_disk_that_is_full_or_hangs_holds_nobody_up() {
    let base = tempfile::tempdir().unwrap();
    let watcher = Arc::new(Sick { hangs: AtomicBool::new(true) });
    let disk = Disk::watched(watcher.clone());
    let journal = Journal::new();
    journal.set_place(place(base.path(), SIZE));
    let fields = Fields::default().with_text("client", &"x".repeat(2000));
    running(&journal, &disk, || {
        for _ in 0..1000 {
            journal.note(None, Station::Started, &fields);
        }
        assert!(journal.lock().lines.len() <= MAX_WAITING);
        watcher.hangs.store(false, Ordering::Relaxed);
    });
    assert_eq!(read(base.path()), (vec![], 0));
}
