//! The linear layer over 4-bit weights with a low-rank branch (SVDQuant):
//! `y = Q(x / smooth)·Wᵀ + (x·downᵀ)·upᵀ + bias`.
//!
//! Weights are integers −8..7 in groups of 64 inputs, each group with a scale. Activations are
//! rounded on the fly, per row and group, to 8 bits (the default), to 4 bits (as the engine that these
//! files were made for does) or not at all. With rounded activations a group is one integer product
//! (`int4_tile.rs`); groups are added in f32.
//!
//! A run of rows is rounded and multiplied with `down` in one pass; then for each panel of 16 outputs
//! the result starts as the bias, takes the branch, and takes the groups while it stays in a cache.

use crate::int4_activation::{Rounded, Rounding};
use crate::int4_tile::{self, BLOCK_GROUPS, Tile};
use crate::microkernel::{DEPTH, PANEL, STRIDE, Target};
use crate::packed::{
    Block, Out, PackedMatrix, PanelSource, block_product, even_runs, panel_product,
    takes_plain_rows,
};
use crate::scratch::with_buffer;
use crate::simd::{self, Level};
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

crate::simd_dispatch! {
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

/// Bytes of rounded inputs that a task keeps in the second-level cache.
const TASK_BYTES: usize = 320 * 1024;
/// Most rows of a task.
const TASK_ROWS: usize = 192;
/// Panels whose results take the branch together.
const PANELS: usize = 8;
/// Rows a thread below which threads share the outputs instead.
const FEW_ROWS: usize = 16;

/// `y[rows, outputs]` from `x[rows, inputs]`; every finished run of rows then goes through
/// `finish(first_row, rows)`, while it is still in a cache.
///
/// # Panics
/// When `x` and `y` are not whole rows or not equally many, or activations are to be rounded though
/// codes have zero points.
pub fn forward<F>(x: &[f32], layer: &Int4Linear, activations: Activations, y: &mut [f32], finish: F)
where
    F: Fn(usize, &mut [f32]) + Sync,
{
    forward_at(simd::level(), x, layer, activations, y, finish);
}

fn forward_at<F>(
    level: Level,
    x: &[f32],
    layer: &Int4Linear,
    activations: Activations,
    y: &mut [f32],
    finish: F,
) where
    F: Fn(usize, &mut [f32]) + Sync,
{
    let (inputs, outputs) = (layer.inputs, layer.outputs);
    if outputs == 0 || y.is_empty() {
        return;
    }
    assert!(y.len().is_multiple_of(outputs), "rows of {outputs}");
    let rows = y.len() / outputs;
    assert_eq!(x.len(), rows * inputs, "{rows} rows of {inputs} inputs");
    let rounding = match activations {
        Activations::Eight => Some(Rounding::Eight),
        Activations::Four => Some(Rounding::Four(layer.half)),
        Activations::Full => None,
    };
    assert!(
        rounding.is_none() || layer.rounds_activations(),
        "activations can't be rounded for codes with zero points"
    );
    let run = Run {
        level,
        layer,
        rounding,
    };
    let threads = rayon::current_num_threads();
    let panels = outputs.div_ceil(PANEL);
    if rows < FEW_ROWS * threads {
        run.prepared(x, rows, |ready| {
            let step = panels.div_ceil(4 * threads).max(2);
            let out = Out::new(y, outputs);
            (0..panels.div_ceil(step)).into_par_iter().for_each(|part| {
                let range = part * step..((part + 1) * step).min(panels);
                run.panels(ready, range, out);
            });
        });
        crate::parallel::rows_mut(y, outputs, finish);
        return;
    }
    let width = layer.groups * GROUP;
    let most = (TASK_BYTES / width.max(1)).clamp(48, TASK_ROWS);
    let runs = even_runs(rows, most, threads, int4_tile::rows(level));
    let mut tasks = Vec::with_capacity(runs.len());
    let mut rest = y;
    for run in runs {
        let (now, later) = std::mem::take(&mut rest).split_at_mut(run.len() * outputs);
        tasks.push((run, now));
        rest = later;
    }
    tasks.into_par_iter().for_each(|(rows, y)| {
        let x = &x[rows.start * inputs..rows.end * inputs];
        run.prepared(x, rows.len(), |ready| {
            run.panels(ready, 0..panels, Out::new(y, outputs));
        });
        finish(rows.start, y);
    });
}

struct Run<'a> {
    level: Level,
    layer: &'a Int4Linear,
    rounding: Option<Rounding>,
}

/// Rows ready for the panels.
struct Ready<'a> {
    rows: usize,
    /// The input as it is, for unrounded products.
    x: &'a [f32],
    rounded: Option<&'a Rounded>,
    /// `x·downᵀ`: for every 256 ranks, rows [`STRIDE`] apart.
    between: &'a [f32],
}

impl Run<'_> {
    /// Rounds rows and multiplies them with `down`, one block of inputs after another.
    fn prepared(&self, x: &[f32], rows: usize, work: impl FnOnce(&Ready)) {
        let layer = self.layer;
        let rank = layer.rank();
        let mut rounded = self
            .rounding
            .map(|_| Rounded::new(self.level, rows, layer.groups));
        with_buffer(rank.div_ceil(DEPTH) * rows * STRIDE, |between| {
            if rounded.is_some() || rank > 0 {
                self.pass(x, rows, rounded.as_mut(), between);
            }
            work(&Ready {
                rows,
                x,
                rounded: rounded.as_ref(),
                between,
            });
        });
    }

    fn pass(&self, x: &[f32], rows: usize, mut rounded: Option<&mut Rounded>, between: &mut [f32]) {
        let layer = self.layer;
        for first in (0..layer.inputs).step_by(DEPTH) {
            let depth = DEPTH.min(layer.inputs - first);
            if let Some((down, _)) = &layer.branch {
                self.go_down(x, rows, (down, first, depth), between);
            }
            if let (Some(rounded), Some(rounding)) = (rounded.as_deref_mut(), self.rounding) {
                let smooth = layer.inverse_smooth.as_deref();
                let smooth = smooth.map(|s| &s[first..first + depth]);
                let rows = (&x[first..], layer.inputs);
                rounded.fill(rows, first, depth, smooth, rounding);
            }
        }
    }

    /// Adds the products of some inputs with `down` to what is between.
    fn go_down(
        &self,
        x: &[f32],
        rows: usize,
        (down, first, depth): (&PackedMatrix, usize, usize),
        between: &mut [f32],
    ) {
        let plain = takes_plain_rows(self.level);
        with_buffer(if plain { 0 } else { rows * STRIDE }, |gathered| {
            let (x, stride) = if plain {
                (&x[first..], down.inputs())
            } else {
                gather(x, down.inputs(), first..first + depth, gathered);
                (&*gathered, STRIDE)
            };
            let block = Block {
                x,
                stride,
                rows,
                depth,
            };
            with_buffer(2 * DEPTH * PANEL, |scratch| {
                for start in (0..down.outputs()).step_by(DEPTH) {
                    let count = DEPTH.min(down.outputs() - start);
                    let chunk = &mut between[start / DEPTH * rows * STRIDE..];
                    let target = Target {
                        out: chunk.as_mut_ptr(),
                        stride: STRIDE,
                        accumulate: first > 0,
                    };
                    let panels = start / PANEL..(start + count).div_ceil(PANEL);
                    let w = (down, first);
                    // SAFETY: the block holds its rows, panels come from `down` at this depth, and the
                    // chunk has as many rows of at least `count`.
                    unsafe { block_product(self.level, block, w, panels, count, target, scratch) };
                }
            });
        });
    }

    /// Computes some panels of all rows.
    fn panels(&self, ready: &Ready, panels: Range<usize>, out: Out) {
        for start in panels.clone().step_by(PANELS) {
            let panels = start..(start + PANELS).min(panels.end);
            let columns = self.layer.outputs.min(panels.end * PANEL) - start * PANEL;
            let target = Target {
                // SAFETY: the column lies within the first row.
                out: unsafe { out.data.add(start * PANEL) },
                stride: self.layer.outputs,
                accumulate: true,
            };
            self.begin(ready, panels.clone(), columns, target);
            match ready.rounded {
                Some(rounded) => self.integer(rounded, ready.rows, panels, columns, target),
                None => self.wide(ready, panels, columns, target),
            }
        }
    }

    /// Bias and branch.
    fn begin(&self, ready: &Ready, panels: Range<usize>, columns: usize, target: Target) {
        let layer = self.layer;
        let first = panels.start * PANEL;
        for row in 0..ready.rows {
            // SAFETY: these columns of the row belong to this call alone.
            let y = unsafe {
                std::slice::from_raw_parts_mut(target.out.add(row * target.stride), columns)
            };
            match &layer.bias {
                Some(bias) => y.copy_from_slice(&bias[first..first + columns]),
                None => y.fill(0.0),
            }
        }
        let Some((_, up)) = &layer.branch else { return };
        with_buffer(2 * DEPTH * PANEL, |scratch| {
            for start in (0..up.inputs()).step_by(DEPTH) {
                let depth = DEPTH.min(up.inputs() - start);
                let block = Block {
                    x: &ready.between[start / DEPTH * ready.rows * STRIDE..],
                    stride: STRIDE,
                    rows: ready.rows,
                    depth,
                };
                let (w, panels) = ((up, start), panels.clone());
                // SAFETY: `between` holds these rows of this depth, panels come from `up`, and the
                // target's columns belong to this call alone.
                unsafe { block_product(self.level, block, w, panels, columns, target, scratch) };
            }
        });
    }

    /// Adds the integer products.
    fn integer(
        &self,
        rounded: &Rounded,
        rows: usize,
        panels: Range<usize>,
        columns: usize,
        target: Target,
    ) {
        let layer = self.layer;
        #[repr(align(64))]
        struct Weights([u8; BLOCK_GROUPS * 2 * GROUP_BYTES]);
        let mut weights = Weights([0; BLOCK_GROUPS * 2 * GROUP_BYTES]);
        let session = int4_tile::Session::begin(self.level);
        let offset = int4_tile::weight_offset(self.level);
        let mut scales = [0.0f32; BLOCK_GROUPS * PANEL];
        let most = int4_tile::rows(self.level);
        let tiles = rows.div_ceil(most);
        for (step, panel) in panels.enumerate() {
            let column = step * PANEL;
            for first in (0..layer.groups).step_by(BLOCK_GROUPS) {
                let groups = first..(first + BLOCK_GROUPS).min(layer.groups);
                let packed = layer.group_bytes(panel, groups.clone());
                int4_tile::unpack(packed, offset, &mut weights.0);
                layer.widen(&layer.scales, panel, groups.clone(), &mut scales);
                for i in 0..tiles {
                    // Tiles of nearly equal height, or whole ones where registers hold them whole.
                    let (start, end) = match self.level {
                        Level::Amx => (i * most, ((i + 1) * most).min(rows)),
                        _ => (rows * i / tiles, rows * (i + 1) / tiles),
                    };
                    let tile = Tile {
                        rounded,
                        rows: start..end,
                        groups: groups.clone(),
                        weights: &weights.0,
                        scales: &scales,
                        columns: (columns - column).min(PANEL),
                    };
                    // SAFETY: the processor has the level; the target holds these rows and columns,
                    // which belong to this call alone.
                    unsafe {
                        let out = target.out.add(start * target.stride + column);
                        int4_tile::multiply(&session, &tile, out, target.stride);
                    }
                }
            }
        }
    }

    /// Adds the products of unrounded inputs.
    fn wide(&self, ready: &Ready, panels: Range<usize>, columns: usize, target: Target) {
        let layer = self.layer;
        with_buffer(ready.rows * STRIDE, |block| {
            with_buffer(2 * DEPTH * PANEL, |scratch| {
                for first in (0..layer.inputs).step_by(DEPTH) {
                    let depth = DEPTH.min(layer.inputs - first);
                    gather(ready.x, layer.inputs, first..first + depth, block);
                    if let Some(smooth) = &layer.inverse_smooth {
                        for row in block.chunks_exact_mut(STRIDE) {
                            let smooth = &smooth[first..first + depth];
                            row.iter_mut().zip(smooth).for_each(|(x, s)| *x *= s);
                        }
                    }
                    let source = Dequantised {
                        layer,
                        first,
                        depth,
                    };
                    // SAFETY: as in `begin`.
                    unsafe {
                        let factors = (&*block, ready.rows, depth);
                        let panels = panels.clone();
                        panel_product::<f32>(
                            self.level, factors, &source, panels, columns, target, scratch,
                        );
                    }
                }
            });
        });
    }
}

/// Columns of rows of `x`, [`STRIDE`] apart.
fn gather(x: &[f32], width: usize, columns: Range<usize>, block: &mut [f32]) {
    for (row, x) in block.chunks_exact_mut(STRIDE).zip(x.chunks_exact(width)) {
        row[..columns.len()].copy_from_slice(&x[columns.clone()]);
    }
}

#[cfg(test)]
#[path = "int4_tests.rs"]
mod tests;
/// Inner values `first..first + depth` of a layer's 4-bit weight, as f32.
struct Dequantised<'a> {
    layer: &'a Int4Linear,
    first: usize,
    depth: usize,
}

impl PanelSource<f32> for Dequantised<'_> {
    fn panel(&self, index: usize, scratch: &mut [f32]) -> *const f32 {
        let Self {
            layer,
            first,
            depth,
        } = *self;
        layer.dequantise(index, first, depth, scratch);
        scratch.as_ptr()
    }
}
