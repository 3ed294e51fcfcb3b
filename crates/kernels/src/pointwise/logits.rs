//! What sampling needs of a row of logits: its largest value and the sum of its exponentials.

use super::math;
use crate::simd::simd_dispatch;

simd_dispatch! {
    /// The largest value; −∞ for an empty row. NaN is passed over.
    pub fn maximum(row: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; 16];
        let (chunks, rest) = row.as_chunks::<16>();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = if *value > *lane { *value } else { *lane };
            }
        }
        let larger = |a: f32, b: &f32| if *b > a { *b } else { a };
        let most = lanes.iter().fold(f32::NEG_INFINITY, larger);
        rest.iter().fold(most, larger)
    }
}

simd_dispatch! {
    /// `Σ exp(l − top)`, exponentials in f32 (relative error under 2e-7), their sum in f64.
    pub fn exponential_sum(row: &[f32], top: f32) -> f64 {
        let mut lanes = [0.0f64; 8];
        let (chunks, rest) = row.as_chunks::<8>();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(math::exp(*value - top));
            }
        }
        let rest: f64 = rest.iter().map(|value| f64::from(math::exp(value - top))).sum();
        lanes.iter().sum::<f64>() + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::noise;

    #[test]
    fn sums_and_maxima_of_any_length() {
        for count in [0, 1, 7, 16, 1000, 50_001] {
            let row: Vec<f32> = noise(count, 3).into_iter().map(|v| 20.0 * v).collect();
            let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(maximum(&row), top);
            let exact: f64 = row
                .iter()
                .map(|v| (f64::from(*v) - f64::from(top)).exp())
                .sum();
            let found = exponential_sum(&row, top);
            assert!(
                (found - exact).abs() <= 5e-7 * exact,
                "{count}: {found}, {exact}"
            );
        }
        let row = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY];
        assert!((exponential_sum(&row, maximum(&row)) - 1.0).abs() < 1e-30);
    }
}
