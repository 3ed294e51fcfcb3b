//! Held-out pictures with questions, which a model takes along so that it can be examined anywhere.

use std::path::Path;

use brisk_media::{Picture, encode_png};
use brisk_pipelines::families::vila_u::exam::{COLUMNS, Exam, Examined, Question};
use brisk_store::write_atomic;

use super::lessons::questions;
use super::scores::QUESTIONS;
use crate::data::emoji::EmojiData;
use crate::error::Result;
use crate::pictures;
use crate::rng::Rng;
use crate::session::write_json;

/// Pictures that are taken along at most.
const MOST: usize = 100;

/// Writes pictures spread over `held_out` into a model's folder; nothing where there are none.
pub(super) fn write(data: &EmojiData, held_out: &[usize], folder: &Path) -> Result<()> {
    let count = held_out.len().min(MOST);
    if count == 0 {
        return Ok(());
    }
    let chosen = (0..count).map(|at| held_out[at * held_out.len() / count]);
    let mut rng = Rng::new(QUESTIONS);
    let (mut exam, mut shown) = (Exam::new(data.size), Vec::with_capacity(count));
    for index in chosen {
        let entry = &data.entries[index];
        let asked = questions(entry, &mut rng).into_iter();
        exam.pictures.push(Examined {
            caption: entry.name.clone(),
            questions: asked
                .map(|one| Question {
                    kind: one.kind().to_owned(),
                    question: one.question,
                    answer: one.answer,
                })
                .collect(),
        });
        shown.push(pictures::original(data, index)?);
    }
    write_json(&folder.join(Exam::FILE), &exam)?;
    let sheet = encode_png(&tiled(&shown, data.size), &[])?;
    Ok(write_atomic(&folder.join(Exam::PICTURES), &sheet)?)
}

/// Pictures side by side, [`COLUMNS`] in a row, without anything between them.
fn tiled(pictures: &[Picture], size: usize) -> Picture {
    let (width, rows) = (COLUMNS * size, pictures.len().div_ceil(COLUMNS));
    let mut pixels = vec![255u8; width * rows * size * 3];
    for (at, picture) in pictures.iter().enumerate() {
        let (left, top) = (at % COLUMNS * size, at / COLUMNS * size);
        for (row, line) in picture.pixels.chunks_exact(size * 3).enumerate() {
            let start = ((top + row) * width + left) * 3;
            pixels[start..start + line.len()].copy_from_slice(line);
        }
    }
    Picture {
        width,
        height: rows * size,
        pixels,
    }
}
