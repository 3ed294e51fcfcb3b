//! What a user should know of a plan before it runs. Nothing here stops it.

use super::load::INSTRUCTION_FILE;
use super::pipeline::SanaPipeline;
use super::plan::{ModelKind, SanaPlan};
use crate::diffusion::resolution;
use crate::folder::unread_warning;

/// How often the guidance that a model is usually drawn with may be exceeded.
const FAR: f32 = 3.0;

impl SanaPipeline {
    /// What the user should know before a plan runs.
    pub(super) fn warnings(&self, plan: &SanaPlan, instruction_given: bool) -> Vec<String> {
        let no_instruction = (!instruction_given
            && !self.files.has_instruction()
            && plan.instruction.is_some())
        .then(|| {
            format!(
                "the model's folder has no {INSTRUCTION_FILE}; brisk's own instruction is put before prompts \
                 (the option `instruction` gives another, or none)"
            )
        });
        let unknown_words = self.files.known_prompts.as_ref().and_then(|known| {
            let negative = plan.negative.iter();
            known.warning(plan.prompts.iter().chain(negative).map(String::as_str))
        });
        [
            no_instruction,
            self.unusual_size(plan),
            self.unusual_guidance(plan),
            unknown_words,
            unread_warning(&self.files.unread_keys),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn unusual_size(&self, plan: &SanaPlan) -> Option<String> {
        let cells = self.files.transformer.config.sample_size;
        let side = cells * self.files.vae.config.ratio();
        if resolution::is_near_trained(cells, side, plan.height, plan.width) {
            return None;
        }
        let way_out = match resolution::bins(cells) {
            Some(_) => "; without `no-binning` the nearest trained size is drawn and resized",
            None => "",
        };
        Some(format!(
            "{} × {} pixels: the model was trained at {side} × {side}, and draws other sizes badly{way_out}",
            plan.width, plan.height
        ))
    }

    fn unusual_guidance(&self, plan: &SanaPlan) -> Option<String> {
        let usual = self.files.guidance;
        let word = if plan.guidance > FAR * usual {
            "above"
        } else if self.files.kind == ModelKind::Sprint && plan.guidance < usual / FAR {
            "below"
        } else {
            return None;
        };
        Some(format!(
            "guidance {} is far {word} the {usual} that this model is drawn with; colours and shapes suffer",
            plan.guidance
        ))
    }
}
