//! What a tower's run is.

use brisk_models::vila_u::tower::{SiglipConfig, SiglipTextConfig, TowerConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::pictures::SIZES;
use crate::error::{JsonContext, Result};
use crate::loss::ReconstructionLoss;
use crate::pictures::{Augmentation, Selection};
use crate::recipe::{
    CaptionScores, MAX_MEASURED, MAX_STEPS, TrainingOptions, require, require_count,
    require_object, require_share,
};

/// Pictures and captions that are compared at once in a measurement.
const MAX_RETRIEVAL: usize = 4096;

/// Trains a vision tower of VILA-U with the text encoder that it is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TowerRecipe {
    /// Name of the recipe.
    pub name: String,
    /// The keys of the tower's `config.json`. Of `rqvaesiglip`, `decay`, `restart_unused_codes` and
    /// `latent_loss_weight` say how codewords and vectors find each other.
    pub config: Value,
    /// The keys of SigLIP's `config.json`; `text_config.vocab_size` is that of the trained tokenizer of texts.
    pub siglip: Value,
    /// Pictures to train on; all when left out.
    #[serde(default)]
    pub pictures: Selection,
    /// Training.
    pub training: TrainingOptions,
    /// Loss of the pictures.
    pub loss: ReconstructionLoss,
    /// Weight of the loss of the captions.
    pub contrastive: f64,
    /// Share of the run in which pictures and captions are compared and nothing else is done; 0 trains everything
    /// from the first update.
    pub alignment_share: f64,
    /// Whether the text encoder goes on learning behind that share.
    pub text_encoder_learns: bool,
    /// Share of captions that are the name alone; the others add keywords.
    pub name_probability: f64,
    /// How one of several captions with scores is drawn.
    #[serde(default)]
    pub caption_scores: CaptionScores,
    /// Augmentation.
    pub augmentation: Augmentation,
    /// Updates between evaluations.
    pub eval_every: u64,
    /// Held-out pictures of an evaluation; the last one takes all.
    pub eval_pictures: usize,
    /// Held-out pictures among which a caption is to find its own.
    pub retrieval_batch: usize,
    /// Updates between sample sheets.
    pub sample_every: u64,
}

/// How codewords and vectors find each other, by the names of the published configuration.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct CodebookSettings {
    /// Of the moving averages.
    pub decay: f64,
    /// Whether codewords that nothing takes begin anew.
    pub restart_unused_codes: bool,
    /// Weight of the distance of vectors from their sums.
    pub latent_loss_weight: f64,
}

impl Default for CodebookSettings {
    fn default() -> Self {
        Self {
            decay: 0.99,
            restart_unused_codes: true,
            latent_loss_weight: 0.25,
        }
    }
}

impl TowerRecipe {
    /// The tower's configuration, with SigLIP's sizes.
    pub fn tower(&self) -> Result<TowerConfig> {
        let bytes = serde_json::to_vec(&self.config).in_document("recipe, config")?;
        let mut config = TowerConfig::from_json(&bytes, "recipe, config")?;
        config.set_siglip(self.vision()?, "recipe, config", "recipe, siglip")?;
        Ok(config)
    }

    fn siglip_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.siglip).in_document("recipe, siglip")
    }

    fn vision(&self) -> Result<SiglipConfig> {
        let bytes = self.siglip_bytes()?;
        Ok(SiglipConfig::from_json(&bytes, "recipe, siglip")?)
    }

    /// The text encoder's configuration.
    pub fn text(&self) -> Result<SiglipTextConfig> {
        let bytes = self.siglip_bytes()?;
        Ok(SiglipTextConfig::from_json(&bytes, "recipe, siglip")?)
    }

    pub(super) fn codebook(&self) -> Result<CodebookSettings> {
        let keys = self.config.get("rqvaesiglip").cloned().unwrap_or_default();
        serde_json::from_value(keys).in_document("recipe, config, rqvaesiglip")
    }

    /// Refuses values that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        self.caption_scores.validate()?;
        for (key, value) in [
            ("eval_every", self.eval_every),
            ("sample_every", self.sample_every),
        ] {
            require_count(key, value as usize, MAX_STEPS as usize)?;
        }
        require_count("eval_pictures", self.eval_pictures, MAX_MEASURED)?;
        require_count("retrieval_batch", self.retrieval_batch, MAX_RETRIEVAL)?;
        for (key, value) in [
            ("alignment_share", self.alignment_share),
            ("name_probability", self.name_probability),
        ] {
            require_share(key, value)?;
        }
        require_object("config", &self.config)?;
        require_object("siglip", &self.siglip)?;
        let config = self.tower()?;
        self.text()?;
        let codebook = self.codebook()?;
        require_share("config.rqvaesiglip.decay", codebook.decay)?;
        for (key, value) in [
            ("contrastive", self.contrastive),
            (
                "config.rqvaesiglip.latent_loss_weight",
                codebook.latent_loss_weight,
            ),
        ] {
            let fits = value.is_finite() && value >= 0.0;
            require(fits, key, value, "0 or more")?;
        }
        let side = config.siglip()?.image_size;
        require(
            SIZES.contains(&side),
            "siglip.vision_config.image_size",
            side,
            &format!("{} to {}", SIZES.start(), SIZES.end()),
        )?;
        let decoded = config.decoded_size();
        require(
            decoded == [side; 2],
            "siglip.vision_config.image_size",
            side,
            &format!("{}, which the decoder draws", decoded[0]),
        )?;
        self.augmentation.validate(side)
    }
}
