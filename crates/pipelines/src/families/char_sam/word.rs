//! One word: from its outline to the pixels of its characters.

use std::sync::Arc;

use brisk_media::mask::Regions;
use brisk_media::shape::Place;
use brisk_media::{Mask, Picture};

use super::Tools;
use super::characters::{CharacterBox, Looked, Word, character_boxes};
use super::outline::{HEIGHT, Strip};
use super::refine::{Refined, Sought, refine};
use super::settings::{Parts, Prompt, Settings};
use super::view::{Spent, View, around};
use crate::error::Result;
use crate::families::sam::Segmenter;
use crate::request;

/// Turn in degrees from which on a word is looked at where it lies flat.
const TURNED: f64 = 15.0;
/// Pixels of the frame below which a word is small.
const SMALL: f64 = 48.0;
/// By how much masks may reach out of their boxes, as a share of them.
const BEYOND: f64 = 0.05;
/// Share of a box's area below which a separate part is noise.
const NOISE: f64 = 0.005;
/// Fewest pixels of the picture for a character.
const NARROWEST: f64 = 1.0;

/// A picture that the segmenter looks at when that is first needed.
pub(super) struct Whole<'a> {
    pub picture: &'a Picture,
    pub seen: Option<Segmenter>,
}

/// What was found of a word.
#[derive(Default)]
pub(super) struct Found {
    pub text: Option<String>,
    pub confidence: Option<f32>,
    /// Characters that the detector saw.
    pub detected: Option<usize>,
    pub characters: Vec<Character>,
    pub flags: Vec<&'static str>,
    pub spent: Spent,
    pub looked: Looked,
}

/// A character with its pixels.
pub(super) struct Character {
    pub class: Option<char>,
    pub quad: [Place; 4],
    /// In the picture.
    pub points: Vec<(Place, bool)>,
    /// Numbers of pixels with their logits.
    pub pixels: Vec<(usize, f32)>,
    pub quality: f32,
    pub stability: f32,
    pub flags: Vec<&'static str>,
}

/// Finds a word's characters. What is wrong with the word itself is flagged.
pub(super) fn find(
    given: &request::Word,
    whole: &mut Whole<'_>,
    tools: &mut Tools,
    settings: &Settings,
) -> Result<Found> {
    let mut found = Found {
        text: given.text.clone(),
        ..Found::default()
    };
    let size = [whole.picture.width as f64, whole.picture.height as f64];
    let [left, top, right, bottom] = around(given.polygon.iter().copied());
    if left >= size[0] || top >= size[1] || right <= 0.0 || bottom <= 0.0 {
        found.flags.push("outside of the picture");
        return Ok(found);
    }
    let count = given.text.as_ref().map(|text| letters(text).len());
    let Some(strip) = Strip::new(&given.polygon, count) else {
        found.flags.push("outline without area");
        return Ok(found);
    };
    found.flags.extend(strip.flags.iter().copied());
    let strip = Arc::new(strip);
    let seen_whole = match looks_at_whole(&strip, size, tools.segmenter.side(), settings.parts) {
        false => None,
        true => Some(View::whole(
            whole.look(tools, &mut found.spent)?,
            strip.clone(),
        )),
    };
    let mut word = Word::new(whole.picture, strip.clone(), seen_whole);
    if given.ignored {
        found.flags.push("unreadable: by its box");
    } else if found.text.is_none()
        && settings.prompt != Prompt::Word
        && settings.prompt != Prompt::GivenBoxes
    {
        read(&mut word, tools, &mut found)?;
    }
    let boxes = boxes(given, &mut word, tools, settings, &mut found)?;
    found.characters = masks(&boxes, &mut word, tools, settings)?;
    found.detected = word.detected;
    found.spent.encode += word.spent.encode;
    found.spent.decode += word.spent.decode;
    found.looked = Looked {
        detect: found.looked.detect + word.looked.detect,
        read: found.looked.read + word.looked.read,
    };
    Ok(found)
}

/// The characters of a text that have ink.
fn letters(text: &str) -> Vec<char> {
    text.chars()
        .filter(|letter| !letter.is_whitespace())
        .collect()
}

fn looks_at_whole(strip: &Strip, size: [f64; 2], side: usize, parts: Parts) -> bool {
    if parts == Parts::Always || strip.is_turned(TURNED) {
        return false;
    }
    let in_frame = HEIGHT * strip.scale * side as f64 / size[0].max(size[1]);
    parts == Parts::Never || in_frame >= SMALL
}

impl Whole<'_> {
    fn look(&mut self, tools: &Tools, spent: &mut Spent) -> Result<Segmenter> {
        if let Some(seen) = &self.seen {
            return Ok(seen.clone());
        }
        let started = std::time::Instant::now();
        let mut seen = tools.segmenter.another();
        seen.look(self.picture)?;
        spent.encode += started.elapsed().as_secs_f64();
        self.seen = Some(seen.clone());
        Ok(seen)
    }
}

/// Reads a word whose text nobody wrote down.
fn read(word: &mut Word<'_>, tools: &Tools, found: &mut Found) -> Result<()> {
    let Some(reader) = &tools.reader else {
        found.flags.push("not read: no recogniser");
        return Ok(());
    };
    let started = std::time::Instant::now();
    let drawn = word.strip.draw(word.picture, word.strip.bounds(), 1.0)?;
    let reading = reader.read(&drawn)?;
    word.looked.read += started.elapsed().as_secs_f64();
    if letters(&reading.text).is_empty() {
        found.flags.push("nothing read in it");
    } else {
        found.text = Some(reading.text.trim().to_owned());
        found.confidence = Some(reading.confidence);
    }
    Ok(())
}

/// The boxes that show a word's characters; its own where they are not known.
fn boxes(
    given: &request::Word,
    word: &mut Word<'_>,
    tools: &mut Tools,
    settings: &Settings,
    found: &mut Found,
) -> Result<Vec<CharacterBox>> {
    let of_word = |word: &Word<'_>| {
        let bounds = word.strip.bounds();
        vec![CharacterBox {
            bounds,
            class: None,
            flags: Vec::new(),
        }]
    };
    let classes = found.text.as_deref().map(letters).unwrap_or_default();
    match settings.prompt {
        Prompt::Word => return Ok(of_word(word)),
        Prompt::GivenBoxes => {
            let read = given.characters.iter().map(|character| {
                let places = character
                    .polygon
                    .iter()
                    .filter_map(|at| word.strip.of_picture(*at));
                CharacterBox {
                    bounds: around(places),
                    class: letters(&character.text).first().copied(),
                    flags: Vec::new(),
                }
            });
            let has_area = |found: &CharacterBox| {
                let [left, top, right, bottom] = found.bounds;
                right > left && bottom > top
            };
            let read: Vec<CharacterBox> = read.filter(has_area).collect();
            if read.is_empty() {
                found.flags.push("no boxes of characters given: by its box");
                return Ok(of_word(word));
            }
            return Ok(read);
        }
        Prompt::Boxes | Prompt::BoxesAndPoints => {}
    }
    if given.ignored || classes.is_empty() {
        return Ok(of_word(word));
    }
    if word.strip.width * word.strip.scale < NARROWEST * classes.len() as f64 {
        found
            .flags
            .push("text longer than its box holds: by its box");
        return Ok(of_word(word));
    }
    let (boxes, flags) = character_boxes(word, &classes, tools)?;
    found.flags.extend(flags);
    Ok(boxes)
}

/// Masks of boxes, by the view that shows each best.
fn masks(
    boxes: &[CharacterBox],
    word: &mut Word<'_>,
    tools: &mut Tools,
    settings: &Settings,
) -> Result<Vec<Character>> {
    let bounds: Vec<_> = boxes.iter().map(|one| one.bounds).collect();
    let mut found: Vec<Option<Character>> = boxes.iter().map(|_| None).collect();
    let (picture, strip) = (word.picture, word.strip.clone());
    for (part, indices) in word.parts(&bounds, tools) {
        let view = word.view(tools, part)?;
        let sought: Vec<Sought> = indices
            .iter()
            .map(|index| Sought {
                bounds: view.bounds(boxes[*index].bounds),
                class: boxes[*index].class,
            })
            .collect();
        let templates = &mut tools.templates;
        let refined = refine(&view, &sought, templates, settings, &mut word.spent)?;
        for ((index, sought), refined) in indices.iter().zip(&sought).zip(refined) {
            let own = &boxes[*index];
            found[*index] = Some(character(picture, &strip, &view, own, sought, refined));
        }
    }
    Ok(found.into_iter().flatten().collect())
}

/// The pixels of the picture that are a mask's.
fn character(
    picture: &Picture,
    strip: &Strip,
    view: &View,
    own: &CharacterBox,
    sought: &Sought,
    refined: Refined,
) -> Character {
    let [left, top, right, bottom] = sought.bounds;
    let more = [BEYOND * (right - left), BEYOND * (bottom - top)];
    let inside = |[x, y]: Place| {
        (left - more[0]..right + more[0]).contains(&x)
            && (top - more[1]..bottom + more[1]).contains(&y)
    };
    let quad = strip.quad(own.bounds);
    let corners = [
        [left - more[0], top - more[1]],
        [right + more[0], top - more[1]],
        [right + more[0], bottom + more[1]],
        [left - more[0], bottom + more[1]],
    ];
    let region = around(
        corners
            .map(|at| view.to_picture(at))
            .into_iter()
            .chain(quad),
    );
    let range = |axis: usize, side: usize| {
        let within = |at: f64| at.clamp(0.0, side as f64) as usize;
        within(region[axis].floor() - 1.0)..within(region[axis + 2].ceil() + 1.0)
    };
    let (columns, rows) = (range(0, picture.width), range(1, picture.height));
    let mut logits = vec![f32::NEG_INFINITY; columns.len() * rows.len()];
    for (row, y) in rows.clone().enumerate() {
        for (column, x) in columns.clone().enumerate() {
            let place = view.of_picture([x as f64 + 0.5, y as f64 + 0.5]);
            if let Some(place) = place.filter(|place| inside(*place)) {
                logits[row * columns.len() + column] = view.logit(&refined.mask, place);
            }
        }
    }
    let area = |level: f32| logits.iter().filter(|logit| **logit > level).count() as f32;
    let stability = area(1.0) / area(-1.0);
    let kept = without_noise(&logits, [columns.len(), rows.len()], refined.parts);
    let number = |at: usize| {
        (rows.start + at / columns.len()) * picture.width + columns.start + at % columns.len()
    };
    let pixels = kept
        .into_iter()
        .map(|at| (number(at), logits[at]))
        .collect();
    let mut flags = own.flags.clone();
    flags.extend(refined.flags);
    Character {
        class: own.class,
        quad,
        points: refined
            .points
            .iter()
            .map(|(at, on)| (view.to_picture(*at), *on))
            .collect(),
        pixels,
        quality: refined.mask.quality,
        stability,
        flags,
    }
}

/// Places of the positive logits without small separate parts; of a letter of several parts as many as it has.
fn without_noise(logits: &[f32], [width, height]: [usize; 2], parts: usize) -> Vec<usize> {
    let inside: Vec<bool> = logits.iter().map(|logit| *logit > 0.0).collect();
    let boxed = logits.iter().filter(|logit| logit.is_finite()).count();
    let Ok(mask) = Mask::new(width, height, inside) else {
        return Vec::new();
    };
    let regions = Regions::of(&mask, true);
    let mut order: Vec<usize> = (0..regions.sizes().len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(regions.sizes()[*index]));
    let large = |index: &usize| regions.sizes()[*index] as f64 >= NOISE * boxed as f64;
    let kept: Vec<usize> = match parts {
        0 | 1 => order.into_iter().filter(large).collect(),
        parts => order.into_iter().take(parts).collect(),
    };
    let labels = regions.labels();
    (0..labels.len())
        .filter(|at| {
            labels[*at]
                .checked_sub(1)
                .is_some_and(|index| kept.contains(&index))
        })
        .collect()
}

/// The box of a strip's part, for tests of what is grown.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_parts_go_and_dots_stay() {
        let (width, height) = (40usize, 40usize);
        let logit = |at: usize| {
            let (x, y) = (at % width, at / width);
            let stroke = (18..22).contains(&x) && y > 12;
            let dot = (19..21).contains(&x) && (4..6).contains(&y);
            let speck = x == 2 && y == 30;
            if stroke || dot || speck { 3.0 } else { -3.0 }
        };
        let logits: Vec<f32> = (0..width * height).map(logit).collect();
        let has = |kept: &[usize], x: usize, y: usize| kept.contains(&(y * width + x));
        let kept = without_noise(&logits, [width, height], 2);
        assert!(has(&kept, 19, 5) && has(&kept, 20, 30) && !has(&kept, 2, 30));
        let kept = without_noise(&logits, [width, height], 1);
        assert!(!has(&kept, 2, 30) && has(&kept, 20, 30));
    }

    #[test]
    fn small_and_turned_words_are_looked_at_alone() {
        let strip = |points: [Place; 4]| Strip::new(&points, None).unwrap();
        let flat = strip([[0.0, 0.0], [200.0, 0.0], [200.0, 60.0], [0.0, 60.0]]);
        let turned = strip([[0.0, 0.0], [100.0, 100.0], [70.0, 130.0], [-30.0, 30.0]]);
        assert!(looks_at_whole(&flat, [512.0, 384.0], 1024, Parts::Auto));
        assert!(!looks_at_whole(&flat, [512.0, 384.0], 128, Parts::Auto));
        assert!(looks_at_whole(&flat, [512.0, 384.0], 128, Parts::Never));
        assert!(!looks_at_whole(&flat, [512.0, 384.0], 1024, Parts::Always));
        assert!(!looks_at_whole(&turned, [512.0, 384.0], 1024, Parts::Never));
    }
}
