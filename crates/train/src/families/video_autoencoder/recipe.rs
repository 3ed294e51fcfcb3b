//! What a run is.

use brisk_models::hunyuan_video::autoencoder::VideoAutoencoderConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::clips::{MAX_FRAMES, require_frames, require_size};
use crate::error::{JsonContext, Result};
use crate::loss::ReconstructionLoss;
use crate::recipe::{
    MAX_MEASURED, MAX_STEPS, TrainingOptions, require, require_count, require_object, require_share,
};
use crate::rng::Rng;

/// Trains an `AutoencoderKLHunyuanVideo` on clips of motion, which are drawn as it goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoAutoencoderRecipe {
    /// Name of the recipe.
    pub name: String,
    /// The keys of the autoencoder's `config.json`; `scaling_factor` is measured after training.
    pub config: Value,
    /// Width and height of the clips in pixels.
    pub clip_size: usize,
    /// Numbers of frames, each one more than a multiple of 4, with the share of the updates that see so many of a clip in
    /// a row; the largest is all of it. One frame teaches what the first frame of a clip to be drawn is encoded by.
    pub lengths: Vec<(usize, f64)>,
    /// Updates at the beginning that see clips of one frame alone: how things look is learnt from them in a fraction of
    /// the time.
    #[serde(default)]
    pub single_frame_updates: u64,
    /// Training.
    pub training: TrainingOptions,
    /// Loss of the frames.
    pub loss: ReconstructionLoss,
    /// Weight of the divergence of the latents from a normal law, a mean over their values.
    pub divergence_weight: f64,
    /// Updates between evaluations.
    pub eval_every: u64,
    /// Held-out clips of an evaluation, as long as the longest of `lengths`.
    pub eval_clips: usize,
    /// The same in the last one.
    pub final_clips: usize,
    /// Updates between sample sheets.
    pub sample_every: u64,
}

impl VideoAutoencoderRecipe {
    /// The model's configuration.
    ///
    /// # Errors
    /// Values that cannot be honoured, by their key.
    pub fn autoencoder(&self) -> Result<VideoAutoencoderConfig> {
        let bytes = serde_json::to_vec(&self.config).in_document("recipe, config")?;
        Ok(VideoAutoencoderConfig::from_json(&bytes, "recipe, config")?)
    }

    /// Refuses values that cannot be trained with.
    ///
    /// # Errors
    /// The first of them, by its key.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        require_object("config", &self.config)?;
        let config = self.autoencoder()?;
        for (key, channels) in [
            ("config.in_channels", config.in_channels),
            ("config.out_channels", config.out_channels),
        ] {
            require(channels == 3, key, channels, "3, the colours of a frame")?;
        }
        require_size(self.clip_size, config.spatial_compression_ratio)?;
        let counted = format!("number of lengths (longest clips have {MAX_FRAMES} frames)");
        require_count(&counted, self.lengths.len(), MAX_FRAMES)?;
        let mut sum = 0.0;
        for (frames, share) in &self.lengths {
            require_frames("lengths", *frames)?;
            require_share("lengths", *share)?;
            sum += share;
        }
        let whole = (sum - 1.0).abs() < 1e-6;
        require(whole, "sum of the shares of lengths", sum, "1")?;
        let weight = self.divergence_weight;
        require(
            (0.0..=1e3).contains(&weight),
            "divergence_weight",
            weight,
            "0 to 1000",
        )?;
        for (key, value, most) in [
            ("eval_every", self.eval_every as usize, MAX_STEPS as usize),
            ("eval_clips", self.eval_clips, MAX_MEASURED),
            ("final_clips", self.final_clips, MAX_MEASURED),
            (
                "sample_every",
                self.sample_every as usize,
                MAX_STEPS as usize,
            ),
        ] {
            require_count(key, value, most)?;
        }
        Ok(())
    }

    /// Frames of the clips of the update after `step` others.
    pub(super) fn length(&self, step: u64, rng: &mut Rng) -> usize {
        if step < self.single_frame_updates {
            return 1;
        }
        let mut left = rng.uniform();
        let longest = self.longest();
        let found = self.lengths.iter().find(|(_, share)| {
            left -= share;
            left < 0.0
        });
        found.map_or(longest, |(frames, _)| *frames)
    }

    /// Frames of the longest clips.
    pub(super) fn longest(&self) -> usize {
        let frames = self.lengths.iter().map(|(frames, _)| *frames);
        frames.max().unwrap_or(1)
    }
}
