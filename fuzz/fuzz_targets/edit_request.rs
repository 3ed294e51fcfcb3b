//! Any bytes as a form with a picture to start from: understood, or refused by name.
//! Run: `cargo +nightly fuzz run edit_request fuzz/corpus/edit_request fuzz/seeds/edit_request`
#![no_main]

use brisk_fuzz::Requests;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    Requests::shared().expect_an_answer("/v1/images/edits", "multipart/form-data; boundary=b", bytes);
});
