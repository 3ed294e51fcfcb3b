//! Softmax attention on grids, with relative positions in rows and columns.

use super::attention::{AttentionOptions, attention};
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
        return by_channels([q, k, v], heads, scale, [height, width], positions);
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

/// The same as plain attention: what is added for a key's row and column stands in channels of the query, of which the
/// key has its own at 1 and the others at 0.
fn by_channels(
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    scale: f64,
    [height, width]: [usize; 2],
    positions: RelativePositions,
) -> Result<Tensor> {
    let (grids, places, channels) = q.dims3()?;
    let (dim, more) = (channels / heads, height + width);
    // Of each row of queries (dimension 1) or column of them (2), what lies from the first key's distance on.
    let seen = |values: &Tensor, side: usize, axis: usize| -> Result<Tensor> {
        let values = values.reshape(vec![grids, height, width, heads, 2 * side - 1])?;
        let parts = (0..side).map(|at| {
            values
                .narrow(axis, at, 1)?
                .narrow(4, side - 1 - at, side)?
                .contiguous()
        });
        Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, axis)?
            .reshape((grids, places, heads, side))
    };
    let own = (0..places * more).map(|at| {
        let (place, channel) = (at / more, at % more);
        f32::from(channel == place / width || channel == height + place % width)
    });
    let own = Tensor::from_vec(own.collect(), vec![1, places, 1, more])?;
    let own = own.broadcast_as((grids, places, heads, more))?;
    let by_head = |x: &Tensor| x.reshape((grids, places, heads, dim));
    let joined =
        |parts: &[Tensor]| Tensor::cat(parts, 3)?.reshape((grids, places, heads * (dim + more)));
    let (rows, columns) = (
        seen(positions.rows, height, 1)?,
        seen(positions.columns, width, 2)?,
    );
    let options = AttentionOptions {
        scale: 1.0,
        ..AttentionOptions::new(heads, dim + more)
    };
    let y = attention(
        &joined(&[(by_head(q)? * scale)?, rows, columns])?,
        &joined(&[by_head(k)?, own.contiguous()?])?,
        &joined(&[by_head(v)?.pad_with_zeros(3, 0, more)?])?,
        &options,
    )?;
    y.reshape((grids, places, heads, dim + more))?
        .narrow(3, 0, dim)?
        .contiguous()?
        .reshape((grids, places, channels))
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

    #[test]
    fn gradients_are_the_slopes_of_what_the_kernel_computes() {
        let (grids, heads, size) = (2, 2, [2, 3]);
        let [height, width] = size;
        let last = [heads * 2, heads * 2, heads * 2, heads * 3, heads * 5];
        let shapes = last.map(|last| vec![grids, height * width, last]);
        let inputs: Vec<Vec<f32>> = (0..5)
            .map(|at| values(grids * height * width * last[at], at as f32))
            .collect();
        let tensor = |values: Vec<f32>, at: usize, trained: bool| match trained {
            true => variable(values, &shapes[at]),
            false => Tensor::from_vec(values, shapes[at].clone()).unwrap(),
        };
        let apply = |x: &[Tensor]| {
            let table = |x: &Tensor, side: usize| {
                x.reshape((grids, height * width, heads, 2 * side - 1))
                    .unwrap()
            };
            let (rows, columns) = (table(&x[3], height), table(&x[4], width));
            let positions = RelativePositions {
                rows: &rows,
                columns: &columns,
            };
            let y = relative_attention([&x[0], &x[1], &x[2]], heads, 0.7, size, positions).unwrap();
            let weights = values(grids * height * width * last[0], 9.0);
            let weights = Tensor::from_vec(weights, shapes[0].clone()).unwrap();
            (y * weights).unwrap().sum_all().unwrap()
        };
        let variables: Vec<Tensor> = (0..5)
            .map(|at| tensor(inputs[at].clone(), at, true))
            .collect();
        let store = apply(&variables).host().unwrap().backward().unwrap();
        for (at, variable) in variables.iter().enumerate() {
            let gradient = store.get(variable.on_host("test").unwrap()).unwrap();
            let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for index in (0..gradient.len()).step_by(5) {
                let moved = |by: f32| {
                    let mut inputs = inputs.clone();
                    inputs[at][index] += by;
                    let fixed = inputs.into_iter().enumerate();
                    let fixed: Vec<_> = fixed.map(|(at, x)| tensor(x, at, false)).collect();
                    apply(&fixed).to_scalar::<f32>().unwrap()
                };
                let slope = (moved(0.05) - moved(-0.05)) / 0.1;
                let found = gradient[index];
                assert!(
                    (slope - found).abs() < 3e-3,
                    "{at} {index}: {slope} {found}"
                );
            }
        }
    }
}
