//! Logits of a mask's places as logits of pixels, as they are shown: bilinear, corners not aligned. And the way back of
//! gradients.

/// From places to pixels.
pub(super) struct Enlarged {
    /// Of each column of pixels, and of each row: the first place, the next one and its share.
    columns: Vec<(usize, usize, f32)>,
    rows: Vec<(usize, usize, f32)>,
    size: [usize; 2],
}

impl Enlarged {
    /// From this width and height to a square.
    pub fn new(size: [usize; 2], side: usize) -> Self {
        let along = |count: usize| -> Vec<(usize, usize, f32)> {
            let scale = count as f32 / side as f32;
            let place = |at: usize| {
                let place = ((at as f32 + 0.5) * scale - 0.5).max(0.0);
                let first = (place as usize).min(count - 1);
                (first, (first + 1).min(count - 1), place - first as f32)
            };
            (0..side).map(place).collect()
        };
        Self {
            columns: along(size[0]),
            rows: along(size[1]),
            size,
        }
    }

    /// Values of pixels.
    pub fn values(&self, places: &[f32]) -> Vec<f32> {
        let width = self.size[0];
        let wide: Vec<f32> = places
            .chunks_exact(width)
            .flat_map(|row| {
                let value =
                    |&(a, b, share): &(usize, usize, f32)| row[a] + share * (row[b] - row[a]);
                self.columns.iter().map(value)
            })
            .collect();
        let side = self.columns.len();
        let line = |at: usize| &wide[at * side..(at + 1) * side];
        self.rows
            .iter()
            .flat_map(|&(a, b, share)| {
                let pairs = line(a).iter().zip(line(b));
                pairs.map(move |(above, below)| above + share * (below - above))
            })
            .collect()
    }

    /// The gradient of places from that of pixels.
    pub fn gradient(&self, pixels: &[f32]) -> Vec<f32> {
        let ([width, height], side) = (self.size, self.columns.len());
        let mut wide = vec![0.0; height * side];
        for (&(a, b, share), from) in self.rows.iter().zip(pixels.chunks_exact(side)) {
            for (at, value) in from.iter().enumerate() {
                wide[a * side + at] += (1.0 - share) * value;
                wide[b * side + at] += share * value;
            }
        }
        let mut places = vec![0.0; height * width];
        for (row, from) in places.chunks_exact_mut(width).zip(wide.chunks_exact(side)) {
            for (&(a, b, share), value) in self.columns.iter().zip(from) {
                row[a] += (1.0 - share) * value;
                row[b] += share * value;
            }
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_those_that_masks_are_shown_with_and_gradients_go_the_same_way_back() {
        let (size, side) = ([5, 4], 12);
        let enlarged = Enlarged::new(size, side);
        let places: Vec<f32> = (0..20).map(|at| (at as f32 * 0.83).sin()).collect();
        let shown = enlarged.values(&places);
        let known = brisk_media::interpolate_bilinear(&places, 1, size[1], size[0], side, side);
        for (own, known) in shown.iter().zip(&known) {
            assert!((own - known).abs() < 1e-6, "{own} {known}");
        }
        // ⟨A x, y⟩ = ⟨x, Aᵀ y⟩
        let weights: Vec<f32> = (0..side * side)
            .map(|at| (at as f32 * 0.37).cos())
            .collect();
        let sum = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let (there, back) = (
            sum(&shown, &weights),
            sum(&places, &enlarged.gradient(&weights)),
        );
        assert!((there - back).abs() < 1e-3, "{there} {back}");
    }
}
