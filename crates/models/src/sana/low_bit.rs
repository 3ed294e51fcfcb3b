//! Transformers whose blocks are quantised by SVDQuant, in nunchaku's layout or diffusers'.

use std::collections::BTreeMap;
use std::sync::Arc;

use brisk_nn::{Activations, Error, HalfKind, Int4Weight, LowBitSource, Weights};
use brisk_quant::integer::GROUP;
use brisk_quant::record::{Codes, Record};
use brisk_quant::sana::{Layer, Part, SanaFile, SanaShape};
use brisk_quant::{NunchakuFile, file};
use brisk_store::TensorSource;

use super::SanaConfig;
use crate::Result;
use crate::low_bit::{self, awq, failed, half};

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
    let label = low_bit::label(&*source);
    let quantised = NunchakuFile::new(source, BTreeMap::new(), label).map_err(failed)?;
    let layers = quantised.layers().into_iter().map(|(name, _)| name);
    let names = layers.collect::<Vec<_>>();
    let file = SanaFile::new(quantised, quantised_shape(config)).map_err(failed)?;
    let (file, plain) = file.into_plain();
    let weights = Weights::from_source(Arc::new(plain));
    let source = QuantisedSana { file, names };
    Ok(weights.with_low_bit(Arc::new(source), activations))
}

/// Adds made-up 4-bit layers in place of those that SVDQuant quantises, to measure speed: rank 32, and
/// weights alone for the layers that keep full activations.
pub fn with_random_low_bit(weights: Weights, activations: Activations) -> Weights {
    weights.with_low_bit(Arc::new(RandomSana), activations)
}

struct RandomSana;

/// Layers that keep full activations and may have 4-bit weights.
pub const WEIGHTS_ALONE: [&str; 5] = [
    "attn2.to_k",
    "attn2.to_v",
    "caption_projection.linear_1",
    "caption_projection.linear_2",
    "time_embed.linear",
];

impl LowBitSource for RandomSana {
    fn linear(&self, path: &str, inputs: usize, outputs: usize) -> Result<Option<Int4Weight>> {
        let ends = |names: &[&str]| names.iter().any(|name| path.ends_with(&format!(".{name}")));
        let whole = Part::of(path);
        if whole.is_none() && !ends(&WEIGHTS_ALONE) && !WEIGHTS_ALONE.contains(&path) {
            return Ok(None);
        }
        let groups = inputs.div_ceil(GROUP);
        // Codes are even in ±7, so their deviation is 4.3.
        let scale = 1.0 / (inputs.max(1) as f32).sqrt() / 4.3;
        let mut noise = Noise::new(path);
        let codes = (0..outputs * groups * GROUP)
            .map(|_| (noise.next() % 15) as i8 - 7)
            .collect();
        let size = 1.0 / (inputs.max(1) as f32).sqrt();
        // Layers that are quantised together have one `down`.
        let rank = if whole.is_some() { 32 } else { 0 };
        let down = whole.map(|(block, part, _)| {
            let together = format!("{block}.{}", part.file_name());
            Noise::new(&together).values(rank * inputs, size)
        });
        Ok(Some(Int4Weight {
            outputs,
            inputs,
            codes,
            scales: vec![scale; outputs * groups],
            zeros: whole.is_none().then(|| vec![0.0; outputs * groups]),
            smooth: whole.is_some().then(|| vec![1.25; inputs]),
            rank,
            down: down.unwrap_or_default(),
            up: noise.values(outputs * rank, 0.1),
            bias: Some(noise.values(outputs, 0.02)),
            half: HalfKind::Bf16,
        }))
    }

    fn layers(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Numbers that depend on a name.
struct Noise(u64);

impl Noise {
    fn new(name: &str) -> Self {
        let hash = |h: u64, b: u8| h.wrapping_mul(31).wrapping_add(b.into());
        Self(name.bytes().fold(1, hash))
    }

    fn next(&mut self) -> u64 {
        let step = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = step.wrapping_add(1);
        self.0 >> 33
    }

    /// Even in ±size.
    fn values(&mut self, count: usize, size: f32) -> Vec<f32> {
        (0..count)
            .map(|_| (self.next() as f32 / (1u64 << 30) as f32 - 1.0) * size)
            .collect()
    }
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
