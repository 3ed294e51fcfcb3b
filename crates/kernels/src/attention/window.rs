//! Softmax attention within windows that share a table of numbers for every pair of places (Swin, arXiv 2103.14030;
//! LeViT, arXiv 2104.01136).

use super::packed::{PackedKeyValues, forward_with_table};
use rayon::prelude::*;

/// Sizes of an attention within windows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WindowShape {
    /// Places of a window.
    pub places: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub dim: usize,
    /// Factor of the products, usually 1/√dim.
    pub scale: f32,
}

/// `o = softmax(scale·q kᵀ + table) v` within each window; q, k, v and o are `[windows, places, heads·dim]`, `table`
/// `[heads, places (queries), places (keys)]`.
///
/// # Panics
/// Where sizes do not fit.
pub fn forward(shape: &WindowShape, [q, k, v]: [&[f32]; 3], table: &[f32], o: &mut [f32]) {
    let WindowShape {
        places,
        heads,
        dim,
        scale,
    } = *shape;
    let one = places * heads * dim;
    assert!(
        one > 0 && q.len().is_multiple_of(one),
        "{} queries in windows of {places} places, {heads} heads of {dim} channels",
        q.len()
    );
    assert_eq!(
        [k.len(), v.len(), o.len()],
        [q.len(); 3],
        "keys, values and results"
    );
    o.par_chunks_exact_mut(one)
        .enumerate()
        .for_each(|(window, o)| {
            let of = window * one..(window + 1) * one;
            let mut keys = PackedKeyValues::new(places, heads, dim);
            keys.write(0, &k[of.clone()], &v[of.clone()]);
            forward_with_table(&q[of], heads, &keys, scale, table, o);
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, noise};

    #[test]
    fn windows_match_the_reference() {
        for (windows, places, heads, dim) in
            [(1, 1, 1, 1), (3, 49, 2, 8), (2, 196, 3, 16), (1, 300, 2, 5)]
        {
            let shape = WindowShape {
                places,
                heads,
                dim,
                scale: 0.4,
            };
            let [q, k, v] = [1, 2, 3].map(|seed| noise(windows * places * heads * dim, seed));
            let table = noise(heads * places * places, 4);
            let mut o = vec![f32::NAN; q.len()];
            forward(&shape, [&q, &k, &v], &table, &mut o);
            let want = reference::window_attention(&shape, [&q, &k, &v], &table);
            assert_close(&o, &want, 1e-5);
        }
    }

    #[test]
    #[should_panic(expected = "table of")]
    fn tables_of_another_window_are_refused() {
        let shape = WindowShape {
            places: 4,
            heads: 1,
            dim: 1,
            scale: 1.0,
        };
        forward(&shape, [&[0.0; 4]; 3], &[0.0; 12], &mut [0.0; 4]);
    }
}
