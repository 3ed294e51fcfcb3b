//! What a run is.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::pictures::Selection;
use crate::recipe::{
    CaptionScores, MAX_SAMPLES, MAX_STEPS, TrainingOptions, require, require_count, require_share,
};

/// Distils a SANA model with a dense time embedding (`timestep_scale` 0.001) into one of a few steps. Updates take turns:
/// the student's, then the discriminator's; all are counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SprintRecipe {
    /// Name of the recipe.
    pub name: String,
    /// Pictures to train on; all when left out.
    #[serde(default)]
    pub pictures: Selection,
    /// Training.
    pub training: TrainingOptions,
    /// Mean and deviation of the normal law of the student's angles: t = arctan(exp(N)/0.5).
    pub angle_law: (f64, f64),
    /// The same of the angles at which the discriminator looks.
    pub discriminator_angle_law: (f64, f64),
    /// Strengths of guidance that the student learns, each drawn alike.
    pub guidance_scales: Vec<f64>,
    /// Updates over which the tangent's second term comes in.
    pub tangent_warm_up_steps: u64,
    /// Weight of the consistency loss.
    pub consistency_weight: f64,
    /// Weight of the adversarial loss; 0 trains without a discriminator.
    pub adversarial_weight: f64,
    /// Share of the discriminated pictures that are drawn from noise alone, as the first step of sampling has it.
    pub max_time_share: f64,
    /// Whether the discriminator also sees pictures with another one's caption.
    pub misaligned_pairs: bool,
    /// Blocks of the teacher after which the discriminator has a head.
    pub head_blocks: Vec<usize>,
    /// Share of captions that are the name alone; the others add keywords.
    pub name_probability: f64,
    /// How one of several captions with scores is drawn.
    #[serde(default)]
    pub caption_scores: CaptionScores,
    /// Tokens of a training caption at most, bos included.
    pub max_tokens: usize,
    /// Updates between sample sheets.
    pub sample_every: u64,
    /// Prompts of the sample sheets.
    pub sample_prompts: Vec<String>,
    /// Steps of the sample sheets.
    pub sample_steps: usize,
    /// Guidance of the sample sheets, and the finished model's default.
    pub guidance: f64,
}

/// Guidance strengths of a recipe.
const MAX_SCALES: usize = 1000;

impl SprintRecipe {
    /// Refuses values that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        for (key, (mean, deviation)) in [
            ("angle_law", self.angle_law),
            ("discriminator_angle_law", self.discriminator_angle_law),
        ] {
            let sane = mean.abs() <= 20.0 && (0.0..=20.0).contains(&deviation);
            let expected = "a mean of -20 to 20 and a deviation of 0 to 20";
            require(sane, key, format!("[{mean}, {deviation}]"), expected)?;
        }
        require_count(
            "guidance_scales (count)",
            self.guidance_scales.len(),
            MAX_SCALES,
        )?;
        for scale in self.guidance_scales.iter().chain([&self.guidance]) {
            let sane = (0.0..=100.0).contains(scale);
            require(sane, "guidance or guidance_scales", scale, "0 to 100")?;
        }
        for (key, weight) in [
            ("consistency_weight", self.consistency_weight),
            ("adversarial_weight", self.adversarial_weight),
        ] {
            require((0.0..=1e6).contains(&weight), key, weight, "0 to 1000000")?;
        }
        require(
            self.consistency_weight + self.adversarial_weight > 0.0,
            "consistency_weight and adversarial_weight",
            0,
            "at least one above 0",
        )?;
        let steps = self.tangent_warm_up_steps;
        require(
            steps <= MAX_STEPS,
            "tangent_warm_up_steps",
            steps,
            &format!("0 to {MAX_STEPS}"),
        )?;
        require_share("max_time_share", self.max_time_share)?;
        require_share("name_probability", self.name_probability)?;
        self.caption_scores.validate()?;
        if self.adversarial_weight > 0.0 {
            require_count("head_blocks (count)", self.head_blocks.len(), MAX_SAMPLES)?;
        }
        require(
            self.head_blocks.is_sorted_by(|a, b| a < b),
            "head_blocks",
            format!("{:?}", self.head_blocks),
            "rising indices of blocks",
        )?;
        require(
            (2..=100_000).contains(&self.max_tokens),
            "max_tokens",
            self.max_tokens,
            "2 to 100000",
        )?;
        for (key, value, most) in [
            (
                "sample_every",
                self.sample_every as usize,
                MAX_STEPS as usize,
            ),
            (
                "sample_prompts (count)",
                self.sample_prompts.len(),
                MAX_SAMPLES,
            ),
            ("sample_steps", self.sample_steps, MAX_SAMPLES),
        ] {
            require_count(key, value, most)?;
        }
        Ok(())
    }

    /// Whether the update after `step` finished ones is the discriminator's.
    pub(super) fn is_discriminators(&self, step: u64) -> bool {
        self.adversarial_weight > 0.0 && step % 2 == 1
    }

    /// Share of the tangent's second term after `step` finished updates.
    pub(super) fn tangent_share(&self, step: u64) -> f64 {
        match self.tangent_warm_up_steps {
            0 => 1.0,
            steps => (step as f64 / steps as f64).min(1.0),
        }
    }
}
