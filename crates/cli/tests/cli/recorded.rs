//! `brisk image` against the recorded runs of the reference.

use brisk_testkit::{load_tensors, relative_l2, values};

use crate::harness::{Place, fixture, fixture_path};

/// Runs a recorded case of a pipeline with `extra` options; pictures within one level, latents within 1e-4.
fn check(kind: &str, case: &str, extra: &[&str]) {
    let place = Place::new();
    let tensors = load_tensors(fixture_path(&format!(
        "pipelines/{kind}/cases/{case}.safetensors"
    )));
    let pixels = &tensors["outputs.pixels"];
    let (count, height, width, _) = pixels.dims4().unwrap();
    let model = fixture(&format!("pipelines/{kind}"));
    let size = format!("{width}x{height}");
    let mut arguments = vec![
        "image",
        "a red circle over a blue square",
        "--model",
        &model,
        "--size",
        &size,
        "--no-binning",
        "-o",
        "out.png",
        "--save-latents",
        "final.safetensors",
    ];
    if !extra.contains(&"--instruction") {
        arguments.extend(["--instruction", "none"]);
    }
    if let Some(latents) = tensors.get("inputs.latents") {
        let file = [("latents".to_owned(), latents.clone())].into();
        brisk_testkit::save_tensors(place.path("latents.safetensors"), &file);
        arguments.extend(["--latents", "latents.safetensors"]);
    }
    if let Some(image) = tensors.get("inputs.image") {
        let (height, width, _) = image.dims3().unwrap();
        let bytes = values(image).into_iter().map(|value| value as u8).collect();
        let picture = brisk_media::Picture::new(width, height, bytes).unwrap();
        std::fs::write(
            place.path("image.png"),
            brisk_media::encode_png(&picture, &[]).unwrap(),
        )
        .unwrap();
    }
    arguments.extend(extra);
    let outcome = place.ok(&arguments);
    let names: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(names.len(), count, "{case}: {}", outcome.stdout);
    let wanted: Vec<u8> = values(pixels)
        .into_iter()
        .map(|value| value as u8)
        .collect();
    for (name, wanted) in names.iter().zip(wanted.chunks(height * width * 3)) {
        let picture = brisk_media::read_picture(&place.path(name)).unwrap();
        let worst = picture
            .pixels
            .iter()
            .zip(wanted)
            .map(|(a, b)| a.abs_diff(*b))
            .max()
            .unwrap();
        assert!(
            picture.pixels.len() == wanted.len() && worst <= 1,
            "{case}: {name} is off by {worst}"
        );
    }
    let found = &load_tensors(place.path("final.safetensors"))["latents"];
    let distance = relative_l2(&values(found), &values(&tensors["outputs.latents"]));
    assert!(distance < 1e-4, "{case}: latents are off by {distance:e}");
}

#[test]
fn sana_as_recorded() {
    let instruction = fixture("pipelines/sana/instruction.txt");
    check("sana", "dpm4", &["--steps", "4"]);
    check(
        "sana",
        "dpm4_blurry",
        &["--steps", "4", "--negative-prompt", "blurry"],
    );
    check(
        "sana",
        "dpm4_instruction",
        &["--steps", "4", "--instruction", &instruction],
    );
    check(
        "sana",
        "dpm4_no_guidance",
        &["--steps", "4", "--guidance", "1"],
    );
    check("sana", "dpm4_wide_two", &["--steps", "4", "--images", "2"]);
    check("sana", "euler4", &["--steps", "4", "--scheduler", "euler"]);
    check(
        "sana",
        "pag0_adaptive",
        &[
            "--steps",
            "4",
            "--pag-scale",
            "2",
            "--pag-layers",
            "0",
            "--pag-adaptive",
            "0.005",
        ],
    );
    check("sana", "dpm20_seed42", &["--seed", "42"]);
}

#[test]
fn controlnet_as_recorded() {
    let controlnet = fixture("pipelines/sana/controlnet");
    let options = [
        "--steps",
        "4",
        "--controlnet",
        &controlnet,
        "--control-image",
    ];
    let image = ["image.png", "--control-scale", "0.7"];
    check(
        "sana",
        "controlnet_scale0.7",
        &[&options[..], &image[..]].concat(),
    );
}

#[test]
fn sprint_as_recorded() {
    check("sprint", "scm1_seed42", &["--steps", "1", "--seed", "42"]);
    check(
        "sprint",
        "scm2_two_seed7",
        &[
            "--steps",
            "2",
            "--seed",
            "7",
            "--num-images",
            "2",
            "--one-generator",
        ],
    );
    check(
        "sprint",
        "img2img_strength0.5",
        &[
            "--steps",
            "2",
            "--seed",
            "11",
            "--image",
            "image.png",
            "--strength",
            "0.5",
            "--strength-on-grid",
        ],
    );
}
