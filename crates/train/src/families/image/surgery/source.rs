//! The model that another depth is made of, and the folder of the result.

use std::path::Path;
use std::sync::Arc;

use brisk_models::sana::{QkNorm, SanaConfig};
use brisk_pipelines::copy_rest;
use brisk_pipelines::folder::{ComponentFolder, Wanted};
use brisk_store::output::TemporaryFolder;
use brisk_store::{Dtype, ModelFolder, OutTensor, TensorSource, check_output};
use serde_json::Value;

use super::recipe;
use super::shards::ShardWriter;
use crate::error::{Error, FileContext, Result};
use crate::families::image::TRANSFORMER;
use crate::recipe::ImageRecipe;
use crate::session::write_json;

/// What names of blocks begin with.
const BLOCKS: &str = "transformer_blocks.";
const WEIGHTS: &str = "diffusion_pytorch_model";

/// A parameter that every block has.
#[derive(Debug, Clone)]
pub(super) struct BlockParameter {
    /// Its name behind the block's.
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

/// A model whose transformer gets another depth.
pub struct DepthSource {
    pub(super) folder: ModelFolder,
    /// The transformer's configuration as it is written.
    config: Value,
    pub(super) model: SanaConfig,
    pub(super) tensors: Arc<dyn TensorSource>,
    /// What a block consists of.
    pub(super) parameters: Vec<BlockParameter>,
}

impl DepthSource {
    /// Opens a model's folder, its weights of this variant where there is one.
    ///
    /// # Errors
    /// No SANA transformer in the folder, one with 4-bit weights, or blocks that are not alike.
    pub fn open(folder: &ModelFolder, variant: Option<&str>) -> Result<Self> {
        let place = ComponentFolder::new(folder, TRANSFORMER);
        let wanted = Wanted {
            variant: variant.map(str::to_owned),
            ..Wanted::default()
        };
        let opened = place.open(
            |bytes, label| SanaConfig::from_json(bytes, label).map(Box::new),
            &wanted,
        )?;
        let refuse = |message: String| Err(Error::Data(format!("{}: {message}", place.place())));
        if opened.is_low_bit() {
            return refuse("its weights have 4 bits; give the full model".to_owned());
        }
        let Some(tensors) = opened.stored().cloned() else {
            return refuse("it has no weights".to_owned());
        };
        let layers = opened.config.num_layers;
        let named = |block: usize| {
            let prefix = format!("{BLOCKS}{block}.");
            let names = tensors.names().into_iter();
            names.filter_map(move |name| Some(name.strip_prefix(&prefix)?.to_owned()))
        };
        let parameters: Vec<BlockParameter> = named(0)
            .filter_map(|name| {
                let (dtype, shape) = tensors.info(&block_tensor(0, &name))?;
                Some(BlockParameter { name, dtype, shape })
            })
            .collect();
        for block in 1..layers {
            let alike = named(block).eq(parameters.iter().map(|parameter| parameter.name.clone()));
            if !alike {
                return refuse(format!("block {block} has other parameters than block 0"));
            }
        }
        Ok(Self {
            folder: folder.clone(),
            config: place.config_json()?,
            model: *opened.config,
            tensors,
            parameters,
        })
    }

    /// Blocks of its transformer.
    pub fn layers(&self) -> usize {
        self.model.num_layers
    }

    /// A parameter of a block in f32.
    pub(super) fn values(&self, block: usize, name: &str) -> Result<Vec<f32>> {
        let full = block_tensor(block, name);
        match self.tensors.view(&full)? {
            Some(view) => Ok(view.to_f32()?),
            None => Err(Error::Data(format!(
                "{}: tensor {full} is missing",
                self.tensors.origin(&full)
            ))),
        }
    }

    /// A block as it is stored, as block `index` of the result.
    pub(super) fn stored(&self, block: usize, index: usize) -> Result<Vec<OutTensor<'_>>> {
        let mut tensors = Vec::with_capacity(self.parameters.len());
        for parameter in &self.parameters {
            let stored = OutTensor::stored(&*self.tensors, block_tensor(block, &parameter.name))?;
            tensors.extend(stored.map(|tensor| OutTensor {
                name: block_tensor(index, &parameter.name),
                ..tensor
            }));
        }
        Ok(tensors)
    }

    /// Refuses an output that is there already or meets the source.
    pub(super) fn check_output(&self, output: &Path) -> Result<()> {
        if let ModelFolder::Disk(source) = &self.folder {
            check_output(output, &[source])?;
        }
        let is_empty = |path: &Path| {
            let entries = std::fs::read_dir(path);
            entries.is_ok_and(|mut entries| entries.next().is_none())
        };
        if output.exists() && !is_empty(output) {
            let message = "it is there already; give another folder, or remove it";
            return Err(std::io::Error::other(message)).at(output);
        }
        Ok(())
    }

    /// Writes the folder of a model of `layers` blocks, whole or not at all. `block` gives the tensors of each in turn,
    /// `document` is what is reported of it under `report`.
    pub(super) fn write<'a>(
        &'a self,
        result: &Depth<'_>,
        output: &Path,
        mut block: impl FnMut(usize) -> Result<Vec<OutTensor<'a>>>,
        report: (&str, &Value),
    ) -> Result<()> {
        if let Some(parent) = output
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            std::fs::create_dir_all(parent).at(parent)?;
        }
        let room = TemporaryFolder::create(output)?;
        let prefix = format!("{TRANSFORMER}/");
        let written = [recipe::FILE, report.0];
        copy_rest(&self.folder, room.path(), &|name| {
            name.starts_with(&prefix) || written.contains(&name)
        })?;
        let folder = room.path().join(TRANSFORMER);
        std::fs::create_dir_all(&folder).at(&folder)?;
        let mut weights = ShardWriter::new(&folder, WEIGHTS);
        for name in self.tensors.names() {
            if !name.starts_with(BLOCKS)
                && let Some(tensor) = OutTensor::stored(&*self.tensors, name)?
            {
                weights.push(tensor)?;
            }
        }
        for index in 0..result.layers {
            for tensor in block(index)? {
                weights.push(tensor)?;
            }
        }
        weights.finish()?;
        let config = self.config_of(result);
        write_json(&folder.join("config.json"), &config)?;
        write_json(&room.path().join(report.0), report.1)?;
        let document = recipe::document(&self.folder, &config, result.recipe)?;
        write_json(&room.path().join(recipe::FILE), &document)?;
        // An empty folder of that name gives way.
        if output.is_dir() {
            std::fs::remove_dir(output).at(output)?;
        }
        Ok(room.keep()?)
    }

    /// The configuration of the result.
    fn config_of(&self, result: &Depth) -> Value {
        let mut config = self.config.clone();
        if let Some(keys) = config.as_object_mut() {
            keys.insert("num_layers".to_owned(), result.layers.into());
            if result.qk_norm && self.model.qk_norm.is_none() {
                let norm = serde_json::to_value(QkNorm::RmsNormAcrossHeads);
                keys.insert("qk_norm".to_owned(), norm.unwrap_or_default());
            }
        }
        config
    }
}

/// What is written.
pub(super) struct Depth<'a> {
    /// Blocks.
    pub layers: usize,
    /// Whether queries and keys are normalised, where they were not.
    pub qk_norm: bool,
    /// What its recipe is made of.
    pub recipe: Option<&'a ImageRecipe>,
}

/// The full name of a block's parameter.
pub(super) fn block_tensor(block: usize, name: &str) -> String {
    format!("{BLOCKS}{block}.{name}")
}
