//! The arithmetic that a thread of this machine can do at best: what kernels are measured against.

use crate::simd::Level;

/// Independent sums: enough to hide the latency of two fused multiply-adds a cycle.
const CHAINS: usize = 12;

/// Runs `rounds` rounds of multiply-adds in registers, in the vectors that kernels use here
/// (`BRISK_SIMD`), and returns the number of floating-point operations (two a multiply-add).
pub fn multiply_adds(rounds: usize) -> u64 {
    let lanes = run(rounds);
    2 * (rounds * CHAINS * lanes) as u64
}

fn run(rounds: usize) -> usize {
    match crate::simd::level() {
        Level::Portable => portable(rounds),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(_) | Level::Amx(_) => {
            // SAFETY: the level holds the proof that the processor has AVX-512.
            unsafe { x86::avx512(rounds) };
            16
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(_) | Level::AvxVnni(_) => {
            // SAFETY: the level holds the proof that the processor has AVX2 and FMA.
            unsafe { x86::avx2(rounds) };
            8
        }
    }
}

/// Four lanes that the compiler may vectorise for the baseline.
fn portable(rounds: usize) -> usize {
    const LANES: usize = 4;
    let (a, b) = std::hint::black_box((0.999f32, 0.001f32));
    let mut sums = [[1.0f32; LANES]; CHAINS];
    for _ in 0..rounds {
        for sum in sums.iter_mut().flatten() {
            *sum = *sum * a + b;
        }
    }
    std::hint::black_box(sums.iter().flatten().sum::<f32>());
    LANES
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::CHAINS;
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(rounds: usize) {
        let (a, b) = std::hint::black_box((_mm256_set1_ps(0.999), _mm256_set1_ps(0.001)));
        let mut sums = [_mm256_set1_ps(1.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        // By value: a reference would keep the sums out of registers.
        std::hint::black_box(sums.iter().fold(a, |total, sum| _mm256_add_ps(total, *sum)));
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(rounds: usize) {
        let (a, b) = std::hint::black_box((_mm512_set1_ps(0.999), _mm512_set1_ps(0.001)));
        let mut sums = [_mm512_set1_ps(1.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        // By value: a reference would keep the sums out of registers.
        std::hint::black_box(sums.iter().fold(a, |total, sum| _mm512_add_ps(total, *sum)));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn twice_the_rounds_are_twice_the_operations() {
        let once = super::multiply_adds(1000);
        assert_eq!(super::multiply_adds(2000), 2 * once);
        assert!(once >= 2 * 1000 * 12 * 4);
    }
}
