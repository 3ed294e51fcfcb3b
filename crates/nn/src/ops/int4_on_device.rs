//! Layers of published 4-bit files, on a card.

use brisk_cuda::ops::{self, Bits, GroupCodes, LowBitBranch, LowBitLayer, LowBitWeight};
use brisk_cuda::{Device, Precision};
use brisk_kernels::int4::{Activations, GROUP, Int4Weight};
use std::ops::Range;

use super::epilogue::Epilogue;
use super::linear::shape_error;
use super::on_device::DeviceLinear;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Layers that share their input.
#[derive(Debug)]
pub(super) enum DeviceInt4 {
    /// In 8 bits, with rounded inputs; the layers' biases.
    Rounded(LowBitWeight, Vec<Option<Tensor>>),
    /// Each for itself: in 4 bits where inputs are taken as they are, else as the values that it stands for.
    Each(Vec<DeviceLinear>),
}

impl DeviceInt4 {
    /// From layers that fit. In f32 inputs are never rounded, so that a card can be compared with the processor.
    ///
    /// # Errors
    /// Memory that ran out, and inputs of 4 bits.
    pub(super) fn new(
        weight: &Int4Weight,
        activations: Activations,
        device: &Device,
    ) -> Result<Self> {
        let layers = weight.split();
        let upload = |bias: &Option<Vec<f32>>| -> Result<Option<Tensor>> {
            let Some(bias) = bias else { return Ok(None) };
            Ok(Some(device.upload(bias, &[bias.len()])?.into()))
        };
        let biases = layers.iter().map(|layer| upload(&layer.bias));
        let biases: Vec<Option<Tensor>> = biases.collect::<Result<_>>()?;
        let rounds = weight.zeros.is_none() && device.precision() == Precision::Half;
        match activations {
            Activations::Four if rounds => {
                return Err(Error::Config(
                    "a card has no activations of 4 bits; take 8 bits, or --device cpu".to_owned(),
                ));
            }
            Activations::Eight if rounds => {
                let weight = rounded(weight, &layers, device)?;
                return Ok(Self::Rounded(weight, biases));
            }
            _ => {}
        }
        let each = layers.iter().zip(&biases).map(|(layer, bias)| {
            let plain = layer.smooth.is_none() && layer.branch.is_none();
            if plain {
                let groups = GroupCodes {
                    outputs: layer.outputs.iter().sum(),
                    inputs: layer.inputs,
                    group: GROUP,
                    bits: Bits::Four,
                    codes: &layer.codes,
                    scales: &layer.scales,
                    zeros: layer.zeros.as_deref(),
                };
                return DeviceLinear::of_codes(&groups, bias.as_ref(), device);
            }
            let sides = [layer.outputs.iter().sum(), layer.inputs];
            let values: Tensor = device.upload(&values(layer), &sides)?.into();
            let made = DeviceLinear::new(&values, bias.as_ref())?;
            made.ok_or_else(|| Error::Config("a card's weight lies on the card".to_owned()))
        });
        Ok(Self::Each(each.collect::<Result<_>>()?))
    }

    /// A single layer, followed by `steps`.
    pub(super) fn forward_with(&self, x: &Tensor, steps: &Epilogue) -> Result<Tensor> {
        match self {
            Self::Each(layers) => layer(layers, 0)?.forward(x, steps),
            Self::Rounded(weight, biases) => {
                let x = x.on_device("linear")?.tensor();
                let bias = biases.first().and_then(Option::as_ref);
                steps.on_device(bias, |steps| {
                    let mut results = ops::low_bit_linear(x, weight, 0..1, &[*steps])?;
                    Ok(results.swap_remove(0))
                })
            }
        }
    }

    /// What each of some layers makes of `x`, which is rounded once for all.
    pub(super) fn forward_each(&self, layers: Range<usize>, x: &Tensor) -> Result<Vec<Tensor>> {
        match self {
            Self::Each(each) => layers
                .map(|index| layer(each, index)?.forward(x, &Epilogue::default()))
                .collect(),
            Self::Rounded(weight, biases) => {
                let input = x.on_device("linear")?.tensor();
                let steps = layers.clone().map(|index| {
                    let bias = biases.get(index).and_then(Option::as_ref);
                    let bias = bias.map(|bias| bias.on_device("linear")).transpose()?;
                    Ok(ops::Steps {
                        bias: bias.map(|bias| bias.tensor()),
                        ..ops::Steps::default()
                    })
                });
                let steps: Vec<_> = steps.collect::<Result<_>>()?;
                let results = ops::low_bit_linear(input, weight, layers, &steps)?;
                Ok(results.into_iter().map(Tensor::from).collect())
            }
        }
    }
}

fn layer(layers: &[DeviceLinear], index: usize) -> Result<&DeviceLinear> {
    let count = layers.len();
    layers
        .get(index)
        .ok_or_else(|| shape_error("linear", &[index], &format!("one of {count} layers")))
}

/// Layers in 8 bits.
fn rounded(weight: &Int4Weight, layers: &[Int4Weight], device: &Device) -> Result<LowBitWeight> {
    let factors = weight.smooth.as_ref();
    let factors: Option<Vec<f32>> =
        factors.map(|smooth| smooth.iter().map(|value| 1.0 / value).collect());
    let shared = LowBitBranch {
        inputs: weight.inputs,
        factors: factors.as_deref(),
        rank: weight.branch.as_ref().map_or(0, |branch| branch.rank),
        down: weight.branch.as_ref().map_or(&[], |branch| &branch.down),
    };
    let each: Vec<LowBitLayer> = layers
        .iter()
        .map(|layer| LowBitLayer {
            outputs: layer.outputs.iter().sum(),
            codes: &layer.codes,
            scales: &layer.scales,
            up: layer.branch.as_ref().map_or(&[], |branch| &branch.up),
        })
        .collect();
    Ok(LowBitWeight::new(device, &shared, &each)?)
}

/// What a layer multiplies its input by, smoothing and branch included, `[outputs, inputs]`.
fn values(layer: &Int4Weight) -> Vec<f32> {
    let (inputs, groups) = (layer.inputs, layer.groups());
    let mut values = Vec::with_capacity(layer.scales.len() / groups.max(1) * inputs);
    for (row, codes) in layer.codes.chunks_exact(groups * GROUP).enumerate() {
        for (k, code) in codes[..inputs].iter().enumerate() {
            let at = row * groups + k / GROUP;
            let zero = layer.zeros.as_ref().map_or(0.0, |zeros| zeros[at]);
            let value = f32::from(*code) * layer.scales[at] + zero;
            let smooth = layer.smooth.as_ref().map_or(1.0, |smooth| smooth[k]);
            let branch = layer.branch.as_ref().map_or(0.0, |branch| {
                let up = &branch.up[row * branch.rank..][..branch.rank];
                let down = branch.down[k..].iter().step_by(inputs);
                up.iter().zip(down).map(|(up, down)| up * down).sum::<f32>()
            });
            values.push(value / smooth + branch);
        }
    }
    values
}
