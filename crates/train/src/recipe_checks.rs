//! What recipes are held to before anything is made of their numbers.

use brisk_pipelines::diffusion::schedulers::NUMBERS;
use serde_json::Value;

use crate::data::pictures::SIZES;
use crate::error::{Error, JsonContext, Result};
use crate::families::autoencoder::AutoencoderConfig;
use crate::families::image::adapter::LoraOptions;
use crate::optimiser::OptimiserKind;
use crate::recipe::{AutoencoderRecipe, CheckerRecipe, ImageRecipe, TextRecipe, TrainingOptions};

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
/// Elements or rows of a block of an optimiser's state.
const MAX_BLOCK: usize = 1 << 30;
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
            let takes = matches!(self.optimiser, OptimiserKind::Adamw | OptimiserKind::Muon);
            require(
                takes,
                "training.betas",
                "given",
                "the optimiser adamw or muon",
            )?;
        }
        if let Some(updates) = self.prolong {
            let bounds = format!("1 to {MAX_STEPS}");
            require(
                (1..=MAX_STEPS).contains(&updates),
                "training.prolong",
                updates,
                &bounds,
            )?;
        }
        if let Some(eight_bit) = self.eight_bit {
            let takes = self.optimiser == OptimiserKind::Came8bit;
            require(
                takes,
                "training.eight_bit",
                "given",
                "the optimiser came8bit",
            )?;
            require_count(
                "training.eight_bit.block_size",
                eight_bit.block_size,
                MAX_BLOCK,
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
        require(
            self.perceptual_weight == 0.0 || NUMBERS.contains(&self.perceptual_weight),
            "perceptual_weight",
            self.perceptual_weight,
            &format!("0, or {} to {}", NUMBERS.start(), NUMBERS.end()),
        )?;
        if let Some(adversarial) = &self.adversarial {
            adversarial.validate()?;
        }
        self.augmentation.validate(self.picture_size)
    }
}

impl ImageRecipe {
    /// Refuses values that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        require_share("text_dropout", self.text_dropout)?;
        require_share("name_probability", self.name_probability)?;
        self.caption_scores.validate()?;
        require(
            NUMBERS.contains(&self.flow_shift),
            "flow_shift",
            self.flow_shift,
            &format!("{} to {}", NUMBERS.start(), NUMBERS.end()),
        )?;
        require_object("transformer", &self.transformer)?;
        require_object("text_encoder", &self.text_encoder)?;
        if let Some(control) = self.control {
            control.validate()?;
            require(
                self.lora.is_none(),
                "control",
                "given",
                "left out: lora is given, and a run trains one of them",
            )?;
        }
        if let Some(lora) = &self.lora {
            require_count("lora.rank", lora.rank, 4096)?;
            if let Some(alpha) = lora.alpha {
                require(
                    alpha.is_finite() && alpha > 0.0,
                    "lora.alpha",
                    alpha,
                    "a positive number",
                )?;
            }
            let known = |target: &String| LoraOptions::LAYERS.contains(&target.as_str());
            require(
                !lora.targets.is_empty() && lora.targets.iter().all(known),
                "lora.targets",
                format!("{:?}", lora.targets),
                &format!("some of {}", LoraOptions::LAYERS.join(", ")),
            )?;
        }
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
