//! What all looks at a host have in common: the settings, who looks, and as whom the server runs.

use std::path::Path;

use rustix::process::geteuid;

use crate::config;
use crate::config::settings::Settings;
use crate::sys::disk::{Disk, Status};
use crate::sys::filelock;
use crate::sys::users::{self, Account};

/// A host that is looked at.
pub(super) struct Host<'a> {
    pub(super) settings: &'a Settings,
    /// The file that they stand in.
    pub(super) config: &'a Path,
    /// Whether root looks, who may see everything and as whom the server starts.
    pub(super) is_root: bool,
    /// The account of `[server] user`, if there is one.
    pub(super) account: Option<Account>,
    /// Whether a server has the spool; `None` where that cannot be seen.
    pub(super) is_served: Option<bool>,
}

impl<'a> Host<'a> {
    /// The host as it is now.
    pub(super) fn new(settings: &'a Settings, config: &'a Path) -> Self {
        Self {
            settings,
            config,
            is_root: geteuid().is_root(),
            account: users::by_name(&settings.server.user).ok().flatten(),
            is_served: is_served(&settings.server.spool),
        }
    }

    /// The account that what the server writes must belong to, where that can be told.
    pub(super) fn owner(&self) -> Option<&Account> {
        self.account.as_ref().filter(|_| self.is_root)
    }

    /// The line of the configuration where `key` stands, if it does.
    pub(super) fn line(&self, section: &str, key: &str) -> Option<usize> {
        config::line_of(self.config, section, key)
    }
}

/// Whether a server has the lock of the spool. Nothing is locked to find out.
fn is_served(spool: &Path) -> Option<bool> {
    match Disk::host().look_at(&spool.join("lock")) {
        Ok(lock) => Some(filelock::locked_inodes().contains(&lock.identity().1)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(false),
        Err(_) => None,
    }
}

/// Whose it is, for people.
pub(super) fn name_of(uid: u32) -> String {
    let account = users::by_uid(uid).ok().flatten();
    account.map_or_else(|| format!("user id {uid}"), |account| account.name)
}

/// What is at a path, links followed; `None` where nothing is or it cannot be seen.
pub(super) fn status_of(path: &Path) -> Option<Status> {
    Disk::host().look_at(path).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sys::filelock::ends_within;
    use std::path::PathBuf;
    use std::time::Duration;

    /// A configuration in a folder of its own.
    pub(in super::super) struct Facts {
        pub(in super::super) home: tempfile::TempDir,
        pub(in super::super) config: PathBuf,
        pub(in super::super) settings: Settings,
    }

    impl Facts {
        /// One with this text, in which HOME stands for the folder.
        pub(in super::super) fn new(text: &str) -> Self {
            let home = tempfile::tempdir().unwrap();
            let text = text.replace("HOME", home.path().to_str().unwrap());
            let config = home.path().join("mailwren.ini");
            std::fs::write(&config, &text).unwrap();
            let settings = config::load(&config, "mx.test").unwrap();
            Self { home, config, settings }
        }
    }

    /// What root sees of it.
    pub(in super::super) fn host_of(facts: &Facts) -> Host<'_> {
        assert!(geteuid().is_root(), "run this test as root");
        Host::new(&facts.settings, &facts.config)
    }

    #[test]
    fn a_spool_is_served_while_somebody_has_its_lock() {
        let facts = Facts::new("[server]\nspool = HOME/spool\n");
        let is_served = || host_of(&facts).is_served;
        assert_eq!(is_served(), Some(false));
        let spool = crate::spool::store::Spool::open(&facts.settings.server.spool).unwrap();
        assert_eq!(is_served(), Some(true));
        drop(spool);
        assert!(ends_within(Duration::from_secs(60), || is_served() != Some(false)));
    }
}
