//! The queue, counted: messages by state, and those who still wait by where they go.

use std::collections::BTreeMap;
use std::io;

use crate::cli::queue::entry::{self, Entry};
use crate::cli::queue::selection::Selection;
use crate::config::settings::Settings;
use crate::route;
use crate::spool::progress::{RecipientState, State};
use crate::spool::store::SpoolReader;

/// The most destinations that are told apart; what goes elsewhere is counted together.
const MAX_DESTINATIONS: usize = 1000;

/// What is in the queue.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) messages: u64,
    pub(super) octets: u64,
    /// Messages by the word that `mailwren queue` has for their state.
    pub(super) states: BTreeMap<&'static str, u64>,
    /// By where they go, as `mailwren route` names it.
    destinations: BTreeMap<String, Destination>,
    /// Recipients at other destinations.
    pub(super) elsewhere: u64,
}

/// Who waits for one destination.
#[derive(Debug, Default)]
pub(super) struct Destination {
    /// Recipients.
    pub(super) waiting: u64,
    /// When the first of them is tried again, in seconds since 1970.
    pub(super) next_try: Option<u64>,
    /// What was said last, and when, in seconds since 1970.
    pub(super) last_error: Option<(u64, String)>,
}

impl Backlog {
    /// Looks at each message, one at a time.
    ///
    /// # Errors
    /// When the spool may not be read.
    pub(super) fn of(settings: &Settings) -> io::Result<Self> {
        let spool = SpoolReader::open(&settings.server.spool)?;
        let mut backlog = Self::default();
        entry::each_there(&spool, &Selection::default(), |entry| {
            backlog.take(&entry, settings);
            Ok(())
        })?;
        Ok(backlog)
    }

    fn take(&mut self, entry: &Entry, settings: &Settings) {
        self.messages += 1;
        self.octets = self.octets.saturating_add(entry.message.size_octets());
        *self.states.entry(entry.state()).or_default() += 1;
        for recipient in entry.progress.recipients.iter().filter(|it| it.state == State::Pending) {
            let hop = route::next_hop(settings, &recipient.mailbox, &recipient.way).to_string();
            if self.destinations.len() >= MAX_DESTINATIONS && !self.destinations.contains_key(&hop)
            {
                self.elsewhere += 1;
                continue;
            }
            self.destinations.entry(hop).or_default().take(entry, recipient);
        }
    }

    /// Has so many recipients wait for a destination, which said this last.
    #[cfg(test)]
    pub(super) fn put(&mut self, name: &str, waiting: u64, error: &str) {
        self.messages += 1;
        let last_error = Some((0, error.to_owned()));
        let destination = Destination { waiting, next_try: None, last_error };
        self.destinations.insert(name.to_owned(), destination);
    }

    /// The destinations, those for which most wait first.
    pub(super) fn destinations(&self) -> Vec<(&str, &Destination)> {
        let mut all: Vec<_> = self.destinations.iter().map(|(name, it)| (&**name, it)).collect();
        all.sort_by_key(|(_, destination)| std::cmp::Reverse(destination.waiting));
        all
    }
}

impl Destination {
    fn take(&mut self, entry: &Entry, recipient: &RecipientState) {
        self.waiting += 1;
        let next_try = entry.next_try(recipient);
        self.next_try = [self.next_try, next_try].into_iter().flatten().min();
        let Some(last) = &recipient.last_try else { return };
        if self.last_error.as_ref().is_none_or(|(at, _)| *at < last.at) {
            let text = match &last.host {
                Some(host) => format!("{host} said: {}", last.text),
                None => last.text.clone(),
            };
            self.last_error = Some((last.at, text));
        }
    }
}
