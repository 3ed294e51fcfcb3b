//! `brisk bench` at sizes that finish at once.

use std::path::Path;

use brisk_testkit::load_tensors;
use serde_json::Value;

use crate::harness::{Place, fixture, fixture_path};

const QUICK: [&str; 7] = [
    "--runs",
    "2",
    "--warm-up",
    "0",
    "--threads",
    "1",
    "--no-ceilings",
];

fn quick(place: &Place, arguments: &[&str]) -> Value {
    place
        .ok(&[&["bench"], arguments, &QUICK, &["--json"]].concat())
        .json()
}

/// The stage of this name.
fn stage<'a>(document: &'a Value, name: &str) -> &'a Value {
    let stages = document["stages"].as_array().unwrap();
    let found = stages.iter().find(|stage| stage["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {document:#}"))
}

/// A pipeline's folder without its weights.
fn configurations(place: &Place, fixture: &str) -> String {
    let folder = place.copy(fixture, "configs");
    let mut removed = 0;
    for file in place.files() {
        if file.extension().is_some_and(|e| e == "safetensors") {
            std::fs::remove_file(file).unwrap();
            removed += 1;
        }
    }
    assert!(removed >= 3);
    folder.display().to_string()
}

#[test]
fn components_run_on_made_up_weights() {
    let place = Place::new();
    let folder = configurations(&place, "pipelines/sprint");
    for (component, size, parts) in [
        ("transformer", ["--size", "64"], ["attn1", "ff", "proj_out"]),
        (
            "text_encoder",
            ["--tokens", "9"],
            ["self_attn", "mlp", "between"],
        ),
        (
            "vae.encode",
            ["--size", "64"],
            ["conv_in", "down_blocks.3", "conv_out"],
        ),
        (
            "vae.decode",
            ["--size", "64"],
            ["conv_in", "up_blocks.3", "conv_out"],
        ),
    ] {
        let arguments = [&[component, "--random", &folder], &size[..]].concat();
        let document = quick(&place, &arguments);
        let whole = stage(&document, component);
        let seconds = whole["seconds"].as_array().unwrap();
        assert_eq!(seconds.len(), 2);
        assert!(whole["flops"].as_u64().unwrap() > 1000);
        assert!(whole["bytes"].as_u64().unwrap() > 1000);
        let inside: f64 = document["stages"].as_array().unwrap()[1..]
            .iter()
            .filter(|stage| stage["part"] == true)
            .map(|stage| stage["seconds"][0].as_f64().unwrap())
            .sum();
        let total = seconds[0].as_f64().unwrap();
        assert!(
            inside <= total && inside > 0.5 * total,
            "{inside} of {total}"
        );
        for part in parts {
            stage(&document, part);
        }
        assert_eq!(document["random"], true);
    }
}

#[test]
fn language_models_are_timed_as_stored_and_quantized() {
    let place = Place::new();
    let folder = fixture_path("language_models/a2d_qwen3_0")
        .display()
        .to_string();
    let blocks = ["--context", "48", "--block", "16"];
    for (origin, kind) in [
        ("--random", "none"),
        ("--random", "4bit"),
        ("--model", "none"),
        ("--model", "8bit"),
    ] {
        let model = ["language_model", origin, &folder, "--quantize", kind];
        let document = quick(&place, &[&model[..], &blocks].concat());
        for part in ["qkv", "attention", "mlp", "head"] {
            assert!(
                stage(&document, part)["flops"].as_u64().unwrap() > 1000,
                "{part}"
            );
        }
        assert_eq!(document["sizes"]["quantize"], kind);
        assert_eq!(document["sizes"]["block"], 16);
    }
    let text = [
        "--random",
        &folder,
        "--quantize",
        "4bit",
        "--gen-length",
        "16",
    ];
    let text = [
        &["text"],
        &text[..],
        &["--block-length", "8", "--steps", "4"],
    ]
    .concat();
    let document = quick(&place, &text);
    assert_eq!(document["sizes"]["forwards"], 4);
    let wrong = [
        "bench",
        "language_model",
        "--random",
        &folder,
        "--quantize",
        "2bit",
    ];
    place.fails(2, &["2bit", "4bit"], &wrong);
}

#[test]
fn outputs_are_those_of_probe() {
    let place = Place::new();
    for (model, component, golden, inputs, output) in [
        (
            "dcae/a",
            "vae.decode",
            "dcae/a/golden.safetensors",
            &["latent"][..],
            "sample",
        ),
        (
            "sana_transformer/t3_sprint",
            "transformer",
            "sana_transformer/t3_sprint/golden.safetensors",
            &[
                "hidden_states",
                "encoder_hidden_states",
                "encoder_attention_mask",
                "timestep",
                "guidance",
            ],
            "sample",
        ),
        (
            "gemma2/narrow",
            "text_encoder",
            "gemma2/narrow/golden.safetensors",
            &["input_ids", "attention_mask"],
            "last_hidden_state",
        ),
    ] {
        let tensors = load_tensors(fixture_path(golden));
        let given = inputs.iter().map(|name| {
            let tensor = tensors.get(&format!("inputs.{name}"));
            (
                (*name).to_owned(),
                tensor.or(tensors.get(*name)).unwrap().clone(),
            )
        });
        let given: std::collections::HashMap<_, _> = given.collect();
        brisk_testkit::save_tensors(place.path("in"), &given);
        let model = fixture(model);
        let files = ["--model", &model, "--inputs", "in", "--outputs"];
        quick(&place, &[&[component], &files[..], &["bench.out"]].concat());
        let probe = [
            &["probe", "--component", component],
            &files[..],
            &["probe.out"],
        ];
        place.ok(&probe.concat());
        let read = |name: &str| -> Vec<f32> {
            let tensor = &load_tensors(place.path(name))[output];
            tensor.flatten_all().unwrap().to_vec1().unwrap()
        };
        let (bench, probe) = (read("bench.out"), read("probe.out"));
        assert_eq!(bench.len(), probe.len());
        let off = bench.iter().zip(&probe).map(|(a, b)| (a - b).abs());
        assert!(off.fold(0.0, f32::max) < 1e-4, "{component}");
    }
}

#[test]
fn a_kept_prefix_changes_the_work_and_not_the_result() {
    let place = Place::new();
    let folder = configurations(&place, "pipelines/sprint");
    let base = [
        "text_encoder",
        "--random",
        &folder,
        "--tokens",
        "10",
        "--storage",
        "f32",
    ];
    let whole = quick(&place, &[&base[..], &["--outputs", "whole"]].concat());
    let rest = quick(
        &place,
        &[&base[..], &["--prefix", "6", "--outputs", "rest"]].concat(),
    );
    let flops = |document: &Value| stage(document, "text_encoder")["flops"].as_u64().unwrap();
    assert!(flops(&rest) < flops(&whole) / 2);
    let read = |name: &str| load_tensors(place.path(name))["last_hidden_state"].clone();
    let later = read("whole").narrow(1, 6, 4).unwrap();
    let difference = (later - read("rest")).unwrap().abs().unwrap();
    let difference = difference.max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(difference < 1e-4, "{difference}");
    place.fails(
        2,
        &["--prefix 10", "10"],
        &[&["bench"], &base[..], &["--prefix", "10"]].concat(),
    );
}

#[test]
fn a_picture_is_timed_stage_by_stage() {
    let place = Place::new();
    let folder = configurations(&place, "pipelines/sprint");
    let arguments = ["image", "--random", &folder, "--size", "64", "--steps", "1"];
    let document = quick(&place, &[&arguments[..], &["-o", "x.png"]].concat());
    for name in ["image", "text", "denoise", "decode"] {
        assert!(
            stage(&document, name)["flops"].as_u64().unwrap() > 1000,
            "{name}"
        );
    }
    stage(&document, "png");
    let picture = std::fs::read(place.path("x.png")).unwrap();
    assert_eq!(&picture[..4], b"\x89PNG");
    if Path::new("/proc/self/status").exists() {
        assert!(document["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);
    }
}

#[test]
fn kernels_compute_what_they_are_given() {
    let place = Place::new();
    let tensor =
        |values: &[f32], shape: &[usize]| brisk_nn::Tensor::from_slice(values, shape).unwrap();
    let given = std::collections::HashMap::from([
        ("x".to_owned(), tensor(&[1.0, 2.0], &[1, 2])),
        ("weight".to_owned(), tensor(&[3.0, 4.0, 5.0, 6.0], &[2, 2])),
    ]);
    brisk_testkit::save_tensors(place.path("in"), &given);
    let files = ["--inputs", "in", "--outputs", "out"];
    let document = quick(&place, &[&["gemm"], &files[..]].concat());
    assert_eq!(stage(&document, "gemm")["flops"], 8);
    let y = load_tensors(place.path("out"))["y"].clone();
    assert_eq!(y.to_vec2::<f32>().unwrap(), [[11.0, 17.0]]);

    let document = quick(&place, &["depthwise", "--shape", "4x3x2"]);
    assert_eq!(stage(&document, "depthwise")["flops"], 2 * 9 * 24);
    assert_eq!(document["sizes"]["channels"], 4);
    place.fails(2, &["--shape", "4x3"], &["bench", "gemm", "--shape", "4x3"]);
    place.fails(
        1,
        &["\"x\"", "4 dimensions"],
        &[&["bench", "depthwise"], &files[..]].concat(),
    );
}

#[test]
fn results_are_plotted_below_the_roof() {
    let place = Place::new();
    let run = [
        "bench",
        "gemm",
        "--shape",
        "8x8x8",
        "--runs",
        "1",
        "--threads",
        "1",
    ];
    let text = place.ok(&run).stdout;
    for word in ["gemm", "GFLOP/s", "of FMA", "ceilings"] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    let json = place.ok(&[&run[..], &["--json"]].concat()).stdout;
    std::fs::write(place.path("gemm.json"), &json).unwrap();
    place.ok(&["bench", "plot", "gemm.json", "-o", "roofline.svg"]);
    let svg = std::fs::read_to_string(place.path("roofline.svg")).unwrap();
    assert!(svg.contains("<circle") && svg.contains(">gemm<"), "{svg}");

    std::fs::write(place.path("other.json"), "{}").unwrap();
    place.fails(
        1,
        &["other.json", "fma_gflops"],
        &["bench", "plot", "other.json", "-o", "x.svg"],
    );
}

#[test]
fn what_cannot_be_timed_is_refused() {
    let place = Place::new();
    let folder = configurations(&place, "pipelines/sprint");
    place.fails(2, &["--model", "--random"], &["bench", "transformer"]);
    let size = ["bench", "vae.decode", "--random", &folder, "--size", "70"];
    place.fails(2, &["--size 70", "multiple of 8"], &size);
    let given = [
        "bench",
        "vae.decode",
        "--random",
        &folder,
        "--inputs",
        "absent",
    ];
    place.fails(1, &["absent"], &given);
    let both = ["bench", "gemm", "--shape", "2x2x2", "--inputs", "absent"];
    place.fails(2, &["--shape", "--inputs"], &both);
}

/// Strips exist to save memory, so what they take is held to what the picture needs: weights and three
/// maps of the largest size that is kept whole, and half of that again.
#[test]
fn strips_take_little_memory() {
    let place = Place::new();
    let document = quick(
        &place,
        &[
            "vae.decode",
            "--model",
            "sana-emoji",
            "--size",
            "2048",
            "--strip-rows",
            "80",
        ],
    );
    let map = 1024 * 1024 * 32 * size_of::<f32>();
    let weights = 20 << 20;
    let bound = (weights + 3 * map) * 3 / 2;
    let peak = document["peak_memory_bytes"].as_u64().unwrap();
    assert!(
        peak < bound as u64,
        "decoding took {peak} bytes, expected less than {bound}"
    );
}
