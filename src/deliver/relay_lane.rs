//! The lane of what may take its time: other hosts, and commands of this one.

use std::sync::Arc;

use crate::config::settings::Settings;
use crate::deliver::job::Job;
use crate::deliver::local::LocalDelivery;
use crate::deliver::outcome::Outcome;
use crate::deliver::pool::Deliver;
use crate::deliver::relay::Relay;
use crate::route::next_hop::NextHop;

/// Hands each job to whom its next hop belongs to.
#[derive(Debug)]
pub struct RelayLane {
    relay: Relay,
    local: Arc<LocalDelivery>,
}

impl RelayLane {
    /// The same lane as other settings say, `before` and `after`.
    pub fn with_settings(&self, settings: [&Settings; 2], local: Arc<LocalDelivery>) -> Self {
        Self { relay: self.relay.with_settings(settings), local }
    }

    /// Forgets the accounts that these settings do not need.
    pub fn forget_others(&self, settings: &Settings) {
        self.relay.forget_others(settings);
    }

    /// A lane that relays by `relay`, and has `local` run the commands.
    pub const fn new(relay: Relay, local: Arc<LocalDelivery>) -> Self {
        Self { relay, local }
    }
}

impl Deliver for RelayLane {
    fn deliver(&self, job: &Job) -> Vec<(usize, Outcome)> {
        match job.next_hop {
            NextHop::Local | NextHop::Command => self.local.deliver(job),
            NextHop::Smarthost(_) | NextHop::Mx(_) => self.relay.deliver(job),
        }
    }

    fn rest(&self) -> bool {
        self.relay.rest()
    }
}
