//! Quantising a transformer: what its layers see while it draws, and its parts one after another.
//!
//! ```text
//! pictures of calibration prompts -> Collector: rows of every layer's input
//! for each block, each part:  weights + rows -> brisk_quant::quantise -> one file
//! all files + the 16-bit rest  -> one safetensors file in nunchaku's layout
//! ```
//!
//! A part is written as soon as it is done and read again instead of being done twice, so a run that
//! was stopped goes on where it was.

use brisk_models::sana::{SanaConfig, WEIGHTS_ALONE, quantised_shape};
use brisk_quant::record::{HalfType, Record};
use brisk_quant::sana::{MODEL_CLASS, Part, SanaShape, part_tensors, plain_to_file};
use brisk_quant::{Awq, Calibration, LayerError, Settings, file, quantise};
use brisk_store::{Dtype, OutTensor, SafetensorsFile, TensorSource, write_safetensors};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod collector;
pub mod text_encoder;

pub use collector::Collector;

use crate::error::{Error, Result};

fn input_name(block: usize, part: Part) -> String {
    format!("transformer_blocks.{block}.{}", part.plain_names()[0])
}

/// Name and width of every layer input that [`Job`] needs rows of.
pub fn transformer_inputs(config: &SanaConfig) -> Vec<(String, usize)> {
    let shape = quantised_shape(config);
    let blocks = 0..config.num_layers;
    blocks
        .flat_map(|block| Part::ALL.map(|part| (input_name(block, part), part.size(&shape).1)))
        .collect()
}

/// The rows that were collected of a layer's input.
fn calibration_rows(calibration: &SafetensorsFile, name: &str, width: usize) -> Result<Vec<f32>> {
    let wrong = |problem: String| Error::folder(calibration.origin(name), problem);
    let rows = calibration.view(name)?.ok_or_else(|| {
        wrong(format!(
            "no calibration rows of {name}; delete the file to collect them again"
        ))
    })?;
    if rows.shape.get(1) != Some(&width) {
        return Err(wrong(format!(
            "rows of {name} have shape {:?}, expected {width} columns",
            rows.shape
        )));
    }
    Ok(rows.to_f32()?)
}

/// The `count` values of a stored tensor.
fn stored_values(source: &dyn TensorSource, name: &str, count: usize) -> Result<Vec<f32>> {
    let wrong = |problem: String| Error::folder(source.origin(name), problem);
    let view = source.view(name)?;
    let view = view.ok_or_else(|| wrong(format!("tensor {name:?} is missing")))?;
    let values = view.to_f32()?;
    if values.len() != count {
        return Err(wrong(format!(
            "tensor {name:?} has shape {:?}, expected {count} values",
            view.shape
        )));
    }
    Ok(values)
}

/// How one part came out.
#[derive(Debug, Clone, PartialEq)]
pub struct PartReport {
    /// Its name in the plain model.
    pub name: String,
    /// Its error on the calibration rows.
    pub error: LayerError,
    /// Exponents of activations and weights in the smoothing factors.
    pub exponents: (f32, f32),
    /// Iterations of the branch.
    pub iterations: usize,
    /// Whether an earlier run had done it.
    pub resumed: bool,
}

/// A transformer being quantised.
pub struct Job<'a> {
    /// Its settings.
    pub config: &'a SanaConfig,
    /// Its plain weights.
    pub source: &'a dyn TensorSource,
    /// What [`Collector::save`] wrote.
    pub calibration: &'a SafetensorsFile,
    /// Folder of finished parts.
    pub work: &'a Path,
    /// How a layer is quantised.
    pub settings: &'a Settings,
    /// Whether the layers that keep 16-bit activations (keys and values of the caption, caption and
    /// time embedding) get 4-bit weights as well.
    pub extra: bool,
}

impl Job<'_> {
    /// All parts, in the order of computation.
    pub fn parts(&self) -> Vec<(usize, Part)> {
        let blocks = 0..self.config.num_layers;
        blocks
            .flat_map(|block| Part::ALL.map(|part| (block, part)))
            .collect()
    }

    fn shape(&self) -> SanaShape {
        quantised_shape(self.config)
    }

    fn path(&self, block: usize, part: Part) -> PathBuf {
        let name = part.file_name();
        self.work.join(format!("block{block}.{name}.safetensors"))
    }

    /// Quantises one part, or reads what an earlier run made of it.
    ///
    /// # Errors
    /// Weights that are missing or of another shape, or a file that cannot be written.
    pub fn part(&self, block: usize, part: Part) -> Result<PartReport> {
        let path = self.path(block, part);
        let name = input_name(block, part);
        if let Some(report) = finished(&path, &name) {
            return Ok(report);
        }
        let shape = self.shape();
        let (outputs, inputs) = part.size(&shape);
        let names = part.plain_names();
        let each = outputs / names.len();
        let mut weights = Vec::with_capacity(names.len());
        let mut biases = Vec::new();
        for name in names {
            let name = format!("transformer_blocks.{block}.{name}");
            weights.push(self.values(&format!("{name}.weight"), each * inputs)?);
            let bias = format!("{name}.bias");
            if self.source.info(&bias).is_some() {
                biases.extend(self.values(&bias, each)?);
            }
        }
        let rows = calibration_rows(self.calibration, &name, inputs)?;
        let views: Vec<&[f32]> = weights.iter().map(Vec::as_slice).collect();
        let calibration = Calibration {
            inputs: &rows,
            width: inputs,
        };
        let sizes = vec![each; names.len()];
        let found = quantise(&views, &sizes, calibration, self.settings)
            .map_err(|error| Error::folder(name.clone(), error.to_string()))?;
        let record = Record {
            bias: (biases.len() == outputs).then_some(biases),
            ..found.record
        };
        let report = PartReport {
            name,
            error: found.error,
            exponents: (found.exponents.alpha, found.exponents.beta),
            iterations: found.iterations,
            resumed: false,
        };
        let tensors = part_tensors(block, part, &shape, &record);
        write_part(&path, &tensors, &report.json())?;
        Ok(report)
    }

    fn values(&self, name: &str, count: usize) -> Result<Vec<f32>> {
        stored_values(self.source, name, count)
    }

    /// Puts all finished parts and the 16-bit rest into one file.
    ///
    /// # Errors
    /// A part that is not finished, or a file that cannot be written.
    pub fn assemble(&self, config: &Value, path: &Path) -> Result<()> {
        let shape = self.shape();
        let parts: Vec<SafetensorsFile> = self
            .parts()
            .into_iter()
            .map(|(block, part)| SafetensorsFile::open(&self.path(block, part)))
            .collect::<Result<_, _>>()?;
        let quantised: Vec<String> = self
            .parts()
            .into_iter()
            .flat_map(|(block, part)| {
                let name = move |name: &&str| format!("transformer_blocks.{block}.{name}");
                part.plain_names().iter().map(name)
            })
            .collect();
        let extra = self.extra_layers()?;
        let is_quantised =
            |layer: &str| quantised.iter().any(|name| name == layer) || extra.contains_key(layer);
        let rest = plain_to_file(self.source, &shape, is_quantised)
            .map_err(|error| Error::folder(self.source.origin(""), error.to_string()))?;
        let mut tensors: Vec<OutTensor> = rest.into_iter().map(narrowed).collect::<Result<_>>()?;
        for (name, layer) in &extra {
            tensors.extend(layer.tensors(name));
        }
        for part in &parts {
            for name in part.names() {
                tensors.extend(stored(part, name)?);
            }
        }
        let metadata = file::metadata(config, MODEL_CLASS, self.settings.rank);
        Ok(write_safetensors(path, &tensors, &metadata)?)
    }

    /// Layers in W4A16, under their plain names.
    fn extra_layers(&self) -> Result<BTreeMap<String, Awq>> {
        let mut layers = BTreeMap::new();
        if !self.extra {
            return Ok(layers);
        }
        for name in self.source.names() {
            let Some(layer) = name.strip_suffix(".weight") else {
                continue;
            };
            let Some((_, shape)) = self.source.info(&name) else {
                continue;
            };
            let [outputs, inputs] = shape[..] else {
                continue;
            };
            let fits = outputs.is_multiple_of(4) && inputs.is_multiple_of(64) && inputs > 0;
            if !fits || !WEIGHTS_ALONE.iter().any(|end| layer.ends_with(end)) {
                continue;
            }
            let weight = self.values(&name, outputs * inputs)?;
            let bias = format!("{layer}.bias");
            let bias = match self.source.info(&bias) {
                Some(_) => Some(self.values(&bias, outputs)?),
                None => None,
            };
            let half = self.settings.half;
            layers.insert(
                layer.to_owned(),
                Awq::round(&weight, inputs, bias.as_deref(), half),
            );
        }
        Ok(layers)
    }
}

impl PartReport {
    fn json(&self) -> Value {
        json!({
            "squared": self.error.squared, "reference": self.error.reference,
            "alpha": self.exponents.0, "beta": self.exponents.1, "iterations": self.iterations,
        })
    }
}

/// Writes a finished part, with its report among the file's metadata.
fn write_part(path: &Path, tensors: &[OutTensor], report: &Value) -> Result<()> {
    let metadata = BTreeMap::from([("report".to_owned(), report.to_string())]);
    Ok(write_safetensors(path, tensors, &metadata)?)
}

/// The report of a finished part; none where there is no such file or a damaged one.
fn part_report(path: &Path) -> Option<Value> {
    if !path.is_file() {
        return None;
    }
    let file = SafetensorsFile::open(path).ok()?;
    serde_json::from_str(file.metadata().get("report")?).ok()
}

/// A tensor as it is stored, to be written elsewhere.
fn stored(source: &dyn TensorSource, name: String) -> Result<Option<OutTensor<'_>>> {
    let view = source.view(&name)?;
    Ok(view.map(|view| OutTensor {
        name,
        dtype: view.dtype,
        shape: view.shape,
        data: view.data,
    }))
}

/// The report of a part that an earlier run finished; a damaged file counts as none.
fn finished(path: &Path, name: &str) -> Option<PartReport> {
    let report = part_report(path)?;
    let number = |key: &str| report[key].as_f64();
    Some(PartReport {
        name: name.to_owned(),
        error: LayerError {
            squared: number("squared")?,
            reference: number("reference")?,
        },
        exponents: (number("alpha")? as f32, number("beta")? as f32),
        iterations: number("iterations")? as usize,
        resumed: true,
    })
}

/// What stays unquantised, in bfloat16 where it was wider.
fn narrowed(tensor: OutTensor<'_>) -> Result<OutTensor<'_>> {
    if !matches!(tensor.dtype, Dtype::F32 | Dtype::F64) {
        return Ok(tensor);
    }
    let view = brisk_store::TensorView {
        dtype: tensor.dtype,
        shape: tensor.shape.clone(),
        data: tensor.data,
    };
    let values = view.to_f32()?;
    Ok(OutTensor {
        name: tensor.name,
        dtype: Dtype::BF16,
        shape: tensor.shape,
        data: Cow::Owned(HalfType::Bf16.bytes(&values)),
    })
}

/// A quantised transformer's tensors under plain names, 4-bit layers as the plain weights they stand
/// for, in bfloat16.
///
/// # Errors
/// A file for another model, or one that contradicts itself.
pub fn unpacked(config: &SanaConfig, file: file::NunchakuFile) -> Result<Vec<OutTensor<'static>>> {
    let shape = quantised_shape(config);
    let label = file.label().to_owned();
    let failed = |error: brisk_quant::Error| Error::folder(label.clone(), error.to_string());
    let layers = file.layers();
    let file = brisk_quant::sana::SanaFile::new(file, shape).map_err(&failed)?;
    let mut tensors = Vec::new();
    for name in file.plain().names() {
        if let Some(view) = file.plain().view(&name)? {
            tensors.push(OutTensor {
                name,
                dtype: view.dtype,
                shape: view.shape,
                data: Cow::Owned(view.data.into_owned()),
            });
        }
    }
    for (prefix, _) in layers {
        for name in brisk_quant::sana::SanaFile::plain_layers(&prefix) {
            for (name, shape, values) in file.plain_layer(&name).map_err(&failed)? {
                tensors.push(OutTensor {
                    name,
                    dtype: Dtype::BF16,
                    shape,
                    data: Cow::Owned(HalfType::Bf16.bytes(&values)),
                });
            }
        }
    }
    Ok(tensors)
}
