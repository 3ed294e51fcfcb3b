//! The innermost product: groups of quantised rows times one panel of quantised weights, in integers,
//! with one multiply-add a group to bring in the scales.
//!
//! Every kernel takes a group of the panel once and all rows by it, so weights come from memory once
//! and in order, however many rows there are.

use super::matrix::{QuantisedMatrix, read_codes, read_scale};
use super::rows::RowGroup;
use super::{Bits, GROUP};
use crate::microkernel::PANEL;
use crate::simd::{self, Level};

/// `sums[i][j] = Σ_k row i · output j` for one panel: `rows` holds the groups of `sums.len()` rows as
/// [`quantise_rows`](super::rows::quantise_rows) makes them.
pub(super) fn panel_product(
    level: Level,
    w: &QuantisedMatrix,
    index: usize,
    rows: &[RowGroup],
    sums: &mut [[f32; PANEL]],
) {
    let panel = w.panel(index);
    assert_eq!(rows.len(), w.groups() * sums.len(), "groups of rows");
    sums.fill([0.0; PANEL]);
    match (level, w.bits()) {
        // SAFETY (all): the level says what the processor has; panel and rows hold the same groups,
        // as was checked above.
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512 | Level::Amx, Bits::Four) if simd::has_vnni() => unsafe {
            x86::vnni_four(panel, rows, sums)
        },
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512 | Level::Amx, Bits::Eight) if simd::has_vnni() => unsafe {
            x86::vnni_eight(panel, rows, sums)
        },
        #[cfg(target_arch = "x86_64")]
        (Level::AvxVnni, Bits::Four) => unsafe { x86::avx_vnni_four(panel, rows, sums) },
        #[cfg(target_arch = "x86_64")]
        (Level::AvxVnni, Bits::Eight) => unsafe { x86::avx_vnni_eight(panel, rows, sums) },
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512 | Level::Avx2, Bits::Four) => unsafe { x86::avx2_four(panel, rows, sums) },
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512 | Level::Avx2, Bits::Eight) => unsafe { x86::avx2_eight(panel, rows, sums) },
        (_, bits) => portable(bits, panel, rows, sums),
    }
}

fn portable(bits: Bits, panel: &[u8], rows: &[RowGroup], sums: &mut [[f32; PANEL]]) {
    let mut codes = [[0i8; GROUP]; PANEL];
    let groups = rows.chunks_exact(sums.len());
    for (block, rows) in panel.chunks_exact(bits.block()).zip(groups) {
        read_codes(bits, block, &mut codes);
        let scales: [f32; PANEL] = std::array::from_fn(|j| read_scale(bits, block, j));
        for (row, sums) in rows.iter().zip(sums.iter_mut()) {
            for ((codes, scale), sum) in codes.iter().zip(scales).zip(sums) {
                let products = codes.iter().zip(&row.codes);
                let dot: i32 = products
                    .map(|(w, a)| i32::from(i16::from(*w) * i16::from(*a)))
                    .sum();
                *sum += dot as f32 * (scale * row.scale);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    /// Four codes of a row in every lane.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn four_codes(row: &RowGroup, step: usize) -> __m256i {
        // SAFETY: the step lies within the group.
        unsafe {
            _mm256_set1_epi32(
                row.codes
                    .as_ptr()
                    .add(4 * step)
                    .cast::<i32>()
                    .read_unaligned(),
            )
        }
    }

    /// Scales of eight outputs.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn eight_scales(at: *const u8) -> __m256 {
        // SAFETY: eight bf16 stand there, as the caller promised.
        let narrow = unsafe { _mm_loadu_si128(at.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(narrow)))
    }

    /// 4-bit codes of eight outputs, raised to be unsigned.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn raised_four(block: &[u8], half: usize) -> [__m256i; 8] {
        let low = _mm256_set1_epi8(15);
        let mut w = [_mm256_setzero_si256(); 8];
        for s in 0..4 {
            // SAFETY: a block holds 4 times 64 bytes of codes.
            let both = unsafe { _mm256_loadu_si256(block.as_ptr().add(64 * s + 32 * half).cast()) };
            w[2 * s] = _mm256_and_si256(both, low);
            w[2 * s + 1] = _mm256_and_si256(_mm256_srli_epi16::<4>(both), low);
        }
        w
    }

    /// 8-bit codes of eight outputs.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn signed_eight(block: &[u8], half: usize) -> [__m256i; 8] {
        let mut w = [_mm256_setzero_si256(); 8];
        for (s, w) in w.iter_mut().enumerate() {
            // SAFETY: a block holds 8 times 64 bytes of codes.
            *w = unsafe { _mm256_loadu_si256(block.as_ptr().add(64 * s + 32 * half).cast()) };
        }
        w
    }

    /// # Safety
    /// The processor has AVX2 and FMA; panel and rows hold equally many groups.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2_four(panel: &[u8], rows: &[RowGroup], sums: &mut [[f32; PANEL]]) {
        let ones = _mm256_set1_epi16(1);
        let groups = rows.chunks_exact(sums.len());
        for (block, rows) in panel.chunks_exact(Bits::Four.block()).zip(groups) {
            for half in 0..2 {
                // SAFETY: a block holds 4 times 64 bytes of codes and 32 of scales; sums are 16 wide.
                unsafe {
                    let w = raised_four(block, half);
                    let scales = eight_scales(block.as_ptr().add(Bits::Four.codes() + 16 * half));
                    for (row, sums) in rows.iter().zip(sums.iter_mut()) {
                        // Eight pairs of at most 2·15·127 fit 16 bits, and so does what starts them.
                        let start = row.raised.as_ptr().cast::<i32>().read_unaligned();
                        let mut dot = _mm256_set1_epi32(start);
                        for (s, w) in w.iter().enumerate() {
                            dot =
                                _mm256_add_epi16(dot, _mm256_maddubs_epi16(*w, four_codes(row, s)));
                        }
                        let dot = _mm256_cvtepi32_ps(_mm256_madd_epi16(dot, ones));
                        let scale = _mm256_mul_ps(scales, _mm256_broadcast_ss(&row.scale));
                        let sum = sums.as_mut_ptr().add(8 * half);
                        _mm256_storeu_ps(sum, _mm256_fmadd_ps(dot, scale, _mm256_loadu_ps(sum)));
                    }
                }
            }
        }
    }

    /// # Safety
    /// The processor has AVX2 and FMA; panel and rows hold equally many groups.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2_eight(panel: &[u8], rows: &[RowGroup], sums: &mut [[f32; PANEL]]) {
        let ones = _mm256_set1_epi16(1);
        let groups = rows.chunks_exact(sums.len());
        for (block, rows) in panel.chunks_exact(Bits::Eight.block()).zip(groups) {
            for half in 0..2 {
                // SAFETY: a block holds 8 times 64 bytes of codes and 32 of scales; sums are 16 wide.
                unsafe {
                    let w = signed_eight(block, half);
                    let scales = eight_scales(block.as_ptr().add(Bits::Eight.codes() + 16 * half));
                    for (row, sums) in rows.iter().zip(sums.iter_mut()) {
                        let mut dot = _mm256_setzero_si256();
                        for (s, w) in w.iter().enumerate() {
                            // |a| times w with a's sign: no pair leaves 16 bits, 2·127·127.
                            let codes = four_codes(row, s);
                            let signed = _mm256_sign_epi8(*w, codes);
                            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), signed);
                            dot = _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, ones));
                        }
                        let dot = _mm256_cvtepi32_ps(dot);
                        let scale = _mm256_mul_ps(scales, _mm256_broadcast_ss(&row.scale));
                        let sum = sums.as_mut_ptr().add(8 * half);
                        _mm256_storeu_ps(sum, _mm256_fmadd_ps(dot, scale, _mm256_loadu_ps(sum)));
                    }
                }
            }
        }
    }

    /// All rows by the eight outputs whose codes, raised to be unsigned, are `w`.
    #[target_feature(enable = "avxvnni,avx2,fma")]
    unsafe fn avx_vnni_rows(
        w: &[__m256i; 8],
        scales: *const u8,
        rows: &[RowGroup],
        start: impl Fn(&RowGroup) -> i32,
        (sums, half): (&mut [[f32; PANEL]], usize),
    ) {
        // SAFETY: eight scales stand there; every sum is 16 wide.
        unsafe {
            let scales = eight_scales(scales);
            for (row, sums) in rows.iter().zip(sums.iter_mut()) {
                let mut dot = _mm256_set1_epi32(start(row));
                for (s, w) in w.iter().enumerate() {
                    dot = _mm256_dpbusd_avx_epi32(dot, *w, four_codes(row, s));
                }
                let scale = _mm256_mul_ps(scales, _mm256_broadcast_ss(&row.scale));
                let sum = sums.as_mut_ptr().add(8 * half);
                let before = _mm256_loadu_ps(sum);
                _mm256_storeu_ps(sum, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, before));
            }
        }
    }

    /// # Safety
    /// The processor has AVX-VNNI; panel and rows hold equally many groups.
    #[target_feature(enable = "avxvnni,avx2,fma")]
    pub(super) unsafe fn avx_vnni_four(panel: &[u8], rows: &[RowGroup], sums: &mut [[f32; PANEL]]) {
        let groups = rows.chunks_exact(sums.len());
        for (block, rows) in panel.chunks_exact(Bits::Four.block()).zip(groups) {
            for half in 0..2 {
                // SAFETY: a block holds 4 times 64 bytes of codes and 32 of scales.
                unsafe {
                    let w = raised_four(block, half);
                    let scales = block.as_ptr().add(Bits::Four.codes() + 16 * half);
                    avx_vnni_rows(&w, scales, rows, |row| row.raised_four, (sums, half));
                }
            }
        }
    }

    /// # Safety
    /// The processor has AVX-VNNI; panel and rows hold equally many groups.
    #[target_feature(enable = "avxvnni,avx2,fma")]
    pub(super) unsafe fn avx_vnni_eight(
        panel: &[u8],
        rows: &[RowGroup],
        sums: &mut [[f32; PANEL]],
    ) {
        let raise = _mm256_set1_epi8(-128);
        let groups = rows.chunks_exact(sums.len());
        for (block, rows) in panel.chunks_exact(Bits::Eight.block()).zip(groups) {
            for half in 0..2 {
                // SAFETY: a block holds 8 times 64 bytes of codes and 32 of scales.
                unsafe {
                    let w = signed_eight(block, half).map(|w| _mm256_xor_si256(w, raise));
                    let scales = block.as_ptr().add(Bits::Eight.codes() + 16 * half);
                    avx_vnni_rows(&w, scales, rows, |row| row.raised_eight, (sums, half));
                }
            }
        }
    }

    /// All rows by the sixteen outputs whose codes, raised to be unsigned, are `w`.
    #[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
    unsafe fn vnni_rows(
        w: &[__m512i; 8],
        scales: *const u8,
        rows: &[RowGroup],
        start: impl Fn(&RowGroup) -> i32,
        sums: &mut [[f32; PANEL]],
    ) {
        // SAFETY: sixteen scales stand there; every sum is 16 wide.
        unsafe {
            let narrow = _mm256_loadu_si256(scales.cast());
            let scales =
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(narrow)));
            for (row, sums) in rows.iter().zip(sums.iter_mut()) {
                let mut dot = _mm512_set1_epi32(start(row));
                for (s, w) in w.iter().enumerate() {
                    let codes = row.codes.as_ptr().add(4 * s).cast::<i32>().read_unaligned();
                    dot = _mm512_dpbusd_epi32(dot, *w, _mm512_set1_epi32(codes));
                }
                let scale = _mm512_mul_ps(scales, _mm512_set1_ps(row.scale));
                let sum = _mm512_loadu_ps(sums.as_ptr());
                let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, sum);
                _mm512_storeu_ps(sums.as_mut_ptr(), sum);
            }
        }
    }

    /// # Safety
    /// The processor has AVX-512 with VNNI; panel and rows hold equally many groups.
    #[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
    pub(super) unsafe fn vnni_four(panel: &[u8], rows: &[RowGroup], sums: &mut [[f32; PANEL]]) {
        let low = _mm512_set1_epi32(0x0f0f_0f0f);
        let groups = rows.chunks_exact(sums.len());
        for (block, rows) in panel.chunks_exact(Bits::Four.block()).zip(groups) {
            // SAFETY: a block holds 4 times 64 bytes of codes and 32 of scales.
            unsafe {
                let mut w = [_mm512_setzero_si512(); 8];
                for s in 0..4 {
                    let both = _mm512_loadu_si512(block.as_ptr().add(64 * s).cast());
                    w[2 * s] = _mm512_and_si512(both, low);
                    w[2 * s + 1] = _mm512_and_si512(_mm512_srli_epi32::<4>(both), low);
                }
                let scales = block.as_ptr().add(Bits::Four.codes());
                vnni_rows(&w, scales, rows, |row| row.raised_four, sums);
            }
        }
    }

    /// # Safety
    /// The processor has AVX-512 with VNNI; panel and rows hold equally many groups.
    #[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
    pub(super) unsafe fn vnni_eight(panel: &[u8], rows: &[RowGroup], sums: &mut [[f32; PANEL]]) {
        let raise = _mm512_set1_epi32(0x8080_8080_u32 as i32);
        let groups = rows.chunks_exact(sums.len());
        for (block, rows) in panel.chunks_exact(Bits::Eight.block()).zip(groups) {
            // SAFETY: a block holds 8 times 64 bytes of codes and 32 of scales.
            unsafe {
                let mut w = [_mm512_setzero_si512(); 8];
                for (s, w) in w.iter_mut().enumerate() {
                    let signed = _mm512_loadu_si512(block.as_ptr().add(64 * s).cast());
                    *w = _mm512_xor_si512(signed, raise);
                }
                let scales = block.as_ptr().add(Bits::Eight.codes());
                vnni_rows(&w, scales, rows, |row| row.raised_eight, sums);
            }
        }
    }
}
