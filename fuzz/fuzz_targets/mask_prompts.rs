//! Any bytes as a file of boxes and points: prompts that can be written back and checked, or an error, never a panic.
//! Run: `cargo +nightly fuzz run mask_prompts fuzz/corpus/mask_prompts fuzz/seeds/mask_prompts`
#![no_main]

use brisk_pipelines::MaskPrompt;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(prompts) = MaskPrompt::read_all(text, "fuzz") {
        for prompt in &prompts {
            drop(prompt.check([100, 80]));
        }
        let written: Vec<_> = prompts.iter().map(MaskPrompt::to_json).collect();
        let written = serde_json::Value::Array(written).to_string();
        assert_eq!(MaskPrompt::read_all(&written, "fuzz").expect("what was written"), prompts);
    }
});
