//! From a word to one box for each of its characters (the paper's Character Bounding-box Refinement).

use std::time::Instant;

use brisk_media::Picture;

use super::Tools;
use super::boxes::{self, Bounds};
use super::outline::{HEIGHT, Strip};
use super::view::{self, Spent, View};
use crate::error::Result;
use crate::families::sam::PicturePrompt;

/// Height of a word in the picture below which nothing can be found in it.
const LOWEST: f64 = 12.0;
/// By how much boxes are grown: pixels of the picture, and a share of their height.
const GROWN_PIXELS: f64 = 2.0;
const GROWN_SHARE: f64 = 0.05;
/// What lies around a word that the detector sees, as a share of its height, and its pixels a column of the strip:
/// letters about as large as on signs in photographs.
const MARGIN: f64 = 0.3;
const DETECTED: f64 = 0.5;
/// What of a box's surroundings the recogniser sees, as a share of its sides.
const SURROUNDINGS: f64 = 0.1;
/// Columns of a canvas on which a box is split, for each row.
const CANVAS: usize = 64;

/// A character's box in the strip.
#[derive(Clone, Debug)]
pub(super) struct CharacterBox {
    pub bounds: Bounds,
    pub class: Option<char>,
    pub flags: Vec<&'static str>,
}

/// Seconds of the networks besides the segmenter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looked {
    pub detect: f64,
    pub read: f64,
}

/// A word that is looked at.
pub(super) struct Word<'a> {
    pub picture: &'a Picture,
    pub strip: std::sync::Arc<Strip>,
    /// Of the whole picture; without it parts of the strip are looked at.
    whole: Option<View>,
    /// Characters that the detector saw.
    pub detected: Option<usize>,
    pub spent: Spent,
    pub looked: Looked,
}

impl<'a> Word<'a> {
    /// With the view of the whole picture, or without: then parts of the strip are looked at.
    pub fn new(picture: &'a Picture, strip: std::sync::Arc<Strip>, whole: Option<View>) -> Self {
        Self {
            picture,
            strip,
            whole,
            detected: None,
            spent: Spent::default(),
            looked: Looked::default(),
        }
    }

    /// The parts that show boxes, with the numbers of those that each shows; none stands for the whole picture.
    pub fn parts(&self, boxes: &[Bounds], tools: &Tools) -> Vec<(Option<Bounds>, Vec<usize>)> {
        if self.whole.is_some() {
            return vec![(None, (0..boxes.len()).collect())];
        }
        let parts = view::parts(boxes, tools.segmenter.side());
        let parts = parts.into_iter();
        parts.map(|(part, own)| (Some(part), own)).collect()
    }

    /// Looks at a part.
    pub fn view(&mut self, tools: &Tools, part: Option<Bounds>) -> Result<View> {
        match (part, &self.whole) {
            (None, Some(whole)) => Ok(whole.clone()),
            (part, _) => View::part(
                &tools.segmenter,
                self.picture,
                &self.strip,
                part.unwrap_or_else(|| self.strip.bounds()),
                &mut self.spent,
            ),
        }
    }
}

/// One box for each character of `classes`, from left to right, with what is unusual about all of them.
pub(super) fn character_boxes(
    word: &mut Word<'_>,
    classes: &[char],
    tools: &mut Tools,
) -> Result<(Vec<CharacterBox>, Vec<&'static str>)> {
    let advances: Vec<f64> = classes
        .iter()
        .map(|class| tools.templates.advance(*class))
        .collect();
    let count = classes.len();
    let strip = word.strip.clone();
    let mut flags = Vec::new();
    if HEIGHT * strip.scale < LOWEST {
        flags.push("split by widths: too low");
        let split = boxes::by_advances(strip.bounds(), &advances);
        return Ok((assigned(split, classes, &strip, &[]), flags));
    }
    let mut found = Vec::new();
    if let Some(detector) = &tools.detector {
        let started = Instant::now();
        // With what lies around it: letters at the edge of a picture are seen badly.
        let margin = MARGIN * HEIGHT;
        let [left, top, right, bottom] = strip.bounds();
        let around = [left - margin, top - margin, right + margin, bottom + margin];
        let drawn = strip.draw(word.picture, around, DETECTED)?;
        let map = detector.look_at(&drawn, 1.0)?;
        word.looked.detect += started.elapsed().as_secs_f64();
        found = boxes::from_region(&map.region, map.size, map.scale);
        for bounds in &mut found {
            for (axis, at) in bounds.iter_mut().enumerate() {
                let most = [strip.width, HEIGHT][axis % 2];
                *at = (*at / DETECTED - margin).clamp(0.0, most);
            }
        }
        found.retain(|[left, top, right, bottom]| left < right && top < bottom);
        word.detected = Some(found.len());
    } else {
        flags.push("no detector");
    }
    let mut found = boxes::merged(found, count);
    let mut notes: Vec<Vec<&'static str>> = vec![Vec::new(); count];
    if found.is_empty() {
        found = vec![strip.bounds()];
        if tools.detector.is_some() {
            flags.push("no character found");
        }
    }
    if found.len() < count {
        let recognised = read_each(word, &found, tools)?;
        let seen: Vec<usize> = recognised
            .iter()
            .map(|text| text.as_ref().map_or(1, |text| text.chars().count()))
            .collect();
        let seen = if tools.reader.is_some() {
            seen
        } else {
            Vec::new()
        };
        let held = boxes::shared_out(&found, &advances, &seen);
        let held = held.unwrap_or_else(|| vec![count]);
        let mut all = Vec::with_capacity(count);
        let mut from = 0;
        for (bounds, held) in found.iter().zip(held) {
            let own = &advances[from..from + held];
            if held == 1 {
                all.push(*bounds);
            } else if let Some(split) = split(word, *bounds, own, tools)? {
                all.extend(split);
            } else {
                notes[from..from + held]
                    .iter_mut()
                    .for_each(|note| note.push("split by widths"));
                all.extend(boxes::by_advances(*bounds, own));
            }
            from += held;
        }
        found = all;
    } else if found.len() == count && tools.reader.is_some() && tools.detector.is_some() {
        let read = read_each(word, &found, tools)?;
        for ((note, text), class) in notes.iter_mut().zip(read).zip(classes) {
            let same = text.as_deref().is_none_or(|text| {
                text.is_empty() || text.chars().any(|read| read.eq_ignore_ascii_case(class))
            });
            if !same {
                note.push("reads differently");
            }
        }
    }
    if found.len() != count {
        flags.push("split by widths");
        found = boxes::by_advances(strip.bounds(), &advances);
    }
    Ok((assigned(found, classes, &strip, &notes), flags))
}

/// Boxes with their classes, grown a little.
fn assigned(
    found: Vec<Bounds>,
    classes: &[char],
    strip: &Strip,
    notes: &[Vec<&'static str>],
) -> Vec<CharacterBox> {
    let each = found.into_iter().zip(classes).enumerate();
    let grown = |[left, top, right, bottom]: Bounds| {
        let more = (GROWN_PIXELS / strip.scale)
            .max(GROWN_SHARE * (bottom - top))
            .min(GROWN_MOST * HEIGHT);
        [
            (left - more).max(0.0),
            (top - more).max(0.0),
            (right + more).min(strip.width),
            (bottom + more).min(HEIGHT),
        ]
    };
    each.map(|(index, (bounds, class))| CharacterBox {
        bounds: grown(bounds),
        class: Some(*class),
        flags: notes.get(index).cloned().unwrap_or_default(),
    })
    .collect()
}

/// The most that boxes are grown, as a share of the strip's height.
const GROWN_MOST: f64 = 0.1;

/// What the recogniser reads in each box; none without one.
fn read_each(word: &mut Word<'_>, found: &[Bounds], tools: &Tools) -> Result<Vec<Option<String>>> {
    let Some(reader) = &tools.reader else {
        return Ok(vec![None; found.len()]);
    };
    let started = Instant::now();
    let mut read = Vec::with_capacity(found.len());
    for [left, top, right, bottom] in found {
        let more = [SURROUNDINGS * (right - left), SURROUNDINGS * (bottom - top)];
        let around = [
            left - more[0],
            top - more[1],
            right + more[0],
            bottom + more[1],
        ];
        let drawn = word.strip.draw(word.picture, around, 1.0)?;
        read.push(Some(reader.read(&drawn)?.text.replace(' ', "")));
    }
    word.looked.read += started.elapsed().as_secs_f64();
    Ok(read)
}

/// Splits a box of several characters by the segmenter's logits in it.
fn split(
    word: &mut Word<'_>,
    bounds: Bounds,
    advances: &[f64],
    tools: &Tools,
) -> Result<Option<Vec<Bounds>>> {
    let part = word
        .parts(&[bounds], tools)
        .pop()
        .and_then(|(part, _)| part);
    let view = word.view(tools, part)?;
    let prompt = PicturePrompt {
        bounds: Some(view.bounds(bounds)),
        ..PicturePrompt::default()
    };
    let Some(mask) = view.masks(&[prompt], &mut word.spent)?.pop() else {
        return Ok(None);
    };
    // Over the strip's box, which a turned word's own one in the picture is not.
    let ratio = (bounds[2] - bounds[0]) / (bounds[3] - bounds[1]).max(1e-9);
    let size = [
        ((CANVAS as f64 * ratio) as usize).clamp(8, 32 * CANVAS),
        CANVAS,
    ];
    let logits = view.strip_canvas(&mask, bounds, size);
    Ok(boxes::split(&logits, size[0], bounds, advances))
}
