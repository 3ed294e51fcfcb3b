//! Emoji pictures with their names, from published npm packages.
//!
//! [`prepare`] renders the SVGs of up to three icon sets (`@iconify-json/noto`, `@iconify-json/fluent-emoji-flat`,
//! `@iconify-json/twemoji`) and writes one safetensors file together with the labels and keywords of
//! `emojibase-data`; [`EmojiData`] reads it back. Skin tone variants are left out, and so are pictures that a set
//! repeats under another name. One emoji in twenty is held out, the same ones in all sets and at all sizes.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::icon_set::{IconSet, plain_hexcode, read_json};
use super::iconify::Icon;
use brisk_media::Picture;
use brisk_pipelines::Control;
use brisk_pipelines::events::{StepClock, Work};
use brisk_store::{
    Dtype, OutTensor, SafetensorsFile, TensorSource, check_output, write_safetensors,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// One emoji in this many is held out.
const HELD_OUT_EVERY: u64 = 20;
/// Sides of pictures in pixels.
pub(crate) const SIZES: RangeInclusive<usize> = 8..=1024;
/// Version of the file layout, checked on reading.
const FORMAT: &str = "brisk-emoji-1";

/// What can go wrong with an emoji data set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmojiError {
    /// A source file is not what the package should hold.
    #[error("{path}: {reason}; expected a file of the npm package {package}, unpacked")]
    Source {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The npm package that it should come from.
        package: String,
    },
    /// An icon cannot be rendered.
    #[error("{set} icon {icon:?}: {source}")]
    Render {
        /// Which set.
        set: EmojiSet,
        /// The icon's name in the set.
        icon: String,
        /// The cause.
        source: brisk_media::Error,
    },
    /// The data set file is not one that [`prepare`] wrote.
    #[error("{path}: {reason}; make the file again from the packages")]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A source or the data set file cannot be read or written.
    #[error(transparent)]
    Store(#[from] brisk_store::Error),
    /// A picture cannot be read.
    #[error(transparent)]
    Media(#[from] brisk_media::Error),
    /// A picture or its caption cannot be used.
    #[error("{path}: {reason}")]
    Picture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The data set would not fit into memory.
    #[error(
        "{pictures} pictures take {needed} MiB of memory and {available} MiB are available; make them smaller or fewer"
    )]
    Memory {
        /// Pictures of the data set.
        pictures: usize,
        /// What they take, in MiB.
        needed: u64,
        /// What is free, in MiB.
        available: u64,
    },
    /// The requested size is out of range.
    #[error("a picture size of {0} pixels; it must be 8 to 1024")]
    Size(usize),
}

type Result<T> = std::result::Result<T, EmojiError>;

/// A family of drawings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmojiSet {
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

impl EmojiSet {
    /// All sets of drawings.
    pub const ALL: [EmojiSet; 3] = [EmojiSet::Noto, EmojiSet::Fluent, EmojiSet::Twemoji];

    /// The npm package with the drawings.
    pub fn package(self) -> &'static str {
        match self {
            EmojiSet::Noto => "@iconify-json/noto",
            EmojiSet::Fluent => "@iconify-json/fluent-emoji-flat",
            EmojiSet::Twemoji => "@iconify-json/twemoji",
            EmojiSet::Scenes | EmojiSet::Own => "of no name",
        }
    }
}

impl std::fmt::Display for EmojiSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            EmojiSet::Noto => "noto",
            EmojiSet::Fluent => "fluent",
            EmojiSet::Twemoji => "twemoji",
            EmojiSet::Scenes => "scenes",
            EmojiSet::Own => "own",
        })
    }
}

/// Folders of unpacked npm packages, each the one that holds `package.json`.
#[derive(Clone, Debug)]
pub struct EmojiSources {
    /// `@iconify-json/noto`.
    pub noto: PathBuf,
    /// `@iconify-json/fluent-emoji-flat`.
    pub fluent: Option<PathBuf>,
    /// `@iconify-json/twemoji`.
    pub twemoji: Option<PathBuf>,
    /// `emojibase-data`.
    pub emojibase: PathBuf,
}

/// How to render and where to write.
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
            Err(EmojiError::Size(self.size))
        }
    }

    /// Refuses more pictures than fit into memory, where they are collected.
    pub(super) fn check_memory(&self, pictures: usize) -> Result<()> {
        let needed = pictures as u64 * (3 * self.size * self.size) as u64;
        match brisk_pipelines::memory::available() {
            Some(available) if needed > available => Err(EmojiError::Memory {
                pictures,
                needed: needed >> 20,
                available: available >> 20,
            }),
            _ => Ok(()),
        }
    }
}

/// What [`prepare`] made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrepareReport {
    /// Pictures in the file.
    pub pictures: usize,
    /// How many of them are held out.
    pub held_out: usize,
    /// Pictures of each set.
    pub per_set: BTreeMap<EmojiSet, usize>,
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
pub struct EmojiEntry {
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
    pub set: EmojiSet,
    /// Group, such as `food-drink`.
    pub group: String,
    /// True when the picture must not be trained on.
    pub held_out: bool,
}

/// A data set in memory.
#[derive(Clone, Debug)]
pub struct EmojiData {
    /// Width and height of each picture in pixels.
    pub size: usize,
    /// `[N, 3, size, size]`, RGB.
    pub pictures: Vec<u8>,
    /// One for each picture, in the same order.
    pub entries: Vec<EmojiEntry>,
}

impl EmojiData {
    /// Reads a file that [`prepare`] wrote.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |reason: String| EmojiError::Data {
            path: path.to_owned(),
            reason,
        };
        let file = SafetensorsFile::open(path)?;
        let metadata = file.metadata();
        if metadata.get("format").map(String::as_str) != Some(FORMAT) {
            return Err(bad(format!(
                "not an emoji data set (no format {FORMAT:?} in its metadata)"
            )));
        }
        let text = metadata
            .get("entries")
            .ok_or_else(|| bad("no \"entries\" in its metadata".into()))?;
        let entries: Vec<EmojiEntry> =
            serde_json::from_str(text).map_err(|e| bad(format!("entries: {e}")))?;
        let view = file
            .view("pictures")?
            .ok_or_else(|| bad("no tensor \"pictures\"".into()))?;
        let size = match view.shape[..] {
            [n, 3, height, width]
                if n == entries.len() && height == width && view.dtype == Dtype::U8 =>
            {
                width
            }
            _ => {
                return Err(bad(format!(
                    "pictures are {} {:?}, expected u8 [{}, 3, size, size]",
                    view.dtype.name(),
                    view.shape,
                    entries.len()
                )));
            }
        };
        if entries.is_empty() {
            return Err(bad("there is no picture in it".into()));
        }
        if !SIZES.contains(&size) {
            return Err(bad(format!(
                "pictures of {size} pixels, expected {} to {}",
                SIZES.start(),
                SIZES.end()
            )));
        }
        Ok(Self {
            size,
            pictures: view.data.into_owned(),
            entries,
        })
    }

    /// Several files as one data set, in their order.
    ///
    /// # Errors
    /// As [`open`](Self::open), and pictures of different sizes.
    pub fn open_all(paths: &[PathBuf]) -> Result<Self> {
        let (first, others) = paths.split_first().ok_or_else(|| EmojiError::Data {
            path: PathBuf::new(),
            reason: "no data set was given".to_owned(),
        })?;
        let mut all = Self::open(first)?;
        for path in others {
            let data = Self::open(path)?;
            if data.size != all.size {
                return Err(EmojiError::Data {
                    path: path.clone(),
                    reason: format!(
                        "its pictures are {} pixels wide, those of {} {}",
                        data.size,
                        first.display(),
                        all.size
                    ),
                });
            }
            all.pictures.extend(data.pictures);
            all.entries.extend(data.entries);
        }
        Ok(all)
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The planes `[3, size, size]` of picture `index`; `None` past the end.
    pub fn planes(&self, index: usize) -> Option<&[u8]> {
        let each = 3 * self.size * self.size;
        let start = index.checked_mul(each)?;
        self.pictures.get(start..start.checked_add(each)?)
    }

    /// Picture `index` as an RGB picture; `None` past the end.
    pub fn picture(&self, index: usize) -> Option<Picture> {
        Picture::from_planes(self.size, self.size, self.planes(index)?).ok()
    }
}

/// True for the emoji that no model is trained on: a fixed hash of the code points, the same in all sets.
pub fn is_held_out(hexcode: &str) -> bool {
    super::is_set_aside(hexcode, HELD_OUT_EVERY)
}

/// Renders every emoji of the given sets and writes the data set file.
///
/// `control` hears how many pictures are done. Pictures are ordered by set, then as in the Unicode charts, so the file is
/// the same on every run.
///
/// # Errors
/// Packages that are not what they should be, a file that cannot be written, or a cancellation; then nothing is written.
pub fn prepare(
    sources: &EmojiSources,
    options: &PrepareOptions,
    control: &Control,
) -> crate::error::Result<PrepareReport> {
    options.check()?;
    let size = options.size;
    let inputs = [Some(&sources.noto), Some(&sources.emojibase)]
        .into_iter()
        .chain([sources.fluent.as_ref(), sources.twemoji.as_ref()])
        .flatten();
    let inputs: Vec<&Path> = inputs.map(PathBuf::as_path).collect();
    check_output(&options.out, &inputs)?;
    let labels = read_labels(&sources.emojibase)?;
    let folders = [
        (EmojiSet::Noto, Some(&sources.noto)),
        (EmojiSet::Fluent, sources.fluent.as_ref()),
        (EmojiSet::Twemoji, sources.twemoji.as_ref()),
    ];
    let mut jobs: Vec<(EmojiEntry, Icon)> = Vec::new();
    for (set, folder) in folders {
        if let Some(folder) = folder {
            collect_set(set, folder, &labels, &mut jobs)?;
        }
    }
    options.check_memory(jobs.len())?;
    let each = 3 * size * size;
    let mut pictures = Vec::with_capacity(jobs.len() * each);
    let mut entries: Vec<EmojiEntry> = Vec::with_capacity(jobs.len());
    let mut seen = HashSet::new();
    let mut duplicates = 0;
    control.stage("pictures", Work::Run, jobs.len());
    let mut clock = StepClock::new(jobs.len());
    for chunk in jobs.chunks(64) {
        control.check()?;
        let rendered: Vec<Result<Vec<u8>>> = chunk
            .par_iter()
            .map(|(entry, icon)| {
                icon.render(size).map_err(|source| EmojiError::Render {
                    set: entry.set,
                    icon: icon.name.clone(),
                    source,
                })
            })
            .collect();
        for ((entry, _), planes) in chunk.iter().zip(rendered) {
            let planes = planes?;
            if seen.contains(&(entry.set, planes.clone())) {
                duplicates += 1;
                continue;
            }
            pictures.extend_from_slice(&planes);
            entries.push(entry.clone());
            seen.insert((entry.set, planes));
        }
        clock.steps(chunk.len(), control);
    }
    let data = EmojiData {
        size,
        pictures,
        entries,
    };
    Ok(write(data, duplicates, &options.out)?)
}

/// Writes a data set file.
pub(super) fn write(data: EmojiData, duplicates: usize, out: &Path) -> Result<PrepareReport> {
    let entries = &data.entries;
    let mut report = PrepareReport {
        pictures: entries.len(),
        held_out: entries.iter().filter(|e| e.held_out).count(),
        per_set: BTreeMap::new(),
        duplicates,
        low_scores: 0,
    };
    for entry in entries {
        *report.per_set.entry(entry.set).or_insert(0) += 1;
    }
    let text = serde_json::to_string(entries).map_err(|e| EmojiError::Data {
        path: out.to_owned(),
        reason: e.to_string(),
    })?;
    let metadata = BTreeMap::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("entries".to_owned(), text),
    ]);
    let tensor = OutTensor {
        name: "pictures".into(),
        dtype: Dtype::U8,
        shape: vec![entries.len(), 3, data.size, data.size],
        data: data.pictures.into(),
    };
    write_safetensors(out, &[tensor], &metadata)?;
    Ok(report)
}

/// One emoji of `emojibase-data`.
#[derive(Deserialize)]
struct Label {
    label: String,
    hexcode: String,
    #[serde(default)]
    tags: Vec<String>,
    group: Option<u64>,
    #[serde(skip)]
    group_name: String,
}

/// Base emoji in chart order, without components such as skin tones and lone regional indicators.
fn read_labels(folder: &Path) -> Result<Vec<Label>> {
    let groups_path = folder.join("meta/groups.json");
    let groups = read_json(&groups_path, "emojibase-data")?;
    let path = folder.join("en/data.json");
    let bad = |reason: String| EmojiError::Source {
        path: path.clone(),
        reason,
        package: "emojibase-data".into(),
    };
    let data = read_json(&path, "emojibase-data")?;
    let all = Vec::<Label>::deserialize(data).map_err(|e| bad(e.to_string()))?;
    let mut kept = Vec::with_capacity(all.len());
    for mut label in all {
        let Some(group) = label.group else { continue };
        let name = groups["groups"][group.to_string()].as_str();
        label.group_name = name
            .ok_or_else(|| {
                bad(format!(
                    "group {group} is not named in {}",
                    groups_path.display()
                ))
            })?
            .to_owned();
        if label.group_name != "component" {
            kept.push(label);
        }
    }
    if kept.is_empty() {
        return Err(bad("it names no emoji".into()));
    }
    Ok(kept)
}

/// Adds the set's drawing of every labelled emoji that it has.
fn collect_set(
    set: EmojiSet,
    folder: &Path,
    labels: &[Label],
    jobs: &mut Vec<(EmojiEntry, Icon)>,
) -> Result<()> {
    let drawings = IconSet::open(set, folder)?;
    let mut used = HashSet::new();
    let before = jobs.len();
    for label in labels {
        let hexcode = plain_hexcode(&label.hexcode);
        let Some(icon) = drawings.icon(&hexcode)? else {
            continue;
        };
        if !used.insert(icon.name.clone()) {
            continue;
        }
        let entry = EmojiEntry {
            captions: Vec::new(),
            name: label.label.to_lowercase(),
            tags: label.tags.clone(),
            held_out: is_held_out(&hexcode),
            hexcode,
            set,
            group: label.group_name.clone(),
        };
        jobs.push((entry, icon));
    }
    if jobs.len() == before {
        return Err(drawings.lacks("any labelled emoji"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
