//! The identity promises: a mailbox is written as its owner, and nothing that another user
//! has planted is followed or written through. These tests change identities, so they run as
//! root.

#![expect(clippy::unwrap_used, reason = "a test ends where it panics")]

mod local_support;

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use mailwren::config::settings::{MailboxFormat, Users};
use mailwren::deliver::outcome::Outcome;
use mailwren::deliver::pool::Deliver;
use mailwren::sys::identity::Identity;
use mailwren::sys::users::{Account, by_name};
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use local_support::{Folder, deferred, deliver, delivery_by, files, job, settings};

const BOTH: [MailboxFormat; 2] = [MailboxFormat::Mbox, MailboxFormat::Maildir];
const MESSAGE: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

/// The recipient of most tests, and somebody else.
fn accounts() -> (Account, Account) {
    assert!(
        rustix::process::geteuid().is_root(),
        "run these tests as root: they change identities"
    );
    (by_name("daemon").unwrap().unwrap(), by_name("bin").unwrap().unwrap())
}

fn own(path: &Path, account: &Account, mode: u32) {
    chown(path, Some(account.uid), Some(account.gid)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn deliver_to_daemon(folder: &Folder, format: MailboxFormat) -> Outcome {
    deliver(&folder.delivery(format, Users::System), MESSAGE, "daemon@home.test")
}

fn is_delivered(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Delivered { .. })
}

#[test]
fn files_belong_to_the_recipient_and_the_thread_gets_its_identity_back() {
    let (daemon, bin) = accounts();
    let folder = Folder::new();
    for format in BOTH {
        for account in [&daemon, &bin] {
            let delivery = folder.delivery(format, Users::System);
            let outcome = deliver(&delivery, MESSAGE, &format!("{}@home.test", account.name));
            assert!(is_delivered(&outcome), "{outcome:?}");
            let path = folder.path().join(&account.name);
            assert_eq!(fs::metadata(&path).unwrap().uid(), account.uid);
            if format == MailboxFormat::Maildir {
                let file = fs::metadata(&files(&path.join("new"))[0]).unwrap();
                assert_eq!(
                    (file.uid(), file.gid(), file.mode() & 0o777),
                    (account.uid, account.gid, 0o600)
                );
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
    }
    let mine = folder.path().join("mine");
    fs::write(&mine, "").unwrap();
    assert_eq!(fs::metadata(mine).unwrap().uid(), 0);
}

#[test]
fn an_identity_that_cannot_be_given_back_ends_the_process() {
    const ROLE: &str = "MAILWREN_TEST_LOSES_ITS_RIGHTS";
    if env::var_os(ROLE).is_some() {
        let guard = Identity::of(&accounts().0).unwrap().assume().unwrap();
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, sets).unwrap();
        drop(guard);
        std::process::exit(0);
    }
    let name = "an_identity_that_cannot_be_given_back_ends_the_process";
    let mut again = Command::new(env::current_exe().unwrap());
    let output = again.args(["--exact", name]).env(ROLE, "1").output().unwrap();
    assert_eq!(output.status.signal(), Some(Signal::ABORT.as_raw()), "{output:?}");
}

#[test]
fn root_has_a_mailbox_like_everybody() {
    accounts();
    let folder = Folder::new();
    let delivery = folder.delivery(MailboxFormat::Mbox, Users::System);
    assert!(is_delivered(&deliver(&delivery, MESSAGE, "root@home.test")));
    assert_eq!(fs::metadata(folder.path().join("root")).unwrap().uid(), 0);
}

#[test]
fn the_group_of_the_spool_folder_makes_locks_and_files_possible() {
    let (daemon, bin) = accounts();
    let folder = Folder::new();
    chown(folder.path(), Some(0), Some(bin.gid)).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o2775)).unwrap();
    for _ in 0..2 {
        let outcome = deliver_to_daemon(&folder, MailboxFormat::Mbox);
        assert!(is_delivered(&outcome), "{outcome:?}");
    }
    let file = fs::metadata(folder.path().join("daemon")).unwrap();
    assert_eq!((file.uid(), file.gid()), (daemon.uid, bin.gid));
    assert_eq!(files(folder.path()).len(), 1);
    // It is no way into a folder of Maildirs, whose files need no lock.
    fs::remove_file(folder.path().join("daemon")).unwrap();
    deferred(deliver_to_daemon(&folder, MailboxFormat::Maildir));
}

#[test]
fn without_a_place_for_a_dot_lock_the_fcntl_lock_does() {
    let (daemon, _) = accounts();
    let folder = Folder::new();
    fs::write(folder.path().join("daemon"), "").unwrap();
    own(&folder.path().join("daemon"), &daemon, 0o600);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    assert!(is_delivered(&deliver_to_daemon(&folder, MailboxFormat::Mbox)));
}

#[test]
fn what_another_user_planted_is_not_written_through() {
    let (_, bin) = accounts();
    type Plant<'a> = &'a dyn Fn(&Path, &Path);
    let plants: [(MailboxFormat, &str, Plant<'_>); 5] = [
        (MailboxFormat::Mbox, "link", &|secret, path| symlink(secret, path).unwrap()),
        (MailboxFormat::Mbox, "names", &|secret, path| fs::hard_link(secret, path).unwrap()),
        (MailboxFormat::Mbox, "belongs to", &|_, path| {
            fs::write(path, "").unwrap();
            own(path, &bin, 0o666);
        }),
        (MailboxFormat::Maildir, "belongs to", &|_, path| {
            fs::create_dir(path).unwrap();
            own(path, &bin, 0o777);
        }),
        (MailboxFormat::Maildir, "link", &|secret, path| {
            symlink(secret.parent().unwrap(), path).unwrap();
        }),
    ];
    for (format, reason, plant) in plants {
        let (folder, elsewhere) = (Folder::new(), Folder::new());
        let secret = elsewhere.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o666)).unwrap();
        plant(&secret, &folder.path().join("daemon"));
        let failure = deferred(deliver_to_daemon(&folder, format));
        assert!(failure.text.contains(reason), "{}", failure.text);
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
        assert_eq!((files(folder.path()).len(), files(elsewhere.path()).len()), (1, 1));
    }
}

#[test]
fn a_link_swapped_in_while_delivering_is_never_followed() {
    let (daemon, _) = accounts();
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    let secret = elsewhere.path().join("secret");
    fs::write(&secret, "").unwrap();
    own(&secret, &daemon, 0o600);
    let (path, link) = (folder.path().join("daemon"), folder.path().join("link"));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                symlink(&secret, &link).unwrap();
                fs::rename(&link, &path).unwrap();
                fs::remove_file(&path).unwrap();
            }
        });
        for _ in 0..50 {
            let outcome = deliver_to_daemon(&folder, MailboxFormat::Mbox);
            assert!(!matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::metadata(secret).unwrap().len(), 0);
}

#[test]
fn a_home_that_is_away_defers_and_one_that_is_there_is_used() {
    let (daemon, _) = accounts();
    // The home of `nobody` is /nonexistent on Debian, as if its disk were not mounted.
    let nobody = by_name("nobody").unwrap().unwrap();
    assert!(!nobody.home.exists(), "nobody has a home at {}", nobody.home.display());
    for format in BOTH {
        let delivery = delivery_by(&settings(format, "{home}/Mail", Users::System));
        let failure = deferred(deliver(&delivery, MESSAGE, "nobody@home.test"));
        assert!(failure.text.contains("mount"), "{}", failure.text);
        // That of `daemon` is /usr/sbin, where it may not write.
        let failure = deferred(deliver(&delivery, MESSAGE, "daemon@home.test"));
        assert!(failure.text.contains("may write"), "{}", failure.text);
        assert!(!daemon.home.join("Mail").exists());
    }
}

#[test]
fn a_forward_of_somebody_else_is_not_read() {
    let (daemon, bin) = accounts();
    let folder = Folder::new();
    let home = folder.path().join("daemon.home");
    let forward = home.join(".forward");
    let mut settings = settings(
        MailboxFormat::Mbox,
        &format!("{}/{{user}}", folder.path().display()),
        Users::System,
    );
    // Nobody but root can write to the folder above.
    let above = tempfile::tempdir().unwrap();
    own(above.path(), &by_name("root").unwrap().unwrap(), 0o755);
    settings.local.forward = Some(format!("{}/{{user}}.home/.forward", above.path().display()));
    let home_link = above.path().join("daemon.home");
    let delivery = delivery_by(&settings);
    let outcome = || deliver(&delivery, MESSAGE, "daemon@home.test");
    let fill = |owner: &Account, home_owner: &Account| {
        let _ = fs::remove_dir_all(&home);
        fs::create_dir(&home).unwrap();
        own(&home, home_owner, 0o755);
        fs::write(&forward, "thief@x.test").unwrap();
        own(&forward, owner, 0o644);
        let _ = fs::remove_dir_all(&home_link);
        fs::rename(&home, &home_link).unwrap();
    };
    fill(&daemon, &daemon);
    assert!(matches!(outcome(), Outcome::Expanded(_)));
    fill(&by_name("root").unwrap().unwrap(), &daemon);
    assert!(matches!(outcome(), Outcome::Expanded(_)), "root may speak for everybody");
    fill(&bin, &daemon);
    assert!(is_delivered(&outcome()));
    fill(&daemon, &bin);
    assert!(is_delivered(&outcome()));

    // What only root can read is read by nobody else.
    fill(&daemon, &daemon);
    let forward = home_link.join(".forward");
    fs::remove_file(&forward).unwrap();
    symlink("/etc/shadow", &forward).unwrap();
    assert!(is_delivered(&outcome()));
    fs::remove_file(&forward).unwrap();
    fs::write(&forward, ":include:/etc/shadow").unwrap();
    own(&forward, &daemon, 0o644);
    assert!(is_delivered(&outcome()));

    // A home that its owner may not enter is as good as away.
    own(&home_link, &bin, 0o700);
    let failure = deferred(outcome());
    assert!(failure.text.contains("pass through"), "{}", failure.text);
}

#[test]
fn what_root_names_runs_as_another_account() {
    let (_, bin) = accounts();
    let folder = Folder::new();
    let above = tempfile::tempdir().unwrap();
    own(above.path(), &by_name("root").unwrap().unwrap(), 0o755);
    let mark = folder.path().join("mark");
    let command = format!("id -u >{}", mark.display());
    fs::write(above.path().join("root"), format!("\"|{command}\"")).unwrap();
    let pattern = format!("{}/{{user}}", folder.path().display());
    let mut settings = settings(MailboxFormat::Mbox, &pattern, Users::System);
    settings.local.forward = Some(format!("{}/{{user}}", above.path().display()));
    let mut job = job(MESSAGE, &["root@home.test"]);
    job.recipients[0].way = format!("|{command}").parse().unwrap();
    let mut outcome = |user: &str| {
        settings.local.command_user = user.to_owned();
        delivery_by(&settings).deliver(&job).remove(0).1
    };
    assert!(is_delivered(&outcome("bin")));
    assert_eq!(fs::read_to_string(&mark).unwrap().trim(), bin.uid.to_string());
    for (user, part) in [("root", "is root"), ("no-such-account-here", "is no account")] {
        let failure = deferred(outcome(user));
        assert_eq!(failure.status.to_string(), "4.3.5");
        assert!(failure.text.contains(part), "{}", failure.text);
    }
}

#[test]
fn what_an_alias_names_runs_and_is_written_as_the_command_user() {
    let (daemon, bin) = accounts();
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let pattern = format!("{}/{{user}}", folder.path().display());
    let mut settings = settings(MailboxFormat::Maildir, &pattern, Users::System);
    settings.local.command_user = "bin".to_owned();
    settings.local.aliases = Some(elsewhere.path().join("aliases"));
    let command = format!("|id -u >{}; id -G >>{0}; echo $EXTENSION >>{0}", path("ids"));
    let aliases =
        format!("script: \"{command}\"\nmbox: {}\nlink: {}\n", path("mbox"), path("link"));
    fs::write(elsewhere.path().join("aliases"), aliases).unwrap();
    let delivery = delivery_by(&settings);
    let deliver_to = |address: &str, way: &str| {
        let mut job = job(MESSAGE, &[address]);
        job.recipients[0].way = way.parse().unwrap();
        delivery.deliver(&job).remove(0).1
    };
    let Outcome::Expanded(expansion) = deliver(&delivery, MESSAGE, "script+x@home.test") else {
        panic!("an alias is expanded")
    };
    let way = expansion.into[0].way.to_string();
    assert!(is_delivered(&deliver_to(&expansion.into[0].mailbox.to_string(), &way)));
    let ids = fs::read_to_string(path("ids")).unwrap();
    let mut lines = ids.lines();
    assert_eq!(lines.next().unwrap(), bin.uid.to_string());
    let groups: Vec<_> = lines.next().unwrap().split(' ').collect();
    assert!(!groups.contains(&"0"), "{groups:?}");
    assert_eq!(fs::metadata(path("ids")).unwrap().uid(), bin.uid);

    assert!(is_delivered(&deliver_to("mbox@home.test", &path("mbox"))));
    let mbox = fs::metadata(path("mbox")).unwrap();
    assert_eq!((mbox.uid(), mbox.mode() & 0o777), (bin.uid, 0o600));
    // Another user's file in its place is not written, whatever its mode, and no link is followed.
    own(folder.path().join("mbox").as_path(), &daemon, 0o666);
    let failure = deferred(deliver_to("mbox@home.test", &path("mbox")));
    assert!(failure.text.contains("belongs to"), "{}", failure.text);
    let secret = elsewhere.path().join("secret");
    fs::write(&secret, "").unwrap();
    own(&secret, &bin, 0o600);
    symlink(&secret, folder.path().join("link")).unwrap();
    let failure = deferred(deliver_to("link@home.test", &path("link")));
    assert!(failure.text.contains("link"), "{}", failure.text);
    fs::remove_file(folder.path().join("link")).unwrap();
    fs::hard_link(&secret, folder.path().join("link")).unwrap();
    let failure = deferred(deliver_to("link@home.test", &path("link")));
    assert!(failure.text.contains("names"), "{}", failure.text);
    assert_eq!(fs::metadata(&secret).unwrap().len(), 0);

    // What the alias no longer names is not done.
    fs::write(elsewhere.path().join("aliases"), "script: daemon\n").unwrap();
    fs::remove_file(path("ids")).unwrap();
    let outcome = deliver_to("script@home.test", &way);
    assert!(matches!(outcome, Outcome::Expanded(_)), "{outcome:?}");
    let Outcome::Failed(failure) = deliver_to("mbox@home.test", &path("mbox")) else {
        panic!("there is no such user any more")
    };
    assert_eq!(failure.status.to_string(), "5.1.1");
    assert!(!Path::new(&path("ids")).exists());
}

/// A file system with next to no room, unmounted when dropped.
struct TinyDisk(Folder);

impl TinyDisk {
    fn new() -> Self {
        let folder = Folder::new();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k,mode=1777", "tmpfs"]).arg(folder.path());
        assert!(mount.status().unwrap().success(), "mounting a tmpfs needs CAP_SYS_ADMIN");
        Self(folder)
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg(self.0.path()).status().unwrap().success());
    }
}

#[test]
fn a_full_disk_leaves_nothing_of_the_message() {
    let (daemon, _) = accounts();
    let disk = TinyDisk::new();
    let path = disk.0.path().join("daemon");
    let large = [b"A: b\r\n\r\n".to_vec(), b"line\r\n".repeat(100_000)].concat();
    fs::write(&path, "From x\n\nbefore\n\n").unwrap();
    own(&path, &daemon, 0o600);
    let delivery = disk.0.delivery(MailboxFormat::Mbox, Users::System);
    let failure = deferred(deliver(&delivery, &large, "daemon@home.test"));
    assert_eq!(failure.status.to_string(), "4.3.1", "{}", failure.text);
    assert_eq!(fs::read_to_string(&path).unwrap(), "From x\n\nbefore\n\n");
    assert!(is_delivered(&deliver(&delivery, MESSAGE, "daemon@home.test")));

    fs::remove_file(&path).unwrap();
    let delivery = disk.0.delivery(MailboxFormat::Maildir, Users::System);
    let failure = deferred(deliver(&delivery, &large, "daemon@home.test"));
    assert_eq!(failure.status.to_string(), "4.3.1", "{}", failure.text);
    assert_eq!((files(&path.join("tmp")).len(), files(&path.join("new")).len()), (0, 0));
    assert!(is_delivered(&deliver(&delivery, MESSAGE, "daemon@home.test")));
}
