//! The factors of the innermost product, and where its sums go.

use super::GROUP;
use super::activation::Rounded;
use crate::gemm::layout::{PANEL, Target};
use std::ops::Range;

/// Bytes of an unpacked group: for every four inputs, 16 outputs of four.
pub(super) const GROUP_UNPACKED: usize = GROUP * PANEL;

/// The factors of one product.
#[derive(Clone)]
pub(super) struct Tile<'a> {
    pub rounded: &'a Rounded,
    pub rows: Range<usize>,
    pub groups: Range<usize>,
    /// Unpacked weights of these groups.
    pub weights: &'a [u8],
    /// Their scales.
    pub scales: &'a [f32],
    /// Outputs that are written, at most 16.
    pub columns: usize,
}

/// Adds or writes row `i`.
///
/// # Safety
/// The target holds that row with as many columns, and nobody else uses it.
#[inline(always)]
pub(super) unsafe fn store(sums: &[f32; PANEL], columns: usize, i: usize, target: Target) {
    for (o, sum) in sums[..columns].iter().enumerate() {
        // SAFETY: the caller promised the row and its columns.
        unsafe {
            let out = target.out.add(i * target.stride + o);
            *out = if target.accumulate { *out + sum } else { *sum };
        }
    }
}

/// Adds or writes rows, of which up to 16 columns count.
///
/// # Safety
/// The processor has AVX-512 F; the target holds these rows of so many columns, and nobody else uses it.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn store_sixteens(
    rows: &[std::arch::x86_64::__m512],
    columns: usize,
    target: Target,
) {
    use std::arch::x86_64::*;
    let mask = ((1u32 << columns) - 1) as u16;
    for (i, row) in rows.iter().enumerate() {
        // SAFETY: the caller promised the row and its columns, within which the mask keeps.
        unsafe {
            let out = target.out.add(i * target.stride);
            let row = if target.accumulate {
                _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out), *row)
            } else {
                *row
            };
            _mm512_mask_storeu_ps(out, mask, row);
        }
    }
}
