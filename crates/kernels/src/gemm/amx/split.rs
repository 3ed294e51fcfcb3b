//! f32 values as sums of bf16 values, in the order of tiles.

use super::{PARTS, ROWS, STEP, TILE};
use crate::gemm::layout::PANEL;
use std::arch::x86_64::*;

/// The bits that bf16 keeps of f32.
#[target_feature(enable = "avx512f")]
fn upper() -> __m512i {
    _mm512_set1_epi32(0xffff_0000u32 as i32)
}

/// A bf16 value near `x`, as f32: the nearest for the lanes of the mask, else no larger than `x`.
#[target_feature(enable = "avx512f,avx512bw")]
fn near(x: __m512, rounds: __mmask16) -> __m512 {
    let bits = _mm512_castps_si512(x);
    let rounded = _mm512_mask_add_epi32(bits, rounds, bits, _mm512_set1_epi32(0x8000));
    _mm512_castsi512_ps(_mm512_and_si512(rounded, upper()))
}

/// Three bf16 values, as f32, whose sum is `x`. Infinity is one of them and two zeros.
#[target_feature(enable = "avx512f,avx512bw")]
fn thirds(x: __m512) -> [__m512; PARTS] {
    let size = _mm512_castps_si512(_mm512_abs_ps(x));
    // Rounded up, the largest values would be infinite.
    let rounds = _mm512_cmplt_epi32_mask(size, _mm512_set1_epi32(0x7f00_0000));
    let finite = _mm512_cmplt_epi32_mask(size, _mm512_set1_epi32(0x7f80_0000));
    let first = near(x, rounds);
    let rest = _mm512_maskz_sub_ps(finite, x, first);
    let second = near(rest, rounds);
    [first, second, _mm512_sub_ps(rest, second)]
}

/// Rows whose values stand `stride` apart: tile after tile of 16 rows, step after step of 32 inner values,
/// part after part. Inner values past `depth` are zeros, rows past the last are whatever was there.
///
/// # Safety
/// The processor has AVX-512 F and BW; `x` holds `rows` rows of `depth`, `out` all tiles.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn rows((x, stride): (&[f32], usize), rows: usize, depth: usize, out: *mut u8) {
    let steps = depth.div_ceil(STEP);
    let upper_halves: [u16; 32] = std::array::from_fn(|i| 2 * i as u16 + 1);
    // SAFETY: the caller promised the rows, within which the masks keep what is read, and room for every
    // tile, within which all lines lie.
    unsafe {
        let upper_halves = _mm512_loadu_si512(upper_halves.as_ptr().cast());
        for row in 0..rows {
            let x = x.as_ptr().add(row * stride);
            let line = out.add(row / ROWS * steps * PARTS * TILE + row % ROWS * 64);
            for step in 0..steps {
                let left = (depth - step * STEP).min(STEP);
                let mask = ((1u64 << left) - 1) as u32;
                let x = x.add(step * STEP);
                let low = thirds(_mm512_maskz_loadu_ps(mask as u16, x));
                let high = thirds(_mm512_maskz_loadu_ps(
                    (mask >> 16) as u16,
                    x.wrapping_add(16),
                ));
                for (part, (low, high)) in low.into_iter().zip(high).enumerate() {
                    let (low, high) = (_mm512_castps_si512(low), _mm512_castps_si512(high));
                    let values = _mm512_permutex2var_epi16(low, upper_halves, high);
                    let to = line.add((step * PARTS + part) * TILE);
                    _mm512_store_si512(to.cast(), values);
                }
            }
        }
    }
}

/// A panel of f32 weights: step after step, part after part, two inner values of an output side by side.
/// Inner values past the last are zeros.
///
/// # Safety
/// The processor has AVX-512 F and BW; `out` holds all tiles.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn panel(panel: &[f32], out: *mut u8) {
    let depth = panel.len() / PANEL;
    let lines = depth.div_ceil(2).next_multiple_of(STEP / 2);
    // SAFETY: values are read only below `depth`, which is what the panel holds; the caller promised room
    // for every tile, within which all lines lie.
    unsafe {
        for line in 0..lines {
            let value = |k: usize| {
                if k < depth {
                    _mm512_loadu_ps(panel.as_ptr().add(k * PANEL))
                } else {
                    _mm512_setzero_ps()
                }
            };
            let (even, odd) = (thirds(value(2 * line)), thirds(value(2 * line + 1)));
            let (step, line) = (line / (STEP / 2), line % (STEP / 2));
            for (part, (even, odd)) in even.into_iter().zip(odd).enumerate() {
                let (even, odd) = (_mm512_castps_si512(even), _mm512_castps_si512(odd));
                let even = _mm512_srli_epi32::<16>(even);
                let values = _mm512_or_si512(even, _mm512_and_si512(odd, upper()));
                let to = out.add((step * PARTS + part) * TILE + line * 64);
                _mm512_store_si512(to.cast(), values);
            }
        }
    }
}
