//! How well masks of text agree with the truth.

use brisk_media::Mask;
use brisk_media::shape::distances;
use brisk_pipelines::Control;
use brisk_pipelines::families::sam::{PicturePrompt, Segmenter};
use serde::Serialize;

use crate::data::scene_text::{Fonts, SceneText, SceneTextOptions, TrueLetter};
use crate::error::Result;

/// How near two borders are the same, in pixels.
const NEAR: f32 = 2.0;

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
    /// Mean of the F-scores of pictures.
    pub mean_f_score: f64,
    /// Harmonic mean of the shares of borders that lie within 2 pixels of the other's; 0 where none were counted.
    pub boundary_f: f64,
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
    pictures: u64,
    f_scores: f64,
    /// Pixels of borders that were found, and that are true; of each those that lie near one of the other.
    borders: [u64; 2],
    near: [u64; 2],
}

impl MaskCounts {
    /// Counts a picture's text pixels, and those of its holes.
    pub fn picture(&mut self, found: &[bool], truth: &[bool], holes: &[bool]) {
        let count = |pixels: &[bool]| pixels.iter().filter(|inside| **inside).count();
        let common = found
            .iter()
            .zip(truth)
            .filter(|(found, truth)| **found && **truth)
            .count();
        let both = count(found) + count(truth);
        self.pictures += 1;
        self.f_scores += if both == 0 {
            1.0
        } else {
            2.0 * common as f64 / both as f64
        };
        for ((found, truth), hole) in found.iter().zip(truth).zip(holes) {
            self.right += u64::from(*found && *truth);
            self.wrong += u64::from(*found && !*truth);
            self.missed += u64::from(!*found && *truth);
            self.holes += u64::from(*hole);
            self.open += u64::from(*hole && !*found);
        }
    }

    /// Counts the borders of a picture's text.
    pub fn borders(&mut self, found: &[bool], truth: &[bool], size: [usize; 2]) {
        let sides = [found, truth].map(|pixels| border(pixels, size));
        for (index, own) in sides.iter().enumerate() {
            let other = &sides[1 - index];
            // Distances to the nearest pixel that is no border are known; those to borders are of the opposite.
            let beside = Mask::new(
                size[0],
                size[1],
                other.iter().map(|border| !border).collect(),
            );
            let Ok(far) = beside.map(|beside| distances(&beside)) else {
                continue;
            };
            for (_, far) in own.iter().zip(&far).filter(|(own, _)| **own) {
                self.borders[index] += 1;
                self.near[index] += u64::from(*far <= NEAR);
            }
        }
    }

    /// Counts one mask, and gives its intersection over union.
    pub fn mask(&mut self, found: &[bool], truth: &[bool]) -> f64 {
        let pairs = || found.iter().zip(truth);
        let common = pairs().filter(|(found, truth)| **found && **truth).count();
        let either = pairs().filter(|(found, truth)| **found || **truth).count();
        self.masks += 1;
        let overlap = common as f64 / either.max(1) as f64;
        self.overlap += overlap;
        overlap
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
            mean_f_score: self.f_scores / self.pictures.max(1) as f64,
            boundary_f: {
                let [right, covered] =
                    [0, 1].map(|index| share(self.near[index], self.borders[index]));
                if right + covered > 0.0 {
                    2.0 * right * covered / (right + covered)
                } else {
                    0.0
                }
            },
        }
    }
}

/// Pixels inside that have one outside beside them, or lie at the edge of the picture.
fn border(pixels: &[bool], [width, height]: [usize; 2]) -> Vec<bool> {
    let is_border = |at: usize| {
        let (x, y) = (at % width, at / width);
        let near = [
            (x > 0).then(|| at - 1),
            (x + 1 < width).then(|| at + 1),
            (y > 0).then(|| at - width),
            (y + 1 < height).then(|| at + width),
        ];
        pixels[at]
            && near
                .iter()
                .any(|near| near.is_none_or(|near| !pixels[near]))
    };
    (0..pixels.len()).map(is_border).collect()
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
                let logits = found.logits(0)?;
                let found: Vec<bool> = logits.iter().map(|logit| *logit > 0.0).collect();
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
        assert!((scores.mean_f_score - 0.75).abs() < 1e-12);
    }

    #[test]
    fn borders_are_the_same_within_two_pixels() {
        let square = |from: usize| -> Vec<bool> {
            (0..400)
                .map(|at| (from..from + 8).contains(&(at % 20)) && (4..12).contains(&(at / 20)))
                .collect()
        };
        let of = |by: usize| {
            let mut counts = MaskCounts::default();
            counts.borders(&square(4 + by), &square(4), [20, 20]);
            counts.scores().boundary_f
        };
        assert_eq!((of(0), of(2)), (1.0, 1.0));
        assert!(of(4) < 0.9);
        let mut nothing = MaskCounts::default();
        nothing.borders(&[false; 400], &square(4), [20, 20]);
        assert_eq!(nothing.scores().boundary_f, 0.0);
    }
}
