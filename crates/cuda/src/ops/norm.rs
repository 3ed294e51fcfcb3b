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

/// Most chunks of eight columns that a thread keeps of a row that is read as a whole.
const MOST: usize = 3;

/// Threads of a row that stays in registers, and blocks; none where eight does not divide it or it is too long.
fn whole(x: &Tensor) -> Option<(usize, usize)> {
    let (chunks, most) = (x.width() / 8, THREADS as usize);
    let lanes = chunks.div_ceil(MOST).next_power_of_two().max(4);
    let fits = x.width() > 0 && x.width().is_multiple_of(8) && lanes <= most;
    fits.then(|| (lanes, x.rows().div_ceil(most / lanes)))
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
    if let (true, None, Some(spread)) = (after.are_none(), shift, whole(x)) {
        return Ok(rms_norm_whole(&[(x, weight)], spread, eps)?.remove(0));
    }
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

/// `x / √(mean(x²) + eps)·weight` of two tensors of one shape and type, each with its weight `[channels]` of f32, in one
/// pass over both.
///
/// # Errors
/// As the module says.
pub fn rms_norm_pair(
    (a, weight_a): (&Tensor, &Tensor),
    (b, weight_b): (&Tensor, &Tensor),
    eps: f32,
) -> Result<[Tensor; 2]> {
    device_of("rms_norm", &[a, weight_a, b, weight_b])?;
    let alike = a.dims() == b.dims() && a.element() == b.element();
    if let (true, Some(spread)) = (alike, whole(a)) {
        let mut both = rms_norm_whole(&[(a, weight_a), (b, weight_b)], spread, eps)?;
        let b = both.remove(1);
        return Ok([both.remove(0), b]);
    }
    let steps = Steps::default();
    Ok([
        rms_norm(a, weight_a, None, eps, &steps)?,
        rms_norm(b, weight_b, None, eps, &steps)?,
    ])
}

/// One or two tensors, with the threads and blocks that [`whole`] gives for them.
fn rms_norm_whole(
    each: &[(&Tensor, &Tensor)],
    (lanes, blocks): (usize, usize),
    eps: f32,
) -> Result<Vec<Tensor>> {
    let (first, last) = (each[0], each[each.len() - 1]);
    let (x, channels) = (first.0, first.0.width());
    within("rms_norm", x, &[x.rows(), channels])?;
    let device = x.device();
    let results = each
        .iter()
        .map(|(x, _)| device.unset(x.dims(), device.element()))
        .collect::<Result<Vec<_>>>()?;
    let arguments = Arguments::new()
        .structure(&first.0.array())
        .structure(&last.0.array())
        .pointer(vector("rms_norm", first.1, channels)?)
        .pointer(vector("rms_norm", last.1, channels)?)
        .structure(&results[0].array())
        .structure(&results[results.len() - 1].array())
        .int(x.rows())
        .int(channels)
        .int(lanes)
        .float(eps);
    let grid = [blocks, each.len(), 1];
    let kernel = ("norm", "rms_norm_whole");
    // SAFETY: vectors have the channels, and results the shape of what they are made of.
    unsafe { device.launch(kernel, grid, THREADS, SHARED, &arguments)? };
    Ok(results)
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
    let (kernel, held, lanes, blocks) = match whole(x) {
        Some((lanes, blocks)) => ("layer_norm_modulate_whole", true, lanes, blocks),
        None => {
            let spread = Spread::of(x);
            (
                "layer_norm_modulate_long",
                false,
                spread.lanes,
                spread.blocks,
            )
        }
    };
    let arguments = Arguments::new()
        .structure(&x.array())
        .pointer(vector("layer_norm_modulate", shift, batch * channels)?)
        .pointer(vector("layer_norm_modulate", scale, batch * channels)?)
        .int(x.rows())
        .int(channels)
        .int(lanes)
        .int(tokens)
        .float(eps)
        .structure(&y.array());
    // All of x is read in one piece, so a check of it costs nothing more.
    let arguments = match held {
        true => arguments.pointer(device.take_check(x).unwrap_or(0)),
        false => arguments,
    };
    let grid = [blocks, 1, 1];
    // SAFETY: vectors have the channels for every picture, and `y` the shape of x.
    unsafe { device.launch(("norm", kernel), grid, THREADS, SHARED, &arguments)? };
    Ok(y)
}
