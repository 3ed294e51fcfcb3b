//! Two-dimensional convolution over channels-last maps, as matrix products over gathered patches.
//!
//! Weights are `[outputs, kernel, kernel, inputs]` (OHWI), so that a patch and a filter are both
//! contiguous. Patches are gathered in blocks, so the memory needed beyond input and output is
//! a few MiB whatever the picture's size.

use super::winograd::{self, WinogradShape, WinogradWeight};
use crate::gemm::layout::STRIDE;
use crate::gemm::linear;
use crate::gemm::packed::{self, PackedMatrix};
use crate::gemm::{Threads, View, multiply};
use crate::{parallel, simd};
use rayon::prelude::*;
use std::ops::Range;

/// Sizes of a convolution with a square kernel and zero padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Pictures.
    pub batch: usize,
    /// Input rows.
    pub height: usize,
    /// Input columns.
    pub width: usize,
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Step between output positions.
    pub stride: usize,
    /// Rows and columns of zeros on every side.
    pub padding: usize,
}

impl ConvShape {
    /// Output rows.
    pub fn out_height(&self) -> usize {
        let positions = (self.height + 2 * self.padding + 1).saturating_sub(self.kernel);
        positions.div_ceil(self.stride.max(1))
    }

    /// Output columns.
    pub fn out_width(&self) -> usize {
        ConvShape {
            height: self.width,
            ..*self
        }
        .out_height()
    }

    fn patch(&self) -> usize {
        self.kernel * self.kernel * self.inputs
    }

    fn out_pixels(&self) -> usize {
        self.batch * self.out_height() * self.out_width()
    }

    fn check(&self, x: usize, w: usize, y: usize) {
        assert!(
            self.stride > 0 && self.kernel > 0,
            "kernel and stride must be positive"
        );
        assert_eq!(
            x,
            self.batch * self.height * self.width * self.inputs,
            "input of {self:?}"
        );
        assert_eq!(w, self.outputs * self.patch(), "weight of {self:?}");
        assert_eq!(y, self.out_pixels() * self.outputs, "output of {self:?}");
    }
}

/// Output pixels and channels from which on 3×3 convolutions take [`winograd`]: transforming the weight, which is new at
/// every call, costs as much as some hundred pixels.
const WINOGRAD_PIXELS: usize = 1024;
const WINOGRAD_CHANNELS: usize = 16;

/// The convolution by Winograd's algorithm, where that is faster.
fn winograd(shape: &ConvShape) -> Option<WinogradShape> {
    let fits = (shape.kernel, shape.stride, shape.padding) == (3, 1, 1);
    let large = shape.out_pixels() >= WINOGRAD_PIXELS
        && shape.inputs.min(shape.outputs) >= WINOGRAD_CHANNELS
        && shape.height.min(shape.width) >= 4;
    (fits && large).then_some(WinogradShape {
        batch: shape.batch,
        height: shape.height,
        width: shape.width,
        upsample: false,
    })
}

/// Gathered values held at once.
const BLOCK: usize = 1 << 20;

/// `y = conv(x, w) + bias`.
pub fn forward(shape: &ConvShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    shape.check(x.len(), w.len(), y.len());
    if let Some(tiled) = winograd(shape) {
        let map = [shape.height, shape.width];
        let w = WinogradWeight::of_map(map, w, shape.outputs, shape.inputs);
        return winograd::forward(&tiled, x, &w, y, |_, run| {
            if let Some(bias) = bias {
                linear::add_bias(run, bias);
            }
        });
    }
    let accumulate = linear::fill_bias(bias, y, shape.outputs);
    let patch = shape.patch();
    blocks(shape, |first, columns| {
        gather(shape, x, first, columns);
        let count = columns.len() / patch;
        multiply(
            &mut y[first * shape.outputs..(first + count) * shape.outputs],
            shape.outputs,
            View::new(columns, count, patch),
            View::new(w, shape.outputs, patch).transposed(),
            1.0,
            accumulate,
            Threads::Pool,
        );
    });
}

/// `y = conv(x, w)` with a weight `[outputs, kernel·kernel·inputs]` that was packed from OHWI order;
/// every finished run of pixels goes through `finish(first_pixel, values)`.
pub fn forward_packed<F>(shape: &ConvShape, x: &[f32], w: &PackedMatrix, y: &mut [f32], finish: F)
where
    F: Fn(usize, &mut [f32]) + Sync,
{
    shape.check(x.len(), w.outputs() * w.inputs(), y.len());
    let gather = |first: usize, columns: Range<usize>, block: &mut [f32]| {
        for (pixel, row) in (first..shape.out_pixels()).zip(block.chunks_exact_mut(STRIDE)) {
            gather_part(shape, x, pixel, columns.clone(), row);
        }
    };
    packed::forward_gathered(simd::level(), w, y, gather, finish);
}

/// Values `columns` of one output pixel's patch.
fn gather_part(shape: &ConvShape, x: &[f32], pixel: usize, columns: Range<usize>, out: &mut [f32]) {
    let (oh, ow) = (shape.out_height(), shape.out_width());
    let (k, c) = (shape.kernel, shape.inputs);
    let (b, oy, ox) = (pixel / (oh * ow), pixel / ow % oh, pixel % ow);
    let mut column = columns.start;
    while column < columns.end {
        let (tap, channel) = (column / c, column % c);
        let count = (c - channel).min(columns.end - column);
        let out = &mut out[column - columns.start..][..count];
        let iy = source(oy, shape.stride, tap / k, shape.padding, shape.height);
        let ix = source(ox, shape.stride, tap % k, shape.padding, shape.width);
        match iy.zip(ix) {
            Some((iy, ix)) => {
                let from = ((b * shape.height + iy) * shape.width + ix) * c + channel;
                out.copy_from_slice(&x[from..from + count]);
            }
            None => out.fill(0.0),
        }
        column += count;
    }
}

/// Gradient of the weight, in OHWI order.
pub fn backward_weight(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    shape.check(x.len(), dw.len(), dy.len());
    if let Some(tiled) = winograd(shape) {
        let channels = [shape.inputs, shape.outputs];
        return winograd::weight_gradient(&tiled, channels, x, dy, dw);
    }
    let patch = shape.patch();
    dw.fill(0.0);
    blocks(shape, |first, columns| {
        gather(shape, x, first, columns);
        let count = columns.len() / patch;
        let dy = &dy[first * shape.outputs..(first + count) * shape.outputs];
        multiply(
            dw,
            patch,
            View::new(dy, count, shape.outputs).transposed(),
            View::new(columns, count, patch),
            1.0,
            true,
            Threads::Pool,
        );
    });
}

/// Gradient of the input.
pub fn backward_input(shape: &ConvShape, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    shape.check(dx.len(), w.len(), dy.len());
    if shape.stride == 1 && shape.padding < shape.kernel {
        // The gradient is itself a convolution, with the filters turned round and transposed.
        let transposed = ConvShape {
            height: shape.out_height(),
            width: shape.out_width(),
            inputs: shape.outputs,
            outputs: shape.inputs,
            padding: shape.kernel - 1 - shape.padding,
            ..*shape
        };
        return forward(&transposed, dy, &turned(shape, w), None, dx);
    }
    let patch = shape.patch();
    let pixels = shape.out_height() * shape.out_width();
    let image = shape.height * shape.width * shape.inputs;
    dx.par_chunks_mut(image.max(1))
        .enumerate()
        .for_each(|(b, dx)| {
            dx.fill(0.0);
            let step = (BLOCK / patch).max(1);
            let mut columns = vec![0.0f32; step.min(pixels) * patch];
            for first in (0..pixels).step_by(step) {
                let count = step.min(pixels - first);
                let start = (b * pixels + first) * shape.outputs;
                let columns = &mut columns[..count * patch];
                multiply(
                    columns,
                    patch,
                    View::new(
                        &dy[start..start + count * shape.outputs],
                        count,
                        shape.outputs,
                    ),
                    View::new(w, shape.outputs, patch),
                    1.0,
                    false,
                    Threads::One,
                );
                scatter(shape, dx, first, columns);
            }
        });
}

/// `[out, ky, kx, in]` to `[in, −ky, −kx, out]`.
fn turned(shape: &ConvShape, w: &[f32]) -> Vec<f32> {
    let (k, inputs, outputs) = (shape.kernel, shape.inputs, shape.outputs);
    let taps = k * k;
    let mut turned = vec![0.0; w.len()];
    parallel::rows_mut(&mut turned, taps * outputs, |first, chunk| {
        for (offset, row) in chunk.chunks_exact_mut(taps * outputs).enumerate() {
            let i = first + offset;
            for (tap, values) in row.chunks_exact_mut(outputs).enumerate() {
                for (o, value) in values.iter_mut().enumerate() {
                    *value = w[(o * taps + taps - 1 - tap) * inputs + i];
                }
            }
        }
    });
    turned
}

/// Calls `work(first_pixel, buffer)` for runs of output pixels that fill one block.
fn blocks(shape: &ConvShape, mut work: impl FnMut(usize, &mut [f32])) {
    let (patch, pixels) = (shape.patch(), shape.out_pixels());
    if pixels == 0 || patch == 0 {
        return;
    }
    let step = (BLOCK / patch).max(1).min(pixels);
    let mut columns = vec![0.0f32; step * patch];
    for first in (0..pixels).step_by(step) {
        let count = step.min(pixels - first);
        work(first, &mut columns[..count * patch]);
    }
}

/// Where kernel row `tap` of output coordinate `o` reads, if inside.
#[inline(always)]
fn source(o: usize, stride: usize, tap: usize, padding: usize, size: usize) -> Option<usize> {
    (o * stride + tap)
        .checked_sub(padding)
        .filter(|&s| s < size)
}

fn gather(shape: &ConvShape, x: &[f32], first: usize, columns: &mut [f32]) {
    let (oh, ow) = (shape.out_height(), shape.out_width());
    let (k, c) = (shape.kernel, shape.inputs);
    parallel::rows_mut(columns, shape.patch(), |row, chunk| {
        for (offset, patch) in chunk.chunks_exact_mut(k * k * c).enumerate() {
            let pixel = first + row + offset;
            let (b, oy, ox) = (pixel / (oh * ow), pixel / ow % oh, pixel % ow);
            let image = &x[b * shape.height * shape.width * c..][..shape.height * shape.width * c];
            for (ky, taps) in patch.chunks_exact_mut(k * c).enumerate() {
                let Some(iy) = source(oy, shape.stride, ky, shape.padding, shape.height) else {
                    taps.fill(0.0);
                    continue;
                };
                let line = &image[iy * shape.width * c..][..shape.width * c];
                let left = (ox * shape.stride).checked_sub(shape.padding);
                if let Some(left) = left.filter(|l| l + k <= shape.width) {
                    taps.copy_from_slice(&line[left * c..(left + k) * c]);
                    continue;
                }
                for (kx, tap) in taps.chunks_exact_mut(c).enumerate() {
                    match source(ox, shape.stride, kx, shape.padding, shape.width) {
                        Some(ix) => tap.copy_from_slice(&line[ix * c..(ix + 1) * c]),
                        None => tap.fill(0.0),
                    }
                }
            }
        }
    });
}

/// Adds patches of one picture back to where [`gather`] took them from.
fn scatter(shape: &ConvShape, dx: &mut [f32], first: usize, columns: &[f32]) {
    let ow = shape.out_width();
    let (k, c) = (shape.kernel, shape.inputs);
    for (offset, patch) in columns.chunks_exact(k * k * c).enumerate() {
        let (oy, ox) = ((first + offset) / ow, (first + offset) % ow);
        for (tap, values) in patch.chunks_exact(c).enumerate() {
            let iy = source(oy, shape.stride, tap / k, shape.padding, shape.height);
            let ix = source(ox, shape.stride, tap % k, shape.padding, shape.width);
            if let (Some(iy), Some(ix)) = (iy, ix) {
                linear::add_rows(values, &mut dx[(iy * shape.width + ix) * c..][..c]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, noise};

    fn shapes() -> Vec<ConvShape> {
        let base = ConvShape {
            batch: 2,
            height: 7,
            width: 5,
            inputs: 3,
            outputs: 4,
            kernel: 3,
            stride: 1,
            padding: 1,
        };
        vec![
            base,
            ConvShape {
                stride: 2,
                height: 8,
                width: 6,
                ..base
            },
            ConvShape { stride: 2, ..base },
            ConvShape {
                kernel: 2,
                stride: 2,
                padding: 0,
                height: 8,
                width: 4,
                ..base
            },
            ConvShape {
                kernel: 1,
                padding: 0,
                ..base
            },
            ConvShape {
                kernel: 5,
                padding: 2,
                inputs: 17,
                outputs: 9,
                ..base
            },
            ConvShape {
                height: 1,
                width: 1,
                ..base
            },
        ]
    }

    #[test]
    fn forward_and_gradients_match_reference() {
        for shape in shapes() {
            let x = noise(shape.batch * shape.height * shape.width * shape.inputs, 1);
            let w = noise(shape.outputs * shape.patch(), 2);
            let bias = noise(shape.outputs, 3);
            let mut y = vec![0.0; shape.out_pixels() * shape.outputs];
            let dy = noise(y.len(), 4);
            forward(&shape, &x, &w, Some(&bias), &mut y);
            let want = reference::conv(&shape, &x, &w, &bias);
            assert_close(&y, &want, 1e-5);
            let packed = PackedMatrix::from_f32(&w, shape.outputs, shape.patch());
            y.fill(f32::NAN);
            forward_packed(&shape, &x, &packed, &mut y, |_, run| {
                linear::add_bias(run, &bias);
            });
            assert_close(&y, &want, 1e-5);
            let (mut dx, mut dw) = (vec![1.0; x.len()], vec![1.0; w.len()]);
            backward_input(&shape, &w, &dy, &mut dx);
            backward_weight(&shape, &x, &dy, &mut dw);
            let (want_dx, want_dw) = reference::conv_gradients(&shape, &x, &w, &dy);
            assert_close(&dx, &want_dx, 1e-4);
            assert_close(&dw, &want_dw, 1e-4);
        }
    }

    /// Sums of products that Winograd's algorithm gives, beside sums in f64.
    #[test]
    fn large_maps_match_the_reference() {
        for (batch, height, width, inputs, outputs) in [
            (1, 33, 47, 16, 40),
            (3, 21, 18, 37, 16),
            (9, 12, 10, 20, 18),
            (20, 8, 8, 16, 270),
            (20, 8, 8, 270, 16),
        ] {
            let shape = ConvShape {
                batch,
                height,
                width,
                inputs,
                outputs,
                kernel: 3,
                stride: 1,
                padding: 1,
            };
            assert!(winograd(&shape).is_some());
            let x = noise(shape.batch * height * width * inputs, 1);
            let w = noise(outputs * shape.patch(), 2);
            let bias = noise(outputs, 3);
            let mut y = vec![f32::NAN; shape.out_pixels() * outputs];
            let dy = noise(y.len(), 4);
            forward(&shape, &x, &w, Some(&bias), &mut y);
            let off = |found: &[f32], wanted: &[f32]| {
                let square =
                    |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
                let pairs = found.iter().zip(wanted);
                let error = square(&mut pairs.map(|(a, b)| f64::from(a - b)));
                (error / square(&mut wanted.iter().map(|v| f64::from(*v)))).sqrt()
            };
            let (mut dx, mut dw) = (vec![f32::NAN; x.len()], vec![f32::NAN; w.len()]);
            backward_input(&shape, &w, &dy, &mut dx);
            backward_weight(&shape, &x, &dy, &mut dw);
            let (want_dx, want_dw) = reference::conv_gradients(&shape, &x, &w, &dy);
            let found = [
                off(&y, &reference::conv(&shape, &x, &w, &bias)),
                off(&dx, &want_dx),
                off(&dw, &want_dw),
            ];
            assert!(found.iter().all(|off| *off < 2e-5), "{shape:?}: {found:?}");
        }
    }
}
