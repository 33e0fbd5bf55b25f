//! A stand-in for Dovecot, as it is and as it should not be.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::{self, JoinHandle};

use super::*;

const GREETING: &str = "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\n\
    MECH\tSCRAM-SHA-256\tmutual-auth\nMECH\tX-NEW\nSPID\t17\nCUID\t1\nCOOKIE\tab\nDONE\n";
const CONFIGURED: [Mechanism; 3] = [Mechanism::ScramSha256, Mechanism::CramMd5, Mechanism::Plain];

fn peer() -> Peer {
    let address = |text: &str| text.parse().unwrap();
    Peer::Host { remote: address("192.0.2.7"), local: address("2001:db8::1") }
}

/// Dovecot's side of one connection: after each line that is expected it says the next.
fn play(folder: &Path, greeting: &str, lines: &[(&str, &str)]) -> (Dovecot, JoinHandle<()>) {
    let path = folder.join("auth-client");
    let listener = UnixListener::bind(&path).unwrap();
    let greeting = greeting.to_owned();
    let lines: Vec<(String, String)> =
        lines.iter().map(|(wanted, said)| ((*wanted).into(), (*said).into())).collect();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(greeting.as_bytes()).unwrap();
        let mut received = String::new();
        for (wanted, said) in lines {
            while !received.ends_with(&wanted) {
                let mut octets = [0; 1024];
                let count = stream.read(&mut octets).unwrap();
                assert!(count > 0, "{received:?}, but {wanted:?} was to come");
                received.push_str(str::from_utf8(&octets[..count]).unwrap());
            }
            stream.write_all(said.as_bytes()).unwrap();
        }
    });
    (Dovecot::new(path, CONFIGURED.into()), server)
}

/// What becomes of PLAIN with the initial response `x`, to which Dovecot says this.
fn plain(greeting: &str, said: &str) -> Result<String, Refused> {
    let folder = tempfile::tempdir().unwrap();
    let line = "AUTH\t1\tPLAIN\tservice=smtp\tnologin\tsecured\tlip=2001:db8::1\trip=192.0.2.7\t\
                resp=eA==\n";
    let lines = if greeting.ends_with("DONE\n") { &[(line, said)][..] } else { &[] };
    let (dovecot, server) = play(folder.path(), greeting, lines);
    let result = dovecot.begin(&peer(), Mechanism::Plain, Some(b"x"));
    let result = result.map(|step| match step {
        Step::Accepted(user) => user.to_string(),
        Step::Challenge(challenge, _) => format!("challenge {challenge:?}"),
    });
    drop(dovecot);
    // A Dovecot that got less than it waits for is no matter here.
    let _ = server.join();
    result
}

fn wrong(user: Option<&str>) -> Result<String, Refused> {
    Err(Refused { refusal: Refusal::Credentials, user: user.map(str::to_owned) })
}

#[test]
fn answers_are_understood() {
    assert_eq!(plain(GREETING, "OK\t1\tuser=ann\tx=y\n"), Ok("ann".to_owned()));
    assert_eq!(plain(GREETING, "OK\t7\tuser=eve\nX\t1\nOK\t1\tuser=ann\n"), Ok("ann".to_owned()));
    assert_eq!(plain(GREETING, "CONT\t1\teHk=\n"), Ok("challenge [120, 121]".to_owned()));
    assert_eq!(plain(GREETING, "CONT\t1\t\n"), Ok("challenge []".to_owned()));
    assert_eq!(plain(GREETING, "FAIL\t1\tuser=a\u{1}tb\n"), wrong(Some("a\tb")));
    assert_eq!(plain(GREETING, "FAIL\t1\treason=no more\tauthz\n"), wrong(None));
    for temporary in ["temp", "code=temp_fail"] {
        let refused = plain(GREETING, &format!("FAIL\t1\t{temporary}\tuser=ann\n"));
        assert_eq!(refused.unwrap_err().refusal, Refusal::Unavailable);
    }
}

#[test]
fn what_is_none_of_the_protocol_lets_nobody_in() {
    let endless = "x".repeat(100_000);
    let many = "X\n".repeat(1000);
    for said in [
        "",
        "OK",
        "OK\t1\n",
        "OK\t1\tuser=\n",
        "OK\t1\tuser=a\u{1}nb\n",
        "CONT\t1\t*\n",
        &endless,
        &many,
        &format!("OK\t1\tuser={}\n", "x".repeat(256)),
    ] {
        let shown = said.get(..20).unwrap_or(said);
        assert_eq!(plain(GREETING, said), Err(unavailable()), "{shown:?}");
    }
    for greeting in [
        "",
        "VERSION\t2\t0\nDONE\n",
        "MECH\tPLAIN\nDONE\n",
        "VERSION\t1\t1\nMECH\tPLAIN\n",
        &endless,
        &format!("VERSION\t1\t1\n{many}"),
    ] {
        let shown = greeting.get(..20).unwrap_or(greeting);
        assert_eq!(plain(greeting, "OK\t1\tuser=ann\n"), Err(unavailable()), "{shown:?}");
    }
}

#[test]
fn a_login_of_several_steps_goes_through_one_connection() {
    let folder = tempfile::tempdir().unwrap();
    let lines = [
        ("AUTH\t1\tSCRAM-SHA-256\tservice=smtp\tnologin\tsecured\n", "CONT\t1\t\n"),
        ("CONT\t1\tYQ==\n", "CONT\t1\tYg==\n"),
        ("CONT\t1\t\n", "OK\t1\tuser=ann\n"),
    ];
    let (dovecot, server) = play(folder.path(), GREETING, &lines);
    let challenge = |step| match step {
        Ok(Step::Challenge(challenge, conversation)) => (challenge, conversation),
        other => panic!("{other:?}"),
    };
    let peer = Peer::Account { uid: 1000 };
    let (said, conversation) = challenge(dovecot.begin(&peer, Mechanism::ScramSha256, None));
    assert_eq!(said, b"");
    let (said, conversation) = challenge(conversation.respond(b"a"));
    assert_eq!(said, b"b");
    assert!(matches!(conversation.respond(b""), Ok(Step::Accepted(user)) if &*user == "ann"));
    server.join().unwrap();
}

#[test]
fn the_mechanisms_of_both_are_offered_and_asked_for_once() {
    let folder = tempfile::tempdir().unwrap();
    let (dovecot, server) = play(folder.path(), GREETING, &[]);
    assert_eq!(dovecot.mechanisms(), [Mechanism::ScramSha256, Mechanism::Plain]);
    server.join().unwrap();
    // Nobody is there any more.
    assert_eq!(dovecot.mechanisms(), [Mechanism::ScramSha256, Mechanism::Plain]);
    let refused = dovecot.begin(&peer(), Mechanism::Plain, None).unwrap_err();
    assert_eq!(refused, unavailable());
}

#[test]
fn while_dovecot_is_away_all_that_is_configured_is_offered() {
    let dovecot = Dovecot::new("/nowhere/auth-client".into(), CONFIGURED.into());
    assert_eq!(dovecot.mechanisms(), CONFIGURED);
}

#[test]
fn a_response_that_dovecot_would_not_take_is_not_sent() {
    let dovecot = Dovecot::new("/nowhere/auth-client".into(), CONFIGURED.into());
    let refused = dovecot.begin(&peer(), Mechanism::Plain, Some(&[b'x'; 9000])).unwrap_err();
    assert_eq!(refused.refusal, Refusal::Malformed);
}
