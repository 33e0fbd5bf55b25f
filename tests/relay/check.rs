//! What `mailwren check` says of the files that `[smarthost]` names, and of its ports.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use crate::tls_peer::Authority;

/// The exit code of `mailwren check` with these lines in `[smarthost]`, and all that it says but
/// notes, which are no complaints.
/// `PASSWORD` in them stands for a file with a password, which has that mode.
fn check(lines: &str, password: &str, mode: u32) -> (i32, String) {
    check_on("me.test", lines, password, mode)
}

/// The same on a host of that name.
fn check_on(host: &str, lines: &str, password: &str, mode: u32) -> (i32, String) {
    let folder = TempDir::new().unwrap();
    let (config, file) = (folder.path().join("mailwren.ini"), folder.path().join("password"));
    fs::write(&file, password).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    let lines = lines.replace("PASSWORD", file.to_str().unwrap());
    let aliases = folder.path().join("aliases");
    fs::write(&aliases, "root: me@far.test\n").unwrap();
    let server = format!(
        "[server]\nhostname = {host}\nuser = root\nspool = {0}/spool\nstate = {0}/state\n\
         socket = {0}/socket\n[listen.smtp]\naddress = 127.0.0.1:0\ntls = none\n",
        folder.path().display()
    );
    let local = format!("[local]\naliases = {}\n", aliases.display());
    fs::write(&config, format!("{server}{local}[smarthost]\n{lines}\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailwren"));
    command.arg("--config").arg(&config).arg("check").env_remove("MAILWREN_CONFIG");
    let output = command.output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let is_note = |line: &&str| line.contains(": note: ");
    let said = said.lines().filter(|line| !is_note(line)).map(|line| format!("{line}\n")).collect();
    (output.status.code().unwrap(), said)
}

fn expect(lines: &str, password: &str, mode: u32, code: i32, words: &str) {
    let (found, said) = check(lines, password, mode);
    assert!(found == code && said.contains(words), "{lines}: {code} {words}: {found} {said}");
}

#[test]
fn what_is_good_is_no_news() {
    let authority = Authority::new();
    let ca = authority.file();
    let lines = format!(
        "host = a.localhost:587\nca = {}\nuser = me\npassword_file = PASSWORD",
        ca.display()
    );
    let (code, said) = check(&lines, "sesame\n", 0o600);
    assert!(code == 0 && said.lines().count() == 1, "{said}");
    assert!(said.ends_with(": no mistakes found\n"), "{said}");
}

#[test]
fn certificates_of_no_use_are_told() {
    let ca = |path: &str| format!("host = a.localhost:587\nca = {path}");
    expect(&ca("/nowhere/ca.pem"), "", 0o600, 78, "[smarthost] ca /nowhere/ca.pem: No such file");
    expect(&ca("PASSWORD"), "sesame", 0o600, 78, "it has no certificate, PEM, in it");
}

#[test]
fn a_port_that_does_not_suit_the_encryption_is_told() {
    let words = |port, tls| {
        format!("[smarthost] port {port} of a.localhost is as a rule for `tls = {tls}`")
    };
    for (lines, expected) in [
        ("host = a.localhost:465\ntls = starttls", words(465, "implicit")),
        ("host = a.localhost:587, a.localhost:465", words(465, "implicit")),
        ("host = a.localhost:587\ntls = implicit", words(587, "starttls")),
        ("host = a.localhost\ntls = implicit", words(25, "starttls")),
    ] {
        expect(lines, "", 0o600, 0, &expected);
    }
    for lines in [
        "host = a.localhost:465",
        "host = a.localhost:587",
        "host = a.localhost:2525\ntls = implicit",
    ] {
        assert!(!check(lines, "", 0o600).1.contains("warning"), "{lines}");
    }
}

#[test]
fn a_provider_that_will_refuse_the_senders_of_this_host_is_foreseen() {
    let login =
        |user: &str| format!("host = a.localhost:587\nuser = {user}\npassword_file = PASSWORD");
    let words = "warning: the smarthost knows this host as ann@isp.test, and most providers take \
        mail from that address alone; add `sender = ann@isp.test` in [rewrite]";
    expect(&login("ann@isp.test"), "sesame", 0o600, 0, words);
    for rewrite in ["sender = me@isp.test", "masquerade = isp.test"] {
        let lines = format!("{}\n[rewrite]\n{rewrite}", login("ann@isp.test"));
        assert!(!check(&lines, "sesame", 0o600).1.contains("warning"), "{rewrite}");
    }
    for user in ["ann", "ann@me.test"] {
        assert!(!check(&login(user), "sesame", 0o600).1.contains("warning"), "{user}");
    }
    expect(
        &format!("{}\n[rewrite]\nmasquerade = x.test", login("a@isp.test")),
        "x",
        0o600,
        0,
        "a@isp.test",
    );
}

#[test]
fn a_host_that_nobody_elsewhere_knows_is_told_to_send_as_somebody() {
    for (host, lines, is_told) in [
        ("raspberrypi", "host = a.localhost", true),
        ("pi.LOCAL", "host = a.localhost:587\nuser = me\npassword_file = PASSWORD", true),
        ("pi.fritz.box", "host = a.localhost", true),
        ("pi.home.example", "host = a.localhost", false),
        ("mylocal.example", "host = a.localhost", false),
        ("raspberrypi", "host = a.localhost\n[rewrite]\nsender = me@isp.test", false),
        ("raspberrypi", "host = a.localhost\n[rewrite]\nmasquerade = isp.test", false),
    ] {
        let (code, said) = check_on(host, lines, "sesame", 0o600);
        let words = format!("addresses at {host}, which no host elsewhere knows");
        assert_eq!((code, said.contains(&words)), (0, is_told), "{host} {lines}: {said}");
        assert_eq!(said.matches("[rewrite]").count(), usize::from(is_told), "{said}");
    }
}

#[test]
fn a_map_that_cannot_be_used_is_told_with_its_line() {
    let lines = "host = a.localhost\n[rewrite]\nmap = PASSWORD";
    expect(lines, "root me@isp.test\n", 0o644, 0, "no mistakes found");
    expect(lines, "# map\nroot\n", 0o644, 78, "password:2: give two addresses");
    let away = "host = a.localhost\n[rewrite]\nmap = /nowhere/map";
    expect(away, "", 0o600, 78, "/nowhere/map: the map cannot be read: No such file");
}
