//! Maps cut into windows, and put together again.

use super::linear::shape_error;
use super::storage::{is_plain, tensor, with_slices};
use crate::error::Result;
use crate::tensor::{DType, Tensor};
use brisk_kernels::buffer::unfilled;
use brisk_kernels::pointwise::windows::{self as kernel, WindowShape};
use std::ops::Range;

/// Windows `[B·windows, side·side, part]` of some channels of a map `[B, H, W, C]`, row by row from the top left. Where
/// sides do not divide the map, the last ones have what `beyond` `[1, C]` says, or zeros. Differentiable.
///
/// # Errors
/// Another shape.
pub fn windows(
    map: &Tensor,
    side: usize,
    part: Range<usize>,
    beyond: Option<&Tensor>,
) -> Result<Tensor> {
    let (batch, height, width, channels) = map.dims4()?;
    let shape = WindowShape {
        batch,
        height,
        width,
        side,
    };
    let fits = side > 0
        && part.end <= channels
        && beyond.is_none_or(|beyond| beyond.elem_count() == channels);
    if !fits {
        let expected = format!("[B, H, W, C] with channels {part:?}, and windows of {side}");
        return Err(shape_error("windows", map.dims(), &expected));
    }
    let zeros = Tensor::zeros((1, channels), DType::F32)?;
    let beyond = beyond.unwrap_or(&zeros);
    let [rows, columns] = shape.windows();
    let dims = [batch * rows * columns, side * side, part.len()];
    if is_plain(map) && is_plain(beyond) {
        return with_slices!([map, beyond], {
            let mut out = unfilled(dims.iter().product::<usize>());
            if !out.is_empty() {
                kernel::cut(&shape, map, part, beyond, &mut out);
            }
            Ok(tensor(out, &dims)?)
        });
    }
    let mut padded = map.narrow(3, part.start, part.len())?;
    let beyond = beyond
        .reshape((1, 1, 1, channels))?
        .narrow(3, part.start, part.len())?;
    let fill = |height: usize, width: usize| -> Result<Tensor> {
        beyond
            .broadcast_as((batch, height, width, part.len()))?
            .contiguous()
    };
    if columns * side > width {
        padded = Tensor::cat(&[padded, fill(height, columns * side - width)?], 2)?;
    }
    if rows * side > height {
        let below = fill(rows * side - height, columns * side)?;
        padded = Tensor::cat(&[padded, below], 1)?;
    }
    padded
        .contiguous()?
        .reshape(vec![batch, rows, side, columns, side, part.len()])?
        .transpose(2, 3)?
        .contiguous()?
        .reshape(dims.to_vec())
}

/// The map `[B, H, W, C]` of windows `[B·windows, side·side, C]`, without what they have beyond it. Differentiable.
///
/// # Errors
/// Another shape.
pub fn from_windows(
    windows: &Tensor,
    side: usize,
    [batch, height, width]: [usize; 3],
) -> Result<Tensor> {
    let shape = WindowShape {
        batch,
        height,
        width,
        side,
    };
    let (count, places, channels) = windows.dims3()?;
    let [rows, columns] = shape.windows();
    if count != batch * rows * columns || places != side * side {
        let expected = format!(
            "[{}, {}, C] of a map of {height}x{width}",
            batch * rows * columns,
            side * side
        );
        return Err(shape_error("from_windows", windows.dims(), &expected));
    }
    if is_plain(windows) {
        return with_slices!([windows], {
            let mut out = unfilled(batch * height * width * channels);
            if !out.is_empty() {
                kernel::join(&shape, windows, channels, &mut out);
            }
            Ok(tensor(out, &[batch, height, width, channels])?)
        });
    }
    windows
        .reshape(vec![batch, rows, columns, side, side, channels])?
        .transpose(2, 3)?
        .contiguous()?
        .reshape((batch, rows * side, columns * side, channels))?
        .narrow(1, 0, height)?
        .narrow(2, 0, width)?
        .contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::variable;

    #[test]
    fn windows_with_and_without_a_gradient_are_the_same() {
        let values: Vec<f32> = (0..2 * 5 * 7 * 6)
            .map(|i| (i as f32 * 0.37).sin())
            .collect();
        let map = Tensor::from_vec(values.clone(), (2, 5, 7, 6)).unwrap();
        let beyond =
            Tensor::from_vec((0..6).map(|i| i as f32).collect::<Vec<_>>(), (1, 6)).unwrap();
        let trained = variable(values, &[2, 5, 7, 6]);
        let list = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (part, beyond) in [(0..6, Some(&beyond)), (2..5, None)] {
            let plain = windows(&map, 3, part.clone(), beyond).unwrap();
            let tracked = windows(&trained, 3, part.clone(), beyond).unwrap();
            assert_eq!(plain.dims(), [12, 9, part.len()]);
            assert_eq!(list(&plain), list(&tracked));
            let narrow = map.narrow(3, part.start, part.len()).unwrap();
            let joined = |x: &Tensor| list(&from_windows(x, 3, [2, 5, 7]).unwrap());
            assert_eq!(joined(&plain), list(&narrow.contiguous().unwrap()));
            assert_eq!(joined(&tracked), joined(&plain));
        }
        assert!(windows(&map, 3, 4..7, None).is_err());
        assert!(from_windows(&map.reshape((70, 1, 6)).unwrap(), 3, [2, 5, 7]).is_err());
    }
}
