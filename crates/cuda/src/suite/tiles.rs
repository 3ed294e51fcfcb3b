//! Every tile of Hopper's products and convolutions; other cards run them by the tile they have.

use super::layers::{conv_by, dot, linear_by};
use super::{Listed, Ready, Setting};
use crate::error::Result;
use crate::ops::tiles::{CONVOLUTION, LINEAR};
use crate::ops::{self, LinearWeight, ShortcutKind};

const FILES: &[&str] = &["product_hopper"];

pub(super) const CASES: &[Listed] = &[
    ("linear, two tiles of 64", FILES, |s| linear(s, 0)),
    ("linear, two tiles of 72", FILES, |s| linear(s, 1)),
    ("linear, tile of 96", FILES, |s| linear(s, 2)),
    ("linear, two tiles of 128", FILES, |s| linear(s, 3)),
    ("linear, tile of 176", FILES, |s| linear(s, 4)),
    ("linear, tile of 256", FILES, |s| linear(s, 5)),
    ("linear, three side by side", FILES, |s| {
        side_by_side(s, s.pick([150, 136, 200], [1024, 1152, 1152]))
    }),
    ("conv 3x3, two tiles of 64", FILES, |s| conv(s, 0)),
    ("conv 3x3, two tiles of 128", FILES, |s| conv(s, 1)),
    ("conv 3x3, tile of 256", FILES, |s| conv(s, 2)),
    ("conv 3x3 doubling, two tiles of 64", FILES, |s| {
        doubling(s, s.pick([1, 9, 5, 72, 72], [1, 256, 256, 512, 512]), 0)
    }),
    ("conv 3x3 doubling, two tiles of 128", FILES, |s| {
        doubling(s, s.pick([2, 9, 5, 272, 136], [1, 512, 512, 256, 128]), 1)
    }),
    ("conv 3x3 doubling, tile of 256", FILES, |s| {
        doubling(s, s.pick([1, 3, 17, 272, 272], [1, 256, 256, 512, 256]), 2)
    }),
];

fn doubling(s: &Setting, dims: [usize; 5], tile: usize) -> Result<Ready> {
    conv_by(
        s,
        dims,
        3,
        1,
        Some(ShortcutKind::Up),
        Some(CONVOLUTION[tile]),
    )
}

fn linear(s: &Setting, tile: usize) -> Result<Ready> {
    let sides = s.pick([150, 264, 456], [1024, 3456, 1152]);
    linear_by(s, sides, Some(LINEAR[tile]))
}

/// The last two of three layers.
fn side_by_side(s: &Setting, [rows, columns, depth]: [usize; 3]) -> Result<Ready> {
    let (x, w) = (
        s.noise(1, &[rows, depth])?,
        s.noise(2, &[3 * columns, depth])?,
    );
    let bias = s.vector(3, &[3 * columns])?;
    let weight = LinearWeight::new(&w.tensor)?;
    let (input, addend) = (x.tensor.clone(), bias.tensor.clone());
    let run = move || {
        let parts = ops::linear_parts(&input, &weight, Some(&addend), 3, 1..3)?;
        ops::concatenate(&parts.iter().collect::<Vec<_>>(), 0)
    };
    let wanted = move |at: usize| {
        let (row, column) = (
            at / columns % rows,
            (1 + at / columns / rows) * columns + at % columns,
        );
        dot(&x, row * depth, &w, column, depth) + bias.at(column)
    };
    let moved = s.bytes(rows * depth + 2 * columns * (depth + rows));
    Ok(Ready::new(run, wanted, (4 * rows * columns * depth, moved)))
}

fn conv(s: &Setting, tile: usize) -> Result<Ready> {
    let dims = s.pick([2, 17, 11, 72, 136], [1, 512, 512, 256, 256]);
    conv_by(s, dims, 3, 1, None, Some(CONVOLUTION[tile]))
}
