//! What a person may do to a message while a daemon may be at work on it.
//!
//! Each message has a lock, on its file in `queue/`: whoever has it is the only one who tries
//! the message, writes its record or removes it. The daemon has it from the first moment of the
//! message in the queue, and then as long as it is open in a round of tries; a command has it
//! while it changes something, and writes the record as the daemon does. So nothing is
//! delivered once a command has said that it was deleted, and nothing is deleted in the midst
//! of a delivery.
//!
//! The daemon is woken afterwards (see [`crate::spool::wake`]) and looks at the record again. It also
//! tells the log and the journal of events who has decided what; where none runs this process does.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{geteuid, getuid};

use crate::report::event::Station;
use crate::spool::envelope::Envelope;
use crate::spool::folders::Folders;
use crate::spool::format::ReadError;
use crate::spool::id::QueueId;
use crate::spool::manager::Order;
use crate::spool::message::StoredMessage;
use crate::spool::progress::{Hold, Progress};
use crate::spool::store::{Spool, SpoolReader};
use crate::spool::wake::{Bell, Decision};
use crate::sys::disk::Disk;
use crate::sys::identity::{Guard, Identity};

/// How long to wait for messages that are being tried.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often to look whether one of them is free.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Writes of a record before giving up, where a daemon that starts sweeps it away meanwhile.
const WRITES: u32 = 3;

/// What is to be done to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Try it now.
    Retry,
    /// Do not try it until it is released.
    Hold(Hold),
    /// Hold it no longer, and try it now; this account says so.
    Release(String),
    /// Give it up, so that its sender gets a report; this account says so.
    GiveUp(String),
    /// Remove it, telling nobody; this account says so.
    Delete(String),
}

impl Change {
    /// What the story of a message says of it, and who wants it.
    fn decision(&self, id: QueueId) -> Option<Decision> {
        let (station, by) = match self {
            Self::Retry => return None,
            Self::Hold(hold) => (Station::Held, &hold.by),
            Self::Release(by) => (Station::Released, by),
            Self::GiveUp(by) => (Station::GivenUp, by),
            Self::Delete(by) => (Station::Deleted, by),
        };
        Some(Decision { id, station, uid: getuid().as_raw(), by: by.clone() })
    }
}

/// Why a message was left as it is.
#[derive(Debug)]
pub enum Refusal {
    /// It is not in the queue.
    Gone,
    /// It is being delivered.
    Busy,
    /// It has just changed, and is not one of those that are wanted any more.
    Unwanted,
    /// The change makes no sense: what the message is.
    Unfit(String),
    /// The system does not let us.
    Trouble(String),
}

/// Says whether a message is meant.
pub type Wanted<'a> = &'a dyn Fn(&Envelope, &Progress) -> bool;

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            _ => Self::Trouble(error.to_string()),
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => error.into(),
            ReadError::Locked => Self::Busy,
            error => Self::Trouble(error.to_string()),
        }
    }
}

/// A spool, open to be changed by a person.
#[derive(Debug)]
pub struct Hands {
    spool: Spool,
    folders: Arc<Folders>,
    bell: Bell,
    is_served: bool,
    _identity: Option<Guard>,
}

impl Hands {
    /// Opens the spool in `path`, which must be there. Root takes the identity of the spool's
    /// owner for the calling thread, so that every file stays the daemon's.
    ///
    /// # Errors
    /// When it cannot be opened or is not ours to write.
    pub fn open(path: &Path) -> io::Result<Self> {
        let queue = Disk::host().look_at(&path.join("queue"))?;
        let (uid, gid) = (queue.owner(), queue.group());
        let owner = Identity { uid, gid, groups: vec![gid] };
        let is_other = geteuid().is_root() && owner.uid != 0;
        let identity = if is_other { Some(owner.assume()?) } else { None };
        let (spool, bell) = (Spool::open_beside(path)?, Bell::open(path)?);
        let is_served = bell.is_heard()?;
        let folders = spool.folders();
        Ok(Self { spool, folders, bell, is_served, _identity: identity })
    }

    /// Whether a daemon was at work on the spool when it was opened.
    pub const fn is_served(&self) -> bool {
        self.is_served
    }

    /// The spool, to be looked at.
    pub fn reader(&self) -> &SpoolReader {
        &self.folders.reader
    }

    /// Has the whole queue tried at once, but for what is held.
    ///
    /// # Errors
    /// When the daemon cannot be told.
    pub fn retry_all(&self) -> io::Result<()> {
        self.bell.ring(Order::RetryAll)
    }

    /// Changes each of the messages, if it is wanted, and tells of each what came of it. One that is
    /// being delivered is waited for, all of them together for five seconds at most.
    pub fn change_each(
        &self,
        ids: impl IntoIterator<Item = QueueId>,
        wanted: Option<Wanted<'_>>,
        change: &Change,
        mut tell: impl FnMut(QueueId, Result<(), Refusal>),
    ) {
        let mut busy = Vec::new();
        for id in ids.into_iter().filter(|&id| self.is_wanted(id, wanted)) {
            match self.change(id, wanted, change) {
                Err(Refusal::Busy) => {
                    // The daemon may have it open just because it waits for its turn. If it
                    // cannot be told so, the wait is longer.
                    let _ = self.bell.ring(Order::LetGo(id));
                    busy.push(id);
                }
                result => tell(id, result),
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while !busy.is_empty() && Instant::now() < deadline {
            thread::sleep(LOOK_EVERY);
            busy.retain(|&id| match self.change(id, wanted, change) {
                Err(Refusal::Busy) => true,
                result => {
                    tell(id, result);
                    false
                }
            });
        }
        busy.into_iter().for_each(|id| tell(id, Err(Refusal::Busy)));
    }

    /// Whether a message is meant as far as can be seen without its lock, which is not to be
    /// taken for nothing.
    fn is_wanted(&self, id: QueueId, wanted: Option<Wanted<'_>>) -> bool {
        let Some(wanted) = wanted else { return true };
        match self.reader().load(id) {
            Ok((message, progress)) => is_meant(&message, progress.as_ref(), wanted),
            // What is wrong with it shows when it is changed.
            Err(_) => true,
        }
    }

    fn change(
        &self,
        id: QueueId,
        wanted: Option<Wanted<'_>>,
        change: &Change,
    ) -> Result<(), Refusal> {
        let changed = match change {
            Change::Retry => self.may_retry(id),
            change => self.edit(id, wanted, change),
        };
        let decision = change.decision(id).filter(|_| changed.is_ok());
        if let Some(decision) = decision.as_ref().filter(|_| !self.is_served) {
            decision.tell();
        }
        // A daemon that starts later finds a message held or gone by itself.
        let must_know = self.is_served || !matches!(change, Change::Hold(_) | Change::Delete(_));
        // What is as it should be may still be news to the daemon, if the command that made it
        // so was cut off.
        if must_know && matches!(changed, Ok(()) | Err(Refusal::Unfit(_))) {
            match decision.filter(|_| self.is_served) {
                Some(decision) => self.bell.tell(&decision),
                None => self.bell.ring(Order::LookAgain(id)),
            }
            .map_err(|error| Refusal::Trouble(format!("the server cannot be told: {error}")))?;
        }
        changed
    }

    fn may_retry(&self, id: QueueId) -> Result<(), Refusal> {
        let (_, progress) = self.reader().load(id)?;
        match progress.and_then(|progress| progress.held) {
            Some(hold) => Err(Refusal::Unfit(format!("is held by {}; release it", hold.by))),
            None => Ok(()),
        }
    }

    /// Changes a message under its lock, which ends with this function.
    fn edit(
        &self,
        id: QueueId,
        wanted: Option<Wanted<'_>>,
        change: &Change,
    ) -> Result<(), Refusal> {
        let (message, recorded) = self.spool.load_locked(id)?;
        if wanted.is_some_and(|wanted| !is_meant(&message, recorded.as_ref(), wanted)) {
            return Err(Refusal::Unwanted);
        }
        let mut progress = recorded.unwrap_or_else(|| Progress::new(message.envelope()));
        if let Some(by) = &progress.given_up_by
            && !matches!(change, Change::Delete(_))
        {
            return Err(Refusal::Unfit(format!("was given up by {by}")));
        }
        match change {
            Change::Delete(_) => return Ok(self.spool.remove(id, true)?),
            Change::Hold(hold) => match &progress.held {
                Some(Hold { by, .. }) => {
                    return Err(Refusal::Unfit(format!("is held by {by} already")));
                }
                None => progress.held = Some(hold.clone()),
            },
            Change::Release(_) if progress.held.is_none() => {
                return Err(Refusal::Unfit("is not held".to_owned()));
            }
            Change::Release(_) | Change::Retry => progress.held = None,
            Change::GiveUp(by) => {
                (progress.held, progress.given_up_by) = (None, Some(by.clone()));
            }
        }
        self.record(id, &progress)
    }

    fn record(&self, id: QueueId, progress: &Progress) -> Result<(), Refusal> {
        let mut written = self.spool.record_for_good(id, progress);
        for _ in 1..WRITES {
            match &written {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    written = self.spool.record_for_good(id, progress);
                }
                _ => break,
            }
        }
        written.map_err(|error| Refusal::Trouble(format!("its record cannot be written: {error}")))
    }
}

fn is_meant(message: &StoredMessage, progress: Option<&Progress>, wanted: Wanted<'_>) -> bool {
    let untouched = || Progress::new(message.envelope());
    progress.map_or_else(
        || wanted(message.envelope(), &untouched()),
        |progress| wanted(message.envelope(), progress),
    )
}
