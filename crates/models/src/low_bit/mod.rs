//! 4-bit layers of checkpoint files, as the layers that compute them.

mod random;

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Activations, Error, Int4Weight, LowBitSource, WeightsBuilder};
use brisk_quant::file::LayerKind;
use brisk_quant::{LowBitLayout, LowBitModel, NunchakuFile, file};
use brisk_store::{Dtype, MappedSource, Slice, TensorSource};
use serde_json::json;

use crate::Result;
use crate::component::Recognised;

pub use random::with_random;

/// A model's parameters from a plain file, or from one in which the layers of `layout` have 4-bit weights
/// and a branch (SVDQuant); `activations` says how their inputs are rounded.
///
/// # Errors
/// A quantized file for another model, or one that contradicts itself.
pub fn parameters(
    layout: Box<dyn LowBitLayout>,
    source: Arc<dyn TensorSource>,
    activations: Activations,
) -> Result<WeightsBuilder> {
    if !file::is_quantized(&*source) {
        return Ok(WeightsBuilder::from_source(source));
    }
    let label = label(&*source);
    let file = NunchakuFile::new(source, BTreeMap::new(), label).map_err(failed)?;
    let model = LowBitModel::new(file, layout).map_err(failed)?;
    let weights = WeightsBuilder::from_source(model.plain().clone());
    Ok(weights.low_bit(Arc::new(Layers(model)), activations))
}

struct Layers(LowBitModel);

impl LowBitSource for Layers {
    fn layers(
        &self,
        paths: &[String],
        inputs: usize,
        outputs: &[usize],
    ) -> Result<Option<Int4Weight>> {
        self.0.weight(paths, inputs, outputs).map_err(failed)
    }

    fn names(&self) -> Vec<String> {
        self.0.layers()
    }
}

/// A model's parameters from a plain file, or from one in which some linear layers, under their own
/// names, have 4-bit weights and full activations (AWQ).
///
/// # Errors
/// A layer of another kind, or a file that contradicts itself.
pub fn weight_only_parameters(source: Arc<dyn TensorSource>) -> Result<WeightsBuilder> {
    if !file::is_quantized(&*source) {
        return Ok(WeightsBuilder::from_source(source));
    }
    let file = NunchakuFile::new(source.clone(), BTreeMap::new(), label(&*source));
    let file = file.map_err(failed)?;
    let mut layers = Vec::new();
    for (name, kind) in file.layers() {
        if kind != LayerKind::W4A16 {
            return Err(Error::Config(format!(
                "{}: layer {name} has 4-bit activations, this model's layers have 4-bit weights alone \
                 (qweight in int32); is it a file for another model?",
                file.label()
            )));
        }
        layers.push(name);
    }
    let plain = file
        .plain_names()
        .into_iter()
        .map(|name| (name.clone(), Slice::whole(name)));
    let plain = MappedSource::new(source, plain.collect())?;
    let weights = WeightsBuilder::from_source(Arc::new(plain));
    let low_bit = Arc::new(WeightOnly { file, layers });
    Ok(weights.low_bit(low_bit, Activations::Full))
}

/// Whether a source holds 4-bit layers.
pub(crate) fn is_quantized(source: &dyn TensorSource) -> bool {
    file::is_quantized(source)
}

/// What a file with 4-bit layers is, `model` being the network that they belong to.
pub fn describe(
    source: &dyn TensorSource,
    metadata: &BTreeMap<String, String>,
    model: &str,
) -> Recognised {
    let names = source.names();
    let ending = |end: &str| names.iter().filter(|name| name.ends_with(end)).count();
    let factor = names
        .iter()
        .find(|name| name.ends_with(".lora_down") || name.ends_with(".proj_down"));
    let rank = factor.and_then(|name| source.info(name)?.1.get(1).copied());
    let float = |name: &String| {
        let dtype = source.info(name).map(|(dtype, _)| dtype);
        dtype == Some(Dtype::F8E4M3)
    };
    let precision = match names.iter().any(float) {
        true => "nvfp4",
        false => "int4",
    };
    let details = json!({
        "quantized layers": ending(".qweight"), "of them with 16-bit activations": ending(".wzeros"),
        "precision": precision, "rank": rank, "class": metadata.get("model_class"),
    });
    let mut found = Recognised::with(format!("{model} quantized by SVDQuant"), details);
    found.details.retain(|_, value| !value.is_null());
    found.standing_alone()
}

struct WeightOnly {
    file: NunchakuFile,
    layers: Vec<String>,
}

impl LowBitSource for WeightOnly {
    fn layers(
        &self,
        paths: &[String],
        inputs: usize,
        outputs: &[usize],
    ) -> Result<Option<Int4Weight>> {
        let ([path], [outputs]) = (paths, outputs) else {
            return Ok(None);
        };
        if self.file.kind(path).is_none() {
            return Ok(None);
        }
        let layer = self.file.awq(path).map_err(failed)?;
        if (layer.outputs, layer.inputs) != (*outputs, inputs) {
            return Err(Error::Config(format!(
                "{}: layer {path} is one of {}x{} (outputs x inputs), but this model's has \
                 {outputs}x{inputs}; is it a file for another model?",
                self.file.label(),
                layer.outputs,
                layer.inputs
            )));
        }
        self.file.source().forget(&format!("{path}.qweight"));
        Ok(Some(layer.into_weight()))
    }

    fn names(&self) -> Vec<String> {
        self.layers.clone()
    }
}

/// Where a source's tensors are.
fn label(source: &dyn TensorSource) -> String {
    let names = source.names();
    let first = names.first().map(|name| source.origin(name));
    first.unwrap_or_default()
}

fn failed(error: brisk_quant::Error) -> Error {
    Error::Config(error.to_string())
}
