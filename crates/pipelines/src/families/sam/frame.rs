//! A picture in the frame that the networks see, and masks back in the picture's size.

use brisk_media::{Filter, Picture, interpolate_bilinear, interpolated_rows, resize_pil};
use brisk_nn::Tensor;

use crate::error::Result;

/// Means and deviations of the colours that the networks were trained with.
const MEAN: [f32; 3] = [123.675, 116.28, 103.53];
const DEVIATION: [f32; 3] = [58.395, 57.12, 57.375];

/// Where a picture lies in the square frame: in the top left corner, its longer side the frame's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Side of the frame in pixels.
    pub side: usize,
    /// Width and height of the picture.
    pub picture: [usize; 2],
    /// Width and height that it has in the frame.
    pub inside: [usize; 2],
}

impl Frame {
    /// Of a picture of this width and height.
    pub fn new(side: usize, picture: [usize; 2]) -> Self {
        let scale = side as f64 / picture[0].max(picture[1]).max(1) as f64;
        let inside = picture.map(|length| ((length as f64 * scale + 0.5) as usize).max(1));
        Self {
            side,
            picture,
            inside,
        }
    }

    /// A place of the picture in the frame. Both axes have a factor of their own, as lengths are rounded.
    pub fn place(&self, [x, y]: [f64; 2]) -> [f32; 2] {
        let factor = |axis: usize| self.inside[axis] as f64 / self.picture[axis] as f64;
        [(x * factor(0)) as f32, (y * factor(1)) as f32]
    }

    /// The picture, resized as Pillow does it, normalised, and filled up with zeros, `[1, side, side, 3]`.
    ///
    /// # Errors
    /// A picture of another size, or sides out of limits.
    pub fn pixels(&self, picture: &Picture) -> Result<Tensor> {
        let [width, height] = self.inside;
        let resized = resize_pil(picture, width, height, Filter::Bilinear)?;
        let mut values = vec![0.0; self.side * self.side * 3];
        let rows = resized.pixels.chunks_exact(width * 3);
        for (row, from) in values.chunks_exact_mut(self.side * 3).zip(rows) {
            for (index, (value, byte)) in row.iter_mut().zip(from).enumerate() {
                *value = (f32::from(*byte) - MEAN[index % 3]) / DEVIATION[index % 3];
            }
        }
        Ok(Tensor::from_vec(values, (1, self.side, self.side, 3))?)
    }

    /// Logits of masks `[count, rows, columns]` over the frame as logits over the picture, `[count, height, width]`.
    pub fn unframed(&self, masks: &[f32], count: usize, [rows, columns]: [usize; 2]) -> Vec<f32> {
        let [width, height] = self.picture;
        let mut logits = Vec::with_capacity(count * width * height);
        for mask in masks.chunks_exact(rows * columns).take(count) {
            self.unframed_rows(mask, [rows, columns], |row| logits.extend_from_slice(row));
        }
        logits
    }

    /// As [`unframed`](Self::unframed) of one mask, row by row from the top.
    pub fn unframed_rows(
        &self,
        mask: &[f32],
        [rows, columns]: [usize; 2],
        take: impl FnMut(&[f32]),
    ) {
        let ([width, height], [inner_width, inner_height]) = (self.picture, self.inside);
        let framed = interpolate_bilinear(mask, 1, rows, columns, self.side, self.side);
        let mut inside = Vec::with_capacity(inner_width * inner_height);
        for row in framed.chunks_exact(self.side).take(inner_height) {
            inside.extend_from_slice(&row[..inner_width]);
        }
        interpolated_rows(
            &inside,
            ([inner_height, inner_width], [height, width]),
            take,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_rounded_and_have_factors_of_their_own() {
        let frame = Frame::new(1024, [1500, 701]);
        assert_eq!(frame.inside, [1024, 479]);
        let [x, y] = frame.place([1500.0, 701.0]);
        assert_eq!([x, y], [1024.0, 479.0]);
        assert_eq!(Frame::new(64, [4000, 1]).inside, [64, 1]);
    }
}
