//! `mailwren serve`: the server, from binding its ports to the last delivery under way.

mod watchdog;

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::Ran;
use super::invocation::Invocation;
use super::output::warn;
use crate::config::settings::Settings;
use crate::deliver::dispatch::Dispatcher;
use crate::deliver::local::LocalDelivery;
use crate::deliver::pool;
use crate::deliver::relay::Relay;
use crate::deliver::relay_lane::RelayLane;
use crate::deliver::vacation::Vacation;
use crate::receive::Reception;
use crate::receive::at_work::AtWork;
use crate::receive::listener::{BoundListener, Origin};
use crate::receive::logins::Logins;
use crate::receive::pickup::Pickup;
use crate::receive::queue_runs::QueueRuns;
use crate::receive::slots::Slots;
use crate::receive::threads::SessionThreads;
use crate::receive::tls::Certificates;
use crate::report::log_format;
use crate::route::local::LocalRouter;
use crate::spool::manager::{Intake, Manager, Order};
use crate::spool::post::Post;
use crate::spool::store::Spool;
use crate::spool::wake;
use crate::sys::command;
use crate::sys::files::{make_folder_for, make_or_take_folder_for};
use crate::sys::identity::{self, Privileges};
use crate::sys::network::NetworkWatch;
use crate::sys::process::{self, exit};
use crate::sys::signals::{Request, Requests};
use crate::sys::systemd::sockets::{Inherited, name_to_keep};
use crate::sys::systemd::{Beginnings, ServiceManager};
use crate::sys::users;
use watchdog::Watchdog;

/// The stack of the threads that are neither a session's nor a delivery's.
const STACK: usize = 256 << 10;
/// How often mail looks for a network where the kernel does not tell of one.
const UNWATCHED_NETWORK_PAUSE: Duration = Duration::from_secs(60);
/// How long it may take to store what has come, beyond the wait for its delivery.
const LAST_WORDS: Duration = Duration::from_secs(2);
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
    log_format::start(settings.log_level);
    Ok(serve(settings, |_| {}))
}

/// Serves with `settings`, calling `once_ready` when sessions are accepted, until a signal
/// says stop.
pub(super) fn serve(settings: Settings, once_ready: impl FnOnce(&[BoundListener])) -> u8 {
    // Before anything is opened.
    let beginnings = Beginnings::take();
    match start(settings, beginnings) {
        Ok(mut server) => {
            once_ready(&server.listeners);
            server.service.ready(&server.status());
            server.run();
            exit::OK
        }
        Err(error) => {
            warn(format_args!("mailwren: {error}"));
            exit::OSERR
        }
    }
}

/// A server whose sockets are bound and whose threads run.
struct Server {
    service: Arc<ServiceManager>,
    reception: Arc<Reception>,
    listeners: Arc<[BoundListener]>,
    requests: Requests,
    orders: Sender<Order>,
    /// Nothing is ever sent here; it closes when the queue manager has returned.
    manager_end: Receiver<()>,
}

fn start(settings: Settings, beginnings: Beginnings) -> io::Result<Server> {
    let Beginnings { service, mut inherited } = beginnings;
    process::raise_file_limit();
    let requests = Requests::new()?;
    let listeners = bind(&settings, &mut inherited)?;
    settle_sockets(&service, &listeners, inherited);
    let certificates = Certificates::new(&settings);
    drop_privileges(&settings)?;
    let settings = Arc::new(settings);
    let spool = Spool::open(&settings.server.spool)?;
    log_addresses(&listeners);
    process::apart(|| certificates.prepare());
    let queued = spool.found()?;
    let router = Arc::new(LocalRouter::new(&settings));

    let queue = &settings.queue;
    let (local, local_jobs) = bounded(2 * queue.local_workers);
    let (relay, relay_jobs) = bounded(2 * queue.relay_workers);
    let (reports, results) = unbounded();
    let (orders, manager_orders) = bounded(16);
    let relaying = Relay::new(&settings).with_orders(orders.clone());
    process::release_start();
    let mut dispatcher = Dispatcher::new(local, relay, queue.relay_workers, queue.retry.clone());
    if let Err(error) = watch_network(orders.clone()) {
        log::info!("the kernel does not tell of the network, which is tried now and then: {error}");
        dispatcher = dispatcher.with_network_pause(UNWATCHED_NETWORK_PAUSE);
    }
    let (manager, intake) = Manager::new(Arc::clone(&settings), Arc::clone(&spool), dispatcher);
    let (answer, answers) = bounded(1);
    let manager = manager.with_answers(answer);
    let local_lane = Arc::new(local_delivery(&settings, &router, &spool, &intake));
    let relay_lane = Arc::new(RelayLane::new(relaying, Arc::clone(&local_lane)));
    pool::start("local", queue.local_workers, &local_lane, &local_jobs, &reports)?;
    pool::start("relay", queue.relay_workers, &relay_lane, &relay_jobs, &reports)?;
    let (at_end, manager_end) = bounded::<()>(0);
    log::info!("{} messages in the queue", queued.len());
    spawn("queue", move || {
        let work = || manager.run(queued, &results, &manager_orders);
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            // Taking mail that nobody delivers would be worse than a restart.
            log::error!("internal error in the queue manager; the server ends, its mail is safe");
            std::process::exit(exit::SOFTWARE.into());
        }
        drop(at_end);
    })?;

    let listener = wake::Listener::open(&settings.server.spool)?;
    let wishes = orders.clone();
    spawn("wake", move || listener.run(&wishes))?;

    let slots = Slots::new(settings.server.max_sessions, settings.server.max_sessions_per_client);
    let is_stopping = AtomicBool::new(false);
    let queue_runs = QueueRuns::new(orders.clone());
    let threads = SessionThreads::default();
    let logins = Logins::new(&settings);
    let reception = Reception {
        settings,
        spool,
        router,
        logins,
        certificates,
        intake,
        queue_runs,
        threads,
        slots,
        at_work: AtWork::default(),
        is_stopping,
    };
    let reception = Arc::new(reception);
    for at in 0..listeners.len() {
        let (listeners, reception) = (Arc::clone(&listeners), Arc::clone(&reception));
        spawn("listener", move || listeners[at].run(&reception))?;
    }
    match Pickup::new(&reception) {
        Ok(pickup) => spawn("pickup", move || pickup.run())?,
        Err(error) => log::error!(
            "{error}; what sendmail is given while no server runs is refused: remove the folder, or \
             give it to the server's account"
        ),
    }
    let service = Arc::new(service);
    if let Some(interval) = service.watchdog() {
        let watchdog = Watchdog {
            service: Arc::clone(&service),
            interval,
            orders: orders.clone(),
            answers,
            listeners: Arc::clone(&listeners),
            reception: Arc::clone(&reception),
        };
        spawn("watchdog", move || watchdog.run())?;
    }
    Ok(Server { service, reception, listeners, requests, orders, manager_end })
}

/// What writes mailboxes, and answers for those who are away.
fn local_delivery(
    settings: &Arc<Settings>,
    router: &Arc<LocalRouter>,
    spool: &Arc<Spool>,
    intake: &Intake,
) -> LocalDelivery {
    let delivery = LocalDelivery::new(settings, Arc::clone(router));
    if !settings.local.vacation {
        return delivery;
    }
    let post = Post::new(Arc::clone(spool), intake.clone());
    delivery.with_vacation(Vacation::new(Arc::clone(settings), Arc::clone(router), post))
}

impl Server {
    /// How it is, in words.
    fn status(&self) -> String {
        let addresses: Vec<_> = self.listeners.iter().map(BoundListener::address).collect();
        format!("Taking mail on {}", addresses.join(", "))
    }

    /// Waits for signals until one says stop, then ends in order.
    fn run(&mut self) {
        loop {
            match self.requests.wait() {
                Request::Stop => break,
                Request::RetryQueue => {
                    log::info!("told to try the whole queue now");
                    let _ = self.orders.send(Order::RetryAll);
                }
                Request::Reload => {
                    self.service.reloading();
                    log::warn!(
                        "told to read the certificate again; aliases and users are whenever they change; the configuration needs a restart"
                    );
                    self.reception.certificates.reload();
                    self.service.ready(&self.status());
                }
            }
        }
        log::info!("stopping; {} sessions open", self.reception.slots.open());
        let Reception { settings, at_work, is_stopping, .. } = &*self.reception;
        self.service.stopping(settings.queue.direct + LAST_WORDS + 2 * STOP_PATIENCE);
        is_stopping.store(true, Ordering::Relaxed);
        // From here on clients wait for the next server, if the sockets live on.
        self.listeners.iter().for_each(BoundListener::ring);
        // What has come whole is delivered or stored, and its client told.
        if !at_work.close(settings.queue.direct + LAST_WORDS) {
            log::warn!("stopped in the middle of messages; their clients will send them again");
        }
        // One that hangs on its disk takes no orders, either.
        let _ = self.orders.send_timeout(Order::Stop, STOP_PATIENCE);
        // Disconnected is how the end of the manager shows.
        if self.manager_end.recv_timeout(STOP_PATIENCE)
            == Err(crossbeam_channel::RecvTimeoutError::Timeout)
        {
            log::warn!(
                "stopped in the middle of deliveries; they are tried again at the next start"
            );
            command::end_all();
        }
    }
}

/// Starts the thread that tells the queue manager when there may be a network again.
fn watch_network(orders: Sender<Order>) -> io::Result<()> {
    let mut watch = NetworkWatch::new()?;
    spawn("network", move || {
        while let Ok(()) = watch.wait() {
            // Waits for a busy manager: it would not learn of this network again.
            if orders.send(Order::RetryForNetwork).is_err() {
                return;
            }
        }
        log::warn!("the kernel no longer tells of the network");
    })
}

fn bind(settings: &Settings, inherited: &mut Inherited) -> io::Result<Arc<[BoundListener]>> {
    let timeout = settings.server.session_timeout;
    let mut listeners = Vec::new();
    for listener in &settings.listeners {
        listeners.extend(BoundListener::take_or_bind(listener, timeout, inherited)?);
    }
    if let Some(path) = &settings.server.socket {
        listeners.push(BoundListener::take_or_bind_submission_socket(path, inherited)?);
    }
    Ok(listeners.into())
}

/// Has our own sockets kept for the next run, and closes what was inherited and is not used.
fn settle_sockets(service: &ServiceManager, listeners: &[BoundListener], inherited: Inherited) {
    inherited.close(
        |name, socket| {
            log::warn!(
                "systemd has handed over {socket} ({name}), which no listener uses; clients that \
                 connect there wait in vain: give a [listen.NAME] that address, or systemd:{name}, or \
                 stop the socket unit"
            );
        },
        |name| service.forget(name),
    );
    for listener in listeners.iter().filter(|it| it.origin() == Origin::Own) {
        if let Some(name) = name_to_keep(&listener.address()) {
            service.keep(&name, listener.as_fd());
        }
    }
}

fn log_addresses(listeners: &[BoundListener]) {
    for listener in listeners {
        let from = match listener.origin() {
            Origin::Own => "",
            Origin::Kept => ", kept since the last run",
            Origin::Systemd => ", a socket of systemd",
        };
        let Some(address) = listener.local_address() else { continue };
        log::info!("listening on {address} [listen.{}]{from}", listener.name());
    }
}

/// Becomes the server's account, which first gets the folders that it writes.
fn drop_privileges(settings: &Settings) -> io::Result<()> {
    let server = &settings.server;
    if rustix::process::geteuid().is_root()
        && let Some(account) = users::by_name(&server.user)?
    {
        make_folder_for(&server.spool, account.uid, account.gid)?;
        // Without it there is no certificate of our own, but mail flows.
        if let Err(error) = make_or_take_folder_for(&server.state, account.uid, account.gid) {
            log::error!("{error}; name a folder in [server] state that {} can write", account.name);
        }
    }
    match identity::drop_privileges(&server.user)? {
        Privileges::Lent => log::debug!("not started as root, but given the right to deliver mail"),
        Privileges::Ordinary => {
            log::debug!("not started as root: mailboxes of other accounts cannot be written")
        }
        Privileges::Root => log::warn!("running as root, as [server] user says"),
        Privileges::Dropped(account) => log::debug!("running as {}", account.name),
    }
    Ok(())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).stack_size(STACK).spawn(work).map(drop)
}
