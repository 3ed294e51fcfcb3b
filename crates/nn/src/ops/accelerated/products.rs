//! Sums and repetitions as products with ones.
//!
//! Candle's kernels for tensors whose values do not lie side by side, and for sums, find every value's place by
//! divisions and take several times as long as a product of the same result.

use candle_core::{Result, Tensor};

/// Rows that are summed at once, where there are many.
const GROUPS: usize = 64;

fn ones(shape: impl Into<candle_core::Shape>, like: &Tensor) -> Result<Tensor> {
    Tensor::ones(shape, like.dtype(), like.device())
}

/// `[columns]` or `[1, columns]`, `rows` times.
pub(super) fn down(x: &Tensor, rows: usize) -> Result<Tensor> {
    ones((rows, 1), x)?.matmul(&x.reshape((1, ()))?)
}

/// `[rows, 1]`, `columns` times.
pub(super) fn across(x: &Tensor, columns: usize) -> Result<Tensor> {
    x.matmul(&ones((1, columns), x)?)
}

/// Every row's sum, `[rows, 1]`.
pub(super) fn sum_across(x: &Tensor) -> Result<Tensor> {
    x.matmul(&ones((x.dim(1)?, 1), x)?)
}

/// Every column's sum, `[columns]`.
pub(super) fn sum_down(x: &Tensor) -> Result<Tensor> {
    let (rows, columns) = x.dims2()?;
    if rows >= GROUPS * GROUPS && rows % GROUPS == 0 {
        let parts = x.reshape((GROUPS, rows / GROUPS, columns))?;
        let sums = ones((GROUPS, 1, rows / GROUPS), x)?.matmul(&parts)?;
        return sum_down(&sums.reshape((GROUPS, columns))?);
    }
    ones((1, rows), x)?.matmul(x)?.reshape(columns)
}

/// `[batch, columns]`, every row `rows` times: `[batch·rows, columns]`.
pub(super) fn down_each(x: &Tensor, rows: usize) -> Result<Tensor> {
    let (batch, columns) = x.dims2()?;
    ones((batch, rows, 1), x)?
        .matmul(&x.unsqueeze(1)?.contiguous()?)?
        .reshape((batch * rows, columns))
}

/// The sum of `rows` rows each, of `[batch·rows, columns]`: `[batch, columns]`.
pub(super) fn sum_down_each(x: &Tensor, rows: usize) -> Result<Tensor> {
    let (all, columns) = x.dims2()?;
    let batch = all / rows;
    let parts = x.reshape((batch, rows, columns))?;
    ones((batch, 1, rows), x)?
        .matmul(&parts)?
        .reshape((batch, columns))
}
