//! What `mailwren check` says of the password for the smarthost.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};

#[path = "support/home.rs"]
mod home;

use home::Home;

/// A folder whose smarthost wants a login with these lines, beside the usual ones.
fn home(changes: &[(&str, &str)]) -> Home {
    let usual = [
        ("smarthost.tls", "starttls"),
        ("smarthost.user", "ann"),
        ("smarthost.password_file", "HOME/password"),
    ];
    let has_another = changes.iter().any(|(key, _)| key.starts_with("smarthost.password"));
    let usual = &usual[..if has_another { 2 } else { 3 }];
    let changes = usual.iter().chain(changes);
    Home::new(&changes.map(|(key, value)| ((*key).into(), (*value).into())).collect::<Vec<_>>())
}

fn write(home: &Home, content: &str, mode: u32) {
    let path = home.path().join("password");
    fs::write(&path, content).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Fails unless the check ends with that code and says just that, or nothing.
fn expect(home: &Home, code: i32, words: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailwren"));
    command.arg("--config").arg(home.config()).arg("check").env_remove("MAILWREN_CONFIG");
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words) && said.lines().count() == words.lines().count(), "{said}");
    assert!(!said.contains("sesame"), "{said}");
}

#[test]
fn a_file_that_only_the_server_may_read_is_no_news() {
    let home = home(&[]);
    for content in ["sesame", "sesame\n", "sesame\r\n", "open sesame\nand a second line \n"] {
        write(&home, content, 0o600);
        expect(&home, 0, "");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_a_mistake() {
    let home = home(&[]);
    expect(&home, 78, "password: the password cannot be read: No such file");
    for content in ["", "\nsesame"] {
        write(&home, content, 0o600);
        expect(&home, 78, "password: it has nothing in its first line; write the password there");
    }
    write(&home, &"sesame".repeat(20_000), 0o600);
    expect(&home, 78, "password: the password cannot be read: it has more than 65536 octets");
    let path = home.path().join("password");
    fs::remove_file(&path).unwrap();
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
    expect(&home, 78, "password: the password cannot be read: it is no regular file");
}

#[test]
fn a_file_that_the_server_may_not_read_is_a_mistake() {
    assert!(
        rustix::process::geteuid().is_root(),
        "run this test as root, who may check for others"
    );
    let home = home(&[("server.user", "daemon")]);
    // Its mailboxes are good.
    fs::set_permissions(home.path().join("mail"), Permissions::from_mode(0o777)).unwrap();
    write(&home, "sesame\n", 0o600);
    expect(
        &home,
        78,
        "password: the server runs as \"daemon\", which may not read it; run: chown ",
    );
}

#[test]
fn what_is_odd_or_open_to_all_is_told() {
    let home = home(&[]);
    for content in ["sesame \n", "\u{feff}sesame\n", "sesame\t"] {
        write(&home, content, 0o600);
        expect(&home, 0, "password:1: warning: the password begins or ends with a blank");
    }
    write(&home, "sesame\n", 0o644);
    expect(&home, 0, "password: warning: everybody on this host may read the password");
}

#[test]
fn a_password_in_the_configuration_is_for_all_who_may_read_that() {
    let home = home(&[("smarthost.password", "sesame")]);
    for (mode, words) in [
        (
            0o644,
            "mailwren.ini: warning: everybody on this host may read the password in [smarthost]",
        ),
        (0o640, ""),
    ] {
        fs::set_permissions(home.config(), Permissions::from_mode(mode)).unwrap();
        expect(&home, 0, words);
    }
}

#[test]
fn a_command_is_not_run_and_a_password_for_anybody_is_told() {
    let changes =
        [("smarthost.password_command", "touch HOME/ran"), ("smarthost.tls", "opportunistic")];
    let home = home(&changes);
    expect(
        &home,
        0,
        "warning: with `tls = opportunistic` in [smarthost] the password goes to whoever",
    );
    assert!(!home.path().join("ran").exists());
}
