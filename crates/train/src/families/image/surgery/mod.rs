//! Transformers of another depth made of a trained one, as SANA-1.5 does (arXiv 2501.18427): deeper by new blocks
//! ([`grow`]), or without those that change least ([`prune`]).
//!
//! The result is a model's folder in the layout of its source: the transformer is written anew, everything else is the
//! source's. Its `recipe.json` trains it on: `brisk train image --from` takes it.

mod blocks;
mod grow;
mod prune;
mod recipe;
mod shards;
mod source;

pub use grow::{GrowOptions, GrowthReport, Strategy, grow};
pub use prune::{PruneReport, PruneTarget, PrunedBlock, prune};
pub use recipe::recipe_of;
pub use source::DepthSource;
