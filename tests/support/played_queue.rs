//! A queue manager whose lanes the test plays.

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use mailwren::config::settings::Settings;
use mailwren::deliver::dispatch::Dispatcher;
use mailwren::deliver::job::{self, Job, Report};
use mailwren::deliver::outcome::{Failure, Fault, Outcome, RemoteReply};
use mailwren::mail::status::Status;
use mailwren::smtp::parameters::{MailParameters, parse_rcpt_parameters};
use mailwren::spool::envelope::{Body, Envelope, Recipient};
use mailwren::spool::id::QueueId;
use mailwren::spool::manager::{Intake, Manager, Order, Succession};
use mailwren::spool::message::StoredMessage;
use mailwren::spool::progress::{Progress, State};
use mailwren::spool::store::{Draft, Spool, SpoolReader};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Long enough for the slowest machine; nothing waits so long when all is well.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const SOON: Duration = Duration::from_millis(1);
pub(crate) const LATER: Duration = Duration::from_secs(3600);

const CONTENT: &[u8] = b"Subject: x\r\n\r\nbody\r\n";

/// A queue manager whose lanes the test plays.
pub(crate) struct Queue {
    pub(crate) folder: TempDir,
    pub(crate) spool: Arc<Spool>,
    pub(crate) intake: Intake,
    pub(crate) orders: Sender<Order>,
    pub(crate) successions: Sender<Succession>,
    pub(crate) settings: Settings,
    pub(crate) reports: Sender<Report>,
    pub(crate) local: Receiver<Job>,
    pub(crate) relay: Receiver<Job>,
    pub(crate) start: Option<Box<dyn FnOnce() + Send>>,
    pub(crate) thread: Option<JoinHandle<()>>,
}

impl Queue {
    pub(crate) fn new(retry: Duration, expire: Duration) -> Self {
        let mut queue = Self::prepare(folder(), retry, expire);
        queue.start();
        queue
    }

    /// A queue on the spool in `folder`, whose manager does not run yet.
    pub(crate) fn prepare(folder: TempDir, retry: Duration, expire: Duration) -> Self {
        Self::prepare_with(folder, |queue| (queue.retry, queue.expire) = (vec![retry], expire))
    }

    /// A queue whose `[queue]` section `change` has changed; its manager does not run yet.
    pub(crate) fn prepare_with(
        folder: TempDir,
        change: impl FnOnce(&mut mailwren::config::settings::Queue),
    ) -> Self {
        Self::prepare_as(folder, "", |settings| change(&mut settings.queue))
    }

    /// A queue with more in its configuration, whose settings `change` has changed; its manager
    /// does not run yet.
    pub(crate) fn prepare_as(
        folder: TempDir,
        more: &str,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let text = format!("[server]\ndomains = home.test\n{more}");
        let mut settings = mailwren::config::parse("x", text.as_bytes(), "mx.home.test").unwrap();
        change(&mut settings);
        let retry = settings.queue.retry.clone();
        let spool = Spool::open(&folder.path().join("spool")).unwrap();
        let queued = spool.found().unwrap();
        let (local_jobs, local) = bounded(4);
        let (relay_jobs, relay) = bounded(4);
        let (reports, results) = unbounded();
        let (orders, manager_orders) = bounded(4);
        let dispatcher = Dispatcher::new(local_jobs, relay_jobs, 2, retry);
        let shared = Arc::new(settings.clone());
        let (manager, intake) = Manager::new(shared, Arc::clone(&spool), dispatcher);
        let (successions, taken) = bounded(0);
        let manager = manager.with_successions(taken);
        let run = move || manager.run(queued, &results, &manager_orders);
        let start = Some(Box::new(run) as Box<dyn FnOnce() + Send>);
        let thread = None;
        Self {
            folder,
            spool,
            intake,
            orders,
            successions,
            settings,
            reports,
            local,
            relay,
            start,
            thread,
        }
    }

    pub(crate) fn start(&mut self) {
        self.thread = self.start.take().map(std::thread::spawn);
    }

    pub(crate) fn keep(&self, from: &str, to: &[&str]) -> StoredMessage {
        self.keep_asking(from, to, CONTENT)
    }

    /// Keeps a message of which paths and parameters are given as behind MAIL and RCPT.
    pub(crate) fn keep_asking(&self, from: &str, to: &[&str], content: &[u8]) -> StoredMessage {
        self.draft_asking(from, to, content).commit().unwrap().1
    }

    pub(crate) fn draft(&self, from: &str, to: &[&str]) -> Draft {
        self.draft_asking(from, to, CONTENT)
    }

    fn draft_asking(&self, from: &str, to: &[&str], content: &[u8]) -> Draft {
        let (path, parameters) = from.split_once(' ').unwrap_or((from, ""));
        let recipient = |to: &&str| {
            let (mailbox, parameters) = to.split_once(' ').unwrap_or((to, ""));
            let request = parse_rcpt_parameters(parameters).unwrap();
            Recipient { mailbox: mailbox.parse().unwrap(), request }
        };
        let mut draft = self.spool.draft(Envelope {
            id: QueueId::generate(1_795_000_000_000_000, 0),
            received_at: 0,
            client: "local".into(),
            reverse_path: path.parse().unwrap(),
            recipients: to.iter().map(recipient).collect(),
            body: Body::SevenBit,
            request: MailParameters::parse(parameters).unwrap().request,
        });
        draft.write(content).unwrap();
        draft
    }

    pub(crate) fn announce(&self, from: &str, to: &[&str]) -> QueueId {
        let message = self.keep(from, to);
        let id = message.envelope().id;
        self.intake.announce(message);
        id
    }

    pub(crate) fn local_job(&self) -> Job {
        self.local.recv_timeout(DEADLINE).unwrap()
    }

    pub(crate) fn relay_job(&self) -> Job {
        self.relay.recv_timeout(DEADLINE).unwrap()
    }

    /// Has so many jobs relayed; gives whom they were for, sorted.
    pub(crate) fn relay_jobs(&self, count: usize) -> Vec<String> {
        let relay_one = |_| {
            let job = self.relay_job();
            self.answer(&job, |_| relayed());
            names(&job).join(" ")
        };
        let mut through: Vec<_> = (0..count).map(relay_one).collect();
        through.sort();
        through
    }

    pub(crate) fn answer(&self, job: &Job, answer: impl Fn(&str) -> Outcome) {
        self.answer_each(job, |to| answer(&to.mailbox.to_string()));
    }

    pub(crate) fn answer_each(&self, job: &Job, answer: impl Fn(&job::Recipient) -> Outcome) {
        let outcomes = job.recipients.iter().map(|to| (to.index, answer(to))).collect();
        let id = job.message.envelope().id;
        self.reports.send(Report { id, next_hop: job.next_hop.clone(), outcomes }).unwrap();
    }

    /// Returns when the manager has taken all reports that were sent before. Reports are
    /// taken in order, so what one of them causes shows that.
    pub(crate) fn settle_reports(&self) {
        let id = self.announce("<>", &["barrier@home.test"]);
        let job = self.local_job();
        assert_eq!(names(&job), ["barrier@home.test"]);
        self.answer(&job, |_| Outcome::Expanded(vec!["behind@home.test".parse().unwrap()].into()));
        let job = self.local_job();
        assert_eq!(names(&job), ["behind@home.test"]);
        self.answer(&job, |_| delivered());
        // Its removal is the last that is done for it.
        let deadline = Instant::now() + DEADLINE;
        while self.spool.ids().unwrap().contains(&id) {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    /// What is on record of a message at this moment.
    pub(crate) fn record_of(&self, id: QueueId) -> Option<Progress> {
        let spool = SpoolReader::open(&self.folder.path().join("spool")).unwrap();
        spool.load(id).unwrap().1
    }

    /// Stops the manager and gives the recipients that are left in the spool.
    pub(crate) fn stop(mut self) -> Vec<String> {
        self.orders.send(Order::Stop).unwrap();
        self.thread.take().unwrap().join().unwrap();
        pending(&self.folder.path().join("spool"))
    }

    /// A new start from what is on disk at this very moment.
    pub(crate) fn crash(self, retry: Duration) -> Self {
        let mut queue = Self::prepare(self.copy(), retry, LATER);
        queue.start();
        queue
    }

    /// What is on disk at this very moment.
    pub(crate) fn copy(&self) -> TempDir {
        let copy = folder();
        for part in ["queue", "state", "corrupt"] {
            let (from, to) = (self.folder.path(), copy.path());
            let (from, to) = (from.join("spool").join(part), to.join("spool").join(part));
            fs::create_dir_all(&to).unwrap();
            for entry in fs::read_dir(from).unwrap() {
                let entry = entry.unwrap();
                // The next record may just have taken the place of the last one.
                if let Err(error) = fs::copy(entry.path(), to.join(entry.file_name())) {
                    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
                }
            }
        }
        copy
    }
}

/// A folder in memory where there is one: flushing is not what is tested here.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(crate) fn pending(spool: &Path) -> Vec<String> {
    let spool = SpoolReader::open(spool).unwrap();
    let mut pending = Vec::new();
    for id in spool.ids().unwrap() {
        let (message, progress) = spool.load(id).unwrap();
        match progress {
            Some(progress) => pending.extend(
                progress
                    .recipients
                    .iter()
                    .filter(|recipient| recipient.state == State::Pending)
                    .map(|recipient| recipient.mailbox.to_string()),
            ),
            None => pending
                .extend(message.envelope().recipients.iter().map(|to| to.mailbox.to_string())),
        }
    }
    pending.sort();
    pending
}

pub(crate) fn names(job: &Job) -> Vec<String> {
    job.recipients.iter().map(|recipient| recipient.mailbox.to_string()).collect()
}

pub(crate) fn content(job: &Job) -> String {
    let mut content = String::new();
    job.message.reader().read_to_string(&mut content).unwrap();
    content
}

pub(crate) fn delivered() -> Outcome {
    Outcome::Delivered { place: "here".into() }
}

pub(crate) fn relayed() -> Outcome {
    Outcome::Relayed { remote: "there".into(), reply: "250 ok".into(), knows_dsn: false, tls: None }
}

pub(crate) fn failed() -> Outcome {
    Failure::new(Status::new(5, 1, 1), "no such user").into_outcome()
}

pub(crate) fn out_of_reach() -> Outcome {
    Failure::new(Status::new(4, 4, 1), "no answer").with_fault(Fault::Destination).into_outcome()
}

pub(crate) fn no_network() -> Outcome {
    Failure::new(Status::new(4, 4, 0), "no route").with_fault(Fault::Network).into_outcome()
}

pub(crate) fn broken(fault: Fault) -> Outcome {
    Failure::new(Status::new(4, 4, 2), "hung up").with_fault(fault).into_outcome()
}

pub(crate) fn refused(reply: &str) -> Outcome {
    let remote = Some(RemoteReply { host: "there".into(), reply: reply.into() });
    let fault = if reply.starts_with("421") { Fault::Destination } else { Fault::Mail };
    Outcome::Deferred(Failure { remote, fault, ..Failure::new(Status::new(4, 2, 0), "not now") })
}

pub(crate) fn nothing() -> Vec<String> {
    Vec::new()
}
