//! How well the characters of words are found in scenes whose every pixel is known: the measures of text segmentation,
//! for several settings on the same scenes.

use brisk_media::Picture;
use brisk_pipelines::events::{StepClock, Work};
use brisk_pipelines::options::Options;
use brisk_pipelines::request::{GeneratedMasks, MaskModel, MaskRequest, Word, WordCharacter};
use brisk_pipelines::{Control, reproduce::MaskFigures};
use serde::Serialize;

use super::masks::{MaskCounts, set_holes};
use crate::data::scene_text::{Fonts, SceneText, SceneTextOptions, TrueWord};
use crate::error::Result;

/// Seed of the scenes that nothing is trained on.
const HELD_OUT: u64 = 0x776f_7264_7321;
/// Points of intersection over union by which a character is worse.
const WORSE: f32 = 0.05;

/// A setting that is measured.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Options of the request.
    pub options: Options,
    /// Whether the model is told where the words are and what they say.
    pub given: bool,
}

/// What was measured of a setting.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct WordScores {
    /// Its name.
    pub name: String,
    /// Intersection over union of all text pixels of all pictures.
    pub fg_iou: f64,
    /// Harmonic mean of precision and recall of the same pixels.
    pub f_score: f64,
    /// The same of each picture, on average.
    pub mean_f_score: f64,
    /// Share of the pixels in letters' holes that no mask covers.
    pub hole_recall: f64,
    /// Harmonic mean of the shares of borders that lie within 2 pixels of the other's.
    pub boundary_f: f64,
    /// Mean intersection over union of single characters; none where words have no masks of them.
    pub mean_iou: Option<f64>,
    /// Share of words in which the detector saw as many characters as there are; none where it looked at none.
    pub counted_words: Option<f64>,
    /// Share of words about which nothing was flagged.
    pub unflagged_words: f64,
    /// Share of characters that are worse than with the setting before by 5 points or more.
    pub worse_than_before: Option<f64>,
    /// Seconds a picture by stage.
    pub seconds: Vec<(String, f64)>,
    /// Pictures, words and characters.
    pub counted: [usize; 3],
    /// Of each character, for comparisons.
    #[serde(skip)]
    pub overlaps: Vec<f32>,
}

/// Which scenes.
#[derive(Debug)]
pub struct WordScenes<'a> {
    /// Number of the first one. Those from 0 on are for figures; what is tuned is tuned on others.
    pub first: u64,
    /// How many.
    pub count: usize,
    /// What they are like.
    pub options: SceneTextOptions,
    /// The typefaces of their words.
    pub fonts: &'a Fonts,
}

impl WordScenes<'_> {
    /// The scene of a number.
    pub fn draw(&self, index: u64) -> SceneText {
        SceneText::draw(&self.options, self.fonts, HELD_OUT, index)
    }
}

/// The words of a scene as a request names them.
pub fn words_of(scene: &SceneText) -> Vec<Word> {
    let word = |word: &TrueWord| Word {
        polygon: word.polygon.clone(),
        text: Some(word.text.clone()),
        characters: word
            .letters
            .iter()
            .map(|letter| WordCharacter {
                text: letter.class.to_string(),
                polygon: letter.quad.to_vec(),
            })
            .collect(),
        ignored: false,
    };
    scene.words.iter().map(word).collect()
}

/// Scores of settings on the same scenes, in their order.
///
/// # Errors
/// What the model refuses or fails at; a cancellation.
pub fn evaluate_words(
    model: &mut dyn MaskModel,
    settings: &[Setting],
    scenes: &WordScenes<'_>,
    control: &Control,
) -> Result<Vec<WordScores>> {
    control.stage("scenes", Work::Run, scenes.count);
    let mut clock = StepClock::new(scenes.count);
    let mut sums: Vec<Sum> = settings.iter().map(|_| Sum::default()).collect();
    let silent = Control::silent().with_cancel(control.cancel_flag());
    for index in 0..scenes.count as u64 {
        let scene = scenes.draw(scenes.first + index);
        let truth = Truth::of(&scene);
        let picture = std::sync::Arc::new(scene.picture.clone());
        for (setting, sum) in settings.iter().zip(&mut sums) {
            control.check()?;
            let request = MaskRequest {
                words: setting.given.then(|| words_of(&scene)),
                options: setting.options.clone(),
                ..MaskRequest::new(picture.clone())
            };
            let found = model.find(&request, &silent)?;
            sum.add(&scene, &truth, &found);
        }
        clock.step(control);
    }
    let mut scores: Vec<WordScores> = settings
        .iter()
        .zip(sums)
        .map(|(setting, sum)| sum.scores(&setting.name))
        .collect();
    for index in 1..scores.len() {
        let (before, after) = (&scores[index - 1].overlaps, &scores[index].overlaps);
        if before.len() == after.len() && !after.is_empty() {
            let worse = before
                .iter()
                .zip(after)
                .filter(|(before, after)| **before - **after > WORSE);
            scores[index].worse_than_before = Some(worse.count() as f64 / after.len() as f64);
        }
    }
    Ok(scores)
}

/// What is known of a scene, pixel by pixel.
struct Truth {
    text: Vec<bool>,
    holes: Vec<bool>,
    size: [usize; 2],
}

impl Truth {
    fn of(scene: &SceneText) -> Self {
        let Picture { width, height, .. } = scene.picture;
        let text = scene.mask();
        let mut holes = vec![false; width * height];
        for letter in scene.words.iter().flat_map(|word| &word.letters) {
            set_holes(letter, &mut holes, width);
        }
        holes
            .iter_mut()
            .zip(&text)
            .for_each(|(hole, text)| *hole &= !text);
        Self {
            text,
            holes,
            size: [width, height],
        }
    }
}

#[derive(Default)]
struct Sum {
    counts: MaskCounts,
    seconds: Vec<(String, f64)>,
    pictures: usize,
    words: usize,
    unflagged: usize,
    detected: usize,
    counted_right: usize,
    overlaps: Vec<f32>,
    characters: usize,
}

impl Sum {
    fn add(&mut self, scene: &SceneText, truth: &Truth, found: &GeneratedMasks) {
        let [width, height] = truth.size;
        let mut union = vec![false; width * height];
        for mask in &found.masks {
            let own = mask.mask();
            union
                .iter_mut()
                .zip(own.pixels())
                .for_each(|(all, own)| *all |= own);
        }
        self.counts.picture(&union, &truth.text, &truth.holes);
        self.counts.borders(&union, &truth.text, truth.size);
        self.pictures += 1;
        for (name, seconds) in &found.seconds {
            match self.seconds.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += seconds,
                None => self.seconds.push(((*name).to_owned(), *seconds)),
            }
        }
        let words = found.words.as_deref().unwrap_or_default();
        self.words += words.len();
        self.unflagged += words.iter().filter(|word| word.flags.is_empty()).count();
        if words.len() != scene.words.len() {
            return;
        }
        for (word, truth) in words.iter().zip(&scene.words) {
            if let Some(detected) = word.detected {
                self.detected += 1;
                self.counted_right += usize::from(detected == truth.letters.len());
            }
            if word.characters.len() != truth.letters.len() {
                continue;
            }
            for (character, letter) in word.characters.iter().zip(&truth.letters) {
                let mut own = vec![false; width * height];
                letter.set(&mut own, width);
                let mask = found.masks[character.mask].mask();
                self.characters += 1;
                self.overlaps
                    .push(self.counts.mask(mask.pixels(), &own) as f32);
            }
        }
    }

    fn scores(self, name: &str) -> WordScores {
        let scores = self.counts.scores();
        let pictures = self.pictures.max(1) as f64;
        WordScores {
            name: name.to_owned(),
            fg_iou: scores.fg_iou,
            f_score: scores.f_score,
            mean_f_score: scores.mean_f_score,
            hole_recall: scores.hole_recall,
            boundary_f: scores.boundary_f,
            mean_iou: (self.characters > 0).then_some(scores.mean_iou),
            counted_words: (self.detected > 0)
                .then(|| self.counted_right as f64 / self.detected as f64),
            unflagged_words: self.unflagged as f64 / self.words.max(1) as f64,
            worse_than_before: None,
            seconds: self
                .seconds
                .into_iter()
                .map(|(name, sum)| (name, sum / pictures))
                .collect(),
            counted: [self.pictures, self.words, self.characters],
            overlaps: self.overlaps,
        }
    }
}

impl From<&WordScores> for MaskFigures {
    fn from(scores: &WordScores) -> Self {
        Self {
            fg_iou: scores.fg_iou,
            f_score: scores.f_score,
            hole_recall: scores.hole_recall,
            boundary_f: scores.boundary_f,
            worse_than_before: scores.worse_than_before,
        }
    }
}
