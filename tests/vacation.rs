//! The vacation promise: who is away answers once a week to people who wrote to him, and to nobody
//! else (RFC 3834); and whatever goes wrong with that, there is no second reply.

#![expect(clippy::unwrap_used, reason = "a test ends where it panics")]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime};

use crossbeam_channel::bounded;
use mailwren::config::settings::Settings;
use mailwren::deliver::dispatch::Dispatcher;
use mailwren::deliver::vacation::{Delivered, Vacation};
use mailwren::route::local::LocalRouter;
use mailwren::route::users::User;
use mailwren::spool::id::QueueId;
use mailwren::spool::manager::Manager;
use mailwren::spool::post::Post;
use mailwren::spool::store::Spool;
use mailwren::sys::identity::IdentityCache;
use mailwren::sys::users::Account;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

const TO_ANN: &str = "To: ann@home.test\r\n";
const WEEK: u64 = 7 * 86_400;

/// Ann, who is away, and all that a reply of hers needs. Her account is the one that runs the test.
struct House {
    folder: TempDir,
    vacation: Vacation,
    ann: User,
    identities: IdentityCache,
    /// Nobody runs it: replies stay in the spool.
    _manager: Manager,
}

impl House {
    fn new() -> Self {
        let house = Self::without_message();
        house.write("I am away.\n");
        house
    }

    fn without_message() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["home", "state"] {
            fs::create_dir(path(name)).unwrap();
            fs::set_permissions(path(name), Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(path("users"), "ann\nbob\n").unwrap();
        let aliases = "sales: ann\nstaff: ann, carl@x.test\nboss: bob\n";
        fs::write(path("aliases"), aliases).unwrap();
        fs::write(path("aliases.virtual"), "shop: ann@home.test\n").unwrap();
        let settings = Arc::new(settings(folder.path()));
        let router = Arc::new(LocalRouter::new(&settings));
        let spool = Spool::open(&settings.server.spool).unwrap();
        let (jobs, _) = bounded(1);
        let dispatcher = Dispatcher::new(jobs.clone(), jobs, 1, vec![Duration::from_secs(1)]);
        let (manager, intake) = Manager::new(Arc::clone(&settings), Arc::clone(&spool), dispatcher);
        let own = fs::metadata(path("home")).unwrap();
        let account =
            Account { name: "ann".into(), uid: own.uid(), gid: own.gid(), home: path("home") };
        Self {
            vacation: Vacation::new(settings, router, Post::new(spool, intake)),
            ann: User { name: "ann".parse().unwrap(), detail: None, account: Some(account) },
            identities: IdentityCache::default(),
            _manager: manager,
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn message(&self) -> PathBuf {
        self.path("home/.vacation.msg")
    }

    fn write(&self, text: &str) {
        fs::write(self.message(), text).unwrap();
        fs::set_permissions(self.message(), Permissions::from_mode(0o644)).unwrap();
    }

    /// Delivers a message to Ann; gives how many replies there are now.
    fn deliver(&self, sender: &str, header: &str) -> usize {
        self.deliver_to(&self.ann, sender, header)
    }

    fn deliver_to(&self, user: &User, sender: &str, header: &str) -> usize {
        let content = format!("{header}\r\nhello\r\n");
        let delivered = Delivered {
            id: QueueId::generate(1, 1),
            reverse_path: &format!("<{sender}>").parse().unwrap(),
            head: content.as_bytes(),
            is_whole: true,
            user,
            address: &"ann@home.test".parse().unwrap(),
        };
        self.vacation.answer(&delivered, &self.identities);
        self.replies().len()
    }

    /// What is in the spool: envelope and message of each reply.
    fn replies(&self) -> Vec<String> {
        let Ok(queue) = fs::read_dir(self.path("spool/queue")) else { return Vec::new() };
        queue.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }

    /// Lets so many seconds pass for the one who was answered.
    fn let_pass(&self, seconds: u64) {
        let path = self.path("state/vacation/ann");
        let text = fs::read_to_string(&path).unwrap();
        let earlier = |line: &str| match line.split_once(' ') {
            Some((at, address)) if at != "message" => {
                format!("{} {address}\n", at.parse::<u64>().unwrap() - seconds)
            }
            _ => format!("{line}\n"),
        };
        fs::write(path, text.lines().map(earlier).collect::<String>()).unwrap();
    }
}

fn settings(folder: &Path) -> Settings {
    let folder = folder.display();
    let text = format!(
        "[server]\nhostname = mx.home.test\ndomains = home.test, b.test\nspool = {folder}/spool\n\
         state = {folder}/state\n[local]\nusers = {folder}/users\naliases = {folder}/aliases\n\
         path = /nowhere/{{user}}\nvacation = yes\n[domain.virtual.test]\nusers = {folder}/users\n\
         aliases = {folder}/aliases.virtual\n"
    );
    mailwren::config::parse("x", text.as_bytes(), "mx.home.test").unwrap()
}

#[test]
fn a_reply_goes_to_the_sender_alone_and_nobody_is_told_of_it() {
    let house = House::new();
    let header = format!("{TO_ANN}Subject: lunch\r\nMessage-ID: <m@x.test>\r\n");
    assert_eq!(house.deliver("Bob@x.test", &header), 1);
    let reply = house.replies().remove(0);
    for part in [
        "\nfrom <>\n",
        "\nto <Bob@x.test> NEVER -\n",
        "\nFrom: <ann@home.test>\r\nTo: <Bob@x.test>\r\nSubject: Auto: lunch\r\n",
        "\r\nIn-Reply-To: <m@x.test>\r\nReferences: <m@x.test>\r\nAuto-Submitted: auto-replied\r\n",
        "\r\n\r\nI am away.\r\n",
    ] {
        assert!(reply.contains(part), "{part:?} {reply}");
    }
}

#[test]
fn only_who_wrote_to_ann_herself_gets_one() {
    let house = House::new();
    let mut replies = 0;
    for (number, (header, expected)) in [
        (TO_ANN, true),
        ("Cc: x@x.test, Ann <ANN+x@B.test>\r\n", true),
        ("Resent-To: ann\r\n", true),
        ("To: sales@home.test\r\n", true),
        ("To: staff@home.test\r\n", true),
        ("", false),
        ("To: undisclosed-recipients:;\r\n", false),
        ("To: bob@home.test, boss@home.test\r\n", false),
        ("To: ann@x.test\r\n", false),
        // A namesake, and an alias that leads to her.
        ("To: ann@virtual.test\r\n", false),
        ("To: shop@virtual.test\r\n", true),
        ("From: ann@home.test\r\nReply-To: ann@home.test\r\n", false),
        ("To: ann@home.test\r\nPrecedence: list\r\n", false),
        ("To: ann@home.test\r\nAuto-Submitted: auto-generated\r\n", false),
        ("Auto-Submitted: no\r\nTo: ann@home.test\r\n", true),
    ]
    .into_iter()
    .enumerate()
    {
        replies += usize::from(expected);
        assert_eq!(house.deliver(&format!("u{number}@x.test"), header), replies, "{header:?}");
    }
    let many = "To: u@home.test,".to_owned() + &" u@home.test,\r\n".repeat(5000);
    assert_eq!(house.deliver("v@x.test", &format!("{many} ann@home.test\r\n")), replies);
}

#[test]
fn nobody_answers_a_program_or_himself() {
    let house = House::new();
    for sender in [
        "",
        "root@home.test",
        "postmaster@x.test",
        "MAILER-DAEMON@x.test",
        "owner-list@x.test",
        "list-request@x.test",
        "ann@home.test",
        "Ann+shop@b.test",
        "sales@home.test",
        "staff@home.test",
    ] {
        assert_eq!(house.deliver(sender, TO_ANN), 0, "{sender}");
    }
    assert_eq!(house.deliver("boss@home.test", TO_ANN), 1);
    let virtual_user = User { account: None, ..house.ann.clone() };
    assert_eq!(house.deliver_to(&virtual_user, "bob@x.test", TO_ANN), 1);
}

#[test]
fn the_second_one_comes_after_a_week_or_with_a_new_message() {
    let house = House::new();
    assert_eq!(house.deliver("bob@x.test", TO_ANN), 1);
    assert_eq!(house.deliver("BOB@x.test", TO_ANN), 1);
    assert_eq!(house.deliver("carl@x.test", TO_ANN), 2);
    house.let_pass(WEEK - 60);
    assert_eq!(house.deliver("bob@x.test", TO_ANN), 2);
    house.let_pass(60);
    assert_eq!(house.deliver("bob@x.test", TO_ANN), 3);
    assert_eq!(house.deliver("bob@x.test", TO_ANN), 3);
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::open(house.message()).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(house.deliver("bob@x.test", TO_ANN), 4);
    assert_eq!(house.deliver("bob@x.test", TO_ANN), 4);
}

#[test]
fn a_message_that_others_may_have_put_there_is_not_sent() {
    type Plant<'a> = &'a dyn Fn(&House);
    let mode =
        |path: PathBuf, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let plants: [(&str, Plant<'_>); 9] = [
        ("is missing", &|house| fs::remove_file(house.message()).unwrap()),
        ("has a link in its place", &|house| {
            fs::rename(house.message(), house.path("home/other")).unwrap();
            symlink(house.path("home/other"), house.message()).unwrap();
        }),
        ("is a FIFO", &|house| {
            fs::remove_file(house.message()).unwrap();
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(CWD, house.message(), FileType::Fifo, mode, 0).unwrap();
        }),
        ("is a folder", &|house| {
            fs::remove_file(house.message()).unwrap();
            fs::create_dir(house.message()).unwrap();
        }),
        ("can be written by all", &|house| mode(house.message(), 0o646)),
        ("can be written by its group", &|house| mode(house.message(), 0o664)),
        ("is in a folder of all", &|house| mode(house.path("home"), 0o1777)),
        ("is too large", &|house| house.write(&"x\n".repeat(40_000))),
        ("is in no known characters", &|house| fs::write(house.message(), b"\xfc").unwrap()),
    ];
    for (what, plant) in plants {
        let house = House::new();
        plant(&house);
        assert_eq!(house.deliver("bob@x.test", TO_ANN), 0, "{what}");
        assert!(!house.path("state/vacation").exists(), "{what}: somebody was noted");
    }
}

#[test]
fn what_cannot_be_noted_is_not_sent() {
    let house = House::new();
    fs::write(house.path("state/vacation"), "").unwrap();
    assert_eq!(house.deliver("bob@x.test", TO_ANN), 0);
    fs::remove_file(house.path("state/vacation")).unwrap();
    assert_eq!(house.deliver("bob@x.test", TO_ANN), 1);
}

#[test]
fn what_was_noted_and_not_sent_is_not_sent_again() {
    let house = House::new();
    let (queue, away) = (house.path("spool/queue"), house.path("spool/away"));
    fs::rename(&queue, &away).unwrap();
    assert_eq!(house.deliver("bob@x.test", TO_ANN), 0);
    fs::rename(&away, &queue).unwrap();
    assert_eq!(house.deliver("bob@x.test", TO_ANN), 0);
    assert_eq!(house.deliver("carl@x.test", TO_ANN), 1);
}

#[test]
fn of_deliveries_at_the_same_time_one_is_answered() {
    let house = House::new();
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                house.deliver("bob@x.test", TO_ANN)
            });
        }
    });
    assert_eq!(house.replies().len(), 1);
}

#[test]
fn a_flood_of_senders_gets_sixty() {
    let house = House::new();
    for number in 0..70 {
        house.deliver(&format!("u{number}@x.test"), TO_ANN);
    }
    assert_eq!(house.replies().len(), 60);
}
