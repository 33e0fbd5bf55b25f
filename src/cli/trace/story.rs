//! What is known of messages: their events, and what the queue still has of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, BufWriter, Write};

use serde_json::{Value, json};

use super::{journal, moment, to_json};
use crate::cli::queue::entry::{self, Entry};
use crate::cli::queue::list;
use crate::cli::queue::selection::{Pattern, Selection};
use crate::config::settings::Settings;
use crate::mail::address::Mailbox;
use crate::report::event::{Event, Station};
use crate::report::events::reader::Reader;
use crate::spool::id::QueueId;
use crate::spool::store::SpoolReader;

/// The most messages of an address that are shown, the newest.
const MAX_MESSAGES: usize = 20;
/// The most messages that are shown because they belong to one.
const MAX_LINKED: usize = 200;
/// The most events that are shown, the newest.
const MAX_EVENTS: usize = 2000;

/// Which messages are wanted.
#[derive(Debug)]
pub(super) enum Chosen {
    /// This one, and what went into it or came of it.
    Id(QueueId),
    /// Those with a sender or a recipient like this.
    Pattern(Pattern),
}

/// What is known of the chosen messages.
#[derive(Debug, Default)]
pub(super) struct Stories {
    /// In the order in which they happened.
    events: VecDeque<Event>,
    /// Those that are still in the queue.
    queued: Vec<Queued>,
    /// Events, or messages of an address, that were left out.
    left_out_events: usize,
    left_out_messages: usize,
    /// The first event in the journal, of whatever message.
    pub(super) first: Option<Event>,
    /// Whether the caller may read the journal and not the queue, as the group of the account may.
    pub(super) is_queue_hidden: bool,
    /// Lines of the journal that are none.
    pub(super) unreadable: u64,
}

/// A message in the queue, as it is shown.
#[derive(Debug)]
struct Queued {
    id: QueueId,
    state: &'static str,
    held: Option<String>,
    recipients: Vec<String>,
    json: Value,
}

impl Stories {
    /// Looks into the journal, then into the queue.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub(super) fn read(chosen: &Chosen, settings: &Settings) -> io::Result<Self> {
        let journal = journal(settings)?;
        let mut stories = Self::default();
        let ids = match chosen {
            Chosen::Id(id) => linked(&journal, *id)?,
            Chosen::Pattern(pattern) => stories.ids_of(pattern, &journal, settings)?,
        };
        stories.unreadable = journal.each(|event| {
            if stories.first.is_none() {
                stories.first = Some(event.clone());
            }
            if event.id.is_some_and(|id| ids.contains(&id)) {
                stories.events.push_back(event);
            }
            if stories.events.len() > MAX_EVENTS {
                stories.events.pop_front();
                stories.left_out_events += 1;
            }
        })?;
        // A selection of nothing means everything.
        if ids.is_empty() {
            return Ok(stories);
        }
        let mut selection = Selection::default();
        ids.into_iter().for_each(|id| selection.add_id(id));
        let queued = each_queued(settings, &selection, |entry| {
            stories.queued.push(Queued::of(&entry));
        });
        stories.note_hidden(queued)?;
        Ok(stories)
    }

    /// The newest messages of somebody, in the journal or in the queue.
    fn ids_of(
        &mut self,
        pattern: &Pattern,
        journal: &Reader,
        settings: &Settings,
    ) -> io::Result<BTreeSet<QueueId>> {
        let mut ids = BTreeSet::new();
        journal.each(|event| {
            let Some(id) = event.id.filter(|_| event.station != Station::Reported) else { return };
            let mut addresses = event.addresses("from");
            addresses.extend(event.addresses("to"));
            if addresses.into_iter().any(|address| is_like(pattern, address)) {
                ids.insert(id);
            }
        })?;
        let queued = each_queued(settings, &Selection::default(), |entry| {
            let sender = entry.message.envelope().reverse_path.mailbox();
            let mut recipients = entry.progress.recipients.iter();
            if pattern.matches(sender) || recipients.any(|it| pattern.matches(Some(&it.mailbox))) {
                ids.insert(entry.id());
            }
        });
        self.note_hidden(queued)?;
        self.left_out_messages = ids.len().saturating_sub(MAX_MESSAGES);
        Ok(ids.into_iter().skip(self.left_out_messages).collect())
    }

    /// Takes it that the queue is not the caller's to read.
    fn note_hidden(&mut self, queued: io::Result<()>) -> io::Result<()> {
        match queued {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.is_queue_hidden = true;
                Ok(())
            }
            queued => queued,
        }
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.queued.is_empty()
    }

    /// The messages, each with its events, by age.
    fn by_message(&self) -> BTreeMap<QueueId, Vec<&Event>> {
        let mut messages: BTreeMap<_, Vec<_>> = BTreeMap::new();
        self.queued.iter().for_each(|queued| _ = messages.entry(queued.id).or_default());
        for event in &self.events {
            if let Some(id) = event.id {
                messages.entry(id).or_default().push(event);
            }
        }
        messages
    }

    /// Says it to a person. All that comes from outside is escaped in the lines already.
    pub(super) fn print(&self) {
        let mut out = BufWriter::new(io::stdout().lock());
        // A reader that is gone is no reason to fail.
        let _ = self.write(&mut out).and_then(|()| out.flush());
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.left_out_messages > 0 {
            writeln!(out, "({} older messages are left out)\n", self.left_out_messages)?;
        }
        if self.left_out_events > 0 {
            writeln!(out, "({} older events are left out)\n", self.left_out_events)?;
        }
        for (at, (id, events)) in self.by_message().into_iter().enumerate() {
            writeln!(out, "{}{id}", if at == 0 { "" } else { "\n" })?;
            for event in &events {
                let (time, name) = (moment(event), event.station.name());
                writeln!(out, "  {time}  {name:9}  {}", event.text())?;
            }
            match self.queued.iter().find(|queued| queued.id == id) {
                Some(queued) => queued.write(out)?,
                None if self.is_queue_hidden => {
                    writeln!(out, "  whether it is still in the queue, root is told")?;
                }
                None => writeln!(out, "  no longer in the queue")?,
            }
        }
        Ok(())
    }

    /// Says it to a program.
    pub(super) fn to_json(&self, wanted: &str, settings: &Settings) -> Value {
        let messages: Vec<_> = self
            .by_message()
            .into_iter()
            .map(|(id, events)| {
                let queued = self.queued.iter().find(|queued| queued.id == id);
                json!({
                    "id": id.to_string(),
                    "events": events.into_iter().map(to_json).collect::<Vec<_>>(),
                    "queue": queued.map(|queued| &queued.json),
                })
            })
            .collect();
        json!({
            "wanted": wanted,
            "messages": messages,
            "queue_is_known": !self.is_queue_hidden,
            "left_out_messages": self.left_out_messages,
            "left_out_events": self.left_out_events,
            "journal": {
                "is_kept": settings.events_size > 0,
                "since": self.first.as_ref().map(Event::time),
                "unreadable_lines": self.unreadable,
            },
        })
    }
}

impl Queued {
    fn of(entry: &Entry) -> Self {
        let recipients = entry.progress.recipients.iter();
        Self {
            id: entry.id(),
            state: entry.state(),
            held: entry.held(),
            recipients: recipients.map(|it| list::recipient_line(entry, it)).collect(),
            json: entry.to_json(),
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.held {
            Some(held) => writeln!(out, "  in the queue, held {held}:")?,
            None => writeln!(out, "  in the queue, {}:", self.state)?,
        }
        self.recipients.iter().try_for_each(|recipient| writeln!(out, "    {recipient}"))
    }
}

/// A message, what came of it and what it came of: forwards and backwards, but not back from one
/// to others that have come to the same.
fn linked(journal: &Reader, id: QueueId) -> io::Result<BTreeSet<QueueId>> {
    let mut links = Vec::new();
    journal.each(|event| {
        if let (Some(from), Some(to)) = (event.id, event.link()) {
            links.push((from, to));
        }
    })?;
    let backwards: Vec<_> = links.iter().map(|(from, to)| (*to, *from)).collect();
    let mut all = reachable(&links, id);
    all.extend(reachable(&backwards, id));
    Ok(all)
}

fn reachable(links: &[(QueueId, QueueId)], start: QueueId) -> BTreeSet<QueueId> {
    let (mut found, mut at_hand) = (BTreeSet::from([start]), vec![start]);
    while let Some(id) = at_hand.pop() {
        for (_, to) in links.iter().filter(|(from, _)| *from == id) {
            if found.len() < MAX_LINKED && found.insert(*to) {
                at_hand.push(*to);
            }
        }
    }
    found
}

/// Whether an address of the journal is meant; an empty one is the null path.
fn is_like(pattern: &Pattern, address: &str) -> bool {
    match address {
        "" => pattern.matches(None),
        _ => address.parse::<Mailbox>().is_ok_and(|mailbox| pattern.matches(Some(&mailbox))),
    }
}

/// Hands over the selected messages that are in the queue. Where there is no spool there is none.
fn each_queued(
    settings: &Settings,
    selection: &Selection,
    mut take: impl FnMut(Entry),
) -> io::Result<()> {
    let spool = match SpoolReader::open(&settings.server.spool) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        spool => spool?,
    };
    entry::each_there(&spool, selection, |entry| {
        take(entry);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_both_ways_and_not_to_siblings() {
        let [a, b, digest, report, other] = [1, 2, 3, 4, 5].map(QueueId::with_number);
        let links = [(a, digest), (b, digest), (digest, report), (other, other)];
        let back: Vec<_> = links.iter().map(|(from, to)| (*to, *from)).collect();
        assert_eq!(reachable(&links, a), BTreeSet::from([a, digest, report]));
        assert_eq!(reachable(&back, digest), BTreeSet::from([a, b, digest]));
        assert_eq!(reachable(&links, other), BTreeSet::from([other]));
    }

    #[test]
    fn the_null_path_is_nobody() {
        let pattern = |text| Pattern::parse(text).unwrap();
        assert!(is_like(&pattern("<>"), "") && !is_like(&pattern("<>"), "ann@x.test"));
        assert!(is_like(&pattern("ANN@x.test"), "ann@x.test"));
        assert!(!is_like(&pattern("x.test"), "nonsense"));
    }
}
