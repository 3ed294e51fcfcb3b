//! One channel from a long job to whoever shows it, and one flag back to stop it.
//!
//! Drawing, writing, quantizing and training report through the same [`Control`]; whoever listens knows
//! no model.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use brisk_media::Picture;

use crate::error::{Error, Result};
use crate::options::Latents;
use crate::request::StageMemory;
use crate::turns::Turns;

/// What a stage does with its component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Reads its weights.
    Load,
    /// Computes.
    Run,
}

/// What a job reports.
#[derive(Debug, Clone)]
pub enum Event {
    /// A stage begins.
    Stage {
        /// Short name of the component or of the work: `text encoder`, `transformer`, `decoder`.
        name: &'static str,
        /// What it does.
        work: Work,
        /// Number of [`Event::Step`]s that it will report, 0 for none.
        total: usize,
    },
    /// A step of the current stage is done.
    Step {
        /// Steps done so far, from 1.
        index: usize,
        /// Steps in all.
        total: usize,
        /// Seconds that this step took.
        seconds: f64,
    },
    /// What follows was chosen because it takes little memory: what is kept for reuse had better go back
    /// to the system.
    SaveMemory,
    /// What a picture would be if its making stopped here, perhaps smaller than it will be.
    Preview {
        /// Number of the picture among those of the request.
        image: usize,
        /// Steps done, from 1.
        step: usize,
        /// As it stands.
        picture: Picture,
    },
    /// The latents of all pictures after a step. Sent only where [`Control::wants_latents`].
    Latents {
        /// From 1.
        step: usize,
        /// `[B, C, h, w]`.
        latents: Latents,
    },
    /// A text while it fills. Sent only where [`Control::wants_canvas`].
    Canvas {
        /// Number of the sequence.
        sequence: usize,
        /// Its tokens, with undecided ones.
        tokens: Vec<u32>,
        /// The token that stands for undecided ones.
        mask: u32,
        /// Where the shown part begins.
        start: usize,
    },
    /// A line worth keeping: a number that was measured, a choice that was made.
    Log(String),
    /// A job that was stopped goes on.
    Resumed {
        /// Steps that were done before.
        step: u64,
    },
    /// How far a job of many steps is, with what was measured since it last said so.
    Progress {
        /// Steps done so far.
        step: u64,
        /// Share of the job that is over, 0..=1.
        share: f64,
        /// Seconds of work so far, over all restarts.
        seconds: f64,
        /// In the order to show them in.
        numbers: Vec<Number>,
    },
    /// What was done so far is kept: a job that is stopped goes on from here.
    Saved {
        /// Steps that are kept.
        step: u64,
    },
    /// A file was written on the way.
    Written {
        /// What it is: `sample sheet`.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
    },
    /// Something the user should know; the run goes on.
    Warning(String),
    /// Estimated peak need of a stage and what is free, both in bytes.
    Memory {
        /// Stage name.
        stage: &'static str,
        /// Estimate.
        needed: u64,
        /// Free memory, where the system tells.
        available: Option<u64>,
    },
    /// Everything is done.
    Done {
        /// Number of results.
        results: usize,
        /// Seconds in all.
        seconds: f64,
    },
}

/// A number of an [`Event::Progress`].
#[derive(Debug, Clone, PartialEq)]
pub struct Number {
    /// What was measured: `loss`, `samples`.
    pub name: &'static str,
    /// The value; absent where it was not finite.
    pub value: Option<f64>,
    /// How it is meant.
    pub unit: Unit,
}

/// How a [`Number`] is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A plain number.
    None,
    /// A number of things.
    Count,
    /// Decibels.
    Decibels,
    /// A share, 0..=1.
    Share,
    /// So many in a second.
    PerSecond,
}

type Listener = Box<dyn FnMut(Event) + Send>;

/// Receives events and carries the wish to stop. Shared by the threads of a job.
pub struct Control {
    cancel: Arc<AtomicBool>,
    turns: Option<Arc<Turns>>,
    listener: Mutex<Listener>,
    canvas: bool,
    latents: bool,
}

impl Control {
    /// A control whose events go to `listener`.
    pub fn new(listener: impl FnMut(Event) + Send + 'static) -> Self {
        Self {
            cancel: Arc::new(AtomicBool::new(false)),
            turns: None,
            listener: Mutex::new(Box::new(listener)),
            canvas: false,
            latents: false,
        }
    }

    /// A control that drops every event.
    pub fn silent() -> Self {
        Self::new(|_| ())
    }

    /// Uses a flag that exists already (a signal handler's, for instance).
    pub fn with_cancel(mut self, cancel: Arc<AtomicBool>) -> Self {
        self.cancel = cancel;
        self
    }

    /// Shares the machine's threads with the other jobs that take these turns.
    pub fn with_turns(mut self, turns: Arc<Turns>) -> Self {
        self.turns = Some(turns);
        self
    }

    /// Whether other jobs may want to compute in between.
    pub(crate) fn takes_turns(&self) -> bool {
        self.turns.is_some()
    }

    /// Asks for [`Event::Canvas`].
    pub fn with_canvas(mut self) -> Self {
        self.canvas = true;
        self
    }

    /// Asks for [`Event::Latents`].
    pub fn with_latents(mut self) -> Self {
        self.latents = true;
        self
    }

    /// Whether anybody looks at latents on the way.
    pub fn wants_latents(&self) -> bool {
        self.latents
    }

    /// Whether anybody looks at texts while they fill.
    pub fn wants_canvas(&self) -> bool {
        self.canvas
    }

    /// The flag to set from another thread to stop the run at its next check.
    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancel)
    }

    /// Whether somebody asked to stop.
    pub fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Sends an event.
    pub fn send(&self, event: Event) {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        listener(event);
    }

    /// Says what each stage will need of the bytes that are available.
    pub(crate) fn memory(&self, stages: &[StageMemory], available: Option<u64>) {
        for stage in stages {
            self.send(Event::Memory {
                stage: stage.stage,
                needed: stage.needed,
                available,
            });
        }
    }

    /// [`Error::Cancelled`] if the flag is set.
    pub fn check(&self) -> Result<()> {
        if self.cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    /// Runs `work` on this thread as a job of this control: before every operation, and before every
    /// parameter that is loaded, it ends if the flag is set, and lets others go first where it takes turns
    /// (not on a thread of the pool, which the others need). Models do this by themselves in what takes a
    /// control; opening one does not.
    ///
    /// # Errors
    /// What `work` returns; [`Error::Cancelled`] where the flag is set.
    pub fn drive<T, E: From<Error>>(
        &self,
        work: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let turn = match &self.turns {
            Some(turns) => Some(turns.take(&self.cancel).ok_or(Error::Cancelled)?),
            None => None,
        };
        self.check()?;
        let token = Token {
            cancel: Arc::clone(&self.cancel),
            turns: self.turns.clone(),
        };
        let result = brisk_nn::with_checkpoint(Arc::new(token), work);
        drop(turn);
        result
    }

    /// Sends a stage.
    pub fn stage(&self, name: &'static str, work: Work, total: usize) {
        self.send(Event::Stage { name, work, total });
    }

    /// Sends a warning.
    pub fn warn(&self, message: impl Into<String>) {
        self.send(Event::Warning(message.into()));
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Control")
            .field("cancelled", &self.cancelled())
            .field("canvas", &self.canvas)
            .field("latents", &self.latents)
            .finish_non_exhaustive()
    }
}

/// What a driven thread asks.
struct Token {
    cancel: Arc<AtomicBool>,
    turns: Option<Arc<Turns>>,
}

impl brisk_nn::Checkpoint for Token {
    fn go_on(&self) -> bool {
        if self.cancel.load(Ordering::Relaxed) {
            return false;
        }
        match &self.turns {
            Some(turns) => turns.pass_on(&self.cancel),
            None => true,
        }
    }
}

/// Adds the seconds that some work takes.
pub(crate) fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = std::time::Instant::now();
    let result = work();
    *seconds += started.elapsed().as_secs_f64();
    result
}

/// Times the steps of a stage.
pub struct StepClock {
    index: usize,
    total: usize,
    last: std::time::Instant,
}

impl StepClock {
    /// Starts the time of the first of `total` steps.
    pub fn new(total: usize) -> Self {
        Self {
            index: 0,
            total,
            last: std::time::Instant::now(),
        }
    }

    /// Reports that one more is done.
    pub fn step(&mut self, control: &Control) {
        self.steps(1, control);
    }

    /// Reports that `count` more are done, which took the same time each.
    pub fn steps(&mut self, count: usize, control: &Control) {
        self.index += count;
        let seconds = self.last.elapsed().as_secs_f64() / count.max(1) as f64;
        control.send(Event::Step {
            index: self.index,
            total: self.total,
            seconds,
        });
        self.last = std::time::Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelling_is_an_error() {
        let control = Control::silent();
        control.warn("nothing");
        assert!(control.check().is_ok());
        control.cancel_flag().store(true, Ordering::Relaxed);
        assert!(matches!(control.check(), Err(Error::Cancelled)));
    }

    #[test]
    fn driven_work_ends_before_its_next_operation() {
        let control = Control::silent().with_turns(Arc::default());
        let work = || -> Result<()> {
            let x = brisk_nn::Tensor::new(1f32)?;
            control.cancel_flag().store(true, Ordering::Relaxed);
            x.affine(2.0, 0.0)?;
            Ok(())
        };
        assert!(matches!(control.drive(work), Err(Error::Cancelled)));
        let never = || -> Result<()> { panic!("it was stopped before") };
        assert!(matches!(control.drive(never), Err(Error::Cancelled)));
    }

    #[test]
    fn events_reach_the_listener() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let control = Control::new(move |event| drop(sender.send(event)));
        control.stage("text encoder", Work::Run, 2);
        assert!(matches!(
            receiver.recv(),
            Ok(Event::Stage {
                name: "text encoder",
                work: Work::Run,
                total: 2
            })
        ));
    }
}
