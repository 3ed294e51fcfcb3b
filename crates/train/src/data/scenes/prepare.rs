//! Scenes as a data set on disk.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use brisk_media::contact_sheet;
use brisk_pipelines::Control;
use brisk_pipelines::events::{StepClock, Work};
use brisk_store::write_atomic;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;

use super::drawings::{Drawings, Rendered};
use super::scene::{Kind, Scene};
use super::split::Split;
use super::words::OBJECTS;
use crate::data::DataError;
use crate::data::pictures::{PictureData, PictureEntry, PictureSet};
use crate::error::Result;
use crate::rng::Rng;

/// The most scenes of one data set: it is held in memory.
const MOST: usize = 200_000;
/// One scene in this many shows a held-out combination.
const HELD_OUT_EVERY: usize = 20;
/// Scenes of the sheet.
const SHEET: usize = 48;
/// Group of such pictures.
const GROUP: &str = "scenes";

/// What to draw and where to write.
#[derive(Debug, Clone)]
pub struct SceneOptions {
    /// Scenes, 1 to 200,000; one in twenty is held out.
    pub count: usize,
    /// Seed of the lot.
    pub seed: u64,
    /// Width and height in pixels, 8 to 1024.
    pub size: usize,
    /// The safetensors file to write; beside it the truth (`.truth.jsonl`) and a sheet (`.png`).
    pub out: PathBuf,
}

/// What [`prepare_scenes`] made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SceneReport {
    /// Pictures in the file.
    pub pictures: usize,
    /// How many of them are held out.
    pub held_out: usize,
    /// The file with a line of truth a picture.
    pub truth: PathBuf,
    /// The sheet with some of them.
    pub sheet: PathBuf,
}

/// Draws scenes with captions, of the packages in `npm` ([`Drawings::open`]), and writes them as a data set to train on, beside it what each shows: a JSON
/// document a line, in the order of the pictures.
///
/// # Errors
/// Packages that are not what they should be, counts and sizes out of range, a file that cannot be written, or
/// a cancellation; then nothing is written.
pub fn prepare_scenes(
    npm: &Path,
    options: &SceneOptions,
    control: &Control,
) -> Result<SceneReport> {
    if !(1..=MOST).contains(&options.count) {
        let reason = format!(
            "{} scenes were asked for; expected 1 to {MOST}",
            options.count
        );
        return Err(bad(&options.out, reason).into());
    }
    let drawings = Drawings::open(npm)?;
    let mut data = PictureData::new();
    let mut truth = String::new();
    let mut cells = Vec::new();
    control.stage("scenes", Work::Run, options.count);
    let mut clock = StepClock::new(options.count);
    let indices: Vec<usize> = (0..options.count).collect();
    for chunk in indices.chunks(256) {
        control.check()?;
        let drawn: Vec<_> = chunk
            .par_iter()
            .map(|index| {
                let (scene, split) = scene_at(options.seed, *index);
                Ok((drawings.render(&scene, options.size)?, scene, split))
            })
            .collect();
        for (index, drawn) in chunk.iter().zip(drawn) {
            let (rendered, scene, split): (Rendered, Scene, Split) =
                drawn.map_err(|e: DataError| e)?;
            let rng = &mut caption_rng(options.seed, *index);
            let caption = scene.drawn_caption(rng);
            let line = line_of_truth(&scene, &rendered, &caption, (options.seed, *index), rng);
            writeln!(truth, "{line}").map_err(|e| bad(&options.out, e.to_string()))?;
            let entry = PictureEntry {
                captions: Vec::new(),
                name: caption.clone(),
                tags: Vec::new(),
                hexcode: format!("{:x}-{index}", options.seed),
                set: PictureSet::Scenes,
                group: GROUP.to_owned(),
                held_out: split == Split::HeldOut,
            };
            data.push(entry, &rendered.picture);
            if cells.len() < SHEET {
                cells.push((rendered.picture, caption));
            }
        }
        clock.steps(chunk.len(), control);
    }
    let truth_path = options.out.with_extension("truth.jsonl");
    let sheet_path = options.out.with_extension("png");
    let sheet = contact_sheet(&cells, 8)?;
    let report = data.write(0, &options.out)?;
    write_atomic(&truth_path, truth.as_bytes())?;
    write_atomic(&sheet_path, &brisk_media::encode_png(&sheet, &[])?)?;
    Ok(SceneReport {
        pictures: report.pictures,
        held_out: report.held_out,
        truth: truth_path,
        sheet: sheet_path,
    })
}

/// The scene of an index, and its part: kinds take turns, and so do the parts.
fn scene_at(seed: u64, index: usize) -> (Scene, Split) {
    let split = match index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 {
        true => Split::HeldOut,
        false => Split::Training,
    };
    // Kinds by lot, not by turn, so that no kind keeps step with the held-out ones.
    let kinds = &Kind::ALL[usize::from(split == Split::HeldOut)..];
    let kind = kinds[Rng::stream(seed ^ 0x6b69_6e64, index as u64).below(kinds.len())];
    (Scene::draw(seed, index as u64, Some(kind), split), split)
}

/// The scene that an entry of a data set of [`prepare_scenes`] shows; none of others.
pub fn scene_of(entry: &PictureEntry) -> Option<Scene> {
    if entry.set != PictureSet::Scenes {
        return None;
    }
    let (seed, index) = entry.hexcode.split_once('-')?;
    let seed = u64::from_str_radix(seed, 16).ok()?;
    Some(scene_at(seed, index.parse().ok()?).0)
}

fn caption_rng(seed: u64, index: usize) -> Rng {
    Rng::stream(seed ^ 0x776f_7264, index as u64)
}

/// What a picture shows.
fn line_of_truth(
    scene: &Scene,
    rendered: &Rendered,
    caption: &str,
    (seed, index): (u64, usize),
    rng: &mut Rng,
) -> serde_json::Value {
    let items: Vec<_> = scene
        .items
        .iter()
        .enumerate()
        .map(|(at, item)| {
            let word = OBJECTS[item.object].word;
            json!({
                "object": word, "set": item.set, "colour": item.colour, "rotation": item.rotation,
                "box": rendered.seen(at), "mask": runs(&rendered.masks[at]),
            })
        })
        .collect();
    json!({
        "caption": caption, "plain_caption": scene.caption(0), "kind": scene.kind, "seed": seed,
        "index": index, "place": scene.place, "relation": scene.relation, "items": items,
        "questions": scene.questions(rng),
    })
}

/// Lengths of runs, row by row, that begins with what is not in the mask.
fn runs(mask: &[bool]) -> Vec<usize> {
    let mut runs = vec![0];
    let mut current = false;
    for inside in mask {
        if *inside != current {
            runs.push(0);
            current = *inside;
        }
        if let Some(last) = runs.last_mut() {
            *last += 1;
        }
    }
    runs
}

fn bad(path: &Path, reason: String) -> DataError {
    DataError::Data {
        path: path.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_lead_back_to_their_scenes() {
        let mut entry = PictureEntry {
            name: String::new(),
            tags: Vec::new(),
            captions: Vec::new(),
            hexcode: "1f-219".to_owned(),
            set: PictureSet::Scenes,
            group: GROUP.to_owned(),
            held_out: true,
        };
        assert_eq!(scene_of(&entry), Some(scene_at(0x1f, 219).0));
        entry.hexcode = "1f600".to_owned();
        assert_eq!(scene_of(&entry), None);
        entry.hexcode = "1-2".to_owned();
        entry.set = PictureSet::Noto;
        assert_eq!(scene_of(&entry), None);
    }

    #[test]
    fn masks_are_runs() {
        assert_eq!(runs(&[false, false, true, true, true, false]), [2, 3, 1]);
        assert_eq!(runs(&[true, false]), [0, 1, 1]);
        assert_eq!(runs(&[]), [0]);
    }

    #[test]
    fn one_scene_in_twenty_is_held_out() {
        let held_out = (0..200).filter(|i| scene_at(1, *i).1 == Split::HeldOut);
        assert_eq!(held_out.count(), 10);
        assert!((0..400).all(|i| scene_at(1, i).0.kind != Kind::Single || i % 20 != 19));
    }
}
