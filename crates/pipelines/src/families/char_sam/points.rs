//! Points on a letter's strokes and in its holes (the paper's Character Glyph Refinement).

use brisk_media::Mask;
use brisk_media::mask::Regions;
use brisk_media::shape::{convex_hull, distances, skeleton};

use super::glyphs::Fitted;

/// Length of strokes for a point, as a share of the letter's height; and how many points there are.
const STROKE: f64 = 0.35;
const FEWEST: usize = 2;
const MOST: usize = 8;
/// Most points in bays, which are open counters.
const BAYS: usize = 4;
/// Strokes thinner than this are not made thinner, in pixels of the canvas.
const THIN: f32 = 1.5;
/// Holes and bays of a smaller radius are passed over, and points nearer to strokes, in pixels of the canvas.
const SMALL: f32 = 2.0;
const NEAR: f32 = 1.5;

/// Places of a canvas, in pixels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LetterPoints {
    /// On strokes.
    pub positive: Vec<[f64; 2]>,
    /// In holes and bays.
    pub negative: Vec<[f64; 2]>,
}

/// Where all letters agree that there is ink, and that there is none.
pub fn agreed(fitted: &[Fitted]) -> (Vec<bool>, Vec<bool>) {
    let length = fitted.first().map_or(0, |one| one.pixels.len());
    let all = |inside: bool| {
        (0..length)
            .map(|at| fitted.iter().all(|one| one.pixels[at] == inside))
            .collect()
    };
    (all(true), all(false))
}

/// Points of letters on a canvas of this size; `bounds` is the character's box there.
pub fn points(fitted: &[Fitted], size: [usize; 2], bounds: [f64; 4]) -> LetterPoints {
    let (ink, blank) = agreed(fitted);
    let [width, height] = size;
    let masks = (
        Mask::new(width, height, ink),
        Mask::new(width, height, blank),
    );
    let (Ok(ink), Ok(blank)) = masks else {
        return LetterPoints::default();
    };
    LetterPoints {
        positive: on_strokes(&ink, bounds[3] - bounds[1]),
        negative: beside_strokes(&ink, &blank),
    }
}

fn middle(at: usize, width: usize) -> [f64; 2] {
    [(at % width) as f64 + 0.5, (at / width) as f64 + 0.5]
}

/// Points on the centre lines, the first where a stroke is thickest, each next one farthest from the others.
fn on_strokes(ink: &Mask, height: f64) -> Vec<[f64; 2]> {
    let width = ink.width();
    let depth = distances(ink);
    let thickest = depth
        .iter()
        .copied()
        .filter(|depth| depth.is_finite())
        .fold(0.0, f32::max);
    let thinner: Vec<bool> = depth.iter().map(|depth| *depth > 1.0).collect();
    let thinned = match thickest > THIN {
        true => Mask::new(width, ink.height(), thinner).unwrap_or_else(|_| ink.clone()),
        false => ink.clone(),
    };
    let line = skeleton(&thinned);
    let places: Vec<usize> = (0..line.len()).filter(|at| line[*at]).collect();
    let Some(first) = places
        .iter()
        .copied()
        .max_by(|a, b| depth[*a].total_cmp(&depth[*b]))
    else {
        return Vec::new();
    };
    let wanted = (places.len() as f64 / (STROKE * height).max(1.0)).round() as usize;
    let mut chosen = vec![first];
    let square = |a: usize, b: usize| {
        (a % width).abs_diff(b % width).pow(2) + (a / width).abs_diff(b / width).pow(2)
    };
    while chosen.len() < wanted.clamp(FEWEST, MOST).min(places.len()) {
        let farthest = places.iter().copied().max_by_key(|at| {
            chosen
                .iter()
                .map(|other| square(*at, *other))
                .min()
                .unwrap_or(0)
        });
        chosen.extend(farthest);
    }
    chosen.into_iter().map(|at| middle(at, width)).collect()
}

/// A point in the middle of each hole, and of the largest bays within the letter's hull.
fn beside_strokes(ink: &Mask, blank: &Mask) -> Vec<[f64; 2]> {
    let width = ink.width();
    let outside: Vec<bool> = ink.pixels().iter().map(|inside| !inside).collect();
    let Ok(outside) = Mask::new(width, ink.height(), outside) else {
        return Vec::new();
    };
    let free = distances(&outside);
    let holes = ink.holes();
    let hull = hull_of(ink);
    let of = |wanted: Vec<bool>| {
        let Ok(mask) = Mask::new(width, ink.height(), wanted) else {
            return Vec::new();
        };
        let room = distances(&mask);
        let regions = Regions::by_sides(&mask, true);
        let mut best: Vec<Option<usize>> = vec![None; regions.sizes().len()];
        for (at, label) in regions.labels().iter().enumerate() {
            let Some(index) = label.checked_sub(1) else {
                continue;
            };
            if best[index].is_none_or(|best| room[at] > room[best]) {
                best[index] = Some(at);
            }
        }
        let fits = |at: &usize| room[*at] >= SMALL && free[*at] >= NEAR;
        let mut found: Vec<usize> = best.into_iter().flatten().filter(fits).collect();
        found.sort_by(|a, b| room[*b].total_cmp(&room[*a]));
        found
    };
    let both = |place: &dyn Fn(usize) -> bool| -> Vec<bool> {
        (0..blank.pixels().len())
            .map(|at| blank.pixels()[at] && place(at))
            .collect()
    };
    let mut found = of(both(&|at| holes[at]));
    found.extend(
        of(both(&|at| hull[at] && !holes[at]))
            .into_iter()
            .take(BAYS),
    );
    found.into_iter().map(|at| middle(at, width)).collect()
}

/// Pixels whose middles lie in the convex hull of a mask.
fn hull_of(mask: &Mask) -> Vec<bool> {
    let width = mask.width();
    let inside = (0..mask.pixels().len()).filter(|at| mask.pixels()[*at]);
    let hull = convex_hull(&inside.map(|at| middle(at, width)).collect::<Vec<_>>());
    let within = |[x, y]: [f64; 2]| {
        hull.len() > 2
            && (0..hull.len()).all(|index| {
                let (a, b) = (hull[index], hull[(index + 1) % hull.len()]);
                (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) >= 0.0
            })
    };
    (0..mask.pixels().len())
        .map(|at| within(middle(at, width)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::char_sam::glyphs::{Templates, fitted};

    fn of(class: char) -> (LetterPoints, Vec<bool>) {
        let mut templates = Templates::default();
        let bounds = [8.0, 8.0, 48.0, 60.0];
        let empty = Mask::new(56, 68, vec![false; 56 * 68]).unwrap();
        let found = fitted(templates.of(class), &empty, bounds);
        (points(&found, [56, 68], bounds), agreed(&found).0)
    }

    #[test]
    fn positive_points_lie_on_ink_and_negative_ones_do_not() {
        for class in ['A', 'B', 'c', 'L', 'i'] {
            let (found, ink) = of(class);
            assert!(
                (FEWEST..=MOST).contains(&found.positive.len()),
                "{class} {found:?}"
            );
            let at = |[x, y]: [f64; 2]| ink[y as usize * 56 + x as usize];
            assert!(found.positive.iter().all(|place| at(*place)), "{class}");
            assert!(found.negative.iter().all(|place| !at(*place)), "{class}");
        }
    }

    #[test]
    fn holes_and_bays_have_points() {
        assert!(of('B').0.negative.len() >= 2);
        assert!(!of('c').0.negative.is_empty());
        assert!(of('l').0.negative.len() <= BAYS);
    }
}
