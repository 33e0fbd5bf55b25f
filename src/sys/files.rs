//! What is said of a file that cannot be had, who may read it, and whose a folder becomes.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

/// The error with the path that it is about in front.
pub fn with_path(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Whether every account may read the file at `path`, as far as its own mode says.
///
/// # Errors
/// When it cannot be looked at.
pub fn is_for_everybody(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o004 != 0)
}

/// Makes the folder at `path`, and those above that are missing, so that everybody can look into
/// them, whatever the umask says. One that is there stays as it is.
///
/// # Errors
/// When it cannot be made.
pub fn make_public_folder(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.exists() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_public_folder(parent)?;
    }
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Lets everybody connect to the Unix socket at `path`, which was bound a moment ago. Whoever can
/// write its folder may have put something else there meanwhile, which is not touched.
///
/// # Errors
/// When there is no socket with that one name, or it is somebody else's.
pub fn open_socket_to_all(path: &Path) -> io::Result<()> {
    // Not opened in earnest, which no socket can be: only held, so that it stays the same.
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let held = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let found = held.metadata()?;
    if !found.file_type().is_socket() || found.nlink() != 1 {
        return Err(io::Error::other("it is not the socket that was bound here any more"));
    }
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
}

/// Makes the folder at `path` for the account `uid` with the group `gid`, which takes root. One
/// that is there stays as it is.
///
/// # Errors
/// When it cannot be made, with its path.
pub fn make_folder_for(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    fs::create_dir_all(path)
        .and_then(|()| chown(path, Some(uid), Some(gid)))
        .map_err(|error| with_path(error, path))
}

/// The same, and one of root's in which there is nothing, as systemd and people make it, becomes
/// the account's, too.
///
/// # Errors
/// When it cannot be made or looked into, with its path.
pub fn make_or_take_folder_for(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    make_folder_for(path, uid, gid)?;
    let take = || -> io::Result<()> {
        if fs::metadata(path)?.uid() == 0 && fs::read_dir(path)?.next().is_none() {
            chown(path, Some(uid), Some(gid))?;
        }
        Ok(())
    };
    take().map_err(|error| with_path(error, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_itself_is_opened_to_all() {
        let base = tempfile::tempdir().unwrap();
        let [socket, file, link, other] =
            ["socket", "file", "link", "other"].map(|name| base.path().join(name));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        fs::write(&file, "").unwrap();
        let close = |path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        let mode = |path| fs::metadata(path).unwrap().mode() & 0o777;
        [&socket, &file].into_iter().for_each(close);
        for target in [&file, &socket] {
            std::os::unix::fs::symlink(target, &link).unwrap();
            assert!(open_socket_to_all(&link).is_err());
            fs::remove_file(&link).unwrap();
        }
        assert!(open_socket_to_all(&file).is_err());
        fs::hard_link(&socket, &other).unwrap();
        assert!(open_socket_to_all(&socket).is_err());
        assert_eq!([&socket, &file].map(mode), [0o600; 2]);
        fs::remove_file(&other).unwrap();
        open_socket_to_all(&socket).unwrap();
        assert_eq!(mode(&socket), 0o666);
    }

    #[test]
    fn only_an_empty_folder_of_roots_is_taken() {
        assert!(rustix::process::geteuid().is_root(), "run this test as root");
        let base = tempfile::tempdir().unwrap();
        let owner = |path: &Path| {
            let folder = fs::metadata(path).unwrap();
            (folder.uid(), folder.gid())
        };
        let [new, empty, full, others, file] =
            ["a/new", "empty", "full", "others", "file"].map(|name| base.path().join(name));
        fs::create_dir(&empty).unwrap();
        fs::create_dir_all(full.join("x")).unwrap();
        fs::create_dir(&others).unwrap();
        chown(&others, Some(2), Some(2)).unwrap();
        fs::write(&file, "").unwrap();
        for path in [&new, &empty, &full, &others] {
            make_or_take_folder_for(path, 1, 1).unwrap();
        }
        assert_eq!(
            [&new, &empty, &full, &others].map(|it| owner(it)),
            [(1, 1), (1, 1), (0, 0), (2, 2)]
        );
        let error = make_or_take_folder_for(&file, 1, 1).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{}: ", file.display())), "{error}");
        assert_eq!(owner(&file), (0, 0));

        chown(&empty, Some(0), Some(0)).unwrap();
        make_folder_for(&empty, 1, 1).unwrap();
        assert_eq!(owner(&empty), (0, 0));
    }
}
