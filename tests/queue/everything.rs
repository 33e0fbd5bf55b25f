//! Everything at once: messages that are announced and offered, aliases, lists with an owner,
//! commands and files, answers of every kind, orders, people who change what is queued, and
//! restarts, in any order. Whatever has happened, each recipient ends once, its sender or the
//! list's owner hears of it once or not at all, as was asked, and nothing is left over.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::select;
use proptest::prelude::*;

use mailwren::deliver::job::{Job, Recipient};
use mailwren::deliver::outcome::Outcome;
use mailwren::mail::address::Mailbox;
use mailwren::route::addressee::{Addressee, Expansion, Way};
use mailwren::route::next_hop::NextHop;
use mailwren::spool::hands::{Change, Hands, Refusal};
use mailwren::spool::id::QueueId;
use mailwren::spool::manager::Order;
use mailwren::spool::progress::Hold;
use mailwren::spool::store::SpoolReader;
use mailwren::spool::wake::{Bell, Listener};

use super::played_queue::*;
use super::{Answer, answers};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Never,
    Success,
}

/// What stands behind an alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// So many addresses.
    Addresses(usize),
    /// Its own mailbox and so many addresses.
    ItselfAnd(usize),
    /// So many addresses, on behalf of [`OWNER`].
    List(usize),
    Command,
    CommandAndFile,
}

const SUE: &str = "sue@home.test";
const OWNER: &str = "owner@home.test";
const POSTMASTER: &str = "postmaster@home.test";

/// A recipient of a message; some are aliases.
#[derive(Clone, Debug)]
struct To {
    domain: &'static str,
    asked: Asked,
    behind: Option<Behind>,
}

#[derive(Clone, Debug)]
enum Step {
    /// A message, and how long its session waits for the delivery where it may be direct.
    Send {
        to: Vec<To>,
        is_from_null: bool,
        patience: Duration,
    },
    Answer(Vec<Answer>),
    Order(Order),
    /// Of which message, counted from the last one.
    Change(usize, Change),
    Restart,
}

fn to() -> impl Strategy<Value = To> {
    let domain = prop::sample::select(vec!["home.test", "home.test", "far.test", "near.test"]);
    let asked = prop::sample::select(vec![Asked::Nothing, Asked::Never, Asked::Success]);
    let behind = prop_oneof![
        3 => (1..3usize).prop_map(Behind::Addresses),
        1 => (1..3usize).prop_map(Behind::ItselfAnd),
        2 => (1..3usize).prop_map(Behind::List),
        1 => Just(Behind::Command),
        1 => Just(Behind::CommandAndFile),
    ];
    let behind = prop::option::weighted(0.4, behind);
    (domain, asked, behind).prop_map(|(domain, asked, behind)| To {
        domain,
        asked,
        behind: behind.filter(|_| domain == "home.test"),
    })
}

fn step() -> impl Strategy<Value = Step> {
    let to = prop::collection::vec(to(), 1..4);
    let patience = prop::sample::select(vec![SOON, Duration::from_millis(50)]);
    let hold = Change::Hold(Hold { since: 0, by: "ann".into() });
    let give_up = Change::GiveUp("ann".into());
    let changes = vec![
        Change::Retry,
        hold.clone(),
        hold,
        Change::Release("ann".into()),
        give_up,
        Change::Delete("ann".into()),
    ];
    let orders = vec![Order::RetryAll, Order::RetryForNetwork];
    prop_oneof![
        6 => (to, any::<bool>(), patience)
            .prop_map(|(to, is_from_null, patience)| Step::Send { to, is_from_null, patience }),
        8 => answers().prop_map(Step::Answer),
        1 => prop::sample::select(orders).prop_map(Step::Order),
        5 => (0..3usize, prop::sample::select(changes))
            .prop_map(|(which, change)| Step::Change(which, change)),
        1 => Just(Step::Restart),
    ]
}

/// What is expected of a recipient.
#[derive(Debug)]
struct Model {
    message: usize,
    asked: Asked,
    behind: Option<Behind>,
    /// Whether it is sent on by [`OWNER`].
    is_of_list: bool,
    /// What the report on it must say; empty for none. Nothing while it has not ended.
    end: Option<&'static str>,
    /// Which run of the server gave that end, and by which answer.
    ended_by: Option<(usize, Answer)>,
}

/// The key of a recipient in [`Play::recipients`].
fn key(address: &str, way: &str) -> String {
    format!("{address} {way}")
}

impl Model {
    fn of(message: usize, asked: Asked, is_of_list: bool) -> Self {
        Self { message, asked, behind: None, is_of_list, end: None, ended_by: None }
    }

    /// Whether it has the message.
    fn is_done(&self) -> bool {
        matches!(self.ended_by, Some((_, Answer::Take))) && self.behind.is_none()
    }
}

#[derive(Debug)]
struct Message {
    id: QueueId,
    is_from_null: bool,
    is_held: bool,
    is_closed: bool,
}

type Changing = (usize, Change, JoinHandle<Option<Result<(), Refusal>>>);

struct Play {
    queue: Option<Queue>,
    listener: Option<JoinHandle<()>>,
    runs: usize,
    messages: Vec<Message>,
    /// By address, and the way to it behind a blank.
    recipients: BTreeMap<String, Model>,
    sessions: Vec<JoinHandle<bool>>,
    changing: Vec<Changing>,
    /// By address, what reports said of it, and to whom.
    told: BTreeMap<String, Vec<String>>,
    /// Those reports.
    reports: BTreeSet<QueueId>,
}

impl Play {
    fn new() -> Self {
        let mut play = Self {
            queue: None,
            listener: None,
            runs: 0,
            messages: Vec::new(),
            recipients: BTreeMap::new(),
            sessions: Vec::new(),
            changing: Vec::new(),
            told: BTreeMap::new(),
            reports: BTreeSet::new(),
        };
        play.start(folder());
        play
    }

    fn start(&mut self, folder: tempfile::TempDir) {
        self.runs += 1;
        let mut queue = Queue::prepare(folder, SOON, LATER);
        queue.start();
        let listener = Listener::open(&queue.folder.path().join("spool")).unwrap();
        let orders = queue.orders.clone();
        self.listener = Some(std::thread::spawn(move || listener.run(&orders)));
        self.queue = Some(queue);
    }

    fn queue(&self) -> &Queue {
        self.queue.as_ref().unwrap()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send { to, is_from_null, patience } => self.send(&to, is_from_null, patience),
            Step::Answer(answers) => {
                if let Some(job) = self.next_job(Duration::from_millis(5)) {
                    self.answer(&job, &answers);
                }
            }
            Step::Order(order) => self.queue().orders.send(order).unwrap(),
            Step::Change(which, change) => self.change(which, change),
            Step::Restart => {
                let folder = self.stop();
                self.start(folder);
            }
        }
    }

    fn send(&mut self, to: &[To], is_from_null: bool, patience: Duration) {
        let (message, mut names) = (self.messages.len(), Vec::new());
        for To { domain, asked, behind } in to {
            let name = format!("u{}@{domain}", self.recipients.len());
            names.push(match asked {
                Asked::Nothing => name.clone(),
                Asked::Never => format!("{name} NOTIFY=NEVER"),
                Asked::Success => format!("{name} NOTIFY=SUCCESS,FAILURE"),
            });
            let model = Model { behind: *behind, ..Model::of(message, *asked, false) };
            self.recipients.insert(key(&name, ""), model);
        }
        let from = if is_from_null { "<>".to_owned() } else { format!("<{SUE}>") };
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let draft = self.queue().draft(&from, &names);
        let id = draft.envelope().id;
        self.messages.push(Message { id, is_from_null, is_held: false, is_closed: false });
        let intake = self.queue().intake.clone();
        let is_direct = to.iter().all(|to| to.domain == "home.test" && to.asked != Asked::Success);
        self.sessions.push(std::thread::spawn(move || {
            let sealed = draft.seal().unwrap();
            let kept = match is_direct {
                true => intake.deliver_or_store(sealed, patience),
                false => intake.store(sealed),
            };
            kept.is_ok()
        }));
    }

    fn next_job(&mut self, patience: Duration) -> Option<Job> {
        // Whatever was changed before the job came forbids it.
        self.note_changes(false);
        let queue = self.queue();
        select! {
            recv(queue.local) -> job => job.ok(),
            recv(queue.relay) -> job => job.ok(),
            default(patience) => None,
        }
    }

    fn answer(&mut self, job: &Job, answers: &[Answer]) {
        let mut outcomes = BTreeMap::new();
        for (place, to) in job.recipients.iter().enumerate() {
            let outcome = match &to.mailbox.to_string()[..] {
                reader @ (SUE | OWNER | POSTMASTER) => {
                    self.reports.insert(job.message.envelope().id);
                    for (name, said) in said_in(&content(job), reader) {
                        self.told.entry(name).or_default().push(said);
                    }
                    delivered()
                }
                _ => self.outcome(job, to, answers[place % answers.len()]),
            };
            outcomes.insert(to.index, outcome);
        }
        self.queue().answer_each(job, |to| outcomes[&to.index].clone());
    }

    fn outcome(&mut self, job: &Job, to: &Recipient, answer: Answer) -> Outcome {
        let name = &key(&to.mailbox.to_string(), &to.way.to_string());
        let recipient = self.recipients.get_mut(name).unwrap();
        let message = &self.messages[recipient.message];
        assert_eq!(message.id, job.message.envelope().id);
        let sender = match (recipient.is_of_list, message.is_from_null) {
            (true, _) => format!("<{OWNER}>"),
            (false, true) => "<>".to_owned(),
            (false, false) => format!("<{SUE}>"),
        };
        assert_eq!(job.reverse_path.to_string(), sender, "{name}");
        assert!(job.next_hop != NextHop::Command || job.recipients.len() == 1, "{job:?}");
        assert!(!message.is_held && !message.is_closed, "{name} is tried in {message:?}");
        // What was neither delivered nor reported may come again after the next start, and then
        // fares the same.
        let (answer, is_again) = match recipient.ended_by {
            None => (answer, false),
            Some((run, answer)) => {
                assert!(run < self.runs && !recipient.is_done(), "{name} again: {recipient:?}");
                (answer, true)
            }
        };
        if matches!(answer, Answer::Take | Answer::Fail) {
            recipient.ended_by = Some((self.runs, answer));
        }
        let is_told = recipient.asked == Asked::Success && !message.is_from_null;
        match answer {
            Answer::Take if let Some(behind) = recipient.behind => {
                self.expand(name, behind, is_told)
            }
            Answer::Take => {
                let is_here = to.mailbox.domain().to_string() == "home.test";
                let end = if is_here { "delivered" } else { "relayed" };
                recipient.end = Some(if is_told { end } else { "" });
                if is_here { delivered() } else { relayed() }
            }
            Answer::Fail => {
                let address = &to.mailbox.to_string();
                let was_told = self
                    .told
                    .get(address)
                    .is_some_and(|told| told.iter().any(|it| it.starts_with("failed")));
                assert!(!is_again || !was_told || to.way != Way::Routed, "{name} was told of");
                let is_told = recipient.asked != Asked::Never;
                recipient.end = Some(if is_told { "failed" } else { "" });
                failed()
            }
            _ => answer.outcome(),
        }
    }

    fn expand(&mut self, name: &str, behind: Behind, is_told: bool) -> Outcome {
        let Model { message, asked, .. } = self.recipients[name];
        let address = name.trim_end();
        let is_list = matches!(behind, Behind::List(_)) && !self.messages[message].is_from_null;
        let into = into(address, behind);
        let has_own = matches!(behind, Behind::ItselfAnd(_));
        let is_single = into.len() == 1;
        let end = match () {
            () if !is_told || (!is_list && (is_single || has_own)) => "",
            () if is_list => "delivered",
            () => "expanded",
        };
        self.recipients.get_mut(name).unwrap().end = Some(end);
        for to in &into {
            let asked = match asked {
                _ if is_list => Asked::Nothing,
                Asked::Success if !is_single && to.way != Way::Mailbox => Asked::Nothing,
                asked => asked,
            };
            let key = key(&to.mailbox.to_string(), &to.way.to_string());
            self.recipients.entry(key).or_insert(Model::of(message, asked, is_list));
        }
        let owner = matches!(behind, Behind::List(_)).then(|| OWNER.parse().unwrap());
        Outcome::Expanded(Expansion { into, owner })
    }

    /// Who hears what becomes of a recipient.
    fn reader_for(&self, recipient: &Model) -> &'static str {
        match (recipient.is_of_list, self.messages[recipient.message].is_from_null) {
            (true, _) => OWNER,
            (false, true) => POSTMASTER,
            (false, false) => SUE,
        }
    }

    /// Whoever deletes a message has nobody told what was not told of it yet: that a person gave it
    /// up a moment ago, or what had ended when the server was stopped.
    fn note_deleted(&mut self, place: usize) {
        let mut told = self.told.clone();
        let spool = SpoolReader::open(&self.queue().folder.path().join("spool")).unwrap();
        for id in spool.ids().unwrap().into_iter().filter(|id| !self.reports.contains(id)) {
            // What goes away meanwhile is no report: only this thread takes those.
            let Ok((message, _)) = spool.load(id) else { continue };
            let mut text = String::new();
            message.reader().read_to_string(&mut text).unwrap();
            let reader = message.envelope().recipients[0].mailbox.to_string();
            for (name, said) in said_in(&text, &reader) {
                told.entry(name).or_default().push(said);
            }
        }
        let mut untold = Vec::new();
        for (name, recipient) in self.recipients.iter().filter(|(_, it)| it.message == place) {
            let said = format!("{} to {}", recipient.end.unwrap_or(""), self.reader_for(recipient));
            let of_it = told.entry(address_of(name).to_owned()).or_default();
            match of_it.iter().position(|it| *it == said) {
                Some(found) => drop(of_it.remove(found)),
                None => untold.push(name.clone()),
            }
        }
        for name in untold {
            self.recipients.get_mut(&name).unwrap().end = Some("");
        }
    }

    fn change(&mut self, which: usize, change: Change) {
        let Some(place) = self.messages.len().checked_sub(which + 1) else { return };
        let message = &mut self.messages[place];
        if matches!(change, Change::Release(_) | Change::GiveUp(_)) {
            message.is_held = false;
        }
        let (id, what) = (message.id, change.clone());
        let spool = self.queue().folder.path().join("spool");
        let thread = std::thread::spawn(move || {
            let mut came = None;
            let hands = Hands::open(&spool).unwrap();
            hands.change_each([id], None, &what, |_, result| came = Some(result));
            came
        });
        self.changing.push((place, change, thread));
        // One after the other, so that it is known which came last.
        while self.changing.iter().any(|(_, _, thread)| !thread.is_finished()) {
            if let Some(job) = self.next_job(SOON) {
                self.answer(&job, &[Answer::Refuse]);
            }
        }
        self.note_changes(true);
    }

    fn note_changes(&mut self, must_end: bool) {
        let (ended, others) = std::mem::take(&mut self.changing)
            .into_iter()
            .partition(|(_, _, thread)| must_end || thread.is_finished());
        self.changing = others;
        for (place, change, thread) in ended as Vec<Changing> {
            if !matches!(thread.join().unwrap(), Some(Ok(()))) {
                continue;
            }
            let message = &mut self.messages[place];
            message.is_closed |= matches!(change, Change::GiveUp(_) | Change::Delete(_));
            match change {
                Change::Retry => {}
                Change::Hold(_) | Change::Release(_) => {
                    message.is_held = matches!(change, Change::Hold(_));
                }
                Change::GiveUp(_) => {
                    for recipient in self.recipients.values_mut().filter(|it| it.message == place) {
                        let is_told = recipient.asked != Asked::Never;
                        recipient.end.get_or_insert(if is_told { "failed" } else { "" });
                    }
                }
                Change::Delete(_) => self.note_deleted(place),
            }
        }
    }

    /// Stops the manager in good order; what it still hands out is put off.
    fn stop(&mut self) -> tempfile::TempDir {
        // Those that wait are answered or stored.
        while self.sessions.iter().any(|session| !session.is_finished()) {
            if let Some(job) = self.next_job(SOON) {
                self.answer(&job, &[Answer::Broken]);
            }
        }
        for session in self.sessions.drain(..) {
            assert!(session.join().unwrap());
        }
        self.queue().orders.send(Order::Stop).unwrap();
        let thread = self.queue.as_mut().and_then(|queue| queue.thread.take()).unwrap();
        while !thread.is_finished() {
            if let Some(job) = self.next_job(SOON) {
                self.answer(&job, &[Answer::Broken]);
            }
        }
        thread.join().unwrap();
        let Queue { folder, .. } = self.queue.take().unwrap();
        // Nobody takes what it hears now, so that it ends.
        Bell::open(&folder.path().join("spool")).unwrap().ring(Order::RetryAll).unwrap();
        self.listener.take().unwrap().join().unwrap();
        folder
    }

    /// Lets everything end, one in three in failure, and looks at how it did.
    fn finish(mut self) {
        for place in 0..self.messages.len() {
            self.change(place, Change::Release("ann".into()));
        }
        let deadline = Instant::now() + DEADLINE / 2;
        let mut last_answers =
            [&[Answer::Take][..], &[Answer::Take, Answer::Fail], &[Answer::Fail]]
                .into_iter()
                .cycle();
        loop {
            let is_busy = self.sessions.iter().any(|session| !session.is_finished());
            if !is_busy && self.queue().spool.ids().unwrap().is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "stuck: {:?}", self.left());
            match self.next_job(Duration::from_millis(20)) {
                Some(job) => self.answer(&job, last_answers.next().unwrap()),
                None => self.queue().orders.send(Order::RetryAll).unwrap(),
            }
        }
        let folder = self.stop();
        for left in ["queue", "state", "corrupt", "failed"] {
            let Ok(names) = std::fs::read_dir(folder.path().join("spool").join(left)) else {
                continue;
            };
            assert_eq!(names.count(), 0, "{left}/ is not empty");
        }
        let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, recipient) in &self.recipients {
            let end = recipient.end.unwrap_or_else(|| panic!("{name} has not ended"));
            let reader = self.reader_for(recipient);
            if !end.is_empty() {
                expected
                    .entry(address_of(name).to_owned())
                    .or_default()
                    .push(format!("{end} to {reader}"));
            }
        }
        let all = expected.values_mut().chain(self.told.values_mut());
        all.for_each(|told| told.sort());
        assert_eq!(self.told, expected);
    }

    fn left(&self) -> Vec<(QueueId, Vec<String>)> {
        let ids = self.queue().spool.ids().unwrap();
        let path = self.queue().folder.path();
        let of = |id: &QueueId| std::fs::read_to_string(path.join(format!("spool/state/{id}")));
        ids.into_iter()
            .map(|id| (id, of(&id).unwrap_or_default().lines().map(str::to_owned).collect()))
            .collect()
    }
}

/// What a report says: of whom, and what to whom.
fn said_in(text: &str, reader: &str) -> Vec<(String, String)> {
    let (mut name, mut said) = (None, Vec::new());
    for line in text.lines() {
        if let Some(found) = line.strip_prefix("Final-Recipient: rfc822; ") {
            name = Some(found.to_owned());
        } else if let Some(action) = line.strip_prefix("Action: ") {
            said.push((name.take().unwrap(), format!("{action} to {reader}")));
        }
    }
    said
}

/// The address in the key of a recipient.
fn address_of(key: &str) -> &str {
    key.split(' ').next().unwrap()
}

/// Those behind an alias.
fn into(address: &str, behind: Behind) -> Vec<Addressee> {
    let with =
        |way: &str| Addressee { mailbox: address.parse().unwrap(), way: way.parse().unwrap() };
    let user = address.strip_suffix("@home.test").unwrap();
    let addresses = |count| {
        let domains = ["far.test", "home.test"].into_iter().cycle().skip(address.len() % 2);
        let named = move |(one, domain)| format!("{user}-{one}@{domain}").parse::<Mailbox>();
        domains.take(count).enumerate().map(move |it| Addressee::from(named(it).unwrap()))
    };
    match behind {
        Behind::Addresses(count) | Behind::List(count) => addresses(count).collect(),
        Behind::ItselfAnd(count) => addresses(count).chain([with("\\")]).collect(),
        Behind::Command => vec![with("|run 'it now'")],
        Behind::CommandAndFile => vec![with("|run"), with("/a file")],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 25, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_recipient_ends_once_and_is_told_of_as_asked(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut play = Play::new();
        for step in steps {
            play.step(step);
        }
        play.finish();
    }
}
