//! Parameters of a file.

use std::borrow::Cow;

use super::ledger::Ledger;
use crate::checkpoint::checkpoint;
use crate::error::Result;
use crate::lora::Adapters;
use crate::tensor::Tensor;
use brisk_store::{Dtype, TensorSource, TensorView};

/// Bytes read between two questions whether to go on.
const PART: usize = 64 << 20;

/// Reads from a source, adapts what is read, and records what is wrong.
pub(super) struct Stored<'a> {
    pub source: &'a dyn TensorSource,
    pub adapters: &'a Adapters,
    pub ledger: &'a Ledger,
}

impl Stored<'_> {
    /// The stored type of a tensor; `None` when it is missing or mis-shaped, which is recorded as a type that
    /// no parameter has is.
    pub fn found(&self, path: &str, shape: &[usize]) -> Option<Dtype> {
        self.ledger.used(path);
        let Some((dtype, found)) = self.source.info(path) else {
            self.ledger.missing(path);
            return None;
        };
        if found != shape {
            self.ledger.misshapen(path, found, shape);
            return None;
        }
        if !dtype.is_float() {
            self.ledger.integers(path, dtype);
        }
        Some(dtype)
    }

    /// One tensor, as f32 unless bf16 and f16 are to be kept; `None` when it is missing or mis-shaped,
    /// which is recorded.
    pub fn read(&self, path: &str, shape: &[usize], keep_half: bool) -> Result<Option<Tensor>> {
        let Some(dtype) = self.found(path, shape) else {
            return Ok(None);
        };
        let Some(view) = self.source.view(path)? else {
            self.ledger.missing(path);
            return Ok(None);
        };
        // All-ones exponent bits mean infinity or NaN.
        let exponent = match dtype {
            Dtype::BF16 => Some(0x7f80),
            Dtype::F16 => Some(0x7c00),
            _ => None,
        };
        let changed = self.adapters.change(path);
        if let (true, Some(exponent), false) = (keep_half, exponent, changed) {
            let is_infinite = |b: &[u8; 2]| u16::from_le_bytes(*b) & exponent == exponent;
            for part in view.data.chunks(PART) {
                checkpoint()?;
                if part.as_chunks::<2>().0.iter().any(is_infinite) {
                    self.ledger.non_finite(path);
                    break;
                }
            }
            let tensor = Tensor::from_view(&view)?;
            self.source.forget(path);
            return Ok(Some(tensor));
        }
        let values = widened(&view)?;
        self.source.forget(path);
        if !brisk_kernels::finite::all_finite(&values) {
            self.ledger.non_finite(path);
        }
        let tensor = Tensor::from_vec(values, shape)?;
        self.adapters.apply(path, tensor).map(Some)
    }
}

/// All elements as f32.
fn widened(view: &TensorView) -> Result<Vec<f32>> {
    if view.data.len() <= PART {
        return Ok(view.to_f32()?);
    }
    let size = view.dtype.size();
    let mut values = Vec::with_capacity(view.data.len() / size);
    for part in view.data.chunks(PART / size * size) {
        checkpoint()?;
        let part = TensorView {
            dtype: view.dtype,
            shape: vec![part.len() / size],
            data: Cow::Borrowed(part),
        };
        values.extend(part.to_f32()?);
    }
    Ok(values)
}
