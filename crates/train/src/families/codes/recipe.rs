//! What a run on codes is.

use brisk_models::hart::transformer::TransformerConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{JsonContext, Result};
use crate::pictures::Selection;
use crate::recipe::{
    CaptionScores, MAX_SAMPLES, MAX_STEPS, TrainingOptions, require, require_count, require_object,
    require_share,
};

/// Most repetitions of a place, and most places.
const MOST: usize = 1 << 20;

/// By which law texts are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropLaw {
    /// `text_dropout` is the share of the samples.
    #[default]
    Share,
    /// A sample sees no text where a standard normal number is below `text_dropout`, as in the authors' code:
    /// 0.1 leaves out 54 in 100.
    Normal,
}

/// How many places of the last scale an update keeps: all but a share that is drawn from a normal law, cut off
/// below `least` and above 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptPlaces {
    /// Mean of the share that is dropped.
    pub mean: f64,
    /// Its deviation.
    pub deviation: f64,
    /// Smallest share that is dropped.
    pub least: f64,
    /// Fewest places that are kept.
    pub fewest: usize,
}

/// What the diffusion head costs beside the codes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffusionLoss {
    /// Weight beside the cross-entropy of the codes.
    pub weight: f64,
    /// Times and noises that every kept place is given.
    pub repeats: usize,
}

/// Trains HART's transformer and a small Qwen2 text encoder together, on the codes of a frozen tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodesRecipe {
    /// Name of the recipe.
    pub name: String,
    /// The keys of the transformer's `config.json`; `patch_nums` are the grids of codes.
    pub transformer: Value,
    /// The keys of the text encoder's `config.json`; `vocab_size` is that of the trained tokenizer of texts.
    pub text_encoder: Value,
    /// Pictures to train on; all when left out.
    #[serde(default)]
    pub pictures: Selection,
    /// Training.
    pub training: TrainingOptions,
    /// How often a sample sees no text.
    pub text_dropout: f64,
    /// What that number means.
    #[serde(default)]
    pub text_dropout_law: DropLaw,
    /// Share of captions that are the name alone; the others add keywords.
    pub name_probability: f64,
    /// How one of several captions with scores is drawn.
    #[serde(default)]
    pub caption_scores: CaptionScores,
    /// Places of the last scale.
    pub last_scale: KeptPlaces,
    /// The diffusion head.
    pub diffusion: DiffusionLoss,
    /// Updates between sample sheets.
    pub sample_every: u64,
    /// Prompts of the sample sheets.
    pub sample_prompts: Vec<String>,
    /// Guidance of the sample sheets, and the finished model's default.
    pub guidance: f64,
}

impl CodesRecipe {
    /// The transformer's configuration.
    pub fn transformer(&self) -> Result<TransformerConfig> {
        let bytes = serde_json::to_vec(&self.transformer).in_document("recipe, transformer")?;
        Ok(TransformerConfig::from_json(&bytes, "recipe, transformer")?)
    }

    /// Refuses values that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        require_object("transformer", &self.transformer)?;
        require_object("text_encoder", &self.text_encoder)?;
        require_share("name_probability", self.name_probability)?;
        self.caption_scores.validate()?;
        match self.text_dropout_law {
            DropLaw::Share => require_share("text_dropout", self.text_dropout)?,
            DropLaw::Normal => {
                let fits = self.text_dropout.is_finite();
                require(fits, "text_dropout", self.text_dropout, "a number")?;
            }
        }
        let KeptPlaces {
            mean,
            deviation,
            least,
            fewest,
        } = self.last_scale;
        require_share("last_scale.mean", mean)?;
        require_share("last_scale.least", least)?;
        let fits = (1e-3..=10.0).contains(&deviation);
        require(fits, "last_scale.deviation", deviation, "0.001 to 10")?;
        require_count("last_scale.fewest", fewest, MOST)?;
        let places = self.transformer()?.scales()?.side().pow(2);
        require(
            fewest <= places,
            "last_scale.fewest",
            fewest,
            &format!("at most {places}, the places of the last of `patch_nums`"),
        )?;
        let DiffusionLoss { weight, repeats } = self.diffusion;
        let fits = weight.is_finite() && weight >= 0.0;
        require(fits, "diffusion.weight", weight, "0 or more")?;
        require_count("diffusion.repeats", repeats, MOST)?;
        require_count(
            "sample_every",
            self.sample_every as usize,
            MAX_STEPS as usize,
        )?;
        let prompts = self.sample_prompts.len();
        require_count("number of sample_prompts", prompts, MAX_SAMPLES)?;
        let fits = (0.0..=100.0).contains(&self.guidance);
        require(fits, "guidance", self.guidance, "0 to 100")
    }
}
