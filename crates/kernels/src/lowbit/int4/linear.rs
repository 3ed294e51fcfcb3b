//! Layers packed for the products.

use super::{GROUP, GROUP_BYTES, HalfType, Int4Weight};
use crate::gemm::layout::{DEPTH, PANEL};
use crate::gemm::packed::PackedMatrix;
use crate::simd::simd_dispatch;
use half::{bf16, f16};
use rayon::prelude::*;
use std::ops::Range;

/// Layers that share their input, ready for use: it is rounded and goes through `down` once for all.
#[derive(Clone, Debug)]
pub struct Int4Linear {
    pub(super) inputs: usize,
    pub(super) groups: usize,
    pub(super) half: HalfType,
    pub(super) inverse_smooth: Option<Vec<f32>>,
    pub(super) down: Option<PackedMatrix>,
    pub(super) layers: Vec<Layer>,
}

/// What one of the layers has for itself.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) outputs: usize,
    groups: usize,
    half: HalfType,
    /// Panel after panel, group after group; byte `64·c + 4·o + i` of a group holds the codes plus 8 of
    /// output o for inputs 4·c + i (low half) and 32 + 4·c + i.
    panels: Vec<u8>,
    /// Panel after panel: `[groups, 16]`.
    scales: Vec<u16>,
    zeros: Option<Vec<u16>>,
    pub(super) up: Option<PackedMatrix>,
    pub(super) bias: Option<Vec<f32>>,
}

impl Int4Linear {
    /// Packs layers.
    ///
    /// # Panics
    /// When sizes do not fit, or a code is outside −8..7.
    pub fn new(weight: &Int4Weight) -> Self {
        assert!(
            weight.fits(),
            "parts of a 4-bit layer of {:?}x{}",
            weight.outputs,
            weight.inputs
        );
        let branch = weight.branch.as_ref().filter(|branch| branch.rank > 0);
        let mut first = 0;
        let layers = weight.outputs.iter().map(|outputs| {
            let rows = first..first + outputs;
            first = rows.end;
            Layer::new(weight, rows)
        });
        Self {
            inputs: weight.inputs,
            groups: weight.groups(),
            half: weight.half,
            inverse_smooth: weight
                .smooth
                .as_ref()
                .map(|smooth| smooth.iter().map(|s| 1.0 / s).collect()),
            layers: layers.collect(),
            down: branch
                .map(|branch| pack_factor(weight.half, &branch.down, branch.rank, weight.inputs)),
        }
    }

    /// Widths of the layers' results.
    pub fn widths(&self) -> impl ExactSizeIterator<Item = usize> {
        self.layers.iter().map(|layer| layer.outputs)
    }

    /// Width of all results together.
    pub fn outputs(&self) -> usize {
        self.widths().sum()
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Width of the branch.
    pub fn rank(&self) -> usize {
        self.down.as_ref().map_or(0, PackedMatrix::outputs)
    }

    /// Whether activations can be rounded: not where codes have zero points.
    pub fn rounds_activations(&self) -> bool {
        self.layers.iter().all(|layer| layer.zeros.is_none())
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        let smooth = self.inverse_smooth.as_ref().map_or(0, Vec::len);
        let down = self.down.as_ref().map_or(0, PackedMatrix::bytes);
        let layers: usize = self.layers.iter().map(Layer::bytes).sum();
        4 * smooth + down + layers
    }
}

impl Layer {
    /// Packs some rows of a weight that fits.
    fn new(weight: &Int4Weight, rows: Range<usize>) -> Self {
        let (groups, half) = (weight.groups(), weight.half);
        let (outputs, width) = (rows.len(), groups * GROUP);
        let count = outputs.div_ceil(PANEL);
        let codes = &weight.codes[rows.start * width..rows.end * width];
        let mut panels = vec![0x88u8; count * groups * GROUP_BYTES];
        let panel_bytes = (groups * GROUP_BYTES).max(1);
        panels
            .par_chunks_exact_mut(panel_bytes)
            .enumerate()
            .for_each(|(p, panel)| {
                for (o, row) in rows_of(codes, width, p) {
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
            let values = &values[rows.start * groups..rows.end * groups];
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
        let branch = weight.branch.as_ref().filter(|branch| branch.rank > 0);
        Self {
            outputs,
            groups,
            half,
            panels,
            scales: grid(&weight.scales),
            zeros: weight.zeros.as_deref().map(grid),
            up: branch.map(|branch| {
                let up = &branch.up[rows.start * branch.rank..rows.end * branch.rank];
                pack_factor(half, up, outputs, branch.rank)
            }),
            bias: weight.bias.as_ref().map(|bias| bias[rows.clone()].to_vec()),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let halves = self.scales.len() + self.zeros.as_ref().map_or(0, Vec::len);
        let bias = self.bias.as_ref().map_or(0, Vec::len);
        let up = self.up.as_ref().map_or(0, PackedMatrix::bytes);
        self.panels.len() + 2 * halves + 4 * bias + up
    }

    /// Scales of some groups of a panel, widened.
    pub(super) fn widen_scales(&self, panel: usize, groups: Range<usize>, out: &mut [f32]) {
        self.widen(&self.scales, panel, groups, out);
    }

    /// Scales (or zeros) of some groups of a panel, widened.
    fn widen(&self, grid: &[u16], panel: usize, groups: Range<usize>, out: &mut [f32]) {
        let start = (panel * self.groups + groups.start) * PANEL;
        let from = &grid[start..start + groups.len() * PANEL];
        match self.half {
            HalfType::Bf16 => {
                for (to, bits) in out.iter_mut().zip(from) {
                    *to = f32::from_bits(u32::from(*bits) << 16);
                }
            }
            HalfType::F16 => {
                for (to, bits) in out.iter_mut().zip(from) {
                    *to = f16::from_bits(*bits).to_f32();
                }
            }
        }
    }

    pub(super) fn group_bytes(&self, panel: usize, groups: Range<usize>) -> &[u8] {
        let start = (panel * self.groups + groups.start) * GROUP_BYTES;
        &self.panels[start..start + groups.len() * GROUP_BYTES]
    }

    /// Inputs `first..first + depth` of a panel in f32: value (k, o) at `k·16 + o`.
    pub(super) fn dequantize(&self, panel: usize, first: usize, depth: usize, out: &mut [f32]) {
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

/// A factor of the branch, `[rows, columns]`.
fn pack_factor(half: HalfType, values: &[f32], rows: usize, columns: usize) -> PackedMatrix {
    match half {
        HalfType::Bf16 => {
            let narrow: Vec<bf16> = values.iter().map(|v| bf16::from_f32(*v)).collect();
            PackedMatrix::from_bf16(&narrow, rows, columns)
        }
        HalfType::F16 => {
            let narrow: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
            PackedMatrix::from_f16(&narrow, rows, columns)
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
