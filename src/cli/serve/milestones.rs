//! The moments in the life of the server that others may want to hear of, systemd above all: one
//! function for each, and nothing else says so.

use std::sync::Arc;
use std::time::Duration;

use crate::sys::systemd::ServiceManager;

/// Who says so.
pub(super) struct Milestones(Arc<ServiceManager>);

impl Milestones {
    /// Says it to `service`, where there is one.
    pub(super) const fn new(service: Arc<ServiceManager>) -> Self {
        Self(service)
    }

    /// Sessions are accepted by those addresses, and the queue is at work.
    pub(super) fn ready(&self, addresses: &[String]) {
        self.0.ready(&status(addresses));
    }

    /// The configuration is about to be read again.
    pub(super) fn reload_begins(&self) {
        self.0.reloading();
        log::debug!("told to read the configuration again");
    }

    /// The configuration was read again, with these changes in words; or there is one mistake or more,
    /// and everything stays as it was. From now on sessions are accepted by those addresses.
    pub(super) fn reload_ended(&self, outcome: &Result<String, Vec<String>>, addresses: &[String]) {
        match outcome {
            Ok(changes) => log::info!("the configuration was read again: {changes}"),
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| log::error!("{mistake}"));
                log::error!(
                    "the configuration was not taken, and the one before stays in force; mend what \
                     the lines above name, and send SIGHUP again"
                );
            }
        }
        self.0.ready(&status(addresses));
    }

    /// The server has been told to stop while so many sessions are open, which takes no longer than
    /// `most`.
    pub(super) fn stopping(&self, sessions: usize, most: Duration) {
        self.0.stopping(most);
        log::info!("stopping; {sessions} sessions open");
    }
}

/// How the server is, for people.
fn status(addresses: &[String]) -> String {
    format!("Taking mail on {}", addresses.join(", "))
}
