//! Any bytes as a request for masks: understood, or refused by name.
//! Run: `cargo +nightly fuzz run segment_request fuzz/corpus/segment_request fuzz/seeds/segment_request`
#![no_main]

use brisk_fuzz::Requests;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    Requests::shared().expect_an_answer("/brisk/v1/segment", "application/json", bytes);
});
