//! Pictures to latents and back.

use brisk_media::{Picture, signed_to_byte};
use brisk_models::dcae::{Autoencoder, Tiling};
use brisk_nn::{Tensor, check_finite};

use crate::diffusion::DecodeMode;
use crate::diffusion::resolution::{Planes, resize_and_crop};
use crate::error::Result;

/// Pixels above which pictures are decoded in strips unless asked otherwise.
const WHOLE_PIXELS: usize = 1024 * 1024;

/// Pixel rows of a strip of a picture `width` wide: fewer where a row takes more memory, but not so few
/// that the neighbours of strips cost more than the strips.
pub(super) fn strip_rows(width: usize) -> usize {
    (160 * 1024 / width.max(1)).clamp(64, 256)
}

/// The mode for a size. `whole_fits` says whether one piece would fit in memory; on a card, which strips
/// make slower, it decides alone.
pub(super) fn resolve_mode(
    mode: DecodeMode,
    (height, width): (usize, usize),
    whole_fits: bool,
    on_card: bool,
) -> DecodeMode {
    let small = on_card || height * width <= WHOLE_PIXELS;
    match mode {
        DecodeMode::Auto if small && whole_fits => DecodeMode::Whole,
        DecodeMode::Auto => DecodeMode::Strips,
        given => given,
    }
}

/// Decodes one latent `[1, h, w, C]` (scaled as the transformer sees it) to a picture of the wanted size.
pub(super) fn decode(
    autoencoder: &Autoencoder,
    latent: &Tensor,
    mode: DecodeMode,
    (height, width): (usize, usize),
) -> Result<Picture> {
    let latent = latent.affine(1.0 / autoencoder.scaling_factor(), 0.0)?;
    let sample = match mode {
        DecodeMode::Auto | DecodeMode::Whole => {
            autoencoder.decode(&latent.to(autoencoder.location())?)?
        }
        DecodeMode::Strips => {
            let ratio = autoencoder.ratio();
            let (_, rows, columns, _) = latent.dims4()?;
            if (rows * ratio, columns * ratio) == (height, width) {
                return decode_to_bytes(autoencoder, &latent, (height, width));
            }
            autoencoder.decode_strips(&latent, strip_rows(width))?
        }
        DecodeMode::Tiled => autoencoder.decode_tiled(&latent, &Tiling::default())?,
    };
    check_finite(&sample, "decode", "picture")?;
    let (_, rows, columns, _) = sample.dims4()?;
    let bytes = match (rows, columns) == (height, width) {
        true => sample.signed_bytes()?,
        false => None,
    };
    match bytes {
        Some(pixels) => Ok(Picture {
            width,
            height,
            pixels,
        }),
        None => to_picture(&sample, height, width),
    }
}

/// Decodes a latent in strips whose values become bytes at once, so that the picture is never held as
/// numbers.
fn decode_to_bytes(
    autoencoder: &Autoencoder,
    latent: &Tensor,
    (height, width): (usize, usize),
) -> Result<Picture> {
    let mut pixels = Vec::with_capacity(height * width * 3);
    autoencoder.decode_strips_with(latent, strip_rows(width), |_, strip| {
        check_finite(strip, "decode", "picture")?;
        let values = strip.flatten_all()?.to_vec1::<f32>()?;
        pixels.extend(values.into_iter().map(signed_to_byte));
        Ok(())
    })?;
    Ok(Picture {
        width,
        height,
        pixels,
    })
}

/// A sample `[1, H, W, 3]` in −1..1 as a picture, scaled and cropped to the wanted size.
fn to_picture(sample: &Tensor, height: usize, width: usize) -> Result<Picture> {
    let (_, rows, columns, channels) = sample.dims4()?;
    let mut values = sample.flatten_all()?.to_vec1::<f32>()?;
    if (rows, columns) != (height, width) {
        let planes = sample
            .permute((0, 3, 1, 2))?
            .contiguous()?
            .flatten_all()?
            .to_vec1::<f32>()?;
        let cut = resize_and_crop(
            Planes {
                height: rows,
                width: columns,
                values: planes,
            },
            height,
            width,
        );
        values = Tensor::from_vec(cut.values, (channels, height, width))?
            .permute((1, 2, 0))?
            .contiguous()?
            .flatten_all()?
            .to_vec1::<f32>()?;
    }
    Ok(Picture {
        width,
        height,
        pixels: values.into_iter().map(signed_to_byte).collect(),
    })
}

/// Encodes a picture of the generation size to a latent `[1, h, w, C]`, scaled as the transformer sees it.
pub(super) fn encode(autoencoder: &Autoencoder, picture: &Picture) -> Result<Tensor> {
    let (height, width) = (picture.height, picture.width);
    let values = picture
        .pixels
        .iter()
        .map(|&byte| f32::from(byte) / 255.0 * 2.0 - 1.0)
        .collect();
    let sample = Tensor::from_vec(values, (1, height, width, 3))?;
    let latent = if height * width <= WHOLE_PIXELS {
        autoencoder.encode(&sample)?
    } else {
        autoencoder.encode_strips(&sample, strip_rows(width))?
    };
    check_finite(&latent, "encode", "latent")?;
    Ok(latent.affine(autoencoder.scaling_factor(), 0.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_half_to_even() {
        assert_eq!(
            (
                signed_to_byte(-1.0),
                signed_to_byte(1.0),
                signed_to_byte(-3.0),
                signed_to_byte(9.0)
            ),
            (0, 255, 0, 255)
        );
        // 0.5 · 255 = 127.5 ties to 128; 126.5 ties to 126.
        assert_eq!(signed_to_byte(0.0), 128);
        assert_eq!(signed_to_byte(126.5 / 255.0 * 2.0 - 1.0), 126);
    }

    #[test]
    fn sizes_are_matched_by_cropping() {
        let values: Vec<f32> = (0..2 * 4 * 3)
            .map(|index| index as f32 / 23.0 * 2.0 - 1.0)
            .collect();
        let sample = Tensor::from_vec(values, (1, 2, 4, 3)).unwrap();
        let whole = to_picture(&sample, 2, 4).unwrap();
        let cut = to_picture(&sample, 2, 2).unwrap();
        assert_eq!(cut.pixels[..6], whole.pixels[3..9]);
        assert_eq!((cut.width, cut.height, cut.pixels.len()), (2, 2, 12));
    }

    #[test]
    fn large_pictures_are_decoded_in_strips() {
        assert_eq!(
            resolve_mode(DecodeMode::Auto, (1024, 1024), true, false),
            DecodeMode::Whole
        );
        assert_eq!(
            resolve_mode(DecodeMode::Auto, (1024, 1024), false, false),
            DecodeMode::Strips
        );
        assert_eq!(
            resolve_mode(DecodeMode::Auto, (1056, 1024), true, false),
            DecodeMode::Strips
        );
        assert_eq!(
            resolve_mode(DecodeMode::Whole, (4096, 4096), false, false),
            DecodeMode::Whole
        );
        // A card takes what fits in one piece.
        for (fits, mode) in [(true, DecodeMode::Whole), (false, DecodeMode::Strips)] {
            let resolved = resolve_mode(DecodeMode::Auto, (2048, 2048), fits, true);
            assert_eq!(resolved, mode);
        }
    }
}
