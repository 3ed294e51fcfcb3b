//! Finds the parts of a model, reads their configurations and opens their weights.

use brisk_models::class_conditional::{self, ClassConditionalConfig};
use brisk_models::component::{ComponentWeights, LoadSettings};
use brisk_models::dcae::{self, AutoencoderConfig};
use brisk_models::registry;
use brisk_nn::{Location, Quantization};
use brisk_store::ModelFolder;

use super::classes::Classes;
use crate::default_guidance::default_guidance;
use crate::device::location;
use crate::error::{Error, Result};
use crate::folder::{ComponentFolder, Opened, Wanted};
use crate::known_prompts::KnownPrompts;
use crate::options::keys;
use crate::request::{OpenSettings, RandomWeights};
use crate::residency::Residency;

/// Longest side of a picture that a model may say it draws, in pixels.
const LONGEST_SIDE: usize = keys::MAX_SIDE as usize;
/// How the names of the autoencoder's tensors begin in a file that holds both networks.
const AUTOENCODER: &str = "autoencoder.";
/// The autoencoder's folder.
const VAE: &str = "vae";

/// How a model is loaded.
#[derive(Debug, Clone)]
pub(super) struct LoadOptions {
    pub variant: Option<String>,
    pub exact: bool,
    pub quantization: Quantization,
    pub residency: Residency,
    /// Where the networks compute.
    pub location: Location,
    random: Option<RandomWeights>,
}

impl LoadOptions {
    pub fn read(settings: &OpenSettings) -> Result<Self> {
        let asked = &settings.options;
        let place = asked.get(&keys::DEVICE).unwrap_or_else(|| "cpu".to_owned());
        let precise = asked.get(&keys::PRECISE).unwrap_or(false);
        let quantization = asked.get(&keys::QUANTIZE_TRANSFORMER);
        let quantization = quantization.unwrap_or_else(|| "none".to_owned());
        Ok(Self {
            variant: asked.get(&keys::VARIANT),
            exact: asked.get(&keys::EXACT).unwrap_or(false),
            quantization: Quantization::from_name(&quantization)?,
            residency: Residency::asked(asked),
            location: location(&place, precise)?,
            random: settings.random,
        })
    }

    fn wanted(&self) -> Wanted {
        let wanted = Wanted {
            variant: self.variant.clone(),
            random: self.random,
            ..Wanted::default()
        };
        wanted.without_low_bit()
    }

    pub fn transformer_settings(&self) -> LoadSettings {
        LoadSettings {
            quantization: self.quantization,
            location: self.location.clone(),
            ..LoadSettings::default()
        }
    }

    pub fn autoencoder_settings(&self) -> LoadSettings {
        LoadSettings {
            exact: self.exact,
            location: self.location.clone(),
            ..LoadSettings::default()
        }
    }
}

/// Where the network of a model's folder lies: in the folder itself or in its `transformer`.
pub(super) fn place(folder: &ModelFolder) -> Option<ComponentFolder> {
    let inside = class_conditional::COMPONENT.folders[0];
    ["", inside].into_iter().find_map(|sub| {
        let place = ComponentFolder::new(folder, sub);
        let config = place.has_config().then(|| place.config_json().ok())??;
        let component = registry::of_config(&config)?;
        std::ptr::eq(component, &class_conditional::COMPONENT).then_some(place)
    })
}

/// Everything that is known of a model before its weights are read.
pub(super) struct Files {
    pub label: String,
    pub transformer: Opened<ClassConditionalConfig>,
    pub vae: Opened<AutoencoderConfig>,
    pub classes: Classes,
    /// Where none is asked for.
    pub guidance: f32,
    pub known_prompts: Option<KnownPrompts>,
    /// Keys of the configurations that nothing reads, each with its file.
    pub unread_keys: Vec<String>,
}

impl Files {
    pub fn open(
        folder: &ModelFolder,
        settings: &OpenSettings,
        options: &LoadOptions,
    ) -> Result<Self> {
        let label = folder.label();
        let Some(network) = place(folder) else {
            let message = "there is no config.json of a class-conditional UViT, DiT, USiT or SiT, and no transformer/config.json";
            return Err(Error::folder(label, message));
        };
        let read = |bytes: &[u8], label: &str| {
            ClassConditionalConfig::from_json(bytes, label).map(Box::new)
        };
        let transformer = network.open(read, &options.wanted())?;
        let vae = open_autoencoder(folder, &network, &transformer.config, settings, options)?;
        let classes = Classes::read(folder, &network, transformer.config.num_classes)?;
        let known_prompts = match (KnownPrompts::read(folder)?, classes.names()) {
            (Some(known), _) => Some(known),
            (None, []) => None,
            (None, names) => Some(KnownPrompts::new(names.to_vec(), [])),
        };
        let mut unread_keys = network.unread_keys()?;
        unread_keys.extend(ComponentFolder::new(folder, VAE).unread_keys()?);
        let guidance = match transformer.config.null_class() {
            Some(_) => default_guidance(folder, usual_guidance(&transformer.config))?,
            None => 1.0,
        };
        let files = Self {
            label,
            transformer,
            vae,
            classes,
            guidance,
            known_prompts,
            unread_keys,
        };
        files.check_together()?;
        Ok(files)
    }

    fn check_together(&self) -> Result<()> {
        let (network, vae) = (&self.transformer.config, &self.vae.config);
        let disagree = |message: String| Err(Error::folder(&self.label, message));
        if network.in_channels != vae.latent_channels {
            return disagree(format!(
                "the network's `in_channels` is {}, the autoencoder's `latent_channels` {}; expected the autoencoder \
                 that it was trained on, which `{}` names",
                network.in_channels,
                vae.latent_channels,
                keys::VAE.name()
            ));
        }
        if vae.in_channels != 3 {
            return disagree(format!(
                "the autoencoder has {} colour channels; expected 3",
                vae.in_channels
            ));
        }
        if self.pixels() > LONGEST_SIDE {
            return disagree(format!(
                "`input_size` {} of {} pixels a cell makes pictures of {} pixels; expected at most {LONGEST_SIDE}",
                network.input_size,
                vae.ratio(),
                self.pixels()
            ));
        }
        Ok(())
    }

    /// Pixels of a picture's side.
    pub fn pixels(&self) -> usize {
        self.transformer
            .config
            .input_size
            .saturating_mul(self.vae.config.ratio())
    }
}

/// The authors' best of each kind of network.
fn usual_guidance(config: &ClassConditionalConfig) -> f32 {
    match config.title() {
        "UViT" => 1.5,
        "DiT" => 1.3,
        _ => 1.2,
    }
}

/// The autoencoder that is given, the one in `vae/`, or the one among the network's own tensors.
fn open_autoencoder(
    folder: &ModelFolder,
    network: &ComponentFolder,
    config: &ClassConditionalConfig,
    settings: &OpenSettings,
    options: &LoadOptions,
) -> Result<Opened<AutoencoderConfig>> {
    let read = |bytes: &[u8], label: &str| dcae::open(bytes, label).map(Box::new);
    let wanted = options.wanted();
    if let Some(given) = settings.folder(&keys::VAE)? {
        let named = |error: Error| error.of(keys::VAE.name());
        let place = ComponentFolder::find(&given, &[VAE]).map_err(named)?;
        return place.open(read, &wanted).map_err(named);
    }
    let own = ComponentFolder::new(folder, VAE);
    if own.has_config() {
        return own.open(read, &wanted);
    }
    let missing = |what: &str| {
        let example = config
            .autoencoder
            .unwrap_or("dc-ae-f32c32-in-1.0-diffusers");
        Error::folder(
            folder.label(),
            format!(
                "there is no {VAE}/config.json, and {what}; expected the autoencoder's folder, or `{}` to name one, such \
                 as mit-han-lab/{example}",
                keys::VAE.name()
            ),
        )
    };
    let Some(name) = config.autoencoder else {
        return Err(missing("no `model_name` of a published checkpoint"));
    };
    let known = Box::new(dcae::native::named_config(name, None)?);
    if let Some(random) = wanted.random {
        let weights = ComponentWeights::Random(random);
        return Ok(Opened {
            config: known,
            weights,
        });
    }
    let both = network.weights(wanted.variant.as_deref())?;
    if !both
        .names()
        .iter()
        .any(|name| name.starts_with(AUTOENCODER))
    {
        return Err(missing(
            "no tensor of the weights file begins with \"autoencoder.\"",
        ));
    }
    Opened::new(known, both)
}
