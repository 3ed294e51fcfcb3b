//! Letters of typefaces that look like a mask.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use brisk_media::{Mask, Typeface};

use crate::error::{Error, Result};

/// Pixels of the em square that letters are drawn at.
const EM: f32 = 128.0;
/// Most fonts of a folder.
const MOST_FONTS: usize = 256;
/// Best letters of all typefaces that are taken.
const BEST: usize = 3;
/// What is tried: shears, sizes, and shifts as shares of the box.
const SHEARS: [f64; 3] = [-0.2, 0.0, 0.2];
const SIZES: [f64; 3] = [0.95, 1.0, 1.05];
const SHIFTS: [f64; 3] = [-0.03, 0.0, 0.03];
/// What a ratio of sides that is e times another costs, in intersection over union.
const RATIO_COST: f64 = 0.1;

/// A letter of one typeface, cut to its ink.
#[derive(Clone, Debug)]
pub struct Template {
    /// Its pixels.
    pub ink: Mask,
    /// The same with those of its holes.
    pub filled: Mask,
    /// How far a pen goes on, in em.
    pub advance: f64,
    /// Holes.
    pub holes: usize,
    /// Separate parts.
    pub parts: usize,
}

/// Letters of every typeface, drawn when they are first asked for.
#[derive(Clone, Debug)]
pub struct Templates {
    faces: Arc<[Typeface]>,
    drawn: BTreeMap<char, Vec<Template>>,
}

impl Default for Templates {
    fn default() -> Self {
        Self {
            faces: Typeface::built_in().into(),
            drawn: BTreeMap::new(),
        }
    }
}

impl Templates {
    /// Those of the typefaces that come along, and of the `.ttf` and `.otf` files of a folder.
    ///
    /// # Errors
    /// A folder that cannot be read or has none, or a file that is no font.
    pub fn with_folder(folder: &Path) -> Result<Self> {
        let wrong =
            |problem: String| Error::request("fonts", format!("{}: {problem}", folder.display()));
        let files = std::fs::read_dir(folder).map_err(|error| wrong(error.to_string()))?;
        let is_font = |path: &PathBuf| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            ending.is_some_and(|ending| ["ttf", "otf"].contains(&&*ending.to_ascii_lowercase()))
        };
        let mut paths: Vec<PathBuf> = files
            .flatten()
            .map(|file| file.path())
            .filter(is_font)
            .collect();
        paths.sort();
        if paths.is_empty() {
            return Err(wrong("there is no .ttf or .otf file".to_owned()));
        }
        let mut faces = Typeface::built_in().to_vec();
        for path in paths.iter().take(MOST_FONTS) {
            faces.push(Typeface::read(path).map_err(|error| wrong(error.to_string()))?);
        }
        Ok(Self {
            faces: faces.into(),
            drawn: BTreeMap::new(),
        })
    }

    /// Those of a class; none where no typeface has it.
    pub fn of(&mut self, class: char) -> &[Template] {
        let faces = &self.faces;
        self.drawn.entry(class).or_insert_with(|| {
            faces
                .iter()
                .filter_map(|face| Template::draw(face, class))
                .collect()
        })
    }

    /// How far a pen goes on, in em, on average; half an em of what no typeface has.
    pub fn advance(&mut self, class: char) -> f64 {
        let templates = self.of(class);
        let sum: f64 = templates.iter().map(|template| template.advance).sum();
        match templates.len() {
            0 => 0.5,
            count => sum / count as f64,
        }
    }
}

impl Template {
    fn draw(face: &Typeface, class: char) -> Option<Self> {
        let letter = face.letter(class, EM)?;
        let pixels = letter.coverage.iter().map(|share| *share >= 0.5).collect();
        let whole = Mask::new(letter.width, letter.height, pixels).ok()?;
        let ink = whole.cut(whole.bounds()?);
        let filled = ink.pixels().iter().zip(ink.holes());
        let filled = filled.map(|(inside, hole)| *inside || hole).collect();
        Some(Self {
            filled: Mask::new(ink.width(), ink.height(), filled).ok()?,
            holes: ink.hole_count(),
            parts: ink.part_count(),
            ink,
            advance: f64::from(letter.advance / EM),
        })
    }
}

/// Where a letter lies on a canvas.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Placement {
    /// Left, top, width and height of its box.
    place: [f64; 4],
    shear: f64,
}

impl Placement {
    /// The letter's pixels on a canvas of this width and height.
    fn drawn(&self, ink: &Mask, [width, height]: [usize; 2]) -> Vec<bool> {
        let [left, top, wide, high] = self.place;
        let mut pixels = vec![false; width * height];
        for (at, pixel) in pixels.iter_mut().enumerate() {
            let (x, y) = ((at % width) as f64 + 0.5, (at / width) as f64 + 0.5);
            let v = (y - top) / high;
            let u = (x - left) / wide + self.shear * (v - 0.5) * high / wide;
            if (0.0..1.0).contains(&u) && (0.0..1.0).contains(&v) {
                let column = (u * ink.width() as f64) as usize;
                let row = (v * ink.height() as f64) as usize;
                *pixel = ink.pixels()[row * ink.width() + column];
            }
        }
        pixels
    }
}

/// A letter that was laid over a mask.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// Its pixels on the mask's canvas.
    pub pixels: Vec<bool>,
    /// Its holes and parts.
    pub holes: usize,
    /// As [`Template::parts`].
    pub parts: usize,
    pub(super) score: f64,
}

/// The letters that look most like `mask`, best first; `bounds` is the character's box on the mask's canvas, which
/// stands in where the mask covers little of it.
pub fn fitted(templates: &[Template], mask: &Mask, bounds: [f64; 4]) -> Vec<Fitted> {
    let size = [mask.width(), mask.height()];
    let [left, top, right, bottom] = match mask.bounds() {
        Some([left, top, right, bottom]) => [
            left as f64,
            top as f64,
            right as f64 + 1.0,
            bottom as f64 + 1.0,
        ],
        None => bounds,
    };
    let area = |[left, top, right, bottom]: [f64; 4]| (right - left) * (bottom - top);
    let found = [left, top, right, bottom];
    let [left, top, right, bottom] = if area(found) > 0.6 * area(bounds) {
        found
    } else {
        bounds
    };
    let (wide, high) = ((right - left).max(1.0), (bottom - top).max(1.0));
    let holes = mask.hole_count();
    let score = |template: &Template, placement: &Placement| {
        let pixels = placement.drawn(&template.ink, size);
        let mut alike = overlap(&pixels, mask.pixels());
        if template.holes > holes {
            // Of what covers holes only the outline says which letter it is, else the boldest would always win.
            let filled = placement.drawn(&template.filled, size);
            alike = alike.max(overlap(&filled, mask.pixels()));
        }
        let ratio = template.ink.width() as f64 / template.ink.height() as f64 / (wide / high);
        (pixels, alike - RATIO_COST * ratio.ln().abs())
    };
    let plain = |template: &Template, shear: f64| {
        let placement = Placement {
            place: [left, top, wide, high],
            shear,
        };
        (placement, score(template, &placement).1)
    };
    let mut best: Vec<(&Template, Placement, f64)> = Vec::new();
    for template in templates {
        let tried = SHEARS.map(|shear| plain(template, shear));
        if let Some((placement, score)) = tried.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)) {
            best.push((template, placement, score));
        }
    }
    best.sort_by(|a, b| b.2.total_cmp(&a.2));
    best.truncate(BEST);
    let refined = best.into_iter().filter_map(|(template, placement, _)| {
        let tried = SIZES
            .into_iter()
            .flat_map(|size| SHIFTS.map(|dx| SHIFTS.map(|dy| (size, dx, dy))));
        let tried = tried.flatten().map(|(size, dx, dy)| {
            let [left, top, wide, high] = placement.place;
            let moved = |at: f64, side: f64, by: f64| at + side * (by + (1.0 - size) / 2.0);
            let place = [
                moved(left, wide, dx),
                moved(top, high, dy),
                wide * size,
                high * size,
            ];
            score(template, &Placement { place, ..placement })
        });
        let (pixels, score) = tried.max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(Fitted {
            pixels,
            holes: template.holes,
            parts: template.parts,
            score,
        })
    });
    let mut refined: Vec<Fitted> = refined.collect();
    refined.sort_by(|a, b| b.score.total_cmp(&a.score));
    refined
}

/// Intersection over union.
pub fn overlap(a: &[bool], b: &[bool]) -> f64 {
    let pairs = || a.iter().zip(b);
    let common = pairs().filter(|(a, b)| **a && **b).count();
    let either = pairs().filter(|(a, b)| **a || **b).count();
    common as f64 / either.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_have_their_holes_and_parts() {
        let mut templates = Templates::default();
        for (class, holes, parts) in [
            ('A', 1, 1),
            ('B', 2, 1),
            ('i', 0, 2),
            ('L', 0, 1),
            ('%', 2, 3),
        ] {
            let found = templates.of(class);
            let right = found
                .iter()
                .filter(|one| (one.holes, one.parts) == (holes, parts))
                .count();
            assert!(
                2 * right > found.len(),
                "{class}: {right} of {}",
                found.len()
            );
        }
        assert!(templates.of('漢').is_empty());
        assert!(templates.advance('W') > templates.advance('i'));
    }

    #[test]
    fn a_letter_is_found_under_its_filled_mask() {
        let mut templates = Templates::default();
        let template = templates.of('O')[0].clone();
        let placement = Placement {
            place: [10.0, 8.0, 40.0, 48.0],
            shear: 0.0,
        };
        let drawn = placement.drawn(&template.ink, [60, 64]);
        let mask = Mask::new(60, 64, drawn.clone()).unwrap();
        let filled: Vec<bool> = drawn
            .iter()
            .zip(mask.holes())
            .map(|(inside, hole)| *inside || hole)
            .collect();
        let found = fitted(
            templates.of('O'),
            &Mask::new(60, 64, filled).unwrap(),
            [8.0, 6.0, 52.0, 58.0],
        );
        assert_eq!(found.len(), BEST);
        // The holes are the letter's, whatever the mask says.
        assert!(found.iter().all(|one| !one.pixels[32 * 60 + 30]));
    }
}
