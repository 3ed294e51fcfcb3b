//! The networks that learn.

use brisk_models::language_model::{LanguageModel, LanguageModelConfig};
use brisk_models::vila_u::Generator;
use brisk_models::vila_u::depth::DepthTransformer;
use brisk_models::vila_u::projector::{Projector, ProjectorConfig, Widths};
use brisk_models::vila_u::tower::{Parts, Tower, TowerConfig};
use brisk_nn::Weights;
use serde_json::{Value, json};

use super::{JointRecipe, TowerFiles};
use crate::error::{JsonContext, Result};
use crate::families::autoencoder::config_with;
use crate::families::part_weights::PartWeights;
use crate::tensors::{self, NamedArray};

/// The folders of the parts, with which the names of their parameters begin.
pub(super) const LLM: &str = "llm";
pub(super) const TOWER: &str = "vision_tower";
pub(super) const PROJECTOR: &str = "mm_projector";
/// The depth transformer in the tower's file.
pub(super) const DEPTH: &str = "rqtransformer";

/// The configurations, as they are read and as they are written.
pub(super) struct Configs {
    pub llm: Value,
    pub tower: Value,
    pub projector: Value,
    pub language: LanguageModelConfig,
    pub tower_model: TowerConfig,
    projector_model: ProjectorConfig,
}

impl Configs {
    /// Of a recipe whose language model has a table of `vocabulary` tokens.
    pub fn new(recipe: &JointRecipe, files: &TowerFiles, vocabulary: usize) -> Result<Self> {
        let changes = [
            ("vocab_size", vocabulary.into()),
            ("bos_token_id", 1.into()),
            ("eos_token_id", 2.into()),
        ];
        let llm = config_with(&recipe.llm, None, &changes)?;
        let bytes = serde_json::to_vec(&llm).in_document("recipe")?;
        let language = LanguageModelConfig::llama(&bytes, "recipe, llm")?;
        language.validate()?;
        let projector = json!({
            "architectures": ["MultimodalProjector"], "mm_projector_type": recipe.projector,
            "model_type": "v2l_projector",
        });
        let bytes = serde_json::to_vec(&projector).in_document("recipe")?;
        let (tower, tower_model) = files.with_depth(recipe.depth, language.hidden_size)?;
        Ok(Self {
            projector_model: ProjectorConfig::from_json(&bytes, "recipe, projector")?,
            llm,
            tower,
            projector,
            language,
            tower_model,
        })
    }

    fn widths(&self) -> Widths {
        Widths {
            codeword: self.tower_model.embed_dim,
            hidden: self.language.hidden_size,
        }
    }

    /// Parameters of all networks that learn.
    pub fn parameters(&self) -> u64 {
        self.language.parameters()
            + self.projector_model.parameters(self.widths())
            + self.tower_model.head.parameters()
    }
}

/// Language model, projector and depth transformer.
pub(super) struct Networks {
    pub language: LanguageModel,
    pub projector: Projector,
    pub depth: DepthTransformer,
}

impl Networks {
    pub fn trainable(configs: &Configs, weights: &PartWeights<3>) -> Result<Self> {
        let [language, projector, depth] = weights.parts();
        Self::load(
            configs,
            &language.pp(LLM),
            &projector.pp(PROJECTOR),
            &depth.pp(TOWER),
        )
    }

    /// From the moving average, as it will be written when `rounded`.
    pub fn frozen(configs: &Configs, arrays: &[NamedArray], rounded: bool) -> Result<Self> {
        let [language, projector, depth] =
            [LLM, PROJECTOR, TOWER].map(|part| of_arrays(arrays, part, rounded));
        Self::load(configs, &language?, &projector?, &depth?)
    }

    fn load(
        configs: &Configs,
        language: &Weights,
        projector: &Weights,
        tower: &Weights,
    ) -> Result<Self> {
        let depth = DepthTransformer::load(&configs.tower_model.head, &tower.pp(DEPTH))?;
        tower.finish(&[])?;
        Ok(Self {
            language: LanguageModel::load(&configs.language, language)?,
            projector: Projector::load(configs.projector_model, configs.widths(), projector)?,
            depth,
        })
    }
}

fn of_arrays(arrays: &[NamedArray], part: &str, rounded: bool) -> Result<Weights> {
    let source = tensors::memory_source(arrays, &format!("{part}."), rounded)?;
    Ok(Weights::from_source(source))
}

/// What draws, from the moving average and the tower's own weights.
pub(super) fn generator(
    configs: &Configs,
    files: &TowerFiles,
    arrays: &[NamedArray],
    rounded: bool,
) -> Result<Generator> {
    let networks = Networks::frozen(configs, arrays, rounded)?;
    let stored = &*files.stored;
    let mut tower = Vec::new();
    for name in stored.names() {
        let Some((_, shape)) = stored.info(&name) else {
            continue;
        };
        tower.push(NamedArray {
            values: tensors::read(stored, &name, &shape)?,
            shape,
            name,
        });
    }
    for array in arrays {
        if let Some(name) = array.name.strip_prefix(&format!("{TOWER}.")) {
            tower.push(NamedArray {
                name: name.to_owned(),
                ..array.clone()
            });
        }
    }
    let weights = Weights::from_source(tensors::memory_source(&tower, "", rounded)?);
    let parts = Parts {
        encoder: false,
        ..Parts::ALL
    };
    let tower = Tower::load(&configs.tower_model, &weights, parts)?;
    Ok(Generator::new(
        networks.language,
        tower,
        networks.projector,
    )?)
}
