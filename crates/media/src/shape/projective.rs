//! Projective maps.

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
    pub fn apply(&self, [x, y]: Place) -> Place {
        let [u, v, w] = self.0.map(|row| row[0] * x + row[1] * y + row[2]);
        [u / w, v / w]
    }
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
}
