//! What a client can see of accounts that are there and of others that are not.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config;
use crate::receive::logins::hash::tests::COMPUTED;

/// Of `pass word`.
const SHA_256: &str = "$5$abcdefgh$.QMzy7v4vXPoalf3eRONDBUv8WZTVbTMR1FBCZC1/L2";
const BCRYPT: &str = "$2b$05$m0gmBJldEzSJmbbBLWbKIONoKutT5qeHm3Lmq7p9Gr7lU4dxZdpa2";

struct Scene {
    folder: tempfile::TempDir,
    accounts: FileAccounts,
}

impl Scene {
    fn new(users: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let accounts = Self::open(folder.path());
        let scene = Self { folder, accounts };
        scene.write(users);
        scene
    }

    /// The accounts as a server sees them that starts anew.
    fn open(folder: &Path) -> FileAccounts {
        let home = folder.display();
        let text = format!(
            "[server]\nhostname = mx.test\ndomains = mx.test\nstate = {home}/state\n\
             [auth]\nusers = {home}/accounts\n\
             mechanisms = SCRAM-SHA-256, CRAM-MD5, PLAIN, LOGIN\n"
        );
        let path = folder.join("mailwren.ini");
        fs::write(&path, text).unwrap();
        FileAccounts::new(&config::load(&path, "mx.test").unwrap())
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("accounts")
    }

    fn write(&self, users: &str) {
        fs::write(self.path(), users).unwrap();
        self.allow(0o600);
    }

    fn allow(&self, mode: u32) {
        fs::set_permissions(self.path(), Permissions::from_mode(mode)).unwrap();
    }

    /// Who it is, the reason why not, and the classes of the hashes that were computed.
    fn check(
        &self,
        user: &str,
        password: &str,
    ) -> (Result<Option<String>, Unavailable>, Option<Reason>, Vec<String>) {
        COMPUTED.take();
        let desk = self.accounts.desk(Mechanism::Plain, &|| false);
        let found = desk.check_password(user, password.as_bytes());
        (found.map(|name| name.map(|name| name.to_string())), desk.reason(), COMPUTED.take())
    }
}

fn scram(user: &str, iterations: u32) -> String {
    let keys = ScramKeys::from_password(ScramHash::Sha256, b"pass word", b"salt", iterations);
    format!("{user}:{SHA_256}:{}\n", keys.unwrap())
}

#[test]
fn the_right_password_is_known_by_every_form_of_the_name() {
    let scene = Scene::new(&format!("Ann:{SHA_256}\nbob@far.test:{BCRYPT}\n"));
    for name in ["ann", "ANN", "Ann", "ann@mx.test", "ann@MX.TEST"] {
        assert_eq!(scene.check(name, "pass word").0, Ok(Some("Ann".to_owned())), "{name}");
    }
    for name in ["ann@far.test", "bob", "bob@mx.test", "@mx.test", "", "ann@mx.test@mx.test"] {
        assert_eq!(scene.check(name, "pass word").0, Ok(None), "{name}");
    }
    let bob = scene.check("bob@far.test", "pass word");
    assert_eq!(bob.0, Ok(Some("bob@far.test".to_owned())));
}

#[test]
fn every_refusal_costs_one_hash_of_the_usual_kind() {
    let users = format!("a:{SHA_256}\nb:{SHA_256}\nc:!{SHA_256}\nd:*\n{}", scram("e", 4096));
    let keys = ScramKeys::from_password(ScramHash::Sha256, b"pass word", b"salt", 4096).unwrap();
    let scene = Scene::new(&format!("{users}f::{keys}\n"));
    for (name, password, reason) in [
        ("a", "wrong", Reason::WrongPassword),
        ("nobody", "wrong", Reason::UnknownName),
        ("c", "pass word", Reason::Locked),
        ("d", "pass word", Reason::Locked),
        ("f", "pass word", Reason::NoKeys),
        // Right for the decoy, and still nobody's.
        ("nobody", "pass word", Reason::UnknownName),
    ] {
        let expected = (Ok(None), Some(reason), vec!["$5".to_owned()]);
        assert_eq!(scene.check(name, password), expected, "{name}");
    }
}

#[test]
fn an_unknown_name_is_like_one_of_the_accounts_and_stays_so() {
    let scene = Scene::new(&format!("a:{SHA_256}\nb:{BCRYPT}\nc:!{SHA_256}\n"));
    let class = |scene: &Scene, name: &str| scene.check(name, "wrong").2;
    assert_eq!(
        (class(&scene, "a"), class(&scene, "b")),
        (vec!["$5".into()], vec!["$2b$05".into()])
    );
    let names: Vec<_> = (0..100).map(|number| format!("nobody{number}")).collect();
    let all: Vec<_> = names.iter().map(|name| class(&scene, name)).collect();
    assert!(all.iter().all(|computed| computed.len() == 1), "{all:?}");
    assert!(all.contains(&class(&scene, "a")) && all.contains(&class(&scene, "b")), "{all:?}");
    let scene = Scene { accounts: Scene::open(scene.folder.path()), folder: scene.folder };
    let again: Vec<_> = names.iter().map(|name| class(&scene, &name.to_uppercase())).collect();
    assert_eq!(again, all);
}

#[test]
fn made_up_keys_are_like_those_of_others_and_outlive_a_restart() {
    let scene = Scene::new(&format!("{}{}bob:{SHA_256}\n", scram("ann", 5000), scram("b2", 5000)));
    let keys = |accounts: &FileAccounts, user: &str| {
        let desk = accounts.desk(Mechanism::ScramSha256, &|| false);
        let account = desk.scram_keys(user, ScramHash::Sha256).unwrap();
        // Without the keys themselves, which nobody sees.
        let text = account.keys.to_string();
        let seen = text.split(',').take(2).collect::<Vec<_>>().join(",");
        (seen, desk.reason())
    };
    let ann = keys(&scene.accounts, "ann");
    assert_eq!(ann, ("{SCRAM-SHA-256}5000,c2FsdA==".to_owned(), Some(Reason::WrongPassword)));
    let (seen, reason) = keys(&scene.accounts, "nobody");
    assert!(seen.starts_with("{SCRAM-SHA-256}5000,"), "{seen}");
    assert_eq!(seen.len(), "{SCRAM-SHA-256}5000,".len() + 24);
    assert_eq!(reason, Some(Reason::UnknownName));
    assert_eq!(keys(&scene.accounts, "NOBODY").0, seen);
    assert_ne!(keys(&scene.accounts, "nobody2").0, seen);
    assert_eq!(keys(&scene.accounts, "bob").1, Some(Reason::NoKeys));
    assert_eq!(keys(&Scene::open(scene.folder.path()), "nobody").0, seen);
    let secret = scene.folder.path().join("state").join(SECRET_NAME);
    let secret = fs::metadata(secret).unwrap();
    assert_eq!((secret.len(), secret.permissions().mode() & 0o777), (32, 0o600));
}

/// Who is told two salts for one account that he writes in two ways knows that there is none.
#[test]
fn a_made_up_salt_is_the_same_for_every_form_of_the_name() {
    let scene = Scene::new(&scram("ann", 4096));
    let salt = |user: &str| {
        let desk = scene.accounts.desk(Mechanism::ScramSha256, &|| false);
        desk.scram_keys(user, ScramHash::Sha256)
            .unwrap()
            .keys
            .to_string()
            .split(',')
            .nth(1)
            .unwrap()
            .to_owned()
    };
    for name in ["ann", "nobody"] {
        for domain in ["mx.test", "MX.test"] {
            assert_eq!(salt(&format!("{name}@{domain}")), salt(name), "{name}");
        }
    }
    assert_ne!(salt("nobody@far.test"), salt("nobody"));
}

#[test]
fn only_what_somebody_can_use_is_offered() {
    use Mechanism::{CramMd5, Login, Plain, ScramSha256};
    let scene = Scene::new("");
    let offered = |users: &str| {
        scene.write(users);
        scene.accounts.mechanisms()
    };
    assert_eq!(offered(""), []);
    assert_eq!(offered(&format!("# x\nann:!{SHA_256}\n")), []);
    assert_eq!(offered(&format!("ann:{SHA_256}\n")), [Plain, Login]);
    assert_eq!(offered(&scram("ann", 4096)), [ScramSha256, Plain, Login]);
    let md5 = CramMd5Keys::from_password(b"x").unwrap();
    assert_eq!(offered(&format!("ann::{md5}\n")), [CramMd5]);
    // Not configured: SCRAM-SHA-1.
    let sha_1 = ScramKeys::from_password(ScramHash::Sha1, b"x", b"salt", 4096).unwrap();
    assert_eq!(offered(&format!("ann::{sha_1}\n")), []);
    // Nobody can tell: whoever tries comes again.
    scene.allow(0o644);
    assert_eq!(scene.accounts.mechanisms(), [ScramSha256, CramMd5, Plain, Login]);
    assert_eq!(scene.check("ann", "x").0, Err(Unavailable));
    scene.allow(0o640);
    assert_eq!(scene.accounts.mechanisms(), []);
    fs::remove_file(scene.path()).unwrap();
    assert_eq!(scene.accounts.mechanisms(), []);
}

#[test]
fn a_changed_file_counts_at_once() {
    let scene = Scene::new(&format!("ann:{SHA_256}\n"));
    assert_eq!(scene.check("ann", "pass word").0, Ok(Some("ann".to_owned())));
    scene.write(&format!("bob:{SHA_256}\n"));
    assert_eq!(scene.check("ann", "pass word").0, Ok(None));
    assert_eq!(scene.check("bob", "pass word").0, Ok(Some("bob".to_owned())));
}

#[test]
fn an_address_that_is_refused_meanwhile_costs_no_hash() {
    let scene = Scene::new(&format!("ann:{SHA_256}\n"));
    COMPUTED.take();
    let desk = scene.accounts.desk(Mechanism::Plain, &|| true);
    assert_eq!(desk.check_password("ann", b"pass word"), Err(Unavailable));
    assert_eq!(COMPUTED.take(), [] as [String; 0]);
}
