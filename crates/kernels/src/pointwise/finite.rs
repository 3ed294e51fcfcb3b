//! Whether values are numbers.

use crate::simd::simd_dispatch;
use rayon::prelude::*;

/// Values a task looks at.
const RUN: usize = 1 << 16;

simd_dispatch! {
    fn run(values: &[f32]) -> bool {
        const EXPONENT: u32 = 0x7f80_0000;
        // The largest exponent is that of infinity and NaN; no branch per value.
        let largest = values.iter().map(|v| v.to_bits() & EXPONENT).fold(0, u32::max);
        largest < EXPONENT
    }
}

/// Whether no value is infinite or NaN.
pub fn all_finite(values: &[f32]) -> bool {
    if values.len() <= RUN {
        return run(values);
    }
    values.par_chunks(RUN).all(run)
}

#[cfg(test)]
mod tests {
    use super::all_finite;

    #[test]
    fn one_bad_value_is_found_anywhere() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (len, at) in [(1, 0), (100, 99), (200_000, 70_001)] {
                let mut values = vec![f32::MAX; len];
                assert!(all_finite(&values));
                values[at] = bad;
                assert!(!all_finite(&values));
            }
        }
        assert!(all_finite(&[]));
    }
}
