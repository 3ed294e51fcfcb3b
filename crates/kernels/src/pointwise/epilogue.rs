//! What follows a product while its rows are still in a cache.

use super::activation::Activation;
use super::math;
use super::norm::lane_sum;
use super::shortcut::Shortcut;
use crate::simd::{prefetch, simd_dispatch};
use std::ops::Range;

/// The steps after a linear map, in this order: bias, activation, RMS norm, gate, addition. Every
/// vector is as long as a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added to every row.
    pub bias: Option<&'a [f32]>,
    /// Applied to every value.
    pub activation: Option<Activation>,
    /// Applied to every row.
    pub norm: Option<Norm<'a>>,
    /// Multiplied with every row.
    pub gate: Option<Gate<'a>>,
    /// Added at the end.
    pub residual: Option<Residual<'a>>,
    /// The row that the first one of a result counts as, for gates and additions.
    pub first_row: usize,
}

/// `x / sqrt(mean(x²) + eps)·weight + bias`.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Factor of every channel.
    pub weight: &'a [f32],
    /// Addend of every channel.
    pub bias: Option<&'a [f32]>,
    /// Added to the mean.
    pub eps: f32,
}

/// One vector a picture.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// `[pictures, channels]`
    pub vectors: &'a [f32],
    /// Rows of a picture.
    pub rows: usize,
}

/// What is added to the result.
#[derive(Clone, Copy, Debug)]
pub enum Residual<'a> {
    /// The same row of another matrix of the result's shape.
    Rows(&'a [f32]),
    /// Values of a map of another size.
    Shortcut(Shortcut<'a>),
}

impl Epilogue<'_> {
    /// Whether there are no steps.
    pub fn is_empty(&self) -> bool {
        self.bias.is_none()
            && self.activation.is_none()
            && self.norm.is_none()
            && self.gate.is_none()
            && self.residual.is_none()
    }

    /// Applies the steps to rows `first..` of a result.
    ///
    /// # Panics
    /// When a vector or the residual is shorter than the rows need.
    pub fn apply(&self, first: usize, rows: &mut [f32], width: usize) {
        whole_rows(self, first, rows, width);
    }

    /// Whether no step needs whole rows.
    pub(crate) fn works_by_columns(&self) -> bool {
        self.norm.is_none() && !matches!(self.residual, Some(Residual::Shortcut(_)))
    }

    /// Applies the steps to some columns of rows from `first` on, which stand `from.1` apart in `from.0`
    /// and go to `to.0`, a place in a result that is `to.1` wide. The steps
    /// [work by columns](Self::works_by_columns).
    ///
    /// # Safety
    /// The result has as many rows from there on as `from`, with these columns, and nobody else uses
    /// them.
    pub(crate) unsafe fn finish_columns(
        &self,
        first: usize,
        columns: Range<usize>,
        from: (&mut [f32], usize),
        to: (*mut f32, usize),
    ) {
        assert!(self.works_by_columns(), "a step needs whole rows");
        some_columns(self, first, &Columns { columns, to }, from.0, from.1);
    }

    /// One row, or columns of it from `column` on.
    #[inline(always)]
    fn one(&self, index: usize, column: usize, row: &mut [f32], width: usize) {
        let index = self.first_row + index;
        let columns = column..column + row.len();
        if let Some(bias) = self.bias {
            for (y, b) in row.iter_mut().zip(&bias[columns.clone()]) {
                *y += b;
            }
        }
        match self.activation {
            // Written as a comparison so that NaN passes through.
            Some(Activation::Relu) => {
                for y in row.iter_mut() {
                    *y = if *y < 0.0 { 0.0 } else { *y };
                }
            }
            Some(Activation::Silu) => {
                for y in row.iter_mut() {
                    *y = math::silu(*y);
                }
            }
            Some(Activation::GeluTanh) => {
                for y in row.iter_mut() {
                    *y = math::gelu_tanh(*y);
                }
            }
            Some(Activation::GeluErf) => {
                for y in row.iter_mut() {
                    *y = math::gelu_erf(*y);
                }
            }
            None => {}
        }
        if let Some(norm) = &self.norm {
            let r = 1.0 / (lane_sum(width, |i| row[i] * row[i]) / width as f32 + norm.eps).sqrt();
            let weight = &norm.weight[..width];
            match norm.bias {
                Some(bias) => {
                    for ((y, w), b) in row.iter_mut().zip(weight).zip(&bias[..width]) {
                        *y = *y * r * w + b;
                    }
                }
                None => {
                    for (y, w) in row.iter_mut().zip(weight) {
                        *y = *y * r * w;
                    }
                }
            }
        }
        if let Some(gate) = &self.gate {
            let vector = &gate.vectors[index / gate.rows * width..][columns.clone()];
            for (y, g) in row.iter_mut().zip(vector) {
                *y *= g;
            }
        }
        match &self.residual {
            Some(Residual::Rows(residual)) => {
                let residual = &residual[index * width..][columns];
                for (y, x) in row.iter_mut().zip(residual) {
                    *y += x;
                }
            }
            Some(Residual::Shortcut(shortcut)) => shortcut.add(index, row),
            None => {}
        }
    }
}

simd_dispatch! {
    fn whole_rows(steps: &Epilogue, first: usize, rows: &mut [f32], width: usize) {
        for (index, row) in (first..).zip(rows.chunks_exact_mut(width)) {
            steps.one(index, 0, row, width);
        }
    }
}

/// Rows whose places are asked for before they are written: columns of rows are no run of memory that a
/// processor would see coming.
const AHEAD: usize = 8;

/// Columns of a result, and where the first row's begin in it, with its width.
struct Columns {
    columns: Range<usize>,
    to: (*mut f32, usize),
}

simd_dispatch! {
    fn some_columns(steps: &Epilogue, first: usize, place: &Columns, from: &mut [f32], stride: usize) {
        let Columns { columns, to: (to, width) } = place;
        for (i, row) in from.chunks_mut(stride).enumerate() {
            let row = &mut row[..columns.len()];
            prefetch::for_writing(to.wrapping_add((i + AHEAD) * width), row.len());
            if let Some(Residual::Rows(residual)) = steps.residual {
                let at = (steps.first_row + first + i + AHEAD) * width + columns.start;
                if let Some(later) = residual.get(at..at + columns.len()) {
                    prefetch::near(later);
                }
            }
            steps.one(first + i, columns.start, row, *width);
            // SAFETY: who made the place promised that it has these rows and columns.
            let to = unsafe { std::slice::from_raw_parts_mut(to.add(i * width), row.len()) };
            to.copy_from_slice(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pointwise::{activation, norm};
    use crate::reference::{assert_close, noise};

    #[test]
    fn steps_follow_each_other_as_separate_passes_do() {
        for (rows, width) in [(1, 1), (4, 17), (6, 64)] {
            let y = noise(rows * width, 1);
            let (bias, weight) = (noise(width, 2), noise(width, 3));
            let (shift, gates) = (noise(width, 4), noise(2 * width, 5));
            let residual = noise(rows * width, 6);
            for kind in [
                Activation::Relu,
                Activation::Silu,
                Activation::GeluTanh,
                Activation::GeluErf,
            ] {
                let biased: Vec<f32> = (0..rows * width).map(|i| y[i] + bias[i % width]).collect();
                let mut active = vec![0.0; rows * width];
                activation::forward(kind, &biased, &mut active);
                let mut want = vec![0.0; rows * width];
                norm::rms_forward(&active, &weight, Some(&shift), 1e-5, &mut want);
                let picture_rows = rows.div_ceil(2);
                for (i, value) in want.iter_mut().enumerate() {
                    let picture = i / width / picture_rows;
                    *value = *value * gates[picture * width + i % width] + residual[i];
                }
                let steps = Epilogue {
                    bias: Some(&bias),
                    activation: Some(kind),
                    norm: Some(Norm {
                        weight: &weight,
                        bias: Some(&shift),
                        eps: 1e-5,
                    }),
                    gate: Some(Gate {
                        vectors: &gates,
                        rows: picture_rows,
                    }),
                    residual: Some(Residual::Rows(&residual)),
                    first_row: 0,
                };
                let mut found = y.clone();
                for (row, run) in found.chunks_exact_mut(width).enumerate() {
                    let later = Epilogue {
                        first_row: row,
                        ..steps
                    };
                    later.apply(0, run, width);
                }
                assert_close(&found, &want, 1e-6);
            }
        }
        let (bias, gates, residual) = (noise(24, 1), noise(48, 2), noise(6 * 24, 3));
        let steps = Epilogue {
            bias: Some(&bias),
            activation: Some(Activation::Silu),
            gate: Some(Gate {
                vectors: &gates,
                rows: 3,
            }),
            residual: Some(Residual::Rows(&residual)),
            ..Epilogue::default()
        };
        let mut want = noise(6 * 24, 4);
        let mut found = vec![f32::NAN; want.len()];
        steps.apply(0, &mut want, 24);
        for (rows, columns) in [(0..6, 0..17), (0..1, 17..24), (1..6, 17..24)] {
            let place = rows.start * 24 + columns.start;
            let mut values = noise(6 * 24, 4)[place..].to_vec();
            values.truncate((rows.len() - 1) * 24 + columns.len());
            // SAFETY: the result has these rows and columns.
            unsafe {
                let to = (found.as_mut_ptr().add(place), 24);
                steps.finish_columns(rows.start, columns, (&mut values, 24), to);
            }
        }
        assert_eq!(found, want);

        let mut nothing = noise(12, 7);
        Epilogue::default().apply(0, &mut nothing, 4);
        assert_eq!(nothing, noise(12, 7));
    }
}
