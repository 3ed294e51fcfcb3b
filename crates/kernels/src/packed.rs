//! Products with weights that were packed once, when they were loaded.
//!
//! `y = x·wᵀ` for `x` `[rows, inputs]` and `w` `[outputs, inputs]`, which is how checkpoints store a
//! linear layer. Weights keep their stored type: f32, bf16 or f16; panels of 16-bit ones are widened
//! into the first-level cache while they are used.
//!
//! Many rows are split between threads by rows, each run of rows going through all weights; few rows
//! are split by outputs. Every sum has an order of its own that depends on neither, so results are
//! the same for any number of threads.

use crate::linear::Half;
use crate::microkernel::{DEPTH, PANEL, Pair, STRIDE, Stored, Target, row_unit, tile, tile_shape};
use crate::prefetch;
use crate::scratch::with_buffer;
use crate::simd::{self, Level};
use crate::simd_dispatch;
use half::{bf16, f16};
use rayon::prelude::*;
use std::ops::Range;

/// A weight `[outputs, inputs]` in panels of 16 outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedMatrix {
    outputs: usize,
    inputs: usize,
    panels: Panels,
}

/// Panel after panel; within one, value (k, j) at `k·16 + j`, or pairs of inner values. Outputs past the
/// last, and the second inner value of a last pair where there is none, are zeros.
#[derive(Clone, Debug, PartialEq)]
enum Panels {
    F32(Vec<f32>),
    Bf16(Vec<Pair>),
    F16(Vec<f16>),
}

fn pack_pairs(w: &[bf16], outputs: usize, inputs: usize) -> Vec<Pair> {
    assert_eq!(w.len(), outputs * inputs, "weight of {outputs}x{inputs}");
    let pairs = inputs.div_ceil(2);
    let mut panels = vec![Pair::default(); outputs.div_ceil(PANEL) * pairs];
    if inputs == 0 {
        return panels;
    }
    panels
        .par_chunks_exact_mut(pairs)
        .zip(w.par_chunks(PANEL * inputs))
        .for_each(|(panel, rows)| {
            // Blocks of inputs, so that the panel's part stays in the first-level cache.
            for first in (0..pairs).step_by(32) {
                let last = (first + 32).min(pairs);
                for (j, row) in rows.chunks_exact(inputs).enumerate() {
                    let values = row[2 * first..].chunks(2);
                    for (pair, values) in panel[first..last].iter_mut().zip(values) {
                        let second = values.get(1).map_or(0, |value| value.to_bits());
                        pair.0[j] = u32::from(values[0].to_bits()) | u32::from(second) << 16;
                    }
                }
            }
        });
    panels
}

fn pack<T: Copy + Default + Send + Sync>(w: &[T], outputs: usize, inputs: usize) -> Vec<T> {
    assert_eq!(w.len(), outputs * inputs, "weight of {outputs}x{inputs}");
    let mut panels = vec![T::default(); outputs.div_ceil(PANEL) * PANEL * inputs];
    if inputs == 0 {
        return panels;
    }
    panels
        .par_chunks_exact_mut(PANEL * inputs)
        .zip(w.par_chunks(PANEL * inputs))
        .for_each(|(panel, rows)| {
            // Blocks of inputs, so that the panel's part stays in the first-level cache.
            for first in (0..inputs).step_by(64) {
                let last = (first + 64).min(inputs);
                for (j, row) in rows.chunks_exact(inputs).enumerate() {
                    for k in first..last {
                        panel[k * PANEL + j] = row[k];
                    }
                }
            }
        });
    panels
}

impl PackedMatrix {
    /// Packs an f32 weight.
    ///
    /// # Panics
    /// When `w` does not hold `outputs·inputs` values; so do the other constructors.
    pub fn from_f32(w: &[f32], outputs: usize, inputs: usize) -> Self {
        let panels = Panels::F32(pack(w, outputs, inputs));
        Self {
            outputs,
            inputs,
            panels,
        }
    }

    /// Packs a bf16 weight, which stays bf16.
    pub fn from_bf16(w: &[bf16], outputs: usize, inputs: usize) -> Self {
        let panels = Panels::Bf16(pack_pairs(w, outputs, inputs));
        Self {
            outputs,
            inputs,
            panels,
        }
    }

    /// Packs an f16 weight, which stays f16.
    pub fn from_f16(w: &[f16], outputs: usize, inputs: usize) -> Self {
        let panels = Panels::F16(pack(w, outputs, inputs));
        Self {
            outputs,
            inputs,
            panels,
        }
    }

    /// One matrix of the outputs of all `parts`, in their order; none where they differ in inputs or
    /// type, or where one but the last ends within a panel.
    pub fn joined(parts: &[&Self]) -> Option<Self> {
        let (last, before) = parts.split_last()?;
        let whole = before.iter().all(|part| part.outputs.is_multiple_of(PANEL));
        if !whole || parts.iter().any(|part| part.inputs != last.inputs) {
            return None;
        }
        macro_rules! join {
            ($kind:path) => {{
                let mut all = Vec::new();
                for part in parts {
                    let $kind(panels) = &part.panels else {
                        return None;
                    };
                    all.extend_from_slice(panels);
                }
                $kind(all)
            }};
        }
        Some(Self {
            outputs: parts.iter().map(|part| part.outputs).sum(),
            inputs: last.inputs,
            panels: match last.panels {
                Panels::F32(_) => join!(Panels::F32),
                Panels::Bf16(_) => join!(Panels::Bf16),
                Panels::F16(_) => join!(Panels::F16),
            },
        })
    }

    /// Width of the result.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F32(panels) => 4 * panels.len(),
            Panels::Bf16(panels) => size_of_val(panels.as_slice()),
            Panels::F16(panels) => 2 * panels.len(),
        }
    }

    /// The weight as it was before packing, in f32.
    pub fn unpack(&self) -> Vec<f32> {
        let mut w = vec![0.0; self.outputs * self.inputs];
        if self.inputs == 0 {
            return w;
        }
        let mut scratch = vec![0.0; PANEL * self.inputs];
        for (index, rows) in w.chunks_mut(PANEL * self.inputs).enumerate() {
            let panel = self.panel(index, 0, self.inputs, &mut scratch);
            for (j, row) in rows.chunks_exact_mut(self.inputs).enumerate() {
                for (k, value) in row.iter_mut().enumerate() {
                    *value = panel[k * PANEL + j];
                }
            }
        }
        w
    }

    /// Rows `first..first + depth` of a panel in f32; `scratch` is used where the weight is stored
    /// otherwise.
    pub(crate) fn panel<'a>(
        &'a self,
        index: usize,
        first: usize,
        depth: usize,
        scratch: &'a mut [f32],
    ) -> &'a [f32] {
        let start = (index * self.inputs + first) * PANEL;
        let range = start..start + depth * PANEL;
        let scratch = &mut scratch[..depth * PANEL];
        match &self.panels {
            Panels::F32(panels) => return &panels[range],
            Panels::Bf16(_) => widen_pairs(self.pairs(index, first, depth), scratch),
            Panels::F16(panels) => f16::widen(&panels[range], scratch),
        }
        scratch
    }

    /// Inner values `first..first + depth`, `first` even, of a panel of a bf16 matrix.
    fn pairs(&self, index: usize, first: usize, depth: usize) -> &[Pair] {
        debug_assert!(first.is_multiple_of(2));
        let start = index * self.inputs.div_ceil(2) + first / 2;
        match &self.panels {
            Panels::Bf16(panels) => &panels[start..start + depth.div_ceil(2)],
            _ => unreachable!("asked for a bf16 matrix alone"),
        }
    }
}

simd_dispatch! {
    fn widen_pairs(pairs: &[Pair], out: &mut [f32]) {
        for (pair, out) in pairs.iter().zip(out.chunks_mut(2 * PANEL)) {
            let (even, odd) = out.split_at_mut(PANEL);
            even.copy_from_slice(&pair.widen(false));
            // The last pair may have but one.
            if odd.len() == PANEL {
                odd.copy_from_slice(&pair.widen(true));
            }
        }
    }
}

/// A part of a panel as it is stored; what is neither bf16 nor f32 is widened.
pub(crate) enum StoredPanel<'a> {
    F32(&'a [f32]),
    Bf16(&'a [Pair]),
}

impl PackedMatrix {
    /// Asks for part `part` of `parts` of some inner values of a panel.
    fn fetch(&self, index: usize, inputs: Range<usize>, part: usize, parts: usize) {
        let from = inputs.start + inputs.len() * part / parts;
        let to = inputs.start + inputs.len() * (part + 1) / parts;
        let range = (index * self.inputs + from) * PANEL..(index * self.inputs + to) * PANEL;
        match &self.panels {
            Panels::F32(panels) => prefetch::near(&panels[range]),
            Panels::Bf16(_) => prefetch::near(self.pairs(index, from / 2 * 2, to - from)),
            Panels::F16(panels) => prefetch::near(&panels[range]),
        }
    }

    /// As [`panel`](Self::panel), but for bf16, which stays what it is.
    pub(crate) fn stored_panel<'a>(
        &'a self,
        index: usize,
        first: usize,
        depth: usize,
        scratch: &'a mut [f32],
    ) -> StoredPanel<'a> {
        match &self.panels {
            Panels::Bf16(_) => StoredPanel::Bf16(self.pairs(index, first, depth)),
            _ => StoredPanel::F32(self.panel(index, first, depth, scratch)),
        }
    }
}

/// Where the panels of a product come from.
pub(crate) trait PanelSource<S> {
    /// A panel; `scratch` is used where it is stored otherwise. Values as many as the product needs.
    fn panel(&self, index: usize, scratch: &mut [f32]) -> *const S;
    /// Asks for part `part` of `parts` of a panel, if there is such a panel.
    fn prefetch(&self, _index: usize, _part: usize, _parts: usize) {}
}

/// Inner values `first..first + depth` of a matrix.
struct Slab<'a> {
    matrix: &'a PackedMatrix,
    first: usize,
    depth: usize,
}

impl PanelSource<f32> for Slab<'_> {
    fn panel(&self, index: usize, scratch: &mut [f32]) -> *const f32 {
        let panel = self.matrix.panel(index, self.first, self.depth, scratch);
        panel.as_ptr()
    }

    fn prefetch(&self, index: usize, part: usize, parts: usize) {
        let range = self.first..self.first + self.depth;
        self.matrix.fetch(index, range, part, parts);
    }
}

impl PanelSource<Pair> for Slab<'_> {
    fn panel(&self, index: usize, _: &mut [f32]) -> *const Pair {
        self.matrix.pairs(index, self.first, self.depth).as_ptr()
    }

    fn prefetch(&self, index: usize, part: usize, parts: usize) {
        let range = self.first..self.first + self.depth;
        self.matrix.fetch(index, range, part, parts);
    }
}

/// Rows that one task takes: with the depth of a block they fit the second-level cache.
fn task_rows(level: Level) -> usize {
    match level {
        // Whole tiles.
        Level::Amx => 192,
        _ => 180,
    }
}

/// Panels that a task meets before it goes on: their results stay in the second-level cache while
/// the inner blocks are added up.
fn task_panels(level: Level) -> usize {
    match level {
        // Rows are taken apart for every such run of panels, which costs more than results that leave
        // the cache.
        Level::Amx => 128,
        _ => 32,
    }
}

/// Rows a thread below which threads share the outputs instead.
const FEW_ROWS: usize = 32;

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
    forward_at(simd::level(), x, w, y, None::<fn(usize, &mut [f32])>);
}

fn forward_at<F>(level: Level, x: &[f32], w: &PackedMatrix, y: &mut [f32], finish: Option<F>)
where
    F: Fn(usize, &mut [f32]) + Sync,
{
    let inputs = w.inputs;
    if w.outputs == 0 {
        return;
    }
    let rows = y.len() / w.outputs;
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

/// Whether a level's kernel takes rows as they lie in memory: it brings them into an order of its own.
pub(crate) fn takes_plain_rows(level: Level) -> bool {
    level == Level::Amx
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
    let last = finish.is_some();
    let finish = |first: usize, rows: &mut [f32]| {
        if let Some(finish) = &finish {
            finish(first, rows);
        }
    };
    let (inputs, outputs) = (w.inputs, w.outputs);
    if outputs == 0 || y.is_empty() {
        return;
    }
    assert!(y.len().is_multiple_of(outputs), "rows of {outputs}");
    let rows = y.len() / outputs;
    let threads = rayon::current_num_threads();
    let panels = outputs.div_ceil(PANEL);
    let product = |first: usize, panels: Range<usize>, out: Out| {
        let rows = match &source {
            Source::Plain(x) => Rows::Plain(&x[first * inputs..]),
            Source::Gathered(gather) => {
                Rows::Gathered(move |columns: Range<usize>, block: &mut [f32]| {
                    gather(first, columns, block);
                })
            }
        };
        product(level, w, panels, rows, out);
    };
    let small = rows * inputs * outputs < 32 * 32 * 32;
    if small || threads == 1 && rows <= task_rows(level) {
        product(0, 0..panels, Out::new(y, outputs));
        finish(0, y);
        return;
    }
    if rows < FEW_ROWS * threads {
        let step = panels
            .div_ceil(4 * threads)
            .next_multiple_of(tile_shape(level).1);
        let out = Out::new(y, outputs);
        // The rows are few: gathered once, for all tasks.
        let length = rows * STRIDE;
        let gathered = match source {
            Source::Plain(_) => 0,
            Source::Gathered(_) => inputs.div_ceil(DEPTH) * length,
        };
        with_buffer(gathered, |blocks| {
            if let Source::Gathered(gather) = &source {
                for (index, block) in blocks.chunks_exact_mut(length).enumerate() {
                    let first = index * DEPTH;
                    gather(0, first..(first + DEPTH).min(inputs), block);
                }
            }
            let blocks = &*blocks;
            (0..panels.div_ceil(step)).into_par_iter().for_each(|part| {
                let range = part * step..((part + 1) * step).min(panels);
                let rows = match source {
                    Source::Plain(x) => Rows::Plain(x),
                    Source::Gathered(_) => Rows::<fn(Range<usize>, &mut [f32])>::Packed(blocks),
                };
                self::product(level, w, range, rows, out);
            });
        });
        if last {
            crate::parallel::rows_mut(y, outputs, finish);
        }
        return;
    }
    let runs = even_runs(rows, task_rows(level), threads, row_unit(level));
    let mut tasks = Vec::with_capacity(runs.len());
    let mut rest = y;
    for run in runs {
        let (now, later) = std::mem::take(&mut rest).split_at_mut(run.len() * outputs);
        tasks.push((run.start, now));
        rest = later;
    }
    tasks.into_par_iter().for_each(|(first, y)| {
        product(first, 0..panels, Out::new(y, outputs));
        finish(first, y);
    });
}

/// Splits `total` rows into runs of at most about `most`, as many as several threads share evenly, in
/// multiples of `unit`.
pub(crate) fn even_runs(
    total: usize,
    most: usize,
    threads: usize,
    unit: usize,
) -> Vec<Range<usize>> {
    let count = threads * total.div_ceil(threads * most);
    let units = total.div_ceil(unit);
    let edge = |i: usize| (units * i / count * unit).min(total);
    (0..count)
        .map(|i| edge(i)..edge(i + 1))
        .filter(|run| !run.is_empty())
        .collect()
}

/// A result that several threads write, each its own values.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    pub data: *mut f32,
    rows: usize,
    stride: usize,
}

// SAFETY: tasks write disjoint values of a slice that outlives them.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    pub fn new(y: &mut [f32], stride: usize) -> Self {
        Self {
            data: y.as_mut_ptr(),
            rows: y.len() / stride,
            stride,
        }
    }
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
    let length = out.rows * STRIDE;
    let gathered = match rows {
        Rows::Gathered(_) => length,
        Rows::Packed(_) | Rows::Plain(_) => 0,
    };
    with_buffer(gathered, |buffer| {
        with_buffer(2 * DEPTH * PANEL, |scratch| {
            let task_panels = task_panels(level);
            for start in panels.clone().step_by(task_panels) {
                let panels = start..(start + task_panels).min(panels.end);
                let columns = w.outputs.min(panels.end * PANEL) - start * PANEL;
                for first in (0..w.inputs.max(1)).step_by(DEPTH) {
                    let depth = DEPTH.min(w.inputs - first);
                    let block = match &rows {
                        Rows::Plain(x) if w.inputs == 0 => x,
                        Rows::Plain(x) => &x[first..],
                        Rows::Packed(blocks) if w.inputs == 0 => blocks,
                        Rows::Packed(blocks) => &blocks[first / DEPTH * length..][..length],
                        Rows::Gathered(gather) => {
                            gather(first..first + depth, buffer);
                            &*buffer
                        }
                    };
                    let target = Target {
                        // SAFETY: the column lies within the first row.
                        out: unsafe { out.data.add(start * PANEL) },
                        stride: out.stride,
                        accumulate: first > 0,
                    };
                    let block = Block {
                        x: block,
                        stride: match rows {
                            Rows::Plain(_) => w.inputs,
                            _ => STRIDE,
                        },
                        rows: out.rows,
                        depth,
                    };
                    let panels = panels.clone();
                    // SAFETY: the block holds its rows, panels come from `w` at this depth, and the
                    // target's columns belong to this call alone.
                    unsafe {
                        block_product(level, block, (w, first), panels, columns, target, scratch);
                    }
                }
            }
        });
    });
}

/// Some inner values of rows of an input.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    pub x: &'a [f32],
    /// Distance between rows: [`STRIDE`], or anything where the level [`takes_plain_rows`].
    pub stride: usize,
    pub rows: usize,
    /// At most [`DEPTH`].
    pub depth: usize,
}

/// `target (+)= block·panels` for the inner values `first..first + depth` of `w`: every panel meets all
/// rows while it is in the first-level cache, and what comes next is fetched meanwhile. `scratch` has
/// room for two widened panels of [`DEPTH`].
///
/// # Safety
/// The block holds its rows; the target has as many of `columns`, and nobody else uses it.
pub(crate) unsafe fn block_product(
    level: Level,
    block: Block,
    (w, first): (&PackedMatrix, usize),
    panels: Range<usize>,
    columns: usize,
    target: Target,
    scratch: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    if takes_plain_rows(level) && block.depth > 0 {
        // SAFETY: as promised, and the level says that the processor has tiles.
        unsafe {
            crate::amx::block_product(block, (w, first), panels, columns, target, scratch);
        }
        return;
    }
    let Block {
        x,
        stride,
        rows,
        depth,
    } = block;
    assert_eq!(stride, STRIDE, "rows of a block");
    let factors = (x, rows, depth);
    let slab = Slab {
        matrix: w,
        first,
        depth,
    };
    // Few tiles of rows don't repay a widened copy of every panel.
    let direct = matches!(w.panels, Panels::Bf16(_)) && rows <= 2 * tile_shape(level).0;
    // SAFETY: as promised; panels of the slab have its depth.
    unsafe {
        if direct {
            panel_product::<Pair>(level, factors, &slab, panels, columns, target, scratch);
        } else {
            panel_product::<f32>(level, factors, &slab, panels, columns, target, scratch);
        }
    }
}

/// As [`block_product`] with panels from anywhere.
///
/// # Safety
/// As for [`block_product`]; `source` gives panels of `depth` values an output.
pub(crate) unsafe fn panel_product<S: Stored>(
    level: Level,
    (block, rows, depth): (&[f32], usize, usize),
    source: &impl PanelSource<S>,
    panels: Range<usize>,
    columns: usize,
    target: Target,
    scratch: &mut [f32],
) {
    debug_assert!(block.len() >= rows * STRIDE);
    let (most_rows, most_panels) = tile_shape(level);
    let tiles = rows.div_ceil(most_rows);
    for (step, index) in panels.clone().step_by(most_panels).enumerate() {
        let count = most_panels.min(panels.end - index);
        let mut held = [std::ptr::null(); 2];
        let scratch = scratch.chunks_exact_mut(DEPTH * PANEL);
        for ((offset, held), scratch) in held[..count].iter_mut().enumerate().zip(scratch) {
            *held = source.panel(index + offset, scratch);
        }
        let column = step * most_panels * PANEL;
        let width = (columns - column).min(count * PANEL);
        for i in 0..tiles {
            // Tiles of nearly equal height: a last one of a row or two would run at a fraction of
            // the speed.
            let (row, end) = (rows * i / tiles, rows * (i + 1) / tiles);
            // One tile alone leaves no time to fetch in.
            if tiles > 1 {
                for next in (index + count..panels.end).take(most_panels) {
                    source.prefetch(next, i, tiles);
                }
            }
            let target = Target {
                // SAFETY: within the target.
                out: unsafe { target.out.add(row * target.stride + column) },
                ..target
            };
            // SAFETY: as the caller promised; tiles are no larger than the level's.
            unsafe {
                let a = block.as_ptr().add(row * STRIDE);
                tile(level, end - row, depth, a, &held[..count], width, target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, noise};

    #[test]
    fn every_level_matches_the_reference_at_odd_sizes() {
        let sizes = [
            (1, 1, 1),
            (3, 7, 5),
            (13, 300, 33),
            (64, 257, 100),
            (200, 40, 16),
            (401, 530, 47),
        ];
        for (rows, inputs, outputs) in sizes {
            let (x, w) = (noise(rows * inputs, 1), noise(outputs * inputs, 2));
            let bias = noise(outputs, 3);
            let add_bias = |_: usize, rows: &mut [f32]| {
                for row in rows.chunks_exact_mut(outputs) {
                    for (y, b) in row.iter_mut().zip(&bias) {
                        *y += b;
                    }
                }
            };
            let narrow: Vec<bf16> = w.iter().map(|&v| bf16::from_f32(v)).collect();
            let half: Vec<f16> = w.iter().map(|&v| f16::from_f32(v)).collect();
            let matrices = [
                PackedMatrix::from_f32(&w, outputs, inputs),
                PackedMatrix::from_bf16(&narrow, outputs, inputs),
                PackedMatrix::from_f16(&half, outputs, inputs),
            ];
            for matrix in &matrices {
                let rounded = matrix.unpack();
                let want = reference::linear(&x, inputs, &rounded, outputs, &bias);
                for level in Level::available() {
                    let mut y = vec![f32::NAN; rows * outputs];
                    forward_at(level, &x, matrix, &mut y, Some(add_bias));
                    assert_close(&y, &want, 1e-5);
                }
            }
            assert_eq!(matrices[0].unpack(), w);
        }
    }

    #[test]
    fn no_level_loses_what_f32_holds() {
        // Each value counts in every bit: products cancel to what only the last ones leave.
        let (inputs, outputs) = (64, 16);
        let x: Vec<f32> = (0..inputs)
            .map(|k| (1.0 + 0.1 * (k / 2) as f32) * if k % 2 == 0 { 1.0 } else { -1.0 + 2e-7 })
            .collect();
        let w: Vec<f32> = (0..outputs * inputs)
            .map(|i| 1.0 + (i / inputs) as f32 / 64.0)
            .collect();
        let narrow: Vec<bf16> = w.iter().map(|&v| bf16::from_f32(v)).collect();
        for matrix in [
            PackedMatrix::from_f32(&w, outputs, inputs),
            PackedMatrix::from_bf16(&narrow, outputs, inputs),
        ] {
            let rounded = matrix.unpack();
            for level in Level::available() {
                let mut y = vec![f32::NAN; outputs];
                forward_at(level, &x, &matrix, &mut y, None::<fn(usize, &mut [f32])>);
                for (y, w) in y.iter().zip(rounded.chunks_exact(inputs)) {
                    let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let want: f64 = products.sum();
                    // 64 roundings of sums up to 5.
                    assert!(
                        (f64::from(*y) - want).abs() < 3e-6,
                        "{level:?}: {y}, {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn largest_smallest_and_infinite_values_stay_what_they_are() {
        let identity: Vec<f32> = (0..16 * 16).map(|i| f32::from(i / 16 == i % 16)).collect();
        let narrow: Vec<bf16> = identity.iter().map(|&v| bf16::from_f32(v)).collect();
        let values = [
            f32::MAX,
            f32::MIN,
            3.3e38,
            1.2e-38,
            -1e-30,
            1.0 / 3.0,
            16_777_215.0,
            0.0,
        ];
        for matrix in [
            PackedMatrix::from_f32(&identity, 16, 16),
            PackedMatrix::from_bf16(&narrow, 16, 16),
        ] {
            for level in Level::available() {
                for value in values {
                    let mut y = vec![f32::NAN; 16];
                    let none = None::<fn(usize, &mut [f32])>;
                    forward_at(level, &[value; 16], &matrix, &mut y, none);
                    let same = y.iter().all(|y| (y - value).abs() <= 1e-38);
                    assert!(same, "{level:?}: {} instead of {value}", y[0]);
                }
                for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                    let mut x = [1.0; 16];
                    x[3] = value;
                    let mut y = vec![0.0; 16];
                    forward_at(level, &x, &matrix, &mut y, None::<fn(usize, &mut [f32])>);
                    assert!(!y[3].is_finite(), "{level:?}: {value} became {}", y[3]);
                }
            }
        }
    }

    #[test]
    fn joined_matrices_give_the_parts_results_side_by_side() {
        let (rows, inputs) = (33, 90);
        let x = noise(rows * inputs, 1);
        let weights = [
            noise(32 * inputs, 2),
            noise(16 * inputs, 3),
            noise(5 * inputs, 4),
        ];
        let outputs = [32, 16, 5];
        let parts: Vec<PackedMatrix> = weights
            .iter()
            .zip(outputs)
            .map(|(w, outputs)| PackedMatrix::from_f32(w, outputs, inputs))
            .collect();
        let all = PackedMatrix::joined(&parts.iter().collect::<Vec<_>>()).unwrap();
        let mut y = vec![0.0; rows * 53];
        multiply(&x, &all, &mut y);
        let mut column = 0;
        for (part, outputs) in parts.iter().zip(outputs) {
            let mut alone = vec![0.0; rows * outputs];
            multiply(&x, part, &mut alone);
            for (row, alone) in y.chunks_exact(53).zip(alone.chunks_exact(outputs)) {
                assert_eq!(row[column..column + outputs], *alone);
            }
            column += outputs;
        }
        assert!(
            PackedMatrix::joined(&[&parts[2], &parts[0]]).is_none(),
            "a cut panel"
        );
        let half: Vec<bf16> = weights[0].iter().map(|&v| bf16::from_f32(v)).collect();
        let half = PackedMatrix::from_bf16(&half, 32, inputs);
        assert!(
            PackedMatrix::joined(&[&half, &parts[0]]).is_none(),
            "two types"
        );
        assert!(PackedMatrix::joined(&[]).is_none());
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let (rows, inputs, outputs) = (150, 300, 70);
        let x = noise(rows * inputs, 1);
        let w = PackedMatrix::from_f32(&noise(outputs * inputs, 2), outputs, inputs);
        let results: Vec<Vec<f32>> = [1, 2, 3, 8]
            .into_iter()
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                let mut y = vec![0.0; rows * outputs];
                pool.unwrap().install(|| forward(&x, &w, &mut y, |_, _| ()));
                y
            })
            .collect();
        assert!(results.iter().all(|y| *y == results[0]));
    }

    #[test]
    fn every_row_is_finished_once() {
        for rows in [1, 40, 64, 500] {
            let w = PackedMatrix::from_f32(&noise(20 * 9, 2), 20, 9);
            let mut y = vec![0.0; rows * 20];
            forward(&vec![0.0; rows * 9], &w, &mut y, |first, run| {
                for (offset, row) in run.chunks_exact_mut(20).enumerate() {
                    row.iter_mut()
                        .for_each(|y| *y += (first + offset) as f32 + 1.0);
                }
            });
            for (row, values) in y.chunks_exact(20).enumerate() {
                assert!(values.iter().all(|y| *y == row as f32 + 1.0));
            }
        }
    }
}
