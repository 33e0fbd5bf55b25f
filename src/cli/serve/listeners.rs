//! The sockets that sessions come in by, each with a thread that accepts. From one configuration to
//! the next a socket stays open where its address does, so that nobody finds it closed for a moment.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};

use super::start::spawn;
use crate::config::settings::{ListenAddress, Listener, Settings};
use crate::receive::Reception;
use crate::receive::listener::{BoundListener, Origin, submission_settings};
use crate::receive::terms::{Current, Terms};
use crate::sys::identity::Identity;
use crate::sys::systemd::ServiceManager;
use crate::sys::systemd::sockets::{Inherited, name_to_keep};

/// All of them.
#[derive(Clone)]
pub(super) struct Listeners {
    doors: Arc<Current<Doors>>,
    /// Who keeps our sockets beyond our end, so that clients can wait for the next server.
    service: Arc<ServiceManager>,
}

/// The doors of the moment.
pub(super) type Doors = Vec<Arc<Door>>;

/// A socket, and what goes for who comes in by it.
pub(super) struct Door {
    pub(super) listener: BoundListener,
    terms: Current<Terms>,
}

/// Sockets that are bound, and their settings.
pub(super) struct Bound(Vec<(BoundListener, Listener)>);

/// What the listeners are to become: it is certain that they can, and nothing has happened yet.
pub(super) struct Plan {
    /// Those that stay, with what goes for them from then on.
    kept: Vec<(Arc<Door>, Terms)>,
    /// New ones, whose threads wait for a word.
    added: Vec<(Arc<Door>, Sender<()>)>,
}

/// Takes the sockets that were `inherited`, and binds those addresses of the settings that none of
/// them has. What is ours is kept for the next run, and what nobody wants is closed.
///
/// # Errors
/// The first that cannot be bound; the text names it and what to do.
pub(super) fn bind_all(
    settings: &Settings,
    mut inherited: Inherited,
    service: &ServiceManager,
) -> io::Result<Bound> {
    let timeout = settings.server.session_timeout;
    let mut all = Vec::new();
    for listener in wanted(settings) {
        for bound in BoundListener::take_or_bind(&listener, timeout, &mut inherited)? {
            let listener = bound.suited(listener.clone());
            all.push((bound, listener));
        }
    }
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
    all.iter().for_each(|(bound, _)| keep(service, bound));
    Ok(Bound(all))
}

/// Has a socket of our own kept for the next run.
fn keep(service: &ServiceManager, listener: &BoundListener) {
    if listener.origin() == Origin::Own
        && let Some(name) = name_to_keep(&listener.address())
    {
        service.keep(&name, listener.as_fd());
    }
}

/// Each listener that the settings want: their sections, and the socket where `sendmail` submits,
/// open to every account of this host.
fn wanted(settings: &Settings) -> impl Iterator<Item = Listener> {
    let submission = settings.server.socket.as_deref().map(submission_settings);
    settings.listeners.iter().cloned().chain(submission)
}

impl Bound {
    /// Says in the log where the server listens.
    pub(super) fn log_addresses(&self) {
        self.0.iter().for_each(|(bound, listener)| log_address(bound, listener));
    }
}

fn log_address(bound: &BoundListener, listener: &Listener) {
    let from = match bound.origin() {
        Origin::Own => "",
        Origin::Kept => ", kept since the last run",
        Origin::Systemd => ", a socket of systemd",
    };
    if let Some(address) = bound.local_address() {
        log::info!("listening on {address} [listen.{}]{from}", listener.name);
    }
}

impl Listeners {
    /// Lets sessions begin by these sockets.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(super) fn open(
        bound: Bound,
        reception: &Arc<Reception>,
        service: Arc<ServiceManager>,
    ) -> io::Result<Self> {
        let mut doors = Vec::new();
        for (listener, settings) in bound.0 {
            let door = Door::new(listener, terms(reception, settings));
            let at_work = Arc::clone(&door);
            spawn("listener", move || at_work.listener.run(&at_work.terms))?;
            doors.push(door);
        }
        Ok(Self { doors: Arc::new(Current::new(doors)), service })
    }

    /// The doors of each moment, for those who watch over them.
    pub(super) fn doors(&self) -> Arc<Current<Doors>> {
        Arc::clone(&self.doors)
    }

    /// Where sessions are accepted, as a configuration writes it.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.doors.get().iter().map(|door| door.listener.address()).collect()
    }

    /// Has the threads see that the server stops. From here on clients wait for the next one, if the
    /// sockets live on.
    pub(super) fn stop(&self) {
        self.doors.get().iter().for_each(|door| door.listener.ring());
    }

    /// Where sessions over TCP are accepted, each as `127.0.0.1:25 [listen.smtp]`.
    pub(super) fn in_words(&self) -> Vec<String> {
        let words = |door: &Arc<Door>| {
            let address = door.listener.local_address()?;
            Some(format!("{address} [listen.{}]", door.terms.get().listener.name))
        };
        self.doors.get().iter().filter_map(words).collect()
    }

    /// The first TCP address where sessions are accepted.
    pub(super) fn first_address(&self) -> Option<SocketAddr> {
        self.doors.get().iter().find_map(|door| door.listener.local_address())
    }

    /// Binds what `reception` has new, as the account that the server was started by where it still
    /// may.
    ///
    /// # Errors
    /// The first address that cannot be bound, or a thread that cannot be started. Then nothing is
    /// left of what was new.
    pub(super) fn plan(&self, reception: &Arc<Reception>) -> io::Result<Plan> {
        let mut plan = Plan { kept: Vec::new(), added: Vec::new() };
        let doors = self.doors.get();
        let mut free: Vec<_> = doors.iter().collect();
        let mut unknown = Vec::new();
        for listener in wanted(&reception.settings) {
            let found = places_of(&listener, &mut free);
            if found.is_empty() {
                unknown.push(listener);
                continue;
            }
            for door in found {
                let listener = door.listener.suited(listener.clone());
                plan.kept.push((door, terms(reception, listener)));
            }
        }
        let leaving: Vec<_> = free.iter().map(|door| &door.listener).collect();
        for listener in unknown {
            if let Err(error) = plan.add(reception, listener, &leaving) {
                plan.discard();
                return Err(error);
            }
        }
        Ok(plan)
    }

    /// Does what was planned. Sessions under way go on, also by listeners that are no more.
    pub(super) fn follow(&mut self, plan: Plan) {
        let Plan { kept, added } = plan;
        let before = self.doors.get();
        let mut doors = Vec::new();
        for (door, terms) in kept {
            let timeout = terms.reception.settings.server.session_timeout;
            if let Err(error) = door.listener.set_write_timeout(timeout) {
                log::warn!("[server] session_timeout counts in part only: {error}");
            }
            door.terms.set(terms);
            doors.push(door);
        }
        for (door, go) in added {
            log_address(&door.listener, &door.terms.get().listener);
            // The thread waits for it, and for nothing else.
            let _ = go.send(());
            keep(&self.service, &door.listener);
            doors.push(door);
        }
        self.doors.set(doors.clone());
        for door in before {
            if !doors.iter().any(|kept| Arc::ptr_eq(kept, &door)) {
                door.close(&self.service);
            }
        }
    }
}

impl Plan {
    /// Binds one more, while those are still there that are `leaving`.
    fn add(
        &mut self,
        reception: &Arc<Reception>,
        listener: Listener,
        leaving: &[&BoundListener],
    ) -> io::Result<()> {
        let timeout = reception.settings.server.session_timeout;
        let bound = as_at_the_start(|| BoundListener::bind_beside(&listener, timeout, leaving))?;
        let door = Door::new(bound, terms(reception, listener));
        let (go, gate) = bounded::<()>(1);
        self.added.push((Arc::clone(&door), go));
        spawn("listener", move || {
            if gate.recv().is_ok() {
                door.listener.run(&door.terms);
            }
        })
    }

    /// Takes back what was bound.
    pub(super) fn discard(self) {
        for (door, _) in self.added {
            door.remove_file();
        }
    }
}

impl Door {
    fn new(listener: BoundListener, terms: Terms) -> Arc<Self> {
        Arc::new(Self { listener, terms: Current::new(terms) })
    }

    /// Accepts nobody any more.
    fn close(&self, service: &ServiceManager) {
        self.remove_file();
        match name_to_keep(&self.listener.address()) {
            Some(name) if self.listener.origin() != Origin::Systemd => service.forget(&name),
            _ => {}
        }
        if let Err(error) = self.listener.close(&self.terms) {
            log::error!("a listener cannot be closed, which a restart does: {error}");
        }
    }

    fn remove_file(&self) {
        if let Err(error) = as_at_the_start(|| self.listener.remove_file()) {
            log::info!("{error}; nobody listens there any more, remove it");
        }
    }
}

fn terms(reception: &Arc<Reception>, listener: Listener) -> Terms {
    Terms { reception: Arc::clone(reception), listener: Arc::new(listener) }
}

/// Takes the sockets that this listener goes on with out of those that are free: the one of its
/// address, and where there are several, as with port 0, that of its name; all that systemd has given
/// the name that it says.
fn places_of(listener: &Listener, free: &mut Vec<&Arc<Door>>) -> Vec<Arc<Door>> {
    let is_its = |door: &Door| door.terms.get().listener.address == listener.address;
    if matches!(listener.address, ListenAddress::Systemd(_)) {
        return free.extract_if(.., |door| is_its(door)).map(Arc::clone).collect();
    }
    let same = |door: &Door| is_its(door) && door.terms.get().listener.name == listener.name;
    let is_any = matches!(listener.address, ListenAddress::Tcp(address) if address.port() == 0);
    let by_name = free.iter().position(|door| same(door));
    let place = by_name.or_else(|| free.iter().position(|door| !is_any && is_its(door)));
    place.map(|place| Arc::clone(free.swap_remove(place))).into_iter().collect()
}

/// Does this with the rights on files that the server was started with, where it still may take them.
fn as_at_the_start<T>(act: impl FnOnce() -> T) -> T {
    let _guard = Identity::root().assume();
    act()
}
