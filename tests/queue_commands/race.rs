//! Commands against a server under load: each message ends in exactly one way, and nothing is
//! delivered once a command has said that it was deleted.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::peer::Peer;
use crate::scene::{Scene, wait_for};
use crate::server::TestServer;

/// Messages of each thread.
const MESSAGES: usize = 40;
const THREADS: usize = 3;

/// What a thread knows of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Deleted,
    GivenUp,
    Left,
}

#[test]
fn each_message_ends_in_exactly_one_way() {
    let peer = Peer::new(|_, line| {
        if line == "." {
            thread::sleep(Duration::from_millis(30));
        }
        None
    });
    let scene = Scene::new(&peer.address().to_string());
    let server = scene.start();
    let ends: BTreeMap<String, End> = thread::scope(|scope| {
        let (scene, server) = (&scene, &server);
        let spawn = |thread| scope.spawn(move || work(scene, server, thread));
        let threads: Vec<_> = (0..THREADS).map(spawn).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    wait_for("the rest to go", || {
        scene.queue(&["release", "--all"]);
        scene.files("spool/queue").is_empty()
    });
    let log = server.stop();
    assert!(!log.contains("ERROR"), "{log}");
    let contents: Vec<_> = peer.sessions().into_iter().flat_map(|it| it.contents).collect();
    let sent: Vec<_> =
        contents.iter().map(|content| subject(&String::from_utf8_lossy(content))).collect();
    let mut counts = BTreeMap::new();
    for (name, end) in &ends {
        let relayed = sent.iter().filter(|sent| *sent == name).count();
        let reports = scene.mail(name).len();
        let expected = match end {
            End::Deleted => (0, 0),
            End::GivenUp => (0, 1),
            End::Left => (1, 0),
        };
        assert_eq!((relayed, reports), expected, "{name} {end:?}\n{log}");
        *counts.entry(format!("{end:?}")).or_insert(0) += 1;
    }
    assert_eq!(ends.len(), THREADS * MESSAGES);
    // The race is none if one side always wins.
    assert!(counts.values().all(|count| *count > 0) && counts.len() == 3, "{counts:?}");
}

/// Sends messages and does something to each while they are being relayed: to the last ones
/// first, so that both sides come to meet in the middle.
fn work(scene: &Scene, server: &TestServer, thread: usize) -> Vec<(String, End)> {
    let mut client = BufReader::new(server.connect());
    reply(&mut client);
    say(&mut client, "HELO client.test");
    let names: Vec<_> = (0..MESSAGES).map(|number| format!("m{thread}x{number}")).collect();
    names.iter().for_each(|name| send(&mut client, name));
    let last_first = names.into_iter().enumerate().rev();
    last_first.map(|(number, name)| (name.clone(), meddle(scene, &name, number))).collect()
}

fn meddle(scene: &Scene, name: &str, number: usize) -> End {
    let to = format!("{name}@far.test");
    let on = |verb: &str| {
        let said = scene.queue(&[verb, "--to", &to]);
        assert!([0, 75].contains(&said.code), "{said:?}");
        said.out.starts_with("1 message ")
    };
    match number % 5 {
        0 if on("delete") => End::Deleted,
        1 if on("bounce") => End::GivenUp,
        2 if on("hold") && on("delete") => End::Deleted,
        3 => {
            on("hold");
            on("release");
            on("retry");
            End::Left
        }
        4 if on("hold") && on("bounce") => End::GivenUp,
        _ => End::Left,
    }
}

fn send(client: &mut BufReader<TcpStream>, name: &str) {
    say(client, &format!("MAIL FROM:<{name}@mx.test>"));
    say(client, &format!("RCPT TO:<{name}@far.test>"));
    say(client, "DATA");
    say(client, &format!("Subject: {name}\r\n\r\nbody\r\n."));
}

fn say(client: &mut BufReader<TcpStream>, text: &str) {
    client.get_mut().write_all(format!("{text}\r\n").as_bytes()).unwrap();
    let answer = reply(client);
    assert!(answer.starts_with('2') || answer.starts_with('3'), "{text}: {answer}");
}

fn reply(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}

fn subject(content: &str) -> String {
    let line = content.lines().find_map(|line| line.strip_prefix("Subject: "));
    line.unwrap_or_default().to_owned()
}
