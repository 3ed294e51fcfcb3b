//! The linear layer over 4-bit weights.

use super::storage::cpu_slice;
use crate::error::Result;
use brisk_kernels::int4::{self, Activations, Int4Linear};
use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor, bail};
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
        Ok(x.contiguous()?.apply_op1(self.clone())?)
    }
}

impl CustomOp1 for PackedInt4 {
    fn name(&self) -> &'static str {
        "int4-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let x = cpu_slice(x, layout)?;
        let (outputs, inputs) = (self.layer.outputs(), self.layer.inputs());
        let mut dims = layout.dims().to_vec();
        if dims.pop() != Some(inputs) {
            bail!(
                "linear: input {:?} does not fit weight [{outputs}, {inputs}]",
                layout.dims()
            );
        }
        dims.push(outputs);
        let mut y = vec![0.0; dims.iter().product()];
        int4::forward(x, &self.layer, self.activations, &mut y, |_, _| ());
        Ok((CpuStorage::F32(y), dims.into()))
    }
}
