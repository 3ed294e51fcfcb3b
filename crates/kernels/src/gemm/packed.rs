//! Products with weights that were packed once, when they were loaded.
//!
//! `y = x·wᵀ` for `x` `[rows, inputs]` and `w` `[outputs, inputs]`, which is how checkpoints store a
//! linear layer. Weights keep their stored type: f32, bf16 or f16; panels of 16-bit ones are widened
//! into the first-level cache while they are used.
//!
//! Many rows are split between threads by rows, each run of rows going through all weights; few rows
//! are split by outputs. Every sum has an order of its own that depends on neither, so results are
//! the same for any number of threads.

use super::layout::{Block, DEPTH, Out, PANEL, STRIDE, Target};
pub use super::matrix::PackedMatrix;
use super::microkernel::tile_shape;
use super::panels::{FEW_TILES, SCRATCH};
use super::product::{block_product, inner_values, row_unit, takes_plain_rows};
use crate::parallel::{Work, each, even_runs, rows_mut, split_rows};
use crate::scratch::with_buffer;
use crate::simd::{self, Level, cache};
use std::ops::Range;

/// Rows that one task takes: with the depth of a block, and with their results in the panels that it
/// meets at a time, they fit the second-level cache.
fn task_rows(level: Level) -> usize {
    match level {
        // Whole tiles; all processors that have them have caches of one size.
        #[cfg(target_arch = "x86_64")]
        Level::Amx(_) => 192,
        _ => cache::by_second_level(180),
    }
}

/// Panels that a task of so many rows meets before it goes on: their results stay in the second-level
/// cache while the inner blocks are added up.
fn task_panels(level: Level, rows: usize) -> usize {
    match level {
        // Rows are taken apart for every such run of panels, which costs more than results that leave
        // the cache.
        #[cfg(target_arch = "x86_64")]
        Level::Amx(_) => 128,
        // Few rows wait for weights alone, which come fastest in the order of memory.
        _ if rows <= FEW_TILES * tile_shape(level).0 => tile_shape(level).1,
        _ => 32,
    }
}

/// Rows a thread below which threads share the outputs instead.
const FEW_ROWS: usize = 32;

/// What follows a product where nothing does.
const NOTHING: Option<fn(usize, &mut [f32])> = None;

/// `y[rows, outputs] = x[rows, inputs]·wᵀ`; every finished run of rows then goes through
/// `finish(first_row, rows)`, while it is still in a cache.
///
/// # Panics
/// When `x` and `y` are not whole rows, or not equally many.
pub fn forward<F>(x: &[f32], w: &PackedMatrix, y: &mut [f32], finish: F)
where
    F: Fn(usize, &mut [f32]) + Sync,
{
    forward_at(simd::level(), x, w, y, Some(finish));
}

/// As [`forward`], with nothing to follow.
///
/// # Panics
/// As [`forward`].
pub fn multiply(x: &[f32], w: &PackedMatrix, y: &mut [f32]) {
    forward_at(simd::level(), x, w, y, NOTHING);
}

fn forward_at<F>(level: Level, x: &[f32], w: &PackedMatrix, y: &mut [f32], finish: Option<F>)
where
    F: Fn(usize, &mut [f32]) + Sync,
{
    let inputs = w.inputs();
    if w.outputs() == 0 {
        return;
    }
    let rows = y.len() / w.outputs();
    assert_eq!(x.len(), rows * inputs, "{rows} rows of {inputs} inputs");
    if takes_plain_rows(level) && inputs > 0 {
        let source = Source::<fn(usize, Range<usize>, &mut [f32])>::Plain(x);
        forward_then(level, w, y, source, finish);
        return;
    }
    let gather = |first: usize, columns: Range<usize>, block: &mut [f32]| {
        let rows = x[first * inputs..].chunks_exact(inputs.max(1));
        for (row, x) in block.chunks_exact_mut(STRIDE).zip(rows) {
            row[..columns.len()].copy_from_slice(&x[columns.clone()]);
        }
    };
    forward_then(level, w, y, Source::Gathered(gather), finish);
}

/// As [`forward`] for rows that are made when they are needed: `gather(first_row, inputs, block)`
/// writes those inputs of the rows from `first_row` on to rows of `block`, [`STRIDE`] apart.
pub(crate) fn forward_gathered<G, F>(
    level: Level,
    w: &PackedMatrix,
    y: &mut [f32],
    gather: G,
    finish: F,
) where
    G: Fn(usize, Range<usize>, &mut [f32]) + Sync,
    F: Fn(usize, &mut [f32]) + Sync,
{
    forward_then(level, w, y, Source::Gathered(gather), Some(finish));
}

/// Where the rows of a product come from.
enum Source<'a, G> {
    /// One after another; for levels that take them so.
    Plain(&'a [f32]),
    /// `gather(first_row, inputs, block)` writes some inputs of rows to a block.
    Gathered(G),
}

fn forward_then<G, F>(
    level: Level,
    w: &PackedMatrix,
    y: &mut [f32],
    source: Source<G>,
    finish: Option<F>,
) where
    G: Fn(usize, Range<usize>, &mut [f32]) + Sync,
    F: Fn(usize, &mut [f32]) + Sync,
{
    let (inputs, outputs) = (w.inputs(), w.outputs());
    if outputs == 0 || y.is_empty() {
        return;
    }
    assert!(y.len().is_multiple_of(outputs), "rows of {outputs}");
    let rows = y.len() / outputs;
    let threads = rayon::current_num_threads();
    let panels = outputs.div_ceil(PANEL);
    let run = |first: usize, y: &mut [f32]| {
        let out = Out::new(y, outputs);
        match &source {
            Source::Plain(x) => {
                let rows = Rows::<fn(Range<usize>, &mut [f32])>::Plain(&x[first * inputs..]);
                product(level, w, 0..panels, rows, out);
            }
            Source::Gathered(gather) => {
                let gather = |columns: Range<usize>, block: &mut [f32]| {
                    gather(first, columns, block);
                };
                product(level, w, 0..panels, Rows::Gathered(gather), out);
            }
        }
        if let Some(finish) = &finish {
            finish(first, y);
        }
    };
    if rows < FEW_ROWS * threads {
        shared_outputs(level, w, y, &source);
        if let Some(finish) = finish {
            rows_mut(y, outputs, finish);
        }
        return;
    }
    let runs = even_runs(rows, task_rows(level), threads, row_unit(level));
    let tasks = split_rows(y, outputs, runs);
    each(tasks, work(w, rows), |(rows, y)| run(rows.start, y));
}

fn work(w: &PackedMatrix, rows: usize) -> Work {
    Work {
        multiplications: rows * w.inputs() * w.outputs(),
        bytes: w.bytes(),
    }
}

/// A product of few rows, of which every thread computes some outputs.
fn shared_outputs<G>(level: Level, w: &PackedMatrix, y: &mut [f32], source: &Source<G>)
where
    G: Fn(usize, Range<usize>, &mut [f32]) + Sync,
{
    let inputs = w.inputs();
    let panels = w.outputs().div_ceil(PANEL);
    let out = Out::new(y, w.outputs());
    let work = work(w, out.rows);
    let parts = if work.is_worth_threads() {
        4 * rayon::current_num_threads()
    } else {
        1
    };
    let step = panels.div_ceil(parts).next_multiple_of(tile_shape(level).1);
    // Gathered once, for all tasks.
    let length = out.rows * STRIDE;
    let gathered = match source {
        Source::Plain(_) => 0,
        Source::Gathered(_) => inputs.max(1).div_ceil(DEPTH) * length,
    };
    with_buffer(gathered, |blocks| {
        if let Source::Gathered(gather) = source {
            for (index, block) in blocks.chunks_exact_mut(length).enumerate() {
                let first = index * DEPTH;
                gather(0, first..(first + DEPTH).min(inputs), block);
            }
        }
        let blocks = &*blocks;
        each(0..panels.div_ceil(step), work, |part| {
            let range = part * step..((part + 1) * step).min(panels);
            let rows = match source {
                Source::Plain(x) => Rows::Plain(x),
                Source::Gathered(_) => Rows::<fn(Range<usize>, &mut [f32])>::Packed(blocks),
            };
            product(level, w, range, rows, out);
        });
    });
}

/// Rows of a product: as they lie in memory, written to a block when their inputs are needed, or
/// block after block.
enum Rows<'a, G> {
    Plain(&'a [f32]),
    Gathered(G),
    Packed(&'a [f32]),
}

/// All rows times some panels, on the caller's thread.
fn product(
    level: Level,
    w: &PackedMatrix,
    panels: Range<usize>,
    rows: Rows<impl Fn(Range<usize>, &mut [f32])>,
    out: Out,
) {
    let (inputs, length) = (w.inputs(), out.rows * STRIDE);
    let gathered = match rows {
        Rows::Gathered(_) => length,
        Rows::Packed(_) | Rows::Plain(_) => 0,
    };
    with_buffer(gathered, |buffer| {
        with_buffer(SCRATCH, |scratch| {
            let task_panels = task_panels(level, out.rows);
            let most = inner_values(level, w, out.rows);
            for start in panels.clone().step_by(task_panels) {
                let panels = start..(start + task_panels).min(panels.end);
                let columns = w.outputs().min(panels.end * PANEL) - start * PANEL;
                for first in (0..inputs.max(1)).step_by(most) {
                    let depth = most.min(inputs - first);
                    let (x, stride) = match &rows {
                        Rows::Plain(x) => (&x[first..], inputs),
                        // Without inputs there is no block.
                        Rows::Packed(blocks) => (&blocks[first / DEPTH * length..], STRIDE),
                        Rows::Gathered(gather) => {
                            gather(first..first + depth, buffer);
                            (&*buffer, STRIDE)
                        }
                    };
                    let target = Target {
                        out: out.data.wrapping_add(start * PANEL),
                        stride: out.stride,
                        accumulate: first > 0,
                    };
                    let block = Block {
                        x,
                        stride,
                        rows: out.rows,
                        depth,
                    };
                    let panels = panels.clone();
                    // SAFETY: the result has as many rows of these columns, which belong to this call
                    // alone: tasks have rows of their own, or panels of their own.
                    unsafe {
                        block_product(level, block, (w, first), panels, columns, target, scratch);
                    }
                }
            }
        });
    });
}

#[cfg(test)]
mod tests;
