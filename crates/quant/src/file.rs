//! The containers: one safetensors file with its configuration as metadata, the older folder of two
//! files, and the part of a diffusers configuration that says what is quantised.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use brisk_store::{
    Dtype, Error as StoreError, ModelFolder, SafetensorsFile, TensorSource, TensorView,
    open_weights, parse_json,
};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::integer::{GROUP, MICRO_GROUP};
use crate::record::{Awq, Record, SUFFIXES};

/// The older folder's files: quantised layers, and the rest.
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

/// A quantised model's tensors, of whichever container.
#[derive(Clone)]
pub struct NunchakuFile {
    source: Arc<dyn TensorSource>,
    metadata: BTreeMap<String, String>,
    label: String,
}

/// Whether a source holds layers in this format.
pub fn is_quantised(source: &dyn TensorSource) -> bool {
    source.names().iter().any(|name| name.ends_with(".qweight"))
}

impl NunchakuFile {
    /// Opens a single file, or a folder: of the older two files, or of weights under the names that
    /// diffusers and transformers use.
    ///
    /// # Errors
    /// A file that cannot be read, holds no quantised layer, or whose configuration contradicts its
    /// tensors.
    pub fn open(path: &Path) -> Result<Self> {
        let label = path.display().to_string();
        if path.is_dir() {
            return Self::new(open_folder(path)?, BTreeMap::new(), label);
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
                "no quantised layers: expected tensors that end in .qweight, as SVDQuant files have"
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

    /// Prefixes and kinds of the quantised layers, sorted.
    pub fn layers(&self) -> Vec<(String, LayerKind)> {
        let names = self.source.names();
        let prefix = |name: &String| {
            let prefix = name.strip_suffix(".qweight")?;
            let packed = self.source.info(name)?.0;
            let kind = match packed {
                Dtype::I32 | Dtype::I16 => LayerKind::W4A16,
                _ => LayerKind::W4A4,
            };
            Some((prefix.to_owned(), kind))
        };
        names.iter().filter_map(prefix).collect()
    }

    /// Whether there is a quantised layer of this prefix.
    pub fn has_layer(&self, prefix: &str) -> bool {
        self.source.info(&format!("{prefix}.qweight")).is_some()
    }

    /// Names of the tensors that belong to no quantised layer, sorted.
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

    /// Reads every quantised layer, only to see whether it is sound.
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

    fn error(&self, problem: String) -> Error {
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
    let quantisation = json!({
        "method": "svdquant", "weight": number, "activation": number, "rank": rank,
    });
    BTreeMap::from([
        ("config".to_owned(), config.to_string()),
        ("model_class".to_owned(), model_class.to_owned()),
        ("quantization_config".to_owned(), quantisation.to_string()),
    ])
}

/// The `quantization_config` of diffusers' `nunchaku_lite` quantiser: which modules are replaced.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LiteConfig {
    /// Modules in W4A4.
    pub w4a4: Vec<String>,
    /// Rank of their branches.
    pub rank: usize,
    /// `int4` or `nvfp4`.
    pub precision: String,
    /// Modules in W4A16.
    pub w4a16: Vec<String>,
}

impl LiteConfig {
    /// The `quantization_config` that [`LiteConfig::from_config`] reads.
    pub fn to_json(&self) -> Value {
        let mut found = json!({"quant_method": "nunchaku_lite", "compute_dtype": "bfloat16"});
        if !self.w4a4.is_empty() {
            let group = match self.precision.as_str() {
                "nvfp4" => MICRO_GROUP,
                _ => GROUP,
            };
            found["svdq_w4a4"] = json!({
                "precision": self.precision, "group_size": group, "rank": self.rank,
                "targets": self.w4a4,
            });
        }
        if !self.w4a16.is_empty() {
            found["awq_w4a16"] = json!({
                "precision": "int4", "group_size": GROUP, "targets": self.w4a16,
            });
        }
        found
    }

    /// From a model's configuration; `None` where it is not quantised by `nunchaku_lite`.
    ///
    /// # Errors
    /// A key that is missing or of another kind, a precision or group size that does not exist.
    pub fn from_config(config: &Value, label: &str) -> Result<Option<Self>> {
        let quantisation = &config["quantization_config"];
        if quantisation["quant_method"] != "nunchaku_lite" {
            return Ok(None);
        }
        let wrong = |key: &str, found: &Value, expected: &str| Error::File {
            file: label.to_owned(),
            problem: format!("quantization_config.{key} is {found}, expected {expected}"),
        };
        let targets = |key: &str| -> Result<Vec<String>> {
            let found = &quantisation[key]["targets"];
            let list = found
                .as_array()
                .ok_or_else(|| wrong(&format!("{key}.targets"), found, "a list of module names"))?;
            let name = |name: &Value| {
                let name = name.as_str().map(str::to_owned);
                name.ok_or_else(|| {
                    wrong(&format!("{key}.targets"), found, "a list of module names")
                })
            };
            list.iter().map(name).collect()
        };
        let size = |key: &str, part: &str| -> Result<u64> {
            let found = &quantisation[key][part];
            let expected = "a whole number";
            found
                .as_u64()
                .ok_or_else(|| wrong(&format!("{key}.{part}"), found, expected))
        };
        let mut lite = Self::default();
        if !quantisation["svdq_w4a4"].is_null() {
            let found = &quantisation["svdq_w4a4"]["precision"];
            let group = match found.as_str() {
                Some("int4") => GROUP,
                Some("nvfp4") => MICRO_GROUP,
                _ => return Err(wrong("svdq_w4a4.precision", found, "\"int4\" or \"nvfp4\"")),
            };
            lite.precision = found.as_str().unwrap_or_default().to_owned();
            if size("svdq_w4a4", "group_size")? != group as u64 {
                let found = &quantisation["svdq_w4a4"]["group_size"];
                return Err(wrong("svdq_w4a4.group_size", found, &group.to_string()));
            }
            lite.rank = size("svdq_w4a4", "rank")? as usize;
            lite.w4a4 = targets("svdq_w4a4")?;
        }
        if !quantisation["awq_w4a16"].is_null() {
            if size("awq_w4a16", "group_size")? != GROUP as u64 {
                let found = &quantisation["awq_w4a16"]["group_size"];
                return Err(wrong("awq_w4a16.group_size", found, "64"));
            }
            lite.w4a16 = targets("awq_w4a16")?;
        }
        Ok(Some(lite))
    }

    /// Checks that exactly these modules are quantised in a file.
    ///
    /// # Errors
    /// The first module that the file and the configuration disagree about.
    pub fn check(&self, file: &NunchakuFile) -> Result<()> {
        let found: BTreeMap<String, LayerKind> = file.layers().into_iter().collect();
        let listed = [
            (&self.w4a4, LayerKind::W4A4),
            (&self.w4a16, LayerKind::W4A16),
        ];
        for (names, kind) in listed {
            for name in names {
                if found.get(name) != Some(&kind) {
                    return Err(file.error(format!(
                        "quantization_config lists {name:?} as {kind:?}, but the file has no such layer \
                         (tensor {:?})",
                        format!("{name}.qweight")
                    )));
                }
            }
        }
        match found
            .keys()
            .find(|name| !listed.iter().any(|(names, _)| names.contains(name)))
        {
            Some(name) => Err(file.error(format!(
                "tensor {:?} belongs to a layer that quantization_config does not list",
                format!("{name}.qweight")
            ))),
            None => Ok(()),
        }
    }
}

/// All weights of a transformer's folder.
fn open_folder(path: &Path) -> Result<Arc<dyn TensorSource>> {
    if FOLDER_FILES.iter().any(|name| path.join(name).exists()) {
        let parts = FOLDER_FILES
            .iter()
            .map(|name| open_weights(&path.join(name)))
            .collect::<Result<Vec<_>, _>>()?;
        return join(parts);
    }
    let folder = ModelFolder::Disk(path.to_owned());
    folder
        .open_component("", None)
        .map_err(|error| match error {
            StoreError::Missing { place, problem } => Error::File {
                file: place,
                problem: format!("{problem}; or the two files {}", FOLDER_FILES.join(" and ")),
            },
            other => other.into(),
        })
}

/// Several sources as one.
struct Joined {
    parts: Vec<Arc<dyn TensorSource>>,
}

/// Tensors of all `parts`, which must not share a name.
///
/// # Errors
/// A name that is there twice.
pub fn join(parts: Vec<Arc<dyn TensorSource>>) -> Result<Arc<dyn TensorSource>> {
    let mut seen = BTreeSet::new();
    for part in &parts {
        for name in part.names() {
            if !seen.insert(name.clone()) {
                return Err(Error::Tensor {
                    file: part.origin(&name),
                    tensor: name,
                    problem: "it is in another file of the model too".to_owned(),
                });
            }
        }
    }
    Ok(Arc::new(Joined { parts }))
}

impl TensorSource for Joined {
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.parts.iter().flat_map(|part| part.names()).collect();
        names.sort();
        names
    }

    fn info(&self, name: &str) -> Option<(Dtype, Vec<usize>)> {
        self.parts.iter().find_map(|part| part.info(name))
    }

    fn view(&self, name: &str) -> Result<Option<TensorView<'_>>, StoreError> {
        match self.parts.iter().find(|part| part.info(name).is_some()) {
            Some(part) => part.view(name),
            None => Ok(None),
        }
    }

    fn origin(&self, name: &str) -> String {
        let holder = self.parts.iter().find(|part| part.info(name).is_some());
        match holder.or(self.parts.first()) {
            Some(part) => part.origin(name),
            None => "no file".to_owned(),
        }
    }
}
