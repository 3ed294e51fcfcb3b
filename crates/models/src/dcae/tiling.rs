//! Encoding and decoding in overlapping tiles that are blended, number for number as diffusers
//! does it. With attention, each tile attends to itself alone, so the result differs from the
//! whole picture's; [strips](Autoencoder::decode_strips) don't have that flaw.

use brisk_nn::{Error, Result, Tensor};

use super::model::Autoencoder;

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

/// The same in units of the tensor that is cut and of the one that is put together.
#[derive(Clone, Copy)]
struct Axis {
    /// Extent of a tile of the input, and distance between tiles there.
    tile: usize,
    step: usize,
    /// Overlap, and what is kept of each tile, in the output.
    blend: usize,
    keep: usize,
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
        let axis = |tile: usize, stride: usize| Axis {
            tile: tile / ratio,
            step: stride / ratio,
            blend: tile - stride,
            keep: stride,
        };
        tiled(
            latent,
            axis(tiling.min_height, tiling.stride_height),
            axis(tiling.min_width, tiling.stride_width),
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
        let axis = |tile: usize, stride: usize| Axis {
            tile,
            step: stride,
            blend: (tile - stride) / ratio,
            keep: stride / ratio,
        };
        tiled(
            picture,
            axis(tiling.min_height, tiling.stride_height),
            axis(tiling.min_width, tiling.stride_width),
            |tile| self.encode(tile),
        )
    }
}

fn tiled(
    input: &Tensor,
    vertical: Axis,
    horizontal: Axis,
    run: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (_, height, width, _) = input.dims4()?;
    let mut above: Vec<Tensor> = Vec::new();
    let mut bands = Vec::new();
    for top in (0..height).step_by(vertical.step) {
        let tile_height = vertical.tile.min(height - top);
        let strip = input.narrow(1, top, tile_height)?;
        let mut row: Vec<Tensor> = Vec::new();
        let mut kept = Vec::new();
        for (column, left) in (0..width).step_by(horizontal.step).enumerate() {
            let tile_width = horizontal.tile.min(width - left);
            let mut tile = run(&strip.narrow(2, left, tile_width)?.contiguous()?)?;
            // Both neighbours are blended already: the reference blends in place.
            if let Some(above) = above.get(column) {
                tile = blend(above, &tile, 1, vertical.blend)?;
            }
            if let Some(left) = row.last() {
                tile = blend(left, &tile, 2, horizontal.blend)?;
            }
            let (rows, columns) = (tile.dim(1)?, tile.dim(2)?);
            kept.push(tile.narrow(1, 0, rows.min(vertical.keep))?.narrow(
                2,
                0,
                columns.min(horizontal.keep),
            )?);
            row.push(tile);
        }
        bands.push(Tensor::cat(&kept, 2)?);
        above = row;
    }
    Tensor::cat(&bands, 1)
}

/// Fades from the end of `before` into the beginning of `tile` along `axis`.
fn blend(before: &Tensor, tile: &Tensor, axis: usize, extent: usize) -> Result<Tensor> {
    let (before_size, size) = (before.dim(axis)?, tile.dim(axis)?);
    let extent = extent.min(before_size).min(size);
    if extent == 0 {
        return Ok(tile.clone());
    }
    let mut shape = [1; 4];
    shape[axis] = extent;
    let ramp = |value: fn(f64) -> f64| {
        let values: Vec<f32> = (0..extent)
            .map(|step| value(step as f64 / extent as f64) as f32)
            .collect();
        Tensor::from_vec(values, &shape)
    };
    let old = before.narrow(axis, before_size - extent, extent)?;
    let old = old.broadcast_mul(&ramp(|position| 1.0 - position)?)?;
    let new = tile
        .narrow(axis, 0, extent)?
        .broadcast_mul(&ramp(|position| position)?)?;
    let faded = (old + new)?;
    if extent == size {
        return Ok(faded);
    }
    Tensor::cat(&[faded, tile.narrow(axis, extent, size - extent)?], axis)
}
