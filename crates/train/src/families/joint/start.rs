//! A model to start from.

use std::sync::Arc;

use brisk_models::vila_u;
use brisk_pipelines::folder::{ComponentFolder, Wanted};
use brisk_store::{MappedSource, ModelFolder, Slice, TensorSource};

use super::networks::{DEPTH, LLM, PROJECTOR, TOWER};
use crate::error::Result;
use crate::families::image::start::below;

/// What a run takes from a finished model: parameters by the names that they have in training, and its tokenizer of
/// texts. An identity as projector has none.
pub struct JointStart {
    pub(super) language: Arc<dyn TensorSource>,
    pub(super) projector: Arc<dyn TensorSource>,
    pub(super) depth: Arc<dyn TensorSource>,
    pub(super) tokenizer: Vec<u8>,
}

impl JointStart {
    /// Everything that is taken: of language model, projector and depth transformer.
    pub(super) fn sources(&self) -> [Arc<dyn TensorSource>; 3] {
        [&self.language, &self.projector, &self.depth].map(Arc::clone)
    }
}

/// What a joint run takes from a model's folder, its weights of this variant where there is one.
///
/// # Errors
/// Parts that are missing, damaged or of another network.
pub fn open_joint_start(folder: &ModelFolder, variant: Option<&str>) -> Result<JointStart> {
    let wanted = Wanted {
        variant: variant.map(str::to_owned),
        ..Wanted::default()
    };
    let place = |part| ComponentFolder::new(folder, part);
    let language = place(LLM).open_as(&vila_u::LANGUAGE_MODEL, &wanted)?;
    let projector = place(PROJECTOR).open_as(&vila_u::PROJECTOR, &wanted)?;
    let tower = place(TOWER).weights(variant)?;
    let names = tower.names().into_iter();
    let own = names.filter(|name| name.starts_with(&format!("{DEPTH}.")));
    let map = own.map(|name| (format!("{TOWER}.{name}"), Slice::whole(name)));
    Ok(JointStart {
        language: below(LLM, &language)?,
        projector: below(PROJECTOR, &projector)?,
        depth: Arc::new(MappedSource::new(tower.clone(), map.collect())?),
        tokenizer: place(LLM).read("tokenizer.model")?,
    })
}
