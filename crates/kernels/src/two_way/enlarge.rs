//! Cells to masks of four times the sides: two transposed convolutions of two by two, a norm and GELU behind the first,
//! GELU behind the second, and products with each mask's factors.

use super::layout::{Across, Factor, To, product};
use super::{PANEL, Update};
use crate::pointwise::math;
use crate::scratch::with_buffer;
use crate::simd::{self, simd_dispatch};

/// Positions of a square of two by two.
const SQUARE: usize = 4;

/// What all prompts of a picture share. Outputs of convolutions are ordered `[row, column, channel]`.
#[derive(Clone, Copy, Debug)]
pub struct Enlarged<'a> {
    /// The first convolution of the shared cells, without bias, `4·middle` channels.
    pub first: &'a Across,
    /// What it adds to every cell, `[4·middle]`.
    pub constant: &'a [f32],
    /// Gain and bias of the norm, `[middle]` each, and what it adds to a variance.
    pub norm: (&'a [f32], &'a [f32], f32),
    /// The second convolution `[4·inner, middle]` and its bias `[4·inner]`.
    pub second: (&'a [f32], &'a [f32]),
    /// Height and width of the map of cells.
    pub size: [usize; 2],
}

/// What a prompt brings.
#[derive(Clone, Copy, Debug)]
pub struct Factors<'a> {
    /// The first convolution of all that was told, `[4·middle, rows]`.
    pub told: &'a [f32],
    /// Of each mask `[masks, inner]`.
    pub masks: &'a [f32],
}

/// Logits `[masks, 4·height, 4·width]` of a prompt.
///
/// # Panics
/// When sizes do not fit.
pub fn enlarge(picture: Enlarged, prompt: Factors, update: &Update, logits: &mut [f32]) {
    let level = simd::level();
    let (wide, [height, width]) = (picture.first.channels(), picture.size);
    let (middle, inner) = (wide / SQUARE, picture.second.1.len() / SQUARE);
    let masks = prompt.masks.len() / inner;
    assert!(
        height * width == update.cells
            && picture.first.cells() == update.cells
            && picture.constant.len() == wide
            && picture.norm.0.len() == middle
            && picture.norm.1.len() == middle
            && picture.second.0.len() == SQUARE * inner * middle
            && prompt.told.len() == wide * update.rows
            && logits.len() == masks * 16 * update.cells,
        "{masks} masks of {wide} channels of {} cells of a map of {height}x{width}",
        update.cells
    );
    let told = Factor::new(prompt.told, update.rows);
    let second = Factor::new(picture.second.0, middle);
    let factors = Factor::new(prompt.masks, inner);
    let side = 4 * width;
    let second_len = SQUARE * inner * PANEL;
    with_buffer(wide * PANEL + second_len + masks * PANEL, |buffer| {
        let (first_map, buffer) = buffer.split_at_mut(wide * PANEL);
        let (second_map, found) = buffer.split_at_mut(second_len);
        for panel in 0..update.cells.div_ceil(PANEL) {
            let scale = update.scale(panel);
            scaled(
                picture.first.panel(panel),
                scale,
                picture.constant,
                first_map,
            );
            let to = To::new(first_map, PANEL, true);
            product(level, told.all(), update.shares(panel), PANEL, to);
            let columns = PANEL.min(update.cells - panel * PANEL);
            for (at, map) in first_map.chunks_exact_mut(middle * PANEL).enumerate() {
                normalise(map, picture.norm.0, picture.norm.1, picture.norm.2);
                let to = To::new(second_map, PANEL, false);
                product(level, second.all(), map, PANEL, to);
                activate(second_map, picture.second.1);
                for (inner_at, map) in second_map.chunks_exact(inner * PANEL).enumerate() {
                    let to = To::new(found, PANEL, false);
                    product(level, factors.all(), map, PANEL, to);
                    let row_in = 2 * (at / 2) + inner_at / 2;
                    let column_in = 2 * (at % 2) + inner_at % 2;
                    let masks = logits.chunks_exact_mut(16 * update.cells);
                    for (mask, found) in masks.zip(found.chunks_exact(PANEL)) {
                        for (cell, value) in (panel * PANEL..).zip(&found[..columns]) {
                            let (row, column) = (cell / width, cell % width);
                            mask[(4 * row + row_in) * side + 4 * column + column_in] = *value;
                        }
                    }
                }
            }
        }
    });
}

simd_dispatch! {
    /// `out = scale·map + constant` for channels of 16 cells.
    fn scaled(map: &[f32], scale: &[f32; PANEL], constant: &[f32], out: &mut [f32]) {
        let rows = map.as_chunks::<PANEL>().0.iter().zip(out.as_chunks_mut::<PANEL>().0);
        for ((row, out), constant) in rows.zip(constant) {
            for ((out, value), scale) in out.iter_mut().zip(row).zip(scale) {
                *out = value * scale + constant;
            }
        }
    }
}

simd_dispatch! {
    /// Layer norm over the channels of 16 cells, then GELU.
    fn normalise(map: &mut [f32], gain: &[f32], bias: &[f32], eps: f32) {
        let map = map.as_chunks_mut::<PANEL>().0;
        let inverse_count = 1.0 / map.len() as f32;
        let mut mean = [0.0f32; PANEL];
        for row in map.iter() {
            for (mean, value) in mean.iter_mut().zip(row) {
                *mean += value;
            }
        }
        let mean = mean.map(|sum| sum * inverse_count);
        let mut variance = [0.0f32; PANEL];
        for row in map.iter() {
            for ((variance, value), mean) in variance.iter_mut().zip(row).zip(&mean) {
                *variance += (value - mean) * (value - mean);
            }
        }
        let inverse = variance.map(|sum| 1.0 / (sum * inverse_count + eps).sqrt());
        for ((row, gain), bias) in map.iter_mut().zip(gain).zip(bias) {
            for ((value, mean), inverse) in row.iter_mut().zip(&mean).zip(&inverse) {
                *value = math::gelu_erf((*value - mean) * inverse * gain + bias);
            }
        }
    }
}

simd_dispatch! {
    /// Adds a bias to the channels of 16 cells, then GELU.
    fn activate(map: &mut [f32], bias: &[f32]) {
        for (row, bias) in map.as_chunks_mut::<PANEL>().0.iter_mut().zip(bias) {
            for value in row {
                *value = math::gelu_erf(*value + bias);
            }
        }
    }
}
