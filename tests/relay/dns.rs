//! Where the DNS sends the mail of a domain, and what its troubles mean for the mail.

use std::time::Duration;

use mailwren::config::settings::{ClientTls, HostPort, Smarthost};
use mailwren::deliver::outcome::Outcome;
use mailwren::deliver::pool::Deliver;
use mailwren::deliver::relay::Relay;
use mailwren::route::next_hop::NextHop;
use mailwren::sys::dns::{DnsError, Resolver};
use trust_dns_resolver::proto::rr::RecordType;

use crate::dns_server::{Answer as Dns, DnsServer, address, cname, mx};
use crate::peer::{Peer, say};
use crate::{MESSAGE, deliver_one, job, relay_asking};

fn to(domain: &str) -> NextHop {
    NextHop::Mx(domain.parse().unwrap())
}

#[test]
fn the_dns_decides() {
    let dns = DnsServer::new(|name, kind| match (name, kind) {
        ("null.test", RecordType::MX) => Dns::Records(vec![mx(0, ".")]),
        ("ours.test", RecordType::MX) => {
            Dns::Records(vec![mx(10, "ME.test"), mx(20, "other.test")])
        }
        ("fails.test" | "failing-host.test", _) => Dns::Failure,
        ("no-address.test", RecordType::MX) => Dns::Records(vec![mx(10, "gone.test")]),
        ("half.test", RecordType::MX) => {
            Dns::Records(vec![mx(10, "gone.test"), mx(20, "failing-host.test")])
        }
        ("empty.test", _) => Dns::Nothing,
        ("loop.test", _) => Dns::Records(vec![cname("pool.test")]),
        ("pool.test", _) => Dns::Records(vec![cname("loop.test")]),
        _ => Dns::NoSuchDomain,
    });
    let relay = relay_asking(&[dns.address()]).with_mx_port(1);
    for (domain, expected) in [
        ("null.test", "failed 5.1.10"),
        ("ours.test", "failed 5.4.6"),
        ("fails.test", "deferred 4.4.3"),
        ("no-address.test", "failed 5.4.4"),
        ("half.test", "deferred 4.4.3"),
        ("empty.test", "failed 5.1.2"),
        ("missing.test", "failed 5.1.2"),
        ("loop.test", "deferred 4.4.3"),
        ("me.test", "failed 5.1.2"),
    ] {
        assert_eq!(deliver_one(&relay, to(domain)), expected, "{domain}");
    }
    let host = HostPort { host: "missing.test".parse().unwrap(), port: 25 };
    let unresolvable = NextHop::Smarthost(Smarthost::new(vec![host], ClientTls::None));
    assert_eq!(deliver_one(&relay, unresolvable), "deferred 4.4.4");
}

#[test]
fn a_silent_name_server_defers() {
    let dns = DnsServer::new(|_, _| Dns::Silence);
    let resolver = Resolver::new(&[dns.address()]).with_timeout(Duration::from_millis(200));
    let relay = Relay::with_resolver("me.test".parse().unwrap(), resolver);
    assert_eq!(deliver_one(&relay, to("slow.test")), "deferred 4.4.3");
}

#[test]
fn exchangers_are_tried_by_preference_and_then_the_next() {
    let best = Peer::at(
        "127.0.0.1:0",
        |_, line| if line == "connect" { say("421 busy\r\n") } else { None },
    );
    let port = best.address().port();
    let second = Peer::at(&format!("127.0.0.2:{port}"), |_, _| None);
    let last = Peer::at(&format!("127.0.0.3:{port}"), |_, _| None);
    let dns = DnsServer::new(|name, kind| match (name, kind) {
        ("d.test", RecordType::MX) => Dns::Records(vec![
            mx(30, "c.test"),
            mx(10, "a.test"),
            mx(20, "b.test"),
            mx(5, "gone.test"),
        ]),
        ("a.test", RecordType::A) => Dns::Records(vec![address("127.0.0.1")]),
        ("b.test", RecordType::A) => Dns::Records(vec![address("127.0.0.2")]),
        ("c.test", RecordType::A) => Dns::Records(vec![address("127.0.0.3")]),
        ("gone.test", _) => Dns::NoSuchDomain,
        _ => Dns::Nothing,
    });
    let relay = relay_asking(&[dns.address()]).with_mx_port(port);
    let outcomes = relay.deliver(&job(to("d.test"), &["bob@d.test"], MESSAGE));
    let Outcome::Relayed { remote, .. } = &outcomes[0].1 else { panic!("{outcomes:?}") };
    assert_eq!(*remote, format!("b.test[127.0.0.2]:{port}"));
    assert_eq!(best.sessions().len(), 1);
    assert_eq!(second.sessions().len(), 1);
    assert_eq!(last.sessions().len(), 0);
}

#[test]
fn without_an_mx_the_host_itself_is_tried_over_cnames_and_both_families() {
    let peer = Peer::polite();
    let dns = DnsServer::new(|name, kind| match (name, kind) {
        ("alias.test", _) => Dns::Records(vec![cname("alias2.test")]),
        ("alias2.test", _) => Dns::Records(vec![cname("host.test")]),
        ("host.test", RecordType::AAAA) => Dns::Records(vec![address("::1")]),
        ("host.test", RecordType::A) => Dns::Records(vec![address("127.0.0.1")]),
        _ => Dns::Nothing,
    });
    let relay = relay_asking(&[dns.address()]).with_mx_port(peer.address().port());
    assert_eq!(deliver_one(&relay, to("alias.test")), "relayed");
    assert_eq!(deliver_one(&relay, to("[127.0.0.1]")), "relayed");
}

#[test]
fn a_huge_answer_is_bounded() {
    let dns = DnsServer::new(|_, kind| match kind {
        RecordType::MX => Dns::Records((0..200).map(|n| mx(n, &format!("h{n}.test"))).collect()),
        _ => Dns::Records((0..200).map(|n| address(&format!("127.0.1.{n}"))).collect()),
    });
    let resolver = Resolver::new(&[dns.address()]).with_timeout(Duration::from_secs(20));
    assert_eq!(resolver.mx(&"d.test".parse().unwrap()).map(|records| records.len()), Ok(32));
    let found = resolver.addresses(&"d.test".parse().unwrap());
    assert_eq!(found.map(|addresses| addresses.len()), Ok(32));
}

#[test]
fn one_family_in_trouble_does_not_hide_the_other() {
    let dns = DnsServer::new(|name, kind| match (name, kind) {
        ("a.test", RecordType::A) => Dns::Records(vec![address("127.0.0.1")]),
        ("b.test", RecordType::A) => Dns::Nothing,
        _ => Dns::Failure,
    });
    let resolver = Resolver::new(&[dns.address()]).with_timeout(Duration::from_secs(20));
    assert_eq!(resolver.addresses(&"a.test".parse().unwrap()).unwrap().len(), 1);
    let trouble = resolver.addresses(&"b.test".parse().unwrap());
    let is_trouble = matches!(trouble, Err(DnsError::Temporary(_) | DnsError::NoNetwork(_)));
    assert!(is_trouble, "{trouble:?}");
}

#[test]
fn many_threads_share_a_relay() {
    let peer = Peer::polite();
    let dns = DnsServer::new(|_, kind| match kind {
        RecordType::A => Dns::Records(vec![address("127.0.0.1")]),
        _ => Dns::Nothing,
    });
    let relay = relay_asking(&[dns.address()]).with_mx_port(peer.address().port());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(deliver_one(&relay, to("d.test")), "relayed");
                }
            });
        }
    });
    let contents: usize = peer.sessions().iter().map(|session| session.contents.len()).sum();
    assert_eq!(contents, 160);
}
