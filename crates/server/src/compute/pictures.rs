//! Pictures: one after another.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk::{Control, GeneratedImage, ImagePlan, keys};
use brisk_pipelines::machine;

use super::{Clock, Compute, Made};
use crate::ask::ImageAsk;
use crate::error::{ApiError, Result};
use crate::job::Job;
use crate::residents::{Lent, Model};
use crate::served::Residence;

/// Pictures that are drawn and not yet files.
pub struct Drawn {
    /// The job.
    pub job: Arc<Job>,
    /// Plans with their pictures.
    pub pictures: Vec<(ImagePlan, GeneratedImage)>,
    /// Tokens of the prompt, where the model has some.
    pub prompt_tokens: usize,
    /// Most memory that the process had while it ran, in bytes.
    pub peak_memory: Option<u64>,
}

impl Compute {
    /// Draws the pictures of a job.
    pub(super) fn draw(&self, job: &Arc<Job>, ask: &ImageAsk) {
        let Some(lent) = self.lend(job, ask.memory) else {
            return;
        };
        job.begin();
        let clock = Clock::start();
        self.with_lent(job, lent, |lent| self.draw_all(job, ask, lent));
        self.left(job, clock.seconds());
    }

    fn draw_all(&self, job: &Arc<Job>, ask: &ImageAsk, lent: &mut Lent) -> Result<()> {
        let opening = self.control(Control::silent().with_cancel(job.halt_flag()));
        let Model::Image(model) = lent.open(&opening)? else {
            return Err(ApiError::internal("the model draws nothing"));
        };
        machine::forget_peak_memory();
        let clock = Clock::start();
        let failed = |error: brisk::Error| ApiError::of_library(&error);
        let mut pictures = Vec::with_capacity(ask.count());
        let mut stages: BTreeMap<&'static str, f64> = BTreeMap::new();
        for index in 0..ask.count() {
            let control = self.control_of(job, index);
            // Planned by the model that draws: how it decodes depends on the memory that is free now.
            let mut plan = ask.planned(index, &**model, self.release_memory)?;
            for warning in &plan.warnings {
                control.warn(warning);
            }
            let mut drawn = model.generate(&plan, &control).map_err(failed)?;
            let Some(picture) = drawn.pop() else {
                return Err(ApiError::internal("the model drew no picture"));
            };
            for (stage, seconds) in &picture.seconds {
                *stages.entry(stage).or_default() += seconds;
            }
            // What was shown on the way is no part of what was asked for.
            plan.request.options.remove(keys::PREVIEWS.definition());
            pictures.push((plan, picture));
        }
        ask.model.set_residence(Residence::Loaded);
        let share = clock.share();
        let stages = stages.into_iter();
        self.measured(job, stages.map(|(stage, seconds)| (stage, seconds * share)));
        let drawn = Drawn {
            job: Arc::clone(job),
            pictures,
            prompt_tokens: ask.prompt_tokens,
            peak_memory: machine::peak_memory(),
        };
        self.hand_over(Made::Pictures(drawn))
    }
}
