//! How well words and their letters are found.

use brisk_media::shape::Place;
use brisk_models::craft::CraftConfig;
use brisk_nn::Weights;
use brisk_pipelines::Control;
use brisk_pipelines::families::char_sam::{Detector, RegionMap, TextBox, boxes, text_boxes};
use serde::Serialize;

use crate::data::scene_text::{Fonts, SceneText, SceneTextOptions};
use crate::error::Result;
use crate::tensors::{self, NamedArray};

/// Seed of the scenes that are never trained on.
const HELD_OUT: u64 = 0x6465_7420_6f75_7421;
/// Intersection over union from which on a box is a word's.
const SAME: f64 = 0.5;

/// What is reported of a detector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct DetectorScores {
    /// Share of the words that a box lies over.
    pub words_found: f64,
    /// Share of the boxes that lie over a word.
    pub boxes_right: f64,
    /// Share of the words for which as many letters are found as they have.
    pub letters_counted: f64,
}

/// The network of arrays, rounded as they are stored where that is asked.
pub(super) fn frozen(
    config: &CraftConfig,
    arrays: &[NamedArray],
    rounded: bool,
) -> Result<Detector> {
    let weights = Weights::from_source(tensors::memory_source(arrays, "", rounded)?);
    Ok(Detector::load(config, &weights)?)
}

/// Scores on `count` held-out scenes.
///
/// # Errors
/// What the network reports; a cancellation.
pub(super) fn scores(
    detector: &Detector,
    fonts: &Fonts,
    count: usize,
    control: &Control,
) -> Result<DetectorScores> {
    let (mut words, mut seen, mut found, mut right, mut counted) = (0, 0, 0, 0, 0);
    let options = SceneTextOptions::default();
    for index in 0..count as u64 {
        control.check()?;
        let scene = SceneText::draw(&options, fonts, HELD_OUT, index);
        let map = detector.look(&scene.picture)?;
        let boxes = text_boxes(&map, &TextBox::default());
        let boxes: Vec<[f64; 4]> = boxes.iter().map(|corners| bounds(corners)).collect();
        let truth: Vec<[f64; 4]> = scene
            .words
            .iter()
            .map(|word| bounds(&word.polygon))
            .collect();
        let covered = |one: &[f64; 4], others: &[[f64; 4]]| {
            others.iter().any(|other| overlap(*one, *other) >= SAME)
        };
        words += truth.len();
        seen += truth.iter().filter(|word| covered(word, &boxes)).count();
        found += boxes.len();
        right += boxes.iter().filter(|one| covered(one, &truth)).count();
        let letters = letters(&map);
        for (word, bounds) in scene.words.iter().zip(&truth) {
            let inside = letters.iter().filter(|[x, y]| {
                (bounds[0]..bounds[2]).contains(x) && (bounds[1]..bounds[3]).contains(y)
            });
            counted += usize::from(inside.count() == word.letters.len());
        }
    }
    let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
    Ok(DetectorScores {
        words_found: share(seen, words),
        boxes_right: share(right, found),
        letters_counted: share(counted, words),
    })
}

/// Middles of the letters of a map, in pixels of the picture.
fn letters(map: &RegionMap) -> Vec<Place> {
    let found = boxes::from_region(&map.region, map.size, map.scale);
    let middle =
        |[left, top, right, bottom]: [f64; 4]| [(left + right) / 2.0, (top + bottom) / 2.0];
    found.into_iter().map(middle).collect()
}

/// Left, top, right and bottom of places.
fn bounds(places: &[Place]) -> [f64; 4] {
    let start = [
        f64::INFINITY,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NEG_INFINITY,
    ];
    places.iter().fold(start, |[l, t, r, b], [x, y]| {
        [l.min(*x), t.min(*y), r.max(*x), b.max(*y)]
    })
}

fn overlap(a: [f64; 4], b: [f64; 4]) -> f64 {
    let side = |axis: usize| (a[axis + 2].min(b[axis + 2]) - a[axis].max(b[axis])).max(0.0);
    let area = |[l, t, r, b]: [f64; 4]| (r - l) * (b - t);
    let common = side(0) * side(1);
    common / (area(a) + area(b) - common).max(1e-9)
}
