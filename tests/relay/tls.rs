//! Mail to a smarthost that has to be encrypted arrives encrypted, or waits.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mailwren::config::settings::{ClientTls, HostPort, Smarthost};
use mailwren::deliver::conversation::Timeouts;
use mailwren::deliver::pool::Deliver;
use mailwren::deliver::relay::Relay;
use mailwren::mail::address::Domain;
use mailwren::route::next_hop::NextHop;
use openssl::ssl::SslVersion;
use trust_dns_resolver::proto::rr::RecordType;

use crate::dns_server::{Answer as Dns, DnsServer, address};
use crate::tls_peer::{Authority, Handshake, Identity, Manners, TlsPeer};
use crate::{MESSAGE, deliver_one, failure, job, relay, relay_asking, summary};

const MODES: [ClientTls; 2] = [ClientTls::StartTls, ClientTls::Implicit];

fn manners(tls: ClientTls) -> Manners {
    match tls {
        ClientTls::Implicit => Manners::implicit(),
        _ => Manners::start_tls(),
    }
}

pub(crate) fn host(peer: &TlsPeer) -> HostPort {
    HostPort { host: Domain::Literal(peer.address().ip()), port: peer.address().port() }
}

fn via(peers: &[&TlsPeer], tls: ClientTls, ca: impl Into<PathBuf>) -> NextHop {
    let hosts = peers.iter().map(|peer| host(peer)).collect();
    NextHop::Smarthost(Smarthost { ca: Some(ca.into()), ..Smarthost::new(hosts, tls) })
}

/// A name server that knows `smart.home.test`, and a relay that asks it.
fn relay_by_name() -> (DnsServer, Relay) {
    let dns = DnsServer::new(|name, kind| match (name, kind) {
        (name, RecordType::A) if name.eq_ignore_ascii_case("smart.home.test") => {
            Dns::Records(vec![address("127.0.0.1")])
        }
        ("smart.home.test", _) => Dns::Nothing,
        _ => Dns::NoSuchDomain,
    });
    let relay = relay_asking(&[dns.address()]);
    (dns, relay)
}

fn via_name(peer: &TlsPeer, tls: ClientTls, ca: Option<PathBuf>) -> NextHop {
    let host = HostPort { host: "smart.home.test".parse().unwrap(), port: peer.address().port() };
    NextHop::Smarthost(Smarthost { ca, ..Smarthost::new(vec![host], tls) })
}

/// Fails unless the peer has seen a client that left before it said anything of the mail.
pub(crate) fn check_untold(peer: &TlsPeer) {
    for session in peer.sessions() {
        let plain: Vec<&str> = session.plain.iter().map(String::as_str).collect();
        assert!(
            ["EHLO me.test", "STARTTLS", "QUIT"]
                .iter()
                .all(|line| { plain.iter().filter(|told| told == &line).count() <= 1 })
        );
        assert!(plain.len() <= 3 && !plain.iter().any(|line| line.contains(':')), "{plain:?}");
        assert!(session.secured.is_empty() && session.contents.is_empty(), "{session:?}");
    }
}

#[test]
fn messages_arrive_whole_over_one_encrypted_connection() {
    let authority = Authority::new();
    let large = b"0123456789abcdef0123456789abcd\r\n".repeat(1 << 15);
    assert_eq!(large.len(), 1 << 20);
    for (tls, version) in [
        (ClientTls::StartTls, SslVersion::TLS1_2),
        (ClientTls::StartTls, SslVersion::TLS1_3),
        (ClientTls::Implicit, SslVersion::TLS1_2),
        (ClientTls::Implicit, SslVersion::TLS1_3),
    ] {
        let peer = TlsPeer::new(&authority.sign("127.0.0.1"), Manners { version, ..manners(tls) });
        let relay = relay();
        for content in [MESSAGE, &large, MESSAGE] {
            let job = job(via(&[&peer], tls, authority.file()), &["bob@there.test"], content);
            assert_eq!(summary(&relay.deliver(&job)), ["relayed"]);
        }
        drop(relay);
        let sessions = peer.sessions();
        assert_eq!(sessions.len(), 1, "{tls:?} {version:?}");
        let plain: &[&str] = match tls {
            ClientTls::Implicit => &[],
            _ => &["EHLO me.test", "STARTTLS"],
        };
        assert_eq!(sessions[0].plain, plain);
        let secured = &sessions[0].secured;
        // What was offered before the handshake is forgotten, and what came after it counts.
        let mail = format!("MAIL FROM:<ann@here.test> SIZE={}", MESSAGE.len());
        assert_eq!(secured[..3], ["EHLO me.test", mail.as_str(), "RCPT TO:<bob@there.test>"]);
        assert_eq!(secured.last().unwrap(), "QUIT");
        let contents = &sessions[0].contents;
        assert_eq!(contents[0], b"Subject: hello\r\n\r\n..dotted\r\n\xe4\r\n.\r\n");
        assert!(contents[1].strip_suffix(b".\r\n").unwrap() == large);
        assert_eq!(contents[2], contents[0]);
    }
}

/// How a fingerprint stands in the configuration and in the log.
fn pin(identity: &Identity) -> String {
    let digits: Vec<_> =
        identity.fingerprint().iter().map(|octet| format!("{octet:02x}")).collect();
    format!("fingerprint = sha256:{}", digits.concat())
}

#[test]
fn the_certificate_must_be_the_hosts_and_what_is_wrong_is_told_with_what_to_do() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (_dns, relay) = relay_by_name();
    let ca = Some(authority.file());
    let mine = "smart.home.test";
    let name = "give the right name as host in [smarthost], or PIN if it is yours";
    let unknown = "shows a certificate whose issuer is not trusted here; if it is yours, give PIN \
                   in [smarthost], or ca = FILE with the certificate of who signed it";
    let own = "shows a certificate that it has signed itself and nobody knows here; if it is \
               yours, give PIN in [smarthost], or ca = FILE with the certificate of who signed it";
    let other = format!("shows a certificate that is for other.test and not for {mine}; {name}");
    let address = format!("shows a certificate that is for 127.0.0.1 and not for {mine}; {name}");
    let below = format!("shows a certificate that is for sub.{mine} and not for {mine}; {name}");
    for tls in MODES {
        for (identity, ca, expected) in [
            (authority.sign("other.test"), &ca, other.as_str()),
            (authority.sign("127.0.0.1"), &ca, &address),
            (authority.sign("sub.smart.home.test"), &ca, &below),
            (authority.sign_for(mine, (-9, -1)), &ca, "shows a certificate that expired on "),
            (authority.sign_for(mine, (1, 9)), &ca, "shows a certificate that is valid from "),
            (stranger.sign(mine), &ca, unknown),
            (stranger.authority().sign(mine), &ca, unknown),
            (Identity::self_signed(mine), &ca, own),
            (Identity::self_signed(mine), &None, own),
            (authority.sign(mine), &None, unknown),
        ] {
            let peer = TlsPeer::new(&identity, manners(tls));
            let failure = failure(&relay, via_name(&peer, tls, ca.clone()));
            assert_eq!(failure.status.to_string(), "4.7.5", "{failure:?}");
            let port = peer.address().port();
            let expected = expected.replace("PIN", &pin(&identity));
            let text = format!("smart.home.test[127.0.0.1]:{port} {expected}");
            match expected.ends_with(' ') {
                true => {
                    assert!(failure.text.starts_with(&text), "{failure:?}");
                    assert!(
                        failure.text.contains("; the clock of this host shows "),
                        "{failure:?}"
                    );
                }
                false => assert_eq!(failure.text, text),
            }
            // The second one had a look at the certificate.
            assert_eq!(peer.sessions().len(), 2);
            check_untold(&peer);
        }
        let peer = TlsPeer::new(&authority.sign(mine), manners(tls));
        assert_eq!(deliver_one(&relay, via_name(&peer, tls, ca.clone())), "relayed");
        let peer = TlsPeer::new(&authority.sign("*.home.test"), manners(tls));
        assert_eq!(deliver_one(&relay, via_name(&peer, tls, ca.clone())), "relayed");
        let peer = TlsPeer::new(&authority.authority().sign(mine), manners(tls));
        assert_eq!(deliver_one(&relay, via_name(&peer, tls, ca.clone())), "relayed");
        let peer = TlsPeer::new(&authority.sign("127.0.0.2"), manners(tls));
        let failure = failure(&relay, via(&[&peer], tls, authority.file()));
        assert!(failure.text.contains(" is for 127.0.0.2 and not for 127.0.0.1; "), "{failure:?}");
        check_untold(&peer);
    }
}

#[test]
fn names_match_as_names_do() {
    let authority = Authority::new();
    for (host, shown, is_its) in [
        ("SMART.Home.test", "smart.home.test", true),
        ("smart.home.test.", "smart.home.test", true),
        ("smart.home.test", "SMART.HOME.TEST", true),
        ("smart.home.test", "*.home.test", true),
        // RFC 6125 §6.4.3: a wildcard is one whole label.
        ("smart.home.test", "*.test", false),
        ("smart.home.test", "s*.home.test", false),
        ("smart.home.test", "smart.home.test.evil.test", false),
        ("smart.home.test", "127.0.0.1", false),
    ] {
        let peer = TlsPeer::new(&authority.sign(shown), manners(ClientTls::StartTls));
        let (_dns, relay) = relay_by_name();
        let host = HostPort { host: host.parse().unwrap(), port: peer.address().port() };
        let smarthost = Smarthost::new(vec![host], ClientTls::StartTls);
        let next_hop = NextHop::Smarthost(Smarthost { ca: Some(authority.file()), ..smarthost });
        let expected = if is_its { "relayed" } else { "deferred 4.7.5" };
        assert_eq!(deliver_one(&relay, next_hop), expected, "{shown}");
    }
}

fn via_pin(peer: &TlsPeer, tls: ClientTls, fingerprint: [u8; 32]) -> NextHop {
    let smarthost = Smarthost::new(vec![host(peer)], tls);
    NextHop::Smarthost(Smarthost { fingerprint: Some(fingerprint), ..smarthost })
}

#[test]
fn a_pinned_certificate_is_taken_whatever_it_says_and_no_other_one() {
    let authority = Authority::new();
    for tls in MODES {
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let odd = authority.sign_for("somebody.else.test", (-9, -1));
            let peer = TlsPeer::new(&odd, Manners { version, ..manners(tls) });
            let relay = relay();
            for _ in 0..2 {
                let next_hop = via_pin(&peer, tls, odd.fingerprint());
                assert_eq!(deliver_one(&relay, next_hop), "relayed");
            }
            assert_eq!(peer.sessions().len(), 1);
            // One that every check would pass, but for the last bit.
            let good = authority.sign("127.0.0.1");
            let mut other = good.fingerprint();
            other[31] ^= 1;
            let peer = TlsPeer::new(&good, Manners { version, ..manners(tls) });
            let failure = failure(&relay, via_pin(&peer, tls, other));
            let text = format!(
                "[127.0.0.1]:{} shows another certificate than the one that was pinned; if it is \
                 yours, give {} in [smarthost]",
                peer.address().port(),
                pin(&good)
            );
            assert_eq!((failure.status.to_string().as_str(), failure.text), ("4.7.5", text));
            assert_eq!(peer.sessions().len(), 1);
            check_untold(&peer);
        }
    }
}

#[test]
fn a_self_signed_certificate_can_be_trusted() {
    let (_dns, relay) = relay_by_name();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let identity = Identity::self_signed("smart.home.test");
    let other = Identity::self_signed("other.test");
    std::fs::write(&ca, [other.pem(), identity.pem()].concat()).unwrap();
    let peer = TlsPeer::new(&identity, Manners::start_tls());
    let next_hop = via_name(&peer, ClientTls::StartTls, Some(ca));
    assert_eq!(deliver_one(&relay, next_hop), "relayed");
}

#[test]
fn a_server_without_starttls_gets_no_mail() {
    let authority = Authority::new();
    let identity = authority.sign("127.0.0.1");
    let good = Manners::start_tls;
    let without = "does not offer STARTTLS, and nothing is sent in the clear; see that port and \
                   tls in [smarthost] are the right ones";
    for (manners, status, expected) in [
        (Manners { ehlo: "250-peer.test\r\n250 SIZE\r\n", ..good() }, "4.7.4", without),
        (Manners { ehlo: "250 STARTTLS\r\n", ..good() }, "4.7.4", without),
        (Manners { ehlo: "250-peer.test\r\n250 XSTARTTLS\r\n", ..good() }, "4.7.4", without),
        (
            Manners { start_tls: "454 4.7.0 not now\r\n", ..good() },
            "4.7.4",
            "refused STARTTLS, and nothing is sent in the clear: 454 4.7.0 not now",
        ),
        (
            Manners { start_tls: "501 5.5.4 what\r\n", ..good() },
            "4.7.4",
            "refused STARTTLS, and nothing is sent in the clear: 501 5.5.4 what",
        ),
        (
            Manners { start_tls: "250 ok\r\n", ..good() },
            "4.7.4",
            "refused STARTTLS, and nothing is sent in the clear: 250 ok",
        ),
        (
            Manners { start_tls: "220 go\r\n250-peer.test\r\n250 AUTH PLAIN\r\n", ..good() },
            "4.7.5",
            "said more than a reply to STARTTLS",
        ),
        (
            Manners { start_tls: "220 go\r\n2", ..good() },
            "4.7.5",
            "said more than a reply to STARTTLS",
        ),
    ] {
        let peer = TlsPeer::new(&identity, manners);
        let failure = failure(&relay(), via(&[&peer], ClientTls::StartTls, authority.file()));
        let text = format!("[127.0.0.1]:{} {expected}", peer.address().port());
        assert_eq!((failure.status.to_string().as_str(), failure.text), (status, text));
        assert_eq!(peer.sessions().len(), 1);
        check_untold(&peer);
    }
}

#[test]
fn a_handshake_that_fails_has_a_reason() {
    let authority = Authority::new();
    let identity = authority.sign("127.0.0.1");
    let closed = "closed the connection in the TLS handshake";
    let rows: [(&[u8], &str); 4] = [
        (b"220 plain.test ESMTP\r\n", "did not answer the TLS handshake with TLS"),
        // Half a record, and nothing at all.
        (b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03", closed),
        (b"", closed),
        // The alert of a server that speaks nothing above TLS 1.1.
        (
            b"\x15\x03\x01\x00\x02\x02\x46",
            "speaks only versions of TLS that are too old; nothing below TLS 1.2 is spoken here: \
             update that host",
        ),
    ];
    for tls in MODES {
        for (octets, expected) in rows {
            let handshake = Handshake::SayAndHangUp(octets);
            let peer = TlsPeer::new(&identity, Manners { handshake, ..manners(tls) });
            let failure = failure(&relay(), via(&[&peer], tls, authority.file()));
            let mut text = format!("[127.0.0.1]:{} {expected}", peer.address().port());
            if tls == ClientTls::Implicit && expected.starts_with("did not answer") {
                text += "; tls = starttls in [smarthost] may be what it speaks";
            }
            assert_eq!((failure.status.to_string().as_str(), failure.text), ("4.7.5", text));
            check_untold(&peer);
        }
    }
}

/// The relay's failure at a peer that is silent or drips, with these time-outs.
fn too_slow(handshake: Handshake, tls: ClientTls, timeouts: Timeouts) -> String {
    let authority = Authority::new();
    let manners = Manners { handshake, ..manners(tls) };
    let peer = TlsPeer::new(&authority.sign("127.0.0.1"), manners);
    let relay = relay().with_timeouts(timeouts);
    let failure = failure(&relay, via(&[&peer], tls, authority.file()));
    assert_eq!(failure.status.to_string(), "4.4.2", "{failure:?}");
    check_untold(&peer);
    failure.text.split_once(' ').unwrap().1.to_owned()
}

#[test]
fn a_peer_that_is_silent_or_drips_below_the_encryption_is_left_in_time() {
    let short = Duration::from_millis(300);
    for tls in MODES {
        for handshake in [Handshake::Silence, Handshake::Drip] {
            let timeouts = Timeouts { handshake: short, ..Timeouts::default() };
            let text = too_slow(handshake, tls, timeouts);
            assert_eq!(text, "took too long over the TLS handshake", "{tls:?}");
        }
    }
    let timeouts = Timeouts { greeting: short, ..Timeouts::default() };
    let text = too_slow(Handshake::GoodThenDrip, ClientTls::Implicit, timeouts);
    assert_eq!(text, "sent no greeting in time");
}

#[test]
fn tls_where_the_server_has_none_and_none_where_it_has_fails_in_time() {
    let authority = Authority::new();
    let identity = authority.sign("127.0.0.1");
    let peer = TlsPeer::new(&identity, Manners::start_tls());
    let failed = failure(&relay(), via(&[&peer], ClientTls::Implicit, authority.file()));
    let text = "did not answer the TLS handshake with TLS; tls = starttls in [smarthost] may be what it speaks";
    assert!(failed.text.ends_with(text), "{failed:?}");
    let peer = TlsPeer::new(&identity, Manners::implicit());
    let timeouts = Timeouts { greeting: Duration::from_millis(300), ..Timeouts::default() };
    let relay = relay().with_timeouts(timeouts);
    let failed = failure(&relay, via(&[&peer], ClientTls::StartTls, authority.file()));
    assert!(failed.text.ends_with("sent no greeting in time"), "{failed:?}");
}

#[test]
fn a_host_that_cannot_prove_its_name_gives_way_to_the_next() {
    let authority = Authority::new();
    let good = authority.sign("127.0.0.1");
    for tls in MODES {
        let wrong = TlsPeer::new(&authority.sign("other.test"), manners(tls));
        let broken = Handshake::SayAndHangUp(b"");
        let broken = TlsPeer::new(&good, Manners { handshake: broken, ..manners(tls) });
        let right = TlsPeer::new(&good, manners(tls));
        let next_hop = via(&[&wrong, &broken, &right], tls, authority.file());
        assert_eq!(deliver_one(&relay(), next_hop), "relayed");
        check_untold(&wrong);
        check_untold(&broken);
        assert_eq!(right.sessions()[0].contents.len(), 1);
    }
}

#[test]
fn a_kept_encrypted_connection_that_went_bad_is_replaced() {
    let authority = Authority::new();
    let identity = authority.sign("127.0.0.1");
    for last_words in ["250 taken\r\n", "250 taken\r\n421 bye\r\n", "250 taken\r\n250 more\r\n"] {
        let last_words = Some(last_words);
        let peer = TlsPeer::new(&identity, Manners { last_words, ..Manners::implicit() });
        let (relay, next_hop) = (relay(), via(&[&peer], ClientTls::Implicit, authority.file()));
        for _ in 0..3 {
            assert_eq!(deliver_one(&relay, next_hop.clone()), "relayed");
        }
        let counts: Vec<_> = peer.sessions().iter().map(|session| session.contents.len()).collect();
        assert_eq!(counts, [1, 2]);
    }
}

#[test]
fn connections_with_and_without_tls_are_not_mixed() {
    let authority = Authority::new();
    let peer = TlsPeer::new(&authority.sign("127.0.0.1"), Manners::start_tls());
    let relay = relay();
    for tls in [ClientTls::None, ClientTls::StartTls, ClientTls::None, ClientTls::StartTls] {
        assert_eq!(deliver_one(&relay, via(&[&peer], tls, authority.file())), "relayed");
    }
    let sessions = peer.sessions();
    assert_eq!(sessions.len(), 2);
    assert!(sessions[0].secured.is_empty());
    assert!(sessions[1].plain == ["EHLO me.test", "STARTTLS"]);
    assert!(sessions.iter().all(|session| session.contents.len() == 2));
}

#[test]
fn a_useless_ca_file_defers_and_is_named() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let peer = TlsPeer::new(&authority.sign("127.0.0.1"), Manners::start_tls());
    let relay = relay();
    let check = |ca: &Path, expected: &str| {
        let failure = failure(&relay, via(&[&peer], ClientTls::StartTls, ca));
        let text = format!("[smarthost] ca {}: {expected}", ca.display());
        assert_eq!((failure.status.to_string(), failure.text), ("4.3.5".to_owned(), text));
    };
    check(&file, "No such file or directory (os error 2)");
    check(folder.path(), "it is no regular file");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (content, expected) in [
        ("", "it has no certificate, PEM, in it"),
        ("hello\n\u{1b}[2J", "it has no certificate, PEM, in it"),
        (broken, "it has a certificate that cannot be read"),
    ] {
        std::fs::write(&file, content).unwrap();
        check(&file, expected);
    }
    assert!(peer.sessions().is_empty());
    // Once it is mended the mail goes, and when it trusts others it goes no more.
    std::fs::write(&file, authority.pem()).unwrap();
    assert_eq!(deliver_one(&relay, via(&[&peer], ClientTls::StartTls, &file)), "relayed");
    std::fs::write(&file, [Authority::new().pem(), Authority::new().pem()].concat()).unwrap();
    let other_peer = TlsPeer::new(&authority.sign("127.0.0.1"), Manners::start_tls());
    let next_hop = via(&[&other_peer], ClientTls::StartTls, &file);
    assert_eq!(deliver_one(&relay, next_hop), "deferred 4.7.5");
}
