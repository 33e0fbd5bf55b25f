//! Records that are written and read, and those that are none.

use super::*;
use crate::mail::address::ReversePath;
use crate::mail::dsn_request::MessageRequest;
use crate::spool::envelope::Body;
use crate::spool::id::QueueId;
use proptest::prelude::*;

fn envelope(recipients: &[&str]) -> Envelope {
    Envelope {
        id: QueueId::generate(0, 0),
        received_at: 0,
        client: "192.0.2.1".into(),
        reverse_path: ReversePath::Null,
        recipients: recipients.iter().map(|text| recipient(text)).collect(),
        body: Body::SevenBit,
        request: MessageRequest::default(),
    }
}

fn recipient(text: &str) -> Recipient {
    text.parse::<Mailbox>().unwrap().into()
}

#[test]
fn an_expansion_adds_nobody_twice() {
    let mut progress = Progress::new(&envelope(&["root@h", "ann@h"]));
    let into = ["Ann@h", "bob@h", "root@H", "bob@h"];
    let mut known = progress.known();
    let behind = |text: &&str| {
        let to = text.parse::<Mailbox>().unwrap().into();
        RecipientState::pending(to, None, RecipientRequest::default())
    };
    progress.expand(into.iter().map(behind).collect(), &mut known);
    progress.expand(vec![behind(&"BOB@h")], &mut known);
    let names: Vec<_> = progress.recipients.iter().map(|r| r.mailbox.to_string()).collect();
    assert_eq!(names, ["root@h", "ann@h", "bob@h"]);
}

#[test]
fn whose_report_is_owed_is_not_untouched() {
    let mut progress = Progress::new(&envelope(&["ann@h", "bob@h"]));
    let (at, status, text) = (0, Status::new(4, 2, 1), "busy".to_owned());
    progress.note_try(0, Try { at, status, host: None, text });
    assert!(progress.is_untouched());
    progress.recipients[0].is_report_owed = true;
    assert!(!progress.is_untouched());
}

#[test]
fn the_past_has_a_bound() {
    let mut progress = Progress::new(&envelope(&["ann@h"]));
    for at in 0..100 {
        let (status, text) = (Status::new(4, 2, 1), "busy\npast 1 x".to_owned());
        progress.note_try(0, Try { at, status, host: None, text });
    }
    assert_eq!(progress.past.len(), MAX_PAST);
    assert_eq!(progress.past[0].at, 50);
    let read = Progress::parse(&progress.to_text(), &envelope(&["ann@h"])).unwrap();
    assert_eq!(read.past.last().unwrap().text, "ann@h: 4.2.1 busy?past 1 x");
}

#[test]
fn a_record_of_another_message_is_none() {
    let ours = envelope(&["ann@h"]);
    let text = Progress::new(&envelope(&["bob@h"])).to_text();
    assert_eq!(Progress::parse(&text, &ours), None);
    for text in ["", "\n", "mailwren-state 1\n", "mailwren-state 1\nattempts 0\nnext 0\nwaited 0\n"]
    {
        assert_eq!(Progress::parse(text, &ours), None, "{text:?}");
    }
}

#[test]
fn a_record_that_nobody_wrote_is_none() {
    let ours = envelope(&["ann@h"]);
    let head = "mailwren-state 1\nattempts 0\nnext 0\nwaited 0\n";
    let long = format!("pending <b@h>\nway |{}", "x".repeat(1001));
    for (lines, is_record) in [
        ("pending <ann@h>", true),
        ("warned\nwarned <own@h>\npending <ann@h>", true),
        ("pending <ann@h>\npending <b@h>\nway |cmd 'a b'\nsender <own@h>\ntried 1 4.2.1 - x", true),
        ("pending <ann@h>\npending <b@h>\nway \\\npending <b@h>\nway /a b ", true),
        // The envelope's own have neither.
        ("pending <ann@h>\nway |cmd", false),
        ("pending <ann@h>\nsender <own@h>", false),
        ("pending <ann@h>\npending <b@h>\nway cmd", false),
        ("pending <ann@h>\npending <b@h>\nway |", false),
        ("pending <ann@h>\npending <b@h>\nway |a\rb", false),
        ("pending <ann@h>\npending <b@h>\nway |a\nway |b", false),
        ("pending <ann@h>\npending <b@h>\nsender <own@h>\nway |b", false),
        ("pending <ann@h>\npending <b@h>\nsender <>", false),
        ("pending <ann@h>\npending <b@h>\nsender own@h", false),
        ("pending <ann@h>\npending <b@h>\nsender <own@h> x", false),
        ("warned <>\npending <ann@h>", false),
        ("warned <own@h>\nwarned\npending <ann@h>", false),
        ("way |cmd\npending <ann@h>", false),
        ("pending <ann@h>\ngathered 1795003600", true),
        ("pending <ann@h>\ngathered soon", false),
        ("gathered 1\npending <ann@h>", false),
        (&format!("pending <ann@h>\n{long}"), false),
    ] {
        let text = format!("{head}{lines}\n");
        let read = Progress::parse(&text, &ours);
        assert_eq!(read.is_some(), is_record, "{text}");
        if let Some(read) = read {
            assert_eq!(read.to_text(), text);
        }
    }
}

/// Any way that there is.
fn way() -> impl Strategy<Value = Way> {
    let text = |before: &'static str| {
        "[^\\pC]{1,40}".prop_filter_map("it holds a control character", move |text: String| {
            format!("{before}{text}").parse().ok()
        })
    };
    prop_oneof![Just(Way::Routed), Just(Way::User), Just(Way::Mailbox), text("|"), text("/")]
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        attempts in any::<u32>(),
        (next_try, waited, noted, at) in any::<(u64, u64, Option<u64>, u64)>(),
        (is_held, is_given_up, is_delay_reported) in any::<(bool, bool, bool)>(),
        texts in proptest::collection::vec(("[ -~]{0,30}", 0..4usize, 0..3usize), 2),
        added in proptest::collection::vec((way(), proptest::option::of("[a-z]{1,9}")), 0..4),
    ) {
        let mut envelope = envelope(&["ann@h", "\"b> c\"@h"]);
        envelope.recipients[0].request.notify = "NEVER".parse().ok();
        envelope.recipients[1].request.original = "rfc822;x+20y".parse().ok();
        let mut progress = Progress::new(&envelope);
        (progress.attempts, progress.next_try, progress.waited) = (attempts, next_try, waited);
        (progress.noted, progress.is_delay_reported) = (noted, is_delay_reported);
        progress.held = is_held.then(|| Hold { since: at, by: texts[0].0.clone() });
        progress.given_up_by = is_given_up.then(|| texts[1].0.clone());
        for (index, (text, state, tries)) in texts.into_iter().enumerate() {
            progress.recipients[index].state = State::NAMES[state].0;
            progress.recipients[index].is_report_owed = tries == 2;
            progress.recipients[index].gathered_until = (tries == 1).then_some(at);
            for number in 0..tries {
                let host = (number == 0).then(|| "mx[192.0.2.1]:25".to_owned());
                let status = Status::new(4, 4, 1);
                progress.note_try(index, Try { at, status, host, text: text.clone() });
            }
        }
        for (way, owner) in added {
            let owner = owner.map(|owner| format!("{owner}@lists.h").parse().unwrap());
            let to = Addressee { mailbox: "\"b> c\"@h".parse().unwrap(), way };
            let request = envelope.recipients[1].request.clone();
            progress.warned_owners.extend(owner.clone());
            progress.recipients.push(RecipientState::pending(to, owner, request));
        }
        prop_assert_eq!(Progress::parse(&progress.to_text(), &envelope), Some(progress));
    }

    #[test]
    fn random_text_never_panics(text in any::<String>()) {
        let _ = Progress::parse(&text, &envelope(&["ann@h"]));
    }
}
