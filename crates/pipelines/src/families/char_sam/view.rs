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
/// Most columns of a part without its margins, as a share of the strip's height.
const ASPECT: f64 = 2.0;
/// Rows of the frame that the strip is to have; a small frame shows fewer columns.
const ROWS: f64 = 80.0;

/// A picture that was looked at, with the way between the word's strip, the picture and it.
#[derive(Clone)]
pub(super) struct View {
    seen: Segmenter,
    lies: Lies,
}

#[derive(Clone)]
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

/// The parts of a strip that are looked at one by one, with the numbers of the boxes that each shows: neighbours together,
/// as many as a frame of this side shows well.
pub(super) fn parts(boxes: &[Bounds], side: usize) -> Vec<(Bounds, Vec<usize>)> {
    let most = HEIGHT * (side as f64 / ROWS - 2.0 * MARGIN).clamp(1.0, ASPECT);
    let mut order: Vec<usize> = (0..boxes.len()).collect();
    order.sort_by(|a, b| boxes[*a][0].total_cmp(&boxes[*b][0]));
    let mut found: Vec<([f64; 2], Vec<usize>)> = Vec::new();
    for index in order {
        let [left, _, right, _] = boxes[index];
        match found.last_mut() {
            Some((range, own)) if range[1].max(right) - range[0] <= most => {
                range[1] = range[1].max(right);
                own.push(index);
            }
            _ => found.push(([left, right], vec![index])),
        }
    }
    let part = |[left, right]: [f64; 2]| {
        let half = (right - left).max(HEIGHT) / 2.0 + MARGIN * HEIGHT;
        let middle = (left + right) / 2.0;
        [
            middle - half,
            -MARGIN * HEIGHT,
            middle + half,
            (1.0 + MARGIN) * HEIGHT,
        ]
    };
    let found = found.into_iter();
    found.map(|(range, own)| (part(range), own)).collect()
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
    fn parts_show_every_box_with_its_neighbours() {
        let boxes: Vec<Bounds> = (0..12)
            .map(|index| f64::from(index) * 90.0)
            .map(|left| [left, 0.0, left + 100.0, HEIGHT])
            .collect();
        for (side, each) in [(1024, 2), (128, 1)] {
            let parts = parts(&boxes, side);
            let mut shown = Vec::new();
            for ([left, top, right, bottom], own) in &parts {
                assert!(own.len() <= each && *top < 0.0 && *bottom > HEIGHT);
                for index in own {
                    assert!(*left < boxes[*index][0] && boxes[*index][2] < *right);
                }
                shown.extend(own.clone());
            }
            assert_eq!(shown, (0..12).collect::<Vec<_>>());
            assert_eq!(parts.len(), 12 / each);
        }
        let wide = parts(&[[0.0, 0.0, 900.0, HEIGHT]], 1024);
        assert!(wide.len() == 1 && wide[0].0[2] > 900.0);
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
