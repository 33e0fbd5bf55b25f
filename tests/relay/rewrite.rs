//! What the next hop gets where `[rewrite]` has something to say, and that nothing else changes.

use std::fs;
use std::process::Command;

use mailwren::config;
use mailwren::config::settings::Settings;
use mailwren::mail::address::ReversePath;
use mailwren::route::rewrite::Rewriter;

use crate::*;

const SIZE: &str = "250-peer.test\r\n250-8BITMIME\r\n250 SIZE\r\n";

fn settings(rewrite: &str) -> Settings {
    let text = format!(
        "[server]\nhostname = pi.home.test\ndomains = home.test\n[relay]\nnetworks = 192.0.2.1\n\
         [rewrite]\n{rewrite}\n"
    );
    config::parse("m.ini", text.as_bytes(), "pi.home.test").unwrap()
}

fn rewriting(rewrite: &str) -> Relay {
    relay().with_rewriter(Rewriter::new(&settings(rewrite)))
}

/// A message with this sender, from this client.
fn mail(next_hop: NextHop, sender: &str, client: &str, content: &[u8]) -> Job {
    let mut job = job(next_hop, &["bob@there.test"], content);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    let mut envelope = job.message.envelope().clone();
    envelope.reverse_path = sender.parse().unwrap();
    envelope.client = client.into();
    job.reverse_path = envelope.reverse_path.clone();
    job.message = Arc::new(StoredMessage::new(file, 0..content.len() as u64, envelope));
    job
}

/// What a next hop is told of a message: MAIL, and the content.
fn told(relay: &Relay, mut job: Job) -> (String, String) {
    let peer = Peer::new(|_, line| line.starts_with("EHLO").then(|| say(SIZE)).flatten());
    job.next_hop = smarthost(&[&peer]);
    assert_eq!(summary(&relay.deliver(&job)), ["relayed"]);
    let session = peer.sessions().remove(0);
    let mail = session.commands.iter().find(|command| command.starts_with("MAIL")).unwrap();
    let content = session.contents[0].strip_suffix(b".\r\n").unwrap();
    (mail.clone(), String::from_utf8_lossy(content).into_owned())
}

fn nowhere() -> NextHop {
    NextHop::Mx("nowhere.test".parse().unwrap())
}

fn told_of(relay: &Relay, sender: &str, client: &str, content: &str) -> (String, String) {
    told(relay, mail(nowhere(), sender, client, content.as_bytes()))
}

const CRON: &str = "Received: x\r\nFrom: root@pi\r\nTo: ann@home.test, zoe@x.test\r\n\
    Subject: Cron <root@pi>\r\n\r\nFrom: root@pi\r\n";

#[test]
fn root_goes_out_as_its_owner() {
    let (said, content) = told_of(&rewriting("sender = me@isp.test"), "<root@pi>", "uid 0", CRON);
    let expected = "X-Original-From: root@pi\r\nReceived: x\r\n\
        From: \"root on pi.home.test\" <me@isp.test>\r\nTo: ann@home.test, zoe@x.test\r\n\
        Subject: Cron <root@pi>\r\n\r\nFrom: root@pi\r\n";
    assert_eq!(content, expected);
    assert_eq!(said, format!("MAIL FROM:<me@isp.test> SIZE={} BODY=8BITMIME", expected.len()));
}

#[test]
fn without_the_section_nothing_changes() {
    let none = relay().with_rewriter(Rewriter::new(&settings("")));
    let (said, content) = told_of(&none, "<root@pi>", "uid 0", CRON);
    assert_eq!(content, CRON);
    assert_eq!(said, format!("MAIL FROM:<root@pi> SIZE={} BODY=8BITMIME", CRON.len()));
}

#[test]
fn what_strangers_wrote_and_what_others_signed_is_passed_on_as_it_is() {
    let relay = rewriting("sender = me@isp.test\nmasquerade = out.test");
    let signed = format!("DKIM-Signature: v=1\r\n{CRON}");
    let report = CRON.replace("root@pi", "MAILER-DAEMON@pi.home.test");
    for (sender, client, message, expected, changes) in [
        ("<root@pi>", "uid 0", CRON, "<me@isp.test>", true),
        ("<root@pi>", "192.0.2.1", CRON, "<me@isp.test>", true),
        ("<root@pi>", "198.51.100.1", CRON, "<root@pi>", false),
        ("<root@pi>", "198.51.100.1 as ann", CRON, "<me@isp.test>", true),
        ("<zoe@x.test>", "198.51.100.1", CRON, "<zoe@x.test>", false),
        ("<zoe@x.test>", "uid 1000", CRON, "<zoe@x.test>", true),
        ("<zoe@x.test>", "uid 1000", &signed, "<zoe@x.test>", false),
        ("<root@pi>", "uid 0", &signed, "<me@isp.test>", true),
        ("<>", "local", &report, "<>", true),
        ("<>", "198.51.100.1", &report, "<>", false),
    ] {
        let (said, content) = told_of(&relay, sender, client, message);
        assert!(
            said.starts_with(&format!("MAIL FROM:{expected} SIZE=")),
            "{sender} {client}: {said}"
        );
        assert_eq!(content != message, changes, "{sender} {client}");
        assert_eq!(content.contains("<me@isp.test>\r\nTo: ann@out.test"), changes, "{content}");
    }
}

#[test]
fn the_owner_of_a_list_is_ours_and_the_author_is_not() {
    let content = "From: zoe@x.test\r\nTo: list@home.test\r\n\r\n";
    let mut job = mail(nowhere(), "<zoe@x.test>", "198.51.100.1", content.as_bytes());
    job.reverse_path = "<owner-list@home.test>".parse::<ReversePath>().unwrap();
    let (said, sent) = told(&rewriting("sender = me@isp.test"), job);
    assert!(said.starts_with("MAIL FROM:<me@isp.test> "), "{said}");
    assert_eq!(sent, content);
}

#[test]
fn every_octet_behind_the_header_section_is_the_same() {
    let relay = rewriting("sender = me@isp.test");
    let header = "From: <root@pi>\r\n";
    let changed = "X-Original-From: <root@pi>\r\nFrom: \"root on pi.home.test\" <me@isp.test>\r\n";
    // Around the blocks in which the section is read, and around its largest size.
    for padding in [0, 1, (16 << 10) - 40, (16 << 10) - 20, (16 << 10) - 19, 20 << 10, 255 << 10] {
        let filler = "X: y\r\n".repeat(padding / 6) + &format!("Z:{}\r\n", "z".repeat(padding % 6));
        let rest = format!("{filler}To: <root>\r\n\r\nTo: <root>\r\n{}", "b\r\n".repeat(30_000));
        let (said, content) = told_of(&relay, "<root@pi>", "uid 0", &format!("{header}{rest}"));
        let expected = format!("{changed}{}", rest.replacen("<root>", "<root@home.test>", 1));
        assert!(content == expected, "{padding}: {:.300}", content);
        assert!(said.contains(&format!(" SIZE={} ", expected.len())), "{padding}: {said}");
    }
    // What stands further behind is left alone.
    let far = format!("{}From: <root@pi>\r\n\r\nbody\r\n", "X: y\r\n".repeat(50_000));
    assert_eq!(
        told_of(&relay, "<root@pi>", "uid 0", &format!("{header}{far}")).1,
        format!("{changed}{far}")
    );
    for message in
        ["", "\r\nFrom: <root@pi>\r\n", "From: root\u{a0}@far.test\r\n", "no field\r\n\r\n"]
    {
        assert_eq!(told_of(&relay, "<root@pi>", "uid 0", message).1, message);
    }
    assert_eq!(told_of(&relay, "<root@pi>", "uid 0", header).1, changed);
}

#[test]
fn mail_waits_for_a_map_that_can_be_read_and_is_tried_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let map = folder.path().join("map");
    fs::write(&map, "root\n").unwrap();
    let relay = rewriting(&format!("map = {}", map.display()));
    let peer = Peer::polite();
    let job = mail(smarthost(&[&peer]), "<root@pi>", "uid 0", CRON.as_bytes());
    let outcomes = relay.deliver(&job);
    let text = match &outcomes[..] {
        [(10, Outcome::Deferred(failure))] => failure.text.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(summary(&outcomes), ["deferred 4.3.5"]);
    assert!(text.contains(&format!("{}:1: give two addresses", map.display())), "{text}");
    assert!(peer.sessions().is_empty());
    fs::write(&map, "root me@isp.test\n").unwrap();
    assert_eq!(summary(&relay.deliver(&job)), ["relayed"]);
    let commands = &peer.sessions()[0].commands;
    assert!(commands.iter().any(|it| it.starts_with("MAIL FROM:<me@isp.test> ")), "{commands:?}");
}

#[test]
fn the_route_says_what_becomes_of_senders() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("mailwren.ini");
    for (rewrite, expected) in [
        ("", None),
        ("sender = me@isp.test", Some("every sender as me@isp.test")),
        (
            "masquerade = out.test\nmap = /m",
            Some("senders as /m says, else every sender at out.test"),
        ),
    ] {
        let text = format!(
            "[server]\nhostname = pi.home.test\n[smarthost]\nhost = a.test\n[rewrite]\n{rewrite}\n"
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailwren"));
        command.arg("--config").arg(&config).args(["route", "bob@there.test"]);
        let said = command.env_remove("MAILWREN_CONFIG").output().unwrap().stdout;
        let said = String::from_utf8(said).unwrap();
        let found = said.lines().nth(1).map(str::to_owned);
        let expected =
            expected.map(|rules| format!("bob@there.test: from this host, {rules} ([rewrite])"));
        assert_eq!(found, expected, "{said}");
    }
}
