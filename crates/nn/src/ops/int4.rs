//! The linear layer over 4-bit weights.

use super::epilogue::Epilogue;
use super::storage::{cpu_slice, tensor, with_slices};
use crate::error::Result;
use crate::tensor::Tensor;
use brisk_kernels::buffer::unfilled;
use brisk_kernels::epilogue::Epilogue as Steps;
use brisk_kernels::glu_mb_conv::Pointwise;
use brisk_kernels::int4::{self, Activations, Int4Linear, SharedInput};
use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, bail};
use std::sync::Arc;

/// A layer, ready for use. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PackedInt4 {
    layer: Arc<Int4Linear>,
    activations: Activations,
}

impl PackedInt4 {
    /// `activations` says how inputs are rounded; they are not where the layer has zero points.
    pub fn new(layer: Int4Linear, activations: Activations) -> Self {
        let activations = if layer.rounds_activations() {
            activations
        } else {
            Activations::Full
        };
        Self {
            layer: Arc::new(layer),
            activations,
        }
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.contiguous()?.apply_op1(self.clone())
    }

    /// As [`PackedInt4::forward`], followed by `steps` in the same pass where nothing is to be
    /// differentiated.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn forward_with(&self, x: &Tensor, steps: &Epilogue) -> Result<Tensor> {
        if !steps.fuses(x) {
            return steps.apply(self.forward(x)?);
        }
        let dims = self.out_dims(x.dims())?;
        with_slices!([x], {
            let y = steps.with_kernel(None, &dims, |steps| self.run(x, steps))?;
            Ok(tensor(y, &dims)?)
        })
    }

    /// The layer as a part of larger kernels.
    pub(crate) fn pointwise(&self) -> Pointwise<'_> {
        Pointwise::Int4(&self.layer, self.activations)
    }

    /// What each of `layers` makes of `x`, which is rounded once for all; none where they do not share
    /// their input or something is to be differentiated.
    ///
    /// # Errors
    /// Sizes that do not fit.
    pub fn forward_each(layers: &[&Self], x: &Tensor) -> Result<Option<Vec<Tensor>>> {
        let Some(activations) = layers.first().map(|first| first.activations) else {
            return Ok(Some(Vec::new()));
        };
        let alike = layers.iter().all(|layer| layer.activations == activations);
        if !alike || x.track_op() {
            return Ok(None);
        }
        let kernels = layers.iter().map(|layer| &*layer.layer).collect();
        let Some(shared) = SharedInput::new(kernels) else {
            return Ok(None);
        };
        let dims = layers.iter().map(|layer| layer.out_dims(x.dims()));
        let dims = dims.collect::<CandleResult<Vec<_>>>()?;
        with_slices!([x], {
            let mut ys: Vec<_> = dims.iter().map(|d| unfilled(d.iter().product())).collect();
            let mut rooms: Vec<&mut [f32]> = ys.iter_mut().map(Vec::as_mut_slice).collect();
            int4::forward_each(x, &shared, activations, &mut rooms);
            let results = ys.into_iter().zip(&dims).map(|(y, dims)| tensor(y, dims));
            Ok(Some(results.collect::<CandleResult<_>>()?))
        })
    }

    fn out_dims(&self, dims: &[usize]) -> CandleResult<Vec<usize>> {
        let (outputs, inputs) = (self.layer.outputs(), self.layer.inputs());
        let mut out = dims.to_vec();
        if out.pop() != Some(inputs) {
            bail!("linear: input {dims:?} does not fit weight [{outputs}, {inputs}]");
        }
        out.push(outputs);
        Ok(out)
    }

    fn run(&self, x: &[f32], steps: &Steps) -> Vec<f32> {
        let (outputs, inputs) = (self.layer.outputs(), self.layer.inputs());
        let mut y = unfilled(x.len() / inputs.max(1) * outputs);
        int4::forward(x, &self.layer, self.activations, steps, &mut y);
        y
    }
}

impl CustomOp1 for PackedInt4 {
    fn name(&self) -> &'static str {
        "int4-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = cpu_slice(x, layout)?;
        let dims = self.out_dims(layout.dims())?;
        let y = self.run(x, &Steps::default());
        Ok((CpuStorage::F32(y), dims.into()))
    }
}
