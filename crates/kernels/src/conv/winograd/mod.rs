//! 3×3 convolutions of stride 1 by Winograd's F(4×4, 3×3) and F(6×6, 3×3) (Lavin and Gray, arXiv
//! 1509.09308): tiles of 4×4 outputs take 36 products a pair of channels instead of 144, tiles of 6×6
//! take 64 instead of 324.
//!
//! Tiles of 6×6 or 8×8 inputs are transformed (BᵀdB), a matrix product for each point with weights that
//! were transformed when they were loaded (GgGᵀ) follows, and the results are transformed back (AᵀmA).
//! A strip of tiles goes through all three while it is in a cache; strips are independent, so results
//! are the same for any number of threads.

mod gradient;
mod tile;
mod transform;
mod weight;

pub(super) use gradient::weight_gradient;
pub use weight::WinogradWeight;

use crate::gemm::layout::{Block, DEPTH, Out, PANEL, STRIDE, Target};
use crate::gemm::panels::SCRATCH;
use crate::gemm::product::block_product;
use crate::parallel::{Work, each, even_runs};
use crate::scratch::with_buffer;
use crate::simd::{self, Level, prefetch};
use std::ops::Range;
use tile::Tile;
use transform::{MOST_POINTS, Strides, TileTarget, transform_input, transform_output};

/// Panels whose products of a strip are held at once.
const BLOCK_PANELS: usize = 4;
/// Side of the largest tile of outputs.
const MOST_OUT: usize = 6;

/// Sizes of a convolution with a 3×3 kernel, stride 1, and one row and column of zeros on every side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WinogradShape {
    /// Pictures.
    pub batch: usize,
    /// Rows of the input in memory.
    pub height: usize,
    /// Columns of the input in memory.
    pub width: usize,
    /// Every pixel of the input stands for a square of 2×2 equal ones (nearest-neighbour upsampling).
    pub upsample: bool,
}

impl WinogradShape {
    /// Output rows.
    pub fn out_height(&self) -> usize {
        self.height << usize::from(self.upsample)
    }

    /// Output columns.
    pub fn out_width(&self) -> usize {
        self.width << usize::from(self.upsample)
    }

    fn tiles(&self, tile: Tile) -> (usize, usize) {
        let side = tile.outputs();
        (
            self.out_height().div_ceil(side),
            self.out_width().div_ceil(side),
        )
    }
}

/// Rounds up to an odd number of cache lines, so that the same value of all points does not fall into
/// the same few sets of a cache.
fn spread(values: usize) -> usize {
    const LINE: usize = 16;
    (values.div_ceil(LINE) | 1) * LINE
}

/// `y = conv(x, w)`, channels last; every finished run of pixels goes through
/// `finish(first_pixel, values)` while it is still in a cache.
///
/// # Panics
/// When `x` or `y` do not have the sizes that `shape` and `w` say.
pub fn forward<F>(shape: &WinogradShape, x: &[f32], w: &WinogradWeight, y: &mut [f32], finish: F)
where
    F: Fn(usize, &mut [f32]) + Sync,
{
    forward_at(simd::level(), shape, x, w, y, finish);
}

fn forward_at<F>(
    level: Level,
    shape: &WinogradShape,
    x: &[f32],
    w: &WinogradWeight,
    y: &mut [f32],
    finish: F,
) where
    F: Fn(usize, &mut [f32]) + Sync,
{
    let pixels = shape.batch * shape.height * shape.width;
    assert_eq!(x.len(), pixels * w.inputs, "input of {shape:?}");
    let out_pixels = shape.batch * shape.out_height() * shape.out_width();
    assert_eq!(y.len(), out_pixels * w.outputs, "output of {shape:?}");
    if y.is_empty() {
        return;
    }
    let (rows, columns) = shape.tiles(w.tile);
    let tiles = shape.batch * rows * columns;
    let runs = even_runs(tiles, w.tile.strip(), rayon::current_num_threads(), 12);
    let out = Out::new(y, w.outputs);
    let strip = Strip {
        level,
        shape,
        x,
        w,
        out,
    };
    let work = Work {
        // Without tiles.
        multiplications: 9 * out_pixels * w.inputs * w.outputs,
        bytes: w.bytes(),
    };
    each(runs, work, |run| {
        let inputs = w.inputs.div_ceil(DEPTH) * w.tile.points() * spread(run.len() * STRIDE);
        let products = w.tile.points() * spread(run.len() * BLOCK_PANELS * PANEL);
        with_buffer(inputs, |inputs| {
            with_buffer(products, |products| {
                strip.run(run.clone(), inputs, products);
            });
        });
        strip.finish(run, &finish);
    });
}

/// Where the channels of the input pixels of a tile of a picture begin, none outside of it.
fn pixels_of(
    shape: &WinogradShape,
    tile: Tile,
    (picture, row, column): (usize, usize, usize),
    channels: usize,
) -> [Option<usize>; MOST_POINTS] {
    let shift = usize::from(shape.upsample);
    let (side, out) = (tile.inputs(), tile.outputs());
    let mut pixels = [None; MOST_POINTS];
    for (index, pixel) in pixels[..side * side].iter_mut().enumerate() {
        let y = (row * out + index / side).checked_sub(1);
        let x = (column * out + index % side).checked_sub(1);
        let y = y.filter(|y| *y < shape.out_height());
        let x = x.filter(|x| *x < shape.out_width());
        *pixel = y.zip(x).map(|(y, x)| {
            let row = picture * shape.height + (y >> shift);
            (row * shape.width + (x >> shift)) * channels
        });
    }
    pixels
}

struct Strip<'a> {
    level: Level,
    shape: &'a WinogradShape,
    x: &'a [f32],
    w: &'a WinogradWeight,
    out: Out,
}

impl Strip<'_> {
    /// Picture, row and column of a tile.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (rows, columns) = self.shape.tiles(self.w.tile);
        (
            tile / (rows * columns),
            tile / columns % rows,
            tile % columns,
        )
    }

    /// Everything but the finish. `inputs` and `products` have room for the strip's transformed inputs
    /// and for its products with some panels.
    fn run(&self, tiles: Range<usize>, inputs: &mut [f32], products: &mut [f32]) {
        let count = tiles.len();
        let channels = self.w.inputs;
        let points = self.w.tile.points();
        let strides = Strides {
            point: spread(count * STRIDE),
            block: points * spread(count * STRIDE),
        };
        let mut pixels = self.input_pixels(tiles.start);
        for (t, tile) in tiles.clone().enumerate() {
            let here = pixels;
            if tile + 1 < tiles.end {
                pixels = self.input_pixels(tile + 1);
                self.fetch(&pixels);
            }
            let out = &mut inputs[t * STRIDE..];
            transform_input(self.w.tile, self.x, &here, channels, out, strides);
        }
        for point in (0..points).filter(|point| self.vanishes(*point)) {
            let width = BLOCK_PANELS * PANEL;
            products[point * spread(count * width)..][..count * width].fill(0.0);
        }
        let panels = self.w.outputs.div_ceil(PANEL);
        for first in (0..panels).step_by(BLOCK_PANELS) {
            let range = first..(first + BLOCK_PANELS).min(panels);
            self.products(range.clone(), count, inputs, products);
            for (t, tile) in tiles.clone().enumerate() {
                if tile + 1 < tiles.end {
                    self.fetch_target(tile + 1, range.clone());
                }
                self.write(tile, t, range.clone(), count, products);
            }
        }
    }

    /// Asks for the input pixels of a tile, but for what it shares with the tile before.
    fn fetch(&self, pixels: &[Option<usize>; MOST_POINTS]) {
        let side = self.w.tile.inputs();
        for row in pixels[..side * side].chunks_exact(side) {
            for pixel in row[2..].iter().flatten() {
                prefetch::far(&self.x[*pixel..pixel + self.w.inputs]);
            }
        }
    }

    /// Asks for where the results of a tile go.
    fn fetch_target(&self, tile: usize, panels: Range<usize>) {
        let side = self.w.tile.outputs();
        let (picture, row, column) = self.place(tile);
        let (height, width) = (self.shape.out_height(), self.shape.out_width());
        let outputs = self.w.outputs;
        let channels = panels.start * PANEL..(panels.end * PANEL).min(outputs);
        for y in row * side..(row * side + side).min(height) {
            for x in column * side..(column * side + side).min(width) {
                let pixel = (picture * height + y) * width + x;
                let start = self.out.data.wrapping_add(pixel * outputs + channels.start);
                prefetch::for_writing(start, channels.len());
            }
        }
    }

    /// Whether the inputs of a point are always zero. In an upsampled map the six values of a line
    /// are a, b, b, c, c, d, of which the point −1 sees (c − c) − 4·(b − b): 25 of 36 points remain. It
    /// is the same with lines of eight, of which 49 of 64 points remain.
    fn vanishes(&self, point: usize) -> bool {
        let side = self.w.tile.inputs();
        self.shape.upsample && (point / side == 2 || point % side == 2)
    }

    /// Where the channels of a tile's input pixels begin.
    fn input_pixels(&self, tile: usize) -> [Option<usize>; MOST_POINTS] {
        pixels_of(self.shape, self.w.tile, self.place(tile), self.w.inputs)
    }

    /// The products of a strip with some panels: point p of tile t at `(p·count + t)·width`.
    fn products(&self, panels: Range<usize>, count: usize, inputs: &[f32], products: &mut [f32]) {
        let width = BLOCK_PANELS * PANEL;
        let columns = panels.len() * PANEL;
        with_buffer(SCRATCH, |scratch| {
            for (point, matrix) in self.w.points.iter().enumerate() {
                if self.vanishes(point) {
                    continue;
                }
                for first in (0..self.w.inputs.max(1)).step_by(DEPTH) {
                    let depth = DEPTH.min(self.w.inputs - first);
                    let start =
                        (first / DEPTH * self.w.points.len() + point) * spread(count * STRIDE);
                    let products = &mut products[point * spread(count * width)..][..count * width];
                    let target = Target {
                        out: products.as_mut_ptr(),
                        stride: width,
                        accumulate: first > 0,
                    };
                    let block = Block {
                        x: &inputs[start..],
                        stride: STRIDE,
                        rows: count,
                        depth,
                    };
                    let (w, panels) = ((matrix, first), panels.clone());
                    // SAFETY: the block holds the strip's inputs, panels have this depth, and the
                    // products' rows are wider than the panels.
                    unsafe {
                        block_product(self.level, block, w, panels, columns, target, scratch)
                    };
                }
            }
        });
    }

    /// Transforms one tile's products back and writes its pixels.
    fn write(
        &self,
        tile: usize,
        index: usize,
        panels: Range<usize>,
        count: usize,
        products: &[f32],
    ) {
        let width = BLOCK_PANELS * PANEL;
        let (picture, row, column) = self.place(tile);
        let (height, out_width) = (self.shape.out_height(), self.shape.out_width());
        let size = self.w.tile;
        let side = size.outputs();
        let rows = side.min(height - row * side);
        let columns = side.min(out_width - column * side);
        let outputs = self.w.outputs;
        let pixel = (picture * height + row * side) * out_width + column * side;
        for (offset, panel) in panels.enumerate() {
            let products = &products[index * width + offset * PANEL..];
            let first = panel * PANEL;
            let channels = PANEL.min(outputs - first);
            // SAFETY: the tile's first pixel lies in the output.
            let out = unsafe { self.out.data.add(pixel * outputs + first) };
            if (rows, columns, channels) == (side, side, PANEL) {
                let target = TileTarget {
                    out,
                    pixel: outputs,
                    row: out_width * outputs,
                };
                // SAFETY: the whole tile lies in the output, and in no other strip.
                unsafe { transform_output(size, products, spread(count * width), target) };
                continue;
            }
            let mut values = [[[0.0f32; PANEL]; MOST_OUT]; MOST_OUT];
            let target = TileTarget {
                out: values.as_mut_ptr().cast(),
                pixel: PANEL,
                row: MOST_OUT * PANEL,
            };
            // SAFETY: the values have room for the largest tile.
            unsafe { transform_output(size, products, spread(count * width), target) };
            for (y, values) in values[..rows].iter().enumerate() {
                for (x, values) in values[..columns].iter().enumerate() {
                    // SAFETY: the pixel lies in the output, and in no other strip.
                    unsafe {
                        let out = out.add((y * out_width + x) * outputs);
                        std::ptr::copy_nonoverlapping(values.as_ptr(), out, channels);
                    }
                }
            }
        }
    }

    /// Hands the strip's runs of pixels to `finish`.
    fn finish(&self, tiles: Range<usize>, finish: &(impl Fn(usize, &mut [f32]) + Sync)) {
        let (height, width) = (self.shape.out_height(), self.shape.out_width());
        let (columns, side) = (self.shape.tiles(self.w.tile).1, self.w.tile.outputs());
        let mut tile = tiles.start;
        while tile < tiles.end {
            let (picture, row, column) = self.place(tile);
            let end = (column + tiles.end - tile).min(columns);
            let pixels = (end * side).min(width) - column * side;
            for y in row * side..(row * side + side).min(height) {
                let pixel = (picture * height + y) * width + column * side;
                let outputs = self.w.outputs;
                // SAFETY: the run lies in the output, and in no other strip.
                let run = unsafe {
                    std::slice::from_raw_parts_mut(
                        self.out.data.add(pixel * outputs),
                        pixels * outputs,
                    )
                };
                finish(pixel, run);
            }
            tile += end - column;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::ConvShape;
    use crate::gemm::linear;
    use crate::pointwise::resample;
    use crate::reference::{self, assert_close, noise};

    fn run(level: Level, shape: WinogradShape, inputs: usize, outputs: usize) {
        let x = noise(shape.batch * shape.height * shape.width * inputs, 1);
        // Scaled so that results are about one, as the tolerance expects.
        let scale = (9.0 * inputs as f32).sqrt().recip();
        let w: Vec<f32> = noise(outputs * 9 * inputs, 2)
            .iter()
            .map(|w| w * scale)
            .collect();
        let bias = noise(outputs, 3);
        let (height, width) = (shape.out_height(), shape.out_width());
        let mut y = vec![f32::NAN; shape.batch * height * width * outputs];
        let weight = WinogradWeight::new(&w, outputs, inputs);
        forward_at(level, &shape, &x, &weight, &mut y, |_, run| {
            linear::add_bias(run, &bias);
        });
        let mut seen = x.clone();
        if shape.upsample {
            seen = vec![0.0; 4 * x.len()];
            resample::upsample_nearest(
                &x,
                shape.batch,
                shape.height,
                shape.width,
                inputs,
                &mut seen,
            );
        }
        let direct = ConvShape {
            batch: shape.batch,
            height,
            width,
            inputs,
            outputs,
            kernel: 3,
            stride: 1,
            padding: 1,
        };
        // The larger the points, the more of a sum's digits cancel.
        let tolerance = match weight.tile {
            Tile::Four => 2e-5,
            Tile::Six => 5e-5,
        };
        assert_close(&y, &reference::conv(&direct, &seen, &w, &bias), tolerance);
    }

    #[test]
    fn every_level_matches_the_reference_at_odd_sizes() {
        for level in Level::available() {
            for (batch, height, width, inputs, outputs) in [
                (1, 1, 1, 1, 1),
                (2, 4, 4, 3, 16),
                (1, 9, 7, 20, 33),
                (1, 24, 31, 5, 70),
                (1, 8, 5, 300, 18),
                // Too large for tiles of 6×6.
                (2, 9, 7, 300, 450),
            ] {
                for upsample in [false, true] {
                    let shape = WinogradShape {
                        batch,
                        height,
                        width,
                        upsample,
                    };
                    run(level, shape, inputs, outputs);
                }
            }
        }
    }
}
