//! Numbers that scores get by where query and key stand.

use crate::simd::simd_dispatch;
use std::ops::Range;

/// What is added to scores.
#[derive(Clone, Copy, Debug)]
pub(super) enum Added<'a> {
    /// By distances on a grid, each query its own.
    Grid(&'a RelativePositions<'a>),
    /// A table `[heads, queries, keys]`.
    Table {
        values: &'a [f32],
        queries: usize,
        keys: usize,
    },
}

impl Added<'_> {
    /// Adds to the scores of one query and head, of `heads`, for the keys from `first` on.
    pub fn add(&self, query: usize, head: Range<usize>, first: usize, scores: &mut [f32]) {
        match *self {
            Self::Grid(positions) => positions.add(query, head, first, scores),
            Self::Table {
                values,
                queries,
                keys,
            } => {
                let row = &values[(head.start * queries + query) * keys..][..keys];
                add_row(scores, &row[first..]);
            }
        }
    }
}

/// Positions of queries and keys on one grid, row by row, and what is added to a query's scores for each
/// distance: `rows[k − i] + columns[l − j]` for query (i, j) and key (k, l).
#[derive(Clone, Copy, Debug)]
pub struct RelativePositions<'a> {
    /// Rows of the grid.
    pub height: usize,
    /// Its columns.
    pub width: usize,
    /// `[queries, heads, 2·height − 1]`, keys furthest above first.
    pub rows: &'a [f32],
    /// `[queries, heads, 2·width − 1]`, keys furthest to the left first.
    pub columns: &'a [f32],
}

impl<'a> RelativePositions<'a> {
    /// Queries and keys.
    pub fn places(&self) -> usize {
        self.height * self.width
    }

    pub(super) fn check(&self, queries: usize, heads: usize, keys: usize) {
        let places = self.places();
        assert!(
            places > 0 && queries == places && keys == places,
            "{queries} queries and {keys} keys on a grid of {}x{}",
            self.height,
            self.width
        );
        let sizes = [self.height, self.width].map(|side| places * heads * (2 * side - 1));
        assert_eq!(
            [self.rows.len(), self.columns.len()],
            sizes,
            "relative positions of {heads} heads on a grid of {}x{}",
            self.height,
            self.width
        );
    }

    /// Adds to the scores of one query and head, of `heads`, for the keys from `first` on.
    pub(super) fn add(&self, query: usize, head: Range<usize>, first: usize, scores: &mut [f32]) {
        let (row, column) = (query / self.width, query % self.width);
        let index = query * head.end + head.start;
        let part = |values: &'a [f32], side: usize, at: usize| {
            &values[index * (2 * side - 1) + side - 1 - at..][..side]
        };
        let rows = part(self.rows, self.height, row);
        let columns = part(self.columns, self.width, column);
        add(scores, rows, columns, first);
    }
}

simd_dispatch! {
    fn add(scores: &mut [f32], rows: &[f32], columns: &[f32], first: usize) {
        let width = columns.len();
        let (mut row, mut column) = (first / width, first % width);
        let mut left = scores;
        while !left.is_empty() {
            let (run, rest) = left.split_at_mut((width - column).min(left.len()));
            let of_row = rows[row];
            for (score, of_column) in run.iter_mut().zip(&columns[column..]) {
                *score += of_row + of_column;
            }
            (row, column, left) = (row + 1, 0, rest);
        }
    }
}

simd_dispatch! {
    fn add_row(scores: &mut [f32], row: &[f32]) {
        for (score, value) in scores.iter_mut().zip(row) {
            *score += *value;
        }
    }
}
