//! Transformers whose blocks are quantised by SVDQuant, in nunchaku's layout or diffusers'.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Activations, Error, HalfKind, Int4Weight, LowBitSource, Weights};
use brisk_quant::integer::GROUP;
use brisk_quant::record::{Codes, HalfType, Record};
use brisk_quant::sana::{Layer, SanaFile, SanaShape};
use brisk_quant::{Awq, NunchakuFile, file};
use brisk_store::TensorSource;

use super::SanaConfig;
use crate::Result;

/// The sizes that decide how a model of this configuration is laid out when it is quantised.
pub fn quantised_shape(config: &SanaConfig) -> SanaShape {
    SanaShape {
        layers: config.num_layers,
        width: config.width(),
        head_dim: config.attention_head_dim,
        cross_width: config.cross_width(),
        hidden: config.hidden(),
    }
}

/// A transformer's parameters from a file in the plain layout or a quantised one; `activations` says
/// how inputs of quantised layers are rounded.
///
/// # Errors
/// A quantised file for another model, or one that contradicts itself.
pub fn parameters(
    config: &SanaConfig,
    source: Arc<dyn TensorSource>,
    activations: Activations,
) -> Result<Weights> {
    if !file::is_quantised(&*source) {
        return Ok(Weights::from_source(source));
    }
    let label = source
        .names()
        .first()
        .map(|name| source.origin(name))
        .unwrap_or_default();
    let quantised = NunchakuFile::new(source, BTreeMap::new(), label).map_err(failed)?;
    let layers = quantised.layers().into_iter().map(|(name, _)| name);
    let names = layers.collect::<Vec<_>>();
    let file = SanaFile::new(quantised, quantised_shape(config)).map_err(failed)?;
    let (file, plain) = file.into_plain();
    let weights = Weights::from_source(Arc::new(plain));
    let source = QuantisedSana { file, names };
    Ok(weights.with_low_bit(Arc::new(source), activations))
}

fn failed(error: brisk_quant::Error) -> Error {
    Error::Config(error.to_string())
}

struct QuantisedSana {
    file: SanaFile,
    names: Vec<String>,
}

impl LowBitSource for QuantisedSana {
    fn linear(&self, path: &str, inputs: usize, outputs: usize) -> Result<Option<Int4Weight>> {
        let layer = self.file.layer(path, inputs, outputs).map_err(failed)?;
        Ok(match layer {
            None => None,
            Some(Layer::Svd(record)) => Some(svd(record, inputs)?),
            Some(Layer::Awq(layer)) => Some(awq(&layer)),
        })
    }

    fn layers(&self) -> Vec<String> {
        self.names
            .iter()
            .flat_map(|name| SanaFile::plain_layers(name))
            .collect()
    }
}

fn half(half: HalfType) -> HalfKind {
    match half {
        HalfType::Bf16 => HalfKind::Bf16,
        HalfType::F16 => HalfKind::F16,
    }
}

/// A W4A4 layer.
fn svd(record: Record, inputs: usize) -> Result<Int4Weight> {
    let padded = record.inputs;
    let integers = match &record.codes {
        Codes::Int4(integers) => integers.clone(),
        Codes::Nvfp4 { .. } => {
            return Err(Error::Config(
                "nvfp4 layers are not computed; convert the file with `brisk convert` and load the result"
                    .to_owned(),
            ));
        }
    };
    let (rank, mut down, up) = match record.branch {
        Some(branch) => (branch.rank, branch.down, branch.up),
        None => (0, Vec::new(), Vec::new()),
    };
    let mut smooth = record.smooth;
    if padded != inputs {
        let rows = down.chunks_exact(padded);
        down = rows.flat_map(|row| row[..inputs].to_vec()).collect();
        smooth.truncate(inputs);
    }
    Ok(Int4Weight {
        outputs: record.outputs,
        inputs,
        codes: integers.codes,
        scales: integers.scales,
        zeros: None,
        smooth: Some(smooth),
        rank,
        down,
        up,
        bias: record.bias,
        half: half(record.half),
    })
}

/// A W4A16 layer: its codes 0 to 15 become −8 to 7, and zeros move by 8 scales.
fn awq(layer: &Awq) -> Int4Weight {
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
