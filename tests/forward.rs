//! The promises of `.forward`: it sends mail where its user says, nobody else can speak for the
//! user, and whatever stands there, no mail is lost and nothing waits.

#![expect(clippy::unwrap_used, reason = "a test ends where it panics")]

#[path = "forward/commands.rs"]
mod commands;
#[path = "forward/home.rs"]
mod home;
mod local_support;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use mailwren::config::settings::{MailboxFormat, Users};
use mailwren::deliver::outcome::Outcome;
use mailwren::route::addressee::{Addressee, Way};
use mailwren::route::forward::{Forwards, Unheard};
use mailwren::route::local::LocalRouter;
use mailwren::route::users::User;
use mailwren::sys::users::Account;

use home::{Home, set_mode};
use local_support::{deferred, files, settings};

/// What the outcome of a delivery to `ann`, who is whoever has the home, says: `mailbox`, or those
/// in her place.
fn said(outcome: &Outcome, home: &Home) -> String {
    let name = |to: &Addressee| match &to.way {
        Way::Routed => to.mailbox.to_string(),
        way => format!("{way} of {}", to.mailbox),
    };
    let said = match outcome {
        Outcome::Delivered { .. } => "mailbox".to_owned(),
        Outcome::Expanded(expansion) => {
            assert_eq!(expansion.owner, None);
            expansion.into.iter().map(name).collect::<Vec<_>>().join(" ")
        }
        other => panic!("{other:?}"),
    };
    said.replace(&home.account.name, "ann")
}

#[test]
fn a_forward_sends_the_mail_elsewhere() {
    let home = Home::new();
    let list = home.path("list");
    home.write("list", "carl@x.test\n# none\ndan");
    let include = format!(":include:{}, ann", list.display());
    for (text, expected) in [
        ("", "mailbox"),
        ("# nobody\n\n , \n", "mailbox"),
        ("bob@x.test", "bob@x.test"),
        ("bob, bob@home.test\ncarl@x.test", "bob@home.test carl@x.test"),
        ("ann", "\\ of ann@home.test"),
        ("\\ann, bob@x.test", "\\ of ann@home.test bob@x.test"),
        ("ANN@Home.test, bob", "\\ of ann@home.test bob@home.test"),
        ("ann@x.test", "ann@x.test"),
        ("\\bob", "\\ of bob@home.test"),
        // The queue knows by one name who has the message already.
        ("root@b.test, bob@b.test, root", "root@home.test bob@b.test"),
        (
            "\"|cmd 'a b'\", /var/x/, ann",
            "|cmd 'a b' of ann@home.test /var/x/ of ann@home.test \\ of ann@home.test",
        ),
        (&include, "carl@x.test dan@home.test \\ of ann@home.test"),
    ] {
        let name = &home.account.name;
        let text = text.replace("ann", name).replace("ANN", &name.to_ascii_uppercase());
        home.write(".forward", &text);
        let outcome = home.deliver("ann");
        assert_eq!(said(&outcome, &home), expected, "{text:?}");
    }
}

#[test]
fn a_detail_has_a_forward_of_its_own() {
    let home = Home::new();
    home.write(".forward", "plain@x.test");
    home.write(".forward+lists", "lists@x.test");
    home.write(".forward+Here", "here@x.test");
    home.write(".forward+empty", "# nobody");
    home.write(".forward+own", &home.account.name);
    home.write("sub", "out@x.test");
    fs::create_dir(home.path(".forward+a")).unwrap();
    symlink(home.path("sub"), home.path(".forward+a/b")).unwrap();
    for (detail, expected) in [
        ("", "plain@x.test"),
        ("+lists", "lists@x.test"),
        ("+LISTS", "lists@x.test"),
        ("+Here", "here@x.test"),
        ("+other", "plain@x.test"),
        ("+empty", "plain@x.test"),
        ("+own", "\\ of ann+own@home.test"),
        ("+a/b", "plain@x.test"),
        ("+a/../sub", "plain@x.test"),
        ("+.", "plain@x.test"),
        ("+", "plain@x.test"),
    ] {
        let outcome = home.deliver(&format!("ann{detail}"));
        assert_eq!(said(&outcome, &home), expected, "{detail:?}");
    }
    let long = format!("ann+{}", "x".repeat(55));
    assert_eq!(said(&home.deliver(&long), &home), "plain@x.test");
}

#[test]
fn without_a_forward_the_mailbox_has_the_mail_and_the_next_look_is_new() {
    let home = Home::new();
    assert_eq!(said(&home.deliver("ann"), &home), "mailbox");
    home.write(".forward", "a@x.test");
    assert_eq!(said(&home.deliver("ann"), &home), "a@x.test");
    home.write(".forward", "b@x.test");
    assert_eq!(said(&home.deliver("ann"), &home), "b@x.test");
    fs::remove_file(home.path(".forward")).unwrap();
    assert_eq!(said(&home.deliver("ann"), &home), "mailbox");
    assert_eq!(files(&home.mailbox().join("new")).len(), 2);
}

/// Something hostile in the place of a `.forward`.
type Plant<'a> = (&'a str, &'a dyn Fn(&Path));

#[test]
fn a_forward_that_cannot_be_trusted_leaves_the_mail_in_the_mailbox() {
    let write = |path: &Path, text: &str, mode: u32| {
        fs::write(path, text).unwrap();
        set_mode(path, mode);
    };
    let elsewhere = tempfile::tempdir().unwrap();
    set_mode(elsewhere.path(), 0o755);
    let target = elsewhere.path().join("target");
    write(&target, "thief@x.test", 0o644);
    let included = elsewhere.path().join("list");
    write(&included, "a@x.test\n|rm -r /\n", 0o644);
    let include =
        |path: &Path| write(path, &format!("a@x.test\n:include:{}", included.display()), 0o644);
    let plants: [Plant<'_>; 17] = [
        ("is a link", &|path| symlink(&target, path).unwrap()),
        ("is a link", &|path| symlink("/nowhere", path).unwrap()),
        ("is a link", &|path| symlink("/dev/zero", path).unwrap()),
        ("no regular file", &|path| {
            rustix::fs::mkfifoat(rustix::fs::CWD, path, 0o644.into()).unwrap();
        }),
        ("no regular file", &|path| fs::create_dir(path).unwrap()),
        ("no regular file", &|path| drop(UnixListener::bind(path).unwrap())),
        ("longer than 65536", &|path| {
            fs::File::create(path).unwrap().set_len(1 << 30).unwrap();
        }),
        ("chmod o-w", &|path| write(path, "thief@x.test", 0o646)),
        ("run chmod", &|path| {
            write(path, "thief@x.test", 0o666);
        }),
        ("may not be read", &|path| write(path, "a@x.test", 0o200)),
        (".forward:2: `b c` is no address", &|path| write(path, "a@x.test\nb c", 0o644)),
        (".forward:1: ", &|path| fs::write(path, b"\xff").unwrap()),
        (".forward:1: ", &|path| write(path, "a\0b", 0o644)),
        (".forward:3: ", &|path| write(path, "a\n\n:include:/nowhere/x", 0o644)),
        ("list:2: in a list only addresses", &include),
        ("names more than 1000", &|path| {
            let names: Vec<_> = (0..1001).map(|number| format!("u{number}")).collect();
            write(path, &names.join("\n"), 0o644);
        }),
        ("with a .forward in it can be written by everybody", &|path| {
            write(path, "a@x.test", 0o644);
            set_mode(path.parent().unwrap(), 0o777);
        }),
    ];
    for (reason, plant) in plants {
        let home = Home::new();
        plant(&home.path(".forward"));
        home.own(".forward");
        assert_eq!(said(&home.deliver("ann"), &home), "mailbox", "{reason}");
        assert_eq!(files(&home.mailbox().join("new")).len(), 1);
        match home.expansion("ann") {
            Err(Unheard::Refused(text)) => assert!(text.contains(reason), "{reason}: {text}"),
            other => panic!("{reason}: {other:?}"),
        }
    }
}

#[test]
fn a_private_group_may_write() {
    let home = Home::new();
    home.write(".forward", "a@x.test");
    set_mode(&home.path(".forward"), 0o664);
    let is_private = mailwren::sys::users::has_private_group(&home.account).unwrap();
    let expected = if is_private { "a@x.test" } else { "mailbox" };
    assert_eq!(said(&home.deliver("ann"), &home), expected);
}

#[test]
fn a_circle_ends_in_the_mailbox() {
    let home = Home::new();
    let aliases = home.folder.path().join("aliases");
    fs::write(&aliases, format!("all: {0}\nothers: all, zoe\n", home.account.name)).unwrap();
    let delivery = home.delivery_with(|settings| settings.local.aliases = Some(aliases.clone()));
    for (text, expected) in [
        ("all", "all@home.test \\ of ann@home.test"),
        // It comes back as ann+x, whose own name is the mailbox.
        ("ann+x", "ann+x@home.test"),
        ("others", "others@home.test"),
        ("all, out@x.test", "all@home.test out@x.test"),
        ("nobody-of-that-name", "nobody-of-that-name@home.test"),
    ] {
        home.write(".forward", &text.replace("ann", &home.account.name));
        let outcome = home.deliver_by(&delivery, "ann");
        assert_eq!(said(&outcome, &home), expected, "{text:?}");
    }
}

#[test]
fn a_home_that_is_away_defers_and_one_that_never_was_does_not() {
    let base = tempfile::tempdir().unwrap();
    let me = home::me();
    let mut settings = settings(MailboxFormat::Maildir, "/var/mail/{user}", Users::System);
    settings.local.forward = Some("{home}/.forward".to_owned());
    let (forwards, router) = (Forwards::new(&settings), LocalRouter::new(&settings));
    let file = base.path().join("file");
    fs::write(&file, "").unwrap();
    let missing = base.path().join("missing");
    for (uid, path, is_away) in [
        (54321, missing.as_path(), true),
        (0, &missing, true),
        (54321, &file, true),
        (999, &missing, false),
        (54321, Path::new("/nonexistent"), false),
        (54321, Path::new("/dev/null"), false),
    ] {
        let account = Account { uid, home: path.to_owned(), ..me.clone() };
        let user = User { name: "ann".parse().unwrap(), detail: None, account: Some(account) };
        let mailbox = "ann@home.test".parse().unwrap();
        let is_there = forwards.is_there(&user, &"home.test".parse().unwrap());
        match is_there {
            Err(failure) => {
                assert!(is_away && failure.status.is_temporary(), "{uid} {}", path.display());
                assert!(failure.text.contains("look for a .forward in"), "{}", failure.text);
            }
            Ok(is_there) => assert!(!is_away && !is_there, "{uid} {}", path.display()),
        }
        if rustix::process::geteuid().is_root() {
            match forwards.expansion(&user, &mailbox, &router) {
                Err(Unheard::Away(_)) => assert!(is_away, "{uid} {}", path.display()),
                other => {
                    assert!(!is_away && other == Ok(None), "{uid} {}: {other:?}", path.display())
                }
            }
        }
    }
}

#[test]
fn a_folder_of_forwards_that_is_away_defers() {
    let home = Home::new();
    let delivery = home.delivery_with(|settings| {
        settings.local.forward = Some("/nonexistent/forwards/{user}".to_owned());
    });
    let failure = deferred(home.deliver_by(&delivery, "ann"));
    assert!(failure.text.contains("/nonexistent/forwards"), "{}", failure.text);
    // Whoever else is asked about it: without an account there is none.
    let delivery = home.folder.delivery(MailboxFormat::Maildir, Users::Any);
    home.write(".forward", "a@x.test");
    assert_eq!(said(&home.deliver_by(&delivery, "ann"), &home), "mailbox");
}
