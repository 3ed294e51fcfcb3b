//! Any bytes as a shard index: an error or bare file names, never a panic.
//! Run: `cargo +nightly fuzz run index fuzz/corpus/index fuzz/seeds/index`
#![no_main]

use brisk_store::ShardedSource;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(places) = ShardedSource::parse_index(bytes, "fuzz") else { return };
    for shard in places.values() {
        assert!(!shard.contains(['/', '\\']) && shard != "..", "{shard:?} leaves its folder");
    }
    let opened = ShardedSource::from_index(bytes, "fuzz", |_| Ok(None));
    assert!(opened.is_err(), "no shard was there");
});
