//! How another process tells the daemon to look at a message: by an empty file in `wake/`. Its
//! name says all, so that it outlives either process and can be lost without harm, since what
//! is to be done stands in the message's record. Where a person has decided it the name says who,
//! for the daemon's log and journal: `ID.held.0.root`.
//!
//! The daemon keeps the folder locked while it listens, which shows whether anybody does.

use std::io;
use std::path::{Path, PathBuf};

use crossbeam_channel::Sender;

use crate::report::event::Station;
use crate::report::station;
use crate::spool::id::QueueId;
use crate::spool::manager::Order;
use crate::sys::disk::{Disk, Folder, Open};
use crate::sys::folder_events::FolderEvents;

/// The name that asks for the whole queue to be tried.
const ALL: &str = "all";
/// What the name of a message ends with that somebody waits for.
const WANTED_SUFFIX: &str = ".wanted";

/// What a person decides.
const DECISIONS: [Station; 4] =
    [Station::Held, Station::Released, Station::GivenUp, Station::Deleted];

/// What a person has decided of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The message.
    pub id: QueueId,
    /// What was decided.
    pub station: Station,
    /// The user id of who did.
    pub uid: u32,
    /// Who that is: printable ASCII, a name for people.
    pub by: String,
}

/// The daemon's end.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    folder: Folder,
    events: FolderEvents,
}

impl Listener {
    /// Listens in the spool in `path`.
    ///
    /// # Errors
    /// When its folder can be neither opened nor made.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = path.join("wake");
        let folder = Disk::host().make_private_folder(&path)?;
        let events = FolderEvents::watch(&path);
        Ok(Self { path, folder, events })
    }

    /// Passes on what is asked for, until nobody takes it any more. Files that an earlier
    /// daemon has not seen count, too.
    pub fn run(mut self, orders: &Sender<Order>) {
        loop {
            // Waits while a command looks whether anybody listens.
            if let Err(error) = self.folder.lock() {
                log::warn!("{}: cannot be locked: {error}", self.path.display());
            }
            while self.is_there() {
                if !self.look(orders) {
                    return;
                }
                self.events.wait();
            }
            // Only where a spool is: an empty mount point must stay one.
            let spool = self.path.with_file_name("");
            match Disk::host().look_at(&spool.join("queue")).and_then(|_| Self::open(&spool)) {
                Ok(anew) => self = anew,
                Err(_) => self.events.wait(),
            }
        }
    }

    /// Passes on what is in the folder; `false` when nobody takes it.
    fn look(&self, orders: &Sender<Order>) -> bool {
        let mut names = Vec::new();
        if let Err(error) = self.folder.each_name(|name| names.push(name.to_owned())) {
            log::warn!("{}: cannot be read: {error}", self.path.display());
        }
        for name in names {
            // Removed first: whatever is asked for from here on makes a new file.
            if let Err(error) = self.folder.unlink(&name) {
                log::warn!("{}/{name:?}: cannot be removed: {error}", self.path.display());
            }
            let decision = Decision::from_name(&name);
            // Told first: what comes of it is told behind it.
            decision.iter().for_each(Decision::tell);
            let order = decision.map(|it| Order::LookAgain(it.id)).or_else(|| order(&name));
            if let Some(order) = order
                && orders.send(order).is_err()
            {
                return false;
            }
        }
        true
    }

    /// Whether the folder is still the one that is watched.
    fn is_there(&self) -> bool {
        match (self.folder.status(), Disk::host().look_at(&self.path)) {
            (Ok(ours), Ok(there)) => ours.identity() == there.identity(),
            (_, Err(error)) => error.kind() != io::ErrorKind::NotFound,
            (Err(_), Ok(_)) => true,
        }
    }
}

/// A command's end.
#[derive(Debug)]
pub struct Bell {
    folder: Folder,
}

impl Bell {
    /// The bell of the spool in `path`.
    ///
    /// # Errors
    /// When its folder can be neither opened nor made.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { folder: Disk::host().make_private_folder(&path.join("wake"))? })
    }

    /// Asks the daemon for something, now or when it runs again.
    ///
    /// # Errors
    /// When the file cannot be made; `Unsupported` for an order that is not given in this way.
    pub fn ring(&self, order: Order) -> io::Result<()> {
        let name = name(order).ok_or(io::ErrorKind::Unsupported)?;
        self.folder.open(&name, Open::Anew).map(drop)
    }

    /// Tells the daemon what was decided, and has it look at the message.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn tell(&self, decision: &Decision) -> io::Result<()> {
        self.folder.open(&decision.name(), Open::Anew).map(drop)
    }

    /// Whether a daemon listens.
    ///
    /// # Errors
    /// When the file system knows no locks.
    pub fn is_heard(&self) -> io::Result<bool> {
        self.folder.is_locked()
    }
}

/// Whether a daemon listens in the spool in `path`; nothing is made or changed there.
///
/// # Errors
/// When its folder cannot be opened.
pub fn is_served(path: &Path) -> io::Result<bool> {
    match Disk::host().open_folder(&path.join("wake")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        folder => folder?.is_locked(),
    }
}

impl Decision {
    /// Says it in the log and in the journal of this process.
    pub fn tell(&self) {
        station::decided(self.id, self.station, &self.by, self.uid);
    }

    fn name(&self) -> String {
        let Self { id, station, uid, by } = self;
        // No account has a slash in its name.
        format!("{id}.{}.{uid}.{}", station.name(), by.replace('/', "?"))
    }

    fn from_name(name: &str) -> Option<Self> {
        let mut parts = name.splitn(4, '.');
        let mut next = || parts.next();
        let (id, station, uid, by) = (next()?, next()?, next()?, next()?);
        Some(Self {
            id: id.parse().ok()?,
            station: Station::from_name(station).filter(|it| DECISIONS.contains(it))?,
            uid: uid.parse().ok()?,
            by: by.to_owned(),
        })
    }
}

fn name(order: Order) -> Option<String> {
    match order {
        Order::LookAgain(id) => Some(id.to_string()),
        Order::LetGo(id) => Some(format!("{id}{WANTED_SUFFIX}")),
        Order::RetryAll => Some(ALL.to_owned()),
        // Those are the system's to say.
        Order::RetryForNetwork | Order::RetryForLogin | Order::Answer | Order::Stop => None,
    }
}

fn order(name: &str) -> Option<Order> {
    if name == ALL {
        return Some(Order::RetryAll);
    }
    match name.strip_suffix(WANTED_SUFFIX) {
        Some(id) => id.parse().ok().map(Order::LetGo),
        None => name.parse().ok().map(Order::LookAgain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::filelock::ends_within;
    use crossbeam_channel::unbounded;
    use std::time::Duration;

    #[test]
    fn what_is_rung_before_and_after_the_start_is_heard_once() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_served(folder.path()).unwrap());
        let bell = Bell::open(folder.path()).unwrap();
        let id = QueueId::generate(0, 0);
        bell.ring(Order::LookAgain(id)).unwrap();
        bell.ring(Order::LookAgain(id)).unwrap();
        assert!(bell.ring(Order::Stop).is_err());
        std::fs::write(folder.path().join("wake/nonsense"), "").unwrap();
        assert!(!bell.is_heard().unwrap());
        let listener = Listener::open(folder.path()).unwrap();
        let (orders, heard) = unbounded();
        let thread = std::thread::spawn(move || listener.run(&orders));
        assert_eq!(heard.recv().unwrap(), Order::LookAgain(id));
        assert!(bell.is_heard().unwrap() && is_served(folder.path()).unwrap());
        for order in [Order::LetGo(id), Order::RetryAll, Order::LookAgain(id)] {
            bell.ring(order).unwrap();
            assert_eq!(heard.recv().unwrap(), order);
        }
        assert!(heard.is_empty());
        assert_eq!(std::fs::read_dir(folder.path().join("wake")).unwrap().count(), 0);
        let by = "root (x.y)".to_owned();
        let decision = Decision { id, station: Station::GivenUp, uid: 0, by };
        assert_eq!(Decision::from_name(&decision.name()).as_ref(), Some(&decision));
        bell.tell(&decision).unwrap();
        assert_eq!(heard.recv().unwrap(), Order::LookAgain(id));
        for nonsense in ["stopped.0.root", "held.x.root", "held.0", "held"] {
            assert_eq!(Decision::from_name(&format!("{id}.{nonsense}")), None);
        }
        drop(heard);
        bell.ring(Order::RetryAll).unwrap();
        thread.join().unwrap();
        assert!(ends_within(Duration::from_secs(60), || bell.is_heard().unwrap()));
    }
}
