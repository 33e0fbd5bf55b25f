//! The queue manager keeps its promise: each recipient ends delivered, bounced or still in the
//! spool, whatever the lanes answer and wherever the process ends. The tests are the lanes.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, select, unbounded};
use proptest::prelude::*;

use mailwren::deliver::job::Job;
use mailwren::deliver::outcome::{Failure, Fault, Outcome};
use mailwren::deliver::pool::{self, Deliver};
use mailwren::mail::status::Status;
use mailwren::spool::id::QueueId;
use mailwren::spool::manager::Order;
use mailwren::spool::store::SpoolReader;

#[path = "queue/backlog.rs"]
mod backlog;
#[path = "queue/digests.rs"]
mod digests;
#[path = "queue/direct.rs"]
mod direct;
#[path = "queue/everything.rs"]
mod everything;
#[path = "queue/hands.rs"]
mod hands;
#[path = "queue/login.rs"]
mod login;
#[path = "support/played_queue.rs"]
mod played_queue;
#[path = "queue/reach.rs"]
mod reach;
#[path = "queue/reports.rs"]
mod reports;
#[path = "queue/succession.rs"]
mod succession;
#[path = "queue/ways.rs"]
mod ways;

use played_queue::*;

#[test]
fn a_deferred_recipient_is_tried_again() {
    let queue = Queue::new(SOON, LATER);
    queue.announce("<>", &["ann@home.test", "bob@home.test"]);
    let job = queue.local_job();
    assert_eq!(names(&job), ["ann@home.test", "bob@home.test"]);
    queue.answer(
        &job,
        |name| if name.starts_with("ann") { refused("450 busy") } else { delivered() },
    );
    for _ in 0..3 {
        let job = queue.local_job();
        assert_eq!(names(&job), ["ann@home.test"]);
        queue.answer(&job, |_| refused("450 busy"));
    }
    queue.answer(&queue.local_job(), |_| delivered());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_is_too_old_bounces_and_goes_away() {
    let queue = Queue::new(LATER, Duration::ZERO);
    queue.announce("<sue@home.test>", &["bob@far.test"]);
    queue.answer(&queue.relay_job(), |_| refused("450 still greylisted"));
    let bounce = queue.local_job();
    assert_eq!(names(&bounce), ["sue@home.test"]);
    assert_eq!(bounce.message.envelope().reverse_path.to_string(), "<>");
    let text = content(&bounce);
    assert!(text.contains("Final-Recipient: rfc822; bob@far.test\r\n"), "{text}");
    assert!(text.contains("Status: 5.4.7\r\n") && text.contains("still greylisted"), "{text}");
    queue.answer(&bounce, |_| delivered());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn the_wall_clock_expires_nothing() {
    let queue = Queue::new(SOON, LATER);
    // Received in 1970, as far as the clock knew.
    queue.announce("<sue@home.test>", &["ann@home.test"]);
    queue.answer(&queue.local_job(), |_| refused("450 busy"));
    let job = queue.local_job();
    assert_eq!(names(&job), ["ann@home.test"]);
    queue.answer(&job, |_| delivered());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn failures_and_deferrals_of_one_message_go_their_own_ways() {
    let queue = Queue::new(SOON, LATER);
    queue.announce("<sue@home.test>", &["ann@far.test", "bob@far.test", "cat@far.test"]);
    queue.answer(&queue.relay_job(), |name| match &name[..3] {
        "ann" => relayed(),
        "bob" => failed(),
        _ => refused("450 later"),
    });
    let bounce = queue.local_job();
    let text = content(&bounce);
    assert!(text.contains("Status: 5.1.1\r\n") && text.contains("bob@far.test"), "{text}");
    assert!(!text.contains("cat@far.test"), "{text}");
    queue.answer(&bounce, |_| delivered());
    let again = queue.relay_job();
    assert_eq!(names(&again), ["cat@far.test"]);
    queue.answer(&again, |_| relayed());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_crash_between_two_reports_repeats_and_forgets_nobody() {
    let queue = Queue::new(SOON, LATER);
    let to = ["ann@home.test", "list@home.test", "bob@far.test"];
    queue.announce("<sue@home.test>", &to);
    let (local, relay) = (queue.local_job(), queue.relay_job());
    assert_eq!(names(&local), ["ann@home.test", "list@home.test"]);
    assert_eq!(names(&relay), ["bob@far.test"]);
    queue.answer(&local, |name| match &name[..3] {
        "ann" => delivered(),
        _ => Outcome::Expanded(vec!["cat@near.test".parse().unwrap()].into()),
    });
    assert_eq!(names(&queue.relay_job()), ["cat@near.test"]);
    queue.settle_reports();
    let queue = queue.crash(SOON);
    let mut left: Vec<_> = (0..2)
        .flat_map(|_| {
            let job = queue.relay_job();
            queue.answer(&job, |_| relayed());
            names(&job)
        })
        .collect();
    left.sort();
    assert_eq!(left, ["bob@far.test", "cat@near.test"]);
    assert!(queue.local.is_empty());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn an_alias_goes_where_its_addresses_lead_each_once() {
    let queue = Queue::new(SOON, LATER);
    queue.announce("<>", &["all@home.test"]);
    let into = ["ann@home.test", "bob@far.test", "all@home.test", "ANN@home.test"];
    let into: Vec<_> = into.iter().map(|text| text.parse().unwrap()).collect();
    queue.answer(&queue.local_job(), |_| Outcome::Expanded(into.clone().into()));
    let (local, relay) = (queue.local_job(), queue.relay_job());
    assert_eq!(
        (names(&local), names(&relay)),
        (vec!["ann@home.test".into()], vec!["bob@far.test".into()])
    );
    queue.answer(&relay, |_| relayed());
    queue.answer(&local, |_| delivered());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_destination_out_of_reach_rests_as_a_whole_and_alone() {
    for trouble in [out_of_reach(), refused("421 4.3.2 closing")] {
        let queue = Queue::new(LATER, 2 * LATER);
        for _ in 0..3 {
            queue.announce("<>", &["ann@dead.test"]);
        }
        let dead = queue.relay_job();
        queue.announce("<>", &["bob@live.test"]);
        let live = queue.relay_job();
        assert_eq!(names(&live), ["bob@live.test"]);
        queue.answer(&dead, |_| trouble.clone());
        queue.answer(&live, |_| relayed());
        queue.settle_reports();
        queue.announce("<>", &["cat@dead.test"]);
        queue.announce("<>", &["dan@live.test"]);
        let live = queue.relay_job();
        assert_eq!(names(&live), ["dan@live.test"]);
        queue.answer(&live, |_| relayed());
        queue.settle_reports();
        assert!(queue.relay.is_empty());
        // A person says that it works again: one message probes.
        queue.orders.send(Order::RetryAll).unwrap();
        let probe = queue.relay_job();
        queue.answer(&probe, |_| relayed());
        for _ in 0..3 {
            queue.answer(&queue.relay_job(), |_| relayed());
        }
        assert_eq!(queue.stop(), nothing());
    }
}

#[test]
fn our_own_trouble_with_one_message_rests_no_destination() {
    let queue = Queue::new(LATER, 2 * LATER);
    queue.announce("<>", &["ann@far.test"]);
    queue.announce("<>", &["bob@far.test"]);
    let bad = queue.relay_job();
    let unreadable = Failure::new(Status::new(4, 3, 0), "the spool file cannot be read");
    queue.answer(&bad, |_| Outcome::Deferred(unreadable.clone()));
    let good = queue.relay_job();
    queue.answer(&good, |_| relayed());
    assert_eq!(queue.stop(), names(&bad));
}

#[test]
fn local_mail_is_not_held_up_by_what_cannot_be_relayed() {
    let queue = Queue::new(LATER, 2 * LATER);
    for number in 0..1000 {
        queue.announce("<>", &[&format!("u@d{number}.test")]);
    }
    // Aliases that lead abroad must not fill the local lane either.
    for _ in 0..300 {
        queue.announce("<>", &["root@home.test"]);
        let job = queue.local_job();
        queue.answer(&job, |_| Outcome::Expanded(vec!["me@dead.test".parse().unwrap()].into()));
    }
    queue.announce("<>", &["ann@home.test", "bob@slow.test"]);
    let job = queue.local_job();
    assert_eq!(names(&job), ["ann@home.test"]);
    queue.answer(&job, |_| delivered());
    queue.settle_reports();
    // Now the relay lane moves, and everybody gets through.
    let mut seen = BTreeMap::new();
    for _ in 0..1301 {
        let job = queue.relay_job();
        *seen.entry(names(&job).join(" ")).or_insert(0) += 1;
        queue.answer(&job, |_| relayed());
    }
    assert_eq!((seen["me@dead.test"], seen["bob@slow.test"], seen.len()), (300, 1, 1002));
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn messages_that_were_announced_to_a_full_channel_come_once_each() {
    let mut queue = Queue::prepare(folder(), LATER, 2 * LATER);
    let announced: BTreeSet<_> =
        (0..1500).map(|_| queue.announce("<>", &["ann@home.test"])).collect();
    queue.start();
    let mut seen = BTreeSet::new();
    for _ in 0..1500 {
        let job = queue.local_job();
        assert!(seen.insert(job.message.envelope().id));
        queue.answer(&job, |_| delivered());
    }
    assert_eq!(seen, announced);
    queue.settle_reports();
    assert!(queue.local.is_empty());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_stop_waits_for_what_is_under_way_and_begins_nothing_more() {
    let queue = Queue::new(SOON, LATER);
    queue.announce("<>", &["ann@home.test"]);
    let job = queue.local_job();
    queue.orders.send(Order::Stop).unwrap();
    while !queue.orders.is_empty() {
        std::thread::yield_now();
    }
    queue.announce("<>", &["bob@home.test"]);
    queue.answer(&job, |_| delivered());
    let (local, spool) = (queue.local.clone(), queue.folder.path().join("spool"));
    queue.thread.unwrap().join().unwrap();
    assert!(local.is_empty());
    assert_eq!(pending(&spool), ["bob@home.test"]);
}

/// A lane that panics at the first try of each message, and tells of the second.
struct Stumbling(Sender<QueueId>, std::sync::Mutex<BTreeSet<QueueId>>);

impl Deliver for Stumbling {
    fn deliver(&self, job: &Job) -> Vec<(usize, Outcome)> {
        let id = job.message.envelope().id;
        let is_first = self.1.lock().unwrap_or_else(|poison| poison.into_inner()).insert(id);
        assert!(!is_first, "this panic belongs to the test");
        self.0.send(id).unwrap();
        job.recipients.iter().map(|recipient| (recipient.index, delivered())).collect()
    }
}

#[test]
fn a_panic_in_a_lane_defers_the_job_and_the_pool_goes_on() {
    let queue = Queue::new(SOON, LATER);
    let (tried, second_tries) = unbounded();
    let lane = Arc::new(Stumbling(tried, Default::default()));
    pool::start("test", 1, &lane, &queue.local, &queue.reports).unwrap();
    let ids: BTreeSet<_> = (0..5).map(|_| queue.announce("<>", &["ann@home.test"])).collect();
    let seen: BTreeSet<_> = (0..5).map(|_| second_tries.recv_timeout(DEADLINE).unwrap()).collect();
    assert_eq!(seen, ids);
    assert_eq!(queue.stop(), nothing());
}

/// What a lane answers at one try of one recipient.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Take,
    Fail,
    Refuse,
    OutOfReach,
    NoNetwork,
    HungUp,
    Broken,
}

impl Answer {
    fn outcome(self) -> Outcome {
        match self {
            Self::Take => relayed(),
            Self::Fail => failed(),
            Self::Refuse => refused("450 later"),
            Self::OutOfReach => out_of_reach(),
            Self::NoNetwork => no_network(),
            Self::HungUp => broken(Fault::DestinationOrMail),
            Self::Broken => Failure::new(Status::new(4, 3, 0), "broken").into_outcome(),
        }
    }
}

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    use Answer::{Broken, Fail, HungUp, NoNetwork, OutOfReach, Refuse, Take};
    let all = vec![Take, Fail, Refuse, OutOfReach, NoNetwork, HungUp, Broken];
    let one = prop::sample::select(all);
    prop::collection::vec(one, 1..4)
}

/// Plays `scripts`, one for each recipient, crashing after `crash_after` jobs. What each was
/// answered goes into `taken` and, from the bounces, `bounced`.
fn play(scripts: &mut BTreeMap<String, Vec<Answer>>, crash_after: usize) -> [Vec<String>; 3] {
    let mut queue = Queue::new(SOON, LATER);
    let names: Vec<_> = scripts.keys().cloned().collect();
    let to: Vec<_> = names.iter().map(String::as_str).collect();
    queue.announce("<sue@home.test>", &to);
    let (mut taken, mut bounced, mut jobs) = (Vec::new(), Vec::new(), 0);
    let mut ended = BTreeSet::new();
    // A script ends with its first answer that is final; whoever has none is put off for ever.
    while !scripts.is_empty() {
        let job = select! {
            recv(queue.local) -> job => job.unwrap(),
            recv(queue.relay) -> job => job.unwrap(),
        };
        if job.recipients[0].mailbox.to_string() == "sue@home.test" {
            bounced.extend(bounced_in(&content(&job)));
            queue.answer(&job, |_| delivered());
            continue;
        }
        let mut given = BTreeMap::new();
        for name in self::names(&job) {
            assert!(!ended.contains(&name), "{name} is tried again");
            let answer = match scripts.get_mut(&name) {
                Some(script) => script.remove(0),
                None => Answer::Broken,
            };
            if matches!(answer, Answer::Take) {
                taken.push(name.clone());
            }
            if matches!(answer, Answer::Take | Answer::Fail) {
                ended.insert(name.clone());
                scripts.remove(&name);
            }
            scripts.retain(|_, script| !script.is_empty());
            given.insert(name, answer);
        }
        queue.answer(&job, |name| given[name].outcome());
        jobs += 1;
        if jobs == crash_after && bounced.is_empty() && scripts.len() == names.len() {
            queue = queue.crash(SOON);
        }
    }
    // Whatever comes now is deferred, until the manager has stopped.
    queue.orders.send(Order::Stop).unwrap();
    let thread = queue.thread.take().unwrap();
    while !thread.is_finished() {
        let next = queue.local.try_recv().or_else(|_| queue.relay.try_recv());
        let Ok(job) = next else {
            std::thread::yield_now();
            continue;
        };
        queue.answer(&job, |_| Answer::Broken.outcome());
    }
    thread.join().unwrap();
    let spool = queue.folder.path().join("spool");
    let mut queued = pending(&spool);
    queued.retain(|name| name != "sue@home.test");
    let reader = SpoolReader::open(&spool).unwrap();
    for id in reader.ids().unwrap() {
        let (message, _) = reader.load(id).unwrap();
        let mut text = String::new();
        message.reader().read_to_string(&mut text).unwrap();
        bounced.extend(bounced_in(&text));
    }
    [taken, bounced, queued]
}

fn bounced_in(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("Final-Recipient: rfc822; "))
        .map(str::to_owned)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_recipient_ends_in_exactly_one_way(
        scripts in prop::collection::vec((answers(), 0..3usize), 1..6),
        crash_after in 0..4usize,
    ) {
        let domains = ["home.test", "far.test", "near.test"];
        let mut scripts: BTreeMap<_, _> = scripts
            .into_iter()
            .enumerate()
            .map(|(number, (script, domain))| (format!("u{number}@{}", domains[domain]), script))
            .collect();
        // The model: the first final answer decides; without one the recipient waits.
        let mut expected: [Vec<String>; 3] = Default::default();
        for (name, script) in &scripts {
            let end = script.iter().find_map(|answer| match answer {
                Answer::Take => Some(0),
                Answer::Fail => Some(1),
                _ => None,
            });
            expected[end.unwrap_or(2)].push(name.clone());
        }
        let mut ends = play(&mut scripts, crash_after);
        ends.iter_mut().for_each(|names| names.sort());
        prop_assert_eq!(ends, expected);
    }
}
