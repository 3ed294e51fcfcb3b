//! Norms over the last side.

use super::steps::Steps;
use super::{THREADS, device_of, optional, vector, within};
use crate::driver::Arguments;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// How a norm's rows are spread over threads.
struct Spread {
    /// Whether a row's values stay in registers.
    held: bool,
    /// Threads of a row, a power of two up to those of a block.
    lanes: usize,
    blocks: usize,
}

impl Spread {
    /// Two chunks of eight columns a thread, up to four where a row is longer than a block.
    fn of(x: &Tensor) -> Self {
        let chunks = x.width().div_ceil(8);
        let most = THREADS as usize;
        let lanes = chunks.div_ceil(2).next_power_of_two().clamp(4, most);
        Self {
            held: chunks <= 4 * lanes,
            lanes,
            blocks: x.rows().div_ceil(most / lanes),
        }
    }
}
/// Sums of a block's warps, of two kinds.
const SHARED: usize = 2 * 8 * 4;

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
    let spread = Spread::of(x);
    let arguments = Arguments::new()
        .structure(&x.array())
        .pointer(vector("rms_norm", weight, channels)?)
        .pointer(optional("rms_norm", shift, channels)?)
        .int(x.rows())
        .int(channels)
        .int(spread.lanes)
        .float(eps)
        .structure(&after.structure("rms_norm", &y)?);
    let kernel = if spread.held {
        "rms_norm"
    } else {
        "rms_norm_long"
    };
    let grid = [spread.blocks, 1, 1];
    // SAFETY: vectors have the channels, and `structure` checked the rest.
    unsafe { device.launch(("norm", kernel), grid, THREADS, SHARED, &arguments)? };
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
    let spread = Spread::of(x);
    let arguments = Arguments::new()
        .structure(&x.array())
        .pointer(vector("layer_norm_modulate", shift, batch * channels)?)
        .pointer(vector("layer_norm_modulate", scale, batch * channels)?)
        .int(x.rows())
        .int(channels)
        .int(spread.lanes)
        .int(tokens)
        .float(eps)
        .structure(&y.array());
    let kernel = if spread.held {
        "layer_norm_modulate"
    } else {
        "layer_norm_modulate_long"
    };
    let grid = [spread.blocks, 1, 1];
    // SAFETY: vectors have the channels for every picture, and `y` the shape of x.
    unsafe { device.launch(("norm", kernel), grid, THREADS, SHARED, &arguments)? };
    Ok(y)
}
