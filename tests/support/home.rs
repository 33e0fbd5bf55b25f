//! A folder with a configuration for mx.test: users, aliases, and nothing of this host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What a test starts from. The client of a test is at 127.0.0.1 and a stranger; whatever is
/// relayed finds nobody, so that nothing leaves this host.
const DEFAULTS: [(&str, &str); 19] = [
    ("server.hostname", "mx.test"),
    ("server.domains", "mx.test"),
    ("server.user", "root"),
    ("server.spool", "HOME/spool"),
    ("server.state", "HOME/state"),
    ("server.socket", ""),
    ("server.max_message_size", "64K"),
    ("server.min_free_space", "0"),
    ("listen.smtp.address", "127.0.0.1:0"),
    ("listen.smtp.tls", "none"),
    ("tls.certificate", "HOME/cert.pem"),
    ("auth.users", "HOME/accounts"),
    ("relay.networks", "192.0.2.0/24"),
    ("local.format", "maildir"),
    ("local.path", "HOME/mail/{user}"),
    ("local.users", "HOME/users"),
    ("local.aliases", "HOME/aliases"),
    ("smarthost.host", "127.0.0.1:1"),
    ("smarthost.tls", "none"),
];
const USERS: &str = "ann\nbob\ncarl\n";
/// Who can log in, each with the password `secret`.
const ACCOUNTS: [&str; 3] = ["ann", "bob", "printer"];
const HASH: &str = "$6$rounds=1000$mailwren$3MqhQB.tKL5TehcKju2jyHP0RWY8opFf5hBiVZc4Ch6ssrV0c8mL.TiYn5.\
    XaAo0pu61YBG.bkAUcSBsxSZ7V/";
const ALIASES: &str = "root: ann\nstaff: ann, bob\ncarl: carl, bob\nfar: zoe@far.test\n";

/// A setting that differs: `server.vrfy` and its value.
pub(crate) type Change = (String, String);

/// The folder; it goes with the value.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    /// A folder with the usual settings and these changes.
    pub(crate) fn new(changes: &[Change]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("users"), USERS).unwrap();
        fs::write(folder.path().join("aliases"), ALIASES).unwrap();
        let accounts = folder.path().join("accounts");
        fs::write(&accounts, ACCOUNTS.map(|name| format!("{name}:{HASH}\n")).concat()).unwrap();
        fs::set_permissions(&accounts, fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(folder.path().join("mail")).unwrap();
        let text = configuration(changes).replace("HOME", folder.path().to_str().unwrap());
        fs::write(folder.path().join("mailwren.ini"), text).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("mailwren.ini")
    }
}

fn configuration(changes: &[Change]) -> String {
    let mut settings: Vec<(&str, &str)> = DEFAULTS.into();
    for (name, value) in changes {
        match settings.iter_mut().find(|(known, _)| known == name) {
            Some((_, default)) => {
                assert_ne!(default, value, "{name} has this value anyway");
                *default = value;
            }
            None => settings.push((name, value)),
        }
    }
    settings.sort_unstable();
    let mut text = String::new();
    let mut last_section = "";
    for (name, value) in settings {
        let (section, key) = name.rsplit_once('.').unwrap();
        if section != last_section {
            text.push_str(&format!("[{section}]\n"));
            last_section = section;
        }
        text.push_str(&format!("{key} = {value}\n"));
    }
    text
}
