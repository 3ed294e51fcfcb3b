//! Any bytes as a `tokenizer.model` of SentencePiece, and what it accepts at work: ids, text or an error, never a
//! panic.
//! Run: `cargo +nightly fuzz run sentencepiece fuzz/corpus/sentencepiece fuzz/seeds/sentencepiece`
#![no_main]

use brisk_text::Tokenizer;
use serde_json::{Value, json};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let added = json!({"<im_start>": 400, "<im_end>": 401});
    for added in [&Value::Null, &added] {
        let Ok(tokenizer) = Tokenizer::from_sentencepiece(bytes, &Value::Null, added, "fuzz") else {
            continue;
        };
        tokenizer.highest_id();
        for text in ["", "a red  heart, 42\n", "\u{1f600}e\u{301}<s><im_start>", "aaaaaaaaaaaaaaaaaaaaaaaa"] {
            for ids in [tokenizer.encode(text), tokenizer.encode_plain(text)].into_iter().flatten() {
                drop(tokenizer.decode(&ids));
            }
            drop(tokenizer.encode_truncated(text, 3));
        }
        drop(tokenizer.decode_known(&[0, 1, 2, 7, 400, u32::MAX]));
    }
});
