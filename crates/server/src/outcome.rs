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
    /// A clip.
    Clip(Clip),
}

/// A form of a clip's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipFormat {
    /// GIF: 256 colours a frame.
    Gif,
    /// Animated PNG: all colours, and how it was made.
    AnimatedPng,
}

impl ClipFormat {
    /// All of them, in the order of a clip's files.
    pub const ALL: [Self; 2] = [Self::Gif, Self::AnimatedPng];

    /// As requests name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gif => "gif",
            Self::AnimatedPng => "apng",
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Gif => "image/gif",
            Self::AnimatedPng => "image/apng",
        }
    }
}

/// A clip with what is told of it.
#[derive(Debug)]
pub struct Clip {
    /// A file of each form, in the order of [`ClipFormat::ALL`].
    pub files: Vec<File>,
    /// What the plan decided and the run took, as replies tell it.
    pub told: Value,
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

/// The file of a picture or clip.
#[derive(Debug)]
pub struct File {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its media type.
    pub media_type: &'static str,
    /// Seed of what it shows.
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
            Self::Images(_) | Self::Clip(_) => {
                self.files().iter().map(|file| file.bytes.len()).sum()
            }
            Self::Texts(texts) => texts.iter().map(|text| text.text.len()).sum(),
            Self::Masks(masks) => masks.bytes,
        }
    }

    /// Its files; none of what is told in a reply alone.
    pub fn files(&self) -> &[File] {
        match self {
            Self::Images(images) => &images.files,
            Self::Clip(clip) => &clip.files,
            Self::Texts(_) | Self::Masks(_) => &[],
        }
    }
}
