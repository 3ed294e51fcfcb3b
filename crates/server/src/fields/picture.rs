//! Pictures in requests: what they may weigh, and how they are written.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use brisk::Picture;

use crate::error::{ApiError, Result};

/// Most bytes of a picture's file.
pub const MAX_PICTURE_BYTES: usize = 20 << 20;
/// Most pixels of a picture: what its decoder needs stays below 256 MB.
const MAX_PIXELS: usize = 16 << 20;

/// Decodes a picture's file; its size is looked at before its pixels.
///
/// # Errors
/// A file that is too large or no picture, by the field's name.
pub fn decode(field: &str, bytes: &[u8]) -> Result<Arc<Picture>> {
    if bytes.len() > MAX_PICTURE_BYTES {
        return Err(ApiError::invalid(
            field,
            format!(
                "the picture's file has {} bytes; at most {MAX_PICTURE_BYTES} are taken",
                bytes.len()
            ),
        ));
    }
    let wrong =
        |error: brisk_media::Error| ApiError::bad("invalid_value", field, error.to_string());
    let (width, height) = brisk_media::picture_size(bytes, field).map_err(wrong)?;
    if width.saturating_mul(height) > MAX_PIXELS {
        return Err(ApiError::invalid(
            field,
            format!("{width}x{height} pixels; at most {MAX_PIXELS} in all are taken"),
        ));
    }
    let picture = brisk_media::decode_picture(bytes, field).map_err(wrong)?;
    Ok(Arc::new(picture))
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
        assert_eq!(decode("image", &bytes).unwrap_err().code, "invalid_value");
    }

    #[test]
    fn the_size_is_looked_at_first() {
        let picture = Picture::filled(8, 8, [1, 2, 3]);
        let mut png = brisk_media::encode_png(&picture, &[]).unwrap();
        assert!(decode("image", &png).is_ok());
        // The claim alone, whose checksum is then wrong, is enough to refuse it or to find it damaged.
        png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
        assert!(decode("image", &png).is_err());
    }
}
