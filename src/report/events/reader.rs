//! The journal as `mailwren trace` and `mailwren status` read it, while a server may be writing it.

use std::io;
use std::path::Path;

use super::KEPT;
use super::writer::name_of;
use crate::report::event::{Event, MAX_LINE};
use crate::sys::disk::{Disk, DiskFile, Folder, Open};

/// The most octets of one file that are read, its last ones: more than the largest journal has.
const MAX_FILE: u64 = 64 << 20;
/// How often the files are opened, where they get other numbers meanwhile.
const TRIES: u32 = 10;
/// Octets read at once.
const BLOCK: usize = 64 << 10;

/// The journal as it was at one moment.
#[derive(Debug, Default)]
pub struct Reader {
    /// The oldest first, each with the place to begin at and its length.
    files: Vec<(DiskFile, u64, u64)>,
}

impl Reader {
    /// Opens the journal in `[server] state`. One that is not there is empty.
    ///
    /// # Errors
    /// When it may not be read.
    pub fn open(state: &Path) -> io::Result<Self> {
        let folder = match Disk::host().walk_to(state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            folder => folder?,
        };
        // They get other numbers now and then: what was opened is in order if nothing did meanwhile.
        for _ in 1..TRIES {
            let before = identities(&folder);
            let files = open_all(&folder)?;
            if identities(&folder) == before {
                return Ok(Self { files });
            }
        }
        Ok(Self { files: open_all(&folder)? })
    }

    /// Hands over each event, the oldest first, and returns how many lines were none: torn by a
    /// kill or a full disk, or no doing of ours.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn each(&self, mut take: impl FnMut(Event)) -> io::Result<u64> {
        let mut unreadable = 0;
        for (file, begin, size) in &self.files {
            each_line(file, *begin, *size, |line| {
                match line.and_then(|line| std::str::from_utf8(line).ok()).and_then(Event::parse) {
                    Some(event) => take(event),
                    None => unreadable += 1,
                }
            })?;
        }
        Ok(unreadable)
    }
}

/// The files that are there, the oldest first.
fn open_all(folder: &Folder) -> io::Result<Vec<(DiskFile, u64, u64)>> {
    let mut files = Vec::new();
    for number in (0..=KEPT).rev() {
        let file = match folder.open(&name_of(number), Open::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        let status = file.status()?;
        if status.is_file() {
            let size = status.size_octets();
            files.push((file, size.saturating_sub(MAX_FILE), size));
        }
    }
    Ok(files)
}

/// Which file each number belongs to.
fn identities(folder: &Folder) -> [Option<(u64, u64)>; KEPT as usize + 1] {
    std::array::from_fn(|number| {
        let name = name_of(u32::try_from(number).unwrap_or(KEPT));
        folder.look_at(&name).ok().map(|status| status.identity())
    })
}

/// Hands over each line without its end; `None` for one that is longer than any of ours, or has no
/// end.
fn each_line(
    file: &DiskFile,
    begin: u64,
    size: u64,
    mut take: impl FnMut(Option<&[u8]>),
) -> io::Result<()> {
    let (mut block, mut line, mut offset) = (vec![0; BLOCK], Vec::new(), begin);
    while offset < size {
        let most = usize::try_from(size - offset).unwrap_or(BLOCK).min(BLOCK);
        let count = file.read_at(&mut block[..most], offset)?;
        if count == 0 {
            break;
        }
        offset += count as u64;
        let mut rest = &block[..count];
        while let Some(end) = memchr::memchr(b'\n', rest) {
            add(&mut line, &rest[..end]);
            take((line.len() < MAX_LINE).then_some(&line));
            line.clear();
            rest = &rest[end + 1..];
        }
        add(&mut line, rest);
    }
    if !line.is_empty() {
        take(None);
    }
    Ok(())
}

/// Adds to a line what it takes to see that it is too long, and no more.
fn add(line: &mut Vec<u8>, octets: &[u8]) {
    let room = MAX_LINE.saturating_sub(line.len()).min(octets.len());
    line.extend_from_slice(&octets[..room]);
}
