//! A model to start from.

use std::path::Path;
use std::sync::Arc;

use brisk_nn::Weights;
use brisk_store::{ModelFolder, TensorSource};
use candle_core::Var;

use super::{TEXT_ENCODER, TRANSFORMER};
use crate::error::Result;
use crate::session::check_start;
use crate::tensors::{NamedArray, memory_source};

/// What a run takes from another model: parameters by the names they have in training.
pub(super) struct Start {
    text: Arc<dyn TensorSource>,
    transformer: Arc<dyn TensorSource>,
    /// Its `tokenizer.json`: the table of the text encoder is of its tokens.
    pub tokenizer: Vec<u8>,
}

impl Start {
    /// Reads a folder in the layout that training writes.
    pub fn open(folder: &Path) -> Result<Start> {
        let folder = ModelFolder::Disk(folder.to_owned());
        Ok(Start {
            text: part(&folder, TEXT_ENCODER)?,
            transformer: part(&folder, TRANSFORMER)?,
            tokenizer: folder.read("tokenizer/tokenizer.json")?.into_owned(),
        })
    }
}

fn part(folder: &ModelFolder, part: &str) -> Result<Arc<dyn TensorSource>> {
    let source = folder.open_component(part, None)?;
    let mut arrays = Vec::new();
    for name in source.names() {
        let Some(view) = source.view(&name)? else {
            continue;
        };
        arrays.push(NamedArray {
            name: format!("{part}.{name}"),
            shape: view.shape.to_vec(),
            values: view.to_f32()?,
        });
    }
    memory_source(&arrays, "", false)
}

/// The variables of a run, each part's by itself: a part is complete when all of its own are there.
pub(super) struct PartWeights {
    pub text: Weights,
    pub transformer: Weights,
}

impl PartWeights {
    /// From `start` where there is one, else from the seed.
    pub fn new(start: Option<&Start>, seed: u64) -> PartWeights {
        PartWeights {
            text: Weights::trainable(start.map(|start| Arc::clone(&start.text)), seed),
            transformer: Weights::trainable(
                start.map(|start| Arc::clone(&start.transformer)),
                seed,
            ),
        }
    }

    /// Refuses a `start` of another shape.
    pub fn check(&self, start: Option<&Start>) -> Result<()> {
        check_start(&self.text, start.map(|start| &*start.text))?;
        check_start(&self.transformer, start.map(|start| &*start.transformer))
    }

    /// All variables, sorted by name.
    pub fn variables(&self) -> Vec<(String, Var)> {
        let mut all = self.text.variables();
        all.extend(self.transformer.variables());
        all
    }
}
