//! Where layers with 4-bit weights come from.

use crate::error::Result;
use brisk_kernels::int4::Int4Weight;

/// A file, or whatever else holds linear layers in 4 bits, beside the tensors that are stored plainly.
pub trait LowBitSource: Send + Sync {
    /// The linear layers called `paths` in the plain model, which share their input, where they are held
    /// as one; mostly a single one. None where they are not quantized, or not held so.
    ///
    /// # Errors
    /// A layer that cannot be read, or of another size.
    fn layers(
        &self,
        paths: &[String],
        inputs: usize,
        outputs: &[usize],
    ) -> Result<Option<Int4Weight>>;

    /// Names of all layers that it holds.
    fn names(&self) -> Vec<String>;
}
