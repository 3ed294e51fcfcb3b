//! The innermost integer product: a few rows of rounded inputs times a panel of 16 outputs.
//!
//! Weights are unpacked to bytes 0..15 (the code plus 8), which is what the processor's unsigned times
//! signed product wants; sums start at −8·Σ activations, so they end at the signed result. Without
//! VNNI a whole group is added in 16 bits: sums may wrap on the way, but a signed result of 32 products
//! within ±8·127 fits. Tile registers take signed weights, and sums that start at nothing.

use super::GROUP;
#[cfg(target_arch = "x86_64")]
use super::level::INTEGERS;
use super::level::rows;
use super::operands::{GROUP_UNPACKED, Tile, store};
use crate::gemm::layout::{PANEL, Target};
use crate::simd::{ByteProducts, Level, simd_dispatch};

/// Groups at most whose unpacked weights stay in the first-level cache.
pub(crate) const BLOCK_GROUPS: usize = 10;

simd_dispatch! {
    /// Packed groups to bytes, less `offset`: 0, or 8 for signed ones.
    pub(crate) fn unpack(packed: &[u8], offset: u8, out: &mut [u8]) {
        let groups = packed.chunks_exact(GROUP_UNPACKED / 2);
        for (packed, out) in groups.zip(out.chunks_exact_mut(GROUP_UNPACKED)) {
            let (low, high) = out.split_at_mut(GROUP_UNPACKED / 2);
            for ((packed, low), high) in packed.iter().zip(low).zip(high) {
                *low = (packed & 15).wrapping_sub(offset);
                *high = (packed >> 4).wrapping_sub(offset);
            }
        }
    }
}

/// What a thread holds while it multiplies.
pub(crate) struct Session {
    level: Level,
    #[cfg(target_arch = "x86_64")]
    tiles: Option<crate::gemm::amx::Tiles>,
}

impl Session {
    pub fn begin(level: Level) -> Self {
        Self {
            level,
            #[cfg(target_arch = "x86_64")]
            tiles: match level {
                Level::Amx(isa) => Some(crate::gemm::amx::Tiles::configure(isa)),
                _ => None,
            },
        }
    }
}

/// The products of all rows, to the target.
///
/// # Safety
/// The target holds the rows with `tile.columns` each, and nobody else uses it.
///
/// # Panics
/// When the tile's factors are shorter than its sizes say.
pub(crate) unsafe fn multiply(session: &Session, tile: &Tile, target: Target) {
    let groups = tile.groups.len();
    assert!(tile.rows.end * tile.rounded.groups <= tile.rounded.scales.len());
    assert!(tile.groups.end <= tile.rounded.groups && tile.columns <= PANEL);
    assert!(tile.weights.len() >= groups * GROUP_UNPACKED);
    assert!(tile.scales.len() >= groups * PANEL);
    #[cfg(target_arch = "x86_64")]
    if let Some(tiles) = &session.tiles {
        // SAFETY: the assertions found the factors long enough; the target is as the caller promised.
        return unsafe { super::amx::multiply(tiles, tile, target) };
    }
    let count = tile.rows.len();
    let parts = count.div_ceil(rows(session.level));
    for i in 0..parts {
        // Of nearly equal height.
        let (start, end) = (count * i / parts, count * (i + 1) / parts);
        let part = Tile {
            rows: tile.rows.start + start..tile.rows.start + end,
            groups: tile.groups.clone(),
            ..*tile
        };
        // SAFETY: the part's factors are within those found long enough, its rows within the target that
        // the caller promised; they are at most as many as the kernel takes.
        unsafe {
            let out = target.out.add(start * target.stride);
            multiply_part(session.level, &part, Target { out, ..target });
        }
    }
}

/// # Safety
/// As for [`multiply`]; the tile's factors are as long as its sizes say.
///
/// # Panics
/// When there are more than [`rows`] rows.
unsafe fn multiply_part(level: Level, tile: &Tile, target: Target) {
    macro_rules! by_rows {
        ($kernel:ident, $($rows:literal)*) => {
            match tile.rows.len() {
                0 => {}
                $($rows => {
                    // SAFETY: the arm that names the kernel has the proof of its instructions; the rest is
                    // as the caller promised.
                    unsafe { $kernel::<$rows>(tile, target) }
                })*
                count => unreachable!("a tile of {count} rows"),
            }
        };
    }
    match level.byte_products() {
        ByteProducts::Portable => by_rows!(portable, 1),
        #[cfg(target_arch = "x86_64")]
        ByteProducts::Avx2(_) => by_rows!(avx2, 1 2 3 4),
        #[cfg(target_arch = "x86_64")]
        ByteProducts::AvxVnni(_) => by_rows!(avx_vnni, 1 2 3 4),
        // With tiles this kernel has none of the rows: a session of that level holds them.
        #[cfg(target_arch = "x86_64")]
        ByteProducts::Avx512Vnni(_) | ByteProducts::Amx(_) => by_rows!(vnni, 1 2 3 4 5 6 7 8),
    }
}

/// # Safety
/// The target holds M rows of `tile.columns`, and nobody else uses it.
unsafe fn portable<const M: usize>(tile: &Tile, target: Target) {
    for (i, row) in tile.rows.clone().enumerate() {
        let mut sums = [0.0f32; PANEL];
        for (g, group) in tile.groups.clone().enumerate() {
            let at = row * tile.rounded.groups + group;
            let codes = &tile.rounded.codes[at * GROUP..][..GROUP];
            let weights = &tile.weights[g * GROUP_UNPACKED..][..GROUP_UNPACKED];
            let mut totals = [tile.rounded.offsets[at]; PANEL];
            for (weights, codes) in weights.chunks_exact(4 * PANEL).zip(codes.chunks_exact(4)) {
                for (total, weights) in totals.iter_mut().zip(weights.chunks_exact(4)) {
                    let pairs = weights.iter().zip(codes);
                    *total += pairs
                        .map(|(w, a)| i32::from(*w) * i32::from(*a))
                        .sum::<i32>();
                }
            }
            let scales = &tile.scales[g * PANEL..][..PANEL];
            for ((sum, total), scale) in sums.iter_mut().zip(&totals).zip(scales) {
                *sum += *total as f32 * (tile.rounded.scales[at] * scale);
            }
        }
        // SAFETY: the caller promised row `i` of as many columns.
        unsafe { store(&sums, tile.columns, i, target) };
    }
}

/// A kernel in vectors of eight sums: how four products are added to each, and how a group's sums become
/// f32.
macro_rules! eights {
    ($name:ident, $features:literal, |$sum:ident, $w:ident, $a:ident| $add:expr, |$total:ident| $finish:expr) => {
        /// # Safety
        /// The processor has the features; the tile has M rows and factors as long as its sizes say; the
        /// target holds M rows of `tile.columns`, and nobody else uses it.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        unsafe fn $name<const M: usize>(tile: &Tile, target: Target) {
            use std::arch::x86_64::*;
            let rounded = tile.rounded;
            let mut sums = [[_mm256_setzero_ps(); 2]; M];
            // SAFETY: the caller promised rows and groups within `rounded`, weights and scales of these
            // groups, and a target with as many columns as are written.
            unsafe {
                let first = tile.rows.start * rounded.groups + tile.groups.start;
                let mut weights = tile.weights.as_ptr();
                let mut scales = tile.scales.as_ptr();
                let mut codes = rounded.codes.as_ptr().add(first * GROUP);
                for g in 0..tile.groups.len() {
                    let at = first + g;
                    let mut totals = [[_mm256_setzero_si256(); 2]; M];
                    for (i, totals) in totals.iter_mut().enumerate() {
                        let offset = *rounded.offsets.as_ptr().add(at + i * rounded.groups);
                        *totals = [_mm256_set1_epi32(offset); 2];
                    }
                    for quad in 0..GROUP / 4 {
                        let w = weights.add(quad * 4 * PANEL).cast::<__m256i>();
                        let w = [_mm256_loadu_si256(w), _mm256_loadu_si256(w.add(1))];
                        for (i, totals) in totals.iter_mut().enumerate() {
                            let a = codes
                                .add(i * rounded.groups * GROUP + quad * 4)
                                .cast::<i32>();
                            let a = _mm256_set1_epi32(a.read_unaligned());
                            for ($sum, $w) in totals.iter_mut().zip(w) {
                                let $a = a;
                                *$sum = $add;
                            }
                        }
                    }
                    let w = [_mm256_loadu_ps(scales), _mm256_loadu_ps(scales.add(8))];
                    for (i, (sums, totals)) in sums.iter_mut().zip(&totals).enumerate() {
                        let scale =
                            _mm256_set1_ps(*rounded.scales.as_ptr().add(at + i * rounded.groups));
                        for half in 0..2 {
                            let $total = totals[half];
                            let total = $finish;
                            let scale = _mm256_mul_ps(scale, w[half]);
                            sums[half] = _mm256_fmadd_ps(total, scale, sums[half]);
                        }
                    }
                    weights = weights.add(GROUP_UNPACKED);
                    scales = scales.add(PANEL);
                    codes = codes.add(GROUP);
                }
                for (i, sums) in sums.iter().enumerate() {
                    if tile.columns == PANEL {
                        let out = target.out.add(i * target.stride);
                        for (out, sum) in [out, out.add(8)].into_iter().zip(sums) {
                            let sum = if target.accumulate {
                                _mm256_add_ps(_mm256_loadu_ps(out), *sum)
                            } else {
                                *sum
                            };
                            _mm256_storeu_ps(out, sum);
                        }
                    } else {
                        let mut values = [0.0f32; PANEL];
                        _mm256_storeu_ps(values.as_mut_ptr(), sums[0]);
                        _mm256_storeu_ps(values.as_mut_ptr().add(8), sums[1]);
                        store(&values, tile.columns, i, target);
                    }
                }
            }
        }
    };
}

eights!(
    avx2,
    "avx2,fma",
    |sum, w, a| _mm256_add_epi16(*sum, _mm256_maddubs_epi16(w, a)),
    |total| _mm256_cvtepi32_ps(_mm256_madd_epi16(total, _mm256_set1_epi16(1)))
);
eights!(
    avx_vnni,
    "avxvnni,avx2,fma",
    |sum, w, a| _mm256_dpbusd_avx_epi32(*sum, w, a),
    |total| _mm256_sub_ps(
        _mm256_castsi256_ps(total),
        _mm256_set1_ps(f32::from_bits(INTEGERS as u32))
    )
);

/// # Safety
/// The processor has AVX-512 VNNI; the tile has M rows and factors as long as its sizes say; the target
/// holds M rows of `tile.columns`, and nobody else uses it.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn vnni<const M: usize>(tile: &Tile, target: Target) {
    use std::arch::x86_64::*;
    let rounded = tile.rounded;
    let mut sums = [_mm512_setzero_ps(); M];
    // SAFETY: the caller promised rows and groups within `rounded`, weights and scales of these groups, and
    // a target of M rows of the columns that are stored.
    unsafe {
        let first = tile.rows.start * rounded.groups + tile.groups.start;
        let mut weights = tile.weights.as_ptr();
        let mut codes = rounded.codes.as_ptr().add(first * GROUP);
        for g in 0..tile.groups.len() {
            let at = first + g;
            let mut totals = [_mm512_setzero_si512(); M];
            for (i, total) in totals.iter_mut().enumerate() {
                let offset = *rounded.offsets.as_ptr().add(at + i * rounded.groups);
                *total = _mm512_set1_epi32(offset);
            }
            for quad in 0..GROUP / 4 {
                let w = _mm512_loadu_si512(weights.add(quad * 4 * PANEL).cast());
                for (i, total) in totals.iter_mut().enumerate() {
                    let a = codes
                        .add(i * rounded.groups * GROUP + quad * 4)
                        .cast::<i32>();
                    let a = _mm512_set1_epi32(a.read_unaligned());
                    *total = _mm512_dpbusd_epi32(*total, w, a);
                }
            }
            let w = _mm512_loadu_ps(tile.scales.as_ptr().add(g * PANEL));
            for (i, (sum, total)) in sums.iter_mut().zip(&totals).enumerate() {
                let scale = _mm512_set1_ps(*rounded.scales.as_ptr().add(at + i * rounded.groups));
                let scale = _mm512_mul_ps(scale, w);
                *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(*total), scale, *sum);
            }
            weights = weights.add(GROUP_UNPACKED);
            codes = codes.add(GROUP);
        }
        super::operands::store_sixteens(&sums, tile.columns, target);
    }
}
