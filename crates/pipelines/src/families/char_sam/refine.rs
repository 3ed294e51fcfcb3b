//! Masks of characters by their boxes, and by points that letters of their class suggest (the paper's Character Glyph
//! Refinement).

use std::cmp::Ordering;

use brisk_media::Mask;
use brisk_media::mask::Regions;
use brisk_media::shape::{Place, distances};
use brisk_nn::Tensor;

use super::boxes::Bounds;
use super::glyphs::{Fitted, Templates, fitted, overlap};
use super::points::{LetterPoints, agreed, points};
use super::settings::{Points, Prompt, Settings};
use super::view::{Spent, View};
use crate::error::Result;
use crate::families::sam::{CoarseMask, PicturePrompt};

/// Rows of the canvas on which a mask is compared with letters, and its most columns.
const ROWS: usize = 64;
const MOST_COLUMNS: usize = 192;
/// By how much the canvas is larger than the box on each side, as a share of it.
const AROUND: f64 = 0.1;
/// How much less than the one before a mask may look like a letter where it has its holes sooner, and elsewhere.
const MENDING: f64 = 0.1;
const OTHERWISE: f64 = 0.03;
/// Pixels of the canvas of the smallest hole that counts.
const HOLE: usize = 6;
/// Share of the letter's pixels of the smallest part that a further pass is about.
const PART: f64 = 0.03;

/// A character in a view.
pub(super) struct Sought {
    /// Its box there.
    pub bounds: Bounds,
    pub class: Option<char>,
}

/// What was found of it.
pub(super) struct Refined {
    pub mask: CoarseMask,
    /// In the view.
    pub points: Vec<(Place, bool)>,
    /// Separate parts of its letter.
    pub parts: usize,
    pub flags: Vec<&'static str>,
}

/// A mask beside the letters that look like it.
struct Compared {
    /// Which character.
    index: usize,
    letters: Vec<Fitted>,
    canvas: Canvas,
    /// How the mask that is kept so far looks.
    likeness: Likeness,
    points: Vec<(Place, bool)>,
}

struct Canvas {
    region: Bounds,
    size: [usize; 2],
}

#[derive(Clone, Copy)]
struct Likeness {
    overlap: f64,
    /// Holes too many or too few.
    holes: usize,
}

/// Masks of characters of one view, by the settings' prompts.
pub(super) fn refine(
    view: &View,
    sought: &[Sought],
    templates: &mut Templates,
    settings: &Settings,
    spent: &mut Spent,
) -> Result<Vec<Refined>> {
    let of_box = |sought: &Sought| PicturePrompt {
        bounds: Some(sought.bounds),
        ..PicturePrompt::default()
    };
    let first: Vec<PicturePrompt> = sought.iter().map(of_box).collect();
    let masks = view.masks(&first, spent)?;
    let mut refined: Vec<Refined> = masks
        .into_iter()
        .map(|mask| Refined {
            mask,
            points: Vec::new(),
            parts: 1,
            flags: Vec::new(),
        })
        .collect();
    if settings.prompt != Prompt::BoxesAndPoints {
        return Ok(refined);
    }
    let mut compared = Vec::new();
    for (index, sought) in sought.iter().enumerate() {
        let Some(class) = sought.class else { continue };
        let letters = templates.of(class);
        if letters.is_empty() {
            refined[index].flags.push("no letter of a font: by its box");
            continue;
        }
        let canvas = Canvas::around(sought.bounds);
        let mask = canvas.mask(view, &refined[index].mask, sought.bounds)?;
        let letters = fitted(letters, &mask, canvas.place_of(sought.bounds));
        let Some(best) = letters.first() else {
            continue;
        };
        refined[index].parts = best.parts;
        let found = points(&letters, canvas.size, canvas.place_of(sought.bounds));
        let likeness = Likeness::of(&mask, best);
        let points =
            chosen(&found, settings.points).map(|(at, inside)| (canvas.to_view(at), inside));
        let points: Vec<(Place, bool)> = points.collect();
        if !points.is_empty() {
            compared.push(Compared {
                index,
                letters,
                canvas,
                likeness,
                points,
            });
        }
    }
    let shown = Shown {
        view,
        sought,
        settings,
    };
    shown.again(&mut refined, &mut compared, templates, spent)?;
    // Where the letter still differs most, two more points.
    let mut further = Vec::new();
    for mut one in compared {
        let bounds = sought[one.index].bounds;
        let mask = one.canvas.mask(view, &refined[one.index].mask, bounds)?;
        let more: Vec<(Place, bool)> = differences(&mask, &one.letters)
            .into_iter()
            .filter(|(_, inside)| match settings.points {
                Points::Positive => *inside,
                Points::Negative => !*inside,
                Points::None | Points::Both => true,
            })
            .map(|(at, inside)| (one.canvas.to_view(at), inside))
            .collect();
        if !more.is_empty() {
            one.points.extend(more);
            further.push(one);
        }
    }
    shown.again(&mut refined, &mut further, templates, spent)?;
    Ok(refined)
}

/// What is looked for, and where.
struct Shown<'a> {
    view: &'a View,
    sought: &'a [Sought],
    settings: &'a Settings,
}

impl Shown<'_> {
    /// Finds masks with points, and keeps each that has the letter's holes sooner than the one before, or as many and looks
    /// hardly less like it; every mask is compared with the letters that look most like itself.
    fn again(
        &self,
        refined: &mut [Refined],
        compared: &mut [Compared],
        templates: &mut Templates,
        spent: &mut Spent,
    ) -> Result<()> {
        let mut prompts = Vec::with_capacity(compared.len());
        for one in compared.iter() {
            let shown = &refined[one.index].mask;
            let mask = match self.settings.mask_input {
                false => None,
                true => {
                    let [columns, rows] = shown.size;
                    Some(Tensor::from_vec(
                        shown.logits.clone(),
                        (1, rows, columns, 1),
                    )?)
                }
            };
            prompts.push(PicturePrompt {
                points: one.points.clone(),
                bounds: Some(self.sought[one.index].bounds),
                mask,
            });
        }
        if prompts.is_empty() {
            return Ok(());
        }
        let masks = self.view.masks(&prompts, spent)?;
        for (one, found) in compared.iter_mut().zip(masks) {
            let sought = &self.sought[one.index];
            let Some(class) = sought.class else { continue };
            let mask = one.canvas.mask(self.view, &found, sought.bounds)?;
            let bounds = one.canvas.place_of(sought.bounds);
            let letters = fitted(templates.of(class), &mask, bounds);
            let Some(best) = letters.first() else {
                continue;
            };
            let likeness = Likeness::of(&mask, best);
            let kept = &mut refined[one.index];
            let before = one.likeness;
            let better = match likeness.holes.cmp(&before.holes) {
                Ordering::Less => likeness.overlap >= before.overlap - MENDING,
                Ordering::Equal => likeness.overlap >= before.overlap - OTHERWISE,
                Ordering::Greater => false,
            };
            if better {
                kept.mask = found;
                kept.points.clone_from(&one.points);
                one.likeness = likeness;
                one.letters = letters;
            }
        }
        Ok(())
    }
}

fn chosen(found: &LetterPoints, which: Points) -> impl Iterator<Item = (Place, bool)> + '_ {
    let (positive, negative) = match which {
        Points::None => (false, false),
        Points::Positive => (true, false),
        Points::Negative => (false, true),
        Points::Both => (true, true),
    };
    let on = found
        .positive
        .iter()
        .filter(move |_| positive)
        .map(|at| (*at, true));
    on.chain(
        found
            .negative
            .iter()
            .filter(move |_| negative)
            .map(|at| (*at, false)),
    )
}

/// A place in the largest part of the letter that a mask lacks, and one in the largest part of a mask where all letters
/// are blank.
fn differences(mask: &Mask, letters: &[Fitted]) -> Vec<(Place, bool)> {
    let Some(best) = letters.first() else {
        return Vec::new();
    };
    let (ink, blank) = agreed(letters);
    let least = PART * best.pixels.iter().filter(|inside| **inside).count() as f64;
    let missing = mask
        .pixels()
        .iter()
        .zip(&ink)
        .map(|(found, ink)| !found && *ink)
        .collect();
    let spurious = mask
        .pixels()
        .iter()
        .zip(&blank)
        .map(|(found, blank)| *found && *blank)
        .collect();
    let middle = |part: Vec<bool>, inside: bool| {
        let part = Mask::new(mask.width(), mask.height(), part).ok()?;
        let regions = Regions::by_sides(&part, true);
        let sizes = regions.sizes();
        let largest = (0..sizes.len()).max_by_key(|index| sizes[*index])?;
        if (sizes[largest] as f64) < least {
            return None;
        }
        let own = regions
            .labels()
            .iter()
            .map(|label| *label == largest + 1)
            .collect();
        let depth = distances(&Mask::new(mask.width(), mask.height(), own).ok()?);
        let deepest = (0..depth.len())
            .filter(|at| depth[*at].is_finite())
            .max_by(|a, b| depth[*a].total_cmp(&depth[*b]))?;
        let at = [deepest % mask.width(), deepest / mask.width()].map(|at| at as f64 + 0.5);
        Some((at, inside))
    };
    [middle(missing, true), middle(spurious, false)]
        .into_iter()
        .flatten()
        .collect()
}

impl Canvas {
    fn around([left, top, right, bottom]: Bounds) -> Self {
        let more = [AROUND * (right - left), AROUND * (bottom - top)];
        let region = [
            left - more[0],
            top - more[1],
            right + more[0],
            bottom + more[1],
        ];
        let ratio = (region[2] - region[0]) / (region[3] - region[1]).max(1e-9);
        let columns = ((ROWS as f64 * ratio).round() as usize).clamp(ROWS / 8, MOST_COLUMNS);
        Self {
            region,
            size: [columns, ROWS],
        }
    }

    fn step(&self) -> [f64; 2] {
        let [left, top, right, bottom] = self.region;
        [
            (right - left) / self.size[0] as f64,
            (bottom - top) / self.size[1] as f64,
        ]
    }

    fn to_view(&self, [x, y]: Place) -> Place {
        let step = self.step();
        [self.region[0] + x * step[0], self.region[1] + y * step[1]]
    }

    fn place_of(&self, [left, top, right, bottom]: Bounds) -> Bounds {
        let step = self.step();
        let place = |at: f64, axis: usize| (at - self.region[axis]) / step[axis];
        [
            place(left, 0),
            place(top, 1),
            place(right, 0),
            place(bottom, 1),
        ]
    }

    /// What of a mask lies in the box.
    fn mask(&self, view: &View, mask: &CoarseMask, bounds: Bounds) -> Result<Mask> {
        let [left, top, right, bottom] = self.place_of(bounds);
        let logits = view.canvas(mask, self.region, self.size);
        let [width, height] = self.size;
        let inside = |at: usize| {
            let (x, y) = ((at % width) as f64 + 0.5, (at / width) as f64 + 0.5);
            logits[at] > 0.0 && (left..right).contains(&x) && (top..bottom).contains(&y)
        };
        let pixels: Vec<bool> = (0..width * height).map(inside).collect();
        Ok(Mask::new(width, height, pixels)?)
    }
}

impl Likeness {
    fn of(mask: &Mask, letter: &Fitted) -> Self {
        let holes = Mask::new(mask.width(), mask.height(), mask.holes());
        let count = holes.map_or(0, |holes| {
            Regions::by_sides(&holes, true)
                .sizes()
                .iter()
                .filter(|size| **size >= HOLE)
                .count()
        });
        Self {
            overlap: overlap(&letter.pixels, mask.pixels()),
            holes: count.abs_diff(letter.holes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canvas_lies_around_its_box() {
        let canvas = Canvas::around([10.0, 20.0, 50.0, 120.0]);
        let place = canvas.place_of([10.0, 20.0, 50.0, 120.0]);
        let [x, y] = canvas.to_view([place[0], place[3]]);
        assert!((x - 10.0).abs() < 1e-9 && (y - 120.0).abs() < 1e-9);
        assert_eq!(canvas.size[1], ROWS);
    }

    #[test]
    fn points_go_where_letter_and_mask_differ() {
        let (width, height) = (40, 40);
        let inside = |from: usize, to: usize| -> Vec<bool> {
            (0..width * height)
                .map(|at| (from..to).contains(&(at % width)))
                .collect()
        };
        let letter = Fitted {
            pixels: inside(0, 20),
            holes: 0,
            parts: 1,
            score: 1.0,
        };
        let mask = Mask::new(width, height, inside(10, 30)).unwrap();
        let found = differences(&mask, &[letter]);
        assert_eq!(found.len(), 2);
        assert!(found[0].1 && found[0].0[0] < 10.0);
        assert!(!found[1].1 && found[1].0[0] > 20.0);
    }
}
