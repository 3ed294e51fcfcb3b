//! Projective maps, and pictures seen through them.

use crate::{Picture, Result};

/// A place.
pub type Place = [f64; 2];

/// A projective map of the plane, by its matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Projective([[f64; 3]; 3]);

impl Projective {
    /// From the rectangle (0, 0) to (`width`, `height`) to a quadrilateral, its corners from the top left clockwise
    /// (Heckbert 1989, section 2.2.3). None where the corners span no area.
    pub fn of_rectangle([width, height]: [f64; 2], corners: [Place; 4]) -> Option<Self> {
        let [a, b, c, d] = corners;
        let far = [a[0] - b[0] + c[0] - d[0], a[1] - b[1] + c[1] - d[1]];
        let (right, left) = ([b[0] - c[0], b[1] - c[1]], [d[0] - c[0], d[1] - c[1]]);
        let area = right[0] * left[1] - left[0] * right[1];
        if area.abs() < 1e-9 || width <= 0.0 || height <= 0.0 {
            return None;
        }
        let g = (far[0] * left[1] - left[0] * far[1]) / area;
        let h = (right[0] * far[1] - far[0] * right[1]) / area;
        let row = |axis: usize| {
            [
                (b[axis] - a[axis] + g * b[axis]) / width,
                (d[axis] - a[axis] + h * d[axis]) / height,
                a[axis],
            ]
        };
        Some(Self([row(0), row(1), [g / width, h / height, 1.0]]))
    }

    /// The map back.
    pub fn inverse(&self) -> Self {
        let m = &self.0;
        let minor = |row: usize, column: usize| {
            let [r, s] = [(row + 1) % 3, (row + 2) % 3];
            let [c, d] = [(column + 1) % 3, (column + 2) % 3];
            m[r][c] * m[s][d] - m[r][d] * m[s][c]
        };
        // Projective maps know no scale: the adjugate serves.
        let mut inverse = [[0.0; 3]; 3];
        for (row, values) in inverse.iter_mut().enumerate() {
            for (column, value) in values.iter_mut().enumerate() {
                *value = minor(column, row);
            }
        }
        Self(inverse)
    }

    /// Where a place goes.
    #[inline]
    pub fn apply(&self, [x, y]: Place) -> Place {
        let [u, v, w] = self.0.map(|row| row[0] * x + row[1] * y + row[2]);
        [u / w, v / w]
    }
}

/// A picture of this width and height whose pixels are those of another where `map` puts their middles, between pixels
/// interpolated; what lies beyond the picture is like its edge. Each pixel is the mean of `samples`² places, as many as
/// pixels become one along a side.
///
/// # Errors
/// A size out of limits.
pub fn resampled(
    picture: &Picture,
    [width, height]: [usize; 2],
    samples: usize,
    map: impl Fn(Place) -> Place,
) -> Result<Picture> {
    let area = width.saturating_mul(height).saturating_mul(3);
    let mut drawn = Picture::new(width, height, vec![0; area])?;
    let samples = samples.max(1);
    let step = 1.0 / samples as f64;
    for (at, pixel) in drawn.pixels.chunks_exact_mut(3).enumerate() {
        let (left, top) = ((at % width) as f64, (at / width) as f64);
        let mut sum = [0.0; 3];
        for sample in 0..samples * samples {
            let across = ((sample % samples) as f64 + 0.5) * step;
            let down = ((sample / samples) as f64 + 0.5) * step;
            let [x, y] = map([left + across, top + down]);
            let found = between(picture, x - 0.5, y - 0.5);
            sum.iter_mut()
                .zip(found)
                .for_each(|(sum, value)| *sum += value);
        }
        for (value, sum) in pixel.iter_mut().zip(sum) {
            *value = (sum * step * step).round() as u8;
        }
    }
    Ok(drawn)
}

fn between(picture: &Picture, x: f64, y: f64) -> [f64; 3] {
    let within = |at: f64, side: usize| at.clamp(0.0, (side - 1) as f64);
    let (x, y) = (within(x, picture.width), within(y, picture.height));
    let (left, top) = (x as usize, y as usize);
    let (right, below) = (
        (left + 1).min(picture.width - 1),
        (top + 1).min(picture.height - 1),
    );
    let (across, down) = (x - left as f64, y - top as f64);
    let value = |x: usize, y: usize, channel: usize| {
        f64::from(picture.pixels[3 * (y * picture.width + x) + channel])
    };
    [0, 1, 2].map(|channel| {
        let line =
            |y: usize| value(left, y, channel) * (1.0 - across) + value(right, y, channel) * across;
        line(top) * (1.0 - down) + line(below) * down
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: Place, b: Place) {
        assert!(
            (a[0] - b[0]).abs() < 1e-6 && (a[1] - b[1]).abs() < 1e-6,
            "{a:?} {b:?}"
        );
    }

    #[test]
    fn corners_go_to_corners_and_back() {
        let corners = [[3.0, 4.0], [90.0, -2.0], [80.0, 44.0], [7.0, 30.0]];
        let map = Projective::of_rectangle([50.0, 20.0], corners).unwrap();
        let rectangle = [[0.0, 0.0], [50.0, 0.0], [50.0, 20.0], [0.0, 20.0]];
        for (from, to) in rectangle.into_iter().zip(corners) {
            near(map.apply(from), to);
            near(map.inverse().apply(to), from);
        }
        near(map.inverse().apply(map.apply([13.0, 7.0])), [13.0, 7.0]);
        assert!(Projective::of_rectangle([50.0, 20.0], [[1.0, 1.0]; 4]).is_none());
    }

    #[test]
    fn a_part_that_lies_straight_is_cut_out() {
        let pixels = (0..20 * 10 * 3).map(|at| (at * 7 % 251) as u8).collect();
        let picture = Picture::new(20, 10, pixels).unwrap();
        let corners = [[4.0, 2.0], [12.0, 2.0], [12.0, 7.0], [4.0, 7.0]];
        let seen = |corners| {
            let map = Projective::of_rectangle([8.0, 5.0], corners).unwrap();
            resampled(&picture, [8, 5], 1, |place| map.apply(place)).unwrap()
        };
        assert_eq!(seen(corners), picture.crop(4, 2, 8, 5).unwrap());
        // Upside down.
        let [a, b, c, d] = corners;
        assert_eq!(seen([c, d, a, b]).pixel(0, 0), picture.pixel(11, 6));
        // Half as large: the mean of four pixels.
        let half = resampled(&picture, [10, 5], 2, |[x, y]| [2.0 * x, 2.0 * y]).unwrap();
        let four = [(4, 2), (5, 2), (4, 3), (5, 3)].map(|(x, y)| picture.pixel(x, y).unwrap()[1]);
        let mean = four.iter().map(|value| f64::from(*value)).sum::<f64>() / 4.0;
        assert_eq!(f64::from(half.pixel(2, 1).unwrap()[1]), mean.round());
    }
}
