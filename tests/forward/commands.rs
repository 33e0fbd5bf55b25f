//! The promises of commands and files as recipients: they run and write as who names them, with the
//! message and a clean environment; a sender has no say in what is run; and they have bounds.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, Instant};

use mailwren::deliver::job::Job;
use mailwren::deliver::outcome::{Failure, Outcome};
use mailwren::deliver::pool::Deliver;
use mailwren::mail::address::ReversePath;
use mailwren::route::addressee::{Addressee, Way};

use crate::home::{Home, MESSAGE};
use crate::local_support::{deferred, files, job};

/// A job for what the `.forward` of `ann`, or of one with a detail, names.
fn job_for(home: &Home, name: &str, way: &str, content: &[u8]) -> Job {
    let mut job = job(content, &[&home.address(name)]);
    job.recipients[0].way = way.parse().unwrap();
    job
}

/// Has the `.forward` name it, and delivers to it.
fn deliver_to(home: &Home, way: &str) -> Outcome {
    let quoted = way.replace('\\', "\\\\").replace('"', "\\\"");
    home.write(".forward", &format!("\"{quoted}\"\n"));
    one(home, &job_for(home, "ann", way, MESSAGE))
}

fn one(home: &Home, job: &Job) -> Outcome {
    let mut outcomes = home.delivery_with(|_| {}).deliver(job);
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0).1
}

fn failed(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        outcome => panic!("should have failed: {outcome:?}"),
    }
}

#[test]
fn a_command_gets_the_message_and_nothing_else_around_it() {
    let home = Home::new();
    let base = home.path("");
    let base = base.display();
    let command = format!(
        "|cat >{base}/input; cat /proc/$$/environ >{base}/environ; pwd >{base}/folder; \
         ls /proc/$$/fd >{base}/open; umask >{base}/umask; ulimit -c >{base}/core; \
         exec cat /proc/self/status >{base}/status"
    );
    let mut job = job_for(&home, "ann", &command, MESSAGE);
    job.recipients[0].request.original = "rfc822;all+40x.test".parse().ok();
    home.write(".forward", &format!("\"{command}\"\n"));
    let outcome = one(&home, &job);
    let Outcome::Delivered { place } = outcome else { panic!("{outcome:?}") };
    assert!(place.starts_with("|cat >/"), "{place}");
    let read = |name| fs::read_to_string(home.path(name)).unwrap();

    let (name, address) = (&home.account.name, home.address("ann"));
    let input = read("input");
    let (from, rest) = input.split_once('\n').unwrap();
    assert!(from.starts_with("From ann@x.test "), "{from}");
    let fields = format!("Return-Path: <ann@x.test>\nDelivered-To: {address}\n");
    assert_eq!(rest, format!("{fields}Subject: hello\n\nFrom here\n"));

    let id = job.message.envelope().id;
    let account_home = home.account.home.display();
    let expected = [
        "DOMAIN=home.test",
        "EXTENSION=",
        &format!("HOME={account_home}"),
        &format!("LOCAL={name}"),
        &format!("LOGNAME={name}"),
        "ORIGINAL_RECIPIENT=all@x.test",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        &format!("QUEUE_ID={id}"),
        &format!("RECIPIENT={address}"),
        "SENDER=ann@x.test",
        "SHELL=/bin/sh",
        &format!("USER={name}"),
    ];
    let environ = read("environ");
    let mut variables: Vec<_> = environ.split_terminator('\0').collect();
    variables.sort_unstable();
    assert_eq!(variables, expected);
    // The shell itself may have one more open while it looks.
    assert!(read("open").lines().all(|it| it.len() == 1 || it == "10"), "{}", read("open"));
    assert_eq!((read("umask").trim(), read("core").trim()), ("0077", "0"));
    let folder = home.account.home.is_dir().then_some(home.account.home.as_path());
    assert_eq!(read("folder").trim(), folder.unwrap_or("/".as_ref()).to_str().unwrap());
    let status = read("status");
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:", "SigBlk:"] {
        assert_eq!(line(name), ["0000000000000000"], "{name}");
    }
    // The C library keeps the 32nd and the 33rd for itself.
    let ignored = u64::from_str_radix(&line("SigIgn:")[0], 16).unwrap();
    assert_eq!(ignored & !(3 << 31), 0, "{ignored:x}");
    assert_eq!(line("Uid:"), vec![home.account.uid.to_string(); 4]);
    assert_eq!(line("Gid:"), vec![home.account.gid.to_string(); 4]);
    assert_eq!(line("NSpid:")[0], line("NSsid:")[0], "it leads a session");
}

#[test]
fn an_exit_says_what_becomes_of_the_mail() {
    let home = Home::new();
    assert!(matches!(deliver_to(&home, "|exit 0"), Outcome::Delivered { .. }));
    // Not to read the message is no mistake, however long it is.
    home.write(".forward", "|true");
    let long = [b"A: b\r\n\r\n".to_vec(), b"line\r\n".repeat(100_000)].concat();
    let outcome = one(&home, &job_for(&home, "ann", "|true", &long));
    assert!(matches!(outcome, Outcome::Delivered { .. }), "{outcome:?}");

    let failure = failed(deliver_to(&home, "|echo no such user; echo 'not \\ here' >&2; exit 67"));
    assert_eq!(failure.status.to_string(), "5.1.1");
    let text = &failure.text;
    assert!(text.contains("exit code 67") && text.ends_with("said: not \\ here / no such user"));
    let failure = failed(deliver_to(&home, "|yes | head -c 100000; exit 1"));
    assert!(failure.text.len() < 1400, "{}", failure.text.len());
    for (way, part) in [
        ("|exit 75", "exit code 75"),
        ("|kill -9 $$", "signal 9"),
        ("|/nowhere/at-all", "it is not there"),
        ("|/etc/passwd", "it may not be executed"),
    ] {
        let failure = deferred(deliver_to(&home, way));
        assert!(failure.text.contains(part), "{way}: {}", failure.text);
        assert!(!files(&home.path("")).is_empty());
    }
}

#[test]
fn what_is_too_slow_is_killed_with_all_that_it_started() {
    let home = Home::new();
    let mark = home.path("began");
    rustix::fs::mkfifoat(rustix::fs::CWD, &mark, 0o600.into()).unwrap();
    home.own("began");
    let command = format!("|exec 3<>{0}; sleep 3600 & sleep 3600", mark.display());
    home.write(".forward", &format!("\"{command}\""));
    let delivery = home.delivery_with(|settings| {
        settings.local.command_timeout = Duration::from_millis(300);
    });
    let mut outcomes = delivery.deliver(&job_for(&home, "ann", &command, MESSAGE));
    let failure = deferred(outcomes.remove(0).1);
    assert!(failure.text.contains("command_timeout"), "{}", failure.text);
    // To write into a FIFO that nobody has open fails.
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let is_alive = || rustix::fs::open(&mark, flags, rustix::fs::Mode::empty()).is_ok();
    let began = Instant::now();
    while is_alive() {
        assert!(began.elapsed() < Duration::from_secs(60), "it lives on");
        std::thread::yield_now();
    }
}

#[test]
fn a_sender_has_no_say_in_what_is_run() {
    let home = Home::new();
    let (name, base) = (home.account.name.clone(), home.path("").display().to_string());
    // A script as people write them, which trusts what it is told.
    let command = format!(
        "|eval echo $SENDER $RECIPIENT $ORIGINAL_RECIPIENT $LOCAL $EXTENSION >{base}/said; \
         sh -c \"echo $EXTENSION $SENDER\" >>{base}/said; printf %s \"$SENDER\" >{base}/sender"
    );
    home.write(".forward", &format!("\"{}\"", command.replace('"', "\\\"")));
    let mark = home.folder.path().join("o");
    let run = format!("touch {}", mark.display());
    let mut job = job(MESSAGE, &[&home.address("ann")]);
    for attack in [
        format!("$({run})"),
        format!("`{run}`"),
        format!(";{run};"),
        format!("'|{run}&"),
        format!("() {{ :;}}; {run}"),
        format!("-oQ {run}"),
    ] {
        let recipient = format!("\"{name}+{attack}\"@home.test");
        job.recipients[0].mailbox = recipient.parse().unwrap();
        job.recipients[0].way = command.parse().unwrap();
        let original = mailwren::mail::dsn_request::encode_xtext(&attack);
        job.recipients[0].request.original = format!("rfc822;{original}").parse().ok();
        job.reverse_path = format!("<\"{attack}\"@x.test>").parse::<ReversePath>().unwrap();
        let outcome = one(&home, &job);
        assert!(matches!(outcome, Outcome::Delivered { .. }), "{outcome:?}");
        assert!(!mark.exists(), "{attack}");
        let said = fs::read_to_string(home.path("said")).unwrap();
        assert!(said.contains("touch_/"), "{said}");
        assert!(!said.contains(['$', '`', ';', '\'', '|', '&', '(']), "{said}");
        assert!(!said.contains(" -"), "{said}");
    }
    job.reverse_path = "<-oQ@x.test>".parse().unwrap();
    one(&home, &job);
    assert_eq!(fs::read_to_string(home.path("sender")).unwrap(), "_oQ@x.test");
    job.reverse_path = ReversePath::Null;
    one(&home, &job);
    assert_eq!(fs::read_to_string(home.path("sender")).unwrap(), "");
}

#[test]
fn what_the_spool_says_is_run_only_if_the_forward_says_it_too() {
    let home = Home::new();
    let mark = home.path("owned");
    let forged = format!("|touch {}", mark.display());
    let mailbox: mailwren::mail::address::Mailbox = home.address("ann").parse().unwrap();
    let to = |way: Way| Addressee { mailbox: mailbox.clone(), way };
    for (forward, expected) in [
        ("\"|true\"", to("|true".parse().unwrap())),
        ("bob@x.test", "bob@x.test".parse::<mailwren::mail::address::Mailbox>().unwrap().into()),
        ("", to(Way::Mailbox)),
    ] {
        home.write(".forward", forward);
        for way in [&forged, &format!("{}/", mark.display()), &mark.display().to_string()] {
            let outcome = one(&home, &job_for(&home, "ann", way, MESSAGE));
            let Outcome::Expanded(expansion) = outcome else { panic!("{outcome:?}") };
            assert_eq!(expansion.into, std::slice::from_ref(&expected));
        }
    }
    let outcome = one(&home, &job_for(&home, "no-such-user-here", &forged, MESSAGE));
    assert_eq!(failed(outcome).status.to_string(), "5.1.1");
    assert!(!mark.exists());
    // Whatever the .forward says, this is for the mailbox.
    home.write(".forward", "bob@x.test");
    let outcome = one(&home, &job_for(&home, "ann", "\\", MESSAGE));
    assert_eq!(outcome, Outcome::Delivered { place: home.mailbox().display().to_string() });
}

#[test]
fn who_is_named_by_an_alias_of_that_name_has_a_forward() {
    let home = Home::new();
    let (name, aliases) = (&home.account.name, home.folder.path().join("aliases"));
    fs::write(&aliases, format!("{name}: {name}, bob@x.test, |false\nbob: bob\n")).unwrap();
    let delivery = home.delivery_with(|settings| settings.local.aliases = Some(aliases.clone()));
    let mailbox: mailwren::mail::address::Mailbox = home.address("ann").parse().unwrap();
    let deliver = |way: &str| {
        let job = job_for(&home, "ann", way, MESSAGE);
        delivery.deliver(&job).remove(0).1
    };
    let into = |way: &str| {
        let way = way.parse().unwrap();
        vec![Addressee { mailbox: mailbox.clone(), way }]
    };
    let mark = home.path("mark");
    let command = format!("|touch {}", mark.display());
    for (forward, expected) in [
        (None, into("\\")),
        (
            Some("carl@x.test"),
            vec![Addressee::from(
                "carl@x.test".parse::<mailwren::mail::address::Mailbox>().unwrap(),
            )],
        ),
        (Some(name.as_str()), into("\\")),
        (Some(command.as_str()), into(&command)),
    ] {
        forward.inspect(|text| home.write(".forward", text));
        let outcome = deliver("=");
        let Outcome::Expanded(expansion) = outcome else { panic!("{forward:?}: {outcome:?}") };
        assert_eq!(expansion.into, expected, "{forward:?}");
    }
    // Its alias names another command, but this one is its own.
    assert!(matches!(deliver(&command), Outcome::Delivered { .. }));
    assert!(mark.exists());
    home.write(".forward", "|true");
    let outcome = deliver(&command);
    assert!(matches!(&outcome, Outcome::Expanded(it) if it.into == into("|true")), "{outcome:?}");
}

#[test]
fn a_path_is_an_mbox_or_a_maildir_of_its_owner() {
    let home = Home::new();
    let (mbox, maildir) = (home.path("mbox"), home.path("dir"));
    for _ in 0..2 {
        let place = mbox.display().to_string();
        assert_eq!(deliver_to(&home, &place), Outcome::Delivered { place });
    }
    let text = fs::read_to_string(&mbox).unwrap();
    assert_eq!(text.matches("\n\n>From here\n\n").count(), 2, "{text}");
    let place = maildir.display().to_string();
    assert_eq!(deliver_to(&home, &format!("{place}/")), Outcome::Delivered { place });
    assert_eq!(files(&maildir.join("new")).len(), 1);
    let owner = fs::metadata(&mbox).unwrap();
    assert_eq!((owner.uid(), owner.mode() & 0o777), (home.account.uid, 0o600));

    let place = "/dev/null".to_owned();
    assert_eq!(deliver_to(&home, &place), Outcome::Delivered { place });
    symlink(&mbox, home.path("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, home.path("fifo"), 0o600.into()).unwrap();
    home.own("fifo");
    for (path, reason) in [
        ("/dev/full", "no regular file"),
        ("/dev/zero", "no regular file"),
        ("/dev/null/", "a file stands where a folder should"),
        ("/", "no mailbox"),
        ("link", "is a link"),
        ("fifo", "no regular file"),
        ("no/such/folder/x", "mount the disk"),
    ] {
        let failure = deferred(deliver_to(&home, &home.path(path).display().to_string()));
        assert!(failure.text.contains(reason), "{path}: {}", failure.text);
    }
    assert_eq!(fs::read_to_string(&mbox).unwrap(), text);
}

#[test]
fn mail_that_was_here_before_is_a_loop() {
    let home = Home::new();
    let content = format!("Delivered-To: {}\r\n\r\n", home.address("ann"));
    let mbox = home.path("mbox").display().to_string();
    for way in ["|true", &mbox] {
        home.write(".forward", way);
        let outcome = one(&home, &job_for(&home, "ann+x", way, content.as_bytes()));
        assert_eq!(failed(outcome).status.to_string(), "5.4.6", "{way}");
    }
}
