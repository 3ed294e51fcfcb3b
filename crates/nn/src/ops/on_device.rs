//! The operations of a card, in the words of this module.

use std::ops::Range;

use brisk_cuda::ops::{self, Bits, FewBitsWeight, GroupCodes, Steps};
use brisk_cuda::{Device, Element};
use brisk_kernels::quantized::{self, QuantizedMatrix};

use super::epilogue::{Activation, Epilogue, Residual, ShortcutKind};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

use brisk_cuda::ops::{ConvWeight, LinearWeight};

/// The activation in a card's words.
fn named(activation: Activation) -> ops::Activation {
    match activation {
        Activation::Relu => ops::Activation::Relu,
        Activation::Silu => ops::Activation::Silu,
        Activation::GeluTanh => ops::Activation::GeluTanh,
        Activation::GeluErf => ops::Activation::GeluErf,
    }
}

/// A function of every value, where it lies on a card.
pub(super) fn activation(x: &Tensor, which: Activation) -> Option<Result<Tensor>> {
    let x = x.device()?;
    Some(
        ops::activation(x.tensor(), named(which))
            .map(Tensor::from)
            .map_err(Into::into),
    )
}

/// A linear layer that is ready for products on a card.
#[derive(Clone, Debug)]
pub(crate) struct DeviceLinear {
    weight: Weight,
    bias: Option<Tensor>,
}

#[derive(Clone, Debug)]
enum Weight {
    /// In the card's type.
    Plain(LinearWeight),
    /// Codes of few bits.
    FewBits(FewBitsWeight),
}

impl DeviceLinear {
    /// From `[outputs, inputs]` and `[outputs]`; none where the weight lies on the host.
    pub(crate) fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Option<Self>> {
        let Some(weight) = weight.device() else {
            return Ok(None);
        };
        Ok(Some(Self {
            weight: Weight::Plain(LinearWeight::new(weight.tensor())?),
            bias: bias.cloned(),
        }))
    }

    /// From a weight of 4 or 8 bits, and `[outputs]` on the card.
    pub(crate) fn quantized(
        matrix: &QuantizedMatrix,
        bias: Option<&Tensor>,
        device: &Device,
    ) -> Result<Self> {
        let (codes, scales) = matrix.codes_and_scales();
        let groups = GroupCodes {
            outputs: matrix.outputs(),
            inputs: matrix.inputs(),
            group: brisk_kernels::quantized::GROUP,
            bits: match matrix.bits() {
                quantized::Bits::Four => Bits::Four,
                quantized::Bits::Eight => Bits::Eight,
            },
            codes: &codes,
            scales: &scales,
            zeros: None,
        };
        Self::of_codes(&groups, bias, device)
    }

    /// From codes in groups, and `[outputs]` on the card.
    pub(super) fn of_codes(
        groups: &GroupCodes,
        bias: Option<&Tensor>,
        device: &Device,
    ) -> Result<Self> {
        Ok(Self {
            weight: Weight::FewBits(FewBitsWeight::new(device, groups)?),
            bias: bias.cloned(),
        })
    }

    /// One layer of the outputs of all `parts`; none where they are of several kinds.
    pub(crate) fn joined(parts: &[&Self]) -> Result<Option<Self>> {
        let (mut plain, mut few_bits) = (Vec::new(), Vec::new());
        for part in parts {
            match &part.weight {
                Weight::Plain(weight) => plain.push(weight),
                Weight::FewBits(weight) => few_bits.push(weight),
            }
        }
        let weight = match (plain.len(), few_bits.len()) {
            (_, 0) => LinearWeight::joined(&plain)?.map(Weight::Plain),
            (0, _) => FewBitsWeight::joined(&few_bits)?.map(Weight::FewBits),
            _ => None,
        };
        let biases: Vec<&Tensor> = parts.iter().filter_map(|part| part.bias.as_ref()).collect();
        let bias = match biases.len() {
            0 => None,
            count if count == parts.len() => Some(Tensor::cat(&biases, 0)?),
            _ => return Ok(None),
        };
        Ok(weight.map(|weight| Self { weight, bias }))
    }

    /// Outputs and inputs.
    pub(crate) fn sides(&self) -> (usize, usize) {
        match &self.weight {
            Weight::Plain(weight) => weight.sides(),
            Weight::FewBits(weight) => weight.sides(),
        }
    }

    pub(crate) fn forward(&self, x: &Tensor, steps: &Epilogue) -> Result<Tensor> {
        let x = x.on_device("linear")?.tensor();
        steps.on_device(self.bias.as_ref(), |steps| self.run(x, steps))
    }

    /// One layer of the outputs of all `parts`, which [`DeviceLinear::forward_parts`] gives apart again; none where they
    /// differ in size or are not kept as they are stored.
    pub(crate) fn side_by_side(parts: &[&Self]) -> Result<Option<Self>> {
        let plain = parts.iter().all(|part| {
            matches!(part.weight, Weight::Plain(_)) && part.sides() == parts[0].sides()
        });
        match plain {
            true => Self::joined(parts),
            false => Ok(None),
        }
    }

    /// What each of the layers `which` makes of `x`, of the `count` that are side by side.
    pub(crate) fn forward_parts(
        &self,
        x: &Tensor,
        count: usize,
        which: Range<usize>,
    ) -> Result<Vec<Tensor>> {
        let name = "linear";
        let Weight::Plain(weight) = &self.weight else {
            return Err(Error::Config(
                "codes of few bits are not side by side".to_owned(),
            ));
        };
        let x = x.on_device(name)?.tensor();
        let bias = self
            .bias
            .as_ref()
            .map(|bias| bias.on_device(name))
            .transpose()?;
        let bias = bias.map(|bias| bias.tensor());
        let results = ops::linear_parts(x, weight, bias, count, which)?;
        Ok(results.into_iter().map(Tensor::from).collect())
    }

    /// With a result of f32.
    pub(crate) fn forward_wide(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.on_device("linear")?.tensor();
        let steps = Epilogue::default();
        steps.on_device(self.bias.as_ref(), |steps| {
            let wide = Steps {
                wide: true,
                ..*steps
            };
            self.run(x, &wide)
        })
    }

    fn run(&self, x: &brisk_cuda::Tensor, steps: &Steps) -> brisk_cuda::Result<brisk_cuda::Tensor> {
        match &self.weight {
            Weight::Plain(weight) => ops::linear(x, weight, steps),
            Weight::FewBits(weight) => ops::few_bits_linear(x, weight, steps),
        }
    }
}

/// A convolution that is ready for a card.
#[derive(Clone, Debug)]
pub(crate) struct DeviceConv {
    weight: ConvWeight,
    bias: Option<Tensor>,
}

impl DeviceConv {
    /// From `[outputs, kernel, kernel, inputs]` and `[outputs]`; none where the weight lies on the host.
    pub(crate) fn new(
        weight: &Tensor,
        bias: Option<&Tensor>,
        stride: usize,
        padding: usize,
    ) -> Result<Option<Self>> {
        let Some(weight) = weight.device() else {
            return Ok(None);
        };
        Ok(Some(Self {
            weight: ConvWeight::new(weight.tensor(), stride, padding)?,
            bias: bias.cloned(),
        }))
    }

    /// Input and output channels.
    pub(crate) fn channels(&self) -> (usize, usize) {
        let (outputs, _, inputs) = self.weight.sides();
        (inputs, outputs)
    }

    pub(crate) fn forward(&self, x: &Tensor, upsample: bool, steps: &Epilogue) -> Result<Tensor> {
        if upsample && !self.weight.doubles() {
            return self.forward(&super::upsample_nearest2(x)?, false, steps);
        }
        let x = x.on_device("conv2d")?.tensor();
        steps.on_device(self.bias.as_ref(), |steps| {
            ops::conv2d(x, &self.weight, upsample, steps)
        })
    }
}

impl Epilogue<'_> {
    /// Runs a layer of a card with `bias` and these steps: those that it can take itself inside it, the norm and
    /// what follows after it.
    pub(crate) fn on_device(
        &self,
        bias: Option<&Tensor>,
        layer: impl FnOnce(&Steps) -> brisk_cuda::Result<brisk_cuda::Tensor>,
    ) -> Result<Tensor> {
        let name = "epilogue";
        let mut end = Steps::default();
        let gate = match self.residual {
            Some(Residual::Gated(_, gate)) => {
                Some(ops::cast(gate.on_device(name)?.tensor(), Element::F32)?)
            }
            _ => None,
        };
        match self.residual {
            None => {}
            Some(Residual::Same(x)) => {
                end.residual = Some(ops::Residual::Rows(x.on_device(name)?.tensor()));
            }
            Some(Residual::Gated(x, _)) => {
                end.residual = Some(ops::Residual::Rows(x.on_device(name)?.tensor()));
                end.gate = gate.as_ref();
            }
            Some(Residual::Shortcut(x, kind)) => {
                let kind = match kind {
                    ShortcutKind::Up => ops::ShortcutKind::Up,
                    ShortcutKind::Down => ops::ShortcutKind::Down,
                };
                end.residual = Some(ops::Residual::Shortcut(x.on_device(name)?.tensor(), kind));
            }
        }
        let start = Steps {
            bias: bias
                .map(|bias| bias.on_device(name))
                .transpose()?
                .map(|bias| bias.tensor()),
            activation: self.activation.map_or(ops::Activation::Identity, named),
            ..Steps::default()
        };
        let Some(norm) = self.norm else {
            let all = Steps {
                bias: start.bias,
                activation: start.activation,
                ..end
            };
            return Ok(layer(&all)?.into());
        };
        let y = layer(&start)?;
        let weight = match norm.add_one {
            true => &(norm.weight + 1.0)?,
            false => norm.weight,
        };
        let weight = weight.on_device(name)?.tensor();
        let shift = norm.bias.map(|shift| shift.on_device(name)).transpose()?;
        let shift = shift.map(|shift| shift.tensor());
        Ok(ops::rms_norm(&y, weight, shift, norm.eps as f32, &end)?.into())
    }
}
