//! Local delivery promises: a message that is delivered is whole in the mailbox, with its
//! trace fields, and in a form that other programs read; what cannot be delivered is kept.

#![expect(clippy::unwrap_used, reason = "a test ends where it panics")]

mod local_support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mailwren::config::settings::{MailboxFormat, Users, VirtualDomain};
use mailwren::deliver::outcome::Outcome;
use mailwren::deliver::pool::Deliver;
use mailwren::route::addressee::{Addressee, Way};

use local_support::{Folder, deferred, deliver, delivery_by, files, job, settings};

const MESSAGE: &[u8] = b"Subject: hello\r\n\r\nFrom here\r\n>From there\r\n\xff\r\n";

fn delivered(place: &Path) -> Outcome {
    Outcome::Delivered { place: place.display().to_string() }
}

#[test]
fn a_maildir_gets_one_whole_file() {
    let folder = Folder::new();
    let delivery = folder.delivery(MailboxFormat::Maildir, Users::Any);
    let outcome = deliver(&delivery, MESSAGE, "Ann+x@Home.test");
    assert_eq!(outcome, delivered(&folder.path().join("ann")));
    let found = files(&folder.path().join("ann/new"));
    assert_eq!(found.len(), 1);
    let expected = b"Return-Path: <ann@x.test>\nDelivered-To: ann@Home.test\n\
        Subject: hello\n\nFrom here\n>From there\n\xff\n";
    assert_eq!(fs::read(&found[0]).unwrap(), expected);
}

#[test]
fn an_mbox_gets_a_from_line_and_quotes() {
    let folder = Folder::new();
    let delivery = folder.delivery(MailboxFormat::Mbox, Users::Any);
    for _ in 0..2 {
        let outcome = deliver(&delivery, MESSAGE, "ann@home.test");
        assert_eq!(outcome, delivered(&folder.path().join("ann")));
    }
    let text = fs::read(folder.path().join("ann")).unwrap();
    let text = text.escape_ascii().to_string();
    let messages: Vec<_> = text.split("From ann@x.test ").collect();
    assert_eq!((messages.len(), messages[0], messages[1]), (3, "", messages[2]));
    // The date is `Sun Nov 22 03:46:52 2026`.
    let (date, rest) = messages[1].split_at(24);
    assert!(
        date.is_ascii() && date.as_bytes()[13] == b':' && date.as_bytes()[16] == b':',
        "{date}"
    );
    let expected = "\\nReturn-Path: <ann@x.test>\\nDelivered-To: ann@home.test\\n\
        Subject: hello\\n\\n>From here\\n>>From there\\n\\xff\\n\\n";
    assert_eq!(rest, expected);
}

#[test]
fn a_large_message_is_whole_in_both_forms() {
    let folder = Folder::new();
    let line = "0123456789abcdef From \u{e4}\r\n";
    let content = format!("A: b\r\n\r\n{}", line.repeat(40_000));
    let expected = format!("A: b\n\n{}", line.replace('\r', "").repeat(40_000));
    for (format, user) in [(MailboxFormat::Mbox, "ann"), (MailboxFormat::Maildir, "bob")] {
        let delivery = folder.delivery(format, Users::Any);
        deliver(&delivery, content.as_bytes(), &format!("{user}@home.test"));
    }
    assert!(
        fs::read_to_string(folder.path().join("ann")).unwrap().ends_with(&format!("{expected}\n"))
    );
    let file = &files(&folder.path().join("bob/new"))[0];
    assert!(fs::read_to_string(file).unwrap().ends_with(&expected));
}

#[test]
fn each_recipient_has_its_own_outcome() {
    let folder = Folder::new();
    let aliases = folder.path().join("aliases");
    fs::write(&aliases, "all: ann, carl@x.test\nroot: root, ann\nscript: ann, |run, /f\n").unwrap();
    let pattern = format!("{}/{{user}}", folder.path().display());
    let mut settings = settings(MailboxFormat::Maildir, &pattern, Users::Any);
    settings.local.aliases = Some(aliases);
    let delivery = delivery_by(&settings);
    let recipients = [
        "ann@home.test",
        "all@home.test",
        "\"../x\"@home.test",
        "root@home.test",
        "script@home.test",
    ];
    let outcomes = delivery.deliver(&job(MESSAGE, &recipients));
    let indexes: Vec<_> = outcomes.iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes, [0, 1, 2, 3, 4]);
    let ann = || "ann@home.test".parse().unwrap();
    assert_eq!(outcomes[0].1, delivered(&folder.path().join("ann")));
    assert_eq!(
        outcomes[1].1,
        Outcome::Expanded(vec![ann(), "carl@x.test".parse().unwrap()].into())
    );
    let Outcome::Failed(failure) = &outcomes[2].1 else { panic!("{outcomes:?}") };
    assert_eq!(failure.status.to_string(), "5.1.1");
    let text = "there is no user \"../x\"; to name a file write its whole path, from / on";
    assert_eq!(failure.text, text);
    let Outcome::Expanded(expansion) = &outcomes[3].1 else { panic!("{outcomes:?}") };
    let itself = Addressee { mailbox: "root@home.test".parse().unwrap(), way: Way::User };
    assert_eq!(expansion.into, [itself, ann().into()]);
    // A command and a file are the script's own.
    let Outcome::Expanded(expansion) = &outcomes[4].1 else { panic!("{outcomes:?}") };
    let script = |way: &str| Addressee {
        mailbox: "script@home.test".parse().unwrap(),
        way: way.parse().unwrap(),
    };
    assert_eq!(expansion.into, [ann().into(), script("|run"), script("/f")]);
}

#[test]
fn who_is_addressed_at_two_domains_has_the_message_once() {
    let folder = Folder::new();
    let delivery = folder.delivery(MailboxFormat::Maildir, Users::Any);
    let outcomes = delivery.deliver(&job(MESSAGE, &["ann@home.test", "Ann@b.test"]));
    let same = vec!["Ann@home.test".parse().unwrap()].into();
    assert_eq!(
        outcomes,
        [(0, delivered(&folder.path().join("ann"))), (1, Outcome::Expanded(same))]
    );
    assert_eq!(files(&folder.path().join("ann/new")).len(), 1);
    // Alone it need not be known by another name.
    let outcome = deliver(&delivery, MESSAGE, "ann@b.test");
    assert_eq!(outcome, delivered(&folder.path().join("ann")));
}

#[test]
fn who_took_the_place_of_another_name_is_not_led_back_to_it() {
    let folder = Folder::new();
    let delivery = folder.delivery(MailboxFormat::Maildir, Users::Any);
    // Put there while b.test was the first domain.
    let mut job = job(MESSAGE, &["ann@home.test", "bob@home.test"]);
    job.recipients.iter_mut().for_each(|to| {
        to.mailbox = to.mailbox.to_string().replace("home.test", "b.test").parse().unwrap();
    });
    let place = |name| delivered(&folder.path().join(name));
    assert_eq!(delivery.deliver(&job), [(0, place("ann")), (1, place("bob"))]);
}

#[test]
fn two_people_whose_names_differ_in_case_have_one_message_each_at_any_domain() {
    let folder = Folder::new();
    let users = folder.path().join("users");
    fs::write(&users, "bob\nBob\n").unwrap();
    let delivery = folder.delivery(MailboxFormat::Maildir, Users::File(users));
    for addresses in [
        ["bob@home.test", "Bob@b.test"],
        ["Bob@home.test", "bob@b.test"],
        ["bob@b.test", "Bob@b.test"],
    ] {
        let outcomes = delivery.deliver(&job(MESSAGE, &addresses));
        let place = |address: &str| folder.path().join(address.split_once('@').unwrap().0);
        let expected = [0, 1].map(|index| (index, delivered(&place(addresses[index]))));
        assert_eq!(outcomes, expected);
    }
}

#[test]
fn a_namesake_in_a_virtual_domain_is_somebody_else() {
    let folder = Folder::new();
    // An account of the host, as which nothing of the domain's may be written.
    let name = "nobody";
    fs::write(folder.path().join("users.v"), name).unwrap();
    let pattern = format!("{}/{{user}}", folder.path().display());
    let mut settings = settings(MailboxFormat::Maildir, &pattern, Users::System);
    settings.server.domains.others = vec!["v.test".parse().unwrap()];
    settings.domains = vec![VirtualDomain {
        name: "v.test".parse().unwrap(),
        users: Some(folder.path().join("users.v")),
        aliases: None,
        path: format!("{}/{{domain}}/{{user}}", folder.path().display()),
        catch_all: None,
    }];
    let delivery = delivery_by(&settings);
    let content = format!("Delivered-To: {name}@home.test\r\n\r\n");
    let mailbox = folder.path().join("v.test").join(name);
    let outcome = deliver(&delivery, content.as_bytes(), &format!("{name}@V.test"));
    assert_eq!(outcome, delivered(&mailbox));
    let copy = &files(&mailbox.join("new"))[0];
    let own = rustix::process::geteuid().as_raw();
    assert_eq!(fs::metadata(copy).unwrap().uid(), own);
    let text = fs::read_to_string(copy).unwrap();
    assert!(text.contains(&format!("\nDelivered-To: {name}@V.test\n")), "{text}");
    assert!(!folder.path().join(name).exists());
}

#[test]
fn mail_that_was_here_before_is_a_loop() {
    let folder = Folder::new();
    let delivery = folder.delivery(MailboxFormat::Maildir, Users::Any);
    let padding = "X: y\r\n".repeat(5000);
    for (content, is_loop) in [
        ("Delivered-To: ann@home.test\r\n\r\n".to_owned(), true),
        (format!("{padding}delivered-to:\r\n ANN@Home.Test\r\n\r\n"), true),
        ("Delivered-To: bob@home.test\r\n\r\n".to_owned(), false),
        ("A: b\r\n\r\nDelivered-To: ann@home.test\r\n".to_owned(), false),
        ("X-Delivered-To: ann@home.test\r\n\r\n".to_owned(), false),
    ] {
        match deliver(&delivery, content.as_bytes(), "ann+x@home.test") {
            Outcome::Failed(failure) => {
                assert!(is_loop && failure.status.to_string() == "5.4.6", "{content}");
            }
            outcome => assert!(!is_loop, "{content} {outcome:?}"),
        }
    }
}

#[test]
fn a_folder_that_is_away_defers() {
    let folder = Folder::new();
    for format in [MailboxFormat::Maildir, MailboxFormat::Mbox] {
        let pattern = format!("{}/disk/{{user}}", folder.path().display());
        let delivery = delivery_by(&settings(format, &pattern, Users::Any));
        let failure = deferred(deliver(&delivery, MESSAGE, "ann@home.test"));
        assert!(
            failure.text.contains("/disk") && failure.text.contains("mount"),
            "{}",
            failure.text
        );
    }
    assert!(files(folder.path()).is_empty());
}

fn python(script: &str, argument: &Path) -> Command {
    let mut command = Command::new("python3");
    command.arg("-c").arg(script).arg(argument);
    command
}

#[test]
fn python_reads_both_forms() {
    const SCRIPT: &str = "\
import mailbox, sys
for box in mailbox.mbox(sys.argv[1] + '/ann'), mailbox.Maildir(sys.argv[1] + '/bob'):
    for message in box:
        print(message['Subject'], message['Return-Path'], repr(message.get_payload()))
";
    let folder = Folder::new();
    for (format, user) in [(MailboxFormat::Mbox, "ann"), (MailboxFormat::Maildir, "bob")] {
        let delivery = folder.delivery(format, Users::Any);
        for n in 1..=2 {
            let content = format!("Subject: {n}\r\n\r\nFrom {n}\r\n\r\n");
            deliver(&delivery, content.as_bytes(), &format!("{user}@home.test"));
        }
    }
    let output = python(SCRIPT, folder.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    // Python takes the quotes as they are, and one empty line as part of the separator.
    assert_eq!(
        lines,
        [
            "1 <ann@x.test> '>From 1\\n\\n'",
            "1 <ann@x.test> 'From 1\\n\\n'",
            "2 <ann@x.test> '>From 2\\n\\n'",
            "2 <ann@x.test> 'From 2\\n\\n'",
        ]
    );
}

#[test]
fn the_fcntl_lock_of_another_program_is_respected() {
    const SCRIPT: &str = "\
import fcntl, sys
box = open(sys.argv[1], 'r+b')
fcntl.lockf(box, fcntl.LOCK_EX)
print('locked', flush=True)
sys.stdin.read()
";
    let folder = Folder::new();
    let path = folder.path().join("ann");
    fs::write(&path, "").unwrap();
    let mut reader =
        python(SCRIPT, &path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(reader.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");

    let delivery = folder.delivery(MailboxFormat::Mbox, Users::Any);
    let hasty = folder.delivery(MailboxFormat::Mbox, Users::Any);
    let hasty = hasty.with_lock_patience(Duration::from_millis(20));
    let failure = deferred(deliver(&hasty, MESSAGE, "ann@home.test"));
    assert_eq!(failure.status.to_string(), "4.2.0");
    assert!(failure.text.contains("locked by another program"), "{}", failure.text);
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| deliver(&delivery, MESSAGE, "ann@home.test"));
        let mut stdin = reader.stdin.take().unwrap();
        stdin.flush().unwrap();
        drop(stdin);
        reader.wait().unwrap();
        assert_eq!(waiting.join().unwrap(), delivered(&path));
    });
}

#[test]
fn a_detail_names_a_folder_that_is_there_and_no_other() {
    let folder = Folder::new();
    let path = folder.path();
    for (format, pattern, inbox) in [
        (MailboxFormat::Maildir, "{user}/.{detail}", "ann/new"),
        (MailboxFormat::Mbox, "m/{user}/{detail}", "m/ann/inbox"),
    ] {
        let pattern = format!("{}/{pattern}", path.display());
        let delivery = delivery_by(&settings(format, &pattern, Users::Any));
        let place = |name: &str| match (format, name) {
            (MailboxFormat::Maildir, "") => path.join("ann"),
            (MailboxFormat::Maildir, name) => path.join("ann").join(format!(".{name}")),
            (MailboxFormat::Mbox, "") => path.join("m/ann/inbox"),
            (MailboxFormat::Mbox, name) => path.join("m/ann").join(name),
        };
        if format == MailboxFormat::Mbox {
            fs::create_dir(path.join("m")).unwrap();
        }
        assert_eq!(deliver(&delivery, MESSAGE, "ann+lists@home.test"), delivered(&place("")));
        match format {
            MailboxFormat::Maildir => fs::create_dir_all(place("lists").join("new")).unwrap(),
            MailboxFormat::Mbox => fs::write(place("lists"), "").unwrap(),
        }
        for (address, name) in [
            ("ann+lists", "lists"),
            ("ANN+Lists", "lists"),
            ("ann", ""),
            ("ann+other", ""),
            ("\"ann+../bob\"", ""),
            ("\"ann+ \"", ""),
        ] {
            let outcome = deliver(&delivery, MESSAGE, &format!("{address}@home.test"));
            assert_eq!(outcome, delivered(&place(name)), "{address}");
        }
        assert!(path.join(inbox).exists());
        let lists = place("lists");
        let found = match format {
            MailboxFormat::Maildir => files(&lists.join("new")).len(),
            MailboxFormat::Mbox => {
                fs::read(&lists).unwrap().windows(6).filter(|w| w == b"\nFrom ").count() + 1
            }
        };
        assert_eq!(found, 2);
        assert!(!place("other").exists() && !path.join("bob").exists());
    }
}

#[test]
fn a_maildir_that_is_full_defers_and_its_folders_count() {
    let folder = Folder::new();
    let pattern = format!("{}/{{user}}/.{{detail}}", folder.path().display());
    let mut settings = settings(MailboxFormat::Maildir, &pattern, Users::Any);
    settings.local.quota = true;
    let delivery = delivery_by(&settings);
    let ann = folder.path().join("ann");
    deliver(&delivery, MESSAGE, "ann@home.test");
    fs::create_dir_all(ann.join(".lists/new")).unwrap();
    let octets = fs::metadata(&files(&ann.join("new"))[0]).unwrap().len();
    fs::write(ann.join("maildirsize"), format!("{}S\n{octets} 1\n", 3 * octets)).unwrap();
    for address in ["ann+lists@home.test", "ann@home.test"] {
        assert!(matches!(deliver(&delivery, MESSAGE, address), Outcome::Delivered { .. }));
    }
    let sheet = format!("{}S\n{octets} 1\n{octets} 1\n{octets} 1\n", 3 * octets);
    assert_eq!(fs::read_to_string(ann.join("maildirsize")).unwrap(), sheet);
    for address in ["ann+lists@home.test", "ann@home.test"] {
        let failure = deferred(deliver(&delivery, MESSAGE, address));
        assert_eq!(failure.status.to_string(), "4.2.2", "{}", failure.text);
    }
    assert_eq!(files(&ann.join("new")).len(), 2);
    assert!(files(&ann.join("tmp")).is_empty());
    settings.local.quota = false;
    let outcome = deliver(&delivery_by(&settings), MESSAGE, "ann@home.test");
    assert!(matches!(outcome, Outcome::Delivered { .. }));
    assert_eq!(fs::read_to_string(ann.join("maildirsize")).unwrap(), sheet);
}

#[test]
fn an_mbox_trusts_no_note_of_a_stranger() {
    let folder = Folder::new();
    let content = b"Status: RO\r\nContent-Length: 100000\r\nX-UID: 7\r\n\r\nStatus: ok\r\n";
    for (format, disarmed) in [(MailboxFormat::Mbox, "X-Original-"), (MailboxFormat::Maildir, "")] {
        fs::remove_file(folder.path().join("ann")).ok();
        deliver(&folder.delivery(format, Users::Any), content, "ann@home.test");
        let path = match format {
            MailboxFormat::Mbox => folder.path().join("ann"),
            MailboxFormat::Maildir => files(&folder.path().join("ann/new")).remove(0),
        };
        let text = fs::read_to_string(path).unwrap();
        let expected = format!(
            "{disarmed}Status: RO\n{disarmed}Content-Length: 100000\n{disarmed}X-UID: 7\n\n\
             Status: ok\n"
        );
        assert!(text.contains(&expected), "{text}");
    }
}
