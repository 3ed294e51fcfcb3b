//! What came of a job.

use axum::body::Bytes;
use serde_json::Value;

/// Results.
#[derive(Debug)]
pub enum Outcome {
    /// Pictures.
    Images(Images),
    /// Texts, in the order they were made in.
    Texts(Vec<Written>),
    /// Masks.
    Masks(Masks),
}

/// Masks as the reply shows them.
#[derive(Debug)]
pub struct Masks {
    /// The reply without what is told of the job.
    pub reply: Value,
    /// Bytes that keeping it takes.
    pub bytes: usize,
}

/// Pictures with what is told of them.
#[derive(Debug)]
pub struct Images {
    /// The files, in order.
    pub files: Vec<File>,
    /// What the plan decided, as replies tell it.
    pub told: Value,
    /// Tokens of the prompt that were read, for all pictures.
    pub prompt_tokens: usize,
    /// Cells of the latents, or codes, that were made.
    pub cells: usize,
}

/// One picture's file.
#[derive(Debug)]
pub struct File {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its media type.
    pub media_type: &'static str,
    /// Seed of the picture.
    pub seed: u64,
    /// Whether it was kept on disk, where that was asked for.
    pub saved: Option<bool>,
}

/// One text.
#[derive(Debug, Clone)]
pub struct Written {
    /// It.
    pub text: String,
    /// Its tokens.
    pub tokens: usize,
    /// Forward passes that it took part in.
    pub passes: usize,
    /// Whether it ended by itself, not by its length.
    pub ended: bool,
}

impl Outcome {
    /// Bytes that keeping it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Images(images) => images.files.iter().map(|file| file.bytes.len()).sum(),
            Self::Texts(texts) => texts.iter().map(|text| text.text.len()).sum(),
            Self::Masks(masks) => masks.bytes,
        }
    }
}
