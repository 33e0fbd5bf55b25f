//! Goes through what was done to a disk, and asks at each moment: what if the power went now?

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::found::{Counts, Found, Item, look};
use crate::model::{Flavour, Model, Names, Octets, Tree, restore};
use crate::recorder::Event;
use crate::scenario::{Direct, Scenario, Server, behind, folder};

/// For whom the message is that is sent after everything: each mailbox gets something.
pub(crate) const EVERYBODY: &[&str] = &["ann@home.test", "bob@home.test", "nobody@home.test"];

/// What must come of a message to these.
pub(crate) fn items(key: &str, to: &[&str]) -> BTreeSet<Item> {
    to.iter().flat_map(|to| behind(to)).map(|to| (key.to_owned(), *to)).collect()
}

/// Adds what the next hop has taken.
pub(crate) fn relayed(events: &[Event], counts: &mut Counts) {
    for event in events {
        if let Event::Relay { key, to } = event {
            let known = ["x@far.test", "command"].into_iter().find(|known| known == to);
            let to = known.unwrap_or("a stranger");
            *counts.entry((key.clone(), to)).or_default() += 1;
        }
    }
}

/// A message on its way, with the power cut at every moment.
pub(crate) struct Replay<'a> {
    scenario: &'a Scenario,
    name: String,
    starts_again: bool,
    items: BTreeSet<Item>,
    is_accepted: bool,
    relayed: Counts,
    /// What each tree of files turned out to hold, by its hash.
    known: HashMap<u64, Option<Found>>,
    /// In which flavours the message was in the queue.
    was_queued: HashSet<Flavour>,
    /// What was delivered and needs nothing more, by flavour.
    settled: HashSet<(Flavour, Item)>,
    /// What was delivered before the message was stored.
    before_store: HashSet<Item>,
    /// Whether some events were passed over without a look at what a cut leaves.
    has_missed_moments: bool,
    moment: usize,
    pub(crate) runs: usize,
    pub(crate) violations: Vec<String>,
}

impl<'a> Replay<'a> {
    /// `name` says what has failed. If it `starts_again`, each cut is followed by a start;
    /// otherwise what it leaves is only looked at.
    pub(crate) fn new(scenario: &'a Scenario, name: String, starts_again: bool) -> Self {
        Self {
            scenario,
            name,
            starts_again,
            items: items("m1", scenario.case.recipients()),
            is_accepted: false,
            relayed: Counts::new(),
            known: HashMap::new(),
            was_queued: HashSet::new(),
            settled: HashSet::new(),
            before_store: HashSet::new(),
            has_missed_moments: false,
            moment: 0,
            runs: 0,
            violations: Vec::new(),
        }
    }

    /// Lets the next thing happen, and cuts the power: in the middle of it if it is a write,
    /// and after it.
    pub(crate) fn step(&mut self, model: &mut Model, event: &Event) {
        match event {
            Event::Write { file, octets } => {
                let (first, second) = octets.split_at(octets.len() / 2);
                for half in [first, second] {
                    let write = Event::Write { file: *file, octets: half.to_vec() };
                    self.take(model, &write);
                    self.cut(model, event);
                }
            }
            event => {
                self.take(model, event);
                self.cut(model, event);
            }
        }
    }

    /// Lets the next thing happen, and cuts the power only if it is an answer to the client.
    pub(crate) fn step_to_answer(&mut self, model: &mut Model, event: &Event) {
        self.has_missed_moments = true;
        self.take(model, event);
        if matches!(event, Event::Answer { .. }) {
            self.cut(model, event);
        }
    }

    fn take(&mut self, model: &mut Model, event: &Event) {
        self.moment += 1;
        model.apply(event);
        match event {
            Event::Answer { key, is_accepted } if key == "m1" => self.is_accepted = *is_accepted,
            event => relayed(std::slice::from_ref(event), &mut self.relayed),
        }
    }

    fn cut(&mut self, model: &Model, event: &Event) {
        for flavour in model.flavours() {
            let tree = model.tree(flavour);
            let mut hasher = DefaultHasher::new();
            tree.hash(&mut hasher);
            let found = match self.known.entry(hasher.finish()) {
                Entry::Occupied(known) => known.get().clone(),
                Entry::Vacant(new) => {
                    self.runs += 1;
                    let looked = after_cut(self.scenario, &tree, self.starts_again);
                    let found = looked.as_ref().map(|(found, _)| found.clone()).ok();
                    new.insert(found.clone());
                    let wrong = looked.map_or_else(|text| vec![text], |(_, wrong)| wrong);
                    for text in wrong {
                        self.complain(flavour, event, &text);
                    }
                    found
                }
            };
            if let Some(found) = found {
                self.compare(flavour, event, &found);
            }
        }
    }

    /// Whether what is found is what was promised.
    fn compare(&mut self, flavour: Flavour, event: &Event, found: &Found) {
        let count = |counts: &Counts, item: &Item| counts.get(item).copied().unwrap_or(0);
        let is_queued = found.left_over.iter().any(|name| name.starts_with("queue/"));
        if is_queued && self.items.iter().any(|item| found.owed.contains_key(item)) {
            self.was_queued.insert(flavour);
        }
        for item in self.items.clone() {
            let copies = count(&found.copies, &item) + count(&self.relayed, &item);
            let owed = count(&found.owed, &item);
            let key = (flavour, item.clone());
            if self.is_accepted && copies + owed == 0 {
                self.complain(flavour, event, &format!("{item:?} got its 250 and is lost"));
            }
            if copies > 1 {
                self.complain(flavour, event, &format!("{item:?} came {copies} times"));
            }
            if owed > 0 && self.settled.contains(&key) {
                self.complain(flavour, event, &format!("{item:?} is recorded and comes again"));
            }
            if copies > 0 && owed == 0 && self.was_queued.contains(&flavour) {
                self.settled.insert(key);
            }
            let is_first = flavour == (Names::All, Octets::Written);
            if is_first && copies > 0 && !self.was_queued.contains(&flavour) {
                self.before_store.insert(item.clone());
            }
            let waits = self.scenario.direct == Direct::Patient;
            // Who saw only some moments does not know which of the two came first.
            let is_certain = waits && !self.has_missed_moments;
            if is_certain && owed > 0 && self.before_store.contains(&item) {
                let text = format!("{item:?} was delivered and is stored without a record of it");
                self.complain(flavour, event, &text);
            }
        }
    }

    fn complain(&mut self, flavour: Flavour, event: &Event, text: &str) {
        let Self { scenario, name, moment, .. } = self;
        let event = event.text();
        let text = format!("{scenario}{name}: {text}; cut at {moment} {event}, {flavour:?}");
        self.violations.push(text);
    }
}

/// Looks at what a cut has left. Then, if told so, starts on it, lets everything be delivered, and
/// sends one more message. Gives what the cut has left and what is wrong.
fn after_cut(
    scenario: &Scenario,
    tree: &Tree,
    starts_again: bool,
) -> Result<(Found, Vec<String>), String> {
    let root = folder();
    restore(tree, root.path());
    let left = look(scenario, root.path())?;
    if !starts_again {
        return Ok((left, Vec::new()));
    }
    let recorder = scenario.recorder();
    let server = Server::start(scenario, root.path(), &recorder).unwrap();
    server.wait_until_idle();
    let mut wrong = Vec::new();
    if !server.send("m3", EVERYBODY) {
        wrong.push("the next message was refused".to_owned());
    }
    server.wait_until_idle();
    server.stop();
    let then = look(scenario, root.path())?;
    let mut expected = left.copies.clone();
    left.owed.iter().for_each(|(item, count)| *expected.entry(item.clone()).or_default() += count);
    items("m3", EVERYBODY).into_iter().for_each(|item| *expected.entry(item).or_default() = 1);
    let mut copies = then.copies;
    relayed(&recorder.events(), &mut copies);
    if copies != expected {
        wrong.push(format!("expected {expected:?}, found {copies:?}"));
    }
    if !then.owed.is_empty() || !then.left_over.is_empty() {
        wrong.push(format!("left over after the start: {:?} {:?}", then.owed, then.left_over));
    }
    if left.torn > 1 || then.torn > left.torn || then.temporary > left.temporary {
        wrong.push(format!("{} messages torn, then {}", left.torn, then.torn));
    }
    Ok((left, wrong))
}
