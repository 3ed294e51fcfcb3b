//! The product in vectors: eight or sixteen outputs side by side, four inputs of each a lane.

use super::super::rows::RowGroup;
use super::super::{Bits, GROUP};
use crate::gemm::layout::PANEL;
use crate::simd::prefetch;
use crate::simd::vectors::{
    load_bytes_16, load_bytes_32, load_bytes_64, load_eight, load_sixteen, store_eight,
    store_sixteen,
};
use crate::simd::x86::{Avx2, Avx512Vnni, AvxVnni};
use std::arch::x86_64::*;

/// Lanes of a group: four inputs each.
const STEPS: usize = GROUP / 4;
/// Bytes of a block's codes and scales.
const FOUR: (usize, usize) = (Bits::Four.codes(), Bits::Four.block());
const EIGHT: (usize, usize) = (Bits::Eight.codes(), Bits::Eight.block());

/// What a kernel adds to: a row's sums.
type Sums = [f32; PANEL];

/// Runs the kernel of the bits.
macro_rules! entry {
    ($(#[$doc:meta])* $name:ident, $isa:ty, $four:ident, $eight:ident) => {
        $(#[$doc])*
        pub(super) fn $name(
            _: $isa,
            bits: Bits,
            panel: &[u8],
            rows: &[RowGroup],
            sums: &mut [Sums],
        ) {
            match bits {
                // SAFETY: the first argument proves that the processor has what the function needs.
                Bits::Four => unsafe { $four(panel, rows, sums) },
                // SAFETY: as above.
                Bits::Eight => unsafe { $eight(panel, rows, sums) },
            }
        }
    };
}

entry!(
    /// With sums of pairs in 16 bits.
    avx2,
    Avx2,
    avx2_four,
    avx2_eight
);
entry!(
    /// With sums of four in 32 bits, eight outputs at a time.
    avx_vnni,
    AvxVnni,
    avx_vnni_four,
    avx_vnni_eight
);
entry!(
    /// With sums of four in 32 bits, sixteen outputs at a time.
    avx512_vnni,
    Avx512Vnni,
    avx512_vnni_four,
    avx512_vnni_eight
);

/// Blocks of a panel, while those that follow are on their way: the next panel's lie behind the last.
#[inline(always)]
fn blocks<const BYTES: usize>(panel: &[u8]) -> impl Iterator<Item = &[u8; BYTES]> {
    let blocks = panel.as_chunks().0.iter();
    blocks.inspect(|block| prefetch::past(*block, prefetch::AHEAD))
}

/// Four codes of a row, as a lane takes them.
#[inline(always)]
fn four_codes(row: &RowGroup, step: usize) -> i32 {
    i32::from_ne_bytes(row.codes.as_chunks::<4>().0[step].map(|code| code as u8))
}

/// Four codes of a row in every lane.
#[inline]
#[target_feature(enable = "avx2")]
fn eight_times(row: &RowGroup, step: usize) -> __m256i {
    _mm256_set1_epi32(four_codes(row, step))
}

/// Scales of eight outputs, the first or last ones of a block.
#[inline]
#[target_feature(enable = "avx2")]
fn eight_scales(scales: &[u8], half: usize) -> __m256 {
    let narrow = load_bytes_16(&scales.as_chunks().0[half]);
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(narrow)))
}

/// 4-bit codes of eight outputs, raised to be unsigned.
#[inline]
#[target_feature(enable = "avx2")]
fn raised_four(codes: &[u8], half: usize) -> [__m256i; STEPS] {
    let low = _mm256_set1_epi8(15);
    let mut w = [_mm256_setzero_si256(); STEPS];
    for (w, both) in w
        .as_chunks_mut::<2>()
        .0
        .iter_mut()
        .zip(codes.as_chunks::<64>().0)
    {
        let both = load_bytes_32(&both.as_chunks().0[half]);
        w[0] = _mm256_and_si256(both, low);
        w[1] = _mm256_and_si256(_mm256_srli_epi16::<4>(both), low);
    }
    w
}

/// 8-bit codes of eight outputs.
#[inline]
#[target_feature(enable = "avx2")]
fn signed_eight(codes: &[u8], half: usize) -> [__m256i; STEPS] {
    let mut w = [_mm256_setzero_si256(); STEPS];
    for (w, codes) in w.iter_mut().zip(codes.as_chunks::<64>().0) {
        *w = load_bytes_32(&codes.as_chunks().0[half]);
    }
    w
}

/// Adds a group's products, of eight outputs.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_eight(dot: __m256, scales: __m256, row: &RowGroup, sums: &mut Sums, half: usize) {
    let sums = &mut sums.as_chunks_mut().0[half];
    let scale = _mm256_mul_ps(scales, _mm256_set1_ps(row.scale));
    store_eight(sums, _mm256_fmadd_ps(dot, scale, load_eight(sums)));
}

#[target_feature(enable = "avx2,fma")]
fn avx2_four(panel: &[u8], rows: &[RowGroup], sums: &mut [Sums]) {
    let ones = _mm256_set1_epi16(1);
    let groups = rows.chunks_exact(sums.len());
    for (block, rows) in blocks::<{ FOUR.1 }>(panel).zip(groups) {
        let (codes, scales) = block.split_at(FOUR.0);
        for half in 0..2 {
            let w = raised_four(codes, half);
            let scales = eight_scales(scales, half);
            for (row, sums) in rows.iter().zip(sums.iter_mut()) {
                // Eight pairs of at most 2·15·127 fit 16 bits, and so does what starts them.
                let [low, high] = row.raised;
                let mut dot = _mm256_set1_epi32(i32::from(low as u16) | i32::from(high) << 16);
                for (s, w) in w.iter().enumerate() {
                    let products = _mm256_maddubs_epi16(*w, eight_times(row, s));
                    dot = _mm256_add_epi16(dot, products);
                }
                let dot = _mm256_cvtepi32_ps(_mm256_madd_epi16(dot, ones));
                add_eight(dot, scales, row, sums, half);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn avx2_eight(panel: &[u8], rows: &[RowGroup], sums: &mut [Sums]) {
    let ones = _mm256_set1_epi16(1);
    let groups = rows.chunks_exact(sums.len());
    for (block, rows) in blocks::<{ EIGHT.1 }>(panel).zip(groups) {
        let (codes, scales) = block.split_at(EIGHT.0);
        for half in 0..2 {
            let w = signed_eight(codes, half);
            let scales = eight_scales(scales, half);
            for (row, sums) in rows.iter().zip(sums.iter_mut()) {
                let mut dot = _mm256_setzero_si256();
                for (s, w) in w.iter().enumerate() {
                    // |a| times w with a's sign: no pair leaves 16 bits, 2·127·127.
                    let codes = eight_times(row, s);
                    let signed = _mm256_sign_epi8(*w, codes);
                    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), signed);
                    dot = _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, ones));
                }
                add_eight(_mm256_cvtepi32_ps(dot), scales, row, sums, half);
            }
        }
    }
}

/// All rows by the eight outputs whose codes, raised to be unsigned, are `w`; `start` makes up for the
/// raising.
#[inline]
#[target_feature(enable = "avxvnni,avx2,fma")]
fn avx_vnni_rows(
    w: &[__m256i; STEPS],
    scales: __m256,
    rows: &[RowGroup],
    start: impl Fn(&RowGroup) -> i32,
    (sums, half): (&mut [Sums], usize),
) {
    for (row, sums) in rows.iter().zip(sums) {
        let mut dot = _mm256_set1_epi32(start(row));
        for (s, w) in w.iter().enumerate() {
            dot = _mm256_dpbusd_avx_epi32(dot, *w, eight_times(row, s));
        }
        add_eight(_mm256_cvtepi32_ps(dot), scales, row, sums, half);
    }
}

#[target_feature(enable = "avxvnni,avx2,fma")]
fn avx_vnni_four(panel: &[u8], rows: &[RowGroup], sums: &mut [Sums]) {
    let groups = rows.chunks_exact(sums.len());
    for (block, rows) in blocks::<{ FOUR.1 }>(panel).zip(groups) {
        let (codes, scales) = block.split_at(FOUR.0);
        for half in 0..2 {
            let w = raised_four(codes, half);
            let scales = eight_scales(scales, half);
            avx_vnni_rows(&w, scales, rows, |row| row.raised_four, (sums, half));
        }
    }
}

#[target_feature(enable = "avxvnni,avx2,fma")]
fn avx_vnni_eight(panel: &[u8], rows: &[RowGroup], sums: &mut [Sums]) {
    let raise = _mm256_set1_epi8(-128);
    let groups = rows.chunks_exact(sums.len());
    for (block, rows) in blocks::<{ EIGHT.1 }>(panel).zip(groups) {
        let (codes, scales) = block.split_at(EIGHT.0);
        for half in 0..2 {
            let mut w = signed_eight(codes, half);
            for w in &mut w {
                *w = _mm256_xor_si256(*w, raise);
            }
            let scales = eight_scales(scales, half);
            avx_vnni_rows(&w, scales, rows, |row| row.raised_eight, (sums, half));
        }
    }
}

/// All rows by the sixteen outputs whose codes, raised to be unsigned, are `w`; `start` makes up for the
/// raising.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
fn avx512_vnni_rows(
    w: &[__m512i; STEPS],
    scales: &[u8],
    rows: &[RowGroup],
    start: impl Fn(&RowGroup) -> i32,
    sums: &mut [Sums],
) {
    let narrow = load_bytes_32(&scales.as_chunks().0[0]);
    let scales = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(narrow)));
    for (row, sums) in rows.iter().zip(sums) {
        let mut dot = _mm512_set1_epi32(start(row));
        for (s, w) in w.iter().enumerate() {
            dot = _mm512_dpbusd_epi32(dot, *w, _mm512_set1_epi32(four_codes(row, s)));
        }
        let scale = _mm512_mul_ps(scales, _mm512_set1_ps(row.scale));
        let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, load_sixteen(sums));
        store_sixteen(sums, sum);
    }
}

#[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
fn avx512_vnni_four(panel: &[u8], rows: &[RowGroup], sums: &mut [Sums]) {
    let low = _mm512_set1_epi32(0x0f0f_0f0f);
    let groups = rows.chunks_exact(sums.len());
    for (block, rows) in blocks::<{ FOUR.1 }>(panel).zip(groups) {
        let (codes, scales) = block.split_at(FOUR.0);
        let mut w = [_mm512_setzero_si512(); STEPS];
        for (w, both) in w.as_chunks_mut::<2>().0.iter_mut().zip(codes.as_chunks().0) {
            let both = load_bytes_64(both);
            w[0] = _mm512_and_si512(both, low);
            w[1] = _mm512_and_si512(_mm512_srli_epi32::<4>(both), low);
        }
        avx512_vnni_rows(&w, scales, rows, |row| row.raised_four, sums);
    }
}

#[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
fn avx512_vnni_eight(panel: &[u8], rows: &[RowGroup], sums: &mut [Sums]) {
    let raise = _mm512_set1_epi32(0x8080_8080_u32 as i32);
    let groups = rows.chunks_exact(sums.len());
    for (block, rows) in blocks::<{ EIGHT.1 }>(panel).zip(groups) {
        let (codes, scales) = block.split_at(EIGHT.0);
        let mut w = [_mm512_setzero_si512(); STEPS];
        for (w, codes) in w.iter_mut().zip(codes.as_chunks().0) {
            *w = _mm512_xor_si512(load_bytes_64(codes), raise);
        }
        avx512_vnni_rows(&w, scales, rows, |row| row.raised_eight, sums);
    }
}
