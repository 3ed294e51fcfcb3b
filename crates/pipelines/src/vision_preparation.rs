//! Pictures as CLIP's vision encoder sees them.

use brisk_media::{Filter, Picture, resize_pil};
use brisk_nn::Tensor;
use brisk_store::ModelFolder;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// How pictures are prepared for a vision encoder (`preprocessor_config.json`), with CLIP's own values where a key is
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
    /// That of a `file` of a model's folder, for an encoder that sees `side` pixels; CLIP's own where the folder says nothing.
    ///
    /// # Errors
    /// As [`Self::read`], or a file that is no JSON.
    pub fn of(folder: &ModelFolder, file: &str, side: usize) -> Result<Self> {
        match folder.exists(file) {
            true => {
                let label = format!("{}/{file}", folder.label());
                Self::read(folder.read_json(file)?, &label, side)
            }
            false => Ok(Self::default()),
        }
    }

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
                    "`{key}` is {found}; the vision encoder sees {side} pixels"
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
        let cut = resized.middle(side, side)?;
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
