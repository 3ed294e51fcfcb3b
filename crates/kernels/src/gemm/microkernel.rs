//! The innermost product: a few rows of the input times panels of packed weights, in registers.
//!
//! Weights come in panels of [`PANEL`] outputs: f32 with value (k, j) at `k·PANEL + j`, bf16 as
//! [`Pair`](super::layout::Pair)s; rows of the input stand [`STRIDE`] apart, so that their addresses are
//! constants of the code. One kernel for each [`Level`].

use super::layout::{PANEL, STRIDE, Target};
use super::stored::Stored;
use crate::simd::Level;

/// Runs a step for every inner value: its number, and the values of each panel.
macro_rules! every_inner_value {
    ($depth:ident, $panels:expr, $ahead:ident, $load:ident, |$k:ident, $b:ident| $step:block) => {
        for pair in 0..$depth / 2 {
            for panel in $panels {
                S::fetch(panel, pair, $ahead);
            }
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

/// Rows and panels that the kernel of a level takes at most.
pub(crate) fn tile_shape(level: Level) -> (usize, usize) {
    match level {
        Level::Portable => (4, 1),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(_) | Level::AvxVnni(_) => (6, 1),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(_) | Level::Amx(_) => (12, 2),
    }
}

/// `target[i, j] (+)= Σ_k a[i·STRIDE + k]·panel[k, j]` for `rows` rows and `columns` columns over
/// one or two panels. What lies `ahead` bytes past the values in work is asked for.
///
/// # Safety
/// `a` holds `rows` rows of `depth`, every panel `depth` inner values; the panels cover `columns`; the
/// target holds `rows` rows of as many, and nobody else uses it.
///
/// # Panics
/// When rows or panels are more than [`tile_shape`] says.
pub(crate) unsafe fn tile<S: Stored>(
    level: Level,
    rows: usize,
    depth: usize,
    a: *const f32,
    (panels, ahead): (&[&[S]], usize),
    columns: usize,
    target: Target,
) {
    macro_rules! by_rows {
        ($kernel:ident, $count:literal, $($rows:literal)*) => {{
            let mut held = [std::ptr::null(); $count];
            for (held, panel) in held.iter_mut().zip(panels) {
                *held = panel.as_ptr();
            }
            match rows {
                $($rows => {
                    // SAFETY: the arm that names the kernel has the level that proves its instructions
                    // and the number of panels; the rest is as the caller promised.
                    unsafe { $kernel::<$rows, $count, S>(depth, a, (held, ahead), columns, target) }
                })*
                _ => unreachable!("a tile of {rows} rows"),
            }
        }};
    }
    match (level, panels.len()) {
        (Level::Portable, 1) => by_rows!(portable, 1, 1 2 3 4),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2(_) | Level::AvxVnni(_), 1) => by_rows!(avx2, 1, 1 2 3 4 5 6),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512(_) | Level::Amx(_), 1) => by_rows!(avx512, 1, 1 2 3 4 5 6 7 8 9 10 11 12),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512(_) | Level::Amx(_), 2) => by_rows!(avx512, 2, 1 2 3 4 5 6 7 8 9 10 11 12),
        (level, count) => unreachable!("a tile of {count} panels at {level:?}"),
    }
}

/// Adds or writes finished rows from column `first` on, cutting the columns that only fill the panel.
///
/// # Safety
/// The target holds M rows of at least `first + columns`, and nobody else uses it.
unsafe fn store<const M: usize>(
    sums: &[[f32; PANEL]; M],
    first: usize,
    columns: usize,
    target: Target,
) {
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums[..columns].iter().enumerate() {
            // SAFETY: row i and column `first + j` are within what the caller promised.
            unsafe {
                let out = target.out.add(i * target.stride + first + j);
                *out = if target.accumulate { *out + sum } else { *sum };
            }
        }
    }
}

/// `sum + a·b`, fused where every processor of the target has that; elsewhere it would be a call.
#[inline(always)]
fn multiply_add(a: f32, b: f32, sum: f32) -> f32 {
    if cfg!(target_arch = "aarch64") {
        a.mul_add(b, sum)
    } else {
        sum + a * b
    }
}

/// # Safety
/// As for [`tile`], with M rows and P panels.
unsafe fn portable<const M: usize, const P: usize, S: Stored>(
    depth: usize,
    a: *const f32,
    (panels, ahead): ([*const S; P], usize),
    columns: usize,
    target: Target,
) {
    for (p, panel) in panels.into_iter().enumerate() {
        let mut sums = [[0.0f32; PANEL]; M];
        // SAFETY: the caller promised `depth` inner values of the panel and of each of M rows of `a`.
        unsafe {
            every_inner_value!(depth, [panel], ahead, all, |k, b| {
                for (i, sums) in sums.iter_mut().enumerate() {
                    let value = *a.add(i * STRIDE + k);
                    for (sum, b) in sums.iter_mut().zip(&b[0]) {
                        *sum = multiply_add(value, *b, *sum);
                    }
                }
            });
        }
        let count = PANEL.min(columns.saturating_sub(p * PANEL));
        // SAFETY: the caller promised M rows of `columns`, of which these are.
        unsafe { store(&sums, p * PANEL, count, target) };
    }
}

/// # Safety
/// As for [`tile`], with M rows and one panel, on a processor with AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const M: usize, const P: usize, S: Stored>(
    depth: usize,
    a: *const f32,
    (panels, ahead): ([*const S; P], usize),
    columns: usize,
    target: Target,
) {
    use std::arch::x86_64::*;
    let panel = [panels[0]];
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    // SAFETY: the caller promised `depth` inner values of the panel and of each of M rows of `a`, and M
    // rows of `columns` in the target; whole panels are written only where that is a panel.
    unsafe {
        every_inner_value!(depth, panel, ahead, eights, |k, b| {
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
            let mut values = [[0.0f32; PANEL]; M];
            for (values, sums) in values.iter_mut().zip(&sums) {
                _mm256_storeu_ps(values.as_mut_ptr(), sums[0]);
                _mm256_storeu_ps(values.as_mut_ptr().add(8), sums[1]);
            }
            store(&values, 0, columns, target);
        }
    }
}

/// # Safety
/// As for [`tile`], with M rows and P panels, on a processor with AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const M: usize, const P: usize, S: Stored>(
    depth: usize,
    a: *const f32,
    (panels, ahead): ([*const S; P], usize),
    columns: usize,
    target: Target,
) {
    use std::arch::x86_64::*;
    let mut sums = [[_mm512_setzero_ps(); P]; M];
    // SAFETY: the caller promised `depth` inner values of every panel and of each of M rows of `a`, and M
    // rows of `columns` in the target, within which the masks keep what is read and written.
    unsafe {
        every_inner_value!(depth, panels, ahead, sixteen, |k, b| {
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
