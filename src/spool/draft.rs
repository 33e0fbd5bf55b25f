//! A message on its way into the spool.
//!
//! It is written into a file that has no name yet (`O_TMPFILE`), gets its name, and is then
//! flushed together with it: one journal commit where the file system can do both at once. A
//! crash in between leaves at most a named file without its last line, which the next start
//! removes; nobody was told 250 for it. `src/ARCHITECTURE.md` has the whole table.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::spool::envelope::Envelope;
use crate::spool::format;
use crate::spool::id::QueueId;
use crate::spool::message::StoredMessage;
use crate::spool::store::Spool;
use crate::sys::files;

/// Octets gathered before they are written.
const BUFFER_OCTETS: usize = 64 << 10;
/// What a draft's name ends with where the file system has no unnamed files.
pub(super) const DRAFT_SUFFIX: &str = ".draft";
/// The proof that a message is on disk, name and all. Only a commit makes one, and without
/// one the session cannot answer 250.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt(QueueId);

impl Receipt {
    /// The message's name in the queue.
    pub const fn id(self) -> QueueId {
        self.0
    }
}

/// A message on its way into the spool.
#[derive(Debug)]
pub struct Draft {
    spool: Arc<Spool>,
    envelope: Envelope,
    buffer: Vec<u8>,
    file: Option<File>,
    /// Whether the file has a name that must go, whatever becomes of the message.
    has_draft_name: bool,
    /// Where the content stands in the file, as far as it was written or buffered.
    content: Range<u64>,
}

impl Draft {
    pub(super) fn begin(spool: Arc<Spool>, envelope: Envelope) -> Self {
        let buffer = format::envelope_text(&envelope).into_bytes();
        let content = buffer.len() as u64..buffer.len() as u64;
        Self { spool, envelope, buffer, file: None, has_draft_name: false, content }
    }

    /// The envelope it was begun with.
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The octets of content so far.
    pub const fn content_octets(&self) -> u64 {
        self.content.end - self.content.start
    }

    /// Adds content: lines that end with CRLF, without dot-stuffing.
    ///
    /// # Errors
    /// When the disk does not take it; the draft is of no use then.
    pub fn write(&mut self, content: &[u8]) -> io::Result<()> {
        if self.buffer.len() + content.len() > BUFFER_OCTETS {
            self.write_out()?;
        }
        self.content.end += content.len() as u64;
        if content.len() > BUFFER_OCTETS {
            return self.open_file()?.write_all(content);
        }
        self.buffer.extend_from_slice(content);
        Ok(())
    }

    /// Finishes the message: from here on it is in the queue and survives a crash.
    ///
    /// # Errors
    /// When it could not be written or flushed. Nothing of it is left then, and the client
    /// must not be told 250.
    pub fn commit(mut self) -> io::Result<(Receipt, StoredMessage)> {
        self.buffer.extend_from_slice(format::end_line(self.content_octets()).as_bytes());
        self.write_out()?;
        let name = self.envelope.id.to_string();
        let Some(file) = self.file.take() else {
            return Err(io::Error::other("a draft is never empty"));
        };
        let queue = self.spool.queue();
        // From its first moment in the queue it is the server's to try: see spool/hands.rs.
        let _ = file.try_lock();
        self.give_name(&file, &name)?;
        // One flush for data, size and name where the journal holds them together; the
        // folder's own is there for file systems that keep names apart.
        let flushed = file.sync_all().and_then(|()| Ok(rustix::fs::fsync(queue)?));
        if let Err(error) = flushed {
            let _ = files::remove(queue, &name);
            return Err(error);
        }
        let receipt = Receipt(self.envelope.id);
        Ok((receipt, StoredMessage::new(file, self.content.clone(), self.envelope.clone())))
    }

    fn draft_name(&self) -> String {
        format!("{}{DRAFT_SUFFIX}", self.envelope.id)
    }

    fn give_name(&self, file: &File, name: &str) -> io::Result<()> {
        let queue = self.spool.queue();
        if self.spool.has_unnamed_files() {
            return files::link_unnamed(file, queue, name);
        }
        // Unlike rename, link never replaces a message that has this name already.
        Ok(rustix::fs::linkat(queue, self.draft_name(), queue, name, AtFlags::empty())?)
    }

    fn write_out(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        self.open_file()?.write_all(&buffer)?;
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }

    /// The file, made when the first octets are to be written.
    fn open_file(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let queue = self.spool.queue();
            let file = if self.spool.has_unnamed_files() {
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
                File::from(rustix::fs::openat(queue, ".", flags, Mode::from(0o600))?)
            } else {
                self.has_draft_name = true;
                files::create(queue, &self.draft_name())?
            };
            self.file = Some(file);
        }
        self.file.as_mut().ok_or_else(|| io::Error::other("the draft has no file"))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.has_draft_name {
            let _ = files::remove(self.spool.queue(), &self.draft_name());
        }
    }
}
