//! Held-out pictures with questions about them, which small models bring along so that they can be examined
//! anywhere: `held_out.json` says what they show, `held_out.png` has them side by side.

use brisk_media::{Picture, decode_picture, tile};
use brisk_store::ModelFolder;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Pictures of a row of the file.
pub const COLUMNS: usize = 10;
/// Pixels of a side at most.
const LARGEST: usize = 1 << 12;

/// What the pictures show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exam {
    /// Pixels of a picture's side.
    pub size: usize,
    /// The pictures, row by row of the file, [`COLUMNS`] in each.
    pub pictures: Vec<Examined>,
}

/// One picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Examined {
    /// What it shows.
    pub caption: String,
    /// What is asked about it.
    pub questions: Vec<Question>,
}

/// A question with its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What it asks after; questions of one kind have the same answers to choose from.
    pub kind: String,
    /// The question.
    pub question: String,
    /// The right answer.
    pub answer: String,
}

impl Exam {
    /// The file that says what the pictures show.
    pub const FILE: &'static str = "held_out.json";
    /// The file of the pictures.
    pub const PICTURES: &'static str = "held_out.png";

    /// Of pictures of `size` pixels, none yet.
    pub fn new(size: usize) -> Self {
        Self {
            size,
            pictures: Vec::new(),
        }
    }

    /// What a model's folder brings along, with the pictures.
    ///
    /// # Errors
    /// It brings nothing, or files that contradict each other.
    pub fn read(folder: &ModelFolder) -> Result<(Self, Vec<Picture>)> {
        let label = |file: &str| format!("{}/{file}", folder.label());
        if !folder.exists(Self::FILE) || !folder.exists(Self::PICTURES) {
            let message = format!(
                "there is no {} with {}, held-out pictures to be asked about; models of `brisk train image` have them",
                Self::FILE,
                Self::PICTURES
            );
            return Err(Error::folder(folder.label(), message));
        }
        let exam: Self = serde_json::from_value(folder.read_json(Self::FILE)?)
            .map_err(|error| Error::config(label(Self::FILE), error.to_string()))?;
        let sheet = decode_picture(&folder.read(Self::PICTURES)?, &label(Self::PICTURES))?;
        let (size, count) = (exam.size, exam.pictures.len());
        let fits = (1..=LARGEST).contains(&size)
            && sheet.width == COLUMNS * size
            && sheet.height % size == 0
            && sheet.height / size == count.div_ceil(COLUMNS);
        if !fits || count == 0 {
            let message = format!(
                "it has {}×{} pixels; expected {count} pictures of {size}, {COLUMNS} in a row, as {} says",
                sheet.width,
                sheet.height,
                Self::FILE
            );
            return Err(Error::config(label(Self::PICTURES), message));
        }
        let pictures = (0..count).map(|at| Ok(tile(&sheet, size, COLUMNS, at)?));
        let pictures = pictures.collect::<Result<_>>()?;
        Ok((exam, pictures))
    }
}
