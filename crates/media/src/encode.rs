//! Writing JPEG and WebP; PNG has a file of its own.

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;

use crate::{Error, Picture, Result, picture::check_size};

/// Encodes `picture` as JPEG; `quality` goes from 1 to 100, what lies outside counts as the nearer end.
///
/// # Errors
/// A picture that is too large.
pub fn encode_jpeg(picture: &Picture, quality: u8) -> Result<Vec<u8>> {
    let (width, height) = sides(picture, "JPEG")?;
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100))
        .encode(&picture.pixels, width, height, ExtendedColorType::Rgb8)
        .map_err(|error| Error::Encode(error.to_string()))?;
    Ok(bytes)
}

/// Encodes `picture` as WebP without loss.
///
/// # Errors
/// A picture that is too large.
pub fn encode_webp(picture: &Picture) -> Result<Vec<u8>> {
    let (width, height) = sides(picture, "WebP")?;
    let mut bytes = Vec::new();
    WebPEncoder::new_lossless(&mut bytes)
        .encode(&picture.pixels, width, height, ExtendedColorType::Rgb8)
        .map_err(|error| Error::Encode(error.to_string()))?;
    Ok(bytes)
}

fn sides(picture: &Picture, format: &str) -> Result<(u32, u32)> {
    check_size(format, picture.width as u64, picture.height as u64)?;
    if picture.pixels.len() != picture.width * picture.height * 3 {
        return Err(Error::Encode(format!(
            "{} bytes are no picture of {} × {} RGB pixels",
            picture.pixels.len(),
            picture.width,
            picture.height
        )));
    }
    Ok((picture.width as u32, picture.height as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode_picture;

    #[test]
    fn what_is_written_is_read_back() {
        let pixels = (0..16 * 8 * 3).map(|at| (at / 3 * 2) as u8).collect();
        let picture = Picture::new(16, 8, pixels).unwrap();
        let webp = encode_webp(&picture).unwrap();
        assert_eq!(decode_picture(&webp, "x").unwrap(), picture);
        let sizes = [10, 95].map(|quality| {
            let jpeg = encode_jpeg(&picture, quality).unwrap();
            let back = decode_picture(&jpeg, "x").unwrap();
            assert_eq!((back.width, back.height), (16, 8));
            jpeg.len()
        });
        assert!(sizes[0] < sizes[1], "{sizes:?}");
        let wrong = Picture {
            width: 17,
            ..picture
        };
        assert!(encode_jpeg(&wrong, 90).is_err() && encode_webp(&wrong).is_err());
    }
}
