//! Who is told what became of a message: RFC 3461 §5.2, rule by rule.

use mailwren::config::settings;
use mailwren::deliver::outcome::RemoteReply;
use mailwren::spool::progress::{Progress, State, Try};

use super::*;

/// The longest that anything is tried or waited for here, but for the delay.
fn usual(queue: &mut settings::Queue) {
    (queue.retry, queue.expire) = (vec![SOON], LATER);
}

pub(crate) fn queue(change: impl FnOnce(&mut settings::Queue)) -> Queue {
    let mut queue = Queue::prepare_with(folder(), |settings| {
        usual(settings);
        change(settings);
    });
    queue.start();
    queue
}

fn announce(queue: &Queue, from: &str, to: &[&str]) -> QueueId {
    let message = queue.keep_asking(from, to, b"Subject: x\r\n\r\nbody\r\n");
    let id = message.envelope().id;
    queue.intake.announce(message);
    id
}

/// The next job, which is a report to sue; its text.
fn report(queue: &Queue) -> String {
    let job = queue.local_job();
    assert_eq!(names(&job), ["sue@home.test"]);
    assert_eq!(job.message.envelope().reverse_path.to_string(), "<>");
    assert_eq!(job.message.envelope().request, Default::default());
    let text = content(&job);
    assert!(text.contains("Auto-Submitted: auto-replied\r\n"), "{text}");
    queue.answer(&job, |_| delivered());
    text
}

/// What a report says of each recipient: `ADDRESS ACTION STATUS`.
pub(crate) fn told(report: &str) -> Vec<String> {
    let value = |line: &str, name: &str| line.strip_prefix(name).map(str::to_owned);
    let mut told: Vec<String> = Vec::new();
    for line in report.lines() {
        if let Some(address) = value(line, "Final-Recipient: rfc822; ") {
            told.push(address);
        }
        let more = value(line, "Action: ").or_else(|| value(line, "Status: "));
        if let (Some(more), Some(last)) = (more, told.last_mut()) {
            last.push_str(&format!(" {more}"));
        }
    }
    told
}

fn knowing() -> Outcome {
    Outcome::Relayed { remote: "there".into(), reply: "250 ok".into(), knows_dsn: true, tls: None }
}

pub(crate) fn unknowing() -> Outcome {
    let remote = "mx.far.test[192.0.2.1]:25".into();
    Outcome::Relayed { remote, reply: "250 2.0.0 taken".into(), knows_dsn: false, tls: None }
}

fn expanded(into: &[&str]) -> Outcome {
    Outcome::Expanded(into.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>().into())
}

#[test]
fn success_is_reported_to_those_who_asked_in_one_report() {
    let queue = queue(|_| ());
    announce(
        &queue,
        "<sue@home.test> ENVID=QQ+2B1 RET=FULL",
        &[
            "ann@home.test NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Ann+2Bx@home.test",
            "bob@home.test",
            "cat@home.test NOTIFY=FAILURE",
            "dan@far.test NOTIFY=SUCCESS",
            "eve@near.test NOTIFY=SUCCESS",
            "fay@far.test",
            "gus@far.test NOTIFY=SUCCESS,FAILURE",
        ],
    );
    let (local, far, near) = (queue.local_job(), queue.relay_job(), queue.relay_job());
    queue.answer(&local, |_| delivered());
    queue.answer(&near, |_| knowing());
    queue.answer(&far, |name| if name.starts_with("gus") { failed() } else { unknowing() });
    let text = report(&queue);
    assert_eq!(
        told(&text),
        [
            "ann@home.test delivered 2.1.5",
            "dan@far.test relayed 2.1.9",
            "gus@far.test failed 5.1.1"
        ]
    );
    for line in [
        "Original-Envelope-Id: QQ+1",
        "Original-Recipient: rfc822;Ann+x@home.test",
        "Remote-MTA: dns; mx.far.test ([192.0.2.1])",
        "Diagnostic-Code: smtp; 250 2.0.0 taken",
    ] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}: {text}");
    }
    assert_eq!(text.matches("Original-Recipient").count(), 1);
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn who_did_not_ask_for_success_hears_nothing_of_it() {
    let queue = queue(|_| ());
    announce(&queue, "<sue@home.test>", &["ann@home.test", "bob@home.test NOTIFY=NEVER"]);
    queue.answer(&queue.local_job(), |_| delivered());
    announce(&queue, "<>", &["ann@home.test NOTIFY=SUCCESS"]);
    queue.answer(&queue.local_job(), |_| delivered());
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn failure_is_not_told_to_those_who_ruled_it_out() {
    let queue = queue(|queue| queue.delay_warning = Some(Duration::ZERO));
    for notify in ["NEVER", "SUCCESS", "DELAY", "SUCCESS,DELAY"] {
        announce(&queue, "<sue@home.test>", &[&format!("ann@home.test NOTIFY={notify}")]);
        queue.answer(&queue.local_job(), |_| failed());
        queue.settle_reports();
    }
    announce(&queue, "<>", &["ann@home.test NOTIFY=NEVER"]);
    queue.answer(&queue.local_job(), |_| failed());
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_delay_is_told_once_and_only_to_those_who_may_hear_it() {
    let queue = queue(|queue| queue.delay_warning = Some(Duration::ZERO));
    let to = ["ann", "bob NOTIFY=DELAY", "cat NOTIFY=FAILURE,SUCCESS", "dan NOTIFY=NEVER"];
    let to = to.map(|to| to.replacen(' ', "@far.test ", 1));
    let to = to.map(|to| if to.contains('@') { to } else { format!("{to}@far.test") });
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let id = announce(&queue, "<sue@home.test> RET=FULL", &to);
    queue.answer(&queue.relay_job(), |_| refused("450 4.2.1 busy"));
    let text = report(&queue);
    assert_eq!(told(&text), ["ann@far.test delayed 4.2.0", "bob@far.test delayed 4.2.0"]);
    assert_eq!(text.matches("\r\nWill-Retry-Until: ").count(), 2);
    assert!(text.contains("\r\nSubject: Delayed mail"), "{text}");
    // RFC 3461 §6.2: only the header, whatever RET says.
    assert!(text.contains("text/rfc822-headers") && !text.contains("body"), "{text}");
    let again = queue.relay_job();
    queue.answer(&again, |_| refused("450 4.2.1 busy"));
    // It is on record, so a new process does not tell it again.
    let last = queue.relay_job();
    assert!(queue.record_of(id).unwrap().is_delay_reported);
    queue.answer(&last, |_| unknowing());
    assert_eq!(told(&report(&queue)), ["cat@far.test relayed 2.1.9"]);
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_delay_is_told_when_it_is_due_and_not_before_the_next_try() {
    let soon = Duration::from_millis(300);
    let queue = queue(|queue| (queue.delay_warning, queue.retry) = (Some(soon), vec![LATER]));
    announce(&queue, "<sue@home.test>", &["ann@home.test"]);
    let mut job = queue.local_job();
    // Twice, unless this machine is so slow that it is late after the first try.
    while names(&job) == ["ann@home.test"] {
        queue.answer(&job, |_| refused("450 busy"));
        job = queue.local_job();
    }
    assert_eq!(told(&content(&job)), ["ann@home.test delayed 4.2.0"]);
    queue.answer(&job, |_| delivered());
    queue.settle_reports();
    assert_eq!(queue.stop(), ["ann@home.test"]);
}

#[test]
fn one_that_was_left_alone_with_its_destination_is_reported_as_that() {
    let queue = queue(|queue| {
        (queue.delay_warning, queue.retry) = (Some(Duration::ZERO), vec![LATER]);
    });
    announce(&queue, "<sue@home.test>", &["ann@far.test"]);
    queue.answer(&queue.relay_job(), |_| out_of_reach());
    assert_eq!(told(&report(&queue)), ["ann@far.test delayed 4.4.1"]);
    announce(&queue, "<sue@home.test>", &["cat@far.test"]);
    let text = report(&queue);
    assert_eq!(told(&text), ["cat@far.test delayed 4.4.0"]);
    assert!(text.contains("Diagnostic-Code: X-mailwren; its host could not be reached"), "{text}");
    assert!(!text.contains("Last-Attempt-Date") && !text.contains("Remote-MTA"), "{text}");
    assert_eq!(queue.stop(), ["ann@far.test", "cat@far.test"]);
}

#[test]
fn no_delay_is_told_where_that_is_turned_off_or_nobody_sent_it() {
    let off = queue(|queue| queue.delay_warning = None);
    let null = queue(|queue| queue.delay_warning = Some(Duration::ZERO));
    for (queue, from) in [(off, "<sue@home.test>"), (null, "<>")] {
        announce(&queue, from, &["ann@home.test"]);
        queue.answer(&queue.local_job(), |_| refused("450 busy"));
        let again = queue.local_job();
        assert_eq!(names(&again), ["ann@home.test"]);
        queue.answer(&again, |_| delivered());
        assert_eq!(queue.stop(), nothing());
    }
}

#[test]
fn an_alias_of_one_is_reported_on_by_the_one() {
    let queue = queue(|_| ());
    let to = ["all@home.test NOTIFY=SUCCESS ORCPT=rfc822;all@home.test"];
    announce(&queue, "<sue@home.test>", &to);
    queue.answer(&queue.local_job(), |_| expanded(&["ann@home.test"]));
    let behind = queue.local_job();
    assert_eq!(behind.recipients[0].request.notify.unwrap().to_string(), "SUCCESS");
    queue.answer(&behind, |_| delivered());
    let text = report(&queue);
    assert_eq!(told(&text), ["ann@home.test delivered 2.1.5"]);
    assert!(text.contains("Original-Recipient: rfc822;all@home.test\r\n"), "{text}");
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn an_alias_of_several_is_reported_on_itself() {
    let queue = queue(|_| ());
    announce(
        &queue,
        "<sue@home.test>",
        &["all@home.test NOTIFY=SUCCESS,FAILURE", "me@home.test NOTIFY=SUCCESS"],
    );
    queue.answer(&queue.local_job(), |name| match &name[..3] {
        "all" => expanded(&["ann@home.test", "bob@far.test"]),
        // In the list already, so nobody behind it could report.
        _ => expanded(&["all@home.test"]),
    });
    let (local, relay) = (queue.local_job(), queue.relay_job());
    for job in [&local, &relay] {
        assert_eq!(job.recipients[0].request.notify.unwrap().to_string(), "FAILURE");
    }
    queue.answer(&local, |_| delivered());
    queue.answer(&relay, |_| failed());
    assert_eq!(
        told(&report(&queue)),
        [
            "all@home.test expanded 2.1.5",
            "me@home.test expanded 2.1.5",
            "bob@far.test failed 5.1.1"
        ]
    );
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_expires_comes_with_the_words_of_the_last_try() {
    let queue = queue(|queue| queue.expire = Duration::ZERO);
    let to = ["ann@far.test", "bob@far.test", "cat@far.test"];
    announce(&queue, "<sue@home.test>", &to);
    queue.answer(&queue.relay_job(), |name| {
        let host = "mx.far.test[192.0.2.1]:25".into();
        let said = |reply: &str| Some(RemoteReply { host, reply: reply.into() });
        Outcome::Deferred(match &name[..3] {
            "ann" => Failure { remote: said("450 4.7.1 greylisted"), ..unreached() },
            "bob" => {
                Failure { status: Status::new(4, 2, 2), remote: said("452 full"), ..unreached() }
            }
            _ => unreached(),
        })
    });
    let text = report(&queue);
    assert_eq!(
        told(&text),
        ["ann@far.test failed 5.4.7", "bob@far.test failed 5.2.2", "cat@far.test failed 5.4.7"]
    );
    for lines in [
        "Remote-MTA: dns; mx.far.test ([192.0.2.1])\r\nDiagnostic-Code: smtp; 450 4.7.1 greylisted",
        "Status: 5.4.7\r\nDiagnostic-Code: X-mailwren; cannot connect",
        "    It was not delivered within a moment. The last try:",
    ] {
        assert!(text.contains(&format!("\r\n{lines}\r\n")), "{lines}: {text}");
    }
    assert_eq!(text.matches("\r\nLast-Attempt-Date: ").count(), 3);
    assert_eq!(queue.stop(), nothing());
}

fn unreached() -> Failure {
    Failure::new(Status::new(4, 4, 1), "cannot connect")
}

#[test]
fn the_message_comes_back_as_ret_and_its_size_allow() {
    let small = b"Subject: x\r\nX: \xe4\r\n\r\nthe body\r\n".to_vec();
    let large = [&small[..], &b"0123456789abcdef0123456789abcdef\r\n".repeat(2000)].concat();
    for (ret, content, enclosed, is_whole) in [
        ("", &small, "message/rfc822\r\nContent-Transfer-Encoding: 8bit", true),
        (" RET=FULL", &small, "message/rfc822", true),
        (" RET=HDRS", &small, "text/rfc822-headers", false),
        ("", &large, "text/rfc822-headers", false),
        (" RET=FULL", &large, "text/rfc822-headers", false),
    ] {
        let queue = queue(|queue| queue.bounce_size = 50 << 10);
        let message =
            queue.keep_asking(&format!("<sue@home.test>{ret}"), &["ann@home.test"], content);
        queue.intake.announce(message);
        queue.answer(&queue.local_job(), |_| failed());
        let bounce = queue.local_job();
        let mut octets = Vec::new();
        bounce.message.reader().read_to_end(&mut octets).unwrap();
        assert_eq!(bounce.message.envelope().body, mailwren::spool::envelope::Body::EightBitMime);
        let text = String::from_utf8_lossy(&octets);
        assert!(text.contains(&format!("Content-Type: {enclosed}")), "{text}");
        assert_eq!(text.contains("the body"), is_whole, "{text}");
        assert_eq!(
            text.contains("too large to come back"),
            content.len() > 1000 && ret != " RET=HDRS"
        );
        let returned = if is_whole { &content[..] } else { b"Subject: x\r\nX: \xe4\r\n" };
        let boundary = text.split("boundary=\"").nth(1).unwrap().split('"').next().unwrap();
        let end = [returned, format!("\r\n--{boundary}--\r\n").as_bytes()].concat();
        assert!(octets.ends_with(&end), "{text}");
        queue.answer(&bounce, |_| delivered());
        assert_eq!(queue.stop(), nothing());
    }
}

fn files(queue: &Queue, folder: &str) -> Vec<String> {
    let folder = queue.folder.path().join("spool").join(folder);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn what_fails_without_a_sender_goes_to_the_postmaster_and_then_to_failed() {
    let queue = queue(|_| ());
    announce(&queue, "<>", &["ann@home.test", "bob@home.test"]);
    queue.answer(
        &queue.local_job(),
        |name| if name.starts_with("ann") { failed() } else { delivered() },
    );
    let told_to = queue.local_job();
    assert_eq!(names(&told_to), ["postmaster@home.test"]);
    assert_eq!(told_to.message.envelope().reverse_path.to_string(), "<>");
    let text = content(&told_to);
    assert_eq!(told(&text), ["ann@home.test failed 5.1.1"]);
    assert!(text.contains("you, the postmaster") && text.contains("\r\nbody\r\n"), "{text}");
    let id = told_to.message.envelope().id.to_string();
    queue.answer(&told_to, |_| failed());
    queue.settle_reports();
    assert_eq!(files(&queue, "failed"), [id.clone(), format!("{id}.state")]);
    assert!(files(&queue, "queue").is_empty() && files(&queue, "state").is_empty());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_fails_without_a_sender_is_kept_where_nobody_wants_it() {
    let queue = queue(|queue| queue.double_bounce = None);
    let mut kept = Vec::new();
    for _ in 0..110 {
        kept.push(announce(&queue, "<>", &["ann@home.test"]).to_string());
        queue.answer(&queue.local_job(), |_| failed());
    }
    queue.settle_reports();
    let names = files(&queue, "failed");
    assert_eq!(names.len(), 200);
    assert!(kept[10..].iter().all(|id| names.contains(id)));
    // The message waits for the others before it goes.
    announce(&queue, "<>", &["ann@home.test", "bob@far.test"]);
    let (local, relay) = (queue.local_job(), queue.relay_job());
    queue.answer(&local, |_| failed());
    queue.answer(&relay, |_| refused("450 later"));
    let again = queue.relay_job();
    assert_eq!(self::names(&again), ["bob@far.test"]);
    queue.answer(&again, |_| unknowing());
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn the_double_bounce_address_may_be_another() {
    let queue = queue(|queue| queue.double_bounce = "ops@far.test".parse().ok());
    announce(&queue, "<>", &["ann@home.test"]);
    queue.answer(&queue.local_job(), |_| failed());
    let told_to = queue.relay_job();
    assert_eq!(names(&told_to), ["ops@far.test"]);
    queue.answer(&told_to, |_| unknowing());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_report_that_is_owed_outlives_the_process_and_nobody_is_tried_again_for_it() {
    let queue = Queue::prepare_with(folder(), usual);
    let to = ["ann@home.test NOTIFY=SUCCESS", "bob@home.test", "cat@far.test"];
    let message = queue.keep_asking("<sue@home.test>", &to, b"Subject: x\r\n\r\n");
    let mut progress = Progress::new(message.envelope());
    for (place, state, status) in [(0, State::Done, "2.0.0"), (1, State::Pending, "5.1.1")] {
        let recipient = &mut progress.recipients[place];
        (recipient.state, recipient.is_report_owed) = (state, true);
        let (status, text) = (status.parse().unwrap(), "no such user".to_owned());
        recipient.last_try = Some(Try { at: 1_795_000_000, status, host: None, text });
    }
    queue.spool.record(message.envelope().id, &progress).unwrap();
    let queue = queue.crash(SOON);
    let relay = queue.relay_job();
    assert_eq!(names(&relay), ["cat@far.test"]);
    queue.answer(&relay, |_| unknowing());
    assert_eq!(
        told(&report(&queue)),
        ["ann@home.test delivered 2.1.5", "bob@home.test failed 5.1.1"]
    );
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_report_that_cannot_be_written_leaves_its_recipients_pending() {
    let mut queue = queue(|_| ());
    let id = announce(&queue, "<sue@home.test>", &["ann@home.test", "bob@home.test"]);
    let job = queue.local_job();
    // Where the folder is gone no file can be made; the message is open already.
    let spool = queue.folder.path().join("spool");
    std::fs::remove_dir_all(spool.join("queue")).unwrap();
    queue.answer(&job, |name| if name.starts_with("ann") { failed() } else { delivered() });
    let record = spool.join("state").join(id.to_string());
    let deadline = std::time::Instant::now() + DEADLINE;
    while !record.exists() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::yield_now();
    }
    let text = std::fs::read_to_string(record).unwrap();
    assert!(text.contains("\npending <ann@home.test>\ntried "), "{text}");
    assert!(text.contains(" 5.1.1 - no such user\nowed\ndone <bob@home.test>\n"), "{text}");
    queue.orders.send(Order::Stop).unwrap();
    queue.thread.take().unwrap().join().unwrap();
    assert!(queue.local.is_empty());
}
