//! A message in the spool, open for reading: its envelope and its content.

use std::io::{self, Read};
use std::ops::Range;

use crate::spool::envelope::Envelope;
use crate::sys::disk::DiskFile;

/// A message that the spool holds. Any number of readers may be at work at once, since each
/// keeps a position of its own.
#[derive(Debug)]
pub struct StoredMessage {
    file: DiskFile,
    content: Range<u64>,
    envelope: Envelope,
}

impl StoredMessage {
    /// The message whose content stands in `content` of `file`.
    pub fn new(file: impl Into<DiskFile>, content: Range<u64>, envelope: Envelope) -> Self {
        Self { file: file.into(), content, envelope }
    }

    /// What was said about it before its first octet.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The content's octets, lines ended by CRLF, without dot-stuffing.
    pub fn size_octets(&self) -> u64 {
        self.content.end - self.content.start
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
    file: &'a DiskFile,
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
