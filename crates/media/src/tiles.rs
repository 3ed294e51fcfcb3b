//! Squares of one size side by side in one picture, without anything between them.

use crate::error::{Error, Result};
use crate::picture::Picture;

/// Pictures of `side` by `side` pixels, `columns` in a row; where the last row has too few, the colour.
///
/// # Errors
/// A picture of another size, or none.
pub fn tiled(
    pictures: &[&Picture],
    side: usize,
    columns: usize,
    colour: [u8; 3],
) -> Result<Picture> {
    let (width, rows) = (columns * side, pictures.len().div_ceil(columns.max(1)));
    let mut sheet = Picture::filled(width, rows * side, colour);
    for (index, picture) in pictures.iter().enumerate() {
        if [picture.width, picture.height] != [side; 2] {
            return Err(Error::Mismatch(picture.width, picture.height, side, side));
        }
        sheet.paste(picture, index % columns * side, index / columns * side);
    }
    Ok(sheet)
}

/// The square of a number, counted row by row.
///
/// # Errors
/// One that the sheet doesn't have.
pub fn tile(sheet: &Picture, side: usize, columns: usize, index: usize) -> Result<Picture> {
    let (left, top) = (index % columns * side, index / columns * side);
    sheet.crop(left, top, side, side)
}
