//! PNG to RGB row by row: only the result exists whole, whatever the file stores of a pixel.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageBuffer, RgbImage};
use png::{BitDepth, ColorType, InterlaceInfo, Transformations};

use crate::{Error, Result, picture::check_size};

/// Bytes that a decoder may take beside the result.
const BESIDE_PIXELS: usize = 32 << 20;
/// Colours of a pixel of the result, a byte each.
const COLOURS: usize = 3;

/// Decodes a PNG as `image` does before `into_rgb8`: palettes and grey become RGB, transparency is dropped, 16 bits a
/// channel are rounded to 8, and a camera's orientation mark is applied.
///
/// # Errors
/// A damaged file, or sides out of limits.
pub(crate) fn decode(bytes: &[u8], label: &str) -> Result<DynamicImage> {
    let bad = |reason: String| Error::Decode {
        label: label.to_owned(),
        reason,
    };
    let failed = |error: png::DecodingError| bad(format!("Format error decoding Png: {error}"));
    let mut decoder = decoder(bytes);
    decoder.set_transformations(Transformations::EXPAND);
    let (width, height) = decoder.read_header_info().map_err(failed)?.size();
    check_size(label, width.into(), height.into())?;
    let mut rows = decoder.read_info().map_err(failed)?;
    let exif = rows.info().exif_metadata.as_deref();
    let orientation = exif.and_then(Orientation::from_exif_chunk);
    let kind = rows.output_color_type();
    let line = width as usize * COLOURS;
    let mut pixels = vec![0; line * height as usize];
    let mut next = 0;
    while let Some(row) = rows.next_interlaced_row().map_err(failed)? {
        let colours = rgb(kind, row.data())
            .ok_or_else(|| bad(format!("its pixels are {kind:?}, which is not read here")))?;
        match row.interlace() {
            InterlaceInfo::Null(_) => {
                let place = pixels.get_mut(next * line..(next + 1) * line);
                place
                    .filter(|place| place.len() == colours.len())
                    .ok_or_else(|| bad("damaged: its size and its pixels differ".to_owned()))?
                    .copy_from_slice(&colours);
                next += 1;
            }
            InterlaceInfo::Adam7(pass) => {
                png::expand_interlaced_row(&mut pixels, line, &colours, pass, 8 * COLOURS as u8);
            }
        }
    }
    let image = RgbImage::from_raw(width, height, pixels);
    let image = image.ok_or_else(|| bad("damaged: its size and its pixels differ".to_owned()))?;
    let mut image = DynamicImage::from(image);
    image.apply_orientation(orientation.unwrap_or(Orientation::NoTransforms));
    Ok(image)
}

/// Width and height that the header claims; nothing else is read.
pub(crate) fn size(bytes: &[u8]) -> std::result::Result<(u32, u32), png::DecodingError> {
    Ok(decoder(bytes).read_header_info()?.size())
}

/// One that unfolds neither texts nor profiles: they tell nothing of what they unfold to.
fn decoder(bytes: &[u8]) -> png::Decoder<Cursor<&[u8]>> {
    let limits = png::Limits {
        bytes: BESIDE_PIXELS,
    };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder
}

/// A row as bytes of red, green and blue.
fn rgb((colours, depth): (ColorType, BitDepth), row: &[u8]) -> Option<Vec<u8>> {
    let channels = colours.samples();
    let line: DynamicImage = match depth {
        BitDepth::Eight => {
            let width = (row.len() / channels) as u32;
            let row = row.to_vec();
            match colours {
                ColorType::Rgb => return Some(row),
                ColorType::Grayscale => image::GrayImage::from_raw(width, 1, row)?.into(),
                ColorType::GrayscaleAlpha => image::GrayAlphaImage::from_raw(width, 1, row)?.into(),
                ColorType::Rgba => image::RgbaImage::from_raw(width, 1, row)?.into(),
                ColorType::Indexed => return None,
            }
        }
        BitDepth::Sixteen => {
            let values = row.as_chunks::<2>().0.iter();
            let row: Vec<u16> = values.map(|value| u16::from_be_bytes(*value)).collect();
            let width = (row.len() / channels) as u32;
            match colours {
                ColorType::Rgb => {
                    ImageBuffer::<image::Rgb<u16>, _>::from_raw(width, 1, row)?.into()
                }
                ColorType::Grayscale => {
                    ImageBuffer::<image::Luma<u16>, _>::from_raw(width, 1, row)?.into()
                }
                ColorType::GrayscaleAlpha => {
                    ImageBuffer::<image::LumaA<u16>, _>::from_raw(width, 1, row)?.into()
                }
                ColorType::Rgba => {
                    ImageBuffer::<image::Rgba<u16>, _>::from_raw(width, 1, row)?.into()
                }
                ColorType::Indexed => return None,
            }
        }
        _ => return None,
    };
    Some(line.into_rgb8().into_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PNG of 9 by 7 pixels of this kind, with noise.
    fn noisy(colours: ColorType, depth: BitDepth) -> Vec<u8> {
        let (width, height) = (9, 7);
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(colours);
        encoder.set_depth(depth);
        if colours == ColorType::Indexed {
            encoder.set_palette((0..48).map(|value| value * 5).collect::<Vec<u8>>());
            encoder.set_trns(vec![7; 3]);
        }
        let bits = colours.samples() * depth as usize;
        let length = (width as usize * bits).div_ceil(8) * height as usize;
        let noise = (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 23) as u8);
        let mut writer = encoder.write_header().unwrap();
        writer
            .write_image_data(&noise.collect::<Vec<u8>>())
            .unwrap();
        writer.finish().unwrap();
        bytes
    }

    #[test]
    fn every_kind_of_pixel_is_what_whole_decoding_gives() {
        use {BitDepth::*, ColorType::*};
        for (colours, depths) in [
            (Grayscale, &[One, Two, Four, Eight, Sixteen][..]),
            (Indexed, &[One, Two, Four]),
            (GrayscaleAlpha, &[Eight, Sixteen]),
            (Rgb, &[Eight, Sixteen]),
            (Rgba, &[Eight, Sixteen]),
        ] {
            for depth in depths {
                let file = noisy(colours, *depth);
                let whole = image::load_from_memory(&file).unwrap().into_rgb8();
                let found = decode(&file, "x").unwrap().into_rgb8();
                assert_eq!(found, whole, "{colours:?} {depth:?}");
            }
        }
    }

    #[test]
    fn interlaced_rows_come_to_their_places() {
        // Of 5 by 3 pixels whose colours are 0, 1, 2, … in order.
        let file = b"\
          \x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x05\x00\x00\
          \x00\x03\x08\x02\x00\x00\x01\xa3\x53\x62\x39\x00\x00\x00\x3c\x49\x44\x41\x54\x78\xda\x63\
          \x60\x60\x64\x62\xe0\xe1\xe5\x63\x60\x63\xe7\x60\x90\x93\x57\x50\x51\x55\xd3\xd2\xd6\x61\
          \x60\x66\x61\xe5\xe4\xe2\x66\x50\x54\x52\x56\xd7\xd0\x64\xe0\x17\x10\x14\x12\x16\x11\x15\
          \x13\x97\x90\x94\x92\x96\x91\x05\x00\x56\x89\x03\xdf\x82\x08\x93\x00\x00\x00\x00\x00\x49\
          \x45\x4e\x44\xae\x42\x60\x82";
        let found = decode(file, "x").unwrap().into_rgb8();
        assert_eq!(found, image::load_from_memory(file).unwrap().into_rgb8());
        assert_eq!(found.dimensions(), (5, 3));
        assert_eq!(found.into_raw(), (0..45).collect::<Vec<u8>>());
    }
}
