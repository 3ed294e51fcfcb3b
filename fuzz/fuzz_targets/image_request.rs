//! Any bytes as a request for pictures: understood, or refused by name.
//! Run: `cargo +nightly fuzz run image_request fuzz/corpus/image_request fuzz/seeds/image_request`
#![no_main]

use brisk_fuzz::Requests;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    Requests::shared().expect_an_answer("/v1/images/generations", "application/json", bytes);
});
