//! Data sets of pictures with what they are called: one safetensors file each, made by `brisk train prepare-…`.
//!
//! Pictures are square and of one size, or of several shapes with about as many pixels each ([`PictureShape`]). Of one
//! shape they are the tensor `pictures` `[N, 3, height, width]` of bytes; of several each has its own,
//! `pictures.HEIGHTxWIDTH`, in the order of the shapes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use brisk_media::Picture;
use brisk_store::{Dtype, OutTensor, SafetensorsFile, TensorSource, write_safetensors};
use serde::{Deserialize, Serialize};

use super::error::{DataError, Result};

/// One picture in this many is held out.
const HELD_OUT_EVERY: u64 = 20;
/// Sides of square pictures in pixels.
pub(crate) const SIZES: RangeInclusive<usize> = 8..=1024;
/// Sides of pictures of other shapes, which are as large as square ones.
const SIDES: RangeInclusive<usize> = 2..=4096;
/// Version of the file layout, checked on reading.
const FORMAT: &str = "brisk-emoji-1";
/// The tensor with the pictures.
const PICTURES: &str = "pictures";

/// A family of drawings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PictureSet {
    /// Google's Noto Emoji (Apache-2.0).
    Noto,
    /// Microsoft's Fluent Emoji, flat style (MIT).
    Fluent,
    /// Twitter's Twemoji (CC-BY-4.0).
    Twemoji,
    /// Scenes composed of drawings of all sets.
    Scenes,
    /// No drawings of emoji: somebody's own pictures.
    Own,
}

impl PictureSet {
    /// All sets of drawings.
    pub const ALL: [PictureSet; 3] = [PictureSet::Noto, PictureSet::Fluent, PictureSet::Twemoji];

    /// The npm package with the drawings.
    pub fn package(self) -> &'static str {
        match self {
            PictureSet::Noto => "@iconify-json/noto",
            PictureSet::Fluent => "@iconify-json/fluent-emoji-flat",
            PictureSet::Twemoji => "@iconify-json/twemoji",
            PictureSet::Scenes | PictureSet::Own => "of no name",
        }
    }
}

impl std::fmt::Display for PictureSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PictureSet::Noto => "noto",
            PictureSet::Fluent => "fluent",
            PictureSet::Twemoji => "twemoji",
            PictureSet::Scenes => "scenes",
            PictureSet::Own => "own",
        })
    }
}

/// How large pictures become, and where to write.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// Width and height of each picture in pixels, 8 to 1024.
    pub size: usize,
    /// The safetensors file to write.
    pub out: PathBuf,
}

impl PrepareOptions {
    /// 128 pixels, written to `out`.
    pub fn new(out: impl Into<PathBuf>) -> Self {
        Self {
            size: 128,
            out: out.into(),
        }
    }

    /// Refuses sizes that no picture has.
    pub(super) fn check(&self) -> Result<()> {
        if SIZES.contains(&self.size) {
            Ok(())
        } else {
            Err(DataError::Size(self.size))
        }
    }

    /// Refuses more pictures than fit into memory, where they are collected.
    pub(super) fn check_memory(&self, pictures: usize) -> Result<()> {
        let needed = pictures as u64 * (3 * self.size * self.size) as u64;
        match brisk_pipelines::memory::available() {
            Some(available) if needed > available => Err(DataError::Memory {
                pictures,
                needed: needed >> 20,
                available: available >> 20,
            }),
            _ => Ok(()),
        }
    }
}

/// What was prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrepareReport {
    /// Pictures in the file.
    pub pictures: usize,
    /// How many of them are held out.
    pub held_out: usize,
    /// Pictures of each set.
    pub per_set: BTreeMap<PictureSet, usize>,
    /// Pictures of each shape.
    pub shapes: BTreeMap<PictureShape, usize>,
    /// Emoji that a set repeats with the drawing of another one, left out.
    pub duplicates: usize,
    /// Pictures of which no caption fits well enough, left out.
    pub low_scores: usize,
}

/// A caption with how well it fits its picture, such as CLIP's score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoredCaption {
    /// It, in lower case.
    pub text: String,
    /// The higher the better.
    pub score: f64,
}

/// One picture's description.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PictureEntry {
    /// The emoji's name in lower case, such as `red heart`.
    pub name: String,
    /// Keywords.
    pub tags: Vec<String>,
    /// More captions, of which one is drawn by its score in place of name and keywords; best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub captions: Vec<ScoredCaption>,
    /// Code points in upper case hexadecimal, joined by `-`, without variation selectors.
    pub hexcode: String,
    /// Whose drawing it is.
    pub set: PictureSet,
    /// Group, such as `food-drink`.
    pub group: String,
    /// True when the picture must not be trained on.
    pub held_out: bool,
}

/// Height and width of a picture in pixels; told as `HEIGHTxWIDTH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PictureShape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl PictureShape {
    /// That of a picture of `side` pixels each way.
    pub fn square(side: usize) -> Self {
        Self {
            height: side,
            width: side,
        }
    }

    /// Pixels.
    pub fn area(self) -> usize {
        self.height * self.width
    }

    /// The name of a tensor of this shape's pictures or latents, where there are `several` shapes.
    pub(crate) fn tensor(self, name: &str, several: bool) -> String {
        match several {
            true => format!("{name}.{self}"),
            false => name.to_owned(),
        }
    }

    fn of_tensor(name: &str) -> Option<Self> {
        let (height, width) = name
            .strip_prefix(PICTURES)?
            .strip_prefix('.')?
            .split_once('x')?;
        Some(Self {
            height: height.parse().ok()?,
            width: width.parse().ok()?,
        })
    }
}

impl std::fmt::Display for PictureShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.height, self.width)
    }
}

/// A data set in memory.
#[derive(Clone, Debug, Default)]
pub struct PictureData {
    entries: Vec<PictureEntry>,
    /// Shape and first byte of each.
    places: Vec<(PictureShape, usize)>,
    /// Planes `[3, height, width]` of each, RGB, one after another.
    bytes: Vec<u8>,
}

impl PictureData {
    /// One without pictures.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a picture.
    pub fn push(&mut self, entry: PictureEntry, picture: &Picture) {
        let shape = PictureShape {
            height: picture.height,
            width: picture.width,
        };
        self.places.push((shape, self.bytes.len()));
        self.bytes.extend(picture.to_planes());
        self.entries.push(entry);
    }

    /// Adds the pictures of another data set.
    fn append(&mut self, other: PictureData) {
        let before = self.bytes.len();
        let places = other.places.into_iter();
        self.places
            .extend(places.map(|(shape, start)| (shape, before + start)));
        self.bytes.extend(other.bytes);
        self.entries.extend(other.entries);
    }

    /// Reads a file that was prepared.
    ///
    /// # Errors
    /// A file that cannot be read, or that is no data set.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |reason: String| DataError::Data {
            path: path.to_owned(),
            reason,
        };
        let file = SafetensorsFile::open(path)?;
        let metadata = file.metadata();
        if metadata.get("format").map(String::as_str) != Some(FORMAT) {
            return Err(bad(format!(
                "not a data set of pictures (no format {FORMAT:?} in its metadata)"
            )));
        }
        let text = metadata
            .get("entries")
            .ok_or_else(|| bad("no \"entries\" in its metadata".into()))?;
        let entries: Vec<PictureEntry> =
            serde_json::from_str(text).map_err(|e| bad(format!("entries: {e}")))?;
        if entries.is_empty() {
            return Err(bad("there is no picture in it".into()));
        }
        let mut named: Vec<(Option<PictureShape>, String)> = Vec::new();
        for name in file.names() {
            match PictureShape::of_tensor(&name) {
                None if name == PICTURES => named.push((None, name)),
                None => return Err(bad(format!("a tensor {name:?} that no data set has"))),
                shape => named.push((shape, name)),
            }
        }
        named.sort();
        if named.len() > 1 && named[0].0.is_none() {
            return Err(bad(format!(
                "both {PICTURES:?} and {:?}; expected one tensor, or one a shape",
                named[1].1
            )));
        }
        let mut data = Self::new();
        for (said, name) in named {
            let view = file
                .view(&name)?
                .ok_or_else(|| bad(format!("no tensor {name:?}")))?;
            let (count, shape) = match view.shape[..] {
                [count, 3, height, width] if view.dtype == Dtype::U8 => {
                    (count, PictureShape { height, width })
                }
                _ => {
                    return Err(bad(format!(
                        "{name} are {} {:?}, expected u8 [pictures, 3, height, width]",
                        view.dtype.name(),
                        view.shape
                    )));
                }
            };
            if said.is_some_and(|said| said != shape) {
                return Err(bad(format!("{name} are of {shape} pixels")));
            }
            let sides = match shape.height == shape.width {
                true => SIZES,
                false => SIDES,
            };
            if ![shape.height, shape.width]
                .iter()
                .all(|side| sides.contains(side))
            {
                return Err(bad(format!(
                    "pictures of {shape} pixels, expected {} to {}",
                    sides.start(),
                    sides.end()
                )));
            }
            let first = data.bytes.len();
            let each = 3 * shape.area();
            data.places
                .extend((0..count).map(|index| (shape, first + index * each)));
            match first {
                0 => data.bytes = view.data.into_owned(),
                _ => data.bytes.extend_from_slice(&view.data),
            }
        }
        if data.places.len() != entries.len() {
            return Err(bad(format!(
                "{} pictures and {} entries, expected as many",
                data.places.len(),
                entries.len()
            )));
        }
        data.entries = entries;
        Ok(data)
    }

    /// Several files as one data set, in their order.
    ///
    /// # Errors
    /// As [`open`](Self::open), and square pictures of different sizes.
    pub fn open_all(paths: &[PathBuf]) -> Result<Self> {
        let sets = paths
            .iter()
            .map(|path| Ok((path.as_path(), Self::open(path)?)));
        Self::join(sets)
    }

    /// Data sets as one, in their order.
    ///
    /// # Errors
    /// One that cannot be had, none at all, and square pictures of different sizes.
    pub(crate) fn join<'a, E: From<DataError>>(
        sets: impl IntoIterator<Item = std::result::Result<(&'a Path, Self), E>>,
    ) -> std::result::Result<Self, E> {
        let mut all: Option<(&Path, Self)> = None;
        for set in sets {
            let (path, data) = set?;
            let Some((first, before)) = &mut all else {
                all = Some((path, data));
                continue;
            };
            if let (Some(side), Some(wanted)) = (data.side(), before.side())
                && side != wanted
            {
                let reason = format!(
                    "its pictures are {side} pixels wide, those of {} {wanted}",
                    first.display()
                );
                return Err(E::from(DataError::Data {
                    path: path.to_owned(),
                    reason,
                }));
            }
            before.append(data);
        }
        let none = || DataError::Data {
            path: PathBuf::new(),
            reason: "no data set was given".to_owned(),
        };
        all.map(|(_, data)| data).ok_or_else(|| E::from(none()))
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is said of each picture.
    pub fn entries(&self) -> &[PictureEntry] {
        &self.entries
    }

    /// The bytes of all pictures.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Height and width of picture `index`; `None` past the end.
    pub fn shape(&self, index: usize) -> Option<PictureShape> {
        self.places.get(index).map(|(shape, _)| *shape)
    }

    /// Each shape, and how many pictures have it.
    pub fn shapes(&self) -> BTreeMap<PictureShape, usize> {
        let mut shapes = BTreeMap::new();
        for (shape, _) in &self.places {
            *shapes.entry(*shape).or_insert(0) += 1;
        }
        shapes
    }

    /// The side of pictures that are all square and of one size; `None` of others.
    pub fn side(&self) -> Option<usize> {
        let mut shapes = self.places.iter().map(|(shape, _)| *shape);
        let first = shapes.next()?;
        (first.height == first.width && shapes.all(|shape| shape == first)).then_some(first.height)
    }

    /// [`side`](Self::side), for a training that takes no others.
    ///
    /// # Errors
    /// Pictures of several shapes.
    pub fn required_side(&self) -> Result<usize> {
        self.side().ok_or_else(|| {
            let shapes = self.shapes();
            let some: Vec<String> = shapes.keys().take(3).map(ToString::to_string).collect();
            DataError::Shapes {
                count: shapes.len(),
                some: some.join(", "),
            }
        })
    }

    /// The planes `[3, height, width]` of picture `index`; `None` past the end.
    pub fn planes(&self, index: usize) -> Option<&[u8]> {
        let (shape, start) = self.places.get(index)?;
        self.bytes.get(*start..start + 3 * shape.area())
    }

    /// Picture `index` as an RGB picture; `None` past the end.
    pub fn picture(&self, index: usize) -> Option<Picture> {
        let shape = self.shape(index)?;
        Picture::from_planes(shape.width, shape.height, self.planes(index)?).ok()
    }

    /// Writes the file. Pictures of several shapes are put in the order of their shapes.
    pub(super) fn write(&self, duplicates: usize, out: &Path) -> Result<PrepareReport> {
        let mut report = PrepareReport {
            pictures: self.len(),
            held_out: self.entries.iter().filter(|e| e.held_out).count(),
            per_set: BTreeMap::new(),
            shapes: self.shapes(),
            duplicates,
            low_scores: 0,
        };
        for entry in &self.entries {
            *report.per_set.entry(entry.set).or_insert(0) += 1;
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|index| self.places[*index].0);
        let entries: Vec<&PictureEntry> = order.iter().map(|index| &self.entries[*index]).collect();
        let text = serde_json::to_string(&entries).map_err(|e| DataError::Data {
            path: out.to_owned(),
            reason: e.to_string(),
        })?;
        let metadata = BTreeMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("entries".to_owned(), text),
        ]);
        let several = report.shapes.len() > 1;
        let mut left = &order[..];
        let tensors = report.shapes.iter().map(|(shape, count)| {
            let (own, after) = left.split_at(*count);
            left = after;
            let bytes = match several {
                true => own
                    .iter()
                    .filter_map(|index| self.planes(*index))
                    .collect::<Vec<_>>()
                    .concat()
                    .into(),
                false => self.bytes.as_slice().into(),
            };
            OutTensor {
                name: shape.tensor(PICTURES, several),
                dtype: Dtype::U8,
                shape: vec![*count, 3, shape.height, shape.width],
                data: bytes,
            }
        });
        let tensors: Vec<OutTensor> = tensors.collect();
        write_safetensors(out, &tensors, &metadata)?;
        Ok(report)
    }
}

/// True for the emoji that no model is trained on: a fixed hash of the code points, the same in all sets.
pub fn is_held_out(hexcode: &str) -> bool {
    super::is_set_aside(hexcode, HELD_OUT_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        write_safetensors(&path, &[], &BTreeMap::new()).unwrap();
        assert!(matches!(
            PictureData::open(&path),
            Err(DataError::Data { .. })
        ));
        let metadata = BTreeMap::from([
            ("format".into(), FORMAT.into()),
            ("entries".into(), "[]".into()),
        ]);
        write_safetensors(&path, &[], &metadata).unwrap();
        assert!(
            PictureData::open(&path)
                .unwrap_err()
                .to_string()
                .contains("no picture")
        );
    }

    #[test]
    fn held_out_is_fixed_and_one_in_twenty() {
        let codes = (0x1F300..0x1F700).map(|code| format!("{code:X}"));
        let count = codes.filter(|code| is_held_out(code)).count();
        assert!((30..75).contains(&count), "{count} of 1024");
        // These must never change: trained models have not seen them.
        let held_out: Vec<String> = (0x1F600..0x1F640)
            .map(|code| format!("{code:X}"))
            .filter(|code| is_held_out(code))
            .collect();
        assert_eq!(held_out, ["1F607", "1F61D", "1F62E"]);
    }
}
