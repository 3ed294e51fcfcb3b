//! A word, or a letter of one, as Char-SAM shows it to the recogniser.

use std::ops::Range;

use brisk_media::Picture;
use brisk_media::shape::Place;
use brisk_models::crnn::CrnnConfig;
use brisk_nn::Tensor;
use brisk_pipelines::families::char_sam::{STRIP_ROWS, Strip, reader_pixels};

use super::RecogniserRecipe;
use crate::data::scene_text::{Fonts, SceneText, SceneTextOptions, TrueWord};
use crate::error::{Error, Result};
use crate::rng::Rng;

/// Width and height of scenes; em squares of their letters.
const SCENE: [usize; 2] = [288, 112];
const EM: [f64; 2] = [14.0, 80.0];
/// By how much outlines are off at most, as a share of the word's height.
const OFF: f64 = 0.08;
/// What of a letter's surroundings is seen at most, as a share of its sides.
const SURROUNDINGS: f64 = 0.15;
/// Attempts to find a word.
const TRIES: u64 = 16;

/// A picture of a line with what it says.
pub(super) struct Sample {
    /// As the network takes it, `[1, H, W, 1]`.
    pub pixels: Tensor,
    /// Classes of its characters.
    pub classes: Vec<usize>,
    /// Classes of its columns: a letter's where the middle of the letter is, else 0.
    pub columns: Vec<usize>,
}

/// A picture with what it says.
pub(super) struct Line {
    pub picture: Picture,
    pub text: String,
    /// Left and right ends of the characters, as shares of the picture's width.
    pub extents: Vec<[f64; 2]>,
}

impl Sample {
    /// The training sample of a number.
    pub fn draw(
        recipe: &RecogniserRecipe,
        config: &CrnnConfig,
        fonts: &Fonts,
        index: u64,
    ) -> Result<Self> {
        let line = Line::draw(fonts, recipe.training.seed, index, recipe.letter_share)?;
        let class = |letter: char| {
            let place = config.characters.chars().position(|other| other == letter);
            place.map(|place| place + 1)
        };
        let pixels = reader_pixels(&line.picture, config.image_height)?;
        let mut columns = vec![0; config.columns(pixels.dim(2)?)];
        let scale = config.image_height as f64 / line.picture.height as f64;
        let width = scale * line.picture.width as f64;
        for (letter, extent) in line.text.chars().zip(&line.extents) {
            let middle = middle_columns(extent.map(|end| end * width), columns.len());
            columns[middle].fill(class(letter).unwrap_or(0));
        }
        Ok(Self {
            pixels,
            classes: line.text.chars().filter_map(class).collect(),
            columns,
        })
    }
}

/// The columns over the middle half of a letter from `left` to `right`, in pixels; at least one. Column `t` sees most of
/// pixel 4(t + 1).
fn middle_columns([left, right]: [f64; 2], columns: usize) -> Range<usize> {
    let quarter = 0.25 * (right - left);
    let place = |x: f64| x / 4.0 - 1.0;
    let last = columns.saturating_sub(1);
    let nearest = (place(0.5 * (left + right)).round().max(0.0) as usize).min(last);
    let from = place(left + quarter).ceil().max(0.0) as usize;
    let to = place(right - quarter).floor().max(0.0) as usize + 1;
    from.min(nearest)..to.max(nearest + 1).min(columns.max(1))
}

impl Line {
    /// The word of a number, or one of its letters in so many of all cases.
    pub fn draw(fonts: &Fonts, seed: u64, index: u64, letter_share: f64) -> Result<Self> {
        let rng = &mut Rng::stream(seed ^ 0x7265_6164, index);
        let em = EM[0] * (EM[1] / EM[0]).powf(rng.uniform());
        let options = SceneTextOptions {
            size: SCENE,
            words: [1, 1],
            letters: [1, 12],
            em: [em; 2],
            ..SceneTextOptions::default()
        };
        for again in 0..TRIES {
            let scene = SceneText::draw(&options, fonts, seed, index ^ (again << 48));
            let Some(word) = scene.words.first() else {
                continue;
            };
            let found = match rng.chance(letter_share) {
                true => letter(&scene.picture, word, rng)?,
                false => whole(&scene.picture, word, rng)?,
            };
            if let Some(line) = found {
                return Ok(line);
            }
        }
        Err(Error::Data(
            "no scene with a word could be drawn".to_owned(),
        ))
    }
}

fn whole(picture: &Picture, word: &TrueWord, rng: &mut Rng) -> Result<Option<Line>> {
    let Some(known) = Strip::new(&word.polygon, Some(word.letters.len())) else {
        return Ok(None);
    };
    let most = OFF * STRIP_ROWS * known.scale;
    let mut off = |at: Place| at.map(|at| at + most * (2.0 * rng.uniform() - 1.0));
    let outline: Vec<Place> = word.polygon.iter().map(|at| off(*at)).collect();
    let Some(strip) = Strip::new(&outline, Some(word.letters.len())) else {
        return Ok(None);
    };
    let bounds = strip.bounds();
    let extent = |quad: &[Place]| {
        let places = || quad.iter().filter_map(|at| strip.of_picture(*at));
        let share = |x: f64| ((x - bounds[0]) / (bounds[2] - bounds[0])).clamp(0.0, 1.0);
        let left = places().map(|at| at[0]).fold(f64::INFINITY, f64::min);
        let right = places().map(|at| at[0]).fold(f64::NEG_INFINITY, f64::max);
        [share(left), share(right)]
    };
    Ok(Some(Line {
        picture: strip.draw(picture, bounds, 1.0)?,
        text: word.text.clone(),
        extents: word
            .letters
            .iter()
            .map(|letter| extent(&letter.quad))
            .collect(),
    }))
}

fn letter(picture: &Picture, word: &TrueWord, rng: &mut Rng) -> Result<Option<Line>> {
    let letter = &word.letters[rng.below(word.letters.len())];
    let Some(strip) = Strip::new(&word.polygon, Some(word.letters.len())) else {
        return Ok(None);
    };
    let places: Vec<Place> = letter
        .quad
        .iter()
        .filter_map(|at| strip.of_picture(*at))
        .collect();
    let range = |axis: usize| {
        let values = || places.iter().map(|at| at[axis]);
        [
            values().fold(f64::INFINITY, f64::min),
            values().fold(f64::NEG_INFINITY, f64::max),
        ]
    };
    let ([left, right], [top, bottom]) = (range(0), range(1));
    if !(right - left >= 1.0 && bottom - top >= 1.0) {
        return Ok(None);
    }
    let mut more = |side: f64| SURROUNDINGS * side * rng.uniform();
    let around = [
        left - more(right - left),
        top - more(bottom - top),
        right + more(right - left),
        bottom + more(bottom - top),
    ];
    Ok(Some(Line {
        picture: strip.draw(picture, around, 1.0)?,
        text: letter.class.to_string(),
        extents: vec![[left, right].map(|x| (x - around[0]) / (around[2] - around[0]))],
    }))
}
