//! What got its 250 arrives, though the server is killed again and again: thirty rounds of load
//! and SIGKILL on one spool, into Maildir, mbox and another host, then a last start that
//! delivers what is left.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 30;
const CLIENTS: usize = 4;
/// The longest that a server lives once its first message is acknowledged.
const LONGEST_LIFE: Duration = Duration::from_millis(200);
/// Long enough for the slowest machine; nothing waits so long when all is well.
const DEADLINE: Duration = Duration::from_secs(60);
/// Deliveries that may be under way at a kill in one lane: two or four workers, and two jobs
/// waiting for each.
const UNDER_WAY: usize = 12;
/// Who gets each message; the last is at another host.
const RECIPIENTS: [&str; 3] = ["ann@home.test", "bob@home.test", "sue@far.test"];

struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(config: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_mailwren"))
            .arg("--config")
            .arg(config)
            .arg("serve")
            .env_remove("JOURNAL_STREAM")
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = log
            .by_ref()
            .find_map(|line| {
                let line = line.unwrap();
                line.split_once("listening on ")?.1.split(' ').next()?.parse().ok()
            })
            .unwrap();
        // A full pipe would stop the server.
        thread::spawn(move || log.map_while(Result::ok).for_each(drop));
        Self { process, address }
    }

    fn kill(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// The configuration of a round: mailboxes are of one format now and of the other then.
fn write_config(folder: &Path, format: &str, sink: SocketAddr) -> PathBuf {
    let path = folder.join("mailwren.ini");
    let folder = folder.display();
    let text = format!(
        "[server]\n\
         hostname = mx.home.test\n\
         domains = home.test\n\
         user = root\n\
         spool = {folder}/spool\n\
         state = {folder}/state\n\
         socket =\n\
         min_free_space = 1M\n\
         [listen.test]\n\
         address = 127.0.0.1:0\n\
         [relay]\n\
         networks = 127.0.0.0/8\n\
         [local]\n\
         format = {format}\n\
         path = {folder}/{format}/{{user}}\n\
         users = any\n\
         aliases =\n\
         [smarthost]\n\
         host = {sink}\n\
         tls = none\n\
         [queue]\n\
         retry = 1s\n"
    );
    fs::write(&path, text).unwrap();
    path
}

/// A mail server that takes everything, and keeps the text of each message that it took.
struct Sink {
    address: SocketAddr,
    texts: Arc<Mutex<Vec<String>>>,
}

impl Sink {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sink =
            Self { address: listener.local_addr().unwrap(), texts: Arc::new(Mutex::default()) };
        let texts = Arc::clone(&sink.texts);
        // It ends with the test.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let texts = Arc::clone(&texts);
                // A client that is killed is what this test is about.
                thread::spawn(move || take_messages(&stream.unwrap(), &texts).ok());
            }
        });
        sink
    }
}

fn take_messages(mut stream: &TcpStream, texts: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    stream.write_all(b"220 far.test\r\n")?;
    while let Some(line) = lines.next().transpose()? {
        stream.write_all(match line.split(' ').next().unwrap_or_default() {
            "EHLO" => b"250-far.test\r\n250 8BITMIME\r\n",
            "DATA" => b"354 go on\r\n",
            _ => b"250 ok\r\n",
        })?;
        if line == "DATA" {
            let mut text = String::new();
            loop {
                let line = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
                if line == "." {
                    break;
                }
                text += &(line + "\n");
            }
            texts.lock().unwrap().push(text);
            stream.write_all(b"250 taken\r\n")?;
        }
    }
    Ok(())
}

/// The lines between the mark at the beginning and the one at the end: few for most messages,
/// many for some.
fn body_lines(key: &str) -> usize {
    if key.ends_with('7') { 3000 } else { 3 }
}

/// Sends messages until the server is gone, and tells of each that got its 250.
fn send_messages(address: SocketAddr, name: &str, acknowledged: &Sender<String>) -> io::Result<()> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut replies = BufReader::new(stream.try_clone()?).lines();
    let mut expect = |code: &str| -> io::Result<()> {
        loop {
            let line = replies.next().ok_or(io::ErrorKind::UnexpectedEof)??;
            assert!(line.starts_with(code), "{line}");
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    };
    let mut stream = stream;
    expect("220")?;
    stream.write_all(b"EHLO client.test\r\n")?;
    expect("250")?;
    for number in 0.. {
        let key = format!("{name}-{number}");
        stream.write_all(b"MAIL FROM:<>\r\n")?;
        expect("250")?;
        for recipient in RECIPIENTS {
            stream.write_all(format!("RCPT TO:<{recipient}>\r\n").as_bytes())?;
            expect("250")?;
        }
        stream.write_all(b"DATA\r\n")?;
        expect("354")?;
        let filler = format!("line of {key}\r\n").repeat(body_lines(&key));
        let text = format!("Subject: {key}\r\n\r\n{filler}end of {key}\r\n.\r\n");
        stream.write_all(text.as_bytes())?;
        expect("250")?;
        acknowledged.send(key).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Loads the server with messages and kills it in the middle. Gives what was acknowledged.
fn round(config: &Path, number: usize, life: Duration) -> Vec<String> {
    let server = Server::start(config);
    let (acknowledged, keys) = mpsc::channel();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (acknowledged, address) = (acknowledged.clone(), server.address);
            let name = format!("{number}-{client}");
            thread::spawn(move || send_messages(address, &name, &acknowledged).unwrap_err())
        })
        .collect();
    drop(acknowledged);
    let mut all = vec![keys.recv_timeout(DEADLINE).unwrap()];
    let end = Instant::now() + life;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        all.extend(keys.recv_timeout(left));
    }
    server.kill();
    for client in clients {
        client.join().unwrap();
    }
    all.extend(keys);
    all
}

/// Numbers that follow from a seed (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// The message in `text` if it is whole.
fn whole_key(text: &str) -> Option<&str> {
    let key = text.lines().find_map(|line| line.strip_prefix("Subject: "))?;
    let (_, body) = text.split_once("\n\n")?;
    let whole = format!("line of {key}\n").repeat(body_lines(key)) + &format!("end of {key}\n");
    (body.trim_end_matches('\n') == whole.trim_end_matches('\n')).then_some(key)
}

/// How often each message is there, and how many are not whole.
#[derive(Default)]
struct Found {
    whole: BTreeMap<String, usize>,
    torn: usize,
}

impl Found {
    fn add(&mut self, text: &str) {
        match whole_key(&text.replace('\r', "")) {
            Some(key) => *self.whole.entry(key.to_owned()).or_default() += 1,
            None => self.torn += 1,
        }
    }
}

/// What a user has, in the mailboxes of both formats.
fn mailboxes(folder: &Path, user: &str) -> Found {
    let mut found = Found::default();
    for entry in fs::read_dir(folder.join("maildir").join(user).join("new")).unwrap() {
        found.add(&fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    assert_eq!(found.torn, 0, "only whole files get into a Maildir");
    let mbox = fs::read_to_string(folder.join("mbox").join(user)).unwrap();
    // A From_ line follows an empty one (RFC 4155), and none of ours is in a message.
    format!("\n{mbox}").split("\n\nFrom ").for_each(|text| found.add(text));
    found
}

fn wait_until_empty(queue: &Path) {
    let deadline = Instant::now() + DEADLINE;
    while fs::read_dir(queue).unwrap().next().is_some() {
        assert!(Instant::now() < deadline, "messages are stuck in the queue");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn every_acknowledged_message_outlives_thirty_kills() {
    let folder = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    for format in ["maildir", "mbox"] {
        fs::create_dir(folder.path().join(format)).unwrap();
    }
    let seed = RandomState::new().build_hasher().finish() | 1;
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut acknowledged = BTreeSet::new();
    for number in 0..ROUNDS {
        let format = if random.below(2) == 0 { "maildir" } else { "mbox" };
        let config = write_config(folder.path(), format, sink.address);
        let life = Duration::from_micros(random.below(LONGEST_LIFE.as_micros() as u64));
        acknowledged.extend(round(&config, number, life));
    }
    assert!(acknowledged.len() >= ROUNDS);
    for format in ["maildir", "mbox"] {
        let config = write_config(folder.path(), format, sink.address);
        let server = Server::start(&config);
        wait_until_empty(&folder.path().join("spool/queue"));
        server.kill();
    }
    let [ann, bob, _] = RECIPIENTS;
    for (recipient, user) in [(ann, "ann"), (bob, "bob")] {
        let found = mailboxes(folder.path(), user);
        // Of an mbox a kill may leave the end, where it was just being written, in part.
        check(recipient, &found, &acknowledged, ROUNDS);
    }
    let mut far = Found::default();
    sink.texts.lock().unwrap().iter().for_each(|text| far.add(text));
    check(RECIPIENTS[2], &far, &acknowledged, 0);
}

/// Everything acknowledged is there, whole; twice only what a kill found between its delivery
/// and the record of it.
fn check(recipient: &str, found: &Found, acknowledged: &BTreeSet<String>, most_torn: usize) {
    for key in acknowledged {
        assert!(found.whole.contains_key(key), "{key} is lost for {recipient}");
    }
    let repeated = found.whole.values().filter(|count| **count > 1).count();
    assert!(repeated <= ROUNDS * UNDER_WAY, "{repeated} messages came twice to {recipient}");
    assert!(found.torn <= most_torn, "{} parts of messages came to {recipient}", found.torn);
}
