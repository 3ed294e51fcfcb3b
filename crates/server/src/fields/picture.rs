//! Pictures in requests: what they may weigh, and how they are written.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brisk::Picture;

use super::room::{Room, Taken};
use crate::error::{ApiError, Result};

/// Most bytes of a picture's file.
pub const MAX_PICTURE_BYTES: usize = 20 << 20;
/// Most pixels of all pictures of a request.
pub const MAX_PIXELS: usize = 16 << 20;
/// Bytes that pictures take at the same time while they are decoded and looked at, whoever sent them. Those of one
/// request that take more are decoded when no others are.
const DECODING: usize = 64 << 20;

/// Bytes of decoded pictures that are worth handing freed memory back for.
const LARGE: usize = 24 << 20;

/// The file of a picture, of which no more than its size has been read.
#[derive(Clone)]
pub struct PictureFile {
    field: String,
    bytes: Arc<[u8]>,
    pixels: usize,
}

impl PictureFile {
    /// Looks at the kind and the size that a file claims.
    ///
    /// # Errors
    /// A file that is too large or no picture, by the field's name.
    pub fn new(field: &str, bytes: Vec<u8>) -> Result<Self> {
        if bytes.len() > MAX_PICTURE_BYTES {
            return Err(ApiError::invalid(
                field,
                format!(
                    "the picture's file has {} bytes; at most {MAX_PICTURE_BYTES} are taken",
                    bytes.len()
                ),
            ));
        }
        let size = brisk_media::picture_size(&bytes, field);
        let (width, height) = size.map_err(|error| wrong(field, &error))?;
        let pixels = width.saturating_mul(height);
        if pixels > MAX_PIXELS {
            return Err(ApiError::invalid(
                field,
                format!("{width}x{height} pixels; at most {MAX_PIXELS} in all are taken"),
            ));
        }
        Ok(Self {
            field: field.to_owned(),
            bytes: bytes.into(),
            pixels,
        })
    }

    /// Pixels that it claims.
    pub fn pixels(&self) -> usize {
        self.pixels
    }

    /// Decodes it; [`room_for`] it is to be had before.
    ///
    /// # Errors
    /// A damaged file, by the field's name.
    pub fn decode(&self) -> Result<Arc<Picture>> {
        let picture = brisk_media::decode_picture(&self.bytes, &self.field);
        picture
            .map(Arc::new)
            .map_err(|error| wrong(&self.field, &error))
    }
}

/// Room for pictures while they are decoded and looked at. Where they are large, freed memory goes back to the system
/// before and after, so that it does not lie beside theirs.
#[derive(Debug)]
pub struct PictureRoom {
    _taken: Taken<'static>,
    release: Option<fn()>,
}

/// Waits until there is room to decode these files; it is free again when what is returned is dropped.
/// `release_memory` hands freed memory back to the system.
pub fn room_for<'f>(
    files: impl IntoIterator<Item = &'f PictureFile>,
    release_memory: fn(),
) -> PictureRoom {
    static ROOM: Room = Room::of(DECODING);
    let needed = files
        .into_iter()
        .map(|file| brisk_media::decoding_bytes(&file.bytes, file.pixels))
        .sum();
    let taken = ROOM.take(needed);
    let release = (needed >= LARGE).then_some(release_memory);
    if let Some(release) = release {
        release();
    }
    PictureRoom {
        _taken: taken,
        release,
    }
}

impl Drop for PictureRoom {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            release();
        }
    }
}

impl std::fmt::Debug for PictureFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PictureFile")
            .field("field", &self.field)
            .field("bytes", &self.bytes.len())
            .field("pixels", &self.pixels)
            .finish()
    }
}

fn wrong(field: &str, error: &brisk_media::Error) -> ApiError {
    ApiError::bad("invalid_value", field, error.to_string())
}

/// The bytes of a data URL; nothing is ever fetched.
///
/// # Errors
/// Another kind of URL, or one that is not base64, by the field's name.
pub fn from_data_url(field: &str, url: &str) -> Result<Vec<u8>> {
    let expected = "expected a data URL (data:image/png;base64,…); nothing is fetched";
    let Some((kind, data)) = url
        .strip_prefix("data:")
        .and_then(|rest| rest.split_once(','))
    else {
        let shown = brisk_store::shown_within(url, 40);
        return Err(ApiError::invalid(field, format!("{shown:?}: {expected}")));
    };
    if !kind.ends_with(";base64") {
        return Err(ApiError::invalid(
            field,
            format!("is not in base64; {expected}"),
        ));
    }
    STANDARD
        .decode(data.trim())
        .map_err(|error| ApiError::invalid(field, format!("is no base64: {error}")))
}

#[cfg(test)]
/// A PNG of one colour that says to have this width and height.
pub fn claiming(width: u32, height: u32) -> Vec<u8> {
    let mut png = brisk_media::encode_png(&Picture::filled(8, 8, [1, 2, 3]), &[]).unwrap();
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = png[12..29].iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 * (crc & 1))
        })
    });
    png[29..33].copy_from_slice(&(!checksum).to_be_bytes());
    png
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_urls_of_pictures_are_taken() {
        for (url, word) in [
            ("http://example.org/x.png", "nothing is fetched"),
            ("file:///etc/passwd", "nothing is fetched"),
            ("data:image/png,abc", "not in base64"),
            ("data:image/png;base64,#", "no base64"),
        ] {
            let error = from_data_url("image", url).unwrap_err();
            assert!(error.message.contains(word), "{}", error.message);
            assert_eq!(error.param.as_deref(), Some("image"));
        }
        let bytes = from_data_url("image", "data:;base64,aGVsbG8=").unwrap();
        assert_eq!(bytes, b"hello");
        let error = PictureFile::new("image", bytes).unwrap_err();
        assert_eq!(error.code, "invalid_value");
    }

    #[test]
    fn the_size_is_looked_at_first() {
        let file = PictureFile::new("image", claiming(8, 8)).unwrap();
        assert_eq!((file.pixels(), file.decode().unwrap().width), (64, 8));
        let error = PictureFile::new("image", claiming(60_000, 60_000)).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("image"));
        assert!(error.message.contains("60000x60000"), "{}", error.message);
        assert!(error.message.contains("16777216"), "{}", error.message);
        // What is allowed and not there is found when it is decoded.
        let file = PictureFile::new("image", claiming(4096, 4096)).unwrap();
        assert_eq!(file.decode().unwrap_err().code, "invalid_value");
    }
}
