//! A spool with messages in it, the built program's commands on it, and a server where one is
//! wanted.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailwren::mail::address::Mailbox;
use mailwren::mail::dsn_request::{MessageRequest, RecipientRequest};
use mailwren::mail::status::Status;
use mailwren::route::addressee::Addressee;
use mailwren::spool::envelope::{Body, Envelope};
use mailwren::spool::id::QueueId;
use mailwren::spool::progress::{Progress, RecipientState, State, Try};
use mailwren::spool::store::{Spool, SpoolReader};
use serde_json::Value;

use crate::home::Home;
use crate::server::{PATIENCE, TestServer};

/// When the messages were received that [`Scene::keep`] makes.
pub(crate) const RECEIVED: u64 = 1_795_000_000;

/// The folder of a server.
pub(crate) struct Scene {
    pub(crate) home: Home,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Scene {
    /// A scene in which 127.0.0.1 may relay, and whatever is relayed goes to `smarthost`.
    pub(crate) fn new(smarthost: &str) -> Self {
        let changes = [
            ("relay.networks", "127.0.0.0/8"),
            ("local.users", "any"),
            ("smarthost.host", smarthost),
            ("queue.retry", "1h"),
        ];
        // Nobody listens at the default.
        let changes = changes.iter().filter(|(_, value)| *value != "127.0.0.1:1");
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let scene = Self { home: Home::new(&changes.map(owned).collect::<Vec<_>>()) };
        drop(scene.open());
        scene
    }

    /// A scene in which nothing can be relayed.
    pub(crate) fn without_smarthost() -> Self {
        Self::new("127.0.0.1:1")
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.home.path().join("spool")
    }

    /// What the journal of events has of a message, without the time and the id.
    pub(crate) fn journal(&self, id: &str) -> Vec<String> {
        let text = fs::read_to_string(self.home.path().join("state/events")).unwrap_or_default();
        let of_message = text.lines().filter_map(|line| line.split_once(&format!(" {id} ")));
        of_message.map(|(_, event)| event.to_owned()).collect()
    }

    /// The spool, as a server has it.
    fn open(&self) -> Arc<Spool> {
        loop {
            match Spool::open(&self.spool()) {
                // A program that another test starts has this process's files open for a moment.
                Err(error) if error.kind() == ErrorKind::ResourceBusy => std::thread::yield_now(),
                spool => return spool.unwrap(),
            }
        }
    }

    pub(crate) fn start(&self) -> TestServer {
        TestServer::start(&self.home)
    }

    /// Puts a message into the spool of a server that is down.
    pub(crate) fn keep(&self, from: &str, to: &[&str], content: &str) -> String {
        self.keep_with(from, to, content, |_| {})
    }

    /// The same, with a record of what became of it.
    pub(crate) fn keep_with(
        &self,
        from: &str,
        to: &[&str],
        content: &str,
        became: impl FnOnce(&mut Progress),
    ) -> String {
        let spool = self.open();
        let mut draft = spool.draft(Envelope {
            id: QueueId::generate(RECEIVED * 1_000_000, 0),
            received_at: RECEIVED,
            client: "192.0.2.1".into(),
            reverse_path: from.parse().unwrap(),
            recipients: to.iter().map(|to| to.parse::<Mailbox>().unwrap().into()).collect(),
            body: Body::SevenBit,
            request: MessageRequest::default(),
        });
        draft.write(content.as_bytes()).unwrap();
        let message = draft.commit().unwrap().1;
        let id = message.envelope().id;
        let untouched = Progress::new(message.envelope());
        let mut progress = untouched.clone();
        became(&mut progress);
        if progress != untouched {
            spool.record(id, &progress).unwrap();
        }
        id.to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailwren"));
        command.arg("--config").arg(self.home.config()).args(arguments).stdin(Stdio::null());
        command.env_remove("MAILWREN_CONFIG").env_remove("SUDO_USER").env("TZ", "UTC");
        command
    }

    /// What `mailwren …` says.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        said(&mut self.command(arguments))
    }

    /// What `mailwren queue …` says.
    pub(crate) fn queue(&self, arguments: &[&str]) -> Said {
        self.run(&[&["queue"], arguments].concat())
    }

    /// What it says to another account.
    pub(crate) fn queue_as(&self, uid: u32, sudo_user: &str, arguments: &[&str]) -> Said {
        let mut command = self.command(&[&["queue"], arguments].concat());
        said(command.uid(uid).gid(uid).env("SUDO_USER", sudo_user))
    }

    /// What `mailq …` says.
    pub(crate) fn mailq(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailwren"));
        command.arg0("/usr/bin/mailq").args(arguments).stdin(Stdio::null());
        said(command.env("MAILWREN_CONFIG", self.home.config()).env("TZ", "UTC"))
    }

    /// The list, read as a program would.
    pub(crate) fn list(&self, arguments: &[&str]) -> Vec<Value> {
        let said = self.queue(&[&["list", "--json"], arguments].concat());
        assert_eq!((said.code, said.err.as_str()), (0, ""));
        serde_json::from_str(&said.out).unwrap()
    }

    /// The ids that a selection selects.
    pub(crate) fn ids(&self, arguments: &[&str]) -> Vec<String> {
        let list = self.list(arguments);
        list.iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The record of a message.
    pub(crate) fn progress(&self, id: &str) -> Progress {
        let spool = SpoolReader::open(&self.spool()).unwrap();
        let (message, progress) = spool.load(id.parse().unwrap()).unwrap();
        progress.unwrap_or_else(|| Progress::new(message.envelope()))
    }

    /// The names of the files in a folder of the scene, in order; none where it is missing.
    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.home.path().join(folder)) else { return Vec::new() };
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries.map(name).map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The messages in a mailbox.
    pub(crate) fn mail(&self, user: &str) -> Vec<String> {
        let folder = format!("mail/{user}/new");
        let path = self.home.path().join(&folder);
        self.files(&folder)
            .iter()
            .map(|name| fs::read_to_string(path.join(name)).unwrap())
            .collect()
    }

    /// Waits until nothing is in the queue, nor any record.
    pub(crate) fn wait_until_empty(&self) {
        wait_for("an empty queue", || {
            self.files("spool/queue").is_empty() && self.files("spool/state").is_empty()
        });
    }
}

/// Waits until something is so that tells nobody when it becomes so.
pub(crate) fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "still waiting for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the log has the text so many times.
pub(crate) fn wait_for_log(server: &TestServer, text: &str, count: usize) {
    let log = server.log.text.lock().unwrap();
    let is_short = |log: &mut String| log.matches(text).count() < count;
    let (log, result) = server.log.grown.wait_timeout_while(log, PATIENCE, is_short).unwrap();
    assert!(!result.timed_out(), "{text} is not there {count} times: {log}");
}

/// A record of a message of which the first recipient was refused for now.
pub(crate) fn deferred(progress: &mut Progress) {
    let (at, host) = (RECEIVED + 1, Some("mx.far.test[192.0.2.7]:25".to_owned()));
    let tried = Try { at, status: Status::new(4, 2, 1), host, text: "450 4.2.1 later".into() };
    progress.note_try(0, tried);
    (progress.attempts, progress.next_try) = (1, RECEIVED + 60);
}

/// Adds somebody behind a list, to whom a way of their own leads.
pub(crate) fn add_behind_list(progress: &mut Progress, mailbox: &str, way: &str) {
    let to = Addressee { mailbox: mailbox.parse().unwrap(), way: way.parse().unwrap() };
    let sender = "owner-list@mx.test".parse().ok();
    progress.recipients.push(RecipientState::pending(to, sender, RecipientRequest::default()));
}

/// The same, and the others have it.
pub(crate) fn partly_done(progress: &mut Progress) {
    deferred(progress);
    progress.recipients.iter_mut().skip(1).for_each(|recipient| recipient.state = State::Done);
}

fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}
