//! What a run is: the model, the data it takes and how it is trained, as one JSON document.

use std::path::Path;

use brisk_pipelines::diffusion::schedulers::NUMBERS;
use brisk_store::Limit;
use brisk_store::read::read;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::emoji::SIZES;
use crate::error::{Error, JsonContext, Result};
use crate::families::autoencoder::AutoencoderConfig;
use crate::families::codes::CodesRecipe;
use crate::families::detector::DetectorRecipe;
use crate::families::masks::MasksRecipe;
use crate::families::recogniser::RecogniserRecipe;
use crate::families::tokenizer::TokenizerRecipe;
use crate::loss::ReconstructionLoss;
use crate::optimiser::OptimiserKind;
use crate::pictures::{Augmentation, Selection};
use crate::schedule::Decay;

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
    /// Minutes after which the run ends even if updates are left; the schedule then follows the clock.
    pub max_minutes: Option<f64>,
    /// The optimiser.
    pub optimiser: OptimiserKind,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Updates of linear warm-up.
    pub warm_up_steps: u64,
    /// What follows the warm-up.
    pub decay: Decay,
    /// Decays of AdamW's mean and mean square of the gradient; 0.9 and 0.999 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub betas: Option<(f64, f64)>,
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
    /// Augmentation.
    pub augmentation: Augmentation,
    /// Updates between evaluations.
    pub eval_every: u64,
    /// Held-out pictures of an evaluation; the last one takes all.
    pub eval_pictures: usize,
    /// Updates between sample sheets.
    pub sample_every: u64,
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
    /// A diffusion language model.
    Text(TextRecipe),
    /// The judge of pictures of scenes.
    Checker(CheckerRecipe),
    /// A tokenizer of HART's kind.
    Tokenizer(TokenizerRecipe),
    /// A text-to-image model of its codes.
    Codes(CodesRecipe),
    /// A model of masks.
    Masks(MasksRecipe),
    /// A detector of characters.
    Detector(DetectorRecipe),
    /// A recogniser of words.
    Recogniser(RecogniserRecipe),
}

const BUILT_IN: [(&str, &str); 11] = [
    (
        "emoji-autoencoder",
        include_str!("../recipes/emoji-autoencoder.json"),
    ),
    ("emoji-image", include_str!("../recipes/emoji-image.json")),
    (
        "scenes-autoencoder",
        include_str!("../recipes/scenes-autoencoder.json"),
    ),
    ("scenes-image", include_str!("../recipes/scenes-image.json")),
    (
        "emoji-tokenizer",
        include_str!("../recipes/emoji-tokenizer.json"),
    ),
    ("emoji-codes", include_str!("../recipes/emoji-codes.json")),
    (
        "scene-checker",
        include_str!("../recipes/scene-checker.json"),
    ),
    (
        "scene-text-masks",
        include_str!("../recipes/scene-text-masks.json"),
    ),
    (
        "scene-text-detector",
        include_str!("../recipes/scene-text-detector.json"),
    ),
    (
        "scene-text-recogniser",
        include_str!("../recipes/scene-text-recogniser.json"),
    ),
    (
        "arithmetic-text",
        include_str!("../recipes/arithmetic-text.json"),
    ),
];

/// Names of the built-in recipes.
pub fn built_in_names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

impl Recipe {
    /// What it trains, as the verb that takes it is called.
    pub fn kind(&self) -> &'static str {
        match self {
            Recipe::Autoencoder(_) => "autoencoder",
            Recipe::Image(_) | Recipe::Codes(_) => "image",
            Recipe::Text(_) => "text",
            Recipe::Checker(_) => "checker",
            Recipe::Tokenizer(_) => "tokenizer",
            Recipe::Masks(_) => "masks",
            Recipe::Detector(_) => "detector",
            Recipe::Recogniser(_) => "recogniser",
        }
    }

    /// How it is trained, to be changed.
    pub fn training_mut(&mut self) -> &mut TrainingOptions {
        match self {
            Recipe::Autoencoder(recipe) => &mut recipe.training,
            Recipe::Image(recipe) => &mut recipe.training,
            Recipe::Text(recipe) => &mut recipe.training,
            Recipe::Checker(recipe) => &mut recipe.training,
            Recipe::Tokenizer(recipe) => &mut recipe.training,
            Recipe::Codes(recipe) => &mut recipe.training,
            Recipe::Masks(recipe) => &mut recipe.training,
            Recipe::Detector(recipe) => &mut recipe.training,
            Recipe::Recogniser(recipe) => &mut recipe.training,
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
            Recipe::Text(recipe) => recipe.validate(),
            Recipe::Checker(recipe) => recipe.validate(),
            Recipe::Tokenizer(recipe) => recipe.validate(),
            Recipe::Codes(recipe) => recipe.validate(),
            Recipe::Masks(recipe) => recipe.validate(),
            Recipe::Detector(recipe) => recipe.validate(),
            Recipe::Recogniser(recipe) => recipe.validate(),
        };
        match checked {
            Ok(()) => Ok(recipe),
            Err(Error::Recipe(message)) => Err(Error::Recipe(format!("{label}: {message}"))),
            Err(other) => Err(other),
        }
    }
}

pub(crate) fn require(
    holds: bool,
    key: &str,
    found: impl std::fmt::Display,
    expected: &str,
) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::Recipe(format!(
            "{key} is {found}, expected {expected}"
        )))
    }
}

/// Samples of an update: far more than any of these models gains from, and few enough to count with.
const MAX_BATCH: usize = 65_536;
/// Updates of a run, and of the time between two of its lines, checkpoints and measurements.
pub const MAX_STEPS: u64 = 1_000_000_000;
/// Pictures or problems that a measurement takes.
pub(crate) const MAX_MEASURED: usize = 1_000_000;
/// Prompts of a sample sheet, and solver steps.
pub(crate) const MAX_SAMPLES: usize = 1000;
/// Tokens of a vocabulary, a caption or an answer.
const MAX_TOKENS: u64 = 1_000_000;

pub(crate) fn require_count(key: &str, value: usize, most: usize) -> Result<()> {
    require(
        (1..=most).contains(&value),
        key,
        value,
        &format!("1 to {most}"),
    )
}

pub(crate) fn require_object(key: &str, value: &Value) -> Result<()> {
    require(
        value.is_object(),
        key,
        value,
        "an object with the keys of a config.json",
    )
}

pub(crate) fn require_share(key: &str, value: f64) -> Result<()> {
    require((0.0..=1.0).contains(&value), key, value, "0 to 1")
}

impl TrainingOptions {
    /// Refuses values that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        require_count("training.batch", self.batch, MAX_BATCH)?;
        require(
            (1..=256).contains(&self.shards),
            "training.shards",
            self.shards,
            "1 to 256",
        )?;
        for (key, value) in [
            ("training.steps", self.steps),
            ("training.log_every", self.log_every),
            ("training.checkpoint_every", self.checkpoint_every),
        ] {
            require(
                (1..=MAX_STEPS).contains(&value),
                key,
                value,
                &format!("1 to {MAX_STEPS}"),
            )?;
        }
        require(
            self.learning_rate > 0.0 && self.learning_rate.is_finite(),
            "training.learning_rate",
            self.learning_rate,
            "a positive number",
        )?;
        require(
            self.weight_decay >= 0.0 && self.weight_decay.is_finite(),
            "training.weight_decay",
            self.weight_decay,
            "0 or more",
        )?;
        require_share("training.ema_decay", self.ema_decay)?;
        if let Some((first, second)) = self.betas {
            for (key, beta) in [("training.betas[0]", first), ("training.betas[1]", second)] {
                require((0.0..1.0).contains(&beta), key, beta, "0 to below 1")?;
            }
            require(
                self.optimiser != OptimiserKind::Came,
                "training.betas",
                "given",
                "the optimiser adamw or muon",
            )?;
        }
        for (key, value) in [
            ("training.max_minutes", self.max_minutes),
            ("training.clip", self.clip),
        ] {
            if let Some(value) = value {
                let positive = value.is_finite() && value > 0.0;
                require(positive, key, value, "a positive number or null")?;
            }
        }
        Ok(())
    }
}

impl AutoencoderRecipe {
    /// The model's configuration.
    pub fn autoencoder(&self) -> Result<AutoencoderConfig> {
        let bytes = serde_json::to_vec(&self.config).in_document("recipe, config")?;
        Ok(AutoencoderConfig::from_json(&bytes, "recipe, config")?)
    }

    /// Refuses values that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        require_count("eval_every", self.eval_every as usize, MAX_STEPS as usize)?;
        require_count("eval_pictures", self.eval_pictures, MAX_MEASURED)?;
        require_count(
            "sample_every",
            self.sample_every as usize,
            MAX_STEPS as usize,
        )?;
        require(
            SIZES.contains(&self.picture_size),
            "picture_size",
            self.picture_size,
            &format!("{} to {}", SIZES.start(), SIZES.end()),
        )?;
        require_object("config", &self.config)?;
        self.autoencoder()?;
        self.augmentation.validate(self.picture_size)
    }
}

impl ImageRecipe {
    /// Refuses values that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        require_share("text_dropout", self.text_dropout)?;
        require_share("name_probability", self.name_probability)?;
        require(
            NUMBERS.contains(&self.flow_shift),
            "flow_shift",
            self.flow_shift,
            &format!("{} to {}", NUMBERS.start(), NUMBERS.end()),
        )?;
        require_object("transformer", &self.transformer)?;
        require_object("text_encoder", &self.text_encoder)?;
        require(
            self.noise_law.1 > 0.0,
            "noise_law[1]",
            self.noise_law.1,
            "a positive deviation",
        )?;
        require_count("max_tokens", self.max_tokens, MAX_TOKENS as usize)?;
        require_count(
            "sample_every",
            self.sample_every as usize,
            MAX_STEPS as usize,
        )?;
        require_count("sample_steps", self.sample_steps, MAX_SAMPLES)?;
        require_count(
            "number of sample_prompts",
            self.sample_prompts.len(),
            MAX_SAMPLES,
        )?;
        let vocabulary = self.text_encoder.get("vocab_size").and_then(Value::as_u64);
        if let Some(vocabulary) = vocabulary {
            require(
                (1..=MAX_TOKENS).contains(&vocabulary),
                "text_encoder.vocab_size",
                vocabulary,
                &format!("1 to {MAX_TOKENS}"),
            )?;
        }
        Ok(())
    }
}

impl TextRecipe {
    /// Refuses values that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        require_object("model", &self.model)?;
        require_share("pretraining_share", self.pretraining_share)?;
        require_share("drill_share", self.drill_share)?;
        require_share("result_share", self.result_share)?;
        require_share("line_share", self.line_share)?;
        require_share(
            "result_share and line_share",
            self.result_share + self.line_share,
        )?;
        require_share("short_share", self.short_share)?;
        require_share("block_share", self.block_share)?;
        require_count("block_length", self.block_length, MAX_TOKENS as usize)?;
        require_count("eval_every", self.eval_every as usize, MAX_STEPS as usize)?;
        require_count("eval_problems", self.eval_problems, MAX_MEASURED)?;
        let mut sum = 0.0;
        for &(length, share) in &self.lengths {
            require(
                length > 0
                    && length <= MAX_TOKENS as usize
                    && length.is_multiple_of(self.block_length),
                "lengths",
                length,
                "a multiple of block_length, at most a million",
            )?;
            require_share("lengths", share)?;
            sum += share;
        }
        require_share("sum of the shares of lengths", sum)
    }
}

impl CheckerRecipe {
    /// Refuses what cannot be trained.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        require_count("eval_every", self.eval_every as usize, MAX_STEPS as usize)?;
        require_count("eval_scenes", self.eval_scenes, MAX_MEASURED)?;
        require_count("final_scenes", self.final_scenes, MAX_MEASURED)?;
        require_count("blocks", self.blocks, 64)?;
        for channels in self.channels {
            require_count("channels", channels, 1024)?;
        }
        Ok(())
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
