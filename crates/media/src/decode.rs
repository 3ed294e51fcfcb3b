//! Reading PNG, JPEG and WebP.

use std::io::Cursor;
use std::path::Path;

use brisk_store::Limit;
use brisk_store::guard::guarded;
use brisk_store::read::{impostor, read};
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::structure::{self, Extent};
use crate::{Error, Picture, Result, picture::check_size, png_rows};

/// Most memory that a decoder may take, in bytes.
const MAX_DECODER_BYTES: u64 = 1 << 30;
/// Where a camera's marks begin, if there are any.
const EXIF_WITHIN: usize = 64 << 10;
/// What is said of a file that is not all there.
const CUT: &str = "the file ends in the middle of the picture; get it again";

/// Reads a picture file; see [`decode_picture`].
pub fn read_picture(path: &Path) -> Result<Picture> {
    decode_picture(&read(path, Limit::PICTURE)?, &path.display().to_string())
}

/// Decodes PNG, JPEG or WebP, told apart by content; `label` names the bytes in messages.
///
/// As Pillow does before `convert("RGB")`: a camera's orientation mark is applied, transparency is dropped, grey and
/// palettes become RGB, and of several pictures the first counts; 16 bits a channel are rounded to 8. Sides over
/// [`MAX_SIDE`](crate::MAX_SIDE) are refused before any pixel is decoded.
///
/// # Errors
/// Other formats, by name; files that are cut or damaged; CMYK pictures that do not say how they store inks.
pub fn decode_picture(bytes: &[u8], label: &str) -> Result<Picture> {
    let bad = |reason: String| Error::Decode {
        label: label.to_owned(),
        reason,
    };
    if let Some(what) = impostor(bytes) {
        return Err(bad(what));
    }
    let cut = |extent| match extent {
        Extent::Whole => Ok(()),
        Extent::Cut => Err(bad(CUT.to_owned())),
    };
    let decode = || match image::guess_format(bytes).ok() {
        Some(ImageFormat::Jpeg) => decode_jpeg(bytes, label),
        Some(format @ (ImageFormat::Png | ImageFormat::WebP)) => {
            cut(match format {
                ImageFormat::Png => structure::png(bytes),
                _ => structure::webp(bytes),
            })?;
            match format {
                ImageFormat::Png => png_rows::decode(bytes, label),
                _ => decode_plain(bytes, format, label),
            }
        }
        other => Err(bad(format!(
            "it is {}, expected PNG, JPEG or WebP",
            match other {
                Some(format) => format!("{format:?}"),
                None => other_format(bytes).to_owned(),
            }
        ))),
    };
    let image = guarded(decode).map_err(bad)??.into_rgb8();
    let (width, height) = image.dimensions();
    Picture::new(width as usize, height as usize, image.into_raw())
}

/// Width and height that a PNG, JPEG or WebP claims, before any pixel is decoded; `label` names the bytes in messages.
///
/// # Errors
/// Other formats, and files without a readable beginning.
pub fn picture_size(bytes: &[u8], label: &str) -> Result<(usize, usize)> {
    let bad = |reason: String| Error::Decode {
        label: label.to_owned(),
        reason,
    };
    match image::guess_format(bytes).ok() {
        Some(format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) => {
            let read = || match format {
                ImageFormat::Png => png_rows::size(bytes).map_err(|error| error.to_string()),
                _ => reader(bytes, format)
                    .into_dimensions()
                    .map_err(|error| error.to_string()),
            };
            let (width, height) = guarded(read).map_err(bad)?.map_err(bad)?;
            Ok((width as usize, height as usize))
        }
        _ => Err(bad(
            "it is no picture that is known, expected PNG, JPEG or WebP".to_owned(),
        )),
    }
}

/// About how many bytes [`decode_picture`] takes at its most for a picture of so many pixels, the result among them.
/// Anything else than PNG, JPEG and WebP takes none.
pub fn decoding_bytes(bytes: &[u8], pixels: usize) -> usize {
    // A turned picture exists twice for a moment.
    let start = &bytes[..bytes.len().min(EXIF_WITHIN)];
    let turned = start
        .windows(4)
        .any(|word| matches!(word, b"Exif" | b"eXIf" | b"EXIF"));
    let of_pixel = match image::guess_format(bytes).ok() {
        Some(ImageFormat::Png) => 3 + 3 * usize::from(turned),
        // Coefficients of 16 bits of the whole picture.
        Some(ImageFormat::Jpeg) if structure::jpeg(bytes).progressive => 9,
        Some(ImageFormat::Jpeg) => 3 + 3 * usize::from(turned),
        // Four colours, twice: decoded, and as they are returned.
        Some(ImageFormat::WebP) => 8,
        _ => 0,
    };
    pixels.saturating_mul(of_pixel)
}

/// The name of a format that the `image` crate cannot tell.
fn other_format(bytes: &[u8]) -> &'static str {
    let start = bytes.trim_ascii_start();
    let brand = bytes.get(4..12).unwrap_or_default();
    match brand {
        b"ftypheic" | b"ftypheix" | b"ftypmif1" => "HEIC",
        b"ftypmp42" | b"ftypisom" | b"ftypqt  " => "a video",
        _ if bytes.is_empty() => "empty",
        _ if start.starts_with(b"<svg") || start.starts_with(b"<?xml") => "SVG",
        _ if start.starts_with(b"%PDF") => "PDF",
        _ if bytes.starts_with(b"\x00\x00\x00\x0cJXL ") || bytes.starts_with(b"\xff\x0a") => {
            "JPEG XL"
        }
        _ => "none of the formats of pictures that are known",
    }
}

fn decode_plain(bytes: &[u8], format: ImageFormat, label: &str) -> Result<DynamicImage> {
    let bad = |error: image::ImageError| Error::Decode {
        label: label.to_owned(),
        reason: error.to_string(),
    };
    let mut decoder = reader(bytes, format).into_decoder().map_err(bad)?;
    let (width, height) = decoder.dimensions();
    check_size(label, width.into(), height.into())?;
    let orientation = decoder.orientation().map_err(bad)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(bad)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// A reader whose memory is bounded.
fn reader(bytes: &[u8], format: ImageFormat) -> ImageReader<Cursor<&[u8]>> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    reader
}

/// Strict where the `image` crate is lenient: it fills what is damaged with grey.
fn decode_jpeg(bytes: &[u8], label: &str) -> Result<DynamicImage> {
    let bad = |reason: &dyn std::fmt::Display| Error::Decode {
        label: label.to_owned(),
        reason: reason.to_string(),
    };
    let found = structure::jpeg(bytes);
    let options = DecoderOptions::new_fast()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let headers = decoder.decode_headers();
    if found.extent == Extent::Cut {
        return Err(bad(&CUT));
    }
    headers.map_err(|error| bad(&format!("{error:?}")))?;
    let (Some((width, height)), Some(colours)) = (decoder.dimensions(), decoder.input_colorspace())
    else {
        return Err(bad(&"it has no picture"));
    };
    check_size(label, width as u64, height as u64)?;
    let wanted = match colours {
        ColorSpace::Luma => ColorSpace::Luma,
        ColorSpace::CMYK if !found.adobe => {
            return Err(bad(
                &"it is in CMYK and does not say how inks are stored; save it in RGB",
            ));
        }
        _ => ColorSpace::RGB,
    };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(wanted));
    let pixels = decoder
        .decode()
        .map_err(|error| bad(&format!("damaged: {error:?}")))?;
    let (width, height) = (width as u32, height as u32);
    let image = match wanted {
        ColorSpace::Luma => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        _ => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
    };
    let mut image = image.ok_or_else(|| bad(&"damaged: its size and its pixels differ"))?;
    let turned = decoder
        .exif()
        .and_then(|exif| Orientation::from_exif_chunk(exif));
    image.apply_orientation(turned.unwrap_or(Orientation::NoTransforms));
    Ok(image)
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
    fn sizes_are_told_before_decoding() {
        let png = encode_png(&sample(), &[]).unwrap();
        let pixels = png.windows(4).position(|name| name == b"IDAT").unwrap();
        assert_eq!(picture_size(&png[..pixels + 4], "x").unwrap(), (5, 4));
        for bytes in [&b""[..], b"GIF89a\x01\0\x01\0", &png[..12]] {
            assert!(picture_size(bytes, "x").is_err());
        }
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
        assert!(matches!(
            missing,
            Error::File(brisk_store::Error::Io { .. })
        ));
    }

    /// A PNG of 5 by 4 pixels with a profile of so many zeros.
    fn with_profile(length: usize) -> Vec<u8> {
        let png = encode_png(&sample(), &[]).unwrap();
        let mut zipped = Vec::new();
        let mut writer = png::Encoder::new(&mut zipped, length as u32 / 4, 1);
        writer.set_color(png::ColorType::Rgba);
        let mut writer = writer.write_header().unwrap();
        writer.write_image_data(&vec![0; length]).unwrap();
        writer.finish().unwrap();
        let data = zipped.windows(4).position(|name| name == b"IDAT").unwrap();
        let size = u32::from_be_bytes(zipped[data - 4..data].try_into().unwrap()) as usize;
        let body = [b"iCCPa\0\0", &zipped[data + 4..data + 4 + size]].concat();
        let length = (body.len() as u32 - 4).to_be_bytes();
        let crc = crc32(&body).to_be_bytes();
        [&png[..33], &length, &body, &crc, &png[33..]].concat()
    }

    #[test]
    fn a_profile_that_unfolds_is_not_unfolded() {
        let bomb = with_profile(60 << 20);
        assert!(bomb.len() < 200_000, "{}", bomb.len());
        assert_eq!(picture_size(&bomb, "x").unwrap(), (5, 4));
        assert_eq!(decode_picture(&bomb, "x").unwrap(), sample());
    }

    #[test]
    fn what_decoding_takes_is_told_by_the_kind_of_file() {
        let picture = Picture::filled(16, 8, [200, 40, 90]);
        let png = encode_png(&picture, &[]).unwrap();
        let jpeg = crate::encode_jpeg(&picture, 90).unwrap();
        let webp = crate::encode_webp(&picture).unwrap();
        assert_eq!(decoding_bytes(&png, 128), 3 * 128);
        assert_eq!(decoding_bytes(&jpeg, 128), 3 * 128);
        assert_eq!(decoding_bytes(&webp, 128), 8 * 128);
        assert_eq!(decoding_bytes(b"GIF89a", 128), 0);
        // A frame whose scans refine it.
        let mut progressive = jpeg;
        let frame = progressive.windows(2).position(|two| two == [0xff, 0xc0]);
        progressive[frame.unwrap() + 1] = 0xc2;
        assert_eq!(decoding_bytes(&progressive, 128), 9 * 128);
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
