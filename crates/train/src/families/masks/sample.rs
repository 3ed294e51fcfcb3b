//! A picture of text with prompts, and the mask that each asks for.

use brisk_media::Mask;
use brisk_media::mask::Regions;
use brisk_models::sam::{PointLabel, Points, Prompts};
use brisk_nn::Tensor;

use super::MasksRecipe;
use super::seen::{Seen, SeenLetter};
use crate::data::scene_text::Fonts;
use crate::error::Result;
use crate::rng::Rng;

/// Share of a box's sides by which its edges are off at most.
const JITTER: f64 = 0.1;
/// Share of the prompts of a box alone that show a whole word.
const WORDS: f64 = 0.3;
/// Most points beside a box.
const MOST_POINTS: usize = 14;
/// Share of those points that lie on the letter, and of the others that lie in holes where it has some.
const ON_LETTER: f64 = 0.6;
const IN_HOLES: f64 = 0.7;
/// Deviation of a point from its place, in pixels of the frame: letters of other typefaces give places that are a
/// little off.
const OFF: f64 = 0.7;

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
    /// Of each prompt, which pixels of the frame are inside, `S·S` of them.
    pub targets: Vec<Vec<bool>>,
    /// Whether the best of several masks counts, as a point alone may mean a part or a whole.
    pub several: bool,
}

/// What a prompt asks for.
struct Target {
    /// Pixels of the frame.
    inside: Vec<bool>,
    bounds: [usize; 4],
}

impl Sample {
    /// The training picture of a number.
    pub fn draw(recipe: &MasksRecipe, side: usize, fonts: &Fonts, index: u64) -> Result<Self> {
        let seed = recipe.training.seed;
        let rng = &mut Rng::stream(seed ^ 0x6d61_736b, index);
        // A picture without a whole letter is drawn again.
        let mut seen = Seen::draw(recipe, side, fonts, index)?;
        for again in 1..16u64 {
            if !seen.letters.is_empty() {
                break;
            }
            seen = Seen::draw(recipe, side, fonts, index ^ (again << 48))?;
        }
        let maker = Maker { seen: &seen, side };
        let mut groups = Vec::new();
        if !seen.letters.is_empty() {
            groups.push(maker.boxes(recipe, rng));
            groups.push(maker.boxes_with_points(recipe, rng));
            groups.push(maker.points(recipe.points, rng));
        }
        Ok(Self {
            pixels: seen.pixels,
            groups,
        })
    }

    pub fn prompts(&self) -> usize {
        self.groups.iter().map(|group| group.targets.len()).sum()
    }
}

struct Maker<'a> {
    seen: &'a Seen,
    side: usize,
}

impl Maker<'_> {
    fn of_letter(&self, rng: &mut Rng) -> Target {
        let SeenLetter { inside, bounds, .. } =
            &self.seen.letters[rng.below(self.seen.letters.len())];
        Target {
            inside: inside.clone(),
            bounds: *bounds,
        }
    }

    /// A word of which every letter is seen, or a letter where there is none.
    fn of_word(&self, rng: &mut Rng) -> Target {
        let words = &self.seen.whole_words;
        if words.is_empty() {
            return self.of_letter(rng);
        }
        let word = words[rng.below(words.len())];
        let mut letters = self.seen.letters.iter().filter(|one| one.word == word);
        let mut target = match letters.next() {
            Some(first) => Target {
                inside: first.inside.clone(),
                bounds: first.bounds,
            },
            None => return self.of_letter(rng),
        };
        for letter in letters {
            for (inside, own) in target.inside.iter_mut().zip(&letter.inside) {
                *inside |= own;
            }
            let (all, own) = (&mut target.bounds, letter.bounds);
            *all = [
                all[0].min(own[0]),
                all[1].min(own[1]),
                all[2].max(own[2]),
                all[3].max(own[3]),
            ];
        }
        target
    }

    /// Letters, some with their holes filled, and words.
    fn boxes(&self, recipe: &MasksRecipe, rng: &mut Rng) -> Group {
        let (mut boxes, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..recipe.boxes {
            let mut target = match rng.chance(WORDS) {
                true => self.of_word(rng),
                false => self.of_letter(rng),
            };
            if rng.chance(recipe.filled_share) {
                for at in self.holes(&target).concat() {
                    target.inside[at] = true;
                }
            }
            boxes.push(jittered(target.bounds, rng));
            targets.push(target.inside);
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

    /// Letters whose holes are open where a point says so, and filled as often as by a box alone where none does.
    fn boxes_with_points(&self, recipe: &MasksRecipe, rng: &mut Rng) -> Group {
        let points = 1 + rng.below(MOST_POINTS);
        let (mut boxes, mut targets) = (Vec::new(), Vec::new());
        let mut shown = Points::default();
        for _ in 0..recipe.boxes_with_points {
            let mut target = self.of_letter(rng);
            let holes = self.holes(&target);
            let mut open = vec![false; holes.len()];
            let (mut places, mut labels) = (Vec::new(), Vec::new());
            for _ in 0..points {
                let outside = self.within(target.bounds, |at| !target.inside[at]);
                // A letter may fill its box.
                let inside = rng.chance(ON_LETTER) || outside.is_empty();
                let at = if inside {
                    let own = self.within(target.bounds, |at| target.inside[at]);
                    own[rng.below(own.len())]
                } else if !holes.is_empty() && rng.chance(IN_HOLES) {
                    let hole = &holes[rng.below(holes.len())];
                    hole[rng.below(hole.len())]
                } else {
                    outside[rng.below(outside.len())]
                };
                if let Some(hole) = holes.iter().position(|hole| hole.contains(&at)) {
                    open[hole] = true;
                }
                places.push(self.place(at, rng));
                labels.push(if inside {
                    PointLabel::Foreground
                } else {
                    PointLabel::Background
                });
            }
            for (hole, open) in holes.iter().zip(open) {
                if !open && rng.chance(recipe.filled_share) {
                    hole.iter().for_each(|at| target.inside[*at] = true);
                }
            }
            shown.places.push(places);
            shown.labels.push(labels);
            boxes.push(jittered(target.bounds, rng));
            targets.push(target.inside);
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
                false => self.of_letter(rng),
            };
            let inside = self.within(target.bounds, |at| target.inside[at]);
            shown
                .places
                .push(vec![self.place(inside[rng.below(inside.len())], rng)]);
            shown.labels.push(vec![PointLabel::Foreground]);
            targets.push(target.inside);
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

    /// A place near the middle of a pixel.
    fn place(&self, at: usize, rng: &mut Rng) -> [f32; 2] {
        let off = rng.normals(2);
        let place = |at: usize, off: f32| at as f32 + OFF as f32 * off;
        [place(at % self.side, off[0]), place(at / self.side, off[1])]
    }

    /// Pixels of each hole: what is outside and does not touch the border of the bounds.
    fn holes(&self, target: &Target) -> Vec<Vec<usize>> {
        let [left, top, right, bottom] = target.bounds;
        let own = self.within(target.bounds, |_| true);
        let size = [right - left, bottom - top];
        let cropped: Vec<bool> = own.iter().map(|at| target.inside[*at]).collect();
        let holes = Mask::new(size[0], size[1], cropped)
            .and_then(|mask| Mask::new(size[0], size[1], mask.holes()));
        let Ok(holes) = holes else {
            return Vec::new();
        };
        let regions = Regions::by_sides(&holes, true);
        let mut found = vec![Vec::new(); regions.sizes().len()];
        for (at, label) in own.into_iter().zip(regions.labels()) {
            if let Some(index) = label.checked_sub(1) {
                found[index].push(at);
            }
        }
        found
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
