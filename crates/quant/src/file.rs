//! The containers: one safetensors file with its configuration as metadata, and folders.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use brisk_store::{
    Dtype, Error as StoreError, ModelFolder, SafetensorsFile, TensorSource, parse_json,
};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::integer::{GROUP, MICRO_GROUP};
use crate::joined::join;
use crate::record::{Record, SUFFIXES};
use crate::w4a16::Awq;

/// The older folder's files: quantized layers, and the rest.
pub const FOLDER_FILES: [&str; 2] = [
    "transformer_blocks.safetensors",
    "unquantized_layers.safetensors",
];

/// What a layer of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// 4-bit weights and activations with a branch.
    W4A4,
    /// 4-bit weights, 16-bit activations.
    W4A16,
}

/// A quantized model's tensors, of whichever container.
#[derive(Clone)]
pub struct NunchakuFile {
    source: Arc<dyn TensorSource>,
    metadata: BTreeMap<String, String>,
    label: String,
}

/// Whether a source holds layers in this format.
pub fn is_quantized(source: &dyn TensorSource) -> bool {
    source.names().iter().any(|name| name.ends_with(".qweight"))
}

impl NunchakuFile {
    /// Opens a single file, or a folder: of the older two files, or of weights under the names that
    /// diffusers and transformers use.
    ///
    /// # Errors
    /// A file that cannot be read, holds no quantized layer, or whose configuration contradicts its
    /// tensors.
    pub fn open(path: &Path) -> Result<Self> {
        let label = path.display().to_string();
        if path.is_dir() {
            let folder = ModelFolder::Disk(path.to_owned());
            let source = open_component(&folder, "", None).map_err(|error| match error {
                Error::Store(StoreError::Missing { place, problem }) => Error::File {
                    file: place,
                    problem: format!("{problem}; or the two files {}", FOLDER_FILES.join(" and ")),
                },
                other => other,
            })?;
            return Self::new(source, BTreeMap::new(), label);
        }
        let file = SafetensorsFile::open(path)?;
        let metadata = file.metadata().clone();
        Self::new(Arc::new(file), metadata, label)
    }

    /// From tensors at hand; `metadata` is the file's own table.
    ///
    /// # Errors
    /// As [`NunchakuFile::open`].
    pub fn new(
        source: Arc<dyn TensorSource>,
        metadata: BTreeMap<String, String>,
        label: String,
    ) -> Result<Self> {
        let file = Self {
            source,
            metadata,
            label,
        };
        let layers = file.layers();
        if layers.is_empty() {
            return Err(file.error(
                "no quantized layers: expected tensors that end in .qweight, as SVDQuant files have"
                    .to_owned(),
            ));
        }
        file.check_claims(&layers)?;
        Ok(file)
    }

    /// All tensors.
    pub fn source(&self) -> &Arc<dyn TensorSource> {
        &self.source
    }

    /// The file or folder.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Prefixes and kinds of the quantized layers, sorted.
    pub fn layers(&self) -> Vec<(String, LayerKind)> {
        let names = self.source.names().into_iter();
        let prefixes = names.filter_map(|name| name.strip_suffix(".qweight").map(str::to_owned));
        let kinds = prefixes.filter_map(|prefix| Some((self.kind(&prefix)?, prefix)));
        kinds.map(|(kind, prefix)| (prefix, kind)).collect()
    }

    /// The kind of the quantized layer of this prefix; none where there is none.
    pub fn kind(&self, prefix: &str) -> Option<LayerKind> {
        let (packed, _) = self.source.info(&format!("{prefix}.qweight"))?;
        Some(match packed {
            Dtype::I32 | Dtype::I16 => LayerKind::W4A16,
            _ => LayerKind::W4A4,
        })
    }

    /// Names of the tensors that belong to no quantized layer, sorted.
    pub fn plain_names(&self) -> Vec<String> {
        let layers: BTreeSet<String> = self
            .layers()
            .into_iter()
            .map(|(prefix, _)| prefix)
            .collect();
        let plain = |name: &String| match name.rsplit_once('.') {
            Some((prefix, last)) => !(SUFFIXES.contains(&last) && layers.contains(prefix)),
            None => true,
        };
        self.source.names().into_iter().filter(plain).collect()
    }

    /// Reads a W4A4 layer.
    ///
    /// # Errors
    /// As [`Record::read`].
    pub fn record(&self, prefix: &str) -> Result<Record> {
        Record::read(&*self.source, prefix)
    }

    /// Reads a W4A16 layer.
    ///
    /// # Errors
    /// As [`Awq::read`].
    pub fn awq(&self, prefix: &str) -> Result<Awq> {
        Awq::read(&*self.source, prefix)
    }

    /// Reads every quantized layer, only to see whether it is sound.
    ///
    /// # Errors
    /// The first layer that is not.
    pub fn check(&self) -> Result<()> {
        for (prefix, kind) in self.layers() {
            match kind {
                LayerKind::W4A4 => drop(self.record(&prefix)?),
                LayerKind::W4A16 => drop(self.awq(&prefix)?),
            }
        }
        Ok(())
    }

    /// The model's configuration, where the file brings one.
    ///
    /// # Errors
    /// Metadata that is not JSON.
    pub fn config(&self) -> Result<Option<Value>> {
        self.json("config")
    }

    /// The engine's class for the model, where the file says.
    pub fn model_class(&self) -> Option<&str> {
        self.metadata
            .get("model_class")
            .map(|s| s.trim_matches('"'))
    }

    fn json(&self, key: &str) -> Result<Option<Value>> {
        let parse = |text: &String| {
            let label = format!("{}: metadata {key:?}", self.label);
            parse_json(text.as_bytes(), &label)
        };
        Ok(self.metadata.get(key).map(parse).transpose()?)
    }

    pub(crate) fn error(&self, problem: String) -> Error {
        Error::File {
            file: self.label.clone(),
            problem,
        }
    }

    /// Compares what `quantization_config` says with the tensors.
    fn check_claims(&self, layers: &[(String, LayerKind)]) -> Result<()> {
        let Some(claims) = self.json("quantization_config")? else {
            return Ok(());
        };
        let wrong = |key: &str, found: &Value, expected: String| {
            self.error(format!(
                "metadata \"quantization_config\": {key} is {found}, but {expected}"
            ))
        };
        let method = &claims["method"];
        if !method.is_null() && method != "svdquant" {
            let expected = "only \"svdquant\" files are read".to_owned();
            return Err(wrong("method", method, expected));
        }
        let first = layers.iter().find(|(_, kind)| *kind == LayerKind::W4A4);
        let Some((prefix, _)) = first else {
            return Ok(());
        };
        let info = |name: &str| self.source.info(&format!("{prefix}.{name}"));
        let scales = info("wscales").map(|(dtype, _)| dtype);
        let (group, name) = match scales {
            Some(Dtype::F8E4M3) => (MICRO_GROUP, "fp4_e2m1_all"),
            _ => (GROUP, "int4"),
        };
        let claim = &claims["weight"]["group_size"];
        if claim.as_u64().is_some_and(|size| size != group as u64) {
            let expected = format!("{prefix:?} has groups of {group}");
            return Err(wrong("weight.group_size", claim, expected));
        }
        let claim = &claims["weight"]["dtype"];
        if claim.as_str().is_some_and(|dtype| dtype != name) {
            let expected = format!("{prefix:?} holds {name}");
            return Err(wrong("weight.dtype", claim, expected));
        }
        let factor = info("lora_down").or_else(|| info("proj_down"));
        let rank = factor.and_then(|(_, shape)| shape.get(1).copied());
        let claim = &claims["rank"];
        if let (Some(claimed), Some(rank)) = (claim.as_u64(), rank)
            && claimed != rank as u64
        {
            let expected = format!("the branch of {prefix:?} has rank {rank}");
            return Err(wrong("rank", claim, expected));
        }
        Ok(())
    }
}

/// The metadata of a single file.
pub fn metadata(config: &Value, model_class: &str, rank: usize) -> BTreeMap<String, String> {
    let number = json!({"dtype": "int4", "scale_dtype": null, "group_size": GROUP});
    let quantization = json!({
        "method": "svdquant", "weight": number, "activation": number, "rank": rank,
    });
    BTreeMap::from([
        ("config".to_owned(), config.to_string()),
        ("model_class".to_owned(), model_class.to_owned()),
        ("quantization_config".to_owned(), quantization.to_string()),
    ])
}

/// All weights of a component in the subfolder `sub` of a model (empty: the model's folder itself): the
/// older two files, or what [`ModelFolder::open_component`] finds.
///
/// # Errors
/// A folder without weights, one of the two files alone, or a file that cannot be read.
pub fn open_component(
    folder: &ModelFolder,
    sub: &str,
    variant: Option<&str>,
) -> Result<Arc<dyn TensorSource>> {
    let names = FOLDER_FILES.map(|name| match sub {
        "" => name.to_owned(),
        sub => format!("{sub}/{name}"),
    });
    if names.iter().any(|name| folder.exists(name)) {
        let parts = names.iter().map(|name| folder.open(name));
        return join(parts.collect::<Result<_, _>>()?);
    }
    Ok(folder.open_component(sub, variant)?)
}
