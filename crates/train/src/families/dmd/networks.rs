//! Student, teacher and critic.

use std::sync::Arc;

use brisk_models::hunyuan_video::transformer::{VideoTransformer, VideoTransformerConfig};
use brisk_nn::Weights;
use brisk_store::TensorSource;
use candle_core::Var;

use super::{CriticOptions, DmdRecipe};
use crate::error::{Error, Result};
use crate::families::lora_pairs::{self, Pair, pairs, values};
use crate::families::video::networks::TRANSFORMER;
use crate::objectives::ladd::Discriminator;
use crate::optimiser::Gradients;
use crate::session::check_start;
use crate::tensors::{self, NamedArray};

/// What the names of the critic's pairs and heads begin with.
const CRITIC: &str = "critic";
const HEADS: &str = "heads";

/// Networks of one set of weights, three times: as the student changes them, as the critic sees them through its pairs,
/// and as the teacher does.
pub(super) struct Networks {
    config: VideoTransformerConfig,
    options: CriticOptions,
    student: Weights,
    fake: Weights,
    real: Weights,
    /// The critic's.
    pub pairs: Vec<Pair>,
    /// The same layers' weights in the teacher.
    held: Vec<Var>,
    heads: Weights,
    pub discriminator: Option<Discriminator>,
}

impl Networks {
    /// All three begin as `source` has it, under names that begin with the transformer's.
    ///
    /// # Errors
    /// Weights that do not fit, a rank above a layer's sizes, or blocks that there are not.
    pub fn new(
        config: &VideoTransformerConfig,
        source: &Arc<dyn TensorSource>,
        recipe: &DmdRecipe,
    ) -> Result<Self> {
        if let Some(block) = recipe
            .head_blocks
            .iter()
            .find(|block| **block >= config.num_single_layers)
        {
            return Err(Error::Recipe(format!(
                "head_blocks has {block}, but the teacher has single blocks 0 to {}",
                config.num_single_layers - 1
            )));
        }
        let seed = recipe.training.seed;
        let of = || Weights::trainable(Some(Arc::clone(source)), seed);
        let (student, fake, real) = (of(), of(), of());
        for weights in [&student, &fake, &real] {
            VideoTransformer::load(config, &weights.pp(TRANSFORMER))?;
            check_start(weights, Some(&**source))?;
        }
        let rank = ("critic.rank", recipe.critic.rank);
        let pairs = pairs(&fake.variables(), has_pair, rank, seed)?;
        let of_real = real.variables();
        let held = pairs.iter().map(|pair| {
            let name = format!("{}.weight", pair.layer);
            let found = of_real.iter().find(|(known, _)| *known == name);
            let missing = || Error::Data(format!("the teacher has no {name}"));
            found.map(|(_, weight)| weight.clone()).ok_or_else(missing)
        });
        let heads = Weights::trainable(None, seed);
        let discriminator = recipe.has_heads().then(|| {
            Discriminator::load(&heads.pp(HEADS), recipe.head_blocks.len(), config.width())
        });
        Ok(Self {
            config: config.clone(),
            options: recipe.critic,
            held: held.collect::<Result<_>>()?,
            discriminator: discriminator.transpose()?,
            student,
            fake,
            real,
            pairs,
            heads,
        })
    }

    fn network(&self, weights: &Weights) -> Result<VideoTransformer> {
        Ok(VideoTransformer::load(
            &self.config,
            &weights.pp(TRANSFORMER),
        )?)
    }

    /// The student. Layers may be cut out of the variables as they are loaded, so every part of an update loads its own.
    pub fn student(&self) -> Result<VideoTransformer> {
        self.network(&self.student)
    }

    /// The critic.
    pub fn fake(&self) -> Result<VideoTransformer> {
        self.network(&self.fake)
    }

    /// The teacher.
    pub fn real(&self) -> Result<VideoTransformer> {
        self.network(&self.real)
    }

    /// What the optimiser changes: the student's variables, then the critic's.
    pub fn variables(&self) -> Vec<(String, Var)> {
        let mut all = self.student.variables();
        all.extend(self.of_critic());
        all
    }

    /// The pairs', then the heads'.
    fn of_critic(&self) -> Vec<(String, Var)> {
        let pairs = lora_pairs::variables(&self.pairs).into_iter();
        let pairs = pairs.map(|(name, variable)| {
            let short = name
                .strip_prefix(&format!("{TRANSFORMER}."))
                .unwrap_or(&name);
            (format!("{CRITIC}.{short}"), variable)
        });
        pairs.chain(self.heads.variables()).collect()
    }

    /// What the critic's loss depends on: the weights that its pairs change, then the heads'.
    pub fn seen_by_critic(&self) -> Vec<(String, Var)> {
        let weights = self
            .pairs
            .iter()
            .map(|pair| (pair.layer.clone(), pair.weight.clone()));
        weights.chain(self.heads.variables()).collect()
    }

    /// Gradients of [`Self::variables`] by those of [`Self::seen_by_critic`]: the student gets none.
    pub fn pull(&self, gradients: Gradients) -> Result<Gradients> {
        let mut all = vec![None; self.student.variables().len()];
        let mut found = gradients.into_arrays();
        let of_heads = found.split_off(self.pairs.len().min(found.len()));
        let strong = self.options.strong as f32;
        all.extend(lora_pairs::pull(&self.pairs, found, strong)?);
        all.extend(of_heads);
        Ok(Gradients::of(all))
    }

    /// Puts what the pairs have learned into critic and teacher.
    pub fn renew(&self) -> Result<()> {
        lora_pairs::renew(&self.pairs, self.options.strong as f32)?;
        if self.options.weak == 0.0 {
            return Ok(());
        }
        let weak = self.options.weak as f32;
        for (pair, held) in self.pairs.iter().zip(&self.held) {
            let sum = pair.sum(&values(&pair.down)?, &values(&pair.up)?, weak);
            tensors::set(held, sum)?;
        }
        Ok(())
    }

    /// The student from the moving average, as it will be written when `rounded`.
    pub fn frozen(&self, arrays: &[NamedArray], rounded: bool) -> Result<VideoTransformer> {
        let source = tensors::memory_source(arrays, &format!("{TRANSFORMER}."), rounded)?;
        let weights = Weights::from_source(source);
        Ok(VideoTransformer::load(&self.config, &weights)?)
    }
}

#[cfg(test)]
impl Networks {
    /// The teacher's weights of the layers that have pairs.
    pub fn held(&self) -> &[Var] {
        &self.held
    }

    /// All of the critic's weights.
    pub fn fake_variables(&self) -> Vec<(String, Var)> {
        self.fake.variables()
    }
}

/// Whether a layer is an attention's or an MLP's of a block.
fn has_pair(layer: &str) -> bool {
    let inside = layer.contains("transformer_blocks.");
    let parts = [
        ".attn.to_",
        ".attn.add_",
        ".ff.net.",
        ".ff_context.net.",
        ".proj_",
    ];
    inside && parts.iter().any(|part| layer.contains(part))
}
