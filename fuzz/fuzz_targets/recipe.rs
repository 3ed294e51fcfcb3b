//! Any bytes as a training recipe: a checked recipe, which can be written and read again, or an error, never a panic.
//! Run: `cargo +nightly fuzz run recipe fuzz/corpus/recipe fuzz/seeds/recipe`
#![no_main]

use brisk_train::recipe::Recipe;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(recipe) = Recipe::parse(bytes, "fuzz") else {
        return;
    };
    if let Recipe::Autoencoder(recipe) = &recipe
        && let Ok(config) = recipe.autoencoder()
    {
        config.parameters();
    }
    let written = serde_json::to_vec(&recipe).expect("it was read from JSON");
    Recipe::parse(&written, "written").expect("it was accepted");
});
