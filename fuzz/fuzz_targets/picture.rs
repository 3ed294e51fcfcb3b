//! Any bytes as a picture, and as a PNG with texts: an error or pixels of the size it says, never a panic.
//! Run: `cargo +nightly fuzz run picture fuzz/corpus/picture fuzz/seeds/picture`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(picture) = brisk_media::decode_picture(bytes, "fuzz") {
        assert_eq!(picture.pixels.len(), picture.width * picture.height * 3);
    }
    let _ = brisk_media::read_png_metadata(bytes);
});
