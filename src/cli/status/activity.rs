//! What the journal of events says: how many messages there were today, and the last deliveries.

use std::collections::VecDeque;
use std::io;

use crate::cli::trace::journal;
use crate::config::settings::Settings;
use crate::report::event::{Event, Station};
use crate::sys::clock;

/// The most deliveries that are shown.
const MAX_LAST: usize = 10;

/// What the journal says.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// How often each of these happened since midnight by the clock of this host.
    pub(super) today: Today,
    /// The first event, where it is one of today, so that what was before is not known.
    pub(super) begins_today: Option<Event>,
    /// Mail that was delivered or relayed, the newest last.
    pub(super) last: VecDeque<Event>,
}

/// Messages that came, and recipients for whom something was decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Today {
    pub(super) received: u64,
    pub(super) delivered: u64,
    pub(super) relayed: u64,
    pub(super) bounced: u64,
}

impl Activity {
    /// Reads the journal.
    ///
    /// # Errors
    /// When it may not be read.
    pub(super) fn of(settings: &Settings) -> io::Result<Self> {
        let now = clock::local_time(clock::since_1970().as_secs()).rfc3339().to_string();
        let today = now.get(..10).unwrap_or_default();
        let (mut activity, mut is_first) = (Self::default(), true);
        journal(settings)?.each(|event| activity.take(event, today, &mut is_first))?;
        Ok(activity)
    }

    fn take(&mut self, event: Event, today: &str, is_first: &mut bool) {
        let is_today = event.day() == today;
        if std::mem::take(is_first) && is_today {
            self.begins_today = Some(event.clone());
        }
        let count = match event.station {
            Station::Received => Some(&mut self.today.received),
            Station::Delivered => Some(&mut self.today.delivered),
            Station::Relayed => Some(&mut self.today.relayed),
            Station::Bounced => Some(&mut self.today.bounced),
            _ => None,
        };
        if let Some(count) = count.filter(|_| is_today) {
            *count += 1;
        }
        if matches!(event.station, Station::Delivered | Station::Relayed) {
            self.last.push_back(event);
            if self.last.len() > MAX_LAST {
                self.last.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_today_counts_and_ten_are_kept() {
        let (mut activity, mut is_first) = (Activity::default(), true);
        let mut take = |day: &str, rest: &str| {
            let line = format!("2026-11-{day}T03:46:52+01:00 0000000000001 {rest} to=<a@b>");
            activity.take(Event::parse(&line).unwrap(), "2026-11-22", &mut is_first);
        };
        for _ in 0..12 {
            take("21", "delivered");
        }
        for rest in ["received", "received", "relayed", "bounced", "deferred"] {
            take("22", rest);
        }
        let today = Today { received: 2, delivered: 0, relayed: 1, bounced: 1 };
        assert_eq!((activity.today, activity.last.len()), (today, MAX_LAST));
        assert_eq!(activity.begins_today, None);
    }
}
