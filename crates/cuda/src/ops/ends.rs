//! Convolutions at the ends of a network: of few channels, or to few.

use super::product::ConvWeight;
use super::steps::Steps;
use super::{THREADS, map_of, within};
use crate::driver::{Arguments, Structure};
use crate::error::Result;
use crate::tensor::{Element, Tensor};

/// Pixels of a tile, and the outputs of a block.
const WIDTH: usize = 32;
const ROWS_IN: usize = 8;
const ROWS_OUT: usize = 16;
const OUTPUTS: usize = 128;
/// Most channels of a picture.
const FEW: usize = 3;
/// Most channels to few, so that the filter stays in shared memory.
const MOST: usize = 256;

/// `steps(convolution)` of 3×3 filters with stride 1 and zeros around, `weight` being `[outputs, 3, 3, inputs]` filled
/// up to a multiple of eight; none where no end of a network is like that, and the general kernels are as good.
pub(super) fn conv2d(x: &Tensor, w: &ConvWeight, after: &Steps) -> Result<Option<Tensor>> {
    let device = x.device();
    let [batch, height, width, channels] = map_of("conv2d", x)?;
    let (outputs, ..) = w.sides();
    let whole = w.doubles() && device.element() == Element::Bf16 && x.count() > 0;
    let from_few = channels <= FEW && outputs.is_multiple_of(32);
    let to_few = outputs <= FEW
        && channels.is_multiple_of(32)
        && channels <= MOST
        && x.element() == Element::Bf16;
    if !whole || !(from_few || to_few) {
        return Ok(None);
    }
    within("conv2d", x, &[x.rows()])?;
    let y = device.unset(&[batch, height, width, outputs], after.element(x))?;
    let map = Structure::new().ints(&[batch, height, width, channels, outputs]);
    let steps = after.structure("conv2d", &y)?;
    let tiles = |rows: usize| batch * width.div_ceil(WIDTH) * height.div_ceil(rows);
    let weight = w.weight().address();
    if from_few {
        let arguments = Arguments::new()
            .structure(&x.array())
            .pointer(weight)
            .structure(&map)
            .structure(&steps);
        let parts = outputs.div_ceil(OUTPUTS);
        // Blocks stay for many tiles: each has put the filter in order before.
        let blocks = (4 * device.card().multiprocessors).div_ceil(parts);
        let grid = [tiles(ROWS_IN).min(blocks), parts, 1];
        let kernel = ("ends", "conv_from_few");
        // SAFETY: the map was checked, the filter has these outputs, and `structure` checked the rest.
        unsafe { device.launch(kernel, grid, THREADS, 10_240, &arguments)? };
    } else {
        let arguments = Arguments::new()
            .pointer(x.address())
            .pointer(weight)
            .structure(&map)
            .structure(&steps);
        let grid = [tiles(ROWS_OUT), 1, 1];
        let kernel = ("ends", "conv_to_few");
        // SAFETY: as above; channels divide by 32, so pixels begin on 16 bytes.
        unsafe { device.launch(kernel, grid, THREADS, 69_888 + 64 * channels, &arguments)? };
    }
    Ok(Some(y))
}
