//! The privilege promise: the daemon drops root for good and can still write a mailbox as its
//! owner. The one test here changes the whole process, so it has a process of its own. It
//! runs as root.

#![expect(clippy::unwrap_used, reason = "a test ends where it panics")]

mod local_support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mailwren::config::settings::{MailboxFormat, Users};
use mailwren::deliver::outcome::Outcome;
use mailwren::deliver::pool::Deliver;
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

    let kept = CapabilitySet::SETUID | CapabilitySet::SETGID;
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
        let kept = CapabilitySet::SETUID | CapabilitySet::SETGID;
        assert_eq!(capabilities(None).unwrap().effective, kept);
    }
}
