//! Norms over the last side.

use super::steps::Steps;
use super::{THREADS, device_of, optional, vector, within};
use crate::driver::Arguments;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Rows of a block: a warp each.
const ROWS: usize = 8;

/// `steps(x / √(mean(x²) + eps)·weight + shift)`; vectors `[channels]` of f32. `after` has no bias.
///
/// # Errors
/// As the module says.
pub fn rms_norm(
    x: &Tensor,
    weight: &Tensor,
    shift: Option<&Tensor>,
    eps: f32,
    after: &Steps,
) -> Result<Tensor> {
    let device = device_of("rms_norm", &[x, weight])?;
    let channels = x.width();
    within("rms_norm", x, &[x.rows(), channels])?;
    let y = device.unset(x.dims(), after.element(x))?;
    let arguments = Arguments::new()
        .structure(&x.array())
        .pointer(vector("rms_norm", weight, channels)?)
        .pointer(optional("rms_norm", shift, channels)?)
        .int(x.rows())
        .int(channels)
        .float(eps)
        .structure(&after.structure("rms_norm", &y)?);
    let grid = [x.rows().div_ceil(ROWS), 1, 1];
    // SAFETY: vectors have the channels, and `structure` checked the rest.
    unsafe { device.launch(("norm", "rms_norm"), grid, THREADS, 0, &arguments)? };
    Ok(y)
}

/// `(x − mean)/√(variance + eps)·(1 + scale) + shift`: `x` is `[batch, tokens, channels]`, vectors are
/// `[batch, channels]` of f32.
///
/// # Errors
/// As the module says.
pub fn layer_norm_modulate(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f32) -> Result<Tensor> {
    let device = device_of("layer_norm_modulate", &[x, shift, scale])?;
    let [batch, tokens, channels] = *x.dims() else {
        return Err(Error::shape(
            "layer_norm_modulate",
            x.dims(),
            "[batch, tokens, channels]",
        ));
    };
    within("layer_norm_modulate", x, &[x.rows(), channels])?;
    let y = device.unset(x.dims(), device.element())?;
    let arguments = Arguments::new()
        .structure(&x.array())
        .pointer(vector("layer_norm_modulate", shift, batch * channels)?)
        .pointer(vector("layer_norm_modulate", scale, batch * channels)?)
        .int(x.rows())
        .int(channels)
        .int(tokens)
        .float(eps)
        .structure(&y.array());
    let grid = [x.rows().div_ceil(ROWS), 1, 1];
    // SAFETY: vectors have the channels for every picture, and `y` the shape of x.
    unsafe {
        device.launch(
            ("norm", "layer_norm_modulate"),
            grid,
            THREADS,
            0,
            &arguments,
        )?
    };
    Ok(y)
}
