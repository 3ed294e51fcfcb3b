//! 4-bit layers in plain order, as files and methods give them.

use super::{GROUP, HalfType};

/// A 16-bit side branch: `(x·downᵀ)·upᵀ` for the input as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    /// Width between the factors.
    pub rank: usize,
    /// `[rank, inputs]`
    pub down: Vec<f32>,
    /// `[outputs, rank]`
    pub up: Vec<f32>,
}

/// Layers over 4-bit weights that share their input, how it is rounded, and `down`: mostly a single one,
/// or those that were quantized together. Their outputs stand one after another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Int4Weight {
    /// Width of each layer's result.
    pub outputs: Vec<usize>,
    /// Width of the input; codes and scales cover it rounded up to whole groups.
    pub inputs: usize,
    /// −8 to 7, `[all outputs, groups·64]`.
    pub codes: Vec<i8>,
    /// `[all outputs, groups]`, exact in `half`.
    pub scales: Vec<f32>,
    /// Added to code·scale, `[all outputs, groups]`: such layers' activations are never rounded.
    pub zeros: Option<Vec<f32>>,
    /// What the input is divided by, `[inputs]`.
    pub smooth: Option<Vec<f32>>,
    /// The side branch, over all outputs.
    pub branch: Option<Branch>,
    /// `[all outputs]`
    pub bias: Option<Vec<f32>>,
    /// Type that scales and branch are held in.
    pub half: HalfType,
}

impl Int4Weight {
    /// Groups of inputs.
    pub fn groups(&self) -> usize {
        self.inputs.div_ceil(GROUP)
    }

    /// Whether all parts have the sizes that outputs and inputs say, and codes are of 4 bits.
    pub fn fits(&self) -> bool {
        let outputs: usize = self.outputs.iter().sum();
        let grid = outputs * self.groups();
        let branch = |branch: &Branch| {
            branch.down.len() == branch.rank * self.inputs
                && branch.up.len() == outputs * branch.rank
        };
        self.codes.len() == grid * GROUP
            && self.scales.len() == grid
            && self.zeros.as_ref().is_none_or(|z| z.len() == grid)
            && self.smooth.as_ref().is_none_or(|s| s.len() == self.inputs)
            && self.bias.as_ref().is_none_or(|b| b.len() == outputs)
            && self.branch.as_ref().is_none_or(branch)
            && self.codes.iter().all(|code| (-8..8).contains(code))
    }

    /// Adds `up·down` to all layers by widening their branch.
    ///
    /// # Panics
    /// When the factors are not of this input and these outputs.
    pub fn widen_branch(&mut self, more: Branch) {
        let outputs: usize = self.outputs.iter().sum();
        assert_eq!(more.down.len(), more.rank * self.inputs, "down");
        assert_eq!(more.up.len(), outputs * more.rank, "up");
        let Some(branch) = &mut self.branch else {
            self.branch = Some(more);
            return;
        };
        let joined = branch.rank + more.rank;
        let mut up = Vec::with_capacity(outputs * joined);
        for row in 0..outputs {
            up.extend_from_slice(&branch.up[row * branch.rank..][..branch.rank]);
            up.extend_from_slice(&more.up[row * more.rank..][..more.rank]);
        }
        (branch.up, branch.rank) = (up, joined);
        branch.down.extend_from_slice(&more.down);
    }

    /// Each layer for itself, with a copy of what they share.
    pub fn split(&self) -> Vec<Self> {
        let groups = self.groups();
        let mut first = 0;
        let part = |outputs: &usize| {
            let rows = first..first + outputs;
            first = rows.end;
            let grid = rows.start * groups..rows.end * groups;
            Self {
                outputs: vec![*outputs],
                inputs: self.inputs,
                codes: self.codes[grid.start * GROUP..grid.end * GROUP].to_vec(),
                scales: self.scales[grid.clone()].to_vec(),
                zeros: self.zeros.as_ref().map(|zeros| zeros[grid].to_vec()),
                smooth: self.smooth.clone(),
                branch: self.branch.as_ref().map(|branch| Branch {
                    rank: branch.rank,
                    down: branch.down.clone(),
                    up: branch.up[rows.start * branch.rank..rows.end * branch.rank].to_vec(),
                }),
                bias: self.bias.as_ref().map(|bias| bias[rows].to_vec()),
                half: self.half,
            }
        };
        self.outputs.iter().map(part).collect()
    }
}
