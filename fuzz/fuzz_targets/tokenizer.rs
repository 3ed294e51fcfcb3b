//! Any bytes as a `tokenizer.json`, and what it accepts at work: ids, text or an error, never a panic.
//! Run: `cargo +nightly fuzz run tokenizer fuzz/corpus/tokenizer fuzz/seeds/tokenizer`
#![no_main]

use brisk_text::Tokenizer;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_bytes(bytes, "fuzz") else {
        return;
    };
    tokenizer.highest_id();
    for text in ["", "a red  heart, 42\n", "\u{1f600}e\u{301}<s>", "aaaaaaaaaaaaaaaaaaaaaaaa"] {
        for ids in [tokenizer.encode(text), tokenizer.encode_plain(text)].into_iter().flatten() {
            drop(tokenizer.decode(&ids));
            drop(tokenizer.decode_known(&ids));
        }
        drop(tokenizer.encode_truncated(text, 3));
    }
    drop(tokenizer.decode_known(&[0, 1, 2, 7, u32::MAX]));
});
