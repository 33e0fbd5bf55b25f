//! Which octets change when addresses do, and which never.

use proptest::prelude::*;

use super::*;

/// Ours is `home.test` and every domain of one label. Authors there become `me@isp.test`, but for
/// ann, who keeps her name at another domain, and bob, who has another address; recipients move
/// to `out.test`, but for carl, who stays.
struct Home {
    origin: DomainName,
    template: &'static str,
}

const USUAL: &str = "{user} on {host}";

fn home(template: &'static str) -> Home {
    Home { origin: "home.test".parse().unwrap(), template }
}

fn is_ours(mailbox: &Mailbox) -> bool {
    let domain = mailbox.domain().to_string();
    domain == "home.test" || !domain.contains('.')
}

fn at(mailbox: &Mailbox, domain: &str) -> Mailbox {
    Mailbox::new(mailbox.local_part().clone(), domain.parse().unwrap())
}

impl Renaming for Home {
    fn origin(&self) -> &DomainName {
        &self.origin
    }

    fn author(&self, mailbox: &Mailbox) -> Option<NewAuthor> {
        let (mailbox, change) = match mailbox.local_part().as_str() {
            _ if !is_ours(mailbox) => return None,
            "ann" => (at(mailbox, "out.test"), Change::Domain),
            "bob" => ("robert@isp.test".parse().unwrap(), Change::Address),
            _ => ("me@isp.test".parse().unwrap(), Change::OneForAll),
        };
        Some(NewAuthor { mailbox, change })
    }

    fn recipient(&self, mailbox: &Mailbox) -> Option<Mailbox> {
        let moves = is_ours(mailbox) && mailbox.local_part().as_str() != "carl";
        moves.then(|| at(mailbox, "out.test"))
    }

    fn template(&self) -> Template<'_> {
        Template { text: self.template, host: "pi.home.test" }
    }
}

/// The whole message as it goes out.
fn sent(message: &[u8], is_whole: bool, renaming: &Home) -> Vec<u8> {
    match rewrite(message, is_whole, renaming, None) {
        Some(Rewritten { mut fields, replaced }) => {
            fields.extend_from_slice(&message[replaced..]);
            fields
        }
        None => message.to_vec(),
    }
}

fn check(template: &'static str, message: &str, expected: &str) {
    let found = sent(message.as_bytes(), true, &home(template));
    assert_eq!(String::from_utf8_lossy(&found), expected, "{message}");
}

/// How a field with this body goes out, without the trace.
fn check_field(template: &'static str, name: &str, body: &str, expected: &str) {
    let message = format!("Subject: root\r\n{name}:{body}\r\n\r\n{name}: root\r\n");
    let found = sent(message.as_bytes(), true, &home(template));
    let found = String::from_utf8_lossy(&found);
    let found = match found.strip_prefix("X-Original-") {
        Some(_) => found.split_once("\r\nSubject").map(|(_, rest)| format!("Subject{rest}")),
        None => Some(found.into_owned()),
    };
    let expected = format!("Subject: root\r\n{name}:{expected}\r\n\r\n{name}: root\r\n");
    assert_eq!(found, Some(expected), "{name}:{body}");
}

#[test]
fn an_author_gets_the_one_address_and_the_host_in_the_name() {
    for (body, expected) in [
        (" root@pi", " \"root on pi.home.test\" <me@isp.test>"),
        (" <root@pi>", " \"root on pi.home.test\" <me@isp.test>"),
        ("root", "\"root on pi.home.test\" <me@isp.test>"),
        (" root <root@home.test>", " \"root on pi.home.test\" <me@isp.test>"),
        (" \"Root\" <root@pi>", " \"root on pi.home.test\" <me@isp.test>"),
        (" root@pi (root)", " \"root on pi.home.test\" <me@isp.test>"),
        // A comment is no display name.
        (" root@pi (Cron Daemon)", " \"root on pi.home.test\" <me@isp.test>"),
        (" Cron Daemon <root@pi>", " Cron Daemon <me@isp.test>"),
        (" \"Cron, D.\" <root@pi> (x)", " \"Cron, D.\" <me@isp.test> (x)"),
        (" =?utf-8?q?J=C3=B6?= <root@pi>", " =?utf-8?q?J=C3=B6?= <me@isp.test>"),
        (" J\u{f6}rg <root@pi>", " J\u{f6}rg <me@isp.test>"),
        (" (x) root@pi", " (x) me@isp.test"),
        ("\r\n\t< root@pi >\r\n\t(x)", "\r\n\t\"root on pi.home.test\" <me@isp.test>"),
        (" <root@pi", " <me@isp.test"),
        (" <@r.test:root@pi>", " <@r.test:me@isp.test>"),
        (" zoe@x.test, <zoe@y.test>", " zoe@x.test, <zoe@y.test>"),
        (" ann@pi, zoe@x.test", " ann@out.test, zoe@x.test"),
        (" Bob <bob>", " Bob <robert@isp.test>"),
        (
            " staff: zoe@x.test, root@pi;",
            " staff: zoe@x.test, \"root on pi.home.test\" <me@isp.test>;",
        ),
        (" \"a b\"@pi", " \"a b on pi.home.test\" <me@isp.test>"),
    ] {
        check_field(USUAL, "From", body, expected);
        check_field(USUAL, "resent-FROM ", body, expected);
    }
}

#[test]
fn a_template_may_ask_for_the_name_too() {
    for (body, expected) in [
        (" root@pi", " \"root at pi.home.test\" <me@isp.test>"),
        (" root@pi (Cron\r\n Daemon)", " \"Cron Daemon at pi.home.test\" <me@isp.test>"),
        (" <root@pi>(Cron Daemon) ", " \"Cron Daemon at pi.home.test\" <me@isp.test> "),
        (" Cron Daemon <root@pi>", " \"Cron Daemon at pi.home.test\" <me@isp.test>"),
        (" =?x?q?y?= <root@pi>", " =?x?q?y?= \"at pi.home.test\" <me@isp.test>"),
        (" \"(Cron Daemon)\" <root>", " \"(Cron Daemon) at pi.home.test\" <me@isp.test>"),
        (" \"a \\\"(\" <root>", " \"a \\\"( at pi.home.test\" <me@isp.test>"),
        // What is out of the ordinary keeps its octets.
        (" \"a\" (x) <root@pi>", " \"a\" (x) <me@isp.test>"),
        (" Cron (x) <root@pi>", " Cron (x) <me@isp.test>"),
        (" root@pi (Cron (x))", " me@isp.test (Cron (x))"),
        (" root@pi (=?x?q?y?=)", " me@isp.test (=?x?q?y?=)"),
        (" J <root@pi> (x)", " J <me@isp.test> (x)"),
    ] {
        check_field("{name} at {host}", "From", body, expected);
    }
    check_field("", "From", " root@pi", " me@isp.test");
}

#[test]
fn other_authors_get_no_name_and_recipients_keep_theirs() {
    for name in ["Sender", "Reply-To", "Resent-Sender", "Disposition-Notification-To"] {
        check_field(USUAL, name, " root@pi, Ann <ann>", " me@isp.test, Ann <ann@out.test>");
    }
    for name in ["To", "cc", "Resent-To", "Resent-Cc"] {
        for (body, expected) in [
            (" root@pi,\r\n\tzoe@x.test", " root@out.test,\r\n\tzoe@x.test"),
            (" Root <root>, \"a b\"", " Root <root@out.test>, \"a b\"@out.test"),
            (" carl, carl@pi", " carl@home.test, carl@pi"),
            (" root @ pi, root@pi@x, a b@pi, \"", " root @ pi, root@pi@x, a b@pi, \""),
            (" undisclosed-recipients:;", " undisclosed-recipients:;"),
        ] {
            check_field(USUAL, name, body, expected);
        }
    }
    for name in ["Bcc", "Return-Path", "Subject", "X-From", "Message-ID"] {
        check_field(USUAL, name, " <root@pi>", " <root@pi>");
    }
}

#[test]
fn what_from_said_is_kept_in_front() {
    check(
        USUAL,
        "Received: x\r\nFrom: root\r\n (Cron\r\n Daemon)\r\nFrom:bob@pi\r\n\r\nbody",
        "X-Original-From: root\r\n (Cron\r\n Daemon)\r\nX-Original-From: bob@pi\r\nReceived: x\r\n\
         From: \"root on pi.home.test\" <me@isp.test>\r\nFrom:robert@isp.test\r\n\r\nbody",
    );
    // Another domain still says who it is; nothing is lost with another Sender.
    for field in ["From: ann@pi", "From: zoe@x.test", "Sender: root@pi", "Resent-From: bob@pi"] {
        let message = format!("{field}\r\n\r\n");
        let found = sent(message.as_bytes(), true, &home(USUAL));
        assert!(!found.starts_with(b"X-"), "{field}");
    }
    let long = format!("From: root@pi{}\r\n\r\n", ",\r\n zoe@x.test".repeat(MAX_TRACE / 13));
    assert!(sent(long.as_bytes(), true, &home(USUAL)).starts_with(b"From: \"root on"));
}

/// What a From with this body becomes in a message that `sender` has sent.
fn check_stand_in(template: &'static str, sender: &str, body: &str, expected: Option<&str>) {
    let message = format!("From:{body}\r\n\r\nFrom: x y\r\n");
    let sender = sender.parse().ok();
    let found = rewrite(message.as_bytes(), true, &home(template), sender.as_ref());
    let found = found.map(|it| String::from_utf8(it.fields).unwrap());
    let expected = expected.map(|expected| match body.trim() {
        "" => format!("From:{expected}{body}\r\n"),
        _ => format!("X-Original-From: {}\r\nFrom:{expected}\r\n", body.trim_start()),
    });
    assert_eq!(found, expected, "{body:?}");
}

#[test]
fn who_sent_it_stands_for_an_author_whose_address_cannot_be_read() {
    for (body, expected) in [
        (" Cron Daemon", Some(" \"Cron Daemon on pi.home.test\" <me@isp.test>")),
        (" \"My Site\" <>", Some(" \"My Site on pi.home.test\" <me@isp.test>")),
        (" root@", Some(" \"root@ on pi.home.test\" <me@isp.test>")),
        (" 'root@pi'", Some(" \"'root@pi' on pi.home.test\" <me@isp.test>")),
        (" root @\r\n pi", Some(" \"root @ pi on pi.home.test\" <me@isp.test>")),
        (" root(x)@home.test", Some(" \"root(x)@home.test on pi.home.test\" <me@isp.test>")),
        (" =?utf-8?q?J=C3=B6?=", Some(" =?utf-8?q?J=C3=B6?= \"on pi.home.test\" <me@isp.test>")),
        (" j\u{f6}@pi", Some(" =?utf-8?q?j=C3=B6=40pi?= \"on pi.home.test\" <me@isp.test>")),
        ("", Some("\"root on pi.home.test\" <me@isp.test>")),
        ("\r\n ", Some("\"root on pi.home.test\" <me@isp.test>")),
        // Somebody's all the same, or said well enough.
        (" zoe @ x.test", None),
        (" j\u{f6}@x.test", None),
        (" zoe@x.test, My Site", None),
    ] {
        check_stand_in("{name} on {host}", "root@pi", body, expected);
    }
    check_stand_in(USUAL, "root@pi", " <>", Some(" \"root on pi.home.test\" <me@isp.test>"));
    check_stand_in(USUAL, "root@pi", " My Site", Some(" \"My Site\" <me@isp.test>"));
    check_stand_in("", "root@pi", " ,", Some(" \",\" <me@isp.test>"));
    check_stand_in(USUAL, "ann@pi", " My Site", Some(" \"My Site\" <ann@out.test>"));
    check_stand_in(USUAL, "zoe@x.test", " My Site", None);
    check_stand_in(USUAL, "", " My Site", None);
    let resent = b"Resent-From: zoe@x.test\r\nFrom: My Site\r\n\r\n";
    let sender = "root@pi".parse().unwrap();
    assert_eq!(rewrite(resent, true, &home(USUAL), Some(&sender)), None);
}

#[test]
fn only_fields_are_looked_at_and_only_whole_ones() {
    for message in
        ["", "\r\nFrom: root\r\n", "no field\r\nFrom: root\r\n", "From root\r\nTo: x\r\n"]
    {
        check(USUAL, message, message);
    }
    check(USUAL, "To: root", "To: root@out.test");
    check(USUAL, "To: a\r\nbad\r\nTo: b\r\n", "To: a@out.test\r\nbad\r\nTo: b\r\n");
    let cut = b"To: a\r\nTo: b,\r\n c";
    assert_eq!(sent(cut, false, &home(USUAL)), b"To: a@out.test\r\nTo: b,\r\n c");
    assert_eq!(rewrite(&cut[..7], false, &home(USUAL), None), None);
    let cut = b"To: a\r\n\r\nTo: b";
    assert_eq!(sent(cut, false, &home(USUAL)), b"To: a@out.test\r\n\r\nTo: b");
}

#[test]
fn lines_stay_short_enough_and_sections_small_enough() {
    let many = format!("To: <root>{}\r\n\r\n", ",<root>".repeat(140));
    let found = sent(many.as_bytes(), true, &home(USUAL));
    assert!(line_lengths(&found).max() <= Some(MAX_LINE));
    assert_eq!(address_list::read(&found).specs.len(), 141);
    let huge = format!("To: r{}\r\n\r\n", ",\r\n r".repeat(100_000));
    let found = sent(huge.as_bytes(), true, &home(USUAL));
    assert!(found.len() > huge.len() && found.len() <= huge.len() + MAX_GROWTH);
    assert!(found.ends_with(b",\r\n r\r\n\r\n"));
}

#[test]
fn a_signature_is_seen() {
    assert!(is_signed(b"A: b\r\ndkim-signature : v=1\r\n\r\n"));
    assert!(!is_signed(b"A: b\r\n\r\nDKIM-Signature: v=1\r\n"));
}

/// The addresses of a field as they should go out.
fn expected_specs(field: &Field<'_>, renaming: &Home) -> Vec<String> {
    let is_one_of = |names: &[&str]| names.iter().any(|name| field.is_named(name));
    let new = |spec: Spec| {
        let whole = &field.body[spec.span.clone()] == spec.text.as_bytes();
        let Ok(old) = address_list::complete(&spec.text, &renaming.origin) else {
            return spec.text;
        };
        let new = match () {
            () if !whole => return spec.text,
            () if is_one_of(&AUTHOR_FIELDS) => renaming.author(&old).map(|new| new.mailbox),
            () if is_one_of(&RECIPIENT_FIELDS) => renaming.recipient(&old),
            () => return spec.text,
        };
        let completed = spec.text.parse::<Mailbox>().is_err().then_some(old);
        new.or(completed).map_or(spec.text, |new| new.to_string())
    };
    address_list::read(field.body).specs.into_iter().map(new).collect()
}

fn specs(field: &Field<'_>) -> Vec<String> {
    address_list::specs(field.body)
}

proptest! {
    #[test]
    fn a_stand_in_can_be_read(
        body in "([a-z@<>()\"\\\\,;: \u{f6}\0.]|=\\?utf-8\\?q\\?=0D=0Ax\\?=|\r\n ){0,20}",
        template in prop::sample::select(vec!["", "{user} on {host}", "{name} on {host}"]),
    ) {
        let (message, sender) = (format!("From: {body}\r\n\r\n"), "root@pi".parse().unwrap());
        if rewrite(message.as_bytes(), true, &home(template), None).is_none()
            && let Some(found) = rewrite(message.as_bytes(), true, &home(template), Some(&sender))
        {
            let from: Vec<_> =
                header::fields(&found.fields).filter(|field| field.is_named("From")).collect();
            prop_assert_eq!(from.len(), 1);
            let list = address_list::read(from[0].body);
            prop_assert!(list.is_certain);
            prop_assert_eq!(address_list::specs(from[0].body), ["me@isp.test"]);
            prop_assert!(header::fields(&found.fields).count() <= 2);
        }
    }

    #[test]
    fn other_fields_and_the_body_keep_every_octet(
        fields in "((From|To|CC|Sender|Subject|X-Original-From)[ ]{0,2}:\
            (root|ann|bob|carl|@pi|@home\\.test|@x\\.test|[,:;<>()\"\\\\@ .\u{f6}]|\r\n[ \t]){0,12}\r\n){0,4}",
        padding in "[ x]{0,40}",
        body in "(\r\n)?[a:\r\n ]{0,10}",
        template in prop::sample::select(vec!["", "{user} on {host}", "{name} on {host}", "{name} \u{fc}", "{name}{name}"]),
    ) {
        let renaming = home(template);
        let message = format!("{fields}To: {}root\r\n{body}", padding.repeat(30));
        let found = sent(message.as_bytes(), true, &renaming);
        let mut before = header::fields(message.as_bytes());
        let mut after = header::fields(&found);
        let traced: Vec<_> = before.clone().filter(|field| {
            let is_other = |spec: String| {
                address_list::complete(&spec, &renaming.origin)
                    .is_ok_and(|old| renaming.author(&old).is_some_and(|new| new.change != Change::Domain))
            };
            let whole = address_list::read(field.body).specs.into_iter()
                .filter(|spec| field.body[spec.span.clone()] == *spec.text.as_bytes());
            field.is_named("From") && whole.map(|spec| spec.text).any(is_other)
        }).collect();
        for field in traced {
            let trace = after.next().unwrap();
            prop_assert_eq!(trace.name, TRACE.as_bytes());
            prop_assert_eq!(trace.body.trim_ascii_start(), field.body.trim_ascii_start());
        }
        for field in before.by_ref() {
            let new = after.next().unwrap();
            prop_assert_eq!(new.name, field.name);
            prop_assert_eq!(specs(&new), expected_specs(&field, &renaming));
            if specs(&new) == specs(&field) {
                prop_assert_eq!(new.body, field.body);
            }
        }
        prop_assert_eq!(after.next(), None);
        prop_assert_eq!(after.rest(), before.rest());
        let longest = line_lengths(message.as_bytes()).max().unwrap_or_default();
        prop_assert!(line_lengths(&found).max().unwrap_or_default() <= longest.max(MAX_LINE));
        let bare = String::from_utf8_lossy(&found).replace("\r\n", "");
        let bare_before = message.replace("\r\n", "");
        let count = |text: &str| text.matches(['\r', '\n']).count();
        prop_assert_eq!(count(&bare), count(&bare_before));
    }

    #[test]
    fn random_octets_never_panic(
        message in any::<Vec<u8>>(),
        body in any::<Vec<u8>>(),
        is_whole: bool,
    ) {
        let field = [b"From:", body.as_slice()].concat();
        let sender = "root@pi".parse().unwrap();
        for message in [message, field] {
            let _ = sent(&message, is_whole, &home(USUAL));
            let _ = rewrite(&message, is_whole, &home(USUAL), Some(&sender));
        }
    }
}
