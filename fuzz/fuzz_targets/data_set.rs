//! Any bytes as a data set file: pictures of the size it says, or an error, never a panic.
//! Run: `cargo +nightly fuzz run data_set fuzz/corpus/data_set fuzz/seeds/data_set`
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use brisk_train::Selection;
use brisk_train::data::pictures::PictureData;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| brisk_fuzz::folder("data-set"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = FOLDER.join("data.safetensors");
    std::fs::write(&path, bytes).expect("a place to write");
    let Ok(data) = PictureData::open(&path) else {
        return;
    };
    for index in 0..data.len() {
        let picture = data.picture(index).expect("its size was checked");
        let shape = data.shape(index).expect("it is one of them");
        assert_eq!((picture.width, picture.height), (shape.width, shape.height));
    }
    for held_out in [false, true] {
        drop(Selection::default().of(&data, held_out));
    }
});
