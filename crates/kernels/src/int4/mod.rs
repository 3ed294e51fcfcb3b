//! The linear layer over 4-bit weights with a low-rank branch (SVDQuant):
//! `y = Q(x / smooth)·Wᵀ + (x·downᵀ)·upᵀ + bias`.
//!
//! Weights are integers −8..7 in groups of 64 inputs, each group with a scale. Activations are
//! rounded on the fly, per row and group, to 8 bits (the default), to 4 bits (as the engine that these
//! files were made for does) or not at all. With rounded activations a group is one integer product
//! (`tile.rs`); groups are added in f32.

mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
mod forward;
mod level;
mod operands;
mod tile;

use crate::gemm::layout::{DEPTH, PANEL};
use crate::gemm::packed::PackedMatrix;
use crate::simd::simd_dispatch;
pub use forward::{SharedInput, forward, forward_each};
use half::{bf16, f16};
use rayon::prelude::*;
use std::ops::Range;

/// Inputs that share a scale.
pub const GROUP: usize = 64;

/// Bytes of a panel's group.
pub(crate) const GROUP_BYTES: usize = GROUP * PANEL / 2;

/// How activations are rounded before the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Activations {
    /// To 8 bits.
    #[default]
    Eight,
    /// To 4 bits, with scales in the weight's 16-bit type.
    Four,
    /// Not at all; the weight is widened instead.
    Full,
}

/// The 16-bit type of scales and branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HalfKind {
    /// bfloat16.
    #[default]
    Bf16,
    /// IEEE half.
    F16,
}

impl HalfKind {
    pub(crate) fn round(self, value: f32) -> f32 {
        self.widen(self.narrow(value))
    }

    fn narrow(self, value: f32) -> u16 {
        match self {
            Self::Bf16 => bf16::from_f32(value).to_bits(),
            Self::F16 => f16::from_f32(value).to_bits(),
        }
    }

    fn widen(self, bits: u16) -> f32 {
        match self {
            Self::Bf16 => bf16::from_bits(bits).to_f32(),
            Self::F16 => f16::from_bits(bits).to_f32(),
        }
    }
}

/// What a layer is made of, in plain order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts<'a> {
    /// Width of the result.
    pub outputs: usize,
    /// Width of the input; codes and scales cover it rounded up to whole groups.
    pub inputs: usize,
    /// −8 to 7, `[outputs, groups·64]`.
    pub codes: &'a [i8],
    /// `[outputs, groups]`, exact in `half`.
    pub scales: &'a [f32],
    /// Added to code·scale, `[outputs, groups]`; for unrounded activations only.
    pub zeros: Option<&'a [f32]>,
    /// What the input is divided by, `[inputs]`.
    pub smooth: Option<&'a [f32]>,
    /// Width of the branch; 0 for none.
    pub rank: usize,
    /// `[rank, inputs]`, for the input as it is.
    pub down: &'a [f32],
    /// `[outputs, rank]`
    pub up: &'a [f32],
    /// `[outputs]`
    pub bias: Option<&'a [f32]>,
    /// Type that scales and branch are held in.
    pub half: HalfKind,
}

/// A layer, ready for use.
#[derive(Clone, Debug)]
pub struct Int4Linear {
    outputs: usize,
    inputs: usize,
    groups: usize,
    /// Panel after panel, group after group; byte `64·c + 4·o + i` of a group holds the codes plus 8 of
    /// output o for inputs 4·c + i (low half) and 32 + 4·c + i.
    panels: Vec<u8>,
    /// Panel after panel: `[groups, 16]`.
    scales: Vec<u16>,
    zeros: Option<Vec<u16>>,
    inverse_smooth: Option<Vec<f32>>,
    branch: Option<(PackedMatrix, PackedMatrix)>,
    bias: Option<Vec<f32>>,
    half: HalfKind,
}

impl Int4Linear {
    /// Packs a layer.
    ///
    /// # Panics
    /// When sizes do not fit, or a code is outside −8..7.
    pub fn new(parts: &Parts) -> Self {
        let Parts {
            outputs,
            inputs,
            rank,
            half,
            ..
        } = *parts;
        let groups = inputs.div_ceil(GROUP);
        let width = groups * GROUP;
        assert_eq!(
            parts.codes.len(),
            outputs * width,
            "codes of {outputs}x{width}"
        );
        assert_eq!(
            parts.scales.len(),
            outputs * groups,
            "scales of {outputs}x{groups}"
        );
        assert!(
            parts.codes.iter().all(|c| (-8..8).contains(c)),
            "4-bit codes"
        );
        let count = outputs.div_ceil(PANEL);
        let mut panels = vec![0x88u8; count * groups * GROUP_BYTES];
        let panel_bytes = (groups * GROUP_BYTES).max(1);
        panels
            .par_chunks_exact_mut(panel_bytes)
            .enumerate()
            .for_each(|(p, panel)| {
                for (o, row) in rows_of(parts.codes, width, p) {
                    for (k, code) in row.iter().enumerate() {
                        let (group, k) = (k / GROUP, k % GROUP);
                        let byte = group * GROUP_BYTES + k % 32 / 4 * 64 + o * 4 + k % 4;
                        let shift = k / 32 * 4;
                        let value = (code + 8) as u8;
                        panel[byte] = panel[byte] & !(15 << shift) | value << shift;
                    }
                }
            });
        let grid = |values: &[f32]| {
            let mut out = vec![half.narrow(0.0); count * groups * PANEL];
            let size = (groups * PANEL).max(1);
            for (p, panel) in out.chunks_exact_mut(size).enumerate() {
                for (o, row) in rows_of(values, groups, p) {
                    for (g, value) in row.iter().enumerate() {
                        panel[g * PANEL + o] = half.narrow(*value);
                    }
                }
            }
            out
        };
        let pack = |values: &[f32], rows: usize, columns: usize| match half {
            HalfKind::Bf16 => {
                let narrow: Vec<bf16> = values.iter().map(|v| bf16::from_f32(*v)).collect();
                PackedMatrix::from_bf16(&narrow, rows, columns)
            }
            HalfKind::F16 => {
                let narrow: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
                PackedMatrix::from_f16(&narrow, rows, columns)
            }
        };
        if let Some(zeros) = parts.zeros {
            assert_eq!(zeros.len(), outputs * groups, "zeros of {outputs}x{groups}");
        }
        if let Some(smooth) = parts.smooth {
            assert_eq!(smooth.len(), inputs, "smoothing factors of {inputs} inputs");
        }
        if let Some(bias) = parts.bias {
            assert_eq!(bias.len(), outputs, "bias of {outputs} outputs");
        }
        Self {
            outputs,
            inputs,
            groups,
            panels,
            scales: grid(parts.scales),
            zeros: parts.zeros.map(grid),
            inverse_smooth: parts
                .smooth
                .map(|smooth| smooth.iter().map(|s| 1.0 / s).collect()),
            branch: (rank > 0).then(|| {
                (
                    pack(parts.down, rank, inputs),
                    pack(parts.up, outputs, rank),
                )
            }),
            bias: parts.bias.map(<[f32]>::to_vec),
            half,
        }
    }

    /// Width of the result.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Width of the branch.
    pub fn rank(&self) -> usize {
        self.branch.as_ref().map_or(0, |(down, _)| down.outputs())
    }

    /// Whether activations can be rounded: not where codes have zero points.
    pub fn rounds_activations(&self) -> bool {
        self.zeros.is_none()
    }

    /// Whether another layer's input is rounded and goes through `down` as this one's.
    fn shares_input(&self, other: &Self) -> bool {
        let [mine, theirs] = [self, other].map(|layer| layer.branch.as_ref().map(|(down, _)| down));
        self.inputs == other.inputs
            && self.half == other.half
            && self.inverse_smooth == other.inverse_smooth
            && mine == theirs
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        let halves = self.scales.len() + self.zeros.as_ref().map_or(0, Vec::len);
        let words = [&self.inverse_smooth, &self.bias];
        let words: usize = words.iter().filter_map(|v| v.as_ref().map(Vec::len)).sum();
        let branch = self.branch.as_ref();
        let branch = branch.map_or(0, |(down, up)| down.bytes() + up.bytes());
        self.panels.len() + 2 * halves + 4 * words + branch
    }

    /// Scales (or zeros) of some groups of a panel, widened.
    fn widen(&self, grid: &[u16], panel: usize, groups: Range<usize>, out: &mut [f32]) {
        let start = (panel * self.groups + groups.start) * PANEL;
        let from = &grid[start..start + groups.len() * PANEL];
        match self.half {
            HalfKind::Bf16 => {
                for (to, bits) in out.iter_mut().zip(from) {
                    *to = f32::from_bits(u32::from(*bits) << 16);
                }
            }
            HalfKind::F16 => {
                for (to, bits) in out.iter_mut().zip(from) {
                    *to = f16::from_bits(*bits).to_f32();
                }
            }
        }
    }

    fn group_bytes(&self, panel: usize, groups: Range<usize>) -> &[u8] {
        let start = (panel * self.groups + groups.start) * GROUP_BYTES;
        &self.panels[start..start + groups.len() * GROUP_BYTES]
    }

    /// Inputs `first..first + depth` of a panel in f32: value (k, o) at `k·16 + o`.
    fn dequantise(&self, panel: usize, first: usize, depth: usize, out: &mut [f32]) {
        let groups = first / GROUP..(first + depth).div_ceil(GROUP);
        let mut scales = [0.0f32; PANEL * (DEPTH / GROUP)];
        let mut zeros = scales;
        self.widen(&self.scales, panel, groups.clone(), &mut scales);
        if let Some(grid) = &self.zeros {
            self.widen(grid, panel, groups.clone(), &mut zeros);
        }
        let bytes = self.group_bytes(panel, groups);
        for (g, bytes) in bytes.chunks_exact(GROUP_BYTES).enumerate() {
            let grid = g * PANEL..(g + 1) * PANEL;
            widen_group(
                bytes,
                &scales[grid.clone()],
                &zeros[grid],
                &mut out[g * GROUP * PANEL..],
            );
        }
    }
}

/// The rows of a matrix that a panel holds, with their places in it.
fn rows_of<T>(values: &[T], width: usize, panel: usize) -> impl Iterator<Item = (usize, &[T])> {
    let first = panel * PANEL * width;
    let last = ((panel + 1) * PANEL * width).min(values.len());
    values[first..last].chunks_exact(width.max(1)).enumerate()
}

simd_dispatch! {
    fn widen_group(bytes: &[u8], scales: &[f32], zeros: &[f32], out: &mut [f32]) {
        let out = &mut out[..GROUP * PANEL];
        let (scales, zeros) = (&scales[..PANEL], &zeros[..PANEL]);
        for (c, bytes) in bytes.chunks_exact(64).enumerate() {
            for i in 0..4 {
                let mut low = [0.0f32; PANEL];
                let mut high = [0.0f32; PANEL];
                for o in 0..PANEL {
                    let byte = bytes[4 * o + i];
                    low[o] = ((byte & 15) as i32 - 8) as f32 * scales[o] + zeros[o];
                    high[o] = ((byte >> 4) as i32 - 8) as f32 * scales[o] + zeros[o];
                }
                let k = 4 * c + i;
                out[k * PANEL..][..PANEL].copy_from_slice(&low);
                out[(k + 32) * PANEL..][..PANEL].copy_from_slice(&high);
            }
        }
    }
}

#[cfg(test)]
mod tests;
