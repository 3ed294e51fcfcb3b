//! What follows a product while its rows are still in a cache.

use crate::activation::Activation;
use crate::norm::lane_sum;
use crate::shortcut::Shortcut;
use crate::{math, simd_dispatch};

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
        run(self, first, rows, width);
    }
}

simd_dispatch! {
    fn run(steps: &Epilogue, first: usize, rows: &mut [f32], width: usize) {
        for (index, row) in (first..).zip(rows.chunks_exact_mut(width)) {
            if let Some(bias) = steps.bias {
                for (y, b) in row.iter_mut().zip(&bias[..width]) { *y += b; }
            }
            match steps.activation {
                // Written as a comparison so that NaN passes through.
                Some(Activation::Relu) => for y in row.iter_mut() { *y = if *y < 0.0 { 0.0 } else { *y }; },
                Some(Activation::Silu) => for y in row.iter_mut() { *y = math::silu(*y); },
                Some(Activation::GeluTanh) => for y in row.iter_mut() { *y = math::gelu_tanh(*y); },
                None => {}
            }
            if let Some(norm) = &steps.norm {
                let r = 1.0 / (lane_sum(width, |i| row[i] * row[i]) / width as f32 + norm.eps).sqrt();
                let weight = &norm.weight[..width];
                match norm.bias {
                    Some(bias) => for ((y, w), b) in row.iter_mut().zip(weight).zip(&bias[..width]) { *y = *y * r * w + b; },
                    None => for (y, w) in row.iter_mut().zip(weight) { *y = *y * r * w; },
                }
            }
            if let Some(gate) = &steps.gate {
                let vector = &gate.vectors[index / gate.rows * width..][..width];
                for (y, g) in row.iter_mut().zip(vector) { *y *= g; }
            }
            match &steps.residual {
                Some(Residual::Rows(residual)) => {
                    let residual = &residual[index * width..][..width];
                    for (y, x) in row.iter_mut().zip(residual) { *y += x; }
                }
                Some(Residual::Shortcut(shortcut)) => shortcut.add(index, row),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{assert_close, noise};
    use crate::{activation, norm};

    #[test]
    fn steps_follow_each_other_as_separate_passes_do() {
        for (rows, width) in [(1, 1), (4, 17), (6, 64)] {
            let y = noise(rows * width, 1);
            let (bias, weight) = (noise(width, 2), noise(width, 3));
            let (shift, gates) = (noise(width, 4), noise(2 * width, 5));
            let residual = noise(rows * width, 6);
            for kind in [Activation::Relu, Activation::Silu, Activation::GeluTanh] {
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
                };
                let mut found = y.clone();
                for (row, run) in found.chunks_exact_mut(width).enumerate() {
                    steps.apply(row, run, width);
                }
                assert_close(&found, &want, 1e-6);
            }
        }
        let mut nothing = noise(12, 7);
        Epilogue::default().apply(0, &mut nothing, 4);
        assert_eq!(nothing, noise(12, 7));
    }
}
