//! Logins played in memory.

use proptest::prelude::*;

use super::*;
use crate::smtp::client::{Recipient, Transaction};
use crate::smtp::reply_parser::ReplyParser;
use crate::smtp::sasl::Nonce;
use crate::smtp::sasl::client::Credentials;

const ALL: [Mechanism; 7] = Mechanism::OF_CLIENTS;
const CREDENTIALS: Credentials<'_> =
    Credentials { user: "ann", secret: "sesame", host: "mx.test", port: 587 };

fn reply(wire: &str) -> PeerReply {
    let mut parser = ReplyParser::new();
    parser.feed(wire.as_bytes());
    parser.next_reply().unwrap().unwrap()
}

fn exchange(mechanism: Mechanism) -> Result<ClientExchange, LoginError> {
    ClientExchange::new(mechanism, &CREDENTIALS, &Nonce::new(&[1; 18]))
        .map_err(LoginError::Impossible)
}

/// Plays a session that logs in, until nothing is left to reply: what was sent, and the last
/// action.
fn play(mechanisms: &[Mechanism], replies: &[&str]) -> (String, Action) {
    let mut client = Client::new(&"me.test".parse().unwrap()).with_login(mechanisms);
    play_on(&mut client, replies)
}

fn play_on(client: &mut Client, replies: &[&str]) -> (String, Action) {
    let mut sent = String::new();
    let mut replies = replies.iter();
    loop {
        match client.next_action() {
            Action::Send(octets) => sent.push_str(&String::from_utf8(octets).unwrap()),
            Action::LogIn(mechanism) => client.log_in(exchange(mechanism)),
            Action::Read(awaited) => match replies.next() {
                Some(wire) => client.on_reply(reply(wire)),
                None => return (sent, Action::Read(awaited)),
            },
            end => {
                assert_eq!(replies.next(), None, "a reply that nobody read");
                return (sent, end);
            }
        }
    }
}

/// The same behind a greeting and an offer.
fn play_offer(
    mechanisms: &[Mechanism],
    offer: &str,
    replies: &[&str],
) -> (String, Option<LoginError>) {
    let ehlo = format!("250-mx\r\n250-SIZE\r\n250 {offer}\r\n");
    let replies: Vec<&str> =
        ["220 mx\r\n", &ehlo].into_iter().chain(replies.iter().copied()).collect();
    let (sent, end) = play(mechanisms, &replies);
    let sent = sent.strip_prefix("EHLO me.test\r\n").unwrap().to_owned();
    match end {
        Action::Ready => (sent, None),
        Action::Close(Ending::Login(error)) => (sent, Some(error)),
        end => panic!("{end:?}"),
    }
}

/// What may be said once we are in.
const IN: &str = "235 2.7.0 in\r\n";
/// `\0ann\0sesame`.
const PLAIN: &str = "AUTH PLAIN AGFubgBzZXNhbWU=\r\n";

#[test]
fn the_login_comes_before_anything_else() {
    assert_eq!(play_offer(&ALL, "AUTH PLAIN LOGIN", &[IN]), (PLAIN.into(), None));
    let login = "AUTH LOGIN\r\nYW5u\r\nc2VzYW1l\r\n";
    let asked = ["334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n", IN];
    assert_eq!(play_offer(&ALL, "AUTH LOGIN", &asked), (login.into(), None));
}

#[test]
fn only_behind_a_login_it_is_said_that_nobody_knows_who_wrote_it() {
    let mailbox = "bob@there.test".parse().unwrap();
    let request = Default::default();
    let transaction = Transaction {
        reverse_path: &"<sue@home.test>".parse().unwrap(),
        recipients: &[Recipient { mailbox: &mailbox, request: Default::default() }],
        request: &request,
        is_eight_bit: false,
        size_octets: 7,
    };
    let ehlo = "250-mx\r\n250-SIZE\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n";
    let client = || Client::new(&"me.test".parse().unwrap());
    for (client, replies, mail) in [
        (client().with_login(&ALL), &["220 mx\r\n", ehlo, IN][..], " SIZE=7 AUTH=<>"),
        (client(), &["220 mx\r\n", ehlo], " SIZE=7"),
    ] {
        let mut client = client;
        // The second message of a session is as the first one.
        for replies in [replies, &["250 ok\r\n", "550 no\r\n", "554 to whom?\r\n"]] {
            play_on(&mut client, replies);
            client.begin(&transaction);
            let (sent, _) = play_on(&mut client, &[]);
            assert!(sent.contains(&format!("MAIL FROM:<sue@home.test>{mail}\r\n")), "{sent}");
        }
    }
}

#[test]
fn offers_are_found_in_every_form() {
    let best = |line: &str| {
        let offer = Offer::in_reply(&reply(&format!("250-mx\r\n250-SIZE\r\n{line}"))).unwrap();
        (choose(&offer.known(), &ALL), offer.to_string())
    };
    let found = |mechanism, words: &str| (Some(mechanism), words.to_owned());
    use Mechanism::{Login, Plain, ScramSha256};
    assert_eq!(best("250 AUTH PLAIN LOGIN\r\n"), found(Plain, "PLAIN LOGIN"));
    assert_eq!(best("250 auth=login plain\r\n"), found(Plain, "login plain"));
    assert_eq!(best("250-AUTH=LOGIN\r\n250 AUTH LOGIN\r\n"), found(Login, "LOGIN"));
    assert_eq!(best("250 AUTH  LOGIN  scram-sha-256\r\n").0, Some(ScramSha256));
    assert_eq!(best("250 AUTH GSSAPI\r\n"), (None, "GSSAPI".to_owned()));
    assert_eq!(best("250 AUTH\r\n"), (None, "nothing".to_owned()));
    let long = best(&format!("250 AUTH {}\r\n", "X ".repeat(1000).replace(' ', "Y "))).1;
    assert!(long.len() <= MAX_OFFER + 3, "{}", long.len());
    for none in ["250 SIZE", "250 AUTHOR PLAIN", "250 XAUTH PLAIN", "250 AUT"] {
        assert!(Offer::in_reply(&reply(&format!("250-mx\r\n{none}\r\n"))).is_none(), "{none}");
    }
    // The first line is the greeting.
    assert!(Offer::in_reply(&reply("250 AUTH PLAIN\r\n")).is_none());
}

#[test]
fn a_server_without_a_way_in_gets_nothing() {
    let nothing = String::new();
    let (sent, error) = play_offer(&ALL, "PIPELINING", &[]);
    assert_eq!((sent, error), (nothing.clone(), Some(LoginError::NotOffered)));
    let (sent, error) = play_offer(&[Mechanism::Plain], "AUTH XOAUTH2 GSSAPI", &[]);
    let offered = "XOAUTH2 GSSAPI".to_owned();
    assert_eq!((sent, error), (nothing, Some(LoginError::NoMechanism { offered })));
    // A server that knows HELO only has no AUTH.
    let replies = ["220 mx\r\n", "502 what\r\n", "250-mx\r\n250 AUTH PLAIN\r\n"];
    let (sent, end) = play(&ALL, &replies);
    assert_eq!(sent, "EHLO me.test\r\nHELO me.test\r\n");
    assert_eq!(end, Action::Close(Ending::Login(LoginError::NotOffered)));
}

#[test]
fn what_was_offered_before_tls_is_forgotten() {
    let mut client =
        Client::new(&"me.test".parse().unwrap()).with_start_tls().with_login(&[Mechanism::Plain]);
    for (wire, sends) in [
        ("220 mx\r\n", "EHLO me.test\r\n"),
        ("250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n", "STARTTLS\r\n"),
    ] {
        assert!(matches!(client.next_action(), Action::Read(_)));
        client.on_reply(reply(wire));
        assert_eq!(client.next_action(), Action::Send(sends.into()));
    }
    assert!(matches!(client.next_action(), Action::Read(_)));
    client.on_reply(reply("220 go\r\n"));
    assert_eq!(client.next_action(), Action::StartTls);
    client.on_handshake();
    assert_eq!(client.next_action(), Action::Send(b"EHLO me.test\r\n".to_vec()));
    assert!(matches!(client.next_action(), Action::Read(_)));
    client.on_reply(reply("250 mx\r\n"));
    assert_eq!(client.next_action(), Action::Close(Ending::Login(LoginError::NotOffered)));
}

#[test]
fn a_refused_mechanism_gives_way_to_the_next_and_a_refused_password_to_none() {
    use Mechanism::{Login, Plain};
    const GMAIL: &str = "534-5.7.9 Application-specific password required.\r\n534 5.7.9 See\r\n";
    let replies = ["504 5.5.4 unknown\r\n", "334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n", IN];
    let (sent, error) = play_offer(&[Login, Plain], "AUTH LOGIN PLAIN", &replies);
    assert_eq!(sent, format!("{PLAIN}AUTH LOGIN\r\nYW5u\r\nc2VzYW1l\r\n"));
    assert_eq!(error, None);
    for code in ["504 5.5.4 unknown\r\n", "534 5.7.9 too weak\r\n"] {
        let (sent, error) = play_offer(&ALL, "AUTH PLAIN CRAM-MD5", &[code, IN]);
        assert_eq!((sent, error), (format!("AUTH CRAM-MD5\r\n{PLAIN}"), None));
        let (sent, error) = play_offer(&[Plain], "AUTH LOGIN PLAIN", &[code]);
        assert_eq!(sent, PLAIN);
        assert!(matches!(error, Some(LoginError::Refused { .. })), "{error:?}");
    }
    for code in ["535 5.7.8 no\r\n", "500 what\r\n", "538 5.7.11 no\r\n", "550 no\r\n", GMAIL] {
        let (sent, error) = play_offer(&[Login, Plain], "AUTH LOGIN PLAIN", &[code]);
        assert_eq!(sent, PLAIN);
        let Some(LoginError::Refused { reply, words }) = error else { panic!("{error:?}") };
        assert_eq!((reply.code().to_string().as_str(), words.as_str()), (&code[..3], ""));
    }
    for code in ["454 4.7.0 later\r\n", "432 4.7.12 change it\r\n"] {
        let (sent, error) = play_offer(&[Login, Plain], "AUTH LOGIN PLAIN", &[code]);
        assert_eq!(sent, PLAIN);
        assert!(matches!(error, Some(LoginError::NotNow(_))), "{error:?}");
    }
}

#[test]
fn a_server_that_leaves_or_makes_no_sense_ends_the_session() {
    let begin = ["220 mx\r\n", "250-mx\r\n250 AUTH PLAIN\r\n"];
    let (_, end) = play(&ALL, &[begin[0], begin[1], "421 4.3.2 bye\r\n"]);
    assert!(matches!(end, Action::Close(Ending::Refused(_))), "{end:?}");
    let (_, end) = play(&ALL, &[begin[0], begin[1], "354 go\r\n"]);
    assert!(matches!(end, Action::Close(Ending::OutOfStep(Awaited::Auth, _))), "{end:?}");
}

#[test]
fn a_challenge_that_makes_no_sense_is_cancelled() {
    for (challenge, expected) in [
        ("334 !\r\n", LoginError::NotBase64),
        ("334 VXNlcm5hbWU6=\r\n", LoginError::NotBase64),
        ("334-VXNl\r\n334 cm5hbWU6\r\n", LoginError::NotBase64),
    ] {
        let replies = [challenge, "501 5.7.0 cancelled\r\n"];
        let (sent, error) = play_offer(&[Mechanism::Login], "AUTH LOGIN", &replies);
        assert_eq!((sent.as_str(), error), ("AUTH LOGIN\r\n*\r\n", Some(expected)));
    }
    // PLAIN has one response, and what follows a cancellation is of no interest.
    let replies = ["334 \r\n", "334 \r\n"];
    let (sent, error) = play_offer(&[Mechanism::Plain], "AUTH PLAIN", &replies);
    assert_eq!(sent, format!("{PLAIN}*\r\n"));
    assert!(matches!(error, Some(LoginError::Impossible(ClientError::Challenge(_)))), "{error:?}");
}

#[test]
fn challenges_have_an_end() {
    // No mechanism goes on for so long by itself; the count holds even if one did.
    let mut client = Client::new(&"me.test".parse().unwrap()).with_login(&[Mechanism::Login]);
    client.phase = Phase::LogIn(Mechanism::Login);
    client.log_in(exchange(Mechanism::Login));
    for number in 0..=MAX_CHALLENGES {
        if let Some(current) = client.login.as_mut().and_then(|login| login.current.as_mut()) {
            current.exchange = exchange(Mechanism::Login).unwrap();
        }
        client.on_auth(reply("334 \r\n"));
        let Phase::Say(Line(line)) = &client.phase else { panic!("{:?}", client.phase) };
        assert_eq!(line == "*\r\n", number == MAX_CHALLENGES, "{number}");
    }
    client.on_auth(reply("334 \r\n"));
    assert_eq!(client.phase, Phase::Closed(Ending::Login(LoginError::Endless)));
}

#[test]
fn a_server_that_does_not_know_the_password_is_no_server_of_ours() {
    let scram = [Mechanism::ScramSha256];
    // 235 at once, without any proof.
    let (_, error) = play_offer(&scram, "AUTH SCRAM-SHA-256", &[IN]);
    assert_eq!(error, Some(LoginError::Impossible(ClientError::Impostor)));
    let challenge = |text: &str| format!("334 {}\r\n", STANDARD.encode(text));
    let nonce = STANDARD.encode([1; 18]);
    let first = challenge(&format!("r={nonce}more,s=c2FsdHNhbHQ=,i=4096"));
    let lie = challenge(&format!("v={}", STANDARD.encode([0; 32])));
    for ends in [[&lie, "235 2.7.0 in\r\n"], [&lie, "501 cancelled\r\n"]] {
        let (sent, error) = play_offer(&scram, "AUTH SCRAM-SHA-256", &[&first, ends[0], ends[1]]);
        assert!(sent.ends_with("\r\n*\r\n"), "{sent}");
        assert_eq!(error, Some(LoginError::Impossible(ClientError::Impostor)));
    }
    // What SCRAM says of a wrong password is a refusal as any other.
    let wrong = challenge("e=invalid-proof");
    let replies = [first.as_str(), &wrong, "535 5.7.8 no\r\n"];
    let (_, error) = play_offer(&scram, "AUTH SCRAM-SHA-256", &replies);
    let Some(LoginError::Refused { words, .. }) = error else { panic!("{error:?}") };
    assert_eq!(words, "invalid-proof");
}

#[test]
fn what_is_said_of_a_token_is_told() {
    for (mechanism, last) in [(Mechanism::OauthBearer, "AQ==\r\n"), (Mechanism::Xoauth2, "\r\n")] {
        let challenge = format!("334 {}\r\n", STANDARD.encode(r#"{"status":"400"}"#));
        let replies = [challenge.as_str(), "535 5.7.8 no\r\n"];
        let (sent, error) = play_offer(&[mechanism], &format!("AUTH {mechanism}"), &replies);
        assert!(sent.starts_with(&format!("AUTH {mechanism} ")) && sent.ends_with(last), "{sent}");
        let text = error.unwrap().to_string();
        assert_eq!(text, r#"refused the login: 535 5.7.8 no ({"status":"400"})"#);
    }
}

#[test]
fn nothing_tells_the_password() {
    let mut client = Client::new(&"me.test".parse().unwrap()).with_login(&ALL);
    for wire in ["220 mx\r\n", "250-mx\r\n250 AUTH PLAIN\r\n"] {
        while !matches!(client.next_action(), Action::Read(_)) {}
        client.on_reply(reply(wire));
    }
    client.log_in(exchange(Mechanism::Plain));
    let shown = format!("{client:?}");
    assert!(shown.contains("Line(..)"), "{shown}");
    assert!(!shown.contains("sesame") && !shown.contains("AGFubgBz"), "{shown}");
}

proptest! {
    /// Whatever a server answers, the session ends or goes on, and mail comes only after a 2yz.
    #[test]
    fn no_answer_breaks_the_machine(
        codes in proptest::collection::vec((200_u16..600, "[ -~]{0,40}"), 0..40),
        offer in "[A-Z0-9 =-]{0,60}",
    ) {
        let mut client = Client::new(&"me.test".parse().unwrap()).with_login(&ALL);
        let ehlo = format!("250-mx\r\n250-AUTH {offer}\r\n250 AUTH PLAIN LOGIN\r\n");
        let more = codes.iter().map(|(code, text)| format!("{code} {text}\r\n"));
        let mut replies = ["220 mx\r\n".to_owned(), ehlo].into_iter().chain(more);
        let mut last = 0;
        loop {
            match client.next_action() {
                Action::Send(_) => {}
                Action::LogIn(mechanism) => client.log_in(exchange(mechanism)),
                Action::Read(_) => match replies.next() {
                    Some(wire) => {
                        let reply = reply(&wire);
                        last = reply.code();
                        client.on_reply(reply);
                    }
                    None => break,
                },
                Action::Ready => {
                    prop_assert!((200..300).contains(&last));
                    break;
                }
                _ => break,
            }
        }
    }
}
