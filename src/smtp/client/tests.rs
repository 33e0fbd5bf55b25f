//! Sessions played in memory.

use proptest::prelude::*;

use super::*;
use crate::smtp::reply_parser::ReplyParser;

const FULL: &str = "250-mx\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250 8BITMIME\r\n";

fn reply(wire: &str) -> PeerReply {
    let mut parser = ReplyParser::new();
    parser.feed(wire.as_bytes());
    parser.next_reply().unwrap().unwrap()
}

fn client() -> Client {
    Client::new(&"me.test".parse().unwrap())
}

/// Plays actions and replies until nothing is left to reply; what was sent, a `<content>` in
/// place of the content, and the last action.
fn play(client: &mut Client, replies: &[&str]) -> (String, Action) {
    let mut sent = String::new();
    let mut replies = replies.iter();
    loop {
        match client.next_action() {
            Action::Send(octets) => sent.push_str(&String::from_utf8(octets).unwrap()),
            Action::SendContent => sent.push_str("<content>"),
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

fn greeted(ehlo: &str) -> Client {
    let mut client = client();
    assert_eq!(play(&mut client, &["220 mx\r\n", ehlo]).1, Action::Ready);
    client
}

fn begin(client: &mut Client, recipients: usize, size_octets: u64, is_eight_bit: bool) {
    let mailboxes: Vec<Mailbox> =
        (0..recipients).map(|n| format!("u{n}@there.test").parse().unwrap()).collect();
    let plain = |mailbox| Recipient { mailbox, request: RecipientRequest::default() };
    let recipients: Vec<_> = mailboxes.iter().map(plain).collect();
    let reverse_path = "<me@here.test>".parse().unwrap();
    client.begin(&Transaction {
        reverse_path: &reverse_path,
        recipients: &recipients,
        request: &MessageRequest::default(),
        is_eight_bit,
        size_octets,
    });
}

/// `ok` for a recipient whom the server took, else the status.
fn summary(client: &Client) -> Vec<String> {
    let one = |result: RecipientResult| match result {
        RecipientResult::Taken(_) => "ok".to_owned(),
        RecipientResult::Refused(refusal) => refusal.status().to_string(),
        RecipientResult::TooLarge { limit_octets } => format!("over {limit_octets}"),
    };
    client.results().into_iter().flatten().map(one).collect()
}

#[test]
fn a_pipelined_transaction_is_one_group() {
    let mut client = greeted(FULL);
    begin(&mut client, 2, 10, true);
    let replies = ["250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 2.0.0 taken\r\n"];
    let Action::Send(group) = client.next_action() else { panic!("nothing to send") };
    assert_eq!(
        String::from_utf8(group).unwrap(),
        "MAIL FROM:<me@here.test> SIZE=10 BODY=8BITMIME\r\nRCPT TO:<u0@there.test>\r\n\
         RCPT TO:<u1@there.test>\r\nDATA\r\n"
    );
    assert_eq!(play(&mut client, &replies), ("<content>".into(), Action::Ready));
    assert_eq!(summary(&client), ["ok", "ok"]);
}

#[test]
fn what_is_asked_about_reports_goes_to_servers_that_know_of_it() {
    let longest = format!("rfc822;{}", "x".repeat(493));
    let request =
        MessageRequest { ret: "HDRS".parse().ok(), envelope_id: "+20".repeat(33).parse().ok() };
    let all = RecipientRequest {
        notify: "DELAY,FAILURE,SUCCESS".parse().ok(),
        original: longest.parse().ok(),
    };
    let never = RecipientRequest { notify: "NEVER".parse().ok(), original: None };
    let mailbox = format!("{}@{}.test", "u".repeat(64), "d.".repeat(90) + "d").parse().unwrap();
    let requests = [all, never, RecipientRequest::default()];
    let recipients = requests.map(|request| Recipient { mailbox: &mailbox, request });
    let transaction = Transaction {
        reverse_path: &"<me@here.test>".parse().unwrap(),
        recipients: &recipients,
        request: &request,
        is_eight_bit: true,
        size_octets: 10,
    };
    for (ehlo, mail, rcpt) in [
        (
            "250-mx\r\n250-SIZE\r\n250-8BITMIME\r\n250-PIPELINING\r\n250 dsn\r\n",
            format!(" SIZE=10 BODY=8BITMIME RET=HDRS ENVID={}", "+20".repeat(33)),
            [&format!(" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT={longest}"), " NOTIFY=NEVER", ""],
        ),
        // RFC 3461 §5.2.2 (a): nothing of it where DSN is not offered.
        (FULL, " SIZE=10 BODY=8BITMIME".into(), ["", "", ""]),
    ] {
        let mut client = greeted(ehlo);
        client.begin(&transaction);
        let rcpt = rcpt.map(|parameters| format!("RCPT TO:<{mailbox}>{parameters}\r\n"));
        let expected = format!("MAIL FROM:<me@here.test>{mail}\r\n{}DATA\r\n", rcpt.concat());
        assert_eq!(play(&mut client, &[]).0, expected);
        // RFC 3461 §5.4: what every conforming server takes.
        assert!(rcpt.iter().all(|command| command.len() <= 1036));
        assert_eq!(client.offers_dsn(), ehlo != FULL);
    }
}

#[test]
fn without_pipelining_each_command_waits() {
    let mut client = greeted("250 mx\r\n");
    begin(&mut client, 1, 10, true);
    assert_eq!(play(&mut client, &[]).0, "MAIL FROM:<me@here.test>\r\n");
    assert_eq!(play(&mut client, &["250 ok\r\n"]).0, "RCPT TO:<u0@there.test>\r\n");
    assert_eq!(play(&mut client, &["250 ok\r\n"]).0, "DATA\r\n");
    assert_eq!(play(&mut client, &["354 go\r\n"]).0, "<content>");
    assert_eq!(play(&mut client, &["250 ok\r\n"]).1, Action::Ready);
    assert_eq!(summary(&client), ["ok"]);
}

#[test]
fn without_pipelining_no_data_follows_refused_recipients() {
    let mut client = greeted("250 mx\r\n");
    begin(&mut client, 2, 10, false);
    let (sent, end) = play(&mut client, &["250 ok\r\n", "550 5.1.1 no\r\n", "450 4.2.0 no\r\n"]);
    assert!(!sent.contains("DATA"));
    assert_eq!((end, summary(&client)), (Action::Ready, vec!["5.1.1".into(), "4.2.0".into()]));
    begin(&mut client, 1, 10, false);
    assert_eq!(play(&mut client, &[]).0, "RSET\r\n");
    assert_eq!(play(&mut client, &["250 ok\r\n"]).0, "MAIL FROM:<me@here.test>\r\n");
}

#[test]
fn each_recipient_has_its_own_result() {
    let mut client = greeted(FULL);
    begin(&mut client, 3, 10, false);
    let replies =
        ["250 ok\r\n", "550 5.1.1 no\r\n", "250 ok\r\n", "452 4.5.3 full\r\n", "354 go\r\n"];
    play(&mut client, &replies);
    assert_eq!(client.results(), None);
    assert_eq!(play(&mut client, &["250 ok\r\n"]).1, Action::Ready);
    assert_eq!(summary(&client), ["5.1.1", "ok", "4.5.3"]);
}

#[test]
fn a_354_without_recipients_gets_a_lone_dot() {
    for mail in ["250 ok\r\n", "550 5.7.1 no\r\n"] {
        let mut client = greeted(FULL);
        begin(&mut client, 1, 10, false);
        let (sent, _) = play(&mut client, &[mail, "550 5.7.1 no\r\n", "354 go\r\n"]);
        assert!(sent.ends_with("DATA\r\n.\r\n"), "{sent}");
        assert_eq!(play(&mut client, &["250 taken, ha\r\n"]).1, Action::Ready);
        assert_eq!(summary(&client), ["5.7.1"]);
    }
}

#[test]
fn a_refusal_of_mail_data_or_content_is_everybodys() {
    for replies in [
        &["451 4.7.1 later\r\n", "503 no\r\n", "503 no\r\n", "503 no\r\n"][..],
        &["250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "451 4.7.1 later\r\n"],
        &["250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "451 4.7.1 later\r\n"],
    ] {
        let mut client = greeted(FULL);
        begin(&mut client, 2, 10, false);
        assert_eq!(play(&mut client, replies).1, Action::Ready);
        assert_eq!(summary(&client), ["4.7.1", "4.7.1"]);
    }
}

#[test]
fn the_next_transaction_resets_only_what_is_left_open() {
    let mut client = greeted(FULL);
    begin(&mut client, 1, 10, false);
    play(&mut client, &["250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 ok\r\n"]);
    begin(&mut client, 1, 10, false);
    let (sent, _) = play(&mut client, &["250 ok\r\n", "550 no\r\n", "554 no\r\n"]);
    assert!(sent.starts_with("MAIL"), "{sent}");
    begin(&mut client, 1, 10, false);
    assert!(play(&mut client, &[]).0.starts_with("RSET\r\nMAIL"));
    play(&mut client, &["250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 ok\r\n"]);
    assert_eq!(summary(&client), ["ok"]);
}

#[test]
fn a_message_over_the_limit_is_not_sent() {
    let mut client = greeted(FULL);
    begin(&mut client, 1, 1001, false);
    assert_eq!(play(&mut client, &[]), (String::new(), Action::Ready));
    assert_eq!(summary(&client), ["over 1000"]);
    for unlimited in ["250-mx\r\n250 SIZE\r\n", "250-mx\r\n250 size 0\r\n"] {
        let mut client = greeted(unlimited);
        begin(&mut client, 1, 1001, false);
        assert_eq!(play(&mut client, &[]).0, "MAIL FROM:<me@here.test> SIZE=1001\r\n");
    }
}

#[test]
fn a_552_to_rcpt_is_temporary_unless_it_says_otherwise() {
    for (text, first, second) in [
        ("552 full or many\r\n", "5.0.0", "4.5.3"),
        ("552 5.5.3 many\r\n", "4.5.3", "4.5.3"),
        ("552 5.2.2 full\r\n", "5.2.2", "5.2.2"),
    ] {
        let mut client = greeted(FULL);
        begin(&mut client, 2, 10, false);
        play(&mut client, &["250 ok\r\n", text, text, "554 no\r\n"]);
        assert_eq!(summary(&client), [first, second]);
    }
}

#[test]
fn ehlo_falls_back_to_helo() {
    let mut client = client();
    let (sent, end) = play(&mut client, &["220 mx\r\n", "502 what\r\n", "250 mx\r\n"]);
    assert_eq!((sent.as_str(), end), ("EHLO me.test\r\nHELO me.test\r\n", Action::Ready));
}

const TLS: &str = "250-mx\r\n250-SIZE 1000\r\n250 StartTLS\r\n";

#[test]
fn starttls_comes_before_the_mail_and_all_before_it_is_forgotten() {
    let mut client = client().with_start_tls();
    let (sent, end) = play(&mut client, &["220 mx\r\n", TLS, "220 go\r\n"]);
    assert_eq!((sent.as_str(), &end), ("EHLO me.test\r\nSTARTTLS\r\n", &Action::StartTls));
    client.on_handshake();
    let (sent, end) = play(&mut client, &["250-mx\r\n250 STARTTLS\r\n"]);
    assert_eq!((sent.as_str(), end), ("EHLO me.test\r\n", Action::Ready));
    // SIZE was offered before the handshake only.
    begin(&mut client, 1, 1001, false);
    assert_eq!(play(&mut client, &[]).0, "MAIL FROM:<me@here.test>\r\n");
}

#[test]
fn a_server_that_has_no_starttls_or_refuses_it_is_left() {
    for ehlo in [&[FULL][..], &["250 mx\r\n"], &["250 STARTTLS\r\n"], &["502 no\r\n", "250 mx\r\n"]]
    {
        let mut client = client().with_start_tls();
        let replies = [&["220 mx\r\n"], ehlo].concat();
        assert_eq!(play(&mut client, &replies).1, Action::Close(Ending::NoStartTls), "{ehlo:?}");
    }
    for refusal in ["454 4.7.0 not now\r\n", "501 no\r\n", "503 no\r\n", "250 ok\r\n", "354 go\r\n"]
    {
        let mut client = client().with_start_tls();
        let end = play(&mut client, &["220 mx\r\n", TLS, refusal]).1;
        assert_eq!(end, Action::Close(Ending::StartTlsRefused(reply(refusal))));
    }
    let mut client = client().with_start_tls();
    let end = play(&mut client, &["220 mx\r\n", TLS, "421 bye\r\n"]).1;
    assert_eq!(end, Action::Close(Ending::Refused(reply("421 bye\r\n"))));
}

#[test]
fn starttls_if_offered_comes_first_where_it_is_and_nothing_is_missed_where_it_is_not() {
    for ehlo in [&[FULL][..], &["250 mx\r\n"], &["502 no\r\n", "250 mx\r\n"]] {
        let mut client = client().with_start_tls_if_offered();
        let replies = [&["220 mx\r\n"], ehlo].concat();
        assert_eq!(play(&mut client, &replies).1, Action::Ready, "{ehlo:?}");
    }
    let mut client = client().with_start_tls_if_offered();
    assert_eq!(play(&mut client, &["220 mx\r\n", TLS, "220 go\r\n"]).1, Action::StartTls);
    client.on_handshake();
    let (sent, end) = play(&mut client, &[TLS]);
    assert_eq!((sent.as_str(), &end), ("EHLO me.test\r\n", &Action::Ready));
    // It was offered and is refused: whether to go on without is not decided here.
    let mut client = self::client().with_start_tls_if_offered();
    let end = play(&mut client, &["220 mx\r\n", TLS, "454 no\r\n"]).1;
    assert_eq!(end, Action::Close(Ending::StartTlsRefused(reply("454 no\r\n"))));
}

#[test]
fn starttls_that_is_not_required_is_not_used() {
    let mut client = client();
    assert_eq!(play(&mut client, &["220 mx\r\n", TLS]), ("EHLO me.test\r\n".into(), Action::Ready));
}

#[test]
fn a_server_that_refuses_or_leaves_ends_the_session() {
    for replies in [
        &["554 no\r\n"][..],
        &["421 busy\r\n"],
        &["220 mx\r\n", "421 busy\r\n"],
        &["220 mx\r\n", "451 later\r\n"],
        &["220 mx\r\n", "550 no\r\n", "550 no\r\n"],
    ] {
        let end = play(&mut client(), replies).1;
        assert_eq!(end, Action::Close(Ending::Refused(reply(replies[replies.len() - 1]))));
    }
    let envelope = ["250 ok\r\n", "250 ok\r\n", "354 go\r\n"];
    for count in 0..=2 {
        let mut client = greeted(FULL);
        begin(&mut client, 1, 10, false);
        let replies: Vec<&str> = envelope[..count].iter().copied().chain(["421 bye\r\n"]).collect();
        let end = play(&mut client, &replies).1;
        assert_eq!(end, Action::Close(Ending::Refused(reply("421 bye\r\n"))));
        assert_eq!(client.results(), None, "after {count} replies");
    }
}

#[test]
fn a_421_to_the_content_is_its_result_and_the_end() {
    let mut client = greeted(FULL);
    begin(&mut client, 1, 10, false);
    let end = play(&mut client, &["250 ok\r\n", "250 ok\r\n", "354 go\r\n", "421 bye\r\n"]).1;
    assert_eq!(end, Action::Close(Ending::Refused(reply("421 bye\r\n"))));
    assert_eq!(summary(&client), ["4.3.2"]);
}

#[test]
fn a_reply_out_of_step_ends_the_session() {
    for replies in [
        &["354 go\r\n"][..],
        &["250 ok\r\n", "354 go\r\n"],
        &["250 ok\r\n", "250 ok\r\n", "250 ok\r\n"],
        &["250 ok\r\n", "250 ok\r\n", "354 go\r\n", "354 go\r\n"],
    ] {
        let mut client = greeted(FULL);
        begin(&mut client, 1, 10, false);
        let end = play(&mut client, replies).1;
        assert!(matches!(end, Action::Close(Ending::OutOfStep(..))), "{replies:?}: {end:?}");
        assert_eq!(client.results(), None);
    }
}

#[test]
fn many_recipients_go_in_groups() {
    let mut client = greeted(FULL);
    begin(&mut client, 250, 10, false);
    let mut groups = Vec::new();
    loop {
        match client.next_action() {
            Action::Send(group) => groups.push(group.iter().filter(|&&b| b == b'\n').count()),
            Action::Read(Awaited::Data) => client.on_reply(reply("354 go\r\n")),
            Action::Read(Awaited::Recipient(7)) => client.on_reply(reply("550 no\r\n")),
            Action::Read(_) => client.on_reply(reply("250 ok\r\n")),
            Action::SendContent => {}
            end => break assert_eq!(end, Action::Ready),
        }
    }
    assert_eq!(groups, [100, 100, 52]);
    let taken = summary(&client).iter().filter(|result| *result == "ok").count();
    assert_eq!((taken, summary(&client)[7].as_str()), (249, "5.0.0"));
}

#[test]
fn quit_is_said_and_answered() {
    let mut client = greeted(FULL);
    client.quit();
    assert_eq!(
        play(&mut client, &["221 bye\r\n"]),
        ("QUIT\r\n".into(), Action::Close(Ending::Quit))
    );
}

proptest! {
    /// Whatever a server answers, nothing of the mail is said before the handshake.
    #[test]
    fn no_replies_lead_to_mail_in_the_clear(replies in prop::collection::vec(
        prop::sample::select(vec!["220 x\r\n", TLS, FULL, "250 x\r\n", "354 x\r\n",
        "454 x\r\n", "502 x\r\n"]), 0..6))
    {
        let mut client = client().with_start_tls();
        let mut replies = replies.into_iter();
        loop {
            match client.next_action() {
                Action::Send(octets) => {
                    prop_assert!([b"EHLO", b"HELO", b"STAR"].contains(&&octets[..4].try_into().unwrap()));
                }
                Action::Read(_) => client.on_reply(reply(replies.next().unwrap_or("421 x\r\n"))),
                Action::StartTls | Action::Close(_) => break,
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }

    /// Whatever a server answers, the session ends, and content is only sent for somebody.
    #[test]
    fn any_replies_lead_to_an_end(codes in prop::collection::vec(prop::sample::select(
        vec![220u16, 250, 354, 421, 450, 550, 552]), 0..40), pipelining: bool)
    {
        let mut client = greeted(if pipelining { FULL } else { "250 mx\r\n" });
        begin(&mut client, 3, 10, false);
        let mut codes = codes.into_iter();
        loop {
            match client.next_action() {
                Action::Send(_) => {}
                Action::SendContent => prop_assert_eq!(client.results(), None),
                Action::Read(_) => {
                    let code = codes.next().unwrap_or(421);
                    client.on_reply(reply(&format!("{code} x\r\n")));
                }
                Action::Ready => {
                    prop_assert_eq!(client.results().map(|results| results.len()), Some(3));
                    break;
                }
                Action::StartTls => prop_assert!(false, "nobody asked for it"),
                Action::Close(_) => break,
            }
        }
    }
}
