//! Which mail gets an automatic reply, by the sections of RFC 3834, and that nothing that others
//! wrote becomes more in a reply than a Subject and identifiers.

use super::*;
use proptest::prelude::*;

#[test]
fn replies_go_to_people_only() {
    for (path, expected) in [
        // Section 2: no destination that is null, none that programs use.
        ("<>", Some(Objection::NoSender)),
        ("<bob@x.test>", None),
        ("<bob+owner-x@x.test>", None),
        ("<requester@x.test>", None),
        ("<rooter@x.test>", None),
        ("<\"a b\"@x.test>", None),
        ("<MAILER-DAEMON@x.test>", Some(Objection::RobotSender)),
        ("<root@x.test>", Some(Objection::RobotSender)),
        ("<Root+cron@x.test>", Some(Objection::RobotSender)),
        ("<postmaster@x.test>", Some(Objection::RobotSender)),
        ("<owner-list@x.test>", Some(Objection::RobotSender)),
        ("<list-owner@x.test>", Some(Objection::RobotSender)),
        ("<list-REQUEST@x.test>", Some(Objection::RobotSender)),
        ("<list-bounces@x.test>", Some(Objection::RobotSender)),
        ("<list-bounces+ann=home.test@x.test>", Some(Objection::RobotSender)),
        ("<bounces+123-ann=home.test@x.test>", Some(Objection::RobotSender)),
        ("<list-return-42-ann=home.test@x.test>", Some(Objection::RobotSender)),
        ("<listserv@x.test>", Some(Objection::RobotSender)),
        ("<Majordomo@x.test>", Some(Objection::RobotSender)),
        ("<no-reply@x.test>", Some(Objection::RobotSender)),
        ("<noreply-7@x.test>", Some(Objection::RobotSender)),
        ("<orders-noreply@x.test>", Some(Objection::RobotSender)),
        ("<do_not_reply@x.test>", Some(Objection::RobotSender)),
    ] {
        let found = addressee(&path.parse().unwrap()).err();
        assert_eq!(found, expected, "{path}");
    }
}

#[test]
fn mail_of_programs_and_lists_gets_none() {
    for (header, expected) in [
        ("", None),
        ("Subject: x\r\nFrom: bob@x.test\r\n", None),
        // Section 5: any value but no, whatever comments and parameters stand around it.
        ("Auto-Submitted: no\r\n", None),
        ("auto-submitted: (a \\) (b)) No ; x=auto-replied\r\n", None),
        ("Auto-Submitted:\r\n No\r\n", None),
        ("Auto-Submitted: auto-generated\r\n", Some(Objection::AutoSubmitted)),
        (
            "AUTO-SUBMITTED: (no) auto-replied; owner-email=\"a\"\r\n",
            Some(Objection::AutoSubmitted),
        ),
        ("Auto-Submitted: x-new\r\n", Some(Objection::AutoSubmitted)),
        ("Auto-Submitted:\r\n", Some(Objection::AutoSubmitted)),
        ("Auto-Submitted: no\r\nAuto-Submitted: auto-replied\r\n", Some(Objection::AutoSubmitted)),
        ("Auto-Submitted: none\r\n", Some(Objection::AutoSubmitted)),
        // Section 2: lists and Precedence.
        ("List-Id: x\r\n", Some(Objection::List)),
        ("LIST-UNSUBSCRIBE: <x>\r\n", Some(Objection::List)),
        ("Mailing-List: x\r\n", Some(Objection::List)),
        ("Listening: x\r\n", None),
        ("Precedence: bulk\r\n", Some(Objection::Precedence)),
        ("Precedence: LIST\r\n", Some(Objection::Precedence)),
        ("precedence:junk\r\n", Some(Objection::Precedence)),
        ("Precedence: first-class\r\n", None),
        ("X-Auto-Response-Suppress: DR, OOF\r\n", Some(Objection::Suppressed)),
        ("X-Auto-Response-Suppress: All\r\n", Some(Objection::Suppressed)),
        ("X-Auto-Response-Suppress: DR, RN, NRN\r\n", None),
        ("X-Spam-Flag: YES\r\n", Some(Objection::Spam)),
        ("X-Spam-Flag: NO\r\n", None),
        ("Content-Type: multipart/report; boundary=x\r\n", Some(Objection::Report)),
        ("Content-Type: multipart/mixed; boundary=x\r\n", None),
        // Behind the header section anything may stand.
        ("Subject: x\r\n\r\nPrecedence: bulk\r\n", None),
    ] {
        let message = format!("{header}\r\ntext\r\n");
        assert_eq!(check_header(message.as_bytes(), true).err(), expected, "{header:?}");
        assert_eq!(check_header(message.as_bytes(), false).err(), expected, "{header:?}");
    }
    assert_eq!(check_header(b"A: b\r\nC: d\r\n", true), Ok(()));
    for cut in [&b"A: b\r\nC: d\r\n"[..], b"A: b\r\nC: d", b"A: b\r\nC", b"A: b\r\nno field\r\n"] {
        assert_eq!(check_header(cut, false), Err(Objection::LongHeader));
    }
}

#[test]
fn recipients_are_in_six_fields() {
    let header = b"To: ann, \"X, Y\" <bob@x.test>\r\nFrom: no@x.test\r\ncc: g: c@x.test;\r\n\
        Bcc: d@x.test\r\nResent-To: e@x.test\r\nResent-Cc: f@x.test\r\nResent-Bcc: g@x.test, a@@b\r\n\
        X-To: no@x.test\r\n\r\nTo: no@x.test\r\n";
    let origin = "home.test".parse().unwrap();
    let found = recipients(header, &origin);
    let found: Vec<_> = found.map(|mailbox| mailbox.to_string()).collect();
    let expected = ["ann@home.test", "bob@x.test", "c@x.test", "d@x.test", "e@x.test", "f@x.test"];
    assert_eq!(found, [&expected[..], &["g@x.test"]].concat());
}

fn template(text: &str) -> Result<Template, TemplateError> {
    Template::parse(text.as_bytes(), &"home.test".parse().unwrap())
}

/// What is sent instead of `text` for a message that begins so.
fn reply(text: &str, original: &[u8]) -> String {
    let template = template(text).unwrap();
    let (from, to) = ("ann@home.test".parse().unwrap(), "bob@x.test".parse().unwrap());
    let reply = Reply {
        template: &template,
        from: &from,
        to: &to,
        id: "1",
        host: "mx.home.test",
        date: "Sun, 22 Nov 2026 10:00:00 +0000",
        original,
    };
    reply.message()
}

#[test]
fn a_reply_has_the_fields_of_section_3() {
    let original = b"Message-ID: <m@x.test>\r\nReferences: <a@x.test>\r\n <b@x.test>\r\n\
        Subject: lunch\r\n\r\n";
    let expected = "From: <ann@home.test>\r\nTo: <bob@x.test>\r\nSubject: Auto: lunch\r\n\
        Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@mx.home.test>\r\n\
        In-Reply-To: <m@x.test>\r\nReferences: <a@x.test> <b@x.test> <m@x.test>\r\n\
        Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
        Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\
        \r\nI am away.\r\nAnn\r\n";
    assert_eq!(reply("I am away.\nAnn\n", original), expected);
}

#[test]
fn what_the_user_wrote_is_sent() {
    let original = "Subject: =?utf-8?q?gr=C3=BCn?= x\r\n\r\n".as_bytes();
    for (text, parts) in [
        (
            "Subject: away: $SUBJECT\n\nOn \"$SUBJECT\": later.",
            [
                "\r\nSubject: away: =?utf-8?q?gr=C3=BCn?= x\r\n",
                "\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nOn \"gr=C3=BCn x\": later.\r\n",
            ],
        ),
        (
            "From: J\u{f6}rg <jo@x.test>\nPrecedence: bulk\nReply-To: \"A \\\"b\\\"\" <c>\n\nx\n",
            [
                "From: =?utf-8?q?J=C3=B6rg?= <jo@x.test>\r\nTo:",
                "\r\nReply-To: \"A \\\"b\\\"\" <c@home.test>\r\nSubject: Auto: =?utf-8?q?gr=C3=BCn?= x\r\n",
            ],
        ),
        ("From: ann@x.test\r\n\r\nx\r\ny\r\n", ["From: <ann@x.test>\r\n", "\r\n\r\nx\r\ny\r\n"]),
        ("Note: this is text.\n\nx\n", ["\r\nFrom", "\r\n\r\nNote: this is text.\r\n\r\nx\r\n"]),
        (
            "Subject: also text\nwithout an empty line",
            ["\r\nSubject: Auto: ", "\r\n\r\nSubject: also text\r\nwithout an empty line\r\n"],
        ),
        ("\u{feff}Subject: \u{e4}\n\nx", ["\r\nSubject: =?utf-8?q?=C3=A4?=\r\n", "\r\n\r\nx\r\n"]),
        ("\n\nx", ["7bit\r\n", "\r\n\r\n\r\n\r\nx\r\n"]),
    ] {
        let reply = format!("\r\n{}", reply(text, original));
        for part in parts {
            assert!(reply.contains(part), "{text:?} {part:?} {reply}");
        }
    }
    assert!(reply("x", b"").contains("\r\nSubject: Auto: your message\r\nDate"));
}

#[test]
fn what_cannot_be_sent_says_why() {
    for (text, expected) in [
        (&b""[..], TemplateError::Blank),
        (b" \n\n", TemplateError::Blank),
        (b"Subject: x\n\n \n", TemplateError::Blank),
        (b"gr\xfcn\n", TemplateError::NotUtf8),
        (b"From: a@x.test, b@x.test\n\nx", TemplateError::BadAddress("From")),
        (b"Reply-To: nobody at all\n\nx", TemplateError::BadAddress("Reply-To")),
    ] {
        let found = Template::parse(text, &"home.test".parse().unwrap());
        assert_eq!(found.unwrap_err(), expected, "{}", text.escape_ascii());
    }
}

#[test]
fn a_thread_is_repeated_as_far_as_it_is_one() {
    let ids = |range: std::ops::Range<u32>| {
        range.map(|n| format!("<{n}@x>")).collect::<Vec<_>>().join(" ")
    };
    let long = format!("<{}@x>", "a".repeat(250));
    for (header, expected) in [
        ("Subject: x", None),
        ("Message-ID: none", None),
        ("Message-ID: <a b@x>", None),
        ("Message-ID: <a@x\r\n\tb>", None),
        ("Message-ID: <a\u{e4}@x>", None),
        ("Message-ID: <@x>", None),
        (&format!("Message-ID: {long}"), None),
        ("Message-Id:<a@x> (c)", Some("<a@x>".to_owned())),
        ("Message-ID: <a@x>\r\nIn-Reply-To: <b@x>", Some("<b@x> <a@x>".into())),
        ("Message-ID: <a@x>\r\nIn-Reply-To: <b@x> <c@x>", Some("<a@x>".into())),
        ("Message-ID: <a@x>\r\nReferences: <b@x> <a@x> (<c>", Some("<b@x> <a@x>".into())),
        (
            &format!("Message-ID: <a@x>\r\nReferences: {}", ids(0..100)),
            Some(format!("<0@x> {} <a@x>", ids(82..100))),
        ),
    ] {
        let found = threading::read(format!("{header}\r\n\r\n").as_bytes());
        let found = found.map(|thread| thread.references.join(" "));
        assert_eq!(found, expected, "{header:?}");
    }
}

#[test]
fn a_subject_without_end_is_cut() {
    let subject = |subject: &str| {
        let reply = reply("x", format!("Subject: {subject}\r\n\r\n").as_bytes());
        let at = reply.find("Subject: ").unwrap();
        reply[at + 9..reply.find("\r\nDate:").unwrap()].replace("\r\n ", " ")
    };
    let long = "x".repeat(1 << 20);
    assert_eq!(subject(&long), format!("Auto: {} ...", "x".repeat(200)));
    let words = "word ".repeat(100_000);
    assert_eq!(subject(&words), format!("Auto: {}...", "word ".repeat(40)));
    let encoded = format!("=?koi8-r?q?{}?= ", "x".repeat(60)).repeat(1000);
    assert_eq!(subject(&encoded), format!("Auto: {}...", &encoded[..74 * 2]));
}

/// The fields of a reply by name and the text behind them; checks what every one must be.
fn dissect(reply: &str) -> (Vec<String>, String) {
    let (header, text) = reply.split_once("\r\n\r\n").unwrap();
    assert!(reply.is_ascii() && !reply.replace("\r\n", "").contains(['\r', '\n', '\0']));
    for line in reply.split("\r\n") {
        assert!(line.len() <= 998, "{line}");
        let has_encoded = line.split(' ').any(encoded_word_at);
        assert!(!has_encoded || line.len() <= 76, "{line}");
    }
    let whole = format!("{header}\r\n\r\n");
    let names = header::fields(whole.as_bytes());
    let names = names.map(|field| String::from_utf8(field.name.to_vec()).unwrap());
    (names.collect(), text.to_owned())
}

fn encoded_word_at(word: &str) -> bool {
    crate::mail::encoded_word::is_encoded_word(word)
}

/// Near what breaks out of a field, or looks like one.
const NEAR: &str = "([A-Za-z0-9@<>?=_: \u{e4}\u{202e}]|\r\n|\n|\r|\r\n |\t|\0|\x1b|=\\?utf-8\\?q\\?|=0D=0A|\\?=|\\$SUBJECT|Bcc: x@y|Message-ID: <a@b>){0,60}";

proptest! {
    #[test]
    fn others_add_neither_fields_nor_lines(
        subject in NEAR,
        ids in NEAR,
        octets in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let header = format!("Subject: {subject}\r\nMessage-ID: <i@x>\r\nReferences: {ids}\r\n\r\n");
        for original in [header.as_bytes(), &octets] {
            let (names, text) = dissect(&reply("I am away.\n", original));
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let thread = ["In-Reply-To", "References"];
            let others: Vec<_> = names.iter().copied().filter(|it| !thread.contains(it)).collect();
            prop_assert_eq!(others, [
                "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version",
                "Content-Type", "Content-Transfer-Encoding",
            ]);
            prop_assert!(matches!(names.len(), 9 | 11));
            prop_assert_eq!(text, "I am away.\r\n");
            let (_, text) = dissect(&reply("On $SUBJECT.\n", original));
            prop_assert_eq!(text.replace("=\r\n", "").matches("\r\n").count(), 1, "{}", text);
            prop_assert!(text.starts_with("On ") && text.ends_with(".\r\n"), "{}", text);
        }
    }

    #[test]
    fn whatever_a_user_writes_is_one_message(text in any::<String>(), near in NEAR) {
        for text in [format!("Subject: {near}\nFrom: {near} <a@b.test>\n\n{text}x"), near, text] {
            if let Ok(template) = template(&text) {
                prop_assert!(!template.text.trim().is_empty());
                let (names, _) = dissect(&reply(&text, b"Subject: $SUBJECT\r\n\r\n"));
                prop_assert!(names.len() <= 10);
            }
        }
    }

    #[test]
    fn random_headers_never_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = check_header(&octets, false);
        let origin = "home.test".parse().unwrap();
        prop_assert!(recipients(&octets, &origin).count() <= MAX_NAMED);
    }
}
