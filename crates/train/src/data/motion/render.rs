//! Frames of a clip.

use std::ops::Range;

use brisk_media::{Cutout, Picture};

use super::scene::{MotionScene, Pose};
use crate::data::DataError;
use crate::data::scenes::Drawings;

/// Sides of frames that can be drawn.
const SIZES: std::ops::RangeInclusive<usize> = 8..=1024;
/// Points of a pixel along each axis at which the drawing is looked up.
const POINTS: usize = 3;

impl MotionScene {
    /// Its `frames`, each `size` pixels wide and high.
    ///
    /// # Errors
    /// A size that no picture has, and a drawing that cannot be rendered.
    pub fn render(
        &self,
        drawings: &Drawings,
        frames: usize,
        size: usize,
    ) -> Result<Vec<Picture>, DataError> {
        self.render_part(drawings, frames, 0..frames, size)
    }

    /// Some frames in a row, `part`, of its `frames`.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn render_part(
        &self,
        drawings: &Drawings,
        frames: usize,
        part: Range<usize>,
        size: usize,
    ) -> Result<Vec<Picture>, DataError> {
        if !SIZES.contains(&size) {
            return Err(DataError::Size(size));
        }
        let mut poses = self.poses(frames);
        let largest = poses.iter().fold(0.0f64, |most, pose| most.max(pose.side));
        // Twice as fine as it is ever shown, so that any size between looks alike.
        let side = ((2.0 * largest * size as f64).ceil() as usize).max(8);
        let cutout = self.cutout(drawings, side)?;
        let drawing = Drawing::new(&cutout);
        poses.truncate(part.end);
        let shown = poses.iter().skip(part.start);
        Ok(shown
            .map(|pose| drawing.frame(pose, size, self.background))
            .collect())
    }

    fn cutout(&self, drawings: &Drawings, side: usize) -> Result<Cutout, DataError> {
        drawings.drawing((self.set, self.object), self.colour, side, 0.0)
    }
}

/// A drawing to be looked up between its pixels.
struct Drawing {
    side: usize,
    /// Colours times opacity, and opacity, 0 to 1.
    pixels: Vec<[f32; 4]>,
}

impl Drawing {
    fn new(cutout: &Cutout) -> Self {
        let pixel = |(colour, alpha): (&[u8; 3], &u8)| {
            let alpha = f32::from(*alpha) / 255.0;
            let [r, g, b] = colour.map(|value| alpha * f32::from(value));
            [r, g, b, alpha]
        };
        Self {
            side: cutout.size,
            pixels: cutout
                .colours
                .iter()
                .zip(&cutout.alpha)
                .map(pixel)
                .collect(),
        }
    }

    /// At a place in shares of its side; nothing outside.
    fn at(&self, u: f64, v: f64) -> [f32; 4] {
        let side = self.side as f64;
        let (x, y) = (u * side - 0.5, v * side - 0.5);
        let (left, top) = (x.floor(), y.floor());
        let (right_share, lower_share) = ((x - left) as f32, (y - top) as f32);
        let mut sum = [0f32; 4];
        for (down, row_share) in [(0.0, 1.0 - lower_share), (1.0, lower_share)] {
            for (along, share) in [(0.0, 1.0 - right_share), (1.0, right_share)] {
                let (column, row) = (left + along, top + down);
                if column < 0.0 || row < 0.0 || column >= side || row >= side {
                    continue;
                }
                let pixel = &self.pixels[row as usize * self.side + column as usize];
                for (sum, value) in sum.iter_mut().zip(pixel) {
                    *sum += row_share * share * value;
                }
            }
        }
        sum
    }

    fn frame(&self, pose: &Pose, size: usize, background: [u8; 3]) -> Picture {
        let mut picture = Picture::filled(size, size, background);
        let (sin, cos) = pose.angle.to_radians().sin_cos();
        // Farthest corner of a square that is turned.
        let reach = pose.side * std::f64::consts::FRAC_1_SQRT_2;
        let pixels = |centre: f64| {
            let at = |share: f64| (share * size as f64).clamp(0.0, size as f64);
            at(centre - reach).floor() as usize..at(centre + reach).ceil() as usize
        };
        for row in pixels(pose.centre[1]) {
            for column in pixels(pose.centre[0]) {
                let mut sum = [0f32; 4];
                for point in 0..POINTS * POINTS {
                    let within = |index: usize| (index as f64 + 0.5) / POINTS as f64;
                    let x = (column as f64 + within(point % POINTS)) / size as f64 - pose.centre[0];
                    let y = (row as f64 + within(point / POINTS)) / size as f64 - pose.centre[1];
                    let u = (cos * x + sin * y) / pose.side + 0.5;
                    let v = (cos * y - sin * x) / pose.side + 0.5;
                    for (sum, value) in sum.iter_mut().zip(self.at(u, v)) {
                        *sum += value / (POINTS * POINTS) as f32;
                    }
                }
                let place = 3 * (row * size + column);
                let under = &mut picture.pixels[place..place + 3];
                for (under, over) in under.iter_mut().zip(sum) {
                    *under = (over + (1.0 - sum[3]) * f32::from(*under)).round() as u8;
                }
            }
        }
        picture
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::scenes::{Split, packages};

    #[test]
    fn the_object_is_where_its_pose_says() {
        let packages = packages(None);
        let drawings = Drawings::open(packages.path()).unwrap();
        for index in 0..20 {
            let mut scene = MotionScene::draw(1, index, Split::Training);
            (scene.background, scene.colour) = ([255; 3], None);
            let frames = scene.render(&drawings, 5, 40).unwrap();
            assert_eq!(frames.len(), 5);
            let part = scene.render_part(&drawings, 5, 1..3, 40).unwrap();
            assert_eq!(part, frames[1..3]);
            for (frame, pose) in frames.iter().zip(scene.poses(5)) {
                let mut sum = [0f64; 3];
                for (at, pixel) in frame.pixels.chunks_exact(3).enumerate() {
                    // The blue of a yellow square on white.
                    let share = f64::from(255 - pixel[2]) / 255.0;
                    let place = [(at % 40) as f64 + 0.5, (at / 40) as f64 + 0.5];
                    sum[0] += share;
                    sum[1] += share * place[0] / 40.0;
                    sum[2] += share * place[1] / 40.0;
                }
                assert!((sum[1] / sum[0] - pose.centre[0]).abs() < 0.01, "{scene:?}");
                assert!((sum[2] / sum[0] - pose.centre[1]).abs() < 0.01, "{scene:?}");
                // What is drawn takes 84 % of the square's side.
                let side = sum[0].sqrt() / 40.0;
                assert!((side / pose.side - 0.84).abs() < 0.03, "{scene:?} {side}");
            }
        }
        let scene = MotionScene::draw(1, 0, Split::Training);
        assert!(scene.render(&drawings, 1, 4).is_err());
    }
}
