//! Loads and stores of whole vectors, which are safe because an array has the vector's length.

use std::arch::x86_64::*;

/// Defines a load: its name, the array, the vector, and the instruction.
macro_rules! load {
    ($name:ident, $features:literal, $array:ty, $vector:ty, $instruction:ident) => {
        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn $name(from: &$array) -> $vector {
            // SAFETY: the array is as long as the vector; any address will do.
            unsafe { $instruction(from.as_ptr().cast()) }
        }
    };
}

/// Defines a store, as [`load!`] a load.
macro_rules! store {
    ($name:ident, $features:literal, $array:ty, $vector:ty, $instruction:ident) => {
        #[inline]
        #[target_feature(enable = $features)]
        pub(crate) fn $name(to: &mut $array, vector: $vector) {
            // SAFETY: the array is as long as the vector; any address will do.
            unsafe { $instruction(to.as_mut_ptr().cast(), vector) }
        }
    };
}

load!(load_bytes_16, "avx2", [u8; 16], __m128i, _mm_loadu_si128);
load!(load_bytes_32, "avx2", [u8; 32], __m256i, _mm256_loadu_si256);
load!(
    load_bytes_64,
    "avx512f",
    [u8; 64],
    __m512i,
    _mm512_loadu_si512
);
load!(load_eight, "avx2", [f32; 8], __m256, _mm256_loadu_ps);
load!(load_sixteen, "avx512f", [f32; 16], __m512, _mm512_loadu_ps);
store!(
    store_codes_32,
    "avx2",
    [i8; 32],
    __m256i,
    _mm256_storeu_si256
);
store!(store_eight, "avx2", [f32; 8], __m256, _mm256_storeu_ps);
store!(
    store_sixteen,
    "avx512f",
    [f32; 16],
    __m512,
    _mm512_storeu_ps
);
