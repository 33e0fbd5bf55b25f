//! Somebody with a home, a `.forward` in it, and a mailbox.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mailwren::config::settings::{MailboxFormat, Settings, Users};
use mailwren::deliver::local::LocalDelivery;
use mailwren::deliver::outcome::Outcome;
use mailwren::route::addressee::Expansion;
use mailwren::route::forward::{Forwards, Unheard};
use mailwren::route::local::{LocalRouter, Resolution};
use mailwren::sys::users::{Account, by_name, by_uid};

use crate::local_support::{Folder, deliver, delivery_by, settings};

pub(crate) const MESSAGE: &[u8] = b"Subject: hello\r\n\r\nFrom here\r\n";

/// Who runs the tests, or in root's place another account.
pub(crate) fn me() -> Account {
    let uid = rustix::process::geteuid();
    let account = if uid.is_root() { by_name("daemon") } else { by_uid(uid.as_raw()) };
    account.unwrap().unwrap()
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A home of an account of the system, but not where the system says. In addresses `ann` stands for
/// the account.
pub(crate) struct Home {
    pub(crate) folder: Folder,
    pub(crate) account: Account,
}

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self { folder: Folder::new(), account: me() };
        fs::create_dir_all(home.path("")).unwrap();
        set_mode(&home.folder.path().join("homes"), 0o755);
        set_mode(&home.path(""), 0o755);
        home.own("");
        home
    }

    /// The path of a file in the home.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("homes").join(&self.account.name).join(name)
    }

    /// The user's Maildir.
    pub(crate) fn mailbox(&self) -> PathBuf {
        self.folder.path().join(&self.account.name)
    }

    /// Gives a file in the home to its owner.
    pub(crate) fn own(&self, name: &str) {
        lchown(self.path(name), Some(self.account.uid), Some(self.account.gid)).unwrap();
    }

    /// Writes a file into the home, as its owner would.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        set_mode(&self.path(name), 0o644);
        self.own(name);
    }

    fn settings(&self) -> Settings {
        let base = self.folder.path().display();
        let mut settings =
            settings(MailboxFormat::Maildir, &format!("{base}/{{user}}"), Users::System);
        settings.local.forward = Some(format!("{base}/homes/{{user}}/.forward"));
        settings
    }

    /// A delivery with other settings.
    pub(crate) fn delivery_with(&self, change: impl FnOnce(&mut Settings)) -> LocalDelivery {
        let mut settings = self.settings();
        change(&mut settings);
        delivery_by(&settings)
    }

    /// Delivers to `ann`, perhaps with a detail.
    pub(crate) fn deliver(&self, name: &str) -> Outcome {
        self.deliver_by(&self.delivery_with(|_| {}), name)
    }

    pub(crate) fn deliver_by(&self, delivery: &LocalDelivery, name: &str) -> Outcome {
        deliver(delivery, MESSAGE, &self.address(name))
    }

    /// The address of `ann`, perhaps with a detail.
    pub(crate) fn address(&self, name: &str) -> String {
        let name = name.replacen("ann", &self.account.name, 1);
        let is_atom = !name.contains(['/', '"']) && !name.ends_with('.');
        if is_atom { format!("{name}@home.test") } else { format!("\"{name}\"@home.test") }
    }

    /// What the `.forward` is said to be.
    pub(crate) fn expansion(&self, name: &str) -> Result<Option<Expansion>, Unheard> {
        let settings = self.settings();
        let router = Arc::new(LocalRouter::new(&settings));
        let mailbox = self.address(name).parse().unwrap();
        let Resolution::Mailbox(user) = router.resolve(&mailbox) else { panic!("{mailbox}") };
        Forwards::new(&settings).expansion(&user, &mailbox, &router)
    }
}
