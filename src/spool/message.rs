//! A message in the spool, open for reading: its envelope and its content.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::spool::envelope::Envelope;

/// A message that the spool holds. Any number of readers may be at work at once, since each
/// keeps a position of its own.
#[derive(Debug)]
pub struct StoredMessage {
    file: File,
    content: Range<u64>,
    envelope: Envelope,
}

impl StoredMessage {
    /// The message whose content stands in `content` of `file`.
    pub fn new(file: File, content: Range<u64>, envelope: Envelope) -> Self {
        Self { file, content, envelope }
    }

    /// What was said about it before its first octet.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The content's octets, lines ended by CRLF, without dot-stuffing.
    pub fn size_octets(&self) -> u64 {
        self.content.end - self.content.start
    }

    /// The number of its file, which names it among the system's locks.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }

    /// The file.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Takes the lock of this message without waiting: whoever has it is the only one who tries
    /// it, writes its record or removes it (see [`crate::spool::hands`]). `false` when another
    /// has it. It ends with [`Self::unlock`], or when nobody has the message open any more.
    pub(super) fn try_lock(&self) -> bool {
        match self.file.try_lock() {
            Err(TryLockError::WouldBlock) => false,
            // Where the file system knows no locks nobody gets one but the server: what else
            // wants to change a message insists on having it.
            Ok(()) | Err(TryLockError::Error(_)) => true,
        }
    }

    /// Gives back the lock, although a delivery thread may still have the message open.
    pub(super) fn unlock(&self) {
        // Fails only where there was none.
        let _ = self.file.unlock();
    }

    /// Reads the content from its beginning. Its lines end with CRLF, the last one too;
    /// it is not dot-stuffed and may be empty.
    pub fn reader(&self) -> ContentReader<'_> {
        ContentReader { file: &self.file, left: self.content.clone() }
    }
}

/// Reads a message's content.
#[derive(Debug)]
pub struct ContentReader<'a> {
    file: &'a File,
    left: Range<u64>,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.end - self.left.start;
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        match self.file.read_at(&mut buffer[..wanted], self.left.start)? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the spool file has shrunk")),
            count => {
                self.left.start += count as u64;
                Ok(count)
            }
        }
    }
}
