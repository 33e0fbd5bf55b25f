//! The first room: sockets, session threads, and the policy that says yes or no.

pub mod at_work;
pub mod held_header;
pub mod listener;
pub mod logins;
pub mod message;
pub mod peer;
pub mod pickup;
pub mod policy;
pub mod provenance;
pub mod queue_runs;
mod refusal;
pub mod session;
pub mod slots;
pub mod stream;
pub mod terms;
pub mod threads;
pub mod tls;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::config::settings::Settings;
use crate::receive::at_work::AtWork;
use crate::receive::logins::Logins;
use crate::receive::queue_runs::QueueRuns;
use crate::receive::slots::Slots;
use crate::receive::threads::SessionThreads;
use crate::receive::tls::Certificates;
use crate::route::local::LocalRouter;
use crate::spool::manager::Intake;
use crate::spool::store::Spool;
use crate::sys::bell::Bell;

/// What the sessions share that began under one configuration. What stands behind `spool` is the
/// same for all configurations that a process has had.
#[derive(Clone, Debug)]
pub struct Reception {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// Who has a mailbox.
    pub router: Arc<LocalRouter>,
    /// Who may log in.
    pub logins: Arc<Logins>,
    /// The certificate of the listeners with TLS.
    pub certificates: Arc<Certificates>,
    /// Where messages are kept.
    pub spool: Arc<Spool>,
    /// Where kept messages are announced.
    pub intake: Intake,
    /// Where clients have the queue tried.
    pub queue_runs: Arc<QueueRuns>,
    /// Their threads.
    pub threads: SessionThreads,
    /// How many sessions there are.
    pub slots: Arc<Slots>,
    /// Who is just taking a message.
    pub at_work: Arc<AtWork>,
    /// Who waits for a command, or has just heard the bell.
    pub at_rest: Arc<AtWork>,
    /// Set when the server is about to stop: sessions end with 421 at their next command.
    pub is_stopping: Arc<AtomicBool>,
    /// Rung then, for sessions whose clients say nothing.
    pub last_bell: Arc<Bell>,
}
