//! `mailwren serve`: the server, from binding its ports to the last delivery under way.
//!
//! What is made from a configuration is a [`generation`](generation): the policy of the sessions and
//! the delivery pools. When the configuration is read again ([`reload`]), the next generation takes
//! the place of the last one, which goes on until its last session and its last delivery have ended.

mod changes;
mod generation;
mod listeners;
mod milestones;
mod reload;
mod start;
mod watchdog;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::Ran;
use super::invocation::Invocation;
use super::output::warn;
use crate::config::settings::{LogReceiver, Settings};
use crate::deliver::job::Report;
use crate::receive::Reception;
use crate::receive::terms::Current;
use crate::report::{log_format, station};
use crate::spool::manager::{Order, Succession};
use crate::sys::command;
use crate::sys::process::exit;
use crate::sys::running::Record;
use crate::sys::signals::{Request, Requests};
use crate::sys::systemd::Beginnings;

use generation::Generation;
use listeners::Listeners;
use milestones::Milestones;

/// How long it may take to store what has come, beyond the wait for its delivery.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long it may take to tell clients that the server stops. Only one that reads nothing makes it
/// take longer than a moment.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long deliveries under way may take once the server is told to stop. What is not done
/// then is in the spool.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Serves until a signal says stop.
pub(super) fn run(invocation: &mut Invocation) -> Ran {
    invocation.no_more_arguments()?;
    let settings = match invocation.settings() {
        Ok(settings) => settings,
        Err(code) => return Ok(code),
    };
    log_format::start(settings.log_level, settings.log_to);
    Ok(serve(settings, &invocation.config_path(), |_| {}))
}

/// Serves with the `settings` of the file `config` until a signal says stop. Calls `once_ready` when
/// sessions are accepted, with the first TCP address where they are.
pub(super) fn serve(
    settings: Settings,
    config: &Path,
    once_ready: impl FnOnce(Option<SocketAddr>),
) -> u8 {
    let log_to = settings.log_to;
    // Before anything is opened.
    let beginnings = Beginnings::take();
    match start::start(settings, config, beginnings) {
        Ok(mut server) => {
            let listeners = &server.live.listeners;
            once_ready(listeners.first_address());
            server.milestones.ready(&listeners.addresses());
            server.run();
            station::stopped();
            exit::OK
        }
        Err(error) => {
            // Who reads the log of a daemon does not see its standard error.
            if log_to == LogReceiver::Syslog {
                log::error!("cannot start: {error}");
            }
            warn(format_args!("mailwren: {error}"));
            exit::OSERR
        }
    }
}

/// A server whose sockets are bound and whose threads run.
struct Server {
    /// The file that it is configured by.
    config: PathBuf,
    milestones: Milestones,
    live: Live,
    requests: Requests,
    orders: Sender<Order>,
    /// Nothing is ever sent here; it closes when the queue manager has returned.
    manager_end: Receiver<()>,
}

/// What another configuration makes another. A copy of it does the same to the same threads.
#[derive(Clone)]
struct Live {
    generation: Generation,
    /// The reception of the sessions that begin now.
    current: Arc<Current<Arc<Reception>>>,
    listeners: Listeners,
    /// Where the queue manager takes another configuration.
    successions: Sender<Succession>,
    /// Where the delivery threads report.
    reports: Sender<Report>,
    /// The longest that any session waits for its delivery.
    longest_direct: Duration,
    /// By which commands know this process; `None` where it could not be written.
    record: Option<Arc<Record>>,
}

/// The version that commands are told.
const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Server {
    /// Waits for signals until one says stop, then ends in order.
    fn run(&mut self) {
        loop {
            match self.requests.wait() {
                Request::Stop => break,
                Request::RetryQueue => {
                    log::info!("told to try the whole queue now");
                    let _ = self.orders.send(Order::RetryAll);
                }
                Request::Reload => self.reload(),
            }
        }
        self.stop();
    }

    fn stop(&self) {
        let Live { generation, listeners, longest_direct, .. } = &self.live;
        let Reception { slots, at_work, at_rest, is_stopping, last_bell, .. } =
            &*generation.reception;
        let longest_direct = *longest_direct;
        let most = longest_direct + LAST_WORDS + FAREWELL + 2 * STOP_PATIENCE;
        self.milestones.stopping(slots.open(), most);
        is_stopping.store(true, Ordering::Relaxed);
        listeners.stop();
        last_bell.ring();
        // What has come whole is delivered or stored, and its client told.
        if !at_work.close(longest_direct + LAST_WORDS) {
            log::warn!("stopped in the middle of messages; their clients will send them again");
        }
        // Who takes nothing is not waited for.
        at_rest.close(FAREWELL);
        // One that hangs on its disk takes no orders, either.
        let _ = self.orders.send_timeout(Order::Stop, STOP_PATIENCE);
        // Disconnected is how the end of the manager shows.
        if self.manager_end.recv_timeout(STOP_PATIENCE) == Err(RecvTimeoutError::Timeout) {
            log::warn!(
                "stopped in the middle of deliveries; they are tried again at the next start"
            );
            command::end_all();
        }
    }
}
