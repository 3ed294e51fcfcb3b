//! A picture of text with prompts, and the mask that each asks for.

use brisk_media::Mask;
use brisk_models::sam::{PointLabel, Points, Prompts};
use brisk_nn::Tensor;
use brisk_pipelines::families::sam::Frame;

use super::MasksRecipe;
use crate::data::scene_text::{Fonts, SceneText, SceneTextOptions, TrueLetter};
use crate::error::Result;
use crate::rng::Rng;

/// Share of a box's sides by which its edges are off at most.
const JITTER: f64 = 0.1;
/// Share of the prompts of a box alone that show a whole word.
const WORDS: f64 = 0.3;
/// Most points beside a box.
const MOST_POINTS: usize = 6;

/// One picture.
pub(super) struct Sample {
    /// As the encoder takes it, `[1, S, S, 3]`.
    pub pixels: Tensor,
    /// Its prompts.
    pub groups: Vec<Group>,
}

/// Prompts with the same parts.
pub(super) struct Group {
    pub prompts: Prompts,
    /// Of each prompt, which places of the mask are inside, `4h·4w` of them.
    pub targets: Vec<Vec<bool>>,
    /// Whether the best of several masks counts, as a point alone may mean a part or a whole.
    pub several: bool,
}

/// What a prompt asks for.
struct Target {
    /// Pixels of the picture.
    inside: Vec<bool>,
    bounds: [usize; 4],
}

impl Sample {
    /// The training picture of a number.
    pub fn draw(
        recipe: &MasksRecipe,
        scenes: &SceneTextOptions,
        fonts: &Fonts,
        grid: usize,
        index: u64,
    ) -> Result<Self> {
        let seed = recipe.training.seed;
        let rng = &mut Rng::stream(seed ^ 0x6d61_736b, index);
        // A scene without a word is drawn again.
        let mut scene = SceneText::draw(scenes, fonts, seed, index);
        for again in 1..16u64 {
            if !scene.words.is_empty() {
                break;
            }
            scene = SceneText::draw(scenes, fonts, seed, index ^ (again << 48));
        }
        let side = scene.picture.width;
        let pixels = Frame::new(side, [side; 2]).pixels(&scene.picture)?;
        let maker = Maker {
            scene: &scene,
            side,
            fine: 4 * grid,
        };
        let mut groups = Vec::new();
        if !scene.words.is_empty() {
            groups.push(maker.boxes(recipe, rng));
            groups.push(maker.boxes_with_points(recipe.boxes_with_points, rng));
            groups.push(maker.points(recipe.points, rng));
        }
        Ok(Self { pixels, groups })
    }

    pub fn prompts(&self) -> usize {
        self.groups.iter().map(|group| group.targets.len()).sum()
    }
}

struct Maker<'a> {
    scene: &'a SceneText,
    side: usize,
    fine: usize,
}

impl Maker<'_> {
    fn letter(&self, rng: &mut Rng) -> &TrueLetter {
        let word = &self.scene.words[rng.below(self.scene.words.len())];
        &word.letters[rng.below(word.letters.len())]
    }

    fn of_letter(&self, letter: &TrueLetter) -> Target {
        let mut inside = vec![false; self.side * self.side];
        letter.set(&mut inside, self.side);
        Target {
            inside,
            bounds: letter.bounds,
        }
    }

    fn of_word(&self, rng: &mut Rng) -> Target {
        let word = &self.scene.words[rng.below(self.scene.words.len())];
        let mut inside = vec![false; self.side * self.side];
        word.letters
            .iter()
            .for_each(|letter| letter.set(&mut inside, self.side));
        Target {
            inside,
            bounds: word.bounds(),
        }
    }

    /// Letters, some with their holes filled, and words.
    fn boxes(&self, recipe: &MasksRecipe, rng: &mut Rng) -> Group {
        let (mut boxes, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..recipe.boxes {
            let mut target = match rng.chance(WORDS) {
                true => self.of_word(rng),
                false => self.of_letter(self.letter(rng)),
            };
            if rng.chance(recipe.filled_share) {
                self.fill(&mut target);
            }
            boxes.push(jittered(target.bounds, rng));
            targets.push(self.coarse(&target));
        }
        let prompts = Prompts {
            boxes: Some(boxes),
            ..Prompts::default()
        };
        Group {
            prompts,
            targets,
            several: false,
        }
    }

    /// Letters as they are: points say where their holes are.
    fn boxes_with_points(&self, count: usize, rng: &mut Rng) -> Group {
        let points = 1 + rng.below(MOST_POINTS);
        let (mut boxes, mut targets) = (Vec::new(), Vec::new());
        let mut shown = Points::default();
        for _ in 0..count {
            let target = self.of_letter(self.letter(rng));
            let holes = self.holes(&target);
            let (mut places, mut labels) = (Vec::new(), Vec::new());
            for _ in 0..points {
                let inside = rng.chance(0.6);
                let wanted: Vec<usize> = match (inside, holes.is_empty()) {
                    (true, _) => self.within(target.bounds, |at| target.inside[at]),
                    (false, false) if rng.chance(0.7) => holes.clone(),
                    (false, _) => self.within(target.bounds, |at| !target.inside[at]),
                };
                // A letter may fill its box.
                let (wanted, inside) = match wanted.is_empty() {
                    true => (self.within(target.bounds, |at| target.inside[at]), true),
                    false => (wanted, inside),
                };
                places.push(self.place(wanted[rng.below(wanted.len())], rng));
                labels.push(if inside {
                    PointLabel::Foreground
                } else {
                    PointLabel::Background
                });
            }
            shown.places.push(places);
            shown.labels.push(labels);
            boxes.push(jittered(target.bounds, rng));
            targets.push(self.coarse(&target));
        }
        Group {
            prompts: Prompts {
                points: Some(shown),
                boxes: Some(boxes),
                masks: None,
            },
            targets,
            several: false,
        }
    }

    /// A point on a letter, which may mean the letter or its word.
    fn points(&self, count: usize, rng: &mut Rng) -> Group {
        let mut shown = Points::default();
        let mut targets = Vec::new();
        for _ in 0..count {
            let target = match rng.chance(0.4) {
                true => self.of_word(rng),
                false => self.of_letter(self.letter(rng)),
            };
            let inside = self.within(target.bounds, |at| target.inside[at]);
            shown
                .places
                .push(vec![self.place(inside[rng.below(inside.len())], rng)]);
            shown.labels.push(vec![PointLabel::Foreground]);
            targets.push(self.coarse(&target));
        }
        let prompts = Prompts {
            points: Some(shown),
            ..Prompts::default()
        };
        Group {
            prompts,
            targets,
            several: true,
        }
    }

    /// Pixels within bounds that fulfil a condition.
    fn within(
        &self,
        [left, top, right, bottom]: [usize; 4],
        fits: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        let places = (top..bottom).flat_map(|y| (left..right).map(move |x| y * self.side + x));
        places.filter(|at| fits(*at)).collect()
    }

    fn place(&self, at: usize, rng: &mut Rng) -> [f32; 2] {
        let off = [rng.uniform(), rng.uniform()];
        [
            (at % self.side) as f32 + off[0] as f32 - 0.5,
            (at / self.side) as f32 + off[1] as f32 - 0.5,
        ]
    }

    /// Pixels of holes: what is outside and does not touch the border of the bounds.
    fn holes(&self, target: &Target) -> Vec<usize> {
        let [left, top, right, bottom] = target.bounds;
        let own = self.within(target.bounds, |_| true);
        let cropped: Vec<bool> = own.iter().map(|at| target.inside[*at]).collect();
        let Ok(mask) = Mask::new(right - left, bottom - top, cropped) else {
            return Vec::new();
        };
        let holes = mask.holes();
        own.into_iter()
            .zip(holes)
            .filter_map(|(at, hole)| hole.then_some(at))
            .collect()
    }

    fn fill(&self, target: &mut Target) {
        for at in self.holes(target) {
            target.inside[at] = true;
        }
    }

    /// Half of a place's pixels or more are inside.
    fn coarse(&self, target: &Target) -> Vec<bool> {
        let each = self.side / self.fine;
        let share = |index: usize| {
            let (x, y) = (index % self.fine * each, index / self.fine * each);
            let pixels = (0..each * each).map(|at| (y + at / each) * self.side + x + at % each);
            2 * pixels.filter(|at| target.inside[*at]).count() >= each * each
        };
        (0..self.fine * self.fine).map(share).collect()
    }
}

/// A box whose edges are a little off.
fn jittered([left, top, right, bottom]: [usize; 4], rng: &mut Rng) -> [f32; 4] {
    let (width, height) = ((right - left) as f64, (bottom - top) as f64);
    let mut off =
        |at: usize, side: f64| (at as f64 + JITTER * side * (2.0 * rng.uniform() - 1.0)) as f32;
    [
        off(left, width),
        off(top, height),
        off(right, width),
        off(bottom, height),
    ]
}
