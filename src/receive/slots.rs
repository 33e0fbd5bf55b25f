//! How many sessions there may be at once: over all, and of one client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::receive::peer::{Client, Peer};
use crate::sys::process;

/// Sessions at once after which, when the last has gone, freed memory goes back to the system.
const BURST: usize = 50;

/// Counts the sessions.
#[derive(Debug)]
pub struct Slots {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    max_sessions: usize,
    max_sessions_per_client: usize,
    all: usize,
    /// The most at once since there were none.
    most: usize,
    by_client: HashMap<Client, usize>,
}

/// Why there is no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// `max_sessions` are open.
    TooMany,
    /// `max_sessions_per_client` of this client are open.
    TooManyOfClient,
}

/// A session's place; given back when dropped, whatever happened.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    client: Client,
}

impl Slots {
    /// Slots with the two limits.
    pub fn new(max_sessions: usize, max_sessions_per_client: usize) -> Arc<Self> {
        let taken = Taken { max_sessions, max_sessions_per_client, ..Taken::default() };
        Arc::new(Self { taken: Mutex::new(taken) })
    }

    /// Has other limits hold from now on. Nobody who has a slot loses it.
    pub fn limit(&self, max_sessions: usize, max_sessions_per_client: usize) {
        let mut taken = self.taken();
        (taken.max_sessions, taken.max_sessions_per_client) =
            (max_sessions, max_sessions_per_client);
    }

    /// Takes a slot for a session of `peer`.
    ///
    /// # Errors
    /// The limit that is reached; the client gets 421.
    pub fn take(self: &Arc<Self>, peer: &Peer) -> Result<Slot, NoSlot> {
        let client = Client::of(peer);
        let mut taken = self.taken();
        if taken.all >= taken.max_sessions {
            return Err(NoSlot::TooMany);
        }
        let most = taken.max_sessions_per_client;
        let of_client = taken.by_client.entry(client).or_default();
        if *of_client >= most {
            return Err(NoSlot::TooManyOfClient);
        }
        *of_client += 1;
        taken.all += 1;
        taken.most = taken.most.max(taken.all);
        Ok(Slot { slots: Arc::clone(self), client })
    }

    /// The sessions open now.
    pub fn open(&self) -> usize {
        self.taken().all
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // The counts are changed in single steps, so a panic elsewhere leaves them right.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.slots.taken().give_back(self.client) >= BURST {
            process::trim_memory();
        }
    }
}

impl Taken {
    /// Counts one less. With the last one gone, returns how many there were at the most.
    fn give_back(&mut self, client: Client) -> usize {
        self.all -= 1;
        if let Some(of_client) = self.by_client.get_mut(&client) {
            *of_client -= 1;
            if *of_client == 0 {
                self.by_client.remove(&client);
            }
        }
        if self.all == 0 { std::mem::take(&mut self.most) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> Peer {
        Peer::Host { remote: [192, 0, 2, last].into(), local: [192, 0, 2, 254].into() }
    }

    #[test]
    fn both_limits_hold_and_slots_come_back() {
        let slots = Slots::new(3, 2);
        let first = slots.take(&host(1)).unwrap();
        let _second = slots.take(&host(1)).unwrap();
        assert_eq!(slots.take(&host(1)).unwrap_err(), NoSlot::TooManyOfClient);
        let _third = slots.take(&Peer::Account { uid: 0 }).unwrap();
        assert_eq!(slots.take(&host(2)).unwrap_err(), NoSlot::TooMany);
        drop(first);
        assert_eq!(slots.open(), 2);
        assert!(slots.take(&host(1)).is_ok());
    }

    #[test]
    fn a_network_of_ipv6_has_the_slots_of_one_client() {
        let host = |text: &str| {
            let remote = text.parse::<std::net::IpAddr>().unwrap().to_canonical();
            Peer::Host { remote, local: [192, 0, 2, 254].into() }
        };
        let slots = Slots::new(14, 2);
        let _two =
            ["2001:db8:0:1::1", "2001:db8:0:1:ffff::"].map(|it| slots.take(&host(it)).unwrap());
        let one_more = slots.take(&host("2001:db8:0:1::2"));
        assert_eq!(one_more.unwrap_err(), NoSlot::TooManyOfClient);
        let others = [
            "2001:db8:0:2::1",
            "::ffff:192.0.2.1",
            "192.0.2.1",
            "::ffff:192.0.2.2",
            "fe80::1",
            "fe80::2",
            "fe80::3",
            "fd00::1",
            "fd00::2",
            "fd00::3",
        ];
        let _others = others.map(|it| slots.take(&host(it)).unwrap());
        assert_eq!(slots.take(&host("192.0.2.1")).unwrap_err(), NoSlot::TooManyOfClient);
    }

    #[test]
    fn lower_limits_take_no_slot_away_and_hold_for_the_next() {
        let slots = Slots::new(3, 3);
        let first = slots.take(&host(1)).unwrap();
        let _second = slots.take(&host(1)).unwrap();
        slots.limit(2, 1);
        assert_eq!(slots.open(), 2);
        assert_eq!(slots.take(&host(2)).unwrap_err(), NoSlot::TooMany);
        drop(first);
        assert_eq!(slots.take(&host(1)).unwrap_err(), NoSlot::TooManyOfClient);
        let _other = slots.take(&host(2)).unwrap();
        slots.limit(4, 2);
        assert!(slots.take(&host(1)).is_ok());
    }
}
