//! How many messages may be open for each lane of the pool, so that neither takes all file
//! descriptors or holds up the other, and which ones wait for their turn.

use std::collections::VecDeque;

use crate::spool::id::QueueId;

/// Messages open at once for each lane. The others wait as ids.
const MAX_OPEN: usize = 256;

/// What a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Mailboxes of this host only.
    Local,
    /// Another host.
    Relay,
}

/// The places of both lanes.
#[derive(Debug, Default)]
pub struct Lanes {
    local: Places,
    relay: Places,
}

#[derive(Debug, Default)]
struct Places {
    taken: usize,
    /// Messages that are due and wait for a place.
    parked: VecDeque<QueueId>,
}

impl Lanes {
    /// Takes a place; `false` when there is none.
    pub fn take(&mut self, lane: Lane) -> bool {
        let places = self.places(lane);
        let has_room = places.taken < MAX_OPEN;
        places.taken += usize::from(has_room);
        has_room
    }

    /// Gives back a place that was taken.
    pub fn give_back(&mut self, lane: Lane) {
        let places = self.places(lane);
        places.taken = places.taken.saturating_sub(1);
    }

    /// Lets a message wait for a place.
    pub fn park(&mut self, lane: Lane, id: QueueId) {
        self.places(lane).parked.push_back(id);
    }

    /// The message that has waited longest in a lane that has a place; local ones first.
    pub fn next_parked(&mut self) -> Option<QueueId> {
        [&mut self.local, &mut self.relay]
            .into_iter()
            .filter(|places| places.taken < MAX_OPEN)
            .find_map(|places| places.parked.pop_front())
    }

    /// Whether there is such a message.
    pub fn has_turn(&self) -> bool {
        let mut lanes = [&self.local, &self.relay].into_iter();
        lanes.any(|places| places.taken < MAX_OPEN && !places.parked.is_empty())
    }

    fn places(&mut self, lane: Lane) -> &mut Places {
        match lane {
            Lane::Local => &mut self.local,
            Lane::Relay => &mut self.relay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_lane_holds_up_only_its_own() {
        let (first, second) = (QueueId::generate(0, 0), QueueId::generate(0, 0));
        let mut lanes = Lanes::default();
        while lanes.take(Lane::Relay) {}
        lanes.park(Lane::Relay, first);
        assert_eq!((lanes.has_turn(), lanes.next_parked()), (false, None));
        assert!(lanes.take(Lane::Local));
        lanes.park(Lane::Local, second);
        lanes.give_back(Lane::Relay);
        assert_eq!((lanes.has_turn(), lanes.next_parked()), (true, Some(second)));
        assert_eq!((lanes.has_turn(), lanes.next_parked()), (true, Some(first)));
        assert_eq!((lanes.has_turn(), lanes.next_parked()), (false, None));
    }
}
