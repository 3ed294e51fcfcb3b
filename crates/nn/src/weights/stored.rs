//! Parameters of a file.

use super::ledger::Ledger;
use crate::error::Result;
use crate::lora::Adapters;
use crate::tensor::Tensor;
use brisk_store::{Dtype, TensorSource};

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
            let (pairs, _) = view.data.as_chunks::<2>();
            if pairs
                .iter()
                .any(|b| u16::from_le_bytes(*b) & exponent == exponent)
            {
                self.ledger.non_finite(path);
            }
            let tensor = Tensor::from_view(&view)?;
            self.source.forget(path);
            return Ok(Some(tensor));
        }
        let values = view.to_f32()?;
        self.source.forget(path);
        if !brisk_kernels::finite::all_finite(&values) {
            self.ledger.non_finite(path);
        }
        let tensor = Tensor::from_vec(values, shape)?;
        self.adapters.apply(path, tensor).map(Some)
    }
}
