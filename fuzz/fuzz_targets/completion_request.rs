//! Any bytes as texts to continue: understood, or refused by name.
//! Run: `cargo +nightly fuzz run completion_request fuzz/corpus/completion_request fuzz/seeds/completion_request`
#![no_main]

use brisk_fuzz::Requests;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    Requests::shared().expect_an_answer("/v1/completions", "application/json", bytes);
});
