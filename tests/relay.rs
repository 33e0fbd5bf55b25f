//! Relaying keeps its promises with good and bad peers: exactly one outcome for each
//! recipient, nothing lost, nothing sent twice, nothing hung.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailwren::config::settings::{ClientTls, HostPort, Smarthost};
use mailwren::deliver::conversation::Timeouts;
use mailwren::deliver::job::{Job, Recipient};
use mailwren::deliver::outcome::{Failure, Outcome};
use mailwren::deliver::pool::Deliver;
use mailwren::deliver::relay::Relay;
use mailwren::mail::address::{Domain, Mailbox};
use mailwren::mail::dsn_request::MessageRequest;
use mailwren::route::addressee::Way;
use mailwren::route::next_hop::NextHop;
use mailwren::smtp::parameters::{MailParameters, parse_rcpt_parameters};
use mailwren::spool::envelope::{Body, Envelope};
use mailwren::spool::id::QueueId;
use mailwren::spool::message::StoredMessage;
use mailwren::sys::dns::Resolver;

#[path = "support/auth_desk.rs"]
mod auth_desk;
#[path = "relay/check.rs"]
mod check;
#[path = "relay/dns.rs"]
mod dns;
#[path = "support/dns_server.rs"]
mod dns_server;
#[path = "relay/fault.rs"]
mod fault;
#[path = "relay/login.rs"]
mod login;
#[path = "relay/opportunistic.rs"]
mod opportunistic;
#[path = "support/peer.rs"]
mod peer;
#[path = "relay/rewrite.rs"]
mod rewrite;
#[path = "support/sessions.rs"]
mod sessions;
#[path = "relay/tls.rs"]
mod tls;
#[path = "support/tls_peer.rs"]
mod tls_peer;

use peer::{Answer, Peer, say};

const MESSAGE: &[u8] = b"Subject: hello\r\n\r\n.dotted\r\n\xe4\r\n";

fn job(next_hop: NextHop, recipients: &[&str], content: &[u8]) -> Job {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"envelope\n").unwrap();
    file.write_all(content).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let envelope = Envelope {
        id: QueueId::generate(0, 0),
        received_at: 0,
        client: "local".into(),
        reverse_path: "<ann@here.test>".parse().unwrap(),
        recipients: recipients.iter().map(|to| to.parse::<Mailbox>().unwrap().into()).collect(),
        body: Body::EightBitMime,
        request: MessageRequest::default(),
    };
    let recipients = envelope.recipients.iter().enumerate();
    // Places need not be 0, 1, 2: others may have gone already.
    let recipients = recipients
        .map(|(at, to)| {
            let (mailbox, request) = (to.mailbox.clone(), to.request.clone());
            Recipient { index: 10 + 3 * at, mailbox, way: Way::Routed, request }
        })
        .collect();
    let content = 9..9 + content.len() as u64;
    let message = Arc::new(StoredMessage::new(file, content, envelope));
    let reverse_path = message.envelope().reverse_path.clone();
    Job { message, reverse_path, recipients, next_hop }
}

fn smarthost(peers: &[&Peer]) -> NextHop {
    let host = |peer: &&Peer| HostPort {
        host: Domain::Literal(peer.address().ip()),
        port: peer.address().port(),
    };
    let hosts = peers.iter().map(host).collect();
    NextHop::Smarthost(Smarthost::new(hosts, ClientTls::None))
}

/// A relay that asks `servers` and waits as long as a slow machine needs.
fn relay_asking(servers: &[std::net::SocketAddr]) -> Relay {
    let resolver = Resolver::new(servers).with_timeout(Duration::from_secs(20));
    Relay::with_resolver("me.test".parse().unwrap(), resolver)
}

fn relay() -> Relay {
    relay_asking(&["127.0.0.1:1".parse().unwrap()])
}

/// A relay for peers that never answer.
fn impatient() -> Relay {
    let short = Duration::from_millis(300);
    relay().with_timeouts(Timeouts {
        greeting: short,
        command: short,
        handshake: short,
        data: short,
        block: short,
        content: short,
        quit: short,
        opening: Duration::from_secs(3600),
        transaction: Duration::from_secs(3600),
    })
}

/// `relayed`, or `deferred STATUS`, or `failed STATUS`, for each recipient.
fn summary(outcomes: &[(usize, Outcome)]) -> Vec<String> {
    let one = |(_, outcome): &(usize, Outcome)| match outcome {
        Outcome::Relayed { .. } => "relayed".to_owned(),
        Outcome::Deferred(failure) => format!("deferred {}", failure.status),
        Outcome::Failed(failure) => format!("failed {}", failure.status),
        other => panic!("{other:?}"),
    };
    outcomes.iter().map(one).collect()
}

fn deliver_one(relay: &Relay, next_hop: NextHop) -> String {
    let outcomes = relay.deliver(&job(next_hop, &["bob@there.test"], MESSAGE));
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].0, 10);
    summary(&outcomes).remove(0)
}

fn failure(relay: &Relay, next_hop: NextHop) -> Failure {
    match relay.deliver(&job(next_hop, &["bob@there.test"], MESSAGE)).remove(0).1 {
        Outcome::Deferred(failure) | Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_arrives_stuffed_and_whole_and_the_connection_is_kept() {
    let peer = Peer::polite();
    let relay = relay();
    let job = job(smarthost(&[&peer]), &["bob@there.test", "\"c d\"@there.test"], MESSAGE);
    for _ in 0..3 {
        let outcomes = relay.deliver(&job);
        let places: Vec<usize> = outcomes.iter().map(|outcome| outcome.0).collect();
        assert_eq!(places, [10, 13]);
        let (remote, reply) = match &outcomes[1].1 {
            Outcome::Relayed { remote, reply, .. } => (remote.clone(), reply.clone()),
            other => panic!("{other:?}"),
        };
        assert_eq!(remote, format!("[127.0.0.1]:{}", peer.address().port()));
        assert_eq!(reply, "250 2.0.0 taken");
    }
    drop(relay);
    let sessions = peer.sessions();
    assert_eq!(sessions.len(), 1);
    let size = MESSAGE.len();
    let mut expected = vec!["EHLO me.test".to_owned()];
    for _ in 0..3 {
        expected.push(format!("MAIL FROM:<ann@here.test> SIZE={size} BODY=8BITMIME"));
        expected.push("RCPT TO:<bob@there.test>".into());
        expected.push("RCPT TO:<\"c d\"@there.test>".into());
        expected.push("DATA".into());
    }
    expected.push("QUIT".into());
    assert_eq!(sessions[0].commands, expected);
    let wire: &[u8] = b"Subject: hello\r\n\r\n..dotted\r\n\xe4\r\n.\r\n";
    assert!(sessions[0].contents.iter().all(|content| content == wire));
    assert_eq!(sessions[0].contents.len(), 3);
}

/// What a peer is told of a message about which this was asked, and whether it took it.
fn asked(ehlo: &'static str, mail: &str, rcpt: [&str; 3]) -> (Vec<String>, bool) {
    let peer = Peer::new(move |_, line| if line.starts_with("EHLO") { say(ehlo) } else { None });
    let recipients = ["bob@there.test", "c+d@there.test", "eve@there.test"];
    let plain = job(smarthost(&[&peer]), &recipients, MESSAGE);
    let mut envelope = plain.message.envelope().clone();
    envelope.request = MailParameters::parse(mail).unwrap().request;
    let mut job = Job { recipients: Vec::new(), ..plain };
    for (index, text) in rcpt.into_iter().enumerate() {
        let (mailbox, request) =
            (recipients[index].parse().unwrap(), parse_rcpt_parameters(text).unwrap());
        job.recipients.push(Recipient { index, mailbox, way: Way::Routed, request });
    }
    // An alias led to the last one.
    envelope.recipients[2] = "all@here.test".parse::<Mailbox>().unwrap().into();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(MESSAGE).unwrap();
    job.message = Arc::new(StoredMessage::new(file, 0..MESSAGE.len() as u64, envelope));
    let outcomes = relay().deliver(&job);
    let knows = |(_, outcome): &(usize, Outcome)| match outcome {
        Outcome::Relayed { knows_dsn, .. } => *knows_dsn,
        other => panic!("{other:?}"),
    };
    let knows: Vec<bool> = outcomes.iter().map(knows).collect();
    assert!(knows.iter().all(|it| *it == knows[0]));
    let commands = peer.sessions().remove(0).commands;
    (commands[1..5].to_vec(), knows[0])
}

/// RFC 3461 §5.2.1 and §5.2.2.
#[test]
fn what_is_asked_about_reports_is_passed_on_to_hosts_that_offer_dsn() {
    let mail = "RET=HDRS ENVID=QQ+2B1";
    let rcpt = ["NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2B@There.test", "NOTIFY=NEVER", ""];
    let (commands, knows) = asked("250-p\r\n250-PIPELINING\r\n250 DSN\r\n", mail, rcpt);
    assert_eq!(
        commands,
        [
            "MAIL FROM:<ann@here.test> RET=HDRS ENVID=QQ+2B1",
            "RCPT TO:<bob@there.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2B@There.test",
            "RCPT TO:<c+d@there.test> NOTIFY=NEVER ORCPT=rfc822;c+2Bd@there.test",
            "RCPT TO:<eve@there.test>"
        ]
    );
    assert!(knows);
    let (commands, knows) = asked("250-p\r\n250 PIPELINING\r\n", mail, rcpt);
    let bare = ["bob@there.test", "c+d@there.test", "eve@there.test"];
    assert_eq!(commands[0], "MAIL FROM:<ann@here.test>");
    assert_eq!(commands[1..], bare.map(|to| format!("RCPT TO:<{to}>")));
    assert!(!knows);
    // Nothing was asked: nothing is, but where the message came from.
    let (commands, _) = asked("250-p\r\n250-PIPELINING\r\n250 DSN\r\n", "", ["", "", ""]);
    assert_eq!(
        commands[..2],
        ["MAIL FROM:<ann@here.test>", "RCPT TO:<bob@there.test> ORCPT=rfc822;bob@there.test",]
    );
}

/// RFC 3461 §5.2.7.1 (b).
#[test]
fn what_was_asked_about_a_message_to_a_list_stays_behind() {
    let peer = Peer::new(|_, line| {
        line.starts_with("EHLO").then(|| say("250-p\r\n250 DSN\r\n")).flatten()
    });
    let mut job = job(smarthost(&[&peer]), &["bob@there.test"], MESSAGE);
    let envelope = Envelope {
        request: MailParameters::parse("RET=HDRS ENVID=QQ1").unwrap().request,
        ..job.message.envelope().clone()
    };
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(MESSAGE).unwrap();
    job.message = Arc::new(StoredMessage::new(file, 0..MESSAGE.len() as u64, envelope));
    job.reverse_path = "<owner@here.test>".parse().unwrap();
    assert_eq!(summary(&relay().deliver(&job)), ["relayed"]);
    let commands = peer.sessions().remove(0).commands;
    assert_eq!(commands[1], "MAIL FROM:<owner@here.test>");
}

#[test]
fn an_old_spool_file_smuggles_nothing() {
    let peer = Peer::polite();
    let content = b"a\n.\nMAIL FROM:<x@y.test>\r.\rb\r\n.\r\nRCPT TO:<z@y.test>\n.\r\nc\r.\r\n\r";
    let outcomes = relay().deliver(&job(smarthost(&[&peer]), &["bob@there.test"], content));
    assert_eq!(summary(&outcomes), ["relayed"]);
    let session = peer.sessions().remove(0);
    assert_eq!(session.commands.iter().filter(|line| line.starts_with("MAIL")).count(), 1);
    let wire = b"a\r\n..\r\nMAIL FROM:<x@y.test>\r\n..\r\nb\r\n..\r\nRCPT TO:<z@y.test>\r\n..\r\n\
                 c\r\n..\r\n\r\n.\r\n";
    assert_eq!(session.contents, [wire.to_vec()]);
}

#[test]
fn a_large_message_arrives_whole() {
    let peer = Peer::polite();
    let content = b"0123456789abcdef0123456789abcdef\r\n.\r\n".repeat(100_000);
    let outcomes = relay().deliver(&job(smarthost(&[&peer]), &["bob@there.test"], &content));
    assert_eq!(summary(&outcomes), ["relayed"]);
    let wire = &peer.sessions()[0].contents[0];
    assert_eq!(wire.len(), content.len() + 100_000 + 3);
}

#[test]
fn each_recipient_has_an_outcome_of_its_own() {
    let peer = Peer::new(|_, line| match line {
        "RCPT TO:<no@there.test>" => say("550-5.1.1 No\0 such\r\n550 5.1.1 user\x1b[2J\r\n"),
        "RCPT TO:<later@there.test>" => say("450 busy\r\n"),
        "RCPT TO:<many@there.test>" => say("452 4.5.3 too many\r\n"),
        _ => None,
    });
    let to = ["no@there.test", "yes@there.test", "later@there.test", "many@there.test"];
    let outcomes = relay().deliver(&job(smarthost(&[&peer]), &to, MESSAGE));
    assert_eq!(summary(&outcomes), ["failed 5.1.1", "relayed", "deferred 4.2.0", "deferred 4.5.3"]);
    let Outcome::Failed(failure) = &outcomes[0].1 else { panic!() };
    let remote = failure.remote.as_ref().unwrap();
    assert_eq!(remote.host, format!("[127.0.0.1]:{}", peer.address().port()));
    assert_eq!(remote.reply, "550 5.1.1 No\\x00 such 5.1.1 user\\x1b[2J");
}

#[test]
fn a_354_without_recipients_sends_no_content() {
    let peer =
        Peer::new(|_, line| line.starts_with("RCPT").then(|| Answer::Say(b"550 no\r\n".to_vec())));
    let relay = relay();
    for _ in 0..2 {
        assert_eq!(deliver_one(&relay, smarthost(&[&peer])), "failed 5.0.0");
    }
    let sessions = peer.sessions();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].contents, [b".\r\n", b".\r\n"]);
}

#[test]
fn a_message_over_the_servers_limit_fails_unsent() {
    let peer = Peer::new(|_, line| {
        line.starts_with("EHLO").then(|| Answer::Say(b"250-p\r\n250 SIZE 20\r\n".to_vec()))
    });
    assert_eq!(deliver_one(&relay(), smarthost(&[&peer])), "failed 5.3.4");
    assert!(peer.sessions()[0].commands.iter().all(|line| !line.starts_with("MAIL")));
}

#[test]
fn a_server_without_extensions_is_served_one_by_one() {
    let peer = Peer::new(|_, line| {
        line.starts_with("EHLO").then(|| Answer::Say(b"502 what\r\n".to_vec()))
    });
    assert_eq!(deliver_one(&relay(), smarthost(&[&peer])), "relayed");
    let commands = &peer.sessions()[0].commands;
    assert_eq!(commands[..3], ["EHLO me.test", "HELO me.test", "MAIL FROM:<ann@here.test>"]);
}

/// A bad first host costs nothing but time: the second one gets the mail, once.
#[test]
fn a_host_that_takes_no_session_gives_way_to_the_next() {
    type Bad = fn(usize, &str) -> Option<Answer>;
    let bad: [Bad; 11] = [
        |_, line| (line == "connect").then_some(Answer::HangUp),
        |_, line| if line == "connect" { say("421 busy\r\n") } else { None },
        |_, line| if line == "connect" { say("450 busy\r\n") } else { None },
        |_, line| if line == "connect" { say("554 go away\r\n") } else { None },
        |_, line| line.starts_with("EHLO").then_some(Answer::HangUp),
        |_, line| if line.starts_with("EHLO") { say("421 busy\r\n") } else { None },
        |_, line| line.starts_with("MAIL").then_some(Answer::HangUp),
        |_, line| if line.starts_with("MAIL") { say("421 busy\r\n") } else { None },
        |_, line| line.starts_with("RCPT").then_some(Answer::HangUp),
        |_, line| if line == "DATA" { say("421 busy\r\n") } else { None },
        |_, line| (line == "DATA").then_some(Answer::HangUp),
    ];
    for (number, manners) in bad.into_iter().enumerate() {
        let (bad, good) = (Peer::new(manners), Peer::polite());
        assert_eq!(deliver_one(&relay(), smarthost(&[&bad, &good])), "relayed", "{number}");
        assert_eq!(good.sessions()[0].contents.len(), 1, "{number}");
        let failure = failure(&relay(), smarthost(&[&bad]));
        assert!(failure.status.is_temporary(), "{number}: {failure:?}");
    }
}

#[test]
fn hostile_replies_are_capped_and_never_bounce() {
    type Bad = fn(usize, &str) -> Option<Answer>;
    let bad: [(Bad, &str); 6] = [
        (|_, line| (line == "connect").then_some(Answer::Endless(b"220-x\r\n")), "4.5.0"),
        (|_, line| line.starts_with("EHLO").then_some(Answer::Endless(b"250-x\r\n")), "4.5.0"),
        (
            |_, line| line.starts_with("MAIL").then_some(Answer::Endless(b"250 xxxxxxxxxxx")),
            "4.5.0",
        ),
        (
            |_, line| {
                if line.starts_with("EHLO") {
                    say([&b"250 "[..], &[b'x'; 1 << 20], b"\r\n"].concat())
                } else {
                    None
                }
            },
            "4.5.0",
        ),
        (|_, line| if line == "connect" { say("hello there\r\n") } else { None }, "4.5.0"),
        (|_, line| if line == "DATA" { say("250 2.0.0 taken, ha\r\n") } else { None }, "4.5.0"),
    ];
    for (number, (manners, status)) in bad.into_iter().enumerate() {
        let peer = Peer::new(manners);
        let failure = failure(&relay(), smarthost(&[&peer]));
        assert_eq!(failure.status.to_string(), status, "{number}: {failure:?}");
        assert!(failure.text.len() < 1000, "{number}");
        assert!(failure.text.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{number}");
    }
}

#[test]
fn silence_and_dripping_end_in_time() {
    type Bad = fn(usize, &str) -> Option<Answer>;
    let bad: [Bad; 6] = [
        |_, line| (line == "connect").then_some(Answer::Silence),
        |_, line| line.starts_with("EHLO").then_some(Answer::Silence),
        |_, line| line.starts_with("RCPT").then_some(Answer::Silence),
        |_, line| (line == "DATA").then_some(Answer::Silence),
        |_, line| (line == ".").then_some(Answer::Silence),
        |_, line| (line == "connect").then_some(Answer::Drip),
    ];
    for (number, manners) in bad.into_iter().enumerate() {
        let peer = Peer::new(manners);
        let began = Instant::now();
        let failure = failure(&impatient(), smarthost(&[&peer]));
        assert_eq!(failure.status.to_string(), "4.4.2", "{number}: {failure:?}");
        assert!(began.elapsed() >= Duration::from_millis(300), "{number}");
        assert_eq!(peer.sessions().len(), 1, "{number}");
    }
}

#[test]
fn a_message_that_may_have_arrived_is_not_sent_elsewhere() {
    let bad = Peer::new(|_, line| (line == ".").then_some(Answer::HangUp));
    let good = Peer::polite();
    assert_eq!(deliver_one(&relay(), smarthost(&[&bad, &good])), "deferred 4.4.2");
    assert_eq!((bad.sessions().len(), good.sessions().len()), (1, 0));
}

#[test]
fn a_refusal_of_the_content_counts() {
    for (reply, expected) in [
        ("550 5.7.1 spam\r\n", "failed 5.7.1"),
        ("451 later\r\n", "deferred 4.3.0"),
        ("421 4.3.2 bye\r\n", "deferred 4.3.2"),
    ] {
        let peer = Peer::new(move |_, line| if line == "." { say(reply) } else { None });
        assert_eq!(deliver_one(&relay(), smarthost(&[&peer])), expected);
    }
}

#[test]
fn a_refusal_in_the_middle_of_the_content_counts_and_the_rest_is_not_sent() {
    let peer = Peer::new(|_, line| {
        let refusal = b"354 go\r\n552 5.3.4 too big\r\n".to_vec();
        (line == "DATA").then_some(Answer::SayAndHangUp(refusal))
    });
    let content = b"0123456789abcdef\r\n".repeat(1_000_000);
    let relay = relay();
    let outcomes = relay.deliver(&job(smarthost(&[&peer]), &["bob@there.test"], &content));
    assert_eq!(summary(&outcomes), ["failed 5.3.4"]);
}

#[test]
fn a_message_that_cannot_be_read_is_cut_off_and_kept() {
    let (peer, other) = (Peer::polite(), Peer::polite());
    let whole = job(smarthost(&[&peer, &other]), &["bob@there.test"], MESSAGE);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(MESSAGE).unwrap();
    let longer = 0..MESSAGE.len() as u64 + 1;
    let message = StoredMessage::new(file, longer, whole.message.envelope().clone());
    let outcomes = relay().deliver(&Job { message: Arc::new(message), ..whole });
    assert_eq!(summary(&outcomes), ["deferred 4.3.0"]);
    assert!(peer.sessions()[0].contents.is_empty());
    assert!(other.sessions().is_empty());
}

#[test]
fn more_recipients_than_fit_go_in_two_transactions() {
    let peer = Peer::polite();
    let to: Vec<String> = (0..1001).map(|n| format!("u{n}@there.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let outcomes = relay().deliver(&job(smarthost(&[&peer]), &to, MESSAGE));
    assert_eq!(summary(&outcomes), vec!["relayed"; 1001]);
    assert!(outcomes.iter().enumerate().all(|(at, outcome)| outcome.0 == 10 + 3 * at));
    assert_eq!(peer.sessions()[0].contents.len(), 2);
}

#[test]
fn a_kept_connection_that_went_bad_is_replaced_once() {
    // Closed while idle, or at the next MAIL, or with a 421 to it.
    type Bad = fn(usize, &str) -> Option<Answer>;
    let bad: [Bad; 3] = [
        |session, line| {
            (session == 0 && line == ".")
                .then(|| Answer::SayAndHangUp(b"250 2.0.0 taken\r\n".to_vec()))
        },
        |session, line| {
            (session == 0 && line.ends_with("SIZE=0 BODY=8BITMIME")).then_some(Answer::HangUp)
        },
        |session, line| match session == 0 && line.ends_with("SIZE=0 BODY=8BITMIME") {
            true => say("421 enough\r\n"),
            false => None,
        },
    ];
    for (number, manners) in bad.into_iter().enumerate() {
        let peer = Peer::new(manners);
        let relay = relay();
        assert_eq!(deliver_one(&relay, smarthost(&[&peer])), "relayed", "{number}");
        let second = job(smarthost(&[&peer]), &["bob@there.test"], b"");
        assert_eq!(summary(&relay.deliver(&second)), ["relayed"], "{number}");
        let sessions = peer.sessions();
        assert_eq!(sessions.len(), 2, "{number}");
        assert_eq!(sessions[1].contents, [b".\r\n"], "{number}");
    }
}

#[test]
fn a_peer_that_speaks_unasked_is_not_used_again() {
    let peer =
        Peer::new(|_, line| if line == "." { say("250 taken\r\n250 and more\r\n") } else { None });
    let relay = relay();
    for _ in 0..2 {
        assert_eq!(deliver_one(&relay, smarthost(&[&peer])), "relayed");
    }
    assert_eq!(peer.sessions().len(), 2);
}

#[test]
fn nobody_listening_defers() {
    let gone = { Peer::polite().address() };
    let host = HostPort { host: Domain::Literal(gone.ip()), port: gone.port() };
    let next_hop = NextHop::Smarthost(Smarthost::new(vec![host], ClientTls::None));
    assert_eq!(deliver_one(&relay(), next_hop), "deferred 4.4.1");
}
