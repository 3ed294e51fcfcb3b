//! Products with weights that are packed for them once, at load. Trainable weights stay plain
//! tensors; through packed layers gradients reach their inputs, and tangents pass.

use super::epilogue::Epilogue;
use super::on_device::{DeviceConv, DeviceLinear};
use super::storage::{Reach, cpu_slice, tensor, with_slices};
use super::tangent;
use crate::error::Result;
use crate::tensor::{Location, Tensor};
use brisk_kernels::buffer::unfilled;
use brisk_kernels::conv::{self, ConvShape};
use brisk_kernels::epilogue::Epilogue as Steps;
use brisk_kernels::glu_mb_conv::Pointwise;
use brisk_kernels::linear;
use brisk_kernels::packed::{self, PackedMatrix};
use brisk_kernels::quantized::{self, Bits, QuantizedMatrix};
use brisk_kernels::winograd::{self, WinogradShape, WinogradWeight};
use candle_core::{
    CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Storage, Tensor as HostTensor,
    bail,
};
use half::{bf16, f16};
use std::ops::Range;
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
    Quantized(Arc<QuantizedMatrix>),
    /// On a card, with its bias.
    Device(Arc<DeviceLinear>),
}

impl LinearWeight {
    /// Outputs and inputs.
    fn dims(&self) -> (usize, usize) {
        match self {
            LinearWeight::Packed(matrix) => (matrix.outputs(), matrix.inputs()),
            LinearWeight::Quantized(matrix) => (matrix.outputs(), matrix.inputs()),
            LinearWeight::Device(layer) => layer.sides(),
        }
    }

    /// The values that it stands for, `[outputs, inputs]`.
    fn unpack(&self) -> Vec<f32> {
        match self {
            LinearWeight::Packed(matrix) => matrix.unpack(),
            LinearWeight::Quantized(matrix) => matrix.unpack(),
            // Nothing is differentiated on a card.
            LinearWeight::Device(_) => Vec::new(),
        }
    }
}

/// Whether a layer can be packed: no gradient is to reach its parameters.
pub fn can_pack(weight: &Tensor, bias: Option<&Tensor>) -> bool {
    !weight.track_op() && !bias.is_some_and(Tensor::track_op)
}

impl PackedLinear {
    /// From `weight` `[outputs, inputs]` in f32, bf16 or f16, which keeps its type, and `bias`
    /// `[outputs]`.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        if let Some(layer) = DeviceLinear::new(weight, bias)? {
            return Ok(Self {
                matrix: LinearWeight::Device(Arc::new(layer)),
                bias: None,
            });
        }
        Ok(Self {
            matrix: LinearWeight::Packed(Arc::new(pack(weight)?)),
            bias: bias.map(values).transpose()?,
        })
    }

    /// From a quantized weight, which goes to `location`, and `bias` `[outputs]`, which is there.
    pub(crate) fn quantized(
        matrix: Arc<QuantizedMatrix>,
        bias: Option<&Tensor>,
        location: &Location,
    ) -> Result<Self> {
        if let Some(device) = location.device() {
            let layer = DeviceLinear::quantized(&matrix, bias, device)?;
            return Ok(Self {
                matrix: LinearWeight::Device(Arc::new(layer)),
                bias: None,
            });
        }
        Ok(Self {
            matrix: LinearWeight::Quantized(matrix),
            bias: bias.map(values).transpose()?,
        })
    }

    /// One layer of the outputs of all `parts`; none where their weights differ in kind or type, where
    /// only some have a bias, or where a weight is in use elsewhere and would be there twice.
    pub fn joined(parts: &[&Self]) -> Option<Self> {
        let biases: Vec<&[f32]> = parts
            .iter()
            .filter_map(|part| part.bias.as_deref())
            .collect();
        let bias = match biases.len() {
            0 => None,
            count if count == parts.len() => Some(biases.concat().into()),
            _ => return None,
        };
        let mut packed = Vec::new();
        let mut quantized = Vec::new();
        let mut device = Vec::new();
        for part in parts {
            match &part.matrix {
                LinearWeight::Device(layer) if Arc::strong_count(layer) == 1 => {
                    device.push(&**layer);
                }
                LinearWeight::Packed(matrix) if Arc::strong_count(matrix) == 1 => {
                    packed.push(&**matrix);
                }
                LinearWeight::Quantized(matrix) if Arc::strong_count(matrix) == 1 => {
                    quantized.push(&**matrix);
                }
                _ => return None,
            }
        }
        if device.len() == parts.len() {
            // Without memory for a second copy they stay apart.
            let joined = DeviceLinear::joined(&device).ok().flatten()?;
            return Some(Self {
                matrix: LinearWeight::Device(Arc::new(joined)),
                bias: None,
            });
        }
        let matrix = match (packed.len(), quantized.len()) {
            _ if !device.is_empty() => return None,
            (_, 0) => LinearWeight::Packed(Arc::new(PackedMatrix::joined(&packed)?)),
            (0, _) => LinearWeight::Quantized(Arc::new(QuantizedMatrix::joined(&quantized)?)),
            _ => return None,
        };
        Some(Self { matrix, bias })
    }

    /// The layers of a card as one; none where they lie elsewhere, differ, or are in use elsewhere too.
    ///
    /// # Errors
    /// What the card says.
    pub(crate) fn side_by_side(parts: &[&Self]) -> Result<Option<Self>> {
        let layers: Vec<&DeviceLinear> = parts
            .iter()
            .filter_map(|part| match &part.matrix {
                LinearWeight::Device(layer) if Arc::strong_count(layer) == 1 => Some(&**layer),
                _ => None,
            })
            .collect();
        if layers.len() != parts.len() {
            return Ok(None);
        }
        let joined = DeviceLinear::side_by_side(&layers)?;
        Ok(joined.map(|layer| Self {
            matrix: LinearWeight::Device(Arc::new(layer)),
            bias: None,
        }))
    }

    /// What each of the layers `which` makes of `[.., inputs]`, of `count` that [`PackedLinear::side_by_side`] made one.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub(crate) fn forward_parts(
        &self,
        x: &Tensor,
        count: usize,
        which: Range<usize>,
    ) -> Result<Vec<Tensor>> {
        match &self.matrix {
            LinearWeight::Device(layer) => layer.forward_parts(x, count, which),
            _ => Err(crate::Error::Config(
                "layers side by side lie on a card".to_owned(),
            )),
        }
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if let LinearWeight::Device(layer) = &self.matrix {
            return layer.forward(x, &Epilogue::default());
        }
        if x.has_tangent() {
            return tangent::affine(x, &|x, biased| {
                let bias = self.bias.clone().filter(|_| biased);
                let matrix = self.matrix.clone();
                x.contiguous()?.apply_op1(Self { matrix, bias })
            });
        }
        x.contiguous()?.apply_op1(self.clone())
    }

    /// As [`PackedLinear::forward`], in f32 on a card too.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn forward_wide(&self, x: &Tensor) -> Result<Tensor> {
        match &self.matrix {
            LinearWeight::Device(layer) => layer.forward_wide(x),
            _ => self.forward(x),
        }
    }

    /// As [`PackedLinear::forward`], followed by `steps` while the result is in a cache.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn forward_with(&self, x: &Tensor, steps: &Epilogue) -> Result<Tensor> {
        if let LinearWeight::Device(layer) = &self.matrix {
            return layer.forward(x, steps);
        }
        if !steps.fuses(x) {
            return steps.apply(self.forward(x)?);
        }
        let dims = self.out_dims(x.dims())?;
        with_slices!([x], {
            let y = steps.with_kernel(self.bias.as_deref(), &dims, |steps| self.run(x, steps))?;
            Ok(tensor(y, &dims)?)
        })
    }

    /// The layer as a part of larger kernels, where its weight is kept as it is stored.
    pub(crate) fn pointwise(&self) -> Option<Pointwise<'_>> {
        match &self.matrix {
            LinearWeight::Packed(matrix) => Some(Pointwise::Packed(matrix, self.bias.as_deref())),
            LinearWeight::Quantized(_) | LinearWeight::Device(_) => None,
        }
    }

    fn out_dims(&self, dims: &[usize]) -> CandleResult<Vec<usize>> {
        let (outputs, inputs) = self.matrix.dims();
        let mut out = dims.to_vec();
        if out.pop() != Some(inputs) || self.bias.as_ref().is_some_and(|b| b.len() != outputs) {
            bail!("linear: input {dims:?} does not fit weight [{outputs}, {inputs}]");
        }
        out.push(outputs);
        Ok(out)
    }

    fn run(&self, x: &[f32], steps: &Steps) -> Vec<f32> {
        let (outputs, inputs) = self.matrix.dims();
        let mut y = unfilled(x.len() / inputs.max(1) * outputs);
        let finish = |first: usize, rows: &mut [f32]| steps.apply(first, rows, outputs);
        match (&self.matrix, steps.is_empty()) {
            (LinearWeight::Packed(matrix), true) => packed::multiply(x, matrix, &mut y),
            (LinearWeight::Packed(matrix), false) => packed::forward(x, matrix, &mut y, finish),
            (LinearWeight::Quantized(matrix), true) => quantized::multiply(x, matrix, &mut y),
            (LinearWeight::Quantized(matrix), false) => {
                quantized::forward(x, matrix, &mut y, finish);
            }
            // Its values are never on the host: `forward` turned off before.
            (LinearWeight::Device(_), _) => {}
        }
        y
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
    let (storage, layout) = weight.reach()?;
    let start = layout.start_offset();
    let range = start..start + outputs * inputs;
    let values = match &*storage {
        Storage::Cpu(CpuStorage::F32(w)) => Values::F32(&w[range]),
        Storage::Cpu(CpuStorage::BF16(w)) => Values::Bf16(&w[range]),
        Storage::Cpu(CpuStorage::F16(w)) => Values::F16(&w[range]),
        _ => {
            return Err(crate::Error::Config(format!(
                "a weight of {:?} can't be packed; expected f32, bf16 or f16",
                weight.dtype()
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

/// A weight `[outputs, inputs]` in f32, bf16 or f16, quantized.
pub(crate) fn quantize(weight: &Tensor, bits: Bits) -> Result<QuantizedMatrix> {
    with_values(weight, |values, outputs, inputs| match values {
        Values::F32(w) => QuantizedMatrix::from_f32(w, outputs, inputs, bits),
        Values::Bf16(w) => QuantizedMatrix::from_bf16(w, outputs, inputs, bits),
        Values::F16(w) => QuantizedMatrix::from_f16(w, outputs, inputs, bits),
    })
}

impl CustomOp1 for PackedLinear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let dims = self.out_dims(layout.dims())?;
        let steps = Steps {
            bias: self.bias.as_deref(),
            ..Steps::default()
        };
        let y = self.run(cpu_slice(x, layout)?, &steps);
        Ok((CpuStorage::F32(y), dims.into()))
    }

    fn bwd(
        &self,
        x: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<Option<HostTensor>> {
        let (outputs, inputs) = self.matrix.dims();
        let dims = x.dims();
        with_slices!([grad], {
            let mut dx = vec![0.0; grad.len() / outputs.max(1) * inputs];
            linear::backward_input(grad, outputs, &self.matrix.unpack(), inputs, &mut dx);
            Ok(Some(tensor(dx, dims)?))
        })
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
    /// On a card, with its bias.
    Device(Arc<DeviceConv>),
}

impl ConvWeight {
    /// Input and output channels.
    fn channels(&self, kernel: usize) -> (usize, usize) {
        match self {
            ConvWeight::Direct(matrix) => (matrix.inputs() / (kernel * kernel), matrix.outputs()),
            ConvWeight::Winograd(weight) => (weight.inputs(), weight.outputs()),
            ConvWeight::Device(layer) => layer.channels(),
        }
    }

    /// The values that it stands for, `[outputs, kernel, kernel, inputs]`.
    fn unpack(&self) -> Vec<f32> {
        match self {
            ConvWeight::Direct(matrix) => matrix.unpack(),
            ConvWeight::Winograd(weight) => weight.unpack(),
            // Nothing is differentiated on a card.
            ConvWeight::Device(_) => Vec::new(),
        }
    }
}

/// Channels below which Winograd's transforms cost more than they save.
const WINOGRAD_CHANNELS: usize = 32;

impl PackedConv2d {
    /// From `weight` `[outputs, kernel, kernel, inputs]` and `bias` `[outputs]`, both f32. Wide 3×3
    /// kernels of stride 1 and padding 1 are computed by Winograd's transforms, unless `exact`.
    pub fn new(
        weight: &Tensor,
        bias: Option<&Tensor>,
        stride: usize,
        padding: usize,
        exact: bool,
    ) -> Result<Self> {
        let (outputs, kernel, _, inputs) = weight.dims4()?;
        if let Some(layer) = DeviceConv::new(weight, bias, stride, padding)? {
            return Ok(Self {
                weight: ConvWeight::Device(Arc::new(layer)),
                bias: None,
                kernel,
                stride,
                padding,
            });
        }
        let wide = !exact && inputs.min(outputs) >= WINOGRAD_CHANNELS;
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
        if let ConvWeight::Device(layer) = &self.weight {
            return layer.forward(x, false, &Epilogue::default());
        }
        if x.has_tangent() {
            return tangent::affine(x, &|x, biased| {
                let bias = self.bias.clone().filter(|_| biased);
                Self {
                    bias,
                    ..self.clone()
                }
                .forward(x)
            });
        }
        let shape = self.shape(x.dims(), false)?;
        let op = ConvOp {
            conv: self.clone(),
            shape,
        };
        x.contiguous()?.apply_op1(op)
    }

    /// As [`PackedConv2d::forward`], followed by `steps` while the result is in a cache.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn forward_with(&self, x: &Tensor, steps: &Epilogue) -> Result<Tensor> {
        if let ConvWeight::Device(layer) = &self.weight {
            return layer.forward(x, false, steps);
        }
        if !steps.fuses(x) {
            return steps.apply(self.forward(x)?);
        }
        self.run_fused(x, false, steps)
    }

    /// As [`PackedConv2d::forward_with`] of the map of which every pixel is made a square of 2×2.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn forward_upsampled_with(&self, x: &Tensor, steps: &Epilogue) -> Result<Tensor> {
        if let ConvWeight::Device(layer) = &self.weight {
            return layer.forward(x, true, steps);
        }
        if !steps.fuses(x) || matches!(self.weight, ConvWeight::Direct(_)) {
            return self.forward_with(&super::upsample_nearest2(x)?, steps);
        }
        self.run_fused(x, true, steps)
    }

    fn run_fused(&self, x: &Tensor, upsample: bool, steps: &Epilogue) -> Result<Tensor> {
        let shape = self.shape(x.dims(), upsample)?;
        let dims = out_dims(&shape);
        with_slices!([x], {
            let y = steps.with_kernel(self.bias.as_deref(), &dims, |steps| {
                self.run(x, &shape, upsample, steps)
            })?;
            Ok(tensor(y, &dims)?)
        })
    }

    /// The convolution of a map of these sizes, after upsampling where that is part of it.
    fn shape(&self, dims: &[usize], upsample: bool) -> Result<ConvShape> {
        let (inputs, outputs) = self.weight.channels(self.kernel);
        let scale = 1 + usize::from(upsample);
        let shape = match *dims {
            [batch, height, width, channels] if channels == inputs => Some(ConvShape {
                batch,
                height: scale * height,
                width: scale * width,
                inputs,
                outputs,
                kernel: self.kernel,
                stride: self.stride,
                padding: self.padding,
            }),
            _ => None,
        };
        let large =
            |shape: &ConvShape| shape.height.min(shape.width) + 2 * self.padding >= self.kernel;
        shape.filter(large).ok_or_else(|| {
            let expected = format!(
                "[batch, height, width, {inputs}] of at least the kernel's size {}",
                self.kernel
            );
            super::linear::shape_error("conv2d", dims, &expected)
        })
    }

    fn run(&self, x: &[f32], shape: &ConvShape, upsample: bool, steps: &Steps) -> Vec<f32> {
        let mut y = unfilled(out_dims(shape).iter().product());
        let finish = |first: usize, run: &mut [f32]| steps.apply(first, run, shape.outputs);
        match &self.weight {
            ConvWeight::Direct(matrix) => conv::forward_packed(shape, x, matrix, &mut y, finish),
            ConvWeight::Winograd(weight) => {
                let shift = usize::from(upsample);
                let shape = WinogradShape {
                    batch: shape.batch,
                    height: shape.height >> shift,
                    width: shape.width >> shift,
                    upsample,
                };
                winograd::forward(&shape, x, weight, &mut y, finish);
            }
            // Its values are never on the host: `forward` turned off before.
            ConvWeight::Device(_) => {}
        }
        y
    }
}

fn out_dims(shape: &ConvShape) -> [usize; 4] {
    let (height, width) = (shape.out_height(), shape.out_width());
    [shape.batch, height, width, shape.outputs]
}

struct ConvOp {
    conv: PackedConv2d,
    shape: ConvShape,
}

impl CustomOp1 for ConvOp {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let steps = Steps {
            bias: self.conv.bias.as_deref(),
            ..Steps::default()
        };
        let x = cpu_slice(x, layout)?;
        let y = self.conv.run(x, &self.shape, false, &steps);
        Ok((CpuStorage::F32(y), out_dims(&self.shape).to_vec().into()))
    }

    fn bwd(
        &self,
        x: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<Option<HostTensor>> {
        let weight = self.conv.weight.unpack();
        with_slices!([grad], {
            let mut dx = unfilled(x.elem_count());
            conv::backward_input(&self.shape, &weight, grad, &mut dx);
            Ok(Some(tensor(dx, x.dims())?))
        })
    }
}
