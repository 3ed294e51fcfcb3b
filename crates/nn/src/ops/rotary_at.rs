//! Rotary position embedding at positions given one by one.

use super::linear::shape_error;
use super::storage::cpu_slice;
use crate::error::Result;
use crate::tensor::Tensor;
use candle_core::{
    CpuStorage, CustomOp1, Layout, Result as CandleResult, Shape, Tensor as HostTensor,
};
use std::sync::Arc;

/// Sines and cosines of some positions, computed once for all layers. Angles are f32, as in the
/// published models.
#[derive(Clone, Debug)]
pub struct RotaryAngles {
    tokens: usize,
    half: usize,
    /// Sine and cosine, `half` pairs a token.
    pairs: Arc<[(f32, f32)]>,
}

impl RotaryAngles {
    /// For the first `rotary_dim` channels of a head (an odd one counts as the even one below it);
    /// token `t` has position `positions[t]`.
    pub fn new(rotary_dim: usize, theta: f32, positions: &[usize]) -> Self {
        let half = rotary_dim / 2;
        let frequencies: Vec<f32> = (0..half)
            .map(|i| 1.0 / theta.powf((2 * i) as f32 / rotary_dim as f32))
            .collect();
        let pairs = positions.iter().flat_map(|position| {
            let angles = frequencies.iter();
            angles.map(|frequency| (*position as f32 * frequency).sin_cos())
        });
        Self {
            tokens: positions.len(),
            half,
            pairs: pairs.collect(),
        }
    }

    /// Those of some of the tokens.
    ///
    /// # Panics
    /// When there is no such token.
    pub fn select(&self, tokens: &[u32]) -> Self {
        let pairs = tokens.iter().flat_map(|token| {
            let start = *token as usize * self.half;
            self.pairs[start..start + self.half].iter().copied()
        });
        Self {
            tokens: tokens.len(),
            half: self.half,
            pairs: pairs.collect(),
        }
    }
}

/// Rotary position embedding of `[batch, tokens, heads·dim]`, half-split inside the first channels of
/// every head; the others pass.
///
/// # Errors
/// Channels that the heads do not divide, fewer of them than rotate, or a number of positions other
/// than the number of tokens.
pub fn rotary_at(x: &Tensor, heads: usize, angles: &RotaryAngles) -> Result<Tensor> {
    let (_, tokens, width) = x
        .dims3()
        .map_err(|_| shape_error("rotary_at", x.dims(), "[batch, tokens, channels]"))?;
    let fits = heads > 0
        && width.is_multiple_of(heads)
        && 2 * angles.half <= width / heads
        && tokens == angles.tokens;
    if !fits {
        let expected = format!(
            "{} tokens of {heads} heads with at least {} channels",
            angles.tokens,
            2 * angles.half
        );
        return Err(shape_error("rotary_at", x.dims(), &expected));
    }
    let op = RotaryAt {
        width,
        dim: width / heads,
        angles: angles.clone(),
        inverse: false,
    };
    x.contiguous()?.apply_op1(op)
}

#[derive(Clone)]
struct RotaryAt {
    width: usize,
    dim: usize,
    angles: RotaryAngles,
    inverse: bool,
}

impl CustomOp1 for RotaryAt {
    fn name(&self) -> &'static str {
        "rotary_at"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let mut y = cpu_slice(x, layout)?.to_vec();
        let half = self.angles.half;
        if half > 0 {
            let tokens = self.angles.pairs.chunks_exact(half).cycle();
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

    fn bwd(
        &self,
        _: &HostTensor,
        _: &HostTensor,
        grad: &HostTensor,
    ) -> CandleResult<Option<HostTensor>> {
        let back = Self {
            inverse: !self.inverse,
            ..self.clone()
        };
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&back)?))
    }
}
