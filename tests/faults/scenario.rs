//! A server on a recorded disk: the real spool, queue manager, delivery thread and mailbox
//! writers, a next hop that is played, and a client.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded, unbounded};
use mailwren::config::settings::{MailboxFormat, Settings, Users};
use mailwren::deliver::dispatch::Dispatcher;
use mailwren::deliver::job::{self, Job};
use mailwren::deliver::local::LocalDelivery;
use mailwren::deliver::outcome::{Failure, Outcome, RemoteReply};
use mailwren::deliver::pool::{self, Deliver};
use mailwren::mail::address::Mailbox;
use mailwren::mail::dsn_request::MessageRequest;
use mailwren::mail::status::Status;
use mailwren::route::addressee::{Addressee, Expansion};
use mailwren::route::local::LocalRouter;
use mailwren::route::next_hop::NextHop;
use mailwren::spool::envelope::{Body, Envelope, Recipient};
use mailwren::spool::format::ReadError;
use mailwren::spool::id::QueueId;
use mailwren::spool::manager::{Intake, Manager, Order};
use mailwren::spool::store::{Receipt, Spool, SpoolReader};
use mailwren::sys::disk::Disk;
use tempfile::TempDir;

use crate::recorder::{Event, Recorder};

/// Long enough for the slowest machine; nothing waits so long when all is well.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Who sends everything, and has a mailbox here for the reports.
pub(crate) const SENDER: &str = "sue@home.test";
/// Who owns the list, and has the reports on its members among other mail.
pub(crate) const OWNER: &str = "bob@home.test";
/// What stands in each mailbox that was there before.
pub(crate) const EARLIER: &str =
    "From old@x.test Thu Jan  1 00:00:00 1970\nSubject: old\n\nold\n\n";

/// For whom a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    One,
    Two,
    /// One here, one elsewhere; the next hop defers first.
    Relayed,
    /// An alias for two who are here.
    Alias,
    /// An alias for one who is here and one elsewhere.
    AliasAway,
    /// One who is here and nobody; the sender gets a report.
    Unknown,
    /// A list for the mailbox of one who is here, a command, and nobody, of whom its owner gets a
    /// report.
    List,
    /// One elsewhere, by way of a smarthost, for whom all but the first message are gathered.
    Flood,
}

/// How long the session waits for the delivery before it stores the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direct {
    Off,
    Patient,
    /// It stores at once what is being delivered.
    Hasty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) format: MailboxFormat,
    pub(crate) direct: Direct,
    pub(crate) has_unnamed_files: bool,
    pub(crate) orders_data_first: bool,
    pub(crate) is_long: bool,
    pub(crate) case: Case,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, direct, case, .. } = self;
        let unnamed = if self.has_unnamed_files { "unnamed files" } else { "no unnamed files" };
        let order = if self.orders_data_first { "data first" } else { "any order" };
        let size = if self.is_long { "long" } else { "short" };
        write!(f, "{format:?}, direct {direct:?}, {unnamed}, {order}, {size}, {case:?}")
    }
}

impl Case {
    pub(crate) const ALL: [Self; 7] = [
        Self::One,
        Self::Two,
        Self::Relayed,
        Self::Alias,
        Self::AliasAway,
        Self::Unknown,
        Self::List,
    ];

    pub(crate) const fn recipients(self) -> &'static [&'static str] {
        match self {
            Self::One => &["ann@home.test"],
            Self::Two => &["ann@home.test", "bob@home.test"],
            Self::Relayed => &["ann@home.test", "x@far.test"],
            Self::Alias => &["team@home.test"],
            Self::AliasAway => &["away@home.test"],
            Self::Unknown => &["ann@home.test", "nobody@home.test"],
            Self::List => &["list@home.test"],
            Self::Flood => &["x@far.test"],
        }
    }
}

/// Who gets what is for `address`: a copy each, but for one who is nobody, whose sender gets
/// a report.
pub(crate) fn behind(address: &str) -> &'static [&'static str] {
    match address {
        "ann@home.test" => &["ann@home.test"],
        "bob@home.test" => &["bob@home.test"],
        "x@far.test" => &["x@far.test"],
        "team@home.test" => &["ann@home.test", "bob@home.test"],
        "away@home.test" => &["ann@home.test", "x@far.test"],
        "list@home.test" => &["ann@home.test", "command", "report to owner"],
        SENDER => &["report"],
        other if other.starts_with("nobody") => &["report"],
        other => panic!("nobody knows {other}"),
    }
}

impl Scenario {
    /// The content of the message `key`.
    pub(crate) fn content(&self, key: &str) -> String {
        if self.case == Case::Flood {
            return format!("Subject: {key}\r\nAuto-Submitted: auto-generated\r\n\r\nof {key}\r\n");
        }
        let lines = if self.is_long && key == "m1" { 3500 } else { 3 };
        let body = format!("line of {key} and more\r\n").repeat(lines);
        format!("Subject: {key}\r\n\r\n{body}end of {key}\r\n")
    }

    pub(crate) fn recorder(&self) -> Arc<Recorder> {
        Arc::new(Recorder::new(self.has_unnamed_files, self.orders_data_first))
    }
}

/// A folder in memory where there is one, since flushing is played here.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Folders for a spool and mailboxes, one of which is there already.
pub(crate) fn prepare(scenario: &Scenario, root: &Path) {
    drop(Spool::open(&root.join("spool")).unwrap());
    let ann = root.join("mail/ann");
    match scenario.format {
        MailboxFormat::Mbox => {
            fs::create_dir(root.join("mail")).unwrap();
            fs::write(ann, EARLIER).unwrap();
        }
        MailboxFormat::Maildir => {
            for name in ["tmp", "new", "cur"] {
                fs::create_dir_all(ann.join(name)).unwrap();
            }
        }
    }
}

/// A message that was never finished.
pub(crate) const UNFINISHED: &str = "0000000000002";

/// A message in the queue, and what a crash may have left beside it.
pub(crate) fn leave_behind(scenario: &Scenario, root: &Path) {
    let spool = Spool::open(&root.join("spool")).unwrap();
    let mut draft = spool.draft(envelope("m1", scenario.case.recipients()));
    draft.write(scenario.content("m1").as_bytes()).unwrap();
    let id = draft.commit().unwrap().0.id();
    for (name, text) in [
        ("queue/0000000000001.draft".to_owned(), "half"),
        (format!("queue/{UNFINISHED}"), "half"),
        ("state/0000000000003".to_owned(), "of no message"),
        (format!("state/{id}"), ""),
        (format!("state/{id}.new"), "half"),
    ] {
        fs::write(root.join("spool").join(name), text).unwrap();
    }
}

fn envelope(key: &str, to: &[&str]) -> Envelope {
    // A report names the recipient, and so the message.
    let address =
        |to: &&str| to.replace("nobody", &format!("nobody+{key}")).parse::<Mailbox>().unwrap();
    Envelope {
        id: QueueId::generate(1_795_000_000_000_000, 0),
        received_at: 0,
        client: "192.0.2.1".into(),
        reverse_path: format!("<{SENDER}>").parse().unwrap(),
        recipients: to.iter().map(|to| address(to).into()).collect(),
        body: Body::SevenBit,
        request: MessageRequest::default(),
    }
}

pub(crate) struct Server {
    root: PathBuf,
    spool: Arc<Spool>,
    intake: Intake,
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
    recorder: Arc<Recorder>,
    scenario: Scenario,
    _tables: TempDir,
}

impl Server {
    /// Starts on what is in `root`.
    pub(crate) fn start(
        scenario: &Scenario,
        root: &Path,
        recorder: &Arc<Recorder>,
    ) -> io::Result<Self> {
        let tables = folder();
        let settings = Arc::new(settings(scenario, root, tables.path()));
        let disk = Disk::watched(Arc::clone(recorder) as _);
        let spool = Spool::open_on(&root.join("spool"), &disk)?;
        let queued = spool.found()?;
        let router = Arc::new(LocalRouter::new(&settings));
        let lane = Arc::new(Lanes {
            local: LocalDelivery::new(&settings, router).with_disk(disk),
            recorder: Arc::clone(recorder),
            scenario: *scenario,
            tried: Mutex::default(),
        });
        // One thread for both lanes: one thing after the other.
        let (jobs, all_jobs) = bounded(4);
        let (reports, results) = unbounded();
        pool::start("faults", 1, &lane, &all_jobs, &reports)?;
        let dispatcher = Dispatcher::new(jobs.clone(), jobs, 1, settings.queue.retry.clone());
        let (manager, intake) = Manager::new(settings, Arc::clone(&spool), dispatcher);
        let (orders, manager_orders) = bounded(4);
        let run = move || manager.run(queued, &results, &manager_orders);
        let thread = Some(std::thread::spawn(run));
        let (root, recorder, scenario) = (root.to_owned(), Arc::clone(recorder), *scenario);
        Ok(Self { root, spool, intake, orders, thread, recorder, scenario, _tables: tables })
    }

    /// Sends a message as a session does, and notes what its client is told. Whether that is
    /// 250.
    pub(crate) fn send(&self, key: &str, to: &[&str]) -> bool {
        let envelope = envelope(key, to);
        let queued = self.root.join("spool/queue").join(envelope.id.to_string());
        let is_accepted = self.receive(envelope, key).is_ok();
        assert!(is_accepted || !queued.exists(), "{key} was refused and is in the queue");
        self.recorder.note(Event::Answer { key: key.to_owned(), is_accepted });
        is_accepted
    }

    fn receive(&self, envelope: Envelope, key: &str) -> io::Result<Receipt> {
        let is_here = |to: &Recipient| to.mailbox.to_string().ends_with("@home.test");
        let is_local = envelope.recipients.iter().all(is_here);
        let mut draft = self.spool.draft(envelope);
        for part in self.scenario.content(key).as_bytes().chunks(10_000) {
            draft.write(part)?;
        }
        let sealed = draft.seal()?;
        match self.scenario.direct {
            Direct::Patient if is_local => self.intake.deliver_or_store(sealed, DEADLINE),
            Direct::Hasty if is_local => self.intake.deliver_or_store(sealed, Duration::ZERO),
            _ => self.intake.store(sealed),
        }
    }

    /// Returns when the queue is empty. Whatever waits is tried at once.
    pub(crate) fn wait_until_idle(&self) {
        let deadline = Instant::now() + DEADLINE;
        let mut known = 0;
        loop {
            let spool = SpoolReader::open(&self.root.join("spool")).unwrap();
            let mut left = spool.ids().unwrap();
            // What was never finished and cannot be removed stays until the next start.
            left.retain(|id| !matches!(spool.load(*id), Err(ReadError::Incomplete)));
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{left:?} stay in the spool: {}", self.scenario);
            let before = known;
            known = self.recorder.wait(known);
            if known == before {
                let _ = self.orders.try_send(Order::RetryAll);
            }
        }
    }

    /// Waits for what is under way, and ends.
    pub(crate) fn stop(mut self) {
        self.orders.send(Order::Stop).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

fn settings(scenario: &Scenario, root: &Path, tables: &Path) -> Settings {
    let smarthost = match scenario.case {
        Case::Flood => "[smarthost]\nhost = relay.test\n[digest]\nburst = 1\n",
        _ => "",
    };
    let text = format!("[server]\ndomains = home.test\n{smarthost}");
    let mut settings = mailwren::config::parse("x", text.as_bytes(), "mx.home.test").unwrap();
    let users = tables.join("users");
    fs::write(&users, "ann\nbob\nsue\nroot\n").unwrap();
    let aliases = tables.join("aliases");
    fs::write(&aliases, "team: ann, bob\naway: ann, x@far.test\n").unwrap();
    let local = &mut settings.local;
    (local.format, local.users, local.aliases) =
        (scenario.format, Users::File(users), Some(aliases));
    local.path = root.join("mail/{user}").to_str().unwrap().to_owned();
    settings.queue.retry = vec![Duration::from_millis(1)];
    settings
}

impl Lanes {
    /// Takes a message of a flood, alone or in a digest.
    fn relay_flood(&self, job: &Job) -> Outcome {
        let mut content = String::new();
        if let Err(error) = job.message.reader().read_to_string(&mut content) {
            return Failure::new(Status::new(4, 3, 0), error.to_string()).into_outcome();
        }
        for key in flood_keys(&content) {
            let is_whole = content.contains(&self.scenario.content(&key));
            let key = if is_whole { key } else { "half".to_owned() };
            self.recorder.note(Event::Relay { key, to: job.recipients[0].mailbox.to_string() });
        }
        let (remote, reply) = ("far.test".to_owned(), "250 ok".to_owned());
        Outcome::Relayed { remote, reply, knows_dsn: true, tls: None }
    }
}

/// The messages of a flood that are in this one.
pub(crate) fn flood_keys(content: &str) -> Vec<String> {
    let keys = content.lines().filter_map(|line| line.strip_prefix("Subject: m"));
    keys.map(|number| format!("m{number}")).collect()
}

/// What the list stands for.
fn members(job: &Job) -> Outcome {
    let mut content = String::new();
    if let Err(error) = job.message.reader().read_to_string(&mut content) {
        return Failure::new(Status::new(4, 3, 0), error.to_string()).into_outcome();
    }
    let key = content.lines().next().unwrap().replace("Subject: ", "");
    let nobody = format!("nobody+{key}@home.test");
    let into = [("ann@home.test", "\\"), ("list@home.test", "|run"), (&nobody, "")];
    let addressee = |(to, way): (&str, &str)| Addressee {
        mailbox: to.parse().unwrap(),
        way: way.parse().unwrap(),
    };
    let owner = OWNER.parse().ok();
    Outcome::Expanded(Expansion { into: into.map(addressee).into(), owner })
}

/// Both lanes in one: the real one for mailboxes, and a next hop that defers once.
struct Lanes {
    local: LocalDelivery,
    recorder: Arc<Recorder>,
    scenario: Scenario,
    tried: Mutex<HashSet<QueueId>>,
}

impl Deliver for Lanes {
    fn deliver(&self, job: &Job) -> Vec<(usize, Outcome)> {
        let is_list = |to: &job::Recipient| to.mailbox.to_string() == "list@home.test";
        if job.next_hop == NextHop::Local && job.recipients.iter().all(is_list) {
            return job.recipients.iter().map(|to| (to.index, members(job))).collect();
        }
        if job.next_hop == NextHop::Local {
            return self.local.deliver(job);
        }
        if self.scenario.case == Case::Flood {
            return vec![(job.recipients[0].index, self.relay_flood(job))];
        }
        let is_first = self.tried.lock().unwrap().insert(job.message.envelope().id);
        let remote = || ("far.test".to_owned(), "450 not yet".to_owned());
        let outcome = |to: &Mailbox| {
            let mut content = String::new();
            let read = job.message.reader().read_to_string(&mut content);
            let (host, reply) = remote();
            if is_first || read.is_err() {
                let remote = Some(RemoteReply { host, reply });
                let failure = Failure::new(Status::new(4, 2, 0), "not yet");
                return Outcome::Deferred(Failure { remote, ..failure });
            }
            let key = content.lines().next().unwrap().replace("Subject: ", "");
            let is_whole = content == self.scenario.content(&key);
            let key = if is_whole { key } else { "half".to_owned() };
            let is_command = job.next_hop == NextHop::Command;
            let to = if is_command { "command".to_owned() } else { to.to_string() };
            self.recorder.note(Event::Relay { key, to });
            Outcome::Relayed {
                remote: host,
                reply: "250 ok".to_owned(),
                knows_dsn: true,
                tls: None,
            }
        };
        job.recipients.iter().map(|to| (to.index, outcome(&to.mailbox))).collect()
    }
}
