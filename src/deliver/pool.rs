//! The fixed pool: threads that take jobs from a lane's channel and give back reports.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::deliver::job::{Job, Report};
use crate::deliver::outcome::{Failure, Outcome};
use crate::mail::status::Status;

/// How often a thread without work looks after what it keeps open.
const IDLE_PERIOD: Duration = Duration::from_secs(5);
/// The stack of a delivery thread. Only the pages that are touched cost memory.
const WORKER_STACK: usize = 512 << 10;

/// What a lane does with its jobs.
pub trait Deliver: Send + Sync + 'static {
    /// Tries `job` and returns exactly one outcome for each of its recipients.
    fn deliver(&self, job: &Job) -> Vec<(usize, Outcome)>;

    /// Called every few seconds while there is no job.
    fn rest(&self) {}
}

/// Starts `workers` threads that serve `jobs` until its sender is gone.
///
/// # Errors
/// When a thread cannot be started.
pub fn start(
    name: &str,
    workers: usize,
    lane: &Arc<impl Deliver>,
    jobs: &Receiver<Job>,
    reports: &Sender<Report>,
) -> io::Result<()> {
    for _ in 0..workers {
        let (lane, jobs, reports) = (Arc::clone(lane), jobs.clone(), reports.clone());
        let thread = thread::Builder::new().name(name.into()).stack_size(WORKER_STACK);
        thread.spawn(move || work(&*lane, &jobs, &reports))?;
    }
    Ok(())
}

fn work(lane: &impl Deliver, jobs: &Receiver<Job>, reports: &Sender<Report>) {
    loop {
        match jobs.recv_timeout(IDLE_PERIOD) {
            Ok(job) => {
                if reports.send(attempt(lane, &job)).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if catch_unwind(AssertUnwindSafe(|| lane.rest())).is_err() {
                    log::error!("internal error in a delivery thread without work");
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Tries a job. A panic ends the job, not the thread: its recipients are deferred.
fn attempt(lane: &impl Deliver, job: &Job) -> Report {
    let id = job.message.envelope().id;
    let outcomes = catch_unwind(AssertUnwindSafe(|| lane.deliver(job))).unwrap_or_else(|_| {
        log::error!("{id}: internal error while delivering; tried again later");
        let failure = Failure::new(Status::new(4, 3, 0), "internal error, see the log");
        let deferred = |recipient: usize| (recipient, Outcome::Deferred(failure.clone()));
        job.recipients.iter().map(|recipient| deferred(recipient.index)).collect()
    });
    Report { id, next_hop: job.next_hop.clone(), outcomes }
}
