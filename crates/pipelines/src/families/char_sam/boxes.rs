//! One box for each character of a word (the paper's Character Bounding-box Refinement): what the detector finds in the
//! rectified word is merged or split until there are as many boxes as characters.

use brisk_media::shape::watershed;

/// Left, top, right and bottom in pixels of the rectified word.
pub type Bounds = [f64; 4];

/// Region scores of a character's middle, of what is tight about it, and of what is none.
const MIDDLE: f32 = 0.6;
const TIGHT: f32 = 0.25;
const NOTHING: f32 = 0.05;
/// Overlap in x, as a share of the narrower box, from which on two boxes are of one character.
const SAME: f64 = 0.6;
/// What a character more or less than the recogniser saw costs beside a pixel of width.
const DISAGREEMENT: f64 = 0.5;

/// Boxes of characters in a region map of `size`, `scale` pixels a place, from left to right.
pub fn from_region(region: &[f32], size: [usize; 2], scale: f64) -> Vec<Bounds> {
    let [width, height] = size;
    let clipped: Vec<f32> = region.iter().map(|value| value.clamp(0.0, 1.0)).collect();
    let (markers, count) = components(&clipped, size);
    let relief: Vec<f32> = clipped.iter().map(|value| -value).collect();
    let within: Vec<bool> = clipped.iter().map(|value| *value > NOTHING).collect();
    let basins = watershed(&relief, &markers, &within, width);
    let mut found: Vec<Option<[usize; 4]>> = vec![None; count];
    for at in 0..width * height {
        let Some(index) = (basins[at] as usize).checked_sub(1) else {
            continue;
        };
        if clipped[at] > TIGHT {
            let (x, y) = (at % width, at / width);
            let [left, top, right, bottom] = found[index].unwrap_or([x, y, x, y]);
            found[index] = Some([left.min(x), top.min(y), right.max(x), bottom.max(y)]);
        }
    }
    let mut boxes: Vec<Bounds> = found
        .into_iter()
        .flatten()
        .map(|[left, top, right, bottom]| {
            [left, top, right + 1, bottom + 1].map(|at| at as f64 * scale)
        })
        .collect();
    boxes.sort_by(|a, b| (a[0] + a[2]).total_cmp(&(b[0] + b[2])));
    boxes
}

/// Numbers of the connected parts that are middles of characters, and how many there are.
fn components(region: &[f32], [width, _]: [usize; 2]) -> (Vec<u32>, usize) {
    let mut labels = vec![0u32; region.len()];
    let (mut count, mut next) = (0, Vec::new());
    for start in 0..region.len() {
        if labels[start] != 0 || region[start] <= MIDDLE {
            continue;
        }
        count += 1;
        labels[start] = count;
        next.push(start);
        while let Some(at) = next.pop() {
            let x = at % width;
            let near = [
                (x > 0).then(|| at - 1),
                (x + 1 < width).then(|| at + 1),
                at.checked_sub(width),
                (at + width < region.len()).then(|| at + width),
            ];
            for near in near.into_iter().flatten() {
                if labels[near] == 0 && region[near] > MIDDLE {
                    labels[near] = count;
                    next.push(near);
                }
            }
        }
    }
    (labels, count as usize)
}

fn joined(a: Bounds, b: Bounds) -> Bounds {
    [
        a[0].min(b[0]),
        a[1].min(b[1]),
        a[2].max(b[2]),
        a[3].max(b[3]),
    ]
}

/// Boxes from left to right of which those that lie above each other (dots of i) are one, then, while there are more
/// than `count`, the two with the smallest gap.
pub fn merged(mut boxes: Vec<Bounds>, count: usize) -> Vec<Bounds> {
    let common = |a: &Bounds, b: &Bounds| a[2].min(b[2]) - a[0].max(b[0]);
    loop {
        let share = |pair: &[Bounds]| {
            let narrower = (pair[0][2] - pair[0][0]).min(pair[1][2] - pair[1][0]);
            common(&pair[0], &pair[1]) / narrower.max(1e-9)
        };
        let same = boxes.windows(2).position(|pair| share(pair) > SAME);
        let nearest = || {
            let gaps = boxes.windows(2).map(|pair| -common(&pair[0], &pair[1]));
            gaps.enumerate()
                .min_by(|a, b| a.1.total_cmp(&b.1))
                .map(|(index, _)| index)
        };
        let pair = match same {
            None if boxes.len() > count.max(1) => nearest(),
            other => other,
        };
        let Some(index) = pair else { return boxes };
        let second = boxes.remove(index + 1);
        boxes[index] = joined(boxes[index], second);
    }
}

/// How many of `advances.len()` characters each box holds, at least one: widths per character are to be near the
/// advances of those it gets, and numbers near what was `recognised` in it. None where there are more boxes than
/// characters.
pub fn shared_out(boxes: &[Bounds], advances: &[f64], recognised: &[usize]) -> Option<Vec<usize>> {
    let (parts, count) = (boxes.len(), advances.len());
    if parts == 0 || parts > count {
        return None;
    }
    // Advances in the unit of the boxes.
    let wide: f64 = boxes.iter().map(|bounds| bounds[2] - bounds[0]).sum();
    let unit = wide / advances.iter().sum::<f64>().max(1e-9);
    let cost = |part: usize, start: usize, held: usize| {
        let own = advances[start..start + held].iter().sum::<f64>() * unit;
        let width = boxes[part][2] - boxes[part][0];
        let seen = recognised.get(part).copied().unwrap_or(held);
        (width - own).abs() / held as f64 + DISAGREEMENT * unit * seen.abs_diff(held) as f64
    };
    // Of the first boxes with so many characters: the least cost, and how many the last one holds.
    let mut best = vec![vec![(f64::INFINITY, 0usize); count + 1]; parts + 1];
    best[0][0] = (0.0, 0);
    for part in 0..parts {
        for end in part + 1..=count {
            for held in 1..=end {
                let before = best[part][end - held].0;
                if before.is_finite() {
                    let cost = before + cost(part, end - held, held);
                    if cost < best[part + 1][end].0 {
                        best[part + 1][end] = (cost, held);
                    }
                }
            }
        }
    }
    let mut end = count;
    let mut held = vec![0; parts];
    for part in (0..parts).rev() {
        held[part] = best[part + 1][end].1;
        end = end.checked_sub(held[part])?;
    }
    held.iter().all(|held| *held > 0).then_some(held)
}

/// Boxes of `advances.len()` characters within `bounds`, each as wide as its advance tells.
pub fn by_advances(bounds: Bounds, advances: &[f64]) -> Vec<Bounds> {
    let [left, top, right, bottom] = bounds;
    let unit = (right - left) / advances.iter().sum::<f64>().max(1e-9);
    let mut at = left;
    let each = advances.iter().map(|advance| {
        let start = at;
        at += advance * unit;
        [start, top, at, bottom]
    });
    each.collect()
}

/// Splits a box by the segmenter's logits in it (`[height, width]`, rows from the top): basins around the peaks of the
/// columns' sums, or around where advances put the characters. None where a basin has no pixel of text.
pub fn split(
    logits: &[f32],
    width: usize,
    bounds: Bounds,
    advances: &[f64],
) -> Option<Vec<Bounds>> {
    let (count, height) = (advances.len(), logits.len().checked_div(width)?);
    if count == 0 || height == 0 {
        return None;
    }
    let centres = centres(logits, width, advances);
    let mut markers = vec![0u32; logits.len()];
    for (index, centre) in centres.iter().enumerate() {
        // The strongest pixel of the column stands for it.
        let best = (0..height)
            .max_by(|a, b| logits[a * width + centre].total_cmp(&logits[b * width + centre]))?;
        markers[best * width + centre] = index as u32 + 1;
    }
    let relief: Vec<f32> = logits.iter().map(|logit| -logit).collect();
    let basins = watershed(&relief, &markers, &vec![true; logits.len()], width);
    let mut found: Vec<Option<[usize; 4]>> = vec![None; count];
    for at in (0..logits.len()).filter(|at| logits[*at] > 0.0) {
        let Some(index) = (basins[at] as usize).checked_sub(1) else {
            continue;
        };
        let (x, y) = (at % width, at / width);
        let [left, top, right, bottom] = found[index].unwrap_or([x, y, x, y]);
        found[index] = Some([left.min(x), top.min(y), right.max(x), bottom.max(y)]);
    }
    let unit = [
        (bounds[2] - bounds[0]) / width as f64,
        (bounds[3] - bounds[1]) / height as f64,
    ];
    let place = |[left, top, right, bottom]: [usize; 4]| {
        [
            bounds[0] + left as f64 * unit[0],
            bounds[1] + top as f64 * unit[1],
            bounds[0] + (right + 1) as f64 * unit[0],
            bounds[1] + (bottom + 1) as f64 * unit[1],
        ]
    };
    found.into_iter().map(|bounds| bounds.map(place)).collect()
}

/// Columns of the characters' middles.
fn centres(logits: &[f32], width: usize, advances: &[f64]) -> Vec<usize> {
    let (count, height) = (advances.len(), logits.len() / width);
    let profile: Vec<f64> = (0..width)
        .map(|x| {
            (0..height)
                .map(|y| f64::from(logits[y * width + x].max(-4.0)))
                .sum()
        })
        .collect();
    let sigma = 0.15 * height as f64;
    let reach = (3.0 * sigma).ceil() as isize;
    let smooth = |x: usize| {
        let weighed = (-reach..=reach).map(|step| {
            let at = (x as isize + step).clamp(0, width as isize - 1) as usize;
            let weight = (-0.5 * (step as f64 / sigma.max(1e-9)).powi(2)).exp();
            (weight * profile[at], weight)
        });
        let (sum, weight) = weighed.fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        sum / weight
    };
    let smoothed: Vec<f64> = (0..width).map(smooth).collect();
    let is_peak = |x: &usize| {
        let before = x.checked_sub(1).map_or(f64::NEG_INFINITY, |x| smoothed[x]);
        let behind = smoothed.get(x + 1).copied().unwrap_or(f64::NEG_INFINITY);
        smoothed[*x] > before && smoothed[*x] >= behind
    };
    let mut peaks: Vec<usize> = (0..width).filter(is_peak).collect();
    peaks.sort_by(|a, b| smoothed[*b].total_cmp(&smoothed[*a]));
    let apart = 0.4 * width as f64 / count as f64;
    let mut chosen: Vec<usize> = Vec::new();
    for peak in peaks {
        if chosen.len() < count
            && chosen
                .iter()
                .all(|other| other.abs_diff(peak) as f64 >= apart)
        {
            chosen.push(peak);
        }
    }
    if chosen.len() < count {
        let expected = by_advances([0.0, 0.0, width as f64, 1.0], advances);
        chosen = expected
            .iter()
            .map(|bounds| (((bounds[0] + bounds[2]) / 2.0) as usize).min(width - 1))
            .collect();
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(left: f64, right: f64) -> Bounds {
        [left, 0.0, right, 10.0]
    }

    #[test]
    fn middles_become_boxes_that_do_not_meet() {
        let (width, height) = (40usize, 16usize);
        let score = |at: usize| {
            let far = |cx: f32| {
                (((at % width) as f32 - cx).powi(2) + ((at / width) as f32 - 8.0).powi(2)) / 18.0
            };
            (-far(10.0)).exp().max((-far(18.0)).exp())
        };
        let region: Vec<f32> = (0..width * height).map(score).collect();
        let found = from_region(&region, [width, height], 2.0);
        assert_eq!(found.len(), 2);
        assert!(found[0][2] <= found[1][0] + 2.0, "{found:?}");
        assert!((8.0..=12.0).contains(&found[0][0]), "{found:?}");
    }

    #[test]
    fn dots_belong_to_their_letters_and_surplus_boxes_are_joined() {
        let dotted = vec![
            bounds(0.0, 10.0),
            bounds(12.0, 15.0),
            bounds(12.5, 15.5),
            bounds(20.0, 30.0),
        ];
        assert_eq!(merged(dotted, 3).len(), 3);
        let wide = vec![bounds(0.0, 5.0), bounds(6.0, 10.0), bounds(20.0, 30.0)];
        assert_eq!(merged(wide, 2), [bounds(0.0, 10.0), bounds(20.0, 30.0)]);
        assert_eq!(merged(vec![bounds(0.0, 1.0)], 3).len(), 1);
    }

    #[test]
    fn characters_are_shared_out_by_width() {
        let boxes = [bounds(0.0, 10.0), bounds(12.0, 42.0), bounds(44.0, 54.0)];
        assert_eq!(
            shared_out(&boxes, &[1.0; 5], &[1, 3, 1]),
            Some(vec![1, 3, 1])
        );
        assert_eq!(
            shared_out(&boxes, &[1.0; 5], &[1, 1, 1]),
            Some(vec![1, 3, 1])
        );
        assert_eq!(shared_out(&boxes, &[1.0; 2], &[1, 1, 1]), None);
        let halves = by_advances([10.0, 0.0, 40.0, 8.0], &[1.0, 2.0]);
        assert_eq!(halves, [[10.0, 0.0, 20.0, 8.0], [20.0, 0.0, 40.0, 8.0]]);
    }

    #[test]
    fn glued_letters_are_split_between_their_peaks() {
        let (width, height) = (30usize, 12usize);
        let inside = |x: usize, y: usize| {
            (2..10).contains(&y) && ((2..13).contains(&x) || (16..28).contains(&x) || y == 6)
        };
        let logits: Vec<f32> = (0..width * height)
            .map(|at| {
                let (x, y) = (at % width, at / width);
                let near = (x as f32 - 7.0).abs().min((x as f32 - 22.0).abs());
                if inside(x, y) { 6.0 - 0.5 * near } else { -6.0 }
            })
            .collect();
        let found = split(&logits, width, [0.0, 0.0, 30.0, 12.0], &[1.0, 1.0]).unwrap();
        assert!(
            (13.0..=17.0).contains(&found[0][2]) && (13.0..=17.0).contains(&found[1][0]),
            "{found:?}"
        );
    }
}
