//! The first frame as the networks see it.

use brisk_media::{Filter, Picture, byte_to_signed, resize_pil};
use brisk_nn::Tensor;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// Shapes that the published models were trained at, width and height.
const SHAPES: [[usize; 2]; 5] = [[544, 960], [624, 832], [720, 720], [832, 624], [960, 544]];

/// The trained shape that is nearest to a picture's.
pub(super) fn nearest_shape([width, height]: [usize; 2]) -> [usize; 2] {
    let ratio = |[width, height]: [usize; 2]| width as f64 / height.max(1) as f64;
    let off = |shape: [usize; 2]| (ratio(shape) - ratio([width, height])).abs();
    let nearest = SHAPES
        .into_iter()
        .min_by(|a, b| off(*a).total_cmp(&off(*b)));
    nearest.unwrap_or([960, 544])
}

/// A picture in a frame's size: what another shape has no room for is cut off evenly.
///
/// # Errors
/// A size out of limits.
pub fn fitted(picture: &Picture, width: usize, height: usize) -> Result<Picture> {
    let (own, wanted) = (picture.width * height, width * picture.height);
    let kept = match own.cmp(&wanted) {
        std::cmp::Ordering::Greater => [(wanted / height).max(1), picture.height],
        std::cmp::Ordering::Less => [picture.width, (own / width).max(1)],
        std::cmp::Ordering::Equal => [picture.width, picture.height],
    };
    let cut = middle(picture, kept)?;
    Ok(resize_pil(&cut, width, height, Filter::Lanczos)?)
}

/// The middle of a picture.
fn middle(picture: &Picture, [width, height]: [usize; 2]) -> Result<Picture> {
    let (left, top) = ((picture.width - width) / 2, (picture.height - height) / 2);
    Ok(picture.crop(left, top, width, height)?)
}

/// A picture in −1..1, `[1,1,H,W,3]`.
///
/// # Errors
/// Memory.
pub fn signed(picture: &Picture) -> Result<Tensor> {
    let values = picture.pixels.iter().map(|byte| byte_to_signed(*byte));
    let shape = vec![1, 1, picture.height, picture.width, 3];
    Ok(Tensor::from_vec(values.collect(), shape)?)
}

/// How much of the first latent is the picture's and not noise.
const PICTURE_SHARE: f64 = 1e-3;

/// Noise `[1,F,h,w,C]` as a clip begins with it: with a thousandth of the `given` frame's latent `[1,1,h,w,C]` in every
/// frame, as the reference has it.
///
/// # Errors
/// Latents of other shapes.
pub fn beginning(noise: &Tensor, given: Option<&Tensor>) -> Result<Tensor> {
    let Some(given) = given else {
        return Ok(noise.clone());
    };
    let everywhere = given.repeat(vec![1, noise.dim(1)?, 1, 1, 1])?;
    let noise = noise.affine(1.0 - PICTURE_SHARE, 0.0)?;
    Ok((noise + everywhere.affine(PICTURE_SHARE, 0.0)?)?)
}

/// How pictures are prepared for the vision encoder (`preprocessor_config.json`), with CLIP's own values where a key is
/// missing.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Preparation {
    size: Value,
    crop_size: Value,
    resample: u32,
    rescale_factor: f64,
    image_mean: [f32; 3],
    image_std: [f32; 3],
    do_resize: bool,
    do_center_crop: bool,
    do_rescale: bool,
    do_normalize: bool,
}

impl Default for Preparation {
    fn default() -> Self {
        Self {
            size: Value::Null,
            crop_size: Value::Null,
            resample: BICUBIC,
            rescale_factor: 1.0 / 255.0,
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            do_resize: true,
            do_center_crop: true,
            do_rescale: true,
            do_normalize: true,
        }
    }
}

/// Pillow's number of cubic interpolation.
const BICUBIC: u32 = 3;

impl Preparation {
    /// Reads the file, named by `label`, of an encoder that sees `side` pixels.
    ///
    /// # Errors
    /// Values that are not CLIP's way, by their key.
    pub fn read(value: Value, label: &str, side: usize) -> Result<Self> {
        let wrong = |message: String| Error::config(label, message);
        let read: Self = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        for (key, is) in [
            ("do_resize", read.do_resize),
            ("do_center_crop", read.do_center_crop),
            ("do_rescale", read.do_rescale),
            ("do_normalize", read.do_normalize),
        ] {
            if !is {
                return Err(wrong(format!("`{key}` is false; expected true")));
            }
        }
        if read.resample != BICUBIC {
            let found = read.resample;
            return Err(wrong(format!(
                "`resample` is {found}; expected 3 (bicubic)"
            )));
        }
        if (read.rescale_factor * 255.0 - 1.0).abs() > 1e-6 {
            let found = read.rescale_factor;
            return Err(wrong(format!(
                "`rescale_factor` is {found}; expected 1/255"
            )));
        }
        if read.image_std.iter().any(|deviation| *deviation <= 0.0) {
            return Err(wrong("`image_std` must be positive".into()));
        }
        for (key, found) in [("size", &read.size), ("crop_size", &read.crop_size)] {
            let sides = match found {
                Value::Null => continue,
                Value::Object(sides) => sides.values().cloned().collect(),
                one => vec![one.clone()],
            };
            if sides
                .iter()
                .any(|found| found.as_u64() != Some(side as u64))
            {
                return Err(wrong(format!(
                    "`{key}` is {found}; the text encoder's vision encoder sees {side} pixels"
                )));
            }
        }
        Ok(read)
    }

    /// A picture as the vision encoder sees it, `[1,side,side,3]`: its shorter side as long as the encoder's, the middle
    /// of the longer one.
    ///
    /// # Errors
    /// A size out of limits.
    pub fn run(&self, picture: &Picture, side: usize) -> Result<Tensor> {
        let short = picture.width.min(picture.height);
        let scaled = |length: usize| side * length / short;
        let (width, height) = (scaled(picture.width), scaled(picture.height));
        let resized = resize_pil(picture, width, height, Filter::Bicubic)?;
        let cut = middle(&resized, [side, side])?;
        let normalised = |(at, byte): (usize, &u8)| {
            let colour = at % 3;
            (f32::from(*byte) / 255.0 - self.image_mean[colour]) / self.image_std[colour]
        };
        let values = cut.pixels.iter().enumerate().map(normalised).collect();
        Ok(Tensor::from_vec(values, (1, side, side, 3))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_cut_off_evenly() {
        let mut wide = Picture::filled(30, 10, [0; 3]);
        for y in 0..10 {
            for x in 10..20 {
                wide.pixels[3 * (y * 30 + x)] = 255;
            }
        }
        let square = fitted(&wide, 20, 20).unwrap();
        assert!(square.pixels.chunks(3).all(|pixel| pixel[0] == 255));
        assert_eq!(fitted(&wide, 30, 10).unwrap(), wide);
        assert_eq!(nearest_shape([1000, 1000]), [720, 720]);
        assert_eq!(nearest_shape([300, 1000]), [544, 960]);
    }

    #[test]
    fn other_preparations_are_refused_by_key() {
        let read = |text: &str| {
            let value = serde_json::from_str(text).unwrap();
            Preparation::read(value, "preprocessor_config.json", 336).map_err(|e| e.to_string())
        };
        read(r#"{"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}"#)
            .unwrap();
        for (text, word) in [
            (r#"{"size": {"shortest_edge": 224}}"#, "`size`"),
            (r#"{"resample": 2}"#, "`resample` is 2"),
            (r#"{"do_normalize": false}"#, "do_normalize"),
            (r#"{"image_std": [1, 0, 1]}"#, "image_std"),
            (r#"{"image_mean": [1]}"#, "preprocessor_config.json"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(word), "{message}");
        }
    }
}
