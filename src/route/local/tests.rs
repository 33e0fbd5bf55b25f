//! What addresses come to, by tables, and by random alias files that are played to their ends.

use super::*;
use crate::config::settings::{Local, MailboxFormat, Users, VirtualDomain};
use crate::route::expanding::MAX_ADDRESSEES;
use proptest::prelude::*;
use std::fs;
use std::path::Path;

/// A host of home.test and b.test with the users in a file.
fn settings(folder: &Path, users: &str) -> Settings {
    fs::write(folder.join("users"), users).unwrap();
    let mut settings = Settings::default_with("mx.test").unwrap();
    settings.server.domains.names = vec!["home.test".parse().unwrap(), "b.test".parse().unwrap()];
    settings.local = Local {
        format: MailboxFormat::Maildir,
        path: "/mail/{user}".to_owned(),
        users: Users::File(folder.join("users")),
        aliases: Some(folder.join("aliases")),
        subaddress: Some('+'),
        catch_all: None,
        ..settings.local
    };
    settings
}

fn router(folder: &Path, users: &str, catch_all: Option<&str>) -> LocalRouter {
    let mut settings = settings(folder, users);
    settings.local.catch_all = catch_all.map(|text| text.parse().unwrap());
    LocalRouter::new(&settings)
}

fn printed(resolution: &Resolution) -> String {
    let print = |to: &Addressee| match &to.way {
        Way::Routed | Way::User | Way::Mailbox => format!("{}{}", to.way, to.mailbox),
        way => format!("{way}({})", to.mailbox),
    };
    match resolution {
        Resolution::Mailbox(user) => format!("user {}", user.name),
        Resolution::Expanded(expansion) => {
            let owner = expansion.owner.iter().map(|owner| format!("from {owner}"));
            expansion.into.iter().map(print).chain(owner).collect::<Vec<_>>().join(" ")
        }
        Resolution::Unknown => "unknown".to_owned(),
        Resolution::Failed(failure) => failure.status.to_string(),
    }
}

fn resolve(router: &LocalRouter, address: &str) -> String {
    printed(&router.resolve(&address.parse().unwrap()))
}

const USERS: &str = "ann\nbob\nroot\n";

#[test]
fn aliases_and_users() {
    let folder = tempfile::tempdir().unwrap();
    let router = router(folder.path(), USERS, None);
    for (aliases, address, expected) in [
        ("", "ann@home.test", "user ann"),
        ("", "ANN+x@b.test", "user ann"),
        ("", "carl@home.test", "unknown"),
        ("", "\"../x\"@home.test", "unknown"),
        ("", "Postmaster@home.test", "user root"),
        ("root: ann", "postmaster@home.test", "ann@home.test"),
        ("postmaster: bob", "POSTMASTER@home.test", "bob@home.test"),
        (
            "r: ann, c@x.test, ANN, s\ns: bob, c@x.test",
            "R+d@b.test",
            "ann@home.test c@x.test bob@home.test",
        ),
        ("r: s@b.test\ns: bob", "r@home.test", "bob@home.test"),
        ("r: s@x.test\ns: bob", "r@home.test", "s@x.test"),
        ("a+b: ann\na: bob", "a+b@home.test", "ann@home.test"),
        ("root: root, ann", "root@home.test", "=root@home.test ann@home.test"),
        ("root: root", "root@home.test", "user root"),
        (
            "a: ann, ann@b.test, ANN@b.test, zoe@home.test, zoe@b.test",
            "a@home.test",
            "ann@home.test zoe@home.test zoe@b.test",
        ),
        ("a: ann@b.test, \\ann", "a@home.test", "=ann@home.test \\ann@home.test"),
        (
            "a: \\ann, ann+x, b, \\bob, c\nb: ann\nbob: bob, ann\nc: bob",
            "a@home.test",
            "\\ann@home.test ann+x@home.test =ann@home.test \\bob@home.test bob@home.test",
        ),
        ("root: \\root", "root@home.test", "\\root@home.test"),
        (
            "root: root, \\root, ann",
            "root@home.test",
            "=root@home.test \\root@home.test ann@home.test",
        ),
        ("p: root, bob\nroot: root, ann", "p@home.test", "root@home.test bob@home.test"),
        ("ann: bob\nbob: ann", "ann@home.test", "user ann"),
        ("c: d\nd: c", "c@home.test", "5.4.6"),
        ("c: c", "c@home.test", "5.4.6"),
        ("c: c, ann", "c@home.test", "ann@home.test"),
        ("z: a\na: b\nb: a", "z@home.test", "5.4.6"),
        ("z: a\na: b\nb: ann, a", "z@home.test", "ann@home.test"),
        ("z: bob\nbob: b\nb: bob", "z@home.test", "bob@home.test"),
        ("z: bob\nbob: b\nb: bob", "bob@home.test", "user bob"),
        ("b: b, c\nc: c, b", "b@home.test", "5.4.6"),
        ("x: y, w\nw: x\ny: v, x\nv: y", "x@home.test", "5.4.6"),
        ("root: postmaster", "postmaster@home.test", "user root"),
        ("root: root, ann", "postmaster@home.test", "=root@home.test ann@home.test"),
        // Whose a command is, is the alias that names it.
        ("r: \"|cmd\", /f", "R@b.test", "|cmd(R@b.test) /f(R@b.test)"),
        ("r: s, t\ns: |cmd\nt: s+x, |cmd", "r@home.test", "|cmd(s@home.test) |cmd(t@home.test)"),
        ("r: |cmd", "r+x@home.test", "|cmd(r+x@home.test)"),
        ("r: ann, \\ann, ANN", "r@home.test", "=ann@home.test \\ann@home.test"),
        // An address comes before a name, a name before its detail, both before a user.
        ("ann@home.test: bob\nann: carl@x.test", "Ann@home.test", "bob@home.test"),
        ("ann@home.test: bob\nann: carl@x.test", "ann@b.test", "carl@x.test"),
        ("ann@b.test: bob\nann+x: carl@x.test", "ann+x@b.test", "bob@home.test"),
        ("ann+x@b.test: ann\nann@b.test: bob", "ann+x@b.test", "ann@home.test"),
        ("ann@x.test: bob", "ann@home.test", "user ann"),
        ("ann@home.test: bob", "\"ann@home.test\"@home.test", "unknown"),
        // A domain's alias comes behind its users and its postmaster.
        ("@b.test: carl@x.test, |cmd", "zoe@b.test", "carl@x.test |cmd(zoe@b.test)"),
        ("@b.test: carl@x.test", "ann@b.test", "user ann"),
        ("@b.test: carl@x.test", "zoe@home.test", "unknown"),
        ("@b.test: carl@x.test", "postmaster@b.test", "user root"),
        ("@b.test: zoe@b.test", "zoe@b.test", "unknown"),
        ("@b.test: zoe@b.test", "max@b.test", "unknown"),
        ("@b.test: l\nl: max@b.test", "l@home.test", "max@b.test"),
        ("@b.test: l\nl: max@b.test", "max@b.test", "unknown"),
        ("r: s\ns: ann, :include:/no-such-file", "r@home.test", "4.3.5"),
        // A list has an owner, and a list within a list its own.
        ("l: ann\nowner-l: bob", "L@b.test", "ann@home.test from owner-l@home.test"),
        ("l: ann\nowner-l: bob\nl-request: ann", "l-request@home.test", "ann@home.test"),
        ("l: ann\nowner-l: bob", "owner-l@home.test", "bob@home.test"),
        (
            "l: ann\nowner-l: bob\nowner-owner: root",
            "owner-l@home.test",
            "bob@home.test from owner-owner@home.test",
        ),
        ("owner-owner: root", "owner-owner@home.test", "root@home.test"),
        ("a: l, x@x.test\nl: ann\nowner-l: bob", "a@home.test", "l@home.test x@x.test"),
        ("a: l\nl: a\nowner-l: bob", "a@home.test", "5.4.6"),
        ("a: l\nl: a\nowner-l: bob\nowner-a: bob", "l@home.test", "5.4.6"),
        ("l+x: ann\nowner-l: bob", "l+x@home.test", "ann@home.test"),
        ("r: s\ns: ann, :include:/no-such-file", "ann@home.test", "user ann"),
    ] {
        fs::write(folder.path().join("aliases"), aliases).unwrap();
        assert_eq!(resolve(&router, address), expected, "{aliases:?} {address}");
    }
}

#[test]
fn depth_and_number_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let router = router(folder.path(), USERS, None);
    let chain: String = (0..10_000).map(|n| format!("a{n}: a{}\n", n + 1)).collect();
    fs::write(folder.path().join("aliases"), chain).unwrap();
    assert_eq!(resolve(&router, "a0@home.test"), "5.4.6");
    assert_eq!(resolve(&router, "a9990@home.test"), "a10000@home.test");
    let wide: Vec<_> = (0..=MAX_ADDRESSEES).map(|n| format!("u{n}")).collect();
    fs::write(folder.path().join("aliases"), format!("w: {}", wide.join(", "))).unwrap();
    assert_eq!(resolve(&router, "w@home.test"), "5.4.6");
}

#[test]
fn a_broken_file_changes_nothing_and_without_one_before_mail_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aliases");
    let router = router(folder.path(), USERS, None);
    fs::write(&path, "a: ann\nbroken\n").unwrap();
    assert_eq!(resolve(&router, "ann@home.test"), "4.3.5");
    let Resolution::Failed(failure) = router.resolve(&"a@home.test".parse().unwrap()) else {
        panic!("a broken file must not tell who is unknown");
    };
    assert!(failure.text.contains("aliases:2: "), "{}", failure.text);
    fs::write(&path, "a: ann\n").unwrap();
    assert_eq!(resolve(&router, "a@home.test"), "ann@home.test");
    fs::write(&path, "a: bob\nbroken again\n").unwrap();
    assert_eq!(resolve(&router, "a@home.test"), "ann@home.test");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(resolve(&router, "a@home.test"), "ann@home.test");
    let news = self::router(folder.path(), USERS, None);
    assert_eq!(resolve(&news, "a@home.test"), "4.3.5");
    fs::remove_dir(&path).unwrap();
    assert_eq!(resolve(&router, "a@home.test"), "ann@home.test");
    assert_eq!(resolve(&news, "a@home.test"), "unknown");
}

#[test]
fn a_file_that_is_being_saved_leaves_nobody_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aliases");
    let router = router(folder.path(), USERS, None);
    assert_eq!(resolve(&router, "a@home.test"), "unknown", "there was no file yet");
    fs::write(&path, "a: ann\n").unwrap();
    assert_eq!(resolve(&router, "a@home.test"), "ann@home.test");
    fs::rename(&path, folder.path().join("aliases~")).unwrap();
    assert_eq!(resolve(&router, "a@home.test"), "ann@home.test");
    fs::write(&path, "a: bob\n").unwrap();
    assert_eq!(resolve(&router, "a@home.test"), "bob@home.test");
}

#[test]
fn the_catch_all_takes_the_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let known = router(folder.path(), USERS, Some("ann@home.test"));
    assert_eq!(resolve(&known, "carl@home.test"), "ann@home.test");
    assert_eq!(resolve(&known, "bob@home.test"), "user bob");
    let away = router(folder.path(), USERS, Some("x@other.test"));
    assert_eq!(resolve(&away, "carl@home.test"), "x@other.test");
    let gone = router(folder.path(), USERS, Some("dan@home.test"));
    assert_eq!(resolve(&gone, "carl@home.test"), "unknown");
    assert_eq!(resolve(&gone, "dan@home.test"), "unknown");
}

#[test]
fn lists_are_read_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let router = router(folder.path(), USERS, None);
    let path = |name: &str| folder.path().join(name);
    let l = path("l").display().to_string();
    fs::write(path("aliases"), format!("l: :include:{l}, root\nm: bob\nowner-l: root")).unwrap();
    let check = |expected: &str| assert_eq!(resolve(&router, "l@home.test"), expected);
    // Nobody is left out because a list is away.
    check("4.3.5");
    fs::write(path("l"), "# us\nann, carl@x.test\n").unwrap();
    check("ann@home.test carl@x.test root@home.test from owner-l@home.test");
    fs::write(path("l"), format!("m\n\\ann\n:include:{l}\nl@b.test")).unwrap();
    check("bob@home.test \\ann@home.test root@home.test from owner-l@home.test");
    // A broken list changes nothing.
    fs::write(path("l"), "ann bob\n").unwrap();
    check("bob@home.test \\ann@home.test root@home.test from owner-l@home.test");
    fs::write(path("l"), "\n").unwrap();
    check("root@home.test from owner-l@home.test");
    // While it is saved, it is missing for a moment.
    fs::remove_file(path("l")).unwrap();
    check("root@home.test from owner-l@home.test");
}

#[test]
fn what_a_list_must_not_have_defers_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let router = router(folder.path(), USERS, None);
    let path = |name: &str| folder.path().join(name);
    let (outer, inner) = (path("outer").display().to_string(), path("inner"));
    fs::write(path("aliases"), format!("x: ann\nl: :include:{outer}")).unwrap();
    fs::write(&outer, format!("ann\n:include:{}\n", inner.display())).unwrap();
    fs::create_dir(path("folder")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    std::os::unix::fs::symlink("/dev/zero", path("device")).unwrap();
    fs::write(path("huge"), "ann\n".repeat(1 << 19)).unwrap();
    let at_inner = format!("{}:3", inner.display());
    let at_outer = format!("{outer}:2");
    for (content, place, part) in [
        ("\n\n|cmd", &at_inner, "put it into the alias file"),
        ("\n\n/var/mail/x", &at_inner, "put it into the alias file"),
        ("\n\nann bob", &at_inner, "cannot be read"),
        (":include:FOLDER/folder", &at_inner, "no regular file"),
        (":include:FOLDER/fifo", &at_inner, "no regular file"),
        (":include:FOLDER/device", &at_inner, "no regular file"),
        (":include:FOLDER/huge", &at_inner, "octets"),
        (":include:FOLDER/none", &at_inner, "does not exist"),
        ("\nann bob", &at_outer, "inner:2"),
    ] {
        let content = content.replace("FOLDER", &folder.path().display().to_string());
        let lines = if content.starts_with(':') { "\n\n" } else { "" };
        let router = LocalRouter::new(&settings(folder.path(), USERS));
        fs::write(&inner, format!("{lines}{content}")).unwrap();
        let Resolution::Failed(failure) = router.resolve(&"l@home.test".parse().unwrap()) else {
            panic!("{content}");
        };
        assert_eq!(failure.status.to_string(), "4.3.5", "{content}");
        let is_told = failure.text.contains(place.as_str()) && failure.text.contains(part);
        assert!(is_told, "{content}: {}", failure.text);
        assert!(!failure.text.contains("ann bob"), "{}", failure.text);
    }
    assert_eq!(resolve(&router, "x@home.test"), "ann@home.test");
}

#[test]
fn lists_are_bounded_in_depth_and_number() {
    let folder = tempfile::tempdir().unwrap();
    let router = router(folder.path(), USERS, None);
    let path = |name: usize| folder.path().join(format!("l{name}"));
    fs::write(folder.path().join("aliases"), format!("l: :include:{}", path(0).display())).unwrap();
    for n in 0..300 {
        fs::write(path(n), format!(":include:{}", path(n + 1).display())).unwrap();
    }
    assert_eq!(resolve(&router, "l@home.test"), "5.4.6");
    let wide: String = (0..=MAX_ADDRESSEES).map(|n| format!("u{n}\n")).collect();
    fs::write(path(0), wide).unwrap();
    assert_eq!(resolve(&router, "l@home.test"), "5.4.6");
    let wide: String = (0..300).map(|n| format!(":include:{}\n", path(n + 1).display())).collect();
    for n in 1..=300 {
        fs::write(path(n), format!("u{n}")).unwrap();
    }
    fs::write(path(0), wide).unwrap();
    assert_eq!(resolve(&router, "l@home.test").split(' ').count(), 300);
}

#[test]
fn lists_that_include_each_other_over_and_over_are_looked_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let router = router(folder.path(), USERS, Some("l@home.test"));
    let path = |name: usize| folder.path().join(format!("l{name}"));
    let aliases = format!("l: m\nm: :include:{}\nowner-m: ann", path(0).display());
    fs::write(folder.path().join("aliases"), aliases).unwrap();
    for n in 0..25 {
        let next = path(n + 1).display().to_string();
        fs::write(path(n), format!(":include:{next}\n:include:{next}\n:include:{next}\nl\nm"))
            .unwrap();
    }
    fs::write(path(25), "l\n").unwrap();
    assert_eq!(resolve(&router, "l@home.test"), "5.4.6");
    assert_eq!(resolve(&router, "zoe@home.test"), "unknown");
    fs::write(path(25), "l\nbob").unwrap();
    assert_eq!(resolve(&router, "zoe@home.test"), "l@home.test");
}

/// home.test, and with own users v.test, without any w.test.
fn with_virtual_domains(folder: &Path) -> LocalRouter {
    let mut settings = settings(folder, USERS);
    let domain = |name: &str, users: Option<&str>| VirtualDomain {
        name: name.parse().unwrap(),
        users: users.map(|users| folder.join(users)),
        aliases: Some(folder.join(format!("aliases.{name}"))),
        path: "/mail/{domain}/{user}".to_owned(),
        catch_all: None,
    };
    fs::write(folder.join("users.v"), "ann\nzoe\n").unwrap();
    settings.domains = vec![domain("v.test", Some("users.v")), domain("w.test", None)];
    settings.domains[0].catch_all = Some("zoe@v.test".parse().unwrap());
    settings.server.domains.others = vec!["v.test".parse().unwrap(), "w.test".parse().unwrap()];
    LocalRouter::new(&settings)
}

#[test]
fn a_virtual_domain_has_its_own_users_and_aliases() {
    let folder = tempfile::tempdir().unwrap();
    let router = with_virtual_domains(folder.path());
    fs::write(folder.path().join("aliases"), "all: ann\nann@v.test: bob\nowner-l: bob").unwrap();
    for (aliases, address, expected) in [
        ("", "ann@V.test", "user ann"),
        ("", "ann+x@v.test", "user ann"),
        ("", "zoe@home.test", "unknown"),
        // The host's users, aliases and catch-all are not the domain's.
        ("", "bob@v.test", "zoe@v.test"),
        ("", "all@w.test", "unknown"),
        ("", "bob@w.test", "unknown"),
        ("", "postmaster@v.test", "postmaster@home.test"),
        ("postmaster: zoe", "postmaster@v.test", "zoe@v.test"),
        ("", "postmaster@w.test", "postmaster@home.test"),
        // With users of its own, its names are meant.
        (
            "a: bob, ann, \\zoe, all@home.test",
            "a@v.test",
            "bob@v.test ann@v.test \\zoe@v.test ann@home.test",
        ),
        ("l: ann\nowner-l: zoe", "l@v.test", "ann@v.test from owner-l@v.test"),
        ("l: |cmd", "L@v.test", "|cmd(L@v.test)"),
        ("ann: ann, bob@home.test", "ann@v.test", "=ann@v.test bob@home.test"),
        ("@v.test: ann", "max@v.test", "ann@v.test"),
        ("@v.test: ann", "zoe@v.test", "user zoe"),
        ("zoe@v.test: ann", "zoe@v.test", "ann@v.test"),
        ("zoe@home.test: ann", "zoe@v.test", "user zoe"),
        // Without, its aliases, else the names of the host.
        ("a: b, ann\nb: x@x.test", "a@w.test", "x@x.test ann@home.test"),
        ("ann: ann, |cmd", "ann@w.test", "ann@home.test |cmd(ann@w.test)"),
        ("a: \\ann, all", "a@w.test", "\\ann@home.test =ann@home.test"),
        ("a: b\nb: a", "a@w.test", "a@home.test"),
        ("a: a", "a@w.test", "a@home.test"),
    ] {
        let name = address.split_once('@').unwrap().1.to_lowercase();
        for other in ["v.test", "w.test"] {
            let text = if other == name { aliases } else { "" };
            fs::write(folder.path().join(format!("aliases.{other}")), text).unwrap();
        }
        assert_eq!(resolve(&router, address), expected, "{aliases:?} {address}");
    }
    let domain = |name: &str| name.parse().unwrap();
    assert_eq!(router.mailbox_path(&domain("V.test")), "/mail/{domain}/{user}");
    assert_eq!(router.mailbox_path(&domain("b.test")), "/mail/{user}");
    assert_eq!(router.user(&"zoe@home.test".parse().unwrap()), Ok(None));
    assert!(router.user(&"zoe@v.test".parse().unwrap()).unwrap().unwrap().account.is_none());
}

#[test]
fn what_leads_back_from_one_domain_to_another_never_vanishes() {
    let folder = tempfile::tempdir().unwrap();
    let router = with_virtual_domains(folder.path());
    let write = |domain: &str, text: &str| {
        fs::write(folder.path().join(format!("aliases{domain}")), text).unwrap();
    };
    write("", "postmaster: postmaster@v.test\na: b@v.test\nc: d@w.test\nowner-c: ann");
    write(".v.test", "b: a@home.test\n@v.test: max@w.test");
    write(".w.test", "d: c@home.test\nowner-d: ann\n@w.test: max@v.test");
    assert_eq!(resolve(&router, "postmaster@v.test"), "5.4.6");
    assert_eq!(resolve(&router, "a@home.test"), "5.4.6");
    assert_eq!(resolve(&router, "c@home.test"), "5.4.6");
    assert_eq!(resolve(&router, "max@v.test"), "unknown");
    write(".w.test", "d: c@home.test\n@w.test: max@v.test, ann");
    assert_eq!(resolve(&router, "max@v.test"), "max@w.test");
    assert_eq!(resolve(&router, "max@w.test"), "max@v.test ann@home.test");
}

proptest! {
    /// Whatever the aliases say: following them to the end gives the message to somebody, says
    /// that somebody is unknown, or fails. It never comes to nothing.
    #[test]
    fn no_message_vanishes(
        names in prop::collection::vec(
            (prop::option::weighted(0.8, prop::collection::vec("[a-d]|b", 1..3)), any::<bool>()),
            4,
        ),
        others in prop::option::of("[a-d]"),
        users in "[d\n]{1}",
        first in "[a-d]",
    ) {
        let folder = tempfile::tempdir().unwrap();
        let router = router(folder.path(), &users, None);
        let mut aliases = String::new();
        for ((targets, has_owner), name) in names.iter().zip(["a", "b", "c", "d"]) {
            if let Some(targets) = targets {
                aliases += &format!("{name}: {}\n", targets.join(", "));
            }
            if *has_owner {
                aliases += &format!("owner-{name}: root\n");
            }
        }
        aliases.extend(others.map(|name| format!("@home.test: {name}\n")));
        fs::write(folder.path().join("aliases"), &aliases).unwrap();
        let mut known = vec![Addressee::from(format!("{first}@home.test").parse::<Mailbox>().unwrap())];
        let (mut at, mut has_ended) = (0, false);
        while let Some(to) = known.get(at).cloned() {
            at += 1;
            match router.resolve(&to.mailbox) {
                Resolution::Expanded(expansion) if to.way == Way::Routed => {
                    for to in expansion.into {
                        if !known.contains(&to) {
                            known.push(to);
                        }
                    }
                }
                _ => has_ended = true,
            }
        }
        prop_assert!(has_ended, "{first}: {aliases}");
    }
}

#[test]
fn one_mailbox_has_one_spelling() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("aliases"), "all: ann\nann@home.test: bob\n").unwrap();
    let mut settings = settings(folder.path(), "ann\nBob\nbob\n");
    settings.domains.push(VirtualDomain {
        name: "shop.test".parse().unwrap(),
        users: Some(folder.path().join("users")),
        aliases: None,
        catch_all: None,
        path: "/mail/shop/{user}".to_owned(),
    });
    settings.server.domains.others.push("shop.test".parse().unwrap());
    let check = |settings: &Settings, address: &str, expected: &str| {
        let spelling = LocalRouter::new(settings).spelling(&address.parse().unwrap());
        let spelling = spelling.map_or("its own".to_owned(), |it| it.to_string());
        assert_eq!(spelling, expected, "{address}");
    };
    for (address, expected) in [
        ("Ann@B.test", "ann@home.test"),
        ("ann+X@b.test", "ann+X@home.test"),
        // Here these are two people.
        ("Bob@b.test", "Bob@home.test"),
        ("bob@b.test", "bob@home.test"),
        ("BOB@b.test", "bob@home.test"),
        ("Postmaster@b.test", "root@home.test"),
        ("ANN@shop.test", "ann@shop.test"),
        // Known here by the name of the first one, and somebody else.
        ("ann@home.test", "its own"),
        ("ALL@b.test", "its own"),
        ("Zoe@b.test", "its own"),
        ("Ann@far.test", "its own"),
    ] {
        check(&settings, address, expected);
    }
    settings.local.path = "/mail/{domain}/{user}".to_owned();
    check(&settings, "Ann@b.test", "ann@b.test");
}
