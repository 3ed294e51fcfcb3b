//! Batches of pictures from a data set, augmentation included, without a tensor operation a pixel.

use brisk_media::{Picture, byte_to_signed, signed_to_byte};
use brisk_nn::Tensor;
use brisk_pipelines::{Control, Event};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::pictures::{PictureData, PictureEntry, PictureSet, PictureShape};
use crate::error::{Error, Result};
use crate::rng::Rng;

/// Random changes to training pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// Mirror every second picture.
    pub flip: bool,
    /// Largest shift in pixels along each axis; white comes in.
    pub shift: usize,
    /// Share of pictures whose hues change: a channel permutation or a rotation about the grey axis, so white stays white.
    pub hue_probability: f64,
    /// Share of pictures that are darkened.
    pub brightness_probability: f64,
    /// Lowest factor of the darkening, 0..=1.
    pub brightness_min: f64,
}

/// One picture's draw.
#[derive(Debug, Clone, Copy)]
struct Change {
    flip: bool,
    shift: (isize, isize),
    /// What each output channel takes of each input channel, brightness included.
    colours: Option<[[f32; 3]; 3]>,
}

const IDENTITY: [[f32; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

impl Augmentation {
    /// Refuses shares that are none, and shifts that leave nothing of pictures of `size` pixels.
    pub(crate) fn validate(&self, size: usize) -> Result<()> {
        for (key, value) in [
            ("hue_probability", self.hue_probability),
            ("brightness_probability", self.brightness_probability),
            ("brightness_min", self.brightness_min),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Recipe(format!(
                    "augmentation.{key} is {value}, expected 0 to 1"
                )));
            }
        }
        if self.shift >= size {
            return Err(Error::Recipe(format!(
                "augmentation.shift is {}, expected less than the {size} pixels of a picture",
                self.shift
            )));
        }
        Ok(())
    }

    fn draw(&self, rng: &mut Rng) -> Change {
        let flip = self.flip && rng.chance(0.5);
        let span = 2 * self.shift + 1;
        let mut offset = || rng.below(span) as isize - self.shift as isize;
        let shift = (offset(), offset());
        let hue = rng.chance(self.hue_probability).then(|| {
            if rng.chance(0.5) {
                let order = rng.permutation(3);
                [IDENTITY[order[0]], IDENTITY[order[1]], IDENTITY[order[2]]]
            } else {
                hue_rotation(std::f64::consts::TAU * rng.uniform())
            }
        });
        let brightness = rng
            .chance(self.brightness_probability)
            .then(|| (self.brightness_min + (1.0 - self.brightness_min) * rng.uniform()) as f32);
        let colours = (hue.is_some() || brightness.is_some()).then(|| {
            let factor = brightness.unwrap_or(1.0);
            hue.unwrap_or(IDENTITY)
                .map(|row| row.map(|weight| weight * factor))
        });
        Change {
            flip,
            shift,
            colours,
        }
    }
}

/// The rotation of RGB about the grey axis; every row sums to one.
fn hue_rotation(angle: f64) -> [[f32; 3]; 3] {
    let (sin, cos) = angle.sin_cos();
    let mixed = (1.0 - cos) / 3.0;
    let skew = sin / 3f64.sqrt();
    let (same, next, previous) = (
        (cos + mixed) as f32,
        (mixed - skew) as f32,
        (mixed + skew) as f32,
    );
    [
        [same, next, previous],
        [previous, same, next],
        [next, previous, same],
    ]
}

/// A picture's values in −1..=1, pixel by pixel.
pub(crate) fn signed(picture: &Picture) -> impl Iterator<Item = f32> {
    picture.pixels.iter().map(|byte| byte_to_signed(*byte))
}

/// Writes planes `[3,S,S]` as channels-last values in −1..=1.
fn write_plain(planes: &[u8], target: &mut [f32]) {
    let area = planes.len() / 3;
    let (red, rest) = planes.split_at(area);
    let (green, blue) = rest.split_at(area);
    for (((pixel, r), g), b) in target.chunks_exact_mut(3).zip(red).zip(green).zip(blue) {
        pixel.copy_from_slice(&[*r, *g, *b].map(byte_to_signed));
    }
}

fn write_changed(planes: &[u8], size: usize, change: Change, target: &mut [f32]) {
    let area = size * size;
    let inside = |position: usize, shift: isize| {
        position
            .checked_add_signed(-shift)
            .filter(|source| *source < size)
    };
    for (y, row) in target.chunks_exact_mut(3 * size).enumerate() {
        let source_y = inside(y, change.shift.0);
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let source = source_y.zip(inside(x, change.shift.1)).map(|(y, x)| {
                let x = if change.flip { size - 1 - x } else { x };
                y * size + x
            });
            // White outside; colours apply to it too, so that the background stays of one piece.
            let rgb = match source {
                Some(at) => [planes[at], planes[area + at], planes[2 * area + at]].map(f32::from),
                None => [255.0; 3],
            };
            let rgb = match &change.colours {
                Some(matrix) => matrix.map(|row| {
                    (row[0] * rgb[0] + row[1] * rgb[1] + row[2] * rgb[2]).clamp(0.0, 255.0)
                }),
                None => rgb,
            };
            pixel.copy_from_slice(&rgb.map(|value| value / 127.5 - 1.0));
        }
    }
}

fn planes(data: &PictureData, index: usize) -> Result<&[u8]> {
    data.planes(index).ok_or_else(|| {
        Error::Data(format!(
            "there is no picture {index} among {} bytes of pictures",
            data.bytes().len()
        ))
    })
}

/// The shape of the pictures `indices`.
fn shape_of(data: &PictureData, indices: &[usize]) -> Result<PictureShape> {
    let mut shapes = indices.iter().map(|index| data.shape(*index));
    let shape = shapes.next().flatten();
    shape
        .filter(|shape| shapes.all(|other| other == Some(*shape)))
        .ok_or_else(|| Error::Data("a batch of no pictures, or of several shapes".to_owned()))
}

/// The pictures `indices`, which are of one shape, as they are: `[B,H,W,3]` in −1..=1.
pub(crate) fn batch(data: &PictureData, indices: &[usize]) -> Result<Tensor> {
    let shape = shape_of(data, indices)?;
    let each = shape.area() * 3;
    let mut values = vec![0f32; indices.len() * each];
    values
        .par_chunks_exact_mut(each)
        .zip(indices)
        .try_for_each(|(target, index)| {
            write_plain(planes(data, *index)?, target);
            Ok::<(), Error>(())
        })?;
    let shape = (indices.len(), shape.height, shape.width, 3);
    Ok(Tensor::from_vec(values, shape)?)
}

/// Pictures of one size: `[B,H,W,3]` in −1..=1.
pub(crate) fn batch_of(pictures: &[Picture]) -> Result<Tensor> {
    let (height, width) = pictures
        .first()
        .map_or((0, 0), |first| (first.height, first.width));
    let values: Vec<f32> = pictures.iter().flat_map(signed).collect();
    Ok(Tensor::from_vec(
        values,
        (pictures.len(), height, width, 3),
    )?)
}

/// The square pictures `indices` with random changes: channels-last values in −1..=1.
pub(crate) fn augmented_batch(
    data: &PictureData,
    indices: &[usize],
    augmentation: &Augmentation,
    rng: &mut Rng,
) -> Result<Vec<f32>> {
    let shape = shape_of(data, indices)?;
    if shape.height != shape.width {
        return Err(Error::Data(format!(
            "a batch of {shape} pixels, expected squares"
        )));
    }
    let size = shape.width;
    let changes: Vec<Change> = indices.iter().map(|_| augmentation.draw(rng)).collect();
    let mut values = vec![0f32; indices.len() * size * size * 3];
    values
        .par_chunks_exact_mut(size * size * 3)
        .zip(indices)
        .zip(changes)
        .try_for_each(|((target, index), change)| {
            write_changed(planes(data, *index)?, size, change, target);
            Ok::<(), Error>(())
        })?;
    Ok(values)
}

/// The decoded pictures `[B,H,W,3]`, clamped and rounded to bytes.
pub fn to_pictures(decoded: &Tensor) -> Result<Vec<Picture>> {
    let (count, height, width, channels) = decoded.dims4()?;
    if channels != 3 {
        return Err(Error::Data(format!(
            "decoded pictures have {channels} channels, expected 3"
        )));
    }
    let values = decoded.flatten_all()?.to_vec1::<f32>()?;
    Ok(values
        .chunks_exact(height * width * 3)
        .take(count)
        .map(|picture| Picture {
            width,
            height,
            pixels: picture.iter().map(|value| signed_to_byte(*value)).collect(),
        })
        .collect())
}

/// Picture `index` of the data set.
pub(crate) fn original(data: &PictureData, index: usize) -> Result<Picture> {
    data.picture(index)
        .ok_or_else(|| Error::Data(format!("there is no picture {index}")))
}

/// Which pictures of a data set a model is trained on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// Sets of drawings to take; all when empty. Pictures of one's own belong to none and are always taken.
    pub sets: Vec<PictureSet>,
    /// Groups to leave out, such as `flags`.
    pub without_groups: Vec<String>,
    /// Words to leave out: a picture goes when its name holds one of them.
    pub without_words: Vec<String>,
}

impl Selection {
    /// The chosen pictures that are held out, or that are not, in the order of the data.
    pub fn of(&self, data: &PictureData, held_out: bool) -> Vec<usize> {
        let chosen = |entry: &PictureEntry| {
            let mut words = entry.name.split(|c: char| !c.is_alphanumeric());
            entry.held_out == held_out
                && (self.sets.is_empty()
                    || self.sets.contains(&entry.set)
                    || entry.set == PictureSet::Own)
                && !self.without_groups.contains(&entry.group)
                && !words.any(|word| self.without_words.iter().any(|without| without == word))
        };
        (0..data.entries().len())
            .filter(|index| chosen(&data.entries()[*index]))
            .collect()
    }
}

impl Selection {
    /// The chosen pictures to train on; says how many of the data set are left out.
    ///
    /// # Errors
    /// There are none.
    pub(crate) fn training(&self, data: &PictureData, control: &Control) -> Result<Vec<usize>> {
        let chosen = self.of(data, false);
        let held_out = data.entries().iter().filter(|entry| entry.held_out).count();
        let left_out = data.len() - held_out - chosen.len();
        if chosen.is_empty() {
            return Err(Error::Data(format!(
                "of {} pictures {held_out} are held out and {left_out} left out by the recipe's `pictures`; none is \
                 there to train on",
                data.len()
            )));
        }
        if left_out > 0 {
            control.send(Event::Log(format!(
                "{left_out} of {} pictures are left out by the recipe's `pictures`",
                data.len()
            )));
        }
        Ok(chosen)
    }
}

/// Endless random order: every picture once an epoch. The order is a function of the seed and the position, so nothing of
/// it has to be saved.
///
/// Where there are several buckets, a batch is of one of them. An epoch then has every bucket's batches, in any order; what
/// a bucket's last one lacks is taken from its first.
#[derive(Debug)]
pub(crate) struct Order {
    buckets: Vec<Vec<usize>>,
    seed: u64,
    epoch: Option<u64>,
    /// The epoch's items, batch by batch.
    shuffled: Vec<usize>,
}

impl Order {
    pub(crate) fn new(items: Vec<usize>, seed: u64) -> Result<Order> {
        Self::in_buckets(vec![items], seed)
    }

    pub(crate) fn in_buckets(mut buckets: Vec<Vec<usize>>, seed: u64) -> Result<Order> {
        buckets.retain(|items| !items.is_empty());
        if buckets.is_empty() {
            return Err(Error::Data(
                "no picture of the selection may be trained on".to_owned(),
            ));
        }
        Ok(Order {
            buckets,
            seed,
            epoch: None,
            shuffled: Vec::new(),
        })
    }

    /// The items of batch number `step`; `size` is the same at every call.
    pub(crate) fn batch(&mut self, step: u64, size: usize) -> Vec<usize> {
        // Of a single bucket batches follow one another over the ends of epochs, with several each has its own.
        let count = match &self.buckets[..] {
            [items] => items.len(),
            buckets => {
                let batches = buckets.iter().map(|items| items.len().div_ceil(size));
                batches.sum::<usize>() * size
            }
        } as u64;
        let first = step * size as u64;
        (first..first + size as u64)
            .map(|position| {
                let epoch = position / count;
                if self.epoch != Some(epoch) {
                    self.shuffled = self.shuffle(epoch, size);
                    self.epoch = Some(epoch);
                }
                self.shuffled[(position % count) as usize]
            })
            .collect()
    }

    fn shuffle(&self, epoch: u64, size: usize) -> Vec<usize> {
        let rng = &mut Rng::stream(self.seed, epoch);
        let mut shuffled = |items: &[usize]| -> Vec<usize> {
            let order = rng.permutation(items.len()).into_iter();
            order.map(|index| items[index]).collect()
        };
        if let [items] = &self.buckets[..] {
            return shuffled(items);
        }
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for items in &self.buckets {
            let items = shuffled(items);
            let whole = items.len().div_ceil(size) * size;
            let filled: Vec<usize> = items.iter().copied().cycle().take(whole).collect();
            batches.extend(filled.chunks(size).map(<[usize]>::to_vec));
        }
        let order = rng.permutation(batches.len()).into_iter();
        order.flat_map(|batch| batches[batch].clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_comes_once_an_epoch_and_positions_repeat() {
        let mut order = Order::new((10..17).collect(), 3).unwrap();
        let mut seen: Vec<usize> = (0..7).flat_map(|step| order.batch(step, 2)).collect();
        let again: Vec<usize> = (0..7).flat_map(|step| order.batch(step, 2)).collect();
        assert_eq!(seen, again);
        assert_ne!(seen[..7], seen[7..]);
        seen[..7].sort_unstable();
        assert_eq!(seen[..7], [10, 11, 12, 13, 14, 15, 16]);
    }

    #[test]
    fn batches_hold_one_bucket_and_epochs_every_item() {
        let buckets = vec![(0..7).collect(), vec![20, 21], (30..36).collect()];
        let mut order = Order::in_buckets(buckets, 3).unwrap();
        let epoch = |order: &mut Order, number: u64| -> Vec<Vec<usize>> {
            (0..6)
                .map(|batch| order.batch(6 * number + batch, 3))
                .collect()
        };
        let first = epoch(&mut order, 0);
        assert_ne!(first, epoch(&mut order, 1));
        assert_eq!(first, epoch(&mut order, 0));
        for batch in &first {
            let bucket = |item: &usize| item / 10;
            assert!(batch.iter().all(|item| bucket(item) == bucket(&batch[0])));
        }
        let mut seen = first.concat();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 15);
    }

    #[test]
    fn hue_changes_keep_grey_and_quarter_turns_shift_channels() {
        let matrix = hue_rotation(std::f64::consts::TAU / 3.0);
        assert!((matrix[1][0] - 1.0).abs() < 1e-6 || (matrix[2][0] - 1.0).abs() < 1e-6);
        for row in hue_rotation(0.7) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn shift_and_flip_move_pixels_and_fill_with_white() {
        let planes: Vec<u8> = (0..3)
            .flat_map(|c| (0..4).map(move |i| c * 10 + i))
            .collect();
        let change = Change {
            flip: true,
            shift: (1, 0),
            colours: None,
        };
        let mut target = vec![0f32; 12];
        write_changed(&planes, 2, change, &mut target);
        let bytes: Vec<u8> = target.iter().map(|v| signed_to_byte(*v)).collect();
        assert_eq!(bytes, [255, 255, 255, 255, 255, 255, 1, 11, 21, 0, 10, 20]);
        let mut plain = vec![0f32; 12];
        write_plain(&planes, &mut plain);
        let none = Change {
            flip: false,
            shift: (0, 0),
            colours: Some(IDENTITY),
        };
        write_changed(&planes, 2, none, &mut target);
        assert_eq!(plain, target);
    }
}
