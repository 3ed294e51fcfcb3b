//! What is refused before any work: files that do not fit, and results on what is read.

use std::path::Path;

use brisk_store::{Dtype, OutTensor, write_safetensors};
use serde_json::{Value, json};

use crate::harness::{Outcome, Place, fixture};

/// Draws a small picture with the model in the folder `model`.
fn draw<'a>(extra: &[&'a str]) -> Vec<&'a str> {
    let usual = [
        "image",
        "a fox",
        "--model",
        "model",
        "--size",
        "64",
        "--no-binning",
        "--steps",
        "1",
        "--instruction",
        "none",
    ];
    [&usual[..], extra].concat()
}

/// A refusal with all of `words` that came before the first stage.
#[track_caller]
fn refused(place: &Place, words: &[&str], arguments: &[&str]) {
    place.fails(1, words, arguments);
    let Outcome { stderr, .. } = place.run(arguments);
    for stage in ["loading", "text encoder", "text "] {
        let began = stderr.lines().any(|line| line.starts_with(stage));
        assert!(!began, "work was begun: {stderr}");
    }
}

fn tensors(path: &Path, tensors: &[(&str, &[usize])]) {
    let tensors = tensors.iter().map(|(name, shape)| OutTensor {
        name: (*name).to_owned(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        data: vec![0; 4 * shape.iter().product::<usize>()].into(),
    });
    let tensors: Vec<OutTensor> = tensors.collect();
    write_safetensors(path, &tensors, &Default::default()).unwrap();
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = brisk_store::parse_json(&std::fs::read(path).unwrap(), "file").unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

#[test]
fn an_adapter_of_another_model_is_found_before_any_work() {
    let place = Place::new();
    place.copy("pipelines/sana", "model");
    let layer = "transformer.transformer_blocks.0.attn1.to_q";
    let (down, up) = (
        format!("{layer}.lora_A.weight"),
        format!("{layer}.lora_B.weight"),
    );
    let file = place.path("lora.safetensors");
    for (shapes, told) in [
        ([(&*down, &[4, 99][..]), (&*up, &[16, 4])], "[4, 99]"),
        ([(&*down, &[4, 16]), (&*up, &[99, 4])], "[99, 4]"),
    ] {
        tensors(&file, &shapes);
        refused(
            &place,
            &["lora.safetensors", told, "another model"],
            &draw(&["--lora", "lora.safetensors"]),
        );
    }
    tensors(&file, &[(&down, &[4, 16]), (&up, &[16, 4])]);
    place.ok(&draw(&["--lora", "lora.safetensors"]));
}

#[test]
fn weights_that_do_not_fit_are_found_before_any_work() {
    for (config, key) in [
        ("transformer/config.json", "num_layers"),
        ("text_encoder/config.json", "vocab_size"),
    ] {
        let place = Place::new();
        let model = place.copy("pipelines/sana", "model");
        change(&model.join(config), |config| {
            let count = config[key].as_u64().unwrap();
            config[key] = (count + 1).into();
        });
        refused(&place, &["do not fit"], &draw(&[]));
    }
    let place = Place::new();
    let model = place.copy("pipelines/sana", "model");
    tensors(
        &model.join("vae/diffusion_pytorch_model.safetensors"),
        &[("decoder.conv_in.weight", &[1, 1, 3, 3])],
    );
    refused(&place, &["vae", "do not fit"], &draw(&[]));
}

#[test]
fn components_that_nothing_reads_are_named() {
    let place = Place::new();
    let model = place.copy("pipelines/sana", "model");
    change(&model.join("model_index.json"), |index| {
        index["image_encoder"] = json!(["transformers", "CLIPVisionModel"]);
        index["safety_checker"] = json!([null, null]);
    });
    let told = "nothing reads image_encoder (CLIPVisionModel) of model_index.json";
    let outcome = place.ok(&draw(&[]));
    assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
    assert!(
        !outcome.stderr.contains("safety_checker"),
        "{}",
        outcome.stderr
    );
    // inspect says what image says, whether the component lies there or not.
    for _ in 0..2 {
        let inspected = place.ok(&["inspect", "model"]).stdout;
        assert!(
            inspected.contains(told) && inspected.contains("complete"),
            "{inspected}"
        );
        let folder = model.join("image_encoder");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), "{\"model_type\": \"clip\"}").unwrap();
    }
}

#[test]
fn what_a_tokenizer_would_add_and_does_not_is_told() {
    let place = Place::new();
    let model = place.copy("pipelines/sana", "model");
    let file = model.join("tokenizer/tokenizer_config.json");
    change(&file, |config| config["add_bos_token"] = true.into());
    let outcome = place.ok(&draw(&[]));
    assert!(
        !outcome.stderr.contains("add_bos_token"),
        "{}",
        outcome.stderr
    );
    change(&file, |config| {
        config["add_bos_token"] = false.into();
        config["add_eos_token"] = true.into();
    });
    let outcome = place.ok(&draw(&[]));
    for told in [
        "add_bos_token is false",
        "add_eos_token is true",
        "tokenizer_config.json",
    ] {
        assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
    }
    std::fs::write(&file, "{").unwrap();
    refused(
        &place,
        &["tokenizer_config.json", "not valid JSON"],
        &draw(&[]),
    );
}

#[test]
fn a_scheduler_is_named_once() {
    let place = Place::new();
    let model = place.copy("pipelines/sana", "model");
    let file = model.join("scheduler/scheduler_config.json");
    change(&file, |config| {
        config["_class_name"] = "x".repeat(10_000).into()
    });
    let outcome = place.run(&draw(&[]));
    let message = outcome
        .stderr
        .lines()
        .find(|line| line.starts_with("error"));
    let message = message.unwrap_or_default();
    assert!(
        message.starts_with("error: model/scheduler/scheduler_config.json: _class_name is")
            && message.len() < 500,
        "{message}"
    );
    std::fs::remove_file(file).unwrap();
    refused(
        &place,
        &[
            "error: model: there is no scheduler/scheduler_config.json",
            "--scheduler",
        ],
        &draw(&[]),
    );
}

#[test]
fn results_go_neither_on_what_is_read_nor_on_one_another() {
    let place = Place::new();
    place.copy("pipelines/sana", "model");
    place.ok(&draw(&[
        "-o",
        "start.png",
        "--save-latents",
        "noise.safetensors",
    ]));
    let weights = "model/transformer/diffusion_pytorch_model.safetensors";
    for (words, extra) in [
        (
            &["start.png", "is read"][..],
            &["--init-image", "start.png", "-o", "start.png"][..],
        ),
        (
            &["noise.safetensors", "is read"],
            &[
                "--latents",
                "noise.safetensors",
                "--save-latents",
                "noise.safetensors",
            ],
        ),
        (&[weights, "is read"], &["--save-latents", weights]),
        (
            &["x.png", "2 times"],
            &["-o", "x.png", "--sheet", "./x.png"],
        ),
    ] {
        refused(&place, words, &draw(extra));
    }
    for (words, extra) in [
        (
            &["--save-latents", ".png", "safetensors"][..],
            &["--save-latents", "x.png"][..],
        ),
        (&["--sheet", ".jpg", "PNG"], &["--sheet", "x.jpg"]),
        (&["--output", ".txt", "PNG"], &["-o", "x.txt"]),
    ] {
        place.fails(2, words, &draw(extra));
    }
    place.fails(
        1,
        &["start.png", "is read"],
        &["image", "--from", "start.png", "-o", "start.png"],
    );
    // A picture that lies beside a model is none of its files.
    for _ in 0..2 {
        place.ok(&draw(&["-o", "model/x.png"]));
    }
    std::fs::create_dir(place.path("photos")).unwrap();
    place.fails(
        2,
        &["--output", "x.png", "safetensors"],
        &["train", "prepare-pictures", "photos", "-o", "x.png"],
    );
    place.fails(
        1,
        &["noise.safetensors", "is read"],
        &[
            "probe",
            "--model",
            "model",
            "--component",
            "vae.decode",
            "--inputs",
            "noise.safetensors",
            "--outputs",
            "noise.safetensors",
        ],
    );
}

#[test]
fn a_picture_with_an_instruction_is_drawn_again() {
    let place = Place::new();
    let sana = fixture("pipelines/sana");
    std::fs::write(place.path("before.txt"), "Say what it shows:\n").unwrap();
    let read = |name: &str| brisk_media::read_picture(&place.path(name)).unwrap();
    for instruction in ["none", "before.txt"] {
        place.ok(&[
            "image",
            "a fox",
            "--model",
            &sana,
            "--size",
            "64",
            "--no-binning",
            "--steps",
            "2",
            "--instruction",
            instruction,
            "-o",
            "first.png",
        ]);
        // What the text was read from need not be there any more.
        let _ = std::fs::remove_file(place.path("before.txt.moved"));
        let moved = place.path("before.txt.moved");
        let _ = std::fs::rename(place.path("before.txt"), &moved);
        place.ok(&["image", "--from", "first.png", "-o", "again.png"]);
        let _ = std::fs::rename(&moved, place.path("before.txt"));
        assert_eq!(read("again.png"), read("first.png"), "{instruction}");
    }
}

#[test]
fn what_a_language_models_files_say_is_read_or_named() {
    let ask = ["text", "--model", "model", "hello", "--gen-length", "32"];
    let place = Place::new();
    place.copy("../assets/llada-arithmetic", "model");
    let files = [
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
    ];
    let [config, generation, tokenizer] = files.map(|name| place.path("model").join(name));
    let warned = |words: &[&str]| {
        let outcome = place.ok(&ask);
        for word in words {
            assert!(outcome.stderr.contains(word), "{word}: {}", outcome.stderr);
        }
    };
    change(&config, |config| {
        config["rope_scaling"] = json!({"factor": 2})
    });
    place.fails(1, &["config.json", "rope_scaling", "expected null"], &ask);
    change(&config, |config| {
        config["rope_scaling"] = Value::Null;
        config["rotary_share"] = 0.5.into();
    });
    warned(&["nothing reads rotary_share (config.json)"]);
    change(&tokenizer, |settings| {
        settings["mask_token"] = "<none>".into()
    });
    warned(&["mask_token is \"<none>\"", "does not know"]);
    for (text, told) in [
        ("[]", "found []"),
        ("{\"eos_token_id\": \"x\"}", "eos_token_id is \"x\""),
        ("{\"eos_token_id\": [1, -1]}", "eos_token_id is [1,-1]"),
    ] {
        std::fs::write(&generation, text).unwrap();
        place.fails(1, &["generation_config.json", told, "expected"], &ask);
    }
    std::fs::remove_file(&generation).unwrap();
    std::fs::write(&tokenizer, "5").unwrap();
    place.fails(1, &["tokenizer_config.json", "found 5"], &ask);
}
