//! Makes the emoji data set: `prepare_emoji NPM_FOLDER OUT.safetensors [SIZE]`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use brisk_train::data::emoji::{EmojiSources, PrepareOptions, prepare};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, out, rest @ ..] = &arguments[..] else {
        return Err("NPM_FOLDER OUT [SIZE]".into());
    };
    let folder = PathBuf::from(folder);
    let sources = EmojiSources {
        noto: folder.join("noto"),
        fluent: Some(folder.join("fluent-emoji-flat")),
        twemoji: Some(folder.join("twemoji")),
        emojibase: folder.join("emojibase-data"),
    };
    let mut options = PrepareOptions::new(out);
    if let Some(size) = rest.first() {
        options.size = size.parse()?;
    }
    let report = prepare(&sources, &options, &mut |done, total| {
        eprint!("\r{done}/{total}")
    })?;
    println!("\n{report:?}");
    Ok(())
}
