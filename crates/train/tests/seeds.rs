//! The fuzzer's files of people's data and recipes: the good ones are read, every other one is refused by name.

use std::path::Path;

use brisk_media::{Picture, encode_png};
use brisk_pipelines::Control;
use brisk_testkit::check_seeds;
use brisk_train::data::captioned::{CaptionedOptions, prepare_captioned};
use brisk_train::data::emoji::{EmojiSources, prepare};
use brisk_train::data::pictures::{PictureData, PrepareOptions};
use brisk_train::log::read_log;
use brisk_train::recipe::Recipe;
use serde_json::Value;

fn small(out: &Path) -> PrepareOptions {
    let mut options = PrepareOptions::new(out);
    options.size = 8;
    options
}

#[test]
fn recipes() {
    check_seeds("recipe", true, |name, bytes| Recipe::parse(bytes, name));
}

#[test]
fn texts_beside_pictures() {
    check_seeds("captions", true, |name, bytes| {
        let folder = tempfile::tempdir().unwrap();
        let red = Picture::new(8, 8, [200, 10, 10].repeat(64)).unwrap();
        let place = |ending: &str| folder.path().join(format!("{name}.{ending}"));
        std::fs::write(place("png"), encode_png(&red, &[]).unwrap()).unwrap();
        std::fs::write(place("txt"), bytes).unwrap();
        let options = small(&folder.path().join("data.safetensors"));
        prepare_captioned(
            folder.path(),
            &CaptionedOptions::default(),
            &options,
            &Control::silent(),
        )
    });
}

#[test]
fn data_sets() {
    let folder = tempfile::tempdir().unwrap();
    check_seeds("data_set", true, |name, bytes| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        PictureData::open(&path)
    });
}

#[test]
fn emoji_packages() {
    // Four files in one document; what is wrong is in one of them.
    check_seeds("emoji_package", false, |_, bytes| {
        let folder = tempfile::tempdir().unwrap();
        let packages = folder.path().join("packages");
        let files: Value = serde_json::from_slice(bytes).unwrap();
        for (key, name) in [
            ("icons", "icons.json"),
            ("chars", "chars.json"),
            ("data", "en/data.json"),
            ("groups", "meta/groups.json"),
        ] {
            let path = packages.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, files[key].to_string()).unwrap();
        }
        let sources = EmojiSources {
            noto: packages.clone(),
            fluent: None,
            twemoji: None,
            emojibase: packages,
        };
        let options = small(&folder.path().join("data.safetensors"));
        prepare(&sources, &options, &Control::silent())
    });
}

#[test]
fn training_logs() {
    let folder = tempfile::tempdir().unwrap();
    check_seeds("training_log", true, |name, bytes| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read_log(&path)
    });
}
