//! A start with a queue that an earlier run has left.

use std::collections::BTreeSet;
use std::fs;

use mailwren::deliver::outcome::Outcome;
use mailwren::spool::id::QueueId;

use super::{DEADLINE, LATER, Queue, delivered, folder, names, nothing, out_of_reach, relayed};

const MANY: usize = 3000;

/// A queue whose manager does not run yet, on a spool that an earlier run has filled.
fn left_by_an_earlier_run() -> (Queue, BTreeSet<QueueId>) {
    let queue = Queue::prepare(folder(), LATER, 2 * LATER);
    let ids = (0..MANY).map(|_| queue.keep("<>", &["ann@far.test"]).envelope().id).collect();
    (started_again(queue), ids)
}

/// The next run on the spool of one whose manager never ran.
fn started_again(queue: Queue) -> Queue {
    let Queue { folder, spool, start, .. } = queue;
    // Both have the spool, and with it its lock.
    drop((spool, start));
    Queue::prepare(folder, LATER, 2 * LATER)
}

#[test]
fn each_message_found_is_tried_once_and_local_mail_does_not_wait_for_them() {
    let (mut queue, found) = left_by_an_earlier_run();
    queue.start();
    // The relay lane does not move at all.
    queue.announce("<>", &["ann@home.test"]);
    queue.answer(&queue.local_job(), |_| delivered());
    queue.settle_reports();
    // New mail for the same destination comes behind, and is not found a second time.
    let new: BTreeSet<_> = (0..100).map(|_| queue.announce("<>", &["bob@far.test"])).collect();
    let mut seen = BTreeSet::new();
    for _ in 0..MANY + new.len() {
        let job = queue.relay_job();
        assert!(seen.insert(job.message.envelope().id), "{:?} twice", names(&job));
        queue.answer(&job, |_| relayed());
    }
    assert_eq!(seen, found.union(&new).copied().collect());
    queue.settle_reports();
    assert!(queue.relay.is_empty());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_destination_that_is_down_is_probed_once_for_all_that_is_found() {
    let (mut queue, found) = left_by_an_earlier_run();
    queue.start();
    queue.answer(&queue.relay_job(), |_| out_of_reach());
    queue.settle_reports();
    assert!(queue.relay.is_empty());
    assert_eq!(queue.stop().len(), found.len());
}

#[test]
fn what_was_never_finished_is_not_tried() {
    let queue = Queue::prepare(folder(), LATER, 2 * LATER);
    let cut = queue.keep("<>", &["ann@home.test"]).envelope().id;
    queue.keep("<>", &["bob@home.test"]);
    let path = queue.folder.path().join("spool/queue").join(cut.to_string());
    let octets = fs::read(&path).unwrap();
    fs::write(&path, &octets[..octets.len() - 1]).unwrap();
    let mut queue = started_again(queue);
    queue.start();
    let job = queue.local_job();
    assert_eq!(names(&job), ["bob@home.test"]);
    queue.answer(&job, |_| delivered());
    queue.settle_reports();
    assert!(queue.local.is_empty() && !path.exists());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_is_parked_behind_a_destination_that_is_down_does_not_wait_for_its_rest() {
    let queue = Queue::new(LATER, 2 * LATER);
    // More than the lane has places for.
    for _ in 0..1500 {
        queue.announce("<>", &["ann@dead.test"]);
    }
    queue.announce("<>", &["bob@live.test"]);
    // All of them are taken up before the answer, and most are parked.
    queue.settle_reports();
    let dead = queue.relay_job();
    assert_eq!(names(&dead), ["ann@dead.test"]);
    queue.answer(&dead, |_| out_of_reach());
    let live = loop {
        let job = queue.relay.recv_timeout(DEADLINE / 3).unwrap();
        if names(&job) == ["bob@live.test"] {
            break job;
        }
        // Was handed out together with the first.
        queue.answer(&job, |_| out_of_reach());
    };
    queue.answer(&live, |_| relayed());
    assert_eq!(queue.stop().len(), 1500);
}

#[test]
fn a_list_of_very_many_does_not_take_the_manager_very_long() {
    const MEMBERS: usize = 10_000;
    let queue = Queue::new(LATER, 2 * LATER);
    queue.announce("<>", &["all@home.test"]);
    let members = (0..MEMBERS).map(|number| format!("u{number}@home.test").parse().unwrap());
    let members = Outcome::Expanded(members.collect::<Vec<_>>().into());
    queue.answer(&queue.local_job(), |_| members.clone());
    // Each of them is an alias, too, for somebody at a host of its own.
    let job = queue.local_job();
    assert_eq!(job.recipients.len(), MEMBERS);
    queue.answer(&job, |name| {
        let behind =
            name.replace("@home.test", "@far.test").replace('u', "v@d").replacen("@far", ".far", 1);
        Outcome::Expanded(vec![behind.parse().unwrap()].into())
    });
    // Within the time that any job may take.
    assert_eq!(names(&queue.relay_job()), ["v@d0.far.test"]);
}
