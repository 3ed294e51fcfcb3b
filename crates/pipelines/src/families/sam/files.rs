//! Where a model lies: a folder with its configuration, or weights alone.

use std::sync::Arc;

use brisk_models::component::LoadSettings;
use brisk_models::sam::{COMPONENT, SamConfig};
use brisk_nn::{Quantization, WeightsBuilder};
use brisk_store::{ModelFolder, TensorSource, open_weights};

use crate::error::{Error, Result};
use crate::folder::{ComponentFolder, Opened, Wanted};
use crate::options::{Options, Scope, keys};
use crate::registry::json_text;
use crate::request::OpenSettings;

const CONFIG: &str = "config.json";
/// What names of tensors begin with in the files of Segment Anything and its relatives.
const PARTS: [&str; 3] = ["mask_decoder.", "sam_mask_decoder.", "prompt_encoder."];

/// A model's files, and how its weights are loaded.
pub(in crate::families) struct Files {
    /// Name for messages.
    pub label: String,
    /// What it was opened with.
    pub opened: Options,
    pub network: Opened<SamConfig>,
    settings: LoadSettings,
}

/// Whether a folder holds a model: its configuration says so, or it has none and its weights do.
pub(in crate::families) fn recognise(folder: &ModelFolder, _given: &Options) -> bool {
    if folder.exists(CONFIG) {
        return json_text(folder, CONFIG, "model_type").is_some_and(|kind| kind == "sam");
    }
    if folder.exists("model_index.json") {
        return false;
    }
    weights(folder, None).is_ok_and(|source| {
        let names = source.names();
        names
            .iter()
            .any(|name| PARTS.iter().any(|part| name.starts_with(part)))
    })
}

/// The weights in a folder, or of a file that stands in its place.
fn weights(folder: &ModelFolder, variant: Option<&str>) -> Result<Arc<dyn TensorSource>> {
    match folder {
        ModelFolder::Disk(path) if path.is_file() => Ok(open_weights(path)?),
        folder => Ok(folder.open_component("", variant)?),
    }
}

impl Files {
    /// Reads the configuration, or what the tensors say of it, and finds the weights.
    ///
    /// # Errors
    /// Files that are missing, damaged or another network's.
    pub fn open(folder: &ModelFolder, settings: &OpenSettings) -> Result<Self> {
        let (label, given) = (folder.label(), &settings.options);
        let wanted = Wanted {
            variant: given.get(&keys::VARIANT),
            random: settings.random,
            ..Wanted::default()
        };
        let network = if folder.exists(CONFIG) {
            let folder = ComponentFolder::new(folder, "");
            let read = |bytes: &[u8], label: &str| SamConfig::from_json(bytes, label).map(Box::new);
            folder.open(read, &wanted.without_low_bit())?
        } else {
            let source = weights(folder, wanted.variant.as_deref())?;
            let config = SamConfig::of_tensors(&*source)
                .map_err(|error| Error::folder(&label, error.to_string()))?;
            Opened::new(Box::new(config), source)?
        };
        let quantization = match given.get(&keys::QUANTIZE_TRANSFORMER) {
            None => Quantization::None,
            Some(name) => Quantization::from_name(&name)?,
        };
        Ok(Self {
            label,
            opened: given.of_scope(Scope::Open),
            network,
            settings: LoadSettings {
                exact: given.get(&keys::EXACT).unwrap_or(false),
                quantization,
                ..LoadSettings::default()
            },
        })
    }

    /// Its parameters.
    ///
    /// # Errors
    /// A file of another model, or one that contradicts itself.
    pub fn parameters(&self) -> Result<WeightsBuilder> {
        self.network.parameters(&self.settings)
    }

    /// Bytes of a weight in memory.
    pub fn bytes_per_weight(&self) -> f64 {
        self.settings
            .quantization
            .bytes_per_value(self.network.bytes_per_value())
    }

    /// Bytes that a pass of the encoder needs at its widest.
    pub fn encoder_bytes(&self) -> u64 {
        let config = &self.network.config;
        4 * config.encode_values() + 12 * (config.encoder_size() as u64).pow(2)
    }

    /// A number of the weights.
    ///
    /// # Errors
    /// They cannot be read, or are made up.
    pub fn fingerprint(&self) -> Result<String> {
        match self.network.stored() {
            Some(source) => Ok(brisk_store::fingerprint(&**source)?),
            None => Ok(format!("made-up weights of {}", COMPONENT.name)),
        }
    }
}
