//! A component in a model's folder: where it lies, what its configuration says, and its weights, whichever
//! way they are published.
//!
//! Everything that opens a component comes through here: the families, the trainers, the quantizer, and
//! the verbs that probe, time, measure and inspect one. Read are the names of diffusers and transformers
//! with their variants, a single file in the authors' names, both containers of 4-bit layers; made-up
//! weights stand in for all of them.

use std::sync::Arc;

use brisk_models::component::{
    Component, ComponentConfig, ComponentWeights, LoadSettings, Neighbour, RandomWeights,
};
use brisk_models::registry;
use brisk_nn::WeightsBuilder;
use brisk_quant::file as quantized;
use brisk_store::{ModelFolder, TensorSource, parse_json, shown};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::memory;

/// A component's configuration in its folder.
const CONFIG: &str = "config.json";

/// The folder of one component.
#[derive(Debug, Clone)]
pub struct ComponentFolder {
    model: ModelFolder,
    name: String,
}

/// Which weights are wanted of a component.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Variant of the weight files, such as `fp16`; plain files are used where it is absent.
    pub variant: Option<String>,
    /// Weights as they were trained last, where their running average lies beside them.
    pub trained: bool,
    /// Weights that are made up at the configuration's shapes, in place of the folder's.
    pub random: Option<RandomWeights>,
}

impl Wanted {
    /// The same of a network that nobody publishes in 4 bits: made-up weights of it are not either.
    pub fn without_low_bit(mut self) -> Self {
        if let Some(random) = &mut self.random {
            random.low_bit = false;
        }
        self
    }
}

/// A component whose configuration was read and whose weights were found.
pub struct Opened<C: ?Sized> {
    /// What its configuration says.
    pub config: Box<C>,
    /// Its weights: of a file, under the network's own names.
    pub weights: ComponentWeights,
}

impl ComponentFolder {
    /// The subfolder `name` of a model's folder; where that is empty, the model's folder itself.
    pub fn new(model: &ModelFolder, name: impl Into<String>) -> Self {
        Self {
            model: model.clone(),
            name: name.into(),
        }
    }

    /// The first of the subfolders `names` that has a configuration, else the folder itself: a pipeline's
    /// folder serves as well as a component's own.
    ///
    /// # Errors
    /// Neither is there; the message lists what was looked for.
    pub fn find(folder: &ModelFolder, names: &[&str]) -> Result<Self> {
        let inside = names.iter().map(|name| Self::new(folder, *name));
        let mut candidates = inside.chain([Self::new(folder, "")]);
        if let Some(found) = candidates.find(|candidate| candidate.has_config()) {
            return Ok(found);
        }
        let places: Vec<String> = names
            .iter()
            .map(|name| format!("{name}/{CONFIG}"))
            .collect();
        Err(Error::folder(
            folder.label(),
            format!(
                "there is no {}: expected {} (a pipeline's folder) or {CONFIG} (the component's own)",
                names.join(" or "),
                places.join(" or ")
            ),
        ))
    }

    /// Its subfolder; empty for the model's folder itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A file's name inside the model's folder.
    pub fn inside(&self, file: &str) -> String {
        match &*self.name {
            "" => file.to_owned(),
            name => format!("{name}/{file}"),
        }
    }

    /// Its own name for messages.
    pub fn place(&self) -> String {
        match &*self.name {
            "" => self.model.label(),
            name => format!("{}/{name}", self.model.label()),
        }
    }

    /// A file's name for messages.
    pub fn label(&self, file: &str) -> String {
        format!("{}/{}", self.model.label(), self.inside(file))
    }

    /// Whether there is such a file.
    pub fn exists(&self, file: &str) -> bool {
        self.model.exists(&self.inside(file))
    }

    /// The bytes of a file that has to be there.
    ///
    /// # Errors
    /// It is not, or cannot be read.
    pub fn read(&self, file: &str) -> Result<Vec<u8>> {
        if !self.exists(file) {
            let name = self.inside(file);
            let message = format!("there is no {name}; the folder is incomplete");
            return Err(Error::folder(self.model.label(), message));
        }
        Ok(self.model.read(&self.inside(file))?.into_owned())
    }

    /// The configuration as it is written.
    ///
    /// # Errors
    /// It is not there, or no JSON.
    pub fn config_json(&self) -> Result<Value> {
        Ok(parse_json(&self.read(CONFIG)?, &self.config_label())?)
    }

    /// The configuration's name for messages.
    pub fn config_label(&self) -> String {
        self.label(CONFIG)
    }

    /// Whether there is a configuration.
    pub fn has_config(&self) -> bool {
        self.exists(CONFIG)
    }

    /// What `read` makes of the configuration; it gets its bytes and its name for messages.
    ///
    /// # Errors
    /// No configuration, or one that `read` refuses.
    pub fn config<T>(
        &self,
        read: impl FnOnce(&[u8], &str) -> brisk_models::Result<T>,
    ) -> Result<T> {
        Ok(read(&self.read(CONFIG)?, &self.config_label())?)
    }

    /// Keys of the configuration that its network's reader does not know, each with the file's name; none where
    /// there is no configuration.
    ///
    /// # Errors
    /// A configuration that is no JSON.
    pub fn unread_keys(&self) -> Result<Vec<String>> {
        if !self.has_config() {
            return Ok(Vec::new());
        }
        let config = self.config_json()?;
        let classes = registry::classes(&config);
        let named = classes.into_iter().find_map(registry::of_class);
        let Some(component) = named.or_else(|| registry::of_config(&config)) else {
            return Ok(Vec::new());
        };
        // The container of few bits is told by its tensors, whatever its own entry says.
        let few_bits = config.pointer("/quantization_config/quant_method");
        let is_read = few_bits.is_some_and(|method| method == "nunchaku_lite");
        let keys = component.unknown_keys(&config).into_iter();
        let keys = keys.filter(|key| !(is_read && *key == "quantization_config"));
        let place = self.inside(CONFIG);
        Ok(keys
            .map(|key| format!("{} ({place})", shown(key)))
            .collect())
    }

    /// [`Self::unread_keys`] of some folders.
    ///
    /// # Errors
    /// As there.
    pub fn unread_keys_of(places: &[Self]) -> Result<Vec<String>> {
        let keys = places.iter().map(Self::unread_keys);
        Ok(keys.collect::<Result<Vec<_>>>()?.concat())
    }

    /// The configuration as one of `component`'s, with what it goes by of the folders beside this one.
    ///
    /// # Errors
    /// As [`Self::config`]; neighbours that do not go with it.
    pub fn component_config(
        &self,
        component: &Component,
        variant: Option<&str>,
    ) -> Result<Box<dyn ComponentConfig>> {
        let mut config = self.config(component.open)?;
        for folder in component.beside {
            let beside = Self::new(&self.model, *folder);
            if !beside.has_config() {
                continue;
            }
            config.attach(&Neighbour {
                folder,
                config: &beside.read(CONFIG)?,
                label: &beside.config_label(),
                weights: &|| self.model.open_component(folder, variant),
            })?;
        }
        for folder in config.inside() {
            let inside = Self::new(&self.model, self.inside(&folder));
            if !inside.has_config() {
                continue;
            }
            config.attach(&Neighbour {
                folder: &folder,
                config: &inside.read(CONFIG)?,
                label: &inside.config_label(),
                weights: &|| self.model.open_component(inside.name(), variant),
            })?;
        }
        Ok(config)
    }

    /// The weights as they are stored, of this variant where there is one.
    ///
    /// # Errors
    /// None are there, or they cannot be read.
    pub fn weights(&self, variant: Option<&str>) -> Result<Arc<dyn TensorSource>> {
        quantized::open_component(&self.model, &self.name, variant)
            .map_err(|error| Error::quantized(error, self.model.label()))
    }

    /// Reads the configuration and finds the weights, of which only headers are looked at.
    ///
    /// # Errors
    /// As [`Self::config`] and [`Self::weights`]; a file in a known layout that contradicts itself.
    pub fn open<C: ComponentConfig + ?Sized>(
        &self,
        read: impl FnOnce(&[u8], &str) -> brisk_models::Result<Box<C>>,
        wanted: &Wanted,
    ) -> Result<Opened<C>> {
        let config = self.config(read)?;
        self.opened(config, wanted)
    }

    /// As [`Self::open`], with the [`Self::component_config`] of a component.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::component_config`].
    pub fn open_as(
        &self,
        component: &Component,
        wanted: &Wanted,
    ) -> Result<Opened<dyn ComponentConfig>> {
        let config = self.component_config(component, wanted.variant.as_deref())?;
        self.opened(config, wanted)
    }

    fn opened<C: ComponentConfig + ?Sized>(
        &self,
        config: Box<C>,
        wanted: &Wanted,
    ) -> Result<Opened<C>> {
        if let Some(random) = wanted.random {
            let weights = ComponentWeights::Random(random);
            return Ok(Opened { config, weights });
        }
        let variant = wanted.variant.as_deref();
        let weights = match wanted.trained {
            true => self.model.open_trained(&self.name, variant)?,
            false => self.weights(variant)?,
        };
        Opened::new(config, weights)
    }
}

/// What a user should know of [`ComponentFolder::unread_keys`]; none where there are none.
pub fn unread_warning(keys: &[String]) -> Option<String> {
    (!keys.is_empty()).then(|| {
        format!(
            "nothing reads {} of the model's configuration; the reference may compute something by it",
            keys.join(", ")
        )
    })
}

impl<C: ComponentConfig + ?Sized> Opened<C> {
    /// From a configuration and stored weights that belong together.
    ///
    /// # Errors
    /// A file in a known layout that contradicts itself.
    pub fn new(config: Box<C>, source: Arc<dyn TensorSource>) -> Result<Self> {
        let weights = ComponentWeights::Stored(config.plain_names(source)?);
        Ok(Self { config, weights })
    }

    /// Its parameters, loaded so.
    ///
    /// # Errors
    /// A file of another model, or one that contradicts itself.
    pub fn parameters(&self, settings: &LoadSettings) -> Result<WeightsBuilder> {
        Ok(self.config.weights(&self.weights, settings)?)
    }

    /// Its stored tensors under the network's own names; none where weights are made up.
    pub fn stored(&self) -> Option<&Arc<dyn TensorSource>> {
        match &self.weights {
            ComponentWeights::Stored(source) => Some(source),
            ComponentWeights::Random(_) => None,
        }
    }

    /// Whether it is a file with 4-bit layers.
    pub fn is_low_bit(&self) -> bool {
        self.stored()
            .is_some_and(|source| quantized::is_quantized(&**source))
    }

    /// Number of stored values.
    pub fn count(&self) -> u64 {
        match self.stored() {
            Some(source) => memory::stored_values(&**source),
            None => self.config.parameters(),
        }
    }

    /// Bytes that the weights take as they are stored.
    pub fn bytes(&self) -> u64 {
        match &self.weights {
            ComponentWeights::Stored(source) => memory::stored_bytes(&**source),
            ComponentWeights::Random(random) => {
                (self.config.parameters() as f64 * random.bytes_per_weight()) as u64
            }
        }
    }

    /// Bytes of a stored value, on average.
    pub fn bytes_per_value(&self) -> f64 {
        self.bytes() as f64 / self.count().max(1) as f64
    }
}
