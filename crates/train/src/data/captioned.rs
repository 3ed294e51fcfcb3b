//! One's own pictures as training data: a folder of pictures, each with a text file of its name.
//!
//! `cat.png` is described by `cat.txt`: its first line is the caption, every further one a keyword that captions add
//! at random. A picture is cut to its largest centred square, then made as large as the data set's pictures with
//! Pillow's Lanczos filter.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use brisk_media::{Filter, Picture, read_picture, resize_pil};
use brisk_pipelines::Control;
use brisk_pipelines::events::{StepClock, Work};
use brisk_store::read::{Limit, read_text};
use brisk_store::{PICTURE_ENDINGS, check_output, is_picture};

use super::emoji::{
    EmojiData, EmojiEntry, EmojiError, EmojiSet, PrepareOptions, PrepareReport, is_held_out, write,
};

/// Far more than any model sees of a caption.
const CAPTION: Limit = Limit::new("caption", 64 << 10);
/// The group of such pictures.
const GROUP: &str = "own";

type Result<T> = std::result::Result<T, EmojiError>;

/// Writes a data set of the pictures in `folder`; folders within are not entered, and a warning tells of them and of
/// files that are of no use. One in twenty is held out, by its file's name.
///
/// `control` hears how many pictures are done. Pictures are in the order of their names, so the file is
/// the same on every run.
///
/// # Errors
/// A folder without pictures, a picture without caption, one that cannot be read, an output that is one of them, or a cancellation; then nothing is
/// written.
pub fn prepare_captioned(
    folder: &Path,
    options: &PrepareOptions,
    control: &Control,
) -> crate::error::Result<PrepareReport> {
    options.check()?;
    let listing = Listing::read(folder)?;
    let files = &listing.pictures;
    if files.is_empty() {
        let reason = format!(
            "there is no picture in it (a file that ends in {})",
            PICTURE_ENDINGS.join(", ")
        );
        return Err(bad(folder, reason).into());
    }
    let inputs: Vec<&Path> = files
        .iter()
        .chain(listing.texts.values())
        .map(PathBuf::as_path)
        .collect();
    check_output(&options.out, &inputs)?;
    options.check_memory(files.len())?;
    listing.warn(&options.out, control);
    let mut data = EmojiData {
        size: options.size,
        pictures: Vec::new(),
        entries: Vec::new(),
    };
    control.stage("pictures", Work::Run, files.len());
    let mut clock = StepClock::new(files.len());
    for path in files {
        control.check()?;
        let text = listing.text(path).ok_or_else(|| {
            bad(
                &path.with_extension("txt"),
                "there is no such file; it should hold the caption of the picture of its name",
            )
        })?;
        let (name, tags) = caption(text)?;
        let picture = read_picture(path).map_err(EmojiError::from)?;
        let picture =
            square(&picture, options.size).map_err(|error| bad(path, error.to_string()))?;
        data.pictures.extend(picture.to_planes());
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        data.entries.push(EmojiEntry {
            name,
            tags,
            held_out: is_held_out(&file),
            hexcode: file,
            set: EmojiSet::Own,
            group: GROUP.to_owned(),
        });
        clock.step(control);
    }
    Ok(write(data, 0, &options.out)?)
}

/// The largest square in the middle, `size` pixels wide.
fn square(picture: &Picture, size: usize) -> brisk_media::Result<Picture> {
    let side = picture.width.min(picture.height);
    let (left, top) = ((picture.width - side) / 2, (picture.height - side) / 2);
    resize_pil(
        &picture.crop(left, top, side, side)?,
        size,
        size,
        Filter::Lanczos,
    )
}

/// What a folder holds.
#[derive(Default)]
struct Listing {
    /// Pictures, in the order of their names.
    pictures: Vec<PathBuf>,
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
    fn read(folder: &Path) -> Result<Listing> {
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
            let is_text = |ending: &OsStr| ending.eq_ignore_ascii_case("txt");
            if is_picture(&path) {
                found.pictures.push(path);
            } else if path.extension().is_some_and(is_text) {
                // Of a.TXT and a.txt, in this order, the latter counts.
                let before = found.texts.insert(path.with_extension(""), path);
                found.others.extend(before);
            } else {
                found.others.push(path);
            }
        }
        for path in found.pictures.iter().chain(found.texts.values()) {
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
                "files and folders left out: {}, such as {}, since they are neither pictures ({}) nor the texts of any",
                left_out.len(),
                first.display(),
                PICTURE_ENDINGS.join(", ")
            ));
        }
    }
}

fn bad(path: &Path, reason: impl Into<String>) -> EmojiError {
    EmojiError::Picture {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

/// Caption and keywords in a text.
fn caption(path: &Path) -> Result<(String, Vec<String>)> {
    let text = read_text(path, CAPTION)?;
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
mod tests {
    use super::*;
    use brisk_media::encode_png;

    fn stripes(width: usize, height: usize) -> Picture {
        let pixel = |at: usize| {
            let (x, y) = (at % width, at / width);
            // The middle square is red, what is cut off is blue.
            let side = width.min(height);
            let inside = (x + side / 2 >= width / 2 && x < width / 2 + side / 2)
                && (y + side / 2 >= height / 2 && y < height / 2 + side / 2);
            if inside { [200, 10, 10] } else { [10, 10, 200] }
        };
        Picture {
            width,
            height,
            pixels: (0..width * height).flat_map(pixel).collect(),
        }
    }

    #[test]
    fn pictures_are_cut_in_the_middle_and_described_by_their_texts() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        for (name, width, height) in [("wide.png", 60, 20), ("tall.PNG", 20, 40)] {
            let png = encode_png(&stripes(width, height), &[]).unwrap();
            std::fs::write(place(name), png).unwrap();
        }
        std::fs::write(place("wide.txt"), "A Wide Thing\r\n\r\nred\n flat \n").unwrap();
        std::fs::write(place("notes.md"), "no picture").unwrap();
        let mut options = PrepareOptions::new(place("data.safetensors"));
        options.size = 8;
        let error = prepare_captioned(folder.path(), &options, &Control::silent()).unwrap_err();
        assert!(error.to_string().contains("tall.txt"), "{error}");
        std::fs::write(place("tall.txt"), "tall").unwrap();
        let report = prepare_captioned(folder.path(), &options, &Control::silent()).unwrap();
        assert_eq!((report.pictures, report.per_set[&EmojiSet::Own]), (2, 2));
        let data = EmojiData::open(&options.out).unwrap();
        let wide = data
            .entries
            .iter()
            .position(|entry| entry.name == "a wide thing")
            .unwrap();
        assert_eq!(data.entries[wide].tags, ["red", "flat"]);
        for index in 0..2 {
            let picture = data.picture(index).unwrap();
            let red = picture
                .pixels
                .chunks(3)
                .filter(|pixel| pixel[0] > 150)
                .count();
            assert!(red >= 56, "{red} of 64 pixels are of the middle");
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(prepare_captioned(empty.path(), &options, &Control::silent()).is_err());
    }
    /// A folder of one picture and its text.
    fn one() -> (tempfile::TempDir, PrepareOptions) {
        let folder = tempfile::tempdir().unwrap();
        let png = encode_png(&stripes(9, 9), &[]).unwrap();
        std::fs::write(folder.path().join("a.png"), png).unwrap();
        std::fs::write(folder.path().join("a.TXT"), "an apple").unwrap();
        let mut options = PrepareOptions::new(folder.path().join("data.safetensors"));
        options.size = 8;
        (folder, options)
    }

    #[test]
    fn files_of_no_use_are_told_once() {
        let (folder, options) = one();
        for name in ["b.txt", "c.gif", ".hidden"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(folder.path().join("more")).unwrap();
        // The second time its own output lies there.
        for _ in 0..2 {
            let (sender, receiver) = std::sync::mpsc::channel();
            let control = Control::new(move |event| {
                if let brisk_pipelines::Event::Warning(text) = event {
                    sender.send(text).unwrap();
                }
            });
            prepare_captioned(folder.path(), &options, &control).unwrap();
            drop(control);
            let warnings: Vec<String> = receiver.iter().collect();
            assert_eq!(warnings.len(), 1);
            assert!(
                warnings[0].starts_with("files and folders left out: 3,"),
                "{warnings:?}"
            );
        }
    }

    #[test]
    fn pictures_are_not_written_over() {
        let (folder, mut options) = one();
        for name in ["a.png", "a.TXT"] {
            options.out = folder.path().join(name);
            let error = prepare_captioned(folder.path(), &options, &Control::silent()).unwrap_err();
            assert!(error.to_string().contains("is the input"), "{error}");
        }
        assert!(read_picture(&folder.path().join("a.png")).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn pipes_are_not_waited_for() {
        for name in ["b.png", "a.txt"] {
            let (folder, options) = one();
            let pipe = folder.path().join(name);
            let made = std::process::Command::new("mkfifo").arg(&pipe).status();
            assert!(made.unwrap().success());
            let error = prepare_captioned(folder.path(), &options, &Control::silent()).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(name) && error.contains("pipe"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nowhere_is_named() {
        let (folder, options) = one();
        std::os::unix::fs::symlink("nowhere", folder.path().join("b.png")).unwrap();
        std::fs::write(folder.path().join("b.txt"), "x").unwrap();
        let error = prepare_captioned(folder.path(), &options, &Control::silent()).unwrap_err();
        assert!(error.to_string().contains("b.png"), "{error}");
    }
}
