//! Any text as COCO's compressed runs: a mask that can be written back, or an error, never a panic.
//! Run: `cargo +nightly fuzz run mask_runs fuzz/corpus/mask_runs fuzz/seeds/mask_runs`
#![no_main]

use brisk_media::Mask;
use brisk_media::mask::Runs;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (Some([width, height]), Some(text)) = (bytes.first_chunk::<2>(), bytes.get(2..)) else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    if let Ok(runs) = Runs::from_text((*width).into(), (*height).into(), text) {
        let mask = Mask::from(&runs);
        assert_eq!(mask.area(), runs.area());
        let again = Runs::from(&mask);
        let read = Runs::from_text((*width).into(), (*height).into(), &again.to_text());
        assert_eq!(Mask::from(&read.expect("what was written")), mask);
    }
});
