//! Convex hulls, and the smallest rectangle around them.

use super::Place;

/// The corners of the smallest convex shape around places, in the order in which x turns towards y, the one with the
/// least x (then y) first; places on its edges are left out (Andrew 1979).
pub fn convex_hull(places: &[Place]) -> Vec<Place> {
    let mut sorted: Vec<Place> = places.to_vec();
    sorted.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    sorted.dedup();
    if sorted.len() < 3 {
        return sorted;
    }
    let turns = |a: Place, b: Place, c: Place| {
        (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    };
    let chain = |places: &mut dyn Iterator<Item = &Place>| {
        let mut chain: Vec<Place> = Vec::new();
        for place in places {
            while let [.., a, b] = chain[..]
                && turns(a, b, *place) <= 0.0
            {
                chain.pop();
            }
            chain.push(*place);
        }
        chain.pop();
        chain
    };
    let mut hull = chain(&mut sorted.iter());
    hull.extend(chain(&mut sorted.iter().rev()));
    hull
}

/// The corners of the rectangle of least area around places, one of whose sides lies on a side of their hull; none
/// without places. Of places on a line it has no width.
pub fn smallest_rectangle(places: &[Place]) -> Option<[Place; 4]> {
    let hull = convex_hull(places);
    let (first, last) = (*hull.first()?, *hull.last()?);
    if hull.len() < 3 {
        return Some([first, last, last, first]);
    }
    let mut best: Option<(f64, [Place; 4])> = None;
    for (index, from) in hull.iter().enumerate() {
        let to = hull[(index + 1) % hull.len()];
        let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
        let length = dx.hypot(dy);
        let (ux, uy) = (dx / length, dy / length);
        let mut range = [[f64::INFINITY, f64::NEG_INFINITY]; 2];
        for place in &hull {
            let (x, y) = (place[0] - from[0], place[1] - from[1]);
            for (range, along) in range.iter_mut().zip([x * ux + y * uy, y * ux - x * uy]) {
                *range = [range[0].min(along), range[1].max(along)];
            }
        }
        let [[left, right], [top, bottom]] = range;
        let area = (right - left) * (bottom - top);
        if best.as_ref().is_none_or(|(least, _)| area < *least) {
            let corner = |a: f64, b: f64| [from[0] + a * ux - b * uy, from[1] + a * uy + b * ux];
            best = Some((
                area,
                [
                    corner(left, top),
                    corner(right, top),
                    corner(right, bottom),
                    corner(left, bottom),
                ],
            ));
        }
    }
    best.map(|(_, corners)| corners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hull_leaves_out_what_is_inside_and_on_edges() {
        let places = [
            [0.0, 0.0],
            [4.0, 0.0],
            [2.0, 0.0],
            [2.0, 1.0],
            [4.0, 3.0],
            [0.0, 3.0],
            [0.0, 0.0],
        ];
        assert_eq!(
            convex_hull(&places),
            [[0.0, 0.0], [4.0, 0.0], [4.0, 3.0], [0.0, 3.0]]
        );
        assert_eq!(convex_hull(&[[1.0, 2.0]]), [[1.0, 2.0]]);
    }

    #[test]
    fn a_turned_rectangle_is_found_again() {
        let (sin, cos) = 0.4f64.sin_cos();
        let turned = |x: f64, y: f64| [10.0 + x * cos - y * sin, 5.0 + x * sin + y * cos];
        let corners = [
            turned(0.0, 0.0),
            turned(8.0, 0.0),
            turned(8.0, 3.0),
            turned(0.0, 3.0),
        ];
        let mut places = corners.to_vec();
        places.extend([turned(1.0, 1.0), turned(7.0, 2.5), turned(4.0, 3.0)]);
        let found = smallest_rectangle(&places).unwrap();
        for corner in corners {
            let near = |other: &Place| (other[0] - corner[0]).hypot(other[1] - corner[1]);
            assert!(found.iter().map(near).fold(f64::INFINITY, f64::min) < 1e-9);
        }
        assert!(smallest_rectangle(&[]).is_none());
        assert_eq!(
            smallest_rectangle(&[[1.0, 1.0], [3.0, 2.0]]).unwrap()[1],
            [3.0, 2.0]
        );
    }
}
