//! A folder with a configuration for mx.test: users, aliases, and nothing of this host.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
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
const ALIASES: &str = "root: ann\nstaff: ann, bob\ncarl: carl, bob\nfar: zoe@far.test\n\
    script: \"|run --secret\", /var/log/mail\nmixed: ann, |run\n";
/// Aliases that lead nowhere.
const LOOPS: &str = "peter: paul\npaul: peter\n";

/// Who may log in, where a listener lets anybody. The password of each is `pass word`; Ann has
/// keys for all mechanisms, Bob and the printer a hash from elsewhere, Carl is locked. Cheap, since
/// tests compute them again and again.
const ACCOUNTS: &str = "\
# people
ann:$argon2id$v=19$m=1024,t=2,p=1$c29tZXNhbHQxMg$lUzYK/ctfjqMXcDp+wqo3Vmiffi0AYS2u4ZLsOU0PE4\
:{SCRAM-SHA-256}4096,MDEyMzQ1Njc4OWFiY2RlZg==,3OPfWBonbfE0jHPyg+7jVfC7hdSDCVmc7AGNSfiVB+s=,uR4fxnSJbtxu9CAquVuZK2v6NiaB2TXfHXL1VHHGvko=:\
:{SCRAM-SHA-1}4096,MDEyMzQ1Njc4OWFiY2RlZg==,vkA9P95lsBNzJzWPQy+WXyIsp7c=,s7PyysxL7lsjEB2elk6X/JlSptI=:{CRAM-MD5}ee7caf39bc55ee6231951ebd3832c90a64bbec99612a5f279453f4b6eeff6769
bob:$2b$05$m0gmBJldEzSJmbbBLWbKIONoKutT5qeHm3Lmq7p9Gr7lU4dxZdpa2:19000:0:99999:7:::
printer:$2b$05$m0gmBJldEzSJmbbBLWbKIONoKutT5qeHm3Lmq7p9Gr7lU4dxZdpa2
carl:!$2b$05$m0gmBJldEzSJmbbBLWbKIONoKutT5qeHm3Lmq7p9Gr7lU4dxZdpa2
";

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
        fs::write(folder.path().join("loops"), LOOPS).unwrap();
        let accounts = folder.path().join("accounts");
        fs::write(&accounts, ACCOUNTS).unwrap();
        fs::set_permissions(&accounts, Permissions::from_mode(0o600)).unwrap();
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
