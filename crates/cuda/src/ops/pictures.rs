//! Pictures as bytes.

use super::{THREADS, blocks};
use crate::driver::Arguments;
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// `(x/2 + ½)·255` within 0..255 and rounded to even, on the host once all that is queued has run; what is no
/// number gives 0.
///
/// # Errors
/// Indices, memory that ran out, and faults of kernels.
pub fn signed_bytes(x: &Tensor) -> Result<Vec<u8>> {
    if !matches!(x.element(), Element::F32 | Element::Bf16) {
        return Err(Error::shape("signed_bytes", x.dims(), "floats"));
    }
    let words = x.count().div_ceil(4);
    let y = x.device().unset(&[words, 4], Element::U8)?;
    let arguments = Arguments::new()
        .structure(&x.array())
        .pointer(y.address())
        .long(x.count());
    // SAFETY: `y` has a word for each four values.
    unsafe {
        x.device().launch(
            ("pictures", "signed_bytes"),
            blocks(words),
            THREADS,
            0,
            &arguments,
        )?
    };
    let mut bytes = y.to_bytes()?;
    bytes.truncate(x.count());
    Ok(bytes)
}
