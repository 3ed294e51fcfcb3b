//! Masks to look at: as files of their own, and laid over their picture.

use png::{BitDepth, ColorType};

use super::Mask;
use crate::png_file::encode_rows;
use crate::{Error, Picture, Result};

/// Share of a mask's colour in the pixels inside.
const SHARE: f32 = 0.45;
/// Half the side of the square that a point becomes, in pixels of a picture of 500 pixels.
const POINT: f64 = 4.0;
/// From so many points on they are drawn smaller.
const MANY: usize = 24;
/// Green shows what is asked for, red what is not.
const ASKED: [u8; 3] = [40, 220, 60];
const NOT_ASKED: [u8; 3] = [235, 40, 40];
const BOX: [u8; 3] = [255, 255, 255];

/// What was shown of a picture, in its pixels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks {
    /// Points, and whether they are in what is looked for.
    pub points: Vec<([f64; 2], bool)>,
    /// Left, top, right and bottom.
    pub boxes: Vec<[f64; 4]>,
    /// Outlines, each closed.
    pub outlines: Vec<Vec<[f64; 2]>>,
}

impl Mask {
    /// A grey PNG file: 255 inside, 0 outside.
    ///
    /// # Errors
    /// None that a mask of allowed size gives.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let size = [self.width, self.height];
        let rows = self.pixels.chunks_exact(self.width.max(1));
        encode_rows(
            size,
            (ColorType::Grayscale, BitDepth::Eight),
            rows,
            |row, grey| {
                grey.extend(row.iter().map(|inside| 255 * u8::from(*inside)));
            },
        )
    }

    /// From a picture: inside is what is brighter than half.
    ///
    /// # Errors
    /// A size out of limits.
    pub fn from_picture(picture: &Picture) -> Result<Self> {
        let pixels = picture.pixels.chunks_exact(3);
        let bright = |pixel: &[u8]| pixel.iter().map(|part| u32::from(*part)).sum::<u32>() > 382;
        Self::new(picture.width, picture.height, pixels.map(bright).collect())
    }
}

/// A picture with `masks` of its size laid over it, each in a colour of its own with its border drawn, smaller
/// ones above larger ones, and what was shown of it on top.
///
/// # Errors
/// A mask of another size.
pub fn overlay(picture: &Picture, masks: &[Mask], marks: &Marks) -> Result<Picture> {
    let mut drawn = picture.clone();
    let mut order: Vec<(usize, usize)> = Vec::with_capacity(masks.len());
    for (index, mask) in masks.iter().enumerate() {
        let (found, wanted) = ([mask.width, mask.height], [picture.width, picture.height]);
        if found != wanted {
            return Err(Error::Mismatch(found[0], found[1], wanted[0], wanted[1]));
        }
        order.push((mask.area(), index));
    }
    order.sort_by_key(|(area, index)| (std::cmp::Reverse(*area), *index));
    for (_, index) in order {
        lay(&mut drawn, &masks[index], colour(index));
    }
    let unit = picture.width.max(picture.height) as f64 / 500.0;
    for bounds in &marks.boxes {
        frame(&mut drawn, *bounds, unit.max(1.0));
    }
    for outline in &marks.outlines {
        let next = outline.iter().cycle().skip(1);
        for (from, to) in outline.iter().zip(next) {
            line(&mut drawn, *from, *to, unit.max(1.0));
        }
    }
    // Of many points each takes less room.
    let point = if marks.points.len() > MANY {
        POINT / 2.0
    } else {
        POINT
    };
    for ([x, y], asked) in &marks.points {
        let side = (point * unit).max(1.0);
        let outer = [
            x - side - unit,
            y - side - unit,
            x + side + unit,
            y + side + unit,
        ];
        fill(&mut drawn, outer, BOX);
        let colour = if *asked { ASKED } else { NOT_ASKED };
        fill(&mut drawn, [x - side, y - side, x + side, y + side], colour);
    }
    Ok(drawn)
}

/// The colour of a number: hues as far apart as they can be, whatever their number.
fn colour(index: usize) -> [u8; 3] {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    let hue = (0.58 + index as f64 * GOLDEN).fract() * 6.0;
    [0.0, 4.0, 2.0].map(|shift| {
        let distance = (hue + shift).rem_euclid(6.0);
        let part = ((distance - 3.0).abs() - 1.0).clamp(0.0, 1.0);
        (40.0 + 215.0 * part) as u8
    })
}

fn lay(picture: &mut Picture, mask: &Mask, colour: [u8; 3]) {
    let (width, height) = (mask.width, mask.height);
    for at in (0..mask.pixels.len()).filter(|at| mask.pixels[*at]) {
        let (x, y) = (at % width, at / width);
        let near = [
            (x > 0).then(|| at - 1),
            (x + 1 < width).then(|| at + 1),
            (y > 0).then(|| at - width),
            (y + 1 < height).then(|| at + width),
        ];
        let border = near.into_iter().flatten().any(|near| !mask.pixels[near]);
        let share = if border { 1.0 } else { SHARE };
        for (value, part) in picture.pixels[3 * at..][..3].iter_mut().zip(colour) {
            let mixed = f32::from(*value) * (1.0 - share) + f32::from(part) * share;
            *value = mixed as u8;
        }
    }
}

/// The border of a box, `thick` pixels inwards.
fn frame(picture: &mut Picture, [left, top, right, bottom]: [f64; 4], thick: f64) {
    for side in [
        [left, top, right, top + thick],
        [left, bottom - thick, right, bottom],
        [left, top, left + thick, bottom],
        [right - thick, top, right, bottom],
    ] {
        fill(picture, side, BOX);
    }
}

/// A straight line, of which only what can be seen is walked, however far its ends lie.
fn line(picture: &mut Picture, from: [f64; 2], to: [f64; 2], thick: f64) {
    let way = [to[0] - from[0], to[1] - from[1]];
    let (mut first, mut last) = (0.0f64, 1.0f64);
    for (axis, side) in [picture.width, picture.height].into_iter().enumerate() {
        let ends = [-thick, side as f64 + thick].map(|end| end - from[axis]);
        if way[axis] != 0.0 {
            let [a, b] = ends.map(|end| end / way[axis]);
            (first, last) = (first.max(a.min(b)), last.min(a.max(b)));
        } else if ends[0] > 0.0 || ends[1] < 0.0 {
            return;
        }
    }
    if first > last {
        return;
    }
    let far = way[0].abs().max(way[1].abs()) * (last - first);
    let steps = far.ceil().max(1.0) as usize;
    for step in 0..=steps {
        let share = first + step as f64 / steps as f64 * (last - first);
        let [x, y] = [0, 1].map(|axis: usize| from[axis] + share * way[axis]);
        let half = thick / 2.0;
        fill(picture, [x - half, y - half, x + half, y + half], BOX);
    }
}

/// One colour in what lies in the picture of a box.
fn fill(picture: &mut Picture, [left, top, right, bottom]: [f64; 4], colour: [u8; 3]) {
    let range = |from: f64, to: f64, most: usize| {
        let within = |at: f64| at.round().clamp(0.0, most as f64) as usize;
        within(from)..within(to)
    };
    for y in range(top, bottom, picture.height) {
        for x in range(left, right, picture.width) {
            let at = 3 * (y * picture.width + x);
            picture.pixels[at..at + 3].copy_from_slice(&colour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode_picture;

    fn square(from: usize, to: usize) -> Mask {
        let inside = |at: usize| (from..to).contains(&(at % 20)) && (from..to).contains(&(at / 20));
        Mask::new(20, 20, (0..400).map(inside).collect()).unwrap()
    }

    #[test]
    fn files_hold_the_mask() {
        let mask = square(3, 9);
        let picture = decode_picture(&mask.to_png().unwrap(), "mask.png").unwrap();
        assert_eq!(Mask::from_picture(&picture).unwrap(), mask);
        assert!(picture.pixels.iter().all(|value| [0, 255].contains(value)));
    }

    #[test]
    fn smaller_masks_lie_above_larger_ones() {
        let picture = Picture::filled(20, 20, [100; 3]);
        let [small, large] = [square(8, 12), square(2, 18)];
        let drawn = overlay(&picture, &[small, large], &Marks::default()).unwrap();
        assert_eq!(drawn.pixel(0, 0), Some([100; 3]));
        assert_eq!(drawn.pixel(2, 2), Some(colour(1)));
        assert_eq!(drawn.pixel(8, 9), Some(colour(0)));
        assert_ne!(drawn.pixel(5, 5), drawn.pixel(9, 9));
        let other = Picture::filled(21, 20, [0; 3]);
        assert!(overlay(&other, &[square(1, 2)], &Marks::default()).is_err());
    }

    #[test]
    fn marks_beyond_the_picture_are_cut() {
        let picture = Picture::filled(20, 20, [0; 3]);
        let marks = Marks {
            points: vec![([19.0, 0.0], true), ([1.0, 18.0], false)],
            boxes: vec![[-5.0, 4.0, 300.0, 9.0]],
            outlines: vec![vec![[3.0, 12.0], [1e6, 12.0], [3.0, 1e6]]],
        };
        let drawn = overlay(&picture, &[], &marks).unwrap();
        assert_eq!(drawn.pixel(19, 0), Some(ASKED));
        assert_eq!(drawn.pixel(1, 18), Some(NOT_ASKED));
        assert_eq!(drawn.pixel(12, 12), Some(BOX));
        assert_eq!(
            (drawn.pixel(10, 4), drawn.pixel(10, 6)),
            (Some(BOX), Some([0; 3]))
        );
    }
}
