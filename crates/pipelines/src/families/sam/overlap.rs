//! Of boxes that overlap, the best.

/// Indices of the boxes `[left, top, right, bottom]` that stay, best first: a box goes where one that stays
/// before it covers more than `most` of what the two cover together.
pub(super) fn without_duplicates(boxes: &[[f32; 4]], scores: &[f32], most: f32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..boxes.len().min(scores.len())).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let mut kept: Vec<usize> = Vec::new();
    for index in order {
        let duplicate = |other: &usize| overlap(&boxes[*other], &boxes[index]) > most;
        if !kept.iter().any(duplicate) {
            kept.push(index);
        }
    }
    kept
}

/// Intersection over union; not a number for two boxes without area.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |x: &[f32; 4]| (x[2] - x[0]) * (x[3] - x[1]);
    let side = |low: usize| (a[low + 2].min(b[low + 2]) - a[low].max(b[low])).max(0.0);
    let common = side(0) * side(1);
    common / (area(a) + area(b) - common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_those_that_overlap_stays() {
        let boxes = [
            [0.0, 0.0, 10.0, 10.0],
            [1.0, 0.0, 11.0, 10.0],
            [20.0, 0.0, 30.0, 10.0],
            [5.0, 5.0, 5.0, 5.0],
            [5.0, 5.0, 5.0, 5.0],
        ];
        let scores = [0.5, 0.9, 0.1, 0.2, 0.2];
        assert_eq!(without_duplicates(&boxes, &scores, 0.7), [1, 3, 4, 2]);
        assert_eq!(without_duplicates(&boxes, &scores, 0.9), [1, 0, 3, 4, 2]);
    }
}
