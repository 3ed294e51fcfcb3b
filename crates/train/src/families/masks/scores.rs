//! How well masks of text agree with the truth.

use brisk_pipelines::Control;
use brisk_pipelines::families::sam::{PicturePrompt, Segmenter};
use serde::Serialize;

use crate::data::scene_text::{Fonts, SceneText, SceneTextOptions, TrueLetter};
use crate::error::Result;

/// What is reported of masks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MaskScores {
    /// Intersection over union of all text pixels of all pictures.
    pub fg_iou: f64,
    /// Harmonic mean of precision and recall of the same pixels.
    pub f_score: f64,
    /// Share of the pixels in letters' holes that no mask covers.
    pub hole_recall: f64,
    /// Mean intersection over union of single masks.
    pub mean_iou: f64,
}

/// Counts of pixels over many pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MaskCounts {
    right: u64,
    wrong: u64,
    missed: u64,
    holes: u64,
    open: u64,
    masks: u64,
    overlap: f64,
}

impl MaskCounts {
    /// Counts a picture's text pixels, and those of its holes.
    pub fn picture(&mut self, found: &[bool], truth: &[bool], holes: &[bool]) {
        for ((found, truth), hole) in found.iter().zip(truth).zip(holes) {
            self.right += u64::from(*found && *truth);
            self.wrong += u64::from(*found && !*truth);
            self.missed += u64::from(!*found && *truth);
            self.holes += u64::from(*hole);
            self.open += u64::from(*hole && !*found);
        }
    }

    /// Counts one mask.
    pub fn mask(&mut self, found: &[bool], truth: &[bool]) {
        let pairs = || found.iter().zip(truth);
        let common = pairs().filter(|(found, truth)| **found && **truth).count();
        let either = pairs().filter(|(found, truth)| **found || **truth).count();
        self.masks += 1;
        self.overlap += common as f64 / either.max(1) as f64;
    }

    /// The scores.
    pub fn scores(&self) -> MaskScores {
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        let wide = self.right + self.wrong + self.missed;
        MaskScores {
            fg_iou: share(self.right, wide),
            f_score: share(2 * self.right, 2 * self.right + self.wrong + self.missed),
            hole_recall: share(self.open, self.holes),
            mean_iou: self.overlap / self.masks.max(1) as f64,
        }
    }
}

/// Scores of the masks that true boxes of letters, and of words, give on `count` scenes.
///
/// # Errors
/// What the networks report; a cancellation.
pub fn score_boxes(
    segmenter: &mut Segmenter,
    options: &SceneTextOptions,
    fonts: &Fonts,
    seed: u64,
    count: usize,
    control: &Control,
) -> Result<[MaskScores; 2]> {
    let mut counts = [MaskCounts::default(); 2];
    for index in 0..count as u64 {
        control.check()?;
        let scene = SceneText::draw(options, fonts, seed, index);
        let (width, area) = (
            scene.picture.width,
            scene.picture.width * scene.picture.height,
        );
        segmenter.look(&scene.picture)?;
        let truth = scene.mask();
        let mut holes = vec![false; area];
        let letters = || scene.words.iter().flat_map(|word| &word.letters);
        letters().for_each(|letter| set_holes(letter, &mut holes, width));
        for at in 0..area {
            holes[at] &= !truth[at];
        }
        let of_letters = letters().map(|letter| {
            let mut own = vec![false; area];
            letter.set(&mut own, width);
            (letter.bounds, own)
        });
        let of_words = scene.words.iter().map(|word| {
            let mut own = vec![false; area];
            word.letters
                .iter()
                .for_each(|letter| letter.set(&mut own, width));
            (word.bounds(), own)
        });
        let parts: [Vec<_>; 2] = [of_letters.collect(), of_words.collect()];
        for (counts, parts) in counts.iter_mut().zip(parts) {
            let mut union = vec![false; area];
            for (bounds, own) in parts {
                let found = segmenter.predict(&PicturePrompt {
                    bounds: Some(bounds.map(|at| at as f64)),
                    ..PicturePrompt::default()
                })?;
                let found: Vec<bool> = found.logits[..area]
                    .iter()
                    .map(|logit| *logit > 0.0)
                    .collect();
                counts.mask(&found, &own);
                for (union, found) in union.iter_mut().zip(&found) {
                    *union |= found;
                }
            }
            counts.picture(&union, &truth, &holes);
        }
    }
    Ok(counts.map(|counts| counts.scores()))
}

/// Sets the pixels of a letter's holes in a map of a picture of this width.
pub fn set_holes(letter: &TrueLetter, map: &mut [bool], width: usize) {
    let Some(mask) = letter.mask() else { return };
    let holes = TrueLetter {
        pixels: mask.holes(),
        ..letter.clone()
    };
    holes.set(map, width);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_counted_over_all_pictures() {
        let mut counts = MaskCounts::default();
        let [yes, no] = [true, false];
        counts.picture(&[yes, yes, no, no], &[yes, no, yes, no], &[no, yes, no, no]);
        counts.picture(&[yes, no], &[yes, no], &[no, yes]);
        counts.mask(&[yes, no], &[yes, no]);
        counts.mask(&[yes, yes], &[yes, no]);
        let scores = counts.scores();
        assert_eq!(
            (scores.fg_iou, scores.hole_recall, scores.mean_iou),
            (0.5, 0.5, 0.75)
        );
        assert!((scores.f_score - 2.0 / 3.0).abs() < 1e-12);
    }
}
