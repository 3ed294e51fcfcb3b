//! A finished tokenizer whose codes are learned.

use std::sync::Arc;

use brisk_models::hart::Scales;
use brisk_models::hart::tokenizer::{COMPONENT, Parts, Tokenizer, TokenizerConfig, plain_names};
use brisk_nn::Weights;
use brisk_pipelines::folder::ComponentFolder;
use brisk_store::{ModelFolder, TensorSource};
use serde_json::Value;

use crate::error::{Error, Result};

/// The files of a tokenizer.
pub struct TokenizerFiles {
    /// Its `config.json`, as it is written.
    pub(super) document: Value,
    /// Its settings.
    pub(super) config: TokenizerConfig,
    /// Its weights as they are stored.
    pub(super) stored: Arc<dyn TensorSource>,
}

impl TokenizerFiles {
    /// Those of a folder, its own or a model's, of this variant where there is one.
    ///
    /// # Errors
    /// Files that are missing or damaged, or of another network.
    pub fn open(folder: &ModelFolder, variant: Option<&str>) -> Result<Self> {
        let place = ComponentFolder::find(folder, COMPONENT.folders)?;
        Ok(Self {
            document: place.config_json()?,
            config: place.config(TokenizerConfig::from_json)?,
            stored: place.weights(variant)?,
        })
    }

    /// The tokenizer with some of its parts.
    pub(super) fn load(&self, parts: Parts) -> Result<Tokenizer> {
        let weights = Weights::from_source(plain_names(self.stored.clone())?);
        Ok(Tokenizer::load(&self.config, &weights, parts)?)
    }

    /// Refuses grids of codes that it does not make of pictures of `size` pixels.
    pub(super) fn check(&self, scales: &Scales, size: usize) -> Result<()> {
        let (ratio, side) = (self.config.ratio(), scales.side());
        if size == ratio * side {
            return Ok(());
        }
        Err(Error::Data(format!(
            "pictures of {size} px; the last of `patch_nums` {:?} and the tokenizer's {ratio} pixels a place make {}",
            scales.sides(),
            ratio * side
        )))
    }
}
