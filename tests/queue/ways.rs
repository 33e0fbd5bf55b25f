//! Commands, files, mailboxes by themselves and lists with an owner: who sends to whom, who hears
//! of what, and who waits for whom. The tests are the lanes.

use mailwren::deliver::outcome::Outcome;
use mailwren::mail::address::Mailbox;
use mailwren::route::addressee::{Addressee, Expansion};
use mailwren::route::next_hop::NextHop;
use mailwren::spool::progress::State;

use super::played_queue::*;
use super::reports::{queue, told, unknowing};
use super::*;

/// An expansion into addressees, the way behind a blank where one has its own.
fn expanded(into: &[&str], owner: &str) -> Outcome {
    let addressee = |text: &&str| {
        let (mailbox, way) = text.split_once(' ').unwrap_or((text, ""));
        Addressee { mailbox: mailbox.parse().unwrap(), way: way.parse().unwrap() }
    };
    let owner = Some(owner).filter(|owner| !owner.is_empty());
    let owner: Option<Mailbox> = owner.map(|owner| owner.parse().unwrap());
    Outcome::Expanded(Expansion { into: into.iter().map(addressee).collect(), owner })
}

fn announce(queue: &Queue, from: &str, to: &[&str]) -> QueueId {
    let message = queue.keep_asking(from, to, b"Subject: x\r\n\r\nbody\r\n");
    let id = message.envelope().id;
    queue.intake.announce(message);
    id
}

/// The next local job, which is a report to `reader`; its text.
fn report_to(queue: &Queue, reader: &str) -> String {
    let job = queue.local_job();
    assert_eq!(names(&job), [reader]);
    assert_eq!(job.reverse_path.to_string(), "<>");
    queue.answer(&job, |_| delivered());
    content(&job)
}

#[test]
fn the_owner_of_a_list_hears_of_its_members_and_the_sender_of_the_list() {
    let queue = queue(|_| ());
    let to = ["list@home.test NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;list@home.test", "eve@near.test"];
    announce(&queue, "<sue@home.test> ENVID=QQ1 RET=HDRS", &to);
    let eve = queue.relay_job();
    queue.answer(&queue.local_job(), |_| {
        expanded(&["ann@far.test", "bob@far.test"], "own@home.test")
    });
    let members = queue.relay_job();
    assert_eq!(names(&members), ["ann@far.test", "bob@far.test"]);
    assert_eq!(members.reverse_path.to_string(), "<own@home.test>");
    assert!(members.recipients.iter().all(|to| to.request == Default::default()));
    queue.answer(&eve, |_| failed());
    queue.answer(&members, |name| if name.starts_with("ann") { failed() } else { unknowing() });
    let (first, second) = (queue.local_job(), queue.local_job());
    let (to_sue, to_owner) = match names(&first)[0].starts_with("sue") {
        true => (first, second),
        false => (second, first),
    };
    assert_eq!(
        (names(&to_sue), names(&to_owner)),
        (vec!["sue@home.test".to_owned()], vec!["own@home.test".to_owned()],)
    );
    let text = content(&to_sue);
    assert_eq!(told(&text), ["list@home.test delivered 2.1.5", "eve@near.test failed 5.1.1"]);
    assert!(text.contains("Original-Envelope-Id: QQ1\r\n"), "{text}");
    assert!(!text.contains("body\r\n"), "{text}");
    let text = content(&to_owner);
    assert_eq!(told(&text), ["ann@far.test failed 5.1.1"]);
    assert!(
        !text.contains("Original-Envelope-Id") && !text.contains("Original-Recipient"),
        "{text}"
    );
    assert!(text.contains("Subject: Undelivered mail of your list\r\n"), "{text}");
    assert!(
        text.replace("\r\n", " ").contains("you are its owner") && text.contains("\r\nbody\r\n"),
        "{text}"
    );
    queue.answer(&to_sue, |_| delivered());
    queue.answer(&to_owner, |_| delivered());
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn each_sender_is_told_once_that_it_is_late() {
    let queue = queue(|queue| queue.delay_warning = Some(Duration::ZERO));
    let id = announce(&queue, "<sue@home.test>", &["list@home.test", "eve@near.test"]);
    let eve = queue.relay_job();
    let members = ["ann@far.test", "bob@far.test"];
    queue.answer(&queue.local_job(), |_| expanded(&members, "own@home.test"));
    let far = queue.relay_job();
    queue.answer(&eve, |_| refused("450 busy"));
    queue.answer(&far, |_| refused("450 busy"));
    let mut reports = [queue.local_job(), queue.local_job()].map(|job| {
        queue.answer(&job, |_| delivered());
        format!("{} {:?}", names(&job)[0], told(&content(&job)))
    });
    reports.sort();
    assert_eq!(
        reports,
        [
            "own@home.test [\"ann@far.test delayed 4.2.0\", \"bob@far.test delayed 4.2.0\"]",
            "sue@home.test [\"eve@near.test delayed 4.2.0\"]",
        ]
    );
    for _ in 0..2 {
        let (one, other) = (queue.relay_job(), queue.relay_job());
        let record = queue.record_of(id).unwrap();
        assert!(record.is_delay_reported);
        assert_eq!(record.warned_owners, ["own@home.test".parse().unwrap()]);
        queue.answer(&one, |_| refused("450 busy"));
        queue.answer(&other, |_| refused("450 busy"));
    }
    // Nothing may be under way at the end, which would be waited for.
    for _ in 0..2 {
        queue.answer(&queue.relay_job(), |_| relayed());
    }
    queue.settle_reports();
    assert!(queue.local.is_empty());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_nobody_sent_stays_from_nobody_behind_a_list() {
    let queue = queue(|_| ());
    announce(&queue, "<>", &["list@home.test NOTIFY=SUCCESS,FAILURE"]);
    queue.answer(&queue.local_job(), |_| expanded(&["ann@far.test"], "list@home.test"));
    let member = queue.relay_job();
    assert_eq!(member.reverse_path.to_string(), "<>");
    queue.answer(&member, |_| failed());
    let text = report_to(&queue, "postmaster@home.test");
    assert_eq!(told(&text), ["ann@far.test failed 5.1.1"]);
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_an_owner_cannot_be_told_is_told_to_the_postmaster() {
    let queue = queue(|_| ());
    announce(&queue, "<sue@home.test>", &["list@home.test"]);
    queue.answer(&queue.local_job(), |_| expanded(&["ann@home.test"], "own@home.test"));
    queue.answer(&queue.local_job(), |_| failed());
    let to_owner = queue.local_job();
    assert_eq!(names(&to_owner), ["own@home.test"]);
    queue.answer(&to_owner, |_| failed());
    let text = report_to(&queue, "postmaster@home.test");
    // What follows is the report to the owner.
    assert_eq!(told(&text), ["own@home.test failed 5.1.1", "ann@home.test failed 5.1.1"]);
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn an_owner_outlives_the_process() {
    let queue = queue(|_| ());
    let id = announce(&queue, "<sue@home.test>", &["list@home.test"]);
    queue.answer(&queue.local_job(), |_| {
        expanded(&["ann@far.test", "list@home.test |run it", "list@home.test \\"], "own@home.test")
    });
    let jobs = [queue.relay_job(), queue.relay_job(), queue.local_job()];
    queue.settle_reports();
    let record = queue.record_of(id).unwrap();
    assert_eq!(record.recipients[0].state, State::Done);
    drop(jobs);
    let queue = queue.crash(SOON);
    let jobs = [queue.relay_job(), queue.relay_job(), queue.local_job()];
    let mut ways: Vec<_> = jobs.iter().map(|job| job.recipients[0].way.to_string()).collect();
    ways.sort();
    assert_eq!(ways, ["", "\\", "|run it"]);
    for job in &jobs {
        assert_eq!(job.reverse_path.to_string(), "<own@home.test>");
        queue.answer(job, |_| delivered());
    }
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn its_own_mailbox_gets_what_was_asked_about_an_alias_and_alone() {
    let queue = queue(|_| ());
    announce(&queue, "<sue@home.test>", &["ann@home.test NOTIFY=SUCCESS,FAILURE"]);
    queue.answer(&queue.local_job(), |_| {
        expanded(&["ann@home.test \\", "ann@home.test |vacation", "bob@far.test"], "")
    });
    let (own, one, other) = (queue.local_job(), queue.relay_job(), queue.relay_job());
    for job in [&own, &one, &other] {
        let way = &job.recipients[0].way;
        let expected = if way.to_string() == "\\" { "SUCCESS,FAILURE" } else { "FAILURE" };
        assert_eq!(job.recipients[0].request.notify.unwrap().to_string(), expected);
    }
    queue.answer(&one, |_| delivered());
    queue.answer(&other, |_| unknowing());
    queue.answer(&own, |_| delivered());
    let text = report_to(&queue, "sue@home.test");
    assert_eq!(told(&text), ["ann@home.test delivered 2.1.5"]);
    queue.settle_reports();
    assert_eq!(queue.stop(), nothing());
}

/// A failure of a command: it says nothing about any other.
fn command_failed() -> Outcome {
    Failure::new(Status::new(4, 3, 0), "the command ended with 75").into_outcome()
}

#[test]
fn commands_hold_up_nobody_and_never_rest() {
    let queue = queue(|queue| queue.retry = vec![LATER]);
    let commands: Vec<_> = (0..10).map(|number| format!("run@home.test |run {number}")).collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    announce(&queue, "<sue@home.test>", &["run@home.test"]);
    queue.answer(&queue.local_job(), |_| expanded(&commands, ""));
    let slow = queue.relay_job();
    assert_eq!((slow.next_hop.clone(), slow.recipients.len()), (NextHop::Command, 1));
    // While it takes its time, other commands wait, and other mail does not.
    for number in 0..20 {
        announce(&queue, "<sue@home.test>", &[&format!("ann@d{number}.test")]);
        let job = queue.relay_job();
        assert_eq!(names(&job), [format!("ann@d{number}.test")]);
        queue.answer(&job, |_| relayed());
    }
    // Each of them is tried, however many have failed before.
    queue.answer(&slow, |_| command_failed());
    for _ in 1..commands.len() {
        let job = queue.relay_job();
        assert_eq!(job.next_hop, NextHop::Command);
        queue.answer(&job, |_| command_failed());
    }
    queue.settle_reports();
    announce(&queue, "<sue@home.test>", &["more@home.test"]);
    queue.answer(&queue.local_job(), |_| expanded(&["more@home.test |again"], ""));
    queue.answer(&queue.relay_job(), |_| delivered());
    queue.settle_reports();
    assert_eq!(queue.stop(), vec!["run@home.test"; commands.len()]);
}

#[test]
fn a_command_that_has_run_is_on_record_before_the_next_one_has() {
    let queue = queue(|_| ());
    let id = announce(&queue, "<sue@home.test>", &["run@home.test"]);
    queue.answer(&queue.local_job(), |_| {
        expanded(&["run@home.test |one", "run@home.test |two"], "")
    });
    let one = queue.relay_job();
    queue.answer(&one, |_| delivered());
    let two = queue.relay_job();
    queue.settle_reports();
    let states: Vec<_> =
        queue.record_of(id).unwrap().recipients.iter().map(|it| it.state).collect();
    assert_eq!(states, [State::Expanded, State::Done, State::Pending]);
    drop((one, two));
    let queue = queue.crash(SOON);
    let again = queue.relay_job();
    assert_eq!(again.recipients[0].way.to_string(), "|two");
    queue.answer(&again, |_| delivered());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_a_command_no_longer_is_adds_only_whom_the_message_does_not_have() {
    let queue = queue(|_| ());
    announce(&queue, "<sue@home.test>", &["ann@home.test"]);
    queue.answer(&queue.local_job(), |_| expanded(&["ann@home.test |old", "bob@far.test"], ""));
    let (one, other) = (queue.relay_job(), queue.relay_job());
    let (command, bob) = if one.next_hop == NextHop::Command { (one, other) } else { (other, one) };
    queue.answer(&command, |_| expanded(&["ann@home.test |new", "bob@far.test"], ""));
    let new = queue.relay_job();
    assert_eq!(new.recipients[0].way.to_string(), "|new");
    queue.answer(&bob, |_| unknowing());
    queue.answer(&new, |_| delivered());
    queue.settle_reports();
    assert!(queue.relay.is_empty());
    assert_eq!(queue.stop(), nothing());
}
