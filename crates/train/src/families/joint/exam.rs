//! Held-out pictures with questions, which a model takes along so that it can be examined anywhere.

use std::path::Path;

use brisk_media::{Picture, encode_png, tiled};
use brisk_pipelines::families::vila_u::exam::{COLUMNS, Exam, Examined, Question};
use brisk_store::write_atomic;

use super::lessons::questions;
use super::scores::QUESTIONS;
use crate::data::pictures::PictureData;
use crate::error::Result;
use crate::eval::spread_over;
use crate::pictures;
use crate::rng::Rng;
use crate::session::write_json;

/// Pictures that are taken along at most.
const MOST: usize = 100;

/// Writes pictures spread over `held_out` into a model's folder; nothing where there are none.
pub(super) fn write(data: &PictureData, held_out: &[usize], folder: &Path) -> Result<()> {
    let chosen = spread_over(held_out, MOST);
    if chosen.is_empty() {
        return Ok(());
    }
    let mut rng = Rng::new(QUESTIONS);
    let side = data.required_side()?;
    let (mut exam, mut shown) = (Exam::new(side), Vec::with_capacity(chosen.len()));
    for index in chosen {
        let entry = &data.entries()[index];
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
    let shown: Vec<&Picture> = shown.iter().collect();
    let sheet = tiled(&shown, side, COLUMNS, [255; 3])?;
    Ok(write_atomic(
        &folder.join(Exam::PICTURES),
        &encode_png(&sheet, &[])?,
    )?)
}
