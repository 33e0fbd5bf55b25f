//! Tells systemd that the server is alive, as long as it is: the queue manager obeys orders, and each
//! listener's thread comes when it is called. What hangs is not spoken for, so that systemd starts
//! the server anew (systemd.service(5), WatchdogSec=); whatever got a 250 is on disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::listeners::{Door, Doors};
use crate::receive::Reception;
use crate::receive::terms::Current;
use crate::spool::manager::Order;
use crate::sys::systemd::ServiceManager;

/// The one who looks.
pub(super) struct Watchdog {
    pub(super) service: Arc<ServiceManager>,
    /// How often systemd wants to hear of us at the least.
    pub(super) interval: Duration,
    /// Where the queue manager takes orders.
    pub(super) orders: Sender<Order>,
    /// Where it answers.
    pub(super) answers: Receiver<()>,
    /// The listeners of the moment.
    pub(super) doors: Arc<Current<Doors>>,
    pub(super) reception: Arc<Reception>,
}

impl Watchdog {
    /// Looks twice in each interval (sd_watchdog_enabled(3)), until the server stops: then systemd
    /// waits for the end, and nobody has to answer.
    pub(super) fn run(self) {
        let pause = self.interval / 2;
        let mut is_asked = false;
        let mut was_well = true;
        loop {
            let next = Instant::now() + pause;
            let doors = self.doors.get();
            doors.iter().for_each(|door| door.listener.ask());
            // One that has not answered the last time has the question still.
            if !is_asked {
                is_asked = self.orders.send_timeout(Order::Answer, pause).is_ok();
            }
            if is_asked {
                is_asked = self.answers.recv_deadline(next).is_err();
            }
            let is_manager_well = !is_asked && Instant::now() <= next;
            let is_silent = |door: &&Arc<Door>| !door.listener.has_answered();
            let silent = || doors.iter().find(is_silent);
            thread::sleep(next.saturating_duration_since(Instant::now()));
            if self.reception.is_stopping.load(Ordering::Relaxed) {
                return;
            }
            let is_well = is_manager_well && silent().is_none();
            if is_well {
                self.service.alive();
            } else if was_well {
                let who = match silent() {
                    Some(door) if is_manager_well => {
                        format!("the listener on {}", door.listener.address())
                    }
                    _ => "the queue manager".to_owned(),
                };
                log::error!(
                    "{who} has not answered for {pause:?}; unless it does, systemd starts the server anew"
                );
            }
            was_well = is_well;
        }
    }
}
