//! What becomes of mail while its destination refuses our login.

use std::time::Duration;

use mailwren::deliver::outcome::{Failure, Fault, Outcome};
use mailwren::mail::status::Status;
use mailwren::spool::manager::Order;

use super::{LATER, Queue, SOON, delivered, names, nothing, relayed};

const WHY: &str = "mx refused the login: 535 no";

fn refused_for(pause: Duration) -> Outcome {
    Failure::new(Status::new(4, 7, 8), WHY).with_fault(Fault::Login(pause)).into_outcome()
}

fn refused() -> Outcome {
    refused_for(LATER)
}

#[test]
fn a_refused_login_rests_whatever_the_pauses_of_the_queue_are() {
    let queue = Queue::new(SOON, 2 * LATER);
    let tried = queue.announce("<>", &["ann@far.test"]);
    queue.answer(&queue.relay_job(), |_| refused());
    queue.settle_reports();
    let untried = queue.announce("<>", &["bob@far.test"]);
    queue.settle_reports();
    assert!(queue.relay.is_empty());
    // Whoever looks at the queue sees why, at the one that was not tried himself, too.
    for (id, attempts) in [(tried, 1), (untried, 0)] {
        let record = queue.record_of(id).unwrap();
        let last = record.recipients[0].last_try.as_ref().unwrap();
        assert_eq!((last.status.to_string().as_str(), last.text.as_str()), ("4.7.8", WHY));
        assert!(record.attempts >= attempts);
    }
    // What it has nothing to do with goes on.
    queue.announce("<>", &["cat@near.test"]);
    let job = queue.relay_job();
    assert_eq!(names(&job), ["cat@near.test"]);
    queue.answer(&job, |_| relayed());
    assert_eq!(queue.stop(), ["ann@far.test", "bob@far.test"]);
}

#[test]
fn another_password_wakes_all_that_waits_for_it() {
    let queue = Queue::new(LATER, 2 * LATER);
    queue.announce("<>", &["ann@far.test"]);
    queue.answer(&queue.relay_job(), |_| refused());
    queue.announce("<>", &["bob@far.test"]);
    queue.settle_reports();
    // A network is none of its business.
    queue.orders.send(Order::RetryForNetwork).unwrap();
    queue.settle_reports();
    assert!(queue.relay.is_empty());
    queue.orders.send(Order::RetryForLogin).unwrap();
    assert_eq!(queue.relay_jobs(2), ["ann@far.test", "bob@far.test"]);
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn whoever_says_retry_has_one_job_tried() {
    let queue = Queue::new(LATER, 2 * LATER);
    for name in ["ann", "bob", "cat"] {
        queue.announce("<>", &[&format!("{name}@far.test")]);
    }
    queue.answer(&queue.relay_job(), |_| refused());
    queue.settle_reports();
    for _ in 0..2 {
        queue.orders.send(Order::RetryAll).unwrap();
        queue.answer(&queue.relay_job(), |_| refused());
        queue.settle_reports();
        assert!(queue.relay.is_empty());
    }
    assert_eq!(queue.stop().len(), 3);
}

#[test]
fn what_expires_meanwhile_is_reported_with_the_reason() {
    let queue = Queue::new(LATER, Duration::ZERO);
    queue.announce("<sue@home.test>", &["ann@far.test"]);
    queue.answer(&queue.relay_job(), |_| refused());
    let bounce = queue.local_job();
    assert_eq!(names(&bounce), ["sue@home.test"]);
    assert!(super::content(&bounce).contains(WHY));
    queue.answer(&bounce, |_| delivered());
    assert_eq!(queue.stop(), nothing());
}
