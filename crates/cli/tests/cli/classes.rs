//! From folders of pictures to a model that draws their classes: `train class`, `image`, `reproduce dc-ae`.

use brisk_media::{Picture, encode_png};
use serde_json::{Value, json};

use crate::harness::{Place, fixture};

/// Two folders of plain pictures, and a recipe of a tiny network.
fn prepare(place: &Place) {
    for (class, colour) in [("red", [220, 30, 30]), ("blue sky", [40, 80, 230])] {
        let folder = place.path("colours").join(class);
        std::fs::create_dir_all(&folder).unwrap();
        for number in 0..12u8 {
            let shade = colour.map(|value: u8| value.saturating_sub(4 * number));
            let picture = Picture::new(20, 18, shade.repeat(360)).unwrap();
            let file = folder.join(format!("{number}.png"));
            std::fs::write(file, encode_png(&picture, &[]).unwrap()).unwrap();
        }
    }
    let text = include_str!("../../../train/recipes/scenes-class-f32.json");
    let mut recipe: Value = serde_json::from_str(text).unwrap();
    for (key, value) in [
        ("batch", 4),
        ("steps", 6),
        ("log_every", 1),
        ("checkpoint_every", 3),
    ] {
        recipe["training"][key] = value.into();
    }
    for (key, value) in [
        ("in_channels", 4),
        ("hidden_size", 16),
        ("depth", 2),
        ("num_heads", 2),
    ] {
        recipe["network"][key] = value.into();
    }
    recipe["network"]["num_inference_steps"] = 4.into();
    recipe["classes"] = "name".into();
    recipe["least_pictures"] = 2.into();
    recipe["pictures"] = json!({});
    recipe["sample_classes"] = json!(["red", "blue sky"]);
    std::fs::write(place.path("recipe.json"), recipe.to_string()).unwrap();
}

#[test]
fn folders_become_classes_that_are_drawn() {
    let place = Place::new();
    prepare(&place);
    let vae = fixture("pipelines/sana/vae");
    let verb = ["train", "class", "--recipe", "recipe.json", "--vae", &vae];
    let train = |more: &[&str]| {
        let data = ["--data", "colours", "-o", "run"];
        place.ok(&[&verb[..], &data, more].concat())
    };
    let first = train(&["--steps", "3"]);
    assert!(first.stderr.contains("step 3"), "{}", first.stderr);
    let report = train(&["--json"]).json();
    assert_eq!(report["report"]["steps"], 6);
    assert_eq!(report["report"]["classes"], 2);
    for file in [
        "config.json",
        "model.safetensors",
        "classes.json",
        "vae/config.json",
        "training_log.jsonl",
    ] {
        assert!(place.path("run/model").join(file).exists(), "{file}");
    }

    let image = ["image", "--model", "run/model"];
    let draw = |more: &[&str]| place.ok(&[&image[..], more].concat());
    let drawn = draw(&["Red", "0", "--steps", "3", "--json", "-o", "two.png"]).json();
    assert_eq!(drawn["images"].as_array().map(Vec::len), Some(2), "{drawn}");
    let again = draw(&["1", "--steps", "3", "-o", "again.png"]);
    assert!(again.stdout.contains("again.png"));
    let read = |name: &str| brisk_media::read_picture(&place.path(name)).unwrap();
    assert_eq!(
        (read("again.png").width, read("again.png").height),
        (16, 16)
    );
    let refused = |words: &[&str], more: &[&str]| {
        place.fails(2, words, &[&image[..], more, &["-o", "no.png"]].concat());
    };
    refused(&["green", "blue sky"], &["green"]);
    refused(&["width", "16×16"], &["red", "--width", "32"]);
    refused(&["sampler", "flow"], &["red", "--sampler", "sde"]);

    // The claim of the paper is measured; of a model and itself it does not appear.
    let itself = [
        "reproduce",
        "dc-ae",
        "--model",
        "run/model",
        "--beside",
        "run/model",
    ];
    let outcome = place.run(&itself);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(
        outcome.stdout.contains("f8, 6 tokens"),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome.stdout.contains("--beside run/model"),
        "{}",
        outcome.stdout
    );
    let alone = ["reproduce", "sana", "--beside", "run/model"];
    place.fails(2, &["--beside", "one model"], &alone);
}
