//! Any bytes as the text beside a picture: a data set that can be read back, or an error, never a panic.
//! Run: `cargo +nightly fuzz run captions fuzz/corpus/captions fuzz/seeds/captions`
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use brisk_media::{Picture, encode_png};
use brisk_pipelines::Control;
use brisk_train::data::captioned::{CaptionedOptions, prepare_captioned};
use brisk_train::data::pictures::{PictureData, PrepareOptions};

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| brisk_fuzz::folder("captions"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let picture = FOLDER.join("a.png");
    if !picture.exists() {
        let red = Picture::new(8, 8, [200, 10, 10].repeat(64)).expect("as many pixels as it says");
        std::fs::write(picture, encode_png(&red, &[]).expect("a picture")).expect("a place to write");
    }
    std::fs::write(FOLDER.join("a.txt"), bytes).expect("a place to write");
    let mut options = PrepareOptions::new(FOLDER.join("data.safetensors"));
    options.size = 8;
    if prepare_captioned(&FOLDER, &CaptionedOptions::default(), &options, &Control::silent()).is_ok() {
        let data = PictureData::open(&options.out).expect("it was written");
        assert_eq!(data.len(), 1);
        assert!(!data.entries()[0].name.trim().is_empty());
    }
});
