//! Connectionist temporal classification (Graves et al. 2006): how likely columns spell a text, over all ways in which its
//! characters may lie along them.

/// The negative logarithm of a text's likelihood, and its gradient with respect to `logits` `[columns, classes]`; class 0
/// is none. Nothing of a text that the columns cannot hold.
pub(super) fn alignment_loss(
    logits: &[f32],
    classes: usize,
    text: &[usize],
) -> Option<(f64, Vec<f32>)> {
    let columns = logits.len() / classes;
    let repeated = text.windows(2).filter(|pair| pair[0] == pair[1]).count();
    if columns < text.len() + repeated || columns == 0 {
        return None;
    }
    // None before, between and behind the characters.
    let states: Vec<usize> = (0..2 * text.len() + 1)
        .map(|state| if state % 2 == 0 { 0 } else { text[state / 2] })
        .collect();
    let count = states.len();
    let likely: Vec<f64> = logits.chunks_exact(classes).flat_map(log_softmax).collect();
    let of = |column: usize, state: usize| likely[column * classes + states[state]];
    let skips =
        |state: usize| state >= 2 && states[state] != 0 && states[state] != states[state - 2];
    let lowest = f64::NEG_INFINITY;
    let mut before = vec![lowest; columns * count];
    before[0] = of(0, 0);
    if count > 1 {
        before[1] = of(0, 1);
    }
    for column in 1..columns {
        for state in 0..count {
            let from = |state: usize| before[(column - 1) * count + state];
            let mut sum = from(state);
            if state >= 1 {
                sum = log_sum(sum, from(state - 1));
            }
            if skips(state) {
                sum = log_sum(sum, from(state - 2));
            }
            before[column * count + state] = sum + of(column, state);
        }
    }
    let mut behind = vec![lowest; columns * count];
    let last = (columns - 1) * count;
    behind[last + count - 1] = 0.0;
    if count > 1 {
        behind[last + count - 2] = 0.0;
    }
    for column in (0..columns - 1).rev() {
        for state in 0..count {
            let to = |state: usize| behind[(column + 1) * count + state] + of(column + 1, state);
            let mut sum = to(state);
            if state + 1 < count {
                sum = log_sum(sum, to(state + 1));
            }
            if state + 2 < count && skips(state + 2) {
                sum = log_sum(sum, to(state + 2));
            }
            behind[column * count + state] = sum;
        }
    }
    let end = |state: usize| before[last + state];
    let all = match count {
        1 => end(0),
        _ => log_sum(end(count - 1), end(count - 2)),
    };
    if !all.is_finite() {
        return None;
    }
    let mut gradient: Vec<f32> = likely.iter().map(|value| value.exp() as f32).collect();
    for column in 0..columns {
        for state in 0..count {
            let at = column * count + state;
            let share = (before[at] + behind[at] - all).exp();
            gradient[column * classes + states[state]] -= share as f32;
        }
    }
    Some((-all, gradient))
}

/// The negative logarithm of the likelihood that every column is of the class that is at its place, and its gradient with
/// respect to `logits` `[columns, classes]`.
pub(super) fn place_loss(logits: &[f32], classes: usize, columns: &[usize]) -> (f64, Vec<f32>) {
    let mut sum = 0.0;
    let mut gradient = Vec::with_capacity(logits.len());
    for (row, class) in logits.chunks_exact(classes).zip(columns) {
        let likely = log_softmax(row);
        sum -= likely[*class];
        let start = gradient.len();
        gradient.extend(likely.iter().map(|value| value.exp() as f32));
        gradient[start + class] -= 1.0;
    }
    (sum, gradient)
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = || row.iter().map(|x| f64::from(x - largest));
    let sum = shifted().map(f64::exp).sum::<f64>().ln();
    shifted().map(|x| x - sum).collect()
}

fn log_sum(a: f64, b: f64) -> f64 {
    let (large, small) = if a > b { (a, b) } else { (b, a) };
    if small == f64::NEG_INFINITY {
        return large;
    }
    large + (small - large).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(columns: usize, classes: usize) -> Vec<f32> {
        (0..columns * classes)
            .map(|at| 2.0 * (at as f32 * 0.83).sin())
            .collect()
    }

    /// What columns spell.
    fn spelt(classes: &[usize]) -> Vec<usize> {
        let mut text = Vec::new();
        let mut before = 0;
        for class in classes {
            if *class != 0 && *class != before {
                text.push(*class);
            }
            before = *class;
        }
        text
    }

    #[test]
    fn the_likelihood_is_the_sum_over_all_paths() {
        let (columns, classes) = (4usize, 3usize);
        let logits = logits(columns, classes);
        let likely: Vec<f64> = logits.chunks(classes).flat_map(log_softmax).collect();
        for text in [vec![], vec![1], vec![2, 1], vec![1, 1], vec![1, 2, 1]] {
            let mut sum = 0.0;
            for path in 0..classes.pow(columns as u32) {
                let path: Vec<usize> = (0..columns)
                    .map(|at| path / classes.pow(at as u32) % classes)
                    .collect();
                if spelt(&path) == text {
                    let each = path.iter().enumerate();
                    sum += each
                        .map(|(at, class)| likely[at * classes + class])
                        .sum::<f64>()
                        .exp();
                }
            }
            let (loss, _) = alignment_loss(&logits, classes, &text).unwrap();
            assert!(
                (loss + sum.ln()).abs() < 1e-9,
                "{text:?} {loss} {}",
                -sum.ln()
            );
        }
        assert_eq!(alignment_loss(&logits, classes, &[1, 1, 1]), None);
    }

    #[test]
    fn gradients_are_slopes() {
        let (columns, classes) = (6usize, 4usize);
        let logits = logits(columns, classes);
        let aligned = |logits: &[f32]| alignment_loss(logits, classes, &[3, 1, 1]).unwrap();
        let placed = |logits: &[f32]| place_loss(logits, classes, &[0, 3, 3, 0, 1, 1]);
        type Losses<'a> = [&'a dyn Fn(&[f32]) -> (f64, Vec<f32>); 2];
        let losses: Losses = [&aligned, &placed];
        for loss in losses {
            let (_, gradient) = loss(&logits);
            for at in 0..logits.len() {
                let moved = |by: f32| {
                    let mut logits = logits.clone();
                    logits[at] += by;
                    loss(&logits).0
                };
                let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!((slope - f64::from(gradient[at])).abs() < 1e-3, "{at}");
            }
        }
    }
}
