//! Products and convolutions on Hopper: which tile, and its launch (`kernels/product_hopper.cu`).

use super::steps::Steps;
use crate::device::Device;
use crate::driver::{Arguments, Structure, TensorMap};
use crate::error::{Error, Result};
use crate::tensor::{Element, Tensor};

/// Rows of a tile.
const ROWS: usize = 128;
/// Values of the depth that a step multiplies; they take 128 bytes.
const DEPTH: usize = 64;
/// Rows of zeros that a convolution's tile has beside.
const BORDER: usize = 16;
/// Columns of pixels of a convolution's tile, which has `ROWS / ACROSS` rows.
const ACROSS: usize = 8;
const THREADS: u32 = 288;
const FILE: &str = "product_hopper";
/// The compute capability that has these instructions.
const HOPPER: (u32, u32) = (9, 0);

/// A kernel of products by its tile of 128 rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// The kernel.
    pub name: &'static str,
    columns: usize,
    /// Left and right tiles in shared memory.
    stages: [usize; 2],
    /// Blocks that run side by side on a multiprocessor.
    blocks: usize,
    /// Nanoseconds of a step, as measured on an H200: narrow tiles wait for their operands.
    step: usize,
    /// Nanoseconds of all that is not a step.
    around: usize,
}

const fn tile(name: &'static str, columns: usize, stages: [usize; 2], blocks: usize) -> Tile {
    let (step, around) = match columns {
        64 => (320, 3700),
        72 => (320, 4500),
        96 => (410, 4400),
        128 => (440, 4200),
        176 => (490, 6300),
        _ => (580, 5700),
    };
    Tile {
        name,
        columns,
        stages,
        blocks,
        step,
        around,
    }
}

/// Tiles of linear layers.
pub const LINEAR: [Tile; 6] = [
    tile("linear_hopper_64_twice", 64, [4; 2], 2),
    tile("linear_hopper_72_twice", 72, [4; 2], 2),
    tile("linear_hopper_96", 96, [7; 2], 1),
    tile("linear_hopper_128_twice", 128, [3; 2], 2),
    tile("linear_hopper_176", 176, [5; 2], 1),
    tile("linear_hopper_256", 256, [4; 2], 1),
];

/// Tiles of convolutions.
pub const CONVOLUTION: [Tile; 3] = [
    tile("conv_hopper_64_twice", 64, [2, 6], 2),
    tile("conv_hopper_128_twice", 128, [2, 4], 2),
    tile("conv_hopper_256", 256, [2, 5], 1),
];

/// Whether these kernels can be used.
pub(super) fn is_hopper(device: &Device) -> bool {
    device.card().capability == HOPPER && device.element() == Element::Bf16
}

impl Tile {
    fn shared(&self, border: usize) -> usize {
        let [lefts, rights] = self.stages;
        let row = 2 * DEPTH;
        lefts * (ROWS + border) * row + rights * self.columns * row + 16 * (lefts + rights)
    }

    /// Estimated nanoseconds, as measured on an H200.
    fn time(&self, multiprocessors: usize, bands: usize, columns: usize, steps: usize) -> usize {
        let tiles = bands * columns.div_ceil(self.columns);
        // Tiles that the busiest multiprocessor has.
        let each = tiles.div_ceil(multiprocessors);
        match self.blocks {
            1 => each * (steps * self.step + self.around),
            // One block hides most of what another does around.
            _ => each * (steps * self.step + 1000) + self.around - 1000,
        }
    }

    fn best(all: &[Self], device: &Device, bands: usize, columns: usize, steps: usize) -> Self {
        let multiprocessors = device.card().multiprocessors.max(1);
        let time = |tile: &&Self| tile.time(multiprocessors, bands, columns, steps);
        *all.iter().min_by_key(time).unwrap_or(&all[0])
    }
}

fn launch(
    device: &Device,
    tile: Tile,
    (tiles, phases): (usize, usize),
    border: usize,
    arguments: &Arguments,
) -> Result<()> {
    if tiles > i32::MAX as usize {
        let message = format!("{}: {tiles} tiles are too many; run it in parts", tile.name);
        return Err(Error::Shape(message));
    }
    // SAFETY: the callers' maps, sizes and steps are those of the buffers; boxes beyond them are zeros.
    unsafe {
        device.launch(
            (FILE, tile.name),
            [tiles, 1, phases],
            THREADS,
            tile.shared(border),
            arguments,
        )
    }
}

/// What a product takes besides its operands.
pub(super) struct Product {
    /// Rows of `x` and `y`.
    pub(super) rows: usize,
    /// Columns of each part.
    pub(super) part: usize,
    /// Parts, which lie one after the other in `y`; one where there are steps other than bias and activation.
    pub(super) parts: usize,
    /// A multiple of eight.
    pub(super) depth: usize,
    /// Whether `w` is older than the kernel that was queued last.
    pub(super) early: bool,
    /// A given tile.
    pub(super) tile: Option<Tile>,
}

/// `y = steps(x wᵀ)`: `x` `[rows, depth]`, `w` `[columns, depth]`, `y` `[parts, rows, part]` in the structure of steps.
pub(super) fn linear(x: &Tensor, w: &Tensor, what: &Product, structure: &Structure) -> Result<()> {
    let device = x.device();
    let Product { rows, depth, .. } = *what;
    let columns = what.parts * what.part;
    let bands = rows.div_ceil(ROWS);
    let tile = what
        .tile
        .unwrap_or_else(|| Tile::best(&LINEAR, device, bands, columns, depth.div_ceil(DEPTH)));
    let map = |of: &Tensor, side: usize, box_rows: usize| {
        device
            .driver()
            .tensor_map(of.address(), &[depth, side], &[DEPTH, box_rows])
    };
    let arguments = Arguments::new()
        .map(&map(x, rows, ROWS)?)
        .map(&map(w, columns, tile.columns)?)
        .int(rows)
        .int(columns)
        .int(depth)
        .int(what.part)
        .int(usize::from(what.early))
        .structure(structure);
    launch(
        device,
        tile,
        (bands * columns.div_ceil(tile.columns), 1),
        0,
        &arguments,
    )
}

/// What a convolution takes: pictures, height, width and channels of the map; positions of the filter down and across;
/// the filter's side; zeros around; phases (4 over a doubled map, else 1).
pub(super) struct Window {
    pub(super) map: [usize; 4],
    pub(super) positions: [usize; 2],
    pub(super) side: usize,
    pub(super) padding: usize,
    pub(super) phases: usize,
    /// As of [`Product`].
    pub(super) early: bool,
}

/// `y = steps(convolution)` of stride one; `w` is `[phases · columns, side · side · channels]`, channels a multiple of
/// eight, side at most 3.
pub(super) fn convolution(
    x: &Tensor,
    w: &Tensor,
    y: &Tensor,
    window: &Window,
    columns: usize,
    after: &Steps,
    forced: Option<Tile>,
) -> Result<()> {
    let device = x.device();
    let Window {
        map: [pictures, height, width, channels],
        positions: [down, across],
        side,
        padding,
        phases,
        early,
    } = *window;
    let bands = pictures * across.div_ceil(ACROSS) * down.div_ceil(ROWS / ACROSS);
    let steps = side * side * channels.div_ceil(DEPTH);
    let tile =
        forced.unwrap_or_else(|| Tile::best(&CONVOLUTION, device, bands * phases, columns, steps));
    let driver = device.driver();
    let left: TensorMap = driver.tensor_map(
        x.address(),
        &[channels, width, height, pictures],
        &[DEPTH, ACROSS, ROWS / ACROSS + side - 1, 1],
    )?;
    let right = driver.tensor_map(
        w.address(),
        &[side * side * channels, phases * columns],
        &[DEPTH, tile.columns],
    )?;
    let numbers = [
        pictures, height, width, channels, down, across, side, 1, padding, padding, phases,
    ];
    let arguments = Arguments::new()
        .map(&left)
        .map(&right)
        .structure(&Structure::new().ints(&numbers))
        .int(columns)
        .int(usize::from(early))
        .structure(&after.structure("conv2d", y)?);
    launch(
        device,
        tile,
        (bands * columns.div_ceil(tile.columns), phases),
        BORDER,
        &arguments,
    )
}
