//! A message on its way into the spool.
//!
//! A small one stays in memory until it is known whether it must be stored at all: what is
//! delivered at once never is (see [`crate::spool::intake`]). It is then written into a file
//! that has no name yet (`O_TMPFILE`), and pushed out to its blocks, gets its name, and is flushed
//! together with it: one journal commit. Where the file system does not order data before names,
//! it is flushed before it gets its name, and the folder after. So a crash in between leaves the
//! whole message or nothing; nobody was told 250 for it. `src/ARCHITECTURE.md` has the whole
//! table.

use std::io::{self, Write};
use std::sync::Arc;

use crate::spool::envelope::Envelope;
use crate::spool::folders::Folders;
use crate::spool::format;
use crate::spool::id::QueueId;
use crate::spool::message::{Octets, StoredMessage};
use crate::spool::store::Spool;
use crate::sys::disk::{DiskFile, Open};

/// Octets gathered before they are written: what a message may have to be held in memory.
const BUFFER_OCTETS: usize = 64 << 10;
/// What a draft's name ends with where the file system has no unnamed files.
pub(super) const DRAFT_SUFFIX: &str = ".draft";

/// The proof that a message lasts: it is in the spool, name and all, or each of its recipients
/// has it, flushed; or where no server runs, in `drop/`. Without one the session cannot answer 250.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt(QueueId);

impl Receipt {
    /// The message's name in the queue.
    pub const fn id(self) -> QueueId {
        self.0
    }

    /// The proof for a message that lasts in `drop/`. Only for who has flushed it there.
    pub(super) const fn of_dropped(id: QueueId) -> Self {
        Self(id)
    }
}

/// A message that is still being received.
#[derive(Debug)]
pub struct Draft {
    spool: Arc<Spool>,
    envelope: Envelope,
    buffer: Vec<u8>,
    file: Option<DraftFile>,
    envelope_octets: u64,
    content_octets: u64,
}

impl Draft {
    pub(super) fn begin(spool: Arc<Spool>, envelope: Envelope) -> Self {
        let buffer = format::envelope_text(&envelope).into_bytes();
        let envelope_octets = buffer.len() as u64;
        Self { spool, envelope, buffer, file: None, envelope_octets, content_octets: 0 }
    }

    /// The envelope it was begun with.
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The octets of content so far.
    pub const fn content_octets(&self) -> u64 {
        self.content_octets
    }

    /// Adds content: lines that end with CRLF, without dot-stuffing.
    ///
    /// # Errors
    /// When the disk does not take it; the draft is of no use then.
    pub fn write(&mut self, content: &[u8]) -> io::Result<()> {
        if self.buffer.len() + content.len() > BUFFER_OCTETS {
            self.write_out()?;
        }
        self.content_octets += content.len() as u64;
        if content.len() > BUFFER_OCTETS {
            return self.open_file()?.write_all(content);
        }
        self.buffer.extend_from_slice(content);
        Ok(())
    }

    /// Ends the message. Nothing of it lasts yet.
    ///
    /// # Errors
    /// When the disk does not take it. Nothing of it is left then.
    pub fn seal(mut self) -> io::Result<Sealed> {
        self.buffer.extend_from_slice(format::end_line(self.content_octets).as_bytes());
        if self.file.is_some() {
            self.write_out()?;
        }
        let Self { spool, envelope, buffer, file, envelope_octets, content_octets } = self;
        let (octets, place) = match file {
            Some(DraftFile { file, place }) => (Octets::File(Arc::new(file)), Some(place)),
            None => (Octets::Memory(buffer.into()), None),
        };
        let content = envelope_octets..envelope_octets + content_octets;
        let message = Arc::new(StoredMessage::with_octets(octets, content, envelope));
        Ok(Sealed { spool, message, place })
    }

    /// Ends the message and stores it: from here on it is in the queue and survives a crash.
    ///
    /// # Errors
    /// When it could not be written or flushed. Nothing of it is left then, and the client
    /// must not be told 250.
    pub fn commit(self) -> io::Result<(Receipt, StoredMessage)> {
        self.seal()?.commit()
    }

    fn write_out(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        self.open_file()?.write_all(&buffer)?;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    /// The file, made when the first octets are to be written.
    fn open_file(&mut self) -> io::Result<&mut DiskFile> {
        if self.file.is_none() {
            self.file = Some(DraftFile::create(self.spool.folders(), self.envelope.id)?);
        }
        match &mut self.file {
            Some(file) => Ok(&mut file.file),
            None => Err(io::Error::other("the draft has no file")),
        }
    }
}

/// A whole message that may not last yet. Dropping it leaves nothing.
#[derive(Debug)]
pub struct Sealed {
    spool: Arc<Spool>,
    message: Arc<StoredMessage>,
    /// Where its file is, if it has one.
    place: Option<Place>,
}

impl Sealed {
    /// The message, to be read.
    pub const fn message(&self) -> &Arc<StoredMessage> {
        &self.message
    }

    /// Stores the message: from here on it is in the queue and survives a crash.
    ///
    /// # Errors
    /// When it could not be written or flushed. Nothing of it is left then, and the client
    /// must not be told 250.
    pub fn commit(mut self) -> io::Result<(Receipt, StoredMessage)> {
        let id = self.message.envelope().id;
        let file = match self.message.octets() {
            Octets::File(file) => Arc::clone(file),
            Octets::Memory(octets) => {
                let mut draft = DraftFile::create(self.spool.folders(), id)?;
                self.place = Some(draft.place);
                draft.file.write_all(octets)?;
                Arc::new(draft.file)
            }
        };
        let place = self.place.as_ref().ok_or_else(|| io::Error::other("a draft without a place"));
        let Place { folders, draft_name } = place?;
        self.spool.check_place(folders)?;
        let (queue, name) = (&folders.reader.queue, id.to_string());
        // From its first moment in the queue it is the server's to try: see spool/hands.rs.
        let _ = file.try_lock();
        // The name must never be found without the octets: a file may have its last line, and a
        // hole where the middle was.
        match folders.orders_data_first {
            true => file.push_out()?,
            false => file.flush_to_disk()?,
        }
        match draft_name {
            None => queue.link_unnamed(&file, &name)?,
            // Unlike rename, link never replaces a message that has this name already.
            Some(draft_name) => queue.link(draft_name, queue, &name)?,
        }
        // One commit of the journal for octets, size and name where it is written in order.
        let flushed = if folders.orders_data_first { file.flush_to_disk() } else { Ok(()) };
        if let Err(error) = flushed.and_then(|()| queue.flush_to_disk()) {
            let _ = queue.unlink(&name);
            return Err(error);
        }
        Ok((Receipt(id), self.message.moved_to(file)))
    }

    /// The proof that the message lasts without being stored: every recipient has it, flushed.
    /// Only for who has heard so from the queue manager.
    pub(super) fn into_delivered(self) -> Receipt {
        Receipt(self.message.envelope().id)
    }
}

/// The file of a draft.
#[derive(Debug)]
struct DraftFile {
    file: DiskFile,
    place: Place,
}

impl DraftFile {
    fn create(folders: Arc<Folders>, id: QueueId) -> io::Result<Self> {
        let mut place = Place { folders, draft_name: None };
        if place.folders.has_unnamed_files {
            let file = place.folders.reader.queue.create_unnamed()?;
            return Ok(Self { file, place });
        }
        let name = format!("{id}{DRAFT_SUFFIX}");
        let file = place.folders.reader.queue.open(&name, Open::Anew)?;
        place.draft_name = Some(name);
        Ok(Self { file, place })
    }
}

/// Where a draft's file is.
#[derive(Debug)]
struct Place {
    folders: Arc<Folders>,
    /// Its name, where the file system has no unnamed files. It goes whatever becomes of the
    /// message.
    draft_name: Option<String>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(name) = &self.draft_name {
            let _ = self.folders.reader.queue.unlink(name);
        }
    }
}
