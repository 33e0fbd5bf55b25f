//! What a person changes in a message that the queue manager has or wants: the lock decides who
//! comes first, and the manager obeys the record. The tests are the lanes.

use std::fs;
use std::time::{Duration, Instant};

use mailwren::deliver::job::Job;
use mailwren::spool::hands::{Change, Hands, Refusal};
use mailwren::spool::id::QueueId;
use mailwren::spool::manager::Order;
use mailwren::spool::progress::{Hold, Progress};
use mailwren::spool::store::SpoolReader;

use super::played_queue::*;

fn hands(queue: &Queue) -> Hands {
    Hands::open(&queue.folder.path().join("spool")).unwrap()
}

fn hold() -> Change {
    Change::Hold(Hold { since: 0, by: "ann".into() })
}

fn id_of(job: &Job) -> QueueId {
    job.message.envelope().id
}

/// Changes a message; why not, if it was not.
fn change(hands: &Hands, id: QueueId, change: &Change) -> Result<(), Refusal> {
    let mut result = None;
    hands.change_each([id], None, change, |told, came| {
        assert_eq!(told, id);
        result = Some(came);
    });
    result.unwrap()
}

/// Gives the manager an order; what it does to the schedule is done when the next report is taken.
fn tell(queue: &Queue, order: Order) {
    queue.orders.send(order).unwrap();
    while !queue.orders.is_empty() {
        std::thread::yield_now();
    }
}

/// What is known of a message on disk.
fn progress(queue: &Queue, id: QueueId) -> Option<Progress> {
    SpoolReader::open(&queue.folder.path().join("spool")).unwrap().load(id).unwrap().1
}

/// Waits until the manager has let a message wait after a round.
fn wait_for_record(queue: &Queue, id: QueueId) {
    let deadline = Instant::now() + DEADLINE;
    while progress(queue, id).is_none() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn a_change_waits_for_the_round_that_is_under_way() {
    let queue = Queue::new(LATER, 2 * LATER);
    let id = queue.announce("<>", &["ann@home.test", "bob@home.test"]);
    let job = queue.local_job();
    std::thread::scope(|scope| {
        let spool = queue.folder.path().join("spool");
        // It asks to be let in, and is not while the round goes on.
        let asks = spool.join(format!("wake/{id}.wanted"));
        let holding = scope.spawn(move || change(&Hands::open(&spool).unwrap(), id, &hold()));
        while !asks.exists() {
            std::thread::yield_now();
        }
        tell(&queue, Order::LetGo(id));
        queue.answer(
            &job,
            |name| {
                if name.starts_with("ann") { delivered() } else { refused("450 busy") }
            },
        );
        holding.join().unwrap().unwrap();
    });
    // What the round came to was on disk before.
    let record = progress(&queue, id).unwrap();
    assert_eq!((record.attempts, record.held.unwrap().by.as_str()), (1, "ann"));
    assert_eq!(record.recipients[0].state.name(), "done");
    tell(&queue, Order::RetryAll);
    queue.settle_reports();
    assert!(queue.local.is_empty());
    change(&hands(&queue), id, &Change::Release("ann".into())).unwrap();
    tell(&queue, Order::LookAgain(id));
    let again = queue.local_job();
    assert_eq!(names(&again), ["bob@home.test"]);
    queue.answer(&again, |_| delivered());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_waits_for_its_turn_is_let_go() {
    let queue = Queue::new(LATER, 2 * LATER);
    let ids = [(); 3].map(|()| queue.announce("<>", &["ann@far.test"]));
    let first = queue.relay_job();
    let (wanted, other) = match ids.map(|id| id == id_of(&first)) {
        [true, _, _] => (ids[1], ids[2]),
        _ => (ids[0], if ids[1] == id_of(&first) { ids[2] } else { ids[1] }),
    };
    tell(&queue, Order::LetGo(wanted));
    change(&hands(&queue), wanted, &Change::Delete("ann".into())).unwrap();
    queue.answer(&first, |_| relayed());
    let second = queue.relay_job();
    assert_eq!(id_of(&second), other);
    queue.answer(&second, |_| relayed());
    queue.settle_reports();
    assert!(queue.relay.is_empty());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_held_message_stays_held_over_a_restart() {
    let queue = Queue::new(LATER, 2 * LATER);
    let id = queue.announce("<sue@home.test>", &["ann@far.test"]);
    queue.answer(&queue.relay_job(), |_| refused("450 busy"));
    wait_for_record(&queue, id);
    change(&hands(&queue), id, &hold()).unwrap();
    let queue = queue.crash(SOON);
    queue.settle_reports();
    assert!(queue.relay.is_empty());
    // To be given up ends the hold, and nobody is tried again.
    change(&hands(&queue), id, &Change::GiveUp("ann".into())).unwrap();
    tell(&queue, Order::LookAgain(id));
    let report = queue.local_job();
    let text = content(&report);
    assert!(text.contains("Status: 5.3.0\r\n") && text.contains("450 busy"), "{text}");
    queue.answer(&report, |_| delivered());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_the_disk_did_not_take_is_not_lost_by_a_change() {
    let queue = Queue::new(LATER, 2 * LATER);
    let id = queue.announce("<>", &["ann@home.test", "bob@far.test"]);
    let (local, relay) = (queue.local_job(), queue.relay_job());
    // A folder in the place of the next record: no record can be written.
    let in_the_way = queue.folder.path().join(format!("spool/state/{id}.new"));
    fs::create_dir(&in_the_way).unwrap();
    queue.answer(&local, |_| delivered());
    queue.answer(&relay, |_| refused("450 busy"));
    queue.settle_reports();
    assert_eq!(progress(&queue, id), None);
    fs::remove_dir(&in_the_way).unwrap();
    change(&hands(&queue), id, &hold()).unwrap();
    tell(&queue, Order::LookAgain(id));
    queue.settle_reports();
    let record = progress(&queue, id).unwrap();
    assert_eq!((record.attempts, record.held.is_some()), (1, true));
    assert_eq!(record.recipients[0].state.name(), "done");
    assert_eq!(queue.stop(), ["bob@far.test"]);
}

#[test]
fn who_is_looked_at_again_does_not_wait_for_a_rest_and_others_do() {
    let queue = Queue::new(LATER, 2 * LATER);
    let ids = [(); 2].map(|()| queue.announce("<>", &["ann@dead.test"]));
    let probe = queue.relay_job();
    queue.answer(&probe, |_| out_of_reach());
    ids.iter().for_each(|id| wait_for_record(&queue, *id));
    tell(&queue, Order::LookAgain(ids[1]));
    let job = queue.relay_job();
    assert_eq!(id_of(&job), ids[1]);
    queue.answer(&job, |_| relayed());
    queue.settle_reports();
    assert!(queue.relay.is_empty());
    // One that is gone, or that nobody knows, is passed over.
    change(&hands(&queue), ids[0], &Change::Delete("ann".into())).unwrap();
    for id in [ids[0], ids[1], QueueId::generate(0, 0)] {
        tell(&queue, Order::LookAgain(id));
        tell(&queue, Order::LetGo(id));
    }
    queue.settle_reports();
    assert!(matches!(change(&hands(&queue), ids[0], &hold()), Err(Refusal::Gone)));
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn time_on_hold_does_not_make_a_message_older() {
    // The steps before and behind the hold take less.
    let expire = Duration::from_secs(6);
    let queue = Queue::new(LATER, expire);
    let id = queue.announce("<sue@home.test>", &["ann@far.test"]);
    queue.answer(&queue.relay_job(), |_| refused("450 busy"));
    wait_for_record(&queue, id);
    change(&hands(&queue), id, &hold()).unwrap();
    tell(&queue, Order::LookAgain(id));
    std::thread::sleep(expire);
    change(&hands(&queue), id, &Change::Release("ann".into())).unwrap();
    tell(&queue, Order::LookAgain(id));
    queue.answer(&queue.relay_job(), |_| refused("450 busy"));
    queue.settle_reports();
    assert_eq!(queue.stop(), ["ann@far.test"]);
}
