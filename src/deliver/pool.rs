//! The fixed pool: threads that take jobs from a lane's channel and give back reports.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, never, select};

use crate::deliver::job::{Job, Report};
use crate::deliver::outcome::{Failure, Outcome};
use crate::mail::status::Status;

/// How often a thread without work looks after what its lane keeps open.
const IDLE_PERIOD: Duration = Duration::from_secs(5);
/// The stack of a delivery thread. Only the pages that are touched cost memory.
const WORKER_STACK: usize = 512 << 10;

/// What a lane does with its jobs.
pub trait Deliver: Send + Sync + 'static {
    /// Tries `job` and returns exactly one outcome for each of its recipients.
    fn deliver(&self, job: &Job) -> Vec<(usize, Outcome)>;

    /// Called at the start, a few seconds after a job when no other came, and again as long as it returns
    /// that there is something left to look after.
    fn rest(&self) -> bool {
        false
    }
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
    // A host without mail is left asleep: nothing wakes a thread that has nothing to look after.
    // There is something at once where other threads have kept it open for the lane before this.
    let mut is_wanted = rest(lane);
    loop {
        let patience = if is_wanted { after(IDLE_PERIOD) } else { never() };
        // `recv` would spin and yield for a while before it waits.
        let job = select! {
            recv(jobs) -> job => job,
            recv(patience) -> _ => {
                is_wanted = rest(lane);
                continue;
            }
        };
        let Ok(job) = job else { return };
        if reports.send(attempt(lane, &job)).is_err() {
            return;
        }
        is_wanted = true;
    }
}

/// Lets the lane look after what it keeps. A panic ends that, not the thread.
fn rest(lane: &impl Deliver) -> bool {
    catch_unwind(AssertUnwindSafe(|| lane.rest())).unwrap_or_else(|_| {
        log::error!("internal error in a delivery thread without work");
        true
    })
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
