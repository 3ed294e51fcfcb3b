//! The threads that compute: one for pictures, one for texts, which take turns between operations.

mod alone;
mod clips;
mod masks;
mod pictures;
mod texts;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use brisk::{Control, Event, ResultKind, Turns};
use brisk_pipelines::{machine, waited};

use crate::ask::Ask;
use crate::error::{ApiError, Result};
use crate::job::{Job, Status};
use crate::metrics::Metrics;
use crate::queue::{Lane, Queue};
use crate::residents::{Lent, Residents};
use crate::served::Served;
use crate::speed::Speeds;

pub use clips::Filmed;
pub use masks::Found;
pub use pictures::Drawn;

/// How long after a lane's last job freed memory goes back to the system; a job that follows sooner takes it again
/// at once.
pub const MEMORY_KEPT: Duration = Duration::from_secs(10);
/// How often it does while there is work.
const TIDY_EVERY: Duration = Duration::from_secs(15);

/// What was made and is not yet what a reply shows.
pub enum Made {
    /// Pictures that are no files.
    Pictures(Drawn),
    /// Masks.
    Masks(Box<Found>),
    /// A clip that is no file.
    Clip(Box<Filmed>),
}

/// What the threads work with.
pub struct Compute {
    /// The jobs that wait.
    pub queue: Arc<Queue>,
    /// How fast models are.
    pub speeds: Arc<Speeds>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The models in memory.
    pub residents: Arc<Residents>,
    /// Where what was made goes.
    pub made: Sender<Made>,
    /// Who computes.
    pub turns: Arc<Turns>,
    /// Hands freed memory back to the system.
    pub release_memory: fn(),
}

impl Compute {
    /// Takes jobs of a lane until the queue is closed; first opens the models that are to be there.
    pub fn run(&self, lane: Lane, preload: &[Arc<Served>]) {
        // As every thread of the pool does: the same request gives the same bits as on a command line.
        machine::flush_denormals();
        let pool = machine::join_own_pool();
        if let Err(error) = &pool {
            tracing::warn!(error, "no threads of its own");
        }
        for served in preload {
            lane.gives()
                .iter()
                .for_each(|kind| self.preload(*kind, served));
        }
        let mut tidied = Instant::now();
        let rest = || (self.release_memory)();
        while let Some(job) = self.queue.next_after_rest(lane, MEMORY_KEPT, rest) {
            match &job.ask {
                Ask::Images(ask) => self.draw(&job, ask),
                Ask::Masks(ask) => self.find(&job, ask),
                Ask::Clips(ask) => self.film(&job, ask),
                Ask::Texts(_) => self.write(job),
            }
            self.tidy(&mut tidied);
        }
    }

    /// Hands freed memory back every now and then while there is work: pages that are in use in part only grow more
    /// by and by.
    fn tidy(&self, tidied: &mut Instant) {
        if tidied.elapsed() >= TIDY_EVERY {
            (self.release_memory)();
            *tidied = Instant::now();
        }
    }

    fn preload(&self, kind: ResultKind, served: &Arc<Served>) {
        if !served.results().contains(&kind) {
            return;
        }
        let control = self.control(Control::silent());
        let opened = self
            .residents
            .lend(served, kind, served.weight_bytes(kind), || true)
            .and_then(|lent| lent.map_or(Ok(()), |mut lent| lent.open(&control).map(drop)));
        if let Err(error) = opened {
            tracing::error!(model = served.id, error = error.message, "cannot load");
        }
    }

    /// Shares the machine with the other thread.
    fn control(&self, control: Control) -> Control {
        control.with_turns(Arc::clone(&self.turns))
    }

    /// What a job hears of its result number `result`, and of those that are made with it.
    fn control_of(&self, job: &Arc<Job>, result: usize) -> Control {
        self.control_by(job, move |job, event| job.note(event, result))
    }

    /// The same where `hear` says what becomes of an event.
    fn control_by(
        &self,
        job: &Arc<Job>,
        hear: impl Fn(&Job, Event) + Send + Sync + 'static,
    ) -> Control {
        let (listening, release_memory) = (Arc::clone(job), self.release_memory);
        let control = Control::new(move |event| match event {
            Event::SaveMemory => release_memory(),
            event => hear(&listening, event),
        });
        self.control(control.with_cancel(job.halt_flag()))
    }

    /// The model of a job, once there is room for it; none, and the job has ended, where there never will be.
    fn lend(&self, job: &Arc<Job>, needed: u64) -> Option<Lent> {
        self.lend_also(job, (job.ask.model(), job.ask.gives()), needed)
    }

    /// The same of another model that a job needs.
    fn lend_also(
        &self,
        job: &Arc<Job>,
        (model, kind): (&Arc<Served>, ResultKind),
        needed: u64,
    ) -> Option<Lent> {
        let lent = self
            .residents
            .lend(model, kind, needed, || !job.is_cancelled());
        match lent {
            Ok(Some(lent)) => return Some(lent),
            Ok(None) => job.fail(Status::Cancelled, None),
            Err(error) => job.fail(Status::Failed, Some(error)),
        }
        self.left(job, 0.0);
        None
    }

    /// Runs `work` with a model for `job`, which fails where that does. A model that panics goes.
    fn with_lent(
        &self,
        job: &Arc<Job>,
        mut lent: Lent,
        work: impl FnOnce(&mut Lent) -> Result<()>,
    ) -> bool {
        match catch_unwind(AssertUnwindSafe(|| work(&mut lent))) {
            Ok(Ok(())) => return true,
            Ok(Err(_)) if job.is_cancelled() => job.fail(Status::Cancelled, None),
            Ok(Err(error)) => job.fail(Status::Failed, Some(error)),
            Err(panic) => {
                job.fail(Status::Failed, Some(panicked(&*panic)));
                lent.discard();
            }
        }
        false
    }

    /// Hands over what was made.
    fn hand_over(&self, made: Made) -> Result<()> {
        self.made
            .send(made)
            .map_err(|_| ApiError::internal("nobody makes replies any more"))
    }

    /// A job leaves its thread after so many seconds of computing.
    fn left(&self, job: &Arc<Job>, seconds: f64) {
        self.queue.left(job, seconds);
        self.metrics.ran(job, seconds);
    }

    /// Takes in what the stages of a job took.
    fn measured<'s>(&self, job: &Job, stages: impl IntoIterator<Item = (&'s str, f64)>) {
        let (model, costs) = (job.ask.model(), job.ask.costs());
        self.speeds.measured(&model.id, costs, stages);
    }
}

/// Seconds of computing since then, without those in which others did.
struct Clock {
    began: Instant,
    waited: Duration,
}

impl Clock {
    fn start() -> Self {
        Self {
            began: Instant::now(),
            waited: waited(),
        }
    }

    fn seconds(&self) -> f64 {
        let waited = waited().saturating_sub(self.waited);
        self.began.elapsed().saturating_sub(waited).as_secs_f64()
    }

    /// Share of the time in which this thread computed.
    fn share(&self) -> f64 {
        let whole = self.began.elapsed().as_secs_f64();
        if whole > 0.0 {
            self.seconds() / whole
        } else {
            1.0
        }
    }
}

fn panicked(panic: &(dyn Any + Send)) -> ApiError {
    let words = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    ApiError::internal(format!("brisk failed at this request: {words}"))
}
