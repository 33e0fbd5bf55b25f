//! The server as its clients see it: limits, time-outs, clients that vanish, and what a start
//! and a stop leave behind.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

#[path = "support/home.rs"]
mod home;
#[path = "support/server.rs"]
mod server;

use mailwren::sys::users;

use home::Home;
use server::{PATIENCE, TestServer, command};

const GREETING: &str = "220 mx.test ESMTP mailwren\r\n";
const STOPPING: &str = "421 4.3.2 The server is stopping; try again later\r\n";
const TIMEOUT: &str = "421 4.4.2 Timeout; closing the connection\r\n";

/// A client that says a line and reads the last line of the reply.
struct Client {
    replies: BufReader<TcpStream>,
}

impl Client {
    fn new(server: &TestServer) -> Self {
        Self { replies: BufReader::new(server.connect()) }
    }

    /// A client that has been greeted and has said HELO.
    fn introduced(server: &TestServer) -> Self {
        let mut client = Self::new(server);
        assert_eq!(client.reply(), "220 mx.test ESMTP mailwren");
        client.expect("HELO client.test", "250 ");
        client
    }

    fn send(&mut self, octets: &[u8]) {
        self.replies.get_mut().write_all(octets).unwrap();
    }

    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.replies.read_line(&mut line).unwrap();
            let line = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("{line:?}")).to_owned();
            if line.as_bytes()[3] == b' ' {
                return line;
            }
        }
    }

    fn expect(&mut self, line: &str, reply: &str) {
        self.send(format!("{line}\r\n").as_bytes());
        let answer = self.reply();
        assert!(answer.starts_with(reply), "{line}: {answer}");
    }

    /// Sends a message for ann; returns the answer to its end.
    fn message(&mut self, content: &str) -> String {
        self.expect("MAIL FROM:<zoe@far.test>", "250 2.1.0 ");
        self.expect("RCPT TO:<ann@mx.test>", "250 2.1.5 ");
        self.expect("DATA", "354 ");
        self.send(content.as_bytes());
        self.send(b".\r\n");
        self.reply()
    }

    /// What else the server says until it closes.
    fn rest(mut self) -> String {
        let mut rest = String::new();
        self.replies.read_to_string(&mut rest).unwrap();
        rest
    }
}

fn home(changes: &[(&str, &str)]) -> Home {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Home::new(&changes.iter().map(owned).collect::<Vec<_>>())
}

fn server(changes: &[(&str, &str)]) -> (Home, TestServer) {
    let home = home(changes);
    let server = TestServer::start(&home);
    (home, server)
}

/// The names in a folder, in order; none where there is no such folder.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The messages that ann got, in no order.
fn mailbox(home: &Home) -> Vec<String> {
    let new = home.path().join("mail/ann/new");
    names(&new).iter().map(|name| fs::read_to_string(new.join(name)).unwrap()).collect()
}

/// Waits until the log has told of so many deliveries.
fn wait_for_deliveries(server: &TestServer, count: usize) {
    wait_for_log(server, ": delivered ", count);
}

/// Waits until the log says `text` so many times.
fn wait_for_log(server: &TestServer, text: &str, count: usize) {
    let log = server.log.text.lock().unwrap();
    let is_short = |log: &mut String| log.matches(text).count() < count;
    let (log, result) = server.log.grown.wait_timeout_while(log, PATIENCE, is_short).unwrap();
    assert!(!result.timed_out(), "{text} is not there {count} times: {log}");
}

#[test]
fn a_silent_client_is_sent_away() {
    let (_home, server) = server(&[("server.session_timeout", "1s")]);
    let rest = Client::new(&server).rest();
    assert_eq!(rest, format!("{GREETING}{TIMEOUT}"));
    // The same in the middle of a message, of which nothing stays. The client is silent from
    // the first moment that the server could wait for it.
    let mut client = Client::new(&server);
    client.send(b"HELO c.test\r\nMAIL FROM:<>\r\nRCPT TO:<ann@mx.test>\r\nDATA\r\nhalf of a mess");
    let rest = client.rest();
    assert!(rest.contains("\r\n354 ") && rest.ends_with(TIMEOUT), "{rest}");
    let log = server.stop();
    assert!(!log.contains("received"), "{log}");
}

#[test]
fn dripping_octets_does_not_stretch_the_time() {
    let (_home, server) = server(&[("server.session_timeout", "1s")]);
    let mut client = Client::new(&server);
    assert!(client.reply().starts_with("220 "));
    let mut writer = client.replies.get_ref().try_clone().unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    let began = Instant::now();
    let dripping = thread::spawn(move || {
        while stopped.recv_timeout(Duration::from_millis(200)).is_err() {
            if writer.write_all(b"N").is_err() {
                break;
            }
        }
    });
    assert_eq!(client.reply(), "421 4.4.2 Timeout; closing the connection");
    assert!(began.elapsed() < PATIENCE / 2);
    stop.send(()).unwrap();
    dripping.join().unwrap();
    server.stop();
}

#[test]
fn one_session_too_many_gets_421_and_a_slot_comes_back() {
    let (_home, server) = server(&[("server.max_sessions", "2")]);
    let (first, _second) = (Client::introduced(&server), Client::introduced(&server));
    let third = Client::new(&server).rest();
    assert_eq!(third, "421 4.3.2 Too many sessions; try again later\r\n");
    give_back(first);
    await_slot(&server);
    server.stop();
}

#[test]
fn one_client_cannot_take_every_slot() {
    let (_home, server) = server(&[("server.max_sessions_per_client", "2")]);
    let (first, _second) = (Client::introduced(&server), Client::introduced(&server));
    let third = Client::new(&server).rest();
    assert_eq!(third, "421 4.7.0 Too many sessions from your address; try again later\r\n");
    give_back(first);
    await_slot(&server);
    server.stop();
}

fn give_back(mut client: Client) {
    client.expect("QUIT", "221 ");
    assert_eq!(client.rest(), "");
}

/// The slot comes back when the session's thread ends, just behind its last reply.
fn await_slot(server: &TestServer) {
    let deadline = Instant::now() + PATIENCE;
    while !Client::new(server).reply().starts_with("220 ") {
        assert!(Instant::now() < deadline, "the slot never came back");
    }
}

#[test]
fn a_listener_for_other_networks_says_554() {
    let (_home, server) = server(&[("listen.smtp.networks", "192.0.2.0/24")]);
    let rest = Client::new(&server).rest();
    assert_eq!(rest, "554 5.7.1 This service is not for your network\r\n");
    let log = server.stop();
    assert!(log.contains("turned away: client=127.0.0.1 reason=networks listener=smtp"), "{log}");
}

#[test]
fn too_little_space_is_452() {
    // With the declared size 2 TiB are needed, which no disk of a small host has.
    let (_home, server) =
        server(&[("server.min_free_space", "1024G"), ("server.max_message_size", "1024G")]);
    let mut client = Client::introduced(&server);
    client.expect("MAIL FROM:<> SIZE=1099511627776", "452 4.3.1 ");
    client.expect("RCPT TO:<ann@mx.test>", "503 ");
    let log = server.stop();
    assert!(log.contains("[server] min_free_space"), "{log}");
}

#[test]
fn a_message_too_large_is_refused_and_the_session_goes_on() {
    let (home, server) = server(&[]);
    let mut client = Client::introduced(&server);
    client.expect("MAIL FROM:<> SIZE=65537", "552 5.3.4 ");
    let line = format!("{}\r\n", "x".repeat(998));
    assert!(client.message(&line.repeat(100)).starts_with("552 5.3.4 "));
    assert_eq!(names(&home.path().join("spool/queue")), Vec::<String>::new());
    assert!(client.message("Subject: small\r\n").starts_with("250 2.0.0 "));
    wait_for_deliveries(&server, 1);
    assert_eq!(mailbox(&home).len(), 1);
    server.stop();
}

#[test]
fn a_message_without_end_is_cut_off() {
    let (home, server) = server(&[]);
    let mut client = Client::introduced(&server);
    client.expect("MAIL FROM:<>", "250 ");
    client.expect("RCPT TO:<ann@mx.test>", "250 ");
    client.expect("DATA", "354 ");
    let line = format!("{}\r\n", "x".repeat(998));
    client.send(line.repeat(300).as_bytes());
    assert_eq!(client.rest(), "552 5.3.4 The message is far too large; closing\r\n");
    assert_eq!(names(&home.path().join("spool/queue")), Vec::<String>::new());
    server.stop();
}

#[test]
fn a_message_that_loops_is_refused() {
    let (home, server) = server(&[]);
    let mut client = Client::introduced(&server);
    let field = "Received: from a by b; Thu, 21 May 1998 05:33:29 -0700\r\n";
    assert!(client.message(&field.repeat(100)).starts_with("554 5.4.6 "));
    assert!(client.message("Subject: no loop\r\n").starts_with("250 "));
    wait_for_deliveries(&server, 1);
    assert_eq!(mailbox(&home).len(), 1);
    server.stop();
}

#[test]
fn what_is_accepted_arrives_as_it_was_sent() {
    let (home, server) = server(&[]);
    let mut client = Client::introduced(&server);
    let reply = client.message("Subject: dots\r\n\r\n..\r\n...a\r\nb\0c\r\n");
    let id = reply.strip_prefix("250 2.0.0 Ok: queued as ").unwrap().to_owned();
    client.expect("QUIT", "221 ");
    wait_for_deliveries(&server, 1);
    let mail = mailbox(&home).remove(0);
    assert!(mail.contains("from client.test ([127.0.0.1])"), "{mail}");
    assert!(mail.contains(&format!("by mx.test with SMTP id {id}")), "{mail}");
    assert!(mail.replace("\r\n", "\n").ends_with("Subject: dots\n\n.\n..a\nb\0c\n"), "{mail:?}");
    let log = server.stop();
    assert_eq!(log.matches(&id).count(), 2, "received and delivered: {log}");
}

#[test]
fn a_connection_cut_anywhere_leaves_only_what_was_acknowledged() {
    let (home, server) = server(&[("server.max_sessions_per_client", "200")]);
    let session = b"HELO c.test\r\nMAIL FROM:<zoe@far.test>\r\nRCPT TO:<ann@mx.test>\r\nDATA\r\n\
        Subject: cut\r\n\r\n..\r\n.\r\nQUIT\r\n";
    let whole = session.len() - "QUIT\r\n".len();
    for cut in 0..=session.len() {
        let mut stream = server.connect();
        stream.write_all(&session[..cut]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut replies = String::new();
        stream.read_to_string(&mut replies).unwrap();
        assert_eq!(replies.contains("queued as"), cut >= whole, "cut at {cut}: {replies}");
    }
    // Clients that are just gone, with a reset where replies were not read.
    for cut in 0..whole {
        server.connect().write_all(&session[..cut]).unwrap();
    }
    // And one that stays, so that those before it have been accepted.
    Client::introduced(&server).expect("QUIT", "221 ");
    wait_for_deliveries(&server, session.len() - whole + 1);
    assert_eq!(mailbox(&home).len(), session.len() - whole + 1);
    let log = server.stop();
    assert_eq!(log.matches(": received ").count(), session.len() - whole + 1, "{log}");
}

#[test]
fn a_client_that_vanishes_in_its_message_leaves_nothing() {
    let (home, server) = server(&[("server.max_message_size", "10M")]);
    let mut client = Client::introduced(&server);
    client.expect("MAIL FROM:<>", "250 ");
    client.expect("RCPT TO:<ann@mx.test>", "250 ");
    client.expect("DATA", "354 ");
    let line = format!("{}\r\n", "x".repeat(998));
    // More than any buffer: part of it is in the spool's file already.
    client.send(line.repeat(1000).as_bytes());
    client.replies.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), "");
    assert_eq!(names(&home.path().join("spool/queue")), Vec::<String>::new());
    assert_eq!(mailbox(&home), Vec::<String>::new());
    wait_for_log(&server, "closed in the middle of a message", 1);
    server.stop();
}

#[test]
fn a_stop_ends_idle_sessions_and_takes_no_new_ones() {
    let (home, server) = server(&[]);
    let (idle, address) = (Client::introduced(&server), server.address);
    let mut client = Client::introduced(&server);
    assert!(client.message("Subject: last\r\n").starts_with("250 "));
    let log = server.stop();
    assert!(log.contains("stopping; 2 sessions open"), "{log}");
    assert_eq!([idle.rest(), client.rest()], [STOPPING; 2]);
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let kept = names(&home.path().join("spool/queue")).len() + mailbox(&home).len();
    assert!(kept >= 1, "in the queue or in the mailbox");
}

#[test]
fn a_stop_says_nothing_in_the_middle_of_a_message_and_waits_for_nobody_who_does_not_read() {
    let (home, server) = server(&[]);
    let mut writing = Client::introduced(&server);
    writing.expect("MAIL FROM:<>", "250 ");
    writing.expect("RCPT TO:<ann@mx.test>", "250 ");
    writing.expect("DATA", "354 ");
    writing.send(b"half of a mess");
    let deaf = server.connect();
    deaf.set_nonblocking(true).unwrap();
    let commands = "NOOP\r\n".repeat(10_000);
    // Up to where the server waits for its replies to be read.
    while let Ok(1..) = (&deaf).write(commands.as_bytes()) {}
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let mut rest = String::new();
    // Reset, where some of it was not read.
    let _ = writing.replies.read_to_string(&mut rest);
    assert_eq!(rest, "");
    assert_eq!(names(&home.path().join("spool/queue")), Vec::<String>::new());
}

#[test]
fn a_start_sweeps_what_was_never_finished_and_nothing_else() {
    let home = home(&[]);
    let queue = home.path().join("spool/queue");
    // A first run makes the folders, with the rights that they need.
    TestServer::start(&home).stop();
    let torn = "mailwren 1\nid 1jt5w0k3q8z4a\nreceived 1795000000\nclient 127.0.0.1\n\
        from <zoe@far.test>\nbody 7bit\nto <ann@mx.test>\n\nSubject: torn\r\n";
    fs::write(queue.join("1jt5w0k3q8z4a"), torn).unwrap();
    fs::write(queue.join("1jt5w0k3q8z4b"), "").unwrap();
    fs::write(queue.join("1jt5w0k3q8z4c.draft"), "mailwren 1\n").unwrap();
    fs::write(queue.join("README"), "not a message").unwrap();
    let server = TestServer::start(&home);
    let mut client = Client::introduced(&server);
    assert!(client.message("Subject: whole\r\n").starts_with("250 "));
    wait_for_deliveries(&server, 1);
    assert_eq!(mailbox(&home).len(), 1);
    let log = server.stop();
    assert_eq!(names(&queue), ["README"]);
    assert_eq!(log.matches("was never finished; removed").count(), 3, "{log}");
    assert!(log.contains("README") && log.contains("left alone"), "{log}");
}

#[test]
fn a_spool_has_one_server() {
    let (home, server) = server(&[]);
    // The port is bound before the spool is opened; whoever is greeted knows that both are.
    let mut client = Client::introduced(&server);
    let mut second = command(&home).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = String::new();
    let mut lines = BufReader::new(second.stderr.take().unwrap());
    while !log.contains("messages in the queue") && lines.read_line(&mut log).unwrap() > 0 {}
    // Where it did start, it must not outlive the test.
    let is_refused = log.contains("another mailwren has this spool");
    if !is_refused {
        second.kill().unwrap();
    }
    assert_eq!(second.wait().unwrap().code(), Some(71), "{log}");
    assert!(is_refused, "{log}");
    // The first one goes on as if nothing had been.
    assert!(client.message("Subject: on\r\n").starts_with("250 "));
    server.stop();
}

/// Mail for `slow@mx.test` goes to a command that says when it has begun, and begins to read an
/// hour later.
#[test]
fn a_stop_leaves_no_command_with_half_a_message() {
    // Commands never run as root.
    let uid = rustix::process::geteuid();
    let account = match uid.is_root() {
        true => users::by_name("nobody"),
        false => users::by_uid(uid.as_raw()),
    };
    let name = account.unwrap().unwrap().name;
    let (home, server) = server(&[("local.command_user", &name)]);
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let fifo = home.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o666.into()).unwrap();
    fs::set_permissions(&fifo, fs::Permissions::from_mode(0o666)).unwrap();
    let path = fifo.display();
    let text = format!("slow: \"|exec 3>{path}; echo begun >&3; sleep 3600; cat >/dev/null\"\n");
    fs::write(home.path().join("aliases"), text).unwrap();
    let mut client = Client::introduced(&server);
    client.expect("MAIL FROM:<>", "250 ");
    client.expect("RCPT TO:<slow@mx.test>", "250 ");
    client.expect("DATA", "354 ");
    client.send(format!("Subject: x\r\n\r\n{}.\r\n", "line\r\n".repeat(10_000)).as_bytes());
    assert!(client.reply().starts_with("250 "));
    let mut told = BufReader::new(fs::File::open(&fifo).unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n");
    let log = server.stop();
    assert!(log.contains("stopped in the middle of deliveries"), "{log}");
    // The other end closes with the last of what was begun.
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(told.read_line(&mut String::new()).unwrap()));
    assert_eq!(end.recv_timeout(PATIENCE), Ok(0), "something of it runs on");
    assert_eq!(fs::read_dir(home.path().join("spool/queue")).unwrap().count(), 1);
}

#[test]
fn an_account_of_this_host_relays_over_the_unix_socket() {
    let (home, server) = server(&[("server.socket", "HOME/submit.sock")]);
    let mut stream = UnixStream::connect(home.path().join("submit.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(
            b"EHLO c.test\r\nMAIL FROM:<ann@mx.test>\r\nRCPT TO:<zoe@far.test>\r\nRSET\r\n\
            MAIL FROM:<>\r\nRCPT TO:<ann@mx.test>\r\nDATA\r\nSubject: local\r\n.\r\nQUIT\r\n",
        )
        .unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    let behind_hello = replies.split_once("250 HELP\r\n").unwrap().1;
    let codes: Vec<_> = behind_hello.lines().map(|line| &line[..3]).collect();
    assert_eq!(codes, ["250", "250", "250", "250", "250", "354", "250", "221"], "{replies}");
    wait_for_deliveries(&server, 1);
    let mail = mailbox(&home).remove(0);
    let uid = rustix::process::getuid().as_raw();
    assert!(mail.contains(&format!("from c.test (uid {uid})")), "{mail}");
    server.stop();
}
