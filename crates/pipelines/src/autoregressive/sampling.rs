//! From a row of logits to a code.

use brisk_nn::logits;

/// How codes are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Most codes that come into question, equals of the last one besides; 0: all.
    pub top_k: usize,
    /// Share of the probability that they have together, the likeliest first; 1: all.
    pub top_p: f64,
}

impl Sampling {
    /// Leaves out (−∞) what does not come into question.
    pub fn limit(&self, row: &mut [f32]) {
        logits::keep_largest(row, self.top_k);
        if self.top_p < 1.0 {
            logits::keep_probable(row, self.top_p);
        }
    }

    /// A code of a row in which what does not come into question was left out, by its probability; `uniform`,
    /// in (0, 1), decides.
    pub fn draw(row: &[f32], uniform: f64) -> u32 {
        let top = logits::maximum(row);
        let goal = logits::exponential_sum(row, top) * uniform;
        let (mut sum, mut last) = (0.0, 0);
        for (code, value) in row.iter().enumerate() {
            if *value == f32::NEG_INFINITY {
                continue;
            }
            last = code;
            sum += f64::from(value - top).exp();
            if sum > goal {
                break;
            }
        }
        // Rounding may leave the sum below the goal at the end.
        last as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_drawn_by_their_probability() {
        let row = [0.5f32.ln(), f32::NEG_INFINITY, 0.2f32.ln(), 0.3f32.ln()];
        let mut counts = [0; 4];
        for index in 0..1000 {
            counts[Sampling::draw(&row, (index as f64 + 0.5) / 1000.0) as usize] += 1;
        }
        assert_eq!(counts, [500, 0, 200, 300]);
        assert_eq!(Sampling::draw(&row, 1.0), 3);
    }

    #[test]
    fn both_limits_hold() {
        let logits = [0.4f32.ln(), 0.3f32.ln(), 0.2f32.ln(), 0.1f32.ln()];
        let kept = |top_k, top_p| {
            let mut row = logits;
            Sampling { top_k, top_p }.limit(&mut row);
            row.iter().filter(|value| value.is_finite()).count()
        };
        assert_eq!(
            (kept(0, 1.0), kept(3, 1.0), kept(0, 0.65), kept(3, 0.5)),
            (4, 3, 2, 2)
        );
    }
}
