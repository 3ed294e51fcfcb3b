//! The page: plain files that came with the build.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::error::{ApiError, Result};

/// A file of the page.
#[derive(Debug)]
pub struct File {
    /// Its path below `/ui/`.
    pub path: &'static str,
    /// Its media type.
    pub media_type: &'static str,
    /// Its content.
    pub content: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const DRAWING: &str = "image/svg+xml";

macro_rules! files {
    ($($path:literal $media_type:ident),+ $(,)?) => {
        &[$(File {
            path: $path,
            media_type: $media_type,
            content: include_str!(concat!("../ui/", $path)),
        }),+]
    };
}

/// All of them.
pub static FILES: &[File] = files![
    "index.html" HTML,
    "style.css" STYLE,
    "icon.svg" DRAWING,
    "main.js" SCRIPT,
    "api.js" SCRIPT,
    "chat.js" SCRIPT,
    "draw.js" SCRIPT,
    "fields.js" SCRIPT,
    "gallery.js" SCRIPT,
    "png.js" SCRIPT,
    "store.js" SCRIPT,
    "vendor/lit-html/lit-html.js" SCRIPT,
    "vendor/eventsource-parser/index.js" SCRIPT,
    "vendor/eventsource-parser/parse.js" SCRIPT,
    "vendor/eventsource-parser/errors.js" SCRIPT,
];

/// `GET /`.
pub async fn index(state: State<Arc<App>>) -> Result<Response> {
    file(state, Path("index.html".to_owned())).await
}

/// `GET /ui/{path}`: a file of the page; from `--ui-dir`, where one is given.
pub async fn file(State(app): State<Arc<App>>, Path(path): Path<String>) -> Result<Response> {
    // Only names that are in the table are looked up, whatever the folder holds.
    let Some(file) = FILES.iter().find(|file| file.path == path) else {
        return Err(ApiError::not_found("there is no such file of the page"));
    };
    let content = match &app.settings.ui_dir {
        None => file.content.to_owned(),
        Some(folder) => read(folder.join(file.path)).await?,
    };
    Ok(([(header::CONTENT_TYPE, file.media_type)], content).into_response())
}

async fn read(path: PathBuf) -> Result<String> {
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
    match read {
        Ok(Ok(content)) => Ok(content),
        _ => Err(ApiError::not_found(format!("{shown} cannot be read"))),
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// The files that others wrote, as they were published.
    const VENDORED: [(&str, &str); 4] = [
        (
            "vendor/lit-html/lit-html.js",
            "b878e7f95dec8a9b6e9b217faca6b6a11bad82ebc44c0caa77419ed83edd81f2",
        ),
        (
            "vendor/eventsource-parser/index.js",
            "2c04c758a5f07079b20e6e972608fbe9e61ee043c984b55425eb4b290faec717",
        ),
        (
            "vendor/eventsource-parser/parse.js",
            "4b246ad5755b7fafbea26f5494a8f57d336f4d5b8a559ff20fb02241038b14e2",
        ),
        (
            "vendor/eventsource-parser/errors.js",
            "c41fbafe9095c484c8aca86509adb3a8174284f0a6df65ec5347414856546fa4",
        ),
    ];

    #[test]
    fn what_others_wrote_is_unchanged() {
        for (path, expected) in VENDORED {
            let file = FILES.iter().find(|file| file.path == path).unwrap();
            let hash = Sha256::digest(file.content.as_bytes());
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hash, expected, "{path}");
        }
    }

    #[test]
    fn the_page_is_small_and_needs_nothing_else() {
        let bytes: usize = FILES.iter().map(|file| file.content.len()).sum();
        assert!(bytes <= 150_000, "{bytes}");
        for file in FILES {
            let own = !file.path.starts_with("vendor/");
            assert!(!own || file.content.lines().count() <= 300, "{}", file.path);
            let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            for line in file
                .content
                .lines()
                .filter(|line| line.starts_with("import ") || line.starts_with("export {"))
            {
                let Some((_, from)) = line.split_once(" from ") else {
                    continue;
                };
                let from = from.trim_matches([';', '"', '\'']).trim_start_matches("./");
                let path = match folder {
                    "" => from.to_owned(),
                    folder => format!("{folder}/{from}"),
                };
                assert!(
                    FILES.iter().any(|file| file.path == path),
                    "{}: {path}",
                    file.path
                );
            }
            let foreign = file.content.contains("https://") && own && file.path.ends_with(".js");
            assert!(!foreign, "{} speaks of another place", file.path);
        }
    }
}
