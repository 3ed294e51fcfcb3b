//! Depthwise convolution over channels-last maps: one odd square kernel a channel, stride 1,
//! zero padding that keeps the size.
//!
//! Weights are `[kernel·kernel, channels]`, so that the loop runs over channels.

use crate::parallel;
use crate::pointwise::math;
use crate::simd::simd_dispatch;
use std::ops::Range;

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
    let DepthwiseShape {
        height,
        width,
        channels,
        ..
    } = *shape;
    let (image, line) = (height * width * channels, width * channels);
    parallel::rows_mut(y, line, |first, chunk| {
        if shape.kernel == 3 {
            for (index, out) in (first..).zip(chunk.chunks_exact_mut(line)) {
                let row = index % height;
                let at = |index: usize| &x[index * line..][..line];
                let lines = [
                    (row > 0).then(|| at(index - 1)),
                    Some(at(index)),
                    (row + 1 < height).then(|| at(index + 1)),
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
            return;
        }
        for (index, out) in (first..).zip(chunk.chunks_exact_mut(line)) {
            let (b, y) = (index / height, index % height);
            row(shape, &x[b * image..(b + 1) * image], y, w, bias, out);
        }
    });
}

/// Lines of the input above, at and below a line of the output, none outside the picture.
pub(crate) type Lines<'a> = [Option<&'a [f32]>; 3];

/// One line of a 3×3 convolution.
#[derive(Clone, Copy)]
struct Line<'a> {
    lines: Lines<'a>,
    /// Pixels.
    width: usize,
    /// Channels of the input, of the weight and of the bias.
    stride: usize,
    w: &'a [f32],
    bias: Option<&'a [f32]>,
    /// Distance from a value's channel to its gate's, where the result is `value·silu(gate)`.
    gate: Option<usize>,
}

impl Line<'_> {
    /// Writes the pixels of `out`, of `out_stride` channels.
    fn run(&self, out: &mut [f32], out_stride: usize) {
        assert!(
            out_stride + self.gate.unwrap_or(0) == self.stride
                && out.len() == self.width * out_stride
                && self.w.len() == 9 * self.stride
                && self.bias.is_none_or(|bias| bias.len() == self.stride)
                && self
                    .lines
                    .iter()
                    .flatten()
                    .all(|line| line.len() == self.width * self.stride),
            "a line of {} pixels of {} channels",
            self.width,
            self.stride
        );
        let mut rest = 0..out_stride;
        #[cfg(target_arch = "x86_64")]
        if crate::simd::level().avx2().is_some() {
            rest.start = out_stride / x86::VECTOR * x86::VECTOR;
            // SAFETY: the level holds the proof that the processor has AVX2 and FMA; the lengths were
            // checked above, and the channels are whole vectors.
            unsafe { x86::line(self, rest.start, out, out_stride) };
        }
        self.run_plainly(rest, out, out_stride);
    }

    fn run_plainly(&self, channels: Range<usize>, out: &mut [f32], out_stride: usize) {
        for x in 0..self.width {
            for channel in channels.clone() {
                let value = self.value(x, channel);
                out[x * out_stride + channel] = match self.gate {
                    Some(offset) => value * math::silu(self.value(x, channel + offset)),
                    None => value,
                };
            }
        }
    }

    fn value(&self, x: usize, channel: usize) -> f32 {
        let mut sum = self.bias.map_or(0.0, |bias| bias[channel]);
        for (ky, line) in self.lines.iter().enumerate() {
            let Some(line) = line else { continue };
            for kx in usize::from(x == 0)..if x + 1 == self.width { 2 } else { 3 } {
                let tap = self.w[(ky * 3 + kx) * self.stride + channel];
                sum += line[(x + kx - 1) * self.stride + channel] * tap;
            }
        }
        sum
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Line, math};
    use std::arch::x86_64::*;

    /// Channels that are computed together.
    pub(super) const VECTOR: usize = 16;

    type Vector = [__m256; 2];

    /// # Safety
    /// `from` holds [`VECTOR`] values.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load(from: *const f32) -> Vector {
        // SAFETY: as the caller promised.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }

    #[target_feature(enable = "avx2,fma")]
    fn add_product(sums: &mut Vector, v: Vector, tap: Vector) {
        sums[0] = _mm256_fmadd_ps(v[0], tap[0], sums[0]);
        sums[1] = _mm256_fmadd_ps(v[1], tap[1], sums[1]);
    }

    /// Pixels `x` and `x + 1`, [`VECTOR`] channels from `first` on; the second means nothing past the
    /// line's end. Neighbours share the taps and two columns of the input.
    ///
    /// # Safety
    /// The channels exist, and the line's lengths were checked.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn pair(job: &Line, x: usize, first: usize) -> [Vector; 2] {
        // SAFETY: every pixel lies within its line, every tap within the weight.
        unsafe {
            let start = match job.bias {
                Some(bias) => load(bias.as_ptr().add(first)),
                None => [_mm256_setzero_ps(); 2],
            };
            let (mut left, mut right) = (start, start);
            for (ky, line) in job.lines.iter().enumerate() {
                let Some(line) = line else { continue };
                let w = job.w.as_ptr().add(3 * ky * job.stride + first);
                let taps = [
                    load(w),
                    load(w.add(job.stride)),
                    load(w.add(2 * job.stride)),
                ];
                let pixel = line.as_ptr().add(x * job.stride + first);
                if x > 0 {
                    add_product(&mut left, load(pixel.sub(job.stride)), taps[0]);
                }
                let v = load(pixel);
                add_product(&mut left, v, taps[1]);
                add_product(&mut right, v, taps[0]);
                if x + 1 < job.width {
                    let v = load(pixel.add(job.stride));
                    add_product(&mut left, v, taps[2]);
                    add_product(&mut right, v, taps[1]);
                }
                if x + 2 < job.width {
                    let v = load(pixel.add(2 * job.stride));
                    add_product(&mut right, v, taps[2]);
                }
            }
            [left, right]
        }
    }

    /// # Safety
    /// As [`Line::run`] checks; `channels` is a multiple of [`VECTOR`].
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn line(job: &Line, channels: usize, out: &mut [f32], out_stride: usize) {
        for x in (0..job.width).step_by(2) {
            for first in (0..channels).step_by(VECTOR) {
                // SAFETY: the channels exist, as the caller promised.
                let (values, gates) = unsafe {
                    let gates = job.gate.map(|offset| pair(job, x, first + offset));
                    (pair(job, x, first), gates)
                };
                for pixel in 0..2.min(job.width - x) {
                    let mut result = values[pixel];
                    if let Some(gates) = &gates {
                        result = gated(result, gates[pixel]);
                    }
                    let out = &mut out[(x + pixel) * out_stride + first..][..VECTOR];
                    // SAFETY: `out` holds both halves.
                    unsafe {
                        _mm256_storeu_ps(out.as_mut_ptr(), result[0]);
                        _mm256_storeu_ps(out.as_mut_ptr().add(8), result[1]);
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn gated(values: Vector, gates: Vector) -> Vector {
        let mut plain = [0.0f32; VECTOR];
        // SAFETY: both halves fit.
        unsafe {
            _mm256_storeu_ps(plain.as_mut_ptr(), gates[0]);
            _mm256_storeu_ps(plain.as_mut_ptr().add(8), gates[1]);
        }
        for gate in &mut plain {
            *gate = math::silu(*gate);
        }
        // SAFETY: as above.
        let gates = unsafe { load(plain.as_ptr()) };
        [
            _mm256_mul_ps(values[0], gates[0]),
            _mm256_mul_ps(values[1], gates[1]),
        ]
    }
}

/// `out = value·silu(gate)` of a 3×3 convolution over `2·half` channels, values first, then gates:
/// lines of `width` pixels of `half` channels, where `lines(i)` is what line i of `out` sees.
pub(crate) fn gated<'a>(
    lines: impl Fn(usize) -> Lines<'a>,
    width: usize,
    half: usize,
    w: &[f32],
    bias: &[f32],
    out: &mut [f32],
) {
    for (i, out) in out.chunks_exact_mut(width * half).enumerate() {
        let line = Line {
            lines: lines(i),
            width,
            stride: 2 * half,
            w,
            bias: Some(bias),
            gate: Some(half),
        };
        line.run(out, half);
    }
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
            let mut dx = vec![0.0; x.len()];
            backward_input(&shape, &w, &dy, &mut dx);
            let dw = backward_weight(&shape, &x, &dy);
            let (want_dx, want_dw) = reference::depthwise_gradients(&shape, &x, &w, &dy);
            assert_close(&dx, &want_dx, 1e-4);
            assert_close(&dw, &want_dw, 1e-4);
        }
    }
}
