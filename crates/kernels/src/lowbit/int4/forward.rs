//! The forward pass: a run of rows is rounded and multiplied with `down` in one pass; then some panels
//! of 16 outputs at a time take the branch, the groups, and what follows the layer, while their results
//! stay in a cache.

use super::activation::{Rounded, Rounding};
use super::level;
use super::linear::Layer;
use super::operands::Tile;
use super::tile::{self, BLOCK_GROUPS};
use super::{Activations, GROUP, GROUP_BYTES, Int4Linear};
use crate::gemm::layout::{Block, DEPTH, Out, PANEL, STRIDE, Target};
use crate::gemm::packed::PackedMatrix;
use crate::gemm::panels::{PanelSource, SCRATCH, panel_product};
use crate::gemm::product::{block_product, takes_plain_rows};
use crate::parallel::{Work, each, even_runs};
use crate::pointwise::epilogue::Epilogue;
use crate::scratch::with_buffer;
use crate::simd::{self, Level, cache};
use std::ops::Range;

/// Bytes of rounded inputs that a task keeps in the second-level cache. Every task unpacks all weights.
fn task_bytes() -> usize {
    cache::by_second_level(640 << 10)
}
/// Rows of a task at least and at most.
const LEAST_ROWS: usize = 48;
const MOST_ROWS: usize = 256;
/// Panels whose results are finished together.
const PANELS: usize = 8;
/// Distance between rows of unfinished results; not a power of two, as for [`STRIDE`].
const WIDE: usize = PANELS * PANEL + 16;
/// Rows a thread below which threads share the outputs instead.
const FEW_ROWS: usize = 16;

/// `y[rows, outputs]` from `x[rows, inputs]`, followed by `steps`, whose rows are those of `y`; the
/// layer adds its own bias.
///
/// # Panics
/// When there is more than one layer, `x` and `y` are not whole rows or not equally many, or activations
/// are to be rounded though codes have zero points.
pub fn forward(
    x: &[f32],
    layer: &Int4Linear,
    activations: Activations,
    steps: &Epilogue,
    y: &mut [f32],
) {
    let all = 0..layer.layers.len();
    forward_at(simd::level(), x, (layer, all), activations, steps, &mut [y]);
}

/// As [`forward`] with nothing to follow, for some of several layers: the input is rounded and goes
/// through `down` once for all.
///
/// # Panics
/// As [`forward`]; when layers and results are not equally many.
pub fn forward_each(
    x: &[f32],
    linear: &Int4Linear,
    layers: Range<usize>,
    activations: Activations,
    ys: &mut [&mut [f32]],
) {
    let steps = Epilogue::default();
    forward_at(simd::level(), x, (linear, layers), activations, &steps, ys);
}

pub(super) fn forward_at(
    level: Level,
    x: &[f32],
    (input, chosen): (&Int4Linear, Range<usize>),
    activations: Activations,
    steps: &Epilogue,
    ys: &mut [&mut [f32]],
) {
    let layers = &input.layers[chosen];
    assert_eq!(layers.len(), ys.len(), "layers and their results");
    let Some(first) = layers.first() else {
        return;
    };
    let rows = ys[0].len() / first.outputs.max(1);
    assert_eq!(
        x.len(),
        rows * input.inputs,
        "{rows} rows of {} inputs",
        input.inputs
    );
    for (layer, y) in layers.iter().zip(&*ys) {
        assert_eq!(y.len(), rows * layer.outputs, "{rows} rows of results");
    }
    if rows == 0 {
        return;
    }
    let rounding = match activations {
        Activations::Eight => Some(Rounding::Eight),
        Activations::Four => Some(Rounding::Four(input.half)),
        Activations::Full => None,
    };
    assert!(
        rounding.is_none() || input.rounds_activations(),
        "activations can't be rounded for codes with zero points"
    );
    let work = |layers: &[Layer]| Work {
        multiplications: rows
            * input.inputs
            * layers.iter().map(|layer| layer.outputs).sum::<usize>(),
        bytes: layers.iter().map(Layer::bytes).sum(),
    };
    let threads = rayon::current_num_threads();
    if rows < FEW_ROWS * threads {
        prepared(level, input, rounding, x, rows, |ready| {
            for (layer, y) in layers.iter().zip(&mut *ys) {
                let run = Run::new(level, (input, layer), ready, 0, steps);
                let panels = layer.outputs.div_ceil(PANEL);
                let step = panels.div_ceil(4 * threads).max(2);
                let out = Out::new(y, layer.outputs);
                each(
                    0..panels.div_ceil(step),
                    work(std::slice::from_ref(layer)),
                    |part| {
                        run.panels(part * step..((part + 1) * step).min(panels), out);
                    },
                );
                if !run.steps.works_by_columns() {
                    crate::parallel::rows_mut(y, layer.outputs, |first, rows| {
                        run.steps.apply(first, rows, layer.outputs);
                    });
                }
            }
        });
        return;
    }
    let width = input.groups * GROUP;
    let most = (task_bytes() / width.max(1)).clamp(LEAST_ROWS, MOST_ROWS);
    let runs = even_runs(rows, most, threads, level::rows(level));
    let mut tasks: Vec<(Range<usize>, Vec<&mut [f32]>)> = runs
        .into_iter()
        .map(|run| (run, Vec::with_capacity(layers.len())))
        .collect();
    for (layer, y) in layers.iter().zip(ys) {
        let mut rest = &mut **y;
        for (run, parts) in &mut tasks {
            let (now, later) = rest.split_at_mut(run.len() * layer.outputs);
            parts.push(now);
            rest = later;
        }
    }
    each(tasks, work(layers), |(rows, parts)| {
        let x = &x[rows.start * input.inputs..rows.end * input.inputs];
        prepared(level, input, rounding, x, rows.len(), |ready| {
            for (layer, y) in layers.iter().zip(parts) {
                let run = Run::new(level, (input, layer), ready, rows.start, steps);
                run.panels(0..layer.outputs.div_ceil(PANEL), Out::new(y, layer.outputs));
                if !run.steps.works_by_columns() {
                    run.steps.apply(rows.start, y, layer.outputs);
                }
            }
        });
    });
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

/// Rounds rows as the layers have it and multiplies them with `down`, one block of inputs after another.
fn prepared(
    level: Level,
    layer: &Int4Linear,
    rounding: Option<Rounding>,
    x: &[f32],
    rows: usize,
    work: impl FnOnce(&Ready),
) {
    let rank = layer.rank();
    with_buffer(
        rank.div_ceil(DEPTH) * rows * STRIDE,
        |between| match rounding {
            None => {
                if rank > 0 {
                    pass(level, layer, x, rows, None, between);
                }
                work(&Ready {
                    rows,
                    x,
                    rounded: None,
                    between,
                });
            }
            Some(rounding) => Rounded::with(level, rows, layer.groups, |rounded| {
                pass(level, layer, x, rows, Some((rounded, rounding)), between);
                work(&Ready {
                    rows,
                    x,
                    rounded: Some(rounded),
                    between,
                });
            }),
        },
    );
}

fn pass(
    level: Level,
    layer: &Int4Linear,
    x: &[f32],
    rows: usize,
    mut rounded: Option<(&mut Rounded, Rounding)>,
    between: &mut [f32],
) {
    for first in (0..layer.inputs).step_by(DEPTH) {
        let depth = DEPTH.min(layer.inputs - first);
        if let Some(down) = &layer.down {
            go_down(level, x, rows, (down, first, depth), between);
        }
        if let Some((rounded, rounding)) = &mut rounded {
            let smooth = layer.inverse_smooth.as_deref();
            let smooth = smooth.map(|s| &s[first..first + depth]);
            let rows = (&x[first..], layer.inputs);
            rounded.fill(rows, first, depth, smooth, *rounding);
        }
    }
}

/// Adds the products of some inputs with `down` to what is between.
fn go_down(
    level: Level,
    x: &[f32],
    rows: usize,
    (down, first, depth): (&PackedMatrix, usize, usize),
    between: &mut [f32],
) {
    let plain = takes_plain_rows(level);
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
        with_buffer(SCRATCH, |scratch| {
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
                // SAFETY: the chunk has as many rows of at least `count`, and is this call's.
                unsafe { block_product(level, block, w, panels, count, target, scratch) };
            }
        });
    });
}

/// One layer over rows that are ready.
struct Run<'a> {
    level: Level,
    input: &'a Int4Linear,
    layer: &'a Layer,
    ready: &'a Ready<'a>,
    /// Their first one's place in the whole result.
    first_row: usize,
    /// What follows, the layer's bias first.
    steps: Epilogue<'a>,
}

impl<'a> Run<'a> {
    fn new(
        level: Level,
        (input, layer): (&'a Int4Linear, &'a Layer),
        ready: &'a Ready<'a>,
        first_row: usize,
        steps: &Epilogue<'a>,
    ) -> Self {
        debug_assert!(steps.bias.is_none(), "the bias is the layer's own");
        Self {
            level,
            input,
            layer,
            ready,
            first_row,
            steps: Epilogue {
                bias: layer.bias.as_deref(),
                ..*steps
            },
        }
    }

    /// Computes some panels of all rows; steps that need whole rows are left.
    fn panels(&self, panels: Range<usize>, out: Out) {
        let rows = self.ready.rows;
        let by_columns = self.steps.works_by_columns();
        let (nothing, first_row) = (Epilogue::default(), self.first_row);
        with_buffer(rows * WIDE, |results| {
            for start in panels.clone().step_by(PANELS) {
                let panels = start..(start + PANELS).min(panels.end);
                let columns = start * PANEL..self.layer.outputs.min(panels.end * PANEL);
                let target = Target {
                    out: results.as_mut_ptr(),
                    stride: WIDE,
                    accumulate: false,
                };
                // The first product writes the result, the others add to it.
                let mut target = self.branch(panels.clone(), columns.len(), target);
                match self.ready.rounded {
                    Some(rounded) => self.integer(rounded, panels, columns.len(), &mut target),
                    None => self.wide(panels, columns.len(), &mut target),
                }
                if !target.accumulate {
                    // A layer without inputs.
                    results.fill(0.0);
                }
                let steps = if by_columns { &self.steps } else { &nothing };
                // SAFETY: these columns of the rows belong to this call alone.
                unsafe {
                    let out = (out.data.add(columns.start), self.layer.outputs);
                    steps.finish_columns(first_row, columns, (results, WIDE), out);
                }
            }
        });
    }

    /// The branch's products, if there is one.
    fn branch(&self, panels: Range<usize>, columns: usize, mut target: Target) -> Target {
        let Some(up) = &self.layer.up else {
            return target;
        };
        with_buffer(SCRATCH, |scratch| {
            for start in (0..up.inputs()).step_by(DEPTH) {
                let depth = DEPTH.min(up.inputs() - start);
                let rows = self.ready.rows;
                let block = Block {
                    x: &self.ready.between[start / DEPTH * rows * STRIDE..],
                    stride: STRIDE,
                    rows,
                    depth,
                };
                let (w, panels) = ((up, start), panels.clone());
                // SAFETY: the target holds these rows and columns, which belong to this call alone.
                unsafe { block_product(self.level, block, w, panels, columns, target, scratch) };
                target.accumulate = true;
            }
        });
        target
    }

    /// The integer products.
    fn integer(
        &self,
        rounded: &Rounded,
        panels: Range<usize>,
        columns: usize,
        target: &mut Target,
    ) {
        let (layer, groups) = (self.layer, self.input.groups);
        #[repr(align(64))]
        struct Weights([u8; BLOCK_GROUPS * 2 * GROUP_BYTES]);
        let mut weights = Weights([0; BLOCK_GROUPS * 2 * GROUP_BYTES]);
        let session = tile::Session::begin(self.level);
        let offset = level::weight_offset(self.level);
        let mut scales = [0.0f32; BLOCK_GROUPS * PANEL];
        // Blocks of nearly equal size.
        let blocks = groups.div_ceil(BLOCK_GROUPS);
        for (step, panel) in panels.enumerate() {
            let column = step * PANEL;
            for block in 0..blocks {
                let groups = groups * block / blocks..groups * (block + 1) / blocks;
                let packed = layer.group_bytes(panel, groups.clone());
                tile::unpack(packed, offset, &mut weights.0);
                layer.widen_scales(panel, groups.clone(), &mut scales);
                let tile = Tile {
                    rounded,
                    rows: 0..self.ready.rows,
                    groups,
                    weights: &weights.0,
                    scales: &scales,
                    columns: (columns - column).min(PANEL),
                };
                // SAFETY: the target holds these rows and columns, which belong to this call alone.
                unsafe {
                    let target = Target {
                        out: target.out.add(column),
                        accumulate: target.accumulate || block > 0,
                        ..*target
                    };
                    tile::multiply(&session, &tile, target);
                }
            }
        }
        target.accumulate |= blocks > 0;
    }

    /// The products of unrounded inputs.
    fn wide(&self, panels: Range<usize>, columns: usize, target: &mut Target) {
        let (input, layer, rows) = (self.input, self.layer, self.ready.rows);
        with_buffer(rows * STRIDE, |block| {
            with_buffer(SCRATCH, |scratch| {
                for first in (0..input.inputs).step_by(DEPTH) {
                    let depth = DEPTH.min(input.inputs - first);
                    gather(self.ready.x, input.inputs, first..first + depth, block);
                    if let Some(smooth) = &input.inverse_smooth {
                        for row in block.chunks_exact_mut(STRIDE) {
                            let smooth = &smooth[first..first + depth];
                            row.iter_mut().zip(smooth).for_each(|(x, s)| *x *= s);
                        }
                    }
                    let source = Dequantized {
                        layer,
                        first,
                        depth,
                    };
                    let (factors, panels) = ((&*block, rows, depth), panels.clone());
                    // SAFETY: the target holds these rows and columns, which belong to this call alone.
                    unsafe {
                        panel_product::<f32>(
                            self.level, factors, &source, panels, columns, *target, scratch,
                        );
                    }
                    target.accumulate = true;
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

/// Inner values `first..first + depth` of a layer's 4-bit weight, as f32.
struct Dequantized<'a> {
    layer: &'a Layer,
    first: usize,
    depth: usize,
}

impl PanelSource<f32> for Dequantized<'_> {
    fn panel<'a>(&'a self, index: usize, scratch: &'a mut [f32]) -> &'a [f32] {
        let Self {
            layer,
            first,
            depth,
        } = *self;
        layer.dequantize(index, first, depth, scratch);
        scratch
    }
}
