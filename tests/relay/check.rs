//! What `mailwren check` says of the files that `[smarthost]` names, and of its ports.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use crate::tls_peer::Authority;

/// The exit code of `mailwren check` with these lines in `[smarthost]`, and all that it says.
/// `PASSWORD` in them stands for a file with a password, which has that mode.
fn check(lines: &str, password: &str, mode: u32) -> (i32, String) {
    let folder = TempDir::new().unwrap();
    let (config, file) = (folder.path().join("mailwren.ini"), folder.path().join("password"));
    fs::write(&file, password).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    let lines = lines.replace("PASSWORD", file.to_str().unwrap());
    let aliases = folder.path().join("aliases");
    fs::write(&aliases, "root: me@far.test\n").unwrap();
    let user = "[server]\nhostname = me.test\nuser = root\n[listen.smtp]\ntls = none\n";
    let local = format!("[local]\naliases = {}\n", aliases.display());
    fs::write(&config, format!("{user}{local}[smarthost]\n{lines}\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailwren"));
    command.arg("--config").arg(&config).arg("check").env_remove("MAILWREN_CONFIG");
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

fn expect(lines: &str, password: &str, mode: u32, code: i32, words: &str) {
    let (found, said) = check(lines, password, mode);
    assert!(found == code && said.contains(words), "{lines}: {code} {words}: {found} {said}");
}

#[test]
fn what_is_good_is_no_news() {
    let authority = Authority::new();
    let ca = authority.file();
    let lines =
        format!("host = a.test:587\nca = {}\nuser = me\npassword_file = PASSWORD", ca.display());
    let (code, said) = check(&lines, "sesame\n", 0o600);
    assert!(code == 0 && said.lines().count() == 1, "{said}");
    assert!(said.ends_with(": no mistakes found\n"), "{said}");
}

#[test]
fn certificates_of_no_use_are_told() {
    let ca = |path: &str| format!("host = a.test:587\nca = {path}");
    expect(&ca("/nowhere/ca.pem"), "", 0o600, 78, "[smarthost] ca /nowhere/ca.pem: No such file");
    expect(&ca("PASSWORD"), "sesame", 0o600, 78, "it has no certificate, PEM, in it");
}

#[test]
fn a_port_that_does_not_suit_the_encryption_is_told() {
    let words =
        |port, tls| format!("[smarthost] port {port} of a.test is as a rule for `tls = {tls}`");
    for (lines, expected) in [
        ("host = a.test:465\ntls = starttls", words(465, "implicit")),
        ("host = a.test:587, a.test:465", words(465, "implicit")),
        ("host = a.test:587\ntls = implicit", words(587, "starttls")),
        ("host = a.test\ntls = implicit", words(25, "starttls")),
    ] {
        expect(lines, "", 0o600, 0, &expected);
    }
    for lines in ["host = a.test:465", "host = a.test:587", "host = a.test:2525\ntls = implicit"] {
        assert!(!check(lines, "", 0o600).1.contains("warning"), "{lines}");
    }
}
