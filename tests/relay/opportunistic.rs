//! TLS that nobody has to prove anything for: where a host offers it, mail goes encrypted; where
//! it does not, in the clear; where it is broken, as the configuration says.

use std::time::Duration;

use mailwren::config::settings::{ClientTls, Login, SecretSource, Smarthost};
use mailwren::deliver::conversation::Timeouts;
use mailwren::deliver::outcome::Outcome;
use mailwren::deliver::pool::Deliver;
use mailwren::deliver::relay::Relay;
use mailwren::mail::address::Domain;
use mailwren::route::next_hop::NextHop;
use openssl::ssl::SslVersion;

use crate::peer::{Peer, say};
use crate::tls::{check_untold, host};
use crate::tls_peer::{Authority, Handshake, Identity, Manners, Session, TlsPeer};
use crate::{MESSAGE, deliver_one, failure, job, relay};

const NO_STARTTLS: &str = "250-peer.test\r\n250 PIPELINING\r\n";

fn via(peer: &TlsPeer, falls_back_to_plain: bool) -> NextHop {
    let smarthost = Smarthost::new(vec![host(peer)], ClientTls::Opportunistic);
    NextHop::Smarthost(Smarthost { falls_back_to_plain, ..smarthost })
}

/// The peer as the only mail exchanger of a domain, and a relay that finds it.
fn exchanger(peer: &TlsPeer) -> (NextHop, Relay) {
    let address = peer.address();
    (NextHop::Mx(Domain::Literal(address.ip())), relay().with_mx_port(address.port()))
}

fn expired() -> Identity {
    Authority::new().sign_for("somebody.else.test", (-9, -1))
}

fn tls_of(relay: &Relay, next_hop: NextHop) -> Option<&'static str> {
    match &relay.deliver(&job(next_hop, &["bob@there.test"], MESSAGE))[0].1 {
        Outcome::Relayed { tls, .. } => *tls,
        other => panic!("{other:?}"),
    }
}

/// How many messages came in the clear and how many encrypted, by session.
fn counts(peer: &TlsPeer) -> Vec<(usize, usize)> {
    let count = |session: &Session| match session.secured.is_empty() {
        true => (session.contents.len(), 0),
        false => (0, session.contents.len()),
    };
    peer.sessions().iter().map(count).collect()
}

/// Manners of a host that offers STARTTLS and does not bring it about, and the words for it.
fn broken() -> [(Manners, &'static str); 7] {
    let good = Manners::start_tls;
    let with = |handshake| Manners { handshake, ..good() };
    let with_alert = b"\x15\x03\x03\x00\x02\x02\x28";
    [
        (
            Manners { start_tls: "454 4.7.0 not now\r\n", ..good() },
            "refused STARTTLS, and nothing is sent in the clear: 454 4.7.0 not now",
        ),
        (
            Manners { start_tls: "501 5.5.4 what\r\n", ..good() },
            "refused STARTTLS, and nothing is sent in the clear: 501 5.5.4 what",
        ),
        (with(Handshake::SayAndHangUp(b"")), "closed the connection in the TLS handshake"),
        (
            with(Handshake::SayAndHangUp(b"250 plain words\r\n")),
            "did not answer the TLS handshake with TLS",
        ),
        (
            with(Handshake::SayAndHangUp(with_alert)),
            "failed at the TLS handshake: sslv3 alert handshake failure",
        ),
        (with(Handshake::Silence), "took too long over the TLS handshake"),
        // Says so behind the handshake.
        (
            Manners { wants_client_certificate: true, ..good() },
            "failed at the TLS handshake: tlsv13 alert certificate required",
        ),
    ]
}

fn impatient(relay: Relay) -> Relay {
    // Long enough for a peer that does its part of it.
    let handshake = Duration::from_secs(2);
    relay.with_timeouts(Timeouts { handshake, ..Timeouts::default() })
}

#[test]
fn offered_it_is_used_whatever_the_certificate() {
    for (version, expected) in [(SslVersion::TLS1_2, "TLSv1.2"), (SslVersion::TLS1_3, "TLSv1.3")] {
        for falls_back in [false, true] {
            let peer = TlsPeer::new(&expired(), Manners { version, ..Manners::start_tls() });
            let relay = relay();
            for _ in 0..2 {
                assert_eq!(tls_of(&relay, via(&peer, falls_back)), Some(expected));
            }
            assert_eq!(counts(&peer), [(0, 2)]);
        }
        let peer = TlsPeer::new(&expired(), Manners { version, ..Manners::start_tls() });
        let (next_hop, relay) = exchanger(&peer);
        assert_eq!(tls_of(&relay, next_hop), Some(expected));
        assert_eq!(counts(&peer), [(0, 1)]);
    }
}

#[test]
fn an_exchanger_that_wants_it_first_costs_no_mail() {
    // Its TLS may be broken for now; the 530 (RFC 3207 §4) is about this session in the clear.
    for (verb, expected) in [("MAIL", "deferred 4.7.0"), ("RCPT", "failed 5.7.0")] {
        let peer = Peer::new(move |_, line| match line.starts_with(verb) {
            true => say("530 5.7.0 Must issue a STARTTLS command first\r\n"),
            false => None,
        });
        let next_hop = NextHop::Mx(Domain::Literal(peer.address().ip()));
        let relay = relay().with_mx_port(peer.address().port());
        assert_eq!(deliver_one(&relay, next_hop), expected);
    }
}

#[test]
fn not_offered_it_is_not_missed() {
    let ehlo = NO_STARTTLS;
    for falls_back in [false, true] {
        let peer = TlsPeer::new(&expired(), Manners { ehlo, ..Manners::start_tls() });
        assert_eq!(tls_of(&relay(), via(&peer, falls_back)), None);
        assert_eq!(counts(&peer), [(1, 0)]);
    }
    let peer = TlsPeer::new(&expired(), Manners { ehlo, ..Manners::start_tls() });
    let (next_hop, relay) = exchanger(&peer);
    assert_eq!(tls_of(&relay, next_hop), None);
    assert_eq!(counts(&peer), [(1, 0)]);
}

#[test]
fn broken_it_keeps_the_mail_here_and_the_remedy_is_told() {
    for (manners, expected) in broken() {
        let peer = TlsPeer::new(&expired(), manners);
        let failure = failure(&impatient(relay()), via(&peer, false));
        let text = format!(
            "[127.0.0.1]:{} {expected}; fallback = plain in [smarthost] would send it in the clear",
            peer.address().port()
        );
        assert_eq!(failure.text, text);
        assert_eq!(failure.remote, None, "the log would have the remote's words alone");
        assert_eq!(failure.status.to_string(), "4.7.5", "{expected}");
        assert_eq!(peer.sessions().len(), 1);
        check_untold(&peer);
    }
}

#[test]
fn broken_it_is_left_out_where_that_may_be_and_not_tried_again_soon() {
    for (manners, expected) in broken() {
        let peer = TlsPeer::new(&expired(), manners.clone());
        let relay = impatient(relay());
        assert_eq!(tls_of(&relay, via(&peer, true)), None, "{expected}");
        assert_eq!(counts(&peer), [(0, 0), (1, 0)], "{expected}");
        assert!(!peer.sessions()[1].plain.contains(&"STARTTLS".to_owned()), "{expected}");
        let peer = TlsPeer::new(&expired(), manners);
        let (next_hop, relay) = exchanger(&peer);
        assert_eq!(tls_of(&impatient(relay), next_hop), None, "{expected}");
        assert_eq!(counts(&peer), [(0, 0), (1, 0)], "{expected}");
    }
    // It hangs up after the first message, so that the second one needs a connection, too.
    let manners = Manners {
        start_tls: "454 no\r\n",
        last_words: Some("250 taken\r\n"),
        last_words_in: 1,
        ..Manners::start_tls()
    };
    let peer = TlsPeer::new(&expired(), manners);
    let relay = relay();
    for _ in 0..2 {
        assert_eq!(deliver_one(&relay, via(&peer, true)), "relayed");
    }
    assert_eq!(counts(&peer), [(0, 0), (1, 0), (1, 0)]);
    let asked = |session: &Session| session.plain.contains(&"STARTTLS".to_owned());
    assert_eq!(peer.sessions().iter().filter(|session| asked(session)).count(), 1);
    // What may go in the clear with one section's leave does not with another's.
    assert!(failure(&relay, via(&peer, false)).text.contains("refused STARTTLS"));
}

#[test]
fn words_put_behind_the_220_never_bring_mail_into_the_clear() {
    let start_tls = "220 go\r\n250-peer.test\r\n250 SIZE\r\n";
    for falls_back in [false, true] {
        let peer = TlsPeer::new(&expired(), Manners { start_tls, ..Manners::start_tls() });
        let failure = failure(&relay(), via(&peer, falls_back));
        assert_eq!(failure.status.to_string(), "4.7.5");
        assert!(failure.text.ends_with(" said more than a reply to STARTTLS"), "{failure:?}");
        assert_eq!(peer.sessions().len(), 1);
        check_untold(&peer);
    }
    let peer = TlsPeer::new(&expired(), Manners { start_tls, ..Manners::start_tls() });
    let (next_hop, relay) = exchanger(&peer);
    assert_eq!(failure(&relay, next_hop).status.to_string(), "4.7.5");
    check_untold(&peer);
}

#[test]
fn a_host_that_is_just_not_there_is_not_thought_to_have_broken_tls() {
    let manners = Manners { start_tls: "421 4.3.2 later\r\n", ..Manners::start_tls() };
    let peer = TlsPeer::new(&expired(), manners);
    assert_eq!(failure(&relay(), via(&peer, true)).status.to_string(), "4.3.2");
    assert_eq!(peer.sessions().len(), 1);
    check_untold(&peer);
}

#[test]
fn a_password_that_may_not_go_in_the_clear_keeps_the_mail_out_of_it() {
    for (without_tls, expected) in [
        (
            false,
            "; fallback = plain in [smarthost], with auth_without_tls = yes for the password, \
             would send it in the clear",
        ),
        (true, ""),
    ] {
        let manners = Manners { start_tls: "454 no\r\n", ..Manners::start_tls() };
        let peer = TlsPeer::new(&expired(), manners);
        let secret = SecretSource::Inline("sesame".to_owned());
        let login = Login { user: "ann".to_owned(), secret, mechanisms: Vec::new(), without_tls };
        let NextHop::Smarthost(smarthost) = via(&peer, true) else { panic!() };
        let next_hop = NextHop::Smarthost(Smarthost { login: Some(login), ..smarthost });
        let outcomes = relay().deliver(&job(next_hop, &["bob@there.test"], MESSAGE));
        if let Outcome::Deferred(failure) = &outcomes[0].1 {
            assert!(failure.text.ends_with(expected), "{failure:?}");
        }
        // With leave for the password a second session comes, whatever the login does there.
        assert_eq!(peer.sessions().len(), if without_tls { 2 } else { 1 });
    }
}

#[test]
fn a_kept_connection_that_went_bad_is_replaced() {
    for last_words in ["250 taken\r\n", "250 taken\r\n421 bye\r\n", "250 taken\r\n250 more\r\n"] {
        let last_words = Some(last_words);
        let peer = TlsPeer::new(&expired(), Manners { last_words, ..Manners::start_tls() });
        let relay = relay();
        for _ in 0..3 {
            assert_eq!(deliver_one(&relay, via(&peer, false)), "relayed");
        }
        assert_eq!(counts(&peer), [(0, 1), (0, 2)]);
    }
}
