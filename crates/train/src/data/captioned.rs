//! One's own pictures as training data: a folder of pictures, each with a text file of its name.
//!
//! `cat.png` is described by `cat.txt`: its first line is the caption, every further one a keyword that captions add
//! at random. A picture is cut to its largest centred square, then made as large as the data set's pictures with
//! Pillow's Lanczos filter.

use std::path::{Path, PathBuf};

use brisk_media::{Filter, Picture, read_picture, resize_pil};
use brisk_pipelines::Control;
use brisk_pipelines::events::{StepClock, Work};
use brisk_store::read::{Limit, read_text};

use super::emoji::{
    EmojiData, EmojiEntry, EmojiError, EmojiSet, PrepareOptions, PrepareReport, is_held_out, write,
};

/// Endings of picture files.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];
/// The group of such pictures.
const GROUP: &str = "own";

type Result<T> = std::result::Result<T, EmojiError>;

/// Writes a data set of the pictures in `folder` that have captions; folders within are not entered. One in twenty is
/// held out, by its file's name.
///
/// `control` hears how many pictures are done. Pictures are in the order of their names, so the file is
/// the same on every run.
///
/// # Errors
/// A folder without pictures, a picture without caption, one that cannot be read, or a cancellation; then nothing is
/// written.
pub fn prepare_captioned(
    folder: &Path,
    options: &PrepareOptions,
    control: &Control,
) -> crate::error::Result<PrepareReport> {
    options.check()?;
    let files = pictures(folder)?;
    let bad = |path: &Path, reason: String| EmojiError::Picture {
        path: path.to_owned(),
        reason,
    };
    if files.is_empty() {
        let reason = format!(
            "there is no picture in it (a file that ends in {})",
            ENDINGS.join(", ")
        );
        return Err(bad(folder, reason).into());
    }
    let mut data = EmojiData {
        size: options.size,
        pictures: Vec::new(),
        entries: Vec::new(),
    };
    control.stage("pictures", Work::Run, files.len());
    let mut clock = StepClock::new(files.len());
    for path in files {
        control.check()?;
        let (name, tags) = caption(&path)?;
        let picture = read_picture(&path).map_err(|error| bad(&path, error.to_string()))?;
        let picture =
            square(&picture, options.size).map_err(|error| bad(&path, error.to_string()))?;
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

fn pictures(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error: std::io::Error| EmojiError::Picture {
        path: folder.to_owned(),
        reason: error.to_string(),
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ending = path
            .extension()
            .and_then(|ending| ending.to_str())
            .map(str::to_lowercase);
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_file()
            && !hidden
            && ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Caption and keywords of a picture.
fn caption(picture: &Path) -> Result<(String, Vec<String>)> {
    let path = picture.with_extension("txt");
    let bad = |reason: &str| EmojiError::Picture {
        path: path.clone(),
        reason: reason.to_owned(),
    };
    if !path.is_file() {
        return Err(bad(
            "there is no such file; it should hold the caption of the picture of its name",
        ));
    }
    let text = read_text(&path, Limit::TEXT)?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let name = lines
        .next()
        .ok_or_else(|| bad("it is empty; expected a caption"))?;
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
}
