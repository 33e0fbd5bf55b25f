//! The disk that a test looks over: it notes what was done, and fails what it was told to.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use mailwren::sys::disk::{Kind, Node, Operation, Verdict, Watcher};
use rustix::io::Errno;

/// A name in a folder, which is given by its inode.
#[derive(Clone, Debug)]
pub(crate) struct At {
    pub(crate) folder: u64,
    pub(crate) name: String,
}

/// What was done, in its order. Files are given by their inodes.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    MakeFolder {
        at: At,
        made: u64,
    },
    Create {
        at: At,
        file: u64,
    },
    CreateUnnamed {
        file: u64,
    },
    Write {
        file: u64,
        octets: Vec<u8>,
    },
    Truncate {
        file: u64,
        size: usize,
    },
    PushOut {
        file: u64,
    },
    FlushFile {
        file: u64,
    },
    /// A flush or a push that failed: what was not flushed before counts as lost.
    FailToFlush {
        file: u64,
    },
    FlushFolder {
        folder: u64,
    },
    FlushAll,
    Link {
        from: At,
        to: At,
    },
    LinkUnnamed {
        file: u64,
        to: At,
    },
    Rename {
        from: At,
        to: At,
    },
    Unlink {
        at: At,
    },
    /// The client heard 250, or that its message was not taken.
    Answer {
        key: String,
        is_accepted: bool,
    },
    /// The next hop has taken the message.
    Relay {
        key: String,
        to: String,
    },
}

impl Event {
    /// What a report calls it.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Write { file, octets } => format!("Write {} octets to {file}", octets.len()),
            event => format!("{event:?}"),
        }
    }
}

/// Which operations fail. They are counted from 1 once the recorder is armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    None,
    /// The n-th fails, and nothing of it happens.
    Whole(usize),
    /// The n-th fails; half of it is done if it is a write.
    Torn(usize),
    /// From the n-th on so many that need room or a flush fail; removing and cutting does not.
    Full(usize, usize),
}

#[derive(Debug)]
pub(crate) struct Recorder {
    has_unnamed_files: bool,
    orders_data_first: bool,
    notes: Mutex<Notes>,
    has_changed: Condvar,
}

#[derive(Debug)]
struct Notes {
    events: Vec<Event>,
    plan: Plan,
    count: usize,
    failed: Vec<String>,
    is_write: bool,
}

impl Recorder {
    pub(crate) fn new(has_unnamed_files: bool, orders_data_first: bool) -> Self {
        let (events, failed) = (Vec::new(), Vec::new());
        let notes = Notes { events, plan: Plan::None, count: 0, failed, is_write: false };
        let (notes, has_changed) = (Mutex::new(notes), Condvar::new());
        Self { has_unnamed_files, orders_data_first, notes, has_changed }
    }

    /// From now on operations are counted and fail as planned.
    pub(crate) fn arm(&self, plan: Plan) {
        self.notes().plan = plan;
    }

    pub(crate) fn note(&self, event: Event) {
        self.notes().events.push(event);
        self.has_changed.notify_all();
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.notes().events.clone()
    }

    /// What has failed, and whether the first of it was a write.
    pub(crate) fn failed(&self) -> (Vec<String>, bool) {
        let notes = self.notes();
        (notes.failed.clone(), notes.is_write)
    }

    /// Waits a moment for something to happen. Whether something did.
    pub(crate) fn wait(&self, known: usize) -> usize {
        const MOMENT: Duration = Duration::from_millis(5);
        let is_same = |notes: &mut Notes| notes.events.len() == known;
        let waited = self.has_changed.wait_timeout_while(self.notes(), MOMENT, is_same);
        waited.unwrap().0.events.len()
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }
}

impl Watcher for Recorder {
    fn before(&self, operation: &Operation<'_>) -> Verdict {
        if operation.kind == Kind::CreateUnnamed && !self.has_unnamed_files {
            return Verdict::Fail(Errno::OPNOTSUPP.into());
        }
        let mut notes = self.notes();
        if notes.plan == Plan::None {
            return Verdict::GoOn;
        }
        let needs_room = needs_room(operation.kind);
        if !matches!(notes.plan, Plan::Full(..)) || needs_room || notes.count == 0 {
            notes.count += 1;
        }
        let is_due = match notes.plan {
            Plan::None => false,
            Plan::Whole(n) | Plan::Torn(n) => notes.count == n,
            Plan::Full(n, many) => needs_room && (n..n + many).contains(&notes.count),
        };
        if !is_due {
            return Verdict::GoOn;
        }
        if notes.failed.is_empty() {
            notes.is_write = matches!(operation.kind, Kind::Write(_));
        }
        let text = text_of(operation);
        notes.failed.push(text);
        if let (Kind::FlushFile | Kind::PushOut, Some(file)) = (operation.kind, operation.file) {
            notes.events.push(Event::FailToFlush { file: inode(file) });
        }
        let errno = if needs_room && !is_flush(operation.kind) { Errno::NOSPC } else { Errno::IO };
        match (operation.kind, notes.plan) {
            (Kind::Write(octets), Plan::Torn(_)) => Verdict::Tear(octets.len() / 2, errno.into()),
            _ => Verdict::Fail(errno.into()),
        }
    }

    fn done(&self, operation: &Operation<'_>) {
        if let Some(event) = event(operation) {
            self.note(event);
        }
    }

    fn orders_data_first(&self) -> Option<bool> {
        Some(self.orders_data_first)
    }
}

const fn is_flush(kind: Kind<'_>) -> bool {
    matches!(kind, Kind::PushOut | Kind::FlushFile | Kind::FlushFolder | Kind::FlushAll)
}

/// Whether it can fail on a disk that is full.
const fn needs_room(kind: Kind<'_>) -> bool {
    kind.changes() && !matches!(kind, Kind::Unlink | Kind::Truncate(_))
}

fn text_of(operation: &Operation<'_>) -> String {
    let kind = format!("{:?}", operation.kind);
    let kind = kind.split('(').next().unwrap();
    let folder = operation.folder.or(operation.file).map(|it| it.path().unwrap());
    let folder = folder.unwrap_or_default();
    let name = operation.name.unwrap_or(std::path::Path::new(""));
    format!("{kind} {}", folder.join(name).display())
}

fn inode(node: Node<'_>) -> u64 {
    node.id().unwrap().1
}

fn event(operation: &Operation<'_>) -> Option<Event> {
    let file = || inode(operation.file.unwrap());
    let name = |name: &std::path::Path| name.to_str().unwrap().to_owned();
    let at =
        || At { folder: inode(operation.folder.unwrap()), name: name(operation.name.unwrap()) };
    let from = || {
        let (folder, old) = operation.from.unwrap();
        At { folder: inode(folder), name: name(old) }
    };
    Some(match operation.kind {
        Kind::MakeFolder => {
            use std::os::unix::fs::MetadataExt;
            let path = operation.folder.unwrap().path().unwrap().join(operation.name.unwrap());
            Event::MakeFolder { at: at(), made: std::fs::metadata(path).unwrap().ino() }
        }
        Kind::Create => Event::Create { at: at(), file: file() },
        Kind::CreateUnnamed => Event::CreateUnnamed { file: file() },
        Kind::Write(octets) => Event::Write { file: file(), octets: octets.to_vec() },
        Kind::Truncate(size) => Event::Truncate { file: file(), size: size as usize },
        Kind::PushOut => Event::PushOut { file: file() },
        Kind::FlushFile => Event::FlushFile { file: file() },
        Kind::FlushFolder => Event::FlushFolder { folder: inode(operation.folder.unwrap()) },
        Kind::FlushAll => Event::FlushAll,
        Kind::Link => Event::Link { from: from(), to: at() },
        Kind::LinkUnnamed => Event::LinkUnnamed { file: file(), to: at() },
        Kind::Rename => Event::Rename { from: from(), to: at() },
        Kind::Unlink => Event::Unlink { at: at() },
        _ => return None,
    })
}
