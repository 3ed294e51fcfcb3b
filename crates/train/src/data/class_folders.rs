//! Pictures in folders, one for each class: `cats/1.png`, `dogs/a.jpg`.
//!
//! A picture is cut to its largest centred square, then made as large as the others with Pillow's Lanczos filter. Its name
//! and its group are its folder's.

use std::path::{Path, PathBuf};

use brisk_media::read_picture;
use brisk_pipelines::Control;
use brisk_pipelines::events::{StepClock, Work};
use brisk_store::{PICTURE_ENDINGS, is_picture};

use super::captioned::square;
use super::error::DataError;
use super::pictures::{PictureData, PictureEntry, PictureSet, PrepareOptions, is_held_out};
use crate::error::Result;

/// Data sets to train classes on: files of `brisk train prepare-…` and folders of classes, joined in their order. Pictures of
/// folders become `size` pixels wide.
///
/// # Errors
/// Those of [`PictureData::open_all`] and [`read_classes`].
pub fn open_all(paths: &[PathBuf], size: usize, control: &Control) -> Result<PictureData> {
    PictureData::join(paths.iter().map(|path| {
        let data = match path.is_dir() {
            true => read_classes(path, size, control)?,
            false => PictureData::open(path)?,
        };
        Ok((path.as_path(), data))
    }))
}

/// The pictures of a folder's folders, `size` pixels wide; one in twenty is held out, by its file's name. A warning tells of
/// what is of no use.
///
/// # Errors
/// A folder without pictures in its folders, a picture that cannot be read, more than fit into memory, or a cancellation.
pub fn read_classes(folder: &Path, size: usize, control: &Control) -> Result<PictureData> {
    let options = PrepareOptions {
        size,
        out: folder.to_owned(),
    };
    options.check()?;
    let mut found = Vec::new();
    let mut others = Vec::new();
    for class in listed(folder)? {
        if !class.is_dir() {
            others.push(class);
            continue;
        }
        for path in listed(&class)? {
            match is_picture(&path) && path.is_file() {
                true => found.push((name_of(&class), path)),
                false => others.push(path),
            }
        }
    }
    if found.is_empty() {
        let reason = format!(
            "no folder in it has a picture (a file that ends in {}); expected a folder for each class",
            PICTURE_ENDINGS.join(", ")
        );
        return Err(bad(folder, reason).into());
    }
    options.check_memory(found.len())?;
    if let Some(first) = others.first() {
        control.warn(format!(
            "files and folders left out: {}, such as {}, since they are no pictures in a class's folder",
            others.len(),
            first.display()
        ));
    }
    control.stage("pictures", Work::Run, found.len());
    let mut clock = StepClock::new(found.len());
    let mut data = PictureData::new();
    for (class, path) in found {
        control.check()?;
        let picture = read_picture(&path)?;
        let picture = square(&picture, size).map_err(|error| bad(&path, error.to_string()))?;
        let file = format!("{class}/{}", name_of(&path));
        let entry = PictureEntry {
            name: class.clone(),
            tags: Vec::new(),
            captions: Vec::new(),
            held_out: is_held_out(&file),
            hexcode: file,
            set: PictureSet::Own,
            group: class,
        };
        data.push(entry, &picture);
        clock.step(control);
    }
    Ok(data)
}

/// What a folder holds, sorted; hidden files are passed over.
fn listed(folder: &Path) -> std::result::Result<Vec<PathBuf>, DataError> {
    let failed = |error: std::io::Error| bad(folder, error.to_string());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if !name_of(&path).starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn bad(path: &Path, reason: impl Into<String>) -> DataError {
    DataError::Picture {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brisk_media::{Picture, encode_png};

    fn write(place: &Path, name: &str, colour: [u8; 3]) {
        let path = place.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let picture = Picture::new(12, 10, colour.repeat(120)).unwrap();
        std::fs::write(path, encode_png(&picture, &[]).unwrap()).unwrap();
    }

    #[test]
    fn folders_are_classes() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), "red/b.png", [200, 0, 0]);
        write(place.path(), "red/a.png", [100, 0, 0]);
        write(place.path(), "blue sky/x.PNG", [0, 0, 200]);
        write(place.path(), "alone.png", [0; 3]);
        std::fs::write(place.path().join("red/notes.txt"), "x").unwrap();
        std::fs::create_dir(place.path().join("red/deeper")).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let control = Control::new(move |event| drop(sender.send(event)));
        let data = open_all(&[place.path().to_owned()], 8, &control).unwrap();
        let names: Vec<&str> = data.entries().iter().map(|entry| &*entry.name).collect();
        assert_eq!(names, ["blue sky", "red", "red"]);
        assert_eq!(data.picture(1).unwrap().pixels[..3], [100, 0, 0]);
        assert_eq!((data.side(), data.len()), (Some(8), 3));
        let warned = receiver.try_iter().any(|event| match event {
            brisk_pipelines::Event::Warning(text) => text.contains("left out: 3"),
            _ => false,
        });
        assert!(warned);
        for (path, size, words) in [
            (place.path().join("red"), 8, "folder for each class"),
            (place.path().to_owned(), 4, "8 to 1024"),
            (place.path().join("absent"), 8, "absent"),
        ] {
            let refused = open_all(&[path], size, &Control::silent()).unwrap_err();
            assert!(refused.to_string().contains(words), "{refused}");
        }
    }
}
