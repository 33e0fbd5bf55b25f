//! Mail to a smarthost with an account goes after a login only, and a password goes nowhere it
//! should not.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossbeam_channel::bounded;
use mailwren::config::settings::{ClientTls, HostPort, Login, SecretSource, Smarthost};
use mailwren::deliver::conversation::Timeouts;
use mailwren::deliver::logins::Pace;
use mailwren::deliver::outcome::{Failure, Fault};
use mailwren::deliver::pool::Deliver;
use mailwren::deliver::relay::Relay;
use mailwren::mail::address::Domain;
use mailwren::route::next_hop::NextHop;
use mailwren::smtp::sasl::Mechanism;
use mailwren::spool::manager::Order;
use tempfile::TempDir;

use crate::auth_desk::{Desk, USER};
use crate::peer::{Answer, Peer, say};
use crate::tls_peer::{Authority, Handshake, Manners, TlsPeer};
use crate::{deliver_one, failure, impatient, relay};

const PASSWORD: &str = "sesame, open";
const TOKEN: &str = "ya29.a0AfB_token";
/// `\0ann@home.test\0sesame, open`.
const PLAIN: &str = "AUTH PLAIN AGFubkBob21lLnRlc3QAc2VzYW1lLCBvcGVu";
const ALL: &str = "AUTH SCRAM-SHA-256 SCRAM-SHA-1 OAUTHBEARER XOAUTH2 CRAM-MD5 PLAIN LOGIN";

fn inline(password: &str) -> SecretSource {
    SecretSource::Inline(password.to_owned())
}

fn secret_of(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::OauthBearer | Mechanism::Xoauth2 => TOKEN,
        _ => PASSWORD,
    }
}

fn login(secret: SecretSource, mechanisms: &[Mechanism]) -> Login {
    let mechanisms = mechanisms.to_vec();
    Login { user: USER.to_owned(), secret, mechanisms, without_tls: true }
}

fn via(address: std::net::SocketAddr, tls: ClientTls, login: Login) -> Smarthost {
    let host = HostPort { host: Domain::Literal(address.ip()), port: address.port() };
    let section = "smarthost".to_owned();
    Smarthost { section, login: Some(login), ..Smarthost::new(vec![host], tls) }
}

/// A next hop at `peer` in the clear, where a password may go in the clear.
fn plainly(peer: &Peer, secret: SecretSource, mechanisms: &[Mechanism]) -> NextHop {
    NextHop::Smarthost(via(peer.address(), ClientTls::None, login(secret, mechanisms)))
}

/// A server in the clear that has a desk.
fn peer_with(desk: &Arc<Desk>) -> Peer {
    let desk = Arc::clone(desk);
    Peer::new(move |session, line| desk.answer(session, line).and_then(say))
}

/// A relay that tries a refused login again as soon as it is told to.
fn hasty() -> Relay {
    relay().with_login_pace(Pace { pauses: vec![Duration::ZERO], least: Duration::ZERO })
}

fn commands(peer: &Peer) -> Vec<String> {
    peer.sessions().into_iter().flat_map(|session| session.commands).collect()
}

/// Fails unless nothing was said but what is said before a login.
fn check_untold(peer: &Peer) {
    for session in peer.sessions() {
        assert!(session.commands.len() <= 2, "{:?}", session.commands);
        assert_eq!(session.commands[0], "EHLO me.test");
        assert!(session.commands[1..].iter().all(|line| line == "QUIT"));
    }
}

fn check(failure: &Failure, status: &str, words: &str) {
    assert_eq!(failure.status.to_string(), status, "{failure:?}");
    assert!(failure.text.contains(words), "{failure:?}");
    assert!(!format!("{failure:?}").contains("sesame"), "{failure:?}");
}

#[test]
fn each_mechanism_logs_in() {
    for mechanism in Mechanism::OF_CLIENTS {
        let desk = Desk::new(&format!("AUTH {mechanism}"), secret_of(mechanism));
        let peer = peer_with(&desk);
        let relay = relay();
        let next_hop = plainly(&peer, inline(secret_of(mechanism)), &Mechanism::OF_CLIENTS);
        for _ in 0..2 {
            assert_eq!(deliver_one(&relay, next_hop.clone()), "relayed", "{mechanism}");
        }
        drop(relay);
        let commands = commands(&peer);
        assert_eq!(commands[0], "EHLO me.test");
        assert!(commands[1].starts_with(&format!("AUTH {mechanism}")), "{commands:?}");
        // One login for both messages, no second EHLO, and MAIL says that nobody knows who it is.
        let count = |verb: &str| commands.iter().filter(|line| line.starts_with(verb)).count();
        assert_eq!(["EHLO", "AUTH", "MAIL", "QUIT"].map(count), [1, 1, 2, 1], "{commands:?}");
        let says_so = |line: &&String| line.ends_with(" AUTH=<>");
        assert_eq!(commands.iter().filter(says_so).count(), 2, "{commands:?}");
    }
}

#[test]
fn a_wrong_password_is_said_once_and_the_mail_waits() {
    for mechanism in Mechanism::OF_CLIENTS {
        let desk = Desk::new(ALL, "something else");
        let peer = peer_with(&desk);
        let relay = relay();
        let next_hop = plainly(&peer, inline(secret_of(mechanism)), &[mechanism]);
        for _ in 0..3 {
            let failure = failure(&relay, next_hop.clone());
            check(&failure, "4.7.8", "refused the login: 535 5.7.8 wrong 0");
            let remedy = match secret_of(mechanism) {
                TOKEN => "; see that password in [smarthost] gives a token of this user",
                _ => "; check user and password in [smarthost]",
            };
            check(&failure, "4.7.8", remedy);
            let Fault::Login(pause) = failure.fault else { panic!("{failure:?}") };
            assert!(pause > Duration::from_secs(240), "{pause:?}");
        }
        assert_eq!(desk.refusals(), 1, "{mechanism}");
        let commands = commands(&peer);
        assert!(!commands.iter().any(|line| line.starts_with("MAIL")), "{commands:?}");
        assert!(peer.sessions().len() == 1);
    }
}

#[test]
fn the_best_mechanism_is_taken_of_those_that_may_be() {
    let all = &Mechanism::OF_CLIENTS[..];
    for (allowed, offer, expected) in [
        (all, ALL, "AUTH SCRAM-SHA-256"),
        (all, "AUTH LOGIN PLAIN CRAM-MD5", "AUTH CRAM-MD5"),
        (&[Mechanism::Login, Mechanism::Plain], ALL, PLAIN),
        (all, "AUTH=PLAIN LOGIN", PLAIN),
    ] {
        let peer = peer_with(&Desk::new(offer, PASSWORD));
        assert_eq!(deliver_one(&relay(), plainly(&peer, inline(PASSWORD), allowed)), "relayed");
        assert!(commands(&peer)[1].starts_with(expected), "{:?}", commands(&peer));
    }
}

#[test]
fn over_tls_the_offer_in_the_clear_counts_for_nothing() {
    let authority = Authority::new();
    let identity = authority.sign("127.0.0.1");
    for manners in [Manners::start_tls(), Manners::implicit()] {
        let tls = if manners.is_implicit { ClientTls::Implicit } else { ClientTls::StartTls };
        let ehlo = "250-peer.test\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n";
        let desk = Some(Desk::new("AUTH LOGIN", PASSWORD));
        let peer = TlsPeer::new(&identity, Manners { ehlo, desk, ..manners });
        let login = Login { without_tls: false, ..login(inline(PASSWORD), &Mechanism::OF_CLIENTS) };
        let smarthost = Smarthost { ca: Some(authority.file()), ..via(peer.address(), tls, login) };
        assert_eq!(deliver_one(&relay(), NextHop::Smarthost(smarthost)), "relayed");
        let session = peer.sessions().remove(0);
        assert!(!session.plain.iter().any(|line| line.contains("AUTH")), "{session:?}");
        let expected =
            ["EHLO me.test", "AUTH LOGIN", &STANDARD.encode(USER), &STANDARD.encode(PASSWORD)];
        assert_eq!(session.secured[..4], expected);
    }
}

#[test]
fn nothing_of_a_login_goes_in_the_clear_unless_it_may() {
    for tls in [ClientTls::None, ClientTls::Opportunistic] {
        for mechanism in Mechanism::OF_CLIENTS {
            let peer = peer_with(&Desk::new(ALL, PASSWORD));
            let login = Login { without_tls: false, ..login(inline(PASSWORD), &[mechanism]) };
            let next_hop = NextHop::Smarthost(via(peer.address(), tls, login));
            let failure = failure(&relay(), next_hop);
            check(&failure, "4.7.11", "got no password, since the connection is not encrypted");
            assert_eq!(failure.fault, Fault::Destination);
            check_untold(&peer);
        }
    }
}

#[test]
fn a_server_without_a_way_in_gets_no_mail() {
    for (offer, mechanisms, status, words) in [
        ("SIZE", ALL, "4.7.4", "does not offer AUTH, and mail goes with a login only"),
        ("XAUTH PLAIN", ALL, "4.7.4", "if it really needs none, remove `user` from [smarthost]"),
        ("AUTH GSSAPI NTLM", ALL, "4.7.4", "but GSSAPI NTLM; mailwren knows none of them"),
        (
            "AUTH XOAUTH2 OAUTHBEARER",
            "PLAIN LOGIN",
            "4.7.4",
            "but XOAUTH2 OAUTHBEARER; give `mechanisms = OAUTHBEARER` in [smarthost], and a \
             password_command that prints a token",
        ),
        ("AUTH PLAIN", "LOGIN", "4.7.4", "give `mechanisms = PLAIN` in [smarthost]"),
    ] {
        let peer = peer_with(&Desk::new(offer, PASSWORD));
        let mechanisms: Vec<_> = mechanisms.split(' ').filter_map(Mechanism::named).collect();
        let failure = failure(&relay(), plainly(&peer, inline(PASSWORD), &mechanisms));
        check(&failure, status, words);
        check_untold(&peer);
    }
}

#[test]
fn a_mechanism_that_the_server_does_not_have_after_all_gives_way() {
    let desk = Desk::new("AUTH CRAM-MD5 PLAIN", PASSWORD);
    let peer = Peer::new(move |session, line| match line {
        "AUTH CRAM-MD5" => say("504 5.5.4 not for you\r\n"),
        _ => desk.answer(session, line).and_then(say),
    });
    let next_hop = plainly(&peer, inline(PASSWORD), &Mechanism::OF_CLIENTS);
    assert_eq!(deliver_one(&relay(), next_hop), "relayed");
    assert_eq!(commands(&peer)[1..3], ["AUTH CRAM-MD5", PLAIN]);
}

#[test]
fn a_server_that_cannot_tell_now_is_no_refusal() {
    let peer = Peer::new(|session, line| match line {
        _ if line.starts_with("EHLO") => say("250-peer\r\n250 AUTH PLAIN\r\n"),
        PLAIN if session == 0 => say("454 4.7.0 the directory is away\r\n"),
        PLAIN => say("235 in\r\n"),
        _ => None,
    });
    let (relay, next_hop) = (hasty(), plainly(&peer, inline(PASSWORD), &[Mechanism::Plain]));
    let failure = failure(&relay, next_hop.clone());
    check(&failure, "4.7.0", "cannot tell now whether the login is good: 454 4.7.0");
    assert_eq!(failure.fault, Fault::Destination);
    assert_eq!(deliver_one(&relay, next_hop), "relayed");
}

#[test]
fn a_login_that_comes_to_nothing_is_not_tried_again_and_again() {
    for answer in ["454 4.7.0 too many logins\r\n", "421 4.7.0 bye\r\n", "334 &\r\n", ""] {
        let peer = Peer::new(move |_, line| match line {
            _ if line.starts_with("EHLO") => say("250-peer\r\n250 AUTH PLAIN\r\n"),
            PLAIN => Some(Answer::SayAndHangUp(answer.into())),
            _ => None,
        });
        let (relay, next_hop) = (relay(), plainly(&peer, inline(PASSWORD), &[Mechanism::Plain]));
        let first = failure(&relay, next_hop.clone());
        for _ in 0..3 {
            let failure = failure(&relay, next_hop.clone());
            assert_eq!((failure.status, failure.fault), (first.status, Fault::Destination));
            let text = format!("{}; not asked again within a minute", first.text);
            assert_eq!(failure.text, text);
        }
        assert_eq!(peer.sessions().len(), 1, "{answer}");
    }
    // Another host may know better.
    let peer = Peer::new(|session, line| match line {
        _ if line.starts_with("EHLO") => say("250-peer\r\n250 AUTH PLAIN\r\n"),
        PLAIN if session == 0 => say("454 4.7.0 the directory is away\r\n"),
        PLAIN => say("235 in\r\n"),
        _ => None,
    });
    let login = login(inline(PASSWORD), &[Mechanism::Plain]);
    let mut smarthost = via(peer.address(), ClientTls::None, login);
    smarthost.hosts.push(smarthost.hosts[0].clone());
    assert_eq!(deliver_one(&relay(), NextHop::Smarthost(smarthost)), "relayed");
}

#[test]
fn another_host_is_not_told_a_password_that_was_refused() {
    let (desk, other) = (Desk::new("AUTH PLAIN", "other"), Desk::new("AUTH PLAIN", PASSWORD));
    let (first, second) = (peer_with(&desk), peer_with(&other));
    let mut smarthost =
        via(first.address(), ClientTls::None, login(inline(PASSWORD), &[Mechanism::Plain]));
    let address = second.address();
    smarthost.hosts.push(HostPort { host: Domain::Literal(address.ip()), port: address.port() });
    assert_eq!(deliver_one(&relay(), NextHop::Smarthost(smarthost)), "deferred 4.7.8");
    assert_eq!((desk.refusals(), second.sessions().len()), (1, 0));
}

#[test]
fn a_server_that_wants_a_login_after_all_costs_no_mail() {
    // RFC 4954 §6 and RFC 3207 §4: 530 is about the session, whatever its class says.
    let peer = Peer::new(|_, line| match line {
        _ if line.starts_with("EHLO") => say("250-peer\r\n250 AUTH PLAIN\r\n"),
        PLAIN => say("235 in\r\n"),
        _ if line.starts_with("MAIL") => say("530 5.7.0 Authentication required\r\n"),
        _ => None,
    });
    let without = crate::smarthost(&[&peer]);
    let with = plainly(&peer, inline(PASSWORD), &[Mechanism::Plain]);
    for (next_hop, remedy) in [
        (
            without,
            "; give user and password_file in [smarthost], and see that port and tls are right",
        ),
        (with, "; see that port and tls in [smarthost] are right"),
    ] {
        let relay = relay();
        for _ in 0..2 {
            let failure = failure(&relay, next_hop.clone());
            check(
                &failure,
                "4.7.0",
                "takes no mail without more: 530 5.7.0 Authentication required",
            );
            assert!(failure.text.ends_with(remedy), "{failure:?}");
            assert_eq!(failure.fault, Fault::Destination);
        }
    }
    // None of these sessions was good for a second message.
    assert_eq!(peer.sessions().len(), 4);
}

#[test]
fn a_connection_that_is_reset_over_the_login_is_no_broken_tls() {
    let handshake = Handshake::GoodThenReset;
    let peer = TlsPeer::new(
        &Authority::new().sign("127.0.0.1"),
        Manners { handshake, ..Manners::start_tls() },
    );
    let login = login(inline(PASSWORD), &[Mechanism::Plain]);
    let smarthost = Smarthost {
        falls_back_to_plain: true,
        ..via(peer.address(), ClientTls::Opportunistic, login)
    };
    let failure = failure(&relay(), NextHop::Smarthost(smarthost));
    check(&failure, "4.4.2", "lost the connection");
    // So the password was not told again in the clear, though it might be.
    assert_eq!(peer.sessions().len(), 1);
}

#[test]
fn hostile_answers_to_auth_come_to_an_end() {
    let long: &'static str = Box::leak(format!("334 {}\r\n", "A".repeat(1 << 20)).into());
    for (answer, cancelled, words) in [
        ("334 &&&&\r\n", "501 ok\r\n", "asked something in AUTH that is no base64"),
        (long, "", "does not speak SMTP: a line of the reply is too long"),
        ("\x00\x01\x02\r\n", "", "does not speak SMTP"),
        ("334 \r\n", "334 \r\n", "the server does not keep to the mechanism"),
        ("334 \r\n", "235 in\r\n", "the server does not keep to the mechanism"),
        ("354 go\r\n", "", "gave an answer to AUTH that makes no sense"),
        ("421 4.3.2 bye\r\n", "", "will not talk to us: 421"),
    ] {
        let peer = Peer::new(move |_, line| match line {
            _ if line.starts_with("EHLO") => say("250-peer\r\n250 AUTH PLAIN\r\n"),
            PLAIN => say(answer),
            "*" => say(cancelled),
            _ => None,
        });
        let failure = failure(&relay(), plainly(&peer, inline(PASSWORD), &[Mechanism::Plain]));
        assert!(failure.status.is_temporary());
        assert_eq!(failure.fault, Fault::Destination, "{failure:?}");
        assert!(failure.text.contains(words), "{failure:?}");
        assert!(!commands(&peer).iter().any(|line| line.starts_with("MAIL")));
    }
}

#[test]
fn a_server_that_never_answers_auth_is_left_in_time() {
    for answer in [|| Answer::Silence, || Answer::Drip, || Answer::Endless(b"334-AAAA\r\n")] {
        let peer = Peer::new(move |_, line| match line {
            _ if line.starts_with("EHLO") => say("250-peer\r\n250 AUTH PLAIN\r\n"),
            PLAIN => Some(answer()),
            _ => None,
        });
        let failure = failure(&impatient(), plainly(&peer, inline(PASSWORD), &[Mechanism::Plain]));
        assert!(failure.status.is_temporary() && failure.fault == Fault::Destination);
    }
    // And one that is never done asking has one time for it all.
    let peer = Peer::new(|_, line| match line {
        _ if line.starts_with("EHLO") => say("250-peer\r\n250 AUTH LOGIN\r\n"),
        "AUTH LOGIN" => say("334 \r\n"),
        _ if line == STANDARD.encode(USER) => Some(Answer::Silence),
        _ => None,
    });
    // Long enough for the peer to answer EHLO, and the first question.
    let timeouts = Timeouts { command: Duration::from_secs(3), ..Timeouts::default() };
    let relay = relay().with_timeouts(timeouts);
    let failure = failure(&relay, plainly(&peer, inline(PASSWORD), &[Mechanism::Login]));
    assert!(failure.text.ends_with("took too long over AUTH"), "{failure:?}");
}

#[test]
fn a_scram_server_that_lies_gets_no_mail() {
    let desk = Desk::new("AUTH SCRAM-SHA-256", PASSWORD);
    desk.lie();
    let peer = peer_with(&desk);
    let failure = failure(&relay(), plainly(&peer, inline(PASSWORD), &[Mechanism::ScramSha256]));
    check(&failure, "4.7.5", "did not prove that it knows the password");
    let commands = commands(&peer);
    assert!(commands.iter().any(|line| line == "*"), "{commands:?}");
    assert!(!commands.iter().any(|line| line.starts_with("MAIL")), "{commands:?}");
}

fn file(folder: &TempDir, content: &str) -> std::path::PathBuf {
    let path = folder.path().join("password");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn a_password_file_that_changes_is_tried_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "wrong\n");
    let desk = Desk::new("AUTH PLAIN", PASSWORD);
    let peer = peer_with(&desk);
    let (orders, given) = bounded(4);
    let relay = relay().with_orders(orders);
    let next_hop = plainly(&peer, SecretSource::File(path.clone()), &[Mechanism::Plain]);
    assert_eq!(deliver_one(&relay, next_hop.clone()), "deferred 4.7.8");
    // What is there is looked after, and the same password in a new file is none.
    assert!(relay.rest() && given.is_empty());
    std::fs::remove_file(&path).unwrap();
    assert!(relay.rest() && given.is_empty());
    file(&folder, "wrong\nwith another second line\n");
    assert!(relay.rest() && given.is_empty());
    assert_eq!(deliver_one(&relay, next_hop.clone()), "deferred 4.7.8");
    assert_eq!(desk.refusals(), 1);
    file(&folder, &format!("{PASSWORD}\n"));
    assert!(!relay.rest());
    assert_eq!(given.try_iter().collect::<Vec<_>>(), [Order::RetryForLogin]);
    assert_eq!(deliver_one(&relay, next_hop), "relayed");
    // The connection is what is left to look after.
    assert!(relay.rest() && given.is_empty());
}

#[test]
fn a_password_file_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let peer = peer_with(&Desk::new("AUTH PLAIN", PASSWORD));
    let relay = relay();
    let check_file = |path: &Path, words: &str| {
        let next_hop = plainly(&peer, SecretSource::File(path.into()), &[Mechanism::Plain]);
        let failure = failure(&relay, next_hop);
        let text = format!("[smarthost] password_file {} {words}", path.display());
        assert_eq!((failure.status.to_string(), failure.text), ("4.3.5".to_owned(), text));
        assert_eq!(failure.fault, Fault::Destination);
    };
    let path = folder.path().join("password");
    check_file(&path, "cannot be read: No such file or directory (os error 2)");
    check_file(folder.path(), "cannot be read: it is no regular file");
    check_file(&file(&folder, "\nsesame"), "has nothing in its first line");
    let large = format!("sesame{}", " ".repeat(70_000));
    check_file(&file(&folder, &large), "cannot be read: it has more than 65536 octets");
    assert!(peer.sessions().is_empty());
    let path = file(&folder, PASSWORD);
    let next_hop = plainly(&peer, SecretSource::File(path), &[Mechanism::Plain]);
    assert_eq!(deliver_one(&relay, next_hop), "relayed");
}

/// A command that prints the first line of `token`, and leaves a mark each time that it runs.
fn command(folder: &TempDir, token: &str) -> SecretSource {
    std::fs::write(folder.path().join("token"), token).unwrap();
    let path = folder.path().display();
    SecretSource::Command(format!("echo run >>{path}/runs; cat {path}/token"))
}

fn runs(folder: &TempDir) -> usize {
    std::fs::read_to_string(folder.path().join("runs")).unwrap_or_default().lines().count()
}

#[test]
fn a_command_runs_once_and_again_after_a_refusal() {
    for mechanism in [Mechanism::Xoauth2, Mechanism::OauthBearer, Mechanism::Plain] {
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk::new(&format!("AUTH {mechanism}"), TOKEN);
        // A server that takes one message for each session.
        let peer = Peer::new({
            let desk = Arc::clone(&desk);
            move |session, line| match line {
                "." => Some(Answer::SayAndHangUp(b"250 taken\r\n".to_vec())),
                _ => desk.answer(session, line).and_then(say),
            }
        });
        let next_hop = plainly(&peer, command(&folder, TOKEN), &[mechanism]);
        let relay = hasty();
        for _ in 0..3 {
            assert_eq!(deliver_one(&relay, next_hop.clone()), "relayed");
        }
        assert_eq!((runs(&folder), desk.refusals()), (1, 0));
        desk.change_password("new-token");
        command(&folder, "new-token\nexpires_in=3600\n");
        for _ in 0..3 {
            assert_eq!(deliver_one(&relay, next_hop.clone()), "relayed");
        }
        assert_eq!((runs(&folder), desk.refusals()), (2, 1));
    }
}

#[test]
fn a_token_may_expire_in_the_minute_in_which_it_was_printed() {
    for mechanism in [Mechanism::Xoauth2, Mechanism::OauthBearer] {
        let folder = tempfile::tempdir().unwrap();
        let desk = Desk::new(&format!("AUTH {mechanism}"), "new-token");
        let peer = peer_with(&desk);
        let path = folder.path().display().to_string();
        let source = SecretSource::Command(format!(
            "echo run >>{path}/runs; \
             case $(wc -l <{path}/runs) in 1) echo {TOKEN};; *) echo new-token;; esac"
        ));
        // Its pause between two runs is a minute.
        let relay = relay();
        assert_eq!(deliver_one(&relay, plainly(&peer, source, &[mechanism])), "relayed");
        assert_eq!((runs(&folder), desk.refusals()), (2, 1));
    }
}

#[test]
fn a_command_whose_token_is_never_taken_is_not_run_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::new("AUTH XOAUTH2", "another");
    let peer = peer_with(&desk);
    let next_hop = plainly(&peer, command(&folder, TOKEN), &[Mechanism::Xoauth2]);
    let relay = relay();
    for _ in 0..3 {
        let failure = failure(&relay, next_hop.clone());
        let words = "535 5.7.8 wrong 0 ({\"status\":\"invalid_token\"}); see that password_command";
        check(&failure, "4.7.8", words);
    }
    // Once for the first login, and once since that was refused; the same token is not said twice.
    assert_eq!((runs(&folder), desk.refusals(), peer.sessions().len()), (2, 1, 1));
}

#[test]
fn a_command_that_fails_is_named_and_tells_no_secret() {
    let peer = peer_with(&Desk::new("AUTH XOAUTH2", TOKEN));
    for (command, words) in [
        ("echo sesame; exit 7", "[smarthost] password_command failed: exit status: 7"),
        ("true", "[smarthost] password_command has nothing in its first line"),
        ("printf '\\377sesame'", "[smarthost] password_command has a first line that is no UTF-8"),
        ("yes sesame", "[smarthost] password_command printed more than 65536 octets"),
        ("kill -9 $$", "[smarthost] password_command failed: signal: 9 (SIGKILL)"),
    ] {
        let source = SecretSource::Command(command.to_owned());
        let failure = failure(&relay(), plainly(&peer, source, &[Mechanism::Xoauth2]));
        check(&failure, "4.3.5", words);
    }
    assert!(peer.sessions().is_empty());
}
