//! Any bytes as an annotation file of words (brisk's JSON, TextSeg's, COCO-Text's, lines of MLT17): words whose outlines are
//! places, or an error, never a panic.
//! Run: `cargo +nightly fuzz run words fuzz/corpus/words fuzz/seeds/words`
#![no_main]

use std::path::Path;

use brisk_pipelines::request::{MOST_WORDS, WordFile};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(file) = WordFile::read(text, "fuzz") else {
        return;
    };
    let _ = file.of(Path::new("folder/a.jpg"));
    let pictures: Vec<_> = match file {
        WordFile::One(words) => vec![words],
        WordFile::Many(pictures) => pictures.into_values().collect(),
    };
    for words in pictures {
        assert!(words.len() <= MOST_WORDS);
        for word in words {
            assert!(word.polygon.len() >= 3 && word.polygon.iter().flatten().all(|at| at.is_finite()));
            assert!(word.text.is_none_or(|text| !text.is_empty()));
        }
    }
});
