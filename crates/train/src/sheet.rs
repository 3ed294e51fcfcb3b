//! Sample sheets.

use std::path::Path;

use brisk_media::{Picture, contact_sheet, encode_png};

use crate::error::Result;

/// Writes captioned pictures as one PNG.
pub(crate) fn write(path: &Path, cells: &[(Picture, String)], columns: usize) -> Result<()> {
    let sheet = contact_sheet(cells, columns)?;
    Ok(brisk_store::write_atomic(path, &encode_png(&sheet, &[])?)?)
}
