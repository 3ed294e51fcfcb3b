//! Models that say how much a picture and a text have to do with each other: CLIP, and the vision tower of VILA-U with the
//! text encoder that it was aligned with. They draw and write nothing; they judge pictures.
//!
//! ```text
//! text    ──tokenizer──▶ ids ──text encoder──▶ its end ──projection──▶ row of length 1 ┐
//! picture ──preparation──▶ vision encoder ──▶ its whole ──projection──▶ row of length 1 ┴─▶ cosine
//! ```

mod clip;
mod tower;

use brisk_media::Picture;
use brisk_models::registry::of_config;
use brisk_models::{clip as clip_model, vila_u};
use brisk_nn::Tensor;
use brisk_store::ModelFolder;

use crate::error::{Error, Result};
use crate::events::Control;
use crate::folder::{ComponentFolder, Wanted};
use crate::judging::{Judge, Judgement};
use crate::options::{Options, keys};
use crate::registry::{Family, Published};
use crate::request::OpenSettings;

pub use tower::CaptionReader;

/// The family.
pub static FAMILY: Family = Family {
    name: "similarity",
    about: "CLIP and VILA-U's vision tower, which judge pictures",
    recognise: |folder: &ModelFolder, _given: &Options| Kind::of(folder).is_some(),
    supports: &[],
    published: &[
        Published {
            id: "openai/clip-vit-large-patch14",
            model: "CLIP ViT-L/14",
            pixels: 224,
            note: "a judge: `brisk image --best-of 8 --judge openai/clip-vit-large-patch14`",
            discouraged: false,
        },
        Published {
            id: "openai/clip-vit-base-patch32",
            model: "CLIP ViT-B/32",
            pixels: 224,
            note: "a judge, a third of the size",
            discouraged: false,
        },
    ],
    image: None,
    text: None,
    masks: None,
    video: None,
    judge: Some(open),
    class_in_words: |_| None,
    low_bit_layout: None,
    reproductions: &[],
};

/// What a folder holds.
#[derive(Clone, Copy)]
enum Kind {
    Clip,
    Tower,
}

impl Kind {
    fn of(folder: &ModelFolder) -> Option<Self> {
        let place = ComponentFolder::new(folder, "");
        let config = place.has_config().then(|| place.config_json().ok())??;
        let component = of_config(&config)?;
        if std::ptr::eq(component, &clip_model::MODEL) {
            return Some(Self::Clip);
        }
        std::ptr::eq(component, &vila_u::TOWER).then_some(Self::Tower)
    }
}

/// Two encoders whose rows are compared.
trait Encoders: Send {
    /// Texts as rows of length 1, `[B,E]`.
    fn texts(&self, texts: &[&str]) -> Result<Tensor>;

    /// Some pictures as rows of length 1, `[P,E]`.
    fn pictures(&self, pictures: &[Picture]) -> Result<Tensor>;
}

/// Pictures that are encoded at once.
const AT_ONCE: usize = 8;
/// What a cosine is multiplied by, as papers tell CLIP's scores.
const HUNDRED: f64 = 100.0;

/// Scores pictures for texts.
pub struct Scorer {
    label: String,
    encoders: Box<dyn Encoders>,
}

impl Scorer {
    /// Opens a folder of transformers' `CLIPModel` with its tokenizer, or a vision tower of VILA-U with the tokenizer of its
    /// captions, and loads the weights.
    ///
    /// # Errors
    /// Another model; parts that are missing, damaged, or do not belong together.
    pub fn open(folder: &ModelFolder, settings: &OpenSettings) -> Result<Self> {
        let wanted = Wanted {
            variant: settings.options.get(&keys::VARIANT),
            ..Wanted::default()
        };
        let wanted = &wanted.without_low_bit();
        let encoders: Box<dyn Encoders> = match Kind::of(folder) {
            Some(Kind::Clip) => Box::new(clip::Clip::open(folder, wanted)?),
            Some(Kind::Tower) => Box::new(tower::AlignedTower::open(folder, wanted)?),
            None => {
                let message = "there is no config.json of a CLIPModel or of a vision tower of VILA-U, which compare \
                               pictures with texts";
                return Err(Error::folder(folder.label(), message));
            }
        };
        Ok(Self {
            label: folder.label(),
            encoders,
        })
    }

    /// A hundred times the cosine of each picture with each text, `[pictures][texts]`; what is longer than the text
    /// encoder's places is cut off.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, a picture out of limits, a non-finite activation, or a cancellation.
    pub fn scores(
        &self,
        pictures: &[Picture],
        texts: &[&str],
        control: &Control,
    ) -> Result<Vec<Vec<f32>>> {
        if texts.is_empty() {
            return Ok(vec![Vec::new(); pictures.len()]);
        }
        let texts = self.encoders.texts(texts)?.transpose(0, 1)?;
        let mut scores = Vec::with_capacity(pictures.len());
        for some in pictures.chunks(AT_ONCE) {
            control.check()?;
            let cosines = self.encoders.pictures(some)?.matmul(&texts)?;
            scores.extend(cosines.affine(HUNDRED, 0.0)?.to_vec2::<f32>()?);
        }
        Ok(scores)
    }
}

impl Judge for Scorer {
    fn name(&self) -> String {
        self.label.clone()
    }

    fn decides(&self) -> bool {
        false
    }

    fn judge(
        &mut self,
        prompt: &str,
        pictures: &[Picture],
        control: &Control,
    ) -> Result<Vec<Judgement>> {
        let scores = self.scores(pictures, &[prompt], control)?;
        let judgements = scores.into_iter().flatten().map(|score| Judgement {
            yes: true,
            score: f64::from(score),
            said: format!("{score:.2} of 100"),
        });
        Ok(judgements.collect())
    }
}

fn open(
    folder: &ModelFolder,
    settings: &OpenSettings,
    template: Option<String>,
) -> Result<Box<dyn Judge>> {
    if template.is_some() {
        let message = "it compares pictures with the prompt and is asked no question; leave it out";
        return Err(Error::request("judge-template", message));
    }
    Ok(Box::new(Scorer::open(folder, settings)?))
}
