//! The sockets that sessions come in by, each with a thread that accepts. From one configuration to
//! the next a socket stays open where its address does, so that nobody finds it closed for a moment.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};

use super::start::spawn;
use crate::config::settings::{ListenAddress, Listener, Settings};
use crate::receive::Reception;
use crate::receive::listener::{BoundListener, submission_settings};
use crate::receive::terms::{Current, Terms};
use crate::sys::identity::Identity;

/// All of them.
pub(super) struct Listeners {
    doors: Vec<Arc<Door>>,
}

/// A socket, and what goes for who comes in by it.
struct Door {
    listener: BoundListener,
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

/// Binds all addresses of the settings.
///
/// # Errors
/// The first that cannot be bound; the text names it and what to do.
pub(super) fn bind_all(settings: &Settings) -> io::Result<Bound> {
    let timeout = settings.server.session_timeout;
    let bind = |listener: Listener| Ok((BoundListener::bind(&listener, timeout)?, listener));
    wanted(settings).map(bind).collect::<io::Result<_>>().map(Bound)
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
    if let Some(address) = bound.local_address() {
        log::info!("listening on {address} [listen.{}]", listener.name);
    }
}

impl Listeners {
    /// Lets sessions begin by these sockets.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(super) fn open(bound: Bound, reception: &Arc<Reception>) -> io::Result<Self> {
        let mut doors = Vec::new();
        for (listener, settings) in bound.0 {
            let door = Door::new(listener, terms(reception, settings));
            let at_work = Arc::clone(&door);
            spawn("listener", move || at_work.listener.run(&at_work.terms))?;
            doors.push(door);
        }
        Ok(Self { doors })
    }

    /// Where sessions over TCP are accepted, each as `127.0.0.1:25 [listen.smtp]`.
    pub(super) fn in_words(&self) -> Vec<String> {
        let words = self.doors.iter().filter_map(|door| {
            let address = door.listener.local_address()?;
            Some(format!("{address} [listen.{}]", door.terms.get().listener.name))
        });
        words.collect()
    }

    /// The first TCP address where sessions are accepted.
    pub(super) fn first_address(&self) -> Option<SocketAddr> {
        self.doors.iter().find_map(|door| door.listener.local_address())
    }

    /// Binds what `reception` has new, as the account that the server was started by where it still
    /// may.
    ///
    /// # Errors
    /// The first address that cannot be bound, or a thread that cannot be started. Then nothing is
    /// left of what was new.
    pub(super) fn plan(&self, reception: &Arc<Reception>) -> io::Result<Plan> {
        let mut plan = Plan { kept: Vec::new(), added: Vec::new() };
        let mut free: Vec<_> = self.doors.iter().collect();
        let mut unknown = Vec::new();
        for listener in wanted(&reception.settings) {
            match place_of(&listener, &free) {
                Some(place) => {
                    let door = Arc::clone(free.swap_remove(place));
                    plan.kept.push((door, terms(reception, listener)));
                }
                None => unknown.push(listener),
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
        let before = std::mem::take(&mut self.doors);
        for (door, terms) in kept {
            let timeout = terms.reception.settings.server.session_timeout;
            if let Err(error) = door.listener.set_write_timeout(timeout) {
                log::warn!("[server] session_timeout counts in part only: {error}");
            }
            door.terms.set(terms);
            self.doors.push(door);
        }
        for (door, go) in added {
            log_address(&door.listener, &door.terms.get().listener);
            // The thread waits for it, and for nothing else.
            let _ = go.send(());
            self.doors.push(door);
        }
        for door in before {
            if !self.doors.iter().any(|kept| Arc::ptr_eq(kept, &door)) {
                door.close();
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
    fn close(&self) {
        self.remove_file();
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

/// Which of the sockets this listener goes on with: one of its address, and where there are several,
/// as with port 0, that of its name.
fn place_of(listener: &Listener, doors: &[&Arc<Door>]) -> Option<usize> {
    let is_its = |door: &Door| door.terms.get().listener.address == listener.address;
    let same = |door: &Door| is_its(door) && door.terms.get().listener.name == listener.name;
    let is_any = matches!(listener.address, ListenAddress::Tcp(address) if address.port() == 0);
    let by_name = doors.iter().position(|door| same(door));
    by_name.or_else(|| doors.iter().position(|door| !is_any && is_its(door)))
}

/// Does this with the rights on files that the server was started with, where it still may take them.
fn as_at_the_start<T>(act: impl FnOnce() -> T) -> T {
    let _guard = Identity::root().assume();
    act()
}
