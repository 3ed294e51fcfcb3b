//! A model to start from.

use std::sync::Arc;

use brisk_models::component::ComponentConfig;
use brisk_models::gemma2::Gemma2Config;
use brisk_models::sana::SanaConfig;
use brisk_pipelines::folder::{ComponentFolder, Opened, Wanted};
use brisk_store::{MappedSource, ModelFolder, Slice, TensorSource};

use super::{TEXT_ENCODER, TRANSFORMER};
use crate::error::{Error, Result};

/// What a run takes from another model: parameters by the names they have in training.
pub struct Start {
    pub(crate) text: Arc<dyn TensorSource>,
    pub(crate) transformer: Arc<dyn TensorSource>,
    /// Its `tokenizer.json`: the table of the text encoder is of its tokens.
    pub(crate) tokenizer: Vec<u8>,
}

impl Start {
    /// Opens a model's folder, its weights of this variant where there is one.
    ///
    /// # Errors
    /// Parts that are missing, damaged or of another network.
    pub fn open(folder: &ModelFolder, variant: Option<&str>) -> Result<Start> {
        let wanted = Wanted {
            variant: variant.map(str::to_owned),
            ..Wanted::default()
        };
        let place = |part| ComponentFolder::new(folder, part);
        let text = place(TEXT_ENCODER).open(
            |bytes, label| Gemma2Config::from_json(bytes, label).map(Box::new),
            &wanted,
        )?;
        let transformer = place(TRANSFORMER).open(
            |bytes, label| SanaConfig::from_json(bytes, label).map(Box::new),
            &wanted,
        )?;
        Ok(Start {
            text: below(TEXT_ENCODER, &text)?,
            transformer: below(TRANSFORMER, &transformer)?,
            tokenizer: place("tokenizer").read("tokenizer.json")?,
        })
    }

    /// Everything that is taken.
    pub(crate) fn sources(&self) -> [Arc<dyn TensorSource>; 2] {
        [&self.text, &self.transformer].map(Arc::clone)
    }
}

/// A part's tensors under the names that they have in training, which begin with the part's.
pub(crate) fn below<C: ComponentConfig + ?Sized>(
    part: &str,
    opened: &Opened<C>,
) -> Result<Arc<dyn TensorSource>> {
    let Some(source) = opened.stored() else {
        return Err(Error::Data(format!(
            "the {part} to start from has no weights"
        )));
    };
    let names = source.names().into_iter();
    let map = names.map(|name| (format!("{part}.{name}"), Slice::whole(name)));
    Ok(Arc::new(MappedSource::new(source.clone(), map.collect())?))
}
