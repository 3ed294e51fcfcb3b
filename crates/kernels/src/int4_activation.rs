//! Rounding of activations, per row and group of 64 inputs.

use crate::int4::{GROUP, HalfKind};
use crate::microkernel::STRIDE;
use crate::simd::Level;

/// What activations are rounded to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rounding {
    /// ±127; scale = largest / 127.
    Eight,
    /// ±7; scale = largest / 7, held in a 16-bit type after the codes were found with the exact one.
    Four(HalfKind),
}

/// Rounded rows.
pub(crate) struct Rounded {
    /// Row after row, group after group.
    pub codes: Vec<i8>,
    /// `[rows, groups]`
    pub scales: Vec<f32>,
    /// `[rows, groups]`: what makes up for the 8 that is added to weights, in the form that the
    /// level's kernel starts its sums with.
    pub offsets: Vec<i32>,
    pub groups: usize,
    pairs: bool,
}

impl Rounded {
    pub fn new(level: Level, rows: usize, groups: usize) -> Self {
        Self {
            codes: vec![0; rows * groups * GROUP],
            scales: vec![0.0; rows * groups],
            offsets: vec![0; rows * groups],
            groups,
            pairs: crate::int4_tile::sums_are_pairs(level),
        }
    }

    /// Rounds inputs `first..first + depth` of all rows, which stand [`STRIDE`] apart in `block`.
    pub fn fill(
        &mut self,
        block: &[f32],
        first: usize,
        depth: usize,
        inverse_smooth: Option<&[f32]>,
        rounding: Rounding,
    ) {
        let (width, groups, start) = (self.groups * GROUP, self.groups, first / GROUP);
        let codes = self.codes.chunks_exact_mut(width);
        let scales = self.scales.chunks_exact_mut(groups);
        let offsets = self.offsets.chunks_exact_mut(groups);
        let rows = block
            .chunks_exact(STRIDE)
            .zip(codes)
            .zip(scales.zip(offsets));
        for ((x, codes), (scales, offsets)) in rows {
            let x = x[..depth].chunks(GROUP);
            let codes = codes[first..].chunks_exact_mut(GROUP);
            for (g, (x, codes)) in x.zip(codes).enumerate() {
                let smooth = inverse_smooth.map(|s| &s[g * GROUP..g * GROUP + x.len()]);
                let mut values = [0.0f32; GROUP];
                match smooth {
                    Some(smooth) => {
                        let pairs = values.iter_mut().zip(x).zip(smooth);
                        pairs.for_each(|((v, x), s)| *v = x * s);
                    }
                    None => values[..x.len()].copy_from_slice(x),
                }
                let (scale, sums) = match rounding {
                    Rounding::Eight => {
                        let (largest, sums) = round(&values, 127.0, codes);
                        (largest / 127.0, sums)
                    }
                    Rounding::Four(half) => {
                        let (largest, sums) = round(&values, 7.0, codes);
                        (half.round(largest / 7.0), sums)
                    }
                };
                scales[start + g] = scale;
                offsets[start + g] = if self.pairs {
                    let pair = [(-8 * sums[0]) as i16 as u16, (-8 * sums[1]) as i16 as u16];
                    (u32::from(pair[0]) | u32::from(pair[1]) << 16) as i32
                } else {
                    -8 * (sums[0] + sums[1])
                };
            }
        }
    }
}

crate::simd_dispatch! {
    /// Codes of one group, ties to even; returns the largest size, which is NaN where a value is not
    /// finite, and the sums of the codes in the first and last half of every four.
    fn round(values: &[f32; GROUP], most: f32, codes: &mut [i8]) -> (f32, [i32; 2]) {
        let mut peaks = [0.0f32; 16];
        let mut poison = [0.0f32; 16];
        for part in values.as_chunks::<16>().0 {
            for i in 0..16 {
                let size = part[i].abs();
                peaks[i] = if size > peaks[i] { size } else { peaks[i] };
                poison[i] += part[i] * 0.0;
            }
        }
        let largest = peaks.iter().fold(0.0f32, |a, b| a.max(*b)) + poison.iter().sum::<f32>();
        let inverse = if largest > 0.0 { most / largest } else { 0.0 };
        // Adding 1.5·2²³ leaves the nearest integer, ties to even, in the low bits.
        const MAGIC: f32 = 12_582_912.0;
        let mut sums = [0i32; 16];
        let codes = &mut codes[..GROUP];
        for (part, codes) in values.as_chunks::<16>().0.iter().zip(codes.chunks_exact_mut(16)) {
            for i in 0..16 {
                let bits = (part[i] * inverse + MAGIC).to_bits();
                let code = bits.wrapping_sub(MAGIC.to_bits()) as i32;
                codes[i] = code as i8;
                sums[i] += i32::from(code as i8);
            }
        }
        let half = |first: usize| {
            (0..16).filter(|i| i % 4 / 2 == first).map(|i| sums[i]).sum::<i32>()
        };
        (largest, [half(0), half(1)])
    }
}
