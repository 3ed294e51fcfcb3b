//! Which files are pictures, by their names.

use std::path::Path;

/// Endings of the pictures that are read: PNG, JPEG and WebP.
pub const PICTURE_ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// Whether a file's name ends as that of a picture, in letters of either case.
pub fn is_picture(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| PICTURE_ENDINGS.contains(&&*ending.to_ascii_lowercase()))
}
