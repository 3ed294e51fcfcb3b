//! Names of the hub: models and single files in a cache as huggingface_hub leaves it.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::harness::{Place, fixture, fixture_path};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const LORA: &str = "lora/t1_base/pytorch_lora_weights.safetensors";

/// A repository's snapshot in the cache of the place, with what `main` is.
fn snapshot(place: &Place, name: &str) -> PathBuf {
    let model = place.path(&format!("hf/hub/models--{}", name.replace('/', "--")));
    std::fs::create_dir_all(model.join("refs")).unwrap();
    std::fs::write(model.join("refs/main"), COMMIT).unwrap();
    let snapshot = model.join("snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).unwrap();
    snapshot
}

fn put(snapshot: &Path, name: &str, fixture: &str) {
    let target = snapshot.join(name);
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    std::fs::copy(fixture_path(fixture), target).unwrap();
}

/// The picture's bytes, without its description.
fn drawn(place: &Place, options: &[&str]) -> Vec<u8> {
    let model = fixture("pipelines/sana");
    let file = place.path("out.png");
    let mut all = vec![
        "image", "x", "-o", "out.png", "--model", &model, "--steps", "1",
    ];
    all.extend(["--instruction", "none"]);
    all.extend(options);
    place.ok(&all);
    brisk_media::read_picture(&file).unwrap().pixels
}

#[test]
fn networks_and_loras_are_given_by_hub_id() {
    let place = Place::new();
    put(
        &snapshot(&place, "own/vae"),
        "config.json",
        "pipelines/sana/vae/config.json",
    );
    let weights = "diffusion_pytorch_model.safetensors";
    put(
        &snapshot(&place, "own/vae"),
        weights,
        &format!("pipelines/sana/vae/{weights}"),
    );
    let control = snapshot(&place, "own/sub");
    for file in ["config.json", weights] {
        let part = format!("transformer/{file}");
        put(&control, &part, &format!("pipelines/sana/{part}"));
    }
    let plain = drawn(&place, &[]);
    for options in [
        &["--vae", "own/vae"][..],
        &["--vae", "own/vae@main"],
        &["--vae", &format!("own/vae@{}", &COMMIT[..8])],
        &["--transformer", "own/sub"],
        &["--transformer", &format!("own/sub/transformer/{weights}")],
    ] {
        assert_eq!(drawn(&place, options), plain, "{options:?}");
    }
}

#[test]
fn what_is_not_there_is_named() {
    let place = Place::new();
    let model = fixture("pipelines/sana");
    let several = snapshot(&place, "own/several");
    put(&several, "a.safetensors", LORA);
    put(&several, "b.safetensors", LORA);
    let draw = |option: &str, name: &str, words: &[&str]| {
        let mut all = vec![name];
        all.extend(words);
        let flag = option.to_owned();
        all.push(&flag);
        let arguments = [
            "image", "x", "-o", "out.png", "--model", &model, option, name,
        ];
        place.fails(1, &all, &arguments);
    };
    for option in [
        "--lora",
        "--transformer",
        "--vae",
        "--text-encoder",
        "--controlnet",
    ] {
        draw(
            option,
            "own/absent",
            &["not in the cache", "brisk models pull own/absent"],
        );
        draw(option, "absent", &["no file or folder", "owner/name"]);
    }
    draw(
        "--lora",
        "own/several",
        &[
            "2 weights files",
            "a.safetensors",
            "own/several/a.safetensors",
        ],
    );
    draw(
        "--lora",
        "own/several/c.safetensors",
        &["lacks c.safetensors", "models pull"],
    );
    place.fails(
        1,
        &["own/absent", "models pull"],
        &["models", "show", "own/absent"],
    );
}

#[test]
fn a_local_path_goes_before_the_hub() {
    let place = Place::new();
    snapshot(&place, "own/name");
    std::fs::create_dir(place.path("own")).unwrap();
    std::fs::copy(fixture_path(LORA), place.path("own/name")).unwrap();
    let text = place.ok(&["inspect", "own/name"]).stdout;
    assert!(text.starts_with("own/name: LoRA"), "{text}");
}

#[test]
fn one_model_is_told_of() {
    let place = Place::new();
    let outcome = place.ok(&["models", "show", "sana-emoji"]);
    for word in [
        "red heart",
        "--guidance W",
        "1.5",
        "128 × 128",
        "Apache-2.0",
        "noto 1.2.9",
    ] {
        assert!(
            outcome.stdout.contains(word),
            "no {word:?} in {}",
            outcome.stdout
        );
    }
    let listed = place
        .ok(&["models", "show", "sana-emoji", "--prompts"])
        .stdout;
    assert_eq!(listed.lines().count(), 1148);
    assert!(listed.lines().any(|line| line == "red heart"));
    let told = place
        .ok(&["models", "show", "llada-arithmetic", "--json"])
        .json();
    assert_eq!(
        (&told["verb"], &told["gives"]),
        (&json!("text"), &json!("text"))
    );
    assert!(
        told["prompts"][0].as_str().unwrap().contains("How many"),
        "{told}"
    );
    assert!(
        told["options"]
            .as_array()
            .unwrap()
            .iter()
            .any(|option| option["name"] == "threshold")
    );

    let cached = snapshot(&place, "own/model");
    for file in ["config.json", "model.safetensors"] {
        put(&cached, file, &format!("language_models/llada_0/{file}"));
    }
    place.fails(
        1,
        &["there is no tokenizer"],
        &["models", "show", "own/model"],
    );
    place.fails(
        2,
        &["cannot be used with"],
        &["models", "show", "x", "--prompts", "--json"],
    );
    let cached = snapshot(&place, "own/drawn");
    std::fs::remove_dir(&cached).unwrap();
    place.copy(
        "pipelines/sprint",
        cached
            .strip_prefix(place.path(""))
            .unwrap()
            .to_str()
            .unwrap(),
    );
    std::fs::write(cached.join("README.md"), "---\nlicense: mit\n---\n").unwrap();
    let told = place.ok(&["models", "show", "own/drawn", "--json"]).json();
    assert_eq!(told["facts"]["licence"], "mit");
    assert_eq!(told["defaults"]["steps"], 2);
    assert_eq!(told["prompts"], json!(null));
    assert!(
        told["facts"]["where"].as_str().unwrap().ends_with(COMMIT),
        "{told}"
    );
    place.fails(
        1,
        &["prompts.json"],
        &["models", "show", "own/drawn", "--prompts"],
    );
}

#[test]
fn the_other_verb_is_named_as_it_is_typed() {
    let place = Place::new();
    place.fails(
        2,
        &["gives pictures, not text: brisk image --model sana-emoji …"],
        &["text", "--model", "sana-emoji", "x"],
    );
}
