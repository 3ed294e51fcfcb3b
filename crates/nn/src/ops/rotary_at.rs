//! Rotary position embedding at positions given one by one.

use super::linear::shape_error;
use super::storage::cpu_slice;
use crate::error::Result;
use candle_core::{CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor};

/// Rotary position embedding of `[batch, tokens, heads·dim]`, half-split inside the first
/// `rotary_dim` channels of every head; the others pass. Token `t` of every batch row has position
/// `positions[t]`. Angles are f32, as in the published models.
///
/// # Errors
/// Channels that the heads do not divide, an odd or too large `rotary_dim`, or a number of
/// positions other than the number of tokens.
pub fn rotary_at(
    x: &Tensor,
    heads: usize,
    rotary_dim: usize,
    theta: f32,
    positions: &[usize],
) -> Result<Tensor> {
    let (_, tokens, width) = x
        .dims3()
        .map_err(|_| shape_error("rotary_at", x.dims(), "[batch, tokens, channels]"))?;
    let fits = heads > 0
        && width.is_multiple_of(heads)
        && rotary_dim.is_multiple_of(2)
        && rotary_dim <= width / heads
        && tokens == positions.len();
    if !fits {
        let expected = format!(
            "{} tokens of {heads} heads with at least {rotary_dim} channels (an even number)",
            positions.len()
        );
        return Err(shape_error("rotary_at", x.dims(), &expected));
    }
    let half = rotary_dim / 2;
    let mut angles = Vec::with_capacity(tokens * half);
    for &position in positions {
        for i in 0..half {
            let frequency = 1.0 / theta.powf((2 * i) as f32 / rotary_dim as f32);
            angles.push((position as f32 * frequency).sin_cos());
        }
    }
    let op = RotaryAt {
        width,
        dim: width / heads,
        half,
        angles,
        inverse: false,
    };
    Ok(x.contiguous()?.apply_op1(op)?)
}

#[derive(Clone)]
struct RotaryAt {
    width: usize,
    dim: usize,
    half: usize,
    /// Sine and cosine, `half` pairs a token.
    angles: Vec<(f32, f32)>,
    inverse: bool,
}

impl CustomOp1 for RotaryAt {
    fn name(&self) -> &'static str {
        "rotary_at"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let mut y = cpu_slice(x, layout)?.to_vec();
        if self.half > 0 {
            let tokens = self.angles.chunks_exact(self.half).cycle();
            for (token, angles) in y.chunks_exact_mut(self.width).zip(tokens) {
                for head in token.chunks_exact_mut(self.dim) {
                    let (first, second) = head[..2 * self.half].split_at_mut(self.half);
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
