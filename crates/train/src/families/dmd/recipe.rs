//! What a run is.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::families::video::recipe::{require_compared, require_flow};
use crate::families::video_autoencoder::clips::require_frames;
use crate::recipe::{
    MAX_MEASURED, MAX_SAMPLES, MAX_STEPS, TrainingOptions, require, require_count,
};

/// The critic: the teacher with pairs of this rank beside the layers of its attentions and MLPs, of which alone it learns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CriticOptions {
    /// Rows of each pair's first matrix.
    pub rank: usize,
    /// What the pairs' products are multiplied by in the critic.
    pub strong: f64,
    /// The same in the teacher, which is pulled a little towards the critic, so that the two do not drift apart; 0 leaves
    /// it as it is.
    pub weak: f64,
}

/// Distils a model of clips into one of a few steps without guidance. Updates take turns, and all are counted: those that
/// only learn the guided velocity come first, then some of the critic, then groups of the critic's that a student's follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DmdRecipe {
    /// Name of the recipe.
    pub name: String,
    /// Width and height of the clips in pixels.
    pub clip_size: usize,
    /// Frames of the clips.
    pub frames: usize,
    /// Clips that are drawn and encoded before training, and trained on again and again.
    pub clips: usize,
    /// Training.
    pub training: TrainingOptions,
    /// Steps of the student.
    pub steps: usize,
    /// Shift of the noise levels, of the student's steps and of those at which it is judged.
    pub flow_shift: f64,
    /// Guidance of the teacher, which the student learns to do without.
    pub guidance: f64,
    /// First updates, in which the student learns the guided teacher's velocity of noised clips.
    pub guidance_updates: u64,
    /// Updates of the critic that follow: it begins as the teacher without guidance, and is no judge of the student before it
    /// knows what that draws.
    pub critic_first_updates: u64,
    /// Updates of the critic before each of the student.
    pub critic_updates: u64,
    /// Least and largest noise level, before the shift, at which samples are judged.
    pub time_range: (f64, f64),
    /// The critic.
    pub critic: CriticOptions,
    /// Weight of the adversarial loss in the student's; 0 trains without heads.
    pub adversarial_weight: f64,
    /// The same in the critic's.
    pub critic_adversarial_weight: f64,
    /// Single blocks of the critic after which a head tells drawn clips from true ones.
    pub head_blocks: Vec<usize>,
    /// Updates between evaluations and sample sheets.
    pub eval_every: u64,
    /// Held-out clips of an evaluation.
    pub eval_clips: usize,
    /// The same in the last one.
    pub final_clips: usize,
}

/// Whose an update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The student's, held to the guided velocity.
    Guidance,
    /// The critic's.
    Critic,
    /// The student's.
    Student,
}

impl DmdRecipe {
    /// Refuses values that cannot be trained with.
    ///
    /// # Errors
    /// The first of them, by its key.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        require_frames("frames", self.frames)?;
        require_flow(self.flow_shift, (0.0, 1.0), self.guidance)?;
        for (key, value, most) in [
            ("clips", self.clips, MAX_MEASURED),
            ("steps", self.steps, MAX_SAMPLES),
            (
                "critic_updates",
                self.critic_updates as usize,
                MAX_STEPS as usize,
            ),
            ("critic.rank", self.critic.rank, 4096),
            ("eval_every", self.eval_every as usize, MAX_STEPS as usize),
        ] {
            require_count(key, value, most)?;
        }
        require_compared(self.eval_clips, self.final_clips)?;
        for (key, value) in [
            ("guidance_updates", self.guidance_updates),
            ("critic_first_updates", self.critic_first_updates),
        ] {
            let range = format!("0 to {MAX_STEPS}");
            require(value <= MAX_STEPS, key, value, &range)?;
        }
        let (low, high) = self.time_range;
        require(
            0.0 < low && low < high && high < 1.0,
            "time_range",
            format!("[{low}, {high}]"),
            "two rising numbers between 0 and 1",
        )?;
        let CriticOptions { strong, weak, .. } = self.critic;
        require(
            strong > 0.0 && strong <= 1e3,
            "critic.strong",
            strong,
            "above 0, up to 1000",
        )?;
        require(
            weak >= 0.0 && weak < strong,
            "critic.weak",
            weak,
            "0 or more, and below critic.strong",
        )?;
        for (key, weight) in [
            ("adversarial_weight", self.adversarial_weight),
            ("critic_adversarial_weight", self.critic_adversarial_weight),
        ] {
            require((0.0..=1e3).contains(&weight), key, weight, "0 to 1000")?;
        }
        if self.has_heads() {
            require_count("head_blocks (count)", self.head_blocks.len(), MAX_SAMPLES)?;
            let weight = self.critic_adversarial_weight;
            require(
                weight > 0.0,
                "critic_adversarial_weight",
                weight,
                "above 0 where adversarial_weight is",
            )?;
        }
        require(
            self.head_blocks.is_sorted_by(|a, b| a < b),
            "head_blocks",
            format!("{:?}", self.head_blocks),
            "rising indices of blocks",
        )
    }

    /// Whether there is an adversarial loss.
    pub(super) fn has_heads(&self) -> bool {
        self.adversarial_weight > 0.0
    }

    /// Whose the update after `step` finished ones is.
    pub(super) fn turn(&self, step: u64) -> Turn {
        let Some(step) = step.checked_sub(self.guidance_updates) else {
            return Turn::Guidance;
        };
        let Some(step) = step.checked_sub(self.critic_first_updates) else {
            return Turn::Critic;
        };
        match step % (self.critic_updates + 1) == self.critic_updates {
            true => Turn::Student,
            false => Turn::Critic,
        }
    }
}
