//! Any JSON object as the files of emoji packages (its keys `icons`, `chars`, `data` and `groups`): a data set or an error,
//! never a panic.
//! Run: `cargo +nightly fuzz run emoji_package fuzz/corpus/emoji_package fuzz/seeds/emoji_package`
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use brisk_pipelines::Control;
use brisk_train::data::emoji::{EmojiSources, prepare};
use brisk_train::data::pictures::{PictureData, PrepareOptions};
use serde_json::Value;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| brisk_fuzz::folder("emoji-package"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(Value::Object(files)) = serde_json::from_slice(bytes) else {
        return;
    };
    for (key, name) in [
        ("icons", "icons.json"),
        ("chars", "chars.json"),
        ("data", "en/data.json"),
        ("groups", "meta/groups.json"),
    ] {
        let path = FOLDER.join("packages").join(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("a place to write");
        let text = files.get(key).map_or_else(String::new, Value::to_string);
        std::fs::write(path, text).expect("a place to write");
    }
    let sources = EmojiSources {
        noto: FOLDER.join("packages"),
        fluent: None,
        twemoji: None,
        emojibase: FOLDER.join("packages"),
    };
    let mut options = PrepareOptions::new(FOLDER.join("data.safetensors"));
    options.size = 8;
    if prepare(&sources, &options, &Control::silent()).is_ok() {
        PictureData::open(&options.out).expect("it was written");
    }
});
