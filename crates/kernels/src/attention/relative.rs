//! Softmax attention on a grid, with relative positions in rows and columns (MViTv2, arXiv 2112.01526, eq. 4):
//! many windows of one size at once.

use super::packed::{PackedKeyValues, RelativePositions, forward_on_grid};
use rayon::prelude::*;

/// Sizes of an attention on grids.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GridShape {
    /// Rows of a grid.
    pub height: usize,
    /// Columns of a grid.
    pub width: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub dim: usize,
    /// Factor of the products, usually 1/√dim.
    pub scale: f32,
}

/// `o = softmax(scale·q kᵀ + rows + columns) v` within each grid; q, k, v and o are
/// `[grids, height·width, heads·dim]`, `rows` `[grids, height·width, heads, 2·height − 1]` and `columns`
/// `[grids, height·width, heads, 2·width − 1]` as [`RelativePositions`] has them.
///
/// # Panics
/// Where sizes do not fit.
pub fn forward(
    shape: &GridShape,
    [q, k, v]: [&[f32]; 3],
    [rows, columns]: [&[f32]; 2],
    o: &mut [f32],
) {
    let GridShape {
        height,
        width,
        heads,
        dim,
        scale,
    } = *shape;
    let places = height * width;
    let one = places * heads * dim;
    assert!(
        one > 0 && q.len().is_multiple_of(one),
        "{} queries on grids of {height}x{width}, {heads} heads of {dim} channels",
        q.len()
    );
    assert_eq!(
        [k.len(), v.len(), o.len()],
        [q.len(); 3],
        "keys, values and results"
    );
    let sides = [height, width].map(|side| places * heads * (2 * side - 1));
    let grids = q.len() / one;
    assert_eq!(
        [rows.len(), columns.len()],
        sides.map(|size| size * grids),
        "relative positions"
    );
    o.par_chunks_exact_mut(one)
        .enumerate()
        .for_each(|(grid, o)| {
            let of = grid * one..(grid + 1) * one;
            let mut keys = PackedKeyValues::new(places, heads, dim);
            keys.write(0, &k[of.clone()], &v[of.clone()]);
            let positions = RelativePositions {
                height,
                width,
                rows: &rows[grid * sides[0]..][..sides[0]],
                columns: &columns[grid * sides[1]..][..sides[1]],
            };
            forward_on_grid(&q[of], heads, &keys, scale, &positions, o);
        });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{self, assert_close, noise};

    #[test]
    fn grids_match_the_reference() {
        for (grids, height, width, heads, dim) in [
            (1, 1, 1, 1, 1),
            (2, 3, 5, 2, 6),
            (3, 14, 14, 2, 16),
            (1, 17, 20, 3, 8),
        ] {
            let shape = GridShape {
                height,
                width,
                heads,
                dim,
                scale: 0.4,
            };
            let places = grids * height * width;
            let [q, k, v] = [1, 2, 3].map(|seed| noise(places * heads * dim, seed));
            let rows = noise(places * heads * (2 * height - 1), 4);
            let columns = noise(places * heads * (2 * width - 1), 5);
            let mut o = vec![f32::NAN; q.len()];
            forward(&shape, [&q, &k, &v], [&rows, &columns], &mut o);
            let want = reference::grid_attention(&shape, [&q, &k, &v], [&rows, &columns]);
            assert_close(&o, &want, 1e-5);
        }
    }

    #[test]
    #[should_panic(expected = "relative positions")]
    fn tables_of_another_grid_are_refused() {
        let shape = GridShape {
            height: 2,
            width: 3,
            heads: 1,
            dim: 1,
            scale: 1.0,
        };
        let (x, table) = ([0.0; 6], [0.0; 6 * 3]);
        forward(&shape, [&x; 3], [&table, &table], &mut [0.0; 6]);
    }
}
