//! What panels consist of, as a kernel's registers want it.

use super::layout::{PANEL, Pair};
use crate::simd::prefetch;

/// What panels consist of. Inner values are asked for by pair and parity.
pub(crate) trait Stored: Copy {
    /// Elements of a panel of `depth` inner values.
    fn count(depth: usize) -> usize;
    /// Asks for what lies `ahead` bytes past a pair of inner values; nothing has to be there.
    fn fetch(panel: *const Self, pair: usize, ahead: usize);
    /// An inner value of all outputs.
    ///
    /// # Safety
    /// The panel holds this inner value.
    unsafe fn all<const ODD: bool>(panel: *const Self, pair: usize) -> [f32; PANEL];
    /// The same in two vectors of eight.
    ///
    /// # Safety
    /// As [`all`](Self::all); the processor has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn eights<const ODD: bool>(
        panel: *const Self,
        pair: usize,
    ) -> [std::arch::x86_64::__m256; 2];
    /// The same in one vector.
    ///
    /// # Safety
    /// As [`all`](Self::all); the processor has AVX-512.
    #[cfg(target_arch = "x86_64")]
    unsafe fn sixteen<const ODD: bool>(
        panel: *const Self,
        pair: usize,
    ) -> std::arch::x86_64::__m512;
}

impl Stored for f32 {
    fn count(depth: usize) -> usize {
        depth * PANEL
    }

    #[inline(always)]
    fn fetch(panel: *const Self, pair: usize, ahead: usize) {
        prefetch::past(panel.cast::<[Pair; 2]>().wrapping_add(pair), ahead);
    }

    #[inline(always)]
    unsafe fn all<const ODD: bool>(panel: *const Self, pair: usize) -> [f32; PANEL] {
        // SAFETY: the caller promised that the panel holds the inner value, which is 16 values.
        unsafe {
            panel
                .add((2 * pair + usize::from(ODD)) * PANEL)
                .cast::<[f32; PANEL]>()
                .read()
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn eights<const ODD: bool>(
        panel: *const Self,
        pair: usize,
    ) -> [std::arch::x86_64::__m256; 2] {
        use std::arch::x86_64::*;
        // SAFETY: the caller promised that the panel holds the inner value, which is 16 values.
        unsafe {
            let panel = panel.add((2 * pair + usize::from(ODD)) * PANEL);
            [_mm256_loadu_ps(panel), _mm256_loadu_ps(panel.add(8))]
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn sixteen<const ODD: bool>(
        panel: *const Self,
        pair: usize,
    ) -> std::arch::x86_64::__m512 {
        // SAFETY: the caller promised that the panel holds the inner value, which is 16 values.
        unsafe {
            std::arch::x86_64::_mm512_loadu_ps(panel.add((2 * pair + usize::from(ODD)) * PANEL))
        }
    }
}

impl Stored for Pair {
    fn count(depth: usize) -> usize {
        depth.div_ceil(2)
    }

    #[inline(always)]
    fn fetch(panel: *const Self, pair: usize, ahead: usize) {
        prefetch::past(panel.wrapping_add(pair), ahead);
    }

    #[inline(always)]
    unsafe fn all<const ODD: bool>(panel: *const Self, pair: usize) -> [f32; PANEL] {
        // SAFETY: the caller promised that the panel holds the inner value, half of a pair, which is 16
        // aligned words.
        unsafe { (*panel.add(pair)).widen(ODD) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn eights<const ODD: bool>(
        panel: *const Self,
        pair: usize,
    ) -> [std::arch::x86_64::__m256; 2] {
        use std::arch::x86_64::*;
        // SAFETY: the caller promised that the panel holds the inner value, half of a pair, which is 16
        // aligned words.
        unsafe {
            // No closure: it would not have the features of the kernel that this is compiled into.
            let words = panel.add(pair).cast::<__m256i>();
            let (low, high) = (_mm256_load_si256(words), _mm256_load_si256(words.add(1)));
            if ODD {
                let second = _mm256_set1_epi32(Pair::SECOND as i32);
                [
                    _mm256_castsi256_ps(_mm256_and_si256(low, second)),
                    _mm256_castsi256_ps(_mm256_and_si256(high, second)),
                ]
            } else {
                [
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
                ]
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn sixteen<const ODD: bool>(
        panel: *const Self,
        pair: usize,
    ) -> std::arch::x86_64::__m512 {
        use std::arch::x86_64::*;
        // SAFETY: the caller promised that the panel holds the inner value, half of a pair, which is 16
        // aligned words.
        unsafe {
            let words = _mm512_load_si512(panel.add(pair).cast());
            _mm512_castsi512_ps(if ODD {
                _mm512_and_si512(words, _mm512_set1_epi32(Pair::SECOND as i32))
            } else {
                _mm512_slli_epi32::<16>(words)
            })
        }
    }
}
