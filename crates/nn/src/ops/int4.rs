//! The linear layer over 4-bit weights.

use super::epilogue::Epilogue;
use super::int4_on_device::DeviceInt4;
use super::storage::{cpu_slice, tensor, with_slices};
use crate::error::Result;
use crate::tensor::{Location, Tensor};
use brisk_kernels::buffer::unfilled;
use brisk_kernels::epilogue::Epilogue as Steps;
use brisk_kernels::glu_mb_conv::Pointwise;
use brisk_kernels::int4::{self, Activations, Int4Linear, Int4Weight};
use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, bail};
use std::ops::Range;
use std::sync::Arc;

/// Layers that share their input, mostly a single one, ready for use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PackedInt4(Form);

#[derive(Clone, Debug)]
enum Form {
    Host(OnHost),
    /// On a card.
    Device(Arc<DeviceInt4>),
}

impl PackedInt4 {
    /// Packs layers that fit, for where `location` says; `activations` says how inputs are rounded.
    ///
    /// # Errors
    /// Memory that ran out, and rounding that a card has not.
    pub fn at(weight: &Int4Weight, activations: Activations, location: &Location) -> Result<Self> {
        let form = match location.device() {
            None => Form::Host(OnHost::new(Int4Linear::new(weight), activations)),
            Some(device) => Form::Device(Arc::new(DeviceInt4::new(weight, activations, device)?)),
        };
        Ok(Self(form))
    }

    /// `[.., inputs]` to `[.., outputs]`, of a single layer.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Form::Host(layer) => layer.forward(x),
            Form::Device(layer) => layer.forward_with(x, &Epilogue::default()),
        }
    }

    /// As [`PackedInt4::forward`], followed by `steps` in the same pass where nothing is to be
    /// differentiated.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn forward_with(&self, x: &Tensor, steps: &Epilogue) -> Result<Tensor> {
        match &self.0 {
            Form::Host(layer) => layer.forward_with(x, steps),
            Form::Device(layer) => layer.forward_with(x, steps),
        }
    }

    /// The layer as a part of larger kernels, on the host.
    pub(crate) fn pointwise(&self) -> Option<Pointwise<'_>> {
        match &self.0 {
            Form::Host(layer) => Some(layer.pointwise()),
            Form::Device(_) => None,
        }
    }

    /// What each of some layers makes of `x`, which is rounded once for all unless something is to be
    /// differentiated.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn forward_each(&self, layers: Range<usize>, x: &Tensor) -> Result<Vec<Tensor>> {
        match &self.0 {
            Form::Host(layer) => layer.forward_each(layers, x),
            Form::Device(layer) => layer.forward_each(layers, x),
        }
    }
}

/// Layers in ordinary memory.
#[derive(Clone, Debug)]
struct OnHost {
    linear: Arc<Int4Linear>,
    activations: Activations,
}

impl OnHost {
    /// `activations` says how inputs are rounded; they are not where a layer has zero points.
    fn new(linear: Int4Linear, activations: Activations) -> Self {
        let activations = if linear.rounds_activations() {
            activations
        } else {
            Activations::Full
        };
        Self {
            linear: Arc::new(linear),
            activations,
        }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op1(self.layer(0))
    }

    fn forward_with(&self, x: &Tensor, steps: &Epilogue) -> Result<Tensor> {
        if !steps.fuses(x) {
            return steps.apply(self.forward(x)?);
        }
        let layer = self.layer(0);
        let dims = layer.out_dims(x.dims())?;
        with_slices!([x], {
            let y = steps.with_kernel(None, &dims, |steps| self.run(x, &dims, steps))?;
            Ok(tensor(y, &dims)?)
        })
    }

    fn pointwise(&self) -> Pointwise<'_> {
        Pointwise::Int4(&self.linear, self.activations)
    }

    fn forward_each(&self, layers: Range<usize>, x: &Tensor) -> Result<Vec<Tensor>> {
        if x.track_op() {
            let x = x.contiguous()?;
            return layers.map(|index| x.apply_op1(self.layer(index))).collect();
        }
        let dims = layers
            .clone()
            .map(|index| self.layer(index).out_dims(x.dims()));
        let dims = dims.collect::<CandleResult<Vec<_>>>()?;
        with_slices!([x], {
            let mut ys: Vec<_> = dims.iter().map(|d| unfilled(d.iter().product())).collect();
            let mut rooms: Vec<&mut [f32]> = ys.iter_mut().map(Vec::as_mut_slice).collect();
            int4::forward_each(x, &self.linear, layers, self.activations, &mut rooms);
            let results = ys.into_iter().zip(&dims).map(|(y, dims)| tensor(y, dims));
            Ok(results.collect::<CandleResult<_>>()?)
        })
    }

    fn layer(&self, index: usize) -> OneLayer {
        OneLayer {
            packed: self.clone(),
            index,
        }
    }

    fn run(&self, x: &[f32], dims: &[usize], steps: &Steps) -> Vec<f32> {
        let mut y = unfilled(dims.iter().product());
        int4::forward(x, &self.linear, self.activations, steps, &mut y);
        y
    }
}

/// One of the layers, as an operation.
struct OneLayer {
    packed: OnHost,
    index: usize,
}

impl OneLayer {
    fn out_dims(&self, dims: &[usize]) -> CandleResult<Vec<usize>> {
        let linear = &self.packed.linear;
        let Some(outputs) = linear.widths().nth(self.index) else {
            bail!("linear: there is no layer {}", self.index);
        };
        let inputs = linear.inputs();
        let mut out = dims.to_vec();
        if out.pop() != Some(inputs) {
            bail!("linear: input {dims:?} does not fit weight [{outputs}, {inputs}]");
        }
        out.push(outputs);
        Ok(out)
    }
}

impl CustomOp1 for OneLayer {
    fn name(&self) -> &'static str {
        "int4-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = cpu_slice(x, layout)?;
        let dims = self.out_dims(layout.dims())?;
        let mut y = unfilled(dims.iter().product());
        let (linear, layers) = (&self.packed.linear, self.index..self.index + 1);
        int4::forward_each(x, linear, layers, self.packed.activations, &mut [&mut y]);
        Ok((CpuStorage::F32(y), dims.into()))
    }
}
