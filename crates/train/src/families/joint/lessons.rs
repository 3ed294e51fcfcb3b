//! What is learned of every picture: its codes, its captions and the questions that it answers.

use brisk_models::vila_u::tower::{Parts, Tower};
use brisk_nn::Trace;
use brisk_pipelines::Control;

use super::TowerFiles;
use crate::captions;
use crate::data::pictures::{PictureData, PictureEntry};
use crate::data::scenes::{Question, scene_of};
use crate::error::Result;
use crate::eval::BATCH;
use crate::pictures;
use crate::recipe::CaptionScores;
use crate::rng::Rng;

/// What may be asked about a picture: of a scene what it is made of, of others their name.
pub(super) fn questions(entry: &PictureEntry, rng: &mut Rng) -> Vec<Question> {
    match scene_of(entry) {
        Some(scene) => scene.questions(rng),
        None => vec![Question {
            question: "what is this?".to_owned(),
            answer: entry.name.clone(),
        }],
    }
}

/// A caption of a picture: of a scene in any wording, of others with or without keywords.
pub(super) fn caption(
    entry: &PictureEntry,
    name_probability: f64,
    scores: &CaptionScores,
    rng: &mut Rng,
) -> String {
    match scene_of(entry) {
        Some(scene) => scene.drawn_caption(rng),
        None => captions::caption(entry, name_probability, scores, rng),
    }
}

/// The codes of pictures, all of a place one after another, picture by picture as `indices` name them.
pub(super) fn codes(
    files: &TowerFiles,
    data: &PictureData,
    indices: &[usize],
    control: &Control,
) -> Result<Vec<Vec<u32>>> {
    let tower: Tower = files.load(Parts {
        encoder: true,
        ..Parts::default()
    })?;
    let mut codes = Vec::with_capacity(indices.len());
    for indices in indices.chunks(BATCH) {
        control.check()?;
        let shown = pictures::batch(data, indices)?;
        let encoded = tower.encode(&shown, &mut Trace::none())?;
        let each = encoded.codes.len() / indices.len();
        codes.extend(encoded.codes.chunks(each).map(<[u32]>::to_vec));
    }
    Ok(codes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pictures::PictureSet;

    #[test]
    fn scenes_are_asked_about_and_others_have_names() {
        let mut entry = PictureEntry {
            name: "red heart".to_owned(),
            tags: Vec::new(),
            captions: Vec::new(),
            hexcode: "2764".to_owned(),
            set: PictureSet::Noto,
            group: String::new(),
            held_out: false,
        };
        let rng = &mut Rng::new(1);
        let asked = questions(&entry, rng);
        assert_eq!((asked.len(), &*asked[0].answer), (1, "red heart"));
        assert_eq!(
            caption(&entry, 1.0, &CaptionScores::default(), rng),
            "red heart"
        );
        entry.set = PictureSet::Scenes;
        let kinds = (0..40).flat_map(|index| {
            entry.hexcode = format!("1-{index}");
            questions(&entry, rng)
        });
        let mut kinds: Vec<&str> = kinds.map(|asked| asked.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(
            kinds,
            ["colour", "number", "object", "position", "presence"]
        );
    }
}
