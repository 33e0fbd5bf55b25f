//! Where the fault lies when a try fails: what rests a destination, and what does not.

use std::time::{Duration, Instant};

use mailwren::deliver::conversation::Timeouts;
use mailwren::deliver::outcome::{Failure, Fault};

use super::peer::{Answer, Peer, say};
use super::{HostPort, NextHop, Smarthost, failure, impatient, relay, smarthost};
use mailwren::config::settings::ClientTls;
use mailwren::mail::address::Domain;

type Manners = fn(usize, &str) -> Option<Answer>;

fn fault_with(manners: Manners) -> Failure {
    failure(&relay(), smarthost(&[&Peer::new(manners)]))
}

#[test]
fn a_host_that_takes_no_session_is_the_destinations_fault() {
    let bad: [Manners; 8] = [
        |_, line| (line == "connect").then_some(Answer::HangUp),
        |_, line| if line == "connect" { say("421 busy\r\n") } else { None },
        |_, line| if line == "connect" { say("450 busy\r\n") } else { None },
        |_, line| if line == "connect" { say("554 go away\r\n") } else { None },
        |_, line| if line == "connect" { say("hello there\r\n") } else { None },
        |_, line| line.starts_with("EHLO").then_some(Answer::HangUp),
        |_, line| if line.starts_with("MAIL") { say("421 busy\r\n") } else { None },
        |_, line| if line == "DATA" { say("421 busy\r\n") } else { None },
    ];
    for (number, manners) in bad.into_iter().enumerate() {
        let failure = fault_with(manners);
        assert_eq!(failure.fault, Fault::Destination, "{number}: {failure:?}");
        assert!(failure.status.is_temporary(), "{number}: {failure:?}");
    }
    let silent = Peer::new(|_, line| (line == "connect").then_some(Answer::Silence));
    assert_eq!(failure(&impatient(), smarthost(&[&silent])).fault, Fault::Destination);
    let gone = { Peer::polite().address() };
    let hosts = vec![HostPort { host: Domain::Literal(gone.ip()), port: gone.port() }];
    let gone = NextHop::Smarthost(Smarthost::new(hosts, ClientTls::None));
    assert_eq!(failure(&relay(), gone).fault, Fault::Destination);
}

#[test]
fn a_session_that_breaks_in_a_message_may_be_the_messages_fault() {
    let bad: [Manners; 6] = [
        |_, line| line.starts_with("MAIL").then_some(Answer::HangUp),
        |_, line| line.starts_with("RCPT").then_some(Answer::HangUp),
        |_, line| (line == "DATA").then_some(Answer::HangUp),
        |_, line| (line == "DATA").then(|| Answer::SayAndHangUp(b"354 go\r\n".to_vec())),
        |_, line| (line == ".").then_some(Answer::HangUp),
        |_, line| if line == "." { say("421 what was that\r\n") } else { None },
    ];
    for (number, manners) in bad.into_iter().enumerate() {
        let failure = fault_with(manners);
        assert_eq!(failure.fault, Fault::DestinationOrMail, "{number}: {failure:?}");
    }
}

#[test]
fn a_host_that_speaks_of_the_mail_is_there() {
    let refusals: [Manners; 4] = [
        |_, line| if line.starts_with("MAIL") { say("450 later\r\n") } else { None },
        |_, line| if line.starts_with("RCPT") { say("450 later\r\n") } else { None },
        |_, line| if line == "DATA" { say("451 later\r\n") } else { None },
        |_, line| if line == "." { say("554 spam\r\n") } else { None },
    ];
    for (number, manners) in refusals.into_iter().enumerate() {
        let failure = fault_with(manners);
        assert_eq!(failure.fault, Fault::Mail, "{number}: {failure:?}");
    }
}

/// A second host that takes sessions shows that it is not the destination as a whole.
#[test]
fn one_host_that_is_there_counts_for_the_destination() {
    let shut = Peer::new(|_, line| if line == "connect" { say("554 no\r\n") } else { None });
    let moody = Peer::new(|_, line| line.starts_with("RCPT").then_some(Answer::HangUp));
    for peers in [[&shut, &moody], [&moody, &shut]] {
        assert_eq!(failure(&relay(), smarthost(&peers)).fault, Fault::DestinationOrMail);
    }
}

#[test]
fn a_message_has_a_bound_as_a_whole() {
    let peer = Peer::new(|_, line| line.starts_with("RCPT").then_some(Answer::Silence));
    let whole = Duration::from_millis(100);
    let relay = relay().with_timeouts(Timeouts { transaction: whole, ..Timeouts::default() });
    let began = Instant::now();
    let failure = failure(&relay, smarthost(&[&peer]));
    assert_eq!(failure.status.to_string(), "4.4.2", "{failure:?}");
    assert_eq!(failure.fault, Fault::DestinationOrMail);
    // A single reply might take five minutes.
    let took = began.elapsed();
    assert!(took >= whole && took < Duration::from_secs(60), "{took:?}");
}
