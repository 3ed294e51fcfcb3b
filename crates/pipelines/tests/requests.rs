//! Loading, refusing, cancelling, and the options that change what is computed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use brisk_media::Picture;
use brisk_models::sana::ControlWiring;
use brisk_models::sana::native::NativeHeads;
use brisk_nn::LoraFile;
use brisk_pipelines::events::Work;
use brisk_pipelines::families::sana::{LoadOptions, ModelKind, SanaPipeline, options as own};
use brisk_pipelines::options::keys;
use brisk_pipelines::{Control, Error, Event, ImageModel, ImageRequest, Residency};
use brisk_store::ModelFolder;
use brisk_testkit::{fixtures_dir, relative_l2};

fn fixture(name: &str) -> PathBuf {
    fixtures_dir().join(name)
}

fn disk(path: impl Into<PathBuf>) -> ModelFolder {
    ModelFolder::Disk(path.into())
}

/// A copy of `pipelines/sana` that a test may spoil.
fn copy_of_sana() -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    let source = disk(fixture("pipelines/sana"));
    for name in source
        .list()
        .into_iter()
        .filter(|name| !name.starts_with("cases"))
    {
        let path = target.path().join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, source.read(&name).unwrap()).unwrap();
    }
    target
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} is not in {}", path.display());
    std::fs::write(path, text.replace(from, to)).unwrap();
}

fn refusal(folder: &Path, options: &LoadOptions) -> String {
    let planned = SanaPipeline::load(disk(folder), options)
        .and_then(|pipeline| pipeline.plan(&small()).map(drop));
    match planned {
        Ok(()) => panic!("{} draws", folder.display()),
        Err(error) => error.to_string(),
    }
}

fn small() -> ImageRequest {
    ImageRequest::new("a red circle")
        .with(&keys::WIDTH, 64)
        .with(&keys::HEIGHT, 64)
        .with(&keys::STEPS, 2)
        .with(&own::INSTRUCTION, String::new())
}

fn latents(folder: ModelFolder, options: &LoadOptions, request: &ImageRequest) -> Vec<f32> {
    let mut pipeline = SanaPipeline::load(folder, options).unwrap();
    pipeline
        .draw(request, &Control::silent())
        .unwrap()
        .remove(0)
        .latents
        .unwrap()
        .values
}

#[test]
fn other_pipelines_and_incomplete_folders_are_named() {
    let options = LoadOptions::default();
    let empty = tempfile::tempdir().unwrap();
    assert!(refusal(empty.path(), &options).contains("model_index.json"));

    let copy = copy_of_sana();
    let index = copy.path().join("model_index.json");
    replace(&index, "\"SanaPipeline\"", "\"FluxPipeline\"");
    let message = refusal(copy.path(), &options);
    assert!(
        message.contains("this is Flux (FluxPipeline)") && message.contains("SANA-Sprint"),
        "{message}"
    );
    replace(&index, "\"FluxPipeline\"", "\"SanaPipeline\"");
    replace(&index, "\"AutoencoderDC\"", "\"AutoencoderKL\"");
    assert!(refusal(copy.path(), &options).contains("AutoencoderKL"));

    for missing in [
        "vae/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
    ] {
        let copy = copy_of_sana();
        std::fs::remove_file(copy.path().join(missing)).unwrap();
        let message = refusal(copy.path(), &options);
        let part = missing.split('/').next().unwrap();
        assert!(message.contains(part), "{missing}: {message}");
    }

    let copy = copy_of_sana();
    replace(
        &copy.path().join("scheduler/scheduler_config.json"),
        "DPMSolverMultistepScheduler",
        "DDIMScheduler",
    );
    assert!(refusal(copy.path(), &options).contains("DDIMScheduler"));
    let copy = copy_of_sana();
    replace(
        &copy.path().join("transformer/config.json"),
        "\"caption_channels\": 16",
        "\"caption_channels\": 24",
    );
    assert!(refusal(copy.path(), &options).contains("24"));
}

#[test]
fn weights_that_do_not_fit_are_reported_at_once() {
    let copy = copy_of_sana();
    replace(
        &copy.path().join("transformer/config.json"),
        "\"num_layers\": 2",
        "\"num_layers\": 3",
    );
    let mut pipeline = SanaPipeline::load(disk(copy.path()), &LoadOptions::default()).unwrap();
    let error = pipeline
        .draw(&small(), &Control::silent())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("missing") && error.contains("transformer_blocks.2"),
        "{error}"
    );
}

#[test]
fn what_a_model_cannot_do_is_refused_before_anything_runs() {
    let mut sprint =
        SanaPipeline::load(disk(fixture("pipelines/sprint")), &LoadOptions::default()).unwrap();
    assert_eq!(sprint.capabilities().kind, ModelKind::Sprint);
    let request = small().with(&keys::NEGATIVE_PROMPT, "blurry".to_owned());
    let error = sprint.draw(&request, &Control::silent()).unwrap_err();
    assert!(
        error.is_usage() && error.to_string().starts_with("negative-prompt"),
        "{error}"
    );

    let picture = Picture {
        width: 64,
        height: 64,
        pixels: vec![9; 64 * 64 * 3],
    };
    let mut sana =
        SanaPipeline::load(disk(fixture("pipelines/sana")), &LoadOptions::default()).unwrap();
    let request = small().with(&own::CONTROL_IMAGE, Arc::new(picture));
    let error = sana.draw(&request, &Control::silent()).unwrap_err();
    assert!(
        error.to_string().contains("no ControlNet is loaded"),
        "{error}"
    );
    let error = sana
        .draw(&small().with(&keys::WIDTH, 60), &Control::silent())
        .unwrap_err();
    assert!(error.to_string().contains("the nearest is 64"), "{error}");
}

#[test]
fn a_run_can_be_cancelled_between_steps() {
    let mut pipeline =
        SanaPipeline::load(disk(fixture("pipelines/sana")), &LoadOptions::default()).unwrap();
    let (sender, receiver) = mpsc::channel();
    let flag = Arc::new(AtomicBool::new(false));
    let stop = flag.clone();
    let control = Control::new(move |event| {
        if matches!(
            event,
            Event::Step {
                index: 3,
                total: 10,
                ..
            }
        ) {
            stop.store(true, Ordering::Relaxed);
        }
        drop(sender.send(event));
    })
    .with_cancel(flag);
    let request = small().with(&keys::STEPS, 10);
    let result = pipeline.draw(&request, &control);
    assert!(matches!(result, Err(Error::Cancelled)));
    let events: Vec<Event> = receiver.try_iter().collect();
    let steps = events
        .iter()
        .filter(|event| matches!(event, Event::Step { total: 10, .. }))
        .count();
    assert_eq!(steps, 3);
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Done { .. }))
    );
}

#[test]
fn events_tell_of_previews_memory_and_the_end() {
    let copy = copy_of_sana();
    let mut pipeline = SanaPipeline::load(disk(copy.path()), &LoadOptions::default()).unwrap();
    let (sender, receiver) = mpsc::channel();
    let control = Control::new(move |event| drop(sender.send(event)));
    let mut request = small()
        .with(&keys::STEPS, 4)
        .with(&keys::PREVIEW_INTERVAL, 2);
    request.options.remove(own::INSTRUCTION.definition());
    let images = pipeline.draw(&request, &control).unwrap();
    let events: Vec<Event> = receiver.try_iter().collect();
    let previews: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Preview { picture, .. } => Some(picture),
            _ => None,
        })
        .collect();
    assert_eq!(previews.len(), 1);
    assert_eq!((previews[0].width, previews[0].height), (64, 64));
    assert_ne!(previews[0].pixels, images[0].picture.pixels);
    for stage in ["text encoder", "transformer", "denoise", "decode"] {
        assert!(
            events
                .iter()
                .any(|event| matches!(event, Event::Stage { name, .. } if *name == stage)),
            "{stage}"
        );
    }
    assert_eq!(
        events
            .iter()
            .filter(|event| matches!(event, Event::Memory { .. }))
            .count(),
        3
    );
    assert!(matches!(
        events.last(),
        Some(Event::Done { results: 1, .. })
    ));
    let loads = events.iter().filter(|event| {
        matches!(
            event,
            Event::Stage {
                work: Work::Load,
                ..
            }
        )
    });
    assert!(loads.count() >= 2);
    let plan = pipeline.plan(&request).unwrap();
    assert_eq!(
        plan.warnings.len(),
        1,
        "brisk's own instruction is announced"
    );
    assert!(pipeline.plan(&small()).unwrap().warnings.is_empty());
}

#[test]
fn the_folders_instruction_is_used_and_an_empty_one_means_none() {
    let copy = copy_of_sana();
    let file = copy.path().join("complex_human_instruction.txt");
    let text = "Describe the picture.\nUser Prompt: ";
    let draw = |instruction: Option<String>| {
        let mut request = small();
        request.options.remove(own::INSTRUCTION.definition());
        let request = request.with_some(&own::INSTRUCTION, instruction);
        latents(disk(copy.path()), &LoadOptions::default(), &request)
    };
    let own = draw(None);
    std::fs::write(&file, text).unwrap();
    let from_folder = draw(None);
    assert_eq!(from_folder, draw(Some(text.to_owned())));
    assert!(relative_l2(&own, &from_folder) > 1e-4);
    std::fs::write(&file, "").unwrap();
    assert_eq!(draw(None), draw(Some(String::new())));
}

#[test]
fn the_folders_guidance_is_the_default() {
    let copy = copy_of_sana();
    let file = copy.path().join("generation_config.json");
    let draw = |guidance| {
        let request = small().with_some(&keys::GUIDANCE, guidance);
        latents(disk(copy.path()), &LoadOptions::default(), &request)
    };
    assert_eq!(draw(None), draw(Some(4.5)));
    std::fs::write(&file, r#"{"guidance_scale": 1.5}"#).unwrap();
    assert_eq!(draw(None), draw(Some(1.5)));
    std::fs::write(&file, r#"{"guidance_scale": "much"}"#).unwrap();
    let loaded = SanaPipeline::load(disk(copy.path()), &LoadOptions::default());
    let error = loaded.err().map(|error| error.to_string());
    let error = error.unwrap_or_default();
    assert!(error.contains("guidance_scale is \"much\""), "{error}");
}

#[test]
fn keeping_components_changes_nothing() {
    let keep = LoadOptions {
        residency: Residency::KeepAll,
        ..LoadOptions::default()
    };
    let drop = LoadOptions {
        residency: Residency::OneAtATime,
        ..LoadOptions::default()
    };
    let expected = latents(disk(fixture("pipelines/sana")), &drop, &small());
    let mut pipeline = SanaPipeline::load(disk(fixture("pipelines/sana")), &keep).unwrap();
    for _ in 0..2 {
        let images = pipeline.draw(&small(), &Control::silent()).unwrap();
        assert_eq!(images[0].latents.as_ref().unwrap().values, expected);
    }
    pipeline.release();
    let images = pipeline.draw(&small(), &Control::silent()).unwrap();
    assert_eq!(images[0].latents.as_ref().unwrap().values, expected);
}

/// A `.pth` file draws what the same weights draw in diffusers' naming.
#[test]
fn transformer_files_of_both_namings_agree() {
    let heads = Some(NativeHeads {
        attention: 3,
        cross_attention: 2,
    });
    for (name, parts) in [
        ("t1_base", "pipelines/sana"),
        ("t3_sprint", "pipelines/sprint"),
    ] {
        let options = |file: String| LoadOptions {
            transformer_file: Some(fixture(&file)),
            heads,
            vae: Some(disk(fixture(parts).join("vae"))),
            text_encoder: Some(disk(fixture(parts))),
            ..LoadOptions::default()
        };
        let nowhere = tempfile::tempdir().unwrap();
        let native = latents(
            disk(nowhere.path()),
            &options(format!("native/{name}/model.pth")),
            &small(),
        );
        let diffusers = latents(
            disk(nowhere.path()),
            &options(format!(
                "sana_transformer/{name}/diffusion_pytorch_model.safetensors"
            )),
            &small(),
        );
        assert!(relative_l2(&native, &diffusers) < 1e-5, "{name}");
    }
    let message = refusal(
        tempfile::tempdir().unwrap().path(),
        &LoadOptions {
            transformer_file: Some(fixture("native/t1_base/model.pth")),
            heads,
            ..LoadOptions::default()
        },
    );
    assert!(message.contains("text_encoder/config.json"), "{message}");
}

/// A ControlNet without an embedding of guidance is not a SANA-Sprint's.
#[test]
fn a_teachers_controlnet_does_not_steer_a_student() {
    let options = LoadOptions {
        controlnet: Some(disk(fixture("pipelines/sana/controlnet"))),
        ..LoadOptions::default()
    };
    let error = SanaPipeline::load(disk(fixture("pipelines/sprint")), &options)
        .err()
        .unwrap();
    let wanted = "the ControlNet (guidance_embeds false) was not made for this transformer";
    assert!(error.to_string().contains(wanted), "{error}");
}

/// At scale 0 a ControlNet of either wiring changes nothing; at scale 1 the wirings differ.
#[test]
fn controlnet_wirings() {
    let options = |wiring| LoadOptions {
        transformer_file: Some(fixture("native/controlnet/model.pth")),
        heads: Some(NativeHeads {
            attention: 3,
            cross_attention: 2,
        }),
        vae: Some(disk(fixture("pipelines/sana/vae"))),
        text_encoder: Some(disk(fixture("pipelines/sana"))),
        control_wiring: wiring,
        ..LoadOptions::default()
    };
    let pixels: Vec<u8> = (0..64 * 64 * 3)
        .map(|index| (index / 31 % 256) as u8)
        .collect();
    let draw = |wiring, scale| {
        let picture = Picture {
            width: 64,
            height: 64,
            pixels: pixels.clone(),
        };
        let request = small()
            .with(&own::CONTROL_IMAGE, Arc::new(picture))
            .with(&own::CONTROL_SCALE, scale);
        latents(disk(fixture("native")), &options(wiring), &request)
    };
    let (native, diffusers) = (Some(ControlWiring::Native), Some(ControlWiring::Diffusers));
    let without = draw(native, 0.0);
    assert!(relative_l2(&draw(diffusers, 0.0), &without) < 1e-6);
    let with = draw(native, 1.0);
    assert_eq!(
        with,
        draw(None, 1.0),
        "a .pth file brings the authors' wiring"
    );
    assert!(relative_l2(&with, &without) > 1e-3);
    assert!(relative_l2(&draw(diffusers, 1.0), &with) > 1e-3);
}

#[test]
fn lora_scales() {
    let options = |lora: Option<PathBuf>, scale| LoadOptions {
        transformer_file: Some(fixture(
            "sana_transformer/t1_base/diffusion_pytorch_model.safetensors",
        )),
        vae: Some(disk(fixture("pipelines/sana/vae"))),
        text_encoder: Some(disk(fixture("pipelines/sana"))),
        loras: lora
            .into_iter()
            .map(|path| LoraFile { path, scale })
            .collect(),
        ..LoadOptions::default()
    };
    let folder = fixture("lora/t1_base");
    let draw = |lora: Option<PathBuf>, scale| {
        latents(disk(fixture("lora")), &options(lora, scale), &small())
    };
    let without = draw(None, 1.0);
    assert!(relative_l2(&draw(Some(folder.clone()), 0.0), &without) < 1e-6);
    let with = draw(Some(folder.join("pytorch_lora_weights.safetensors")), 1.0);
    assert_eq!(with, draw(Some(folder), 1.0));
    assert!(relative_l2(&with, &without) > 1e-3);
}

#[test]
fn binned_pictures_have_the_size_asked_for() {
    let copy = copy_of_sana();
    replace(
        &copy.path().join("transformer/config.json"),
        "\"sample_size\": 8",
        "\"sample_size\": 16",
    );
    let mut pipeline = SanaPipeline::load(disk(copy.path()), &LoadOptions::default()).unwrap();
    let request = small()
        .with(&keys::WIDTH, 512)
        .with(&keys::HEIGHT, 400)
        .with(&keys::STEPS, 1);
    let image = pipeline
        .draw(&request, &Control::silent())
        .unwrap()
        .remove(0);
    assert_eq!((image.picture.width, image.picture.height), (512, 400));
    // 400 ÷ 512 is nearest to the bin of 448 × 576.
    assert_eq!(
        image.latents.as_ref().unwrap().shape,
        [1, 4, 448 / 8, 576 / 8]
    );
    assert_eq!(image.picture.pixels.len(), 512 * 400 * 3);
}

/// On the same grid the authors' behaviour differs where the negative prompt's mask matters: with guidance.
#[test]
fn native_behaviour_is_a_switch() {
    let draw = |native, scheduler: Option<&str>, guidance| {
        let options = LoadOptions {
            native,
            ..LoadOptions::default()
        };
        let request = small()
            .with_some(&own::SCHEDULER, scheduler.map(str::to_owned))
            .with(&keys::GUIDANCE, guidance);
        latents(disk(fixture("pipelines/sana")), &options, &request)
    };
    let dpm = Some("dpm");
    assert!(relative_l2(&draw(true, dpm, 1.0), &draw(false, dpm, 1.0)) < 1e-4);
    assert!(relative_l2(&draw(true, dpm, 4.5), &draw(false, dpm, 4.5)) > 1e-3);
    // Left to itself it also takes the authors' grid.
    let own = draw(true, None, 1.0);
    assert_eq!(own, draw(true, Some("dpm-native"), 1.0));
    assert!(relative_l2(&own, &draw(true, dpm, 1.0)) > 1e-3);
}
