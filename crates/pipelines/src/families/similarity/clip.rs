//! CLIP.

use brisk_media::Picture;
use brisk_models::clip::{ClipModel, ClipModelConfig};
use brisk_models::component::LoadSettings;
use brisk_nn::{Tensor, Trace};
use brisk_store::ModelFolder;
use brisk_text::Tokenizer;

use super::Encoders;
use crate::error::{Error, Result};
use crate::folder::{ComponentFolder, Wanted};
use crate::tokenizer;
use crate::vision_preparation::Preparation;

/// How pictures are prepared.
const PREPARATION: &str = "preprocessor_config.json";

/// Both encoders with all that reads for them.
pub(super) struct Clip {
    label: String,
    model: ClipModel,
    tokenizer: Tokenizer,
    preparation: Preparation,
}

impl Clip {
    pub fn open(folder: &ModelFolder, wanted: &Wanted) -> Result<Self> {
        let place = ComponentFolder::new(folder, "");
        let read =
            |bytes: &[u8], label: &str| ClipModelConfig::from_json(bytes, label).map(Box::new);
        let opened = place.open(read, wanted)?;
        let said = tokenizer::settings(&place)?;
        let tokenizer = tokenizer::open(&place, &said, "texts are compared by their tokens")?;
        let rows = opened.config.text.vocab_size;
        tokenizer::check_rows(&tokenizer, rows, place.place())?;
        let preparation = Preparation::of(folder, PREPARATION, opened.config.vision.image_size)?;
        let weights = opened.parameters(&LoadSettings::default())?.build()?;
        Ok(Self {
            model: ClipModel::load(&opened.config, &weights)?,
            label: folder.label(),
            tokenizer,
            preparation,
        })
    }
}

impl Encoders for Clip {
    fn texts(&self, texts: &[&str]) -> Result<Tensor> {
        let most = self.model.config().text.max_position_embeddings;
        let rows = texts.iter().map(|text| {
            let (ids, _) = self.tokenizer.encode_truncated(text, most)?;
            if ids.is_empty() {
                return Err(Error::folder(
                    &self.label,
                    "the tokenizer puts no tokens around an empty text",
                ));
            }
            let trace = &mut Trace::none();
            Ok(self.model.embed_texts(&ids, ids.len(), None, trace)?)
        });
        Ok(Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)?)
    }

    fn pictures(&self, pictures: &[Picture]) -> Result<Tensor> {
        let side = self.model.config().vision.image_size;
        let seen = pictures.iter().map(|one| self.preparation.run(one, side));
        let seen = Tensor::cat(&seen.collect::<Result<Vec<_>>>()?, 0)?;
        Ok(self.model.embed_pictures(&seen, &mut Trace::none())?)
    }
}
