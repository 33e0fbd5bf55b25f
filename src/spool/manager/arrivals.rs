//! What the sessions hand over: messages that are in the spool, and those that are offered first,
//! to be delivered while the client waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Manager, RECORD_FAILS_TOLD};
use crate::spool::claim::{Claim, Verdict};
use crate::spool::id::QueueId;
use crate::spool::intake::Arrival;
use crate::spool::lanes::Lane;
use crate::spool::message::StoredMessage;
use crate::spool::progress::Progress;
use crate::spool::round::{Round, Standing};

impl Manager {
    pub(super) fn take_arrival(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Message(message) => {
                self.arrivals.take_up();
                self.take_stored(message);
            }
            Arrival::Id(id) => self.take_found(id),
            Arrival::Offer(message, claim) => self.take_offer(message, claim),
            Arrival::Withdrawn(id) => self.withdraw(id),
        }
    }

    /// Takes a message that is to be opened from the spool. One that is at work already was
    /// found again, in a spool that had gone away.
    pub(super) fn take_found(&mut self, id: QueueId) {
        if !self.rounds.contains_key(&id) {
            self.schedule.insert(id, Instant::now());
        }
    }

    /// Takes a message that its session has put into the spool: a new one, or one that was
    /// offered and could not be delivered in time.
    fn take_stored(&mut self, message: StoredMessage) {
        let id = message.envelope().id;
        let Some(round) = self.rounds.get_mut(&id) else { return self.arrive(message) };
        // Its file is locked as long as it is open: see spool/hands.rs.
        round.message = Arc::new(message);
        round.standing = Standing::Stored;
        if round.has_new() {
            self.launch(id);
        } else if round.is_idle() {
            self.settle(id);
        }
    }

    /// Tries a message that is not in the spool, for which a session waits.
    fn take_offer(&mut self, message: Arc<StoredMessage>, claim: Arc<Claim>) {
        if self.is_stopping || !self.lanes.take(Lane::Local) {
            claim.decide(Verdict::Store);
            return;
        }
        let id = message.envelope().id;
        self.ages.begin(id, Duration::ZERO, Instant::now());
        let progress = Progress::new(message.envelope());
        let mut round = Round::new(message, progress, Lane::Local);
        round.standing = Standing::Offered(claim);
        self.rounds.insert(id, round);
        self.launch(id);
    }

    /// Forgets a message that could not be stored, once nothing is under way for it.
    fn withdraw(&mut self, id: QueueId) {
        let Some(round) = self.rounds.get_mut(&id) else { return };
        round.standing = Standing::Withdrawn;
        if round.is_idle() {
            self.settle(id);
        }
    }

    /// Has the session store what it offered. Who has it already must be on record before, so
    /// that there is no moment at which a crash would have it delivered again.
    pub(super) fn have_stored(&mut self, id: QueueId) {
        let Some(round) = self.rounds.get_mut(&id) else { return };
        let Standing::Offered(claim) = &round.standing else { return };
        let claim = Arc::clone(claim);
        round.standing = Standing::Awaited;
        if round.must_not_be_forgotten() {
            match self.spool.record(id, &round.progress) {
                Ok(()) => (round.has_record, round.is_changed) = (true, false),
                Err(error) => RECORD_FAILS_TOLD
                    .error(format_args!("{id}: cannot record what was delivered: {error}")),
            }
        }
        claim.decide(Verdict::Store);
    }
}
