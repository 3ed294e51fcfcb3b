//! Products with weights that are packed for them once, at load. They have no gradients: trainable
//! weights stay plain tensors.

use super::storage::cpu_slice;
use crate::error::Result;
use brisk_kernels::conv::{self, ConvShape};
use brisk_kernels::linear::add_bias;
use brisk_kernels::packed::{self, PackedMatrix};
use brisk_kernels::quantised::{self, Bits, QuantisedMatrix};
use brisk_kernels::winograd::{self, WinogradShape, WinogradWeight};
use candle_core::{
    CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Storage, Tensor, bail,
};
use half::{bf16, f16};
use std::sync::Arc;

/// A linear layer's weight and bias, ready for use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PackedLinear {
    matrix: LinearWeight,
    bias: Option<Arc<[f32]>>,
}

#[derive(Clone, Debug)]
enum LinearWeight {
    /// As it is stored.
    Packed(Arc<PackedMatrix>),
    /// In 4 or 8 bits.
    Quantised(Arc<QuantisedMatrix>),
}

impl LinearWeight {
    /// Outputs and inputs.
    fn dims(&self) -> (usize, usize) {
        match self {
            LinearWeight::Packed(matrix) => (matrix.outputs(), matrix.inputs()),
            LinearWeight::Quantised(matrix) => (matrix.outputs(), matrix.inputs()),
        }
    }
}

/// Whether a layer can be packed: it lies on the CPU, and no gradient is to reach its parameters.
pub fn can_pack(weight: &Tensor, bias: Option<&Tensor>) -> bool {
    weight.device().is_cpu() && !weight.track_op() && !bias.is_some_and(Tensor::track_op)
}

impl PackedLinear {
    /// From `weight` `[outputs, inputs]` in f32, bf16 or f16, which keeps its type, and `bias`
    /// `[outputs]`.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        Ok(Self {
            matrix: LinearWeight::Packed(Arc::new(pack(weight)?)),
            bias: bias.map(values).transpose()?,
        })
    }

    /// From a quantised weight and `bias` `[outputs]`.
    pub fn quantised(matrix: Arc<QuantisedMatrix>, bias: Option<&Tensor>) -> Result<Self> {
        Ok(Self {
            matrix: LinearWeight::Quantised(matrix),
            bias: bias.map(values).transpose()?,
        })
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.contiguous()?.apply_op1(self.clone())?)
    }
}

fn values(tensor: &Tensor) -> Result<Arc<[f32]>> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?.into())
}

/// The values of a weight, as they are stored.
enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
}

/// Calls `make` with values, outputs and inputs of a weight `[outputs, inputs]`.
fn with_values<R>(weight: &Tensor, make: impl FnOnce(Values, usize, usize) -> R) -> Result<R> {
    let weight = weight.contiguous()?;
    let (outputs, inputs) = weight.dims2()?;
    let (storage, layout) = weight.storage_and_layout();
    let start = layout.start_offset();
    let range = start..start + outputs * inputs;
    let values = match &*storage {
        Storage::Cpu(CpuStorage::F32(w)) => Values::F32(&w[range]),
        Storage::Cpu(CpuStorage::BF16(w)) => Values::Bf16(&w[range]),
        Storage::Cpu(CpuStorage::F16(w)) => Values::F16(&w[range]),
        _ => {
            return Err(crate::Error::Config(format!(
                "a weight of {:?} on {:?} can't be packed; expected f32, bf16 or f16 on the CPU",
                weight.dtype(),
                weight.device()
            )));
        }
    };
    Ok(make(values, outputs, inputs))
}

fn pack(weight: &Tensor) -> Result<PackedMatrix> {
    with_values(weight, |values, outputs, inputs| match values {
        Values::F32(w) => PackedMatrix::from_f32(w, outputs, inputs),
        Values::Bf16(w) => PackedMatrix::from_bf16(w, outputs, inputs),
        Values::F16(w) => PackedMatrix::from_f16(w, outputs, inputs),
    })
}

/// A weight `[outputs, inputs]` in f32, bf16 or f16, quantised.
pub(crate) fn quantise(weight: &Tensor, bits: Bits) -> Result<QuantisedMatrix> {
    with_values(weight, |values, outputs, inputs| match values {
        Values::F32(w) => QuantisedMatrix::from_f32(w, outputs, inputs, bits),
        Values::Bf16(w) => QuantisedMatrix::from_bf16(w, outputs, inputs, bits),
        Values::F16(w) => QuantisedMatrix::from_f16(w, outputs, inputs, bits),
    })
}

impl CustomOp1 for PackedLinear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = cpu_slice(x, layout)?;
        let (outputs, inputs) = self.matrix.dims();
        let mut dims = layout.dims().to_vec();
        if dims.pop() != Some(inputs) || self.bias.as_ref().is_some_and(|b| b.len() != outputs) {
            bail!(
                "linear: input {:?} does not fit weight [{outputs}, {inputs}]",
                layout.dims()
            );
        }
        dims.push(outputs);
        let mut y = vec![0.0; dims.iter().product()];
        let finish = |_: usize, rows: &mut [f32]| finish(rows, self.bias.as_deref());
        match &self.matrix {
            LinearWeight::Packed(matrix) => packed::forward(x, matrix, &mut y, finish),
            LinearWeight::Quantised(matrix) => quantised::forward(x, matrix, &mut y, finish),
        }
        Ok((CpuStorage::F32(y), dims.into()))
    }
}

fn finish(rows: &mut [f32], bias: Option<&[f32]>) {
    if let Some(bias) = bias {
        add_bias(rows, bias);
    }
}

/// A convolution's weight and bias, ready for use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PackedConv2d {
    weight: ConvWeight,
    bias: Option<Arc<[f32]>>,
    kernel: usize,
    stride: usize,
    padding: usize,
}

#[derive(Clone, Debug)]
enum ConvWeight {
    /// `[outputs, kernel·kernel·inputs]`
    Direct(Arc<PackedMatrix>),
    Winograd(Arc<WinogradWeight>),
}

impl ConvWeight {
    /// Input and output channels.
    fn channels(&self, kernel: usize) -> (usize, usize) {
        match self {
            ConvWeight::Direct(matrix) => (matrix.inputs() / (kernel * kernel), matrix.outputs()),
            ConvWeight::Winograd(weight) => (weight.inputs(), weight.outputs()),
        }
    }
}

/// Channels below which Winograd's transforms cost more than they save.
const WINOGRAD_CHANNELS: usize = 32;

impl PackedConv2d {
    /// From `weight` `[outputs, kernel, kernel, inputs]` and `bias` `[outputs]`, both f32. Wide 3×3
    /// kernels of stride 1 and padding 1 are computed by Winograd's F(4×4, 3×3).
    pub fn new(
        weight: &Tensor,
        bias: Option<&Tensor>,
        stride: usize,
        padding: usize,
    ) -> Result<Self> {
        let (outputs, kernel, _, inputs) = weight.dims4()?;
        let wide = inputs.min(outputs) >= WINOGRAD_CHANNELS;
        let weight = if wide && (kernel, stride, padding) == (3, 1, 1) {
            let w = values(weight)?;
            ConvWeight::Winograd(Arc::new(WinogradWeight::new(&w, outputs, inputs)))
        } else {
            let flat = weight.reshape((outputs, kernel * kernel * inputs))?;
            ConvWeight::Direct(Arc::new(pack(&flat)?))
        };
        Ok(Self {
            weight,
            bias: bias.map(values).transpose()?,
            kernel,
            stride,
            padding,
        })
    }

    /// `[batch, height, width, inputs]` to `[batch, height', width', outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, height, width, channels) = x.dims4()?;
        let (inputs, _) = self.weight.channels(self.kernel);
        let (rows, columns) = (height + 2 * self.padding, width + 2 * self.padding);
        if channels != inputs || rows < self.kernel || columns < self.kernel {
            let expected = format!(
                "[batch, height, width, {inputs}] of at least the kernel's size {}",
                self.kernel
            );
            return Err(super::linear::shape_error("conv2d", x.dims(), &expected));
        }
        Ok(x.contiguous()?.apply_op1(self.clone())?)
    }
}

impl CustomOp1 for PackedConv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = cpu_slice(x, layout)?;
        let (batch, height, width, inputs) = layout.shape().dims4()?;
        let (_, outputs) = self.weight.channels(self.kernel);
        let shape = ConvShape {
            batch,
            height,
            width,
            inputs,
            outputs,
            kernel: self.kernel,
            stride: self.stride,
            padding: self.padding,
        };
        let dims = (batch, shape.out_height(), shape.out_width(), outputs);
        let mut y = vec![0.0; dims.0 * dims.1 * dims.2 * dims.3];
        let finish = |_: usize, run: &mut [f32]| finish(run, self.bias.as_deref());
        match &self.weight {
            ConvWeight::Direct(matrix) => {
                conv::forward_packed(&shape, x, matrix, &mut y, finish);
            }
            ConvWeight::Winograd(weight) => {
                let shape = WinogradShape {
                    batch,
                    height,
                    width,
                    upsample: false,
                };
                winograd::forward(&shape, x, weight, &mut y, finish);
            }
        }
        Ok((CpuStorage::F32(y), dims.into()))
    }
}
