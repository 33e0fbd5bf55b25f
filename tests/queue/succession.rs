//! What another configuration changes for mail that is in the queue, and what it leaves alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use mailwren::config::settings::{ClientTls, HostPort, Login, SecretSource, Settings, Smarthost};
use mailwren::deliver::dispatch::NewLanes;
use mailwren::deliver::job::Job;
use mailwren::deliver::outcome::{Failure, Fault, Outcome};
use mailwren::mail::status::Status;
use mailwren::route::next_hop::NextHop;
use mailwren::spool::manager::Succession;

use super::played_queue::{DEADLINE, folder, out_of_reach};
use super::{LATER, Queue, SOON, delivered, names, nothing, relayed};

fn smarthost(port: u16) -> Smarthost {
    let host = HostPort { host: "far.test".parse().unwrap(), port };
    Smarthost::new(vec![host], ClientTls::None)
}

fn with_password(port: u16, password: &str) -> Smarthost {
    let login = Login {
        user: "ann".into(),
        secret: SecretSource::Inline(password.into()),
        mechanisms: Vec::new(),
        without_tls: true,
    };
    Smarthost { login: Some(login), ..smarthost(port) }
}

/// A queue whose mail goes to this smarthost.
fn queue_to(smarthost: Smarthost) -> Queue {
    let mut queue = Queue::prepare_as(folder(), "", |settings| {
        (settings.queue.retry, settings.queue.expire) = (vec![LATER], 2 * LATER);
        settings.smarthost = Some(smarthost);
    });
    queue.start();
    queue
}

impl Queue {
    /// Has the manager go on with changed settings and with other lanes, which the test plays from
    /// here on.
    fn succeed(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
        let ((local_jobs, local), (relay_jobs, relay)) = (bounded(4), bounded(4));
        let old_relay = self.relay.clone();
        let lanes = NewLanes { local: local_jobs, relay: relay_jobs, old_relay };
        let settings = Arc::new(self.settings.clone());
        self.successions.send(Succession { settings, lanes }).unwrap();
        (self.local, self.relay) = (local, relay);
    }
}

fn port_of(job: &Job) -> u16 {
    match &job.next_hop {
        NextHop::Smarthost(smarthost) => smarthost.hosts[0].port,
        other => panic!("{other}"),
    }
}

fn login_refused() -> Outcome {
    let failure = Failure::new(Status::new(4, 7, 8), "no").with_fault(Fault::Login(LATER));
    failure.into_outcome()
}

#[test]
fn what_nobody_has_begun_goes_the_new_way_and_what_was_begun_comes_back_to_it() {
    let mut queue = queue_to(smarthost(1));
    // A pool in which one destination may have several.
    queue.succeed(|settings| settings.queue.relay_workers = 4);
    for name in ["ann", "bob", "cat", "dan"] {
        queue.announce("<>", &[&format!("{name}@far.test")]);
    }
    // One is under way, two wait in the lane, and one before it.
    let begun = queue.relay_job();
    let deadline = Instant::now() + DEADLINE;
    while queue.relay.len() < 2 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert_eq!((port_of(&begun), names(&begun)), (1, vec!["ann@far.test".to_owned()]));
    queue.succeed(|settings| settings.smarthost = Some(smarthost(2)));
    let mut through = Vec::new();
    for _ in 0..3 {
        let job = queue.relay_job();
        assert_eq!(port_of(&job), 2);
        through.extend(names(&job));
        queue.answer(&job, |_| relayed());
    }
    through.sort();
    assert_eq!(through, ["bob@far.test", "cat@far.test", "dan@far.test"]);
    // The old way leads nowhere, which says nothing of the new one.
    queue.answer(&begun, |_| out_of_reach());
    let job = queue.relay_job();
    assert_eq!((port_of(&job), names(&job)), (2, vec!["ann@far.test".to_owned()]));
    queue.answer(&job, |_| relayed());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_waits_for_the_old_way_goes_the_new_one_at_once() {
    let mut queue = queue_to(smarthost(1));
    queue.announce("<>", &["ann@far.test"]);
    queue.answer(&queue.relay_job(), |_| out_of_reach());
    queue.settle_reports();
    queue.succeed(|settings| settings.smarthost = Some(smarthost(2)));
    let job = queue.relay_job();
    assert_eq!(port_of(&job), 2);
    queue.answer(&job, |_| relayed());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn a_destination_that_rests_goes_on_resting() {
    let mut queue = queue_to(smarthost(1));
    queue.announce("<>", &["ann@far.test"]);
    queue.answer(&queue.relay_job(), |_| out_of_reach());
    queue.settle_reports();
    queue.succeed(|settings| settings.queue.delay_warning = None);
    queue.announce("<>", &["bob@far.test"]);
    // Everything is looked at where domains have changed, and nothing is tried.
    queue.succeed(|settings| settings.server.domains.names.push("b.test".parse().unwrap()));
    queue.settle_reports();
    assert!(queue.relay.is_empty());
    assert_eq!(queue.stop(), ["ann@far.test", "bob@far.test"]);
}

#[test]
fn a_refused_password_is_not_tried_again_because_something_else_has_changed() {
    let mut queue = queue_to(with_password(1, "wrong"));
    queue.announce("<>", &["ann@far.test"]);
    queue.answer(&queue.relay_job(), |_| login_refused());
    queue.settle_reports();
    queue.succeed(|settings| settings.smarthost = Some(with_password(2, "wrong")));
    queue.announce("<>", &["bob@far.test"]);
    queue.settle_reports();
    assert!(queue.relay.is_empty());
    queue.succeed(|settings| settings.smarthost = Some(with_password(2, "right")));
    assert_eq!(queue.relay_jobs(2), ["ann@far.test", "bob@far.test"]);
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn what_is_under_way_here_ends_in_the_old_lane_and_what_comes_goes_into_the_new_one() {
    let mut queue = Queue::new(LATER, 2 * LATER);
    queue.announce("<>", &["ann@home.test"]);
    let begun = queue.local_job();
    let old = queue.local.clone();
    queue.succeed(|settings| settings.queue.bounce_size = 0);
    queue.announce("<>", &["bob@home.test"]);
    let job = queue.local_job();
    assert_eq!(names(&job), ["bob@home.test"]);
    queue.answer(&job, |_| delivered());
    queue.answer(&begun, |_| delivered());
    // Nobody has a sender of it any more, so whoever worked there goes home.
    assert!(old.recv_timeout(DEADLINE).unwrap_err().is_disconnected());
    assert_eq!(queue.stop(), nothing());
}

#[test]
fn the_new_time_to_expire_counts_for_what_waits() {
    let mut queue = Queue::new(SOON, 2 * LATER);
    queue.announce("<zoe@home.test>", &["ann@far.test"]);
    let begun = queue.relay_job();
    queue.succeed(|settings| settings.queue.expire = Duration::ZERO);
    queue.answer(&begun, |_| out_of_reach());
    // Its sender is told.
    let job = queue.local_job();
    assert_eq!(names(&job), ["zoe@home.test"]);
    queue.answer(&job, |_| delivered());
    assert_eq!(queue.stop(), nothing());
}
