//! Requests for masks of a picture.

use std::sync::Arc;

use brisk::options::Options;
use brisk::{MaskPrompt, MaskRequest, ResultKind};
use brisk_pipelines::options::word_keys;
use brisk_pipelines::request::{Word, WordFile};
use serde_json::{Map, Value};

use super::Context;
use super::images::{refusal, the_picture};
use crate::error::{ApiError, Result};
use crate::fields::{Endpoint, Given, PictureFile, PictureRoom, room_for};
use crate::served::Served;

/// The value of `words` that has them found.
const AUTO: &str = "auto";

/// The form of masks in a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskFormat {
    /// A picture each, white inside.
    Png,
    /// The corners of their outlines.
    Polygons,
    /// Lengths of runs, as COCO's tools write them.
    Coco,
}

/// What is asked for.
#[derive(Debug)]
pub struct MaskAsk {
    /// Of which model.
    pub model: Arc<Served>,
    /// Width and height of the picture.
    pub size: [usize; 2],
    picture: PictureFile,
    prompts: Vec<MaskPrompt>,
    words: Option<Vec<Word>>,
    options: Options,
    /// Form of the masks.
    pub format: MaskFormat,
    /// Things that are looked for, as far as it is known.
    pub sought: usize,
    /// Bytes of the stage that needs most.
    pub memory: u64,
}

impl MaskAsk {
    pub(super) fn read(
        context: Context<'_>,
        endpoint: Endpoint,
        body: Map<String, Value>,
        files: Vec<Vec<u8>>,
    ) -> Result<Self> {
        let mut given = endpoint.table().read(body)?;
        let model = context
            .models
            .wanted(given.text("model"), ResultKind::Masks)?;
        let mut options = std::mem::take(&mut given.options);
        let (prompts, words) = (boxes(&given)?, words(&given, &mut options)?);
        let picture = the_picture(&mut given, files)?;
        let _room = room_for([&picture], context.release_memory);
        let request = MaskRequest {
            prompts,
            words,
            options,
            ..MaskRequest::new(picture.decode()?)
        };
        let plan = model.plan_masks(&request);
        let plan = plan.map_err(|error| refusal(context, &error))?;
        let memory = context.room_for(&plan.memory)?;
        let words = request.words.as_ref().map_or(0, Vec::len);
        Ok(Self {
            model,
            format: match given.text("mask_format") {
                Some("polygons") => MaskFormat::Polygons,
                Some("coco") => MaskFormat::Coco,
                _ => MaskFormat::Png,
            },
            sought: plan.prompts.len().max(words).max(1),
            memory,
            size: request.size(),
            picture,
            prompts: request.prompts,
            words: request.words,
            options: request.options,
        })
    }

    /// About which picture, and what to find in it; the room is the picture's as long as it is looked at.
    /// `release_memory` hands freed memory back to the system.
    ///
    /// # Errors
    /// A picture that cannot be decoded.
    pub fn request(&self, release_memory: fn()) -> Result<(MaskRequest, PictureRoom)> {
        let room = room_for([&self.picture], release_memory);
        let request = MaskRequest {
            prompts: self.prompts.clone(),
            words: self.words.clone(),
            options: self.options.clone(),
            ..MaskRequest::new(self.picture.decode()?)
        };
        Ok((request, room))
    }
}

fn boxes(given: &Given) -> Result<Vec<MaskPrompt>> {
    match given.own.get("boxes") {
        None => Ok(Vec::new()),
        Some(list @ Value::Array(_)) => MaskPrompt::read_all(&list.to_string(), "boxes")
            .map_err(|error| ApiError::bad("invalid_value", "boxes", error.to_string())),
        Some(_) => Err(ApiError::invalid("boxes", "expected a list")),
    }
}

/// The words that are given; those that are to be found are asked for by the option.
fn words(given: &Given, options: &mut Options) -> Result<Option<Vec<Word>>> {
    match given.own.get("words") {
        None => Ok(None),
        Some(Value::String(text)) if text == AUTO => {
            options.set(&word_keys::WORDS, AUTO.into());
            Ok(None)
        }
        Some(list @ Value::Array(_)) => match WordFile::read(&list.to_string(), "words") {
            Ok(WordFile::One(words)) => Ok(Some(words)),
            Ok(WordFile::Many(_)) => {
                Err(ApiError::invalid("words", "expected those of one picture"))
            }
            Err(error) => Err(ApiError::bad("invalid_value", "words", error.to_string())),
        },
        Some(_) => Err(ApiError::invalid("words", "expected a list, or auto")),
    }
}
