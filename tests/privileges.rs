//! The privilege promise: the daemon drops root for good and can still write a mailbox as its
//! owner. The one test here changes the whole process, so it has a process of its own. It
//! runs as root.

#![expect(clippy::unwrap_used, reason = "a test ends where it panics")]

mod local_support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mailwren::config::settings::{MailboxFormat, Users};
use mailwren::deliver::outcome::Outcome;
use mailwren::deliver::pool::Deliver;
use mailwren::route::local::{LocalRouter, Resolution};
use mailwren::sys::identity::{Identity, Privileges, drop_privileges};
use mailwren::sys::users::{Account, by_name, groups_of};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use rustix::thread::{CapabilitySet, capabilities};

use local_support::{Folder, deferred, deliver, delivery_by, files, job, settings};

#[test]
fn root_is_dropped_and_a_mailbox_is_still_written_as_its_owner() {
    assert!(rustix::process::geteuid().is_root(), "run this test as root: it drops privileges");
    let (nobody, daemon) =
        (by_name("nobody").unwrap().unwrap(), by_name("daemon").unwrap().unwrap());
    let folder = Folder::new();
    let message = b"Subject: hello\r\n\r\nbody\r\n";

    assert!(drop_privileges("no-such-account-here").unwrap_err().to_string().contains("create it"));
    assert_eq!(drop_privileges("root").unwrap(), Privileges::Root);
    assert!(rustix::process::geteuid().is_root());
    chown(folder.path(), Some(nobody.uid), Some(nobody.gid)).unwrap();
    let home = Home::new(&folder, &daemon);
    assert_eq!(drop_privileges("nobody").unwrap(), Privileges::Dropped(nobody.clone()));

    let kept = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::NET_BIND_SERVICE;
    let sets = capabilities(None).unwrap();
    assert_eq!((sets.effective, sets.permitted), (kept, kept));
    assert!(fs::write("/etc/mailwren-test", "").is_err());
    assert!(fs::read("/etc/shadow").is_err());

    let delivery = folder.delivery(MailboxFormat::Maildir, Users::System);
    let outcome = deliver(&delivery, message, "daemon@home.test");
    assert!(matches!(outcome, Outcome::Delivered { .. }), "{outcome:?}");
    assert_eq!(fs::metadata(folder.path().join("daemon")).unwrap().uid(), daemon.uid);
    assert!(fs::read_dir(folder.path().join("daemon")).is_err(), "it is its owner's alone");
    fs::write(folder.path().join("mine"), "").unwrap();
    assert_eq!(fs::metadata(folder.path().join("mine")).unwrap().uid(), nobody.uid);

    home.a_command_runs_as_its_user();
    home.what_is_too_slow_is_killed_whoever_it_runs_as();
    home.what_aliases_name_never_runs_as_the_server();
    home.a_list_is_read_with_the_rights_of_those_who_can_change_it();

    // A thread without those capabilities can only write as itself.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let none = rustix::thread::CapabilitySets {
                effective: CapabilitySet::empty(),
                permitted: CapabilitySet::empty(),
                inheritable: CapabilitySet::empty(),
            };
            rustix::thread::set_capabilities(None, none).unwrap();
            let failure = deferred(deliver(&delivery, message, "bin@home.test"));
            assert!(failure.text.contains("start mailwren as root"), "{}", failure.text);
            let failure = deferred(home.run("true", Duration::from_secs(60)));
            assert!(failure.text.contains("start mailwren as root"), "{}", failure.text);
            let outcome = deliver(&delivery, message, "nobody@home.test");
            assert!(matches!(outcome, Outcome::Delivered { .. }), "{outcome:?}");
            assert_eq!(files(&folder.path().join("nobody/new")).len(), 1);
        });
    });
    assert_eq!(rustix::process::geteuid().as_raw(), nobody.uid);
    let _guard = Identity::of(&daemon).unwrap().assume().unwrap();
    fs::remove_dir_all(folder.path().join("daemon")).unwrap();
    fs::remove_dir_all(folder.path().join("homes")).unwrap();
}

/// The home of another user, who has commands in a `.forward`.
struct Home<'a> {
    folder: &'a Folder,
    account: &'a Account,
}

impl<'a> Home<'a> {
    /// Makes it, as only root can.
    fn new(folder: &'a Folder, account: &'a Account) -> Self {
        let home = Self { folder, account };
        fs::create_dir_all(home.path("")).unwrap();
        for path in [folder.path().join("homes"), home.path("")] {
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
            chown(&path, Some(account.uid), Some(account.gid)).unwrap();
        }
        fs::write(home.path(".forward"), "").unwrap();
        chown(home.path(".forward"), Some(account.uid), Some(account.gid)).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("homes").join(&self.account.name).join(name)
    }

    /// Puts the command into the `.forward`, as far as that may be, and delivers to it.
    fn run(&self, command: &str, timeout: Duration) -> Outcome {
        if let Ok(_guard) = Identity::of(self.account).unwrap().assume() {
            fs::write(self.path(".forward"), format!("\"|{command}\"")).unwrap();
        }
        let base = self.folder.path().display();
        let mut settings =
            settings(MailboxFormat::Maildir, &format!("{base}/{{user}}"), Users::System);
        settings.local.forward = Some(format!("{base}/homes/{{user}}/.forward"));
        settings.local.command_timeout = timeout;
        let mut job =
            job(b"Subject: hello\r\n\r\n", &[&format!("{}@home.test", self.account.name)]);
        job.recipients[0].way = format!("|{command}").parse().unwrap();
        delivery_by(&settings).deliver(&job).remove(0).1
    }

    /// It has the user's ids and groups, no capability, and cannot read what is the server's.
    fn a_command_runs_as_its_user(&self) {
        let secret = self.folder.path().join("password");
        fs::write(&secret, "secret").unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        let (base, secret) = (self.path(""), secret.display().to_string());
        let command = format!(
            "cd {}; id -u >ids; id -ru >>ids; id -g >>ids; id -rg >>ids; id -G >groups; \
             cat {secret} >secret 2>error; grep -h ^Cap /proc/self/status >caps",
            base.display()
        );
        let outcome = self.run(&command, Duration::from_secs(60));
        assert!(matches!(outcome, Outcome::Delivered { .. }), "{outcome:?}");
        match self.run("exit 1; : password", Duration::from_secs(60)) {
            Outcome::Failed(failure) => assert_eq!(
                failure.text, "the command ended with exit code 1, it failed",
                "what it is, is nobody's business outside"
            ),
            other => panic!("{other:?}"),
        }
        let _guard = Identity::of(self.account).unwrap().assume().unwrap();
        let read = |name| fs::read_to_string(self.path(name)).unwrap();
        let Account { uid, gid, .. } = self.account;
        assert_eq!(read("ids"), format!("{uid}\n{uid}\n{gid}\n{gid}\n"));
        let numbers = read("groups");
        let mut groups: Vec<u32> =
            numbers.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let mut expected = groups_of(self.account).unwrap();
        groups.sort_unstable();
        expected.sort_unstable();
        assert_eq!(groups, expected);
        assert_eq!(read("secret"), "");
        assert!(read("error").contains("Permission denied"), "{}", read("error"));
        let caps = read("caps");
        for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert!(caps.contains(&format!("{name}:\t0000000000000000\n")), "{caps}");
        }
        assert_eq!(fs::metadata(self.path("ids")).unwrap().uid(), *uid);
        assert_eq!(fs::metadata(self.path("ids")).unwrap().mode() & 0o777, 0o600);
    }

    /// The daemon keeps no right to send signals to others.
    fn what_is_too_slow_is_killed_whoever_it_runs_as(&self) {
        let fifo = self.folder.path().join("fifo");
        mkfifoat(CWD, &fifo, 0o600.into()).unwrap();
        fs::set_permissions(&fifo, Permissions::from_mode(0o666)).unwrap();
        let command = format!("exec 3<>{}; sleep 3600 & sleep 3600", fifo.display());
        let failure = deferred(self.run(&command, Duration::from_millis(300)));
        assert!(failure.text.contains("was killed"), "{}", failure.text);
        // To write into a FIFO that nobody has open fails.
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        let began = Instant::now();
        while rustix::fs::open(&fifo, flags, Mode::empty()).is_ok() {
            assert!(began.elapsed() < Duration::from_secs(60), "it lives on");
            std::thread::yield_now();
        }
        assert_eq!(rustix::process::geteuid().as_raw(), by_name("nobody").unwrap().unwrap().uid);
        let kept = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::NET_BIND_SERVICE;
        assert_eq!(capabilities(None).unwrap().effective, kept);
    }

    /// Who may run things as the server's account could read the spool and every password.
    fn what_aliases_name_never_runs_as_the_server(&self) {
        let aliases = self.folder.path().join("commands");
        fs::write(&aliases, "pipe: |true\n").unwrap();
        let mut settings = settings(MailboxFormat::Maildir, "/nowhere/{user}", Users::System);
        settings.local.aliases = Some(aliases);
        settings.local.command_user = "nobody".to_owned();
        let mut job = job(b"Subject: hello\r\n\r\n", &["pipe@home.test"]);
        job.recipients[0].way = "|true".parse().unwrap();
        let failure = deferred(delivery_by(&settings).deliver(&job).remove(0).1);
        assert!(failure.text.contains("the server's own account"), "{}", failure.text);
    }

    /// Whom an alias means that includes a list of the user's, or why nobody can say.
    fn list(&self) -> Result<String, String> {
        let aliases = self.folder.path().join("aliases");
        let text = format!("friends: :include:{}\n", self.path("lists/friends").display());
        fs::write(&aliases, text).unwrap();
        let mut settings = settings(MailboxFormat::Maildir, "/nowhere/{user}", Users::System);
        settings.local.aliases = Some(aliases);
        match LocalRouter::new(&settings).resolve(&"friends@home.test".parse().unwrap()) {
            Resolution::Expanded(expansion) => Ok(expansion.into[0].mailbox.to_string()),
            Resolution::Failed(failure) => Err(failure.text),
            other => panic!("{other:?}"),
        }
    }

    /// A link to what the server may read and the user may not shows nobody its lines, however
    /// quickly it takes the place of a list.
    fn a_list_is_read_with_the_rights_of_those_who_can_change_it(&self) {
        let secrets = self.folder.path().join("secrets");
        fs::create_dir(&secrets).unwrap();
        let secret = secrets.join("friends");
        fs::write(&secret, "secret\n").unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        let as_user = |act: &dyn Fn()| {
            let _guard = Identity::of(self.account).unwrap().assume().unwrap();
            act();
        };
        let (list, lists) = (self.path("lists/friends"), self.path("lists"));
        as_user(&|| {
            fs::create_dir(&lists).unwrap();
            fs::write(&list, "bob@x.test\n").unwrap();
            fs::set_permissions(&list, Permissions::from_mode(0o600)).unwrap();
            fs::set_permissions(&lists, Permissions::from_mode(0o700)).unwrap();
        });
        assert!(fs::read(&list).is_err(), "it is the user's alone");
        assert_eq!(self.list(), Ok("bob@x.test".to_owned()));

        let refused = || {
            let failure = self.list().unwrap_err();
            assert!(failure.contains("who can change where it leads, may not read"), "{failure}");
        };
        as_user(&|| {
            fs::remove_file(&list).unwrap();
            symlink(&secret, &list).unwrap();
        });
        refused();
        as_user(&|| {
            fs::remove_dir_all(&lists).unwrap();
            symlink(&secrets, &lists).unwrap();
        });
        refused();
        fs::set_permissions(&secret, Permissions::from_mode(0o640)).unwrap();
        refused();

        let (real, hidden) = (self.path("real"), self.path("hidden"));
        as_user(&|| {
            fs::remove_file(&lists).unwrap();
            fs::create_dir(&lists).unwrap();
            fs::write(&real, "bob@x.test\n").unwrap();
        });
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                as_user(&|| {
                    while !is_over.load(Ordering::Relaxed) {
                        for target in [&real, &secret] {
                            symlink(target, &hidden).unwrap();
                            fs::rename(&hidden, &list).unwrap();
                        }
                    }
                });
            });
            for _ in 0..300 {
                if let Ok(whom) = self.list() {
                    assert_eq!(whom, "bob@x.test");
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        as_user(&|| fs::remove_dir_all(&lists).unwrap());
        fs::remove_dir_all(&secrets).unwrap();
    }
}
