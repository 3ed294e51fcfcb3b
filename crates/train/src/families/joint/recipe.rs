//! What a run on pictures and texts is.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
use crate::pictures::Selection;
use crate::recipe::{
    CaptionScores, MAX_MEASURED, MAX_SAMPLES, MAX_STEPS, TrainingOptions, require, require_count,
    require_object, require_share,
};

/// Sizes of the depth transformer that the recipe decides; the others follow from tower and language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DepthSizes {
    /// Channels inside.
    pub embed_dim: usize,
    /// Heads.
    pub n_head: usize,
    /// Blocks.
    pub n_layer: usize,
}

/// Trains VILA-U's language model, projector and depth transformer on the codes of a frozen tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JointRecipe {
    /// Name of the recipe.
    pub name: String,
    /// The keys of the language model's `config.json`; `vocab_size` is that of the trained tokenizer with the four
    /// tokens that frame pictures and clips.
    pub llm: Value,
    /// What takes sums of codewords to the language model, as `mm_projector_type` spells it.
    pub projector: String,
    /// The depth transformer.
    pub depth: DepthSizes,
    /// Pictures to train on; all when left out.
    #[serde(default)]
    pub pictures: Selection,
    /// Training.
    pub training: TrainingOptions,
    /// Share of the samples that answer a question about a picture; the others draw one.
    pub question_share: f64,
    /// Share of those whose picture is framed by its tokens, as in the authors' training; in inference it is not.
    pub framed_share: f64,
    /// Share of the drawn pictures whose caption is left out.
    pub text_dropout: f64,
    /// Share of captions that are the name alone; the others add keywords. Scenes have captions of their own.
    pub name_probability: f64,
    /// How one of several captions with scores is drawn.
    #[serde(default)]
    pub caption_scores: CaptionScores,
    /// Updates between evaluations.
    pub eval_every: u64,
    /// Held-out pictures of an evaluation, with all their questions; the last one takes all.
    pub eval_pictures: usize,
    /// Updates between sample sheets.
    pub sample_every: u64,
    /// Prompts of the sample sheets.
    pub sample_prompts: Vec<String>,
    /// Guidance of the sample sheets.
    pub guidance: f64,
}

impl JointRecipe {
    /// Refuses values that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        self.caption_scores.validate()?;
        require_object("llm", &self.llm)?;
        for (key, value) in [
            ("question_share", self.question_share),
            ("framed_share", self.framed_share),
            ("text_dropout", self.text_dropout),
            ("name_probability", self.name_probability),
        ] {
            require_share(key, value)?;
        }
        for (key, value) in [
            ("eval_every", self.eval_every),
            ("sample_every", self.sample_every),
        ] {
            require_count(key, value as usize, MAX_STEPS as usize)?;
        }
        require_count("eval_pictures", self.eval_pictures, MAX_MEASURED)?;
        let prompts = self.sample_prompts.len();
        require_count("number of sample_prompts", prompts, MAX_SAMPLES)?;
        let fits = (0.0..=100.0).contains(&self.guidance);
        require(fits, "guidance", self.guidance, "0 to 100")
    }
}
