//! A flood of messages becomes one: which ones, when, what is in it, and that none is
//! lost or comes twice. The tests are the lanes; where a window has to end, they have the whole
//! queue tried, which ends it.

use std::fs;

use mailwren::deliver::outcome::Outcome;
use mailwren::mail::address::Mailbox;
use mailwren::route::addressee::Expansion;
use mailwren::spool::envelope::{Body, Envelope};
use mailwren::spool::hands::{Change, Hands};
use mailwren::spool::progress::Hold;

use super::played_queue::*;
use super::*;

const ROOT: &str = "<root@home.test>";
const ME: &str = "me@far.test";
const ANSWER: &str = "Subject: [PATCH 1/30] x\r\nIn-Reply-To: <0@x>\r\n";
const CRON: &str = "Subject: Cron <root@pi> backup\r\nX-Cron-Env: <SHELL=/bin/sh>\r\n";

/// A queue that sends two of a window by themselves, and returns a small message whole.
fn prepared(folder: tempfile::TempDir, window: Duration) -> Queue {
    let mut queue = Queue::prepare_as(folder, "[smarthost]\nhost = relay.test\n", |settings| {
        (settings.queue.retry, settings.queue.expire) = (vec![SOON], LATER);
        (settings.digest.burst, settings.digest.window) = (2, window);
        settings.queue.bounce_size = 1000;
    });
    queue.start();
    queue
}

fn queue() -> Queue {
    prepared(folder(), LATER)
}

fn send_as(queue: &Queue, from: &str, to: &str, header: &str, body: &str) -> QueueId {
    let content = format!("{header}\r\n{body}\r\n");
    let message = queue.keep_asking(from, &[to], content.as_bytes());
    let id = message.envelope().id;
    queue.intake.announce(message);
    id
}

fn send(queue: &Queue, body: &str) -> QueueId {
    send_as(queue, ROOT, ME, CRON, body)
}

/// Uses up what may go by itself.
fn burst(queue: &Queue) {
    for number in 0..2 {
        send(queue, &format!("single {number}"));
        let job = queue.relay_job();
        assert!(content(&job).contains(&format!("single {number}")));
        queue.answer(&job, |_| relayed());
    }
}

/// Sends more messages than may go by themselves, which do so all the same.
fn send_singles(queue: &Queue, header: &str) {
    for _ in 0..4 {
        let id = send_as(queue, ROOT, ME, header, "x");
        let job = queue.relay_job();
        assert_eq!(job.message.envelope().id, id);
        queue.answer(&job, |_| relayed());
    }
}

/// Waits until a message waits with others.
fn wait_gathered(queue: &Queue, id: QueueId) {
    let deadline = std::time::Instant::now() + DEADLINE;
    let is_gathered = |progress: mailwren::spool::progress::Progress| {
        progress.recipients.iter().any(|it| it.gathered_until.is_some())
    };
    while !queue.record_of(id).is_some_and(is_gathered) {
        assert!(std::time::Instant::now() < deadline, "{id} was not gathered");
        std::thread::yield_now();
    }
}

fn gathered(queue: &Queue, bodies: &[&str]) -> Vec<QueueId> {
    let ids: Vec<_> = bodies.iter().map(|body| send(queue, body)).collect();
    ids.iter().for_each(|id| wait_gathered(queue, *id));
    ids
}

/// Ends the window; the digest, relayed.
fn digest(queue: &Queue) -> String {
    queue.orders.send(Order::RetryAll).unwrap();
    take_digest(queue)
}

fn take_digest(queue: &Queue) -> String {
    let job = queue.relay_job();
    assert_eq!((names(&job), job.reverse_path.to_string()), (vec![ME.to_owned()], ROOT.to_owned()));
    queue.answer(&job, |_| relayed());
    content(&job)
}

fn bodies(digest: &str) -> Vec<&str> {
    assert!(digest.contains("Content-Type: multipart/digest; "), "{digest}");
    digest.lines().filter_map(|line| line.strip_prefix("body ")).collect()
}

fn hands(queue: &Queue) -> Hands {
    Hands::open(&queue.folder.path().join("spool")).unwrap()
}

#[test]
fn what_comes_on_top_goes_out_as_one() {
    let queue = queue();
    burst(&queue);
    gathered(&queue, &["body 0", "body 1", "body 2"]);
    queue.settle_reports();
    assert!(queue.relay.is_empty());
    let text = digest(&queue);
    assert_eq!(bodies(&text), ["0", "1", "2"]);
    for line in [
        "From: <root@home.test>",
        "To: <me@far.test>",
        "Subject: [mx.home.test] 3 messages: Cron <root@pi> backup",
        "Auto-Submitted: auto-generated",
    ] {
        assert!(text.contains(&format!("{line}\r\n")), "{line}: {text}");
    }
    assert_eq!(text.matches(CRON).count(), 3);
    queue.settle_reports();
    // The flood goes on: nothing of the next window is a burst again. And a digest is never
    // gathered.
    gathered(&queue, &["body 3", "body 4"]);
    assert_eq!(bodies(&digest(&queue)), ["3", "4"]);
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_window_ends_by_itself() {
    let queue = prepared(folder(), Duration::from_secs(1));
    let sent: Vec<_> = (0..50).map(|number| format!("{number}")).collect();
    for number in &sent {
        send(&queue, &format!("body {number}"));
    }
    let (mut came, mut digests) = (Vec::new(), 0);
    // However slow this machine is, each comes once, and not all by themselves.
    while came.len() < sent.len() {
        let job = queue.relay_job();
        let text = content(&job);
        digests += usize::from(text.contains("multipart/digest"));
        came.extend(text.lines().filter_map(|line| line.strip_prefix("body ")).map(str::to_owned));
        queue.answer(&job, |_| relayed());
    }
    came.sort_by_key(|number| number.parse::<u32>().unwrap());
    assert_eq!(came, sent);
    assert!(digests > 0);
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_a_sender_of_ours_wrote_is_gathered_but_for_conversations() {
    let queue = queue();
    // They do not use up what may go by itself either.
    send_singles(&queue, ANSWER);
    burst(&queue);
    send_singles(&queue, ANSWER);
    for (from, to, header) in [
        // Other senders, another recipient.
        ("<me@else.test>", ME, CRON),
        ("<>", ME, CRON),
        ("<ann@home.test>", ME, CRON),
        (ROOT, "you@far.test", CRON),
        // Somebody wants to hear of its arrival.
        (ROOT, "me@far.test NOTIFY=SUCCESS", CRON),
    ] {
        for _ in 0..2 {
            let id = send_as(&queue, from, to, header, "x");
            let job = queue.relay_job();
            assert_eq!(job.message.envelope().id, id);
            let outcome = Outcome::Relayed {
                remote: "there".into(),
                reply: "250 ok".into(),
                knows_dsn: true,
                tls: None,
            };
            queue.answer(&job, |_| outcome.clone());
        }
    }
    // Whatever says nothing of itself, behind an alias too.
    let failed = send_as(&queue, ROOT, ME, "Subject: failed\r\n", "body failed");
    wait_gathered(&queue, failed);
    let id = send_as(&queue, ROOT, "root@home.test", "Subject: disk full\r\n", "body alias");
    queue.answer(&queue.local_job(), |_| {
        Outcome::Expanded(Expansion::from(vec![ME.parse::<Mailbox>().unwrap()]))
    });
    wait_gathered(&queue, id);
    gathered(&queue, &["body cron"]);
    assert_eq!(bodies(&digest(&queue)), ["failed", "alias", "cron"]);
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_sender_of_this_host_is_one_whatever_the_address() {
    let queue = queue();
    for (client, from) in [
        // As mail(1) of some packages writes it, where the domain is another one.
        ("local", "<root@mx.home.test>"),
        ("local", "<root@raspberrypi>"),
        // A script that sends as its owner, as the provider wants it.
        ("uid 0", "<me@far.test>"),
    ] {
        let send = |body: &str| {
            let drafted = queue.draft(from, &[ME]);
            let envelope = Envelope { client: client.into(), ..drafted.envelope().clone() };
            let mut draft = queue.spool.draft(envelope);
            draft.write(format!("{CRON}\r\n{body}\r\n").as_bytes()).unwrap();
            let message = draft.commit().unwrap().1;
            let id = message.envelope().id;
            queue.intake.announce(message);
            id
        };
        for _ in 0..2 {
            send("single");
            let job = queue.relay_job();
            queue.answer(&job, |_| relayed());
        }
        ["body 0", "body 1"].into_iter().map(send).for_each(|id| wait_gathered(&queue, id));
        queue.orders.send(Order::RetryAll).unwrap();
        let job = queue.relay_job();
        assert_eq!(job.reverse_path.to_string(), from);
        assert_eq!(bodies(&content(&job)), ["0", "1"], "{from}");
        queue.answer(&job, |_| relayed());
        queue.settle_reports();
    }
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn without_a_smarthost_or_a_burst_nothing_is_gathered() {
    for (more, burst) in [("", 1), ("[smarthost]\nhost = relay.test\n", 0)] {
        let mut queue = Queue::prepare_as(folder(), more, |settings| settings.digest.burst = burst);
        queue.start();
        for _ in 0..5 {
            let id = send(&queue, "x");
            let job = queue.relay_job();
            assert_eq!(job.message.envelope().id, id);
            queue.answer(&job, |_| relayed());
        }
        assert_eq!(queue.stop(), nothing());
    }
}

#[test]
fn a_digest_says_whether_it_has_other_octets() {
    let queue = queue();
    burst(&queue);
    gathered(&queue, &["body ascii", "body \u{e9}"]);
    queue.orders.send(Order::RetryAll).unwrap();
    let job = queue.relay_job();
    assert_eq!(job.message.envelope().body, Body::EightBitMime);
    let text = content(&job);
    assert_eq!(text.matches("Content-Transfer-Encoding: 8bit\r\n").count(), 3, "{text}");
    assert_eq!(text.matches("Content-Transfer-Encoding: 7bit\r\n").count(), 1, "{text}");
    queue.answer(&job, |_| relayed());
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn others_of_the_same_message_do_not_wait() {
    let queue = queue();
    burst(&queue);
    let text = format!("{CRON}\r\nbody 0\r\n");
    let message = queue.keep_asking(ROOT, &[ME, "you@far.test", "ann@home.test"], text.as_bytes());
    let id = message.envelope().id;
    queue.intake.announce(message);
    queue.answer(&queue.local_job(), |_| delivered());
    let other = queue.relay_job();
    assert_eq!(names(&other), ["you@far.test"]);
    queue.answer(&other, |_| refused("450 busy"));
    wait_gathered(&queue, id);
    gathered(&queue, &["body 1"]);
    let other = queue.relay_job();
    assert_eq!(names(&other), ["you@far.test"]);
    // At work, and so not in this one, which leaves one that goes by itself.
    queue.orders.send(Order::RetryAll).unwrap();
    while !queue.orders.is_empty() {
        std::thread::yield_now();
    }
    queue.answer(&other, |_| relayed());
    let single = queue.relay_job();
    assert!(content(&single).contains("body 1"));
    queue.answer(&single, |_| relayed());
    queue.settle_reports();
    assert_eq!(queue.spool.ids().unwrap(), [id]);
    gathered(&queue, &["body 2"]);
    queue.orders.send(Order::RetryAll).unwrap();
    let single = queue.relay_job();
    assert!(content(&single).contains("body 2"));
    queue.answer(&single, |_| relayed());
    // By now it waits with others again.
    gathered(&queue, &["body 3"]);
    let mut found = bodies(&digest(&queue)).into_iter().map(str::to_owned).collect::<Vec<_>>();
    found.sort();
    assert_eq!(found, ["0", "3"]);
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_a_person_wants_counts_for_gathered_mail() {
    let queue = queue();
    burst(&queue);
    let bodies_of =
        ["body retried", "body held", "body deleted", "body bounced", "body 4", "body 5"];
    let ids = gathered(&queue, &bodies_of);
    let hands = hands(&queue);
    let change = |id: QueueId, change: &Change| {
        hands.change_each([id], None, change, |_, came| came.unwrap());
        if !matches!(change, Change::Delete(_)) {
            queue.orders.send(Order::LookAgain(id)).unwrap();
        }
    };
    change(ids[0], &Change::Retry);
    let job = queue.relay_job();
    assert_eq!(job.message.envelope().id, ids[0]);
    queue.answer(&job, |_| relayed());
    change(ids[1], &Change::Hold(Hold { since: 0, by: "ann".into() }));
    change(ids[2], &Change::Delete("ann".into()));
    change(ids[3], &Change::GiveUp("ann".into()));
    let report = queue.local_job();
    assert_eq!(names(&report), ["root@home.test"]);
    queue.answer(&report, |_| delivered());
    queue.settle_reports();
    assert_eq!(bodies(&digest(&queue)), ["4", "5"]);
    change(ids[1], &Change::Release("ann".into()));
    let job = queue.relay_job();
    assert_eq!(job.message.envelope().id, ids[1]);
    queue.answer(&job, |_| relayed());
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_a_digest_held_comes_back_whole_when_it_fails() {
    let queue = queue();
    burst(&queue);
    let bodies = ["a", "b", "c"].map(|letter| format!("body {}", letter.repeat(600)));
    gathered(&queue, &bodies.each_ref().map(String::as_str));
    queue.orders.send(Order::RetryAll).unwrap();
    let digest = queue.relay_job();
    assert!(content(&digest).contains("multipart/digest"));
    queue.answer(&digest, |_| failed());
    // Its sender is told first; where that fails, too, the postmaster.
    for (reader, outcome) in [("root@home.test", failed()), ("postmaster@home.test", delivered())] {
        let report = queue.local_job();
        assert_eq!(names(&report), [reader]);
        let text = content(&report);
        assert!(bodies.iter().all(|body| text.contains(body)), "{text}");
        queue.answer(&report, |_| outcome.clone());
    }
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_single_one_is_no_digest() {
    let queue = queue();
    burst(&queue);
    let ids = gathered(&queue, &["body 0"]);
    queue.orders.send(Order::RetryAll).unwrap();
    let job = queue.relay_job();
    assert_eq!(job.message.envelope().id, ids[0]);
    queue.answer(&job, |_| relayed());
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_waits_for_others_is_neither_late_nor_too_old() {
    let mut queue = Queue::prepare_as(folder(), "[smarthost]\nhost = relay.test\n", |settings| {
        (settings.queue.retry, settings.queue.expire) = (vec![SOON], Duration::ZERO);
        settings.queue.delay_warning = Some(Duration::ZERO);
        settings.digest.burst = 2;
    });
    queue.start();
    burst(&queue);
    gathered(&queue, &["body 0", "body 1"]);
    queue.settle_reports();
    assert!(queue.local.is_empty());
    assert_eq!(bodies(&digest(&queue)), ["0", "1"]);
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_nobody_wants_to_hear_of_nobody_hears_of_in_a_digest() {
    for (second, expected) in [("me@far.test NOTIFY=NEVER", "NEVER"), (ME, "-")] {
        let queue = queue();
        burst(&queue);
        for to in ["me@far.test NOTIFY=NEVER", second] {
            wait_gathered(&queue, send_as(&queue, ROOT, to, CRON, "x"));
        }
        queue.orders.send(Order::RetryAll).unwrap();
        let job = queue.relay_job();
        let notify = job.recipients[0].request.notify.map_or("-".into(), |it| it.to_string());
        assert_eq!(notify, expected);
        queue.answer(&job, |_| relayed());
        queue.settle_reports();
        assert_eq!(queue.stop(), nothing());
    }
}

#[test]
fn a_new_start_counts_anew_and_loses_none() {
    let queue = queue();
    burst(&queue);
    let ids = gathered(&queue, &["body 0", "body 1", "body 2", "body 3"]);
    let queue = prepared(queue.copy(), LATER);
    for id in &ids[..2] {
        let job = queue.relay_job();
        assert_eq!(job.message.envelope().id, *id);
        queue.answer(&job, |_| relayed());
    }
    ids[2..].iter().for_each(|id| wait_gathered(&queue, *id));
    queue.settle_reports();
    assert_eq!(bodies(&digest(&queue)), ["2", "3"]);
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_digest_that_cannot_be_written_leaves_everything_as_it_is() {
    let queue = queue();
    burst(&queue);
    let ids = gathered(&queue, &["body 0", "body 1"]);
    // Nothing new can be made in a folder that is no longer the spool.
    let spool = queue.folder.path().join("spool");
    fs::rename(&spool, spool.with_extension("away")).unwrap();
    queue.orders.send(Order::RetryAll).unwrap();
    while !queue.orders.is_empty() {
        std::thread::yield_now();
    }
    fs::rename(spool.with_extension("away"), &spool).unwrap();
    queue.settle_reports();
    let known = queue.spool.ids().unwrap();
    assert!(ids.iter().all(|id| known.contains(id)), "{known:?}");
    assert!(queue.relay.is_empty());
    let queue = prepared(queue.copy(), LATER);
    for _ in &ids {
        queue.answer(&queue.relay_job(), |_| relayed());
    }
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}
