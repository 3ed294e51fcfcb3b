//! From pictures to a model that draws, at a tiny size: `train autoencoder`, `train image`, `eval image`, `image`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use brisk_store::{Dtype, OutTensor, write_safetensors};
use serde_json::{Value, json};

use crate::harness::{Place, fixture, fixture_path, replace};

const SIDE: usize = 32;

/// A data set of plain colours, as `train prepare-emoji` would lay it out.
fn data_set(place: &Place) {
    let names = [
        "red", "green", "blue", "white", "black", "grey", "lime", "pink",
    ];
    let mut pictures = Vec::new();
    let mut entries = Vec::new();
    for (index, name) in names.iter().enumerate() {
        for channel in 0..3 {
            let level = ((index * 37 + channel * 91) % 256) as u8;
            pictures.extend((0..SIDE * SIDE).map(|at| level.wrapping_add((at % SIDE) as u8)));
        }
        entries.push(json!({
            "name": name, "tags": [format!("{name} colour")], "hexcode": format!("1F60{index}"),
            "set": "noto", "group": "colours", "held_out": index == 7,
        }));
    }
    let tensor = OutTensor {
        name: "pictures".to_owned(),
        dtype: Dtype::U8,
        shape: vec![names.len(), 3, SIDE, SIDE],
        data: Cow::Owned(pictures),
    };
    let metadata = BTreeMap::from([
        ("format".to_owned(), "brisk-emoji-1".to_owned()),
        ("entries".to_owned(), Value::from(entries).to_string()),
    ]);
    write_safetensors(&place.path("data.safetensors"), &[tensor], &metadata).unwrap();
}

fn recipe(place: &Place, name: &str, text: &str, change: impl FnOnce(&mut Value)) {
    let mut recipe: Value = serde_json::from_str(text).unwrap();
    recipe["training"]["batch"] = 2.into();
    recipe["training"]["log_every"] = 1.into();
    recipe["training"]["checkpoint_every"] = 2.into();
    recipe["training"]["steps"] = 4.into();
    recipe["training"]["max_minutes"] = Value::Null;
    recipe["sample_every"] = 1000.into();
    change(&mut recipe);
    std::fs::write(place.path(name), recipe.to_string()).unwrap();
}

/// A recipe of a tiny image model over latents of so many channels.
fn image_recipe(place: &Place, channels: u64) {
    recipe(
        place,
        "image.json",
        include_str!("../../../train/recipes/emoji-image.json"),
        |recipe| {
            recipe["transformer"]["in_channels"] = channels.into();
            recipe["transformer"]["patch_size"] = 1.into();
            recipe["transformer"]["out_channels"] = channels.into();
            for (key, value) in [
                ("num_attention_heads", 2),
                ("attention_head_dim", 8),
                ("num_layers", 2),
                ("num_cross_attention_heads", 2),
                ("cross_attention_head_dim", 8),
                ("cross_attention_dim", 16),
                ("caption_channels", 16),
                ("sample_size", 2),
            ] {
                recipe["transformer"][key] = value.into();
            }
            for (key, value) in [
                ("vocab_size", 300),
                ("hidden_size", 16),
                ("intermediate_size", 32),
                ("num_hidden_layers", 1),
                ("num_attention_heads", 2),
                ("num_key_value_heads", 1),
                ("head_dim", 8),
            ] {
                recipe["text_encoder"][key] = value.into();
            }
            recipe["sample_prompts"] = json!(["red"]);
            recipe["sample_steps"] = 2.into();
        },
    );
}

#[test]
fn from_pictures_to_a_model_that_draws() {
    let place = Place::new();
    data_set(&place);
    recipe(
        &place,
        "vae.json",
        include_str!("../../../train/recipes/emoji-autoencoder.json"),
        |recipe| {
            recipe["picture_size"] = SIDE.into();
            for key in ["encoder_block_out_channels", "decoder_block_out_channels"] {
                recipe["config"][key] = json!([8, 8, 16, 16, 32]);
            }
            recipe["config"]["attention_head_dim"] = 16.into();
            recipe["augmentation"]["shift"] = 2.into();
        },
    );
    image_recipe(&place, 32);
    let vae = [
        "train",
        "autoencoder",
        "--recipe",
        "vae.json",
        "--data",
        "data.safetensors",
        "-o",
        "run",
    ];
    let outcome = place.ok(&[&vae[..], &["--steps", "2"]].concat());
    assert!(
        outcome.stderr.contains("step 1") && outcome.stdout.contains("run/vae"),
        "{}",
        outcome.stderr
    );
    assert!(place.path("run/vae/config.json").exists());

    let image = [
        "train",
        "image",
        "--recipe",
        "image.json",
        "--data",
        "data.safetensors",
        "--vae",
        "run/vae",
        "-o",
        "drawer",
    ];
    let json = place.ok(&[&image[..], &["--json"]].concat()).json();
    assert_eq!(json["report"]["steps"], 4);
    // A model is not written over what it is made from.
    let again = [&image[..4], &["--data", "data.safetensors"]].concat();
    let onto = ["--from", "drawer/model", "-o", "drawer"];
    place.fails(
        1,
        &["drawer/model", "is the input"],
        &[&again[..], &onto].concat(),
    );
    assert!(
        place
            .ok(&["inspect", "drawer/model"])
            .stdout
            .contains("complete")
    );
    place.ok(&[
        "train",
        "plot",
        "drawer/training_log.jsonl",
        "-o",
        "loss.svg",
    ]);

    let drawn = place.ok(&[
        "image",
        "red",
        "--model",
        "drawer/model",
        "--steps",
        "2",
        "-o",
        "red.png",
    ]);
    assert_eq!(drawn.stdout, "red.png\n");
    let picture = brisk_media::read_picture(&place.path("red.png")).unwrap();
    assert_eq!((picture.width, picture.height), (SIDE, SIDE));

    let eval = [
        "eval",
        "image",
        "--model",
        "drawer/model",
        "--data",
        "data.safetensors",
        "--count",
        "5",
        "--steps",
        "2",
    ];
    let json = place
        .ok(&[
            &eval[..],
            &["--json", "--batch", "2", "--sheet", "sheet.png"],
        ]
        .concat())
        .json();
    assert_eq!(
        (&json["prompts"], &json["candidates"]),
        (&5.into(), &7.into())
    );
    assert_eq!(json["results"].as_array().unwrap().len(), 5);
    assert_eq!(json["held_out_pictures"], 1);
    assert!(json["held_out_psnr_db"].as_f64().unwrap() > 0.0);
    assert!(place.path("sheet.png").exists());
    assert!(place.ok(&eval).stdout.contains("nearest in latents"));
}

/// An autoencoder in its authors' file serves, and the model is written with it under diffusers' names.
#[test]
fn a_model_is_trained_on_a_published_autoencoder() {
    let place = Place::new();
    data_set(&place);
    image_recipe(&place, 8);
    std::fs::create_dir(place.path("dc-ae")).unwrap();
    for (from, to) in [
        ("config.json", "config.json"),
        ("original.safetensors", "model-of-authors.safetensors"),
    ] {
        let from = fixture_path("dcae/c").join(from);
        std::fs::copy(from, place.path("dc-ae").join(to)).unwrap();
    }
    let train = |vae: &'static str, output: &'static str| {
        place.ok(&[
            "train",
            "image",
            "--recipe",
            "image.json",
            "--data",
            "data.safetensors",
            "--vae",
            vae,
            "--steps",
            "1",
            "-o",
            output,
        ]);
        std::fs::read(
            place
                .path(output)
                .join("model/vae/diffusion_pytorch_model.safetensors"),
        )
        .unwrap()
    };
    let written = train("dc-ae", "drawer");
    let inspected = place.ok(&["inspect", "drawer/model"]).stdout;
    assert!(inspected.contains("complete"), "{inspected}");
    // A model's folder stands for the autoencoder in it.
    assert!(train("drawer/model", "again") == written);
}

/// A model whose times are 0 to 1 becomes one of two steps, which `image` draws with.
#[test]
fn a_model_is_distilled() {
    let place = Place::new();
    data_set(&place);
    recipe(
        &place,
        "sprint.json",
        include_str!("../../../train/recipes/scenes-sprint.json"),
        |recipe| {
            recipe["pictures"] = json!({});
            recipe["head_blocks"] = json!([0, 1]);
            recipe["sample_prompts"] = json!(["red"]);
        },
    );
    let distill = |teacher: &'static str| {
        let mut all = vec![
            "distill",
            "sprint",
            "--teacher",
            teacher,
            "--recipe",
            "sprint.json",
        ];
        all.extend(["--data", "data.safetensors", "-o", "run"]);
        all
    };
    place.copy("pipelines/sana", "plain");
    place.fails(
        1,
        &["timestep_scale is 1", "brisk train image --from"],
        &distill("plain"),
    );
    assert!(!place.path("run").exists());
    let dense = place.copy("pipelines/sana", "dense");
    replace(
        &dense.join("transformer/config.json"),
        "\"timestep_scale\": 1.0",
        "\"timestep_scale\": 0.001",
    );
    let first = place.ok(&[&distill("dense")[..], &["--steps", "2"]].concat());
    assert!(first.stderr.contains("discriminator"), "{}", first.stderr);
    let json = place
        .ok(&[&distill("dense")[..], &["--json"]].concat())
        .json();
    assert_eq!(
        (&json["report"]["steps"], &json["report"]["pictures"]),
        (&4.into(), &7.into())
    );
    let inspected = place.ok(&["inspect", "run/model"]).stdout;
    assert!(
        inspected.contains("complete") && inspected.contains("Sprint"),
        "{inspected}"
    );
    let log = "run/training_log.jsonl";
    place.ok(&[
        "train",
        "plot",
        log,
        "--quantity",
        "consistency-loss",
        "-o",
        "loss.svg",
    ]);
    let mut image = vec![
        "image",
        "red",
        "--model",
        "run/model",
        "--width",
        "32",
        "--height",
        "32",
    ];
    image.extend(["--seed", "1", "-o", "red.png"]);
    place.ok(&image);
    let picture = brisk_media::read_picture(&place.path("red.png")).unwrap();
    assert_eq!((picture.width, picture.height), (32, 32));

    let other = |recipe: &'static str| {
        let mut all = vec![
            "distill",
            "sprint",
            "--teacher",
            "dense",
            "--recipe",
            recipe,
        ];
        all.extend(["--data", "data.safetensors", "-o", "other"]);
        all
    };
    let wrong = [
        "scenes-image is for `brisk train image`",
        "`brisk distill sprint`",
    ];
    place.fails(2, &wrong, &other("scenes-image"));
    replace(&place.path("sprint.json"), "[0,1]", "[0,3]");
    place.fails(1, &["head_blocks has 3"], &other("sprint.json"));
    let mut train = vec![
        "train",
        "image",
        "--recipe",
        "sprint.json",
        "--vae",
        "dense",
    ];
    train.extend(["--data", "data.safetensors", "-o", "other"]);
    place.fails(2, &["is for `brisk distill sprint`"], &train);
}

#[test]
fn mistakes_in_trainings_of_clips_are_named() {
    let place = Place::new();
    let run = ["--npm", "npm", "-o", "run"];
    for (verb, recipe, words) in [
        (
            &["train", "video-autoencoder"][..],
            "motion-video",
            ["`brisk train video`", "`brisk train video-autoencoder`"],
        ),
        (
            &["train", "video", "--vae", "vae"],
            "motion-dmd",
            ["`brisk distill dmd`", "`brisk train video`"],
        ),
        (
            &["distill", "dmd", "--teacher", "model"],
            "motion-autoencoder",
            ["`brisk train video-autoencoder`", "`brisk distill dmd`"],
        ),
    ] {
        let all = [verb, &["--recipe", recipe], &run].concat();
        place.fails(2, &words, &all);
    }
    let train = [&["train", "video-autoencoder"][..], &run].concat();
    place.fails(1, &["npm/noto/icons.json"], &train);
    let train = [&["train", "video"][..], &run].concat();
    place.fails(2, &["--vae"], &train);
    let count = [
        "eval", "video", "--model", "m", "--npm", "npm", "--count", "3",
    ];
    place.fails(2, &["--count", "25"], &count);
}

#[test]
fn mistakes_in_training_are_named() {
    let place = Place::new();
    data_set(&place);
    let train = |recipe: &'static str, data: &'static str| {
        [
            "train",
            "autoencoder",
            "--recipe",
            recipe,
            "--data",
            data,
            "-o",
            "run",
        ]
    };
    place.fails(
        2,
        &["emoji-image is for `brisk train image`", "autoencoder"],
        &train("emoji-image", "data.safetensors"),
    );
    place.fails(
        1,
        &["no-such", "emoji-autoencoder"],
        &train("no-such", "data.safetensors"),
    );
    place.fails(
        1,
        &["absent.safetensors"],
        &train("emoji-autoencoder", "absent.safetensors"),
    );
    place.fails(1, &["128"], &train("emoji-autoencoder", "data.safetensors"));
    place.fails(2, &["--data"], &["train", "autoencoder", "-o", "run"]);
    for (flag, value) in [
        ("--steps", "0"),
        ("--minutes", "0"),
        ("--minutes", "-1"),
        ("--minutes", "inf"),
    ] {
        let run = train("emoji-autoencoder", "data.safetensors");
        place.fails(2, &[flag], &[&run[..], &[flag, value]].concat());
    }
    std::fs::write(place.path("file"), "x").unwrap();
    place.fails(
        1,
        &["file", "folder for the run"],
        &["train", "text", "-o", "file"],
    );
    std::fs::write(place.path("log.svg"), "x").unwrap();
    let plot = ["train", "plot", "log.svg", "-o", "log.svg"];
    place.fails(1, &["log.svg", "is the input"], &plot);
    place.fails(
        1,
        &["absent"],
        &["train", "prepare-emoji", "--npm", "absent"],
    );
    place.fails(2, &["--noto"], &["train", "prepare-emoji"]);
    let model = fixture("pipelines/sana");
    let eval = |extra: &[&'static str]| {
        [
            &[
                "eval",
                "image",
                "--model",
                &model,
                "--data",
                "data.safetensors",
            ][..],
            extra,
        ]
        .concat()
    };
    place.fails(1, &["apple", "emoji-image"], &eval(&["--recipe", "apple"]));
    let other = ["--recipe", "emoji-autoencoder"];
    place.fails(2, &["--recipe emoji-autoencoder"], &eval(&other));
    place.fails(2, &["--count"], &eval(&["--count", "0"]));
    place.fails(1, &["nowhere"], &eval(&["--sheet", "nowhere/x.png"]));
}

#[cfg(unix)]
#[test]
fn an_interrupted_training_keeps_what_it_did_and_goes_on() {
    use std::io::{BufRead, BufReader};

    let place = Place::new();
    recipe(
        &place,
        "text.json",
        include_str!("../../../train/recipes/arithmetic-text.json"),
        |recipe| {
            for (key, value) in [
                ("d_model", 32),
                ("n_heads", 2),
                ("n_kv_heads", 2),
                ("mlp_hidden_size", 48),
                ("n_layers", 1),
            ] {
                recipe["model"][key] = value.into();
            }
            recipe.as_object_mut().unwrap().remove("sample_every");
            recipe["eval_every"] = 1_000_000.into();
            recipe["eval_problems"] = 1.into();
            recipe["training"]["checkpoint_every"] = 1_000_000.into();
        },
    );
    let train = ["train", "text", "--recipe", "text.json", "-o", "run"];
    let mut child = place
        .command(&[&train[..], &["--steps", "1000000"]].concat())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("step 3")));
    let interrupt = ["-INT", &child.id().to_string()];
    let kill = std::process::Command::new("kill")
        .args(interrupt)
        .status()
        .unwrap();
    assert!(kill.success());
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    let last = rest.last().unwrap();
    assert!(
        last.starts_with("stopped; ") && last.ends_with("run"),
        "{rest:?}"
    );
    let state = place.path("run/checkpoints");
    let state = std::fs::read_dir(state)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let state = std::fs::read_to_string(state.join("state.json")).unwrap();
    let done = serde_json::from_str::<Value>(&state).unwrap()["step"]
        .as_u64()
        .unwrap();
    let kept = format!("checkpoint at step {done}");
    assert!(rest.contains(&kept), "{rest:?}");

    let steps = (done + 2).to_string();
    let outcome = place.ok(&[&train[..], &["--steps", &steps, "--json"]].concat());
    let begins = format!("goes on after step {done}\n");
    assert!(outcome.stderr.contains(&begins), "{}", outcome.stderr);
    assert_eq!(outcome.json()["report"]["steps"], done + 2);
}

#[test]
fn previews_are_fitted_and_shown() {
    let place = Place::new();
    let fit = ["train", "preview", "--model", "sana-emoji", "--patch", "4"];
    place.ok(&[&fit[..], &["--pictures", "8", "-o", "small.safetensors"]].concat());
    std::fs::create_dir(place.path("shown")).unwrap();
    place.ok(&[
        "image",
        "red heart",
        "--preview-decoder",
        "small.safetensors",
        "--preview",
        "shown",
        "--previews",
        "3",
        "-o",
        "x.png",
    ]);
    for step in [5, 10, 15] {
        let path = place.path(&format!("shown/step-{step:04}.png"));
        let preview = brisk_media::read_picture(&path).unwrap();
        assert_eq!((preview.width, preview.height), (32, 32));
    }
    assert_eq!(std::fs::read_dir(place.path("shown")).unwrap().count(), 3);
    place.fails(
        2,
        &["289 unknowns", "more pictures"],
        &[
            &fit[..4],
            &["--pictures", "1", "--patch", "2", "-o", "y.safetensors"],
        ]
        .concat(),
    );
    assert!(!place.path("y.safetensors").exists());
    let model = fixture("pipelines/sana");
    place.fails(
        1,
        &["small.safetensors", "32 channels", "4"],
        &[
            "image",
            "x",
            "--model",
            &model,
            "--preview-decoder",
            "small.safetensors",
        ],
    );
    place.fails(
        2,
        &["--previews", "--preview"],
        &["image", "x", "--previews", "2"],
    );
}
