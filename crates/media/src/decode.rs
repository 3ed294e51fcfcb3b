//! Reading PNG, JPEG and WebP.

use crate::{Error, MAX_SIDE, Picture, Result, picture::check_size};
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use std::io::Cursor;
use std::path::Path;

/// Most memory that a decoder may take, in bytes.
const MAX_DECODER_BYTES: u64 = 1 << 30;
/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 29;

/// Reads a picture file; see [`decode_picture`].
pub fn read_picture(path: &Path) -> Result<Picture> {
    let label = path.display().to_string();
    let io = |source| Error::Io {
        path: label.clone(),
        source,
    };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > MAX_FILE_BYTES {
        let reason = format!("the file has {length} bytes, at most {MAX_FILE_BYTES} are read");
        return Err(Error::Decode { label, reason });
    }
    let bytes = std::fs::read(path).map_err(io)?;
    decode_picture(&bytes, &label)
}

/// Decodes PNG, JPEG or WebP, told apart by content; `label` names the bytes in messages.
///
/// As Pillow does before `convert("RGB")`: a camera's orientation mark is applied, transparency is dropped, grey
/// becomes RGB. Sides over [`MAX_SIDE`] are refused before any pixel is decoded.
pub fn decode_picture(bytes: &[u8], label: &str) -> Result<Picture> {
    let bad = |reason: String| Error::Decode {
        label: label.to_owned(),
        reason,
    };
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| bad(e.to_string()))?;
    if reader.format().is_none() {
        return Err(bad("it is none of PNG, JPEG, WebP".into()));
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|e| bad(e.to_string()))?;
    let (width, height) = decoder.dimensions();
    check_size(label, width.into(), height.into())?;
    debug_assert!(width as usize <= MAX_SIDE);
    let orientation = decoder.orientation().map_err(|e| bad(e.to_string()))?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| bad(e.to_string()))?;
    image.apply_orientation(orientation);
    let image = image.into_rgb8();
    let (width, height) = image.dimensions();
    Picture::new(width as usize, height as usize, image.into_raw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode_png;

    fn sample() -> Picture {
        Picture::new(5, 4, (0..60).map(|i| (i * 4) as u8).collect()).unwrap()
    }

    #[test]
    fn png_and_webp_round_trip() {
        let picture = sample();
        assert_eq!(
            decode_picture(&encode_png(&picture, &[]).unwrap(), "x").unwrap(),
            picture
        );
        let mut webp = Vec::new();
        image::codecs::webp::WebPEncoder::new_lossless(&mut webp)
            .encode(&picture.pixels, 5, 4, image::ExtendedColorType::Rgb8)
            .unwrap();
        assert_eq!(decode_picture(&webp, "x").unwrap(), picture);
    }

    #[test]
    fn jpeg_comes_close_and_orientation_is_applied() {
        let picture = Picture::filled(16, 8, [200, 40, 90]);
        let mut jpeg = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 95)
            .encode(&picture.pixels, 16, 8, image::ExtendedColorType::Rgb8)
            .unwrap();
        let back = decode_picture(&jpeg, "x").unwrap();
        assert!(
            back.pixels
                .iter()
                .zip(&picture.pixels)
                .all(|(a, b)| a.abs_diff(*b) < 6)
        );
        // An EXIF block that says "rotate by 90 degrees", right after the start marker.
        let exif = [
            &[0xff, 0xe1, 0, 34][..],
            b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
        ]
        .concat();
        let turned = [&jpeg[..2], &exif, &jpeg[2..]].concat();
        let turned = decode_picture(&turned, "x").unwrap();
        assert_eq!((turned.width, turned.height), (8, 16));
    }

    #[test]
    fn huge_sides_are_refused_before_decoding() {
        let mut png = encode_png(&sample(), &[]).unwrap();
        png[16..20].copy_from_slice(&20_000u32.to_be_bytes());
        let crc = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        let error = decode_picture(&png, "big.png").unwrap_err();
        assert!(
            matches!(error, Error::Size { width: 20_000, .. }),
            "{error}"
        );
    }

    #[test]
    fn broken_bytes_are_errors_that_name_the_file() {
        let png = encode_png(&sample(), &[]).unwrap();
        for bytes in [
            &b""[..],
            b"hello",
            &png[..20],
            &png[..png.len() / 2],
            b"GIF89a",
            b"RIFF\x10\0\0\0WEBPVP8 ",
        ] {
            let error = decode_picture(bytes, "some.png").unwrap_err().to_string();
            assert!(error.starts_with("some.png"), "{error}");
        }
        let missing = read_picture(Path::new("/nonexistent/x.png")).unwrap_err();
        assert!(matches!(missing, Error::Io { .. }));
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |c, _| {
                if c & 1 == 1 {
                    (c >> 1) ^ 0xedb8_8320
                } else {
                    c >> 1
                }
            })
        })
    }
}
