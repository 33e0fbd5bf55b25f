//! Another configuration for a queue manager at work: what is under way ends as it began, all that
//! is handed out afterwards goes by the new one, and nothing that was learnt is forgotten.

use std::sync::Arc;
use std::time::Instant;

use super::Manager;
use crate::config::settings::Settings;
use crate::deliver::dispatch::NewLanes;
use crate::route::next_hop::NextHop;

/// What takes the place of the settings and of the lanes so far.
#[derive(Debug)]
pub struct Succession {
    /// The settings from now on.
    pub settings: Arc<Settings>,
    /// The lanes that were made from them.
    pub lanes: NewLanes,
}

impl Manager {
    /// Goes on with other settings. When a message was to be tried again stays as it was, unless
    /// mail goes other ways now: then everything is looked at, and what goes where nothing rests is
    /// tried.
    pub(super) fn succeed(&mut self, succession: Succession) {
        let Succession { settings, lanes } = succession;
        let before = std::mem::replace(&mut self.settings, settings);
        let settings = Arc::clone(&self.settings);
        self.digests.change(&settings.digest, settings.server.max_message_size);
        self.dispatcher.change_lanes(lanes, &settings.queue);
        let is_other_way = before.smarthost != settings.smarthost
            || before.server.domains != settings.server.domains;
        if !is_other_way {
            return;
        }
        let now = Instant::now();
        if let Some(smarthost) = &settings.smarthost {
            self.dispatcher.carry_login_rest_to(smarthost);
        }
        for job in self.dispatcher.withdraw_relayed() {
            self.put_back(&job, now);
        }
        self.schedule.make_all_due(now);
    }

    /// Whether mail no longer goes this way, so that a try there says nothing about the next one.
    pub(super) fn is_old_way(&self, next_hop: &NextHop) -> bool {
        match next_hop {
            NextHop::Smarthost(smarthost) => self.settings.smarthost.as_ref() != Some(smarthost),
            NextHop::Mx(_) => self.settings.smarthost.is_some(),
            NextHop::Local | NextHop::Command => false,
        }
    }
}
