//! Encoding and decoding in overlapping tiles that are blended, number for number as diffusers
//! does it. With attention, each tile attends to itself alone, so the result differs from the
//! whole picture's; [strips](Autoencoder::decode_strips) don't have that flaw.

use brisk_nn::{Error, Result, Tensor};

use super::model::Autoencoder;
use crate::tiled::{Axis, tiled};

/// Size and distance of tiles, in pixels of picture; all multiples of the ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Height of a tile; pictures that aren't larger in either axis aren't tiled.
    pub min_height: usize,
    /// Width of a tile.
    pub min_width: usize,
    /// Rows from one tile to the next.
    pub stride_height: usize,
    /// Columns from one tile to the next.
    pub stride_width: usize,
}

impl Default for Tiling {
    fn default() -> Self {
        Tiling {
            min_height: 512,
            min_width: 512,
            stride_height: 448,
            stride_width: 448,
        }
    }
}

impl Tiling {
    fn check(&self, ratio: usize) -> Result<()> {
        for (what, tile, stride) in [
            ("height", self.min_height, self.stride_height),
            ("width", self.min_width, self.stride_width),
        ] {
            let whole = |size: usize| size > 0 && size.is_multiple_of(ratio);
            if !whole(tile) || !whole(stride) || stride > tile {
                return Err(Error::Config(format!(
                    "tile {what} {tile} with stride {stride}: both must be multiples of the \
                     autoencoder's ratio {ratio}, and the stride at most the tile"
                )));
            }
        }
        Ok(())
    }
}

impl Autoencoder {
    /// As [`decode`](Self::decode) in tiles, where the picture is larger than one.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and when the tiling doesn't fit the ratio.
    pub fn decode_tiled(&self, latent: &Tensor, tiling: &Tiling) -> Result<Tensor> {
        let ratio = self.ratio();
        tiling.check(ratio)?;
        let [_, height, width, _] = self.check_latent(latent)?;
        if height <= tiling.min_height / ratio && width <= tiling.min_width / ratio {
            return self.decode(latent);
        }
        let axis = |dim: usize, tile: usize, stride: usize| Axis {
            dim,
            tile: tile / ratio,
            step: stride / ratio,
            blend: tile - stride,
            keep: stride,
        };
        tiled(
            latent,
            axis(1, tiling.min_height, tiling.stride_height),
            axis(2, tiling.min_width, tiling.stride_width),
            |tile| self.decode(tile),
        )
    }

    /// As [`encode`](Self::encode) in tiles, where the picture is larger than one.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and when the tiling doesn't fit the ratio.
    pub fn encode_tiled(&self, picture: &Tensor, tiling: &Tiling) -> Result<Tensor> {
        let ratio = self.ratio();
        tiling.check(ratio)?;
        let [_, height, width, _] = self.check_picture(picture)?;
        if height <= tiling.min_height && width <= tiling.min_width {
            return self.encode(picture);
        }
        let axis = |dim: usize, tile: usize, stride: usize| Axis {
            dim,
            tile,
            step: stride,
            blend: (tile - stride) / ratio,
            keep: stride / ratio,
        };
        tiled(
            picture,
            axis(1, tiling.min_height, tiling.stride_height),
            axis(2, tiling.min_width, tiling.stride_width),
            |tile| self.encode(tile),
        )
    }
}
