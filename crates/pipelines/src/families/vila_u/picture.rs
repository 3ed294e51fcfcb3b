//! Pictures as the vision tower takes them.

use brisk_media::{Filter, Picture, resize_pil};
use brisk_nn::Tensor;
use serde_json::Value;

use crate::error::{Error, Result};

/// Grey that pictures are made square with: half of 255, cut off.
const GREY: u8 = 127;

/// What becomes of a picture that is no square.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aspect {
    /// It is squeezed.
    Resize,
    /// Grey is put on two sides.
    Pad,
}

impl Aspect {
    /// What the configuration of the whole model says.
    pub fn read(config: &Value, label: &str) -> Result<Self> {
        match config.get("image_aspect_ratio") {
            None | Some(Value::Null) => Ok(Self::Resize),
            Some(Value::String(name)) if name == "resize" => Ok(Self::Resize),
            Some(Value::String(name)) if name == "pad" => Ok(Self::Pad),
            Some(other) => Err(Error::config(
                label,
                format!("`image_aspect_ratio` is {other}; expected \"resize\" or \"pad\""),
            )),
        }
    }
}

/// A picture as `[1,side,side,3]` in −1..1.
pub(super) fn prepared(picture: &Picture, side: usize, aspect: Aspect) -> Result<Tensor> {
    let padded;
    let picture = match aspect {
        Aspect::Resize => picture,
        Aspect::Pad => {
            padded = square(picture);
            &padded
        }
    };
    let resized = resize_pil(picture, side, side, Filter::Bicubic)?;
    let values = resized.pixels.iter();
    let values = values.map(|byte| (f32::from(*byte) / 255.0 - 0.5) / 0.5);
    Ok(Tensor::from_vec(values.collect(), (1, side, side, 3))?)
}

/// A picture as [`prepared`] without a model's settings: squeezed to a square.
pub fn squeezed(picture: &Picture, side: usize) -> Result<Tensor> {
    prepared(picture, side, Aspect::Resize)
}

/// The picture in the middle of a grey square.
fn square(picture: &Picture) -> Picture {
    let side = picture.width.max(picture.height);
    let (left, top) = ((side - picture.width) / 2, (side - picture.height) / 2);
    let mut square = Picture::filled(side, side, [GREY; 3]);
    square.paste(picture, left, top);
    square
}

/// A decoded picture `[1,H,W,3]`, about −1..1; values are cut down to bytes, as the reference does.
pub(super) fn shown(sample: &Tensor) -> Result<Picture> {
    let (_, height, width, _) = sample.dims4()?;
    let values = sample.flatten_all()?.to_vec1::<f32>()?;
    let byte = |value: f32| ((value + 1.0) * 127.5) as u8;
    Ok(Picture {
        width,
        height,
        pixels: values.into_iter().map(byte).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_become_squares_of_the_wanted_size() {
        let picture = Picture {
            width: 4,
            height: 2,
            pixels: [[255, 0, 0]; 8].concat(),
        };
        for (aspect, corner) in [(Aspect::Resize, 1.0), (Aspect::Pad, -1.0 / 255.0)] {
            let found = prepared(&picture, 4, aspect).unwrap();
            assert_eq!(found.dims(), [1, 4, 4, 3]);
            let values = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(
                (values[0] - corner).abs() < 1e-6,
                "{aspect:?} {}",
                values[0]
            );
            // A row of the middle is the picture's.
            assert_eq!(values[4 * 3..4 * 3 + 3], [1.0, -1.0, -1.0]);
        }
        let values = [-1.5f32, -1.0, 0.0, 0.999, 1.0, 7.0];
        let sample = Tensor::from_slice(&values, (1, 1, 2, 3)).unwrap();
        assert_eq!(shown(&sample).unwrap().pixels, [0, 0, 127, 254, 255, 255]);
    }

    #[test]
    fn another_way_is_refused_by_its_key() {
        let read =
            |value: Value| Aspect::read(&serde_json::json!({"image_aspect_ratio": value}), "c");
        assert_eq!(read("pad".into()).unwrap(), Aspect::Pad);
        assert_eq!(read(Value::Null).unwrap(), Aspect::Resize);
        let error = read("anyres".into()).unwrap_err().to_string();
        assert!(
            error.contains("image_aspect_ratio") && error.contains("anyres"),
            "{error}"
        );
    }
}
