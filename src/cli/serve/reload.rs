//! SIGHUP: the configuration is read again, and taken as a whole or not at all. Up to the moment in
//! which the queue manager takes it, nothing has changed; from there on nothing can fail.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::changes;
use super::generation::Channels;
use super::{Live, Server, VERSION};
use crate::cli::check::findings::Findings;
use crate::cli::check::{aliases, rewrite, secrets, smarthost, users};
use crate::cli::host_names;
use crate::config;
use crate::config::settings::Settings;
use crate::report::{events, log_format};
use crate::sys::identity::Identity;
use crate::sys::process;

/// The stack of the thread that reads it.
const STACK: usize = 1 << 20;
/// How long the queue manager may be busy with something else.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often somebody looks, while it is read, whether the server is told to stop.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// What keeps a configuration from being taken: a line for each mistake.
type Mistakes = Vec<String>;

impl Server {
    /// Reads the configuration again, and says in the log what came of it.
    pub(super) fn reload(&mut self) {
        self.milestones.reload_begins();
        let Some(outcome) = self.read_and_take() else { return };
        let outcome = outcome.map(|(live, changes)| {
            self.live = live;
            changes
        });
        self.milestones.reload_ended(&outcome, &self.live.listeners.addresses());
        process::trim_memory();
    }

    /// Goes on with what the file says now, and gives in words what has changed; `None` when the
    /// server is told to stop meanwhile.
    fn read_and_take(&mut self) -> Option<Result<(Live, String), Mistakes>> {
        let (config, live) = (self.config.clone(), self.live.clone());
        let before = Arc::clone(&live.generation.reception.settings);
        match self.apart(move || read_again(&config, &before))? {
            // In another thread, which has the identity of the server from its beginning.
            Ok(settings) => self.apart(move || live.take_changes(settings)),
            Err(mistakes) => Some(Err(mistakes)),
        }
    }

    /// Does this in a thread of its own, a panic in which ends nothing else. It is left behind where
    /// it hangs, as on a directory of accounts or a network's disk that does not answer: `None` when
    /// the server is told to stop meanwhile.
    fn apart<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> Result<T, Mistakes> + Send + 'static,
    ) -> Option<Result<T, Mistakes>> {
        let (done, outcome) = bounded(1);
        let thread = thread::Builder::new().name("reload".into()).stack_size(STACK);
        // Nobody waits for it any more, perhaps.
        let working = thread.spawn(move || drop(done.send(work())));
        if let Err(error) = working {
            return Some(Err(vec![format!("no thread to read the configuration: {error}")]));
        }
        loop {
            match outcome.recv_timeout(LOOK_PAUSE) {
                Ok(outcome) => return Some(outcome),
                Err(RecvTimeoutError::Disconnected) => return Some(Err(vec![panicked()])),
                Err(RecvTimeoutError::Timeout) if self.requests.has_stop() => {
                    log::warn!("told to stop while the configuration is read, which takes long");
                    return None;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Live {
    /// Goes on with what is different in these settings, and gives it in words.
    fn take_changes(mut self, settings: Settings) -> Result<(Self, String), Mistakes> {
        let before = self.generation.settings();
        let changes = changes::in_words(before, &settings);
        match *before == settings {
            true => self.generation.reception.certificates.reload(),
            false => self.take(settings)?,
        }
        Ok((self, changes))
    }

    /// Goes on with other settings.
    fn take(&mut self, settings: Settings) -> Result<(), Mistakes> {
        let channels = Channels::new(&settings.queue);
        let next = self.generation.next(settings, &channels).map_err(|text| vec![text])?;
        let start = next.start_pools(&channels, &self.reports);
        start.map_err(|error| vec![format!("no threads for the pools of [queue]: {error}")])?;
        let plan = self.listeners.plan(&next.reception).map_err(|error| vec![error.to_string()])?;
        let succession = self.generation.succession(&next, channels);
        if self.successions.send_timeout(succession, PATIENCE).is_err() {
            plan.discard();
            let text = "the queue manager takes no orders now, perhaps since the disk of the spool \
                        hangs";
            return Err(vec![text.to_owned()]);
        }
        next.take_over();
        let reception = Arc::clone(&next.reception);
        self.listeners.follow(plan);
        self.current.set(Arc::clone(&reception));
        // One that was kept is looked at again; a new one is announced, or made if it is our own.
        match Arc::ptr_eq(&reception.certificates, &self.generation.reception.certificates) {
            true => reception.certificates.reload(),
            false => reception.certificates.prepare(),
        }
        self.longest_direct = self.longest_direct.max(reception.settings.queue.direct);
        log_format::set_level(reception.settings.log_level);
        if let Err(error) = events::configure(&reception.settings) {
            log::error!("no thread for the journal of events: {error}");
        }
        if let Some(record) = &self.record
            && let Err(error) = record.renew(VERSION, &self.listeners.in_words())
        {
            log::warn!("status does not know the new listeners: {error}");
        }
        self.generation = next;
        Ok(())
    }
}

/// The configuration as it is in its file now, where it can take the place of the one `before`.
fn read_again(config: &Path, before: &Settings) -> Result<Settings, Mistakes> {
    let settings = read(config)?;
    if *before != settings {
        check_lasting(before, &settings, config)?;
        check_files(before, &settings, config)?;
    }
    Ok(settings)
}

fn panicked() -> String {
    "internal error while the configuration was read".to_owned()
}

/// Reads the file, as whoever started the server where that is still possible: it may hold a
/// password, and be root's alone.
fn read(path: &Path) -> Result<Settings, Mistakes> {
    let _guard = Identity::root().assume();
    let settings = config::load(path, host_names());
    settings.map_err(|error| error.to_string().lines().map(str::to_owned).collect())
}

/// Sees that nothing has changed that a running process cannot change: as whom it runs, where the
/// queue and the state are that it has open, and who takes its log.
fn check_lasting(before: &Settings, after: &Settings, config: &Path) -> Result<(), Mistakes> {
    let (one, other) = (&before.server, &after.server);
    let changed = [
        ("[server] user", one.user != other.user),
        ("[server] spool", one.spool != other.spool),
        ("[server] state", one.state != other.state),
        ("[log] to", before.log_to != after.log_to),
    ];
    let keys = changed.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key);
    let mistakes: Vec<_> = keys
        .map(|key| {
            format!(
                "{}: {key} is another one, which takes a restart; restart the server, or \
                 set it back",
                config.display()
            )
        })
        .collect();
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}

/// Looks into the files of sections that have changed. One of a section that is as it was may be
/// wrong by now, but the last version that was right still counts.
fn check_files(before: &Settings, after: &Settings, config: &Path) -> Result<(), Mistakes> {
    let mut findings = Findings::default();
    let has_new_domains = before.server.domains != after.server.domains;
    if has_new_domains || before.local != after.local || before.domains != after.domains {
        aliases::look(after, &mut findings);
    }
    if before.auth != after.auth {
        users::look(after, &mut findings);
    }
    if before.rewrite != after.rewrite {
        rewrite::look(after, config, &mut findings);
    }
    if before.smarthost != after.smarthost {
        smarthost::look(after, config, &mut findings);
        secrets::look(config, after, &mut findings);
    }
    let mistakes: Vec<_> = findings.mistakes().map(ToString::to_string).collect();
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}
