//! What sampling needs of a row of logits: its largest value and where it stands, the sum of its exponentials, and the row with
//! all but the likeliest left out.

use super::math;
use crate::simd::simd_dispatch;
use rayon::prelude::*;

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

/// Turns a row into probabilities. A row without a finite logit becomes zeros.
pub fn softmax(row: &mut [f32]) {
    let top = maximum(row);
    if top == f32::NEG_INFINITY {
        row.fill(0.0);
        return;
    }
    let inverse = (1.0 / exponential_sum(row, top)) as f32;
    for value in row {
        // The exponential of what was left out is not quite zero.
        *value = match *value {
            f32::NEG_INFINITY => 0.0,
            value => math::exp(value - top) * inverse,
        };
    }
}

/// Most heads of [`softmax_by_head`].
pub const MOST_HEADS: usize = 64;

/// Turns the scores `[.., keys, heads]` of queries into probabilities over the keys of each head.
///
/// # Panics
/// No head, or more than [`MOST_HEADS`]; scores that do not fill rows.
pub fn softmax_by_head(scores: &mut [f32], keys: usize, heads: usize) {
    assert!(
        keys > 0 && (1..=MOST_HEADS).contains(&heads) && scores.len().is_multiple_of(keys * heads),
        "{} scores of {keys} keys and {heads} heads",
        scores.len()
    );
    let row = keys * heads;
    let rows = (1usize << 14).div_ceil(row);
    scores
        .par_chunks_mut(rows * row)
        .for_each(|some| rows_by_head(some, row, heads));
}

simd_dispatch! {
    fn rows_by_head(scores: &mut [f32], row: usize, heads: usize) {
        let (mut most, mut sums) = ([0.0f32; MOST_HEADS], [0.0f32; MOST_HEADS]);
        let (most, sums) = (&mut most[..heads], &mut sums[..heads]);
        for row in scores.chunks_exact_mut(row) {
            most.fill(f32::NEG_INFINITY);
            for keys in row.chunks_exact(heads) {
                for (most, score) in most.iter_mut().zip(keys) {
                    *most = if *score > *most { *score } else { *most };
                }
            }
            sums.fill(0.0);
            for keys in row.chunks_exact_mut(heads) {
                for ((score, most), sum) in keys.iter_mut().zip(&*most).zip(&mut *sums) {
                    *score = math::exp(*score - *most);
                    *sum += *score;
                }
            }
            for keys in row.chunks_exact_mut(heads) {
                for (score, sum) in keys.iter_mut().zip(&*sums) {
                    *score /= *sum;
                }
            }
        }
    }
}

/// The place of the largest value, the first of equals; NaN is passed over.
pub fn likeliest(row: &[f32]) -> u32 {
    let first = (0, f32::NEG_INFINITY);
    let places = row.iter().copied().enumerate();
    let best = places.fold(
        first,
        |best, next| if next.1 > best.1 { next } else { best },
    );
    best.0 as u32
}

/// Leaves out (−∞) what is below the `count`-th largest logit; equals of that one stay.
pub fn keep_largest(row: &mut [f32], count: usize) {
    if count == 0 || count >= row.len() {
        return;
    }
    let mut sorted = row.to_vec();
    let (_, least, _) = sorted.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
    let least = *least;
    for logit in row.iter_mut().filter(|logit| **logit < least) {
        *logit = f32::NEG_INFINITY;
    }
}

/// Leaves out (−∞) the least likely logits whose probabilities sum to at most `1 − mass`; the likeliest
/// always stays. Probabilities are those of the row as it is.
pub fn keep_probable(row: &mut [f32], mass: f64) {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|a, b| row[*a].total_cmp(&row[*b]));
    let Some((_, others)) = order.split_last() else {
        return;
    };
    let top = maximum(row);
    let sum = exponential_sum(row, top);
    let mut below = 0.0;
    for &place in others {
        below += f64::from(math::exp(row[place] - top)) / sum;
        if below > 1.0 - mass {
            return;
        }
        row[place] = f32::NEG_INFINITY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_largest_is_likeliest() {
        assert_eq!(likeliest(&[0.0, 2.0, f32::NAN, 2.0, -1.0]), 1);
        assert_eq!(likeliest(&[f32::NEG_INFINITY; 3]), 0);
    }
    use crate::reference::noise;

    const OUT: f32 = f32::NEG_INFINITY;

    #[test]
    fn heads_that_lie_side_by_side_are_apart() {
        for (queries, keys, heads) in [(3, 5, 2), (40, 7, 8), (1, 1, 1), (9000, 3, 1)] {
            let scores: Vec<f32> = noise(queries * keys * heads, 3)
                .iter()
                .map(|x| 9.0 * x)
                .collect();
            let mut found = scores.clone();
            softmax_by_head(&mut found, keys, heads);
            for (at, found) in found.iter().enumerate() {
                let (query, head) = (at / (keys * heads), at % heads);
                let mut row: Vec<f32> = (0..keys)
                    .map(|key| scores[(query * keys + key) * heads + head])
                    .collect();
                softmax(&mut row);
                let wanted = row[at / heads % keys];
                assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
            }
        }
    }

    #[test]
    fn the_likeliest_stay() {
        let row = [1.0, 3.0, 2.0, 3.0, 0.0];
        for (count, wanted) in [
            (1, [OUT, 3.0, OUT, 3.0, OUT]),
            (3, [OUT, 3.0, 2.0, 3.0, OUT]),
            (5, row),
            (0, row),
            (9, row),
        ] {
            let mut found = row;
            keep_largest(&mut found, count);
            assert_eq!(found, wanted, "{count}");
        }
        let row = [0.5f32.ln(), 0.1f32.ln(), 0.3f32.ln(), 0.1f32.ln()];
        for (mass, kept) in [(1.0, 4), (0.85, 3), (0.75, 2), (0.4, 1), (0.0, 1)] {
            let mut found = row;
            keep_probable(&mut found, mass);
            let count = found.iter().filter(|logit| **logit > OUT).count();
            assert_eq!((count, found[0]), (kept, row[0]), "{mass}");
        }
        keep_probable(&mut [], 0.5);
    }

    #[test]
    fn probabilities_sum_to_one() {
        let mut row = [2.0, OUT, 1.0];
        softmax(&mut row);
        let first = 1.0 / (1.0 + (-1.0f32).exp());
        assert!((row[0] - first).abs() < 1e-6 && row[1] == 0.0, "{row:?}");
        assert!((row[0] + row[2] - 1.0).abs() < 1e-6, "{row:?}");
        let mut none = [OUT; 3];
        softmax(&mut none);
        assert_eq!(none, [0.0; 3]);
    }

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
