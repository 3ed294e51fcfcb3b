//! Attention between the tokens of many prompts and the cells of one picture, as the mask decoder of "Segment
//! Anything" (Kirillov et al. 2023, appendix A) has it.
//!
//! Every prompt has cells of its own, but they differ only by what its few tokens told them:
//!
//! ```text
//! cell[p] = scale[p]·shared[p] + Σ_r shares[r, p]·told[r] + constant
//! ```
//!
//! `shared` is the same for all prompts of a picture, `scale` what norms multiplied it by, and each layer adds as
//! many rows `told` as there are tokens times heads. So whatever is a linear map of the cells is a map of `shared`,
//! which is made once, and a product with some dozens of rows, where it would be one with all channels. Norms need a
//! cell's variance, which is a quadratic form of its shares. Nothing here holds the cells themselves or the rows that
//! were told, only products with them.
//!
//! | module | what it does |
//! |---|---|
//! | `layout` | orders of cells in memory, products with them |
//! | [`look()`] | tokens look at cells |
//! | [`tell()`] | cells look at tokens, and are normalised |
//! | [`enlarge()`] | cells to masks of four times the sides |
//!
//! One prompt is the work of one thread; [`each`] shares prompts between threads.

mod enlarge;
mod layout;
mod look;
mod tell;
#[cfg(test)]
mod tests;

pub use enlarge::{Enlarged, Factors, enlarge};
pub use layout::{Across, Along};
pub use look::{Asked, Looked, Seen, look};
pub use tell::{Crossed, Telling, Told, tell};

use crate::gemm::layout::{DEPTH, PANEL};
use rayon::prelude::*;

/// Rows that may be told to cells in all layers together.
pub const MOST_ROWS: usize = DEPTH;

/// Prompts at least that are worked on together: what their tokens do among each other is little work.
const TOGETHER: usize = 16;

/// What makes the cells of one prompt of the shared ones.
#[derive(Clone, Debug)]
pub struct Update {
    cells: usize,
    /// Rows that have been told so far, and for which there is room.
    rows: usize,
    most: usize,
    /// Of 16 cells after another `[most, 16]`.
    shares: Vec<f32>,
    /// Of every cell, up to whole panels.
    scale: Vec<f32>,
}

impl Update {
    /// Of `cells` cells that were told nothing yet, with room for `most` rows.
    ///
    /// # Panics
    /// With more than [`MOST_ROWS`].
    pub fn new(cells: usize, most: usize) -> Self {
        assert!(most <= MOST_ROWS, "{most} rows to be told");
        let panels = cells.div_ceil(PANEL);
        Self {
            cells,
            rows: 0,
            most,
            shares: vec![0.0; panels * most * PANEL],
            scale: vec![1.0; panels * PANEL],
        }
    }

    /// Forgets what was told.
    pub fn clear(&mut self) {
        self.rows = 0;
        self.scale.fill(1.0);
    }

    fn shares(&self, panel: usize) -> &[f32] {
        &self.shares[panel * self.most * PANEL..][..self.rows * PANEL]
    }

    fn scale(&self, panel: usize) -> &[f32; PANEL] {
        let scale = &self.scale[panel * PANEL..][..PANEL];
        scale.try_into().expect("of this length")
    }
}

/// Prompts of which updates had best be held at a time: enough for all threads.
pub fn together() -> usize {
    TOGETHER.max(2 * rayon::current_num_threads())
}

/// What `work` makes of each prompt and what goes with it, on all threads.
pub fn each<W, T, F>(updates: &mut [Update], with: Vec<W>, work: F) -> Vec<T>
where
    W: Send,
    T: Send,
    F: Fn(usize, &mut Update, W) -> T + Sync,
{
    let prompts = updates.par_iter_mut().zip(with).enumerate();
    prompts
        .map(|(index, (update, with))| work(index, update, with))
        .collect()
}
