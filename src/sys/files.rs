//! Files and folders by descriptor, so that a path is looked up once and links are never
//! followed where we write.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::path::Arg;

/// Opens the folder `path`, made with mode 0700 where it is missing.
///
/// # Errors
/// When it can be neither opened nor made.
pub fn make_private_folder(path: &Path) -> io::Result<OwnedFd> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    open_folder(path)
}

/// Opens the folder `path`.
///
/// # Errors
/// When it is not there or not ours to read.
pub fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Opens the file `name` in `folder` for reading, if it is not a link.
///
/// # Errors
/// When there is none or it cannot be opened.
pub fn open_to_read(folder: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?.into())
}

/// Makes the file `name` in `folder` with mode 0600, empty, replacing what an earlier run
/// left there.
///
/// # Errors
/// When it cannot be made.
pub fn create(folder: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::from(0o600))?.into())
}

/// Removes the file `name` from `folder`.
///
/// # Errors
/// When it cannot be removed or was not there.
pub fn remove(folder: &OwnedFd, name: &str) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(folder, name, AtFlags::empty())?)
}

/// Whether `file` is still what `name` leads to in `folder`.
///
/// # Errors
/// When either cannot be looked at; a name that is gone is no error.
pub fn is_named(file: impl AsFd, folder: impl AsFd, name: impl Arg) -> io::Result<bool> {
    let named = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => return Ok(false),
        named => named?,
    };
    let open = rustix::fs::fstat(file)?;
    Ok((open.st_dev, open.st_ino) == (named.st_dev, named.st_ino))
}

/// The names in `folder`, but `.` and `..`, in no order. A name that is not UTF-8 appears
/// with its bad octets replaced, which no name of ours has.
///
/// # Errors
/// When the folder cannot be read.
pub fn names_in(folder: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Gives a file made with `O_TMPFILE` the name `name` in `folder`.
///
/// # Errors
/// When the name is taken or the folder cannot be written.
pub fn link_unnamed(file: &File, folder: &OwnedFd, name: &str) -> io::Result<()> {
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(CWD, unnamed, folder, name, AtFlags::SYMLINK_FOLLOW)?)
}

/// Whether `folder` can hold files without a name that get one later: not on every file
/// system, and not where /proc is missing.
pub fn has_unnamed_files(folder: &OwnedFd) -> bool {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let name = format!("{}.draft", std::process::id());
    rustix::fs::openat(folder, ".", flags, Mode::from(0o600))
        .map_err(io::Error::from)
        .and_then(|file| link_unnamed(&file.into(), folder, &name))
        .and_then(|()| remove(folder, &name))
        .is_ok()
}

/// The error with the path that it is about in front.
pub fn with_path(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
