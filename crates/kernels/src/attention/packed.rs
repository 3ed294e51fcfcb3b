//! Softmax attention over keys and values that stay packed for it from one pass to the next.
//!
//! Keys stand in panels of 16 positions and values in panels of 16 channels, as the matrix product
//! wants them, so a step of decoding packs only what it computed anew. Scores are made for up to 256
//! keys at a time and weighed at once (an online softmax), so no row of all scores is ever stored.

use crate::gemm::layout::{DEPTH, Out, PANEL, STRIDE, Target};
use crate::gemm::panels::{PanelSource, SCRATCH, panel_product};
use crate::pointwise::math;
use crate::scratch::with_buffer;
use crate::simd::{self, Level, simd_dispatch};
use rayon::prelude::*;
use std::ops::Range;

/// Keys and values of one sequence and layer: slots that are written by position.
#[derive(Clone, Debug)]
pub struct PackedKeyValues {
    capacity: usize,
    heads: usize,
    dim: usize,
    /// `[head][position / 16][channel][position % 16]`
    keys: Vec<f32>,
    /// `[head][channel / 16][position][channel % 16]`
    values: Vec<f32>,
}

impl PackedKeyValues {
    /// Slots for `capacity` positions of `heads` heads with `dim` channels each, all zero.
    pub fn new(capacity: usize, heads: usize, dim: usize) -> Self {
        let (positions, channels) = (
            capacity.next_multiple_of(PANEL),
            dim.next_multiple_of(PANEL),
        );
        Self {
            capacity,
            heads,
            dim,
            keys: vec![0.0; heads * positions * dim],
            values: vec![0.0; heads * capacity * channels],
        }
    }

    /// Positions there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Heads of keys.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Channels of a head.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Channels of the keys of one position, all heads together.
    pub fn width(&self) -> usize {
        self.heads * self.dim
    }

    fn panels(&self) -> usize {
        self.capacity.div_ceil(PANEL)
    }

    fn channel_panels(&self) -> usize {
        self.dim.div_ceil(PANEL)
    }

    /// Puts `keys` and `values`, both `[tokens, heads·dim]`, into the slots from `start` on.
    ///
    /// # Panics
    /// When they are not whole tokens, differ in number, or leave the slots.
    pub fn write(&mut self, start: usize, keys: &[f32], values: &[f32]) {
        let (width, dim) = (self.width(), self.dim);
        if width == 0 {
            return;
        }
        let tokens = keys.len() / width;
        assert!(
            keys.len() == tokens * width && values.len() == keys.len(),
            "{} keys and {} values in rows of {width}",
            keys.len(),
            values.len()
        );
        let end = start + tokens;
        assert!(
            end <= self.capacity,
            "slots {start} to {end} of {}",
            self.capacity
        );
        if tokens == 0 {
            return;
        }
        let (panels, capacity) = (self.panels(), self.capacity);
        let channel_panels = self.channel_panels();
        let each_key = self.keys.par_chunks_exact_mut(panels * PANEL * dim);
        let each_value = self
            .values
            .par_chunks_exact_mut(capacity * channel_panels * PANEL);
        let work = |head: usize, packed_keys: &mut [f32], packed_values: &mut [f32]| {
            for panel in start / PANEL..end.div_ceil(PANEL) {
                let first = (panel * PANEL).max(start);
                let last = ((panel + 1) * PANEL).min(end);
                let packed = &mut packed_keys[panel * PANEL * dim..(panel + 1) * PANEL * dim];
                for position in first..last {
                    let row = &keys[(position - start) * width + head * dim..][..dim];
                    for (slot, key) in packed.chunks_exact_mut(PANEL).zip(row) {
                        slot[position % PANEL] = *key;
                    }
                }
            }
            for (panel, packed) in packed_values.chunks_exact_mut(capacity * PANEL).enumerate() {
                let channels = PANEL.min(dim - panel * PANEL);
                for (slot, row) in packed[start * PANEL..]
                    .chunks_exact_mut(PANEL)
                    .zip(values.chunks_exact(width))
                {
                    let from = head * dim + panel * PANEL;
                    slot[..channels].copy_from_slice(&row[from..from + channels]);
                }
            }
        };
        each_key
            .zip(each_value)
            .enumerate()
            .with_min_len(if tokens * width < 1 << 15 {
                self.heads
            } else {
                1
            })
            .for_each(|(head, (keys, values))| work(head, keys, values));
    }

    /// A panel of 16 keys, from channel `channel` on.
    fn key_panel(&self, head: usize, panel: usize, channel: usize) -> &[f32] {
        let first = (head * self.panels() + panel) * self.dim;
        &self.keys[(first + channel) * PANEL..(first + self.dim) * PANEL]
    }

    /// A panel of 16 channels, from position `position` on.
    fn value_panel(&self, head: usize, panel: usize, position: usize) -> &[f32] {
        let first = (head * self.channel_panels() + panel) * self.capacity;
        &self.values[(first + position) * PANEL..(first + self.capacity) * PANEL]
    }
}

/// Panels of 16 keys from a channel on.
struct KeyPanels<'a> {
    keys: &'a PackedKeyValues,
    head: usize,
    channel: usize,
}

impl PanelSource<f32> for KeyPanels<'_> {
    fn panel<'a>(&'a self, index: usize, _: &'a mut [f32]) -> &'a [f32] {
        self.keys.key_panel(self.head, index, self.channel)
    }
}

/// Panels of 16 channels from a position on.
struct ValuePanels<'a> {
    keys: &'a PackedKeyValues,
    head: usize,
    position: usize,
}

impl PanelSource<f32> for ValuePanels<'_> {
    fn panel<'a>(&'a self, index: usize, _: &'a mut [f32]) -> &'a [f32] {
        self.keys.value_panel(self.head, index, self.position)
    }
}

/// Rows, a query and a head each, that meet the keys together.
const ROWS: usize = 64;
/// Keys whose scores exist at a time.
const KEYS: usize = DEPTH;

/// `o = softmax(scale·q kᵀ) v` for `q` and `o` `[queries, heads·dim]` over the first `end` positions;
/// heads of `keys` divide `heads`. Without keys the result is zero.
///
/// A row's result depends on nothing but the row and the keys.
///
/// # Panics
/// Where sizes do not fit.
pub fn forward(
    q: &[f32],
    heads: usize,
    keys: &PackedKeyValues,
    end: usize,
    scale: f32,
    o: &mut [f32],
) {
    forward_at(simd::level(), q, heads, keys, end, scale, o);
}

fn forward_at(
    level: Level,
    q: &[f32],
    heads: usize,
    keys: &PackedKeyValues,
    end: usize,
    scale: f32,
    o: &mut [f32],
) {
    assert!(
        keys.heads > 0 && heads.is_multiple_of(keys.heads),
        "{heads} heads over {} key-value heads",
        keys.heads
    );
    let width = heads * keys.dim;
    assert!(
        q.len() == o.len() && (width == 0 || q.len().is_multiple_of(width)),
        "{} queries and {} results in rows of {width}",
        q.len(),
        o.len()
    );
    assert!(end <= keys.capacity, "{end} of {} positions", keys.capacity);
    if end == 0 || q.is_empty() {
        o.fill(0.0);
        return;
    }
    let (queries, group) = (q.len() / width, heads / keys.heads);
    // Heads that share keys go through them together.
    let per_task = (ROWS / group).max(1);
    let chunks = queries.div_ceil(per_task);
    let out = Out::new(o, width);
    (0..chunks * keys.heads).into_par_iter().for_each(|task| {
        let (chunk, head) = (task / keys.heads, task % keys.heads);
        let first = chunk * per_task;
        let task = Task {
            level,
            keys,
            head,
            queries: first..(first + per_task).min(queries),
            group,
            end,
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
    end: usize,
}

impl Task<'_> {
    fn run(&self, q: &[f32], heads: Range<usize>, scale: f32, out: Out) {
        let dim = self.keys.dim;
        let width = self.group * self.keys.heads * dim;
        let rows = self.queries.len() * heads.len();
        let padded = dim.next_multiple_of(PANEL);
        // Row `i` is query `i / heads`, head `i % heads`.
        let place = |i: usize| {
            let head = self.head * self.group + heads.start + i % heads.len();
            (self.queries.start + i / heads.len()) * width + head * dim
        };
        with_buffer(2 * rows * STRIDE + rows * (padded + 2), |buffer| {
            let (block, rest) = buffer.split_at_mut(rows * STRIDE);
            let (scores, rest) = rest.split_at_mut(rows * STRIDE);
            let (sums, rest) = rest.split_at_mut(rows * padded);
            let (largest, totals) = rest.split_at_mut(rows);
            sums.fill(0.0);
            largest.fill(f32::NEG_INFINITY);
            totals.fill(0.0);
            for first in (0..self.end).step_by(KEYS) {
                let count = KEYS.min(self.end - first);
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
                    let sum = &mut sums[i * padded..][..padded];
                    weigh(row, sum, &mut largest[i], &mut totals[i]);
                }
                self.add_values(scores, rows, first, count, sums);
            }
            for (i, sums) in sums.chunks_exact(padded).enumerate() {
                let inverse = 1.0 / totals[i];
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
        let padded = self.keys.dim.next_multiple_of(PANEL);
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
mod tests {
    use super::*;
    use crate::attention::AttentionShape;
    use crate::reference::{self, assert_close, noise};

    fn wanted(
        q: &[f32],
        heads: usize,
        k: &[f32],
        v: &[f32],
        groups: usize,
        dim: usize,
    ) -> Vec<f32> {
        let shape = AttentionShape {
            batch: 1,
            queries: q.len() / (heads * dim),
            keys: k.len() / (groups * dim),
            heads,
            key_value_heads: groups,
            dim,
            scale: 0.3,
            softcap: None,
            causal_offset: None,
            window: None,
            key_mask: None,
        };
        reference::attention(&shape, q, k, v)
    }

    #[test]
    fn every_level_matches_the_reference_at_odd_sizes() {
        for (queries, heads, groups, dim, capacity, end) in [
            (1, 1, 1, 1, 1, 1),
            (3, 4, 2, 6, 40, 33),
            (32, 4, 1, 64, 300, 300),
            (33, 2, 2, 20, 600, 514),
            (5, 80, 1, 8, 20, 17),
            (2, 2, 1, 300, 270, 260),
        ] {
            let (q, width) = (noise(queries * heads * dim, 1), groups * dim);
            let (k, v) = (noise(end * width, 2), noise(end * width, 3));
            let want = wanted(&q, heads, &k, &v, groups, dim);
            let mut keys = PackedKeyValues::new(capacity, groups, dim);
            // What stands behind the end is not seen.
            keys.write(
                0,
                &vec![9.0; capacity * width],
                &vec![f32::MAX; capacity * width],
            );
            let middle = end / 3;
            keys.write(middle, &k[middle * width..], &v[middle * width..]);
            keys.write(0, &k[..middle * width], &v[..middle * width]);
            for level in Level::available() {
                let mut o = vec![f32::NAN; q.len()];
                forward_at(level, &q, heads, &keys, end, 0.3, &mut o);
                assert_close(&o, &want, 1e-5);
            }
        }
    }

    #[test]
    fn large_scores_and_no_keys() {
        let (dim, end) = (16, 400);
        let k: Vec<f32> = (0..end).flat_map(|i| vec![i as f32; dim]).collect();
        let mut keys = PackedKeyValues::new(end, 1, dim);
        keys.write(0, &k, &k);
        let mut o = vec![0.0; dim];
        forward(&vec![50.0; dim], 1, &keys, end, 1.0, &mut o);
        assert_eq!(o, [399.0; 16]);
        forward(&[f32::NAN; 16], 1, &keys, end, 1.0, &mut o);
        assert!(o.iter().all(|o| o.is_nan()));
        forward(&[1.0; 16], 1, &keys, 0, 1.0, &mut o);
        assert_eq!(o, [0.0; 16]);
    }

    #[test]
    fn rows_depend_on_neither_threads_nor_company() {
        let (queries, heads, dim, end) = (70, 4, 32, 300);
        let mut keys = PackedKeyValues::new(end, 2, dim);
        keys.write(0, &noise(end * 64, 1), &noise(end * 64, 2));
        let q = noise(queries * heads * dim, 3);
        let run = |threads: usize, q: &[f32]| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let mut o = vec![0.0; q.len()];
            pool.unwrap()
                .install(|| forward(q, heads, &keys, end, 0.2, &mut o));
            o
        };
        let all = run(1, &q);
        assert!([2, 8].into_iter().all(|threads| run(threads, &q) == all));
        let width = heads * dim;
        for row in [0, 17, 69] {
            let range = row * width..(row + 1) * width;
            assert_eq!(run(2, &q[range.clone()]), all[range]);
        }
    }
}
