//! How large tiles are.

use crate::simd::cache;

/// Sizes of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tile {
    Four,
    Six,
}

impl Tile {
    /// Larger tiles take a fifth fewer products, and transformed weights of 64 matrices instead of 36:
    /// they are for weights that are small, which are those of large maps.
    pub fn of(outputs: usize, inputs: usize) -> Self {
        if outputs * inputs <= 1 << 17 {
            Self::Six
        } else {
            Self::Four
        }
    }

    /// The one that takes fewer products for a map of this height and width, where edges are made up.
    pub fn of_map(height: usize, width: usize) -> Self {
        let products = |tile: Self| {
            let side = tile.outputs();
            height.div_ceil(side) * width.div_ceil(side) * tile.points()
        };
        match products(Self::Six) < products(Self::Four) {
            true => Self::Six,
            false => Self::Four,
        }
    }

    /// Side of a tile of outputs.
    pub fn outputs(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Six => 6,
        }
    }

    /// Side of a tile of inputs.
    pub fn inputs(self) -> usize {
        self.outputs() + 2
    }

    /// Products a tile and pair of channels.
    pub fn points(self) -> usize {
        self.inputs() * self.inputs()
    }

    /// Tiles a strip, whose products stay in the second-level cache.
    pub fn strip(self) -> usize {
        cache::by_second_level(match self {
            Self::Four => 96,
            Self::Six => 48,
        })
    }
}
