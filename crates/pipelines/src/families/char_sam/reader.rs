//! The recogniser of words: pictures of lines to text.

use brisk_media::{Filter, Picture, resize_pil};
use brisk_models::crnn::{Crnn, CrnnConfig, Reading, read};
use brisk_nn::{Tensor, Trace, Weights};

use crate::error::Result;

/// Narrowest line that is read; narrower ones are filled up.
const NARROWEST: usize = 16;

/// The network with its characters.
pub struct Reader {
    network: Crnn,
    config: CrnnConfig,
}

impl Reader {
    /// From weights under [plain names](brisk_models::crnn::plain_names).
    ///
    /// # Errors
    /// One report of every tensor that does not fit.
    pub fn load(config: &CrnnConfig, weights: &Weights) -> Result<Self> {
        Ok(Self {
            network: Crnn::load(config, weights)?,
            config: config.clone(),
        })
    }

    /// What a picture of a line says.
    ///
    /// # Errors
    /// A size out of limits, or a non-finite activation.
    pub fn read(&self, line: &Picture) -> Result<Reading> {
        let pixels = reader_pixels(line, self.config.image_height)?;
        let logits = self.network.forward(&pixels, &mut Trace::none())?;
        Ok(read(&self.config, &logits.flatten_all()?.to_vec1::<f32>()?))
    }
}

/// A picture of a line as the network takes it: grey, of so many rows, `[1, height, width, 1]` in −1..1.
///
/// # Errors
/// A size out of limits.
pub fn reader_pixels(line: &Picture, height: usize) -> Result<Tensor> {
    let width = (height * line.width).div_ceil(line.height).max(1);
    let resized = resize_pil(&grey(line), width, height, Filter::Bicubic)?;
    let wide = width.max(NARROWEST);
    let mut values = Vec::with_capacity(height * wide);
    for row in resized.pixels.chunks_exact(3 * width) {
        // The last column goes on.
        let of = |x: usize| f32::from(row[3 * x.min(width - 1)]) / 255.0;
        values.extend((0..wide).map(|x| (of(x) - 0.5) / 0.5));
    }
    Ok(Tensor::from_vec(values, (1, height, wide, 1))?)
}

/// A picture without colours (BT.601, as Pillow and OpenCV weigh them).
fn grey(picture: &Picture) -> Picture {
    let mut grey = picture.clone();
    for pixel in grey.pixels.chunks_exact_mut(3) {
        let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
        pixel.fill(((19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16) as u8);
    }
    grey
}
