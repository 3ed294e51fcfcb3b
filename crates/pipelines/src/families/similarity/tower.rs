//! VILA-U's vision tower with SigLIP's text encoder: pictures are compared by their codes.

use brisk_media::Picture;
use brisk_models::component::LoadSettings;
use brisk_models::vila_u::TOWER;
use brisk_models::vila_u::tower::{Contrast, Parts, SiglipTextConfig, Tower};
use brisk_nn::{Tensor, Trace};
use brisk_store::{ModelFolder, parse_json};
use brisk_text::Tokenizer;
use serde_json::Value;

use super::Encoders;
use crate::error::{Error, Result};
use crate::families::vila_u::{squeezed, tower_config};
use crate::folder::{ComponentFolder, Wanted};

/// The token that ends a caption, and the one that it is filled up with.
const END: &str = "</s>";
const FILLING: u32 = 0;

/// Makes ids of captions as a tower's text encoder takes them.
pub struct CaptionReader {
    tokenizer: Tokenizer,
    end: u32,
    length: usize,
}

impl CaptionReader {
    /// By a `tokenizer.model` with its `tokenizer_config.json`; every caption has `length` ids.
    ///
    /// # Errors
    /// A file that is no tokenizer.
    pub fn new(file: &[u8], settings: &Value, length: usize, label: &str) -> Result<Self> {
        let tokenizer = Tokenizer::from_sentencepiece(file, settings, &Value::Null, label)?;
        Ok(Self {
            end: tokenizer.token_id(END).unwrap_or(FILLING),
            tokenizer,
            length,
        })
    }

    /// Tokens of the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.vocabulary_size()
    }

    /// Ids of a caption, whatever its case: its end last where it is cut off.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn ids(&self, caption: &str) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer.encode_plain(&caption.to_lowercase())?;
        ids.truncate(self.length.saturating_sub(1));
        ids.push(self.end);
        ids.resize(self.length, FILLING);
        Ok(ids)
    }
}

/// A tower with its text encoder.
pub(super) struct AlignedTower {
    tower: Tower,
    contrast: Contrast,
    reader: CaptionReader,
    /// Pixels of a picture's side.
    side: usize,
}

impl AlignedTower {
    pub fn open(folder: &ModelFolder, wanted: &Wanted) -> Result<Self> {
        let place = ComponentFolder::new(folder, "");
        let config = tower_config(&place)?;
        let mut beside = config.siglip_folders().into_iter();
        let siglip = beside.find(|name| place.exists(&format!("{name}/tokenizer.model")));
        let Some(siglip) = siglip else {
            return Err(Error::folder(
                place.place(),
                "there is no tokenizer.model in the folder of SigLIP's configuration, which the text encoder's captions \
                 are read by; a tower of `brisk train tokenizer` has one",
            ));
        };
        let file = |name: &str| format!("{siglip}/{name}");
        let label = place.label(&file("config.json"));
        let text = SiglipTextConfig::from_json(&place.read(&file("config.json"))?, &label)?;
        let said = file("tokenizer_config.json");
        let said = match place.exists(&said) {
            true => parse_json(&place.read(&said)?, &place.label(&said))?,
            false => Value::Null,
        };
        let model = file("tokenizer.model");
        let length = text.max_position_embeddings;
        let reader = CaptionReader::new(&place.read(&model)?, &said, length, &place.label(&model))?;
        if reader.vocabulary() > text.vocab_size {
            return Err(Error::folder(
                place.place(),
                format!(
                    "the tokenizer has {} pieces, `text_config.vocab_size` is {}; they do not belong together",
                    reader.vocabulary(),
                    text.vocab_size
                ),
            ));
        }
        let opened = place.open_as(&TOWER, wanted)?;
        let weights = opened.parameters(&LoadSettings::default())?.build()?;
        let vision = config.siglip()?;
        let parts = Parts {
            encoder: true,
            decoder: false,
            depth: false,
        };
        Ok(Self {
            side: vision.image_size,
            contrast: Contrast::load(vision, &text, &weights.pp("rqvaesiglip"))?,
            tower: Tower::load(&config, &weights, parts)?,
            reader,
        })
    }
}

impl Encoders for AlignedTower {
    fn texts(&self, texts: &[&str]) -> Result<Tensor> {
        let ids = texts.iter().map(|text| self.reader.ids(text));
        let ids = ids.collect::<Result<Vec<_>>>()?;
        Ok(self.contrast.texts(&ids.concat())?)
    }

    fn pictures(&self, pictures: &[Picture]) -> Result<Tensor> {
        let seen = pictures.iter().map(|one| squeezed(one, self.side));
        let seen = Tensor::cat(&seen.collect::<Result<Vec<_>>>()?, 0)?;
        let vectors = self.tower.vectors(&seen, &mut Trace::none())?;
        let sum = self.tower.quantizer().encode(&vectors)?.sum;
        let (places, width) = sum.dims2()?;
        let each = (pictures.len(), places / pictures.len().max(1), width);
        Ok(self.contrast.pictures(&sum.reshape(each)?)?)
    }
}
