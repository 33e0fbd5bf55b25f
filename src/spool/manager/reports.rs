//! What the queue manager has the senders told, and what becomes of mail of which nobody can be
//! told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{DISK_PAUSE, Manager};
use crate::mail::address::Mailbox;
use crate::report::complaint::Complaint;
use crate::report::notification::{Addressee, Notification};
use crate::spool::id::QueueId;
use crate::spool::round::Round;
use crate::spool::schedule;

static REPORT_FAILS_TOLD: Complaint = Complaint::new();

impl Manager {
    /// Tells each sender what became of its recipients. Only when the report is on disk are they
    /// marked as reported, and those that failed as failed; until then they stay pending, and
    /// nothing is lost.
    ///
    /// Reports are not limited by number: each comes of a message that was taken, and there is
    /// one of a delay and one of each end; holding them back would only fill the queue.
    pub(super) fn report(&mut self, round: &mut Round, age: Duration) {
        let message = Arc::clone(&round.message);
        let (settings, envelope) = (Arc::clone(&self.settings), message.envelope());
        let is_late = settings.queue.delay_warning.is_some_and(|limit| age >= limit);
        loop {
            let can_hear =
                |owner: Option<&Mailbox>| Addressee::of(&settings, envelope, owner).is_some();
            let places = round.to_report(is_late, can_hear);
            let owner = places.first().and_then(|place| round.sender_to(*place));
            let Some(to) = Addressee::of(&settings, envelope, owner) else { return };
            if places.is_empty() {
                return;
            }
            let reported: Vec<_> =
                places.iter().filter_map(|place| round.reported(*place)).collect();
            let (settings, spool, original) = (&*settings, &self.spool, &*message);
            match (Notification { settings, spool, original, to, age }).keep(&reported) {
                Ok(report) => {
                    round.mark_reported(&places);
                    self.arrive(report);
                }
                Err(error) => {
                    let id = envelope.id;
                    REPORT_FAILS_TOLD.error(format_args!(
                        "{id}: the report cannot be written, tried again later: {error}"
                    ));
                    return;
                }
            }
        }
    }

    /// Whether a report is owed to somebody who can be told.
    pub(super) fn owes_reader(&self, round: &Round) -> bool {
        let envelope = round.message.envelope();
        round.progress.recipients.iter().any(|it| {
            let to = || Addressee::of(&self.settings, envelope, it.sender.as_ref());
            it.is_report_owed && to().is_some()
        })
    }

    /// Keeps a message that failed and of which nobody can be told for a person to look at.
    pub(super) fn keep_failed(&mut self, id: QueueId, round: Round) {
        let recorded = self.spool.record(id, &round.progress);
        match recorded.and_then(|()| self.spool.keep_failed(id)) {
            Ok(path) => {
                let path = path.display();
                log::error!("{id}: failed, and nobody can be told; kept as {path}");
                self.forget(id);
            }
            Err(error) => {
                REPORT_FAILS_TOLD
                    .error(format_args!("{id}: failed, and cannot be moved to failed/: {error}"));
                self.record(id, round.progress);
                self.schedule.insert(id, Instant::now() + DISK_PAUSE);
            }
        }
    }

    /// When a waiting message has to be looked at whether or not a try is due: soon where a
    /// report could not be written, and when its sender is to be told of the delay.
    pub(super) fn latest_look(
        &self,
        round: &Round,
        age: Duration,
        now: Instant,
    ) -> Option<Instant> {
        if self.owes_reader(round) {
            return Some(now + DISK_PAUSE);
        }
        let until_late = self.settings.queue.delay_warning?.checked_sub(age)?;
        round.could_be_warned_of().then(|| schedule::after(now, until_late))
    }
}
