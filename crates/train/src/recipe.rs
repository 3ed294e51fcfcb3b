//! What a run is: the model, the data it takes and how it is trained, as one JSON document.

mod built_in;

use std::path::Path;

use brisk_store::Limit;
use brisk_store::read::read;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::captions::{CaptionScores, ScoreLaw};
use crate::error::{Error, JsonContext, Result};
use crate::families::class_conditional::ClassRecipe;
use crate::families::codes::CodesRecipe;
use crate::families::detector::DetectorRecipe;
use crate::families::dmd::DmdRecipe;
use crate::families::image::adapter::LoraOptions;
use crate::families::image::controlnet::ControlNetOptions;
use crate::families::joint::JointRecipe;
use crate::families::masks::MasksRecipe;
use crate::families::recogniser::RecogniserRecipe;
use crate::families::sprint::SprintRecipe;
use crate::families::tokenizer::TokenizerRecipe;
use crate::families::tower::TowerRecipe;
use crate::families::video::VideoRecipe;
use crate::families::video_autoencoder::VideoAutoencoderRecipe;
use crate::loss::ReconstructionLoss;
use crate::objectives::patch_gan::AdversarialOptions;
use crate::optimiser::{EightBit, OptimiserKind};
use crate::pictures::{Augmentation, Selection};
pub use crate::recipe_checks::MAX_STEPS;
pub(crate) use crate::recipe_checks::{
    MAX_MEASURED, MAX_SAMPLES, require, require_count, require_object, require_share,
};
use crate::schedule::{Decay, RateScaling};
use built_in::BUILT_IN;

/// How any model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingOptions {
    /// Seed of the weights, the order and every draw.
    pub seed: u64,
    /// Samples an update.
    pub batch: usize,
    /// Parts of a batch that are computed side by side, one thread each.
    #[serde(default = "default_shards")]
    pub shards: usize,
    /// Updates in all.
    pub steps: u64,
    /// Updates behind the end of a run that is over, with a schedule of their own; counted from where it ended first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prolong: Option<u64>,
    /// Minutes after which the run ends even if updates are left; the schedule then follows the clock.
    pub max_minutes: Option<f64>,
    /// The optimiser.
    pub optimiser: OptimiserKind,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Scales it by the batch over 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_scaling: Option<RateScaling>,
    /// Updates of linear warm-up.
    pub warm_up_steps: u64,
    /// What follows the warm-up.
    pub decay: Decay,
    /// Decays of AdamW's mean and mean square of the gradient; 0.9 and 0.999 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub betas: Option<(f64, f64)>,
    /// How came8bit keeps its momentum: blocks of 2048 elements, for parameters of more than 16,384, when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eight_bit: Option<EightBit>,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Bound of the norm over all gradients.
    pub clip: Option<f64>,
    /// Decay of the moving average of the weights.
    pub ema_decay: f64,
    /// Updates between lines of the log.
    pub log_every: u64,
    /// Updates between checkpoints.
    pub checkpoint_every: u64,
}

fn default_shards() -> usize {
    2
}

/// Trains an `AutoencoderDC`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderRecipe {
    /// Name of the recipe.
    pub name: String,
    /// The keys of the autoencoder's `config.json`; `scaling_factor` is measured after training.
    pub config: Value,
    /// Side of the training pictures; that of the data set.
    pub picture_size: usize,
    /// Pictures to train on; all when left out.
    #[serde(default)]
    pub pictures: Selection,
    /// Training.
    pub training: TrainingOptions,
    /// Loss.
    pub loss: ReconstructionLoss,
    /// Weight of the distance by a network's features; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub perceptual_weight: f64,
    /// A discriminator and its part of the loss: its updates and the autoencoder's take turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adversarial: Option<AdversarialOptions>,
    /// Parts of the autoencoder that are trained (`decoder.conv_out`); the rest stays that of the model to start from. All
    /// where there are none: phase 1 of DC-AE.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trained: Vec<String>,
    /// Augmentation.
    pub augmentation: Augmentation,
    /// Updates between evaluations.
    pub eval_every: u64,
    /// Held-out pictures of an evaluation; the last one takes all.
    pub eval_pictures: usize,
    /// Updates between sample sheets.
    pub sample_every: u64,
}

/// Whether a part of a loss is left out.
fn is_zero(weight: &f64) -> bool {
    *weight == 0.0
}

/// Trains a SANA transformer and a small Gemma-2 text encoder together, on the latents of a frozen autoencoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecipe {
    /// Name of the recipe.
    pub name: String,
    /// The keys of the transformer's `config.json`.
    pub transformer: Value,
    /// The keys of the text encoder's `config.json`; `vocab_size` is that of the trained tokenizer.
    pub text_encoder: Value,
    /// Trains this LoRA for the transformer, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraOptions>,
    /// Trains this ControlNet for the transformer, and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlNetOptions>,
    /// Pictures to train on; all when left out.
    #[serde(default)]
    pub pictures: Selection,
    /// Training.
    pub training: TrainingOptions,
    /// Shift of the noise levels, in training and in sampling.
    pub flow_shift: f64,
    /// Mean and deviation of the normal law whose logistic picks the noise level.
    pub noise_law: (f64, f64),
    /// Share of samples that see the empty prompt.
    pub text_dropout: f64,
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
    /// Solver steps of the sample sheets.
    pub sample_steps: usize,
    /// Guidance of the sample sheets, and the finished model's default.
    pub guidance: f64,
}

/// Trains a diffusion language model of LLaDA's kind on generated arithmetic problems: first every
/// token of a sequence is hidden at random, then those of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextRecipe {
    /// Name of the recipe.
    pub name: String,
    /// The keys of the model's `config.json`; the vocabulary decides its sizes and special tokens.
    pub model: Value,
    /// Training.
    pub training: TrainingOptions,
    /// Share of the samples that are solutions without their question, which teach the arithmetic in
    /// less time.
    pub drill_share: f64,
    /// Share of the samples in which only results of calculations are hidden, so that what they
    /// follow from can be seen: of tokens hidden alike, few results can be worked out.
    pub result_share: f64,
    /// Share of the samples in which lines of the answer are hidden behind their keys, so that all of a
    /// line is to be found by its key.
    pub line_share: f64,
    /// Share of the run, counted from its start, with problems of fewer events, which teach the same
    /// steps in less time: at its start they have one, at its end up to as many as the others.
    pub short_share: f64,
    /// Share of the run before answer-only fine-tuning.
    pub pretraining_share: f64,
    /// Tokens of a block of block-wise decoding.
    pub block_length: usize,
    /// Share of fine-tuning samples that look as in block-wise decoding: the blocks before one known,
    /// those after it hidden.
    pub block_share: f64,
    /// Lengths that answers are filled up to with end tokens, each with its share of the samples; the
    /// others end with the block that their text ends in.
    pub lengths: Vec<(usize, f64)>,
    /// Updates between evaluations.
    pub eval_every: u64,
    /// Held-out problems of an evaluation.
    pub eval_problems: usize,
}

/// Trains the judge of pictures of scenes, on scenes that are composed as it goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckerRecipe {
    /// Name of the recipe.
    pub name: String,
    /// Channels at 64, 32 and 16 positions a side.
    pub channels: [usize; 3],
    /// Residual blocks at 16 positions a side.
    pub blocks: usize,
    /// Training.
    pub training: TrainingOptions,
    /// Updates between evaluations.
    pub eval_every: u64,
    /// Fresh scenes of each kind in an evaluation.
    pub eval_scenes: usize,
    /// The same in the last one.
    pub final_scenes: usize,
}

/// Any recipe, told apart by its `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Recipe {
    /// An autoencoder.
    Autoencoder(AutoencoderRecipe),
    /// A text-to-image model.
    Image(ImageRecipe),
    /// A model that draws classes.
    Class(ClassRecipe),
    /// A diffusion language model.
    Text(TextRecipe),
    /// The judge of pictures of scenes.
    Checker(CheckerRecipe),
    /// A tokenizer of HART's kind.
    Tokenizer(TokenizerRecipe),
    /// A text-to-image model of its codes.
    Codes(CodesRecipe),
    /// A vision tower, whose codes mean what captions say.
    Tower(TowerRecipe),
    /// A model of pictures and texts, on a tower's codes.
    Joint(JointRecipe),
    /// A model of masks.
    Masks(MasksRecipe),
    /// A detector of characters.
    Detector(DetectorRecipe),
    /// A recogniser of words.
    Recogniser(RecogniserRecipe),
    /// A student of a few steps.
    Sprint(SprintRecipe),
    /// An autoencoder of clips.
    VideoAutoencoder(VideoAutoencoderRecipe),
    /// A model of clips.
    Video(VideoRecipe),
    /// One of a few steps.
    Dmd(DmdRecipe),
}

/// Names of the built-in recipes.
pub fn built_in_names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

impl Recipe {
    /// What it trains, as the verb that takes it is called.
    pub fn kind(&self) -> &'static str {
        match self {
            Recipe::Autoencoder(_) => "autoencoder",
            Recipe::Image(_) | Recipe::Codes(_) | Recipe::Joint(_) => "image",
            Recipe::Class(_) => "class",
            Recipe::Text(_) => "text",
            Recipe::Checker(_) => "checker",
            Recipe::Tokenizer(_) | Recipe::Tower(_) => "tokenizer",
            Recipe::Masks(_) => "masks",
            Recipe::Detector(_) => "detector",
            Recipe::Recogniser(_) => "recogniser",
            Recipe::Sprint(_) => "sprint",
            Recipe::VideoAutoencoder(_) => "video-autoencoder",
            Recipe::Video(_) => "video",
            Recipe::Dmd(_) => "dmd",
        }
    }

    /// How it is trained, to be changed.
    pub fn training_mut(&mut self) -> &mut TrainingOptions {
        match self {
            Recipe::Autoencoder(recipe) => &mut recipe.training,
            Recipe::Image(recipe) => &mut recipe.training,
            Recipe::Class(recipe) => &mut recipe.training,
            Recipe::Text(recipe) => &mut recipe.training,
            Recipe::Checker(recipe) => &mut recipe.training,
            Recipe::Tokenizer(recipe) => &mut recipe.training,
            Recipe::Codes(recipe) => &mut recipe.training,
            Recipe::Tower(recipe) => &mut recipe.training,
            Recipe::Joint(recipe) => &mut recipe.training,
            Recipe::Masks(recipe) => &mut recipe.training,
            Recipe::Detector(recipe) => &mut recipe.training,
            Recipe::Recogniser(recipe) => &mut recipe.training,
            Recipe::Sprint(recipe) => &mut recipe.training,
            Recipe::VideoAutoencoder(recipe) => &mut recipe.training,
            Recipe::Video(recipe) => &mut recipe.training,
            Recipe::Dmd(recipe) => &mut recipe.training,
        }
    }

    /// A built-in recipe by name, else the file at that path.
    pub fn open(name_or_path: &str) -> Result<Recipe> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Recipe::parse(text.as_bytes(), name);
        }
        let path = Path::new(name_or_path);
        if !path.exists() {
            return Err(Error::Recipe(format!(
                "{name_or_path} is neither a file nor one of {}",
                built_in_names().join(", ")
            )));
        }
        Recipe::parse(&read(path, Limit::SETTINGS)?, name_or_path)
    }

    /// Reads and checks a recipe; `label` names it in messages.
    pub fn parse(bytes: &[u8], label: &str) -> Result<Recipe> {
        let text = brisk_store::read::text(bytes, label)?;
        let recipe: Recipe = serde_json::from_str(&text).in_document(label)?;
        let checked = match &recipe {
            Recipe::Autoencoder(recipe) => recipe.validate(),
            Recipe::Image(recipe) => recipe.validate(),
            Recipe::Class(recipe) => recipe.validate(),
            Recipe::Text(recipe) => recipe.validate(),
            Recipe::Checker(recipe) => recipe.validate(),
            Recipe::Tokenizer(recipe) => recipe.validate(),
            Recipe::Codes(recipe) => recipe.validate(),
            Recipe::Tower(recipe) => recipe.validate(),
            Recipe::Joint(recipe) => recipe.validate(),
            Recipe::Masks(recipe) => recipe.validate(),
            Recipe::Detector(recipe) => recipe.validate(),
            Recipe::Recogniser(recipe) => recipe.validate(),
            Recipe::Sprint(recipe) => recipe.validate(),
            Recipe::VideoAutoencoder(recipe) => recipe.validate(),
            Recipe::Video(recipe) => recipe.validate(),
            Recipe::Dmd(recipe) => recipe.validate(),
        };
        match checked {
            Ok(()) => Ok(recipe),
            Err(Error::Recipe(message)) => Err(Error::Recipe(format!("{label}: {message}"))),
            // A network's configuration in it.
            Err(Error::Nn(error)) => Err(Error::Recipe(format!("{label}: {error}"))),
            Err(other) => Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_recipes_are_valid_and_bear_their_names() {
        for name in built_in_names() {
            let recipe = Recipe::open(name).unwrap();
            assert_eq!(serde_json::to_value(&recipe).unwrap()["name"], name);
            if let Recipe::Autoencoder(recipe) = recipe {
                recipe.autoencoder().unwrap();
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        let text = include_str!("../recipes/emoji-image.json");
        let mut recipe: Value = serde_json::from_str(text).unwrap();
        recipe["text_dropout"] = 1.5.into();
        let error = Recipe::parse(recipe.to_string().as_bytes(), "r").unwrap_err();
        assert!(error.to_string().contains("text_dropout is 1.5"), "{error}");
        recipe["text_dropout"] = 0.1.into();
        recipe["training"]["batch"] = (1u64 << 32).into();
        let error = Recipe::parse(recipe.to_string().as_bytes(), "r").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("training.batch is 4294967296, expected 1 to 65536"),
            "{error}"
        );
        recipe["training"]["batch"] = 4.into();
        recipe["text_dropuot"] = 0.1.into();
        let error = Recipe::parse(recipe.to_string().as_bytes(), "r").unwrap_err();
        assert!(error.to_string().contains("text_dropuot"), "{error}");
        let error = Recipe::open("no-such").unwrap_err().to_string();
        assert!(error.contains("emoji-image"), "{error}");
    }
}
