//! Any bytes as a job: understood, or refused by name.
//! Run: `cargo +nightly fuzz run job_request fuzz/corpus/job_request fuzz/seeds/job_request`
#![no_main]

use brisk_fuzz::Requests;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    Requests::shared().expect_an_answer("/brisk/v1/jobs", "application/json", bytes);
});
