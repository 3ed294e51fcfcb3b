//! A worker: takes jobs from the queue, carries them out as a server would, writes results, and tells of them.

mod batch;
mod fate;
mod live;
mod signs;
mod take;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::Message;
use brisk::{HubProgress, ResultKind};
use brisk_server::engine::{Engine, ModelInfo};
use brisk_server::fields::Endpoint;
use clap::Args;
use futures_util::future::join_all;
use tokio::sync::watch;

use crate::batch::Failure;
use crate::error::{Error, Result};
use crate::make::{Phase, Stop, stopped};
use crate::models::ModelOptions;
use crate::outputs::Outputs;
use crate::queue::{Job, Queue, QueueOptions};

pub(crate) use live::{ATTEMPT, KIND, NUMBER, OBJECT, Piece};

/// Longest wait between two looks at an empty queue.
const MOST_IDLE: Duration = Duration::from_millis(250);
/// How long the queue may take to hear that the worker is gone.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Live texts at the same time.
const LIVE_TEXTS: usize = 4;
/// Weight of the newest job in the mean seconds of a request.
const NEWEST: f64 = 0.3;

/// Options of `brisk work`.
#[derive(Debug, Args)]
pub struct WorkOptions {
    /// The queue.
    #[command(flatten)]
    pub queue: QueueOptions,

    /// The models.
    #[command(flatten)]
    pub models: ModelOptions,

    /// Write results below this place only (default: wherever a batch says)
    #[arg(long, value_name = "PLACE")]
    pub only_out: Option<String>,

    /// Seconds that running requests get when the worker is told to end; what takes longer is handed back
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    pub grace: u64,

    /// Seconds without a sign of life after which a job goes to another worker; the same for all workers
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub ack_wait: u64,
}

/// What the parts of a worker share.
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) queue: Queue,
    pub(crate) engine: Engine,
    pub(crate) models: Vec<ModelInfo>,
    ack_wait: Duration,
    only_out: Option<String>,
    /// Whether it takes work.
    pub(crate) stop: Stop,
    /// Batches and jobs that nobody wants any more; the number grows with them.
    cancelled: watch::Sender<std::collections::HashSet<String>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Why nothing is taken, and until when.
    resting: Option<(String, Instant)>,
    working: usize,
    done: u64,
    /// Mean seconds of a request, by slug.
    seconds: HashMap<String, f64>,
    places: HashMap<String, Outputs>,
}

/// Works until told to end; then what runs is finished or handed back.
///
/// # Errors
/// Models or a queue that do not work. A queue that goes away later is waited for.
pub async fn work(
    options: &WorkOptions,
    progress: &dyn HubProgress,
    interrupted: &Stop,
    ready: &mut dyn FnMut(&str, &[String]),
) -> Result<()> {
    let engine = Engine::start(options.models.settings(), progress)?;
    let name = name();
    let connecting = reach(&options.queue, &name);
    let queue = tokio::select! {
        queue = connecting => queue?,
        () = stopped(interrupted.clone()) => return Ok(()),
    };
    let (phase, stop) = watch::channel(Phase::Go);
    let models = engine.models();
    let worker = Arc::new(Worker {
        name: name.clone(),
        queue,
        engine,
        ack_wait: Duration::from_secs(options.ack_wait),
        only_out: options.only_out.as_deref().map(absolute),
        stop,
        cancelled: watch::Sender::default(),
        state: Mutex::default(),
        models,
    });
    let slugs: Vec<String> = worker
        .models
        .iter()
        .map(|model| model.slug.clone())
        .collect();
    ready(&name, &slugs);
    let signs = [
        tokio::spawn(Arc::clone(&worker).announce_always()),
        tokio::spawn(Arc::clone(&worker).hear_cancelled()),
        tokio::spawn(Arc::clone(&worker).hear_undeliverable()),
    ];
    // Pictures and texts go on beside each other, and texts share passes.
    let writes = |model: &ModelInfo| model.results == [ResultKind::Text];
    let (writing, drawing): (Vec<ModelInfo>, Vec<ModelInfo>) =
        worker.models.iter().cloned().partition(writes);
    let taking = async {
        tokio::join!(
            worker.take_batches(&drawing),
            worker.take_batches(&writing),
            worker.take_live(&drawing),
            join_all((0..LIVE_TEXTS).map(|_| worker.take_live(&writing))),
        )
    };
    tokio::pin!(taking);
    tokio::select! {
        _ = &mut taking => return Ok(()),
        () = stopped(interrupted.clone()) => {}
    }
    tracing::info!("ending: no more jobs are taken");
    let grace = Duration::from_secs(options.grace);
    phase.send_replace(Phase::Ending(Instant::now() + grace));
    taking.await;
    signs.iter().for_each(tokio::task::JoinHandle::abort);
    // A queue that is away finds out by itself.
    let last_words = async {
        worker.queue.leave(&worker.name).await;
        let _ = worker.queue.client.flush().await;
    };
    let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
    Ok(())
}

/// Reaches the queue, waiting until somebody starts one.
async fn reach(options: &QueueOptions, name: &str) -> Result<Queue> {
    let mut told = false;
    loop {
        match Queue::connect(options, name).await {
            Err(Error::Failed(message)) if message.starts_with("cannot reach") => {
                if !told {
                    tracing::warn!("{message}; waiting for it");
                    told = true;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            other => return other,
        }
    }
}

/// A name that no other worker has: host, process, and a few random digits.
fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let kept = |letter: char| match letter.is_ascii_alphanumeric() {
        true => letter,
        false => '-',
    };
    let host: String = host.trim().chars().map(kept).take(40).collect();
    let host = match host.is_empty() {
        true => "host",
        false => &host,
    };
    // A map's hasher is made of random numbers of the system.
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0u8);
    format!("{host}-{}-{:04x}", std::process::id(), random & 0xffff)
}

/// A folder's whole path, without ways up; an address as it is.
fn absolute(place: &str) -> String {
    match place.contains("://") {
        true => place.trim_end_matches('/').to_owned(),
        false => std::path::absolute(PathBuf::from(place))
            .unwrap_or_else(|_| place.into())
            .display()
            .to_string(),
    }
}

impl Worker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model of a slug.
    pub(crate) fn model(&self, slug: &str) -> Option<&ModelInfo> {
        self.models.iter().find(|model| model.slug == slug)
    }

    /// The job of a message; one that lay under the name of another model is none.
    fn read(&self, message: &Message) -> Result<(Job, Endpoint), Failure> {
        let (job, endpoint) = Job::read(&message.payload)?;
        match self.model(&job.model) {
            Some(_) => Ok((job, endpoint)),
            None => {
                let problem = format!(
                    "model: {} is not what the message is filed under",
                    job.model
                );
                Err(Failure::new("invalid_message", problem))
            }
        }
    }

    /// Whether it takes work.
    fn goes_on(&self) -> bool {
        *self.stop.borrow() == Phase::Go
    }

    /// The place that a job names.
    ///
    /// # Errors
    /// One that this worker does not write to.
    fn place(&self, out: &str) -> Result<Outputs> {
        if let Some(only) = &self.only_out {
            let below = out
                .strip_prefix(only.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if !below || out.split('/').any(|part| part == "..") {
                return Err(Error::Usage(format!(
                    "this worker writes below {only} only (--only-out)"
                )));
            }
        }
        if !out.contains("://") && !std::path::Path::new(out).is_absolute() {
            return Err(Error::Usage(
                "out: is no whole path and no address of a bucket".to_owned(),
            ));
        }
        let mut state = self.state();
        if let Some(known) = state.places.get(out) {
            return Ok(known.clone());
        }
        let place = Outputs::open(out)?;
        state.places.insert(out.to_owned(), place.clone());
        Ok(place)
    }

    /// Takes nothing for a while.
    fn rest(&self, why: String, how_long: Duration) {
        tracing::warn!(
            why,
            seconds = how_long.as_secs(),
            "taking no jobs for a while"
        );
        self.state().resting = Some((why, Instant::now() + how_long));
    }

    /// Time that is left of a rest.
    fn resting(&self) -> Option<Duration> {
        let mut state = self.state();
        let until = state.resting.as_ref().map(|(_, until)| *until)?;
        match until.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Some(left),
            _ => {
                state.resting = None;
                None
            }
        }
    }

    /// Takes in what a request of a model took.
    fn measured(&self, slug: &str, seconds: f64) {
        let mut state = self.state();
        state.done += 1;
        state
            .seconds
            .entry(slug.to_owned())
            .and_modify(|mean| *mean += NEWEST * (seconds - *mean))
            .or_insert(seconds);
    }

    /// Sleeps, unless told to end.
    async fn pause(&self, how_long: Duration) {
        tokio::select! {
            () = tokio::time::sleep(how_long) => {}
            () = stopped(self.stop.clone()) => {}
        }
    }
}
