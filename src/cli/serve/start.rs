//! The start: ports are bound as root, privileges dropped, threads started.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{self, Path};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded, unbounded};

use super::generation::{Channels, Generation};
use super::listeners::{Listeners, bind_all};
use super::milestones::Milestones;
use super::watchdog::Watchdog;
use super::{Live, Server, VERSION};
use crate::config::settings::Settings;
use crate::deliver::dispatch::Dispatcher;
use crate::deliver::relay::Relay;
use crate::receive::Reception;
use crate::receive::at_work::AtWork;
use crate::receive::logins::Logins;
use crate::receive::pickup::Pickup;
use crate::receive::queue_runs::QueueRuns;
use crate::receive::slots::Slots;
use crate::receive::terms::Current;
use crate::receive::threads::SessionThreads;
use crate::receive::tls::Certificates;
use crate::report::{events, station};
use crate::route::local::LocalRouter;
use crate::spool::manager::{Manager, Order};
use crate::spool::store::Spool;
use crate::spool::wake;
use crate::sys::bell::Bell;
use crate::sys::files::{make_folder_for, make_or_take_folder_for};
use crate::sys::identity::{self, Privileges};
use crate::sys::network::NetworkWatch;
use crate::sys::process::{self, exit};
use crate::sys::running::Record;
use crate::sys::signals::Requests;
use crate::sys::systemd::Beginnings;
use crate::sys::users;

/// The stack of the threads that are neither a session's nor a delivery's.
const STACK: usize = 256 << 10;
/// How often mail looks for a network where the kernel does not tell of one.
const UNWATCHED_NETWORK_PAUSE: Duration = Duration::from_secs(60);

/// Starts a server with the settings of the file `config`.
pub(super) fn start(
    settings: Settings,
    config: &Path,
    beginnings: Beginnings,
) -> io::Result<Server> {
    let Beginnings { service, inherited } = beginnings;
    let service = Arc::new(service);
    process::raise_file_limit();
    let config = path::absolute(config)?;
    let requests = Requests::new()?;
    let bound = bind_all(&settings, inherited, &service)?;
    let certificates = Arc::new(Certificates::new(&settings));
    drop_privileges(&settings)?;
    let settings = Arc::new(settings);
    let spool =
        Spool::open(&settings.server.spool).map_err(|error| with_remedy(error, &settings))?;
    bound.log_addresses();
    process::apart(|| certificates.prepare());
    let queued = spool.found()?;
    let router = Arc::new(LocalRouter::new(&settings));

    let queue = &settings.queue;
    let channels = Channels::new(queue);
    let (reports, results) = unbounded();
    let (orders, manager_orders) = bounded(16);
    let (successions, taken) = bounded(0);
    let relay = Relay::new(&settings).with_orders(orders.clone());
    process::release_start();
    events::configure(&settings)?;
    let [local_jobs, relay_jobs] = channels.senders();
    let pauses = queue.retry.clone();
    let mut dispatcher = Dispatcher::new(local_jobs, relay_jobs, queue.relay_workers, pauses);
    if let Err(error) = watch_network(orders.clone()) {
        log::info!("the kernel does not tell of the network, which is tried now and then: {error}");
        dispatcher = dispatcher.with_network_pause(UNWATCHED_NETWORK_PAUSE);
    }
    let (manager, intake) = Manager::new(Arc::clone(&settings), Arc::clone(&spool), dispatcher);
    let (answer, answers) = bounded(1);
    let manager = manager.with_successions(taken).with_answers(answer);
    let server = &settings.server;
    let reception = Reception {
        slots: Slots::new(server.max_sessions, server.max_sessions_per_client),
        logins: Arc::new(Logins::new(&settings)),
        settings: Arc::clone(&settings),
        router,
        certificates,
        spool,
        intake,
        queue_runs: Arc::new(QueueRuns::new(orders.clone())),
        threads: SessionThreads::default(),
        at_work: Arc::new(AtWork::default()),
        at_rest: Arc::new(AtWork::default()),
        is_stopping: Arc::new(AtomicBool::new(false)),
        last_bell: Arc::new(Bell::new()?),
    };
    let generation = Generation::first(reception, relay, &channels);
    generation.start_pools(&channels, &reports)?;
    // From here on it is the manager who has the senders.
    drop(channels);
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

    let listeners = Listeners::open(bound, &generation.reception, Arc::clone(&service))?;
    let current = Arc::new(Current::new(Arc::clone(&generation.reception)));
    match Pickup::new(Arc::clone(&current)) {
        Ok(pickup) => spawn("pickup", move || pickup.run())?,
        Err(error) => log::error!(
            "{error}; what sendmail is given while no server runs is refused: remove the folder, or \
             give it to the server's account"
        ),
    }
    if let Some(interval) = service.watchdog() {
        let watchdog = Watchdog {
            service: Arc::clone(&service),
            interval,
            orders: orders.clone(),
            answers,
            doors: listeners.doors(),
            reception: Arc::clone(&generation.reception),
        };
        spawn("watchdog", move || watchdog.run())?;
    }
    let record = announce(&listeners, &settings.server.state);
    Ok(Server {
        config,
        milestones: Milestones::new(service),
        live: Live {
            longest_direct: settings.queue.direct,
            generation,
            current,
            listeners,
            successions,
            reports,
            record: record.map(Arc::new),
        },
        requests,
        orders,
        manager_end,
    })
}

/// What lets the account have its spool, where the rights are what it lacks. Only root may make it in
/// the usual place.
fn with_remedy(error: io::Error, settings: &Settings) -> io::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let what =
                "run, as root: mailwren check --fix; or name another folder in [server] spool";
            match settings.server.user.as_str() {
                "root" => error,
                _ => io::Error::new(error.kind(), format!("{error}; {what}")),
            }
        }
        _ => error,
    }
}

/// Tells commands which process serves, and the journal that it does.
fn announce(listeners: &Listeners, state: &Path) -> Option<Record> {
    let record = Record::write(state, VERSION, &listeners.in_words());
    station::started();
    record
        .inspect_err(|error| {
            let path = state.join("server");
            log::warn!("{}: {error}; status cannot tell who serves", path.display());
        })
        .ok()
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

/// Starts a thread that is neither a session's nor a delivery's.
pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).stack_size(STACK).spawn(work).map(drop)
}
