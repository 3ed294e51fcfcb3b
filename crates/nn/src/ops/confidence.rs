//! What decoding asks of logits, where they lie on a card.

use brisk_cuda::ops::{self, Barred, LargestLogit};

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// For every row of `logits` `[rows, tokens]` on a card: the first of its largest, and the sum of exponentials that
/// softmax divides by, in f64; tokens `barred` are passed over. None where logits lie on the host.
///
/// # Errors
/// What went wrong on the card, and values that were not finite there.
pub fn largest_logits(
    logits: &Tensor,
    barred: &[(u32, Barred)],
) -> Result<Option<Vec<LargestLogit>>> {
    let Some(logits) = logits.device() else {
        return Ok(None);
    };
    let found = ops::largest_logits(logits.tensor(), barred)?;
    if let Some((stage, layer)) = logits.device().first_not_finite()? {
        return Err(Error::NonFinite { stage, layer });
    }
    Ok(Some(found))
}
