//! Pictures: their size and the texts inside.

use std::io::Read;
use std::path::Path;

use brisk_media::{decode_picture, read_png_metadata};
use brisk_store::Limit;
use brisk_store::read::read;
use serde_json::{Map, Value, json};

use crate::failure::{Failure, Result};
use crate::output;

/// Whether a file starts like a PNG, JPEG or WebP.
pub fn is_picture(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(12).read_to_end(&mut start))
        .map_err(|error| Failure::failed(format!("cannot read {}: {error}", path.display())))?;
    let webp = start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WEBP");
    Ok(start.starts_with(b"\x89PNG") || start.starts_with(&[0xff, 0xd8, 0xff]) || webp)
}

/// Prints size and texts.
pub fn show(path: &Path, as_json: bool) -> Result {
    let bytes = read(path, Limit::PICTURE)?;
    let picture = decode_picture(&bytes, &path.display().to_string())?;
    let texts = match bytes.starts_with(b"\x89PNG") {
        true => {
            read_png_metadata(&bytes).map_err(|error| Failure::from(error).at(path.display()))?
        }
        false => Vec::new(),
    };
    let request = texts
        .iter()
        .find(|(keyword, _)| keyword == "brisk")
        .and_then(|(_, text)| serde_json::from_str::<Value>(text).ok());
    if as_json {
        let others: Map<String, Value> = texts
            .iter()
            .filter(|(keyword, _)| keyword != "brisk")
            .map(|(k, t)| (k.clone(), t.clone().into()))
            .collect();
        return output::print_json(&json!({
            "path": path.display().to_string(), "kind": "picture", "width": picture.width, "height": picture.height,
            "request": request, "texts": others,
        }));
    }
    let mut out = format!(
        "{}: picture, {} x {} px\n",
        path.display(),
        picture.width,
        picture.height
    );
    match &request {
        Some(request) => {
            out.push_str("drawn by brisk:\n");
            for (key, value) in request.as_object().into_iter().flatten() {
                out.push_str(&format!(
                    "  {}: {}\n",
                    super::shortened(&key.replace('_', " ")),
                    super::shortened(&super::plain(value))
                ));
            }
        }
        None if texts.is_empty() => out.push_str("no request inside\n"),
        None => {}
    }
    // The text for people repeats the request.
    for (keyword, text) in &texts {
        if keyword != "brisk" && !(request.is_some() && keyword == "parameters") {
            out.push_str(&format!(
                "{}: {}\n",
                super::shortened(keyword),
                super::shortened(text)
            ));
        }
    }
    output::print(&out)
}
