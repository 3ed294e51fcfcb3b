//! A word's outline as a straight strip: bent and turned words are read and split where they lie flat.

use brisk_media::shape::{Place, Projective, resampled, smallest_rectangle};
use brisk_media::{MAX_SIDE, Picture};

use super::boxes::Bounds;
use crate::error::Result;

/// Rows of a strip, and its most columns.
pub const HEIGHT: f64 = 128.0;
const WIDEST: f64 = 8192.0;
/// Ratios of height and width from which on a word stands upright (CRAFT's recipe).
const UPRIGHT: f64 = 2.0;
const NEARLY_UPRIGHT: f64 = 1.6;
const TALL_CHARACTER: f64 = 2.4;

/// A word as a strip of [`HEIGHT`] rows.
#[derive(Clone, Debug)]
pub struct Strip {
    pieces: Vec<Piece>,
    /// Columns.
    pub width: f64,
    /// Pixels of the picture that a row is, on average.
    pub scale: f64,
    /// What is unusual about the outline.
    pub flags: Vec<&'static str>,
    /// The turn of its base line against the picture's rows, in degrees.
    pub turn: f64,
}

/// A part of a strip that lies straight in the picture.
#[derive(Clone, Debug)]
struct Piece {
    start: f64,
    map: Projective,
    back: Projective,
    quad: [Place; 4],
}

impl Strip {
    /// Of an outline, for a word of `count` characters where that is known. The outline goes along the upper edge and
    /// back along the lower one; one that crosses itself, or that has no two edges of as many points, is taken for the
    /// smallest rectangle around it. None of an outline without area.
    pub fn new(polygon: &[Place], count: Option<usize>) -> Option<Self> {
        let mut flags = Vec::new();
        let mut points = polygon.to_vec();
        points.dedup();
        let paired = points.len() >= 4 && points.len().is_multiple_of(2);
        if crosses(&points) || !paired {
            flags.push(if paired {
                "outline crosses itself"
            } else {
                "outline without two edges"
            });
            points = upright(smallest_rectangle(&points)?).to_vec();
        }
        if area(&points) < 0.0 {
            // Counted the other way around, from the same corner on.
            points[1..].reverse();
        }
        let half = points.len() / 2;
        let mut quads: Vec<[Place; 4]> = (0..half - 1)
            .map(|index| {
                let below = points.len() - 1 - index;
                [
                    points[index],
                    points[index + 1],
                    points[below - 1],
                    points[below],
                ]
            })
            .collect();
        let middle = |a: Place, b: Place| [(a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0];
        let lengths = |quads: &[[Place; 4]]| -> Vec<f64> {
            let along = |[a, b, c, d]: &[Place; 4]| distance(middle(*a, *d), middle(*b, *c));
            quads.iter().map(along).collect()
        };
        let high = |quads: &[[Place; 4]]| {
            let sum: f64 = quads
                .iter()
                .map(|[a, b, c, d]| distance(*a, *d) + distance(*b, *c))
                .sum();
            sum / (2 * quads.len()) as f64
        };
        let (wide, tall) = (lengths(&quads).iter().sum::<f64>(), high(&quads));
        let ratio = tall / wide.max(1e-9);
        let of_character = |count: usize| wide.min(tall) / (wide.max(tall) / count.max(1) as f64);
        let several = count != Some(1);
        let stands = quads.len() == 1
            && several
            && (ratio > UPRIGHT
                || ratio > NEARLY_UPRIGHT
                    && count.is_some_and(|count| of_character(count) > TALL_CHARACTER));
        if stands {
            // Read from the top down: its own top left is the picture's top right.
            quads[0].rotate_left(1);
            flags.push("upright");
        }
        let (lengths, tall) = (lengths(&quads), high(&quads));
        let wide: f64 = lengths.iter().sum();
        let scale = (tall / HEIGHT).max(wide / WIDEST);
        if tall < 1e-3 || wide < 1e-3 || area(&points).abs() < 1e-3 {
            return None;
        }
        let mut start = 0.0;
        let mut pieces = Vec::with_capacity(quads.len());
        for (quad, length) in quads.iter().zip(&lengths) {
            let width = length / scale;
            if width < 1e-6 {
                continue;
            }
            let map = Projective::of_rectangle([width, HEIGHT], *quad)?;
            pieces.push(Piece {
                start,
                map,
                back: map.inverse(),
                quad: *quad,
            });
            start += width;
        }
        let (first, last) = (quads.first()?, quads.last()?);
        let (from, to) = (middle(first[0], first[3]), middle(last[1], last[2]));
        let turn = (to[1] - from[1]).atan2(to[0] - from[0]).to_degrees();
        Some(Self {
            pieces,
            width: start,
            scale,
            flags,
            turn,
        })
    }

    /// Whether it is bent, or its base line is turned by more than `degrees`.
    pub fn is_turned(&self, degrees: f64) -> bool {
        self.pieces.len() > 1 || self.turn.abs() > degrees
    }

    /// All of it.
    pub fn bounds(&self) -> Bounds {
        [0.0, 0.0, self.width, HEIGHT]
    }

    /// Where a place of the strip lies in the picture; what lies beside it goes on straight.
    pub fn to_picture(&self, [x, y]: Place) -> Place {
        let behind = self
            .pieces
            .iter()
            .skip(1)
            .take_while(|piece| piece.start <= x)
            .count();
        let piece = &self.pieces[behind];
        piece.map.apply([x - piece.start, y])
    }

    /// Where a place of the picture lies in the strip; none of one that is beside it, by the word's height or more.
    pub fn of_picture(&self, place: Place) -> Option<Place> {
        let to = |piece: &Piece| {
            let [x, y] = piece.back.apply(place);
            [x + piece.start, y]
        };
        let inside = self.pieces.iter().find(|piece| holds(&piece.quad, place));
        let near = |piece: &&Piece| {
            let centre = [0, 1].map(|axis| piece.quad.iter().map(|at| at[axis]).sum::<f64>() / 4.0);
            distance(centre, place)
        };
        let piece = inside.or_else(|| {
            self.pieces
                .iter()
                .min_by(|a, b| near(a).total_cmp(&near(b)))
        })?;
        let [x, y] = to(piece);
        let within =
            (-HEIGHT..=self.width + HEIGHT).contains(&x) && (-HEIGHT..=2.0 * HEIGHT).contains(&y);
        within.then_some([x, y])
    }

    /// Corners of a box of the strip in the picture.
    pub fn quad(&self, [left, top, right, bottom]: Bounds) -> [Place; 4] {
        [[left, top], [right, top], [right, bottom], [left, bottom]].map(|at| self.to_picture(at))
    }

    /// What of a picture lies in a part of the strip, as a picture with `zoom` pixels a column.
    ///
    /// # Errors
    /// A size out of limits.
    pub fn draw(
        &self,
        picture: &Picture,
        [left, top, right, bottom]: Bounds,
        zoom: f64,
    ) -> Result<Picture> {
        let side = |length: f64| ((length * zoom).round() as usize).clamp(1, MAX_SIDE);
        let size = [side(right - left), side(bottom - top)];
        let samples = (self.scale / zoom).ceil().clamp(1.0, 8.0) as usize;
        let step = [
            (right - left) / size[0] as f64,
            (bottom - top) / size[1] as f64,
        ];
        Ok(resampled(picture, size, samples, |[x, y]| {
            self.to_picture([left + x * step[0], top + y * step[1]])
        })?)
    }
}

fn distance(a: Place, b: Place) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// Twice the area, positive where the corners go from the top left to the top right.
fn area(points: &[Place]) -> f64 {
    let next = points.iter().cycle().skip(1);
    points
        .iter()
        .zip(next)
        .map(|(a, b)| a[0] * b[1] - b[0] * a[1])
        .sum()
}

/// A rectangle from the corner that is nearest to the picture's on.
fn upright(mut corners: [Place; 4]) -> [Place; 4] {
    let sums = corners.map(|at| at[0] + at[1]);
    let first = (0..4)
        .min_by(|a, b| sums[*a].total_cmp(&sums[*b]))
        .unwrap_or(0);
    corners.rotate_left(first);
    corners
}

fn holds(quad: &[Place; 4], [x, y]: Place) -> bool {
    (0..4).all(|index| {
        let (a, b) = (quad[index], quad[(index + 1) % 4]);
        (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) >= 0.0
    })
}

/// Whether two sides that do not meet at a corner cross.
fn crosses(points: &[Place]) -> bool {
    let count = points.len();
    let side = |index: usize| (points[index], points[(index + 1) % count]);
    let turn = |a: Place, b: Place, c: Place| {
        (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    };
    let cross = |(a, b): (Place, Place), (c, d): (Place, Place)| {
        turn(a, b, c) * turn(a, b, d) < 0.0 && turn(c, d, a) * turn(c, d, b) < 0.0
    };
    (0..count).any(|one| {
        (one + 2..count)
            .filter(|other| (other + 1) % count != one)
            .any(|other| cross(side(one), side(other)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: Place, b: Place, by: f64) {
        assert!(distance(a, b) < by, "{a:?} {b:?}");
    }

    #[test]
    fn places_go_there_and_back() {
        let outlines: [&[Place]; 3] = [
            &[[10.0, 20.0], [90.0, 30.0], [88.0, 55.0], [8.0, 44.0]],
            // An arc of two pieces.
            &[
                [0.0, 20.0],
                [50.0, 0.0],
                [100.0, 20.0],
                [100.0, 50.0],
                [50.0, 30.0],
                [0.0, 50.0],
            ],
            // The same corners the other way around.
            &[[10.0, 20.0], [8.0, 44.0], [88.0, 55.0], [90.0, 30.0]],
        ];
        for outline in outlines {
            let strip = Strip::new(outline, None).unwrap();
            assert!(strip.flags.is_empty(), "{:?}", strip.flags);
            near(strip.to_picture([0.0, 0.0]), outline[0], 1e-6);
            for share in [0.1, 0.45, 0.8] {
                let place = [share * strip.width, 0.4 * HEIGHT];
                near(
                    strip.of_picture(strip.to_picture(place)).unwrap(),
                    place,
                    1e-6,
                );
            }
            assert!(strip.of_picture([1e4, 1e4]).is_none());
        }
        assert!(Strip::new(outlines[1], None).unwrap().is_turned(15.0));
        assert!(!Strip::new(outlines[0], None).unwrap().is_turned(15.0));
    }

    #[test]
    fn unusual_outlines_are_flagged() {
        let crossing = [[0.0, 0.0], [40.0, 20.0], [40.0, 0.0], [0.0, 20.0]];
        let strip = Strip::new(&crossing, None).unwrap();
        assert_eq!(strip.flags, ["outline crosses itself"]);
        near(strip.to_picture([0.0, 0.0]), [0.0, 0.0], 1e-6);
        let three = [[0.0, 0.0], [40.0, 0.0], [40.0, 20.0]];
        assert_eq!(
            Strip::new(&three, None).unwrap().flags,
            ["outline without two edges"]
        );
        let tall = [[0.0, 0.0], [20.0, 0.0], [20.0, 90.0], [0.0, 90.0]];
        let strip = Strip::new(&tall, Some(4)).unwrap();
        assert_eq!(strip.flags, ["upright"]);
        near(strip.to_picture([0.0, 0.0]), [20.0, 0.0], 1e-6);
        assert!(Strip::new(&tall, Some(1)).unwrap().flags.is_empty());
        for nothing in [
            &[][..],
            &[[1.0, 1.0]; 4],
            &[[0.0, 0.0], [9.0, 0.0], [5.0, 0.0], [2.0, 0.0]],
        ] {
            assert!(Strip::new(nothing, None).is_none());
        }
    }

    #[test]
    fn a_strip_shows_the_word() {
        let mut picture = Picture::filled(120, 80, [0; 3]);
        for y in 30..50 {
            for x in 20..100 {
                let at = 3 * (y * 120 + x);
                picture.pixels[at] = 255;
            }
        }
        let outline = [[20.0, 30.0], [100.0, 30.0], [100.0, 50.0], [20.0, 50.0]];
        let strip = Strip::new(&outline, None).unwrap();
        let drawn = strip.draw(&picture, strip.bounds(), 0.5).unwrap();
        assert_eq!((drawn.width, drawn.height), (256, 64));
        // Between the middles of two pixels of the border lies a mixture.
        let inside = (2..62).flat_map(|y| (2..254).map(move |x| (x, y)));
        let mut inside = inside.map(|(x, y)| drawn.pixel(x, y));
        assert!(inside.all(|pixel| pixel == Some([255, 0, 0])));
        let around = strip
            .draw(&picture, [-64.0, -64.0, 576.0, 192.0], 0.5)
            .unwrap();
        assert_eq!(
            (around.pixel(5, 5), around.pixel(160, 64)),
            (Some([0; 3]), Some([255, 0, 0]))
        );
    }
}
