//! Attention over packed keys and values. It has no gradients.

use super::linear::shape_error;
use super::storage::{tensor, with_slices};
use crate::error::Result;
use crate::tensor::Tensor;
use brisk_kernels::buffer::unfilled;
use brisk_kernels::packed_attention::{self as kernel, Ends, PackedKeyValues};

/// Puts `keys` and `values` `[1, tokens, heads·dim]`, which were checked, into the slots from `start`.
pub(crate) fn write_key_values(
    kept: &mut PackedKeyValues,
    start: usize,
    keys: &Tensor,
    values: &Tensor,
) -> Result<()> {
    with_slices!([keys, values], {
        kept.write(start, keys, values);
        Ok(())
    })
}

/// `queries` `[1, n, heads·dim]` to the first positions of `keys`, each to as many as `ends` say.
pub(crate) fn packed_attention(
    queries: &Tensor,
    heads: usize,
    keys: &PackedKeyValues,
    ends: Ends,
    scale: f32,
) -> Result<Tensor> {
    let (width, dims) = (heads * keys.dim(), queries.dims().to_vec());
    let (end, told) = match ends {
        Ends::Same(end) => (end, true),
        Ends::Each(ends) => (
            ends.iter().copied().max().unwrap_or(0),
            dims.get(1) == Some(&ends.len()),
        ),
    };
    let fits = dims.len() == 3
        && dims[0] == 1
        && dims[2] == width
        && keys.heads() > 0
        && heads.is_multiple_of(keys.heads())
        && told
        && end <= keys.capacity();
    if !fits {
        let expected = format!(
            "[1, queries, {heads} heads of {} channels] for {} key heads, and at most {} keys, not {end}",
            keys.dim(),
            keys.heads(),
            keys.capacity()
        );
        return Err(shape_error("attention", &dims, &expected));
    }
    with_slices!([queries], {
        let mut o = unfilled(queries.len());
        kernel::forward(queries, heads, keys, ends, scale, &mut o);
        Ok(tensor(o, &dims)?)
    })
}
