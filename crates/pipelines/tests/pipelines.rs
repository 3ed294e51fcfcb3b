//! Whole runs against diffusers' pipelines: every step's latents, the final latents, the picture.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use brisk_media::Picture;
use brisk_nn::{Location, Precision, Tensor};
use brisk_pipelines::diffusion::schedulers::scm;
use brisk_pipelines::families::sana::{LoadOptions, SanaPipeline, options as own};
use brisk_pipelines::options::{Latents, keys};
use brisk_pipelines::{Control, Event, GeneratedImage, ImageModel, ImageRequest};
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

fn latents(tensor: &Tensor) -> Arc<Latents> {
    let (batch, channels, height, width) = tensor.dims4().unwrap();
    Arc::new(Latents {
        shape: [batch, channels, height, width],
        values: values(tensor),
    })
}

fn picture(tensor: &Tensor) -> Arc<Picture> {
    let (height, width, _) = tensor.dims3().unwrap();
    Arc::new(Picture {
        width,
        height,
        pixels: tensor.flatten_all().unwrap().to_vec1::<u8>().unwrap(),
    })
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
        None => String::new(),
        Some(lines) => {
            let lines: Vec<_> = lines.iter().map(|line| line.as_str().unwrap()).collect();
            lines.join("\n")
        }
    };
    let request = ImageRequest::new(text("prompt").unwrap())
        .with_some(&keys::WIDTH, count("width"))
        .with_some(&keys::HEIGHT, count("height"))
        // Diffusers' four-step grid is even; brisk's default is the paper's.
        .with_some(&keys::STEPS, (!(sprint && steps == 4)).then_some(steps))
        .with_some(
            &own::SCM_TIMESTEPS,
            (sprint && steps == 4).then(|| scm::uniform_angles(4)),
        )
        .with_some(
            &keys::GUIDANCE,
            number("guidance_scale").map(|value| value as f32),
        )
        .with(&keys::SEED, case["seed"].as_u64().unwrap_or(0))
        .with_some(&keys::IMAGES, count("num_images_per_prompt"))
        .with(&own::ONE_GENERATOR, true)
        .with_some(&keys::LATENTS, tensors.get("inputs.latents").map(latents))
        .with(&own::INSTRUCTION, instruction);
    let request = match image {
        Some(image) if control => request.with(&own::CONTROL_IMAGE, image).with(
            &own::CONTROL_SCALE,
            number("controlnet_conditioning_scale").unwrap() as f32,
        ),
        Some(image) => request
            .with(&keys::INIT_IMAGE, image)
            .with_some(&keys::STRENGTH, number("strength"))
            .with_some(&own::STRENGTH_ON_GRID, sprint.then_some(true)),
        None => request,
    };
    if sprint {
        return request;
    }
    request
        .with_some(&keys::NEGATIVE_PROMPT, text("negative_prompt"))
        .with_some(
            &own::SCHEDULER,
            (case["scheduler"] == "euler").then(|| "euler".to_owned()),
        )
        .with_some(
            &own::PAG_SCALE,
            number("pag_scale").map(|value| value as f32),
        )
        .with_some(
            &own::PAG_ADAPTIVE,
            number("pag_adaptive_scale").map(|value| value as f32),
        )
        .with_some(
            &own::PAG_LAYERS,
            text("pag_applied_layers")
                .map(|name| vec![name.rsplit('.').next().unwrap().parse().unwrap()]),
        )
}

/// Runs every `step`-th case of a folder, computing somewhere.
fn run_cases(kind: &str, location: &Location, step: usize) -> usize {
    let cases: Value =
        serde_json::from_slice(&std::fs::read(folder(kind).join("cases.json")).unwrap()).unwrap();
    let cases = cases.as_object().unwrap();
    for (name, case) in cases.iter().step_by(step) {
        let tensors = load_tensors(folder(kind).join(format!("cases/{name}.safetensors")));
        let request = request(case, &tensors);
        let options = LoadOptions {
            controlnet: request
                .options
                .has(own::CONTROL_IMAGE.definition())
                .then(|| ModelFolder::Disk(folder(kind).join("controlnet"))),
            location: location.clone(),
            ..LoadOptions::default()
        };
        let mut pipeline = SanaPipeline::load(model(kind), &options).unwrap();
        let expected = &tensors["steps.latents"];
        let (sender, receiver) = mpsc::channel();
        let control = Control::new(move |event| drop(sender.send(event))).with_latents();
        let images = pipeline.draw(&request, &control).unwrap();
        let mut seen = 0;
        for event in receiver.try_iter() {
            let Event::Latents { step, latents } = event else {
                continue;
            };
            let wanted = expected.narrow(0, step - 1, 1).unwrap();
            let distance = relative_l2(&latents.values, &values(&wanted));
            assert!(
                distance < TOLERANCE,
                "{name}, step {step}: relative L2 {distance:e}"
            );
            seen += 1;
        }
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
        .flat_map(|image| image.latents.as_ref().unwrap().values.clone())
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
    assert!(run_cases("sana", &Location::HOST, 1) >= 16);
}

#[test]
fn sprint_matches_diffusers() {
    assert!(run_cases("sprint", &Location::HOST, 1) >= 7);
}

#[test]
fn an_emulated_card_draws_what_diffusers_draws() {
    if brisk_cuda_emulated::is_missing() {
        return;
    }
    let device = brisk_cuda_emulated::device(Precision::Single, 3);
    let card = Location::from(device.expect("the emulator"));
    run_cases("sana", &card, 4);
    run_cases("sprint", &card, 3);
}

fn small(prompt: &str) -> ImageRequest {
    ImageRequest::new(prompt)
        .with(&keys::WIDTH, 64)
        .with(&keys::HEIGHT, 64)
        .with(&keys::STEPS, 2)
        .with(&own::INSTRUCTION, String::new())
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
        let base = small("")
            .with(&own::INSTRUCTION, instruction.clone())
            .with(&own::PAG_SCALE, 1.5)
            .with(&own::PAG_LAYERS, vec![1])
            .with(&keys::IMAGES, 2);
        let all: Vec<f32> = (0..4 * 256)
            .map(|index| ((index * 37 % 101) as f32 - 50.0) / 25.0)
            .collect();
        let noise = |shape, values: &[f32]| {
            Arc::new(Latents {
                shape,
                values: values.to_vec(),
            })
        };
        let with_prompts = |prompts: &[&str]| {
            let mut request = base.clone();
            request.prompts = prompts.iter().map(|prompt| (*prompt).to_owned()).collect();
            request
        };
        let together = with_prompts(&prompts).with(&keys::LATENTS, noise([4, 4, 8, 8], &all));
        let together = pipeline.draw(&together, &Control::silent()).unwrap();
        for (index, prompt) in prompts.into_iter().enumerate() {
            let part = noise([2, 4, 8, 8], &all[index * 512..(index + 1) * 512]);
            let alone = with_prompts(&[prompt]).with(&keys::LATENTS, part);
            let alone = pipeline.draw(&alone, &Control::silent()).unwrap();
            for (a, b) in alone.iter().zip(&together[index * 2..]) {
                assert_eq!(a.prompt, b.prompt);
                let distance = relative_l2(
                    &a.latents.as_ref().unwrap().values,
                    &b.latents.as_ref().unwrap().values,
                );
                assert!(distance < 1e-5, "{prompt}: {distance:e}");
            }
        }
        let distance = relative_l2(
            &together[0].latents.as_ref().unwrap().values,
            &together[2].latents.as_ref().unwrap().values,
        );
        assert!(distance > 1e-2, "the prompts make no difference");
    }
}

/// 576 rows are three strips, and two tiles.
#[test]
fn ways_to_decode_agree() {
    let mut pipeline = SanaPipeline::load(model("sana"), &LoadOptions::default()).unwrap();
    let mut draw = |decode: &str, height: usize| {
        let request = small("a red circle")
            .with(&own::DECODE, decode.to_owned())
            .with(&keys::HEIGHT, height);
        pipeline
            .draw(&request, &Control::silent())
            .unwrap()
            .remove(0)
            .picture
            .pixels
    };
    let off = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    let whole = draw("whole", 576);
    assert_eq!(whole, draw("auto", 576));
    assert!(off(&whole, &draw("strips", 576)) <= 1);
    assert!(
        off(&whole, &draw("tiled", 576)) > 1,
        "tiles see only themselves"
    );
    assert_eq!(
        draw("whole", 64),
        draw("tiled", 64),
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
            let request = small("a red circle")
                .with(&keys::INIT_IMAGE, Arc::new(picture.clone()))
                .with(&keys::STRENGTH, strength)
                .with(&keys::STEPS, 20);
            pipeline
                .draw(&request, &Control::silent())
                .unwrap()
                .remove(0)
                .latents
                .unwrap()
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
