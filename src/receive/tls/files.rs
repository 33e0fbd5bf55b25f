//! The two files of a certificate, read again when they have changed. Those of certbot are
//! root's alone, so where the server's account may not read them, they are read as root, as long
//! as the server may take other identities.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::certificate::{Certificate, Part, Unusable};
use crate::sys::disk::Disk;
use crate::sys::identity::Identity;
use crate::sys::watched::WatchedFile;

/// The largest file that is read, in octets. A long chain has ten thousand.
const MAX_FILE: u64 = 256 << 10;

/// Where a certificate and its key are.
pub struct Files {
    certificate: WatchedFile<Vec<u8>>,
    key: WatchedFile<Vec<u8>>,
    /// Whether root says which files they are, so that they may be read as root.
    are_roots: bool,
}

/// What the two files hold. It has no `Debug`, for one of them is the key.
#[derive(Clone, PartialEq, Eq)]
pub struct Octets {
    certificate: Arc<Vec<u8>>,
    key: Arc<Vec<u8>>,
}

/// A file that cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl Files {
    /// The files at these paths, which the configuration names.
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        let watch = |path| WatchedFile::new(path, MAX_FILE);
        Self { certificate: watch(certificate), key: watch(key), are_roots: true }
    }

    /// The files at these paths in a folder of the server's account, which could put a link there
    /// to what it may not read.
    pub fn of_server(certificate: PathBuf, key: PathBuf) -> Self {
        Self { are_roots: false, ..Self::new(certificate, key) }
    }

    /// Where the certificate is, or the key.
    pub fn path(&self, part: Part) -> &Path {
        match part {
            Part::Certificate => self.certificate.path(),
            Part::Key => self.key.path(),
        }
    }

    /// Whether there is nothing at either path, as far as can be seen.
    pub fn are_missing(&self) -> bool {
        [Part::Certificate, Part::Key].into_iter().all(|part| {
            let found = Disk::host().look_at(self.path(part));
            found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        })
    }

    /// What is in them now. What has not changed since the last time is not read again.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn load(&self) -> Result<Octets, Unreadable> {
        Ok(Octets { certificate: self.read(&self.certificate)?, key: self.read(&self.key)? })
    }

    fn read(&self, file: &WatchedFile<Vec<u8>>) -> Result<Arc<Vec<u8>>, Unreadable> {
        let load = || file.load(|octets, _| Arc::new(octets.to_vec()));
        let result = match load() {
            Err(error) if self.are_roots && error.kind() == io::ErrorKind::PermissionDenied => {
                match Identity::root().assume() {
                    Ok(_guard) => load(),
                    Err(_) => Err(error),
                }
            }
            result => result,
        };
        result.map_err(|error| Unreadable { path: file.path().to_owned(), error })
    }
}

impl Octets {
    /// The certificate that they are.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn parse(&self) -> Result<Certificate, Unusable> {
        Certificate::from_pem(&self.certificate, &self.key)
    }

    /// Whether they look whole, so far as it shows without parsing them.
    pub fn look_whole(&self) -> bool {
        let is_whole = |octets: &[u8]| {
            octets.starts_with(b"-----BEGIN ") && octets.trim_ascii_end().ends_with(b"-----")
        };
        is_whole(&self.certificate) && is_whole(&self.key)
    }
}

impl Unreadable {
    /// What it is and what to do, without the name of the file.
    pub fn text(&self) -> String {
        let remedy = match self.error.kind() {
            io::ErrorKind::NotFound => "put it there, or name another one in [tls]",
            io::ErrorKind::PermissionDenied => {
                "let the account of [server] user read it and enter the folders above it, or \
                 start the server as root or by its unit; \"TLS\" in mailwren(8) says how"
            }
            _ => "give a file in PEM that can be read",
        };
        format!("{}; {remedy}", self.error)
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.text())
    }
}
