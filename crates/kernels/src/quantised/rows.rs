//! Activations as 8-bit codes, one scale for every [`GROUP`] of a row, made for each product anew.

use super::GROUP;
use crate::simd_dispatch;

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

simd_dispatch! {
    fn quantise(values: &[f32; GROUP], group: &mut RowGroup) {
        let (mut largest, mut finite) = ([0.0f32; 8], [0.0f32; 8]);
        for values in values.chunks_exact(8) {
            for lane in 0..8 {
                largest[lane] = largest[lane].max(values[lane].abs());
                // Zero, or NaN from NaN and infinity.
                finite[lane] += values[lane] * 0.0;
            }
        }
        let magnitude = largest.iter().fold(0.0f32, |a, b| a.max(*b));
        let scale = magnitude * (1.0 / 127.0);
        let inverse = if scale > f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
        let mut rounded = [0i32; GROUP];
        for (code, value) in rounded.iter_mut().zip(values) {
            // Adding 1.5·2²³ leaves the rounded value in the low bits.
            // NaN becomes a code as well: the scale tells.
            let shifted = (value * inverse).max(-127.0).min(127.0) + 12_582_912.0;
            *code = shifted.to_bits() as i32 - 0x4b40_0000;
        }
        let mut sums = [0i32; 4];
        for (codes, rounded) in group.codes.chunks_exact_mut(4).zip(rounded.chunks_exact(4)) {
            for lane in 0..4 {
                codes[lane] = rounded[lane] as i8;
                sums[lane] += rounded[lane];
            }
        }
        let (low, high) = (sums[0] + sums[1], sums[2] + sums[3]);
        group.raised = [(-8 * low) as i16, (-8 * high) as i16];
        group.raised_four = -8 * (low + high);
        group.raised_eight = -128 * (low + high);
        group.scale = scale + finite.iter().sum::<f32>();
    }
}

/// Groups of `rows` rows of `inputs` values, one row's beside the next's: group `g` of row `i` at
/// `g·rows + i`. The last group is filled up with zeros.
pub(super) fn quantise_rows(x: &[f32], inputs: usize, rows: usize, out: &mut [RowGroup]) {
    debug_assert!(x.len() == rows * inputs && out.len() == rows * inputs.div_ceil(GROUP));
    for (g, groups) in out.chunks_exact_mut(rows).enumerate() {
        let first = g * GROUP;
        let count = GROUP.min(inputs - first);
        for (row, group) in x.chunks_exact(inputs).zip(groups) {
            let values = &row[first..first + count];
            match values.try_into() {
                Ok(values) => quantise(values, group),
                Err(_) => {
                    let mut padded = [0.0; GROUP];
                    padded[..count].copy_from_slice(values);
                    quantise(&padded, group);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::noise;

    #[test]
    fn codes_are_within_half_a_step() {
        let (rows, inputs) = (3, 70);
        let x = noise(rows * inputs, 1);
        let mut out = vec![RowGroup::ZERO; rows * 3];
        quantise_rows(&x, inputs, rows, &mut out);
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
    fn zeros_and_what_is_not_finite() {
        let mut group = RowGroup::ZERO;
        quantise(&[0.0; GROUP], &mut group);
        assert!(group.scale == 0.0 && group.codes == [0; GROUP]);
        quantise(&[1e-42; GROUP], &mut group);
        assert!(group.scale.is_finite() && group.codes == [0; GROUP]);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = [1.0; GROUP];
            values[7] = bad;
            quantise(&values, &mut group);
            assert!(group.scale.is_nan());
        }
    }
}
