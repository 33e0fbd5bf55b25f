//! Submission (RFC 6409) as the built program does it: what becomes of a message whose sender has
//! logged in, what is refused at its end, and two listeners that do not weaken each other.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};

#[path = "support/home.rs"]
mod home;
#[path = "support/server.rs"]
mod server;

use home::{Change, Home};
use server::{PATIENCE, TestServer};

const AS_ANN: &str = "AUTH PLAIN AGFubgBwYXNzIHdvcmQ=";

fn changes(changes: &[(&str, &str)]) -> Vec<Change> {
    changes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A host whose only listener takes submissions, in the clear.
fn submission_host(more: &[(&str, &str)]) -> Home {
    let mut all = changes(&[
        ("listen.smtp.protocol", "submission"),
        ("listen.smtp.auth_without_tls", "yes"),
        ("server.domains", "mx.test, localhost"),
    ]);
    all.extend(changes(more));
    Home::new(&all)
}

trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

struct Client(BufReader<Box<dyn Stream>>);

impl Client {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::greeted(Box::new(stream))
    }

    /// A client that speaks TLS from the beginning, and trusts anybody.
    fn with_tls(address: SocketAddr) -> Self {
        let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
        connector.set_verify(SslVerifyMode::NONE);
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::greeted(Box::new(connector.build().connect("mx.test", stream).unwrap()))
    }

    fn greeted(stream: Box<dyn Stream>) -> Self {
        let mut client = Self(BufReader::new(stream));
        assert!(client.reply().starts_with("220 "));
        client
    }

    /// A client that has said EHLO and logged in.
    fn logged_in(server: &TestServer) -> Self {
        let mut client = Self::new(server.connect());
        client.expect("EHLO client.test", "250 ");
        client.expect(AS_ANN, "235 ");
        client
    }

    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let line = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("{line:?}")).to_owned();
            if line.as_bytes()[3] == b' ' {
                return line;
            }
        }
    }

    fn say(&mut self, octets: &str) -> String {
        self.0.get_mut().write_all(octets.as_bytes()).unwrap();
        self.reply()
    }

    fn expect(&mut self, line: &str, reply: &str) {
        let answer = self.say(&format!("{line}\r\n"));
        assert!(answer.starts_with(reply), "{line}: {answer}");
    }

    /// Sends a message from ann to bob; returns the answer to its end.
    fn send(&mut self, content: &str) -> String {
        self.expect("MAIL FROM:<ann>", "250 ");
        self.expect("RCPT TO:<bob>", "250 ");
        self.expect("DATA", "354 ");
        self.say(&format!("{content}.\r\n"))
    }

    /// Sends a message that is taken; returns its id.
    fn say_and_take(&mut self, content: &str) -> String {
        let reply = self.send(content);
        reply.strip_prefix("250 2.0.0 Ok: queued as ").unwrap_or_else(|| panic!("{reply}")).into()
    }
}

/// The messages in a user's Maildir, in no order.
fn messages(home: &Home, user: &str) -> Vec<String> {
    let folder = home.path().join("mail").join(user).join("new");
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| read(&entry.unwrap().path())).collect(),
        Err(_) => Vec::new(),
    }
}

#[test]
fn what_a_message_lacks_is_added_and_nothing_else_is_changed() {
    let home = submission_host(&[]);
    let server = TestServer::start(&home);
    let mut client = Client::logged_in(&server);
    let text = "From: Ann <ann>\r\nTo: bob (Bob), zoe\r\nSubject:  caf\u{e9}\r\n\r\n..To: bob\r\n";
    let queued = client.say_and_take(text);
    let log = server.stop();
    let found = messages(&home, "bob");
    assert_eq!(found.len(), 1);
    let (trace, rest) = found[0].split_once("Date: ").unwrap();
    let (date, rest) = rest.split_once('\n').unwrap();
    assert!(date.ends_with("+0000"), "{date}");
    let expected = format!(
        "Message-ID: <{queued}@mx.test>\nFrom: Ann <ann@mx.test>\nTo: bob@mx.test (Bob), zoe\n\
         Subject:  caf\u{e9}\n\n.To: bob\n"
    );
    assert_eq!(rest, expected);
    assert!(trace.contains("Return-Path: <ann@mx.test>\n"), "{trace}");
    // Who logged in stands in the log alone.
    let from =
        format!("Received: from client.test ([127.0.0.1])\n\tby mx.test with ESMTPA id {queued}");
    assert!(trace.contains(&from), "{trace}");
    let line = log.lines().find(|line| line.contains("received from=")).unwrap();
    assert!(line.contains("client=\"127.0.0.1\" user=\"ann\" took="), "{line}");
}

#[test]
fn a_signed_or_complete_message_keeps_every_octet() {
    let home = submission_host(&[("server.max_message_size", "4M")]);
    let server = TestServer::start(&home);
    let mut client = Client::logged_in(&server);
    let signed = "DKIM-Signature: v=1\r\nFrom: ann\r\nTo: bob\r\n\r\nshort\r\n".to_owned();
    // The longer one does not stay in memory.
    let body = "0123456789abcdef\r\n".repeat(50_000);
    let whole = format!("FROM : ann@mx.test\r\ndate:\r\n\tx\r\nMessage-Id: <y@z>\r\n\r\n{body}");
    for message in [&signed, &whole] {
        client.say_and_take(message);
    }
    server.stop();
    let found = messages(&home, "bob");
    assert_eq!(found.len(), 2);
    for message in [signed, whole] {
        let message = message.replace('\r', "");
        assert!(found.iter().any(|found| found.ends_with(&message)), "{:.300}", found.concat());
        assert!(found.iter().all(|found| !found.contains("Date: ")));
    }
}

#[test]
fn a_message_of_somebody_else_is_refused_at_its_end() {
    let home = submission_host(&[]);
    let server = TestServer::start(&home);
    let mut client = Client::logged_in(&server);
    for (content, reply) in [
        (
            "From: Boss <boss@far.test>\r\n\r\n",
            "550 5.7.1 <boss@far.test> in From or Sender is no address of ann, who is logged in; \
             write as your own, or have an alias or `[auth] sender = any` set",
        ),
        (
            "From: <boss@far.test> <ann@mx.test>\r\n\r\n",
            "554 5.6.0 Who is meant in From is not certain; write it as \"Name\" <user@domain>",
        ),
        (
            "Subject: x\r\nno field\r\nFrom: boss@far.test\r\n\r\n",
            "554 5.6.0 The header section has a line that is no field; an empty line belongs \
             before the text",
        ),
        (
            "From: ann\r\nTo: bob@sales\r\n\r\n",
            "554 5.6.0 sales in the header section is no full domain name; write it out",
        ),
    ] {
        assert_eq!(client.send(content), reply, "{content}");
    }
    // The session goes on, and what was refused left nothing.
    client.say_and_take("From: ann@mx.test, Staff <staff@localhost>\r\n\r\n");
    let log = server.stop();
    assert!(log.contains("reason=sender listener=smtp reply=\"550 5.7.1 <boss@far.test>"), "{log}");
    let found = messages(&home, "bob");
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("\nFrom: ann@mx.test, Staff <staff@mx.test>\n"), "{}", found[0]);
    assert_eq!(fs::read_dir(home.path().join("spool/queue")).unwrap().count(), 0);
}

#[test]
fn a_device_has_a_listener_of_its_own_and_weakens_no_other() {
    let home = Home::new(&changes(&[
        ("listen.printer.address", "127.0.0.1:0"),
        ("listen.printer.protocol", "submission"),
        ("listen.printer.tls", "none"),
        ("listen.printer.auth_without_tls", "yes"),
        ("listen.printer.bare_newline", "accept"),
        ("listen.printer.networks", "127.0.0.1"),
    ]));
    let server = TestServer::start(&home);
    let (printer, smtp) = (address_of(&server, "printer"), address_of(&server, "smtp"));

    let mut client = Client::new(TcpStream::connect(printer).unwrap());
    for (line, reply) in [
        ("HELO printer_1\n", "250 mx.test"),
        ("AUTH LOGIN\n", "334 VXNlcm5hbWU6"),
        ("cHJpbnRlcg==\n", "334 UGFzc3dvcmQ6"),
        ("cGFzcyB3b3Jk\n", "235 2.7.0 Authentication succeeded"),
        ("MAIL FROM: <printer>\n", "250 2.1.0 Sender ok"),
        ("RCPT TO: <bob>\n", "250 2.1.5 Recipient ok"),
        ("DATA\n", "354 End data with <CRLF>.<CRLF>"),
    ] {
        assert_eq!(client.say(line), reply, "{line}");
    }
    assert!(client.say("Subject: scan\n\nlook\n\r\n.\r\n").starts_with("250 "));

    let mut client = Client::new(TcpStream::connect(smtp).unwrap());
    client.expect("HELO printer_1", "250 ");
    client.expect("AUTH LOGIN", "502 ");
    client.expect("MAIL FROM:<printer>", "553 ");
    client.expect("MAIL FROM:<printer@mx.test>", "250 ");
    client.expect("RCPT TO:<zoe@far.test>", "550 5.7.1 Relaying denied");
    client.expect("RCPT TO:<bob@mx.test>", "250 ");
    client.expect("DATA", "354 ");
    let refused = "550 5.6.0 Bare LF in the message: lines end with CRLF (RFC 5321 2.3.8)";
    assert_eq!(client.say("Subject: scan\n\r\n.\r\n"), refused);
    let reply = client.say("NOOP\n");
    assert_eq!(reply, "500 5.5.2 Bare LF: a line ends with CRLF (RFC 5321 2.3.8)");

    server.stop();
    let found = messages(&home, "bob");
    assert_eq!(found.len(), 1);
    let message = &found[0];
    // RFC 3848: HELO is always SMTP.
    assert!(message.contains("\tby mx.test with SMTP id "), "{message}");
    assert!(message.contains("From: <printer@mx.test>\nDate: "), "{message}");
    assert!(message.ends_with("@mx.test>\nSubject: scan\n\nlook\n\n"), "{message}");
}

#[test]
fn who_has_logged_in_may_relay_and_the_queue_says_who() {
    let home = submission_host(&[]);
    let server = TestServer::start(&home);
    let mut client = Client::logged_in(&server);
    client.expect("MAIL FROM:<ann@localhost> AUTH=boss@far.test", "250 ");
    client.expect("RCPT TO:<zoe@far.test>", "250 ");
    client.expect("DATA", "354 ");
    assert!(client.say("From: ann\r\n\r\n.\r\n").starts_with("250 "));
    server.stop();
    let mut queue = fs::read_dir(home.path().join("spool/queue")).unwrap();
    let message = fs::read_to_string(queue.next().unwrap().unwrap().path()).unwrap();
    assert!(message.contains("\nclient 127.0.0.1 as ann\nfrom <ann@mx.test>\n"), "{message}");
    assert!(!message.contains("boss"), "{message}");
    assert!(queue.next().is_none());
}

/// RFC 3848, and the clause of RFC 8314 §4.3.
#[test]
fn the_trace_field_says_in_each_combination_how_a_message_came() {
    let home = Home::new(&changes(&[
        ("listen.smtp.auth", "optional"),
        ("listen.smtp.auth_without_tls", "yes"),
        ("listen.tls.address", "127.0.0.1:0"),
        ("listen.tls.tls", "implicit"),
        ("listen.tls.auth", "optional"),
    ]));
    // Without a line for it the server makes a certificate.
    let text = fs::read_to_string(home.config()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("certificate ="));
    fs::write(home.config(), lines.collect::<Vec<_>>().join("\n")).unwrap();
    let server = TestServer::start(&home);
    let tls = address_of(&server, "tls");
    let mut expected = Vec::new();
    for (hello, is_secured, logs_in, keyword) in [
        ("HELO", false, false, "SMTP"),
        ("HELO", false, true, "SMTP"),
        ("HELO", true, false, "SMTP (using TLSv1.3)"),
        ("HELO", true, true, "SMTP (using TLSv1.3)"),
        ("EHLO", false, false, "ESMTP"),
        ("EHLO", false, true, "ESMTPA"),
        ("EHLO", true, false, "ESMTPS (using TLSv1.3)"),
        ("EHLO", true, true, "ESMTPSA (using TLSv1.3)"),
    ] {
        let mut client = match is_secured {
            false => Client::new(server.connect()),
            true => Client::with_tls(tls),
        };
        client.expect(&format!("{hello} client.test"), "250 ");
        if logs_in {
            client.expect(AS_ANN, "235 ");
        }
        client.expect("MAIL FROM:<ann@mx.test>", "250 ");
        client.expect("RCPT TO:<bob@mx.test>", "250 ");
        client.expect("DATA", "354 ");
        let reply = client.say("From: ann@mx.test\r\n\r\n.\r\n");
        let id = reply.strip_prefix("250 2.0.0 Ok: queued as ").unwrap();
        let clause = if is_secured { "\n\ttls TLS_" } else { ";\n\t" };
        expected.push(format!("with {keyword} id {id}\n\tfor <bob@mx.test>{clause}"));
    }
    server.stop();
    let found = messages(&home, "bob");
    for field in expected {
        let with_it = found.iter().filter(|message| message.contains(&field)).count();
        assert_eq!(with_it, 1, "{field}: {found:?}");
    }
}

/// RFC 6409 §4.3 lets in whom the system has authenticated already.
#[test]
fn an_account_of_this_host_needs_no_login_on_a_unix_socket() {
    let home = Home::new(&changes(&[
        ("listen.local.address", "unix:HOME/local.sock"),
        ("listen.local.protocol", "submission"),
    ]));
    let server = TestServer::start(&home);
    address_of(&server, "smtp");
    let stream = UnixStream::connect(home.path().join("local.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut replies = BufReader::new(stream);
    for (line, code) in [
        ("", "220"),
        ("HELO client.test\r\n", "250"),
        ("MAIL FROM:<bob>\r\n", "250"),
        ("RCPT TO:<zoe@far.test>\r\n", "250"),
        ("RCPT TO:<ann>\r\n", "250"),
        ("DATA\r\n", "354"),
        ("From: Boss <boss@far.test>\r\n\r\n.\r\n", "250"),
    ] {
        replies.get_mut().write_all(line.as_bytes()).unwrap();
        let mut reply = String::new();
        replies.read_line(&mut reply).unwrap();
        assert!(reply.starts_with(code), "{line}: {reply}");
    }
    server.stop();
}

/// Where the listener with this name was bound.
fn address_of(server: &TestServer, name: &str) -> SocketAddr {
    let suffix = format!(" [listen.{name}]");
    let mut log = server.log.text.lock().unwrap();
    loop {
        let mut lines = log.lines();
        let found =
            lines.find_map(|line| line.split_once("listening on ")?.1.strip_suffix(&suffix));
        if let Some(address) = found {
            return address.parse().unwrap();
        }
        let (grown, timeout) = server.log.grown.wait_timeout(log, PATIENCE).unwrap();
        assert!(!timeout.timed_out(), "{grown}");
        log = grown;
    }
}
