//! Any bytes as a picture that says how it was drawn, and as that description: a request or an error, never a panic.
//! Run: `cargo +nightly fuzz run redraw fuzz/corpus/redraw fuzz/seeds/redraw`
#![no_main]

use brisk::{REQUEST_KEYWORD, redraw};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(texts) = brisk_media::read_png_metadata(bytes) {
        drop(redraw(&texts, "fuzz"));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let texts = [(REQUEST_KEYWORD.to_owned(), text.to_owned())];
        if let Ok(found) = redraw(&texts, "fuzz") {
            assert_eq!(found.request.prompts.len(), 1);
        }
    }
});
