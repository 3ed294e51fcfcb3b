//! What the segmenter looks at: the whole picture, or a part of a word's strip that fills its frame.

use std::sync::Arc;
use std::time::Instant;

use brisk_media::Picture;
use brisk_media::shape::Place;

use super::boxes::Bounds;
use super::outline::{HEIGHT, Strip};
use crate::error::Result;
use crate::families::sam::{CoarseMask, PicturePrompt, Segmenter};

/// What a part of a strip shows beside it, as a share of the strip's height.
const MARGIN: f64 = 0.2;
/// Columns of a part, as a share of the strip's height.
const ASPECT: f64 = 2.0;

/// A picture that was looked at, with the way between the word's strip, the picture and it.
pub(super) struct View {
    seen: Segmenter,
    lies: Lies,
}

enum Lies {
    /// It is the picture.
    Whole(Arc<Strip>),
    /// It is a part of the strip, its top left at this place, with so many pixels a column.
    Part {
        strip: Arc<Strip>,
        part: Bounds,
        zoom: [f64; 2],
    },
}

/// Seconds of the segmenter's parts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    pub encode: f64,
    pub decode: f64,
}

impl View {
    /// Of the whole picture, which the segmenter has looked at.
    pub fn whole(seen: Segmenter, strip: Arc<Strip>) -> Self {
        Self {
            seen,
            lies: Lies::Whole(strip),
        }
    }

    /// Looks at a part of a strip.
    pub fn part(
        segmenter: &Segmenter,
        picture: &Picture,
        strip: &Arc<Strip>,
        part: Bounds,
        spent: &mut Spent,
    ) -> Result<Self> {
        let started = Instant::now();
        let zoom = segmenter.side() as f64 / (part[2] - part[0]).max(part[3] - part[1]);
        let drawn = strip.draw(picture, part, zoom)?;
        let mut seen = segmenter.another();
        seen.look(&drawn)?;
        spent.encode += started.elapsed().as_secs_f64();
        let zoom = [
            drawn.width as f64 / (part[2] - part[0]),
            drawn.height as f64 / (part[3] - part[1]),
        ];
        Ok(Self {
            seen,
            lies: Lies::Part {
                strip: strip.clone(),
                part,
                zoom,
            },
        })
    }

    /// Where a place of the picture lies in what is seen.
    pub fn of_picture(&self, place: Place) -> Option<Place> {
        match &self.lies {
            Lies::Whole(_) => Some(place),
            Lies::Part { strip, .. } => strip.of_picture(place).map(|at| self.of_strip(at)),
        }
    }

    /// Where a place of what is seen lies in the picture.
    pub fn to_picture(&self, [x, y]: Place) -> Place {
        match &self.lies {
            Lies::Whole(_) => [x, y],
            Lies::Part { strip, part, zoom } => {
                strip.to_picture([part[0] + x / zoom[0], part[1] + y / zoom[1]])
            }
        }
    }

    fn of_strip(&self, [x, y]: Place) -> Place {
        match &self.lies {
            Lies::Whole(strip) => strip.to_picture([x, y]),
            Lies::Part { part, zoom, .. } => [(x - part[0]) * zoom[0], (y - part[1]) * zoom[1]],
        }
    }

    /// The upright box around a box of the strip.
    pub fn bounds(&self, [left, top, right, bottom]: Bounds) -> Bounds {
        let corners = [[left, top], [right, top], [right, bottom], [left, bottom]];
        around(corners.map(|at| self.of_strip(at)).iter().copied())
    }

    /// Single masks of prompts in its pixels.
    pub fn masks(&self, prompts: &[PicturePrompt], spent: &mut Spent) -> Result<Vec<CoarseMask>> {
        let started = Instant::now();
        let masks = self.seen.coarse_masks(prompts)?;
        spent.decode += started.elapsed().as_secs_f64();
        Ok(masks)
    }

    /// The logit of a mask at a place of what is seen.
    pub fn logit(&self, mask: &CoarseMask, place: Place) -> f32 {
        let Ok(frame) = self.seen.frame() else {
            return f32::NEG_INFINITY;
        };
        let [x, y] = frame.place(place);
        let cell = |at: f32, count: usize| (at * count as f32 / frame.side as f32) - 0.5;
        between(mask, cell(x, mask.size[0]), cell(y, mask.size[1]))
    }

    /// Logits of a mask over a box of what is seen, on a canvas of this width and height.
    pub fn canvas(&self, mask: &CoarseMask, bounds: Bounds, size: [usize; 2]) -> Vec<f32> {
        on_canvas(bounds, size)
            .map(|at| self.logit(mask, at))
            .collect()
    }

    /// The same over a box of the strip.
    pub fn strip_canvas(&self, mask: &CoarseMask, bounds: Bounds, size: [usize; 2]) -> Vec<f32> {
        on_canvas(bounds, size)
            .map(|at| self.logit(mask, self.of_strip(at)))
            .collect()
    }
}

/// The parts of a strip that are looked at one by one, each a box with its margin: square-like ones, the next half a part
/// on; all of it where that is no longer.
pub(super) fn parts(strip: &Strip) -> Vec<Bounds> {
    let margin = MARGIN * HEIGHT;
    let part = |left: f64, right: f64| [left - margin, -margin, right + margin, HEIGHT + margin];
    let wide = ASPECT * HEIGHT;
    if strip.width <= 1.25 * wide {
        return vec![part(0.0, strip.width)];
    }
    let count = ((strip.width - wide) / (wide / 2.0)).ceil().max(1.0) as usize;
    let step = (strip.width - wide) / count as f64;
    (0..=count)
        .map(|index| part(index as f64 * step, index as f64 * step + wide))
        .collect()
}

/// The part that shows a box best: in it, and nearest to its middle; none where none holds it.
pub(super) fn part_of(parts: &[Bounds], bounds: Bounds) -> Option<usize> {
    let slack = MARGIN * HEIGHT / 2.0;
    let holds = |part: &Bounds| bounds[0] >= part[0] + slack && bounds[2] <= part[2] - slack;
    let far = |part: &Bounds| (bounds[0] + bounds[2] - part[0] - part[2]).abs();
    let fitting = (0..parts.len()).filter(|index| holds(&parts[*index]));
    fitting.min_by(|a, b| far(&parts[*a]).total_cmp(&far(&parts[*b])))
}

/// The middles of a canvas's pixels where it covers a box.
fn on_canvas(bounds: Bounds, [width, height]: [usize; 2]) -> impl Iterator<Item = Place> {
    let step = [
        (bounds[2] - bounds[0]) / width as f64,
        (bounds[3] - bounds[1]) / height as f64,
    ];
    (0..width * height).map(move |at| {
        [
            bounds[0] + ((at % width) as f64 + 0.5) * step[0],
            bounds[1] + ((at / width) as f64 + 0.5) * step[1],
        ]
    })
}

/// The upright box around places.
pub(super) fn around(places: impl Iterator<Item = Place>) -> Bounds {
    let start = [
        f64::INFINITY,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NEG_INFINITY,
    ];
    places.fold(start, |[left, top, right, bottom], [x, y]| {
        [left.min(x), top.min(y), right.max(x), bottom.max(y)]
    })
}

fn between(mask: &CoarseMask, x: f32, y: f32) -> f32 {
    let [width, height] = mask.size;
    let within = |at: f32, side: usize| at.clamp(0.0, (side - 1) as f32);
    let (x, y) = (within(x, width), within(y, height));
    let (left, top) = (x as usize, y as usize);
    let (right, below) = ((left + 1).min(width - 1), (top + 1).min(height - 1));
    let (across, down) = (x - left as f32, y - top as f32);
    let line = |row: usize| {
        let row = &mask.logits[row * width..];
        row[left] * (1.0 - across) + row[right] * across
    };
    line(top) * (1.0 - down) + line(below) * down
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_a_strip_and_hold_every_character() {
        let outline = [[0.0, 0.0], [900.0, 0.0], [900.0, 100.0], [0.0, 100.0]];
        let strip = Strip::new(&outline, None).unwrap();
        let parts = parts(&strip);
        assert!(parts.len() > 4);
        for index in 0..12 {
            let left = index as f64 * 90.0;
            let bounds = [left, 0.0, left + 100.0, HEIGHT];
            let part = parts[part_of(&parts, bounds).unwrap()];
            assert!(part[0] < bounds[0] && bounds[2] < part[2]);
        }
        assert_eq!(part_of(&parts, strip.bounds()), None);
        let short =
            Strip::new(&[[0.0, 0.0], [90.0, 0.0], [90.0, 50.0], [0.0, 50.0]], None).unwrap();
        assert_eq!(super::parts(&short).len(), 1);
    }

    #[test]
    fn logits_lie_between_those_of_cells() {
        let mask = CoarseMask {
            logits: vec![0.0, 2.0, 4.0, 6.0],
            size: [2, 2],
            quality: 1.0,
        };
        assert_eq!(between(&mask, 0.5, 0.5), 3.0);
        assert_eq!(between(&mask, -3.0, 9.0), 4.0);
    }
}
