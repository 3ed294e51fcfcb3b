//! What a run is.

use brisk_models::sam::SamConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::scene_text::SceneTextOptions;
use crate::error::{JsonContext, Result};
use crate::recipe::{
    MAX_MEASURED, MAX_STEPS, TrainingOptions, require, require_count, require_object, require_share,
};

/// Trains a small Segment Anything on scenes of text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MasksRecipe {
    /// Name of the recipe.
    pub name: String,
    /// The keys of the model's `config.json`.
    pub config: Value,
    /// Training; a sample is a picture with its prompts.
    pub training: TrainingOptions,
    /// Letters shown by a box alone, of each picture.
    pub boxes: usize,
    /// Letters shown by a box and points, of each picture.
    pub boxes_with_points: usize,
    /// Letters or words shown by one point, of each picture.
    pub points: usize,
    /// Share of the holes in which no point lies that are to be filled.
    pub filled_share: f64,
    /// Share of the pictures that are windows around a letter of a longer word.
    pub window_share: f64,
    /// Updates between evaluations.
    pub eval_every: u64,
    /// Held-out scenes of an evaluation.
    pub eval_scenes: usize,
    /// The same in the last one.
    pub final_scenes: usize,
}

impl MasksRecipe {
    /// The model's configuration.
    pub(super) fn model(&self) -> Result<SamConfig> {
        let bytes = serde_json::to_vec(&self.config).in_document("recipe, config")?;
        Ok(SamConfig::from_json(&bytes, "recipe, config")?)
    }

    /// Scenes of this side: a word or two that fill most of it.
    pub(super) fn scenes(&self, side: usize) -> SceneTextOptions {
        SceneTextOptions {
            size: [side; 2],
            words: [1, 2],
            letters: [1, 8],
            em: [0.2 * side as f64, 0.8 * side as f64],
            ..SceneTextOptions::default()
        }
    }

    /// Refuses values that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        require_object("config", &self.config)?;
        let config = self.model()?;
        let encoder = &config.vision_config;
        require(
            encoder.vit().is_some(),
            "config.vision_config.model_type",
            encoder.kind(),
            "sam_vision_model: other image encoders are only run",
        )?;
        let side = config.image_size();
        require(
            (32..=1024).contains(&side),
            "config.vision_config.image_size",
            side,
            "32 to 1024",
        )?;
        for (key, value, most) in [
            ("boxes", self.boxes, 64),
            ("boxes_with_points", self.boxes_with_points, 64),
            ("points", self.points, 64),
            ("eval_every", self.eval_every as usize, MAX_STEPS as usize),
            ("eval_scenes", self.eval_scenes, MAX_MEASURED),
            ("final_scenes", self.final_scenes, MAX_MEASURED),
        ] {
            require_count(key, value, most)?;
        }
        require_share("window_share", self.window_share)?;
        require_share("filled_share", self.filled_share)
    }
}
