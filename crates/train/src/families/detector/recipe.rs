//! What a run is.

use brisk_models::craft::CraftConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::scene_text::SceneTextOptions;
use crate::error::{JsonContext, Result};
use crate::recipe::{
    MAX_MEASURED, MAX_STEPS, TrainingOptions, require, require_count, require_object,
};

/// Sides of training pictures are multiples of this.
const MULTIPLE: usize = 32;
/// Smallest em square, and the largest as a share of the picture's side.
const SMALLEST: f64 = 14.0;
const LARGEST: f64 = 0.7;

/// Trains a small CRAFT on scenes of text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorRecipe {
    /// Name of the recipe.
    pub name: String,
    /// The keys of the model's `config.json`.
    pub config: Value,
    /// Training; a sample is a picture.
    pub training: TrainingOptions,
    /// Side of training pictures.
    pub picture_size: usize,
    /// Updates between evaluations.
    pub eval_every: u64,
    /// Held-out scenes of an evaluation.
    pub eval_scenes: usize,
    /// The same in the last one.
    pub final_scenes: usize,
}

impl DetectorRecipe {
    /// The model's configuration.
    pub(super) fn model(&self) -> Result<CraftConfig> {
        let bytes = serde_json::to_vec(&self.config).in_document("recipe, config")?;
        Ok(CraftConfig::from_json(&bytes, "recipe, config")?)
    }

    /// Scenes of pictures of `own` pixels a side that are shown at [`Self::picture_size`]: letters of one size, which
    /// lies at `share` between the smallest and the largest, as ratios go.
    pub(super) fn scenes(&self, own: usize, share: f64) -> SceneTextOptions {
        let scale = own as f64 / self.picture_size as f64;
        let largest = LARGEST * self.picture_size as f64;
        let em = scale * SMALLEST * (largest / SMALLEST).powf(share);
        SceneTextOptions {
            size: [own; 2],
            words: [1, 6],
            letters: [1, 10],
            em: [em; 2],
            ..SceneTextOptions::default()
        }
    }

    /// Refuses values that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        require_object("config", &self.config)?;
        self.model()?;
        require(
            (64..=1024).contains(&self.picture_size) && self.picture_size.is_multiple_of(MULTIPLE),
            "picture_size",
            self.picture_size,
            "a multiple of 32 from 64 to 1024",
        )?;
        for (key, value, most) in [
            ("eval_every", self.eval_every as usize, MAX_STEPS as usize),
            ("eval_scenes", self.eval_scenes, MAX_MEASURED),
            ("final_scenes", self.final_scenes, MAX_MEASURED),
        ] {
            require_count(key, value, most)?;
        }
        Ok(())
    }
}
