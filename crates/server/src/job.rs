//! A job: what is asked, how far it is, and what came of it.
//!
//! The compute thread writes the state, whoever waits reads it: a change is announced by a number, and
//! the newest state counts. So nothing that computes ever waits for a reader, and a reader that missed
//! changes has missed nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use brisk::{Event, Picture, Work};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::ask::Ask;
use crate::error::ApiError;
use crate::outcome::Outcome;

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It waits for its turn.
    Queued,
    /// The model is being read.
    Loading,
    /// It computes.
    Running,
    /// There is a result.
    Done,
    /// There is an error.
    Failed,
    /// Somebody stopped it.
    Cancelled,
}

impl Status {
    /// As snapshots name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Loading => "loading",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// What a picture would be if drawing stopped here.
#[derive(Debug, Clone)]
pub struct Preview {
    /// Place of the picture among those of the job.
    pub image: usize,
    /// Place among the previews of this picture.
    pub index: usize,
    /// It.
    pub picture: Arc<Picture>,
}

/// A text while it fills.
#[derive(Debug, Clone, Default)]
pub struct Canvas {
    /// Tokens of the shown part, with undecided ones.
    pub tokens: Vec<u32>,
    /// Stands for what is undecided.
    pub mask: u32,
    /// Forward passes so far.
    pub passes: usize,
}

/// How far a job is.
#[derive(Debug, Default)]
pub struct State {
    status: Option<Status>,
    /// Jobs before it in the queue.
    pub position: Option<usize>,
    /// What it does now.
    pub stage: Option<&'static str>,
    /// Steps of the stage that are done.
    pub step: usize,
    /// Steps of the stage.
    pub total: usize,
    /// Which of its results is being made.
    pub result: usize,
    /// Previews so far.
    pub previews: Vec<Preview>,
    /// Its texts while they fill.
    pub canvases: Vec<Canvas>,
    /// What a user should know.
    pub warnings: Vec<String>,
    /// Seconds of the stages.
    pub stages: BTreeMap<&'static str, f64>,
    /// When it began to run.
    pub started: Option<Instant>,
    /// When it ended.
    pub finished: Option<Instant>,
    /// What came of it.
    pub outcome: Option<Arc<Outcome>>,
    /// Why nothing did.
    pub error: Option<ApiError>,
    /// When somebody wanted it to stop.
    pub unwanted: Option<Instant>,
    stage_began: Option<Instant>,
}

impl State {
    /// Where it is.
    pub fn status(&self) -> Status {
        self.status.unwrap_or(Status::Queued)
    }
}

/// A request on its way.
pub struct Job {
    /// Its name: 122 random bits.
    pub id: String,
    /// Who asked.
    pub caller: Arc<str>,
    /// What is asked.
    pub ask: Ask,
    /// Newer jobs of the same channel and caller take its place.
    pub channel: Option<String>,
    /// Seconds that it will take, as far as is known.
    pub estimate: f64,
    /// When it came.
    pub created: Instant,
    /// Seconds since 1970 when it came.
    pub created_at: u64,
    /// Whether somebody wants it to stop.
    unwanted: AtomicBool,
    /// What the model looks at.
    halt: Arc<AtomicBool>,
    /// What else is to be halted.
    halted: Mutex<Vec<Arc<AtomicBool>>>,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    /// Announces that some job changed.
    pulse: Arc<watch::Sender<u64>>,
}

impl Job {
    /// A job that waits.
    pub fn new(caller: Arc<str>, ask: Ask, channel: Option<String>, estimate: f64) -> Self {
        let texts = match &ask {
            Ask::Texts(ask) => ask.count(),
            Ask::Images(_) | Ask::Masks(_) | Ask::Clips(_) => 0,
        };
        Self {
            id: uuid::Uuid::new_v4().simple().to_string(),
            caller,
            ask,
            channel,
            estimate,
            created: Instant::now(),
            created_at: crate::served::seconds_since_1970(),
            unwanted: AtomicBool::new(false),
            halt: Arc::default(),
            halted: Mutex::default(),
            state: Mutex::new(State {
                canvases: vec![Canvas::default(); texts],
                ..State::default()
            }),
            changes: watch::Sender::new(0),
            pulse: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Announces its changes there, too.
    pub fn with_pulse(mut self, pulse: &Arc<watch::Sender<u64>>) -> Self {
        self.pulse = Arc::clone(pulse);
        self
    }

    /// Number of its last change.
    pub fn number(&self) -> u64 {
        *self.changes.borrow()
    }

    /// Its state.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes its state and announces it.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changes.send_modify(|number| *number += 1);
        self.pulse.send_modify(|number| *number += 1);
        result
    }

    /// Tells of changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The flag that halts the model that works on it.
    pub fn halt_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.halt)
    }

    /// Sets this flag, too, when it is asked to stop.
    pub fn halts(&self, flag: &Arc<AtomicBool>) {
        let mut halted = self.halted.lock().unwrap_or_else(PoisonError::into_inner);
        halted.push(Arc::clone(flag));
        if self.is_cancelled() {
            flag.store(true, Ordering::Relaxed);
        }
    }

    /// Lets the model work on, after it was halted for the job's own sake.
    pub fn go_on(&self) {
        self.halt.store(self.is_cancelled(), Ordering::Relaxed);
    }

    /// Whether it was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.unwanted.load(Ordering::SeqCst)
    }

    /// Asks it to stop at its next check.
    pub fn cancel(&self) {
        self.state().unwanted.get_or_insert_with(Instant::now);
        self.unwanted.store(true, Ordering::SeqCst);
        self.halt.store(true, Ordering::Relaxed);
        let halted = self.halted.lock().unwrap_or_else(PoisonError::into_inner);
        for flag in halted.iter() {
            flag.store(true, Ordering::SeqCst);
        }
    }

    /// Ends it without a result; what ended already stays as it is.
    pub fn fail(&self, status: Status, error: Option<ApiError>) {
        self.change(|state| {
            if !state.status().is_final() {
                state.status = Some(status);
                state.error = error;
                state.finish();
            }
        });
    }

    /// Gives its result.
    pub fn finish(&self, outcome: Outcome) {
        self.change(|state| {
            if !state.status().is_final() {
                state.status = Some(Status::Done);
                state.outcome = Some(Arc::new(outcome));
                state.finish();
            }
        });
    }

    /// Its turn has come.
    pub fn begin(&self) {
        self.change(|state| {
            state.status = Some(Status::Running);
            state.position = None;
            state.started = Some(Instant::now());
        });
    }

    /// Takes an event of the model; `result` is the first of those that it works on.
    pub fn note(&self, event: Event, result: usize) {
        match event {
            Event::Stage { name, work, total } => self.change(|state| {
                state.end_stage();
                state.status = Some(match work {
                    Work::Load => Status::Loading,
                    Work::Run => Status::Running,
                });
                (state.stage, state.step, state.total) = (Some(name), 0, total);
                (state.result, state.stage_began) = (result, Some(Instant::now()));
            }),
            Event::Step { index, total, .. } => self.change(|state| {
                (state.step, state.total) = (index, total);
            }),
            Event::Preview { image, picture, .. } => self.change(|state| {
                let image = result + image;
                let before = state.previews.iter();
                let index = before.filter(|preview| preview.image == image).count();
                state.previews.push(Preview {
                    image,
                    index,
                    picture: Arc::new(picture),
                });
            }),
            Event::Canvas {
                sequence,
                mut tokens,
                mask,
                start,
            } => self.change(|state| {
                if let Some(canvas) = state.canvases.get_mut(result + sequence) {
                    canvas.tokens = tokens.split_off(start.min(tokens.len()));
                    canvas.mask = mask;
                    canvas.passes += 1;
                }
            }),
            Event::Warning(warning) => self.change(|state| {
                if !state.warnings.contains(&warning) {
                    state.warnings.push(warning);
                }
            }),
            Event::Done { .. } => self.change(State::end_stage),
            _ => {}
        }
    }

    /// Seconds since it came, or that it took.
    pub fn seconds(&self) -> f64 {
        let end = self.state().finished.unwrap_or_else(Instant::now);
        end.duration_since(self.created).as_secs_f64()
    }

    /// Waits for its end.
    pub async fn ended(&self) {
        let mut changes = self.changes();
        while !self.state().status().is_final() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Where it is, as JSON.
    pub fn snapshot(&self) -> Value {
        let number = self.number();
        let state = self.state();
        let status = state.status();
        let link = |rest: &str| format!("/brisk/v1/jobs/{}{rest}", self.id);
        let mut links = json!({"self": link(""), "cancel": link("/cancel")});
        if !state.previews.is_empty() {
            links["preview"] = link("/preview").into();
        }
        if status == Status::Done {
            links["result"] = link("/result").into();
        }
        json!({
            "id": self.id, "kind": self.ask.kind(), "model": self.ask.model().id, "seq": number,
            "created": self.created_at, "status": status.name(), "position": state.position,
            "stage": state.stage, "step": state.step, "total": state.total,
            "result": state.result, "results": self.ask.count(),
            "eta_seconds": self.seconds_left(&state), "preview": state.previews.len(),
            "seed": self.ask.seed(), "channel": self.channel, "warnings": state.warnings,
            "error": state.error.as_ref().map(|error| error.body()["error"].clone()), "links": links,
        })
    }

    /// Seconds that are left, as far as is known.
    fn seconds_left(&self, state: &State) -> Option<f64> {
        let left = match state.status() {
            Status::Queued => self.estimate,
            Status::Loading | Status::Running => {
                let ran = state.started?.elapsed().as_secs_f64();
                (self.estimate - ran).max(0.0)
            }
            _ => return None,
        };
        Some((left * 10.0).round() / 10.0)
    }
}

impl State {
    fn end_stage(&mut self) {
        if let (Some(stage), Some(began)) = (self.stage.take(), self.stage_began.take()) {
            *self.stages.entry(stage).or_default() += began.elapsed().as_secs_f64();
        }
    }

    fn finish(&mut self) {
        self.end_stage();
        self.position = None;
        self.finished = Some(Instant::now());
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Job")
            .field("id", &self.id)
            .field("status", &self.state().status())
            .finish_non_exhaustive()
    }
}

/// Stops a job when whoever waits for it goes away.
#[derive(Debug)]
pub struct StopOnDrop(pub Arc<Job>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
