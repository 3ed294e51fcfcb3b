//! Candidates for the smoothing factors: λ = a^α / w^β, from the largest activation a and the
//! largest weight w of each input.

/// Exponents of one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Exponents {
    /// Of the activations.
    pub alpha: f32,
    /// Of the weights.
    pub beta: f32,
}

/// The candidates of a search with `grids` steps: none, activations alone, and both with exponents
/// that add up to one; 2·grids − 1 of them.
pub fn candidates(grids: usize) -> Vec<Exponents> {
    let step = |i: usize| i as f32 / grids as f32;
    let alone = (1..grids).map(|i| Exponents {
        alpha: step(i),
        beta: 0.0,
    });
    let both = (1..grids).map(|i| Exponents {
        alpha: step(i),
        beta: 1.0 - step(i),
    });
    std::iter::once(Exponents::default())
        .chain(alone)
        .chain(both)
        .collect()
}

/// Largest size in each column of a matrix with rows of `width`.
pub fn column_peaks(values: &[f32], width: usize) -> Vec<f32> {
    let mut peaks = vec![0.0f32; width];
    for row in values.chunks_exact(width) {
        for (peak, value) in peaks.iter_mut().zip(row) {
            *peak = peak.max(value.abs());
        }
    }
    peaks
}

/// The factors of a candidate. A factor that is zero becomes 1; if one is not finite, all do.
pub fn factors(inputs: &[f32], weights: &[f32], exponents: Exponents) -> Vec<f32> {
    let factor = |(a, w): (&f32, &f32)| {
        let factor = a.powf(exponents.alpha) / w.powf(exponents.beta);
        if factor == 0.0 { 1.0 } else { factor }
    };
    let factors: Vec<f32> = inputs.iter().zip(weights).map(factor).collect();
    if factors.iter().all(|f| f.is_finite()) {
        factors
    } else {
        vec![1.0; inputs.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_those_of_the_paper() {
        let all = candidates(20);
        assert_eq!(all.len(), 39);
        assert_eq!(all[0], Exponents::default());
        assert_eq!((all[1].alpha, all[1].beta), (0.05, 0.0));
        assert_eq!((all[20].alpha, all[20].beta), (0.05, 0.95));
        assert_eq!(candidates(10).len(), 19);
    }

    #[test]
    fn factors_follow_the_formula_and_never_break_a_layer() {
        let half = Exponents {
            alpha: 0.5,
            beta: 0.5,
        };
        assert_eq!(factors(&[4.0, 0.0], &[1.0, 2.0], half), [2.0, 1.0]);
        assert_eq!(factors(&[4.0, 1.0], &[0.0, 2.0], half), [1.0, 1.0]);
        assert_eq!(
            factors(&[4.0, 9.0], &[5.0, 2.0], Exponents::default()),
            [1.0, 1.0]
        );
        assert_eq!(column_peaks(&[1.0, -2.0, -3.0, 1.0], 2), [3.0, 2.0]);
    }
}
