//! The sessions in `tests/dialogs/`, one file for each rule, played in memory and over a
//! socket, whole lines and one octet at a time.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::bounded;
use mailwren::config;
use mailwren::config::settings::{ListenerTls, Protocol, Settings, Vrfy};
use mailwren::deliver::dispatch::Dispatcher;
use mailwren::receive::logins::Logins;
use mailwren::receive::peer::Peer;
use mailwren::receive::policy::SessionPolicy;
use mailwren::receive::queue_runs::QueueRuns;
use mailwren::route::local::LocalRouter;
use mailwren::smtp::reply::Reply;
use mailwren::smtp::server::Limits;
use mailwren::spool::manager::Manager;
use mailwren::spool::store::Spool;

#[path = "support/home.rs"]
mod home;
#[path = "support/memory.rs"]
mod memory;
#[path = "dialogs/script.rs"]
mod script;
#[path = "support/server.rs"]
mod server;

use home::{Change, Home};
use memory::{KnowsUser, MemorySession, receipt};
use script::Script;
use server::TestServer;

/// How the octets of the client are cut into pieces.
#[derive(Clone, Copy, Debug)]
enum Pieces {
    /// Everything up to the next reply at once: the pipelined case.
    Groups,
    Lines,
    Octets,
}

impl Pieces {
    fn of(self, sent: &[Vec<u8>]) -> Vec<Vec<u8>> {
        match self {
            Self::Groups => vec![sent.concat()],
            Self::Lines => sent.to_vec(),
            Self::Octets => sent.concat().iter().map(|octet| vec![*octet]).collect(),
        }
    }
}

/// All dialogs, by the name of their files.
fn scripts() -> Vec<(String, Script)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogs");
    let mut scripts: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let script = Script::parse(&name, &fs::read_to_string(&path).unwrap());
            (name, script)
        })
        .collect();
    assert!(!scripts.is_empty(), "no dialogs");
    scripts.sort_by(|a, b| a.0.cmp(&b.0));
    scripts
}

/// Plays every dialog, and fails behind the last one with the names of those that failed.
fn each(mut play: impl FnMut(&str, &Script)) {
    let mut is_bad = |(name, script): &(String, Script)| {
        catch_unwind(AssertUnwindSafe(|| play(name, script))).is_err()
    };
    let bad: Vec<_> =
        scripts().into_iter().filter(|script| is_bad(script)).map(|(name, _)| name).collect();
    assert!(bad.is_empty(), "dialogs that failed: {bad:?}");
}

#[test]
fn in_memory() {
    each(|name, script| {
        let home = Home::new(&script.changes);
        let settings = config::load(&home.config(), "mx.test").unwrap();
        let spool = Spool::open(&settings.server.spool).unwrap();
        let router = LocalRouter::new(&settings);
        let local = [127, 0, 0, 1].into();
        let dispatcher = Dispatcher::new(bounded(1).0, bounded(1).0, 1, Vec::new());
        let (_manager, intake) =
            Manager::new(Arc::new(settings.clone()), Arc::clone(&spool), dispatcher);
        for pieces in [Pieces::Groups, Pieces::Lines, Pieces::Octets] {
            let (spool, intake, queue_runs) = (&spool, &intake, &QueueRuns::new(bounded(1).0));
            let logins = Logins::new(&settings);
            let (settings, router) = (&settings, &router);
            let peer = Peer::Host { remote: local, local };
            let (logins, exchange, user) = (&logins, &mut None, None);
            let policy = SessionPolicy {
                settings,
                spool,
                router,
                intake,
                queue_runs,
                peer,
                protocol: settings.listeners[0].protocol,
                auth: settings.listeners[0].auth,
                logins,
                exchange,
                user,
            };
            let mut session = MemorySession::new(limits(settings), policy, receipt());
            for exchange in &script.exchanges {
                for piece in pieces.of(&exchange.sent) {
                    session.feed(&piece);
                }
                let lines: Vec<_> = session.take_replies().iter().flat_map(lines_of).collect();
                exchange.check(&lines, &format!("{name}, {pieces:?}"));
            }
            assert_eq!(session.is_closed(), script.closes, "{name}, {pieces:?}: closed?");
        }
    });
}

impl KnowsUser for SessionPolicy<'_> {
    fn log_in(&mut self, user: Option<&Arc<str>>) {
        self.user = user.cloned();
    }
}

fn limits(settings: &Settings) -> Limits {
    let is_submission = settings.listeners[0].protocol == Protocol::Submission;
    Limits {
        hostname: settings.server.hostname.to_string(),
        max_message_size: settings.server.max_message_size,
        max_recipients: settings.server.max_recipients,
        offers_expn: settings.server.vrfy != Vrfy::No,
        bare_newline: settings.listeners[0].bare_newline,
        is_submission,
        origin: is_submission.then(|| settings.server.domains.origin().clone()),
        offers_start_tls: settings.listeners[0].tls == ListenerTls::StartTls,
        auth: settings.listeners[0].auth,
        auth_without_tls: settings.listeners[0].auth_without_tls,
        max_login_failures: settings.auth.auth_failures,
    }
}

fn lines_of(reply: &Reply) -> Vec<String> {
    let mut wire = Vec::new();
    reply.write_to(&mut wire);
    let wire = String::from_utf8(wire).unwrap();
    let wire = wire.strip_suffix("\r\n").unwrap();
    wire.split("\r\n").map(str::to_owned).collect()
}

#[test]
fn over_a_socket() {
    let mut servers: HashMap<Vec<Change>, (Home, TestServer)> = HashMap::new();
    each(|name, script| {
        let (_, server) = servers.entry(script.changes.clone()).or_insert_with(|| {
            let home = Home::new(&script.changes);
            let server = TestServer::start(&home);
            (home, server)
        });
        for pieces in [Pieces::Groups, Pieces::Octets] {
            play(script, server.connect(), pieces, &format!("{name}, socket, {pieces:?}"));
        }
    });
    for (_, server) in servers.into_values() {
        server.stop();
    }
}

fn play(script: &Script, mut stream: TcpStream, pieces: Pieces, who: &str) {
    let mut replies = BufReader::new(stream.try_clone().unwrap());
    for exchange in &script.exchanges {
        for piece in pieces.of(&exchange.sent) {
            match stream.write_all(&piece) {
                // It was sent away before it had said everything.
                Err(error) if script.closes && is_of_peer(error.kind()) => break,
                result => result.unwrap(),
            }
        }
        let lines: Vec<_> = exchange.expected.iter().map(|_| line(&mut replies, who)).collect();
        exchange.check(&lines, who);
    }
    if !script.closes {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let mut rest = String::new();
    replies.read_to_string(&mut rest).unwrap_or_else(|error| panic!("{who}: {error}"));
    assert_eq!(rest, "", "{who}: more than was expected");
}

fn is_of_peer(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

fn line(replies: &mut impl BufRead, who: &str) -> String {
    let mut line = String::new();
    replies.read_line(&mut line).unwrap_or_else(|error| panic!("{who}: {error}"));
    line.strip_suffix("\r\n").map_or_else(|| format!("[end] {line:?}"), str::to_owned)
}

/// A mistake in a dialog must not pass for a rule that holds.
#[test]
fn what_means_nothing_is_not_passed_over() {
    let good = "# RFC 0\nset server.vrfy = yes\nS: 220 x\nC: NOOP\nS: 250 2.0.0 Ok\n";
    Script::parse("good", good);
    for (part, bad) in [
        ("# RFC 0\n", "# no rule\n"),
        ("set ", "sat "),
        ("set server.vrfy = yes", "set server.vrfy"),
        ("set server.vrfy = yes", "set server.vrfy = yes\nset server.vrfy = no"),
        ("S: 220 x\n", ""),
        ("C: NOOP\nS: 250 2.0.0 Ok\n", ""),
        ("C: NOOP", "C NOOP"),
        ("C: NOOP", "C*x: NOOP"),
        ("C: NOOP", "C: NO\\qOP"),
        ("C: NOOP", "S: [close]\nC: NOOP"),
        ("C: NOOP", "set server.vrfy = no\nC: NOOP"),
    ] {
        let text = good.replacen(part, bad, 1);
        assert_ne!(text, good);
        assert!(catch_unwind(|| Script::parse("bad", &text)).is_err(), "{text}");
    }
    for setting in ["server.hostname = mx.test", "server.vrfi = yes", "server.vrfy = perhaps"] {
        let (name, value) = setting.split_once(" = ").unwrap();
        let load = || config::load(&Home::new(&[(name.into(), value.into())]).config(), "mx.test");
        assert!(!matches!(catch_unwind(load), Ok(Ok(_))), "{setting}");
    }
}
