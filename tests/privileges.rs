//! The privilege promise: the daemon drops root for good and can still write a mailbox as its
//! owner. The one test here changes the whole process, so it has a process of its own. It
//! runs as root.

#![expect(clippy::unwrap_used, reason = "a test ends where it panics")]

mod local_support;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use mailwren::config::settings::{MailboxFormat, Users};
use mailwren::deliver::outcome::Outcome;
use mailwren::sys::identity::{Identity, Privileges, drop_privileges};
use mailwren::sys::users::by_name;
use rustix::thread::{CapabilitySet, capabilities};

use local_support::{Folder, deferred, deliver, files};

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
            let outcome = deliver(&delivery, message, "nobody@home.test");
            assert!(matches!(outcome, Outcome::Delivered { .. }), "{outcome:?}");
            assert_eq!(files(&folder.path().join("nobody/new")).len(), 1);
        });
    });
    assert_eq!(rustix::process::geteuid().as_raw(), nobody.uid);
    let _guard = Identity::of(&daemon).unwrap().assume().unwrap();
    fs::remove_dir_all(folder.path().join("daemon")).unwrap();
}
