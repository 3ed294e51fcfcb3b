//! Softmax attention over keys and values that stay packed for it from one pass to the next.
//!
//! Keys stand in panels of 16 positions and values in panels of 16 channels, as the matrix product
//! wants them, so a step of decoding packs only what it computed anew. Scores are made for up to 256
//! keys at a time and weighed at once (an online softmax), so no row of all scores is ever stored.

mod key_values;
mod positions;

pub use key_values::PackedKeyValues;
pub use positions::RelativePositions;

use crate::gemm::layout::{DEPTH, Out, PANEL, STRIDE, Target};
use crate::gemm::panels::{SCRATCH, panel_product};
use crate::parallel::{Work, each};
use crate::pointwise::math;
use crate::scratch::with_buffer;
use crate::simd::{self, Level, simd_dispatch};
use key_values::{KeyPanels, ValuePanels};
use positions::Added;
use std::ops::Range;

/// Rows, a query and a head each, that meet the keys together.
const ROWS: usize = 64;
/// Keys whose scores exist at a time.
const KEYS: usize = DEPTH;

/// How many positions queries see, from the first.
#[derive(Clone, Copy, Debug)]
pub enum Ends<'a> {
    /// All of them so many.
    Same(usize),
    /// Each query its own number.
    Each(&'a [usize]),
}

impl Ends<'_> {
    /// What one query sees.
    fn of(self, query: usize) -> usize {
        match self {
            Self::Same(end) => end,
            Self::Each(ends) => ends[query],
        }
    }

    /// The most that one of some queries sees.
    fn most(self, mut queries: Range<usize>) -> usize {
        match self {
            Self::Same(end) if queries.next().is_some() => end,
            Self::Same(_) => 0,
            Self::Each(ends) => ends[queries].iter().copied().max().unwrap_or(0),
        }
    }
}

/// `o = softmax(scale·q kᵀ) v` for `q` and `o` `[queries, heads·dim]` over the first positions; heads of
/// `keys` divide `heads`. Without keys the result is zero.
///
/// A row's result depends on nothing but the row and the keys that it sees.
///
/// # Panics
/// Where sizes do not fit.
pub fn forward(
    q: &[f32],
    heads: usize,
    keys: &PackedKeyValues,
    ends: Ends,
    scale: f32,
    o: &mut [f32],
) {
    forward_at(simd::level(), q, heads, keys, ends, scale, None, o);
}

/// As [`forward`] over all positions, with numbers added to the scaled products by where query and key
/// stand on a grid.
///
/// # Panics
/// Where sizes do not fit.
pub fn forward_on_grid(
    q: &[f32],
    heads: usize,
    keys: &PackedKeyValues,
    scale: f32,
    positions: &RelativePositions,
    o: &mut [f32],
) {
    let (end, level) = (keys.capacity(), simd::level());
    positions.check(q.len() / (heads * keys.dim()).max(1), heads, end);
    forward_at(
        level,
        q,
        heads,
        keys,
        Ends::Same(end),
        scale,
        Some(Added::Grid(positions)),
        o,
    );
}

/// As [`forward`] over all positions, with a `table` `[heads, queries, positions]` added to the scaled products.
///
/// # Panics
/// Where sizes do not fit.
pub fn forward_with_table(
    q: &[f32],
    heads: usize,
    keys: &PackedKeyValues,
    scale: f32,
    table: &[f32],
    o: &mut [f32],
) {
    let (end, level) = (keys.capacity(), simd::level());
    let queries = q.len() / (heads * keys.dim()).max(1);
    assert_eq!(
        table.len(),
        heads * queries * end,
        "table of {heads} heads, {queries} queries and {end} keys"
    );
    let added = Added::Table {
        values: table,
        queries,
        keys: end,
    };
    forward_at(
        level,
        q,
        heads,
        keys,
        Ends::Same(end),
        scale,
        Some(added),
        o,
    );
}

#[allow(clippy::too_many_arguments)] // an attention's operands, at a level
fn forward_at(
    level: Level,
    q: &[f32],
    heads: usize,
    keys: &PackedKeyValues,
    ends: Ends,
    scale: f32,
    added: Option<Added>,
    o: &mut [f32],
) {
    assert!(
        keys.heads() > 0 && heads.is_multiple_of(keys.heads()),
        "{heads} heads over {} key-value heads",
        keys.heads()
    );
    let width = heads * keys.dim();
    assert!(
        q.len() == o.len() && (width == 0 || q.len().is_multiple_of(width)),
        "{} queries and {} results in rows of {width}",
        q.len(),
        o.len()
    );
    let (queries, group) = (q.len() / width.max(1), heads / keys.heads());
    if let Ends::Each(ends) = ends {
        assert!(
            ends.len() == queries,
            "{} ends of {queries} queries",
            ends.len()
        );
    }
    let end = ends.most(0..queries);
    assert!(
        end <= keys.capacity(),
        "{end} of {} positions",
        keys.capacity()
    );
    if end == 0 || q.is_empty() {
        o.fill(0.0);
        return;
    }
    // Heads that share keys go through them together.
    let per_task = (ROWS / group).max(1);
    let chunks = queries.div_ceil(per_task);
    let out = Out::new(o, width);
    let work = Work {
        multiplications: 2 * q.len() * end,
        bytes: 2 * size_of::<f32>() * end * keys.heads() * keys.dim(),
    };
    each(0..chunks * keys.heads(), work, |task| {
        let (chunk, head) = (task / keys.heads(), task % keys.heads());
        let first = chunk * per_task;
        let queries = first..(first + per_task).min(queries);
        let task = Task {
            level,
            keys,
            head,
            queries,
            group,
            ends,
            added,
        };
        // More heads than rows of a task: some of them at a time.
        for heads in (0..group).step_by(ROWS) {
            task.run(q, heads..(heads + ROWS).min(group), scale, out);
        }
    });
}

/// Some queries of the heads that share one head of keys.
struct Task<'a> {
    level: Level,
    keys: &'a PackedKeyValues,
    head: usize,
    queries: Range<usize>,
    group: usize,
    ends: Ends<'a>,
    added: Option<Added<'a>>,
}

impl Task<'_> {
    fn run(&self, q: &[f32], heads: Range<usize>, scale: f32, out: Out) {
        let dim = self.keys.dim();
        let width = self.group * self.keys.heads() * dim;
        let rows = self.queries.len() * heads.len();
        let padded = dim.next_multiple_of(PANEL);
        let end = self.ends.most(self.queries.clone());
        let end_of = |i: usize| self.ends.of(self.queries.start + i / heads.len());
        // Row `i` is query `i / heads`, head `i % heads`.
        let query = |i: usize| self.queries.start + i / heads.len();
        let head = |i: usize| self.head * self.group + heads.start + i % heads.len();
        let place = |i: usize| query(i) * width + head(i) * dim;
        with_buffer(2 * rows * STRIDE + rows * (padded + 2), |buffer| {
            let (block, rest) = buffer.split_at_mut(rows * STRIDE);
            let (scores, rest) = rest.split_at_mut(rows * STRIDE);
            let (sums, rest) = rest.split_at_mut(rows * padded);
            let (largest, totals) = rest.split_at_mut(rows);
            sums.fill(0.0);
            largest.fill(f32::NEG_INFINITY);
            totals.fill(0.0);
            for first in (0..end).step_by(KEYS) {
                let count = KEYS.min(end - first);
                for channel in (0..dim).step_by(DEPTH) {
                    let depth = DEPTH.min(dim - channel);
                    if first == 0 || dim > DEPTH {
                        for (i, row) in block.chunks_exact_mut(STRIDE).enumerate() {
                            let from = &q[place(i) + channel..][..depth];
                            for (to, from) in row.iter_mut().zip(from) {
                                *to = from * scale;
                            }
                        }
                    }
                    self.scores(block, rows, channel, depth, first, count, scores);
                }
                for i in 0..rows {
                    let row = &mut scores[i * STRIDE..][..count];
                    let seen = end_of(i).saturating_sub(first).min(count);
                    let (seen, unseen) = row.split_at_mut(seen);
                    unseen.fill(0.0);
                    if !seen.is_empty() {
                        if let Some(added) = &self.added {
                            added.add(query(i), head(i)..width / dim, first, seen);
                        }
                        let sum = &mut sums[i * padded..][..padded];
                        weigh(seen, sum, &mut largest[i], &mut totals[i]);
                    }
                }
                self.add_values(scores, rows, first, count, sums);
            }
            for (i, sums) in sums.chunks_exact(padded).enumerate() {
                let inverse = match end_of(i) {
                    0 => 0.0,
                    _ => 1.0 / totals[i],
                };
                // SAFETY: this query and head belong to this task alone.
                let to = unsafe { std::slice::from_raw_parts_mut(out.data.add(place(i)), dim) };
                for (to, sum) in to.iter_mut().zip(sums) {
                    *to = sum * inverse;
                }
            }
        });
    }

    /// Adds the products of `depth` channels to the scores of `count` keys from `first` on.
    #[allow(clippy::too_many_arguments)] // the sizes of one product
    fn scores(
        &self,
        block: &[f32],
        rows: usize,
        channel: usize,
        depth: usize,
        first: usize,
        count: usize,
        scores: &mut [f32],
    ) {
        let start = first / PANEL;
        let panels = start..start + count.div_ceil(PANEL);
        let source = KeyPanels {
            keys: self.keys,
            head: self.head,
            channel,
        };
        let target = Target {
            out: scores.as_mut_ptr(),
            stride: STRIDE,
            accumulate: channel > 0,
        };
        with_buffer(SCRATCH, |scratch| {
            // SAFETY: scores are this task's, `rows` rows of at least `count`.
            unsafe {
                let factors = (block, rows, depth);
                panel_product(self.level, factors, &source, panels, count, target, scratch);
            }
        });
    }

    /// Adds the values of `count` keys from `first` on, weighed by `weights`.
    fn add_values(
        &self,
        weights: &[f32],
        rows: usize,
        first: usize,
        count: usize,
        sums: &mut [f32],
    ) {
        let padded = self.keys.dim().next_multiple_of(PANEL);
        let panels = 0..self.keys.channel_panels();
        let source = ValuePanels {
            keys: self.keys,
            head: self.head,
            position: first,
        };
        let target = Target {
            out: sums.as_mut_ptr(),
            stride: padded,
            accumulate: true,
        };
        with_buffer(SCRATCH, |scratch| {
            // SAFETY: sums are this task's, `rows` rows of whole panels.
            unsafe {
                let factors = (weights, rows, count);
                panel_product(
                    self.level, factors, &source, panels, padded, target, scratch,
                );
            }
        });
    }
}

simd_dispatch! {
    /// Turns a row of scores into weights relative to the largest score so far, and brings what was
    /// summed before to the same measure.
    fn weigh(scores: &mut [f32], sums: &mut [f32], largest: &mut f32, total: &mut f32) {
        let mut lanes = [f32::NEG_INFINITY; PANEL];
        let (whole, rest) = scores.as_chunks::<PANEL>();
        for scores in whole {
            for (lane, score) in lanes.iter_mut().zip(scores) {
                *lane = if *score > *lane { *score } else { *lane };
            }
        }
        let mut most = *largest;
        for score in lanes.iter().chain(rest) {
            if *score > most { most = *score; }
        }
        let shrink = if *largest == most { 1.0 } else { math::exp(*largest - most) };
        if shrink != 1.0 {
            for sum in sums.iter_mut() { *sum *= shrink; }
        }
        *largest = most;
        let mut lanes = [0.0f32; PANEL];
        let (whole, rest) = scores.as_chunks_mut::<PANEL>();
        for scores in whole {
            for (lane, score) in lanes.iter_mut().zip(scores) {
                *score = math::exp(*score - most);
                *lane += *score;
            }
        }
        let mut sum = lanes.iter().sum::<f32>();
        for score in rest {
            *score = math::exp(*score - most);
            sum += *score;
        }
        *total = *total * shrink + sum;
    }
}

#[cfg(test)]
mod tests;
