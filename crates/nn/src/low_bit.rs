//! Layers whose weights a file holds in 4 bits.

use crate::error::Result;
use brisk_kernels::int4::{GROUP, HalfKind, Int4Linear, Parts};

/// A linear layer over 4-bit weights, in plain order; see [`Parts`] for the shapes.
#[derive(Clone, Debug, Default)]
pub struct Int4Weight {
    /// Width of the result.
    pub outputs: usize,
    /// Width of the input.
    pub inputs: usize,
    /// −8 to 7, `[outputs, inputs]` with the inputs rounded up to groups of 64.
    pub codes: Vec<i8>,
    /// `[outputs, groups]`
    pub scales: Vec<f32>,
    /// Added to code·scale, `[outputs, groups]`: such a layer's activations are never rounded.
    pub zeros: Option<Vec<f32>>,
    /// What the input is divided by, `[inputs]`.
    pub smooth: Option<Vec<f32>>,
    /// Width of the branch.
    pub rank: usize,
    /// `[rank, inputs]`
    pub down: Vec<f32>,
    /// `[outputs, rank]`
    pub up: Vec<f32>,
    /// `[outputs]`
    pub bias: Option<Vec<f32>>,
    /// Type that scales and branch are held in.
    pub half: HalfKind,
}

impl Int4Weight {
    /// Adds `up·down` to the layer by widening its branch: `down` `[rank, inputs]`, `up`
    /// `[outputs, rank]`.
    pub(crate) fn widen_branch(&mut self, rank: usize, down: &[f32], up: &[f32]) {
        let joined = self.rank + rank;
        let mut wide = Vec::with_capacity(self.outputs * joined);
        for row in 0..self.outputs {
            wide.extend_from_slice(&self.up[row * self.rank..][..self.rank]);
            wide.extend_from_slice(&up[row * rank..][..rank]);
        }
        (self.up, self.rank) = (wide, joined);
        self.down.extend_from_slice(down);
    }

    /// The layer, packed.
    pub(crate) fn pack(&self) -> Int4Linear {
        Int4Linear::new(&Parts {
            outputs: self.outputs,
            inputs: self.inputs,
            codes: &self.codes,
            scales: &self.scales,
            zeros: self.zeros.as_deref(),
            smooth: self.smooth.as_deref(),
            rank: self.rank,
            down: &self.down,
            up: &self.up,
            bias: self.bias.as_deref(),
            half: self.half,
        })
    }

    /// Whether all parts have the sizes that the layer says.
    pub(crate) fn fits(&self) -> bool {
        let groups = self.inputs.div_ceil(GROUP);
        let grid = self.outputs * groups;
        self.codes.len() == grid * GROUP
            && self.scales.len() == grid
            && self.zeros.as_ref().is_none_or(|z| z.len() == grid)
            && self.smooth.as_ref().is_none_or(|s| s.len() == self.inputs)
            && self.bias.as_ref().is_none_or(|b| b.len() == self.outputs)
            && self.down.len() == self.rank * self.inputs
            && self.up.len() == self.outputs * self.rank
    }
}

/// Where such layers come from, beside the tensors that are stored plainly.
pub trait LowBitSource: Send + Sync {
    /// The linear layer called `path` in the plain model; `None` where it is not quantised.
    ///
    /// # Errors
    /// A layer that cannot be read, or of another size.
    fn linear(&self, path: &str, inputs: usize, outputs: usize) -> Result<Option<Int4Weight>>;

    /// Names of all layers that it holds.
    fn layers(&self) -> Vec<String>;
}
