//! Softmax attention within windows that share a table.

use super::biased_attention;
use super::linear::shape_error;
use super::storage::{tensor, with_slices};
use crate::error::Result;
use crate::tensor::Tensor;
use brisk_kernels::buffer::unfilled;
use brisk_kernels::window_attention::{self as kernel, WindowShape};

/// Softmax attention of q over k and v, all `[windows, places, heads·dim]`, to the shape of q, with the finite
/// numbers of `table` `[heads, places (queries), places (keys)]` added to the products after they were multiplied
/// with `scale`. Differentiable.
///
/// # Errors
/// Sizes that do not fit.
pub fn window_attention(
    [q, k, v]: [&Tensor; 3],
    heads: usize,
    scale: f64,
    table: &Tensor,
) -> Result<Tensor> {
    let dims = q.dims().to_vec();
    let fits = match dims[..] {
        [_, places, channels] => {
            places > 0
                && heads > 0
                && channels > 0
                && channels.is_multiple_of(heads)
                && k.dims() == dims
                && v.dims() == dims
                && table.dims() == [heads, places, places]
        }
        _ => false,
    };
    if !fits {
        let expected = format!(
            "[windows, places, channels of {heads} heads] for k {:?}, v {:?} and a table {:?}",
            k.dims(),
            v.dims(),
            table.dims()
        );
        return Err(shape_error("window_attention", &dims, &expected));
    }
    if [q, k, v, table].iter().any(|x| x.track_op()) {
        return biased_attention(q, k, v, heads, scale, &table.unsqueeze(0)?);
    }
    let shape = WindowShape {
        places: dims[1],
        heads,
        dim: dims[2] / heads,
        scale: scale as f32,
    };
    with_slices!([q, k, v, table], {
        let mut o = unfilled(q.len());
        if !o.is_empty() {
            kernel::forward(&shape, [q, k, v], table, &mut o);
        }
        Ok(tensor(o, &dims)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::variable;

    #[test]
    fn the_kernel_equals_the_differentiable_way() {
        let (windows, places, heads) = (3, 10, 2);
        let run = |trained: bool| {
            let tensor = |shape: &[usize], seed: f32| {
                let count = shape.iter().product::<usize>();
                let values = (0..count)
                    .map(|i| ((i as f32 + seed) * 0.73).sin())
                    .collect();
                match trained {
                    true => variable(values, shape),
                    false => Tensor::from_vec(values, shape).unwrap(),
                }
            };
            let [q, k, v] = [0.0, 1.0, 2.0].map(|seed| tensor(&[windows, places, 6], seed));
            let table = tensor(&[heads, places, places], 3.0);
            let y = window_attention([&q, &k, &v], heads, 0.7, &table).unwrap();
            assert!(window_attention([&q, &k, &v], 3, 0.7, &table).is_err());
            y.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        for (a, b) in run(true).iter().zip(&run(false)) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}
