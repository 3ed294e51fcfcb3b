//! The one thread that computes: it takes jobs in turn, keeps models within the budget of memory, and
//! carries plans out.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use brisk::options::Options;
use brisk::{
    Control, Event, GeneratedImage, ImageModel, ImagePlan, ResultKind, TextModel, keys, registry,
};
use brisk_pipelines::machine;

use crate::ask::{Ask, ImageAsk, TextAsk};
use crate::error::{ApiError, Result};
use crate::job::{Canvas, Job, Status};
use crate::metrics::Metrics;
use crate::outcome::{Outcome, Written};
use crate::queue::Queue;
use crate::served::{Residence, Served};
use crate::speed::Speeds;

/// How long a model that could not be loaded is not tried again.
const FAILURE_KEPT: Duration = Duration::from_secs(60);

/// Pictures that are drawn and not yet files.
pub struct Drawn {
    /// The job.
    pub job: Arc<Job>,
    /// Plans with their pictures.
    pub pictures: Vec<(ImagePlan, GeneratedImage)>,
    /// Most memory that the process had while it ran, in bytes.
    pub peak_memory: Option<u64>,
}

/// A model in memory.
enum Loaded {
    Image(Box<dyn ImageModel>),
    Text(Box<dyn TextModel>),
}

struct Resident {
    served: Arc<Served>,
    kind: ResultKind,
    model: Loaded,
    used: Instant,
}

/// What the thread works with.
pub struct Compute {
    queue: Arc<Queue>,
    speeds: Arc<Speeds>,
    metrics: Arc<Metrics>,
    /// Bytes that models and jobs may take together.
    memory: u64,
    drawn: Sender<Drawn>,
    resident: Vec<Resident>,
}

impl Compute {
    /// With nothing loaded.
    pub fn new(
        queue: Arc<Queue>,
        speeds: Arc<Speeds>,
        metrics: Arc<Metrics>,
        memory: u64,
        drawn: Sender<Drawn>,
    ) -> Self {
        Self {
            queue,
            speeds,
            metrics,
            memory,
            drawn,
            resident: Vec::new(),
        }
    }

    /// Takes jobs until the queue is closed; first loads the models that are to be there.
    pub fn run(mut self, preload: &[Arc<Served>]) {
        // As every thread of the pool does: the same request gives the same bits as on a command line.
        machine::flush_denormals();
        for served in preload {
            for kind in served.results() {
                if let Err(error) = self.open(served, kind, served.bytes) {
                    tracing::error!(model = served.id, error = error.message, "cannot load");
                }
            }
        }
        let queue = Arc::clone(&self.queue);
        while let Some(job) = queue.next() {
            self.take(&job);
        }
    }

    fn take(&mut self, job: &Arc<Job>) {
        if job.is_cancelled() {
            return job.fail(Status::Cancelled, None);
        }
        job.begin();
        let began = Instant::now();
        let worked = catch_unwind(AssertUnwindSafe(|| match &job.ask {
            Ask::Images(ask) => self.draw(job, ask),
            Ask::Texts(ask) => self.write(job, ask),
        }));
        let seconds = began.elapsed().as_secs_f64();
        self.queue.charge(job, seconds);
        let model = &job.ask.model().id;
        let stages = job.state().stages.clone();
        match worked {
            Ok(Ok(())) => self
                .speeds
                .measured(model, job.ask.units(), seconds, &stages),
            Ok(Err(_)) if job.is_cancelled() => job.fail(Status::Cancelled, None),
            Ok(Err(error)) => job.fail(Status::Failed, Some(error)),
            Err(panic) => {
                self.resident
                    .retain(|resident| resident.served.id != *model);
                job.ask.model().set_residence(Residence::Idle);
                let message = format!("brisk failed at this request: {}", words(&*panic));
                job.fail(Status::Failed, Some(ApiError::internal(message)));
            }
        }
        self.metrics.ran(job, seconds);
    }

    fn draw(&mut self, job: &Arc<Job>, ask: &ImageAsk) -> Result<()> {
        let kind = ResultKind::Pictures;
        let resident = self.open(&ask.model, kind, ask.memory.max(ask.model.bytes))?;
        let Loaded::Image(model) = &mut resident.model else {
            return Err(ApiError::internal("the model draws nothing"));
        };
        machine::forget_peak_memory();
        let mut pictures = Vec::with_capacity(ask.requests.len());
        for (index, request) in ask.requests.iter().enumerate() {
            let control = control(job, index);
            // Planned by the model that draws: how it decodes depends on the memory that is free now.
            let failed = |error: brisk::Error| ApiError::of_library(&error);
            let mut plan = model.plan(request).map_err(failed)?;
            for warning in &plan.warnings {
                control.warn(warning);
            }
            let mut drawn = model.generate(&plan, &control).map_err(failed)?;
            let Some(picture) = drawn.pop() else {
                return Err(ApiError::internal("the model drew no picture"));
            };
            // What was shown on the way is no part of what was asked for.
            plan.request.options.remove(keys::PREVIEWS.definition());
            pictures.push((plan, picture));
        }
        ask.model.set_residence(Residence::Loaded);
        let drawn = Drawn {
            job: Arc::clone(job),
            pictures,
            peak_memory: machine::peak_memory(),
        };
        self.drawn
            .send(drawn)
            .map_err(|_| ApiError::internal("nobody writes pictures' files any more"))
    }

    fn write(&mut self, job: &Arc<Job>, ask: &TextAsk) -> Result<()> {
        let resident = self.open(&ask.model, ResultKind::Text, ask.model.bytes)?;
        let Loaded::Text(model) = &resident.model else {
            return Err(ApiError::internal("the model writes nothing"));
        };
        let mut texts = Vec::with_capacity(ask.count());
        for (index, plan) in ask.plans.iter().enumerate() {
            let first = index * ask.answers.len();
            let (control, halted) = text_control(job, ask, first, &**model);
            for warning in &plan.warnings {
                control.warn(warning);
            }
            let made = match model.generate(plan, &control) {
                Ok(made) => made.into_iter().map(|text| Canvas {
                    passes: text.forward_passes,
                    mask: u32::MAX,
                    tokens: text.tokens,
                }),
                // Every text came to one of its stops.
                Err(brisk::Error::Cancelled) if *lock(&halted) && !job.is_cancelled() => {
                    job.go_on();
                    let state = job.state();
                    let canvases = state.canvases[first..first + ask.answers.len()].to_vec();
                    drop(state);
                    texts.extend(canvases.into_iter().enumerate().map(|(at, canvas)| {
                        written(ask, first + at, &canvas, canvas.mask, &**model)
                    }));
                    continue;
                }
                Err(error) => return Err(ApiError::of_library(&error)),
            };
            for (at, mut canvas) in made.enumerate() {
                let from = plan.shown_from[at].min(canvas.tokens.len());
                canvas.tokens.drain(..from);
                texts.push(written(ask, first + at, &canvas, u32::MAX, &**model));
            }
        }
        self.metrics.wrote(&texts);
        job.finish(Outcome::Texts(texts));
        Ok(())
    }

    /// The model in memory, loaded where it is not; models that were used longest ago make room.
    fn open(
        &mut self,
        served: &Arc<Served>,
        kind: ResultKind,
        needed: u64,
    ) -> Result<&mut Resident> {
        if let Residence::Failed { at, error } = served.residence()
            && at.elapsed() < FAILURE_KEPT
        {
            let left = FAILURE_KEPT - at.elapsed();
            return Err(error.retry(left.as_secs_f64()));
        }
        self.make_room(served, needed)?;
        let known = self
            .resident
            .iter()
            .position(|resident| resident.served.id == served.id && resident.kind == kind);
        let at = match known {
            Some(at) => at,
            None => {
                served.set_residence(Residence::Loading);
                let model = load(served, kind).inspect_err(|error| {
                    served.set_residence(Residence::Failed {
                        at: Instant::now(),
                        error: error.clone(),
                    });
                })?;
                self.metrics.loaded(&served.id);
                served.set_residence(Residence::Loaded);
                self.resident.push(Resident {
                    served: Arc::clone(served),
                    kind,
                    model,
                    used: Instant::now(),
                });
                self.resident.len() - 1
            }
        };
        let resident = &mut self.resident[at];
        resident.used = Instant::now();
        Ok(resident)
    }

    fn make_room(&mut self, served: &Arc<Served>, needed: u64) -> Result<()> {
        loop {
            let others = self
                .resident
                .iter()
                .filter(|other| other.served.id != served.id);
            let taken: u64 = others.clone().map(|other| other.served.bytes).sum();
            if taken.saturating_add(needed) <= self.memory {
                return Ok(());
            }
            let goes = others
                .filter(|other| !other.served.kept)
                .min_by_key(|other| other.used)
                .map(|other| other.served.id.clone());
            let Some(goes) = goes else {
                return Err(ApiError::new(
                    axum::http::StatusCode::BAD_REQUEST,
                    "exceeds_memory",
                    format!(
                        "the request needs about {} MiB beside the models that are kept, and the server may \
                         use {} in all",
                        needed >> 20,
                        self.memory >> 20
                    ),
                ));
            };
            self.resident.retain(|resident| {
                let stays = resident.served.id != goes;
                if !stays {
                    resident.served.set_residence(Residence::Idle);
                }
                stays
            });
        }
    }
}

/// Opens a model with its weights, or, of one that draws, up to them: they are read by the first request.
fn load(served: &Served, kind: ResultKind) -> Result<Loaded> {
    let settings = brisk::settings(Options::new());
    let opened = match kind {
        ResultKind::Pictures => registry::open_image(&served.folder, &settings).map(Loaded::Image),
        ResultKind::Text => registry::open_text(&served.folder, &settings).map(Loaded::Text),
        ResultKind::Masks => Err(served.gives_no(kind)),
    };
    opened.map_err(|error| {
        ApiError::new(
            axum::http::StatusCode::SERVICE_UNAVAILABLE,
            "load_failed",
            format!("{} cannot be loaded: {error}", served.id),
        )
        .retry(FAILURE_KEPT.as_secs_f64())
    })
}

/// What a job hears of its results from number `first` on.
fn control(job: &Arc<Job>, first: usize) -> Control {
    let listening = Arc::clone(job);
    Control::new(move |event| listening.note(event, first)).with_cancel(job.halt_flag())
}

/// The same for texts; halts the model when every text came to one of its stops, which the flag then says.
fn text_control(
    job: &Arc<Job>,
    ask: &TextAsk,
    first: usize,
    model: &dyn TextModel,
) -> (Control, Arc<Mutex<bool>>) {
    let halted = Arc::new(Mutex::new(false));
    let stops = ask.answers.iter().any(|answer| !answer.stops.is_empty());
    let watched = ask.stream || stops;
    let tokenizer = model.tokenizer().filter(|_| stops).cloned();
    let (listening, told) = (Arc::clone(job), Arc::clone(&halted));
    let mut ended = vec![false; ask.answers.len()];
    let control = Control::new(move |event| {
        let sequence = match &event {
            Event::Canvas { sequence, .. } => Some(*sequence),
            _ => None,
        };
        listening.note(event, first);
        let (Some(tokenizer), Some(sequence)) = (&tokenizer, sequence) else {
            return;
        };
        let Ask::Texts(ask) = &listening.ask else {
            return;
        };
        let state = listening.state();
        let Some(canvas) = state.canvases.get(first + sequence) else {
            return;
        };
        let answer = ask.answer(first + sequence);
        let shown = answer.shown(&canvas.tokens, canvas.mask, false, tokenizer);
        drop(state);
        ended[sequence] |= shown.ended;
        if ended.iter().all(|ended| *ended) {
            *lock(&told) = true;
            listening.halt_flag().store(true, Ordering::Relaxed);
        }
    })
    .with_cancel(job.halt_flag());
    match watched {
        true => (control.with_canvas(), halted),
        false => (control, halted),
    }
}

fn written(
    ask: &TextAsk,
    made: usize,
    canvas: &Canvas,
    mask: u32,
    model: &dyn TextModel,
) -> Written {
    let shown = match model.tokenizer() {
        Some(tokenizer) => ask
            .answer(made)
            .shown(&canvas.tokens, mask, true, tokenizer),
        None => Default::default(),
    };
    Written {
        text: shown.text,
        tokens: shown.tokens,
        passes: canvas.passes,
        ended: shown.ended,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The message of a panic.
fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
