//! Probabilities from scores of several heads that lie side by side.

use brisk_kernels::logits as kernel;

use super::linear::shape_error;
use super::storage::{tensor, with_slices};
use crate::error::Result;
use crate::tensor::Tensor;

/// Scores `[.., keys·heads]`, the heads of a key side by side, to probabilities over the keys of each head. Not
/// differentiable.
///
/// # Errors
/// Scores that no such heads have, or that a gradient is asked of.
pub fn softmax_by_head(scores: &Tensor, heads: usize) -> Result<Tensor> {
    let dims = scores.dims().to_vec();
    let row = dims.last().copied().unwrap_or(0);
    let fits = (1..=kernel::MOST_HEADS).contains(&heads) && row > 0 && row.is_multiple_of(heads);
    if !fits || scores.track_op() {
        let expected = format!(
            "[.., keys·{heads}] of at most {} heads, frozen",
            kernel::MOST_HEADS
        );
        return Err(shape_error("softmax_by_head", &dims, &expected));
    }
    with_slices!([scores], {
        let mut shares = scores.to_vec();
        kernel::softmax_by_head(&mut shares, row / heads, heads);
        Ok(tensor(shares, &dims)?)
    })
}
