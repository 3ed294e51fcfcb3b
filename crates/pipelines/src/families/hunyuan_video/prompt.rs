//! Prompts as the model was trained with them: within a request to describe a clip, whose answer nobody reads.

use std::ops::Range;

use brisk_store::shown;
use brisk_text::Tokenizer;

use crate::error::{Error, Result};

/// Tokens of a prompt, and of what stands behind it.
pub const LONGEST: usize = 256;
/// Tokens of the beginning of an answer, without the line ends behind it.
const ANSWER: usize = 4;
/// What begins the name of a speaker.
const START_OF_NAME: &str = "<|start_header_id|>";
/// What stands for a picture.
pub const IMAGE: &str = "<image>";
const LINE_ENDS: &str = "\n\n";
/// What ends the name of a speaker.
const END_OF_NAME: &str = "<|end_header_id|>";
/// Speakers of a request about a picture.
const SPEAKERS: usize = 3;

/// What stands before a prompt for clips from text alone. The wording, without spaces between its points, is what the
/// published weights were trained with.
const OF_TEXT: &str = "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: \
1. The main content and theme of the video.\
2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects.\
3. Actions, events, behaviors temporal relationships, physical movement changes of the objects.\
4. background environment, light, style and atmosphere.\
5. camera angles, movements, and transitions used in the video:<|eot_id|>\
<|start_header_id|>user<|end_header_id|>\n\n";
/// The same for clips that begin with a picture.
const OF_PICTURE: &str = "<|start_header_id|>system<|end_header_id|>\n\n<image>\nDescribe the video by detailing the following aspects according to the reference image: \
1. The main content and theme of the video.\
2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects.\
3. Actions, events, behaviors temporal relationships, physical movement changes of the objects.\
4. background environment, light, style and atmosphere.\
5. camera angles, movements, and transitions used in the video:<|eot_id|>\n\n\
<|start_header_id|>user<|end_header_id|>\n\n";
const BEHIND: &str = "<|eot_id|>";
const ANSWERED: &str = "<|start_header_id|>assistant<|end_header_id|>\n\n";

/// The texts around prompts in the pieces that a small tokenizer should know as one token each. The states of prompts
/// depend on it, so that it is the tokenizer's file that holds them.
pub fn pieces() -> Vec<&'static str> {
    let instruction = |text: &'static str, behind: &str| {
        let start = text.find(behind).map_or(0, |at| at + behind.len());
        let end = text.find(BEHIND).unwrap_or(text.len());
        &text[start..end]
    };
    let mut pieces = vec![
        instruction(OF_PICTURE, IMAGE),
        instruction(OF_TEXT, LINE_ENDS),
        START_OF_NAME,
        END_OF_NAME,
        BEHIND,
        IMAGE,
        LINE_ENDS,
    ];
    pieces.extend(["system", "user", "assistant"]);
    pieces
}

/// A prompt's tokens, and which of their states the transformer sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// The token of a picture stands as often as it has rows.
    pub ids: Vec<u32>,
    /// States of the picture.
    pub picture: Range<usize>,
    /// States of the prompt, and of what stands behind it.
    pub words: [Range<usize>; 2],
    /// Whether its end was cut off.
    pub truncated: bool,
}

/// A prompt for a clip from text alone.
///
/// # Errors
/// A text that the tokenizer refuses.
pub fn of_text(tokenizer: &Tokenizer, prompt: &str) -> Result<EncodedPrompt> {
    let before = tokenizer.encode(OF_TEXT)?.len();
    let whole = format!("{OF_TEXT}{prompt}{BEHIND}");
    let (ids, truncated) = tokenizer.encode_truncated(&whole, before + LONGEST)?;
    Ok(EncodedPrompt {
        picture: 0..0,
        words: [before.min(ids.len())..ids.len(), 0..0],
        ids,
        truncated,
    })
}

/// A prompt for a clip that begins with a picture, which `token` stands for and which has so many `rows`.
///
/// # Errors
/// A text that the tokenizer refuses, or a tokenizer of another model.
pub fn of_picture(
    tokenizer: &Tokenizer,
    prompt: &str,
    token: u32,
    rows: usize,
) -> Result<EncodedPrompt> {
    let before = tokenizer.encode(OF_PICTURE)?.len();
    let whole = format!("{OF_PICTURE}{prompt}{BEHIND}{ANSWERED}");
    let (short, truncated) = tokenizer.encode_truncated(&whole, before + LONGEST)?;
    let mut places = (0..short.len()).filter(|place| short[*place] == token);
    let (Some(place), None) = (places.next(), places.next()) else {
        let found = short.iter().filter(|id| **id == token).count();
        return Err(Error::request(
            "prompt",
            format!(
                "{found} tokens {token} for the picture in {}; expected one: the prompt must not name it, and the \
                 tokenizer must know <image>",
                tokenizer.label()
            ),
        ));
    };
    let end = tokenizer.token_id(END_OF_NAME).ok_or_else(|| {
        let label = tokenizer.label();
        Error::folder(
            label,
            format!("the tokenizer does not know {}", shown(END_OF_NAME)),
        )
    })?;
    // Where the answer begins; of a prompt that was cut off, as the reference takes it, at the end.
    let names: Vec<usize> = (0..short.len())
        .filter(|place| short[*place] == end)
        .collect();
    let begins = match names.last() {
        Some(last) if names.len() >= SPEAKERS => last + 1,
        _ => short.len(),
    };
    let stop = begins.saturating_sub(ANSWER).max(before.min(short.len()));
    let mut ids = short;
    ids.splice(place..=place, std::iter::repeat_n(token, rows));
    let moved = |range: Range<usize>| range.start + rows - 1..range.end + rows - 1;
    let length = ids.len() + 1 - rows;
    Ok(EncodedPrompt {
        ids,
        picture: place..place + rows,
        words: [
            moved(before.min(stop)..stop),
            moved(begins.max(stop)..length),
        ],
        truncated,
    })
}
