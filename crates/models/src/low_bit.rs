//! 4-bit layers of checkpoint files, as the layers that compute them.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Activations, Error, HalfKind, Int4Weight, LowBitSource, Weights};
use brisk_quant::file::LayerKind;
use brisk_quant::integer::GROUP;
use brisk_quant::record::HalfType;
use brisk_quant::{Awq, NunchakuFile, file};
use brisk_store::{MappedSource, Slice, TensorSource};

use crate::Result;

/// A model's parameters from a plain file, or from one in which some linear layers, under their own
/// names, have 4-bit weights and full activations (AWQ).
///
/// # Errors
/// A layer of another kind, or a file that contradicts itself.
pub fn weight_only_parameters(source: Arc<dyn TensorSource>) -> Result<Weights> {
    if !file::is_quantised(&*source) {
        return Ok(Weights::from_source(source));
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
    let weights = Weights::from_source(Arc::new(plain));
    let low_bit = Arc::new(WeightOnly { file, layers });
    Ok(weights.with_low_bit(low_bit, Activations::Full))
}

struct WeightOnly {
    file: NunchakuFile,
    layers: Vec<String>,
}

impl LowBitSource for WeightOnly {
    fn linear(&self, path: &str, inputs: usize, outputs: usize) -> Result<Option<Int4Weight>> {
        if !self.file.has_layer(path) {
            return Ok(None);
        }
        let layer = self.file.awq(path).map_err(failed)?;
        if (layer.outputs, layer.inputs) != (outputs, inputs) {
            return Err(Error::Config(format!(
                "{}: layer {path} is one of {}x{} (outputs x inputs), but this model's has \
                 {outputs}x{inputs}; is it a file for another model?",
                self.file.label(),
                layer.outputs,
                layer.inputs
            )));
        }
        self.file.source().forget(&format!("{path}.qweight"));
        Ok(Some(awq(&layer)))
    }

    fn layers(&self) -> Vec<String> {
        self.layers.clone()
    }
}

/// Where a source's tensors are.
pub(crate) fn label(source: &dyn TensorSource) -> String {
    let names = source.names();
    let first = names.first().map(|name| source.origin(name));
    first.unwrap_or_default()
}

pub(crate) fn failed(error: brisk_quant::Error) -> Error {
    Error::Config(error.to_string())
}

pub(crate) fn half(half: HalfType) -> HalfKind {
    match half {
        HalfType::Bf16 => HalfKind::Bf16,
        HalfType::F16 => HalfKind::F16,
    }
}

/// A W4A16 layer: its codes 0 to 15 become −8 to 7, and zeros move by 8 scales.
pub(crate) fn awq(layer: &Awq) -> Int4Weight {
    let groups = layer.inputs / GROUP;
    let grid = |values: &[f32]| -> Vec<f32> {
        let place = |i: usize| values[i % groups * layer.outputs + i / groups];
        (0..layer.outputs * groups).map(place).collect()
    };
    let scales = grid(&layer.scales);
    let zeros = grid(&layer.zeros);
    Int4Weight {
        outputs: layer.outputs,
        inputs: layer.inputs,
        codes: layer.codes.iter().map(|code| *code as i8 - 8).collect(),
        zeros: Some(
            zeros
                .iter()
                .zip(&scales)
                .map(|(z, s)| z + 8.0 * s)
                .collect(),
        ),
        scales,
        bias: layer.bias.clone(),
        half: half(layer.half),
        ..Int4Weight::default()
    }
}
