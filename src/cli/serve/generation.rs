//! What is made from one configuration: what sessions go by, and the pools that deliver. The next
//! generation takes over from the last one what has not changed, and what was learnt; the last one
//! lives on for as long as a session or a delivery of its own does.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::config::settings::{Queue, Settings};
use crate::deliver::dispatch::NewLanes;
use crate::deliver::job::{Job, Report};
use crate::deliver::local::LocalDelivery;
use crate::deliver::pool;
use crate::deliver::relay::Relay;
use crate::deliver::relay_lane::RelayLane;
use crate::deliver::vacation::Vacation;
use crate::receive::Reception;
use crate::receive::tls::Certificates;
use crate::route::local::LocalRouter;
use crate::spool::manager::Succession;
use crate::spool::post::Post;

/// Settings and what is made from them.
#[derive(Clone)]
pub(super) struct Generation {
    pub(super) reception: Arc<Reception>,
    local: Arc<LocalDelivery>,
    relay: Arc<RelayLane>,
    /// What the relay lane has been given and not begun.
    relay_jobs: Receiver<Job>,
}

/// Both ends by which the lanes get their jobs.
pub(super) struct Channels {
    local: (Sender<Job>, Receiver<Job>),
    relay: (Sender<Job>, Receiver<Job>),
}

impl Channels {
    /// Channels for pools of these sizes.
    pub(super) fn new(queue: &Queue) -> Self {
        Self { local: bounded(2 * queue.local_workers), relay: bounded(2 * queue.relay_workers) }
    }

    /// Where jobs are handed out: of the local lane, of the relay lane. A pool ends when the last of
    /// its senders is gone.
    pub(super) fn senders(&self) -> [Sender<Job>; 2] {
        [self.local.0.clone(), self.relay.0.clone()]
    }
}

impl Generation {
    /// The one that a server starts with.
    pub(super) fn first(reception: Reception, relay: Relay, channels: &Channels) -> Self {
        let local = Arc::new(local_delivery(&reception));
        let relay = Arc::new(RelayLane::new(relay, Arc::clone(&local)));
        let relay_jobs = channels.relay.1.clone();
        Self { reception: Arc::new(reception), local, relay, relay_jobs }
    }

    /// The one that takes the place of this one, with other settings. Nothing of it is at work yet,
    /// and this one is as it was.
    ///
    /// # Errors
    /// The certificate cannot be used that the settings name: what is wrong, and what to do.
    pub(super) fn next(&self, settings: Settings, channels: &Channels) -> Result<Self, String> {
        let (before, settings) = (self.settings(), Arc::new(settings));
        let certificates = match self.reception.certificates.suit(&settings) {
            true => Arc::clone(&self.reception.certificates),
            false => {
                let certificates = Certificates::new(&settings);
                certificates.check()?;
                Arc::new(certificates)
            }
        };
        let reception = Reception {
            router: match routes_alike(before, &settings) {
                true => Arc::clone(&self.reception.router),
                false => Arc::new(LocalRouter::new(&settings)),
            },
            logins: Arc::new(self.reception.logins.with_settings(&settings)),
            certificates,
            settings: Arc::clone(&settings),
            ..Reception::clone(&self.reception)
        };
        let local = match delivers_alike(before, &settings) {
            true => Arc::clone(&self.local),
            false => Arc::new(local_delivery(&reception)),
        };
        let relay = self.relay.with_settings([before, &settings], Arc::clone(&local));
        Ok(Self {
            reception: Arc::new(reception),
            local,
            relay: Arc::new(relay),
            relay_jobs: channels.relay.1.clone(),
        })
    }

    /// The settings that it is made from.
    pub(super) fn settings(&self) -> &Settings {
        &self.reception.settings
    }

    /// Starts the threads of both pools. Where nobody gives them jobs, they end with the channels.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(super) fn start_pools(
        &self,
        channels: &Channels,
        reports: &Sender<Report>,
    ) -> io::Result<()> {
        let Queue { local_workers, relay_workers, .. } = self.settings().queue;
        pool::start("local", local_workers, &self.local, &channels.local.1, reports)?;
        pool::start("relay", relay_workers, &self.relay, &channels.relay.1, reports)
    }

    /// What the queue manager has to know to go on with `next` instead of this one.
    pub(super) fn succession(&self, next: &Self, channels: Channels) -> Succession {
        let old_relay = self.relay_jobs.clone();
        let lanes = NewLanes { local: channels.local.0, relay: channels.relay.0, old_relay };
        Succession { settings: Arc::clone(&next.reception.settings), lanes }
    }

    /// Lets that count from now on which is the same for all generations.
    pub(super) fn take_over(&self) {
        let settings = self.settings();
        let server = &settings.server;
        self.reception.slots.limit(server.max_sessions, server.max_sessions_per_client);
        self.relay.forget_others(settings);
    }
}

/// What writes mailboxes, and answers for those who are away.
fn local_delivery(reception: &Reception) -> LocalDelivery {
    let Reception { settings, router, spool, intake, .. } = reception;
    let delivery = LocalDelivery::new(settings, Arc::clone(router));
    if !settings.local.vacation {
        return delivery;
    }
    let post = Post::new(Arc::clone(spool), intake.clone());
    delivery.with_vacation(Vacation::new(Arc::clone(settings), Arc::clone(router), post))
}

/// Whether the addresses of this host mean the same under both settings, so that the last good
/// version of each alias file goes on being known.
fn routes_alike(one: &Settings, other: &Settings) -> bool {
    one.server.domains == other.server.domains
        && one.local == other.local
        && one.domains == other.domains
}

/// Whether the same is written into the same mailboxes under both settings.
fn delivers_alike(one: &Settings, other: &Settings) -> bool {
    routes_alike(one, other) && one.server == other.server && one.auth == other.auth
}
