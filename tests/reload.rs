//! SIGHUP as clients see it: sessions end under the rules that they began with, listeners stay open,
//! and what is wrong changes nothing.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

#[path = "support/home.rs"]
mod home;
#[path = "support/server.rs"]
mod server;

use home::Home;
use server::{PATIENCE, TestServer};

const READ: &str = "the configuration was read again: ";
const REFUSED: &str = "the configuration was not taken";

struct Client(BufReader<TcpStream>);

impl Client {
    fn at(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// A client that has been greeted and has said EHLO; and the lines that it was answered.
    fn greeted(server: &TestServer) -> (Self, String) {
        let mut client = Self::at(server.connect().peer_addr().unwrap());
        assert!(client.reply().starts_with("220 "));
        let offer = client.ask("EHLO client.test");
        (client, offer)
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let begin = reply.len();
            assert_ne!(self.0.read_line(&mut reply).unwrap(), 0, "closed behind {reply:?}");
            if reply.as_bytes()[begin + 3] == b' ' {
                return reply;
            }
        }
    }

    fn ask(&mut self, line: &str) -> String {
        self.send(&format!("{line}\r\n"));
        self.reply()
    }

    fn expect(&mut self, line: &str, code: &str) {
        let reply = self.ask(line);
        assert!(reply.starts_with(code), "{line}: {reply}");
    }
}

/// Replaces a line of the configuration, or adds some behind its end.
fn edit(home: &Home, before: &str, after: &str) {
    let text = fs::read_to_string(home.config()).unwrap();
    assert!(text.contains(before), "{text}");
    let text = if before.is_empty() { text + after } else { text.replace(before, after) };
    fs::write(home.config(), text).unwrap();
}

/// Sends SIGHUP, and gives the log from there to the line that has these words.
fn hang_up(server: &TestServer, words: &str) -> String {
    let text = server.log.text.lock().unwrap();
    let begin = text.len();
    rustix::process::kill_process(server.pid(), rustix::process::Signal::HUP).unwrap();
    let is_missing = |text: &mut String| !text[begin..].contains(words);
    let waited = server.log.grown.wait_timeout_while(text, PATIENCE, is_missing);
    let text = waited.unwrap().0[begin..].to_owned();
    assert!(text.contains(words), "{text}");
    text
}

/// A home whose server takes messages of 128 KiB.
fn large() -> Home {
    Home::new(&[("server.max_message_size".into(), "128K".into())])
}

#[test]
fn a_session_keeps_the_rules_that_it_began_with() {
    let home = large();
    let server = TestServer::start(&home);
    let (mut old, offer) = Client::greeted(&server);
    assert!(offer.contains("SIZE 131072\r\n"), "{offer}");
    old.expect("MAIL FROM:<zoe@far.test>", "250");
    old.expect("RCPT TO:<ann@mx.test>", "250");
    old.expect("DATA", "354");
    old.send("Subject: old\r\n\r\n");
    edit(&home, "max_message_size = 128K", "max_message_size = 64K");
    edit(&home, "domains = mx.test", "domains = mx.test, other.test");
    let log = hang_up(&server, READ);
    assert!(log.contains("read again: [server] changed\n"), "{log}");

    let (mut new, offer) = Client::greeted(&server);
    assert!(offer.contains("SIZE 65536\r\n"), "{offer}");
    new.expect("MAIL FROM:<zoe@far.test>", "250");
    new.expect("RCPT TO:<ann@other.test>", "250");

    // What was read so far is more than the new limit at the end.
    old.send(&"0123456789abcdef\r\n".repeat(6000));
    old.expect(".", "250");
    old.expect("MAIL FROM:<zoe@far.test> SIZE=120000", "250");
    old.expect("RCPT TO:<ann@other.test>", "550");
    server.stop();
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_changes_nothing() {
    let home = large();
    let server = TestServer::start(&home);
    edit(&home, "max_message_size = 128K", "max_message_size = 64K");
    edit(&home, "", "[digest]\nburst = some\n");
    let line = fs::read_to_string(home.config()).unwrap().lines().count();
    let log = hang_up(&server, REFUSED);
    let place = format!("{}:{line}: [digest] burst: ", home.config().display());
    assert!(log.contains(&place), "{log}");
    assert!(Client::greeted(&server).1.contains("SIZE 131072\r\n"));

    edit(&home, "burst = some", "burst = 3");
    edit(&home, "state = ", "state = /nowhere");
    let log = hang_up(&server, REFUSED);
    assert!(log.contains("[server] state is another one, which takes a restart"), "{log}");
    assert!(Client::greeted(&server).1.contains("SIZE 131072\r\n"));

    edit(&home, "state = /nowhere", "state = ");
    let spare = "[listen.spare]\naddress = systemd:spare\ntls = none\n";
    edit(&home, "", spare);
    let log = hang_up(&server, REFUSED);
    assert!(log.contains("systemd hands sockets over when it starts the server"), "{log}");
    edit(&home, spare, "");
    let log = hang_up(&server, READ);
    assert!(log.contains("read again: [server], [digest] changed\n"), "{log}");
    assert!(Client::greeted(&server).1.contains("SIZE 65536\r\n"));
    let log = hang_up(&server, READ);
    assert!(log.contains("read again: nothing has changed\n"), "{log}");
    server.stop();
}

#[test]
fn a_listener_with_a_port_of_the_systems_choice_keeps_it() {
    let home = Home::new(&[]);
    let server = TestServer::start(&home);
    // An address of its own: the port is given to somebody else as soon as it is free.
    edit(&home, "", "[listen.other]\naddress = 127.0.0.77:0\ntls = none\n");
    edit(&home, "[listen.smtp]\n", "[listen.smtp]\nnetworks = 127.0.0.1\n");
    let log = hang_up(&server, READ);
    assert!(log.contains("[listen.smtp] changed; [listen.other] added on 127.0.0.77:0\n"), "{log}");
    let (_, rest) = log.split_once("listening on ").unwrap();
    let other = rest.split(' ').next().unwrap().parse().unwrap();
    assert!(Client::at(other).reply().starts_with("220 "));
    let (mut old, _) = Client::greeted(&server);

    edit(&home, "networks = 127.0.0.1\n", "networks = 192.0.2.1\n");
    edit(&home, "[listen.other]\naddress = 127.0.0.77:0\ntls = none\n", "");
    let log = hang_up(&server, READ);
    assert!(log.contains("[listen.smtp] changed; [listen.other] removed\n"), "{log}");
    assert!(TcpStream::connect(other).is_err());
    assert!(Client::at(server.address).reply().starts_with("554 "));
    old.expect("NOOP", "250");
    server.stop();
}

#[test]
fn a_stop_does_not_wait_for_a_configuration_that_cannot_be_read() {
    let home = Home::new(&[]);
    let server = TestServer::start(&home);
    let mode = rustix::fs::Mode::RUSR;
    fs::remove_file(home.config()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, home.config(), mode).unwrap();
    rustix::process::kill_process(server.pid(), rustix::process::Signal::HUP).unwrap();
    // Once it opens the pipe, it waits for somebody to write.
    let log = server.stop();
    assert!(log.contains("told to stop while the configuration is read"), "{log}");
}

#[test]
fn a_stop_does_not_wait_for_a_configuration_that_cannot_be_taken() {
    let home = Home::new(&[]);
    let server = TestServer::start(&home);
    // Whoever has this lock makes a certificate.
    let folder = home.path().join("state/tls");
    fs::create_dir(&folder).unwrap();
    let held = fs::File::open(&folder).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    edit(&home, "tls = none", "tls = starttls");
    edit(&home, &format!("certificate = {}/cert.pem\n", home.path().display()), "");
    edit(&home, "", "[listen.other]\naddress = 127.0.0.77:0\ntls = none\n");
    hang_up(&server, "[listen.other]");
    let began = Instant::now();
    let log = server.stop();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(log.contains("told to stop while the configuration is read"), "{log}");
}

#[test]
fn the_number_of_sessions_counts_from_then_on() {
    let home = Home::new(&[]);
    let server = TestServer::start(&home);
    let (mut old, _) = Client::greeted(&server);
    edit(&home, "[server]\n", "[server]\nmax_sessions_per_client = 1\n");
    hang_up(&server, READ);
    assert!(Client::at(server.address).reply().starts_with("421 4.7.0 "));
    old.expect("NOOP", "250");
    server.stop();
}
