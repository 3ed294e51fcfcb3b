//! Tokens look at cells.

use super::layout::{Across, Along, Factor, FactorRows, To, by_head, product};
use super::{PANEL, Update};
use crate::gemm::layout::{DEPTH, STRIDE};
use crate::pointwise::math;
use crate::scratch::with_buffer;
use crate::simd::{self, simd_dispatch};

/// Projections of the shared cells, without biases.
#[derive(Clone, Copy, Debug)]
pub struct Looked<'a> {
    /// Keys, `heads·dim` channels.
    pub keys: &'a Across,
    /// Keys of the cells' positions, where `keys` do not have them.
    pub positions: Option<&'a Across>,
    /// Values.
    pub values: &'a Along,
}

/// What the tokens of a prompt ask.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// How many tokens.
    pub tokens: usize,
    /// Queries `[heads, tokens, dim]`, scaled.
    pub queries: &'a [f32],
    /// Products of each with the keys of all that was told, `[heads·tokens, rows]`.
    pub told: &'a [f32],
}

/// What tokens see: shares are those of a softmax over cells.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Values of the shared cells by their shares and scales, `[heads·tokens, dim]`.
    pub values: Vec<f32>,
    /// What cells were told by their shares, `[heads·tokens, rows]`.
    pub told: Vec<f32>,
}

/// Attention of a prompt's tokens over its cells. What all cells have in common is left out: it adds nothing to
/// shares, and itself to what is seen.
///
/// # Panics
/// When sizes do not fit.
pub fn look(picture: Looked, prompt: Asked, update: &Update) -> Seen {
    let level = simd::level();
    let (heads, dim) = (picture.values.heads(), picture.values.dim());
    let (cells, tokens, told) = (update.cells, prompt.tokens, update.rows);
    let (rows, shape) = (heads * tokens, [heads, tokens, dim]);
    assert!(
        picture.keys.channels() == heads * dim
            && picture.keys.cells() == cells
            && picture.values.cells() == cells
            && prompt.queries.len() == rows * dim
            && prompt.told.len() == rows * told,
        "{} queries of {heads} heads of {dim} over {cells} cells that were told {told} rows",
        prompt.queries.len()
    );
    let (queries, asked) = (
        Factor::new(prompt.queries, dim),
        Factor::new(prompt.told, told),
    );
    let (blocks, told_blocks) = (dim.div_ceil(PANEL), told.div_ceil(PANEL));
    let (width, told_width) = (blocks * PANEL, told_blocks * PANEL);
    let mut values = vec![0.0f32; rows * width];
    let mut seen = vec![0.0f32; rows * told_width];
    let mut running = vec![Running::default(); rows];
    let scores_len = rows * STRIDE;
    with_buffer(2 * scores_len + told_width * DEPTH, |buffer| {
        let (scores, buffer) = buffer.split_at_mut(scores_len);
        let (scaled, turned) = buffer.split_at_mut(scores_len);
        for start in (0..cells).step_by(DEPTH) {
            let strip = start..(start + DEPTH).min(cells);
            let count = strip.len();
            for (at, panel) in (strip.start / PANEL..strip.end.div_ceil(PANEL)).enumerate() {
                let scores = &mut scores[at * PANEL..];
                let columns = PANEL.min(count - at * PANEL);
                by_head(
                    level,
                    &queries,
                    picture.keys.panel(panel),
                    shape,
                    (columns, To::new(scores, STRIDE, false)),
                );
                if told > 0 {
                    scale_rows(scores, columns, update.scale(panel));
                    let shares = update.shares(panel);
                    product(
                        level,
                        asked.all(),
                        shares,
                        columns,
                        To::new(scores, STRIDE, true),
                    );
                }
                if let Some(positions) = picture.positions {
                    by_head(
                        level,
                        &queries,
                        positions.panel(panel),
                        shape,
                        (columns, To::new(scores, STRIDE, true)),
                    );
                }
            }
            soften(scores, count, &mut running);
            rescale(&mut values, width, &running);
            rescale(&mut seen, told_width, &running);
            let by_scale = match told {
                0 => &*scores,
                _ => {
                    let scale = &update.scale[strip.clone()];
                    scale_shares(scores, scale, scaled);
                    &*scaled
                }
            };
            for head in 0..heads {
                let shares = &by_scale[head * tokens * STRIDE..(head + 1) * tokens * STRIDE];
                for block in 0..blocks {
                    let to = To::new(
                        &mut values[head * tokens * width + block * PANEL..],
                        width,
                        true,
                    );
                    let panel = picture.values.block(head, block, strip.clone());
                    product(level, FactorRows::spread(shares), panel, PANEL, to);
                }
            }
            if told > 0 {
                turn(update, strip, turned);
                for block in 0..told_blocks {
                    let to = To::new(&mut seen[block * PANEL..], told_width, true);
                    let panel = &turned[block * DEPTH * PANEL..][..count * PANEL];
                    product(level, FactorRows::spread(scores), panel, PANEL, to);
                }
            }
        }
    });
    let finished = |sums: &[f32], width: usize, kept: usize| {
        let rows = sums.chunks_exact(width.max(1)).zip(&running);
        let rows = rows.flat_map(|(sums, running)| {
            let inverse = 1.0 / running.sum;
            sums[..kept].iter().map(move |sum| sum * inverse)
        });
        rows.collect::<Vec<f32>>()
    };
    Seen {
        values: finished(&values, width, dim),
        told: finished(&seen, told_width, told),
    }
}

/// A softmax over cells of which some have been seen.
#[derive(Clone, Copy)]
struct Running {
    top: f32,
    sum: f32,
    /// What earlier sums are to be multiplied by.
    factor: f32,
}

impl Default for Running {
    fn default() -> Self {
        Self {
            top: f32::NEG_INFINITY,
            sum: 0.0,
            factor: 1.0,
        }
    }
}

simd_dispatch! {
    /// The first values of every row by those of a scale.
    fn scale_rows(rows: &mut [f32], columns: usize, scale: &[f32; PANEL]) {
        for row in rows.chunks_mut(STRIDE) {
            for (value, scale) in row.iter_mut().zip(scale).take(columns) {
                *value *= scale;
            }
        }
    }
}

simd_dispatch! {
    /// `count` scores of every row to exponentials, below the largest value that was seen so far.
    fn soften(scores: &mut [f32], count: usize, running: &mut [Running]) {
        for (row, running) in scores.chunks_exact_mut(STRIDE).zip(running) {
            let row = &mut row[..count];
            let mut lanes = [f32::NEG_INFINITY; PANEL];
            let (chunks, rest) = row.as_chunks::<PANEL>();
            for chunk in chunks {
                for (lane, value) in lanes.iter_mut().zip(chunk) {
                    *lane = if *value > *lane { *value } else { *lane };
                }
            }
            let larger = |a: f32, b: &f32| if *b > a { *b } else { a };
            let top = rest.iter().chain(&lanes).fold(running.top, larger);
            running.factor = math::exp(running.top - top);
            running.top = top;
            let mut sums = [0.0f32; PANEL];
            let (chunks, rest) = row.as_chunks_mut::<PANEL>();
            for chunk in chunks {
                for (sum, value) in sums.iter_mut().zip(chunk) {
                    *value = math::exp(*value - top);
                    *sum += *value;
                }
            }
            let mut sum: f32 = sums.iter().sum();
            for value in rest {
                *value = math::exp(*value - top);
                sum += *value;
            }
            running.sum = running.sum * running.factor + sum;
        }
    }
}

simd_dispatch! {
    fn rescale(sums: &mut [f32], width: usize, running: &[Running]) {
        for (row, running) in sums.chunks_exact_mut(width.max(1)).zip(running) {
            for sum in row {
                *sum *= running.factor;
            }
        }
    }
}

simd_dispatch! {
    fn scale_shares(shares: &[f32], scale: &[f32], scaled: &mut [f32]) {
        for (row, to) in shares.chunks_exact(STRIDE).zip(scaled.chunks_exact_mut(STRIDE)) {
            for ((to, share), scale) in to.iter_mut().zip(row).zip(scale) {
                *to = share * scale;
            }
        }
    }
}

simd_dispatch! {
    /// Shares of what was told, cell by cell: `[row / 16][cell of the strip][row % 16]`.
    fn turn(update: &Update, strip: std::ops::Range<usize>, turned: &mut [f32]) {
        for cell in (strip.start..strip.end).step_by(PANEL) {
            let count = PANEL.min(strip.end - cell);
            let shares = update.shares(cell / PANEL);
            for (block, shares) in shares.chunks(PANEL * PANEL).enumerate() {
                let to = &mut turned[(block * DEPTH + cell - strip.start) * PANEL..];
                for (at, to) in to.chunks_exact_mut(PANEL).take(count).enumerate() {
                    for (to, row) in to.iter_mut().zip(shares.chunks_exact(PANEL)) {
                        *to = row[at];
                    }
                }
            }
        }
    }
}
