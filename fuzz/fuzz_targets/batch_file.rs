//! Any bytes as a file of requests: requests with names that files can have, or an error with its line.
//! Run: `cargo +nightly fuzz run batch_file fuzz/corpus/batch_file fuzz/seeds/batch_file`
#![no_main]

use std::collections::HashSet;
use std::path::{Component, PathBuf};
use std::sync::LazyLock;

use brisk_fleet::batch::{BatchOptions, Input};

static FILE: LazyLock<PathBuf> = LazyLock::new(|| brisk_fuzz::folder("batch").join("requests.jsonl"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    std::fs::write(&*FILE, bytes).expect("a place to write");
    let Ok(input) = Input::read(&FILE, &BatchOptions::default()) else {
        return;
    };
    let mut seen = HashSet::new();
    for entry in &input.entries {
        input.body(entry, "0123456789abcdef").expect("what was checked");
        for path in entry.paths() {
            let mut parts = std::path::Path::new(&path).components();
            assert!(parts.all(|part| matches!(part, Component::Normal(_))), "{path}");
            assert!(seen.insert(path));
        }
    }
});
