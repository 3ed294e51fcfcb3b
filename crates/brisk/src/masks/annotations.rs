//! Where the words of pictures are written: a file of one picture or many, or a folder with a file for each.

use std::path::{Path, PathBuf};

use brisk_pipelines::request::{Word, WordFile};
use brisk_pipelines::{Error, Result};
use brisk_store::{Limit, read_text};

/// The value that asks for finding words.
const AUTO: &str = "auto";

/// Annotations of pictures.
#[derive(Debug)]
pub enum Annotations {
    /// None: words are to be found.
    Auto,
    /// A file.
    File(PathBuf, WordFile),
    /// A folder with a file for each picture.
    Folder(PathBuf),
}

impl Annotations {
    /// Opens a file or a folder, or takes `auto`.
    ///
    /// # Errors
    /// A file that cannot be read or is in no known format.
    pub fn open(place: &Path) -> Result<Self> {
        if place.as_os_str() == AUTO {
            return Ok(Self::Auto);
        }
        if place.is_dir() {
            return Ok(Self::Folder(place.to_owned()));
        }
        Ok(Self::File(place.to_owned(), read(place)?))
    }

    /// The words of a picture's file; none where they are to be found.
    ///
    /// # Errors
    /// There are none of this picture, or its file is in no known format.
    pub fn of(&self, picture: &Path) -> Result<Option<Vec<Word>>> {
        match self {
            Self::Auto => Ok(None),
            Self::File(file, words) => match words.of(picture) {
                Some(words) => Ok(Some(words.to_vec())),
                None => Err(missing(format!(
                    "{} says nothing of {}",
                    file.display(),
                    picture.display()
                ))),
            },
            Self::Folder(folder) => {
                let stem = picture.file_stem().unwrap_or_default().to_string_lossy();
                let names = [
                    format!("{stem}.json"),
                    format!("{stem}_anno.json"),
                    format!("gt_{stem}.txt"),
                    format!("{stem}.txt"),
                ];
                let found = names
                    .iter()
                    .map(|name| folder.join(name))
                    .find(|path| path.is_file());
                let path = found.ok_or_else(|| {
                    missing(format!(
                        "{} has none of {}",
                        folder.display(),
                        names.join(", ")
                    ))
                })?;
                let words = read(&path)?;
                let words = words.of(picture).map(<[Word]>::to_vec);
                words.map(Some).ok_or_else(|| {
                    missing(format!(
                        "{} says nothing of {}",
                        path.display(),
                        picture.display()
                    ))
                })
            }
        }
    }
}

fn missing(message: String) -> Error {
    Error::request("words", message)
}

fn read(file: &Path) -> Result<WordFile> {
    let text = read_text(file, Limit::DATA)?;
    WordFile::read(&text, &file.display().to_string())
}
