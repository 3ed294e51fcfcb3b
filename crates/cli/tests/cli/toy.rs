//! A family that came in by its two folders and a line in each table, through every verb.

use std::collections::HashMap;

use brisk_nn::Tensor;
use brisk_testkit::{TOY_SIDE, TOY_WORDS, load_tensors, save_tensors, values, write_toy_model};

use crate::harness::Place;

/// A place with a model in the folder `toy`.
fn place(spread: f32) -> Place {
    let place = Place::new();
    write_toy_model(&place.path("toy"), spread);
    place
}

#[test]
fn it_draws_and_tells_how() {
    let place = place(0.0);
    let image = ["image", "--model", "toy", "a red ring"];
    place.ok(&[&image[..], &["-o", "red.png"]].concat());
    let picture = brisk_media::read_picture(&place.path("red.png")).unwrap();
    assert_eq!((picture.width, picture.height), (TOY_SIDE, TOY_SIDE));
    assert!(picture.pixels.chunks_exact(3).all(|p| p == [255, 0, 0]));

    let options = ["--brightness", "-0.5", "--steps", "2", "--json"];
    let json = place
        .ok(&[&image[..], &options, &["-o", "dark.png"]].concat())
        .json();
    let described = json.to_string();
    for part in [r#""brightness":-0.5"#, r#""steps":2"#, r#""denoise""#] {
        assert!(described.contains(part), "no {part} in {described}");
    }
    // What the file says draws it again.
    place.ok(&["image", "--from", "dark.png", "-o", "again.png"]);
    let read = |name: &str| brisk_media::read_picture(&place.path(name)).unwrap();
    assert!(read("dark.png") == read("again.png"));
    assert!(read("dark.png") != read("red.png"));
    let shown = place.ok(&["inspect", "dark.png"]).stdout;
    assert!(shown.contains("brightness"), "{shown}");

    let outcome = place.ok(&["image", "--model", "toy", "a ring", "-o", "ring.png"]);
    assert!(
        outcome.stderr.contains("red, green, blue"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn it_refuses_what_it_does_not_honour() {
    let place = place(0.0);
    let image = |more: &[&'static str]| [&["image", "red", "--model", "toy"][..], more].concat();
    place.fails(2, &["--width", "of one size"], &image(&["--width", "64"]));
    place.fails(
        2,
        &["--scheduler", "a toy has no such option"],
        &image(&["--scheduler", "dpm"]),
    );
    place.fails(2, &["--vae"], &image(&["--vae", "toy"]));
    place.fails(
        2,
        &["--brightness", "-1..=1"],
        &image(&["--brightness", "3"]),
    );
    // And others what only a toy honours.
    place.fails(
        2,
        &["--brightness", "SANA"],
        &[
            "image",
            "red",
            "--model",
            "sana-emoji",
            "--brightness",
            "0.5",
        ],
    );
    let quantized = ["quantize", "toy", "-o", "small", "--prompts", "prompts.txt"];
    std::fs::write(place.path("prompts.txt"), "red\n").unwrap();
    place.fails(2, &["toy", "no layout of 4-bit files"], &quantized);
    place.fails(
        2,
        &["pictures, not text", "brisk image"],
        &["text", "red", "--model", "toy"],
    );
    assert!(
        place
            .ok(&["image", "--help"])
            .stdout
            .contains("--brightness")
    );
}

#[test]
fn its_network_is_probed_and_timed() {
    let place = place(0.5);
    let side = TOY_SIDE;
    let sample: Vec<f32> = (0..3 * side * side)
        .map(|at| (at % 7) as f32 / 7.0 - 0.5)
        .collect();
    let inputs = HashMap::from([
        (
            "hidden_states",
            Tensor::from_slice(&sample, (1, 3, side, side)).unwrap(),
        ),
        ("timestep", Tensor::from_slice(&[250f32], 1).unwrap()),
        ("words", Tensor::from_slice(&[2i64], (1, 1)).unwrap()),
    ]);
    save_tensors(place.path("in.safetensors"), &inputs);
    let probe = ["probe", "--model", "toy", "--component", "velocity"];
    let files = ["--inputs", "in.safetensors", "--outputs", "out.safetensors"];
    place.ok(&[&probe[..], &files].concat());
    // σ = 1/4, s = 1/2: (σ − ¾s²) / (σ² + ¾²s²) of what is left of the picture's share.
    let slope = (0.25 - 0.75 * 0.25) / (0.0625 + 0.5625 * 0.25);
    let found = values(&load_tensors(place.path("out.safetensors"))["sample"]);
    for (at, (found, x)) in found.iter().zip(&sample).enumerate() {
        let mean = if at / (side * side) == 2 { 1.0 } else { -1.0 };
        let wanted = slope * (x - 0.75 * mean) - mean;
        assert!((found - wanted).abs() < 1e-5, "{at}: {found} {wanted}");
    }
    let inputs = HashMap::from([("words", Tensor::from_slice(&[9i64], (1, 1)).unwrap())]);
    save_tensors(place.path("in.safetensors"), &inputs);
    place.fails(1, &["hidden_states"], &[&probe[..], &files].concat());

    let run = ["--runs", "1", "--no-ceilings", "--json"];
    let timed =
        |arguments: &[&'static str]| place.ok(&[&["bench"][..], arguments, &run].concat()).json();
    let network = timed(&["velocity", "--model", "toy"]).to_string();
    assert!(network.contains(r#""side":16"#), "{network}");
    let made_up = timed(&["velocity", "--random", "toy/velocity_model"]).to_string();
    assert!(made_up.contains(r#""random":true"#), "{made_up}");
    let whole = timed(&["image", "--model", "toy", "--steps", "3"]).to_string();
    assert!(
        whole.contains("denoise") && whole.contains(r#""steps":3"#),
        "{whole}"
    );
}

#[test]
fn it_is_looked_at_listed_and_compared() {
    let place = place(0.0);
    let inspected = place.ok(&["inspect", "toy"]).stdout;
    for part in [
        "toy pipeline (ToyPipeline)",
        "3 words, pictures of 16 px",
        "complete",
    ] {
        assert!(inspected.contains(part), "no {part} in {inspected}");
    }
    let file = "toy/velocity_model/diffusion_pytorch_model.safetensors";
    assert!(
        place
            .ok(&["inspect", file])
            .stdout
            .contains("toy velocity network")
    );
    let doctor = place.ok(&["doctor", "--json"]).json();
    let families = doctor["families"].as_array().unwrap();
    let toy = families
        .iter()
        .find(|family| family["name"] == "toy")
        .unwrap();
    assert_eq!(toy["gives"], serde_json::json!(["pictures"]));

    write_toy_model(&place.path("other"), 0.0);
    std::fs::write(place.path("prompts.txt"), TOY_WORDS.join("\n")).unwrap();
    let compared = [
        "compare",
        "toy",
        "other",
        "--images",
        "3",
        "--prompts",
        "prompts.txt",
        "--json",
    ];
    assert_eq!(place.ok(&compared).json()["psnr_db"], 100.0);

    let weights = place.path(file);
    let mut bytes = std::fs::read(&weights).unwrap();
    bytes.truncate(bytes.len() - 4);
    std::fs::write(&weights, bytes).unwrap();
    place.fails(
        1,
        &["diffusion_pytorch_model.safetensors"],
        &["image", "red", "--model", "toy"],
    );
    assert_eq!(place.run(&["inspect", "toy"]).code, Some(1));
}

#[test]
fn its_claim_is_measured() {
    let reproduce = ["reproduce", "rectified-flow", "--model", "toy"];
    let json = place(0.0)
        .ok(&[&reproduce[..], &["--json"]].concat())
        .json();
    assert_eq!(
        (&json["appears"], &json["arxiv"]),
        (&true.into(), &"2209.03003".into())
    );
    // Where pictures spread the way is curved, and few steps end elsewhere.
    let outcome = place(0.8).run(&reproduce);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stdout);
    assert!(
        outcome.stderr.contains("does not appear"),
        "{}",
        outcome.stderr
    );
    assert!(
        Place::new()
            .ok(&["reproduce"])
            .stdout
            .contains("rectified-flow")
    );
}
