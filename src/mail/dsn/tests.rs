//! Whole reports, read as programs and people read them.

use super::*;

fn recipient<'a>(mailbox: &'a Mailbox, action: Action, status: &str) -> ReportedRecipient<'a> {
    ReportedRecipient {
        mailbox,
        original: None,
        action,
        status: status.parse().unwrap(),
        is_expired: false,
        text: "no such user",
        remote: None,
        last_attempt: Some("Sun, 22 Nov 2026 03:46:51 +0000".into()),
    }
}

fn report<'a>(to: &'a Mailbox, recipients: Vec<ReportedRecipient<'a>>) -> Report<'a> {
    Report {
        id: "1jt5w0k3q8z4b".into(),
        boundary: "=_1jt5w0k3q8z4b_00ff".into(),
        original_id: "1jt5w0k3q8z4a".into(),
        reporting_host: "mx.home.test".into(),
        to,
        reader: Reader::Sender,
        date: "Sun, 22 Nov 2026 03:46:52 +0000".into(),
        arrival_date: "Sun, 22 Nov 2026 03:46:50 +0000".into(),
        waited_seconds: 4 * 3600,
        will_retry_until: "Fri, 27 Nov 2026 03:46:50 +0000".into(),
        envelope_id: None,
        recipients,
        returned: Returned::Headers,
        is_eight_bit: false,
    }
}

fn whole(report: &Report<'_>, returned: &str) -> String {
    format!("{}{returned}{}", report.head(), report.tail())
}

fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap()
}

#[test]
fn it_has_the_three_parts_and_the_fields_of_the_standard() {
    let (to, bob, cat) = (mailbox("ann@home.test"), mailbox("bob@far.test"), mailbox("c@far.test"));
    let envelope_id = "QQ+2B1".parse().unwrap();
    let original = "rfc822;B+2Bob@far.test".parse().unwrap();
    let refused = ReportedRecipient {
        original: Some(&original),
        remote: Some(("mx.far.test[192.0.2.1]:25", "550 5.7.1 no")),
        ..recipient(&cat, Action::Failed, "5.7.1")
    };
    let all = vec![recipient(&bob, Action::Failed, "5.1.1"), refused];
    let report = Report { envelope_id: Some(&envelope_id), ..report(&to, all) };
    let message = whole(&report, "Subject: x\r\nTo: y\r\n");
    let boundary = "\r\n--=_1jt5w0k3q8z4b_00ff";
    assert_eq!(message.matches(&format!("{boundary}\r\n")).count(), 3);
    assert!(message.ends_with(&format!("Subject: x\r\nTo: y\r\n{boundary}--\r\n")), "{message}");
    let fields = "Original-Envelope-Id: QQ+1\r\n\
        Reporting-MTA: dns; mx.home.test\r\n\
        Arrival-Date: Sun, 22 Nov 2026 03:46:50 +0000\r\n\
        \r\n\
        Final-Recipient: rfc822; bob@far.test\r\n\
        Action: failed\r\n\
        Status: 5.1.1\r\n\
        Diagnostic-Code: X-mailwren; no such user\r\n\
        Last-Attempt-Date: Sun, 22 Nov 2026 03:46:51 +0000\r\n\
        \r\n\
        Original-Recipient: rfc822;B+ob@far.test\r\n\
        Final-Recipient: rfc822; c@far.test\r\n\
        Action: failed\r\n\
        Status: 5.7.1\r\n\
        Remote-MTA: dns; mx.far.test ([192.0.2.1])\r\n\
        Diagnostic-Code: smtp; 550 5.7.1 no\r\n\
        Last-Attempt-Date: Sun, 22 Nov 2026 03:46:51 +0000\r\n";
    assert!(message.contains(&format!("message/delivery-status\r\n\r\n{fields}{boundary}\r\n")));
    for line in ["To: <ann@home.test>", "Auto-Submitted: auto-replied", "You wrote to B+ob@far"] {
        assert!(message.contains(line), "{line}: {message}");
    }
}

#[test]
fn the_owner_of_a_list_is_addressed_as_that() {
    let (to, bob) = (mailbox("own@home.test"), mailbox("bob@far.test"));
    for (action, subject) in [
        (Action::Failed, "Undelivered mail of your list"),
        (Action::Delayed, "Delayed mail: still being tried"),
    ] {
        let all = vec![recipient(&bob, action, "4.4.1")];
        let message =
            whole(&Report { reader: Reader::Owner, ..report(&to, all) }, "Subject: x\r\n");
        assert!(message.contains(&format!("Subject: {subject}\r\n")), "{message}");
        assert!(message.replace("\r\n", " ").contains("you are its owner"), "{message}");
        assert!(!message.contains("Your message"), "{message}");
    }
}

#[test]
fn each_action_is_told_in_fields_and_in_words() {
    let (to, bob) = (mailbox("ann@home.test"), mailbox("bob@far.test"));
    for (action, status, subject, words) in [
        (Action::Failed, "5.1.1", "Undelivered mail", "given up"),
        (Action::Delayed, "4.4.1", "Delayed mail", "until Fri, 27 Nov 2026"),
        (Action::Delivered, "2.1.5", "Delivered mail", "into the mailboxes"),
        (Action::Relayed, "2.1.9", "Relayed mail", "does not report"),
        (Action::Expanded, "2.1.5", "Delivered mail", "stands for several"),
    ] {
        let message = whole(&report(&to, vec![recipient(&bob, action, status)]), "");
        assert!(message.contains(&format!("\r\nSubject: {subject}")), "{message}");
        assert!(message.contains(&format!("\r\nAction: {action}\r\nStatus: {status}\r\n")));
        assert!(message.replace("\r\n", " ").contains(words), "{message}");
        // RFC 3464 §2.3.9 and §2.3.6.
        assert_eq!(message.contains("Will-Retry-Until: "), action == Action::Delayed);
        assert_eq!(message.contains("Diagnostic-Code: "), !status.starts_with('2'));
    }
}

#[test]
fn the_third_part_is_labelled_as_what_it_is() {
    let (to, bob) = (mailbox("ann@home.test"), mailbox("bob@far.test"));
    for (returned, is_eight_bit, label, words) in [
        (Returned::Message, true, "message/rfc822\r\nContent-Transfer-Encoding: 8bit", "message f"),
        (Returned::Headers, false, "text/rfc822-headers\r\nContent-Transfer-Encoding: 7bit", "of"),
        (Returned::HeadersOfLarge, false, "text/rfc822-headers", "too large"),
    ] {
        let failed = vec![recipient(&bob, Action::Failed, "5.1.1")];
        let report = Report { returned, is_eight_bit, ..report(&to, failed) };
        let head = report.head();
        assert!(head.contains(&format!("\r\nContent-Type: {label}")), "{head}");
        assert!(head.contains(words), "{head}");
        // RFC 2045 §6.4: the whole is 8bit where a part is.
        assert_eq!(head.matches("8bit").count(), if is_eight_bit { 2 } else { 0 });
    }
}

#[test]
fn a_text_cannot_add_fields() {
    let (to, bob) = (mailbox("ann@home.test"), mailbox("bob@far.test"));
    let hostile = "x\r\nAction: delivered\r\n\r\n--=_1jt5w0k3q8z4b_00ff--\r\n";
    for remote in [None, Some((hostile, hostile))] {
        let failed = recipient(&bob, Action::Failed, "5.1.1");
        let failed = ReportedRecipient { text: hostile, remote, ..failed };
        let message = whole(&report(&to, vec![failed]), "");
        assert!(!message.contains("\nAction: delivered"));
        assert_eq!(message.matches("\n--=_").count(), 4);
    }
}

#[test]
fn what_this_host_gave_up_its_own_postmaster_is_asked_about() {
    let (to, bob) = (mailbox("ann@home.test"), mailbox("bob@far.test"));
    let ours = "Ask the postmaster of mx.home.test.";
    for (status, remote, is_ours) in [
        ("5.3.0", None, true),
        ("5.3.0", Some(("mx.far.test", "550 5.3.0 no")), false),
        ("5.3.4", None, false),
        ("5.1.1", None, false),
    ] {
        let failed = ReportedRecipient { remote, ..recipient(&bob, Action::Failed, status) };
        let head = report(&to, vec![failed]).head();
        assert_eq!(head.contains(ours), is_ours, "{status}: {head}");
        assert!(head.contains("\r\n<bob@far.test>:\r\n"), "{head}");
    }
    let head = report(&to, vec![recipient(&bob, Action::Delivered, "2.1.5")]).head();
    assert!(head.contains("\r\n<bob@far.test>\r\n"), "nothing follows, so no colon: {head}");
}

#[test]
fn the_postmaster_is_told_why() {
    let (to, bob) = (mailbox("postmaster@home.test"), mailbox("bob@far.test"));
    let failed = vec![recipient(&bob, Action::Failed, "5.1.1")];
    let report = Report { reader: Reader::Postmaster, ..report(&to, failed) };
    assert!(report.head().contains("you, the postmaster"));
}

#[test]
fn the_header_section_is_found_or_cut_at_a_line() {
    for (message, header) in [
        (&b""[..], &b""[..]),
        (b"\r\nbody", b""),
        (b"\r\nbody\r\n\r\nmore", b""),
        (b"A: b\r\n\r\nbody", b"A: b\r\n"),
        (b"A: b\r\nC: cut off", b"A: b\r\n"),
        (b"no line end", b""),
    ] {
        assert_eq!(header_section(message), header);
    }
}
