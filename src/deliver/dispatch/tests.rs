//! What the dispatcher makes of destinations that want a login, and of commands.

use crossbeam_channel::{Receiver, bounded};

use super::*;
use crate::config::settings::{ClientTls, Login, SecretSource, Smarthost};
use crate::deliver::job::Recipient;
use crate::mail::dsn_request::MessageRequest;
use crate::mail::status::Status;
use crate::route::addressee::Way;
use crate::spool::envelope::{Body, Envelope};
use crate::spool::message::StoredMessage;

fn next_hop(has_login: bool) -> NextHop {
    let secret = SecretSource::Inline("sesame".into());
    let login = Login { user: "ann".into(), secret, mechanisms: Vec::new(), without_tls: false };
    let smarthost = Smarthost::new(Vec::new(), ClientTls::StartTls);
    NextHop::Smarthost(Smarthost { login: has_login.then_some(login), ..smarthost })
}

fn job(next_hop: &NextHop) -> Job {
    let envelope = Envelope {
        id: QueueId::generate(0, 0),
        received_at: 0,
        client: "local".into(),
        reverse_path: "<>".parse().unwrap(),
        recipients: Vec::new(),
        body: Body::SevenBit,
        request: MessageRequest::default(),
    };
    let message = StoredMessage::new(tempfile::tempfile().unwrap(), 0..0, envelope);
    let mailbox = "bob@far.test".parse().unwrap();
    let recipients =
        vec![Recipient { index: 0, mailbox, way: Way::Routed, request: Default::default() }];
    let reverse_path = "<>".parse().unwrap();
    Job { message: Arc::new(message), reverse_path, recipients, next_hop: next_hop.clone() }
}

/// A dispatcher with four jobs for the next hop, and its relay lane of four workers.
fn dispatcher(next_hop: &NextHop) -> (Dispatcher, Receiver<Job>) {
    let (relay, jobs) = bounded(8);
    let mut dispatcher = Dispatcher::new(bounded(1).0, relay, 4, vec![Duration::from_secs(1)]);
    (0..4).for_each(|_| dispatcher.add(job(next_hop)));
    dispatcher.hand_out();
    (dispatcher, jobs)
}

fn report(job: &Job, fault: Option<Fault>) -> Report {
    let outcome = match fault {
        Some(fault) => Failure::new(Status::new(4, 7, 8), "no").with_fault(fault).into_outcome(),
        None => Outcome::Relayed {
            remote: "mx".into(),
            tls: None,
            reply: "250".into(),
            knows_dsn: false,
        },
    };
    let id = job.message.envelope().id;
    Report { id, next_hop: job.next_hop.clone(), outcomes: vec![(0, outcome)] }
}

#[test]
fn one_job_tries_a_login_before_the_others_follow() {
    let (_dispatcher, jobs) = dispatcher(&next_hop(false));
    assert_eq!(jobs.len(), 3);
    let next_hop = next_hop(true);
    let (mut dispatcher, jobs) = dispatcher(&next_hop);
    assert_eq!(jobs.len(), 1);
    let tried = jobs.recv().unwrap();
    assert!(dispatcher.finished(&report(&tried, None), Instant::now()).is_empty());
    dispatcher.hand_out();
    assert_eq!(jobs.len(), 3);
    // It is remembered when there is nothing left to do.
    for _ in 0..3 {
        let job = jobs.recv().unwrap();
        dispatcher.finished(&report(&job, None), Instant::now());
    }
    (0..4).for_each(|_| dispatcher.add(job(&next_hop)));
    dispatcher.hand_out();
    assert_eq!(jobs.len(), 3);
}

#[test]
fn a_refused_login_rests_as_long_as_it_says_and_is_tried_by_one_job_then() {
    let next_hop = next_hop(true);
    let (mut dispatcher, jobs) = dispatcher(&next_hop);
    let (now, pause) = (Instant::now(), Duration::from_secs(300));
    let tried = jobs.recv().unwrap();
    let back = dispatcher.finished(&report(&tried, Some(Fault::Login(pause))), now);
    assert_eq!(back.len(), 3);
    let rest = dispatcher.rest(&next_hop, now).unwrap();
    assert_eq!(rest.until, now + pause);
    assert_eq!(rest.refused_login.unwrap().text, "no");
    assert!(dispatcher.rest(&next_hop, now + pause).is_none());
    dispatcher.end_network_rests();
    assert!(dispatcher.rest(&next_hop, now).is_some());
    dispatcher.end_login_rests();
    assert!(dispatcher.rest(&next_hop, now).is_none());
    back.into_iter().for_each(|job| dispatcher.add(job));
    dispatcher.hand_out();
    assert_eq!(jobs.len(), 1);
}

#[test]
fn commands_take_half_of_the_threads_and_no_more() {
    let (mut dispatcher, jobs) = dispatcher(&NextHop::Command);
    assert_eq!(jobs.len(), 2);
    (0..2).for_each(|_| dispatcher.add(job(&next_hop(false))));
    dispatcher.hand_out();
    assert_eq!(jobs.len(), 4);
    let begun: Vec<_> = jobs.try_iter().collect();
    dispatcher.finished(&report(&begun[0], None), Instant::now());
    dispatcher.hand_out();
    assert_eq!(jobs.try_iter().map(|job| job.next_hop).collect::<Vec<_>>(), [NextHop::Command]);
}
