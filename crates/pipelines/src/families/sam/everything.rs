//! Masks of everything that there is in a picture: prompts on a grid of points, of whose masks the good ones
//! stay that no better one covers.

use brisk_media::mask::Runs;
use brisk_media::{Mask, Picture};

use super::overlap::without_duplicates;
use super::{Crop, crops};
use crate::error::{Error, Result};

/// Whatever makes masks of points of a picture.
pub trait SegmentPoints {
    /// Looks at a picture, to which points refer from now on.
    ///
    /// # Errors
    /// What the networks report.
    fn look(&mut self, picture: &Picture) -> Result<()>;

    /// The masks of each point, in the picture's pixels.
    ///
    /// # Errors
    /// What the networks report.
    fn masks(&mut self, points: &[[f64; 2]]) -> Result<Vec<PointMasks>>;
}

/// Masks of one point.
#[derive(Clone, Debug)]
pub struct PointMasks {
    /// Logits `[masks, height, width]` in the size of the picture.
    pub logits: Vec<f32>,
    /// Expected intersection over union of each.
    pub qualities: Vec<f32>,
}

/// How masks of everything are found; names and defaults are those of the authors' generator.
#[derive(Clone, Debug, PartialEq)]
pub struct Everything {
    /// Points along a side of the picture.
    pub points_per_side: usize,
    /// Points whose masks exist at once.
    pub points_per_batch: usize,
    /// What a mask's expected quality must exceed; 0: not asked for.
    pub pred_iou_thresh: f32,
    /// How much of a mask must stay when its threshold moves; 0: not asked for.
    pub stability_score_thresh: f32,
    /// By how much it moves, up and down.
    pub stability_score_offset: f32,
    /// Logits above this are inside.
    pub mask_threshold: f32,
    /// Overlap of bounds from which on the better of two masks of a part stays alone.
    pub box_nms_thresh: f32,
    /// Layers of parts in which the picture is looked at again.
    pub crop_n_layers: usize,
    /// Overlap from which on the mask of the smaller part stays alone.
    pub crop_nms_thresh: f32,
    /// Overlap of parts, as a share of the shorter side.
    pub crop_overlap_ratio: f64,
    /// By how much points along a side become fewer from layer to layer.
    pub crop_n_points_downscale_factor: usize,
    /// Pixels of the smallest holes and separate parts that stay; 0: all.
    pub min_mask_region_area: usize,
}

impl Default for Everything {
    fn default() -> Self {
        Self {
            points_per_side: 32,
            points_per_batch: 64,
            pred_iou_thresh: 0.88,
            stability_score_thresh: 0.95,
            stability_score_offset: 1.0,
            mask_threshold: 0.0,
            box_nms_thresh: 0.7,
            crop_n_layers: 0,
            crop_nms_thresh: 0.7,
            crop_overlap_ratio: 512.0 / 1500.0,
            crop_n_points_downscale_factor: 1,
            min_mask_region_area: 0,
        }
    }
}

/// A mask with what speaks for it.
#[derive(Clone, Debug)]
pub struct FoundMask {
    /// The mask, in the whole picture.
    pub runs: Runs,
    /// Left, top, right and bottom of its pixels, the last ones included; zeros of an empty mask.
    pub bounds: [usize; 4],
    /// Expected intersection over union.
    pub quality: f32,
    /// Share of it that stays when its threshold moves.
    pub stability: f32,
    /// The point whose mask it is, in the picture's pixels.
    pub point: [f64; 2],
    /// The part in which it was found.
    pub crop: Crop,
}

impl FoundMask {
    fn corners(&self) -> [f32; 4] {
        self.bounds.map(|at| at as f32)
    }
}

impl Everything {
    /// Checks the numbers.
    ///
    /// # Errors
    /// One that makes no sense, by its name.
    pub fn check(&self) -> Result<()> {
        let counts = [
            ("points_per_side", self.points_per_side, 1024),
            ("points_per_batch", self.points_per_batch, 4096),
            ("crop_n_layers + 1", self.crop_n_layers.saturating_add(1), 7),
            (
                "crop_n_points_downscale_factor",
                self.crop_n_points_downscale_factor,
                1024,
            ),
        ];
        for (name, value, most) in counts {
            if !(1..=most).contains(&value) {
                return Err(Error::request(
                    name,
                    format!("is {value}; expected 1 to {most}"),
                ));
            }
        }
        let numbers = [
            ("pred_iou_thresh", self.pred_iou_thresh),
            ("stability_score_thresh", self.stability_score_thresh),
            ("stability_score_offset", self.stability_score_offset),
            ("mask_threshold", self.mask_threshold),
            ("box_nms_thresh", self.box_nms_thresh),
            ("crop_nms_thresh", self.crop_nms_thresh),
        ];
        if let Some((name, value)) = numbers.into_iter().find(|(_, value)| !value.is_finite()) {
            return Err(Error::request(
                name,
                format!("is {value}; expected a number"),
            ));
        }
        if !(0.0..1.0).contains(&self.crop_overlap_ratio) {
            let value = self.crop_overlap_ratio;
            return Err(Error::request(
                "crop_overlap_ratio",
                format!("is {value}; expected 0 to below 1"),
            ));
        }
        Ok(())
    }

    /// The masks of a picture, best first within each part.
    ///
    /// # Errors
    /// As [`Everything::check`], and what the networks report.
    pub fn find(
        &self,
        segmenter: &mut dyn SegmentPoints,
        picture: &Picture,
    ) -> Result<Vec<FoundMask>> {
        self.check()?;
        let size = [picture.width, picture.height];
        let parts = crops(size, self.crop_n_layers, self.crop_overlap_ratio);
        let mut found = Vec::new();
        for crop in &parts {
            found.extend(self.find_in(segmenter, picture, *crop)?);
        }
        if parts.len() > 1 {
            // Smaller parts go first.
            let score = |mask: &FoundMask| {
                let [width, height] = mask.crop.size();
                1.0 / (width * height) as f32
            };
            let scores: Vec<f32> = found.iter().map(score).collect();
            found = best(found, &scores, self.crop_nms_thresh);
        }
        if self.min_mask_region_area > 0 {
            found = self.cleaned(found);
        }
        Ok(found)
    }

    fn find_in(
        &self,
        segmenter: &mut dyn SegmentPoints,
        picture: &Picture,
        crop: Crop,
    ) -> Result<Vec<FoundMask>> {
        let ([left, top, ..], [width, height]) = (crop.bounds, crop.size());
        segmenter.look(&picture.crop(left, top, width, height)?)?;
        let points = grid(self.points_of(crop.layer), [width, height]);
        let mut found = Vec::new();
        for some in points.chunks(self.points_per_batch) {
            for (point, masks) in some.iter().zip(segmenter.masks(some)?) {
                let each = masks.logits.chunks_exact(width * height);
                for (logits, quality) in each.zip(&masks.qualities) {
                    found.extend(self.judged(logits, *quality, *point, crop, picture)?);
                }
            }
        }
        let scores: Vec<f32> = found.iter().map(|mask| mask.quality).collect();
        Ok(best(found, &scores, self.box_nms_thresh))
    }

    /// Points along a side of a part of this layer.
    pub(super) fn points_of(&self, layer: usize) -> usize {
        let factor = self
            .crop_n_points_downscale_factor
            .saturating_pow(layer as u32);
        (self.points_per_side / factor).max(1)
    }

    /// The mask of these logits over a part, if it is good enough.
    fn judged(
        &self,
        logits: &[f32],
        quality: f32,
        point: [f64; 2],
        crop: Crop,
        picture: &Picture,
    ) -> Result<Option<FoundMask>> {
        if self.pred_iou_thresh > 0.0 && quality <= self.pred_iou_thresh {
            return Ok(None);
        }
        let stability = stability(logits, self.mask_threshold, self.stability_score_offset);
        // A mask without any pixel has no score, and fails.
        let stable = stability >= self.stability_score_thresh;
        if self.stability_score_thresh > 0.0 && !stable {
            return Ok(None);
        }
        let ([left, top, ..], [width, height]) = (crop.bounds, crop.size());
        let inside = logits.iter().map(|logit| *logit > self.mask_threshold);
        let mask = Mask::new(width, height, inside.collect())?;
        let bounds = mask.bounds().unwrap_or([0; 4]);
        if crop.cuts(bounds, [picture.width, picture.height]) {
            return Ok(None);
        }
        let [x0, y0, x1, y1] = bounds;
        let mask = mask.placed(left, top, picture.width, picture.height)?;
        Ok(Some(FoundMask {
            runs: Runs::from(&mask),
            bounds: [x0 + left, y0 + top, x1 + left, y1 + top],
            quality,
            stability,
            point: [point[0] + left as f64, point[1] + top as f64],
            crop,
        }))
    }

    /// Masks without small holes and separate parts; of those that then cover each other, one that was not
    /// changed stays.
    fn cleaned(&self, found: Vec<FoundMask>) -> Vec<FoundMask> {
        let least = self.min_mask_region_area;
        let mut scores = Vec::with_capacity(found.len());
        let mut boxes = Vec::with_capacity(found.len());
        let mut cleaned = Vec::with_capacity(found.len());
        for mut one in found {
            let mask = Mask::from(&one.runs);
            let filled = mask.without_holes(least);
            let alone = filled.as_ref().unwrap_or(&mask).without_islands(least);
            let changed = alone.or(filled);
            scores.push(if changed.is_some() { 0.0 } else { 1.0 });
            // Bounds are looked for anew, also where nothing changed.
            let now = changed.as_ref().unwrap_or(&mask).bounds().unwrap_or([0; 4]);
            boxes.push(now.map(|at| at as f32));
            if let Some(changed) = changed {
                one.runs = Runs::from(&changed);
                one.bounds = now;
            }
            cleaned.push(Some(one));
        }
        let most = self.box_nms_thresh.max(self.crop_nms_thresh);
        let kept = without_duplicates(&boxes, &scores, most);
        kept.into_iter()
            .filter_map(|index| cleaned[index].take())
            .collect()
    }
}

/// Share of the logits above `threshold − offset` that lies above `threshold + offset`; not a number where there are
/// none.
pub(super) fn stability(logits: &[f32], threshold: f32, offset: f32) -> f32 {
    let mut stability = Stability::new(threshold, offset);
    stability.see(logits);
    stability.share()
}

/// [`stability`] of logits that come piece by piece.
pub(super) struct Stability {
    bounds: [f32; 2],
    above: [usize; 2],
}

impl Stability {
    pub(super) fn new(threshold: f32, offset: f32) -> Self {
        Self {
            bounds: [threshold + offset, threshold - offset],
            above: [0; 2],
        }
    }

    pub(super) fn see(&mut self, logits: &[f32]) {
        for (count, least) in self.above.iter_mut().zip(self.bounds) {
            *count += logits.iter().filter(|logit| **logit > least).count();
        }
    }

    pub(super) fn share(&self) -> f32 {
        self.above[0] as f32 / self.above[1] as f32
    }
}

fn best(found: Vec<FoundMask>, scores: &[f32], most: f32) -> Vec<FoundMask> {
    let boxes: Vec<[f32; 4]> = found.iter().map(FoundMask::corners).collect();
    let mut found: Vec<Option<FoundMask>> = found.into_iter().map(Some).collect();
    let kept = without_duplicates(&boxes, scores, most);
    kept.into_iter()
        .filter_map(|index| found[index].take())
        .collect()
}

/// Points in the middle of `count`² fields of a picture.
fn grid(count: usize, size: [usize; 2]) -> Vec<[f64; 2]> {
    let middle =
        |at: usize, length: usize| (2 * at + 1) as f64 / (2 * count) as f64 * length as f64;
    (0..count)
        .flat_map(|row| (0..count).map(move |column| (row, column)))
        .map(|(row, column)| [middle(column, size[0]), middle(row, size[1])])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_make_no_sense_are_named() {
        for (settings, name) in [
            (
                Everything {
                    points_per_side: 0,
                    ..Everything::default()
                },
                "points_per_side",
            ),
            (
                Everything {
                    crop_n_layers: 7,
                    ..Everything::default()
                },
                "crop_n_layers",
            ),
            (
                Everything {
                    box_nms_thresh: f32::NAN,
                    ..Everything::default()
                },
                "box_nms_thresh",
            ),
            (
                Everything {
                    crop_overlap_ratio: 1.0,
                    ..Everything::default()
                },
                "crop_overlap_ratio",
            ),
        ] {
            let message = settings.check().unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
        assert!(Everything::default().check().is_ok());
    }
}
