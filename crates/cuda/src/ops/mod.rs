//! What can be done with tensors of a device. Every function checks shapes, chooses blocks and queues
//! kernels; results are new tensors. Operands lie on one device.
//!
//! Maps are `[batch, height, width, channels]`. Unless a function says otherwise its result has the
//! device's element type, operands may have either, and its errors are shapes that do not fit, memory
//! that ran out and what the driver says.

mod attention;
mod cache;
mod copy;
mod depthwise;
mod ends;
mod few_bits;
mod few_rows;
mod linear_attention;
mod low_bit;
mod norm;
mod pictures;
mod pointwise;
mod product;
mod steps;
pub mod tiles;
mod walk;

pub use attention::{Attention, attention, rotary};
pub use cache::{Barred, LargestLogit, largest_logits, write_keys};
pub use copy::{broadcast, cast, concatenate, gather, group_mean, narrow, permute, write_slice};
pub use depthwise::{depthwise, depthwise_gate};
pub use few_bits::{Bits, FewBitsWeight, GroupCodes, few_bits_linear};
pub use linear_attention::{HeadLayout, grouped, linear_attention};
pub use low_bit::{LowBitBranch, LowBitLayer, LowBitWeight, low_bit_linear};
pub use norm::{layer_norm_modulate, rms_norm, rms_norm_pair};
pub use pictures::signed_bytes;
pub(crate) use pointwise::flag_not_finite;
pub use pointwise::{Binary, activation, affine, binary, gated, gated_pair, steps};
pub use product::{ConvWeight, LinearWeight, conv2d, conv2d_by, linear, linear_by, linear_parts};
pub use steps::{Activation, Residual, ShortcutKind, Steps};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// Threads of a block where each has values of its own.
const THREADS: u32 = 256;

/// Blocks of [`THREADS`] for so many.
fn blocks(count: usize) -> [usize; 3] {
    [count.div_ceil(THREADS as usize), 1, 1]
}

/// The address of a vector of f32 with so many values.
fn vector(operation: &str, x: &Tensor, count: usize) -> Result<u64> {
    if x.element() != Element::F32 || x.count() != count {
        let expected = format!("{count} values of f32");
        return Err(Error::shape(operation, x.dims(), &expected));
    }
    Ok(x.address())
}

/// The address of a vector that may be missing: null.
fn optional(operation: &str, x: Option<&Tensor>, count: usize) -> Result<u64> {
    x.map_or(Ok(0), |x| vector(operation, x, count))
}

/// The one device of some tensors.
fn device_of<'a>(operation: &str, tensors: &[&'a Tensor]) -> Result<&'a Device> {
    let first = tensors[0].device();
    match tensors.iter().find(|x| x.device() != first) {
        None => Ok(first),
        Some(other) => Err(Error::Shape(format!(
            "{operation}: one operand lies on card {}, another on card {}",
            first.card().name,
            other.device().card().name
        ))),
    }
}

/// The sides of a map.
fn map_of(operation: &str, x: &Tensor) -> Result<[usize; 4]> {
    <[usize; 4]>::try_from(x.dims())
        .map_err(|_| Error::shape(operation, x.dims(), "[batch, height, width, channels]"))
}

/// That a number fits a kernel's `int`.
fn within(operation: &str, x: &Tensor, numbers: &[usize]) -> Result<()> {
    match numbers
        .iter()
        .all(|number| *number < crate::driver::LARGEST)
    {
        true => Ok(()),
        false => Err(Error::shape(
            operation,
            x.dims(),
            "less than 2^31 rows and channels",
        )),
    }
}
