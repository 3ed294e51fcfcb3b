//! Depthwise convolution over channels-last maps: one odd square kernel a channel, stride 1,
//! zero padding that keeps the size.
//!
//! Weights are `[kernel·kernel, channels]`, so that the loop runs over channels.

mod line;

use crate::parallel;
use crate::scratch::with_buffer;
use crate::simd::simd_dispatch;
use line::Line;
pub(crate) use line::gated;

/// Sizes of a depthwise convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthwiseShape {
    /// Pictures.
    pub batch: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// Side of the kernel, odd.
    pub kernel: usize,
}

impl DepthwiseShape {
    fn check(&self, x: usize, w: usize) {
        assert!(
            self.kernel % 2 == 1,
            "a depthwise kernel must be odd, not {}",
            self.kernel
        );
        assert_eq!(
            x,
            self.batch * self.height * self.width * self.channels,
            "map of {self:?}"
        );
        assert_eq!(
            w,
            self.kernel * self.kernel * self.channels,
            "weight of {self:?}"
        );
    }
}

const LANES: usize = 32;

simd_dispatch! {
    /// One output row. `image` is the whole picture.
    fn row(shape: &DepthwiseShape, image: &[f32], y: usize, w: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        let (k, c, radius) = (shape.kernel, shape.channels, shape.kernel / 2);
        let line = shape.width * c;
        for x in 0..shape.width {
            let out = &mut out[x * c..(x + 1) * c];
            let (top, bottom) = (radius.saturating_sub(y), (shape.height + radius - y).min(k));
            let (left, right) = (radius.saturating_sub(x), (shape.width + radius - x).min(k));
            let mut start = 0;
            while start < c {
                let n = LANES.min(c - start);
                if n == LANES {
                    let mut sum = [0.0f32; LANES];
                    if let Some(bias) = bias { sum.copy_from_slice(&bias[start..start + LANES]); }
                    for ky in top..bottom {
                        for kx in left..right {
                            let at = (y + ky - radius) * line + (x + kx - radius) * c + start;
                            let v = &image[at..at + LANES];
                            let f = &w[(ky * k + kx) * c + start..][..LANES];
                            for i in 0..LANES { sum[i] += v[i] * f[i]; }
                        }
                    }
                    out[start..start + LANES].copy_from_slice(&sum);
                } else {
                    let out = &mut out[start..];
                    match bias { Some(bias) => out.copy_from_slice(&bias[start..]), None => out.fill(0.0) }
                    for ky in top..bottom {
                        for kx in left..right {
                            let at = (y + ky - radius) * line + (x + kx - radius) * c + start;
                            let v = &image[at..at + n];
                            let f = &w[(ky * k + kx) * c + start..][..n];
                            for i in 0..n { out[i] += v[i] * f[i]; }
                        }
                    }
                }
                start += n;
            }
        }
    }
}

/// `y = depthwise(x, w) + bias`.
pub fn forward(shape: &DepthwiseShape, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    shape.check(x.len(), w.len());
    assert_eq!(
        x.len(),
        y.len(),
        "input and output of a depthwise convolution"
    );
    let (height, line) = (shape.height, shape.width * shape.channels);
    parallel::rows_mut(y, line, |first, chunk| {
        for (index, out) in (first..).zip(chunk.chunks_exact_mut(line)) {
            output_line(shape, x, [index / height, index % height], w, bias, out);
        }
    });
}

/// As [`forward`] of every `stride`-th row and column from the first on, to `[batch, ⌈height/stride⌉,
/// ⌈width/stride⌉, channels]`. Of lines that are needed, all pixels are computed; they stay in a cache.
///
/// # Panics
/// Where sizes do not fit.
pub fn forward_strided(
    shape: &DepthwiseShape,
    stride: usize,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    shape.check(x.len(), w.len());
    let DepthwiseShape {
        batch,
        height,
        width,
        channels,
        ..
    } = *shape;
    let [rows, columns] = [height, width].map(|side| side.div_ceil(stride));
    assert_eq!(
        y.len(),
        batch * rows * columns * channels,
        "output of {shape:?} at every {stride}th place"
    );
    parallel::rows_mut(y, columns * channels, |first, chunk| {
        with_buffer(width * channels, |whole| {
            for (index, out) in (first..).zip(chunk.chunks_exact_mut(columns * channels)) {
                let place = [index / rows, index % rows * stride];
                output_line(shape, x, place, w, bias, whole);
                let kept = whole.chunks_exact(channels).step_by(stride);
                for (out, pixel) in out.chunks_exact_mut(channels).zip(kept) {
                    out.copy_from_slice(pixel);
                }
            }
        });
    });
}

/// One line of a picture's output, and all of its pixels.
fn output_line(
    shape: &DepthwiseShape,
    x: &[f32],
    [picture, line]: [usize; 2],
    w: &[f32],
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    let DepthwiseShape {
        height,
        width,
        channels,
        ..
    } = *shape;
    let image = &x[picture * height * width * channels..][..height * width * channels];
    if shape.kernel != 3 {
        return row(shape, image, line, w, bias, out);
    }
    let at = |line: usize| &image[line * width * channels..][..width * channels];
    let lines = [
        (line > 0).then(|| at(line - 1)),
        Some(at(line)),
        (line + 1 < height).then(|| at(line + 1)),
    ];
    let line = Line {
        lines,
        width,
        stride: channels,
        w,
        bias,
        gate: None,
    };
    line.run(out, channels);
}

/// Gradient of the input: the same convolution with the kernel turned round.
pub fn backward_input(shape: &DepthwiseShape, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    shape.check(dx.len(), w.len());
    let turned: Vec<f32> = w
        .chunks_exact(shape.channels)
        .rev()
        .flat_map(|tap| tap.iter().copied())
        .collect();
    forward(shape, dy, &turned, None, dx);
}

simd_dispatch! {
    fn weight_row(shape: &DepthwiseShape, image: &[f32], y: usize, dy: &[f32], sum: &mut [f32]) {
        let (k, c, radius) = (shape.kernel, shape.channels, shape.kernel / 2);
        for ky in radius.saturating_sub(y)..(shape.height + radius - y).min(k) {
            let line = &image[(y + ky - radius) * shape.width * c..][..shape.width * c];
            for kx in 0..k {
                let sum = &mut sum[(ky * k + kx) * c..][..c];
                for x in radius.saturating_sub(kx)..(shape.width + radius).saturating_sub(kx).min(shape.width) {
                    let v = &line[(x + kx - radius) * c..][..c];
                    let g = &dy[x * c..][..c];
                    for i in 0..c { sum[i] += v[i] * g[i]; }
                }
            }
        }
    }
}

/// Gradient of the weight, `[kernel·kernel, channels]`.
pub fn backward_weight(shape: &DepthwiseShape, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let taps = shape.kernel * shape.kernel * shape.channels;
    shape.check(x.len(), taps);
    assert_eq!(
        x.len(),
        dy.len(),
        "input and gradient of a depthwise convolution"
    );
    let (image, line) = (
        shape.height * shape.width * shape.channels,
        shape.width * shape.channels,
    );
    parallel::reduce_rows(shape.batch * shape.height, taps, |range, sum| {
        for index in range {
            let (b, y) = (index / shape.height, index % shape.height);
            let image = &x[b * image..(b + 1) * image];
            weight_row(shape, image, y, &dy[index * line..(index + 1) * line], sum);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, noise};

    #[test]
    fn forward_and_gradients_match_reference() {
        for (height, width, channels, kernel) in [
            (1, 1, 3, 3),
            (5, 4, 33, 3),
            (6, 9, 64, 5),
            (2, 3, 7, 5),
            (9, 7, 100, 3),
        ] {
            let shape = DepthwiseShape {
                batch: 2,
                height,
                width,
                channels,
                kernel,
            };
            let x = noise(2 * height * width * channels, 1);
            let w = noise(kernel * kernel * channels, 2);
            let (bias, dy) = (noise(channels, 3), noise(x.len(), 4));
            let mut y = vec![0.0; x.len()];
            forward(&shape, &x, &w, Some(&bias), &mut y);
            assert_close(&y, &reference::depthwise(&shape, &x, &w, &bias), 1e-5);
            let whole = reference::depthwise(&shape, &x, &w, &bias);
            for stride in [1, 2, 3] {
                let pixels = whole.chunks_exact(channels).enumerate();
                let kept = pixels.filter(|(place, _)| {
                    place % width % stride == 0 && place / width % height % stride == 0
                });
                let wanted: Vec<f32> = kept.flat_map(|(_, pixel)| pixel.to_vec()).collect();
                let mut y = vec![f32::NAN; wanted.len()];
                forward_strided(&shape, stride, &x, &w, Some(&bias), &mut y);
                assert_close(&y, &wanted, 1e-5);
            }
            let mut dx = vec![0.0; x.len()];
            backward_input(&shape, &w, &dy, &mut dx);
            let dw = backward_weight(&shape, &x, &dy);
            let (want_dx, want_dw) = reference::depthwise_gradients(&shape, &x, &w, &dy);
            assert_close(&dx, &want_dx, 1e-4);
            assert_close(&dw, &want_dw, 1e-4);
        }
    }
}
