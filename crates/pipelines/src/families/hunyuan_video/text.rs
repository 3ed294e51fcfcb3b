//! Prompts, and the picture that a clip begins with, to what the transformer is led by.

use brisk_media::Picture;
use brisk_models::clip::ClipText;
use brisk_models::hunyuan_video::transformer::{ImageCondition, VideoConditioning};
use brisk_models::llava::Llava;
use brisk_nn::{Tensor, Trace};
use brisk_text::Tokenizer;

use super::load::Files;
use super::prompt::{EncodedPrompt, of_picture, of_text};
use crate::error::{Error, Result};

/// Last layers of the text encoder that are left out; it has one more at least.
pub const SKIPPED: usize = 2;

/// A prompt with its picture.
pub(super) struct Text<'a> {
    pub prompt: &'a str,
    pub picture: Option<&'a Picture>,
    /// Of how many of the picture's states one is taken.
    pub every: usize,
}

/// Of how many of a picture's states the transformer is shown one.
pub fn every(condition: Option<ImageCondition>) -> usize {
    match condition {
        Some(ImageCondition::TokenReplace) => 4,
        _ => 2,
    }
}

/// The tokens of a prompt as a model reads them.
///
/// # Errors
/// A text that the tokenizer refuses.
pub(super) fn encode(files: &Files, prompt: &str, has_picture: bool) -> Result<EncodedPrompt> {
    match (&files.text.config.vision, has_picture) {
        (Some(vision), true) => of_picture(
            &files.tokenizer,
            prompt,
            vision.image_token,
            vision.tokens(),
        ),
        _ => of_text(&files.tokenizer, prompt),
    }
}

impl Text<'_> {
    /// The rows of picture and words that the transformer sees, `[1,T,D]`.
    ///
    /// # Errors
    /// A text that the tokenizer refuses, or a non-finite activation.
    pub fn rows(&self, files: &Files, model: &Llava) -> Result<Tensor> {
        let encoded = encode(files, self.prompt, self.picture.is_some())?;
        let picture = match (self.picture, &files.text.config.vision) {
            (Some(picture), Some(vision)) => {
                let pixels = files.preparation.run(picture, vision.encoder.image_size)?;
                let rows = model.picture_tokens(&pixels, &mut Trace::none())?;
                Some(rows.squeeze(0)?)
            }
            _ => None,
        };
        text_rows(model, &encoded, picture.as_ref(), self.every)
    }
}

/// The states `[1,T,D]` of a prompt that the transformer sees. `picture` has the rows `[P,D]` of a picture, of which one
/// in `every` is taken.
///
/// # Errors
/// Another number of rows than the prompt has places for, or a non-finite activation.
pub fn text_rows(
    model: &Llava,
    encoded: &EncodedPrompt,
    picture: Option<&Tensor>,
    every: usize,
) -> Result<Tensor> {
    let states = model.states(&encoded.ids, picture, SKIPPED, &mut Trace::none())?;
    let words = encoded.words.iter().flat_map(Clone::clone);
    let places: Vec<u32> = encoded
        .picture
        .clone()
        .step_by(every)
        .chain(words)
        .map(|place| place as u32)
        .collect();
    let count = places.len();
    let rows = states.index_select(&Tensor::from_vec(places, count)?, 0)?;
    Ok(rows.unsqueeze(0)?)
}

/// The prompt as a whole, `[1,D]`.
///
/// # Errors
/// A text that the tokenizer refuses, or a non-finite activation.
pub fn pooled(tokenizer: &Tokenizer, model: &ClipText, prompt: &str) -> Result<Tensor> {
    let most = model.config().max_position_embeddings;
    let (ids, _) = tokenizer.encode_truncated(prompt, most)?;
    if ids.is_empty() {
        return Err(Error::folder(
            tokenizer.label(),
            "the tokenizer puts no tokens around an empty prompt",
        ));
    }
    Ok(model
        .encode(&ids, ids.len(), None, &mut Trace::none())?
        .pooled)
}

/// What a clip is made by.
pub(super) fn conditioning(
    tokens: Tensor,
    pooled: Tensor,
    guidance: Option<f32>,
) -> VideoConditioning {
    VideoConditioning {
        tokens,
        pooled,
        guidance,
    }
}
