//! Requests, plans and results, by kind of result.

mod image;
mod open;
mod text;

pub(crate) use image::check_length;
pub use image::{
    GeneratedImage, ImageModel, ImagePlan, ImageRequest, MAX_PROMPT_BYTES, PlannedImage,
};
pub use open::{OpenSettings, RandomWeights, Resolve, ResolveFile};
pub use text::{FinishReason, GeneratedText, TextModel, TextPlan, TextPrompt, TextRequest};

use std::any::Any;

use crate::error::{Error, Result};

/// What a model gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultKind {
    /// Pictures.
    Pictures,
    /// Text.
    Text,
}

impl ResultKind {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pictures => "pictures",
            Self::Text => "text",
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

/// What a stage computes and moves.
#[derive(Debug, Clone, PartialEq)]
pub struct StageCost {
    /// Its name is the stage's.
    pub cost: brisk_models::Cost,
    /// Bytes that one weight takes in memory.
    pub weight_bytes: f64,
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
