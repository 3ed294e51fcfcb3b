//! Running a network on overlapping tiles whose results are blended, as diffusers does it.

use brisk_nn::{Result, Tensor};

/// Tiles along an axis, in units of the tensor that is cut and of the one that is put together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    /// The dimension, of both.
    pub dim: usize,
    /// Extent of a tile of the input, and distance between tiles there.
    pub tile: usize,
    /// Distance between tiles of the input.
    pub step: usize,
    /// Overlap in the output.
    pub blend: usize,
    /// What is kept of each tile in the output.
    pub keep: usize,
}

/// Runs on tiles along two axes, top to bottom and left to right.
pub(crate) fn tiled(
    input: &Tensor,
    vertical: Axis,
    horizontal: Axis,
    run: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (height, width) = (input.dim(vertical.dim)?, input.dim(horizontal.dim)?);
    let mut above: Vec<Tensor> = Vec::new();
    let mut bands = Vec::new();
    for top in (0..height).step_by(vertical.step) {
        let tile_height = vertical.tile.min(height - top);
        let strip = input.narrow(vertical.dim, top, tile_height)?;
        let mut row: Vec<Tensor> = Vec::new();
        let mut kept = Vec::new();
        for (column, left) in (0..width).step_by(horizontal.step).enumerate() {
            let tile_width = horizontal.tile.min(width - left);
            let tile = strip.narrow(horizontal.dim, left, tile_width)?;
            let mut tile = run(&tile.contiguous()?)?;
            // Both neighbours are blended already: the reference blends in place.
            if let Some(above) = above.get(column) {
                tile = blend(above, &tile, vertical.dim, vertical.blend)?;
            }
            if let Some(left) = row.last() {
                tile = blend(left, &tile, horizontal.dim, horizontal.blend)?;
            }
            let rows = tile.dim(vertical.dim)?.min(vertical.keep);
            let columns = tile.dim(horizontal.dim)?.min(horizontal.keep);
            let own = tile.narrow(vertical.dim, 0, rows)?;
            kept.push(own.narrow(horizontal.dim, 0, columns)?);
            row.push(tile);
        }
        bands.push(Tensor::cat(&kept, horizontal.dim)?);
        above = row;
    }
    Tensor::cat(&bands, vertical.dim)
}

/// Fades from the end of `before` into the beginning of `tile` along a dimension.
pub(crate) fn blend(before: &Tensor, tile: &Tensor, dim: usize, extent: usize) -> Result<Tensor> {
    let (before_size, size) = (before.dim(dim)?, tile.dim(dim)?);
    let extent = extent.min(before_size).min(size);
    if extent == 0 {
        return Ok(tile.clone());
    }
    let mut shape = vec![1; tile.rank()];
    shape[dim] = extent;
    let ramp = |value: fn(f64) -> f64| {
        let values: Vec<f32> = (0..extent)
            .map(|step| value(step as f64 / extent as f64) as f32)
            .collect();
        Tensor::from_vec(values, &*shape)
    };
    let old = before.narrow(dim, before_size - extent, extent)?;
    let old = old.broadcast_mul(&ramp(|position| 1.0 - position)?)?;
    let new = tile.narrow(dim, 0, extent)?;
    let new = new.broadcast_mul(&ramp(|position| position)?)?;
    let faded = (old + new)?;
    if extent == size {
        return Ok(faded);
    }
    Tensor::cat(&[faded, tile.narrow(dim, extent, size - extent)?], dim)
}
