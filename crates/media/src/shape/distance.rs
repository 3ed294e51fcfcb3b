//! How far pixels are from the outside (Felzenszwalb and Huttenlocher 2012).

use crate::Mask;

/// Farther than any two pixels are apart.
const FAR: f64 = 1e20;

/// Of each pixel inside, the distance between its centre and that of the nearest one outside; 0 outside, and infinite
/// where nothing is outside. What lies beyond the mask does not count.
pub fn distances(mask: &Mask) -> Vec<f32> {
    let (width, height) = (mask.width(), mask.height());
    let start = |inside: &bool| if *inside { FAR } else { 0.0 };
    let mut squares: Vec<f64> = mask.pixels().iter().map(start).collect();
    let mut scratch = Scratch::default();
    for column in 0..width {
        let line: Vec<f64> = (0..height)
            .map(|row| squares[row * width + column])
            .collect();
        for (row, square) in scratch.transformed(&line).iter().enumerate() {
            squares[row * width + column] = *square;
        }
    }
    for row in squares.chunks_exact_mut(width) {
        let line = row.to_vec();
        row.copy_from_slice(scratch.transformed(&line));
    }
    let root = |square: f64| {
        if square >= FAR / 2.0 {
            f32::INFINITY
        } else {
            square.sqrt() as f32
        }
    };
    squares.into_iter().map(root).collect()
}

/// The lower envelope of parabolas, one a pixel.
#[derive(Default)]
struct Scratch {
    tips: Vec<usize>,
    borders: Vec<f64>,
    line: Vec<f64>,
}

impl Scratch {
    /// Of each place the least of the other places' squares plus the square of the way there.
    fn transformed(&mut self, squares: &[f64]) -> &[f64] {
        self.tips.clear();
        self.borders.clear();
        for (at, square) in squares.iter().enumerate() {
            let mut border = f64::NEG_INFINITY;
            while let (Some(tip), Some(start)) =
                (self.tips.last().copied(), self.borders.last().copied())
            {
                let height = |at: usize, square: f64| square + (at * at) as f64;
                let meet =
                    (height(at, *square) - height(tip, squares[tip])) / (2.0 * (at - tip) as f64);
                if meet > start {
                    border = meet;
                    break;
                }
                self.tips.pop();
                self.borders.pop();
            }
            self.tips.push(at);
            self.borders.push(border);
        }
        self.line.clear();
        let mut part = 0;
        for at in 0..squares.len() {
            while self
                .borders
                .get(part + 1)
                .is_some_and(|border| *border < at as f64)
            {
                part += 1;
            }
            let tip = self.tips[part];
            self.line
                .push(squares[tip] + (at.abs_diff(tip).pow(2)) as f64);
        }
        &self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_every_pair() {
        let (width, height) = (19, 13);
        for step in [2, 7, 31] {
            let pixels: Vec<bool> = (0..width * height).map(|at| at * at % step != 1).collect();
            let mask = Mask::new(width, height, pixels.clone()).unwrap();
            let found = distances(&mask);
            for (at, found) in found.iter().enumerate() {
                let far = |other: usize| {
                    let [dx, dy] = [at % width, at / width].map(|at| at as f32);
                    (dx - (other % width) as f32).hypot(dy - (other / width) as f32)
                };
                let outside = (0..width * height).filter(|other| !pixels[*other]);
                let wanted = outside.map(far).fold(f32::INFINITY, f32::min);
                assert!((found - wanted).abs() < 1e-4, "{found} {wanted}");
            }
        }
        let whole = Mask::new(3, 2, vec![true; 6]).unwrap();
        assert!(
            distances(&whole)
                .iter()
                .all(|distance| distance.is_infinite())
        );
    }
}
