//! What commands call: each waits until it is done, and stops once `interrupted` is set. Nothing here depends on a
//! type of the caller, so that all of it is compiled once, with this crate.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use brisk::HubProgress;

use crate::drive::drive;
use crate::error::Result;
use crate::queue::{Dead, Queue, QueueOptions};
use crate::run::{RunOptions, Tally};
use crate::status::Status;
use crate::submit::{SubmitOptions, Submitted};
use crate::worker::WorkOptions;

/// How brisk names itself to a queue when it is no worker.
const NAME: &str = "brisk-batch";

/// Hears how far a batch is.
pub type Told<'a> = &'a mut dyn FnMut(&Tally);

/// What submitting gave to the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The batch's id.
    pub batch: String,
    /// Requests that the queue was given.
    pub given: usize,
    /// Requests of the file.
    pub total: usize,
}

/// The jobs that nobody carries out any more.
#[derive(Debug)]
pub struct DeadJobs {
    /// They, with their numbers in the queue.
    pub jobs: Vec<(u64, Dead)>,
    /// How many may try again, where they were to.
    pub revived: Option<usize>,
}

/// Makes what a file asks for and is not there yet, on this machine, and writes `results.jsonl` (with `--shard`,
/// `results-i-of-n.jsonl`) in the order of the file. `told` hears of every request that is done.
///
/// # Errors
/// A file, models or a place that do not work; a place that is full; [`Error::Stopped`](crate::Error::Stopped).
pub fn run(
    options: &RunOptions,
    progress: &dyn HubProgress,
    interrupted: Arc<AtomicBool>,
    told: Told<'_>,
) -> Result<Tally> {
    drive(interrupted, |stop| async move {
        crate::run::run(options, progress, &stop, told).await
    })
}

/// Gives the queue what has no results yet; what an earlier submission left in the queue is not given twice. `given`
/// hears of that at once. Where there is somebody to be `told`, then waits as [`wait`] does.
///
/// # Errors
/// A file, a queue or a place that do not work; no worker for a model; those of [`wait`].
pub fn submit(
    options: &SubmitOptions,
    interrupted: Arc<AtomicBool>,
    given: &mut dyn FnMut(&Given),
    told: Option<Told<'_>>,
) -> Result<(Given, Option<Tally>)> {
    drive(interrupted, |stop| async move {
        let submitted = crate::submit::submit(options, &stop).await?;
        let done = Given {
            batch: submitted.id.clone(),
            given: submitted.given,
            total: submitted.input.entries.len(),
        };
        given(&done);
        let tally = match told {
            Some(told) => Some(crate::wait::wait(&submitted, &stop, told).await?),
            None => None,
        };
        Ok((done, tally))
    })
}

/// Waits until every request of a batch has its results or will have none; submits what is missing again, up to three
/// times in a row without anything coming of it. Then writes `results.jsonl`, in the order of the file, which is
/// `file` or where it was when it was submitted.
///
/// # Errors
/// There is no such batch, its file is another one now, the place cannot be written, the batch was cancelled, or
/// [`Error::Stopped`](crate::Error::Stopped). A queue that is away is waited for.
pub fn wait(
    queue: &QueueOptions,
    batch: &str,
    file: Option<&PathBuf>,
    interrupted: Arc<AtomicBool>,
    told: Told<'_>,
) -> Result<Tally> {
    drive(interrupted, |stop| async move {
        let queue = Queue::connect(queue, NAME).await?;
        let submitted = Submitted::find(queue, batch, file).await?;
        crate::wait::wait(&submitted, &stop, told).await
    })
}

/// How far a batch is.
///
/// # Errors
/// The queue does not work, or has no such batch.
pub fn status(queue: &QueueOptions, batch: &str, interrupted: Arc<AtomicBool>) -> Result<Status> {
    drive(interrupted, |_| async move {
        let queue = Queue::connect(queue, NAME).await?;
        crate::status::status(&queue, batch).await
    })
}

/// Says that nobody wants a batch any more; submitting its file again takes that back.
///
/// # Errors
/// The queue does not work, or has no such batch.
pub fn cancel(queue: &QueueOptions, batch: &str, interrupted: Arc<AtomicBool>) -> Result<()> {
    drive(interrupted, |_| async move {
        let queue = Queue::connect(queue, NAME).await?;
        crate::status::cancel(&queue, batch).await
    })
}

/// The jobs that nobody carries out any more, of one batch or of all; where they are to be `revived`, they may try
/// again.
///
/// # Errors
/// The queue does not work.
pub fn dead(
    queue: &QueueOptions,
    batch: Option<&str>,
    revived: bool,
    interrupted: Arc<AtomicBool>,
) -> Result<DeadJobs> {
    drive(interrupted, |_| async move {
        let queue = Queue::connect(queue, NAME).await?;
        let jobs = crate::status::dead(&queue, batch).await?;
        let revived = match revived {
            true => Some(crate::status::revive(&queue, &jobs).await?),
            false => None,
        };
        Ok(DeadJobs { jobs, revived })
    })
}

/// Carries out what waits in a queue until it is interrupted; then what runs is finished or handed back. `ready` hears
/// the worker's name and its models.
///
/// # Errors
/// Models or a queue that do not work. A queue that goes away later is waited for.
pub fn work(
    options: &WorkOptions,
    progress: &dyn HubProgress,
    interrupted: Arc<AtomicBool>,
    ready: &mut dyn FnMut(&str, &[String]),
) -> Result<()> {
    drive(interrupted, |stop| async move {
        crate::worker::work(options, progress, &stop, ready).await
    })
}
