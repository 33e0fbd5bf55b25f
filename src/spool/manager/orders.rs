//! What the queue manager is told from outside: by signals, by the network, by people with
//! `mailwren queue`.

use std::time::Instant;

use super::{LOCK_PAUSE, Manager};
use crate::deliver::dispatch::Rest;
use crate::spool::id::QueueId;
use crate::spool::message::StoredMessage;
use crate::spool::progress::Progress;
use crate::spool::schedule::Event;

impl Manager {
    /// Gives the sign of life that was asked for. Nobody waits for whoever asked to take it.
    pub(super) fn answer(&self) {
        if let Some(answers) = &self.answers {
            let _ = answers.try_send(());
        }
    }

    pub(super) fn retry_all(&mut self) {
        self.dispatcher.end_rests();
        self.digests.end_windows();
        self.send_digests();
        self.schedule.make_all_due(Instant::now());
        // A try that has begun may fail by what was mended meanwhile.
        self.rounds.values_mut().for_each(|round| round.is_wanted_again = true);
    }

    pub(super) fn retry_for_network(&mut self) {
        self.dispatcher.end_network_rests();
        self.schedule.make_due_for(Event::Network, Instant::now());
    }

    pub(super) fn retry_for_login(&mut self) {
        self.dispatcher.end_login_rests();
        self.schedule.make_due_for(Event::Login, Instant::now());
    }

    /// Has a message loaded at once. One that is parked or open already needs nothing more: its
    /// record is read after the change, since nobody changes it without its lock.
    pub(super) fn look_again(&mut self, id: QueueId) {
        if self.held.remove(&id) || self.schedule.contains(id) {
            self.urgent.insert(id);
            self.schedule.insert(id, Instant::now());
        }
    }

    /// Takes back what of a message was not handed out yet.
    pub(super) fn let_go(&mut self, id: QueueId) {
        let Some(round) = self.rounds.get_mut(&id) else { return };
        let until = Instant::now() + LOCK_PAUSE;
        for job in self.dispatcher.withdraw(id) {
            round.put_back();
            round.rest(&Rest::until(until), &job.recipients);
        }
        if round.is_idle() {
            self.settle(id);
        }
    }

    /// Leaves a message alone that somebody holds. The time until its release does not count.
    pub(super) fn hold(&mut self, message: &StoredMessage, mut progress: Progress) {
        let id = message.envelope().id;
        self.held.insert(id);
        self.urgent.remove(&id);
        let is_counted = self.ages.counts(id);
        if is_counted {
            progress.waited = self.ages.of(id, Instant::now()).as_secs();
            self.ages.forget(id);
        }
        if progress.noted.take().is_some() || is_counted {
            self.record(id, progress);
        }
    }
}
