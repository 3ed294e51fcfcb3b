//! Maps of another size, as PyTorch's `interpolate` makes them.

use super::linear::{linear, shape_error};
use crate::error::Result;
use crate::tensor::Tensor;

/// Adaptive average pooling (`mode="area"`): of `n` cells out of `m`, cell `i` is the mean of the cells
/// from `⌊i·m/n⌋` to below `⌈(i + 1)·m/n⌉`, so that neighbours overlap where `n` does not divide `m`.
/// `[batch, height, width, channels]` to `[batch, size[0], size[1], channels]`.
///
/// # Errors
/// A map or a size without cells.
pub fn resize_area(x: &Tensor, size: [usize; 2]) -> Result<Tensor> {
    resize("resize_area", x, size, area)
}

/// Bicubic interpolation (`mode="bicubic"`) with half-pixel centres, a = −0.75, edges held and no
/// antialiasing. `[batch, height, width, channels]` to `[batch, size[0], size[1], channels]`.
///
/// # Errors
/// A map or a size without cells.
pub fn resize_bicubic(x: &Tensor, size: [usize; 2]) -> Result<Tensor> {
    resize("resize_bicubic", x, size, bicubic)
}

/// Bilinear interpolation (`mode="bilinear"`) with half-pixel centres, edges held and no antialiasing.
/// `[batch, height, width, channels]` to `[batch, size[0], size[1], channels]`.
///
/// # Errors
/// A map or a size without cells.
pub fn resize_bilinear(x: &Tensor, size: [usize; 2]) -> Result<Tensor> {
    resize("resize_bilinear", x, size, bilinear)
}

/// Applies the weights `[to, from]` of an axis to columns and rows; a map of the wanted size stays as it is.
fn resize(
    what: &str,
    x: &Tensor,
    size: [usize; 2],
    weights: fn(usize, usize) -> Vec<f32>,
) -> Result<Tensor> {
    let refuse = || {
        shape_error(
            what,
            x.dims(),
            "[batch, height, width, channels] with cells",
        )
    };
    let (batch, rows, columns, channels) = x.dims4().map_err(|_| refuse())?;
    if x.elem_count() == 0 || size.contains(&0) {
        return Err(refuse());
    }
    if size == [rows, columns] {
        return Ok(x.clone());
    }
    let matrix = |from: usize, to: usize| Tensor::from_vec(weights(from, to), (to, from));
    let x = linear(&x.transpose(2, 3)?, &matrix(columns, size[1])?, None)?;
    let x = linear(&x.permute((0, 3, 2, 1))?, &matrix(rows, size[0])?, None)?;
    debug_assert_eq!(x.dims(), [batch, size[1], channels, size[0]]);
    x.permute((0, 3, 1, 2))?.contiguous()
}

fn bilinear(from: usize, to: usize) -> Vec<f32> {
    let mut weights = vec![0.0; from * to];
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        let place = (i as f32 + 0.5) * (from as f32 / to as f32) - 0.5;
        let place = place.max(0.0);
        let first = place as usize;
        let share = place - first as f32;
        row[first.min(from - 1)] += 1.0 - share;
        row[(first + 1).min(from - 1)] += share;
    }
    weights
}

fn area(from: usize, to: usize) -> Vec<f32> {
    let mut weights = vec![0.0; from * to];
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        let window = &mut row[i * from / to..((i + 1) * from).div_ceil(to)];
        let share = 1.0 / window.len() as f32;
        window.fill(share);
    }
    weights
}

fn bicubic(from: usize, to: usize) -> Vec<f32> {
    const A: f32 = -0.75;
    let near = |t: f32| ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
    let far = |t: f32| ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A;
    let mut weights = vec![0.0; from * to];
    let step = from as f32 / to as f32;
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        let place = step * (i as f32 + 0.5) - 0.5;
        let first = place.floor();
        let t = place - first;
        let taps = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
        for (offset, tap) in taps.into_iter().enumerate() {
            let cell = first as isize + offset as isize - 1;
            row[cell.clamp(0, from as isize - 1) as usize] += tap;
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_a_cell_sum_to_one() {
        for weights in [area, bicubic, bilinear] {
            for (from, to) in [(1, 64), (64, 48), (64, 7), (5, 64), (3, 1)] {
                for row in weights(from, to).chunks_exact(from) {
                    let sum: f32 = row.iter().sum();
                    assert!((sum - 1.0).abs() < 1e-6, "{from} to {to}: {sum}");
                }
            }
        }
    }

    #[test]
    fn bilinear_weights_by_hand() {
        let wanted = [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]];
        assert_eq!(bilinear(2, 4), wanted.concat());
        assert_eq!(bilinear(3, 1), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn windows_overlap_where_sizes_do_not_divide() {
        let third = 1.0 / 3.0;
        let wanted = [
            [third, third, third, 0.0, 0.0],
            [0.0, 0.0, third, third, third],
        ];
        assert_eq!(area(5, 2), wanted.concat());
    }

    #[test]
    fn maps_without_cells_are_refused() {
        let x = Tensor::from_vec(vec![1.0f32; 4], (1, 2, 2, 1)).unwrap();
        assert!(resize_area(&x, [0, 2]).is_err());
        assert!(resize_bicubic(&x.reshape((2, 2)).unwrap(), [2, 2]).is_err());
    }
}
