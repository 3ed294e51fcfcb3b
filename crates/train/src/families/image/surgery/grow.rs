//! A deeper transformer.

use std::path::Path;

use serde::Serialize;

use super::blocks::Blocks;
use super::source::{Depth, DepthSource};
use crate::error::{Error, JsonContext, Result};
use crate::recipe::ImageRecipe;

/// How new blocks come about; named as in the authors' code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// New blocks behind those that are kept, which are the identity at first: what the paper trains.
    Constant,
    /// New blocks behind those that are kept, as in a model that is trained from nothing.
    Random,
    /// The kept blocks again and again.
    Cyclic,
    /// Each kept block as often as it fits, one copy behind the other.
    BlockExpand,
    /// New blocks behind those that are kept, each the one before with a little noise.
    Progressive,
    /// Every block between two kept ones, by its place.
    Interpolation,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Constant,
        Self::Random,
        Self::Cyclic,
        Self::BlockExpand,
        Self::Progressive,
        Self::Interpolation,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Random => "random",
            Self::Cyclic => "cyclic",
            Self::BlockExpand => "block-expand",
            Self::Progressive => "progressive",
            Self::Interpolation => "interpolation",
        }
    }

    /// Last blocks of the source that are left out by default: with the paper's strategy two, since new blocks behind
    /// the whole model would stay near the identity.
    fn usual_drop(self, layers: usize) -> usize {
        match self {
            Self::Constant if layers > 2 => 2,
            _ => 0,
        }
    }
}

/// What to grow, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct GrowOptions {
    /// Blocks of the result.
    pub layers: usize,
    /// How new ones come about.
    pub strategy: Strategy,
    /// Last blocks of the source that are left out; two with [`Strategy::Constant`], else none, when not given.
    pub drop: Option<usize>,
    /// Deviation of the weights that end a new block's branches, for [`Strategy::Constant`]; at 0 it is the identity.
    pub projection_scale: f32,
    /// Deviation of its other weights.
    pub other_scale: f32,
    /// Whether copies behind the first of [`Strategy::Cyclic`] and [`Strategy::BlockExpand`] add nothing at first.
    pub zero_gate: bool,
    /// Adds norms of queries and keys where the source has none, with weights of one; they change what it computes.
    pub qk_norm: bool,
    /// Seed of all random numbers.
    pub seed: u64,
}

impl GrowOptions {
    /// The paper's choices.
    pub fn new(layers: usize, strategy: Strategy) -> Self {
        Self {
            layers,
            strategy,
            drop: None,
            projection_scale: 0.0,
            other_scale: 0.02,
            zero_gate: false,
            qk_norm: false,
            seed: 0,
        }
    }

    /// Blocks of the source that are used.
    fn kept(&self, source: usize) -> Result<usize> {
        let drop = self.drop.unwrap_or(self.strategy.usual_drop(source));
        let refuse = |message: String| Err(Error::Data(message));
        if drop >= source {
            return refuse(format!(
                "leaving out {drop} of {source} blocks keeps none; expected up to {}",
                source - 1
            ));
        }
        let kept = source - drop;
        if self.layers <= kept || self.layers > MAX_LAYERS {
            return refuse(format!(
                "{} blocks are asked for, expected more than the {kept} that are kept, up to {MAX_LAYERS}",
                self.layers
            ));
        }
        if self.strategy == Strategy::BlockExpand && !self.layers.is_multiple_of(kept) {
            return refuse(format!(
                "block-expand makes equally many copies of {kept} blocks; expected {} or another multiple, not {}",
                kept * self.layers.div_ceil(kept),
                self.layers
            ));
        }
        let copies = matches!(self.strategy, Strategy::Cyclic | Strategy::BlockExpand);
        if self.zero_gate && !copies {
            return refuse(format!(
                "zero gates are for copies, of cyclic or block-expand; {} makes none",
                self.strategy.name()
            ));
        }
        let usual = GrowOptions::new(self.layers, self.strategy);
        let scaled = self.projection_scale != usual.projection_scale
            || self.other_scale != usual.other_scale;
        if scaled && self.strategy != Strategy::Constant {
            return refuse(format!(
                "scales of new weights are for constant; {} has none",
                self.strategy.name()
            ));
        }
        let sizes = [self.projection_scale, self.other_scale];
        if sizes.iter().any(|scale| !(0.0..=1.0).contains(scale)) {
            return refuse(format!(
                "scales of new weights are {sizes:?}, expected 0 to 1"
            ));
        }
        Ok(kept)
    }
}

/// Blocks of the deepest model that is made.
const MAX_LAYERS: usize = 4096;

/// What came of [`grow`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GrowthReport {
    /// What was grown.
    pub source: String,
    /// How.
    pub strategy: Strategy,
    /// Blocks of the source.
    pub source_layers: usize,
    /// Those of them that were used.
    pub kept_layers: usize,
    /// Blocks of the result.
    pub layers: usize,
    /// Parameters of the source's transformer.
    pub source_parameters: u64,
    /// Parameters of the result's.
    pub parameters: u64,
    /// Seed of the random numbers.
    pub seed: u64,
}

/// Makes a deeper model of a trained one and writes its folder: the layout of the source, a `growth.json` that says how,
/// and a `recipe.json` made of `recipe`, or of the built-in one that is nearest to the source's shape.
///
/// # Errors
/// Numbers of blocks that do not go with the strategy, an output that is there already, files that cannot be written.
pub fn grow(
    source: &DepthSource,
    options: &GrowOptions,
    recipe: Option<&ImageRecipe>,
    output: &Path,
) -> Result<GrowthReport> {
    let kept = options.kept(source.layers())?;
    source.check_output(output)?;
    let mut grown = source.model.clone();
    grown.num_layers = options.layers;
    if options.qk_norm {
        grown.qk_norm = Some(brisk_models::sana::QkNorm::RmsNormAcrossHeads);
    }
    grown.validate()?;
    let report = GrowthReport {
        source: source.folder.label(),
        strategy: options.strategy,
        source_layers: source.layers(),
        kept_layers: kept,
        layers: options.layers,
        source_parameters: source.model.parameters(),
        parameters: grown.parameters(),
        seed: options.seed,
    };
    let document = serde_json::to_value(&report).in_document("growth.json")?;
    let depth = Depth {
        layers: options.layers,
        qk_norm: options.qk_norm,
        recipe,
    };
    let mut blocks = Blocks::new(source, options, kept);
    source.write(
        &depth,
        output,
        |index| blocks.block(index),
        ("growth.json", &document),
    )?;
    Ok(report)
}
