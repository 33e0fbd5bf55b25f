//! What the files say now: the configuration, the alias file, and whether they could be changed.

use std::path::{Path, PathBuf};

use super::{Failure, root_alias};
use crate::cli::host_names;
use crate::cli::invocation::Invocation;
use crate::config::settings::{SecretSource, Settings};
use crate::config::{self, sample};
use crate::sys::process::exit;
use crate::sys::whole_file;

/// The most octets of a configuration and of an alias file.
pub(super) const MAX_FILE: u64 = 1 << 20;
/// Where the password is kept beside the configuration; by turns, so that another account's does
/// not take the place of the one that the configuration still names.
const PASSWORDS: [&str; 2] = ["password", "password2"];

/// All of it.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) config: PathBuf,
    /// The text of the configuration; where there is none, of the shipped one.
    pub(super) text: String,
    /// The octets of the file; none where there is none.
    pub(super) config_octets: Vec<u8>,
    pub(super) settings: Settings,
    pub(super) aliases: Option<PathBuf>,
    pub(super) alias_octets: Vec<u8>,
    /// Where root's mail goes, as the alias file has it.
    pub(super) root: Option<String>,
}

impl Standing {
    /// Reads them.
    ///
    /// # Errors
    /// When there is a mistake in one of them, or it could not be replaced: then nothing is asked.
    pub(super) fn read(invocation: &Invocation) -> Result<Self, Failure> {
        let config = invocation.config_path();
        let found = read(&config)?;
        let config_octets = found.clone().unwrap_or_default();
        let text = found.unwrap_or_else(|| sample::render().into_bytes());
        let settings = config::parse(&config.to_string_lossy(), &text, host_names());
        let settings = settings.map_err(|error| (exit::CONFIG, error.to_string()))?;
        let text = String::from_utf8(text).map_err(|error| (exit::CONFIG, error.to_string()))?;
        let aliases = settings.local.aliases.clone();
        let alias_octets = match &aliases {
            Some(path) => read(path)?.unwrap_or_default(),
            None => Vec::new(),
        };
        let root = root_alias::targets(&alias_octets).map_err(|why| {
            let path = aliases.as_deref().unwrap_or(Path::new("")).display();
            (exit::CONFIG, format!("{path}: {why}"))
        })?;
        let standing = Self { config, text, config_octets, settings, aliases, alias_octets, root };
        standing.check_rights()?;
        Ok(standing)
    }

    /// The file that has the password, if it is in one.
    pub(super) fn password_file(&self) -> Option<&Path> {
        let login = self.settings.smarthost.as_ref().and_then(|it| it.login.as_ref());
        match login.map(|login| &login.secret) {
            Some(SecretSource::File(path)) => Some(path),
            _ => None,
        }
    }

    /// The one that a new password goes to: the one that is there, unless it is of another account.
    pub(super) fn new_password_file(&self, is_other_account: bool) -> PathBuf {
        let now = self.password_file();
        let [first, second] = self.own_password_files();
        match now {
            Some(path) if !is_other_account => path.to_owned(),
            Some(path) if path == first => second,
            _ => first,
        }
    }

    /// Those that are made here and by nobody else.
    pub(super) fn own_password_files(&self) -> [PathBuf; 2] {
        PASSWORDS.map(|name| {
            let beside = self.config.with_file_name(name);
            std::path::absolute(&beside).unwrap_or(beside)
        })
    }

    fn check_rights(&self) -> Result<(), Failure> {
        let password = self.new_password_file(false);
        for path in
            [Some(&self.config), self.aliases.as_ref(), Some(&password)].into_iter().flatten()
        {
            whole_file::check_replaceable(path).map_err(|error| of_file(&error))?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let found = whole_file::look(path, MAX_FILE).map_err(|error| of_file(&error))?;
    Ok(found.map(|found| found.octets))
}

/// A file that cannot be had or changed.
pub(super) fn of_file(error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            (exit::NOPERM, format!("{error}; run it as root: sudo mailwren setup"))
        }
        std::io::ErrorKind::ReadOnlyFilesystem => {
            (exit::OSERR, format!("{error}; mount it for writing first"))
        }
        _ => (exit::OSERR, error.to_string()),
    }
}
