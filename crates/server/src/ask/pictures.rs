//! Pictures that come with a request. While it waits, and once it is done, they are the files that were sent: small
//! files can be large pictures.

use brisk::options::{Definition, Kind, Options, Value as OptionValue};

use crate::error::{ApiError, Result};
use crate::fields::{MAX_PIXELS, PictureFile, PictureRoom, room_for};

/// Pictures that were decoded, with the room that this took.
pub struct Decoded {
    /// They, as options.
    pub options: Options,
    _room: PictureRoom,
}

/// Options of a request that are pictures.
#[derive(Debug, Default)]
pub struct Pictures {
    given: Vec<(&'static Definition, Vec<PictureFile>)>,
}

impl Pictures {
    /// Those that fields gave.
    pub fn of(fields: Vec<(&'static Definition, PictureFile)>) -> Self {
        let given = fields.into_iter();
        Self {
            given: given.map(|(option, file)| (option, vec![file])).collect(),
        }
    }

    /// Adds an option's pictures: one, where it is of that kind.
    pub fn add(&mut self, option: &'static Definition, files: Vec<PictureFile>) {
        self.given.push((option, files));
    }

    /// Whether this option is one of them.
    pub fn has(&self, option: &'static Definition) -> bool {
        self.given
            .iter()
            .any(|(given, _)| given.name == option.name)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// Decodes them all into options, once there is room; `release_memory` hands freed memory back to the system.
    ///
    /// # Errors
    /// A damaged file, by its field, or more pixels in all than a request may have.
    pub fn decode(&self, release_memory: fn()) -> Result<Decoded> {
        let files = self.given.iter().flat_map(|(_, files)| files);
        let pixels = files.map(PictureFile::pixels).sum::<usize>();
        if pixels > MAX_PIXELS {
            let problem = format!(
                "the request's pictures have {pixels} pixels together; at most {MAX_PIXELS} are taken"
            );
            return Err(ApiError::new(
                axum::http::StatusCode::BAD_REQUEST,
                "invalid_value",
                problem,
            ));
        }
        let files = self.given.iter().flat_map(|(_, files)| files);
        let room = room_for(files, release_memory);
        let mut options = Options::new();
        for (option, files) in &self.given {
            let mut decoded = files.iter().map(PictureFile::decode);
            let value = match (option.kind, files.len()) {
                (Kind::Picture, 1) => decoded.next().transpose()?.map(OptionValue::Picture),
                _ => Some(OptionValue::Pictures(decoded.collect::<Result<_>>()?)),
            };
            if let Some(value) = value {
                let given = options.give(option, value);
                given.map_err(|error| ApiError::of_library(&error))?;
            }
        }
        Ok(Decoded {
            options,
            _room: room,
        })
    }

    /// Takes them out of options.
    pub fn put_away(&self, options: &mut Options) {
        for (option, _) in &self.given {
            options.remove(option);
        }
    }
}

#[cfg(test)]
mod tests {
    use brisk::{Picture, keys};

    use super::*;
    use crate::fields::claiming;

    fn file(width: u32, height: u32) -> PictureFile {
        PictureFile::new("image", claiming(width, height)).unwrap()
    }

    #[test]
    fn pictures_come_and_go_by_their_options() {
        let mut pictures = Pictures::default();
        assert!(pictures.is_empty());
        pictures.add(keys::INIT_IMAGE.definition(), vec![file(8, 8)]);
        let mut options = Options::new().with(&keys::STEPS, 3);
        options.complete(&pictures.decode(|| ()).unwrap().options);
        let start = options.get(&keys::INIT_IMAGE).unwrap();
        assert_eq!(*start, Picture::filled(8, 8, [1, 2, 3]));
        pictures.put_away(&mut options);
        assert!(!options.has(keys::INIT_IMAGE.definition()));
        assert_eq!(options.get(&keys::STEPS), Some(3));
    }

    #[test]
    fn all_pictures_of_a_request_count_together() {
        let mut pictures = Pictures::default();
        pictures.add(
            keys::INIT_IMAGE.definition(),
            vec![file(4096, 3000), file(4096, 3000)],
        );
        // Nothing was decoded: neither file has what it claims.
        let error = pictures.decode(|| ()).map(drop).unwrap_err();
        assert!(error.message.contains("24576000"), "{}", error.message);
        assert!(error.message.contains("together"), "{}", error.message);
    }
}
