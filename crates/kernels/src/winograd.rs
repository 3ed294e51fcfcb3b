//! 3×3 convolutions of stride 1 by Winograd's F(4×4, 3×3) (Lavin and Gray, arXiv 1509.09308): tiles of
//! 4×4 outputs take 36 products a pair of channels instead of 144.
//!
//! Tiles of 6×6 inputs are transformed (BᵀdB), 36 matrix products with weights that were transformed
//! when they were loaded (GgGᵀ) follow, and their results are transformed back (AᵀmA). A strip of
//! tiles goes through all three while it is in a cache; strips are independent, so results are the
//! same for any number of threads.

use crate::microkernel::{DEPTH, PANEL, STRIDE, Target};
use crate::packed::{Out, PackedMatrix, block_product, even_runs};
use crate::scratch::with_buffer;
use crate::simd::{self, Level};
use crate::simd_dispatch;
use rayon::prelude::*;
use std::ops::Range;

/// Side of a tile of outputs.
const OUT: usize = 4;
/// Side of a tile of inputs.
const IN: usize = 6;
/// Products a tile and pair of channels.
const POINTS: usize = IN * IN;
/// Channels that a transform handles together: a line of six of them fits the registers.
const LANES: usize = 8;
/// Tiles a strip.
const STRIP: usize = 48;
/// Panels whose products of a strip are held at once.
const BLOCK_PANELS: usize = 4;

/// A transformed weight.
#[derive(Clone, Debug)]
pub struct WinogradWeight {
    /// One `[outputs, inputs]` matrix a point.
    points: Vec<PackedMatrix>,
    inputs: usize,
    outputs: usize,
}

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

    fn tiles(&self) -> (usize, usize) {
        (
            self.out_height().div_ceil(OUT),
            self.out_width().div_ceil(OUT),
        )
    }
}

/// G, for the points 0, ±1, ±2 and infinity.
const G: [[f64; 3]; IN] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

impl WinogradWeight {
    /// Transforms a weight `[outputs, 3, 3, inputs]`.
    ///
    /// # Panics
    /// When `w` holds another number of values.
    pub fn new(w: &[f32], outputs: usize, inputs: usize) -> Self {
        assert_eq!(
            w.len(),
            outputs * 9 * inputs,
            "weight of {outputs}x3x3x{inputs}"
        );
        let matrix = |point: usize| {
            let (row, column) = (&G[point / IN], &G[point % IN]);
            let mut values = vec![0.0f32; outputs * inputs];
            let filters = values.par_chunks_exact_mut(inputs.max(1));
            filters
                .zip(w.par_chunks_exact(9 * inputs.max(1)))
                .for_each(|(out, filter)| {
                    for (i, out) in out.iter_mut().enumerate() {
                        let mut sum = 0.0;
                        for (tap, value) in filter[i..].iter().step_by(inputs).enumerate() {
                            sum += row[tap / 3] * column[tap % 3] * f64::from(*value);
                        }
                        *out = sum as f32;
                    }
                });
            PackedMatrix::from_f32(&values, outputs, inputs)
        };
        Self {
            points: (0..POINTS).map(matrix).collect(),
            inputs,
            outputs,
        }
    }

    /// Channels of the input.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Channels of the output.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.points.iter().map(PackedMatrix::bytes).sum()
    }
}

type Lanes = [f32; LANES];

#[inline(always)]
fn lanes(f: impl Fn(usize) -> f32) -> Lanes {
    let mut out = [0.0; LANES];
    for (lane, out) in out.iter_mut().enumerate() {
        *out = f(lane);
    }
    out
}

/// Bᵀd for one line of six.
#[inline(always)]
fn input_line(d: [&Lanes; IN]) -> [Lanes; IN] {
    let even = lanes(|l| d[4][l] - 4.0 * d[2][l]);
    let odd = lanes(|l| d[3][l] - 4.0 * d[1][l]);
    let near = lanes(|l| d[4][l] - d[2][l]);
    let twice = lanes(|l| 2.0 * (d[3][l] - d[1][l]));
    [
        lanes(|l| 4.0 * d[0][l] - 5.0 * d[2][l] + d[4][l]),
        lanes(|l| even[l] + odd[l]),
        lanes(|l| even[l] - odd[l]),
        lanes(|l| near[l] + twice[l]),
        lanes(|l| near[l] - twice[l]),
        lanes(|l| 4.0 * d[1][l] - 5.0 * d[3][l] + d[5][l]),
    ]
}

/// Aᵀm for one line of six.
#[inline(always)]
fn output_line(m: [&Lanes; IN]) -> [Lanes; OUT] {
    let sum = lanes(|l| m[1][l] + m[2][l]);
    let difference = lanes(|l| m[1][l] - m[2][l]);
    let far_sum = lanes(|l| m[3][l] + m[4][l]);
    let far_difference = lanes(|l| m[3][l] - m[4][l]);
    [
        lanes(|l| m[0][l] + sum[l] + far_sum[l]),
        lanes(|l| difference[l] + 2.0 * far_difference[l]),
        lanes(|l| sum[l] + 4.0 * far_sum[l]),
        lanes(|l| difference[l] + 8.0 * far_difference[l] + m[5][l]),
    ]
}

/// The first `count` of the values, and zeros.
#[inline(always)]
fn load(from: &[f32], count: usize) -> Lanes {
    if count == LANES
        && let Some(values) = from.first_chunk()
    {
        return *values;
    }
    let mut values = [0.0; LANES];
    for (value, from) in values.iter_mut().zip(&from[..count]) {
        *value = *from;
    }
    values
}

/// Six lines as columns, transformed: entry `i·6 + j` is point i of column j.
#[inline(always)]
fn columns(d: &[Lanes; POINTS]) -> [[Lanes; IN]; IN] {
    std::array::from_fn(|j| {
        input_line([
            &d[j],
            &d[IN + j],
            &d[2 * IN + j],
            &d[3 * IN + j],
            &d[4 * IN + j],
            &d[5 * IN + j],
        ])
    })
}

simd_dispatch! {
    /// Transforms one tile. `pixels[i]` is where the channels of input pixel i begin, none outside the
    /// picture; the values of point p go to `out[p·point_stride + …]`, blocks of [`DEPTH`] channels
    /// `block_stride` apart.
    fn transform_input(
        x: &[f32], pixels: &[Option<usize>; POINTS], channels: usize,
        out: &mut [f32], point_stride: usize, block_stride: usize,
    ) {
        for first in (0..channels).step_by(LANES) {
            let count = LANES.min(channels - first);
            let d: [Lanes; POINTS] = std::array::from_fn(|i| match pixels[i] {
                Some(pixel) => load(&x[pixel + first..], count),
                None => [0.0; LANES],
            });
            let t = columns(&d);
            let start = first / DEPTH * block_stride + first % DEPTH;
            for i in 0..IN {
                let row = input_line([&t[0][i], &t[1][i], &t[2][i], &t[3][i], &t[4][i], &t[5][i]]);
                for (j, value) in row.into_iter().enumerate() {
                    // Rows of the output have room for whole lanes past the last channel.
                    if let Some(out) = out[start + (i * IN + j) * point_stride..].first_chunk_mut() {
                        *out = value;
                    }
                }
            }
        }
    }
}

/// Where a tile of 4×4 pixels of [`PANEL`] channels goes.
#[derive(Clone, Copy)]
struct TileTarget {
    out: *mut f32,
    /// From pixel to pixel.
    pixel: usize,
    /// From row to row.
    row: usize,
}

simd_dispatch! {
    /// Transforms one tile's products of 16 outputs back: point p at `m[p·point_stride..]`. The target
    /// has room for the whole tile, and nobody else uses it.
    fn transform_output(m: &[f32], point_stride: usize, target: TileTarget) {
        for half in (0..PANEL).step_by(LANES) {
            let d: [Lanes; POINTS] =
                std::array::from_fn(|point| load(&m[point * point_stride + half..], LANES));
            let t: [[Lanes; OUT]; IN] = std::array::from_fn(|j| {
                output_line([&d[j], &d[IN + j], &d[2 * IN + j], &d[3 * IN + j], &d[4 * IN + j], &d[5 * IN + j]])
            });
            let line = |i: usize| output_line([&t[0][i], &t[1][i], &t[2][i], &t[3][i], &t[4][i], &t[5][i]]);
            for (i, row) in (0..OUT).map(line).enumerate() {
                for (j, value) in row.into_iter().enumerate() {
                    // SAFETY: the pixel lies in the tile, for which the caller has room.
                    unsafe {
                        let at = i * target.row + j * target.pixel + half;
                        target.out.add(at).cast::<Lanes>().write_unaligned(value);
                    }
                }
            }
        }
    }
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
    let (rows, columns) = shape.tiles();
    let tiles = shape.batch * rows * columns;
    let runs = even_runs(tiles, STRIP, rayon::current_num_threads(), 12);
    let out = Out::new(y, w.outputs);
    let strip = Strip {
        level,
        shape,
        x,
        w,
        out,
    };
    runs.into_par_iter().for_each(|run| {
        let inputs = w.inputs.div_ceil(DEPTH) * POINTS * run.len() * STRIDE;
        let products = POINTS * run.len() * BLOCK_PANELS * PANEL;
        with_buffer(inputs, |inputs| {
            with_buffer(products, |products| {
                strip.run(run.clone(), inputs, products);
            });
        });
        strip.finish(run, &finish);
    });
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
        let (rows, columns) = self.shape.tiles();
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
        let (point_stride, block_stride) = (count * STRIDE, POINTS * count * STRIDE);
        for (t, tile) in tiles.clone().enumerate() {
            let pixels = self.input_pixels(tile);
            let out = &mut inputs[t * STRIDE..];
            transform_input(self.x, &pixels, channels, out, point_stride, block_stride);
        }
        for point in (0..POINTS).filter(|point| self.vanishes(*point)) {
            let width = BLOCK_PANELS * PANEL;
            products[point * count * width..][..count * width].fill(0.0);
        }
        let panels = self.w.outputs.div_ceil(PANEL);
        for first in (0..panels).step_by(BLOCK_PANELS) {
            let range = first..(first + BLOCK_PANELS).min(panels);
            self.products(range.clone(), count, inputs, products);
            for (t, tile) in tiles.clone().enumerate() {
                self.write(tile, t, range.clone(), count, products);
            }
        }
    }

    /// Whether the inputs of a point are always zero. In an upsampled map the six values of a line
    /// are a, b, b, c, c, d, of which the point −1 sees (c − c) − 4·(b − b): 25 of 36 points remain,
    /// as many as four convolutions of the small map with 2×2 kernels would take.
    fn vanishes(&self, point: usize) -> bool {
        self.shape.upsample && (point / IN == 2 || point % IN == 2)
    }

    /// Where the channels of a tile's 6×6 input pixels begin.
    fn input_pixels(&self, tile: usize) -> [Option<usize>; POINTS] {
        let shape = self.shape;
        let (picture, row, column) = self.place(tile);
        let shift = usize::from(shape.upsample);
        let mut pixels = [None; POINTS];
        for (index, pixel) in pixels.iter_mut().enumerate() {
            let y = (row * OUT + index / IN).checked_sub(1);
            let x = (column * OUT + index % IN).checked_sub(1);
            let y = y.filter(|y| *y < shape.out_height());
            let x = x.filter(|x| *x < shape.out_width());
            *pixel = y.zip(x).map(|(y, x)| {
                let row = picture * shape.height + (y >> shift);
                (row * shape.width + (x >> shift)) * self.w.inputs
            });
        }
        pixels
    }

    /// The 36 products of a strip with some panels: point p of tile t at `(p·count + t)·width`.
    fn products(&self, panels: Range<usize>, count: usize, inputs: &[f32], products: &mut [f32]) {
        let width = BLOCK_PANELS * PANEL;
        let columns = panels.len() * PANEL;
        with_buffer(2 * DEPTH * PANEL, |scratch| {
            for (point, matrix) in self.w.points.iter().enumerate() {
                if self.vanishes(point) {
                    continue;
                }
                for first in (0..self.w.inputs.max(1)).step_by(DEPTH) {
                    let depth = DEPTH.min(self.w.inputs - first);
                    let start = (first / DEPTH * POINTS + point) * count * STRIDE;
                    let products = &mut products[point * count * width..][..count * width];
                    let target = Target {
                        out: products.as_mut_ptr(),
                        stride: width,
                        accumulate: first > 0,
                    };
                    let factors = (&inputs[start..], count, depth);
                    // SAFETY: the strip's inputs are rows [`STRIDE`] apart, panels have this depth, and
                    // the products' rows are wider than the panels.
                    unsafe {
                        block_product(
                            self.level,
                            factors,
                            (matrix, first),
                            panels.clone(),
                            columns,
                            target,
                            scratch,
                        );
                    }
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
        let rows = OUT.min(height - row * OUT);
        let columns = OUT.min(out_width - column * OUT);
        let outputs = self.w.outputs;
        let pixel = (picture * height + row * OUT) * out_width + column * OUT;
        for (offset, panel) in panels.enumerate() {
            let products = &products[index * width + offset * PANEL..];
            let first = panel * PANEL;
            let channels = PANEL.min(outputs - first);
            // SAFETY: the tile's first pixel lies in the output.
            let out = unsafe { self.out.data.add(pixel * outputs + first) };
            if (rows, columns, channels) == (OUT, OUT, PANEL) {
                let target = TileTarget {
                    out,
                    pixel: outputs,
                    row: out_width * outputs,
                };
                transform_output(products, count * width, target);
                continue;
            }
            let mut values = [[[0.0f32; PANEL]; OUT]; OUT];
            let target = TileTarget {
                out: values.as_mut_ptr().cast(),
                pixel: PANEL,
                row: OUT * PANEL,
            };
            transform_output(products, count * width, target);
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
        let columns = self.shape.tiles().1;
        let mut tile = tiles.start;
        while tile < tiles.end {
            let (picture, row, column) = self.place(tile);
            let end = (column + tiles.end - tile).min(columns);
            let pixels = (end * OUT).min(width) - column * OUT;
            for y in row * OUT..(row * OUT + OUT).min(height) {
                let pixel = (picture * height + y) * width + column * OUT;
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
    use crate::reference::{self, assert_close, noise};
    use crate::{linear, resample};

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
        assert_close(&y, &reference::conv(&direct, &seen, &w, &bias), 1e-5);
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
