//! Rotary position embedding at positions given one by one.

use std::sync::Arc;

use super::linear::shape_error;
use super::storage::cpu_slice;
use crate::error::Result;
use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor};

/// Sines and cosines of given positions, for every layer that rotates by them.
#[derive(Clone, Debug)]
pub struct RotaryTable {
    half: usize,
    tokens: usize,
    /// Sine and cosine, `half` pairs a token.
    angles: Arc<Vec<(f32, f32)>>,
}

impl RotaryTable {
    /// Angles of `positions` for `rotary_dim` channels a head. They are f32, as in the published
    /// models.
    ///
    /// # Errors
    /// An odd `rotary_dim`.
    pub fn new(rotary_dim: usize, theta: f32, positions: &[usize]) -> Result<Self> {
        if !rotary_dim.is_multiple_of(2) {
            return Err(crate::Error::Shape(format!(
                "rotary_at: {rotary_dim} channels of a head rotate; expected an even number"
            )));
        }
        let half = rotary_dim / 2;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| 1.0 / theta.powf((2 * i) as f32 / rotary_dim as f32))
            .collect();
        let mut angles = Vec::with_capacity(positions.len() * half);
        for &position in positions {
            let angle = |frequency: &f32| (position as f32 * frequency).sin_cos();
            angles.extend(frequencies.iter().map(angle));
        }
        Ok(Self {
            half,
            tokens: positions.len(),
            angles: Arc::new(angles),
        })
    }

    /// The table of some of its tokens, by index.
    ///
    /// # Errors
    /// A token that the table does not have.
    pub fn select(&self, tokens: &[u32]) -> Result<Self> {
        let mut angles = Vec::with_capacity(tokens.len() * self.half);
        for &token in tokens {
            let from = token as usize * self.half;
            let Some(row) = self.angles.get(from..from + self.half) else {
                return Err(crate::Error::Shape(format!(
                    "rotary_at: token {token} of a table of {}",
                    self.tokens
                )));
            };
            angles.extend_from_slice(row);
        }
        Ok(Self {
            half: self.half,
            tokens: tokens.len(),
            angles: Arc::new(angles),
        })
    }
}

/// Rotary position embedding of `[batch, tokens, heads·dim]`, half-split inside the first
/// `rotary_dim` channels of every head; the others pass. Token `t` of every batch row has the
/// `t`-th position of the table.
///
/// # Errors
/// Channels that the heads do not divide, heads of fewer channels than rotate, or a number of
/// positions other than the number of tokens.
pub fn rotary_at(x: &Tensor, heads: usize, table: &RotaryTable) -> Result<Tensor> {
    let (_, tokens, width) = x
        .dims3()
        .map_err(|_| shape_error("rotary_at", x.dims(), "[batch, tokens, channels]"))?;
    let fits = heads > 0
        && width.is_multiple_of(heads)
        && 2 * table.half <= width / heads
        && tokens == table.tokens;
    if !fits {
        let expected = format!(
            "{} tokens of {heads} heads with at least {} channels",
            table.tokens,
            2 * table.half
        );
        return Err(shape_error("rotary_at", x.dims(), &expected));
    }
    let op = RotaryAt {
        width,
        dim: width / heads,
        table: table.clone(),
        inverse: false,
    };
    Ok(x.contiguous()?.apply_op1(op)?)
}

#[derive(Clone)]
struct RotaryAt {
    width: usize,
    dim: usize,
    table: RotaryTable,
    inverse: bool,
}

impl CustomOp1 for RotaryAt {
    fn name(&self) -> &'static str {
        "rotary_at"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let mut y = cpu_slice(x, layout)?.to_vec();
        let half = self.table.half;
        if half > 0 {
            let tokens = self.table.angles.chunks_exact(half).cycle();
            for (token, angles) in y.chunks_exact_mut(self.width).zip(tokens) {
                for head in token.chunks_exact_mut(self.dim) {
                    let (first, second) = head[..2 * half].split_at_mut(half);
                    for ((a, b), &(sine, cosine)) in first.iter_mut().zip(second).zip(angles) {
                        let sine = if self.inverse { -sine } else { sine };
                        (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
                    }
                }
            }
        }
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> CandleResult<Option<Tensor>> {
        let back = Self {
            inverse: !self.inverse,
            ..self.clone()
        };
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&back)?))
    }
}
