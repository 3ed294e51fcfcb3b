//! A transformer without the blocks that change least.

use std::path::Path;

use serde::Serialize;

use super::source::{Depth, DepthSource};
use crate::error::{Error, JsonContext, Result};
use crate::recipe::ImageRecipe;

/// How much stays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PruneTarget {
    /// So many blocks.
    Blocks(usize),
    /// This share of them, rounded to whole blocks.
    Share(f64),
}

/// A block of the source.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PrunedBlock {
    /// Its place.
    pub block: usize,
    /// One less the mean cosine between the tokens that it is given and those that it gives.
    pub importance: f64,
    /// Its place in the result; none where it is left out.
    pub kept_as: Option<usize>,
}

/// What came of [`prune`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PruneReport {
    /// What was pruned.
    pub source: String,
    /// Blocks of the source.
    pub source_layers: usize,
    /// Blocks of the result.
    pub layers: usize,
    /// Parameters of the source's transformer.
    pub source_parameters: u64,
    /// Parameters of the result's.
    pub parameters: u64,
    /// Prompts that were drawn to find the importance of the blocks.
    pub prompts: usize,
    /// Every block of the source.
    pub blocks: Vec<PrunedBlock>,
}

impl PruneTarget {
    fn layers(self, source: usize) -> Result<usize> {
        let layers = match self {
            Self::Blocks(blocks) => blocks,
            Self::Share(share) if share > 0.0 && share < 1.0 => {
                (share * source as f64).round() as usize
            }
            Self::Share(share) => {
                return Err(Error::Data(format!(
                    "a share of {share} of the blocks is to stay, expected between 0 and 1"
                )));
            }
        };
        if layers == 0 || layers >= source {
            return Err(Error::Data(format!(
                "{layers} of {source} blocks are to stay, expected 1 to {}",
                source.saturating_sub(1)
            )));
        }
        Ok(layers)
    }
}

impl DepthSource {
    /// Refuses a target or an output before anything is drawn.
    ///
    /// # Errors
    /// More blocks than there are, or none; an output that is there already.
    pub fn check_pruning(&self, target: PruneTarget, output: &Path) -> Result<()> {
        target.layers(self.layers())?;
        self.check_output(output)
    }
}

/// Leaves out the blocks of least `importance`, as it was measured over `prompts` prompts, and writes the folder of the
/// result: the layout of the source, a `pruning.json` with every block's importance, and a `recipe.json` as of
/// [`super::grow`]. Of equally important blocks the later ones are left out.
///
/// # Errors
/// As [`DepthSource::check_pruning`]; an importance of another number of blocks; files that cannot be written.
pub fn prune(
    source: &DepthSource,
    target: PruneTarget,
    importance: &[f64],
    prompts: usize,
    recipe: Option<&ImageRecipe>,
    output: &Path,
) -> Result<PruneReport> {
    let layers = target.layers(source.layers())?;
    source.check_output(output)?;
    if importance.len() != source.layers() || importance.iter().any(|value| !value.is_finite()) {
        return Err(Error::Data(format!(
            "the importance of {} blocks was measured, expected {} numbers; is there a prompt that was drawn?",
            importance.len(),
            source.layers()
        )));
    }
    let mut order: Vec<usize> = (0..importance.len()).collect();
    order.sort_by(|a, b| importance[*b].total_cmp(&importance[*a]).then(a.cmp(b)));
    let mut kept = order[..layers].to_vec();
    kept.sort_unstable();
    let blocks = importance
        .iter()
        .enumerate()
        .map(|(block, importance)| PrunedBlock {
            block,
            importance: *importance,
            kept_as: kept.binary_search(&block).ok(),
        });
    let mut pruned = source.model.clone();
    pruned.num_layers = layers;
    let report = PruneReport {
        source: source.folder.label(),
        source_layers: source.layers(),
        layers,
        source_parameters: source.model.parameters(),
        parameters: pruned.parameters(),
        prompts,
        blocks: blocks.collect(),
    };
    let document = serde_json::to_value(&report).in_document("pruning.json")?;
    let depth = Depth {
        layers,
        qk_norm: false,
        recipe,
    };
    source.write(
        &depth,
        output,
        |index| source.stored(kept[index], index),
        ("pruning.json", &document),
    )?;
    Ok(report)
}
