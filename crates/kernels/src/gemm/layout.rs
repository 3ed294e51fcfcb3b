//! How the operands of products lie in memory.

/// Outputs a panel.
pub(crate) const PANEL: usize = 16;
/// Inner values that a product takes at once: a panel of them fits the first-level cache.
pub(crate) const DEPTH: usize = 256;
/// Distance between rows of the input, in elements; not a power of two, which would put all rows
/// into the same cache sets.
pub(crate) const STRIDE: usize = DEPTH + 16;

/// Two inner values of a panel in bf16, output by output: the first in the low half of a word. This
/// is how tile registers want them, and widening is one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(align(64))]
pub(crate) struct Pair(pub [u32; PANEL]);

impl Pair {
    /// Bits of a word that hold its second value.
    pub const SECOND: u32 = 0xffff_0000;

    /// The inner value of this parity, widened.
    #[inline(always)]
    pub fn widen(&self, odd: bool) -> [f32; PANEL] {
        self.0
            .map(|word| f32::from_bits(if odd { word & Self::SECOND } else { word << 16 }))
    }
}

/// Some inner values of rows of an input.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    pub x: &'a [f32],
    /// Distance between rows: [`STRIDE`], or anything where the level
    /// [takes plain rows](super::product::takes_plain_rows).
    pub stride: usize,
    pub rows: usize,
    /// At most [`DEPTH`], but for weights of which the level takes
    /// [more at once](super::product::inner_values).
    pub depth: usize,
}

/// Where a tile of results goes.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Its first element.
    pub out: *mut f32,
    /// Distance between rows.
    pub stride: usize,
    /// Whether the product is added to what is there.
    pub accumulate: bool,
}

/// A result that several threads write, each its own values.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    pub data: *mut f32,
    pub rows: usize,
    pub stride: usize,
}

// SAFETY: who makes a task of one gives it values that no other task has, of a slice that outlives all.
unsafe impl Send for Out {}
// SAFETY: as above; the pointer alone reads and writes nothing.
unsafe impl Sync for Out {}

impl Out {
    /// Rows of `stride` values.
    pub fn new(y: &mut [f32], stride: usize) -> Self {
        Self {
            data: y.as_mut_ptr(),
            rows: y.len() / stride,
            stride,
        }
    }
}
