//! What a run is.

use brisk_models::crnn::CrnnConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::scene_text::LETTERS;
use crate::error::{JsonContext, Result};
use crate::recipe::{
    MAX_MEASURED, MAX_STEPS, TrainingOptions, require, require_count, require_object, require_share,
};

/// Trains a small CRNN on words in scenes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecogniserRecipe {
    /// Name of the recipe.
    pub name: String,
    /// The keys of the model's `config.json`.
    pub config: Value,
    /// Training; a sample is a word or a letter.
    pub training: TrainingOptions,
    /// Share of the samples that are single letters of words.
    pub letter_share: f64,
    /// First updates, in which every column is told the letter at its place. The loss that leaves columns to find
    /// theirs (connectionist temporal classification) does not begin to learn by itself within thousands of updates.
    pub placed_steps: u64,
    /// Updates between evaluations.
    pub eval_every: u64,
    /// Held-out words of an evaluation.
    pub eval_words: usize,
    /// The same in the last one.
    pub final_words: usize,
}

impl RecogniserRecipe {
    /// The model's configuration.
    pub(super) fn model(&self) -> Result<CrnnConfig> {
        let bytes = serde_json::to_vec(&self.config).in_document("recipe, config")?;
        Ok(CrnnConfig::from_json(&bytes, "recipe, config")?)
    }

    /// Refuses values that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        require_object("config", &self.config)?;
        let config = self.model()?;
        let missing: String = LETTERS
            .chars()
            .filter(|letter| !config.characters.contains(*letter))
            .collect();
        require(
            missing.is_empty(),
            "config.characters",
            &config.characters,
            "all letters that words are made of",
        )?;
        for (key, value, most) in [
            ("eval_every", self.eval_every as usize, MAX_STEPS as usize),
            ("eval_words", self.eval_words, MAX_MEASURED),
            ("final_words", self.final_words, MAX_MEASURED),
        ] {
            require_count(key, value, most)?;
        }
        require_share("letter_share", self.letter_share)
    }
}
