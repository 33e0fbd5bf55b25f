//! The files of the journal: lines at the end of the newest, which gets a number when it has grown
//! to its share of the size; the oldest goes.
//!
//! The files are opened for each write anew. So one that was moved away, a folder that was mounted
//! anew, and a disk that is well again need no restart; and no file that is open for writing keeps a
//! file system from being made read-only.

use std::io::{self, Write};

use super::{KEPT, NAME, Place};
use crate::sys::disk::{Disk, DiskFile, Folder, Open};

/// What ends a part of a line that a kill or a full disk has left, so that it is none for sure.
const TORN: &[u8] = b"\\\n";
/// Its owner writes, and its group may read.
const MODE: u32 = 0o640;

/// Writes lines.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) disk: Disk,
    /// Whether the newest file ends with a whole line, as far as we have seen to that.
    is_whole: bool,
}

impl Writer {
    pub(super) const fn new(disk: Disk) -> Self {
        Self { disk, is_whole: false }
    }

    /// Removes what is more than the journal may take, all of it where it is switched off.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn fit(&mut self, place: &Place) -> io::Result<()> {
        self.is_whole = false;
        let folder = match self.disk.open_folder(&place.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            folder => folder?,
        };
        if size_of(&folder, NAME)? > share_of(place) {
            rotate(&folder)?;
        }
        remove_excess(&folder, place)
    }

    /// Writes lines, each with its end. What could not be written is lost.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn write(&mut self, place: &Place, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() || place.size_octets == 0 {
            return Ok(());
        }
        let mut rest = lines;
        while !rest.is_empty() {
            let (mut file, size) = self.open_end(place)?;
            let is_torn = !self.is_whole && !ends_with_line(&file, size)?;
            let end: &[u8] = if is_torn { TORN } else { b"" };
            let room = share_of(place).saturating_sub(size + end.len() as u64);
            let count = whole_lines(rest, room);
            if count == 0 && size > 0 {
                drop(file);
                let folder = self.disk.open_folder(&place.folder)?;
                rotate(&folder)?;
                remove_excess(&folder, place)?;
                self.is_whole = false;
                continue;
            }
            // A line is always smaller than a share.
            let (now, later) = rest.split_at(if count == 0 { rest.len() } else { count });
            self.is_whole = false;
            if end.is_empty() {
                file.write_all(now)?;
            } else {
                file.write_all(&[end, now].concat())?;
            }
            self.is_whole = true;
            rest = later;
        }
        Ok(())
    }

    /// The file that grows, and its length.
    fn open_end(&self, place: &Place) -> io::Result<(DiskFile, u64)> {
        let path = place.folder.join(NAME);
        let file = match self.disk.open_file(&path, Open::Append) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.disk.make_private_folder(&place.folder)?;
                let file = self.disk.open_file(&path, Open::AppendToNew)?;
                file.set_mode(MODE)?;
                file
            }
            file => file?,
        };
        let status = file.status()?;
        if !status.is_file() {
            return Err(io::Error::other("it is no file; remove it"));
        }
        Ok((file, status.size_octets()))
    }
}

/// The most octets of one file.
fn share_of(place: &Place) -> u64 {
    place.size_octets / (u64::from(KEPT) + 1)
}

/// Whether nothing of a line stands at the end, as a kill or a full disk leaves it.
fn ends_with_line(file: &DiskFile, size: u64) -> io::Result<bool> {
    let Some(last) = size.checked_sub(1) else { return Ok(true) };
    let mut octet = [0];
    file.read_exact_at(&mut octet, last)?;
    Ok(octet == *b"\n")
}

/// How many octets from the start of `lines` are whole lines and at most `room`.
fn whole_lines(lines: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(lines.len());
    memchr::memrchr(b'\n', &lines[..room]).map_or(0, |end| end + 1)
}

/// Gives each file the next number; the oldest goes.
fn rotate(folder: &Folder) -> io::Result<()> {
    for number in (0..KEPT).rev() {
        match folder.rename(&name_of(number), folder, &name_of(number + 1)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

/// Removes the oldest files, if all of them together with what may be written into the newest were
/// more than the journal's size.
fn remove_excess(folder: &Folder, place: &Place) -> io::Result<()> {
    let mut total = share_of(place);
    for number in u32::from(place.size_octets > 0)..=KEPT {
        let name = name_of(number);
        let size = size_of(folder, &name)?;
        total = total.saturating_add(size);
        if total > place.size_octets || place.size_octets == 0 {
            match folder.unlink(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
    }
    Ok(())
}

/// The length of a file; 0 where there is none.
fn size_of(folder: &Folder, name: &str) -> io::Result<u64> {
    match folder.look_at(name) {
        Ok(status) => Ok(status.size_octets()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// The name of the file with that number, from the youngest on.
pub(super) fn name_of(number: u32) -> String {
    match number {
        0 => NAME.to_owned(),
        _ => format!("{NAME}.{number}"),
    }
}
