//! One line of a 3×3 depthwise convolution, and of the gate that follows one.

use crate::pointwise::math;
#[cfg(target_arch = "x86_64")]
use crate::simd;
use std::ops::Range;

/// Lines of the input above, at and below a line of the output, none outside the picture.
type Lines<'a> = [Option<&'a [f32]>; 3];

/// One line of a 3×3 convolution.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub lines: Lines<'a>,
    /// Pixels.
    pub width: usize,
    /// Channels of the input, of the weight and of the bias.
    pub stride: usize,
    pub w: &'a [f32],
    pub bias: Option<&'a [f32]>,
    /// Distance from a value's channel to its gate's, where the result is `value·silu(gate)`.
    pub gate: Option<usize>,
}

impl Line<'_> {
    /// Writes the pixels of `out`, of `out_stride` channels.
    pub fn run(&self, out: &mut [f32], out_stride: usize) {
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
        #[cfg(target_arch = "x86_64")]
        if simd::level().avx2().is_some() {
            let whole = out_stride / x86::VECTOR * x86::VECTOR;
            // SAFETY: the level holds the proof that the processor has AVX2 and FMA; the lengths were
            // checked above, and the channels are whole vectors.
            unsafe { x86::line(self, whole, out, out_stride) };
            self.run_plainly(whole..out_stride, out, out_stride);
            return;
        }
        self.run_plainly(0..out_stride, out, out_stride);
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

/// `out = value·silu(gate)` of a 3×3 convolution over `2·half` channels, values first, then gates:
/// lines of `width` pixels of `half` channels, where `lines(i)` is what line i of `out` sees.
pub(crate) fn gated<'a>(
    lines: impl Fn(usize) -> [Option<&'a [f32]>; 3],
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

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Line, math};
    use crate::simd::vectors::{load_eight, store_eight};
    use std::arch::x86_64::*;

    /// Channels that are computed together.
    pub(super) const VECTOR: usize = 16;

    type Vector = [__m256; 2];

    /// # Safety
    /// `from` holds [`VECTOR`] values.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load(from: *const f32) -> Vector {
        // SAFETY: the caller promised two vectors of eight.
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
                    for (out, result) in out.as_chunks_mut().0.iter_mut().zip(result) {
                        store_eight(out, result);
                    }
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    fn gated(values: Vector, gates: Vector) -> Vector {
        let mut plain = [0.0f32; VECTOR];
        for (plain, gates) in plain.as_chunks_mut().0.iter_mut().zip(gates) {
            store_eight(plain, gates);
        }
        // A loop and not `map`, whose closures are compiled without these instructions.
        for gate in &mut plain {
            *gate = math::silu(*gate);
        }
        let gates = plain.as_chunks().0;
        [
            _mm256_mul_ps(values[0], load_eight(&gates[0])),
            _mm256_mul_ps(values[1], load_eight(&gates[1])),
        ]
    }
}
