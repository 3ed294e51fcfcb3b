//! Low-rank adapters (LoRA, 2106.09685): files of any trainer, and what they add to a model's weights.

mod apply;
mod names;
mod settings;

pub(crate) use apply::Adapters;

use crate::error::{Error, Result};
use brisk_store::{ModelFolder, TensorSource, open_weights_with_metadata};
use names::Part;
use settings::AllSettings;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// PEFT's configuration, beside its tensors.
const CONFIG_FILE: &str = "adapter_config.json";

/// Names of adapter files in a folder, without their extension.
const STEMS: [&str; 2] = ["pytorch_lora_weights", "adapter_model"];

/// The adapters of one file: for some layers a pair `A` `[rank, inputs]` and `B` `[outputs, rank]`, of
/// which `scale·(alpha/rank)·B·A` is added to the layer's weight.
///
/// Read are the namings of diffusers (`transformer.LAYER.lora_A.weight`), PEFT (`base_model.model.`),
/// ComfyUI (`diffusion_model.`) and kohya's scripts (`lora_unet_LAYER_WITH_UNDERSCORES.lora_down.weight`).
/// Alpha is the tensor `LAYER.alpha`, else what the file's metadata or PEFT's `adapter_config.json` says,
/// else the rank. Biases of `B` and PEFT's DoRA (2402.09353) are honoured; everything else that a file may
/// hold is refused by name.
///
/// Only the tensors' sizes are read on opening. [`crate::WeightsBuilder::lora`] adds it to a model.
pub struct Lora {
    label: String,
    source: Arc<dyn TensorSource>,
    layers: Vec<Layer>,
    /// What a user should know of what the files say.
    notes: Vec<String>,
    /// Every name that a model may know a layer by, to its place in `layers`.
    places: BTreeMap<String, usize>,
    /// The same for names whose dots are written as underscores.
    underscored: BTreeMap<String, usize>,
    /// Names of `places` with underscores for their dots, to find a layer that has names of both kinds.
    flattened: BTreeMap<String, usize>,
}

/// One layer's adapter: names of tensors in the file, and the numbers.
#[derive(Debug)]
struct Layer {
    name: String,
    down: String,
    up: String,
    bias: Option<String>,
    magnitude: Option<String>,
    rank: usize,
    alpha: f32,
    /// What alpha is divided by: the rank, or its root.
    divisor: f32,
}

impl fmt::Debug for Lora {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lora({}, {} layers)", self.label, self.layers.len())
    }
}

impl Lora {
    /// Opens an adapter file, or the one of a folder. PEFT's `adapter_config.json` beside it counts where
    /// the file has PEFT's name or names.
    ///
    /// # Errors
    /// A file that cannot be read, is no adapter, contradicts itself, or holds what is not read: each
    /// named with what to do.
    pub fn open(path: &Path) -> Result<Self> {
        let file = if path.is_dir() {
            file_in(path)?
        } else {
            path.to_owned()
        };
        let (source, metadata) = open_weights_with_metadata(&file)?;
        let names = source.names();
        if names.is_empty() {
            return Err(Error::Config(format!(
                "{} holds no tensors, expected those of an adapter",
                file.display()
            )));
        }
        let stem = file.file_stem().and_then(|stem| stem.to_str());
        let is_peft =
            stem == Some(STEMS[1]) || names.iter().any(|name| name.starts_with(names::PEFT));
        let folder = ModelFolder::Disk(file.parent().unwrap_or(Path::new("")).to_owned());
        let beside = file.with_file_name(CONFIG_FILE).display().to_string();
        let has_config = folder.exists(CONFIG_FILE);
        let mut lora = if is_peft && has_config {
            let config = folder.read(CONFIG_FILE)?;
            Self::new(source, &metadata, Some((&config, &beside)))?
        } else {
            Self::new(source, &metadata, None)?
        };
        if is_peft != has_config && !lora.says_strength(&metadata) {
            lora.notes.push(match has_config {
                true => format!(
                    "{beside} is not read, as the names in {} are not PEFT's: its strength is alpha = rank",
                    lora.label
                ),
                false => format!(
                    "{}: there is no {CONFIG_FILE} beside it, where PEFT keeps an adapter's strength; alpha = \
                     rank is taken",
                    lora.label
                ),
            });
        }
        Ok(lora)
    }

    /// Whether the file itself says a layer's alpha.
    fn says_strength(&self, metadata: &BTreeMap<String, String>) -> bool {
        let names = self.source.names();
        metadata.contains_key(settings::METADATA)
            || names.iter().any(|name| name.ends_with(".alpha"))
    }

    /// From tensors at hand with the metadata of their file, and the bytes and label of PEFT's
    /// configuration where there is one, which counts before the metadata.
    ///
    /// # Errors
    /// As [`Lora::open`].
    pub fn new(
        source: Arc<dyn TensorSource>,
        metadata: &BTreeMap<String, String>,
        config: Option<(&[u8], &str)>,
    ) -> Result<Self> {
        let names = source.names();
        let label = names.first().map_or_else(
            || "an adapter file without tensors".to_owned(),
            |name| source.origin(name),
        );
        let layers = names::layers(&names, &label)?;
        let settings = match (config, metadata.get(settings::METADATA)) {
            (Some((bytes, label)), _) => AllSettings::from_config(bytes, label)?,
            (None, Some(text)) => AllSettings::from_metadata(text, &label)?,
            (None, None) => AllSettings::default(),
        };
        let mut lora = Self {
            layers: Vec::new(),
            notes: Vec::new(),
            places: BTreeMap::new(),
            underscored: BTreeMap::new(),
            flattened: BTreeMap::new(),
            source,
            label,
        };
        for (name, parts) in layers {
            let layer = lora.layer(name, parts, &settings)?;
            lora.add(layer)?;
        }
        let unread: Vec<&str> = settings.unread().collect();
        if !unread.is_empty() {
            lora.notes.push(format!(
                "nothing reads {} of {}; its trainer may compute something by it",
                unread.join(", "),
                config.map_or(settings::METADATA, |(_, label)| label)
            ));
        }
        Ok(lora)
    }

    /// The file, for messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Looks at every value.
    ///
    /// # Errors
    /// A tensor that holds NaN or infinity, by name.
    pub fn check_values(&self) -> Result<()> {
        for layer in &self.layers {
            let optional = [&layer.bias, &layer.magnitude].into_iter().flatten();
            for name in [&layer.down, &layer.up].into_iter().chain(optional) {
                self.values(name)?;
            }
        }
        Ok(())
    }

    /// The values of a tensor.
    fn values(&self, name: &str) -> Result<Vec<f32>> {
        let label = &self.label;
        let view = self.source.view(name)?;
        let view = view.ok_or_else(|| Error::Config(format!("{label} lacks {name}")))?;
        let values = view.to_f32()?;
        if !brisk_kernels::finite::all_finite(&values) {
            return Err(Error::Config(format!(
                "{label}: {name} holds NaN or infinity"
            )));
        }
        Ok(values)
    }

    /// What a user should know: settings that nothing reads, a strength that nothing says.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Names of the adapted layers, as the file has them.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = &str> {
        self.layers.iter().map(|layer| layer.name.as_str())
    }

    fn layer(
        &self,
        name: String,
        mut parts: BTreeMap<Part, String>,
        settings: &AllSettings,
    ) -> Result<Layer> {
        let (Some(down), Some(up)) = (parts.remove(&Part::Down), parts.remove(&Part::Up)) else {
            let found: Vec<&str> = parts.values().map(String::as_str).collect();
            return Err(Error::Config(format!(
                "{}: layer {name} lacks half of its pair{}; both A (down) and B (up) are needed",
                self.label,
                if found.is_empty() {
                    String::new()
                } else {
                    format!(" beside {}", found.join(", "))
                }
            )));
        };
        let shape = |tensor: &str| self.source.info(tensor).map_or_else(Vec::new, |(_, s)| s);
        let (down_shape, up_shape) = (shape(&down), shape(&up));
        let rank = down_shape.first().copied().unwrap_or(0);
        if rank == 0 || up_shape.get(1) != Some(&rank) {
            return Err(Error::Config(format!(
                "{}: layer {name}: A is {down_shape:?} and B is {up_shape:?}; expected [rank, inputs] and \
                 [outputs, rank]",
                self.label
            )));
        }
        let own = settings.of(&name, &self.label)?;
        let stored = match parts.get(&Part::Alpha) {
            Some(alpha) => Some(self.number(alpha)?),
            None => None,
        };
        let told = || own.and_then(|own| own.alpha(&names::plain(&name)));
        let magnitude = parts.remove(&Part::Magnitude);
        if magnitude.is_none() && own.is_some_and(|own| own.dora) {
            return Err(Error::Config(format!(
                "{}: layer {name} has no lora_magnitude_vector, although use_dora is set",
                self.label
            )));
        }
        if let Some(own) = own {
            if own.bias && !parts.contains_key(&Part::Bias) {
                return Err(Error::Config(format!(
                    "{}: layer {name} has no lora_B.bias, although lora_bias is set",
                    self.label
                )));
            }
            if !own.allows(rank) {
                return Err(Error::Config(format!(
                    "{}: layer {name} has rank {rank}, but its settings say {}; the tensors and the settings \
                     (r, rank_pattern) are of two adapters",
                    self.label,
                    own.ranks()
                )));
            }
        }
        let root = own.is_some_and(|own| own.root_of_rank);
        Ok(Layer {
            alpha: stored.or_else(told).unwrap_or(rank as f32),
            divisor: if root {
                (rank as f32).sqrt()
            } else {
                rank as f32
            },
            rank,
            down,
            up,
            bias: parts.remove(&Part::Bias),
            magnitude,
            name,
        })
    }

    fn number(&self, tensor: &str) -> Result<f32> {
        let values = match self.source.view(tensor)? {
            Some(view) => view.to_f32()?,
            None => Vec::new(),
        };
        match values[..] {
            [value] if value.is_finite() => Ok(value),
            _ => Err(Error::Config(format!(
                "{}: {tensor} is no single finite number",
                self.label
            ))),
        }
    }

    fn add(&mut self, layer: Layer) -> Result<()> {
        let place = self.layers.len();
        let mut earlier = None;
        if let Some(name) = names::underscored(&layer.name) {
            earlier = self.flattened.get(name).copied();
            earlier = earlier.or(self.underscored.insert(name.to_owned(), place));
        }
        for name in names::plain(&layer.name) {
            let flat = name.replace('.', "_");
            earlier = earlier.or(self.underscored.get(&flat).copied());
            self.flattened.insert(flat, place);
            earlier = earlier.or(self.places.insert(name.to_owned(), place));
        }
        if let Some(earlier) = earlier {
            return Err(Error::Config(format!(
                "{}: {} and {} are one layer under two names",
                self.label, self.layers[earlier].name, layer.name
            )));
        }
        self.layers.push(layer);
        Ok(())
    }

    /// Place of the adapter of a model's layer.
    fn find(&self, layer: &str) -> Option<usize> {
        let dotted = self.places.get(layer);
        let found = dotted.or_else(|| self.underscored.get(&layer.replace('.', "_")));
        found.copied()
    }
}

/// The one adapter file of a folder.
fn file_in(folder: &Path) -> Result<PathBuf> {
    let known = STEMS.iter().flat_map(|stem| {
        ["safetensors", "bin"].map(|extension| folder.join(format!("{stem}.{extension}")))
    });
    let known: Vec<PathBuf> = known.filter(|file| file.is_file()).collect();
    match &known[..] {
        [] => {}
        [file] => return Ok(file.clone()),
        [first, second, ..] if first.with_extension("") == second.with_extension("") => {
            return Ok(first.clone());
        }
        [first, second, ..] => {
            return Err(Error::Config(format!(
                "{} and {} are both there; name the file of the two",
                first.display(),
                second.display()
            )));
        }
    }
    let listed = std::fs::read_dir(folder).map_err(|error| {
        Error::Config(format!("{}: cannot be listed: {error}", folder.display()))
    })?;
    let files = listed.flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
    match &files.collect::<Vec<_>>()[..] {
        [file] => Ok(file.clone()),
        found => Err(Error::Config(format!(
            "{} holds {} .safetensors files and no {}.safetensors; name the adapter's file itself",
            folder.display(),
            found.len(),
            STEMS.join(".safetensors or ")
        ))),
    }
}

/// An adapter as it is asked for: a file or folder, and its strength.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraFile {
    /// File or folder.
    pub path: PathBuf,
    /// What its product is multiplied with; 1 as it was trained.
    pub scale: f32,
}

impl LoraFile {
    /// From `FILE` or `FILE:SCALE`. What follows the last colon is a scale where it is a number and there
    /// is no file of the whole name.
    ///
    /// # Errors
    /// A scale that is not finite, or no file name before it.
    pub fn parse(given: impl AsRef<Path>) -> Result<Self> {
        let whole = Self {
            path: given.as_ref().to_owned(),
            scale: 1.0,
        };
        let text = given.as_ref().to_str();
        let Some((path, scale)) = text.and_then(|text| text.rsplit_once(':')) else {
            return Ok(whole);
        };
        let Ok(scale) = scale.parse::<f32>() else {
            return Ok(whole);
        };
        if whole.path.exists() {
            return Ok(whole);
        }
        if path.is_empty() || !scale.is_finite() {
            return Err(Error::Config(format!(
                "{:?}: expected FILE or FILE:SCALE with a finite scale",
                given.as_ref()
            )));
        }
        Ok(Self {
            path: PathBuf::from(path),
            scale,
        })
    }
}
