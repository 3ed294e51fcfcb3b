//! A finished tower whose codes are learned.

use std::sync::Arc;

use brisk_models::vila_u::TOWER;
use brisk_models::vila_u::tower::{Parts, Tower, TowerConfig};
use brisk_nn::Weights;
use brisk_pipelines::families::vila_u::tower_config;
use brisk_pipelines::folder::ComponentFolder;
use brisk_store::{MappedSource, ModelFolder, Slice, TensorSource};
use serde_json::{Value, json};

use super::DepthSizes;
use crate::error::{Error, JsonContext, Result};
use crate::families::autoencoder::config_with;

/// What the tower's own tensors begin with; the others are the depth transformer's.
const OWN: &str = "rqvaesiglip.";
/// Files of SigLIP's folder that a model takes along.
const SIGLIP_FILES: [&str; 3] = ["config.json", "tokenizer.model", "tokenizer_config.json"];

/// The files of a tower.
pub struct TowerFiles {
    /// Its `config.json`, as it is written.
    document: Value,
    /// Its settings; of the depth transformer those of the file.
    pub(super) config: TowerConfig,
    /// Its own weights as they are stored.
    pub(super) stored: Arc<dyn TensorSource>,
    /// Files inside its folder that go with it.
    pub(super) beside: Vec<(String, Vec<u8>)>,
}

impl TowerFiles {
    /// Those of a folder, the tower's own or a model's, of this variant where there is one.
    ///
    /// # Errors
    /// Files that are missing or damaged, or of another network.
    pub fn open(folder: &ModelFolder, variant: Option<&str>) -> Result<Self> {
        let place = ComponentFolder::find(folder, TOWER.folders)?;
        let config = tower_config(&place)?;
        let mut beside = Vec::new();
        for folder in config.siglip_folders() {
            for file in SIGLIP_FILES {
                let name = format!("{folder}/{file}");
                if place.exists(&name) {
                    let bytes = place.read(&name)?;
                    beside.push((name, bytes));
                }
            }
        }
        let weights = place.weights(variant)?;
        let names = weights.names().into_iter();
        let own = names.filter(|name| name.starts_with(OWN));
        let map = own.map(|name| (name.clone(), Slice::whole(name)));
        Ok(Self {
            document: place.config_json()?,
            config,
            stored: Arc::new(MappedSource::new(weights.clone(), map.collect())?),
            beside,
        })
    }

    /// The tower with some of its parts, of which the depth transformer is none.
    pub(super) fn load(&self, parts: Parts) -> Result<Tower> {
        let weights = Weights::from_source(self.stored.clone());
        Ok(Tower::load(&self.config, &weights, parts)?)
    }

    /// Refuses pictures of `size` pixels that it does not read.
    pub(super) fn check(&self, size: usize) -> Result<()> {
        let side = self.config.siglip()?.image_size;
        if size == side {
            return Ok(());
        }
        Err(Error::Data(format!(
            "pictures of {size} px; the tower reads pictures of {side}"
        )))
    }

    /// The configuration with a depth transformer for hidden states of `hidden` channels, as it is written and as it
    /// is read.
    pub(super) fn with_depth(
        &self,
        sizes: DepthSizes,
        hidden: usize,
    ) -> Result<(Value, TowerConfig)> {
        let config = &self.config;
        let head = json!({
            "model_type": "rqtransformer_model", "architectures": ["RQTransformer"],
            "block_size": [config.grid, config.grid, config.depth], "embed_dim": sizes.embed_dim,
            "head": {"block": {"n_head": sizes.n_head}, "n_layer": sizes.n_layer},
            "input_embed_dim_1": config.embed_dim, "input_embed_dim_2": hidden, "vocab_size": config.n_embed,
        });
        let document = config_with(&self.document, None, &[("rqtransformer", head)])?;
        let bytes = serde_json::to_vec(&document).in_document("the tower's config.json")?;
        let mut read = TowerConfig::from_json(&bytes, "recipe, depth")?;
        read.siglip.clone_from(&config.siglip);
        Ok((document, read))
    }
}
