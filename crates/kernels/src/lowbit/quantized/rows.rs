//! Activations as 8-bit codes, one scale for every [`GROUP`] of a row, made for each product anew.

use super::GROUP;
use crate::simd::Level;
use rayon::prelude::*;

/// One group of one row, as the kernels of all levels want it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct RowGroup {
    /// Codes of −127..127.
    pub codes: [i8; GROUP],
    /// −8 times the sum of the codes 0, 1 of every four, and of the codes 2, 3: what raised 4-bit
    /// weights add too much, in the two halves of a lane.
    pub raised: [i16; 2],
    /// −8 times the sum of all codes.
    pub raised_four: i32,
    /// −128 times the sum of all codes.
    pub raised_eight: i32,
    /// Value of one code step; NaN where a value is not finite.
    pub scale: f32,
}

impl RowGroup {
    /// Nothing.
    pub(super) const ZERO: Self = Self {
        codes: [0; GROUP],
        raised: [0; 2],
        raised_four: 0,
        raised_eight: 0,
        scale: 0.0,
    };
}

/// `∓8·Σ codes` and their like, from the sums of the codes 0, 1 of every four and of the codes 2, 3.
fn set_sums(group: &mut RowGroup, low: i32, high: i32) {
    group.raised = [(-8 * low) as i16, (-8 * high) as i16];
    group.raised_four = -8 * (low + high);
    group.raised_eight = -128 * (low + high);
}

/// Value of a step, and its inverse; none where all values are (nearly) zero.
fn steps(magnitude: f32) -> (f32, f32) {
    let scale = magnitude * (1.0 / 127.0);
    let inverse = if scale > f32::MIN_POSITIVE {
        1.0 / scale
    } else {
        0.0
    };
    (scale, inverse)
}

fn portable(values: &[f32; GROUP], group: &mut RowGroup) {
    let (mut magnitude, mut finite) = (0.0f32, 0.0f32);
    for value in values {
        magnitude = magnitude.max(value.abs());
        // Zero, or NaN from NaN and infinity.
        finite += value * 0.0;
    }
    let (scale, inverse) = steps(magnitude);
    let mut sums = [0i32; 4];
    for (codes, values) in group.codes.chunks_exact_mut(4).zip(values.chunks_exact(4)) {
        for lane in 0..4 {
            // NaN becomes a code as well: the scale tells.
            let code = (values[lane] * inverse)
                .clamp(-127.0, 127.0)
                .round_ties_even();
            codes[lane] = code as i8;
            sums[lane] += code as i32;
        }
    }
    set_sums(group, sums[0] + sums[1], sums[2] + sums[3]);
    group.scale = scale + finite;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(values: &[f32; GROUP], group: &mut RowGroup) {
    use crate::lowbit::codes;
    use crate::simd::vectors::{load_eight, store_codes_32, store_eight};
    use std::arch::x86_64::*;
    let sign = _mm256_set1_ps(-0.0);
    let mut v = [_mm256_setzero_ps(); 4];
    for (v, values) in v.iter_mut().zip(values.as_chunks().0) {
        *v = load_eight(values);
    }
    let size = v.map(|v| _mm256_andnot_ps(sign, v));
    let largest = _mm256_max_ps(
        _mm256_max_ps(size[0], size[1]),
        _mm256_max_ps(size[2], size[3]),
    );
    let zeros = v.map(|v| _mm256_mul_ps(v, _mm256_setzero_ps()));
    let zeros = _mm256_add_ps(
        _mm256_add_ps(zeros[0], zeros[1]),
        _mm256_add_ps(zeros[2], zeros[3]),
    );
    let (mut most, mut finite) = ([0.0f32; 8], [0.0f32; 8]);
    store_eight(&mut most, largest);
    store_eight(&mut finite, zeros);
    let (scale, inverse) = steps(most.iter().fold(0.0f32, |a, b| a.max(*b)));
    let (low, high) = (_mm256_set1_ps(-127.0), _mm256_set1_ps(127.0));
    let inverse = _mm256_set1_ps(inverse);
    let rounded = v.map(|v| {
        // NaN becomes a code as well: the scale tells.
        let scaled = _mm256_max_ps(_mm256_mul_ps(v, inverse), low);
        _mm256_cvtps_epi32(_mm256_min_ps(scaled, high))
    });
    let bytes = codes::bytes(rounded);
    let [low, high] = codes::halves(codes::pairs(bytes));
    store_codes_32(&mut group.codes, bytes);
    set_sums(group, low, high);
    group.scale = scale + finite.iter().sum::<f32>();
}

fn quantize(level: Level, values: &[f32; GROUP], group: &mut RowGroup) {
    #[cfg(target_arch = "x86_64")]
    if level.avx2().is_some() {
        // SAFETY: the level holds the proof that the processor has AVX2 and FMA.
        return unsafe { avx2(values, group) };
    }
    let _ = level;
    portable(values, group);
}

/// Values below which one thread does all.
const SMALL: usize = 1 << 17;

/// Groups of `rows` rows of `inputs` values, one row's beside the next's: group `g` of row `i` at
/// `g·rows + i`. The last group is filled up with zeros.
pub(super) fn quantize_rows(
    level: Level,
    x: &[f32],
    inputs: usize,
    rows: usize,
    out: &mut [RowGroup],
) {
    debug_assert!(x.len() == rows * inputs && out.len() == rows * inputs.div_ceil(GROUP));
    let work = |(g, groups): (usize, &mut [RowGroup])| {
        let first = g * GROUP;
        let count = GROUP.min(inputs - first);
        for (row, group) in x.chunks_exact(inputs).zip(groups) {
            let values = &row[first..first + count];
            match values.try_into() {
                Ok(values) => quantize(level, values, group),
                Err(_) => {
                    let mut padded = [0.0; GROUP];
                    padded[..count].copy_from_slice(values);
                    quantize(level, &padded, group);
                }
            }
        }
    };
    if x.len() < SMALL {
        out.chunks_exact_mut(rows).enumerate().for_each(work);
    } else {
        let run = inputs
            .div_ceil(GROUP)
            .div_ceil(2 * rayon::current_num_threads());
        let groups = out.par_chunks_exact_mut(rows).enumerate();
        groups.with_min_len(run).for_each(work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::noise;
    use crate::simd;

    #[test]
    fn codes_are_within_half_a_step() {
        let (rows, inputs) = (3, 70);
        let x = noise(rows * inputs, 1);
        let mut out = vec![RowGroup::ZERO; rows * 3];
        quantize_rows(simd::level(), &x, inputs, rows, &mut out);
        for (i, row) in x.chunks_exact(inputs).enumerate() {
            for (k, value) in row.iter().enumerate() {
                let group = &out[k / GROUP * rows + i];
                let back = f32::from(group.codes[k % GROUP]) * group.scale;
                assert!(
                    (value - back).abs() <= 0.5001 * group.scale,
                    "{value} {back}"
                );
            }
        }
        let sum: i32 = out[0].codes.iter().map(|c| i32::from(*c)).sum();
        assert_eq!(out[0].raised_four, -8 * sum);
        assert_eq!(out[0].raised_eight, -128 * sum);
        assert_eq!(
            i32::from(out[0].raised[0]) + i32::from(out[0].raised[1]),
            -8 * sum
        );
        assert!(
            out[2 * rows].codes[6..].iter().all(|code| *code == 0),
            "the padding"
        );
    }

    #[test]
    fn levels_agree_in_every_bit() {
        for seed in 0..50 {
            let noise = noise(GROUP, seed);
            let mut values: [f32; GROUP] =
                std::array::from_fn(|i| noise[i] * 10f32.powi(seed as i32 - 25));
            if seed % 5 == 0 {
                // Halves round to even in both.
                values = std::array::from_fn(|i| if i == 3 { 127.0 } else { i as f32 - 7.5 });
            }
            let mut groups = Level::available().into_iter().map(|level| {
                let mut group = RowGroup::ZERO;
                quantize(level, &values, &mut group);
                format!("{group:?}")
            });
            let first = groups.next();
            assert!(groups.all(|group| Some(group) == first), "{seed}");
        }
    }

    #[test]
    fn zeros_and_what_is_not_finite() {
        let mut group = RowGroup::ZERO;
        let level = simd::level();
        quantize(level, &[0.0; GROUP], &mut group);
        assert!(group.scale == 0.0 && group.codes == [0; GROUP]);
        quantize(level, &[1e-42; GROUP], &mut group);
        assert!(group.scale.is_finite() && group.codes == [0; GROUP]);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = [1.0; GROUP];
            values[7] = bad;
            quantize(level, &values, &mut group);
            assert!(group.scale.is_nan());
        }
    }
}
