//! A message in the spool, open for reading: its envelope and its content.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use crate::spool::envelope::Envelope;
use crate::sys::disk::DiskFile;

/// How much of a content is handed on at once.
const BLOCK: usize = 16 << 10;

/// A message that the spool holds. Any number of readers may be at work at once, since each
/// keeps a position of its own.
#[derive(Debug)]
pub struct StoredMessage {
    octets: Octets,
    content: Range<u64>,
    envelope: Envelope,
}

/// Where the octets of a spool file are.
#[derive(Clone, Debug)]
pub(super) enum Octets {
    /// In memory only, as they would be in the file.
    Memory(Arc<[u8]>),
    /// In a file, which need not have a name yet.
    File(Arc<DiskFile>),
}

impl Octets {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read_at(buffer, offset),
            Self::Memory(octets) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(octets.len());
                let count = buffer.len().min(octets.len() - start);
                buffer[..count].copy_from_slice(&octets[start..start + count]);
                Ok(count)
            }
        }
    }
}

impl StoredMessage {
    /// The message whose content stands in `content` of `file`.
    pub fn new(file: impl Into<DiskFile>, content: Range<u64>, envelope: Envelope) -> Self {
        Self::with_octets(Octets::File(Arc::new(file.into())), content, envelope)
    }

    pub(super) const fn with_octets(
        octets: Octets,
        content: Range<u64>,
        envelope: Envelope,
    ) -> Self {
        Self { octets, content, envelope }
    }

    pub(super) const fn octets(&self) -> &Octets {
        &self.octets
    }

    /// The same message, kept in `file`.
    pub(super) fn moved_to(&self, file: Arc<DiskFile>) -> Self {
        let (content, envelope) = (self.content.clone(), self.envelope.clone());
        Self::with_octets(Octets::File(file), content, envelope)
    }

    /// What was said about it before its first octet.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The content's octets, lines ended by CRLF, without dot-stuffing.
    pub fn size_octets(&self) -> u64 {
        self.content.end - self.content.start
    }

    /// The number of its file, which names it among the system's locks; `None` where there is
    /// no file, or it cannot be looked at.
    pub fn inode(&self) -> Option<u64> {
        self.identity().ok().flatten().map(|(_, inode)| inode)
    }

    /// Device and inode of its file; `None` where it is in memory only.
    pub(super) fn identity(&self) -> io::Result<Option<(u64, u64)>> {
        match &self.octets {
            Octets::Memory(_) => Ok(None),
            Octets::File(file) => Ok(Some(file.status()?.identity())),
        }
    }

    /// Takes the lock of this message without waiting: whoever has it is the only one who tries
    /// it, writes its record or removes it (see [`crate::spool::hands`]). `false` when another
    /// has it. It ends with [`Self::unlock`], or when nobody has the message open any more.
    pub(super) fn try_lock(&self) -> bool {
        match &self.octets {
            Octets::Memory(_) => true,
            // Where the file system knows no locks nobody gets one but the server: what else
            // wants to change a message insists on having it.
            Octets::File(file) => file.try_lock().unwrap_or(true),
        }
    }

    /// Gives back the lock, although a delivery thread may still have the message open.
    pub(super) fn unlock(&self) {
        if let Octets::File(file) = &self.octets {
            // Fails only where there was none.
            let _ = file.unlock();
        }
    }

    /// Hands the content to `take`, block by block.
    ///
    /// # Errors
    /// When it cannot be read, or `take` fails.
    pub fn each_block(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let (mut reader, mut block) = (self.reader(), vec![0; BLOCK]);
        loop {
            match reader.read(&mut block)? {
                0 => return Ok(()),
                count => take(&block[..count])?,
            }
        }
    }

    /// Whether all octets of the content are below 128.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_ascii(&self) -> io::Result<bool> {
        let mut is_ascii = true;
        self.each_block(|block| {
            is_ascii &= block.is_ascii();
            Ok(())
        })?;
        Ok(is_ascii)
    }

    /// Reads the content from its beginning. Its lines end with CRLF, the last one too;
    /// it is not dot-stuffed and may be empty.
    pub fn reader(&self) -> ContentReader<'_> {
        self.reader_behind(0)
    }

    /// Reads what follows the first so many octets of the content.
    pub fn reader_behind(&self, octets: u64) -> ContentReader<'_> {
        let Range { start, end } = self.content;
        let left = start.saturating_add(octets).min(end)..end;
        ContentReader { octets: &self.octets, left }
    }
}

/// Reads a message's content.
#[derive(Debug)]
pub struct ContentReader<'a> {
    octets: &'a Octets,
    left: Range<u64>,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.end - self.left.start;
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        match self.octets.read_at(&mut buffer[..wanted], self.left.start)? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the spool file has shrunk")),
            count => {
                self.left.start += count as u64;
                Ok(count)
            }
        }
    }
}
