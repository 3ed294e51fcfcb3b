//! The detector of characters: pictures to maps, and maps to boxes of words.

use brisk_media::shape::smallest_rectangle;
use brisk_media::{Picture, interpolate_bilinear};
use brisk_models::craft::{Craft, CraftConfig, LinkRefiner};
use brisk_nn::{Tensor, Trace, Weights};

use crate::error::Result;

/// Means and deviations of the colours that the network was trained with (ImageNet).
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];
/// By how much a picture is enlarged, and the longest side of what is looked at.
const ENLARGED: f64 = 1.5;
const LONGEST: f64 = 1280.0;
/// Sides of what is looked at are multiples of this.
const MULTIPLE: usize = 32;
/// Pixels of the smallest component that is a word.
const SMALLEST: usize = 10;

/// The network.
pub struct Detector {
    network: Craft,
    refiner: Option<LinkRefiner>,
}

/// What the network says of a picture, at half the size of what it looked at.
#[derive(Clone, Debug)]
pub struct RegionMap {
    /// Width and height.
    pub size: [usize; 2],
    /// How likely a place is the middle of a character; about 0..1.
    pub region: Vec<f32>,
    /// How likely it lies between two characters of a word.
    pub affinity: Vec<f32>,
    /// Pixels of the picture that a place is.
    pub scale: f64,
}

/// Thresholds of [`text_boxes`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextBox {
    /// What the most likely place of a word must reach.
    pub text_threshold: f32,
    /// What belongs to characters.
    pub low_text: f32,
    /// What joins them.
    pub link_threshold: f32,
}

impl Default for TextBox {
    fn default() -> Self {
        Self {
            text_threshold: 0.7,
            low_text: 0.4,
            link_threshold: 0.4,
        }
    }
}

impl Detector {
    /// From weights under [plain names](brisk_models::craft::plain_names).
    ///
    /// # Errors
    /// One report of every tensor that does not fit.
    pub fn load(config: &CraftConfig, weights: &Weights) -> Result<Self> {
        Ok(Self {
            network: Craft::load(config, weights)?,
            refiner: None,
        })
    }

    /// With a network that takes the place of its affinities.
    pub fn refined_by(self, refiner: LinkRefiner) -> Self {
        Self {
            refiner: Some(refiner),
            ..self
        }
    }

    /// Looks at a whole picture, enlarged as the authors do.
    ///
    /// # Errors
    /// A non-finite activation.
    pub fn look(&self, picture: &Picture) -> Result<RegionMap> {
        let longest = picture.width.max(picture.height) as f64;
        self.look_at(picture, (ENLARGED * longest).min(LONGEST) / longest)
    }

    /// Looks at a picture resized by `ratio`.
    ///
    /// # Errors
    /// A non-finite activation.
    pub fn look_at(&self, picture: &Picture, ratio: f64) -> Result<RegionMap> {
        let sides = [picture.width, picture.height];
        let size = sides.map(|side| ((side as f64 * ratio) as usize).max(1));
        let [wide, high] = size.map(|side| side.next_multiple_of(MULTIPLE));
        let pixels = detector_pixels(picture, size)?;
        let scores = self.network.forward(&pixels, &mut Trace::none())?;
        let map = |maps: &Tensor, index: usize| -> Result<Vec<f32>> {
            let map = maps.narrow(3, index, 1)?.contiguous()?.flatten_all()?;
            Ok(map.to_vec1()?)
        };
        Ok(RegionMap {
            size: [wide / 2, high / 2],
            region: map(&scores.maps, 0)?,
            affinity: match &self.refiner {
                Some(refiner) => map(&refiner.forward(&scores)?, 0)?,
                None => map(&scores.maps, 1)?,
            },
            scale: 2.0 / ratio,
        })
    }
}

/// A picture as the network takes it, resized to this width and height, with black beside it up to multiples of 32:
/// `[1, height, width, 3]`.
///
/// # Errors
/// A size out of limits.
pub fn detector_pixels(picture: &Picture, [width, height]: [usize; 2]) -> Result<Tensor> {
    // Colour by colour: of a large picture all three are a lot.
    let resized = [0, 1, 2].map(|channel| {
        let values = picture.pixels.iter().skip(channel).step_by(3);
        let plane: Vec<f32> = values.copied().map(f32::from).collect();
        interpolate_bilinear(&plane, 1, picture.height, picture.width, height, width)
    });
    let [wide, high] = [width, height].map(|side| side.next_multiple_of(MULTIPLE));
    // Black around it, before colours are normalised.
    let mut values = Vec::with_capacity(wide * high * 3);
    for (y, x) in (0..high).flat_map(|y| (0..wide).map(move |x| (y, x))) {
        for channel in 0..3 {
            let inside = x < width && y < height;
            let value = if inside {
                resized[channel][y * width + x].round()
            } else {
                0.0
            };
            values.push((value / 255.0 - MEAN[channel]) / DEVIATION[channel]);
        }
    }
    Ok(Tensor::from_vec(values, (1, high, wide, 3))?)
}

/// Boxes of words in pixels of the picture, corners from the top left clockwise, as the authors find them.
pub fn text_boxes(map: &RegionMap, how: &TextBox) -> Vec<[[f64; 2]; 4]> {
    let [width, height] = map.size;
    let text: Vec<bool> = map
        .region
        .iter()
        .map(|value| *value > how.low_text)
        .collect();
    let link: Vec<bool> = map
        .affinity
        .iter()
        .map(|value| *value > how.link_threshold)
        .collect();
    let mut labels = vec![0usize; text.len()];
    let mut found = Vec::new();
    let mut next = Vec::new();
    for start in 0..text.len() {
        if labels[start] != 0 || !(text[start] || link[start]) {
            continue;
        }
        let label = found.len() + 1;
        let mut pixels = Vec::new();
        labels[start] = label;
        next.push(start);
        while let Some(at) = next.pop() {
            pixels.push(at);
            let (x, y) = (at % width, at / width);
            let near = [
                (x > 0).then(|| at - 1),
                (x + 1 < width).then(|| at + 1),
                (y > 0).then(|| at - width),
                (y + 1 < height).then(|| at + width),
            ];
            for near in near.into_iter().flatten() {
                if labels[near] == 0 && (text[near] || link[near]) {
                    labels[near] = label;
                    next.push(near);
                }
            }
        }
        found.push(pixels);
    }
    let most = |pixels: &[usize]| {
        pixels
            .iter()
            .map(|at| map.region[*at])
            .fold(f32::NEG_INFINITY, f32::max)
    };
    let words = found
        .iter()
        .filter(|pixels| pixels.len() >= SMALLEST && most(pixels) >= how.text_threshold);
    words
        .filter_map(|pixels| of_component(pixels, &text, &link, map))
        .collect()
}

/// The box of a component: its text grown by as much as its thickness tells, in the smallest rectangle.
fn of_component(
    pixels: &[usize],
    text: &[bool],
    link: &[bool],
    map: &RegionMap,
) -> Option<[[f64; 2]; 4]> {
    let [width, height] = map.size;
    let range = |of: fn(usize, usize) -> usize| {
        let values = || pixels.iter().map(|at| of(*at, width));
        Some([values().min()?, values().max()?])
    };
    let ([left, right], [top, bottom]) = (
        range(|at, width| at % width)?,
        range(|at, width| at / width)?,
    );
    let (w, h) = (right - left + 1, bottom - top + 1);
    let area = pixels.len() as f64;
    let grow = ((area * w.min(h) as f64 / (w * h) as f64).sqrt() * 2.0) as usize;
    // A square of 1 + `grow` pixels about each, as OpenCV lays it: half of it, rounded down, before.
    let (before, behind) = (grow.div_ceil(2), grow / 2);
    let columns = [left.saturating_sub(grow), (right + grow + 1).min(width)];
    let rows = [top.saturating_sub(grow), (bottom + grow + 1).min(height)];
    let mut places = Vec::new();
    for at in pixels.iter().filter(|at| text[**at] || !link[**at]) {
        let (x, y) = (at % width, at / width);
        let edges = |at: usize, [least, most]: [usize; 2]| {
            [
                at.saturating_sub(behind).max(least) as f64,
                ((at + before).min(most - 1)) as f64,
            ]
        };
        let ([x0, x1], [y0, y1]) = (edges(x, columns), edges(y, rows));
        places.extend([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]);
    }
    let mut corners = smallest_rectangle(&places)?;
    let side = |a: [f64; 2], b: [f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
    let (wide, high) = (side(corners[0], corners[1]), side(corners[1], corners[2]));
    let ratio = wide.max(high) / (wide.min(high) + 1e-5);
    if (1.0 - ratio).abs() <= 0.1 {
        let extreme = |axis: usize| {
            let values = || {
                pixels
                    .iter()
                    .map(|at| [at % width, at / width][axis] as f64)
            };
            [
                values().fold(f64::INFINITY, f64::min),
                values().fold(0.0, f64::max),
            ]
        };
        let ([left, right], [top, bottom]) = (extreme(0), extreme(1));
        corners = [[left, top], [right, top], [right, bottom], [left, bottom]];
    }
    let first = (0..4).min_by(|a, b| {
        let sum = |corner: usize| corners[corner][0] + corners[corner][1];
        sum(*a).total_cmp(&sum(*b))
    })?;
    corners.rotate_left(first);
    Some(corners.map(|corner| corner.map(|at| at * map.scale)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_are_joined_are_one_word() {
        let (width, height) = (60usize, 24usize);
        let disc =
            |x: usize, y: usize, cx: usize| x.abs_diff(cx).pow(2) + y.abs_diff(12).pow(2) <= 16;
        let mut map = RegionMap {
            size: [width, height],
            region: vec![0.0; width * height],
            affinity: vec![0.0; width * height],
            scale: 2.0,
        };
        for at in 0..width * height {
            let (x, y) = (at % width, at / width);
            for centre in [10, 20, 45] {
                if disc(x, y, centre) {
                    map.region[at] = 0.9;
                }
            }
            if disc(x, y, 15) {
                map.affinity[at] = 0.8;
            }
        }
        let found = text_boxes(&map, &TextBox::default());
        assert_eq!(found.len(), 2);
        let bounds = |corners: &[[f64; 2]; 4], axis: usize| {
            let values = corners.iter().map(|corner| corner[axis]);
            (
                values.clone().fold(f64::INFINITY, f64::min),
                values.fold(0.0, f64::max),
            )
        };
        let (left, right) = bounds(&found[0], 0);
        assert!(
            left <= 12.0 && (48.0..64.0).contains(&right),
            "{left} {right}"
        );
        let (left, right) = bounds(&found[1], 0);
        assert!(
            (70.0..84.0).contains(&left) && right >= 98.0,
            "{left} {right}"
        );
        let strict = TextBox {
            text_threshold: 0.95,
            ..TextBox::default()
        };
        assert!(text_boxes(&map, &strict).is_empty());
    }
}
