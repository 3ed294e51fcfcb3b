//! Every tile of Hopper's products and convolutions; other cards run them by the tile they have.

use super::layers::{conv_by, linear_by};
use super::{Listed, Ready, Setting};
use crate::error::Result;
use crate::ops::ShortcutKind;
use crate::ops::tiles::{CONVOLUTION, LINEAR};

const FILES: &[&str] = &["product_hopper"];

pub(super) const CASES: &[Listed] = &[
    ("linear, two tiles of 64", FILES, |s| linear(s, 0)),
    ("linear, tile of 96", FILES, |s| linear(s, 1)),
    ("linear, two tiles of 128", FILES, |s| linear(s, 2)),
    ("linear, tile of 256", FILES, |s| linear(s, 3)),
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

fn conv(s: &Setting, tile: usize) -> Result<Ready> {
    let dims = s.pick([2, 17, 11, 72, 136], [1, 512, 512, 256, 256]);
    conv_by(s, dims, 3, 1, None, Some(CONVOLUTION[tile]))
}
