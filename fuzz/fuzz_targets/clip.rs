//! Any bytes as a clip, GIF, animated PNG or animated WebP: an error or frames of one size, never a panic.
//! Run: `cargo +nightly fuzz run clip fuzz/corpus/clip fuzz/seeds/clip`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(clip) = brisk_media::decode_clip(bytes, "fuzz") else {
        return;
    };
    let (first, count) = (&clip.frames()[0], clip.frames().len());
    for frame in clip.frames() {
        assert_eq!((frame.width, frame.height), (first.width, first.height));
        assert_eq!(frame.pixels.len(), frame.width * frame.height * 3);
    }
    assert!(clip.rate().is_finite() && clip.rate() > 0.0);
    assert!(clip.evenly(3).iter().all(|at| *at < count));
    // What was read can be written.
    if first.pixels.len() * count < 1 << 12 {
        clip.encode_gif().unwrap();
        clip.encode_apng(&[]).unwrap();
    }
});
