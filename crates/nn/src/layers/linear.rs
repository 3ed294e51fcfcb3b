//! The linear layer.

use crate::error::Result;
use crate::ops::{self, Epilogue, PackedInt4, PackedLinear, can_pack};
use crate::tensor::{Location, Tensor};
use crate::weights::{Init, InputWatcher, Weights};
use brisk_kernels::glu_mb_conv::Pointwise;
use std::fmt;

/// `y = x wᵀ + b` over the last dimension. A weight stored in bf16 or f16, or held in 4 bits, stays so
/// in memory, or is quantized where [`crate::WeightsBuilder::quantize`] asks for it.
#[derive(Clone, Debug)]
pub struct Linear {
    parameters: Parameters,
    watcher: Option<Watcher>,
}

/// Sees inputs, under the layer's name.
#[derive(Clone)]
pub(super) struct Watcher(InputWatcher, String);

impl Watcher {
    /// Of the layer at this path.
    pub(super) fn of(weights: &Weights) -> Option<Self> {
        weights.watcher().map(|(watch, name)| Self(watch, name))
    }

    pub(super) fn see(&self, x: &Tensor) {
        let Self(watch, name) = self;
        watch(name, x);
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watcher({})", self.1)
    }
}

#[derive(Clone, Debug)]
enum Parameters {
    /// Packed at load.
    Frozen(PackedLinear),
    /// Packed 4-bit weights with their branch.
    LowBit(PackedInt4),
    /// Tensors that an optimiser changes.
    Trainable(Tensor, Option<Tensor>),
}

impl Linear {
    /// Reads `weight` `[outputs, inputs]`, or a 1×1 convolution's `[outputs, inputs, 1, 1]`, and
    /// `bias` `[outputs]`.
    pub fn load(
        weights: &Weights,
        inputs: usize,
        outputs: usize,
        bias: bool,
        init: Init,
    ) -> Result<Self> {
        let convolution = [outputs, inputs, 1, 1];
        let is_convolution = weights.shape("weight").is_some_and(|s| s == convolution);
        let shape = if is_convolution {
            &convolution[..]
        } else {
            &convolution[..2]
        };
        Self::load_shaped(weights, shape, bias, init)
    }

    /// As [`Linear::load`] for a 1×1 convolution, whose weight is always `[outputs, inputs, 1, 1]`.
    pub fn load_pointwise(
        weights: &Weights,
        inputs: usize,
        outputs: usize,
        bias: bool,
        init: Init,
    ) -> Result<Self> {
        Self::load_shaped(weights, &[outputs, inputs, 1, 1], bias, init)
    }

    fn load_shaped(weights: &Weights, shape: &[usize], bias: bool, init: Init) -> Result<Self> {
        let (outputs, inputs) = (shape[0], shape[1]);
        let watcher = Watcher::of(weights);
        let low_bit = weights.low_bit(&[""], inputs, &[outputs])?;
        if let Some(layer) = low_bit.and_then(|layers| layers.into_iter().next()) {
            return Ok(Self::low_bit(layer, watcher));
        }
        let bias = if bias {
            Some(weights.get("bias", &[outputs], Init::Zeros)?)
        } else {
            None
        };
        let read = || weights.get_stored_on_host("weight", shape, init);
        if let Some(matrix) = weights.quantize("weight", shape, read)? {
            let packed = PackedLinear::quantized(matrix, bias.as_ref(), weights.location())?;
            return Ok(Self {
                parameters: Parameters::Frozen(packed),
                watcher,
            });
        }
        let mut weight = weights.get_stored("weight", shape, init)?;
        while weight.rank() > 2 {
            weight = weight.squeeze(weight.rank() - 1)?;
        }
        Ok(Self {
            watcher,
            ..Self::new(weight, bias)?
        })
    }

    /// A single layer over 4-bit weights.
    pub(super) fn low_bit(layer: PackedInt4, watcher: Option<Watcher>) -> Self {
        Self {
            parameters: Parameters::LowBit(layer),
            watcher,
        }
    }

    /// From tensors at hand: `weight` `[outputs, inputs]`, `bias` `[outputs]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        weight.dims2()?;
        let parameters = if can_pack(&weight, bias.as_ref()) {
            Parameters::Frozen(PackedLinear::new(&weight, bias.as_ref())?)
        } else {
            Parameters::Trainable(weight, bias)
        };
        Ok(Self {
            parameters,
            watcher: None,
        })
    }

    fn watched(&self, x: &Tensor) {
        if let Some(watcher) = &self.watcher {
            watcher.see(x);
        }
    }

    /// A head that shares the embedding table `name` `[outputs, inputs]`, which was read already.
    pub fn tied(weights: &Weights, name: &str, table: &Tensor) -> Result<Self> {
        let read = || table.to(&Location::HOST);
        match weights.quantize(name, table.dims(), read)? {
            Some(matrix) => {
                let packed = PackedLinear::quantized(matrix, None, weights.location())?;
                Ok(Self {
                    parameters: Parameters::Frozen(packed),
                    watcher: None,
                })
            }
            None => Self::new(table.clone(), None),
        }
    }

    /// One layer that gives the outputs of all `layers` side by side; none where they cannot be one
    /// product (weights that are trained, or of several kinds) or are in use elsewhere too.
    pub fn joined(layers: &[&Linear]) -> Result<Option<Self>> {
        let mut packed = Vec::with_capacity(layers.len());
        for layer in layers {
            match &layer.parameters {
                Parameters::Frozen(packed_layer) if layer.watcher.is_none() => {
                    packed.push(packed_layer);
                }
                _ => return Ok(None),
            }
        }
        Ok(PackedLinear::joined(&packed).map(|joined| Self {
            parameters: Parameters::Frozen(joined),
            watcher: None,
        }))
    }

    /// The layers as one product on a card, where they can be.
    pub(super) fn side_by_side(layers: &[Self]) -> Result<Option<PackedLinear>> {
        let packed: Vec<&PackedLinear> = layers
            .iter()
            .filter_map(|layer| match &layer.parameters {
                Parameters::Frozen(packed) if layer.watcher.is_none() => Some(packed),
                _ => None,
            })
            .collect();
        match packed.len() == layers.len() {
            true => PackedLinear::side_by_side(&packed),
            false => Ok(None),
        }
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.watched(x);
        match &self.parameters {
            Parameters::Frozen(packed) => packed.forward(x),
            Parameters::LowBit(packed) => packed.forward(x),
            Parameters::Trainable(weight, bias) => ops::linear(x, weight, bias.as_ref()),
        }
    }

    /// As [`Linear::forward`], in f32 on a card too, whatever that keeps: for logits.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_wide(&self, x: &Tensor) -> Result<Tensor> {
        match &self.parameters {
            Parameters::Frozen(packed) => {
                self.watched(x);
                packed.forward_wide(x)
            }
            _ => self.forward(x)?.to_dtype(crate::tensor::DType::F32),
        }
    }

    /// As [`Linear::forward`], followed by `steps`; a frozen layer takes them in the same pass.
    pub fn forward_with(&self, x: &Tensor, steps: &Epilogue) -> Result<Tensor> {
        match &self.parameters {
            Parameters::Frozen(packed) => {
                self.watched(x);
                packed.forward_with(x, steps)
            }
            Parameters::LowBit(packed) => {
                self.watched(x);
                packed.forward_with(x, steps)
            }
            Parameters::Trainable(..) => steps.apply(self.forward(x)?),
        }
    }

    /// The layer as a part of larger kernels, where it is frozen, not quantized to [`crate::WeightsBuilder::quantize`]
    /// and unwatched.
    pub(crate) fn pointwise(&self) -> Option<Pointwise<'_>> {
        match &self.parameters {
            _ if self.watcher.is_some() => None,
            Parameters::Frozen(packed) => packed.pointwise(),
            Parameters::LowBit(packed) => packed.pointwise(),
            Parameters::Trainable(..) => None,
        }
    }
}
