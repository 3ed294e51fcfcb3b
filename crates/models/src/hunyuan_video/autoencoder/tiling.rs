//! Encoding and decoding in overlapping tiles that are blended, number for number as diffusers does it. Each tile has
//! norms and attention of its own, so that the result differs from the whole clip's;
//! [pieces](VideoAutoencoder::decode_pieces) do not have that flaw.

use brisk_nn::{Tensor, Trace};

use super::VideoAutoencoder;
use crate::tiled::{Axis, blend, tiled};
use crate::{Error, Result};

// Dimensions of clips.
const FRAMES: usize = 1;
const ROWS: usize = 2;
const COLUMNS: usize = 3;

/// Size and distance of tiles: frames, rows and columns of the clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClipTiling {
    /// Extent of a tile; of frames it has one more.
    pub size: [usize; 3],
    /// From one tile to the next.
    pub stride: [usize; 3],
}

impl ClipTiling {
    /// As the authors cut: 64 frames of 256 × 256.
    pub const AUTHORS: Self = Self {
        size: [64, 256, 256],
        stride: [48, 192, 192],
    };

    /// As diffusers cuts: 16 frames of 256 × 256.
    pub const DIFFUSERS: Self = Self {
        size: [16, 256, 256],
        stride: [12, 192, 192],
    };

    fn check(&self, ratios: [usize; 3]) -> Result<()> {
        let names = ["frames", "height", "width"];
        for (index, name) in names.into_iter().enumerate() {
            let (size, stride, ratio) = (self.size[index], self.stride[index], ratios[index]);
            let whole = |size: usize| size > 0 && size.is_multiple_of(ratio);
            if !whole(size) || !whole(stride) || stride > size {
                return Err(Error::Config(format!(
                    "tiles of {size} with a stride of {stride} ({name}): both must be multiples of {ratio}, and the \
                     stride at most the tile"
                )));
            }
        }
        Ok(())
    }
}

impl VideoAutoencoder {
    fn ratios(&self) -> [usize; 3] {
        let space = self.config().spatial_compression_ratio;
        [self.config().temporal_compression_ratio, space, space]
    }

    /// As [`decode`](Self::decode) in tiles, where the clip is larger than one.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and tiles that do not fit the ratios.
    pub fn decode_tiled(&self, latent: &Tensor, tiling: &ClipTiling) -> Result<Tensor> {
        tiling.check(self.ratios())?;
        let ratios = self.ratios();
        let axis = |index: usize, dim: usize| {
            let (size, stride, ratio) = (tiling.size[index], tiling.stride[index], ratios[index]);
            Axis {
                dim,
                tile: size / ratio,
                step: stride / ratio,
                blend: size - stride,
                keep: stride,
            }
        };
        let decode = |tile: &Tensor| self.decode(tile, &mut Trace::none());
        in_tiles(latent, &axis, &decode)
    }

    /// As [`encode`](Self::encode) in tiles, where the clip is larger than one.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and tiles that do not fit the ratios.
    pub fn encode_tiled(&self, clip: &Tensor, tiling: &ClipTiling) -> Result<Tensor> {
        tiling.check(self.ratios())?;
        let ratios = self.ratios();
        let axis = |index: usize, dim: usize| {
            let (size, stride, ratio) = (tiling.size[index], tiling.stride[index], ratios[index]);
            Axis {
                dim,
                tile: size,
                step: stride,
                blend: (size - stride) / ratio,
                keep: stride / ratio,
            }
        };
        let encode = |tile: &Tensor| self.encode(tile, &mut Trace::none());
        in_tiles(clip, &axis, &encode)
    }
}

/// Tiles of frames, each in tiles of rows and columns.
fn in_tiles(
    x: &Tensor,
    axis: &dyn Fn(usize, usize) -> Axis,
    run: &dyn Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (time, vertical, horizontal) = (axis(0, FRAMES), axis(1, ROWS), axis(2, COLUMNS));
    let frames = x.dim(FRAMES)?;
    let large = x.dim(ROWS)? > vertical.tile || x.dim(COLUMNS)? > horizontal.tile;
    let run = |tile: &Tensor| match large {
        true => tiled(tile, vertical, horizontal, run),
        false => run(tile),
    };
    if frames <= time.tile {
        return run(x);
    }
    let mut before: Option<Tensor> = None;
    let mut kept = Vec::new();
    for start in (0..frames).step_by(time.step) {
        let count = (time.tile + 1).min(frames - start);
        let mut tile = run(&x.narrow(FRAMES, start, count)?.contiguous()?)?;
        let mut keep = time.keep + 1;
        if let Some(before) = &before {
            // The frame that both begin and end with is the earlier tile's.
            let own = tile.dim(FRAMES)? - 1;
            if own == 0 {
                break;
            }
            tile = tile.narrow(FRAMES, 1, own)?.contiguous()?;
            tile = blend(before, &tile, FRAMES, time.blend)?;
            keep = time.keep;
        }
        let keep = keep.min(tile.dim(FRAMES)?);
        kept.push(tile.narrow(FRAMES, 0, keep)?);
        before = Some(tile);
    }
    Tensor::cat(&kept, FRAMES)
}
