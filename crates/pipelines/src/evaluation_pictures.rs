//! Pictures that a model's folder brings along to be measured by: some of those that it was trained on, and some that it
//! never saw.

use brisk_media::{Picture, decode_picture, encode_png, tile, tiled};
use brisk_store::ModelFolder;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Squares of a row of the sheet.
const COLUMNS: usize = 16;
/// Longest side of a picture, and most pictures.
const LARGEST: usize = 1024;
const MOST: usize = 4096;

/// A picture with its prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedPicture {
    /// What it shows.
    pub prompt: String,
    /// It.
    pub picture: Picture,
}

/// The pictures.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EvaluationPictures {
    /// Those that the model was trained on.
    pub trained: Vec<NamedPicture>,
    /// Those that it was not.
    pub held_out: Vec<NamedPicture>,
}

/// The file beside the sheet: prompts of its squares, row after row.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Side of a square, in pixels.
    side: usize,
    trained: Vec<String>,
    held_out: Vec<String>,
}

impl EvaluationPictures {
    /// The files' names in a model's folder.
    pub const SHEET: &'static str = "evaluation_pictures.png";
    /// See [`SHEET`](Self::SHEET).
    pub const PROMPTS: &'static str = "evaluation_pictures.json";

    /// Those of a folder; none where it has none.
    ///
    /// # Errors
    /// Files that cannot be read, or of which one does not fit the other.
    pub fn read(folder: &ModelFolder) -> Result<Option<Self>> {
        if !folder.exists(Self::PROMPTS) {
            return Ok(None);
        }
        let label = |name: &str| format!("{}/{name}", folder.label());
        let file: File =
            serde_json::from_value(folder.read_json(Self::PROMPTS)?).map_err(|error| {
                let expected =
                    "expected {\"side\": pixels, \"trained\": [texts], \"held_out\": [texts]}";
                Error::config(label(Self::PROMPTS), format!("{error}; {expected}"))
            })?;
        let count = file.trained.len() + file.held_out.len();
        if !(1..=LARGEST).contains(&file.side) || count == 0 || count > MOST {
            return Err(Error::config(
                label(Self::PROMPTS),
                format!(
                    "{count} pictures of {} pixels; expected 1 to {MOST} of 1 to {LARGEST}",
                    file.side
                ),
            ));
        }
        let sheet = decode_picture(&folder.read(Self::SHEET)?, &label(Self::SHEET))?;
        let wanted = size(file.side, count);
        if [sheet.width, sheet.height] != wanted {
            return Err(Error::config(
                label(Self::SHEET),
                format!(
                    "is {}x{} pixels; {count} pictures of {} pixels, {COLUMNS} a row, take {}x{}",
                    sheet.width, sheet.height, file.side, wanted[0], wanted[1]
                ),
            ));
        }
        let square = |index: usize, prompt: &String| {
            Ok(NamedPicture {
                prompt: prompt.clone(),
                picture: tile(&sheet, file.side, columns(count), index)?,
            })
        };
        let first = file.trained.len();
        let trained = file.trained.iter().enumerate();
        let held_out = file.held_out.iter().enumerate();
        Ok(Some(Self {
            trained: trained
                .map(|(index, prompt)| square(index, prompt))
                .collect::<Result<_>>()?,
            held_out: held_out
                .map(|(index, prompt)| square(first + index, prompt))
                .collect::<Result<_>>()?,
        }))
    }

    /// The files, each with its name.
    ///
    /// # Errors
    /// Pictures that are no squares of one size, or none.
    pub fn to_files(&self) -> Result<[(&'static str, Vec<u8>); 2]> {
        let all = || self.trained.iter().chain(&self.held_out);
        let count = all().count();
        let wrong = |message: String| Error::config(Self::SHEET, message);
        let Some(first) = all().next() else {
            return Err(wrong("no picture".to_owned()));
        };
        let side = first.picture.width;
        let pictures: Vec<&Picture> = all().map(|one| &one.picture).collect();
        let odd = |picture: &&&Picture| [picture.width, picture.height] != [side; 2];
        if let Some(Picture { width, height, .. }) = pictures.iter().find(odd) {
            return Err(wrong(format!(
                "a picture of {width}x{height} pixels among squares of {side}"
            )));
        }
        let sheet = tiled(&pictures, side, columns(count), [0; 3])?;
        let prompts = |pictures: &[NamedPicture]| -> Vec<String> {
            pictures.iter().map(|one| one.prompt.clone()).collect()
        };
        let file = File {
            side,
            trained: prompts(&self.trained),
            held_out: prompts(&self.held_out),
        };
        let mut json = serde_json::to_vec_pretty(&file)
            .map_err(|error| Error::config(Self::PROMPTS, error.to_string()))?;
        json.push(b'\n');
        Ok([
            (Self::SHEET, encode_png(&sheet, &[])?),
            (Self::PROMPTS, json),
        ])
    }
}

/// Squares of a row of a sheet of so many.
fn columns(count: usize) -> usize {
    COLUMNS.min(count)
}

/// Width and height of a sheet.
fn size(side: usize, count: usize) -> [usize; 2] {
    [columns(count) * side, count.div_ceil(COLUMNS) * side]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(prompt: &str, side: usize, shade: u8) -> NamedPicture {
        NamedPicture {
            prompt: prompt.to_owned(),
            picture: Picture::filled(side, side, [shade, 255 - shade, 7]),
        }
    }

    fn written(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    #[test]
    fn what_is_written_is_read() {
        let pictures = EvaluationPictures {
            trained: (0..20).map(|index| named("a", 3, index * 9)).collect(),
            held_out: vec![named("b", 3, 200)],
        };
        let folder = written(&pictures.to_files().unwrap());
        let read = |place: &std::path::Path| {
            EvaluationPictures::read(&ModelFolder::Disk(place.to_owned()))
        };
        assert_eq!(read(folder.path()).unwrap(), Some(pictures));
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(read(empty.path()).unwrap(), None);
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let pictures = EvaluationPictures {
            trained: vec![named("a", 4, 1)],
            held_out: vec![named("b", 4, 2)],
        };
        let [sheet, prompts] = pictures.to_files().unwrap();
        let text = String::from_utf8(prompts.1.clone()).unwrap();
        for (json, words) in [
            (text.replace("\"b\"", "\"b\", \"c\""), &["8x4", "12x4"][..]),
            (text.replace("4,", "0,"), &["of 0 pixels"]),
            (text.replace("held_out", "held"), &["held_out"]),
        ] {
            let folder = written(&[sheet.clone(), (prompts.0, json.into_bytes())]);
            let folder = ModelFolder::Disk(folder.path().to_owned());
            let error = EvaluationPictures::read(&folder).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{word}: {error}");
            }
        }
        let mixed = EvaluationPictures {
            trained: vec![named("a", 4, 1), named("b", 5, 1)],
            held_out: Vec::new(),
        };
        let error = mixed.to_files().unwrap_err().to_string();
        assert!(error.contains("5x5") && error.contains("squares of 4"));
        assert!(EvaluationPictures::default().to_files().is_err());
    }
}
