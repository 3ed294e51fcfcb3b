//! Whole runs of HunyuanVideo beside diffusers' pipelines (`reference/hunyuan_video_pipeline.py`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use brisk_media::read_picture;
use brisk_pipelines::options::{ClipLatents, keys, video_keys};
use brisk_pipelines::{Control, OpenSettings, VideoModel, VideoRequest, registry};
use brisk_store::{ModelFolder, TensorSource, open_weights};
use brisk_testkit::{fixtures_dir, relative_l2};
use serde_json::Value;

fn folder(case: &str) -> PathBuf {
    fixtures_dir().join(format!("pipelines/hunyuan_video_{case}"))
}

fn open(folder: &Path) -> brisk_pipelines::Result<Box<dyn VideoModel>> {
    registry::open_video(
        &ModelFolder::Disk(folder.to_owned()),
        &OpenSettings::default(),
    )
}

fn tensor(source: &dyn TensorSource, name: &str) -> (Vec<usize>, Vec<f32>) {
    let view = source.view(name).unwrap().unwrap();
    (view.shape.to_vec(), view.to_f32().unwrap())
}

/// The request of a case, without its noise.
fn request(case: &str) -> VideoRequest {
    let text = std::fs::read_to_string(folder(case).join("case.json")).unwrap();
    let said: Value = serde_json::from_str(&text).unwrap();
    let whole = |key: &str| said[key].as_u64().unwrap() as usize;
    let mut request = VideoRequest::new(said["prompt"].as_str().unwrap())
        .with(&video_keys::WIDTH, whole("width"))
        .with(&video_keys::HEIGHT, whole("height"))
        .with(&video_keys::FRAMES, whole("frames"))
        .with(&keys::STEPS, whole("steps"))
        .with(&keys::GUIDANCE, said["guidance"].as_f64().unwrap() as f32);
    if let Some(negative) = said["negative_prompt"].as_str() {
        request = request.with(&video_keys::NEGATIVE_PROMPT, negative.to_owned());
    }
    let first = folder(case).join("first.png");
    if first.exists() {
        request = request.with(&video_keys::IMAGE, Arc::new(read_picture(&first).unwrap()));
    }
    request
}

/// Latents within 1e-4, frames within a level.
#[test]
fn clips_are_the_references() {
    for case in ["text", "concat", "replace"] {
        let golden = open_weights(&folder(case).join("golden.safetensors")).unwrap();
        let (shape, values) = tensor(&*golden, "latents");
        let noise = ClipLatents {
            shape: shape.try_into().unwrap(),
            values,
        };
        let request = request(case).with(&video_keys::LATENTS, Arc::new(noise));
        let mut model = open(&folder(case)).unwrap();
        assert_eq!(model.needs_image(), case != "text");
        let plan = model.plan(&request).unwrap();
        let made = model.generate(&plan, &Control::silent()).unwrap();
        let last = format!("after.{}", plan.steps - 1);
        let (shape, wanted) = tensor(&*golden, &last);
        assert_eq!(made.latents.shape.to_vec(), shape);
        let off = relative_l2(&made.latents.values, &wanted);
        assert!(off < 1e-4, "{case}: latents {off:e}");
        let (shape, wanted) = tensor(&*golden, "frames");
        let frames = made.clip.frames();
        assert_eq!(shape, [frames.len(), plan.height, plan.width, 3], "{case}");
        assert_eq!(frames.len(), plan.frames);
        let found = frames.iter().flat_map(|frame| &frame.pixels);
        let most = found
            .zip(&wanted)
            .map(|(found, wanted)| (f32::from(*found) - wanted).abs());
        let most = most.fold(0.0, f32::max);
        assert!(most <= 1.0, "{case}: a value is off by {most} levels");
    }
}

#[test]
fn a_seed_repeats_its_clip() {
    let draw = || {
        let request = request("concat").with(&video_keys::FRAMES, 5);
        let mut model = open(&folder("concat")).unwrap();
        let plan = model.plan(&request).unwrap();
        let made = model.generate(&plan, &Control::silent()).unwrap();
        // Nothing is loaded anew for the next one.
        assert_eq!(
            made.clip,
            model.generate(&plan, &Control::silent()).unwrap().clip
        );
        made
    };
    let made = draw();
    assert_eq!(made.clip, draw().clip);
    assert_eq!((made.clip.rate(), made.clip.frames().len()), (24.0, 1));
}

#[test]
fn what_a_model_cannot_do_is_said_by_name() {
    let refused = |case: &str, request: VideoRequest| {
        open(&folder(case))
            .unwrap()
            .plan(&request)
            .unwrap_err()
            .to_string()
    };
    let base = || request("concat");
    let picture = base().options.get(&video_keys::IMAGE).unwrap();
    let mut bare = base();
    bare.options.remove(video_keys::IMAGE.definition());
    for (case, request, words) in [
        (
            "concat",
            bare,
            &["image", "begins clips with a picture"][..],
        ),
        (
            "text",
            request("text").with(&video_keys::IMAGE, picture),
            &["image", "from text alone"],
        ),
        (
            "concat",
            base().with(&video_keys::FRAMES, 10),
            &["frames", "9 and 13"],
        ),
        (
            "concat",
            base().with(&video_keys::WIDTH, 40),
            &["width", "32 or 48"],
        ),
        (
            "concat",
            base().with(&video_keys::HEIGHT, 7),
            &["height", "nearest are 16"],
        ),
        (
            "concat",
            base().with(&keys::GUIDANCE, 1.0),
            &["negative-prompt", "no effect"],
        ),
        (
            "text",
            request("text").with(&video_keys::NEGATIVE_PROMPT, "x".to_owned()),
            &["negative-prompt", "embeds its guidance"],
        ),
        (
            "concat",
            base().with(
                &video_keys::LATENTS,
                Arc::new(ClipLatents {
                    shape: [1, 4, 1, 2, 2],
                    values: vec![0.0; 16],
                }),
            ),
            &["latents", "[1, 4, 3, 4, 6]"],
        ),
        ("concat", base().with(&keys::STRENGTH, 0.5), &["strength"]),
        (
            "concat",
            base()
                .with(&video_keys::FRAMES, 9997)
                .with(&video_keys::WIDTH, 8192)
                .with(&video_keys::HEIGHT, 8192),
            &["MiB"],
        ),
    ] {
        let message = refused(case, request);
        for word in words {
            assert!(message.contains(word), "no {word:?} in {message}");
        }
    }
    let mut long = base();
    long.prompt = "a heart that jumps ".repeat(200);
    let warned = open(&folder("concat"))
        .unwrap()
        .plan(&long)
        .unwrap()
        .warnings;
    assert!(
        warned.iter().any(|text| text.contains("256 tokens")),
        "{warned:?}"
    );
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let copy = tempfile::tempdir().unwrap();
    let edit = |file: &str, from: &str, to: &str| {
        for part in [
            "transformer",
            "vae",
            "text_encoder",
            "text_encoder_2",
            "tokenizer",
            "tokenizer_2",
            "scheduler",
            "image_processor",
        ] {
            let (source, target) = (folder("concat").join(part), copy.path().join(part));
            std::fs::create_dir_all(&target).unwrap();
            for entry in std::fs::read_dir(source).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
            }
        }
        let path = copy.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        open(copy.path()).err().map(|error| error.to_string())
    };
    assert_eq!(edit("scheduler/scheduler_config.json", "7.0", "6.0"), None);
    for (file, from, to, word) in [
        (
            "scheduler/scheduler_config.json",
            "7.0",
            "-1",
            "`shift` is -1",
        ),
        (
            "scheduler/scheduler_config.json",
            "\"use_dynamic_shifting\": false",
            "\"use_dynamic_shifting\": true",
            "use_dynamic_shifting",
        ),
        (
            "scheduler/scheduler_config.json",
            "FlowMatchEulerDiscreteScheduler",
            "DDIMScheduler",
            "DDIMScheduler",
        ),
        (
            "image_processor/preprocessor_config.json",
            "12",
            "14",
            "sees 12 pixels",
        ),
        (
            "transformer/config.json",
            "\"pooled_projection_dim\": 24",
            "\"pooled_projection_dim\": 20",
            "hidden_size",
        ),
    ] {
        let message = edit(file, from, to).unwrap();
        assert!(message.contains(word), "no {word:?} in {message}");
    }
    edit("vae/config.json", "0.476986", "0.5");
    std::fs::remove_dir_all(copy.path().join("text_encoder_2")).unwrap();
    let message = open(copy.path()).err().unwrap().to_string();
    assert!(message.contains("text_encoder_2"), "{message}");
}
