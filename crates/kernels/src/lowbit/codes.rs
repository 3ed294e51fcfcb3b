//! Eight-bit codes of rounded values, packed and summed: what every kernel that rounds ends with.

use std::arch::x86_64::*;

/// 32 codes as bytes, in order.
#[target_feature(enable = "avx2")]
pub(crate) fn bytes(codes: [__m256i; 4]) -> __m256i {
    let low = _mm256_packs_epi32(codes[0], codes[1]);
    let high = _mm256_packs_epi32(codes[2], codes[3]);
    // Packing works in halves: put their fours back in order.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order)
}

/// Sums of neighbouring codes, in 16 bits.
#[target_feature(enable = "avx2")]
pub(crate) fn pairs(bytes: __m256i) -> __m256i {
    _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes)
}

/// Sums of the first and of the last half of every four codes, from sums of pairs.
#[target_feature(enable = "avx2")]
pub(crate) fn halves(pairs: __m256i) -> [i32; 2] {
    [1, 1 << 16].map(|half| {
        let lanes = _mm256_madd_epi16(pairs, _mm256_set1_epi32(half));
        let lanes = _mm_add_epi32(
            _mm256_castsi256_si128(lanes),
            _mm256_extracti128_si256::<1>(lanes),
        );
        let lanes = _mm_add_epi32(lanes, _mm_shuffle_epi32::<0b00_00_11_10>(lanes));
        _mm_cvtsi128_si32(_mm_add_epi32(
            lanes,
            _mm_shuffle_epi32::<0b00_00_00_01>(lanes),
        ))
    })
}
