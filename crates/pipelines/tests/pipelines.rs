//! Whole runs against diffusers' pipelines: every step's latents, the final latents, the picture.

use std::path::PathBuf;

use brisk_media::Picture;
use brisk_nn::Tensor;
use brisk_pipelines::sana::{GeneratedImage, LoadOptions, SanaPipeline};
use brisk_pipelines::schedulers::{SchedulerKind, scm};
use brisk_pipelines::{
    Control, ControlImage, DecodeMode, ImageRequest, InitImage, Instruction, Latents,
};
use brisk_store::ModelFolder;
use brisk_testkit::{fixtures_dir, load_tensors, relative_l2, values};
use serde_json::Value;

/// Relative L2 of latents.
const TOLERANCE: f64 = 1e-4;

fn folder(kind: &str) -> PathBuf {
    fixtures_dir().join("pipelines").join(kind)
}

fn model(kind: &str) -> ModelFolder {
    ModelFolder::Disk(folder(kind))
}

fn latents(tensor: &Tensor) -> Latents {
    let (batch, channels, height, width) = tensor.dims4().unwrap();
    Latents {
        shape: [batch, channels, height, width],
        values: values(tensor),
    }
}

fn picture(tensor: &Tensor) -> Picture {
    let (height, width, _) = tensor.dims3().unwrap();
    Picture {
        width,
        height,
        pixels: tensor.flatten_all().unwrap().to_vec1::<u8>().unwrap(),
    }
}

/// The request of one entry of `cases.json`.
fn request(case: &Value, tensors: &std::collections::HashMap<String, Tensor>) -> ImageRequest {
    let text = |key: &str| case[key].as_str().map(str::to_owned);
    let count = |key: &str| case[key].as_u64().map(|number| number as usize);
    let number = |key: &str| case[key].as_f64();
    let sprint = text("pipeline").unwrap().contains("Sprint");
    let steps = count("num_inference_steps").unwrap();
    let image = tensors.get("inputs.image").map(picture);
    let control = text("pipeline").unwrap().contains("ControlNet");
    let instruction = match case["complex_human_instruction"].as_array() {
        None => Instruction::None,
        Some(lines) => {
            let lines: Vec<_> = lines.iter().map(|line| line.as_str().unwrap()).collect();
            Instruction::Text(lines.join("\n"))
        }
    };
    ImageRequest {
        negative_prompt: text("negative_prompt"),
        width: count("width"),
        height: count("height"),
        // Diffusers' four-step grid is even; brisk's default is the paper's.
        steps: (!(sprint && steps == 4)).then_some(steps),
        scm_timesteps: (sprint && steps == 4).then(|| scm::uniform_angles(4)),
        guidance: number("guidance_scale").map(|value| value as f32),
        seed: case["seed"].as_u64().unwrap_or(0),
        images_per_prompt: count("num_images_per_prompt").unwrap_or(1),
        scheduler: (case["scheduler"] == "euler").then_some(SchedulerKind::FlowEuler),
        pag_scale: number("pag_scale").map(|value| value as f32),
        pag_adaptive: number("pag_adaptive_scale").map(|value| value as f32),
        pag_layers: text("pag_applied_layers")
            .map(|name| vec![name.rsplit('.').next().unwrap().parse().unwrap()]),
        control: image
            .clone()
            .filter(|_| control)
            .map(|picture| ControlImage {
                picture,
                scale: number("controlnet_conditioning_scale").unwrap() as f32,
            }),
        init: image.filter(|_| !control).map(|picture| InitImage {
            picture,
            strength: number("strength"),
            on_grid: true,
        }),
        latents: tensors.get("inputs.latents").map(latents),
        instruction: Some(instruction),
        ..ImageRequest::new(text("prompt").unwrap())
    }
}

/// Runs every case of a folder and reports the worst distance.
fn run_all(kind: &str) -> usize {
    let cases: Value =
        serde_json::from_slice(&std::fs::read(folder(kind).join("cases.json")).unwrap()).unwrap();
    let cases = cases.as_object().unwrap();
    for (name, case) in cases {
        let tensors = load_tensors(folder(kind).join(format!("cases/{name}.safetensors")));
        let request = request(case, &tensors);
        let options = LoadOptions {
            controlnet: request
                .control
                .as_ref()
                .map(|_| ModelFolder::Disk(folder(kind).join("controlnet"))),
            ..LoadOptions::default()
        };
        let mut pipeline = SanaPipeline::load(model(kind), &options).unwrap();
        let expected = &tensors["steps.latents"];
        let mut seen = 0;
        let images = pipeline
            .generate_traced(&request, &mut Control::silent(), &mut |step, latents| {
                let latents = latents.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
                let wanted = expected.narrow(0, step - 1, 1).unwrap();
                let distance = relative_l2(&values(&latents), &values(&wanted));
                assert!(
                    distance < TOLERANCE,
                    "{name}, step {step}: relative L2 {distance:e}"
                );
                seen += 1;
            })
            .unwrap();
        assert_eq!(seen, expected.dim(0).unwrap(), "{name}: steps");
        check_results(name, &images, &tensors);
    }
    cases.len()
}

fn check_results(
    name: &str,
    images: &[GeneratedImage],
    tensors: &std::collections::HashMap<String, Tensor>,
) {
    let expected = &tensors["outputs.latents"];
    assert_eq!(images.len(), expected.dim(0).unwrap(), "{name}: pictures");
    let found: Vec<f32> = images
        .iter()
        .flat_map(|image| image.latents.values.clone())
        .collect();
    let distance = relative_l2(&found, &values(expected));
    assert!(
        distance < TOLERANCE,
        "{name}: final latents, relative L2 {distance:e}"
    );
    let pixels = &tensors["outputs.pixels"];
    let pixels = pixels.flatten_all().unwrap().to_vec1::<u8>().unwrap();
    let found: Vec<u8> = images
        .iter()
        .flat_map(|image| image.picture.pixels.clone())
        .collect();
    assert_eq!(found.len(), pixels.len(), "{name}: pixels");
    let off = found
        .iter()
        .zip(&pixels)
        .map(|(a, b)| a.abs_diff(*b))
        .max()
        .unwrap();
    assert!(off <= 1, "{name}: a pixel is off by {off}");
}

#[test]
fn sana_matches_diffusers() {
    assert!(run_all("sana") >= 16);
}

#[test]
fn sprint_matches_diffusers() {
    assert!(run_all("sprint") >= 7);
}

fn small(prompt: &str) -> ImageRequest {
    ImageRequest {
        width: Some(64),
        height: Some(64),
        steps: Some(2),
        instruction: Some(Instruction::None),
        ..ImageRequest::new(prompt)
    }
}

/// With given latents, each picture of a request with several prompts is the one its prompt draws alone.
#[test]
fn prompts_and_pictures_are_paired() {
    let instruction = std::fs::read_to_string(folder("sana").join("instruction.txt")).unwrap();
    let mut pipeline = SanaPipeline::load(model("sana"), &LoadOptions::default()).unwrap();
    let prompts = ["a red circle", "two blue squares and one red ring"];
    for native in [false, true] {
        let options = LoadOptions {
            native,
            ..LoadOptions::default()
        };
        if native {
            pipeline = SanaPipeline::load(model("sana"), &options).unwrap();
        }
        let base = ImageRequest {
            instruction: Some(Instruction::Text(instruction.clone())),
            pag_scale: Some(1.5),
            pag_layers: Some(vec![1]),
            images_per_prompt: 2,
            ..small("")
        };
        let all: Vec<f32> = (0..4 * 256)
            .map(|index| ((index * 37 % 101) as f32 - 50.0) / 25.0)
            .collect();
        let together = ImageRequest {
            prompts: prompts.map(str::to_owned).to_vec(),
            latents: Some(Latents {
                shape: [4, 4, 8, 8],
                values: all.clone(),
            }),
            ..base.clone()
        };
        let together = pipeline
            .generate(&together, &mut Control::silent())
            .unwrap();
        for (index, prompt) in prompts.into_iter().enumerate() {
            let part = all[index * 512..(index + 1) * 512].to_vec();
            let alone = ImageRequest {
                prompts: vec![prompt.to_owned()],
                latents: Some(Latents {
                    shape: [2, 4, 8, 8],
                    values: part,
                }),
                ..base.clone()
            };
            let alone = pipeline.generate(&alone, &mut Control::silent()).unwrap();
            for (a, b) in alone.iter().zip(&together[index * 2..]) {
                assert_eq!(a.prompt, b.prompt);
                let distance = relative_l2(&a.latents.values, &b.latents.values);
                assert!(distance < 1e-5, "{prompt}: {distance:e}");
            }
        }
        let distance = relative_l2(&together[0].latents.values, &together[2].latents.values);
        assert!(distance > 1e-2, "the prompts make no difference");
    }
}

/// 576 rows are three strips, and two tiles.
#[test]
fn ways_to_decode_agree() {
    let mut pipeline = SanaPipeline::load(model("sana"), &LoadOptions::default()).unwrap();
    let mut draw = |decode, height| {
        let request = ImageRequest {
            decode,
            height: Some(height),
            ..small("a red circle")
        };
        pipeline
            .generate(&request, &mut Control::silent())
            .unwrap()
            .remove(0)
            .picture
            .pixels
    };
    let off = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    let whole = draw(DecodeMode::Whole, 576);
    assert_eq!(whole, draw(DecodeMode::Auto, 576));
    assert!(off(&whole, &draw(DecodeMode::Strips, 576)) <= 1);
    assert!(
        off(&whole, &draw(DecodeMode::Tiled, 576)) > 1,
        "tiles see only themselves"
    );
    assert_eq!(
        draw(DecodeMode::Whole, 64),
        draw(DecodeMode::Tiled, 64),
        "one tile is the whole"
    );
}

#[test]
fn an_initial_picture_shows_through_at_low_strength() {
    for kind in ["sana", "sprint"] {
        let mut pipeline = SanaPipeline::load(model(kind), &LoadOptions::default()).unwrap();
        let pixels: Vec<u8> = (0..64 * 64 * 3)
            .map(|index| (index / 97 % 256) as u8)
            .collect();
        let picture = Picture {
            width: 64,
            height: 64,
            pixels,
        };
        let mut draw = |strength: f64| {
            let request = ImageRequest {
                init: Some(InitImage {
                    picture: picture.clone(),
                    strength: Some(strength),
                    on_grid: false,
                }),
                steps: Some(20),
                ..small("a red circle")
            };
            pipeline
                .generate(&request, &mut Control::silent())
                .unwrap()
                .remove(0)
                .latents
                .values
        };
        let nearest = draw(0.05);
        let (near, far) = (
            relative_l2(&draw(0.1), &nearest),
            relative_l2(&draw(1.0), &nearest),
        );
        assert!(near < far, "{kind}: {near} {far}");
        let half = draw(0.5);
        assert!(half.iter().all(|value| value.is_finite()));
    }
}
