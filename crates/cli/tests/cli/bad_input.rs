//! Bad input: one message that says what to do, exit code 1 or 2, nothing written, no panic.

use std::path::Path;

use crate::harness::{Place, fixture, gradient, replace};

/// Draws at a size and step count that would work.
fn draws<'a>(model: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
    [
        &[
            "image",
            "a red fox",
            "--model",
            model,
            "--size",
            "64",
            "--no-binning",
        ][..],
        extra,
    ]
    .concat()
}

#[test]
fn a_level_that_no_processor_has() {
    let place = Place::new();
    let mut command = place.command(&["models"]);
    let output = command.env("BRISK_SIMD", "avx1024").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        message.contains("BRISK_SIMD is 'avx1024'") && message.contains("portable"),
        "{message}"
    );
}

#[test]
fn requests_that_make_no_sense() {
    let place = Place::new();
    let sana = fixture("pipelines/sana");
    let sprint = fixture("pipelines/sprint");
    let usage = |words: &[&str], model: &str, extra: &[&str]| {
        place.fails(
            2,
            words,
            &[&["image", "a red fox", "--model", model][..], extra].concat(),
        );
    };
    usage(&["--steps", "0"], &sana, &["--steps", "0"]);
    usage(&["--steps", "10000"], &sana, &["--steps", "10000"]);
    usage(
        &["--steps", "many", "whole number"],
        &sana,
        &["--steps", "many"],
    );
    usage(
        &["100", "multiple of 8", "104"],
        &sana,
        &["--size", "100", "--no-binning"],
    );
    usage(&["--size", "1024x768"], &sana, &["--size", "large"]);
    usage(
        &["--size", "--width"],
        &sana,
        &["--size", "64", "--width", "64"],
    );
    usage(
        &["--height"],
        &sana,
        &["--height", "1000000", "--width", "64"],
    );
    usage(&["--guidance"], &sana, &["--guidance", "-1"]);
    usage(&["--guidance"], &sana, &["--guidance", "nan"]);
    usage(&["--images"], &sana, &["--images", "0"]);
    usage(&["--images"], &sana, &["--images", "18446744073709551615"]);
    usage(
        &["--scheduler", "dpm", "euler"],
        &sana,
        &["--scheduler", "heun"],
    );
    usage(&["--decode", "strips"], &sana, &["--decode", "fast"]);
    usage(&["--pag-layers"], &sana, &["--pag-layers", "1"]);
    usage(
        &["--pag-layers", "99"],
        &sana,
        &["--pag-scale", "2", "--pag-layers", "99"],
    );
    usage(
        &["--strength", "--init-image"],
        &sana,
        &["--strength", "0.5"],
    );
    usage(
        &["--control-scale", "--control-image"],
        &sana,
        &["--control-scale", "0.5"],
    );
    usage(&["--lora-scale", "--lora"], &sana, &["--lora-scale", "0.5"]);
    usage(&["--device", "cuda"], &sana, &["--device", "cuda"]);
    usage(&["--dtype", "bf16"], &sana, &["--dtype", "bf16"]);
    usage(&["--threads"], &sana, &["--threads", "0"]);
    usage(&["--output", "PNG"], &sana, &["-o", "fox.jpg"]);
    usage(&["--frobnicate"], &sana, &["--frobnicate"]);
    // What a model has no use for is refused by name.
    usage(
        &["--scm-timesteps", "SANA-Sprint"],
        &sana,
        &["--scm-timesteps", "1.5,1.0"],
    );
    usage(
        &["--negative-prompt"],
        &sprint,
        &["--negative-prompt", "rain"],
    );
    usage(&["--scheduler"], &sprint, &["--scheduler", "euler"]);
    usage(&["--pag-scale"], &sprint, &["--pag-scale", "2"]);
    usage(
        &["--steps", "--scm-timesteps"],
        &sprint,
        &["--steps", "2", "--scm-timesteps", "1.5,1.0"],
    );
}

#[test]
fn prompts() {
    let place = Place::new();
    let sana = fixture("pipelines/sana");
    place.fails(2, &["what should the picture show"], &["image"]);
    place.fails(2, &["--prompt", "empty"], &["image", "", "--model", &sana]);
    place.fails(
        2,
        &["--prompt", "empty"],
        &["image", "a fox", "--prompt", " \n", "--model", &sana],
    );
    place.fails(2, &["unrecognized", "paint"], &["paint"]);
}

#[test]
fn models_that_are_none() {
    let place = Place::new();
    std::fs::write(place.path("file.pth"), b"x").unwrap();
    std::fs::create_dir(place.path("empty")).unwrap();
    place.fails(
        1,
        &["no-such-model", "not a hub id"],
        &["image", "a fox", "--model", "no-such-model"],
    );
    place.fails(
        1,
        &["owner/name", "not in the cache", "HF_HUB_OFFLINE"],
        &["image", "a fox", "--model", "owner/name"],
    );
    place.fails(
        1,
        &["../../etc"],
        &["image", "a fox", "--model", "../../etc"],
    );
    place.fails(
        2,
        &["file.pth", "--transformer"],
        &["image", "a fox", "--model", "file.pth"],
    );
    place.fails(
        1,
        &["empty", "model_index.json"],
        &["image", "a fox", "--model", "empty"],
    );
}

/// A copy of the SANA fixture after `change`, which must fail with `words`.
fn broken(words: &[&str], change: impl FnOnce(&Path)) {
    let place = Place::new();
    let model = place.copy("pipelines/sana", "model");
    change(&model);
    place.fails(1, words, &draws("model", &["--steps", "1"]));
}

#[test]
fn another_model() {
    broken(
        &["Flux", "FluxPipeline", "brisk makes pictures with SANA"],
        |model| {
            let index = r#"{"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}"#;
            std::fs::write(model.join("model_index.json"), index).unwrap();
        },
    );
}

#[test]
fn missing_components() {
    for component in [
        "vae",
        "transformer",
        "text_encoder",
        "tokenizer",
        "scheduler",
    ] {
        broken(&["model", component], |model| {
            std::fs::remove_dir_all(model.join(component)).unwrap()
        });
    }
    broken(&["vae", "no weights"], |model| {
        std::fs::remove_file(model.join("vae/diffusion_pytorch_model.safetensors")).unwrap();
    });
}

#[test]
fn half_a_download() {
    let weights = "transformer/diffusion_pytorch_model.safetensors";
    broken(&["diffusion_pytorch_model.safetensors"], |model| {
        let bytes = std::fs::read(model.join(weights)).unwrap();
        std::fs::write(model.join(weights), &bytes[..bytes.len() / 2]).unwrap();
    });
    broken(&["diffusion_pytorch_model.safetensors"], |model| {
        std::fs::write(model.join(weights), b"").unwrap()
    });
    broken(&["diffusion_pytorch_model-2.safetensors"], |model| {
        let index = r#"{"metadata":{},"weight_map":{"proj_out.weight":"diffusion_pytorch_model-2.safetensors"}}"#;
        std::fs::write(model.join(format!("{weights}.index.json")), index).unwrap();
        std::fs::remove_file(model.join(weights)).unwrap();
    });
    broken(&["config.json"], |model| {
        let config = model.join("transformer/config.json");
        let text = std::fs::read(&config).unwrap();
        std::fs::write(&config, &text[..text.len() / 2]).unwrap();
    });
    broken(&["tokenizer.json"], |model| {
        std::fs::write(model.join("tokenizer/tokenizer.json"), "{").unwrap()
    });
}

#[test]
fn weights_that_do_not_fit() {
    broken(&["transformer", "missing", "transformer_blocks"], |model| {
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(model.join("transformer/config.json")).unwrap())
                .unwrap();
        let layers = config["num_layers"].as_u64().unwrap();
        replace(
            &model.join("transformer/config.json"),
            &format!("\"num_layers\": {layers}"),
            &format!("\"num_layers\": {}", layers + 1),
        );
    });
}

#[test]
fn weights_that_are_no_numbers() {
    for (folder, file) in [
        ("transformer", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ] {
        broken(&[folder, "NaN"], |model| {
            let path = model.join(format!("{folder}/{file}.safetensors"));
            let mut bytes = std::fs::read(&path).unwrap();
            // The first value; the last tensors of the autoencoder belong to the encoder, which is not used here.
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            bytes[8 + header..12 + header].copy_from_slice(&f32::NAN.to_le_bytes());
            std::fs::write(&path, bytes).unwrap();
        });
    }
}

#[test]
fn outputs_that_cannot_be_written() {
    let place = Place::new();
    let sana = fixture("pipelines/sana");
    std::fs::create_dir(place.path("folder")).unwrap();
    place.fails(
        1,
        &["nowhere", "make it first"],
        &draws(&sana, &["-o", "nowhere/fox.png"]),
    );
    place.fails(
        1,
        &["folder", "name of a file"],
        &draws(&sana, &["-o", "folder"]),
    );
    place.fails(
        1,
        &["nowhere"],
        &draws(&sana, &["--save-latents", "nowhere/x.safetensors"]),
    );
    #[cfg(target_os = "linux")]
    place.fails(
        1,
        &["/dev/full", "No space left"],
        &draws(&sana, &["--steps", "1", "-o", "/dev/full"]),
    );
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let place = Place::new();
    let sana = fixture("pipelines/sana");
    let png = gradient(40, 30, 0);
    std::fs::write(place.path("broken.png"), &png[..png.len() / 2]).unwrap();
    std::fs::write(place.path("text.png"), "not a picture").unwrap();
    std::fs::write(place.path("binary.txt"), [0xff, 0xfe, 0x00]).unwrap();
    place.fails(
        1,
        &["broken.png"],
        &draws(&sana, &["--init-image", "broken.png"]),
    );
    place.fails(
        1,
        &["text.png"],
        &draws(&sana, &["--init-image", "text.png"]),
    );
    place.fails(
        1,
        &["absent.png"],
        &draws(&sana, &["--init-image", "absent.png"]),
    );
    place.fails(
        1,
        &["--instruction", "absent.txt"],
        &draws(&sana, &["--instruction", "absent.txt"]),
    );
    place.fails(
        1,
        &["--instruction", "binary.txt"],
        &draws(&sana, &["--instruction", "binary.txt"]),
    );
    place.fails(1, &["text.png"], &draws(&sana, &["--latents", "text.png"]));
    place.fails(1, &["text.png"], &draws(&sana, &["--lora", "text.png"]));
    for (option, file) in [
        ("--lora", "loras/absent.safetensors"),
        ("--transformer", "absent.pth"),
    ] {
        let words = [option, file, "owner/name/FILE"];
        place.fails(1, &words, &draws(&sana, &[option, file]));
    }
    let other = fixture("sana_transformer/t1_base/diffusion_pytorch_model.safetensors");
    place.fails(
        1,
        &["latents", "no tensor"],
        &draws(&sana, &["--latents", &other]),
    );
    let latents = [(
        "latents".to_owned(),
        brisk_nn::Tensor::zeros((1, 4, 1, 1), brisk_nn::DType::F32).unwrap(),
    )];
    brisk_testkit::save_tensors(place.path("small.safetensors"), &latents.into());
    place.fails(
        2,
        &["--latents", "[1, 4, 1, 1]", "[1, 4, 8, 8]"],
        &draws(&sana, &["--latents", "small.safetensors"]),
    );
    place.fails(1, &["broken.png"], &["inspect", "broken.png"]);
    place.fails(1, &["text.png"], &["inspect", "text.png"]);
    place.fails(1, &["absent"], &["inspect", "absent"]);
}

#[test]
fn a_pickle_with_code_is_refused() {
    let place = Place::new();
    // A zip with one stored member, whose pickle calls os.system.
    let pickle = b"cos\nsystem\n(S'true'\ntR.";
    std::fs::write(
        place.path("evil.pth"),
        stored_zip("archive/data.pkl", pickle),
    )
    .unwrap();
    place.fails(1, &["evil.pth", "os"], &["inspect", "evil.pth"]);
}

fn stored_zip(name: &str, data: &[u8]) -> Vec<u8> {
    let crc = !data.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| {
            if c & 1 == 1 {
                (c >> 1) ^ 0xedb8_8320
            } else {
                c >> 1
            }
        })
    });
    let mut common = Vec::new();
    common.extend([10, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // version, flags, method, time, date
    common.extend(crc.to_le_bytes());
    common.extend((data.len() as u32).to_le_bytes());
    common.extend((data.len() as u32).to_le_bytes());
    common.extend((name.len() as u16).to_le_bytes());
    let mut zip = b"PK\x03\x04".to_vec();
    zip.extend(&common);
    zip.extend([0, 0]);
    zip.extend(name.as_bytes());
    zip.extend(data);
    let directory = zip.len() as u32;
    zip.extend(b"PK\x01\x02");
    zip.extend([10, 0]);
    zip.extend(&common);
    zip.extend([0; 16]); // extra, comment, disk, attributes, offset
    zip.extend(name.as_bytes());
    let size = zip.len() as u32 - directory;
    zip.extend(b"PK\x05\x06");
    zip.extend([0, 0, 0, 0, 1, 0, 1, 0]);
    zip.extend(size.to_le_bytes());
    zip.extend(directory.to_le_bytes());
    zip.extend([0, 0]);
    zip
}
