//! What a run on classes is.

use brisk_models::class_conditional::sampler::Sampler;
use brisk_models::class_conditional::{ClassConditionalConfig, Scheduler};
use brisk_models::dcae::AutoencoderConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, JsonContext, Result};
use crate::families::autoencoder::config_with;
use crate::pictures::Selection;
use crate::recipe::{
    MAX_SAMPLES, MAX_STEPS, TrainingOptions, require, require_count, require_object,
};

/// Most pictures that a class may be asked to have.
const MOST_PICTURES: usize = 1 << 20;

/// What a picture's class is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassLaw {
    /// Its name: of pictures in folders, the folder's.
    #[default]
    Name,
    /// Its group, such as `food-drink`.
    Group,
    /// The object that a scene shows, whatever its colour and place; scenes of several things have none.
    Object,
    /// The object with its colour, of scenes that show one in a colour that was asked for.
    ColouredObject,
}

/// Trains a UViT, USiT, DiT or SiT on classes, on the latents of a frozen autoencoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassRecipe {
    /// Name of the recipe.
    pub name: String,
    /// The keys of the network's `config.json`; `num_classes` is that of the data.
    pub network: Value,
    /// Pictures to train on; all when left out.
    #[serde(default)]
    pub pictures: Selection,
    /// What their classes are.
    #[serde(default)]
    pub classes: ClassLaw,
    /// Classes of fewer pictures are left out.
    #[serde(default = "one")]
    pub least_pictures: usize,
    /// Training.
    pub training: TrainingOptions,
    /// Updates between sample sheets.
    pub sample_every: u64,
    /// Classes of the sample sheets, by their names; the first sixteen where there are none.
    #[serde(default)]
    pub sample_classes: Vec<String>,
    /// Steps of the sample sheets; the network's own where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_steps: Option<usize>,
    /// Guidance of the sample sheets, and the finished model's default.
    pub guidance: f64,
}

fn one() -> usize {
    1
}

impl ClassRecipe {
    /// The configuration of the network for so many classes, as it is written and as it is read.
    ///
    /// # Errors
    /// Keys that the network's reader refuses.
    pub fn network(&self, classes: usize) -> Result<(Value, ClassConditionalConfig)> {
        let written = config_with(&self.network, None, &[("num_classes", classes.into())])?;
        let bytes = serde_json::to_vec(&written).in_document("recipe, network")?;
        let read = ClassConditionalConfig::from_json(&bytes, "recipe, network")?;
        Ok((written, read))
    }

    /// Side of the pictures that the network draws with an autoencoder, in pixels.
    ///
    /// # Errors
    /// Keys that the network's reader refuses.
    pub fn picture_size(&self, vae: &AutoencoderConfig) -> Result<usize> {
        Ok(self.network(1)?.1.input_size * vae.ratio())
    }

    /// Refuses values that cannot be trained with.
    pub fn validate(&self) -> Result<()> {
        self.training.validate()?;
        require_object("network", &self.network)?;
        let config = self.network(1)?.1;
        require_count("least_pictures", self.least_pictures, MOST_PICTURES)?;
        require_count(
            "sample_every",
            self.sample_every as usize,
            MAX_STEPS as usize,
        )?;
        let classes = self.sample_classes.len();
        let fits = classes <= MAX_SAMPLES;
        require(
            fits,
            "number of sample_classes",
            classes,
            &format!("up to {MAX_SAMPLES}"),
        )?;
        if let Some(steps) = self.sample_steps {
            require_count("sample_steps", steps, MAX_SAMPLES)?;
            let finds = config.eval_scheduler == Scheduler::Dopri5;
            let expected = "none, since ODE_dopri5 finds its steps itself";
            require(!finds, "sample_steps", steps, expected)?;
            if let Err(error) = Sampler::new(&config, Some(steps)) {
                return Err(Error::Recipe(format!("sample_steps: {error}")));
            }
        }
        let fits = (0.0..=100.0).contains(&self.guidance);
        require(fits, "guidance", self.guidance, "0 to 100")?;
        let guided = self.guidance != 1.0;
        require(
            !guided || config.null_class().is_some(),
            "guidance",
            self.guidance,
            "1, since network.class_dropout_prob is 0",
        )
    }
}
