//! Outlines of masks: polygons along the edges of pixels.

use super::Mask;

/// Steps along edges of pixels: right, down, left, up.
const STEPS: [(isize, isize); 4] = [(1, 0), (0, 1), (-1, 0), (0, -1)];

impl Mask {
    /// The edges of everything inside as closed polygons of corners `[x, y]`, in pixels from the top left corner of the
    /// picture, with no three corners on a line: around parts with what is inside on the right hand, around holes the
    /// other way round. Pixels that touch at a corner alone are apart.
    pub fn outlines(&self) -> Vec<Vec<[usize; 2]>> {
        let leaving = self.edges();
        let columns = self.width() + 1;
        let mut begun = vec![false; leaving.len()];
        let mut outlines = Vec::new();
        for start in 0..leaving.len() {
            // Every outline goes to the right somewhere.
            if leaving[start] & 1 == 0 || begun[start] {
                continue;
            }
            let mut corners = Vec::new();
            let (mut at, mut way) = (start, 0);
            loop {
                if way == 0 {
                    begun[at] = true;
                }
                let (x, y) = STEPS[way];
                at = at.wrapping_add_signed(y * columns as isize + x);
                // The sharpest turn to the right first: it stays at the same pixel.
                let turns = [1, 0, 3].map(|turn| (way + turn) % 4);
                let next = turns.into_iter().find(|way| leaving[at] & 1 << way != 0);
                let next = next.unwrap_or(way);
                if next != way {
                    corners.push([at % columns, at / columns]);
                }
                way = next;
                if (at, way) == (start, 0) {
                    break;
                }
            }
            outlines.push(corners);
        }
        outlines
    }

    /// For every corner of a pixel, row by row, the steps that leave it along an edge of what is inside, a bit each.
    fn edges(&self) -> Vec<u8> {
        let (width, height) = (self.width(), self.height());
        let columns = width + 1;
        let mut leaving = vec![0; columns * (height + 1)];
        let inside = |x: usize, y: usize| x < width && y < height && self.pixels()[y * width + x];
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            if !inside(x, y) {
                continue;
            }
            let corner = y * columns + x;
            // Beyond the first column or row a place wraps around to one that is outside.
            let sides = [
                (inside(x, y.wrapping_sub(1)), corner, 0),
                (inside(x + 1, y), corner + 1, 1),
                (inside(x, y + 1), corner + columns + 1, 2),
                (inside(x.wrapping_sub(1), y), corner + columns, 3),
            ];
            for (joined, from, way) in sides {
                if !joined {
                    leaving[from] |= 1 << way;
                }
            }
        }
        leaving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: &[&str]) -> Mask {
        let pixels = rows
            .iter()
            .flat_map(|row| row.bytes().map(|byte| byte == b'#'));
        Mask::new(rows[0].len(), rows.len(), pixels.collect()).unwrap()
    }

    /// Twice the area within, negative around holes.
    fn area(outline: &[[usize; 2]]) -> isize {
        let next = outline.iter().cycle().skip(1);
        let terms = outline
            .iter()
            .zip(next)
            .map(|(a, b)| a[0] as isize * b[1] as isize - b[0] as isize * a[1] as isize);
        terms.sum()
    }

    #[test]
    fn a_ring_has_an_edge_without_and_one_within() {
        let outlines = mask(&[".....", ".###.", ".#.#.", ".###.", "....."]).outlines();
        assert_eq!(
            outlines,
            [
                vec![[4, 1], [4, 4], [1, 4], [1, 1]],
                vec![[3, 3], [3, 2], [2, 2], [2, 3]],
            ]
        );
        assert_eq!(
            outlines.iter().map(|outline| area(outline)).sum::<isize>(),
            16
        );
    }

    #[test]
    fn pixels_that_touch_at_a_corner_are_apart() {
        for rows in [["#.", ".#"], [".#", "#."]] {
            let outlines = mask(&rows).outlines();
            assert_eq!(outlines.len(), 2, "{outlines:?}");
            assert!(
                outlines
                    .iter()
                    .all(|outline| outline.len() == 4 && area(outline) == 2)
            );
        }
    }

    #[test]
    fn areas_add_up_and_nothing_has_no_outline() {
        assert!(mask(&["..", ".."]).outlines().is_empty());
        let mut state = 7u32;
        let pixels: Vec<bool> = (0..37 * 23)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state >> 30 != 0
            })
            .collect();
        let mask = Mask::new(37, 23, pixels).unwrap();
        let outlines = mask.outlines();
        let twice: isize = outlines.iter().map(|outline| area(outline)).sum();
        assert_eq!(twice, 2 * mask.area() as isize);
        for outline in &outlines {
            let next = outline.iter().cycle().skip(1);
            for (a, b) in outline.iter().zip(next) {
                assert!((a[0] == b[0]) != (a[1] == b[1]), "{a:?} {b:?}");
            }
        }
    }
}
