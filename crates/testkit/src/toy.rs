//! A model of the toy family, whose every verb takes no time.

use std::path::{Path, PathBuf};

use brisk_store::{Dtype, OutTensor};
use serde_json::{Value, json};

/// The words that the model knows.
pub const TOY_WORDS: [&str; 3] = ["red", "green", "blue"];

/// Side of its pictures, in pixels.
pub const TOY_SIDE: usize = 16;

/// Writes a model to `folder`: of each word a plain picture of its colour, from which pictures of the word
/// lie `spread` away.
///
/// # Panics
/// A folder that cannot be written.
pub fn write_toy_model(folder: &Path, spread: f32) -> PathBuf {
    let network = folder.join("velocity_model");
    std::fs::create_dir_all(&network).expect("a folder");
    let write = |path: PathBuf, value: Value| {
        // Tests side by side write one folder: none may see half of a file.
        brisk_store::write_atomic(&path, value.to_string().as_bytes())
            .expect("a file that can be written");
    };
    write(
        folder.join("model_index.json"),
        json!({"_class_name": "ToyPipeline", "velocity_model": ["brisk", "ToyVelocityModel"]}),
    );
    write(
        network.join("config.json"),
        json!({"_class_name": "ToyVelocityModel", "words": TOY_WORDS, "side": TOY_SIDE}),
    );
    let colour = |word: usize| (0..3).map(move |channel| if channel == word { 1f32 } else { -1.0 });
    let pictures = (0..TOY_WORDS.len())
        .flat_map(|word| (0..TOY_SIDE * TOY_SIDE).flat_map(move |_| colour(word)));
    let tensor = |name: &str, shape: &[usize], values: Vec<f32>| OutTensor {
        name: name.to_owned(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        data: values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect::<Vec<_>>()
            .into(),
    };
    let values = 3 * TOY_SIDE * TOY_SIDE;
    let tensors = [
        tensor(
            "pictures.weight",
            &[TOY_WORDS.len(), values],
            pictures.collect(),
        ),
        tensor("spread", &[1], vec![spread]),
    ];
    let file = network.join("diffusion_pytorch_model.safetensors");
    brisk_store::write_safetensors(&file, &tensors, &Default::default())
        .unwrap_or_else(|error| panic!("{error}"));
    folder.to_owned()
}
