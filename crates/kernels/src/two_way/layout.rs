//! Cells side by side, so that one instruction serves several, and products with them.

use crate::gemm::layout::{PANEL, STRIDE, Target};
use crate::gemm::microkernel::{tile, tile_shape};
use crate::simd::Level;
use rayon::prelude::*;
use std::ops::Range;

/// Channels of cells, 16 cells side by side: channel i of cell c at `[c / 16][i][c % 16]`. Cells that fill the last
/// ones up are zero.
#[derive(Clone, Debug)]
pub struct Across {
    values: Vec<f32>,
    channels: usize,
    cells: usize,
}

impl Across {
    /// From `[cells, channels]`.
    ///
    /// # Panics
    /// When these are not whole cells.
    pub fn new(rows: &[f32], channels: usize) -> Self {
        assert!(rows.len().is_multiple_of(channels), "cells of {channels}");
        let cells = rows.len() / channels;
        let mut values = vec![0.0; cells.div_ceil(PANEL) * channels * PANEL];
        let panels = values.par_chunks_exact_mut(channels * PANEL);
        panels
            .zip(rows.par_chunks(channels * PANEL))
            .for_each(|(panel, rows)| {
                for (cell, row) in rows.chunks_exact(channels).enumerate() {
                    for (panel, value) in panel.chunks_exact_mut(PANEL).zip(row) {
                        panel[cell] = *value;
                    }
                }
            });
        Self {
            values,
            channels,
            cells,
        }
    }

    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    pub(super) fn cells(&self) -> usize {
        self.cells
    }

    /// `[channels, 16]` of the 16 cells of this number.
    pub(super) fn panel(&self, index: usize) -> &[f32] {
        &self.values[index * self.channels * PANEL..][..self.channels * PANEL]
    }
}

/// Channels of cells head by head, 16 channels side by side: `[head][channel / 16][cell][channel % 16]`. Channels that
/// fill the last ones of a head up are zero.
#[derive(Clone, Debug)]
pub struct Along {
    values: Vec<f32>,
    heads: usize,
    dim: usize,
    cells: usize,
}

impl Along {
    /// From `[cells, heads·dim]`.
    ///
    /// # Panics
    /// When these are not whole cells.
    pub fn new(rows: &[f32], heads: usize, dim: usize) -> Self {
        let channels = heads * dim;
        assert!(rows.len().is_multiple_of(channels), "cells of {channels}");
        let (cells, blocks) = (rows.len() / channels, dim.div_ceil(PANEL));
        let mut values = vec![0.0; heads * blocks * cells * PANEL];
        for (cell, row) in rows.chunks_exact(channels).enumerate() {
            for (head, row) in row.chunks_exact(dim).enumerate() {
                for (block, row) in row.chunks(PANEL).enumerate() {
                    let at = ((head * blocks + block) * cells + cell) * PANEL;
                    values[at..at + row.len()].copy_from_slice(row);
                }
            }
        }
        Self {
            values,
            heads,
            dim,
            cells,
        }
    }

    pub(super) fn heads(&self) -> usize {
        self.heads
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    pub(super) fn cells(&self) -> usize {
        self.cells
    }

    /// `[cells, 16]` of some channels of a head.
    pub(super) fn block(&self, head: usize, block: usize, cells: Range<usize>) -> &[f32] {
        let first = (head * self.dim.div_ceil(PANEL) + block) * self.cells;
        &self.values[(first + cells.start) * PANEL..(first + cells.end) * PANEL]
    }
}

/// A matrix as the first factor of a [`product`].
pub(super) struct Factor {
    /// Rows `STRIDE` apart.
    values: Vec<f32>,
    rows: usize,
    columns: usize,
}

impl Factor {
    /// From `[rows, columns]`.
    pub fn new(matrix: &[f32], columns: usize) -> Self {
        assert!(columns <= STRIDE, "a factor of {columns} columns");
        let rows = matrix.len().checked_div(columns).unwrap_or(0);
        let mut values = vec![0.0; rows * STRIDE];
        if columns > 0 {
            let spread = values.chunks_exact_mut(STRIDE);
            for (to, from) in spread.zip(matrix.chunks_exact(columns)) {
                to[..columns].copy_from_slice(from);
            }
        }
        Self {
            values,
            rows,
            columns,
        }
    }

    pub fn rows(&self, range: Range<usize>, columns: usize) -> FactorRows<'_> {
        assert!(range.end <= self.rows && columns <= self.columns);
        FactorRows {
            values: &self.values[range.start * STRIDE..range.end * STRIDE],
            rows: range.len(),
        }
    }

    pub fn all(&self) -> FactorRows<'_> {
        self.rows(0..self.rows, self.columns)
    }
}

/// Some rows of a factor, `STRIDE` apart.
#[derive(Clone, Copy)]
pub(super) struct FactorRows<'a> {
    values: &'a [f32],
    rows: usize,
}

impl<'a> FactorRows<'a> {
    /// Of values that lie so already.
    pub fn spread(values: &'a [f32]) -> Self {
        let rows = values.len() / STRIDE;
        Self { values, rows }
    }
}

/// Where a product goes: rows `stride` apart, written or added.
pub(super) struct To<'a> {
    pub out: &'a mut [f32],
    pub stride: usize,
    pub add: bool,
}

impl<'a> To<'a> {
    pub fn new(out: &'a mut [f32], stride: usize, add: bool) -> Self {
        Self { out, stride, add }
    }
}

/// `out[i, j] (+)= Σ_k a[i, k]·panel[k, j]` for the first `columns` of 16; as many k as the panel has.
pub(super) fn product(level: Level, a: FactorRows, panel: &[f32], columns: usize, to: To) {
    let (rows, depth, stride) = (a.rows, panel.len() / PANEL, to.stride);
    if rows == 0 {
        return;
    }
    assert!(
        depth <= STRIDE && columns <= PANEL && to.out.len() >= (rows - 1) * stride + columns,
        "a product of {rows} rows of {depth} to {} values {stride} apart",
        to.out.len()
    );
    let most = tile_shape(level).0;
    for first in (0..rows).step_by(most) {
        let count = most.min(rows - first);
        let target = Target {
            out: to.out[first * stride..].as_mut_ptr(),
            stride,
            accumulate: to.add,
        };
        let a = a.values[first * STRIDE..].as_ptr();
        // SAFETY: a factor has `rows` rows that are `STRIDE` long, the panel `depth` rows of 16, and the assertion
        // left room for the result, which is borrowed mutably.
        unsafe { tile(level, count, depth, a, (&[panel], 0), columns, target) };
    }
}

/// Products of every head's rows `[heads·tokens, dim]` with its channels of 16 cells, `columns` of them.
pub(super) fn by_head(
    level: Level,
    rows: &Factor,
    channels: &[f32],
    [heads, tokens, dim]: [usize; 3],
    (columns, to): (usize, To),
) {
    for (head, channels) in channels.chunks_exact(dim * PANEL).enumerate().take(heads) {
        let first = head * tokens;
        let to = To {
            out: &mut to.out[first * to.stride..],
            ..to
        };
        product(
            level,
            rows.rows(first..first + tokens, dim),
            channels,
            columns,
            to,
        );
    }
}
