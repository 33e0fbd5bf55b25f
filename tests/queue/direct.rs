//! Mail for this host is delivered while its client waits, and stored only when that does not
//! work: in every case there is a receipt only for what lasts. The tests are the lanes.

use std::fs;
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mailwren::deliver::outcome::Outcome;
use mailwren::mail::address::Mailbox;
use mailwren::route::addressee::{Addressee, Expansion, Way};
use mailwren::spool::manager::Order;
use mailwren::spool::progress::State;
use mailwren::spool::store::{Draft, Receipt, SpoolReader};

use super::played_queue::*;

const ANN: &str = "ann@home.test";
const BOB: &str = "bob@home.test";

type Waiting = JoinHandle<io::Result<Receipt>>;

/// A session that waits so long for the delivery of a message to these.
fn offer(queue: &Queue, to: &[&str], patience: Duration) -> Waiting {
    offer_draft(queue, queue.draft("<sue@home.test>", to), patience)
}

fn offer_draft(queue: &Queue, draft: Draft, patience: Duration) -> Waiting {
    let intake = queue.intake.clone();
    std::thread::spawn(move || intake.deliver_or_store(draft.seal()?, patience))
}

fn files(queue: &Queue, folder: &str) -> usize {
    fs::read_dir(queue.folder.path().join("spool").join(folder)).unwrap().count()
}

/// The states of the recipients of the only message.
fn states(queue: &Queue) -> Vec<(String, State)> {
    let spool = SpoolReader::open(&queue.folder.path().join("spool")).unwrap();
    let ids = spool.ids().unwrap();
    assert_eq!(ids.len(), 1);
    let progress = spool.load(ids[0]).unwrap().1.unwrap();
    progress.recipients.iter().map(|to| (to.mailbox.to_string(), to.state)).collect()
}

#[test]
fn what_is_delivered_at_once_never_enters_the_spool() {
    let queue = Queue::new(SOON, LATER);
    let mut large = queue.draft("<>", &[ANN]);
    large.write(&vec![b'x'; 200_000]).unwrap();
    let mut twice = queue.draft("<>", &[ANN, BOB]);
    twice.write(b"more\r\n").unwrap();
    for draft in [large, twice] {
        let octets = draft.content_octets();
        let id = draft.envelope().id;
        let session = offer_draft(&queue, draft, LATER);
        let job = queue.local_job();
        assert_eq!(content(&job).len() as u64, octets);
        assert_eq!(files(&queue, "queue"), 0);
        queue.answer(&job, |_| delivered());
        assert_eq!(session.join().unwrap().unwrap().id(), id);
        assert_eq!((files(&queue, "queue"), files(&queue, "state")), (0, 0));
    }
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_is_not_delivered_is_stored_and_tried_again() {
    let queue = Queue::new(SOON, LATER);
    let session = offer(&queue, &[ANN], LATER);
    queue.answer(&queue.local_job(), |_| refused("450 busy"));
    let id = session.join().unwrap().unwrap().id();
    let job = queue.local_job();
    assert_eq!(job.message.envelope().id, id);
    assert_eq!(queue.spool.ids().unwrap(), [id]);
    queue.answer(&job, |_| delivered());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn who_has_it_is_on_record_before_it_is_stored() {
    let queue = Queue::new(LATER, LATER);
    let session = offer(&queue, &[ANN, BOB], LATER);
    queue.answer(&queue.local_job(), |name| if name == ANN { delivered() } else { out_of_reach() });
    session.join().unwrap().unwrap();
    let expected = [(ANN.to_owned(), State::Done), (BOB.to_owned(), State::Pending)];
    assert_eq!(states(&queue), expected);
    let queue = queue.crash(SOON);
    let job = queue.local_job();
    assert_eq!(names(&job), [BOB]);
    queue.answer(&job, |_| delivered());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn an_alias_with_a_mailbox_of_its_own_is_on_record_like_any_that_has_it() {
    let queue = Queue::new(LATER, LATER);
    let itself = || Addressee { mailbox: ANN.parse().unwrap(), way: Way::Mailbox };
    let into = || vec![itself(), Addressee::from(BOB.parse::<Mailbox>().unwrap())];
    let expanded = |_: &str| Outcome::Expanded(Expansion { into: into(), owner: None });
    let states = |id| {
        let record = queue.record_of(id).unwrap();
        record.recipients.iter().map(|it| it.state).collect::<Vec<_>>()
    };
    // Stored when one of the two cannot be delivered.
    let session = offer(&queue, &[ANN], LATER);
    queue.answer(&queue.local_job(), expanded);
    let job = queue.local_job();
    assert_eq!(names(&job), [ANN, BOB]);
    assert_eq!(job.recipients[0].way, Way::Mailbox);
    queue.answer(&job, |to| if to == ANN { delivered() } else { out_of_reach() });
    let id = session.join().unwrap().unwrap().id();
    queue.settle_reports();
    assert_eq!(states(id), [State::Expanded, State::Done, State::Pending]);
    drop(job);
    let queue = queue.crash(SOON);
    let job = queue.local_job();
    assert_eq!(names(&job), [BOB]);
    queue.answer(&job, |_| delivered());
    drop(job);
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_slow_delivery_is_stored_meanwhile_and_not_repeated() {
    let queue = Queue::new(SOON, LATER);
    let session = offer(&queue, &[ANN], SOON);
    let job = queue.local_job();
    let id = session.join().unwrap().unwrap().id();
    assert_eq!(queue.spool.ids().unwrap(), [id]);
    queue.answer(&job, |_| delivered());
    queue.settle_reports();
    assert_eq!(files(&queue, "queue"), 0);
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn an_alias_for_users_here_is_followed_while_the_client_waits() {
    let queue = Queue::new(SOON, LATER);
    let session = offer(&queue, &["root@home.test"], LATER);
    queue.answer(&queue.local_job(), |_| Outcome::Expanded(vec![ANN.parse().unwrap()].into()));
    let job = queue.local_job();
    assert_eq!((names(&job), files(&queue, "queue")), (vec![ANN.to_owned()], 0));
    queue.answer(&job, |_| delivered());
    session.join().unwrap().unwrap();
    assert_eq!((files(&queue, "queue"), files(&queue, "state")), (0, 0));
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_an_alias_sends_elsewhere_is_stored_before_it_goes() {
    let queue = Queue::new(SOON, LATER);
    let session = offer(&queue, &["root@home.test"], LATER);
    queue.answer(&queue.local_job(), |_| {
        Outcome::Expanded(vec!["x@far.test".parse().unwrap()].into())
    });
    let id = session.join().unwrap().unwrap().id();
    let job = queue.relay_job();
    assert_eq!(queue.spool.ids().unwrap(), [id]);
    queue.answer(&job, |_| relayed());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_fails_for_good_is_stored_until_its_sender_knows() {
    let queue = Queue::new(SOON, LATER);
    let session = offer(&queue, &[ANN], LATER);
    queue.answer(&queue.local_job(), |_| failed());
    session.join().unwrap().unwrap();
    let bounce = queue.local_job();
    assert_eq!(names(&bounce), ["sue@home.test"]);
    queue.answer(&bounce, |_| delivered());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_cannot_be_stored_is_refused_and_forgotten() {
    let queue = Queue::new(SOON, LATER);
    let spool = queue.folder.path().join("spool");
    let session = offer(&queue, &[ANN, BOB], LATER);
    let job = queue.local_job();
    fs::rename(spool.join("queue"), spool.join("away")).unwrap();
    fs::remove_dir(spool.join("away")).unwrap();
    queue.answer(&job, |name| if name == ANN { delivered() } else { out_of_reach() });
    assert!(session.join().unwrap().is_err());
    // The next one is tried as ever, and nothing more comes for the first.
    let session = offer(&queue, &[BOB], LATER);
    let job = queue.local_job();
    assert_eq!(names(&job), [BOB]);
    queue.answer(&job, |_| delivered());
    session.join().unwrap().unwrap();
    let deadline = Instant::now() + DEADLINE;
    while files(&queue, "state") > 0 {
        assert!(Instant::now() < deadline, "the record stays");
        std::thread::yield_now();
    }
    fs::create_dir(spool.join("queue")).unwrap();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_was_refused_goes_nowhere_else_and_gives_its_place_back() {
    let queue = Queue::new(SOON, LATER);
    let spool = queue.folder.path().join("spool");
    let deliver_to_bob = || {
        let session = offer(&queue, &[BOB], LATER);
        let job = queue.local_job();
        assert_eq!(names(&job), [BOB]);
        queue.answer(&job, |_| delivered());
        session.join().unwrap().unwrap();
    };
    // The manager looks after its spool when it begins, and then each minute.
    deliver_to_bob();
    fs::rename(spool.join("queue"), spool.join("away")).unwrap();
    fs::remove_dir(spool.join("away")).unwrap();
    // More than the lane has places for.
    for number in 0..300 {
        let session = offer(&queue, &["root@home.test"], SOON);
        let job = queue.local_job();
        assert!(session.join().unwrap().is_err());
        // Once this one was taken up, it is known that the other was refused.
        deliver_to_bob();
        let behind = if number % 2 == 0 { "x@far.test" } else { ANN };
        queue.answer(&job, |_| Outcome::Expanded(vec![behind.parse().unwrap()].into()));
    }
    deliver_to_bob();
    assert!(queue.local.is_empty() && queue.relay.is_empty());
    fs::create_dir(spool.join("queue")).unwrap();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn without_a_manager_everything_is_stored() {
    let mut queue = Queue::new(SOON, LATER);
    queue.orders.send(Order::Stop).unwrap();
    queue.thread.take().unwrap().join().unwrap();
    let id = offer(&queue, &[ANN], SOON).join().unwrap().unwrap().id();
    assert_eq!(queue.spool.ids().unwrap(), [id]);
}
