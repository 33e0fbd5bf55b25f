//! The spool as anybody may look at it, whether or not a daemon has it.

use std::io;
use std::path::Path;

use crate::spool::format::{self, ReadError};
use crate::spool::id::QueueId;
use crate::spool::message::StoredMessage;
use crate::spool::progress::Progress;
use crate::sys::disk::{Disk, Folder, Open};

/// The most octets of a record in `state/`.
const MAX_RECORD: u64 = 128 << 20;

/// The spool, open to be looked at, whether or not a daemon has it.
#[derive(Debug)]
pub struct SpoolReader {
    pub(super) queue: Folder,
    pub(super) state: Folder,
}

/// What stands in `state/` for a message.
pub(super) type Record = Result<Progress, Malformed>;

/// It is no record of this message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl SpoolReader {
    /// Opens the spool in `path`, which must be there.
    ///
    /// # Errors
    /// When its folders cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let folder = |name: &str| Disk::host().open_folder(&path.join(name));
        Ok(Self { queue: folder("queue")?, state: folder("state")? })
    }

    /// The ids of all messages, in no order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn ids(&self) -> io::Result<Vec<QueueId>> {
        let mut ids = Vec::new();
        self.queue.each_name(|name| ids.extend(name.parse::<QueueId>().ok()))?;
        Ok(ids)
    }

    /// Opens a message and, if there is one, the record of its recipients.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn load(&self, id: QueueId) -> Result<(StoredMessage, Option<Progress>), ReadError> {
        let message = self.message(id)?;
        let record = self.record(&message)?;
        Ok((message, record.and_then(Result::ok)))
    }

    pub(super) fn message(&self, id: QueueId) -> Result<StoredMessage, ReadError> {
        let message = format::read(self.queue.open(&id.to_string(), Open::Read)?)?;
        // A copy, perhaps: it must not be taken for the one that it names.
        if message.envelope().id == id { Ok(message) } else { Err(ReadError::Malformed) }
    }

    pub(super) fn record(&self, message: &StoredMessage) -> io::Result<Option<Record>> {
        let id = message.envelope().id;
        let text = self.read_record(&id.to_string())?;
        let parse = |text: String| Progress::parse(&text, message.envelope()).ok_or(Malformed);
        let record = text.map(parse);
        if let Some(Err(Malformed)) = record {
            log::error!(
                "{id}: its record in state/ is malformed; every recipient counts as untried"
            );
        }
        Ok(record)
    }

    fn read_record(&self, name: &str) -> io::Result<Option<String>> {
        let file = match self.state.open(name, Open::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let text = file.read_up_to(MAX_RECORD)?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }
}
