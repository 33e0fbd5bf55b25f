//! What lies in `drop/`: mail that `sendmail` left while no server ran is delivered, and a file
//! that somebody put there to harm is never followed, never waited for and never in the way of
//! others.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mailwren::spool::drop::DropBox;
use mailwren::spool::envelope::{Body, Envelope};
use mailwren::spool::format::{end_line, envelope_text};
use mailwren::spool::id::QueueId;

#[path = "support/home.rs"]
mod home;
#[path = "support/server.rs"]
mod server;

use home::{Change, Home};
use server::{PATIENCE, TestServer};

const CONTENT: &str = "Subject: dropped\r\n\r\nbody\r\n";

fn home(changes: &[(&str, &str)]) -> Home {
    let socket = [("server.socket", "HOME/s")];
    let own = |(name, value): &(&str, &str)| -> Change { ((*name).into(), (*value).into()) };
    Home::new(&socket.iter().chain(changes).map(own).collect::<Vec<_>>())
}

/// Starts the server, and waits until its folder is open to everybody.
fn start(home: &Home) -> TestServer {
    let server = TestServer::start(home);
    let mode = |folder: &Path| fs::metadata(folder).map_or(0, |it| it.permissions().mode());
    wait_for("the folder", || mode(&drop_folder(home)) & 0o7777 == 0o1733);
    server
}

fn drop_folder(home: &Home) -> PathBuf {
    home.path().join("spool/drop")
}

fn envelope(to: &[&str]) -> Envelope {
    Envelope {
        id: QueueId::generate(1_795_000_000_000_000, 0),
        received_at: 1_795_000_000,
        client: "uid 4711".to_owned(),
        reverse_path: "<>".parse().unwrap(),
        recipients: to
            .iter()
            .map(|to| to.parse::<mailwren::mail::address::Mailbox>().unwrap().into())
            .collect(),
        body: Body::SevenBit,
        request: Default::default(),
    }
}

fn text_of(envelope: &Envelope, content: &str) -> String {
    format!("{}{content}{}", envelope_text(envelope), end_line(content.len() as u64))
}

fn leave(home: &Home, to: &[&str], content: &str) {
    let dropbox = DropBox::open(&home.path().join("spool")).unwrap();
    dropbox.leave(&envelope(to), content.as_bytes()).unwrap();
}

/// Puts a whole file into the folder at once, as who knows how would.
fn plant(home: &Home, name: &str, text: &str) {
    let elsewhere = home.path().join("planted");
    fs::write(&elsewhere, text).unwrap();
    fs::rename(elsewhere, drop_folder(home).join(name)).unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

fn mail(home: &Home, user: &str) -> Vec<String> {
    let new = home.path().join("mail").join(user).join("new");
    names(&new).iter().map(|name| fs::read_to_string(new.join(name)).unwrap()).collect()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// `sendmail` with a message on its standard input.
fn sendmail(home: &Home, arguments: &[&str], input: &str) -> Output {
    sendmail_by(Command::new(env!("CARGO_BIN_EXE_mailwren")), home, arguments, input)
}

/// The same from a shell that has done `first`, such as another umask.
fn sendmail_after(first: &str, home: &Home, arguments: &[&str], input: &str) -> Output {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(format!("{first}; exec \"$0\" \"$@\""));
    shell.arg(env!("CARGO_BIN_EXE_mailwren"));
    sendmail_by(shell, home, arguments, input)
}

fn sendmail_by(mut program: Command, home: &Home, arguments: &[&str], input: &str) -> Output {
    let mut child = program
        .arg("--config")
        .arg(home.config())
        .arg("sendmail")
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn what_was_left_before_the_start_and_what_comes_later_is_delivered() {
    let home = home(&[]);
    start(&home).stop();
    let done = sendmail(&home, &["-N", "never", "ann@mx.test"], "Subject: first\n\nx\n");
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert!(done.stderr.is_empty(), "{done:?}");
    assert_eq!(names(&drop_folder(&home)).len(), 1);
    let server = start(&home);
    wait_for("the first", || mail(&home, "ann").len() == 1);
    let uid = rustix::process::getuid().as_raw();
    let first = &mail(&home, "ann")[0];
    assert!(first.contains(&format!("from localhost (uid {uid})")), "{first}");
    assert!(first.contains("with local id ") && !first.contains("4711"), "{first}");
    leave(&home, &["ann@mx.test", "bob@localhost"], CONTENT);
    wait_for("the second", || mail(&home, "ann").len() == 2 && mail(&home, "bob").len() == 1);
    wait_for("the removal", || names(&drop_folder(&home)).is_empty());
    let log = server.stop();
    assert!(log.contains(&format!("uid {uid}")) && !log.contains("4711"), "{log}");
}

#[test]
fn hostile_files_are_set_aside_and_others_go_on() {
    let home = home(&[]);
    let server = start(&home);
    let folder = drop_folder(&home);
    let secret = home.path().join("secret");
    fs::write(&secret, text_of(&envelope(&["ann@mx.test"]), CONTENT)).unwrap();
    let id = || QueueId::generate(0, 0).to_string();
    let whole = text_of(&envelope(&["ann@mx.test"]), CONTENT);
    let many = vec!["ann@mx.test"; 2000].join(" ");
    let many: Vec<_> = many.split(' ').collect();

    symlink(&secret, folder.join(id())).unwrap();
    fs::hard_link(&secret, folder.join(id())).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.join(id()), 0o600.into()).unwrap();
    fs::create_dir(folder.join(id())).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.join(id())).unwrap();
    plant(&home, &id(), "");
    plant(&home, &id(), "mailwren 1\n");
    plant(&home, &id(), &whole[..whole.len() - 1]);
    plant(&home, &id(), &whole.replace("to <ann@mx.test>", "to <ann@mx.test>\nto <x>\0"));
    plant(&home, &id(), &text_of(&envelope(&many), CONTENT));
    plant(&home, &id(), &text_of(&envelope(&["ann@mx.test"]), &"x\r\n".repeat(30_000)));
    plant(&home, "not-a-message", &whole);
    plant(&home, &id(), &format!("{}{}", "x".repeat(1 << 20), end_line(0)));
    let sparse = home.path().join("sparse");
    File::create(&sparse).unwrap().set_len(1 << 40).unwrap();
    fs::rename(&sparse, folder.join(id())).unwrap();
    // A file that is still being written.
    fs::write(folder.join(format!(".{}", id())), "half").unwrap();

    leave(&home, &["bob@mx.test"], CONTENT);
    wait_for("bob", || mail(&home, "bob").len() == 1);
    wait_for("all to be set aside", || names(&folder).len() == 2);
    assert!(mail(&home, "ann").is_empty(), "{:?}", mail(&home, "ann"));
    let mut greeting = [0; 4];
    assert_ne!(server.address.port(), 0);
    server.connect().read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ");
    let log = server.stop();
    for text in [
        "is no ordinary file; removed",
        "has 2 names; kept as corrupt/",
        "is a folder, where only messages belong",
        "is no message: the file was never finished",
        "is no message: the envelope is malformed",
        "has more than 1000 recipients",
        "has more than 65536 octets",
        "\"not-a-message\" of uid ",
        "octets: too many",
    ] {
        assert!(log.contains(text), "{text}: {log}");
    }
    let kept = names(&home.path().join("spool/corrupt"));
    assert_eq!(kept.len(), 9, "{kept:?}");
    assert!(kept.iter().all(|name| name.ends_with(".drop")), "{kept:?}");
    assert!(secret.exists());
}

#[test]
fn whom_nobody_knows_the_sender_hears_of_later() {
    let home = home(&[]);
    let server = start(&home);
    let done = sendmail(&home, &["-f", "bob@mx.test", "nobody-here@mx.test"], "Subject: x\n\n");
    assert_eq!(done.status.code(), Some(67), "{done:?}");
    server.stop();
    let done = sendmail(&home, &["-f", "bob@mx.test", "nobody-here@mx.test"], "Subject: x\n\n");
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let server = start(&home);
    wait_for("the report", || mail(&home, "bob").len() == 1);
    assert!(mail(&home, "bob")[0].contains("nobody-here@mx.test"));
    server.stop();
}

#[test]
fn what_the_server_would_refuse_is_not_left_for_it() {
    let home = home(&[]);
    start(&home).stop();
    // Lines that are short grow by half on their way: more than the server takes.
    let long = format!("Subject: x\n\n{}", "x\n".repeat(30_000));
    assert!(long.len() < 64 << 10);
    let check = || {
        let done = sendmail(&home, &["ann@mx.test"], &long);
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(
            (done.status.code(), told.contains("larger than 65536 octets")),
            (Some(69), true)
        );
    };
    check();
    assert!(names(&drop_folder(&home)).is_empty());
    let server = start(&home);
    check();
    server.stop();
}

#[test]
fn a_file_that_changes_while_it_is_read_harms_nobody() {
    let home = home(&[]);
    let server = start(&home);
    let folder = drop_folder(&home);
    let whole = text_of(&envelope(&["ann@mx.test"]), &"0123456789abcde\r\n".repeat(3000));
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut rounds = 0;
    while Instant::now() < deadline {
        let path = folder.join(QueueId::generate(0, 0).to_string());
        plant(&home, path.file_name().unwrap().to_str().unwrap(), &whole);
        // Cut, grown, or swapped for a link, whatever of it comes first.
        match rounds % 3 {
            0 => drop(File::options().write(true).open(&path).map(|file| file.set_len(100))),
            1 => drop(File::options().append(true).open(&path).map(|mut f| f.write_all(b"more"))),
            _ => {
                let link = home.path().join("link");
                symlink("/etc/passwd", &link).unwrap();
                fs::rename(link, &path).unwrap();
            }
        }
        rounds += 1;
    }
    leave(&home, &["bob@mx.test"], CONTENT);
    wait_for("bob", || mail(&home, "bob").len() == 1);
    wait_for("an empty folder", || names(&folder).is_empty());
    // The oldest goes when the last has come.
    let corrupt = home.path().join("spool/corrupt");
    wait_for("no more than are kept", || names(&corrupt).len() <= 100);
    server.stop();
    // What was delivered is what was in its file: whole lines, and nothing of /etc/passwd.
    for text in mail(&home, "ann") {
        assert!(text.ends_with("0123456789abcde\n") && !text.contains("root:"), "{text}");
    }
}

#[test]
fn without_room_what_was_left_waits() {
    let home = home(&[]);
    start(&home).stop();
    leave(&home, &["ann@mx.test"], CONTENT);
    let config = fs::read_to_string(home.config()).unwrap();
    let short = config.replace("min_free_space = 0", "min_free_space = 1024G");
    assert_ne!(short, config);
    fs::write(home.config(), short).unwrap();
    let server = start(&home);
    wait_for("the log", || server.log.text.lock().unwrap().contains(": waits: 452 "));
    // And nobody else eats the rest of the room.
    let done = sendmail(&home, &["ann@mx.test"], "Subject: x\n\n");
    assert_eq!(done.status.code(), Some(75), "{done:?}");
    let told = String::from_utf8(done.stderr).unwrap();
    assert!(
        told.contains("452 4.3.1") && told.contains("needed; not accepted, try again"),
        "{told}"
    );
    server.stop();
    assert_eq!(names(&drop_folder(&home)).len(), 1);
    fs::write(home.config(), config).unwrap();
    let server = start(&home);
    wait_for("ann", || mail(&home, "ann").len() == 1);
    server.stop();
}

#[test]
fn the_folder_is_open_to_put_and_closed_to_look() {
    let home = home(&[]);
    let server = start(&home);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&drop_folder(&home)), 0o1733);
    assert_eq!(mode(&home.path().join("spool")) & 0o011, 0o011);
    assert_eq!(mode(&home.path().join("s")), 0o666);
    server.stop();
}

#[test]
fn what_is_left_can_be_read_whatever_the_umask_says() {
    let home = home(&[]);
    start(&home).stop();
    assert!(sendmail_after("umask 0777", &home, &["ann"], "Subject: masked\n\n").status.success());
    let left = drop_folder(&home).join(&names(&drop_folder(&home))[0]);
    assert_eq!(fs::metadata(left).unwrap().permissions().mode() & 0o7777, 0o600);
    let server = start(&home);
    wait_for("the message", || mail(&home, "ann").len() == 1);
    server.stop();
}

#[test]
fn what_the_callers_limits_do_not_allow_is_told_to_be_tried_later() {
    let home = home(&[]);
    start(&home).stop();
    let large = format!("Subject: large\n\n{}", "0123456789\n".repeat(4000));
    let said = sendmail_after("ulimit -f 1", &home, &["ann"], &large);
    let told = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(75), "{told}");
    assert!(told.contains("try again later"), "{told}");
    assert_eq!(names(&drop_folder(&home)), [""; 0]);
}
