//! The server's parts put together, and the ways from a request to a job.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use brisk::HubProgress;
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, watch};

use crate::ask::{Ask, Context};
use crate::compute::{Compute, Made};
use crate::error::{ApiError, Result, StartError};
use crate::fields::Endpoint;
use crate::finish;
use crate::job::{Job, Status};
use crate::kept::Kept;
use crate::metrics::Metrics;
use crate::queue::{Lane, Limits, Queue};
use crate::residents::Residents;
use crate::security::{Caller, Keys, Rates};
use crate::served::Models;
use crate::settings::{LONGEST_RUN, LONGEST_WAIT, Settings};
use crate::speed::Speeds;

/// Requests that are read at the same time. Of those with pictures, which are decoded there, it is one.
const READERS: usize = 2;
/// Bytes of large bodies that are there at the same time, until they are read.
const LARGE_BODIES: usize = 96 << 20;
/// Share of the free memory that is used unless told otherwise, in percent.
const MEMORY_SHARE: u64 = 80;

/// A server.
#[derive(Debug)]
pub struct App {
    /// What the operator decided.
    pub settings: Settings,
    /// The models.
    pub models: Arc<Models>,
    /// The jobs that wait.
    pub queue: Arc<Queue>,
    /// How fast models are.
    pub speeds: Arc<Speeds>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What outlives connections.
    pub kept: Kept,
    /// Who may use it, where not everybody may.
    pub keys: Option<Keys>,
    /// How often callers may ask.
    pub rates: Rates,
    /// Bytes that models and jobs may take together.
    pub memory: u64,
    /// The models in memory.
    pub residents: Arc<Residents>,
    /// Announces that some job changed.
    pub pulse: Arc<watch::Sender<u64>>,
    /// Room for large bodies, in bytes.
    pub large_bodies: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    picture_reader: Arc<Semaphore>,
    draining: AtomicBool,
}

/// A server whose threads do not run yet, what they work with, and where what they made comes out.
type Parts = (Arc<App>, Arc<Compute>, mpsc::Receiver<Made>);

impl App {
    /// Opens the models to plan with and starts the threads that compute.
    ///
    /// # Errors
    /// Settings or models that do not work.
    pub fn start(settings: Settings, progress: &dyn HubProgress) -> Result<Arc<Self>, StartError> {
        if let Some(folder) = &settings.save {
            prepare(folder)?;
        }
        let models = Models::open(&settings, progress)?;
        let (app, compute, receiver) = Self::put_together(settings, models)?;
        let preload: Vec<_> = app
            .settings
            .preload
            .iter()
            .filter_map(|id| app.models.named(id).cloned())
            .collect();
        for (lane, name) in [(Lane::Pictures, "pictures"), (Lane::Texts, "texts")] {
            let (compute, preload) = (Arc::clone(&compute), preload.clone());
            thread(name, move || compute.run(lane, &preload))?;
        }
        let (save, counted) = (app.settings.save.clone(), Arc::clone(&app.metrics));
        let release_memory = app.settings.release_memory();
        thread("finish", move || {
            finish::run(&receiver, save.as_deref(), &counted, release_memory);
        })?;
        Ok(app)
    }

    /// A server without models, whose requests are answered elsewhere.
    ///
    /// # Errors
    /// Settings that do not work.
    pub fn without_models(settings: Settings) -> Result<Arc<Self>, StartError> {
        let (app, _, _) = Self::put_together(settings, Models::none())?;
        Ok(app)
    }

    fn put_together(settings: Settings, models: Models) -> Result<Parts, StartError> {
        let keys = settings.api_key_file.as_deref().map(Keys::read).transpose();
        let keys = keys.map_err(StartError::Settings)?;
        if keys.is_none() && !settings.listen.ip().is_loopback() {
            return Err(StartError::Settings(format!(
                "--listen {} lets others in, which needs --api-key-file; or listen on 127.0.0.1",
                settings.listen
            )));
        }
        let models = Arc::new(models);
        let free = brisk_pipelines::memory::available();
        let memory = settings
            .memory
            .or(free.map(|free| free / 100 * MEMORY_SHARE))
            .unwrap_or(u64::MAX);
        let queue = Arc::new(Queue::new(Limits {
            jobs: settings.max_jobs,
            of_caller: settings.max_jobs_per_caller,
        }));
        let (speeds, metrics) = (Arc::new(Speeds::default()), Arc::new(Metrics::default()));
        let (sender, receiver) = mpsc::channel();
        let release_memory = settings.release_memory();
        let residents = Residents::new(memory, Arc::clone(&metrics), release_memory);
        let residents = Arc::new(residents);
        let compute = Arc::new(Compute {
            queue: Arc::clone(&queue),
            speeds: Arc::clone(&speeds),
            metrics: Arc::clone(&metrics),
            residents: Arc::clone(&residents),
            made: sender,
            turns: Arc::default(),
            release_memory,
        });
        let app = Arc::new(Self {
            rates: Rates::new(settings.requests_per_minute),
            models,
            queue,
            speeds,
            metrics,
            kept: Kept::default(),
            keys,
            memory,
            residents,
            pulse: Arc::new(watch::Sender::new(0)),
            large_bodies: Arc::new(Semaphore::new(LARGE_BODIES)),
            readers: Arc::new(Semaphore::new(READERS)),
            picture_reader: Arc::new(Semaphore::new(1)),
            draining: AtomicBool::new(false),
            settings,
        });
        Ok((app, compute, receiver))
    }

    /// Reads a body; a few at a time, off the threads that serve connections.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn read(
        self: &Arc<Self>,
        endpoint: Endpoint,
        body: Map<String, Value>,
        files: Vec<Vec<u8>>,
    ) -> Result<Ask> {
        let shows = !files.is_empty() || body.values().any(shows_picture);
        let alone = match shows {
            true => Some(Arc::clone(&self.picture_reader).acquire_owned().await),
            false => None,
        };
        let permit = Arc::clone(&self.readers).acquire_owned().await;
        let app = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let _permits = (permit, alone);
            let context = Context {
                settings: &app.settings,
                models: &app.models,
                speeds: &app.speeds,
                memory: app.memory,
                release_memory: app.settings.release_memory(),
            };
            Ask::read(context, endpoint, body, files)
        });
        match read.await {
            Ok(read) => read,
            Err(_) => Err(ApiError::internal("brisk failed to read this request")),
        }
    }

    /// Makes a job of a request and lets it wait for its turn.
    ///
    /// # Errors
    /// The queue is full, or the server ends.
    pub fn submit(
        self: &Arc<Self>,
        caller: &Caller,
        ask: Ask,
        channel: Option<String>,
    ) -> Result<Arc<Job>> {
        if self.is_draining() {
            return Err(ApiError::shutting_down());
        }
        let estimate = ask.seconds(&self.speeds);
        let caller = Arc::clone(&caller.name);
        let job = Arc::new(Job::new(caller, ask, channel, estimate).with_pulse(&self.pulse));
        self.queue.push(&job)?;
        if let Ask::Texts(ask) = &job.ask {
            let tokens: usize = ask.answers.iter().map(|answer| answer.prompt_tokens).sum();
            self.metrics.read(tokens);
        }
        let (app, watched) = (Arc::clone(self), Arc::clone(&job));
        tokio::spawn(async move {
            watched.ended().await;
            app.metrics.ended(&watched);
            let (unwanted, finished) = {
                let state = watched.state();
                (state.unwanted, state.finished)
            };
            if let (Some(since), Some(end)) = (unwanted, finished)
                && end >= since
            {
                app.metrics
                    .cancelled(end.duration_since(since).as_secs_f64());
            }
            log(&watched, app.settings.log_prompts);
        });
        Ok(job)
    }

    /// What has to be done every now and then.
    pub fn sweep(&self) {
        self.kept.sweep();
        self.rates.sweep();
        for job in self
            .queue
            .remove(|job| job.created.elapsed() > LONGEST_WAIT)
        {
            let message = format!("the job waited {} seconds in vain", LONGEST_WAIT.as_secs());
            let error = ApiError::new(
                axum::http::StatusCode::SERVICE_UNAVAILABLE,
                "no_worker",
                message,
            );
            job.fail(Status::Failed, Some(error.retry(60.0)));
        }
        // Whoever asked is gone, and nobody else waits for it.
        for job in self.queue.remove(Job::is_cancelled) {
            job.fail(Status::Cancelled, None);
        }
        for job in self.queue.running() {
            let started = job.state().started;
            if started.is_some_and(|started| started.elapsed() > LONGEST_RUN) {
                let message = format!("the job ran {} seconds in vain", LONGEST_RUN.as_secs());
                job.fail(Status::Failed, Some(ApiError::internal(message)));
                job.cancel();
            }
        }
    }

    /// Whether the server takes no more jobs.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Takes no more jobs, fails those that wait, and gives the running ones some time to end.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.queue.close();
        let running = self.queue.running();
        let all = async {
            for job in &running {
                job.ended().await;
            }
        };
        if tokio::time::timeout(self.settings.grace(), all)
            .await
            .is_err()
        {
            for job in &running {
                job.fail(Status::Failed, Some(ApiError::shutting_down()));
                job.cancel();
            }
        }
    }

    /// Sweeps as long as the server is there.
    pub async fn sweep_always(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            self.sweep();
        }
    }
}

/// Whether a value of a body has a picture in it.
fn shows_picture(value: &Value) -> bool {
    match value {
        Value::String(text) => text.starts_with("data:"),
        Value::Array(list) => list.iter().any(shows_picture),
        Value::Object(fields) => fields.values().any(shows_picture),
        _ => false,
    }
}

/// Makes the folder, and sees to it that files can be written there, which also removes what killed runs left.
fn prepare(folder: &Path) -> Result<(), StartError> {
    let failed = |error| StartError::System(format!("--save {}", folder.display()), error);
    std::fs::create_dir_all(folder).map_err(failed)?;
    let probe = folder.join(".brisk-serve");
    brisk_store::write_atomic(&probe, b"")
        .map_err(|error| StartError::Settings(format!("--save: {error}")))?;
    std::fs::remove_file(&probe).map_err(failed)
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|error| StartError::System(format!("cannot start the thread {name}"), error))
}

fn log(job: &Job, prompts: bool) {
    let state = job.state();
    let (status, error) = (state.status(), state.error.as_ref().map(|error| error.code));
    let ran = state.started.map_or(0.0, |started| {
        let end = state.finished.unwrap_or_else(Instant::now);
        end.duration_since(started).as_secs_f64()
    });
    drop(state);
    let size = match &job.ask {
        Ask::Images(ask) => format!("{}x{}", ask.size.0, ask.size.1),
        Ask::Texts(ask) => format!("{} tokens", ask.length),
        Ask::Masks(ask) => format!("{}x{}", ask.size[0], ask.size[1]),
        Ask::Clips(ask) => format!("{}x{}x{}", ask.size[0], ask.size[1], ask.frames),
    };
    let prompt = prompts.then(|| job.ask.prompt());
    tracing::info!(
        job = job.id,
        kind = job.ask.kind(),
        model = job.ask.model().id,
        results = job.ask.count(),
        size,
        seconds = format!("{ran:.3}"),
        outcome = status.name(),
        error,
        prompt,
        "job"
    );
}
