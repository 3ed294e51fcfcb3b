//! Rounding of activations, per row and group of 64 inputs.

use super::{GROUP, HalfType};
use crate::simd::Level;
use std::cell::RefCell;

/// What activations are rounded to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rounding {
    /// ±127; scale = largest / 127.
    Eight,
    /// ±7; scale = largest / 7, held in a 16-bit type after the codes were found with the exact one.
    Four(HalfType),
}

/// Rounded rows.
pub(crate) struct Rounded {
    /// Row after row, group after group.
    pub codes: Vec<i8>,
    /// `[rows, groups]`
    pub scales: Vec<f32>,
    /// `[rows, groups]`: what the level's kernel starts its sums with.
    pub offsets: Vec<i32>,
    pub groups: usize,
    level: Level,
}

thread_local! {
    static SPARE: RefCell<Option<Rounded>> = const { RefCell::new(None) };
}

impl Rounded {
    /// Calls `work` with rows whose codes are whatever they are, as many more as fill the last tile of
    /// the level's kernel, in memory that the thread keeps.
    pub fn with<R>(
        level: Level,
        rows: usize,
        groups: usize,
        work: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let rows = rows.next_multiple_of(super::level::rows(level));
        let spare = SPARE.with_borrow_mut(Option::take);
        let mut rounded = spare.unwrap_or_else(|| Self {
            codes: Vec::new(),
            scales: Vec::new(),
            offsets: Vec::new(),
            groups,
            level,
        });
        rounded.codes.resize(rows * groups * GROUP, 0);
        rounded.scales.resize(rows * groups, 0.0);
        rounded.offsets.resize(rows * groups, 0);
        (rounded.groups, rounded.level) = (groups, level);
        let result = work(&mut rounded);
        SPARE.with_borrow_mut(|spare| *spare = Some(rounded));
        result
    }

    /// Rounds inputs `first..first + depth` of all rows, whose first of these stand `stride` apart in
    /// `x`.
    pub fn fill(
        &mut self,
        (x, stride): (&[f32], usize),
        first: usize,
        depth: usize,
        inverse_smooth: Option<&[f32]>,
        rounding: Rounding,
    ) {
        let (width, groups, start) = (self.groups * GROUP, self.groups, first / GROUP);
        let codes = self.codes.chunks_exact_mut(width);
        let scales = self.scales.chunks_exact_mut(groups);
        let offsets = self.offsets.chunks_exact_mut(groups);
        let rows = x.chunks(stride).zip(codes).zip(scales.zip(offsets));
        for ((x, codes), (scales, offsets)) in rows {
            let x = x[..depth].chunks(GROUP);
            let codes = codes[first..].as_chunks_mut::<GROUP>().0;
            for (g, (x, codes)) in x.zip(codes).enumerate() {
                let smooth = inverse_smooth.map(|s| &s[g * GROUP..g * GROUP + x.len()]);
                let most = match rounding {
                    Rounding::Eight => 127.0,
                    Rounding::Four(_) => 7.0,
                };
                let (largest, sums) = round(self.level, x, smooth, most, codes);
                scales[start + g] = match rounding {
                    Rounding::Eight => largest / most,
                    Rounding::Four(half) => half.round(largest / most),
                };
                offsets[start + g] = super::level::first_sum(self.level, sums);
            }
        }
    }
}

/// Codes of one group of up to 64 values, each times its smoothing factor, ties to even; returns the
/// largest size, which is NaN where a value is not finite, and the sums of the codes in the first and
/// last half of every four.
fn round(
    level: Level,
    x: &[f32],
    smooth: Option<&[f32]>,
    most: f32,
    codes: &mut [i8; GROUP],
) -> (f32, [i32; 2]) {
    assert!(x.len() <= GROUP && smooth.is_none_or(|smooth| smooth.len() == x.len()));
    #[cfg(target_arch = "x86_64")]
    if level.avx512().is_some() {
        // SAFETY: the level holds the proof that the processor has AVX-512; lengths have been checked.
        return unsafe { x86::avx512(x, smooth, most, codes) };
    }
    let mut values = [0.0f32; GROUP];
    #[cfg(target_arch = "x86_64")]
    if level.avx2().is_some() {
        let mut factors = [1.0f32; GROUP];
        let x = whole(x, &mut values);
        let smooth = smooth.map(|smooth| whole(smooth, &mut factors));
        // SAFETY: the level holds the proof that the processor has AVX2 and FMA.
        return unsafe { x86::avx2(x, smooth, most, codes) };
    }
    let _ = level;
    match smooth {
        Some(smooth) => {
            let pairs = values.iter_mut().zip(x).zip(smooth);
            pairs.for_each(|((v, x), s)| *v = x * s);
        }
        None => values[..x.len()].copy_from_slice(x),
    }
    portable(&values, most, codes)
}

/// A whole group of values, in `room` where they are fewer.
#[cfg(target_arch = "x86_64")]
fn whole<'a>(values: &'a [f32], room: &'a mut [f32; GROUP]) -> &'a [f32; GROUP] {
    if let Ok(values) = values.try_into() {
        return values;
    }
    room[..values.len()].copy_from_slice(values);
    room
}

/// What values are multiplied with before they are rounded.
fn inverse_step(largest: f32, most: f32) -> f32 {
    if largest > 0.0 { most / largest } else { 0.0 }
}

fn portable(values: &[f32; GROUP], most: f32, codes: &mut [i8; GROUP]) -> (f32, [i32; 2]) {
    let mut largest = 0.0f32;
    for value in values {
        // NaN stays.
        largest = if largest.is_nan() || value.abs() <= largest {
            largest
        } else {
            value.abs()
        };
    }
    if largest.is_infinite() {
        largest = f32::NAN;
    }
    let inverse = inverse_step(largest, most);
    let mut sums = [0; 2];
    for (i, (value, code)) in values.iter().zip(codes).enumerate() {
        *code = (value * inverse).round_ties_even() as i8;
        sums[i % 4 / 2] += i32::from(*code);
    }
    (largest, sums)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{GROUP, inverse_step};
    use crate::lowbit::codes;
    use std::arch::x86_64::*;

    /// # Safety
    /// The processor has AVX-512 F and BW; there are at most 64 values, and as many factors.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn avx512(
        x: &[f32],
        smooth: Option<&[f32]>,
        most: f32,
        codes: &mut [i8; GROUP],
    ) -> (f32, [i32; 2]) {
        let zero = _mm512_setzero_ps();
        let (mut values, mut peak, mut poison) = ([zero; 4], zero, zero);
        let all = if x.len() == GROUP {
            u64::MAX
        } else {
            (1 << x.len()) - 1
        };
        // SAFETY: masks keep to the values.
        unsafe {
            for (part, value) in values.iter_mut().enumerate() {
                let mask = (all >> (16 * part)) as u16;
                *value = _mm512_maskz_loadu_ps(mask, x.as_ptr().wrapping_add(16 * part));
                if let Some(smooth) = smooth {
                    let smooth = smooth.as_ptr().wrapping_add(16 * part);
                    *value = _mm512_mul_ps(*value, _mm512_maskz_loadu_ps(mask, smooth));
                }
                peak = _mm512_max_ps(peak, _mm512_abs_ps(*value));
                poison = _mm512_fmadd_ps(*value, zero, poison);
            }
        }
        let largest = _mm512_reduce_max_ps(peak) + _mm512_reduce_add_ps(poison);
        let inverse = _mm512_set1_ps(inverse_step(largest, most));
        let mut sum = _mm512_setzero_si512();
        for (value, codes) in values.iter().zip(codes.as_chunks_mut::<16>().0) {
            let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(*value, inverse));
            sum = _mm512_add_epi32(sum, rounded);
            // SAFETY: 16 codes.
            unsafe {
                _mm_storeu_si128(codes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(rounded));
            }
        }
        let sums = [0x3333, 0xcccc].map(|half| _mm512_mask_reduce_add_epi32(half, sum));
        (largest, sums)
    }

    /// # Safety
    /// The processor has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2(
        x: &[f32; GROUP],
        smooth: Option<&[f32; GROUP]>,
        most: f32,
        codes: &mut [i8; GROUP],
    ) -> (f32, [i32; 2]) {
        let zero = _mm256_setzero_ps();
        let sign = _mm256_set1_ps(-0.0);
        let (mut values, mut peak, mut poison) = ([zero; 8], zero, zero);
        for (part, value) in values.iter_mut().enumerate() {
            // SAFETY: there are eight parts of eight, of the factors too.
            unsafe {
                *value = _mm256_loadu_ps(x.as_ptr().add(8 * part));
                if let Some(smooth) = smooth {
                    let smooth = _mm256_loadu_ps(smooth.as_ptr().add(8 * part));
                    *value = _mm256_mul_ps(*value, smooth);
                }
            }
            peak = _mm256_max_ps(peak, _mm256_andnot_ps(sign, *value));
            poison = _mm256_fmadd_ps(*value, zero, poison);
        }
        let high = _mm256_permute2f128_ps::<1>(peak, peak);
        let peak = _mm256_max_ps(peak, high);
        let peak = _mm256_max_ps(peak, _mm256_permute_ps::<0b01_00_11_10>(peak));
        let peak = _mm256_max_ps(peak, _mm256_permute_ps::<0b10_11_00_01>(peak));
        // Sums of zeros and NaN: NaN where any is.
        let fine = _mm256_cmp_ps::<_CMP_ORD_Q>(poison, poison);
        let largest = if _mm256_movemask_ps(fine) == 0xff {
            _mm256_cvtss_f32(peak)
        } else {
            f32::NAN
        };
        let inverse = _mm256_set1_ps(inverse_step(largest, most));
        let mut pairs = _mm256_setzero_si256();
        let parts = values.as_chunks::<4>().0;
        for (parts, room) in parts.iter().zip(codes.as_chunks_mut::<32>().0) {
            let round = |part: &__m256| _mm256_cvtps_epi32(_mm256_mul_ps(*part, inverse));
            let bytes = codes::bytes(parts.each_ref().map(round));
            pairs = _mm256_add_epi16(pairs, codes::pairs(bytes));
            // SAFETY: 32 codes.
            unsafe { _mm256_storeu_si256(room.as_mut_ptr().cast(), bytes) };
        }
        (largest, codes::halves(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::noise;

    #[test]
    fn levels_agree_in_every_bit() {
        let (x, smooth) = (noise(GROUP, 1), noise(GROUP, 2));
        let mut cases = vec![
            vec![0.0; GROUP],
            x.clone(),
            x[..23].to_vec(),
            vec![-3.5; GROUP],
        ];
        cases.push((0..GROUP).map(|i| i as f32 - 31.5).collect());
        for x in cases {
            for smooth in [None, Some(&smooth[..x.len()])] {
                for most in [127.0, 7.0] {
                    let run = |level| {
                        let mut codes = [0; GROUP];
                        let result = round(level, &x, smooth, most, &mut codes);
                        (result, codes)
                    };
                    let want = run(Level::Portable);
                    assert!(
                        Level::available()
                            .into_iter()
                            .all(|level| run(level) == want)
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_not_finite_makes_the_scale_nan() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 17, GROUP - 1] {
                let mut x = [1.0; GROUP];
                x[place] = bad;
                for level in Level::available() {
                    let (largest, _) = round(level, &x, None, 127.0, &mut [0; GROUP]);
                    assert!(largest.is_nan(), "{level:?}: {bad} at {place}");
                }
            }
        }
    }
}
