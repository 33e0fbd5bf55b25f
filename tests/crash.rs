//! What got its 250 arrives, though the server is killed again and again: ten rounds of load
//! and SIGKILL on one spool, then a last start that delivers what is left.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 10;
const CLIENTS: usize = 4;
/// The most messages that are acknowledged before a kill.
const MOST_PER_ROUND: u64 = 60;
/// Long enough for the slowest machine; nothing waits so long when all is well.
const DEADLINE: Duration = Duration::from_secs(20);
/// Jobs that the local lane holds at most: one for each of its two workers, and two each waiting.
const LOCAL_JOBS: usize = 6;
const RECIPIENTS: [&str; 2] = ["ann", "bob"];

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

fn write_config(folder: &Path) -> std::path::PathBuf {
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
         [local]\n\
         format = maildir\n\
         path = {folder}/mail/{{user}}\n\
         users = any\n\
         aliases =\n"
    );
    let path = Path::new(&folder.to_string()).join("mailwren.ini");
    fs::write(&path, text).unwrap();
    path
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
            stream.write_all(format!("RCPT TO:<{recipient}@home.test>\r\n").as_bytes())?;
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
fn round(config: &Path, number: usize) -> Vec<String> {
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
    let patience = RandomState::new().build_hasher().finish() % MOST_PER_ROUND;
    let mut all: Vec<_> = (0..=patience).map(|_| keys.recv_timeout(DEADLINE).unwrap()).collect();
    server.kill();
    for client in clients {
        client.join().unwrap();
    }
    all.extend(keys);
    all
}

/// How often each message is in the Maildir of `user`. Every file in it must be whole.
fn mailbox(folder: &Path, user: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder.join("mail").join(user).join("new")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap().replace('\r', "");
        let key = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap();
        let body = text.split_once("\n\n").unwrap().1;
        let whole = format!("line of {key}\n").repeat(body_lines(key)) + &format!("end of {key}\n");
        assert!(body == whole, "{key} is torn in the mailbox of {user}");
        *found.entry(key.to_owned()).or_default() += 1;
    }
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
fn every_acknowledged_message_outlives_ten_kills() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    fs::create_dir(folder.path().join("mail")).unwrap();
    let acknowledged: BTreeSet<_> = (0..ROUNDS).flat_map(|number| round(&config, number)).collect();
    assert!(acknowledged.len() >= ROUNDS);
    let server = Server::start(&config);
    wait_until_empty(&folder.path().join("spool/queue"));
    server.kill();
    for user in RECIPIENTS {
        let found = mailbox(folder.path(), user);
        for key in &acknowledged {
            assert!(found.contains_key(key), "{key} is lost for {user}");
        }
        // A kill may come between a delivery and its record; the local lane holds no more.
        let repeated = found.values().filter(|count| **count > 1).count();
        assert!(repeated <= ROUNDS * LOCAL_JOBS, "{repeated} messages came twice to {user}");
    }
}
