//! Softmax attention on grids, with relative positions in rows and columns.

use super::biased_attention;
use super::linear::shape_error;
use super::storage::{tensor, with_slices};
use crate::error::Result;
use crate::tensor::Tensor;
use brisk_kernels::buffer::unfilled;
use brisk_kernels::relative_attention::{self as kernel, GridShape};

/// What is added to scores by how many rows and columns a key is away from the query.
#[derive(Clone, Copy, Debug)]
pub struct RelativePositions<'a> {
    /// `[grids, height·width, heads, 2·height − 1]`, keys furthest above first.
    pub rows: &'a Tensor,
    /// `[grids, height·width, heads, 2·width − 1]`, keys furthest to the left first.
    pub columns: &'a Tensor,
}

/// Softmax attention of q over k and v, all `[grids, height·width, heads·dim]` row by row, to the shape of
/// q, with `positions` added to the products after they were multiplied with `scale`. Differentiable.
///
/// # Errors
/// Sizes that do not fit.
pub fn relative_attention(
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    scale: f64,
    [height, width]: [usize; 2],
    positions: RelativePositions,
) -> Result<Tensor> {
    let RelativePositions { rows, columns } = positions;
    let places = height * width;
    let dims = q.dims().to_vec();
    let fits = match dims[..] {
        [grids, tokens, channels] => {
            tokens == places
                && places > 0
                && heads > 0
                && channels > 0
                && channels.is_multiple_of(heads)
                && k.dims() == dims
                && v.dims() == dims
                && rows.dims() == [grids, places, heads, 2 * height - 1]
                && columns.dims() == [grids, places, heads, 2 * width - 1]
        }
        _ => false,
    };
    if !fits {
        let expected = format!(
            "[grids, {height}·{width}, channels of {heads} heads] for k {:?}, v {:?}, rows {:?} and columns \
             {:?}",
            k.dims(),
            v.dims(),
            rows.dims(),
            columns.dims()
        );
        return Err(shape_error("relative_attention", &dims, &expected));
    }
    if [q, k, v, rows, columns].iter().any(|x| x.track_op()) {
        let bias = bias(heads, [height, width], positions)?;
        return biased_attention(q, k, v, heads, scale, &bias);
    }
    let shape = GridShape {
        height,
        width,
        heads,
        dim: dims[2] / heads,
        scale: scale as f32,
    };
    with_slices!([q, k, v, rows, columns], {
        let mut o = unfilled(q.len());
        if !o.is_empty() {
            kernel::forward(&shape, [q, k, v], [rows, columns], &mut o);
        }
        Ok(tensor(o, &dims)?)
    })
}

/// The same for every pair, `[grids, heads, queries, keys]`.
fn bias(heads: usize, [height, width]: [usize; 2], positions: RelativePositions) -> Result<Tensor> {
    let grids = positions.rows.dim(0)?;
    // Of each row of queries (dimension 1) or column of them (2), what lies from the first key's distance on.
    let seen = |values: &Tensor, side: usize, dim: usize| -> Result<Tensor> {
        let values = values.reshape(vec![grids, height, width, heads, 2 * side - 1])?;
        let parts = (0..side).map(|at| values.narrow(dim, at, 1)?.narrow(4, side - 1 - at, side));
        Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, dim)
    };
    let rows = seen(positions.rows, height, 1)?.unsqueeze(5)?;
    let columns = seen(positions.columns, width, 2)?.unsqueeze(4)?;
    let (places, pairs) = (height * width, rows.broadcast_add(&columns)?);
    pairs
        .reshape((grids, places, heads, places))?
        .transpose(1, 2)?
        .contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::variable;

    fn values(count: usize, seed: f32) -> Vec<f32> {
        (0..count)
            .map(|i| ((i as f32 + seed) * 0.73).sin())
            .collect()
    }

    #[test]
    fn the_kernel_equals_the_differentiable_way() {
        let (grids, heads, size) = (2, 3, [3, 4]);
        let run = |trained: bool| {
            let tensor = |last: &[usize], seed: f32| {
                let shape = [&[grids, 12][..], last].concat();
                let values = values(shape.iter().product(), seed);
                match trained {
                    true => variable(values, &shape),
                    false => Tensor::from_vec(values, shape).unwrap(),
                }
            };
            let [q, k, v] = [0.0, 1.0, 2.0].map(|seed| tensor(&[6], seed));
            let (rows, columns) = (tensor(&[heads, 5], 3.0), tensor(&[heads, 7], 4.0));
            let positions = RelativePositions {
                rows: &rows,
                columns: &columns,
            };
            let y = relative_attention([&q, &k, &v], heads, 0.7, size, positions).unwrap();
            let wrong = relative_attention([&q, &k, &v], heads, 0.7, [4, 3], positions);
            assert!(wrong.is_err());
            y.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        for (a, b) in run(true).iter().zip(&run(false)) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}
