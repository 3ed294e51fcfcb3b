//! What a tokenizer's run is.

use brisk_models::hart::tokenizer::TokenizerConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::pictures::SIZES;
use crate::error::{JsonContext, Result};
use crate::loss::ReconstructionLoss;
use crate::pictures::{Augmentation, Selection};
use crate::recipe::{
    MAX_MEASURED, MAX_STEPS, TrainingOptions, require, require_count, require_object, require_share,
};

/// What sums of codewords cost beside the picture; each part is a mean over values and scales.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizationLoss {
    /// Weight of the squared distance of the sums from the latent, which moves codewords and φ.
    pub weight: f64,
    /// Weight of the same distance within that, which moves the latent.
    pub commitment: f64,
}

/// Trains a HART tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRecipe {
    /// Name of the recipe.
    pub name: String,
    /// The keys of the tokenizer's `config.json`.
    pub config: Value,
    /// Side of the training pictures; that of the data set, and of `v_patch_nums`' last grid.
    pub picture_size: usize,
    /// Pictures to train on; all when left out.
    #[serde(default)]
    pub pictures: Selection,
    /// Training.
    pub training: TrainingOptions,
    /// Loss of the pictures.
    pub loss: ReconstructionLoss,
    /// Loss of the codes.
    pub quantization: QuantizationLoss,
    /// Share of the run in which everything is trained, on sums of codewords alone; after it the decoder is.
    pub joint_share: f64,
    /// Share of the samples of the second phase whose latent is decoded as it is.
    pub continuous_probability: f64,
    /// Updates of the first phase between revivals of codewords that nothing takes.
    pub revive_every: u64,
    /// Augmentation.
    pub augmentation: Augmentation,
    /// Updates between evaluations.
    pub eval_every: u64,
    /// Held-out pictures of an evaluation; the last one takes all.
    pub eval_pictures: usize,
    /// Updates between sample sheets.
    pub sample_every: u64,
}

impl TokenizerRecipe {
    /// The tokenizer's configuration.
    pub fn tokenizer(&self) -> Result<TokenizerConfig> {
        let bytes = serde_json::to_vec(&self.config).in_document("recipe, config")?;
        Ok(TokenizerConfig::from_json(&bytes, "recipe, config")?)
    }

    /// Refuses values that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        for (key, value) in [
            ("eval_every", self.eval_every),
            ("sample_every", self.sample_every),
            ("revive_every", self.revive_every),
        ] {
            require_count(key, value as usize, MAX_STEPS as usize)?;
        }
        require_count("eval_pictures", self.eval_pictures, MAX_MEASURED)?;
        for (key, value) in [
            ("joint_share", self.joint_share),
            ("continuous_probability", self.continuous_probability),
        ] {
            require_share(key, value)?;
        }
        for (key, value) in [
            ("quantization.weight", self.quantization.weight),
            ("quantization.commitment", self.quantization.commitment),
        ] {
            let fits = value.is_finite() && value >= 0.0;
            require(fits, key, value, "0 or more")?;
        }
        require(
            SIZES.contains(&self.picture_size),
            "picture_size",
            self.picture_size,
            &format!("{} to {}", SIZES.start(), SIZES.end()),
        )?;
        require_object("config", &self.config)?;
        let config = self.tokenizer()?;
        let side = config.ratio() * config.scales()?.side();
        require(
            self.picture_size == side,
            "picture_size",
            self.picture_size,
            &format!(
                "{side}, which `v_patch_nums` {:?} of {} pixels a place give",
                config.v_patch_nums,
                config.ratio()
            ),
        )?;
        self.augmentation.validate(self.picture_size)
    }
}
