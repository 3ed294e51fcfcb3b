//! Any bytes as a conversation: understood, or refused by name.
//! Run: `cargo +nightly fuzz run chat_request fuzz/corpus/chat_request fuzz/seeds/chat_request`
#![no_main]

use brisk_fuzz::Requests;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    Requests::shared().expect_an_answer("/v1/chat/completions", "application/json", bytes);
});
