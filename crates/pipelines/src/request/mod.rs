//! Requests, plans and results, by kind of result.

mod embedding;
mod image;
mod mask;
mod mask_prompt;
mod open;
mod previews;
mod text;
mod video;
mod words;

pub use embedding::{EmbeddingOrigin, PictureEmbedding};
pub(crate) use image::check_length;
pub use image::{
    GeneratedImage, ImageModel, ImagePlan, ImageRequest, MAX_PROMPT_BYTES, PREVIEWS, PlannedImage,
};
pub use mask::{GeneratedMask, GeneratedMasks, MaskModel, MaskPlan, MaskRequest};
pub use mask_prompt::{MOST_PROMPTS, MaskPrompt};
pub use open::{OpenSettings, RandomWeights, Resolve, ResolveFile};
pub(crate) use previews::preview_steps;
pub use text::{
    Canvas, FinishReason, GeneratedText, SequenceId, TextModel, TextPlan, TextPrompt, TextRequest,
    TextSession,
};

pub use video::{FirstFrame, FramePlace, GeneratedClip, VideoModel, VideoPlan, VideoRequest};
pub use words::{FoundCharacter, FoundWord, MOST_WORDS, Word, WordCharacter, WordFile};

use std::any::Any;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The entries of a document, without those that are null: effective values of a plan.
pub(crate) fn entries(document: Value) -> Map<String, Value> {
    match document {
        Value::Object(mut entries) => {
            entries.retain(|_, value| !value.is_null());
            entries
        }
        _ => Map::new(),
    }
}

/// What a model gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultKind {
    /// Pictures.
    Pictures,
    /// Text.
    Text,
    /// Masks of pictures.
    Masks,
    /// Clips.
    Clips,
}

impl ResultKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Pictures, Self::Text, Self::Masks, Self::Clips];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pictures => "pictures",
            Self::Text => "text",
            Self::Masks => "masks",
            Self::Clips => "clips",
        }
    }
}

/// Estimated peak memory of one stage of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageMemory {
    /// Name of the stage.
    pub stage: &'static str,
    /// Bytes, weights that are not loaded yet included.
    pub needed: u64,
}

/// Bytes of a model's weights, as they are kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WeightBytes {
    /// Of the networks that are loaded.
    pub loaded: u64,
    /// Of all of them.
    pub all: u64,
}

impl WeightBytes {
    /// Of networks of so many bytes, of which some are loaded.
    pub(crate) fn of(networks: &[(u64, bool)]) -> Self {
        let sum = |loaded: bool| {
            let counted = networks
                .iter()
                .filter(|(_, is_loaded)| *is_loaded || !loaded);
            counted.fold(0u64, |sum, (bytes, _)| sum.saturating_add(*bytes))
        };
        Self {
            loaded: sum(true),
            all: sum(false),
        }
    }
}

/// What a stage computes and moves.
#[derive(Debug, Clone, PartialEq)]
pub struct StageCost {
    /// Its name is the stage's.
    pub cost: brisk_models::Cost,
    /// Bytes that one weight takes in memory.
    pub weight_bytes: f64,
}

impl StageCost {
    /// Bytes that are read and written at least; activations are f32.
    pub fn bytes(&self) -> u64 {
        (self.cost.parameters as f64 * self.weight_bytes) as u64 + 4 * self.cost.activations
    }
}

/// What only the model that made a plan understands of it.
pub(crate) struct Decisions(Box<dyn Any + Send + Sync>);

impl Decisions {
    pub(crate) fn new<T: Any + Send + Sync>(decisions: T) -> Self {
        Self(Box::new(decisions))
    }

    /// The decisions of a plan that `model` made.
    pub(crate) fn of<T: Any>(&self, model: &str) -> Result<&T> {
        self.0.downcast_ref().ok_or_else(|| Error::ForeignPlan {
            model: model.to_owned(),
        })
    }
}

impl std::fmt::Debug for Decisions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Decisions")
    }
}
