//! Help, `inspect`, `models`, `compare`, `doctor`, `train plot`.

use crate::harness::{Place, fixture, fixture_path, gradient};

#[test]
fn help_fits_a_screen() {
    let place = Place::new();
    let verbs: [&[&str]; 27] = [
        &[],
        &["image"],
        &["models"],
        &["inspect"],
        &["compare"],
        &["quantize"],
        &["convert"],
        &["doctor"],
        &["probe"],
        &["bench"],
        &["bench", "image"],
        &["bench", "transformer"],
        &["bench", "gemm"],
        &["bench", "plot"],
        &["eval"],
        &["eval", "image"],
        &["train"],
        &["train", "prepare-emoji"],
        &["train", "autoencoder"],
        &["train", "plot"],
        &["distill"],
        &["distill", "sprint"],
        &["serve"],
        &["work"],
        &["batch"],
        &["batch", "run"],
        &["batch", "submit"],
    ];
    for verb in verbs {
        let outcome = place.ok(&[verb, &["--help"]].concat());
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert!(
            lines.len() <= 60,
            "{verb:?}: {} lines\n{}",
            lines.len(),
            outcome.stdout
        );
        let longest = lines.iter().map(|line| line.chars().count()).max().unwrap();
        assert!(
            longest <= 110,
            "{verb:?}: a line of {longest}\n{}",
            outcome.stdout
        );
        assert!(outcome.stderr.is_empty());
    }
    let root = place.ok(&["--help"]).stdout;
    for verb in [
        "image", "models", "inspect", "compare", "quantize", "convert", "doctor", "train",
        "distill", "eval", "probe", "bench",
    ] {
        assert!(
            root.lines().any(|line| line.trim_start().starts_with(verb)),
            "{verb}: {root}"
        );
    }
    // Every option that a model honours is a flag of its verb.
    for (verb, kind) in [
        ("image", brisk::ResultKind::Pictures),
        ("text", brisk::ResultKind::Text),
        ("masks", brisk::ResultKind::Masks),
    ] {
        let help = place.ok(&[verb, "--help"]).stdout;
        for option in brisk::registry::options(kind) {
            assert!(
                help.contains(&format!("--{}", option.name)),
                "--{} is not in the help of {verb}",
                option.name
            );
        }
    }
    let version = place.ok(&["--version"]).stdout;
    assert!(
        version.starts_with(concat!("brisk ", env!("CARGO_PKG_VERSION"))),
        "{version}"
    );
    assert_eq!(place.run(&[]).code, Some(2));
}

#[test]
fn inspect_knows_folders() {
    let place = Place::new();
    let json = place
        .ok(&["inspect", &fixture("pipelines/sana"), "--json", "--tensors"])
        .json();
    assert_eq!(json["missing"], serde_json::json!([]));
    assert!(
        json["model"].as_str().unwrap().contains("SanaPipeline"),
        "{}",
        json["model"]
    );
    let parts = json["components"].as_array().unwrap();
    let part = |name: &str| parts.iter().find(|part| part["name"] == name).unwrap();
    assert_eq!(part("transformer")["class"], "SanaTransformer2DModel");
    assert_eq!(
        part("transformer")["summary"]["parameters"],
        part("transformer")["expected_parameters"]
    );
    assert_eq!(
        part("text_encoder")["summary"]["parameters"],
        part("text_encoder")["expected_parameters"]
    );
    let tensors = part("vae")["tensors"].as_array().unwrap();
    assert!(
        tensors
            .iter()
            .any(|tensor| tensor["name"] == "decoder.conv_in.weight")
    );

    let text = place.ok(&["inspect", &fixture("pipelines/sprint")]).stdout;
    assert!(
        text.contains("SANA-Sprint")
            && text.contains("guidance embedding")
            && text.contains("complete"),
        "{text}"
    );
    let text = place.ok(&["inspect", &fixture("dcae/d")]).stdout;
    assert!(
        text.contains("AutoencoderDC") && text.contains("F32"),
        "{text}"
    );

    let model = place.copy("pipelines/sana", "model");
    let weights = model.join("transformer/diffusion_pytorch_model.safetensors");
    std::fs::rename(&weights, weights.with_extension("bf16.safetensors")).unwrap();
    let text = place.ok(&["inspect", "model"]).stdout;
    assert!(
        text.contains("complete") && !text.contains("missing"),
        "{text}"
    );
    std::fs::remove_dir_all(model.join("tokenizer")).unwrap();
    std::fs::remove_file(model.join("vae/diffusion_pytorch_model.safetensors")).unwrap();
    let outcome = place.ok(&["inspect", "model"]);
    assert!(
        outcome.stdout.contains("missing: tokenizer"),
        "{}",
        outcome.stdout
    );
    assert!(
        outcome.stdout.contains("missing: vae") && !outcome.stdout.contains("complete"),
        "{}",
        outcome.stdout
    );
    assert_eq!(
        place.ok(&["inspect", "model", "--json"]).json()["missing"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    std::fs::write(
        model.join("model_index.json"),
        r#"{"_class_name": "FluxPipeline"}"#,
    )
    .unwrap();
    assert!(place.ok(&["inspect", "model"]).stdout.contains("Flux"));
}

/// Wrapped names are read as the network's own; what loading refuses is no complete model.
#[test]
fn inspect_says_what_loading_says() {
    let place = Place::new();
    let transformer = "transformer/diffusion_pytorch_model.safetensors";
    let saved = |folder: &str, change: &dyn Fn(&str) -> Vec<String>| {
        let file = place.copy("pipelines/sana", folder).join(transformer);
        let tensors = brisk_testkit::load_tensors(&file);
        let changed: std::collections::HashMap<_, _> = tensors
            .iter()
            .flat_map(|(name, tensor)| change(name).into_iter().map(|n| (n, tensor.clone())))
            .collect();
        brisk_testkit::save_tensors(&file, &changed);
    };
    saved("wrapped", &|name| vec![format!("module.{name}")]);
    let config = place.path("wrapped/transformer/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replacen('{', r#"{"use_registers": true,"#, 1)).unwrap();
    let inspected = place.ok(&["inspect", "wrapped"]).stdout;
    assert!(
        inspected.contains("note: transformer:") && inspected.contains("use_registers"),
        "{inspected}"
    );
    saved("foreign", &|name| match name {
        "proj_out.bias" => vec![name.to_owned(), "ema.decay".to_owned()],
        _ => vec![name.to_owned()],
    });
    saved("lacking", &|name| match name {
        "proj_out.bias" => Vec::new(),
        _ => vec![name.to_owned()],
    });
    for (folder, problem) in [
        ("wrapped", None),
        ("foreign", Some("unexpected (1):\n    ema.decay")),
        ("lacking", Some("missing (1):\n    proj_out.bias")),
    ] {
        let inspected = place.ok(&["inspect", folder]).stdout;
        let drawn = place.run(&[
            "image", "cat", "--model", folder, "--size", "64", "--steps", "1",
        ]);
        assert_eq!(
            drawn.code == Some(0),
            inspected.ends_with("\ncomplete\n"),
            "{folder}: {inspected}"
        );
        match problem {
            None => assert_eq!(drawn.code, Some(0), "{}", drawn.stderr),
            Some(problem) => {
                assert!(inspected.contains(problem), "{folder}: {inspected}");
                // A message's further lines stand farther in.
                let lines = |text: &str| -> String {
                    text.lines()
                        .map(|line| line.trim().to_owned() + "\n")
                        .collect()
                };
                assert!(
                    lines(&drawn.stderr).contains(&lines(problem)),
                    "{folder}: {}",
                    drawn.stderr
                );
            }
        }
    }
}

/// Components that are sound by themselves and do not fit each other are no complete model either.
#[test]
fn inspect_says_what_does_not_fit_together() {
    let place = Place::new();
    let model = place.copy("pipelines/sana", "model");
    let other = fixture_path("dcae/d");
    for file in ["config.json", "diffusion_pytorch_model.safetensors"] {
        std::fs::copy(other.join(file), model.join("vae").join(file)).unwrap();
    }
    let channels = "the transformer has 4 latent channels, the autoencoder 8";
    let inspected = place.ok(&["inspect", "model"]).stdout;
    assert!(
        inspected.contains(&format!("wrong: model: {channels}")) && !inspected.contains("complete"),
        "{inspected}"
    );
    place.fails(1, &[channels], &["image", "cat", "--model", "model"]);
    let json = place.ok(&["inspect", "model", "--json"]).json();
    assert!(
        json["missing"][0].as_str().unwrap().contains(channels),
        "{json}"
    );
}

#[test]
fn inspect_knows_files() {
    let place = Place::new();
    for (file, words) in [
        (
            "native/t1_base/model.pth",
            ["SANA transformer (the authors' names)", "width: 24"],
        ),
        (
            "native/t3_sprint/model.pth",
            ["SANA-Sprint", "guidance embedding: true"],
        ),
        (
            "native/controlnet/model.pth",
            ["ControlNet", "ControlNet blocks: 2"],
        ),
        (
            "sana_transformer/t1_base/diffusion_pytorch_model.safetensors",
            ["SANA transformer (diffusers names)", "F32"],
        ),
        (
            "dcae/a/diffusion_pytorch_model.safetensors",
            ["DC-AE autoencoder (diffusers names)", "encoder"],
        ),
        (
            "dcae/a/original.safetensors",
            ["the authors' names", "BF16"],
        ),
        (
            "gemma2/narrow/model.safetensors",
            ["Gemma-2", "embed_tokens"],
        ),
        ("gemma2/softcap2/model.safetensors", ["Gemma-2", "BF16"]),
        (
            "lora/t1_base/pytorch_lora_weights.safetensors",
            ["LoRA", "rank: 2"],
        ),
        (
            "sana_transformer/t1_base/config.json",
            ["SanaTransformer2DModel", "num_layers"],
        ),
    ] {
        let text = place.ok(&["inspect", &fixture(file), "--tensors"]).stdout;
        for word in words {
            assert!(text.contains(word), "{file}: no {word:?} in {text}");
        }
    }
    let json = place
        .ok(&[
            "inspect",
            &fixture("native/t2_qk_norm/model.pth"),
            "--json",
            "--tensors",
        ])
        .json();
    assert_eq!(json["details"]["QK norm"], true);
    assert_eq!(
        json["summary"]["tensors"].as_u64().unwrap() as usize,
        json["tensors"].as_array().unwrap().len()
    );
}

#[test]
fn the_hub_cache_is_found() {
    let place = Place::new();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let model = "cache/models--owner--tiny";
    std::fs::create_dir_all(place.path(model).join("refs")).unwrap();
    std::fs::write(place.path(model).join("refs/main"), commit).unwrap();
    place.copy("pipelines/sana", &format!("{model}/snapshots/{commit}"));
    let run = |arguments: &[&str]| {
        let output = place
            .command(arguments)
            .env("HF_HUB_CACHE", place.path("cache"))
            .output()
            .unwrap();
        let outcome = crate::harness::Outcome::of(output);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        outcome
    };
    let text = run(&["models"]).stdout;
    assert!(
        text.contains("owner/tiny") && text.contains("SanaPipeline"),
        "{text}"
    );
    assert!(
        text.contains("Sana_1600M_1024px_diffusers") && text.contains("not recommended"),
        "{text}"
    );
    let json = run(&["models", "--json"]).json();
    assert_eq!(json["cached"][0]["id"], "owner/tiny");
    assert!(json["published"].as_array().unwrap().len() >= 12);
    assert!(run(&["inspect", "owner/tiny"]).stdout.contains("complete"));
    run(&[
        "image",
        "a fox",
        "--model",
        "owner/tiny",
        "--size",
        "64",
        "--steps",
        "1",
    ]);
    // A weights file is named by its repository and its place there.
    run(&[
        "image",
        "a fox",
        "--model",
        &fixture("pipelines/sana"),
        "--transformer",
        "owner/tiny/transformer/diffusion_pytorch_model.safetensors",
        "--size",
        "64",
        "--steps",
        "1",
    ]);
    let doctor = run(&["doctor", "--json", "--threads", "1"]).json();
    assert_eq!(doctor["hub"]["models"], 1);
    assert!(doctor["gemm_gflops"].as_f64().unwrap() > 0.1);
    assert_eq!(doctor["cpu"]["threads"], 1);
}

#[test]
fn doctor_speaks_to_people() {
    let text = Place::new().ok(&["doctor"]).stdout;
    for word in [
        "GFLOP/s",
        "threads in use",
        "memory",
        "hub cache",
        "cards",
        "in the box",
    ] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
}

#[test]
fn pictures_are_compared() {
    let place = Place::new();
    for (folder, shift) in [("a", 0), ("b", 3)] {
        std::fs::create_dir(place.path(folder)).unwrap();
        std::fs::write(place.path(folder).join("x.png"), gradient(40, 30, shift)).unwrap();
        std::fs::write(place.path(folder).join("y.png"), gradient(20, 20, 0)).unwrap();
    }
    std::fs::write(place.path("a/only.png"), gradient(20, 20, 0)).unwrap();
    let json = place
        .ok(&["compare", "a/x.png", "b/x.png", "--json"])
        .json();
    assert_eq!(json["max_difference"], 3);
    // One of three channels differs by 3 everywhere.
    let psnr = 10.0 * (255.0f64 * 255.0 / 3.0).log10();
    assert!(
        (json["psnr_db"].as_f64().unwrap() - psnr).abs() < 1e-6,
        "{json}"
    );
    assert!(json["ssim"].as_f64().unwrap() > 0.9);
    let same = place
        .ok(&["compare", "a/y.png", "b/y.png", "--json"])
        .json();
    assert_eq!(
        (&same["identical"], &same["psnr_db"]),
        (&true.into(), &serde_json::Value::Null)
    );

    let folders = place.ok(&["compare", "a", "b", "--json"]);
    assert!(folders.stderr.contains("only.png"), "{}", folders.stderr);
    let json = folders.json();
    assert_eq!(json["pictures"].as_array().unwrap().len(), 2);
    assert_eq!(json["average"]["max_difference"], 3);
    assert!(place.ok(&["compare", "a", "b"]).stdout.contains("average"));

    place.fails(
        1,
        &["40", "20", "x.png"],
        &["compare", "a/x.png", "a/y.png"],
    );
    place.fails(2, &["folder", "file"], &["compare", "a", "b/x.png"]);
    place.fails(1, &["absent.png"], &["compare", "a/x.png", "absent.png"]);
}

#[test]
fn logs_are_plotted() {
    let place = Place::new();
    let line = |step: u32, loss: f32| {
        format!(
            r#"{{"step":{step},"loss":{loss},"learning_rate":0.001,"gradient_norm":1.0,"seconds":1.0,"samples_per_second":2.0,"skipped":0}}"#
        )
    };
    std::fs::write(
        place.path("log.jsonl"),
        format!("{}\n{}\n", line(10, 0.5), line(20, 0.25)),
    )
    .unwrap();
    assert_eq!(
        place
            .ok(&["train", "plot", "log.jsonl", "-o", "loss.svg"])
            .stdout,
        "loss.svg\n"
    );
    let svg = std::fs::read_to_string(place.path("loss.svg")).unwrap();
    assert!(svg.contains("<svg") && svg.contains("loss"), "{svg}");
    place.fails(
        1,
        &["PSNR"],
        &[
            "train",
            "plot",
            "log.jsonl",
            "--quantity",
            "psnr",
            "-o",
            "psnr.svg",
        ],
    );
    place.fails(1, &["absent"], &["train", "plot", "absent", "-o", "x.svg"]);
    place.fails(
        1,
        &["nowhere"],
        &["train", "plot", "log.jsonl", "-o", "nowhere/x.svg"],
    );
}

#[test]
fn a_closed_pipe_is_no_error() {
    let place = Place::new();
    let path = fixture_path("pipelines/sana").display().to_string();
    let mut child = place
        .command(&["inspect", &path, "--tensors"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn shells_and_man_learn_the_flags() {
    let place = Place::new();
    let script = place.ok(&["completions", "bash"]).stdout;
    assert!(script.contains("--negative-prompt") && script.contains("--gen-length"));
    place.ok(&["man", "pages"]);
    let page = std::fs::read_to_string(place.path("pages/brisk-image.1")).unwrap();
    assert!(page.contains("negative"), "{page}");
    let help = place.ok(&["help", "image"]).stdout;
    assert_eq!(help, place.ok(&["image", "--help"]).stdout);
}
