//! The spool's own tests: what is kept, what is swept away, what is damaged.

use super::*;
use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::dsn_request::MessageRequest;
use crate::spool::envelope::Body;
use crate::spool::progress::State;
use crate::sys::disk::faults::{FailNth, each_fault};
use crate::sys::disk::{Kind, Operation, Verdict, Watcher};
use std::fs;
use std::io::Read;

/// Runs `test` with a fresh spool, once for each way in which a draft can be made.
fn both_ways(test: impl Fn(&Path, &dyn Fn() -> Arc<Spool>)) {
    for has_unnamed_files in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let watcher = Arc::new(FailNth::new(0).on(has_unnamed_files, true));
        let disk = Disk::watched(watcher);
        test(&path, &|| Spool::open_on(&path, &disk).unwrap());
    }
}

fn envelope() -> Envelope {
    Envelope {
        id: QueueId::generate(1_795_000_000_000_000, 0),
        received_at: 1_795_000_000,
        client: "192.0.2.1".into(),
        reverse_path: ReversePath::Null,
        recipients: ["ann@h", "bob@h"].map(|to| to.parse::<Mailbox>().unwrap().into()).into(),
        body: Body::SevenBit,
        request: MessageRequest::default(),
    }
}

fn keep(spool: &Arc<Spool>, content: &[u8]) -> QueueId {
    let mut draft = spool.draft(envelope());
    content.chunks(10_000).for_each(|part| draft.write(part).unwrap());
    draft.commit().unwrap().0.id()
}

fn content(message: &StoredMessage) -> Vec<u8> {
    let mut content = Vec::new();
    message.reader().read_to_end(&mut content).unwrap();
    content
}

fn names(path: &Path, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(path.join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_is_committed_outlives_the_process_and_nothing_else_does() {
    both_ways(|path, open| {
        let long = vec![b'x'; 200_000];
        let spool = open();
        let kept = [keep(&spool, b""), keep(&spool, b"short\r\n"), keep(&spool, &long)];
        let mut dropped = spool.draft(envelope());
        dropped.write(&long).unwrap();
        drop(dropped);
        assert_eq!(names(path, "queue").len(), 3);
        let mut unfinished = spool.draft(envelope());
        unfinished.write(&long).unwrap();
        // As if the process had been killed here.
        std::mem::forget(unfinished);
        drop(spool);
        fs::remove_file(path.join("lock")).unwrap();
        let spool = open();
        assert_eq!(spool.found().unwrap(), kept);
        assert_eq!(names(path, "queue").len(), 3);
        for (id, expected) in kept.into_iter().zip([&b""[..], b"short\r\n", &long]) {
            let (message, progress) = spool.load(id).unwrap();
            assert_eq!((content(&message).as_slice(), progress), (expected, None));
        }
    });
}

#[test]
fn a_name_that_is_taken_is_never_replaced() {
    both_ways(|path, open| {
        let spool = open();
        let id = keep(&spool, b"the first\r\n");
        let mut draft = spool.draft(Envelope { id, ..envelope() });
        draft.write(b"the second\r\n").unwrap();
        assert!(draft.commit().is_err());
        assert_eq!(content(&spool.load(id).unwrap().0), b"the first\r\n");
        assert_eq!(names(path, "queue"), [id.to_string()]);
    });
}

#[test]
fn records_are_replaced_whole_and_go_with_their_message() {
    both_ways(|path, open| {
        let spool = open();
        let (id, other) = (keep(&spool, b"x"), keep(&spool, b"y"));
        let mut progress = Progress::new(&envelope());
        for state in [State::Pending, State::Done, State::Failed] {
            progress.attempts += 1;
            progress.recipients[1].state = state;
            spool.record(id, &progress).unwrap();
            assert_eq!(spool.load(id).unwrap().1, Some(progress.clone()));
        }
        // A disk that does not take the next record leaves the last one.
        fs::create_dir(path.join(format!("state/{id}.new"))).unwrap();
        assert!(spool.record(id, &Progress::new(&envelope())).is_err());
        assert_eq!(spool.load(id).unwrap().1, Some(progress.clone()));
        fs::remove_dir(path.join(format!("state/{id}.new"))).unwrap();
        spool.remove(id, true).unwrap();
        spool.remove(other, true).unwrap();
        spool.remove(other, true).unwrap();
        assert!(names(path, "queue").is_empty() && names(path, "state").is_empty());
    });
}

#[test]
fn one_bad_file_does_not_keep_the_server_down() {
    both_ways(|path, open| {
        let spool = open();
        let id = keep(&spool, b"x\r\n");
        fs::create_dir(path.join("queue/0000000000001")).unwrap();
        let ids = spool.found().unwrap();
        assert!(ids.contains(&id), "{ids:?}");
        assert!(matches!(
            spool.load_found("0000000000001".parse().unwrap()),
            Err(ReadError::Io(_) | ReadError::Incomplete)
        ));
    });
}

#[test]
fn a_damaged_message_is_set_aside_with_its_record() {
    both_ways(|path, open| {
        let spool = open();
        let damages: [fn(Vec<u8>) -> Vec<u8>; 3] = [
            |bytes| [b"x", &bytes[1..]].concat(),
            |bytes| bytes[..bytes.len() / 2].to_vec(),
            |bytes| String::from_utf8(bytes).unwrap().replace("to <", "to ").into(),
        ];
        for damage in damages {
            let id = keep(&spool, b"x\r\n");
            spool.record(id, &Progress::new(&envelope())).unwrap();
            let file = path.join("queue").join(id.to_string());
            fs::write(&file, damage(fs::read(&file).unwrap())).unwrap();
            assert!(spool.load(id).is_err());
            assert!(path.join("corrupt").join(id.to_string()).exists());
            assert!(path.join("corrupt").join(format!("{id}.state")).exists());
        }
        assert!(names(path, "queue").is_empty() && names(path, "state").is_empty());
    });
}

#[test]
fn a_copy_under_another_name_is_not_taken_for_the_original() {
    both_ways(|path, open| {
        let spool = open();
        let id = keep(&spool, b"x\r\n");
        let queue = path.join("queue");
        fs::copy(queue.join(id.to_string()), queue.join("0000000000001")).unwrap();
        let copy = "0000000000001".parse().unwrap();
        assert!(matches!(spool.load(copy), Err(ReadError::Malformed)));
        assert!(spool.load(id).is_ok());
    });
}

#[test]
fn a_malformed_record_counts_for_nothing() {
    both_ways(|path, open| {
        let spool = open();
        let id = keep(&spool, b"x\r\n");
        for record in [&b""[..], b"\xff\xfe", b"mailwren-state 1\n", b"mailwren-state 1\nattempts"]
        {
            fs::write(path.join("state").join(id.to_string()), record).unwrap();
            assert_eq!(spool.load(id).unwrap().1, None, "{record:?}");
        }
    });
}

#[test]
fn only_one_process_has_the_spool() {
    both_ways(|path, open| {
        let spool = open();
        let error = Spool::open(path).unwrap_err();
        assert!(error.to_string().contains("another mailwren"), "{error}");
        drop(spool);
        assert!(Spool::open(path).is_ok());
    });
}

/// A message kept, with a record, until an operation fails.
fn keep_on(path: &Path, disk: &Disk) -> io::Result<()> {
    let spool = Spool::open_on(path, disk)?;
    let mut draft = spool.draft(envelope());
    draft.write(&[b'x'; 200_000])?;
    draft.commit().map(|_| ())
}

/// Gives the first server's spool back once the second has looked twice whether it has.
#[derive(Debug)]
struct Ending(Mutex<(usize, Option<Arc<Spool>>)>);

impl Watcher for Ending {
    fn before(&self, operation: &Operation<'_>) -> Verdict {
        if operation.kind == Kind::Lock {
            let mut ending = self.0.lock().unwrap();
            ending.0 += 1;
            if ending.0 == 2 {
                ending.1 = None;
            }
        }
        Verdict::GoOn
    }
}

#[test]
fn whoever_is_about_to_give_the_spool_back_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let first = Spool::open(folder.path()).unwrap();
    let disk = Disk::watched(Arc::new(Ending(Mutex::new((0, Some(first))))));
    let second = Spool::open_on(folder.path(), &disk).unwrap();
    let error = Spool::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("another mailwren has this spool"), "{error}");
    drop(second);
}

#[test]
fn what_cannot_be_committed_leaves_nothing() {
    for (has_unnamed_files, tear_at) in [(true, 0), (false, 0), (true, 9), (false, 9)] {
        let disk = |n| FailNth::tearing(n, tear_at).on(has_unnamed_files, true);
        each_fault(disk, |watcher| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("spool");
            let result = keep_on(&path, &Disk::watched(watcher.clone()));
            let spool = Spool::open(&path).unwrap();
            let left: Vec<_> = names(&path, "queue");
            let is_removal = watcher.failed().as_deref() == Some("Unlink");
            assert!(
                is_removal || left.len() == usize::from(result.is_ok()),
                "{watcher:?} {left:?}"
            );
            let ids = spool.found().unwrap();
            assert_eq!(ids.len(), usize::from(result.is_ok()), "{watcher:?}");
            assert_eq!(names(&path, "queue").len(), ids.len());
            result.is_ok()
        });
    }
}

#[test]
fn a_record_is_the_last_or_the_new_one_whatever_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let id = keep(&Spool::open(&path).unwrap(), b"x");
    let mut progress = Progress::new(&envelope());
    progress.recipients[0].state = State::Done;
    each_fault(
        |n| FailNth::tearing(n, 5),
        |watcher| {
            Spool::open(&path).unwrap().record(id, &progress).unwrap();
            let mut next = progress.clone();
            next.attempts += 1;
            let spool = Spool::open_on(&path, &Disk::watched(watcher.clone()));
            let recorded = spool.and_then(|spool| spool.record(id, &next));
            let known = Spool::open(&path).unwrap().load(id).unwrap().1.unwrap();
            let is_last = known == progress && recorded.is_err();
            assert!(known == next || is_last, "{watcher:?}");
            assert!(!names(&path, "state").contains(&format!("{id}.new")), "{watcher:?}");
            progress = known;
            recorded.is_ok()
        },
    );
}

#[test]
fn a_clock_that_was_set_back_gives_no_name_twice() {
    both_ways(|path, open| {
        let spool = open();
        // The names that an earlier run gave away in the time to which the clock was set.
        let last = QueueId::generate(0, 0).number();
        let file = |number| path.join("queue").join(QueueId::with_number(number).to_string());
        (1..500).for_each(|more| fs::write(file(last + more), "").unwrap());
        let id = spool.new_id(Duration::ZERO);
        assert!(!file(id.number()).exists() && id.number() >= last + 500);
    });
}

#[test]
fn what_was_never_finished_or_is_left_over_is_removed() {
    both_ways(|path, open| {
        let spool = open();
        let (whole, cut) = (keep(&spool, b"x\r\n"), keep(&spool, b"y\r\n"));
        spool.record(whole, &Progress::new(&envelope())).unwrap();
        spool.record(cut, &Progress::new(&envelope())).unwrap();
        let cut_path = path.join("queue").join(cut.to_string());
        let bytes = fs::read(&cut_path).unwrap();
        fs::write(&cut_path, &bytes[..bytes.len() - 1]).unwrap();
        fs::write(path.join("queue/0000000000001"), "").unwrap();
        fs::write(path.join("queue/0000000000001.draft"), "half").unwrap();
        fs::write(path.join("state").join(format!("{whole}.new")), "half").unwrap();
        fs::write(path.join("queue/README"), "a person's").unwrap();
        let found = spool.found().unwrap();
        assert_eq!(found.len(), 3);
        let loaded: Vec<_> = found.iter().map(|id| spool.load_found(*id)).collect();
        let is_unfinished = |it: &Result<_, _>| matches!(it, Err(ReadError::Incomplete));
        assert_eq!(loaded.iter().filter(|it| is_unfinished(it)).count(), 2);
        assert_eq!(spool.found().unwrap(), [whole]);
        let mut left = names(path, "queue");
        left.retain(|name| name != "README");
        assert_eq!(left, [whole.to_string()]);
        assert!(path.join("queue/README").exists());
        assert_eq!(names(path, "state"), [whole.to_string()]);
    });
}
