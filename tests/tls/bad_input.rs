//! Clients that do wrong what can be done wrong: each has its reason in the log, gives its place
//! back, and the next client is served.

use super::*;

/// A server that tells of the end of each session.
fn talkative() -> (Home, TestServer) {
    server(&ordinary(), &[("log.level", "debug")])
}

/// Checks that a good client is served on each listener, and waits until all sessions are over:
/// those two and one bad one in each of so many rounds.
fn check_served(server: &TestServer, rounds: usize) {
    for mut client in both(server, &Manners::trusting()) {
        client.expect("QUIT", "221 ");
        assert_eq!(client.rest(), "");
    }
    let ends = |log: &str| {
        let ends = ["127.0.0.1: session ended", "session broken off: client=127.0.0.1 "];
        ends.iter().map(|end| log.matches(end).count()).sum::<usize>()
    };
    let log = server.log.text.lock().unwrap();
    let is_short = |log: &mut String| ends(log) < 3 * rounds;
    let (log, result) = server.log.grown.wait_timeout_while(log, PATIENCE, is_short).unwrap();
    assert!(!result.timed_out(), "a session goes on: {log}");
    assert_eq!(ends(&log), 3 * rounds, "{log}");
}

#[test]
fn octets_behind_start_tls_are_never_a_command() {
    let (_home, server) = talkative();
    // In the same segment.
    let mut client = Client::plain(address(&server, "smtp"));
    client.expect("EHLO client.test", "250 ");
    client.send(b"STARTTLS\r\nNOOP\r\n");
    assert_eq!(
        client.rest(),
        "554 5.5.1 Nothing may follow STARTTLS before its reply; closing\r\n"
    );
    wait_for_log(&server, "reply=\"554 5.5.1 Nothing may follow STARTTLS", 1);
    check_served(&server, 1);
    // In the next one, before the handshake or in its place.
    for (number, injected) in
        [&b"NOOP\r\n"[..], b"RSET\r\nEHLO x.test\r\nMAIL FROM:<>\r\n"].into_iter().enumerate()
    {
        let mut stream = Client::plain(address(&server, "smtp")).ask_for_tls();
        stream.write_all(injected).unwrap();
        let failed = handshake(stream.try_clone().unwrap(), &Manners::trusting());
        assert!(failed.is_err());
        let mut client = Client { replies: std::io::BufReader::new(stream) };
        let rest = client.rest();
        assert!(!rest.contains("250") && !rest.contains("500"), "{rest}");
        wait_for_log(&server, "error=\"the client speaks no TLS here", number + 1);
        check_served(&server, number + 2);
    }
    server.stop();
}

#[test]
fn plain_octets_where_tls_comes_first() {
    let (_home, server) = talkative();
    for (number, words) in
        [&b"EHLO client.test\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\0\0\0"]
            .into_iter()
            .enumerate()
    {
        let mut client =
            Client { replies: std::io::BufReader::new(connect(address(&server, "tls"))) };
        client.send(words);
        assert!(!client.rest().contains("250"));
        wait_for_log(&server, "error=\"the client speaks no TLS here", number + 1);
        check_served(&server, number + 1);
    }
    server.stop();
}

#[test]
fn tls_where_the_session_begins_in_the_clear() {
    let (_home, server) = talkative();
    let stream = connect(address(&server, "smtp"));
    // The client sees the greeting and gives up; the server must not wait for a line.
    assert!(handshake(stream.try_clone().unwrap(), &Manners::trusting()).is_err());
    wait_for_log(&server, "the client begins TLS at once, where [listen.smtp] begins in", 1);
    check_served(&server, 1);
    drop(stream);
    server.stop();
}

#[test]
fn a_handshake_that_ends_in_its_middle() {
    let (_home, server) = talkative();
    for (number, half) in
        [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"].into_iter().enumerate()
    {
        let mut stream = connect(address(&server, "tls"));
        stream.write_all(half).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        wait_for_log(&server, "error=\"the client closed the connection", number + 1);
        check_served(&server, number + 1);
    }
    server.stop();
}

#[test]
fn half_a_record_and_a_close_within_a_session() {
    let (home, server) = talkative();
    let mut client = Secured::implicit(address(&server, "tls"), &Manners::trusting());
    client.expect("EHLO client.test", "250 ");
    client.expect("MAIL FROM:<zoe@far.test>", "250 ");
    client.expect("RCPT TO:<ann@mx.test>", "250 ");
    client.expect("DATA", "354 ");
    client.send(b"Subject: half\r\n\r\nof a message\r\n");
    let stream = client.replies.get_ref().get_ref();
    (&*stream).write_all(b"\x17\x03\x03\x40\x00half of a record").unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    wait_for_log(&server, "error=\"closed in the middle of a message", 1);
    check_served(&server, 1);
    assert!(mailbox(&home).is_empty());
    server.stop();
}

#[test]
fn floods_of_records() {
    let (_home, server) = talkative();
    let floods: [Vec<u8>; 4] = [
        // Handshakes without an end, alerts that warn, records without content, noise.
        [b"\x16\x03\x01\x40\x00\x01\xff\xff\xff".to_vec(), vec![b'x'; 1 << 20]].concat(),
        b"\x15\x03\x01\x00\x02\x01\x5a".repeat(150_000),
        b"\x16\x03\x01\x00\x00".repeat(210_000),
        [b"\x16\x03\x01\xff\xff".to_vec(), vec![0; 1 << 20]].concat(),
    ];
    for (number, flood) in floods.into_iter().enumerate() {
        let mut stream = connect(address(&server, "tls"));
        // The server stops to read long before the end.
        let _ = stream.write_all(&flood);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        drop(stream);
        check_served(&server, number + 1);
    }
    // And once the session is encrypted.
    for (number, flood) in
        [&b"\x17\x03\x03\x00\x20"[..], b"\x14\x03\x03\x00\x01\x01"].into_iter().enumerate()
    {
        let mut client = Secured::implicit(address(&server, "tls"), &Manners::trusting());
        let mut stream = client.replies.get_ref().get_ref().try_clone().unwrap();
        let _ = stream.write_all(&flood.repeat((1 << 20) / flood.len()));
        let _ = client.rest();
        drop((client, stream));
        check_served(&server, number + 5);
    }
    let log = server.stop();
    assert!(log.matches("TLS handshake failed: client=").count() >= 4, "{log}");
    assert!(log.matches("error=\"TLS is broken").count() >= 2, "{log}");
}
