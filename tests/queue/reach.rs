//! What becomes of mail when its destination, or this host's own network, cannot be reached.

use std::time::{Duration, Instant};

use mailwren::deliver::job::Job;
use mailwren::deliver::outcome::Fault;
use mailwren::spool::id::QueueId;
use mailwren::spool::manager::Order;
use mailwren::spool::progress::Progress;
use mailwren::spool::store::SpoolReader;

use super::{DEADLINE, LATER, Queue, SOON, broken, delivered, names, no_network, nothing, refused};
use super::{out_of_reach, relayed};

/// The record of a message, once there is one that is as wanted.
fn record(queue: &Queue, id: QueueId, is_wanted: impl Fn(&Progress) -> bool) -> Progress {
    let spool = SpoolReader::open(&queue.folder.path().join("spool")).unwrap();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let record = spool.load(id).unwrap().1.filter(&is_wanted);
        if let Some(record) = record {
            return record;
        }
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

fn id(job: &Job) -> QueueId {
    job.message.envelope().id
}

#[test]
fn without_a_network_nothing_is_used_up_and_everything_goes_when_it_returns() {
    let queue = Queue::new(LATER, 2 * LATER);
    let waiting = queue.announce("<>", &["ann@far.test"]);
    for _ in 0..3 {
        let job = queue.relay_job();
        queue.answer(&job, |_| no_network());
        queue.settle_reports();
        let record = record(&queue, waiting, |_| true);
        let last = record.recipients[0].last_try.as_ref().unwrap();
        assert_eq!((record.attempts, last.status.to_string().as_str()), (0, "4.4.0"));
        assert_eq!(last.text, "no route");
        queue.orders.send(Order::RetryForNetwork).unwrap();
    }
    let probe = queue.relay_job();
    // What comes while the network is away waits with the rest.
    queue.announce("<>", &["bob@far.test"]);
    queue.announce("<>", &["cat@near.test"]);
    let other = queue.relay_job();
    queue.answer(&probe, |_| no_network());
    queue.answer(&other, |_| no_network());
    queue.settle_reports();
    assert!(queue.relay.is_empty());
    queue.orders.send(Order::RetryForNetwork).unwrap();
    assert_eq!(queue.relay_jobs(3), ["ann@far.test", "bob@far.test", "cat@near.test"]);
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_network_wakes_nothing_that_waits_for_something_else() {
    let queue = Queue::new(LATER, 2 * LATER);
    queue.announce("<>", &["ann@down.test"]);
    queue.answer(&queue.relay_job(), |_| out_of_reach());
    queue.announce("<>", &["bob@grey.test"]);
    queue.answer(&queue.relay_job(), |_| refused("450 later"));
    queue.announce("<>", &["cat@far.test"]);
    queue.answer(&queue.relay_job(), |_| no_network());
    queue.settle_reports();
    queue.orders.send(Order::RetryForNetwork).unwrap();
    let job = queue.relay_job();
    assert_eq!(names(&job), ["cat@far.test"]);
    queue.answer(&job, |_| relayed());
    queue.settle_reports();
    assert!(queue.relay.is_empty());
    assert_eq!(queue.stop(), ["ann@down.test", "bob@grey.test"]);
}

#[test]
fn nothing_expires_before_it_was_tried_on_a_network() {
    let queue = Queue::new(LATER, Duration::ZERO);
    queue.announce("<sue@home.test>", &["ann@far.test", "bob@home.test"]);
    queue.answer(&queue.local_job(), |_| delivered());
    queue.answer(&queue.relay_job(), |_| no_network());
    queue.announce("<sue@home.test>", &["cat@far.test"]);
    queue.settle_reports();
    assert!(queue.local.is_empty() && queue.relay.is_empty());
    queue.orders.send(Order::RetryForNetwork).unwrap();
    // Now there is one, and the destination is down: that counts for both.
    queue.answer(&queue.relay_job(), |_| out_of_reach());
    for _ in 0..2 {
        let bounce = queue.local_job();
        assert_eq!(names(&bounce), ["sue@home.test"]);
        queue.answer(&bounce, |_| delivered());
    }
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_message_that_breaks_sessions_holds_up_no_other() {
    let queue = Queue::new(SOON, LATER);
    queue.announce("<>", &["poison@far.test"]);
    let mut breaks = 0;
    let mut through = 0;
    for number in 0..20 {
        queue.announce("<>", &[&format!("u{number}@far.test")]);
    }
    while through < 20 || breaks < 3 {
        let job = queue.relay_job();
        if names(&job) == ["poison@far.test"] {
            breaks += 1;
            queue.answer(&job, |_| broken(Fault::DestinationOrMail));
        } else {
            through += 1;
            queue.answer(&job, |_| relayed());
        }
    }
    assert_eq!(queue.stop(), ["poison@far.test"]);
}

#[test]
fn a_destination_that_breaks_two_messages_rests() {
    let queue = Queue::new(LATER, 2 * LATER);
    for name in ["ann", "bob", "cat", "dan"] {
        queue.announce("<>", &[&format!("{name}@far.test")]);
    }
    let first = queue.relay_job();
    queue.answer(&first, |_| broken(Fault::DestinationOrMail));
    let second = queue.relay_job();
    assert_ne!(id(&first), id(&second));
    queue.answer(&second, |_| broken(Fault::DestinationOrMail));
    queue.settle_reports();
    assert!(queue.relay.is_empty());
    assert_eq!(record(&queue, id(&first), |_| true).attempts, 1);
    assert_eq!(queue.stop().len(), 4);
}

#[test]
fn who_wants_everything_tried_means_what_is_under_way_too() {
    let queue = Queue::new(LATER, LATER);
    queue.announce("<>", &["a@far.test"]);
    let job = queue.relay_job();
    queue.orders.send(Order::RetryAll).unwrap();
    let deadline = Instant::now() + DEADLINE;
    while !queue.orders.is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    queue.answer(&job, |_| out_of_reach());
    drop(job);
    // Once, however that ends.
    let again = queue.relay_job();
    assert_eq!(names(&again), ["a@far.test"]);
    queue.answer(&again, |_| out_of_reach());
    drop(again);
    queue.settle_reports();
    assert!(queue.relay.recv_timeout(Duration::from_millis(300)).is_err());
    assert_eq!(queue.stop(), ["a@far.test"]);
}
