//! Captions as the text encoders read them, and the tokenizers that make them so.

use brisk_models::clip::ClipText;
use brisk_models::hunyuan_video::transformer::{ImageCondition, VideoConditioning};
use brisk_models::llava::{Llava, LlavaConfig};
use brisk_nn::{Tensor, Trace};
use brisk_pipelines::families::hunyuan_video::prompt::{
    self, EncodedPrompt, IMAGE, of_picture, of_text,
};
use brisk_pipelines::families::hunyuan_video::text::{every, text_rows};
use brisk_text::{Tokenizer, train_bpe, with_pieces};

use crate::data::motion::Motion;
use crate::data::scenes::{Colour, all_objects, with_article};
use crate::error::{Error, Result};

/// What ends a text of the CLIP tokenizer.
const END: &str = "<eos>";

/// Both tokenizers, with their files.
pub(crate) struct Tokenizers {
    pub text: Tokenizer,
    pub pooled: Tokenizer,
    /// What stands for a picture.
    pub image: u32,
    /// What ends a text of the second.
    pub end: u32,
    pub files: [Vec<u8>; 2],
}

impl Tokenizers {
    /// Trained on all captions of clips of motion, with this many tokens at most beside those of the texts around them.
    pub fn train(vocabulary: usize) -> Result<Self> {
        let file = train_bpe(&captions(), vocabulary)?;
        let pieces = prompt::pieces();
        Self::from_files([
            with_pieces(&file, &pieces, false)?,
            with_pieces(&file, &[], true)?,
        ])
    }

    /// From two `tokenizer.json`.
    ///
    /// # Errors
    /// Damaged files, or tokens that are missing.
    pub fn from_files(files: [Vec<u8>; 2]) -> Result<Self> {
        let text = Tokenizer::from_bytes(&files[0], "the model's tokenizer")?;
        let pooled = Tokenizer::from_bytes(&files[1], "the model's second tokenizer")?;
        let id = |tokenizer: &Tokenizer, token: &str| {
            tokenizer
                .token_id(token)
                .ok_or_else(|| Error::Data(format!("{} does not know {token}", tokenizer.label())))
        };
        Ok(Self {
            image: id(&text, IMAGE)?,
            end: id(&pooled, END)?,
            text,
            pooled,
            files,
        })
    }

    /// A prompt as both encoders read it.
    pub fn encode(&self, text: &str, readers: &Readers) -> Result<Prompt> {
        let whole = match readers.picture {
            Some((token, rows)) => of_picture(&self.text, text, token, rows)?,
            None => of_text(&self.text, text)?,
        };
        let (ids, _) = self.pooled.encode_truncated(text, readers.longest)?;
        Ok(Prompt { whole, ids })
    }
}

/// What the text encoders take.
pub(crate) struct Readers {
    /// The token of a picture and the rows that it has, where the transformer is shown one.
    pub picture: Option<(u32, usize)>,
    /// Tokens of the second at most.
    pub longest: usize,
}

impl Readers {
    pub fn new(text: &LlavaConfig, is_shown: bool, longest: usize) -> Self {
        let vision = text.vision.as_ref().filter(|_| is_shown);
        Self {
            picture: vision.map(|vision| (vision.image_token, vision.tokens())),
            longest,
        }
    }
}

/// Pixels of the side of the picture that the text encoder sees, where the transformer is shown one.
pub(crate) fn vision_side(text: &LlavaConfig, is_shown: bool) -> Option<usize> {
    let vision = text.vision.as_ref().filter(|_| is_shown);
    vision.map(|vision| vision.encoder.image_size)
}

/// A tokenised prompt.
#[derive(Debug, Clone)]
pub(crate) struct Prompt {
    whole: EncodedPrompt,
    /// For the encoder of the text as a whole.
    ids: Vec<u32>,
}

/// What a transformer is led by of a prompt and the picture that the text encoder sees, `[1,N,N,3]`, if any.
pub(crate) fn conditioning(
    text: &Llava,
    pooled: &ClipText,
    prompt: &Prompt,
    pixels: Option<&Tensor>,
) -> Result<VideoConditioning> {
    let picture = match pixels {
        Some(pixels) => Some(
            text.picture_tokens(pixels, &mut Trace::none())?
                .squeeze(0)?,
        ),
        None => None,
    };
    let every = every(Some(ImageCondition::LatentConcat));
    Ok(VideoConditioning {
        tokens: text_rows(text, &prompt.whole, picture.as_ref(), every)?,
        pooled: pooled
            .encode(&prompt.ids, prompt.ids.len(), None, &mut Trace::none())?
            .pooled,
        guidance: None,
    })
}

/// Every caption that a clip of motion can have.
fn captions() -> Vec<String> {
    let mut lines = Vec::new();
    for object in all_objects() {
        let colours = Colour::ALL.iter().map(|colour| {
            let coloured = format!("{} {}", colour.word(), object.word);
            with_article(&coloured)
        });
        for what in colours.chain([object.with_article()]) {
            let endings = Motion::endings().into_iter();
            lines.extend(endings.map(|does| format!("{what} {does}")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_around_prompts_are_a_few_tokens() {
        let tokenizers = Tokenizers::train(512).unwrap();
        let readers = Readers {
            picture: Some((tokenizers.image, 16)),
            longest: 24,
        };
        let prompt = tokenizers.encode("a red cat jumps", &readers).unwrap();
        assert!(
            prompt.whole.ids.len() < 16 + 32,
            "{}",
            prompt.whole.ids.len()
        );
        assert_eq!(prompt.whole.picture.len(), 16);
        // Of the prompt itself: a word a token.
        assert_eq!(prompt.whole.words[0].len(), 4, "{prompt:?}");
        assert_eq!(prompt.ids.len(), 6);
        assert_eq!(prompt.ids.last(), Some(&tokenizers.end));
        let readers = Readers {
            picture: None,
            ..readers
        };
        let alone = tokenizers.encode("a red cat jumps", &readers).unwrap();
        assert!(alone.whole.picture.is_empty());
        assert!(alone.whole.words[0].len() >= 4);
    }
}
