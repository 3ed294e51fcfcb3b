//! Parameters of a file.

use std::borrow::Cow;

use half::{bf16, f16};

use super::ledger::Ledger;
use crate::checkpoint::checkpoint;
use crate::error::Result;
use crate::lora::Adapters;
use crate::tensor::{DType, Tensor, WithDType};
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
        let keep_half = keep_half && !self.adapters.change(path);
        let read = match dtype {
            Dtype::BF16 if keep_half => halves(&view, bf16::from_bits, 0x7f80),
            Dtype::F16 if keep_half => halves(&view, f16::from_bits, 0x7c00),
            _ => widened(&view).and_then(|values| {
                let finite = brisk_kernels::finite::all_finite(&values);
                Ok((Tensor::from_vec(values, shape)?, finite))
            }),
        };
        // What was read is not needed any more, nor what was of one that was stopped.
        self.source.forget(path);
        let (tensor, finite) = read?;
        if !finite {
            self.ledger.non_finite(path);
        }
        match keep_half && tensor.dtype() != DType::F32 {
            true => Ok(Some(tensor)),
            false => self.adapters.apply(path, tensor).map(Some),
        }
    }
}

/// All elements as they are stored, and whether all are finite: infinity and NaN have every bit of the exponent.
fn halves<T: WithDType>(
    view: &TensorView,
    of_bits: impl Fn(u16) -> T,
    exponent: u16,
) -> Result<(Tensor, bool)> {
    view.elements()?;
    let mut values = Vec::with_capacity(view.data.len() / 2);
    let mut finite = true;
    for part in view.data.chunks(PART) {
        checkpoint()?;
        let bits = part.as_chunks::<2>().0.iter();
        let bits = bits.map(|bytes| u16::from_le_bytes(*bytes));
        finite = finite && !bits.clone().any(|bits| bits & exponent == exponent);
        values.extend(bits.map(&of_bits));
    }
    Ok((Tensor::from_vec(values, view.shape.as_slice())?, finite))
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
