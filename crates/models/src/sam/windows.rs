//! Maps cut into windows, and put together again.

use brisk_nn::Tensor;

use crate::Result;

/// Windows `[B·windows,side,side,C]` of a map `[B,H,W,C]`. What a window has beyond the map is everywhere what `beyond`
/// gives, `[1,C]`; it is asked only where sides do not divide.
pub(super) fn windows(
    map: &Tensor,
    side: usize,
    beyond: impl FnOnce() -> Result<Tensor>,
) -> Result<Tensor> {
    let (batch, height, width, channels) = map.dims4()?;
    let [rows, columns] = [height, width].map(|length| length.div_ceil(side));
    let mut padded = map.clone();
    if [rows * side, columns * side] != [height, width] {
        let one = beyond()?.reshape((1, 1, 1, channels))?;
        let fill = |height: usize, width: usize| -> Result<Tensor> {
            one.broadcast_as((batch, height, width, channels))?
                .contiguous()
        };
        if columns * side > width {
            padded = Tensor::cat(&[padded, fill(height, columns * side - width)?], 2)?;
        }
        if rows * side > height {
            let below = fill(rows * side - height, columns * side)?;
            padded = Tensor::cat(&[padded, below], 1)?;
        }
    }
    padded
        .reshape(vec![batch, rows, side, columns, side, channels])?
        .transpose(2, 3)?
        .contiguous()?
        .reshape((batch * rows * columns, side, side, channels))
}

/// The map `[B,H,W,C]` of windows `[B·windows,side²,C]`, without what they have beyond it.
pub(super) fn whole(windows: &Tensor, side: usize, size: [usize; 3]) -> Result<Tensor> {
    let [batch, height, width] = size;
    let [rows, columns] = [height, width].map(|length| length.div_ceil(side));
    let channels = windows.dim(2)?;
    windows
        .reshape(vec![batch, rows, columns, side, side, channels])?
        .transpose(2, 3)?
        .contiguous()?
        .reshape((batch, rows * side, columns * side, channels))?
        .narrow(1, 0, height)?
        .narrow(2, 0, width)?
        .contiguous()
}
