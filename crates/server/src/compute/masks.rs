//! Masks: a picture after another.

use std::sync::Arc;

use brisk::{Control, GeneratedMasks, MaskPrompt};
use brisk_pipelines::machine;
use serde_json::{Map, Value};

use super::{Clock, Compute, Made};
use crate::ask::MaskAsk;
use crate::error::{ApiError, Result};
use crate::job::Job;
use crate::residents::{Lent, Model};
use crate::served::Residence;

/// Masks that were found.
pub struct Found {
    /// The job.
    pub job: Arc<Job>,
    /// Width and height of the picture, which itself is no longer needed.
    pub size: [usize; 2],
    /// Effective values.
    pub settings: Map<String, Value>,
    /// What was looked for.
    pub prompts: Vec<MaskPrompt>,
    /// The masks.
    pub masks: GeneratedMasks,
    /// Most memory that the process had while it ran, in bytes.
    pub peak_memory: Option<u64>,
}

impl Compute {
    /// Finds the masks of a job.
    pub(super) fn find(&self, job: &Arc<Job>, ask: &MaskAsk) {
        let Some(lent) = self.lend(job, ask.memory) else {
            return;
        };
        job.begin();
        let clock = Clock::start();
        self.with_lent(job, lent, |lent| self.find_all(job, ask, lent));
        self.left(job, clock.seconds());
    }

    fn find_all(&self, job: &Arc<Job>, ask: &MaskAsk, lent: &mut Lent) -> Result<()> {
        let opening = self.control(Control::silent().with_cancel(job.halt_flag()));
        let Model::Masks(model) = lent.open(&opening)? else {
            return Err(ApiError::internal("the model finds no masks"));
        };
        machine::forget_peak_memory();
        let clock = Clock::start();
        let control = self.control_of(job, 0);
        let failed = |error: brisk::Error| ApiError::of_library(&error);
        // Until the end: what is planned holds the picture.
        let (request, _room) = ask.request(self.release_memory)?;
        // Planned by the model that finds: it knows what is in memory already.
        let plan = model.plan(&request).map_err(failed)?;
        drop(request);
        for warning in &plan.warnings {
            control.warn(warning);
        }
        let masks = model.generate(&plan, &control).map_err(failed)?;
        ask.model.set_residence(Residence::Loaded);
        let share = clock.share();
        let stages = masks.seconds.iter();
        self.measured(
            job,
            stages.map(|(stage, seconds)| (*stage, seconds * share)),
        );
        self.hand_over(Made::Masks(Box::new(Found {
            job: Arc::clone(job),
            size: plan.request.size(),
            settings: plan.settings,
            prompts: plan.prompts,
            masks,
            peak_memory: machine::peak_memory(),
        })))
    }
}
