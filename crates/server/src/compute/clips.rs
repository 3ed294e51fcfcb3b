//! Clips: one after another.

use std::sync::Arc;

use brisk::{Control, Event, GeneratedClip, Picture, ResultKind, VideoPlan};
use brisk_pipelines::events::Work;
use brisk_pipelines::machine;

use super::{Clock, Compute, Made};
use crate::ask::{ClipAsk, Opening};
use crate::error::{ApiError, Result};
use crate::job::Job;
use crate::residents::{Lent, Model};
use crate::served::Residence;

/// The stage in which a clip's first frame is drawn.
const FIRST_FRAME: &str = "first frame";

/// A clip that is made and not yet a file.
pub struct Filmed {
    /// The job.
    pub job: Arc<Job>,
    /// What was decided, without the pictures that were given.
    pub plan: VideoPlan,
    /// The clip.
    pub made: GeneratedClip,
    /// Most memory that the process had while it ran, in bytes.
    pub peak_memory: Option<u64>,
}

impl Filmed {
    /// Pixels of all frames.
    pub fn pixels(&self) -> usize {
        let shape = self.made.clip.shape();
        shape.size[0] * shape.size[1] * shape.frames
    }
}

impl Compute {
    /// Makes the clip of a job, after its first frame where that is drawn.
    pub(super) fn film(&self, job: &Arc<Job>, ask: &ClipAsk) {
        let (mut first, mut seconds) = (None, 0.0);
        if let Some(opening) = &ask.opening {
            let model = (&opening.drawer, ResultKind::Pictures);
            let Some(lent) = self.lend_also(job, model, opening.memory) else {
                return;
            };
            job.begin();
            let clock = Clock::start();
            let is_drawn = self.with_lent(job, lent, |lent| {
                first = Some(self.draw_opening(job, opening, lent)?);
                Ok(())
            });
            seconds = clock.seconds();
            if !is_drawn {
                self.left(job, seconds);
                return;
            }
        }
        let Some(lent) = self.lend(job, ask.memory) else {
            return;
        };
        if ask.opening.is_none() {
            job.begin();
        }
        let clock = Clock::start();
        self.with_lent(job, lent, |lent| self.film_one(job, ask, first, lent));
        self.left(job, seconds + clock.seconds());
    }

    fn draw_opening(&self, job: &Arc<Job>, opening: &Opening, lent: &mut Lent) -> Result<Picture> {
        let loading = self.control(Control::silent().with_cancel(job.halt_flag()));
        let Model::Image(model) = lent.open(&loading)? else {
            return Err(ApiError::internal("the model draws nothing"));
        };
        let clock = Clock::start();
        let failed = |error: brisk::Error| ApiError::of_library(&error);
        let plan = opening.planned(&**model).map_err(failed)?;
        // One stage of the job: the steps that it tells are the clip's.
        let stage = Event::Stage {
            name: FIRST_FRAME,
            work: Work::Run,
            total: 0,
        };
        job.note(stage, 0);
        let control = self.control_by(job, |job, event| {
            if matches!(event, Event::Warning(_)) {
                job.note(event, 0);
            }
        });
        let drawn = model.generate(&plan, &control);
        let Some(drawn) = drawn.map_err(failed)?.pop() else {
            return Err(ApiError::internal("the model drew no picture"));
        };
        opening.drawer.set_residence(Residence::Loaded);
        let share = clock.share();
        let stages = drawn.seconds.iter();
        let stages = stages.map(|(stage, seconds)| (*stage, seconds * share));
        self.speeds
            .measured(&opening.drawer.id, &opening.costs, stages);
        opening.placed(drawn.picture).map_err(failed)
    }

    fn film_one(
        &self,
        job: &Arc<Job>,
        ask: &ClipAsk,
        first: Option<Picture>,
        lent: &mut Lent,
    ) -> Result<()> {
        let opening = self.control(Control::silent().with_cancel(job.halt_flag()));
        let Model::Video(model) = lent.open(&opening)? else {
            return Err(ApiError::internal("the model makes no clips"));
        };
        machine::forget_peak_memory();
        let clock = Clock::start();
        let control = self.control_of(job, 0);
        // Planned by the model that makes it: it knows what is in memory already.
        let plan = ask.planned(&**model, first, self.release_memory)?;
        for warning in &plan.warnings {
            control.warn(warning);
        }
        let made = model.generate(&plan, &control);
        let made = made.map_err(|error| ApiError::of_library(&error))?;
        ask.model.set_residence(Residence::Loaded);
        let share = clock.share();
        let stages = made.seconds.iter();
        self.measured(
            job,
            stages.map(|(stage, seconds)| (*stage, seconds * share)),
        );
        self.hand_over(Made::Clip(Box::new(Filmed {
            job: Arc::clone(job),
            plan,
            made,
            peak_memory: machine::peak_memory(),
        })))
    }
}
