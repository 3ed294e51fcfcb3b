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

/// A kernel that sweeps along rows, and the rows of a thread.
struct Sweep {
    kernel: &'static str,
    rows: usize,
}
/// Threads of such a kernel's block, and how many blocks a multiprocessor has at a time.
const SWEEPING: u32 = 128;
const RESIDENT: usize = 3;

impl Sweep {
    /// For a filter and a number of channels that are given; none for others.
    fn of(side: usize, given: usize, parts: usize) -> Option<Self> {
        let (kernel, rows) = match (side, parts) {
            (3, 1) => ("depthwise_3", 4),
            (3, 2) => ("depthwise_gate", 3),
            (5, 1) => ("depthwise_5", 4),
            _ => return None,
        };
        given.is_multiple_of(2).then_some(Self { kernel, rows })
    }

    /// The columns of a thread that take the least time, and the blocks for `strips` of rows and channels. A sweep
    /// reads a filter's width more than it gives, and ends best with a whole turn of its ring of sums.
    fn cut(&self, strips: usize, width: usize, side: usize, processors: usize) -> (usize, usize) {
        let cuts = (1..=width.div_ceil(8)).map(|runs| {
            let run = (width.div_ceil(runs) - 1).next_multiple_of(side) + 1;
            let blocks = (strips * width.div_ceil(run)).div_ceil(SWEEPING as usize);
            let waves = blocks.div_ceil(RESIDENT * processors);
            (waves * (run + side - 1), run, blocks)
        });
        let (_, run, blocks) = cuts.min().unwrap_or((0, width.max(1), 0));
        (run, blocks)
    }
}

fn run(
    operation: &'static str,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    side: usize,
    parts: usize,
) -> Result<Tensor> {
    let device = device_of(operation, &[x, w])?;
    let [batch, height, width, channels] = map_of(operation, x)?;
    if side.is_multiple_of(2) || !channels.is_multiple_of(parts) {
        return Err(Error::shape(
            operation,
            x.dims(),
            "a filter of odd side, and an even number of channels",
        ));
    }
    // Rows of a sweep are counted from the first one.
    within(operation, x, &[x.rows(), 8 * width * channels])?;
    let given = channels / parts;
    let y = device.unset(&[batch, height, width, given], device.element())?;
    let arguments = |run: usize| -> Result<Arguments> {
        let map = Structure::new().ints(&[batch, height, width, channels, side, run]);
        Ok(Arguments::new()
            .structure(&x.array())
            .pointer(vector(operation, w, side * side * channels)?)
            .pointer(optional(operation, bias, channels)?)
            .structure(&map)
            .structure(&y.array()))
    };
    match Sweep::of(side, given, parts) {
        Some(sweep) => {
            let strips = batch * height.div_ceil(sweep.rows) * (given / 2);
            let (run, blocks) = sweep.cut(strips, width, side, device.card().multiprocessors);
            let (kernel, arguments) = (("depthwise", sweep.kernel), arguments(run)?);
            // SAFETY: filter and bias have the channels, and `y` a value for each place; threads beyond are idle.
            unsafe { device.launch(kernel, [blocks, 1, 1], SWEEPING, 0, &arguments)? };
        }
        None => {
            let arguments = arguments(1)?.int(given);
            let kernel = ("depthwise", "depthwise_any");
            // SAFETY: as above.
            unsafe { device.launch(kernel, blocks(y.count()), THREADS, 0, &arguments)? };
        }
    }
    Ok(y)
}
