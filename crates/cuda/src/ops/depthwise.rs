//! A filter a channel.

use super::{THREADS, blocks, device_of, map_of, optional, vector, within};
use crate::driver::{Arguments, Structure};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Convolution of `x` with `w` `[side·side, channels]` (in any shape of as many f32 values), side odd, zeros
/// around; the size stays.
///
/// # Errors
/// As the module says.
pub fn depthwise(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, side: usize) -> Result<Tensor> {
    run("depthwise", x, w, bias, side, 1)
}

/// As [`depthwise`] of side 3; then the first half of the channels by SiLU of the second.
///
/// # Errors
/// As the module says.
pub fn depthwise_gate(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    run("depthwise_gate", x, w, bias, 3, 2)
}

fn run(
    kernel: &'static str,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    side: usize,
    parts: usize,
) -> Result<Tensor> {
    let device = device_of(kernel, &[x, w])?;
    let [batch, height, width, channels] = map_of(kernel, x)?;
    if side.is_multiple_of(2) || !channels.is_multiple_of(parts) {
        return Err(Error::shape(
            kernel,
            x.dims(),
            "a filter of odd side, and an even number of channels",
        ));
    }
    within(kernel, x, &[x.rows(), channels])?;
    let given = channels / parts;
    let y = device.unset(&[batch, height, width, given], device.element())?;
    let map = Structure::new().ints(&[batch, height, width, channels, side]);
    let arguments = Arguments::new()
        .structure(&x.array())
        .pointer(vector(kernel, w, side * side * channels)?)
        .pointer(optional(kernel, bias, channels)?)
        .structure(&map)
        .structure(&y.array());
    // Eight channels a thread where the kernel can.
    let each = if given.is_multiple_of(8) { 8 } else { 1 };
    // SAFETY: filter and bias have the channels, and `y` a value for each place.
    unsafe {
        device.launch(
            ("depthwise", kernel),
            blocks(y.count() / each),
            THREADS,
            0,
            &arguments,
        )?
    };
    Ok(y)
}
