//! Finds the parts of a model, reads their configurations and opens their weights.

use brisk_models::clip::{self, ClipTextConfig};
use brisk_models::component::{ComponentConfig, LoadSettings};
use brisk_models::hunyuan_video::autoencoder::{self, VideoAutoencoderConfig};
use brisk_models::hunyuan_video::transformer::{
    self, ImageCondition, VideoTransformer, VideoTransformerConfig,
};
use brisk_models::llava::{self, LlavaConfig};
use brisk_models::registry;
use brisk_nn::{Activations, InputWatcher, Quantization};
use brisk_store::{ModelFolder, shown};
use brisk_text::Tokenizer;
use serde_json::Value;

use super::defaults::Defaults;
use crate::error::{Error, Result};
use crate::folder::{ComponentFolder, Opened, Wanted};
use crate::low_bit_settings;
use crate::options::{Key, keys, video_keys};
use crate::request::{OpenSettings, RandomWeights};
use crate::residency::Residency;
use crate::tokenizer;
use crate::vision_preparation::Preparation;

/// How far noise levels are moved where no scheduler says it.
const SHIFT: f64 = 7.0;
/// Guidance where it is embedded, and where it is not.
const GUIDANCE: [f32; 2] = [6.0, 1.0];
/// The scheduler's file.
const SCHEDULER: &str = "scheduler/scheduler_config.json";
/// The one that says how the vision encoder sees pictures.
const PREPARATION: &str = "image_processor/preprocessor_config.json";
/// Scheduler that the published models are drawn with.
const EULER: &str = "FlowMatchEulerDiscreteScheduler";

/// How a model is loaded.
#[derive(Debug, Clone)]
pub(super) struct LoadOptions {
    pub variant: Option<String>,
    pub text_quantization: Quantization,
    pub transformer_quantization: Quantization,
    /// How inputs of 4-bit layers of a file are rounded, where it is said.
    pub activations: Option<Activations>,
    pub residency: Residency,
    random: Option<RandomWeights>,
}

impl LoadOptions {
    pub fn read(settings: &OpenSettings) -> Result<Self> {
        let asked = &settings.options;
        let quantization = |key: &'static Key<String>| -> Result<Quantization> {
            let name = asked.get(key).unwrap_or_else(|| "none".to_owned());
            Ok(Quantization::from_name(&name)?)
        };
        Ok(Self {
            variant: asked.get(&keys::VARIANT),
            text_quantization: quantization(&keys::QUANTIZE_TEXT_ENCODER)?,
            transformer_quantization: quantization(&keys::QUANTIZE_TRANSFORMER)?,
            activations: low_bit_settings::activations(asked),
            residency: Residency::asked(asked),
            random: settings.random,
        })
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            variant: self.variant.clone(),
            random: self.random,
            ..Wanted::default()
        }
    }

    pub fn text_settings(&self) -> LoadSettings {
        LoadSettings {
            quantization: self.text_quantization,
            ..LoadSettings::default()
        }
    }

    pub fn transformer_settings(&self) -> LoadSettings {
        LoadSettings {
            quantization: self.transformer_quantization,
            activations: self.activations,
            ..LoadSettings::default()
        }
    }
}

/// Whether a folder holds such a model.
pub(super) fn is_ours(folder: &ModelFolder) -> bool {
    let place = ComponentFolder::new(folder, transformer::COMPONENT.folders[0]);
    let config = place
        .has_config()
        .then(|| place.config_json().ok())
        .flatten();
    let component = config.and_then(|config| registry::of_config(&config));
    component.is_some_and(|component| std::ptr::eq(component, &transformer::COMPONENT))
}

/// Everything that is known of a model before its weights are read.
pub(super) struct Files {
    pub label: String,
    pub transformer: Opened<dyn ComponentConfig>,
    pub config: VideoTransformerConfig,
    pub autoencoder: Opened<dyn ComponentConfig>,
    pub autoencoder_config: VideoAutoencoderConfig,
    pub text: Opened<LlavaConfig>,
    pub tokenizer: Tokenizer,
    pub pooled: Opened<ClipTextConfig>,
    pub pooled_tokenizer: Tokenizer,
    pub preparation: Preparation,
    /// How far noise levels are moved.
    pub shift: f64,
    /// Where none is asked for.
    pub guidance: f32,
    /// What else the folder decides where a request does not.
    pub defaults: Defaults,
    /// Keys of the configurations that nothing reads, each with its file.
    pub unread_keys: Vec<String>,
}

impl Files {
    pub fn open(
        folder: &ModelFolder,
        settings: &OpenSettings,
        options: &LoadOptions,
    ) -> Result<Self> {
        let wanted = options.wanted();
        let place = ComponentFolder::new(folder, transformer::COMPONENT.folders[0]);
        let config = place.config(VideoTransformerConfig::from_json)?;
        let transformer = place.open_as(&transformer::COMPONENT, &wanted)?;
        low_bit_settings::check(
            options.activations,
            options.transformer_quantization,
            transformer.is_low_bit(),
        )?;
        let wanted = wanted.without_low_bit();
        let beside = part(
            folder,
            settings,
            &keys::VAE,
            autoencoder::COMPONENT.folders[0],
        )?;
        let autoencoder_config = beside.config(VideoAutoencoderConfig::from_json)?;
        let autoencoder = beside.open_as(&autoencoder::COMPONENT, &wanted)?;
        let texts = part(
            folder,
            settings,
            &keys::TEXT_ENCODER,
            llava::COMPONENT.folders[0],
        )?;
        let text = texts.open(
            |bytes, label| LlavaConfig::from_json(bytes, label).map(Box::new),
            &wanted,
        )?;
        let wholes = part(
            folder,
            settings,
            &video_keys::TEXT_ENCODER_2,
            clip::COMPONENT.folders[0],
        )?;
        let pooled = wholes.open(
            |bytes, label| ClipTextConfig::from_json(bytes, label).map(Box::new),
            &wanted,
        )?;
        let usual = GUIDANCE[usize::from(!config.guidance_embeds)];
        let defaults = Defaults::open(folder)?;
        let mut unread_keys = Vec::new();
        for place in [&place, &beside, &texts, &wholes] {
            unread_keys.extend(place.unread_keys()?);
        }
        let files = Self {
            label: folder.label(),
            transformer,
            autoencoder,
            autoencoder_config,
            tokenizer: tokenizer_of(folder, &texts, "tokenizer", text.config.text.vocab_size)?,
            pooled_tokenizer: tokenizer_of(
                folder,
                &wholes,
                "tokenizer_2",
                pooled.config.vocab_size,
            )?,
            preparation: preparation(folder, &text.config)?,
            text,
            pooled,
            shift: shift(folder)?,
            guidance: defaults.guidance.unwrap_or(usual),
            defaults,
            config,
            unread_keys,
        };
        files.check_together()?;
        Ok(files)
    }

    fn check_together(&self) -> Result<()> {
        let disagree = |message: String| Err(Error::folder(&self.label, message));
        let latent = self.autoencoder_config.latent_channels;
        let seen = match self.config.image_condition_type {
            Some(ImageCondition::LatentConcat) => 2 * latent + 1,
            _ => latent,
        };
        for (part, key, has, wants) in [
            (
                "autoencoder's",
                "latent_channels",
                latent,
                self.config.out_channels,
            ),
            (
                "transformer's",
                "in_channels",
                self.config.in_channels,
                seen,
            ),
            (
                "text encoder's",
                "hidden_size",
                self.text.config.text.hidden_size,
                self.config.text_embed_dim,
            ),
            (
                "CLIP text encoder's",
                "hidden_size",
                self.pooled.config.hidden_size,
                self.config.pooled_projection_dim,
            ),
        ] {
            if has != wants {
                return disagree(format!(
                    "the {part} `{key}` is {has}, but the other parts go with {wants}; they do not belong together"
                ));
            }
        }
        if self.config.image_condition_type.is_some() && self.text.config.vision.is_none() {
            return disagree(
                "the transformer begins clips with a picture, but the text encoder reads texts alone; expected \
                 LLaVA, which `text-encoder` names"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// How it is shown a first frame.
    pub fn condition(&self) -> Option<ImageCondition> {
        self.config.image_condition_type
    }

    /// Rows and columns must be multiples of this many pixels.
    pub fn multiple(&self) -> usize {
        self.autoencoder_config.spatial_compression_ratio * self.config.patch_size
    }

    /// Latent frames of a clip.
    pub fn latent_frames(&self, frames: usize) -> usize {
        (frames - 1) / self.autoencoder_config.temporal_compression_ratio + 1
    }

    pub fn load_transformer(
        &self,
        options: &LoadOptions,
        watcher: &Option<InputWatcher>,
    ) -> Result<VideoTransformer> {
        let settings = options.transformer_settings();
        let weights = self.transformer.parameters(&settings)?;
        let weights = low_bit_settings::watched(weights, watcher).build()?;
        Ok(VideoTransformer::load(&self.config, &weights)?)
    }
}

/// A component's folder: the one that an option names, or the model's own.
fn part(
    folder: &ModelFolder,
    settings: &OpenSettings,
    key: &'static Key<String>,
    name: &str,
) -> Result<ComponentFolder> {
    match settings.folder(key)? {
        Some(given) => ComponentFolder::find(&given, &[name]).map_err(|error| error.of(key.name())),
        None => Ok(ComponentFolder::new(folder, name)),
    }
}

/// A tokenizer in its own folder, or beside the text encoder.
fn tokenizer_of(
    folder: &ModelFolder,
    encoder: &ComponentFolder,
    name: &str,
    rows: usize,
) -> Result<Tokenizer> {
    let own = ComponentFolder::new(folder, name);
    let place = match tokenizer::is_in(encoder) {
        true => encoder,
        false => &own,
    };
    let settings = tokenizer::settings(place)?;
    let read = tokenizer::open(place, &settings, "clips need one for each text encoder")?;
    tokenizer::check_rows(&read, rows, place.place())?;
    Ok(read)
}

fn preparation(folder: &ModelFolder, text: &LlavaConfig) -> Result<Preparation> {
    match &text.vision {
        Some(vision) => Preparation::of(folder, PREPARATION, vision.encoder.image_size),
        None => Ok(Preparation::default()),
    }
}

fn shift(folder: &ModelFolder) -> Result<f64> {
    if !folder.exists(SCHEDULER) {
        return Ok(SHIFT);
    }
    let wrong = |message: String| {
        Err(Error::config(
            format!("{}/{SCHEDULER}", folder.label()),
            message,
        ))
    };
    let file: Value = folder.read_json(SCHEDULER)?;
    if let Some(class) = file.get("_class_name").and_then(Value::as_str)
        && class != EULER
    {
        return wrong(format!(
            "`_class_name` is {}; expected {EULER}",
            shown(class)
        ));
    }
    for key in [
        "use_dynamic_shifting",
        "invert_sigmas",
        "stochastic_sampling",
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
    ] {
        if file.get(key).and_then(Value::as_bool) == Some(true) {
            return wrong(format!(
                "`{key}` is true; this model's steps are taken without it"
            ));
        }
    }
    match file.get("shift") {
        None => Ok(1.0),
        Some(found) => match found.as_f64() {
            Some(shift) if shift > 0.0 && shift <= 100.0 => Ok(shift),
            _ => wrong(format!(
                "`shift` is {}; expected a number above 0, up to 100",
                shown(&found.to_string())
            )),
        },
    }
}
