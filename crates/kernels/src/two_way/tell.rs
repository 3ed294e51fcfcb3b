//! Cells look at tokens, take what these tell them, and are normalised.

use super::layout::{Across, Factor, To, by_head, product};
use super::{PANEL, Update};
use crate::gemm::microkernel::tile_shape;
use crate::pointwise::math;
use crate::scratch::with_buffer;
use crate::simd::{self, Level, simd_dispatch};

/// What a layer makes of the shared cells, without biases. *Centred* cells are less their mean.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Queries, `heads·dim` channels.
    pub queries: &'a Across,
    /// Queries of the cells' positions, where `queries` do not have them.
    pub positions: Option<&'a Across>,
    /// Squared lengths of the centred cells.
    pub norms: &'a [f32],
    /// Products of the centred cells with what each layer up to this one tells.
    pub crossed: &'a [Crossed],
}

/// Products of the centred shared cells with what a layer tells.
#[derive(Clone, Debug)]
pub struct Crossed {
    /// With the projection of values, `heads·dim` channels.
    pub projection: Across,
    /// With what every cell is told, of each cell.
    pub constant: Vec<f32>,
}

/// What the tokens of a prompt tell.
#[derive(Clone, Copy, Debug)]
pub struct Telling<'a> {
    /// Heads.
    pub heads: usize,
    /// How many tokens.
    pub tokens: usize,
    /// Keys `[heads, tokens, dim]`, scaled.
    pub keys: &'a [f32],
    /// Products of each with the queries of all that was told before, `[heads·tokens, rows]`.
    pub told: &'a [f32],
    /// Products of each with what all queries have in common, `[heads·tokens]`.
    pub constants: &'a [f32],
    /// Values `[heads, tokens, dim]` of this layer, after those of the earlier ones.
    pub values: &'a [&'a [f32]],
    /// Products of all centred rows that were told, those of this layer last, `[rows, rows]`.
    pub gram: &'a [f32],
    /// Channels of a cell.
    pub width: usize,
    /// What is added to a variance.
    pub eps: f32,
}

/// Attention of a prompt's cells over its tokens, the sum with the cells, and its layer norm without gain and bias.
/// What every cell is told belongs to the first head, of which shares add up to one like those of the others.
///
/// # Panics
/// When sizes do not fit.
pub fn tell(picture: Told, prompt: Telling, update: &mut Update) {
    let level = simd::level();
    let Telling { heads, tokens, .. } = prompt;
    let added = heads * tokens;
    let (before, rows) = (update.rows, update.rows + added);
    let dim = picture.queries.channels() / heads;
    assert!(
        prompt.keys.len() == added * dim
            && prompt.told.len() == added * before
            && prompt.constants.len() == added
            && prompt.values.len() * added == rows
            && prompt.values.len() == picture.crossed.len()
            && prompt.gram.len() == rows * rows
            && picture.queries.cells() == update.cells
            && picture.norms.len() == update.cells
            && rows <= update.most,
        "{tokens} tokens of {heads} heads of {dim} tell {} cells that were told {before} rows of {}",
        update.cells,
        update.most
    );
    let keys = Factor::new(prompt.keys, dim);
    let told = Factor::new(prompt.told, before);
    let values: Vec<Factor> = prompt
        .values
        .iter()
        .map(|values| Factor::new(values, dim))
        .collect();
    let gram = Quadratic::new(level, prompt.gram, rows);
    let shape = [heads, tokens, dim];
    let inverse_width = 1.0 / prompt.width as f32;
    with_buffer(rows * PANEL, |buffer| {
        for panel in 0..update.cells.div_ceil(PANEL) {
            let mut scale = *update.scale(panel);
            let at = panel * update.most * PANEL;
            let shares = &mut update.shares[at..at + rows * PANEL];
            let (earlier, new) = shares.split_at_mut(before * PANEL);
            by_head(
                level,
                &keys,
                picture.queries.panel(panel),
                shape,
                (PANEL, To::new(new, PANEL, false)),
            );
            if before > 0 {
                scale_all(new, &scale);
                product(level, told.all(), earlier, PANEL, To::new(new, PANEL, true));
            }
            if let Some(positions) = picture.positions {
                by_head(
                    level,
                    &keys,
                    positions.panel(panel),
                    shape,
                    (PANEL, To::new(new, PANEL, true)),
                );
            }
            soften(new, tokens, prompt.constants);

            let mut crossed = [0.0f32; PANEL];
            for (layer, (of, values)) in picture.crossed.iter().zip(&values).enumerate() {
                let products = &mut buffer[..added * PANEL];
                let out = To::new(products, PANEL, false);
                by_head(
                    level,
                    values,
                    of.projection.panel(panel),
                    shape,
                    (PANEL, out),
                );
                let shares = &shares[layer * added * PANEL..][..added * PANEL];
                let first = panel * PANEL;
                let constant = &of.constant[first..update.cells.min(first + PANEL)];
                add_crossed(shares, products, (tokens, constant), &mut crossed);
            }
            gram.product(level, shares, buffer);
            let mut norms = [0.0f32; PANEL];
            let known = &picture.norms[panel * PANEL..];
            for (norm, known) in norms.iter_mut().zip(known) {
                *norm = *known;
            }
            let sums = (&norms, &crossed, &*buffer);
            normalise(shares, sums, (inverse_width, prompt.eps), &mut scale);
            update.scale[panel * PANEL..][..PANEL].copy_from_slice(&scale);
        }
    });
    update.rows = rows;
}

/// A quadratic form, of which the half below the diagonal counts twice and the other not.
struct Quadratic {
    lower: Factor,
    rows: usize,
    /// Rows that are taken together.
    block: usize,
}

impl Quadratic {
    fn new(level: Level, gram: &[f32], rows: usize) -> Self {
        let mut lower = gram.to_vec();
        for (i, row) in lower.chunks_exact_mut(rows).enumerate() {
            row[..i].iter_mut().for_each(|value| *value *= 2.0);
            row[i + 1..].fill(0.0);
        }
        Self {
            lower: Factor::new(&lower, rows),
            rows,
            block: tile_shape(level).0,
        }
    }

    /// The form's product with shares `[rows, 16]`.
    fn product(&self, level: Level, shares: &[f32], out: &mut [f32]) {
        for first in (0..self.rows).step_by(self.block) {
            let end = (first + self.block).min(self.rows);
            let rows = self.lower.rows(first..end, end);
            let to = To::new(&mut out[first * PANEL..], PANEL, false);
            product(level, rows, &shares[..end * PANEL], PANEL, to);
        }
    }
}

simd_dispatch! {
    fn scale_all(rows: &mut [f32], scale: &[f32; PANEL]) {
        for row in rows.as_chunks_mut::<PANEL>().0 {
            for (value, scale) in row.iter_mut().zip(scale) {
                *value *= scale;
            }
        }
    }
}

simd_dispatch! {
    /// Scores `[heads, tokens, 16]` and constants of them to shares over tokens.
    fn soften(scores: &mut [f32], tokens: usize, constants: &[f32]) {
        let heads = scores.as_chunks_mut::<PANEL>().0.chunks_exact_mut(tokens);
        for (scores, constants) in heads.zip(constants.chunks_exact(tokens)) {
            let mut top = [f32::NEG_INFINITY; PANEL];
            for (row, constant) in scores.iter_mut().zip(constants) {
                for (value, top) in row.iter_mut().zip(&mut top) {
                    *value += constant;
                    *top = if *value > *top { *value } else { *top };
                }
            }
            let mut sum = [0.0f32; PANEL];
            for row in scores.iter_mut() {
                for ((value, top), sum) in row.iter_mut().zip(&top).zip(&mut sum) {
                    *value = math::exp(*value - top);
                    *sum += *value;
                }
            }
            let inverse = sum.map(|sum| 1.0 / sum);
            for row in scores {
                for (value, inverse) in row.iter_mut().zip(&inverse) {
                    *value *= inverse;
                }
            }
        }
    }
}

simd_dispatch! {
    /// Adds products by their shares, and those of the first head by what every cell is told.
    fn add_crossed(shares: &[f32], products: &[f32], first: (usize, &[f32]), sum: &mut [f32; PANEL]) {
        let (tokens, known) = first;
        let mut constant = [0.0f32; PANEL];
        constant[..known.len()].copy_from_slice(known);
        let shares = shares.as_chunks::<PANEL>().0;
        for (shares, products) in shares.iter().zip(products.as_chunks::<PANEL>().0) {
            for ((sum, share), product) in sum.iter_mut().zip(shares).zip(products) {
                *sum += share * product;
            }
        }
        for shares in &shares[..tokens] {
            for ((sum, share), constant) in sum.iter_mut().zip(shares).zip(&constant) {
                *sum += share * constant;
            }
        }
    }
}

simd_dispatch! {
    /// Divides shares and scale by the deviation that follows from squared lengths, crossed products and the quadratic
    /// form's product with the shares.
    fn normalise(
        shares: &mut [f32],
        sums: (&[f32; PANEL], &[f32; PANEL], &[f32]),
        variance: (f32, f32),
        scale: &mut [f32; PANEL],
    ) {
        let (norms, crossed, products) = sums;
        let (inverse_width, eps) = variance;
        let shares = shares.as_chunks_mut::<PANEL>().0;
        let mut sum = [0.0f32; PANEL];
        for (shares, products) in shares.iter().zip(products.as_chunks::<PANEL>().0) {
            for ((sum, share), product) in sum.iter_mut().zip(shares).zip(products) {
                *sum += share * product;
            }
        }
        let mut inverse = [0.0f32; PANEL];
        for i in 0..PANEL {
            let length = scale[i] * (scale[i] * norms[i] + 2.0 * crossed[i]) + sum[i];
            // Of a cell that is all its mean, rounding may leave less than nothing.
            let length = if length < 0.0 { 0.0 } else { length };
            inverse[i] = 1.0 / (length * inverse_width + eps).sqrt();
            scale[i] *= inverse[i];
        }
        for row in shares {
            for (share, inverse) in row.iter_mut().zip(&inverse) {
                *share *= inverse;
            }
        }
    }
}
