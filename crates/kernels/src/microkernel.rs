//! The innermost product: a few rows of the input times panels of packed weights, in registers.
//!
//! Weights come in panels of [`PANEL`] outputs: f32 with value (k, j) at `k·PANEL + j`, bf16 as
//! [`Pair`]s; rows of the input stand [`STRIDE`] apart, so that their addresses are constants of the
//! code. One kernel for each [`Level`].

use crate::simd::Level;

/// Outputs a panel.
pub(crate) const PANEL: usize = 16;
/// Inner values that a product takes at once: a panel of them fits the first-level cache.
pub(crate) const DEPTH: usize = 256;
/// Distance between rows of the input, in elements; not a power of two, which would put all rows
/// into the same cache sets.
pub(crate) const STRIDE: usize = DEPTH + 16;

/// Two inner values of a panel in bf16, output by output: the first in the low half of a word. This
/// is how tile registers want them, and widening is one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(align(64))]
pub(crate) struct Pair(pub [u32; PANEL]);

/// Bits of a word that hold its second value.
const SECOND: u32 = 0xffff_0000;

impl Pair {
    /// The inner value of this parity, widened.
    #[inline(always)]
    pub fn widen(&self, odd: bool) -> [f32; PANEL] {
        self.0
            .map(|word| f32::from_bits(if odd { word & SECOND } else { word << 16 }))
    }
}

/// What panels consist of. Inner values are asked for by pair and parity.
pub(crate) trait Stored: Copy {
    /// # Safety
    /// The panel holds this inner value.
    unsafe fn all<const ODD: bool>(panel: *const Self, pair: usize) -> [f32; PANEL];
    /// Two vectors of eight.
    ///
    /// # Safety
    /// As [`all`](Self::all); the processor has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn eights<const ODD: bool>(
        panel: *const Self,
        pair: usize,
    ) -> [std::arch::x86_64::__m256; 2];
    /// # Safety
    /// As [`all`](Self::all); the processor has AVX-512.
    #[cfg(target_arch = "x86_64")]
    unsafe fn sixteen<const ODD: bool>(
        panel: *const Self,
        pair: usize,
    ) -> std::arch::x86_64::__m512;
}

impl Stored for f32 {
    #[inline(always)]
    unsafe fn all<const ODD: bool>(panel: *const Self, pair: usize) -> [f32; PANEL] {
        // SAFETY: as promised.
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
        // SAFETY: as promised.
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
        // SAFETY: as promised.
        unsafe {
            std::arch::x86_64::_mm512_loadu_ps(panel.add((2 * pair + usize::from(ODD)) * PANEL))
        }
    }
}

impl Stored for Pair {
    #[inline(always)]
    unsafe fn all<const ODD: bool>(panel: *const Self, pair: usize) -> [f32; PANEL] {
        // SAFETY: as promised.
        unsafe { (*panel.add(pair)).widen(ODD) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn eights<const ODD: bool>(
        panel: *const Self,
        pair: usize,
    ) -> [std::arch::x86_64::__m256; 2] {
        use std::arch::x86_64::*;
        // SAFETY: as promised.
        unsafe {
            let words = panel.add(pair).cast::<__m256i>();
            [words, words.add(1)].map(|words| {
                let words = _mm256_load_si256(words);
                _mm256_castsi256_ps(if ODD {
                    _mm256_and_si256(words, _mm256_set1_epi32(SECOND as i32))
                } else {
                    _mm256_slli_epi32::<16>(words)
                })
            })
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn sixteen<const ODD: bool>(
        panel: *const Self,
        pair: usize,
    ) -> std::arch::x86_64::__m512 {
        use std::arch::x86_64::*;
        // SAFETY: as promised.
        unsafe {
            let words = _mm512_load_si512(panel.add(pair).cast());
            _mm512_castsi512_ps(if ODD {
                _mm512_and_si512(words, _mm512_set1_epi32(SECOND as i32))
            } else {
                _mm512_slli_epi32::<16>(words)
            })
        }
    }
}

/// Runs a step for every inner value: its number, and the values of each panel.
macro_rules! every_inner_value {
    ($depth:ident, $panels:expr, $load:ident, |$k:ident, $b:ident| $step:block) => {
        for pair in 0..$depth / 2 {
            {
                let ($k, $b) = (
                    2 * pair,
                    $panels.map(|panel| S::$load::<false>(panel, pair)),
                );
                $step
            }
            {
                let ($k, $b) = (
                    2 * pair + 1,
                    $panels.map(|panel| S::$load::<true>(panel, pair)),
                );
                $step
            }
        }
        if !$depth.is_multiple_of(2) {
            let pair = $depth / 2;
            let ($k, $b) = (
                2 * pair,
                $panels.map(|panel| S::$load::<false>(panel, pair)),
            );
            $step
        }
    };
}

/// Where a tile of results goes.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Its first element.
    pub out: *mut f32,
    /// Distance between rows.
    pub stride: usize,
    /// Whether the product is added to what is there.
    pub accumulate: bool,
}

/// Rows and panels that the kernel of a level takes at most.
pub(crate) fn tile_shape(level: Level) -> (usize, usize) {
    match level {
        Level::Portable => (4, 1),
        Level::Avx2 | Level::AvxVnni => (6, 1),
        Level::Avx512 | Level::Amx => (12, 2),
    }
}

/// Rows that runs of them had best be multiples of.
pub(crate) fn row_unit(level: Level) -> usize {
    match level {
        // Two tiles.
        Level::Amx => 32,
        other => tile_shape(other).0,
    }
}

/// `target[i, j] (+)= Σ_k a[i·STRIDE + k]·panel[k, j]` for `rows` rows and `columns` columns over
/// one or two panels.
///
/// # Safety
/// The processor has `level`; `rows` and the number of panels are within [`tile_shape`]; `a` holds
/// `rows` rows, every panel `depth` inner values; the target holds `rows` rows of
/// `columns`, which the panels cover, and nobody else uses it.
pub(crate) unsafe fn tile<S: Stored>(
    level: Level,
    rows: usize,
    depth: usize,
    a: *const f32,
    panels: &[*const S],
    columns: usize,
    target: Target,
) {
    macro_rules! by_rows {
        ($kernel:ident, $count:literal, $($rows:literal)*) => {{
            let mut held = [std::ptr::null(); $count];
            held.copy_from_slice(panels);
            match rows {
                // SAFETY: as the caller promised.
                $($rows => unsafe { $kernel::<$rows, $count, S>(depth, a, held, columns, target) },)*
                _ => unreachable!("a tile of {rows} rows"),
            }
        }};
    }
    match (level, panels.len()) {
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512 | Level::Amx, 2) => by_rows!(avx512, 2, 1 2 3 4 5 6 7 8 9 10 11 12),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512 | Level::Amx, _) => by_rows!(avx512, 1, 1 2 3 4 5 6 7 8 9 10 11 12),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2 | Level::AvxVnni, _) => by_rows!(avx2, 1, 1 2 3 4 5 6),
        _ => by_rows!(portable, 1, 1 2 3 4),
    }
}

/// Adds or writes finished rows, cutting the columns that only fill the last panel.
unsafe fn store<const M: usize>(
    sums: &[[f32; 2 * PANEL]; M],
    first: usize,
    columns: usize,
    target: Target,
) {
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums[..columns].iter().enumerate() {
            // SAFETY: the caller of `tile` promised rows of at least `first + columns`.
            unsafe {
                let out = target.out.add(i * target.stride + first + j);
                *out = if target.accumulate { *out + sum } else { *sum };
            }
        }
    }
}

unsafe fn portable<const M: usize, const P: usize, S: Stored>(
    depth: usize,
    a: *const f32,
    panels: [*const S; P],
    columns: usize,
    target: Target,
) {
    for (p, panel) in panels.into_iter().enumerate() {
        let mut sums = [[0.0f32; 2 * PANEL]; M];
        // SAFETY: `panel` holds `depth` inner values, `a` M rows, as promised.
        unsafe {
            every_inner_value!(depth, [panel], all, |k, b| {
                for (i, sums) in sums.iter_mut().enumerate() {
                    let value = *a.add(i * STRIDE + k);
                    for (sum, b) in sums.iter_mut().zip(&b[0]) {
                        *sum += value * b;
                    }
                }
            });
        }
        let count = PANEL.min(columns.saturating_sub(p * PANEL));
        // SAFETY: as promised.
        unsafe { store(&sums, p * PANEL, count, target) };
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const M: usize, const P: usize, S: Stored>(
    depth: usize,
    a: *const f32,
    panels: [*const S; P],
    columns: usize,
    target: Target,
) {
    use std::arch::x86_64::*;
    let panel = [panels[0]];
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    // SAFETY: the panel holds `depth` inner values and `a` M rows; whole panels are written only
    // where the target has as many columns.
    unsafe {
        every_inner_value!(depth, panel, eights, |k, b| {
            for (i, sums) in sums.iter_mut().enumerate() {
                let value = _mm256_broadcast_ss(&*a.add(i * STRIDE + k));
                sums[0] = _mm256_fmadd_ps(value, b[0][0], sums[0]);
                sums[1] = _mm256_fmadd_ps(value, b[0][1], sums[1]);
            }
        });
        if columns >= PANEL {
            for (i, sums) in sums.iter().enumerate() {
                let out = target.out.add(i * target.stride);
                for (half, sum) in sums.iter().enumerate() {
                    let out = out.add(8 * half);
                    let sum = if target.accumulate {
                        _mm256_add_ps(_mm256_loadu_ps(out), *sum)
                    } else {
                        *sum
                    };
                    _mm256_storeu_ps(out, sum);
                }
            }
        } else {
            let mut values = [[0.0f32; 2 * PANEL]; M];
            for (values, sums) in values.iter_mut().zip(&sums) {
                _mm256_storeu_ps(values.as_mut_ptr(), sums[0]);
                _mm256_storeu_ps(values.as_mut_ptr().add(8), sums[1]);
            }
            store(&values, 0, columns, target);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const M: usize, const P: usize, S: Stored>(
    depth: usize,
    a: *const f32,
    panels: [*const S; P],
    columns: usize,
    target: Target,
) {
    use std::arch::x86_64::*;
    let mut sums = [[_mm512_setzero_ps(); P]; M];
    // SAFETY: every panel holds `depth` inner values and `a` M rows; the masks keep the columns that
    // are written within the target's.
    unsafe {
        every_inner_value!(depth, panels, sixteen, |k, b| {
            for (i, sums) in sums.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*a.add(i * STRIDE + k));
                for (sum, b) in sums.iter_mut().zip(&b) {
                    *sum = _mm512_fmadd_ps(value, *b, *sum);
                }
            }
        });
        for p in 0..P {
            let count = PANEL.min(columns.saturating_sub(p * PANEL));
            let mask = ((1u32 << count) - 1) as u16;
            for (i, sums) in sums.iter().enumerate() {
                let out = target.out.add(i * target.stride + p * PANEL);
                let sum = if target.accumulate {
                    _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out), sums[p])
                } else {
                    sums[p]
                };
                _mm512_mask_storeu_ps(out, mask, sum);
            }
        }
    }
}
