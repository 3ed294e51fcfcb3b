//! One's own pictures as training data: a folder of pictures, each with a text file of its name, and of WebDataset shards.
//!
//! `cat.png` is described by `cat.txt`: its first line is the caption, every further one a keyword that captions add
//! at random. A picture is cut to a square or to the nearest of several shapes ([`Cut`]) and made as large as the data
//! set's with Pillow's Lanczos filter. In a shard `0001.jpg` is described by `0001.txt` or by `prompt` of `0001.json`. Files beside
//! them may hold more captions and how well each fits ([`SideFiles`]), which CLIP can say, too.

mod cut;
mod shards;
mod side_files;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use brisk_media::{Picture, read_picture};
use brisk_pipelines::Control;
use brisk_pipelines::events::{StepClock, Work};
use brisk_pipelines::families::similarity::Scorer;
use brisk_store::read::{Limit, read_text};
use brisk_store::{PICTURE_ENDINGS, check_output, is_picture};

use super::error::DataError;
use super::pictures::{
    PictureData, PictureEntry, PictureSet, PrepareOptions, PrepareReport, ScoredCaption,
    is_held_out,
};
pub use cut::Cut;
pub(super) use cut::square;
pub use side_files::SideFiles;
use side_files::{Named, Said};

/// Far more than any model sees of a caption.
const CAPTION: Limit = Limit::new("caption", 64 << 10);
/// The group of such pictures.
const GROUP: &str = "own";

type Result<T> = std::result::Result<T, DataError>;

/// What is made of pictures and their captions.
#[derive(Default)]
pub struct CaptionedOptions<'a> {
    /// Captions and scores that lie beside them.
    pub side_files: SideFiles,
    /// What of a picture is kept.
    pub cut: Cut,
    /// Gives every caption of a picture a score, in place of those that lie beside it.
    pub scorer: Option<&'a Scorer>,
}

/// Writes a data set of the pictures in `folder` and in its shards; folders within are not entered, and a warning tells of
/// them and of files that are of no use. One in twenty is held out, by its file's name.
///
/// `control` hears how many pictures are done. Pictures are in the order of their names, shards after them, so the file is
/// the same on every run.
///
/// # Errors
/// A folder without pictures, a picture without caption, one that cannot be read, an output that is one of them, scores of
/// which none is high enough, or a cancellation; then nothing is written.
pub fn prepare_captioned(
    folder: &Path,
    captioned: &CaptionedOptions,
    options: &PrepareOptions,
    control: &Control,
) -> crate::error::Result<PrepareReport> {
    options.check()?;
    captioned.cut.check(options.size)?;
    let side_files = &captioned.side_files;
    let listing = Listing::read(folder, side_files)?;
    let files = &listing.pictures;
    let mut in_shards = 0;
    for shard in &listing.shards {
        in_shards += shards::pictures(&shards::names(shard)?);
    }
    let count = files.len() + in_shards;
    if count == 0 {
        let reason = format!(
            "there is no picture in it (a file that ends in {}, or a shard of such, which ends in tar)",
            PICTURE_ENDINGS.join(", ")
        );
        return Err(bad(folder, reason).into());
    }
    let texts = listing.texts.values().chain(&listing.beside);
    let inputs: Vec<&Path> = files
        .iter()
        .chain(&listing.shards)
        .chain(texts)
        .map(PathBuf::as_path)
        .collect();
    check_output(&options.out, &inputs)?;
    options.check_memory(count)?;
    listing.warn(&options.out, control);
    control.stage("pictures", Work::Run, count);
    let mut collected = Collected {
        captioned,
        data: PictureData::new(),
        size: options.size,
        low_scores: 0,
        clock: StepClock::new(count),
        control,
    };
    for path in files {
        let text = listing.text(path).ok_or_else(|| {
            bad(
                &path.with_extension("txt"),
                "there is no such file; it should hold the caption of the picture of its name",
            )
        })?;
        let of = |name: Option<&OsStr>| name.unwrap_or_default().to_string_lossy().into_owned();
        let key = of(path.file_stem());
        let said = side_files.read(path)?;
        let one = One {
            caption: caption(text)?,
            scored: said.scored(&key, &Named::new()),
            further: said.captions(&key),
            file: of(path.file_name()),
            place: path,
        };
        collected.add(one, || Ok(read_picture(path)?))?;
    }
    for shard in &listing.shards {
        let said: Said = side_files.read(shard)?;
        let name = shard.file_name().unwrap_or_default().to_string_lossy();
        let left_out = shards::visit(shard, &mut |member| {
            let one = One {
                caption: member.caption(shard)?,
                scored: said.scored(&member.key, &member.named),
                further: said.captions(&member.key),
                file: format!("{name}/{}", member.key),
                place: shard,
            };
            collected.add(one, || member.picture(shard))
        })?;
        if let Some(first) = left_out.first() {
            control.warn(format!(
                "{}: members left out: {}, such as {first}, since they are neither pictures ({}) nor their captions",
                shard.display(),
                left_out.len(),
                PICTURE_ENDINGS.join(", ")
            ));
        }
    }
    let Collected {
        data, low_scores, ..
    } = collected;
    if data.is_empty() {
        let least = side_files.least_score.unwrap_or_default();
        let reason = format!("of all {count} pictures the best score is below {least}");
        return Err(bad(folder, reason).into());
    }
    Ok(PrepareReport {
        low_scores,
        ..data.write(0, &options.out)?
    })
}

/// What is said of a picture.
struct One<'a> {
    caption: (String, Vec<String>),
    scored: Vec<ScoredCaption>,
    /// Captions beside its own, with and without scores.
    further: Vec<String>,
    /// Its name in the data set.
    file: String,
    /// Where it comes from.
    place: &'a Path,
}

/// The data set so far.
struct Collected<'a> {
    captioned: &'a CaptionedOptions<'a>,
    data: PictureData,
    size: usize,
    /// Pictures that were left out.
    low_scores: usize,
    clock: StepClock,
    control: &'a Control,
}

impl Collected<'_> {
    fn add(
        &mut self,
        one: One,
        picture: impl FnOnce() -> Result<Picture>,
    ) -> crate::error::Result<()> {
        self.control.check()?;
        let CaptionedOptions {
            side_files,
            cut,
            scorer,
        } = self.captioned;
        let is_low = |scored: &[ScoredCaption]| {
            let best = scored.first().map(|caption| caption.score);
            best.zip(side_files.least_score)
                .is_some_and(|(best, least)| best < least)
        };
        let mut scored = one.scored;
        if is_low(&scored) {
            self.leave_out();
            return Ok(());
        }
        let picture = cut
            .apply(&picture()?, self.size)
            .map_err(|error| bad(one.place, error.to_string()))?;
        if let Some(scorer) = scorer {
            let own = one.caption.0.clone();
            let captions = std::iter::once(own).chain(one.further);
            scored = by_similarity(scorer, &picture, captions, self.control)?;
            if is_low(&scored) {
                self.leave_out();
                return Ok(());
            }
        }
        let (name, tags) = one.caption;
        let entry = PictureEntry {
            name,
            tags,
            captions: scored,
            held_out: is_held_out(&one.file),
            hexcode: one.file,
            set: PictureSet::Own,
            group: GROUP.to_owned(),
        };
        self.data.push(entry, &picture);
        self.clock.step(self.control);
        Ok(())
    }

    fn leave_out(&mut self) {
        self.low_scores += 1;
        self.clock.step(self.control);
    }
}

/// Captions with a model's scores of them, best first.
fn by_similarity(
    scorer: &Scorer,
    picture: &Picture,
    captions: impl Iterator<Item = String>,
    control: &Control,
) -> crate::error::Result<Vec<ScoredCaption>> {
    let captions: Vec<String> = captions.collect();
    let texts: Vec<&str> = captions.iter().map(String::as_str).collect();
    let scores = scorer.scores(std::slice::from_ref(picture), &texts, control)?;
    let scores = scores.concat().into_iter().map(f64::from);
    let scored = captions.into_iter().zip(scores);
    let mut scored: Vec<ScoredCaption> = scored
        .map(|(text, score)| ScoredCaption { text, score })
        .collect();
    scored.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(scored)
}

/// What a folder holds.
#[derive(Default)]
struct Listing {
    /// Pictures, in the order of their names.
    pictures: Vec<PathBuf>,
    /// Shards, likewise.
    shards: Vec<PathBuf>,
    /// Captions and scores beside them.
    beside: Vec<PathBuf>,
    /// Texts, by what they are called without their ending.
    texts: BTreeMap<PathBuf, PathBuf>,
    /// Neither.
    others: Vec<PathBuf>,
}

impl Listing {
    /// The files in `folder`; hidden ones are passed over.
    ///
    /// # Errors
    /// A picture or text that is no file: reading a pipe would wait for whoever writes into it.
    fn read(folder: &Path, side_files: &SideFiles) -> Result<Listing> {
        let failed = |error: std::io::Error| bad(folder, error.to_string());
        let mut found = Listing::default();
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            paths.push(entry.map_err(failed)?.path());
        }
        paths.sort();
        for path in paths {
            let hidden = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if hidden {
                continue;
            }
            if path.is_dir() {
                found.others.push(path);
                continue;
            }
            let ends_in = |wanted: &str| {
                let ending = path.extension();
                ending.is_some_and(|ending: &OsStr| ending.eq_ignore_ascii_case(wanted))
            };
            if is_picture(&path) {
                found.pictures.push(path);
            } else if ends_in("tar") {
                found.shards.push(path);
            } else if ends_in("txt") {
                // Of a.TXT and a.txt, in this order, the latter counts.
                let before = found.texts.insert(path.with_extension(""), path);
                found.others.extend(before);
            } else {
                found.others.push(path);
            }
        }
        let named = found.pictures.iter().chain(&found.shards);
        let wanted: BTreeSet<PathBuf> = named
            .flat_map(|path| {
                let suffixes = side_files.suffixes();
                suffixes.map(|suffix| SideFiles::beside(path, suffix))
            })
            .collect();
        (found.beside, found.others) = std::mem::take(&mut found.others)
            .into_iter()
            .partition(|path| wanted.contains(path));
        let texts = found.texts.values().chain(&found.beside);
        for path in found.pictures.iter().chain(&found.shards).chain(texts) {
            if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
                return Err(bad(path, "it is a pipe or a device, expected a file"));
            }
        }
        Ok(found)
    }

    /// The text of a picture.
    fn text(&self, picture: &Path) -> Option<&Path> {
        let text = self.texts.get(&picture.with_extension(""));
        text.map(PathBuf::as_path)
    }

    /// Says what is of no use, the `output` of an earlier run excepted.
    fn warn(&self, output: &Path, control: &Control) {
        let named: BTreeSet<PathBuf> = self
            .pictures
            .iter()
            .map(|picture| picture.with_extension(""))
            .collect();
        let alone = self.texts.iter().filter(|(name, _)| !named.contains(*name));
        let left_out: Vec<&PathBuf> = alone
            .map(|(_, path)| path)
            .chain(&self.others)
            .filter(|path| path.file_name() != output.file_name())
            .collect();
        if let Some(first) = left_out.first() {
            control.warn(format!(
                "files and folders left out: {}, such as {}, since they are neither pictures ({}) nor the texts of any nor shards",
                left_out.len(),
                first.display(),
                PICTURE_ENDINGS.join(", ")
            ));
        }
    }
}

fn bad(path: &Path, reason: impl Into<String>) -> DataError {
    DataError::Picture {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

/// Caption and keywords in a text.
fn caption(path: &Path) -> Result<(String, Vec<String>)> {
    caption_of(&read_text(path, CAPTION)?, path)
}

fn caption_of(text: &str, path: &Path) -> Result<(String, Vec<String>)> {
    let control = |c: &char| c.is_control() && !"\n\r\t".contains(*c);
    if let Some(found) = text.chars().find(control) {
        let found = format!("it holds the control character {found:?}; expected a text");
        return Err(bad(path, found));
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let name = lines
        .next()
        .ok_or_else(|| bad(path, "it is empty; expected a caption"))?;
    Ok((name.to_lowercase(), lines.map(str::to_lowercase).collect()))
}

#[cfg(test)]
mod tests;
